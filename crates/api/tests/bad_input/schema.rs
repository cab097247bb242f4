//! Every field of a schema and every rule on it, and the words by which a refusal shows that the rule spoke.

use serde_json::Value;

/// One rule of the schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaRule {
    /// Path of the field.
    pub field: String,
    /// What is asked of it.
    pub what: String,
    /// Words that the API server says when only this rule is broken.
    pub words: String,
}

/// The rules of `schema`, which stands at `field`, and of all below.
pub fn rules(field: &str, schema: &Value, all: &mut Vec<SchemaRule>) {
    let mut add = |field: &str, what: &str, words: &str| {
        all.push(SchemaRule { field: field.to_owned(), what: what.to_owned(), words: words.to_owned() });
    };
    for (what, words) in [
        ("type", "in body must be of type"),
        ("minItems", "in body should have at least"),
        ("maxItems", "Too many: "),
        ("maxProperties", "Too many: "),
        ("minLength", "in body should be at least"),
        ("maxLength", "Too long: may not be more than"),
        ("minimum", "in body should be greater than or equal to"),
        ("maximum", "in body should be less than or equal to"),
        ("pattern", "in body should match"),
        ("enum", "Unsupported value"),
    ] {
        if schema.get(what).is_some() {
            add(field, what, words);
        }
    }
    // What may not change is no value of its own: `the_api_server_refuses_changes_that_would_take_addresses_away`.
    let of_changes = |rule: &&Value| rule["rule"].as_str().unwrap().contains("oldSelf");
    let validations = schema["x-kubernetes-validations"].as_array().into_iter().flatten();
    for rule in validations.filter(|rule| !of_changes(rule)) {
        add(field, rule["rule"].as_str().unwrap(), &constant_words(rule));
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        add(&format!("{field}.{}", name.as_str().unwrap()), "required", "Required value");
    }
    for (name, below) in schema["properties"].as_object().into_iter().flatten() {
        rules(&format!("{field}.{name}"), below, all);
    }
    if schema["items"].is_object() {
        rules(&format!("{field}[]"), &schema["items"], all);
    }
    if schema["additionalProperties"].is_object() {
        rules(&format!("{field}{{}}"), &schema["additionalProperties"], all);
    }
}

/// The longest part of a CEL rule's message that is the same for all values.
fn constant_words(rule: &Value) -> String {
    match rule["messageExpression"].as_str() {
        Some(expression) => expression.split('"').max_by_key(|part| part.len()).unwrap().to_owned(),
        None => rule["message"].as_str().unwrap().to_owned(),
    }
}
