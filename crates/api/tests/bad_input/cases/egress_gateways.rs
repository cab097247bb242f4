//! What only an EgressGateway has. Nodes read the health targets of it; the rest is the controller's.

use serde_json::{Value, json};

use super::{Case, Kind, Node, row};

pub fn rows(all: &mut Vec<Case>) {
    let mut add = |field, bad: &str, patch: Value, refused: &str, node| {
        all.push(row(Kind::EgressGateway, field, bad, &patch, refused, node));
    };
    let warns = |words: &str| Node::Warns(words.to_owned());
    add(
        "spec",
        "a field that there is not",
        json!({"replica": 2}),
        "strict decoding error: unknown field \"spec.replica\"",
        Node::Ignores,
    );
    add(
        "spec",
        "no object",
        json!("everything"),
        "spec in body must be of type object: \"string\"",
        warns("spec: invalid type: string \"everything\", expected struct EgressGatewaySpec"),
    );
    let field = "spec.replicas";
    let low = "spec.replicas in body should be greater than or equal to 1";
    let high = "spec.replicas in body should be less than or equal to 5";
    add(field, "none", json!({"replicas": 0}), low, Node::Ignores);
    add(field, "negative", json!({"replicas": -1}), low, Node::Ignores);
    add(field, "too many: `6`", json!({"replicas": 6}), high, Node::Ignores);
    add(
        field,
        "far too many",
        json!({"replicas": 5_000_000_000_u64}),
        high,
        warns("spec.replicas: invalid value: integer `5000000000`, expected i32"),
    );
    add(
        field,
        "a text",
        json!({"replicas": "2"}),
        "spec.replicas in body must be of type integer: \"string\"",
        warns("spec.replicas: invalid type: string \"2\", expected i32"),
    );
    let (field, entry) = ("spec.existingDroplets", "spec.existingDroplets[]");
    let low = "spec.existingDroplets[0] in body should be greater than or equal to 1";
    add(entry, "no id: `0`", json!({"existingDroplets": [0]}), low, Node::Ignores);
    let many = "spec.existingDroplets: Too many: 6: must have at most 5 items";
    add(
        field,
        "6 entries",
        json!({"replicas": 5, "existingDroplets": [1, 2, 3, 4, 5, 6]}),
        many,
        Node::Ignores,
    );
    add(
        field,
        "more than `replicas`",
        json!({"replicas": 2, "existingDroplets": [1, 2, 3]}),
        "spec.existingDroplets must not be longer than spec.replicas is high: they count towards it; raise replicas or name fewer",
        Node::Ignores,
    );
    add(
        field,
        "one twice",
        json!({"existingDroplets": [7, 7]}),
        "spec.existingDroplets[1]: Duplicate value: 7",
        Node::Ignores,
    );
    add(
        field,
        "no list",
        json!({"existingDroplets": 7}),
        "spec.existingDroplets in body must be of type array: \"integer\"",
        warns("spec.existingDroplets: invalid type: integer `7`, expected a sequence"),
    );
    add(
        entry,
        "a name",
        json!({"existingDroplets": ["my-nat"]}),
        "spec.existingDroplets[0] in body must be of type integer: \"string\"",
        warns("spec.existingDroplets[0]: invalid type: string \"my-nat\", expected i64"),
    );
    for mode in ["Both", "activeactive"] {
        add(
            "spec.mode",
            &format!("unknown: `{mode}`"),
            json!({"mode": mode}),
            &format!(
                "spec.mode: Unsupported value: \"{mode}\": supported values: \"ActiveStandby\", \"ActiveActive\""
            ),
            warns(&format!(
                "spec.mode: unknown variant `{mode}`, expected `ActiveStandby` or `ActiveActive`"
            )),
        );
    }
    add(
        "spec.mode",
        "a number",
        json!({"mode": 2}),
        "spec.mode in body must be of type string: \"integer\"",
        warns("spec.mode: invalid type: integer `2`, expected string or map"),
    );
    let field = "spec.deletionPolicy";
    add(
        field,
        "unknown: `Keep`",
        json!({"deletionPolicy": "Keep"}),
        &format!("{field}: Unsupported value: \"Keep\": supported values: \"Delete\", \"Retain\""),
        warns(&format!("{field}: unknown variant `Keep`, expected `Delete` or `Retain`")),
    );
    add(
        field,
        "a number",
        json!({"deletionPolicy": 1}),
        &format!("{field} in body must be of type string: \"integer\""),
        warns(&format!("{field}: invalid type: integer `1`, expected string or map")),
    );
    add(
        "spec.healthCheck",
        "without a target",
        json!({"healthCheck": {"targets": []}}),
        "targets must not be empty: without one no gateway could be proven; list addresses outside, like 1.1.1.1:443, or leave healthCheck.targets out",
        Node::Ignores,
    );
    droplet(all);
}

fn droplet(all: &mut Vec<Case>) {
    let mut add = |field, bad: &str, patch: Value, refused: &str, node| {
        all.push(row(Kind::EgressGateway, field, bad, &json!({"droplet": patch}), refused, node));
    };
    let warns = |words: &str| Node::Warns(words.to_owned());
    add(
        "spec.droplet",
        "a word",
        json!("small"),
        "spec.droplet in body must be of type object: \"string\"",
        warns("spec.droplet: invalid type: string \"small\", expected struct DropletTemplate"),
    );
    for (field, name, limit, slug) in [
        ("spec.droplet.region", "region", 32, "a region, like nyc1"),
        ("spec.droplet.size", "size", 64, "a size, like s-1vcpu-1gb"),
        ("spec.droplet.image", "image", 64, "an image, like debian-13-x64"),
    ] {
        let with = |value: Value| json!({name: value});
        let number = format!("{field} in body must be of type string: \"integer\"");
        add(
            field,
            "a number",
            with(json!(1)),
            &number,
            warns(&format!("{field}: invalid type: integer `1`, expected a string")),
        );
        let empty = format!("{field} in body should be at least 1 chars long");
        add(field, "empty", with(json!("")), &empty, Node::Ignores);
        let too_long = format!("{field}: Too long: may not be more than {limit} bytes");
        add(
            field,
            &format!("{} letters", limit + 1),
            with(json!("a".repeat(limit + 1))),
            &too_long,
            Node::Ignores,
        );
        for value in ["New York", "../nyc1"] {
            let fix = format!("may have letters, digits, '.', '_' and '-' only; write the slug of {slug}");
            let refused = format!("{field}: Invalid value: \"{value}\": {fix}");
            add(field, &format!("no slug: `{value}`"), with(json!(value)), &refused, Node::Ignores);
        }
    }
    let uuids =
        [("spec.droplet.vpcUUID", "vpcUUID", "vpcs"), ("spec.droplet.projectID", "projectID", "projects")];
    for (field, name, list) in uuids {
        let no_uuid =
            format!("is no UUID; write the one that doctl {list} list shows, in lower case, or leave it out");
        for (bad, value) in [
            ("empty", ""),
            ("a name", "default-nyc1"),
            ("wrong case", "5A4981AA-9653-4BD1-BEF5-D6BFF52042E4"),
            ("too short", "5a4981aa-9653-4bd1-bef5-d6bff52042e"),
        ] {
            let refused = format!("{field}: Invalid value: \"{value}\": {no_uuid}");
            add(field, &format!("{bad}: `{value}`"), json!({name: value}), &refused, Node::Ignores);
        }
        let too_long = format!("{field}: Too long: may not be more than 64 bytes");
        add(field, "65 letters", json!({name: "a".repeat(65)}), &too_long, Node::Ignores);
        let number = format!("{field} in body must be of type string: \"integer\"");
        add(
            field,
            "a number",
            json!({name: 1}),
            &number,
            warns(&format!("{field}: invalid type: integer `1`, expected a string")),
        );
    }

    let words = "spec.droplet.monitoring in body must be of type boolean: \"string\"";
    let node = warns("spec.droplet.monitoring: invalid type: string \"yes\", expected a boolean");
    add("spec.droplet.monitoring", "a word", json!({"monitoring": "yes"}), words, node);
    let field = "spec.droplet.maxAgeDays";
    let days = "must be 1 to 365 days; write 14 for two weeks, or leave it out so that no Droplet is replaced for its age";
    for value in [0, -1, 366] {
        let refused = format!("{field}: Invalid value: {value}: {days}");
        add(
            field,
            &format!("out of range: `{value}`"),
            json!({"maxAgeDays": value}),
            &refused,
            Node::Ignores,
        );
    }
    let words = format!("{field} in body must be of type integer: \"string\"");
    let node = warns(&format!("{field}: invalid type: string \"2w\", expected i32"));
    add(field, "a word: `2w`", json!({"maxAgeDays": "2w"}), &words, node);
    let keys = "keys are named by id (512189) or MD5 fingerprint (3b:16:e4:...), as doctl compute ssh-key list shows them; the key itself does not go here";
    list_of_texts(
        "sshKeys",
        ("spec.droplet.sshKeys", "spec.droplet.sshKeys[]"),
        64,
        &[
            ("spec.droplet.sshKeys", "ssh-ed25519 AAAA", keys),
            ("spec.droplet.sshKeys", "3b:16", keys),
            ("spec.droplet.sshKeys", "my laptop", keys),
        ],
        all,
    );
    let ours = "tags that begin with egress- are the controller's own, those that begin with k8s DigitalOcean's; choose others";
    let letters = "tags have letters, digits, ':', '_' and '-' only; write them like team:payments";
    list_of_texts(
        "tags",
        ("spec.droplet.tags", "spec.droplet.tags[]"),
        255,
        &[
            ("spec.droplet.tags", "k8s:worker", ours),
            ("spec.droplet.tags", "K8S", ours),
            ("spec.droplet.tags", "egress-owner:me", ours),
            ("spec.droplet.tags", "no spaces", letters),
            ("spec.droplet.tags", "a.b", letters),
        ],
        all,
    );
}

/// A list of up to 20 texts: how it can be none, and `bad` entries with what is said of each.
fn list_of_texts(
    name: &str,
    (list, entry): (&'static str, &'static str),
    limit: usize,
    bad: &[(&'static str, &str, &str)],
    all: &mut Vec<Case>,
) {
    let mut add = |field, bad: &str, value: Value, refused: &str, node| {
        let patch = json!({"droplet": {name: value}});
        all.push(row(Kind::EgressGateway, field, bad, &patch, refused, node));
    };
    let words = format!("{list}: invalid type: string \"one\", expected a sequence");
    let refused = format!("{list} in body must be of type array: \"string\"");
    add(list, "no list", json!("one"), &refused, Node::Warns(words));
    let many: Vec<String> = (0..21).map(|n| n.to_string()).collect();
    add(
        list,
        "21 entries",
        json!(many),
        &format!("{list}: Too many: 21: must have at most 20 items"),
        Node::Ignores,
    );
    let words = format!("{list}[0]: invalid type: integer `7`, expected a string");
    let refused = format!("{list}[0] in body must be of type string: \"integer\"");
    add(entry, "a number", json!([7]), &refused, Node::Warns(words));
    add(
        entry,
        "empty",
        json!([""]),
        &format!("{list}[0] in body should be at least 1 chars long"),
        Node::Ignores,
    );
    let too_long = format!("{list}[0]: Too long: may not be more than {limit} bytes");
    add(entry, &format!("{} letters", limit + 1), json!(["7".repeat(limit + 1)]), &too_long, Node::Ignores);
    for (field, value, refused) in bad {
        add(field, &format!("`{value}`"), json!([value]), refused, Node::Ignores);
    }
}
