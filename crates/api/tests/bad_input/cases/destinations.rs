//! `destinations` and `excludedDestinations`, which both kinds have.

use serde_json::{Value, json};

use super::{Case, Kind, Node, OWN, of_route, row, unread};

const NOT_A_PREFIX: &str =
    "is neither an IPv4 address nor a prefix; write it like 203.0.113.7 or 203.0.113.0/24";
const IPV6: &str = "is IPv6, which DigitalOcean Kubernetes nodes do not have; remove it";
const HOST_BITS: &str = "has bits set behind its prefix length; clear them (10.9.0.0/24, not 10.9.0.1/24) or, for one host, leave the length out";
const UNSPECIFIED: &str = "is no destination; write 0.0.0.0/0 for all egress";

pub fn rows(kind: Kind, all: &mut Vec<Case>) {
    lists(kind, all);
    for (bad, value, at_server, at_node) in [
        ("a word", "everything", NOT_A_PREFIX, NOT_A_PREFIX),
        ("a name", "api.example.com", NOT_A_PREFIX, NOT_A_PREFIX),
        ("out of range", "999.1.1.1", NOT_A_PREFIX, NOT_A_PREFIX),
        ("length out of range", "10.9.0.0/33", NOT_A_PREFIX, NOT_A_PREFIX),
        ("a netmask", "10.9.0.0/255.255.255.0", NOT_A_PREFIX, NOT_A_PREFIX),
        ("leading zero", "010.9.0.0/24", NOT_A_PREFIX, NOT_A_PREFIX),
        ("length with a leading zero", "10.9.0.0/024", NOT_A_PREFIX, NOT_A_PREFIX),
        ("three numbers", "10.9.0", NOT_A_PREFIX, NOT_A_PREFIX),
        ("from-to", "10.9.0.1-10.9.0.9", NOT_A_PREFIX, NOT_A_PREFIX),
        ("a port", "1.1.1.1:443", NOT_A_PREFIX, NOT_A_PREFIX),
        ("a space", " 1.1.1.1", NOT_A_PREFIX, NOT_A_PREFIX),
        ("IPv4 in IPv6", "::ffff:1.1.1.1", NOT_A_PREFIX, IPV6),
        ("IPv6", "2001:db8::1", IPV6, IPV6),
        ("an IPv6 prefix", "2001:db8::/32", IPV6, IPV6),
        ("all of IPv6", "::/0", IPV6, IPV6),
        (
            "host bits",
            "10.9.0.1/24",
            HOST_BITS,
            "has bits set behind its prefix length; write 10.9.0.0/24 or, for one host, leave the length out",
        ),
        (
            "everything with host bits",
            "1.0.0.0/0",
            HOST_BITS,
            "has bits set behind its prefix length; write 0.0.0.0/0 or, for one host, leave the length out",
        ),
    ] {
        entries(kind, bad, &json!(value), &format!("'{value}' {at_server}"), Some((value, at_node)), all);
    }
    for value in ["0.0.0.0", "0.0.0.0/32"] {
        let refused = format!("0.0.0.0 {UNSPECIFIED}");
        entries(kind, "nobody's address", &json!(value), &refused, Some((value, UNSPECIFIED)), all);
    }
    entries(
        kind,
        "empty",
        &json!(""),
        "in body should be at least 1 chars long",
        Some(("", NOT_A_PREFIX)),
        all,
    );
    let long = "1".repeat(44);
    let too_long = "Too long: may not be more than 43 bytes";
    entries(kind, "44 letters", &json!(long), too_long, Some((&long, NOT_A_PREFIX)), all);
    entries(kind, "a number", &json!(5), "in body must be of type string: \"integer\"", None, all);
}

/// The bad value in each of the two lists. `at_node`: the value and what a node says of it, if it can read the object.
fn entries(
    kind: Kind,
    bad: &str,
    value: &Value,
    refused: &str,
    at_node: Option<(&str, &str)>,
    all: &mut Vec<Case>,
) {
    for (field, path, patch) in [
        ("spec.destinations[]", "spec.destinations[1]", json!({"destinations": [OWN, value]})),
        (
            "spec.excludedDestinations[]",
            "spec.excludedDestinations[0]",
            json!({"excludedDestinations": [value]}),
        ),
    ] {
        let node = match at_node {
            None => unread(kind, format!("{path}: invalid type: integer `{value}`, expected a string")),
            Some((value, words)) => {
                let words = format!("{path}: '{value}' {words}");
                let is_exclusion = path.contains("excluded");
                // Without one of its exclusions an object would route what it must not.
                of_route(
                    kind,
                    if is_exclusion {
                        Node::Nothing("Invalid", words)
                    } else {
                        Node::LeavesOut("Invalid", words)
                    },
                )
            }
        };
        let words =
            if refused.starts_with("in body") { format!("{path} {refused}") } else { refused.to_owned() };
        all.push(row(kind, field, format!("{bad}: `{}`", short(value)), &patch, words, node));
    }
}

fn short(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    if text.len() > 40 { format!("{}…", &text[..8]) } else { text }
}

fn lists(kind: Kind, all: &mut Vec<Case>) {
    let networks = |count: usize, second: usize| -> Vec<String> {
        (0..count).map(|n| format!("100.{}.{}.0/24", second + n / 250, n % 250)).collect()
    };
    let mut add = |field, bad: &str, patch: &Value, refused: &str, node| {
        all.push(row(kind, field, bad, patch, format!("{field}{refused}"), node));
    };
    let list = "spec.destinations";
    let missing = unread(kind, "spec: missing field `destinations`");
    add(list, "missing", &json!({"destinations": null}), ": Required value", missing);
    let empty = "spec.destinations: is empty; list what is to be routed, or delete the StaticRoute";
    let empty = of_route(kind, Node::Keeps(empty.to_owned()));
    add(list, "empty", &json!({"destinations": []}), " in body should have at least 1 items", empty);
    let no_list = " in body must be of type array: \"string\"";
    let words = "invalid type: string \"1.1.1.1\", expected a sequence";
    add(
        list,
        "no list",
        &json!({"destinations": "1.1.1.1"}),
        no_list,
        unread(kind, format!("{list}: {words}")),
    );
    let too_many = ": Too many: 10001: must have at most 10000 items";
    let patch = json!({"destinations": networks(10_001, 64)});
    add(list, "10,001 destinations", &patch, too_many, of_route(kind, Node::Routes));

    let list = "spec.excludedDestinations";
    let node = unread(kind, format!("{list}: {words}"));
    add(list, "no list", &json!({"excludedDestinations": "1.1.1.1"}), no_list, node);
    let too_many = ": Too many: 1001: must have at most 1000 items";
    let patch = json!({"excludedDestinations": networks(1_001, 110)});
    add(list, "1,001 exclusions", &patch, too_many, of_route(kind, Node::Routes));
}
