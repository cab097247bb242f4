//! Where public addresses come from: the controller's, which nodes do not read.

use serde_json::{Value, json};

use super::{Case, Kind, Node, row};

const GIVEN: &str = "203.0.113.40";

pub fn rows(all: &mut Vec<Case>) {
    let mut add = |field, bad: &str, patch: Value, refused: &str, node| {
        all.push(row(Kind::EgressGateway, field, bad, &patch, refused, node));
    };
    let warns = |words: &str| Node::Warns(words.to_owned());
    let field = "spec.publicIP";
    add(
        field,
        "missing",
        json!({"publicIP": null}),
        "spec.publicIP: Required value",
        warns("spec: missing field `publicIP`"),
    );
    for value in ["Fixed", "ephemeral", "floating"] {
        add(
            field,
            &format!("unknown: `{value}`"),
            json!({"publicIP": value}),
            &format!(
                "spec.publicIP: Unsupported value: \"{value}\": supported values: \"Ephemeral\", \"ReservedPerGateway\", \"Floating\""
            ),
            warns(&format!(
                "spec.publicIP: unknown variant `{value}`, expected one of `Ephemeral`, `ReservedPerGateway`, `Floating`"
            )),
        );
    }
    add(
        field,
        "a number",
        json!({"publicIP": 4}),
        "spec.publicIP in body must be of type string: \"integer\"",
        warns("spec.publicIP: invalid type: integer `4`, expected string or map"),
    );
    reserved_ips(all);
}

fn reserved_ips(all: &mut Vec<Case>) {
    let mut add = |field, bad: &str, given: Value, refused: &str, node| {
        let patch = json!({"publicIP": "ReservedPerGateway", "reservedIPs": given, "replicas": 5});
        all.push(row(Kind::EgressGateway, field, bad, &patch, refused, node));
    };
    let field = "spec.reservedIPs";
    add(
        field,
        "no list",
        json!(GIVEN),
        "spec.reservedIPs in body must be of type array: \"string\"",
        Node::Warns(format!("spec.reservedIPs: invalid type: string \"{GIVEN}\", expected a sequence")),
    );
    let many: Vec<String> = (40..46).map(|last| format!("203.0.113.{last}")).collect();
    add(
        field,
        "6 entries",
        json!(many),
        "spec.reservedIPs: Too many: 6: must have at most 5 items",
        Node::Ignores,
    );
    add(
        "spec.reservedIPs[]",
        "a number",
        json!([40]),
        "spec.reservedIPs[0] in body must be of type string: \"integer\"",
        Node::Warns("spec.reservedIPs[0]: invalid type: integer `40`, expected a string".to_owned()),
    );
    add(
        "spec.reservedIPs[]",
        "16 letters",
        json!(["203.0.113.40/320"]),
        "spec.reservedIPs[0]: Too long: may not be more than 15 bytes",
        Node::Ignores,
    );
    let fix = "must be IPv4 addresses, as doctl compute reserved-ip list shows them, like 203.0.113.40";
    for bad in ["", "203.0.113.256", "203.0.113.0/24", "2001:db8::1", "db.example.com"] {
        add(field, &format!("no address: `{bad}`"), json!([bad]), fix, Node::Ignores);
    }
    let twice = "an address is listed twice; every gateway needs one of its own";
    add(field, "an address twice", json!([GIVEN, GIVEN]), twice, Node::Ignores);
    let mut add = |bad: &str, patch: Value, refused: &str| {
        all.push(row(Kind::EgressGateway, "spec", bad, &patch, refused, Node::Ignores));
    };
    add(
        "`reservedIPs` with `publicIP: Ephemeral`",
        json!({"reservedIPs": [GIVEN]}),
        "reservedIPs are used with publicIP: ReservedPerGateway or Floating only; write one of these, or leave reservedIPs out",
    );
    add(
        "two `reservedIPs` with `publicIP: Floating`",
        json!({"publicIP": "Floating", "reservedIPs": [GIVEN, "203.0.113.41"]}),
        "with publicIP: Floating all gateways have one address; name one in reservedIPs, or write ReservedPerGateway",
    );
    add(
        "`mode: ActiveActive` with `publicIP: Floating`",
        json!({"publicIP": "Floating", "mode": "ActiveActive"}),
        "with publicIP: Floating one gateway at a time has the address and carries the traffic; leave mode out, or write publicIP: ReservedPerGateway",
    );
    add(
        "`existingDroplets` with `publicIP: Floating`",
        json!({"publicIP": "Floating", "existingDroplets": [400_000_011]}),
        "existingDroplets keep the addresses that they have, and cannot take one that moves; leave them out, or write publicIP: Ephemeral",
    );
    add(
        "more `reservedIPs` than `replicas`",
        json!({"publicIP": "ReservedPerGateway", "replicas": 1, "reservedIPs": [GIVEN, "203.0.113.41"]}),
        "reservedIPs has more addresses than there are gateways; raise replicas, or leave some out",
    );
}
