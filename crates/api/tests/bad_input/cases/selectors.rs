//! `nodeSelector`, which both kinds have.

use serde_json::{Value, json};

use super::{Case, Kind, Node, of_route, row, unread};

pub fn rows(kind: Kind, all: &mut Vec<Case>) {
    let mut add = |field, bad: &str, selector: Value, refused: &str, node| {
        all.push(row(kind, field, bad, &json!({"nodeSelector": selector}), refused, node));
    };
    let unread = |words: &str| unread(kind, words);
    // What a selector means is the node's matter only where it routes.
    let refused_by_node = |words: &str| of_route(kind, Node::Keeps(words.to_owned()));
    let selector = "spec.nodeSelector";
    add(
        selector,
        "a word",
        json!("web"),
        "spec.nodeSelector in body must be of type object: \"string\"",
        unread("spec.nodeSelector: invalid type: string \"web\", expected struct NodeSelector"),
    );

    let labels = "spec.nodeSelector.matchLabels";
    let with = |value: Value| json!({"matchLabels": value});
    add(
        labels,
        "a list",
        with(json!(["web"])),
        "spec.nodeSelector.matchLabels in body must be of type object: \"array\"",
        unread("spec.nodeSelector.matchLabels: invalid type: sequence, expected a map"),
    );
    let seventeen: Value =
        (0..17).map(|n| (format!("label-{n}"), json!("x"))).collect::<serde_json::Map<_, _>>().into();
    let too_many = "spec.nodeSelector.matchLabels: Too many: 17: must have at most 16 items";
    add(labels, "17 labels", with(seventeen), too_many, of_route(kind, Node::Passes));
    for key in ["not a key", "/pool", "Example.com/pool", &"k".repeat(318)] {
        let fix = "is no key of a label; write it like pool or example.com/pool";
        let node = refused_by_node(&format!("spec.nodeSelector.matchLabels: '{key}' {fix}"));
        let bad = if key.len() > 40 { "318 letters".to_owned() } else { format!("no key: `{key}`") };
        let refused = "a key is no key of a label; write it like pool or example.com/pool";
        add(labels, &bad, with(json!({key: "web"})), refused, node);
    }
    let label = "spec.nodeSelector.matchLabels{}";
    let no_value = |value: &str| {
        refused_by_node(&format!(
            "spec.nodeSelector.matchLabels: '{value}' is no value of a label; it has at most 63 letters, digits, '-', '_' and '.'"
        ))
    };
    add(
        label,
        "no value of a label: `not a label`",
        with(json!({"pool": "not a label"})),
        "spec.nodeSelector.matchLabels[pool]: Invalid value: \"not a label\": is no value of a label; write at most 63 letters, digits, '-', '_' and '.', a letter or digit first and last",
        no_value("not a label"),
    );
    let long = "v".repeat(64);
    let too_long = "spec.nodeSelector.matchLabels.pool: Too long: may not be more than 63 bytes";
    add(label, "64 letters", with(json!({"pool": long})), too_long, no_value(&long));
    add(
        label,
        "a number",
        with(json!({"pool": 7})),
        "spec.nodeSelector.matchLabels.pool in body must be of type string: \"integer\"",
        unread("spec.nodeSelector.matchLabels.pool: invalid type: integer `7`, expected a string"),
    );

    let list = "spec.nodeSelector.matchExpressions";
    let with = |value: Value| json!({"matchExpressions": value});
    add(
        list,
        "no list",
        with(json!("pool")),
        "spec.nodeSelector.matchExpressions in body must be of type array: \"string\"",
        unread("spec.nodeSelector.matchExpressions: invalid type: string \"pool\", expected a sequence"),
    );
    let seventeen: Vec<Value> = (0..17).map(|_| json!({"key": "pool", "operator": "Exists"})).collect();
    let too_many = "spec.nodeSelector.matchExpressions: Too many: 17: must have at most 16 items";
    add(list, "17 requirements", with(json!(seventeen)), too_many, of_route(kind, Node::Passes));

    let entry = "spec.nodeSelector.matchExpressions[]";
    let one = |requirement: Value| json!({"matchExpressions": [requirement]});
    add(
        entry,
        "a word",
        one(json!("pool")),
        "spec.nodeSelector.matchExpressions[0] in body must be of type object: \"string\"",
        unread(
            "spec.nodeSelector.matchExpressions[0]: invalid type: string \"pool\", expected struct NodeRequirement",
        ),
    );
    let values = "operators In and NotIn need values, Exists and DoesNotExist take none";
    let says = |words: &str| refused_by_node(&format!("spec.nodeSelector.matchExpressions[0]: {words}"));
    for (bad, requirement, words) in [
        ("In without values", json!({"key": "pool", "operator": "In"}), "In on 'pool' needs values"),
        (
            "NotIn with none",
            json!({"key": "pool", "operator": "NotIn", "values": []}),
            "NotIn on 'pool' needs values",
        ),
        (
            "Exists with one",
            json!({"key": "pool", "operator": "Exists", "values": ["web"]}),
            "Exists on 'pool' takes no values",
        ),
    ] {
        add(entry, bad, one(requirement), values, says(words));
    }

    keys(kind, all);
    operators(kind, all);
    values_of(kind, all);
}

fn keys(kind: Kind, all: &mut Vec<Case>) {
    let field = "spec.nodeSelector.matchExpressions[].key";
    let path = "spec.nodeSelector.matchExpressions[0]";
    let mut add = |bad: &str, requirement: Value, refused: String, node| {
        let patch = json!({"nodeSelector": {"matchExpressions": [requirement]}});
        all.push(row(kind, field, bad, &patch, refused, node));
    };
    let with = |key: &str| json!({"key": key, "operator": "Exists"});
    let no_key = |key: &str| {
        let fix = "is no key of a label; write it like pool or example.com/pool";
        of_route(kind, Node::Keeps(format!("{path}: '{key}' {fix}")))
    };
    let missing = unread(kind, format!("{path}: missing field `key`"));
    add("missing", json!({"operator": "Exists"}), format!("{path}.key: Required value"), missing);
    let number = unread(kind, format!("{path}.key: invalid type: integer `7`, expected a string"));
    let words = format!("{path}.key in body must be of type string: \"integer\"");
    add("a number", json!({"key": 7, "operator": "Exists"}), words, number);
    add("empty", with(""), format!("{path}.key in body should be at least 1 chars long"), no_key(""));
    for key in ["not a key", "/pool", "Example.com/pool", "-pool"] {
        add(
            &format!("no key: `{key}`"),
            with(key),
            format!(
                "{path}.key: Invalid value: \"{key}\": is no key of a label; write it like pool or example.com/pool"
            ),
            no_key(key),
        );
    }
    let long = "k".repeat(318);
    // A node's sentence has 240 bytes.
    let node = no_key(&long);
    add("318 letters", with(&long), format!("{path}.key: Too long: may not be more than 317 bytes"), node);
}

fn operators(kind: Kind, all: &mut Vec<Case>) {
    let field = "spec.nodeSelector.matchExpressions[].operator";
    let path = "spec.nodeSelector.matchExpressions[0]";
    let mut add = |bad: &str, requirement: Value, refused: String, words: String| {
        let patch = json!({"nodeSelector": {"matchExpressions": [requirement]}});
        all.push(row(kind, field, bad, &patch, refused, unread(kind, words)));
    };
    let words = format!("{path}: missing field `operator`");
    add("missing", json!({"key": "pool"}), format!("{path}.operator: Required value"), words);
    for operator in ["Has", "in"] {
        add(
            &format!("unknown: `{operator}`"),
            json!({"key": "pool", "operator": operator}),
            format!(
                "{path}.operator: Unsupported value: \"{operator}\": supported values: \"In\", \"NotIn\", \"Exists\", \"DoesNotExist\""
            ),
            format!(
                "{path}.operator: unknown variant `{operator}`, expected one of `In`, `NotIn`, `Exists`, `DoesNotExist`"
            ),
        );
    }
    add(
        "a number",
        json!({"key": "pool", "operator": 1}),
        format!("{path}.operator in body must be of type string: \"integer\""),
        format!("{path}.operator: invalid type: integer `1`, expected string or map"),
    );
}

fn values_of(kind: Kind, all: &mut Vec<Case>) {
    let path = "spec.nodeSelector.matchExpressions[0].values";
    let mut add = |field, bad: &str, values: Value, refused: String, node| {
        let requirement = json!({"key": "pool", "operator": "In", "values": values});
        let patch = json!({"nodeSelector": {"matchExpressions": [requirement]}});
        all.push(row(kind, field, bad, &patch, refused, node));
    };
    let field = "spec.nodeSelector.matchExpressions[].values";
    let words = format!("{path}: invalid type: string \"web\", expected a sequence");
    let refused = format!("{path} in body must be of type array: \"string\"");
    add(field, "no list", json!("web"), refused, unread(kind, words));
    let many: Vec<String> = (0..65).map(|n| format!("pool-{n}")).collect();
    let refused = format!("{path}: Too many: 65: must have at most 64 items");
    add(field, "65 values", json!(many), refused, of_route(kind, Node::Passes));

    let field = "spec.nodeSelector.matchExpressions[].values[]";
    let no_value = |value: &str| {
        let words = format!(
            "spec.nodeSelector.matchExpressions[0]: '{value}' is no value of a label; it has at most 63 letters, digits, '-', '_' and '.'"
        );
        of_route(kind, Node::Keeps(words))
    };
    let refused = "a value is no value of a label; write at most 63 letters, digits, '-', '_' and '.', a letter or digit first and last";
    add(
        "spec.nodeSelector.matchExpressions[].values",
        "no value of a label: `a/b`",
        json!(["a/b"]),
        refused.to_owned(),
        no_value("a/b"),
    );
    let long = "v".repeat(64);
    let refused = format!("{path}[0]: Too long: may not be more than 63 bytes");
    add(field, "64 letters", json!([long]), refused, no_value(&long));
    let words = format!("{path}[0]: invalid type: integer `7`, expected a string");
    let refused = format!("{path}[0] in body must be of type string: \"integer\"");
    add(field, "a number", json!([7]), refused, unread(kind, words));
}
