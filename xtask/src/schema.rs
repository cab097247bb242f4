//! What an object breaks of the structural schema of its kind, as the API server would say it: types, bounds, enums, fields that are
//! required and fields that nobody knows.
//!
//! CEL rules are the API server's alone. A keyword that is not known here is an error: a schema that says more than this checks must
//! not pass as checked.

use anyhow::{Result, bail};
use serde_json::Value;

// What says nothing about values, or is checked below.
const KEYWORDS: [&str; 21] = [
    "additionalProperties",
    "default",
    "description",
    "enum",
    "format",
    "items",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minItems",
    "minLength",
    "minimum",
    "nullable",
    "properties",
    "required",
    "title",
    "type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-list-type",
    "x-kubernetes-validations",
];

/// Every fault of `value`, with the path of its field. `path` is that of the value itself.
pub fn faults(value: &Value, schema: &Value, path: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    check(value, schema, path, &mut found)?;
    Ok(found)
}

fn check(value: &Value, schema: &Value, path: &str, found: &mut Vec<String>) -> Result<()> {
    let unknown = schema.as_object().into_iter().flatten().find(|(key, _)| !KEYWORDS.contains(&key.as_str()));
    if let Some((keyword, _)) = unknown {
        bail!("{path}: its schema says `{keyword}`, which xtask/src/schema.rs does not check");
    }
    if value.is_null() && schema["nullable"] == true {
        return Ok(());
    }
    if let Some(wanted) = schema["type"].as_str()
        && !is_of_type(value, wanted)
    {
        found.push(format!("{path}: is no {wanted}"));
        return Ok(());
    }
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        found.push(format!("{path}: {value} is none of {}", Value::from(allowed.clone())));
    }
    bounds(value, schema, path, found);
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                check(item, &schema["items"], &format!("{path}[{index}]"), found)?;
            }
        }
        Value::Object(fields) => {
            let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            found.extend(
                required
                    .filter(|name| !fields.contains_key(*name))
                    .map(|name| format!("{path}.{name}: is missing")),
            );
            for (name, field) in fields {
                let path = format!("{path}.{name}");
                let known = [&schema["properties"][name], &schema["additionalProperties"]];
                match known.into_iter().find(|schema| schema.is_object()) {
                    Some(schema) => check(field, schema, &path, found)?,
                    None => found.push(format!("{path}: there is no such field")),
                }
            }
        }
        _ => {}
    }
    Ok(())
}

fn is_of_type(value: &Value, wanted: &str) -> bool {
    match wanted {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        _ => false,
    }
}

fn bounds(value: &Value, schema: &Value, path: &str, found: &mut Vec<String>) {
    let (measured, least, most, unit) = match value {
        Value::String(text) => (as_number(text.chars().count()), "minLength", "maxLength", " characters"),
        Value::Array(items) => (as_number(items.len()), "minItems", "maxItems", " entries"),
        Value::Object(fields) => (as_number(fields.len()), "minProperties", "maxProperties", " entries"),
        Value::Number(number) => (number.as_f64().unwrap_or(f64::NAN), "minimum", "maximum", ""),
        _ => return,
    };
    if let Some(least) = schema[least].as_f64().filter(|least| measured < *least) {
        found.push(format!("{path}: {measured}{unit}, and at least {least} are needed"));
    }
    if let Some(most) = schema[most].as_f64().filter(|most| measured > *most) {
        found.push(format!("{path}: {measured}{unit}, and at most {most} are allowed"));
    }
}

fn as_number(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::INFINITY, f64::from)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema() -> Value {
        json!({"type": "object", "required": ["name"], "properties": {
            "name": {"type": "string", "minLength": 1, "maxLength": 3},
            "weight": {"type": "integer", "minimum": 1.0, "maximum": 256.0, "nullable": true},
            "mode": {"type": "string", "enum": ["A", "B"]},
            "list": {"type": "array", "minItems": 1, "maxItems": 2, "items": {"type": "string"}},
            "labels": {"type": "object", "maxProperties": 1, "additionalProperties": {"type": "string"}},
        }})
    }

    #[test]
    fn what_fits_has_no_fault() {
        let value =
            json!({"name": "abc", "weight": null, "mode": "B", "list": ["x", "y"], "labels": {"a": "b"}});
        assert_eq!(faults(&value, &schema(), "spec").unwrap(), [""; 0]);
    }

    #[test]
    fn every_fault_names_its_field() {
        for (value, fault) in [
            (json!([]), "spec: is no object"),
            (json!({}), "spec.name: is missing"),
            (json!({"name": ""}), "spec.name: 0 characters, and at least 1 are needed"),
            (json!({"name": "abcd"}), "spec.name: 4 characters, and at most 3 are allowed"),
            (json!({"name": "a", "weight": 0}), "spec.weight: 0, and at least 1 are needed"),
            (json!({"name": "a", "weight": 1.5}), "spec.weight: is no integer"),
            (json!({"name": "a", "mode": "C"}), "spec.mode: \"C\" is none of [\"A\",\"B\"]"),
            (json!({"name": "a", "mode": null}), "spec.mode: is no string"),
            (json!({"name": "a", "list": []}), "spec.list: 0 entries, and at least 1 are needed"),
            (json!({"name": "a", "list": ["x", 1]}), "spec.list[1]: is no string"),
            (json!({"name": "a", "labels": {"a": 1}}), "spec.labels.a: is no string"),
            (json!({"name": "a", "nam": "b"}), "spec.nam: there is no such field"),
        ] {
            assert_eq!(faults(&value, &schema(), "spec").unwrap(), [fault], "{value}");
        }
    }

    #[test]
    fn a_schema_that_says_more_than_is_checked_is_an_error() {
        let error = faults(&json!("x"), &json!({"type": "string", "pattern": "y"}), "a").unwrap_err();
        assert!(error.to_string().contains("`pattern`"), "{error}");
    }
}
