use super::*;

fn read(status: u16, body: &str) -> Refusal {
    Refusal::read(status, body.as_bytes(), None, &RateHeaders::default(), 1000, &str::to_owned)
}

fn kind_of_message(message: &str) -> RefusalKind {
    read(422, &format!(r#"{{"id": "unprocessable_entity", "message": "{message}"}}"#)).kind
}

#[test]
fn the_three_shapes_of_an_error_body_are_read() {
    let usual =
        read(404, r#"{"id": "not_found", "message": "The resource was not found.", "request_id": "4d9d"}"#);
    assert_eq!(usual.to_string(), "The resource was not found. (HTTP 404 not_found, request 4d9d)");
    assert_eq!(usual.kind, RefusalKind::NotFound);

    let causes =
        read(400, r#"{"error": "invalid", "messages": null, "root_causes": ["name: too long", "b"]}"#);
    assert_eq!(causes.message, "invalid: name: too long; b");

    let page = read(502, "<html>\r\n<head><title>502 Bad Gateway</title></head><body>cloud\u{0}edge</body>");
    assert_eq!((page.message.as_str(), page.kind), ("502 Bad Gateway cloud edge", RefusalKind::Server));
    assert_eq!(read(500, "").message, "no error message");
}

#[test]
fn a_422_is_told_apart_by_its_words() {
    for (message, kind) in [
        ("Droplet already has a pending event.", RefusalKind::Busy),
        ("Could not create, please try again.", RefusalKind::Busy),
        ("creating this/these droplet(s) will exceed your droplet limit", RefusalKind::Quota),
        ("You have reached your limit of reserved IPs.", RefusalKind::Quota),
        ("The reserved IP already has a pending event.", RefusalKind::Busy),
        ("You specified an invalid size for Droplet creation.", RefusalKind::InvalidSpec),
        ("Size is not available in this region.", RefusalKind::InvalidSpec),
        ("The image is not available in the requested region.", RefusalKind::InvalidSpec),
        ("1234 are invalid key identifiers for Droplet creation.", RefusalKind::InvalidSpec),
        ("Tag name already exists", RefusalKind::AlreadyExists),
        ("The moon is in the wrong house.", RefusalKind::Unprocessable),
    ] {
        assert_eq!(kind_of_message(message), kind, "{message}");
    }
    let limited = read(422, r#"{"id": "droplet_limit_exceeded", "message": "No."}"#);
    assert_eq!(limited.kind, RefusalKind::Quota);
}

#[test]
fn an_unknown_422_is_slow_and_never_a_spec_error() {
    let unknown = read(422, r#"{"id": "unprocessable_entity", "message": "The moon."}"#);
    assert!(matches!(unknown.retry(), Retry::After(wait) if wait >= Duration::from_secs(60)), "{unknown:?}");
}

#[test]
fn only_the_apis_own_404_means_gone() {
    assert_eq!(read(404, "<html>nothing here</html>").kind, RefusalKind::Unexpected);
    assert_eq!(read(404, r#"{"message": "no route matched"}"#).kind, RefusalKind::Unexpected);
    assert_eq!(read(301, "").kind, RefusalKind::Unexpected);
}

#[test]
fn messages_are_bounded_and_cut_between_characters() {
    let long = read(500, &"\u{e9}".repeat(100_000));
    assert_eq!(long.message.chars().count(), MESSAGE_CHARS + 3);
}

#[test]
fn rate_refusals_wait_for_what_the_headers_say() {
    let headers = RateHeaders { retry_after: Some(Duration::from_secs(9)), ..RateHeaders::default() };
    let refusal = Refusal::read(429, b"{}", None, &headers, 1000, &str::to_owned);
    assert_eq!(refusal.retry(), Retry::After(Duration::from_secs(9)));
    let reset = RateHeaders { reset_unix: Some(1033), ..RateHeaders::default() };
    let refusal = Refusal::read(429, b"{}", None, &reset, 1000, &str::to_owned);
    assert_eq!(refusal.retry(), Retry::After(Duration::from_secs(33)));
}
