//! What a structural schema says of values: defaults, what is pruned, and which lists have items of their own.

use serde_json::{Map, Value};

/// How the items of a list are told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Items {
    /// Not at all: the list is one value.
    Atomic,
    /// By themselves.
    Set,
    /// By these fields.
    Keyed(Vec<String>),
}

/// The schema at some place of an object; `None` where there is none.
pub(super) type Schema<'a> = Option<&'a Value>;

/// The schema of a field.
pub(super) fn field<'a>(schema: Schema<'a>, name: &str) -> Schema<'a> {
    let schema = schema?;
    schema.get("properties").and_then(|properties| properties.get(name)).or_else(|| {
        let additional = schema.get("additionalProperties")?;
        additional.is_object().then_some(additional)
    })
}

/// The schema of a list's items.
pub(super) fn item(schema: Schema<'_>) -> Schema<'_> {
    schema?.get("items")
}

/// How the list of this schema is told apart. Without a schema it is one value.
pub(super) fn items(schema: Schema<'_>) -> Items {
    let text = |key: &str| schema.and_then(|schema| schema.get(key)).and_then(Value::as_str);
    match text("x-kubernetes-list-type") {
        Some("set") => Items::Set,
        Some("map") => {
            let keys = schema.and_then(|schema| schema.get("x-kubernetes-list-map-keys"));
            let keys = keys.and_then(Value::as_array).into_iter().flatten();
            Items::Keyed(keys.filter_map(|key| key.as_str().map(str::to_owned)).collect())
        }
        _ => Items::Atomic,
    }
}

/// Whether an object of this schema is one value.
pub(super) fn is_atomic_map(schema: Schema<'_>) -> bool {
    schema.and_then(|schema| schema.get("x-kubernetes-map-type")).and_then(Value::as_str) == Some("atomic")
}

fn keeps_unknown(schema: &Value) -> bool {
    schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true))
        || schema.get("additionalProperties").is_some_and(|additional| !additional.is_boolean())
}

/// Takes away what the schema does not know, and nulls that it does not allow; then puts defaults in place of what is missing.
pub(super) fn normalize(value: &mut Value, schema: &Value) {
    match value {
        Value::Object(fields) => normalize_fields(fields, schema),
        Value::Array(items) => {
            if let Some(schema) = schema.get("items") {
                items.iter_mut().for_each(|item| normalize(item, schema));
            }
        }
        _ => {}
    }
}

fn normalize_fields(fields: &mut Map<String, Value>, schema: &Value) {
    let properties = schema.get("properties").and_then(Value::as_object);
    let known = |name: &String| properties.is_some_and(|properties| properties.contains_key(name));
    if schema.get("properties").is_some() && !keeps_unknown(schema) {
        fields.retain(|name, _| known(name));
    }
    let nullable = |schema: Option<&Value>| {
        schema.is_some_and(|schema| schema.get("nullable") == Some(&Value::Bool(true)))
    };
    fields.retain(|name, value| {
        !value.is_null() || nullable(properties.and_then(|properties| properties.get(name)))
    });
    for (name, schema) in properties.into_iter().flatten() {
        if let Some(default) = schema.get("default")
            && !fields.contains_key(name)
        {
            fields.insert(name.clone(), default.clone());
        }
    }
    for (name, value) in fields.iter_mut() {
        if let Some(schema) = field(Some(schema), name) {
            normalize(value, schema);
        }
    }
}
