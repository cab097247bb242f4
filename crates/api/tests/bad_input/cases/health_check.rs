//! How gateways are watched, and what happens when none works: the same fields in both kinds.

use serde_json::{Value, json};

use super::{Case, Kind, Node, of_route, row, unread};

pub fn rows(kind: Kind, all: &mut Vec<Case>) {
    shape(kind, all);
    targets(kind, all);
    thresholds(kind, all);
    modes(kind, all);
}

/// What is no number that can be is for a node the nearest that can.
fn nearest(kind: Kind) -> Node {
    of_route(kind, Node::Routes)
}

fn shape(kind: Kind, all: &mut Vec<Case>) {
    all.push(row(
        kind,
        "spec.healthCheck",
        "a word",
        &json!({"healthCheck": "none"}),
        "spec.healthCheck in body must be of type object: \"string\"",
        unread(kind, "spec.healthCheck: invalid type: string \"none\", expected struct HealthCheck"),
    ));
    all.push(row(
        kind,
        "spec.healthCheck",
        "a hold-down that cannot grow",
        &json!({"healthCheck": {"holdDownSeconds": 60, "longestHoldDownSeconds": 30}}),
        "longestHoldDownSeconds must be at least holdDownSeconds: the hold-down grows from one to the other",
        nearest(kind),
    ));
}

fn targets(kind: Kind, all: &mut Vec<Case>) {
    let mut add = |field, bad: &str, targets: Value, refused: &str, node| {
        let patch = json!({"healthCheck": {"targets": targets}});
        all.push(row(kind, field, bad, &patch, refused, node));
    };
    let field = "spec.healthCheck.targets";
    add(
        field,
        "no list",
        json!("1.1.1.1:443"),
        "spec.healthCheck.targets in body must be of type array: \"string\"",
        unread(kind, "spec.healthCheck.targets: invalid type: string \"1.1.1.1:443\", expected a sequence"),
    );
    let nine: Vec<String> = (1..=9).map(|n| format!("1.1.1.{n}:443")).collect();
    let too_many = "spec.healthCheck.targets: Too many: 9: must have at most 8 items";
    add(field, "nine", json!(nine), too_many, nearest(kind));
    let field = "spec.healthCheck.targets[]";
    let path = "spec.healthCheck.targets[0]";
    add(
        field,
        "a number",
        json!([443]),
        &format!("{path} in body must be of type string: \"integer\""),
        unread(kind, format!("{path}: invalid type: integer `443`, expected a string")),
    );
    let no_target = "is not an IPv4 address and a port; write it like 1.1.1.1:443";
    let inside = "is not outside (unspecified, loopback, link-local, multicast or broadcast); write an address that only the internet has, like 1.1.1.1:443";
    for (bad, target, words) in [
        ("without a port", "203.0.113.7", no_target),
        ("a name", "example.com:443", no_target),
        ("five numbers", "1.1.1.1.1:90", no_target),
        ("port 0", "1.1.1.1:0", no_target),
        ("port out of range", "1.1.1.1:65536", no_target),
        ("IPv6", "[2001:db8::1]:443", no_target),
        ("a URL", "https://1.1.1.1", no_target),
        ("loopback", "127.0.0.1:443", inside),
        ("metadata", "169.254.169.254:80", inside),
        ("multicast", "224.0.0.5:443", inside),
        ("unspecified", "0.0.0.0:443", inside),
    ] {
        let refused = format!("{path}: Invalid value: \"{target}\": '{target}' {words}");
        add(field, &format!("{bad}: `{target}`"), json!([target]), &refused, nearest(kind));
    }
    let short = format!("{path} in body should be at least 9 chars long");
    add(field, "too short: `1.1:80`", json!(["1.1:80"]), &short, nearest(kind));
    let long = format!("{path}: Too long: may not be more than 21 bytes");
    add(field, "too long", json!(["100.100.100.100:0065535"]), &long, nearest(kind));
}

fn thresholds(kind: Kind, all: &mut Vec<Case>) {
    for (field, name, low, high) in [
        ("spec.healthCheck.intervalMilliseconds", "intervalMilliseconds", 20, 10_000),
        ("spec.healthCheck.fall", "fall", 2, 10),
        ("spec.healthCheck.rise", "rise", 1, 20),
        ("spec.healthCheck.pathIntervalMilliseconds", "pathIntervalMilliseconds", 200, 60_000),
        ("spec.healthCheck.holdDownSeconds", "holdDownSeconds", 0, 600),
        ("spec.healthCheck.longestHoldDownSeconds", "longestHoldDownSeconds", 1, 3_600),
        ("spec.healthCheck.lossPercent", "lossPercent", 10, 90),
    ] {
        number(kind, field, (low, high), &|value| json!({"healthCheck": {name: value}}), all);
    }
    number(kind, "spec.drainSeconds", (0, 3_600), &|value| json!({"drainSeconds": value}), all);
}

fn number(
    kind: Kind,
    field: &'static str,
    (low, high): (i64, i64),
    patch: &dyn Fn(Value) -> Value,
    all: &mut Vec<Case>,
) {
    for (bad, value, words) in [
        ("too low", low - 1, format!("greater than or equal to {low}")),
        ("too high", high + 1, format!("less than or equal to {high}")),
    ] {
        let refused = format!("{field} in body should be {words}");
        all.push(row(kind, field, format!("{bad}: `{value}`"), &patch(json!(value)), refused, nearest(kind)));
    }
    let refused = format!("{field} in body must be of type integer: \"string\"");
    let node = unread(kind, format!("{field}: invalid type: string \"5s\", expected i32"));
    all.push(row(kind, field, "a word: `5s`", &patch(json!("5s")), refused, node));
}

fn modes(kind: Kind, all: &mut Vec<Case>) {
    let field = "spec.onNoGateway";
    let known = "`KeepLast`, `FailClosed`, `FailOpen`";
    all.push(row(
        kind,
        field,
        "unknown: `Drop`",
        &json!({"onNoGateway": "Drop"}),
        "spec.onNoGateway: Unsupported value: \"Drop\": supported values: \"KeepLast\", \"FailClosed\", \"FailOpen\"",
        unread(kind, format!("{field}: unknown variant `Drop`, expected one of {known}")),
    ));
    all.push(row(
        kind,
        field,
        "a truth value",
        &json!({"onNoGateway": true}),
        "spec.onNoGateway in body must be of type string: \"boolean\"",
        unread(kind, format!("{field}: invalid type: boolean `true`, expected string or map")),
    ));
}
