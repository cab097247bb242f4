use super::*;

#[test]
fn routes_match_by_method_segment_and_rest() {
    let cases = [
        ("POST /v2/droplets", "POST", "/v2/droplets", true),
        ("POST /v2/droplets", "GET", "/v2/droplets", false),
        ("POST /v2/droplets", "POST", "/v2/droplets/1/actions", false),
        ("GET /v2/droplets/*", "GET", "/v2/droplets/1", true),
        ("GET /v2/droplets/*", "GET", "/v2/droplets", false),
        ("* /v2/**", "DELETE", "/v2/droplets/1", true),
        ("* /v2/**", "GET", "/v2", true),
    ];
    for (route, method, path, expected) in cases {
        assert_eq!(matches(route, method, path), expected, "{route} against {method} {path}");
    }
}

#[test]
fn strikes_are_counted_and_skipped() {
    let text = r#"[{"route": "GET /v2/account", "times": 1, "skip": 1, "kind": {"status": 500}}]"#;
    let mut faults: Vec<Fault> = serde_json::from_str(text).unwrap();
    let struck: Vec<bool> = (0..4).map(|_| strike(&mut faults, "GET", "/v2/account").is_some()).collect();
    assert_eq!(struck, [false, true, false, false]);
}

#[test]
fn every_kind_can_be_written() {
    for kind in [
        r#""reset_before_commit""#,
        r#""vanish""#,
        r#"{"status": 502, "body": "<html></html>"}"#,
        r#"{"delay_ms": 5}"#,
        r#"{"truncate": 10, "honest_length": true}"#,
        r#"{"create": {"hidden_gets": 3}}"#,
    ] {
        serde_json::from_str::<Kind>(kind).unwrap_or_else(|error| panic!("{kind}: {error}"));
    }
}

#[test]
fn a_fault_that_cannot_be_read_or_could_never_strike_is_refused_by_its_field() {
    let fault = |route: &str, kind: &str| format!(r#"{{"route": "{route}", "kind": {kind}}}"#);
    let refused = [
        (
            fault("POST", r#""vanish""#),
            r#"route: "POST": write a method and a path, like "POST /v2/droplets""#,
        ),
        (
            fault("FETCH /v2/droplets", r#""vanish""#),
            r#"route: "FETCH /v2/droplets": the method is GET, POST, PUT, PATCH, DELETE or * for any"#,
        ),
        (fault("GET v2/account", r#"{"status": 500}"#), r#"route: "GET v2/account": the path begins with /"#),
        (
            fault("GET /v2/droplets?tag_name=a", r#"{"status": 500}"#),
            r#"route: "GET /v2/droplets?tag_name=a": a path is segments between single slashes, without a query"#,
        ),
        (
            fault("GET /v2/**/actions", r#"{"status": 500}"#),
            r#"route: "GET /v2/**/actions": ** stands for any rest, so nothing can follow it"#,
        ),
        (
            fault("GET /simulator/state", r#"{"status": 500}"#),
            r#"route: "GET /simulator/state": requests that faults can meet are below /v2"#,
        ),
        (
            fault("GET /v2/droplets", r#""vanish""#),
            r#"kind: only POST /v2/droplets creates a Droplet, and "GET /v2/droplets" is not it"#,
        ),
        (
            fault("GET /v2/droplets", r#"{"create": {"hidden_gets": 3}}"#),
            r#"kind: only POST /v2/droplets creates a Droplet, and "GET /v2/droplets" is not it"#,
        ),
        (
            fault("GET /v2/account", r#"{"status": 9999}"#),
            "kind.status: 9999: an answer has one from 200 to 599",
        ),
        (
            fault("GET /v2/account", r#"{"status": "503"}"#),
            r#"kind: invalid type: string "503", expected u16"#,
        ),
        (
            fault("GET /v2/account", r#"{"delay_ms": 5, "before": true}"#),
            "kind: unknown field `before`, expected `delay_ms` or `before_commit`",
        ),
        (
            fault("GET /v2/account", r#"{"delay": 5}"#),
            "kind: a word, or an object with status, delay_ms, truncate or create, is expected",
        ),
        (
            r#"{"route": "GET /v2/account", "times": 0, "kind": "truncate"}"#.into(),
            "times: 0: it would never strike; absent means always",
        ),
        (
            r#"{"route": "GET /v2/account", "time": 1, "kind": "truncate"}"#.into(),
            "time: unknown field `time`, expected one of `route`, `times`, `skip`, `kind`",
        ),
        (
            format!(
                "[{}, {}]",
                fault("GET /v2/account", r#""truncate""#),
                fault("GET /v2/account", r#""vansih""#)
            ),
            "[1].kind: unknown variant `vansih`, expected one of `reset_before_commit`, `reset_after_commit`, \
             `truncate`, `vanish`, `stuck_new`, `action_errored`",
        ),
    ];
    for (text, expected) in refused {
        assert_eq!(Fault::read_all(text.as_bytes()), Err(expected.to_owned()), "{text}");
    }
    for taken in [
        fault("* /**", r#""vanish""#),
        fault("* /v2/**", r#"{"create": {"vanish": 5}}"#),
        fault("GET /v2/tags/*/resources", r#"{"status": 404}"#),
    ] {
        Fault::read_all(taken.as_bytes()).unwrap_or_else(|error| panic!("{taken}: {error}"));
    }
}
