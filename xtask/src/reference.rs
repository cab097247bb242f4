//! docs/reference.md: every field of every kind, from the CRDs themselves.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::generated;

const HEAD: &str = "# Reference of the objects

Every field there is, from the types of `crates/api`, as the API server has them. Written by `cargo xtask reference`; do not edit.
`kubectl explain egressgateway.spec` says the same on a cluster. An object with every field: [`egressgateway-all-fields.yaml`](../examples/egressgateway-all-fields.yaml).
What is refused, in which words: [`bad-input.md`](bad-input.md).
";

const STANDARD_CONDITION: &str =
    "[condition](https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/condition/)";

/// Writes the reference, or with `check` fails when it says something else than the types.
pub fn run(root: &Path, check: bool) -> Result<()> {
    let mut text = HEAD.to_owned();
    for (_, definition) in egress_api::custom_resource_definitions() {
        text += &kind(&serde_json::to_value(&definition)?)?;
    }
    generated::write_or_compare(&root.join("docs/reference.md"), &text, check, "cargo xtask reference")
}

fn kind(definition: &Value) -> Result<String> {
    let spec = &definition["spec"];
    let version = spec["versions"].get(0).context("a definition has a version")?;
    let schema = &version["schema"]["openAPIV3Schema"];
    let name = spec["names"]["kind"].as_str().unwrap_or_default();
    let mut text = format!("\n## {name}\n\n{}\n\n| | |\n| --- | --- |\n", words(&schema["description"]));
    let list = |names: &Value| {
        let names = names.as_array().into_iter().flatten().filter_map(Value::as_str);
        names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
    };
    let api_version = [&spec["group"], &version["name"]].map(|part| part.as_str().unwrap_or_default());
    writeln!(text, "| `apiVersion` | `{}` |", api_version.join("/"))?;
    writeln!(text, "| scope | {} |", spec["scope"].as_str().unwrap_or_default().to_lowercase())?;
    writeln!(text, "| short names | {} |", list(&spec["names"]["shortNames"]))?;
    writeln!(text, "| categories | {} |", list(&spec["names"]["categories"]))?;
    text += &columns(version)?;
    for part in ["spec", "status"] {
        text += &table(name, part, &schema["properties"][part])?;
    }
    text += &rules(name, schema)?;
    Ok(text)
}

fn columns(version: &Value) -> Result<String> {
    let mut text = "\n| column of `kubectl get` | what it shows |\n| --- | --- |\n".to_owned();
    for column in version["additionalPrinterColumns"].as_array().into_iter().flatten() {
        let path = column["jsonPath"].as_str().unwrap_or_default();
        let said = words(&column["description"]);
        let shown = if said.is_empty() { format!("`{path}`") } else { said };
        let wide = if column["priority"].as_i64().unwrap_or_default() > 0 { ", with `-o wide`" } else { "" };
        writeln!(text, "| {}{wide} | {} |", column["name"].as_str().unwrap_or_default(), cell(&shown))?;
    }
    Ok(text)
}

fn table(kind: &str, part: &str, schema: &Value) -> Result<String> {
    let mut rows = String::new();
    // A spec is somebody's to write, a status is read.
    let required = if part == "spec" { "must be given" } else { "always there" };
    fields("", schema, required, &mut rows)?;
    if rows.is_empty() {
        return Ok(String::new());
    }
    Ok(format!(
        "\n### {kind}: {part}\n\n| field | type | default | may be | what it is |\n| --- | --- | --- | --- | --- |\n{rows}"
    ))
}

// Fields that must be there come first; a field's own fields follow it.
fn fields(path: &str, schema: &Value, required: &str, rows: &mut String) -> Result<()> {
    let empty = serde_json::Map::new();
    let properties = schema["properties"].as_object().unwrap_or(&empty);
    let is_required =
        |name: &str| schema["required"].as_array().is_some_and(|names| names.contains(&name.into()));
    let (first, second): (Vec<_>, Vec<_>) = properties.iter().partition(|(name, _)| is_required(name));
    for (name, field) in first.into_iter().chain(second) {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let default = match &field["default"] {
            Value::Null if is_required(name) => required.to_owned(),
            Value::Null | Value::Object(_) => String::new(),
            Value::String(text) => format!("`{text}`"),
            other => format!("`{other}`"),
        };
        let what = words(&field["description"]);
        writeln!(rows, "| `{path}` | {} | {default} | {} | {} |", type_of(field), range(field), cell(&what))?;
        if is_condition(&field["items"]) {
            continue;
        }
        fields(&path, field, required, rows)?;
        fields(&format!("{path}[]"), &field["items"], required, rows)?;
    }
    Ok(())
}

fn is_condition(schema: &Value) -> bool {
    let properties = &schema["properties"];
    ["lastTransitionTime", "observedGeneration", "reason"].iter().all(|name| properties.get(name).is_some())
}

fn type_of(schema: &Value) -> String {
    match schema["type"].as_str().unwrap_or_default() {
        "array" if is_condition(&schema["items"]) => format!("list of {STANDARD_CONDITION}"),
        "array" => format!("list of {}", type_of(&schema["items"])),
        "object" if schema["additionalProperties"].is_object() => {
            format!("map of {}", type_of(&schema["additionalProperties"]))
        }
        "string" if schema["format"] == "date-time" => "time".to_owned(),
        other => other.to_owned(),
    }
}

fn range(schema: &Value) -> String {
    let mut said = Vec::new();
    if let Some(values) = schema["enum"].as_array() {
        let values = values.iter().filter_map(Value::as_str).map(|value| format!("`{value}`"));
        said.push(values.collect::<Vec<_>>().join(", "));
    }
    for (least, most, unit) in [
        ("minimum", "maximum", ""),
        ("minLength", "maxLength", " characters"),
        ("minItems", "maxItems", " entries"),
        ("minProperties", "maxProperties", " entries"),
    ] {
        let bound = |name: &str| schema[name].as_f64().map(grouped);
        match (bound(least), bound(most)) {
            (Some(least), Some(most)) => said.push(format!("{least} to {most}{unit}")),
            (Some(least), None) => said.push(format!("{least}{unit} or more")),
            (None, Some(most)) => said.push(format!("{most}{unit} at most")),
            (None, None) => {}
        }
    }
    if schema["items"].is_object() {
        let each = range(&schema["items"]);
        if !each.is_empty() {
            said.push(format!("each {each}"));
        }
    }
    said.join("; ")
}

// Bounds of schemas are floats; those of ours are whole.
fn grouped(number: f64) -> String {
    let digits = format!("{number}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn rules(kind: &str, schema: &Value) -> Result<String> {
    let mut rows = String::new();
    collect_rules("", schema, &mut rows)?;
    if rows.is_empty() {
        return Ok(String::new());
    }
    Ok(format!("\n### {kind}: what is refused besides\n\n| field | in which words |\n| --- | --- |\n{rows}"))
}

fn collect_rules(path: &str, schema: &Value, rows: &mut String) -> Result<()> {
    for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
        let field = if path.is_empty() { "the object" } else { &format!("`{path}`") };
        writeln!(rows, "| {field} | {} |", cell(&words(&rule["message"])))?;
    }
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        collect_rules(&path, field, rows)?;
    }
    for (name, sign) in [("items", "[]"), ("additionalProperties", ".*")] {
        if schema[name].is_object() {
            collect_rules(&format!("{path}{sign}"), &schema[name], rows)?;
        }
    }
    Ok(())
}

fn words(text: &Value) -> String {
    text.as_str().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_field_says_its_type_default_range_and_meaning() {
        let schema = json!({"type": "object", "required": ["to"], "properties": {
            "from": {"type": "integer", "default": 3, "minimum": 1.0, "maximum": 86400.0, "description": "Where\nit begins | ends."},
            "to": {"type": "array", "minItems": 1, "maxItems": 10, "items": {
                "type": "object", "properties": {"mode": {"type": "string", "enum": ["A", "B"], "default": "A"}}}},
        }});
        assert_eq!(
            table("Kind", "spec", &schema).unwrap(),
            "\n### Kind: spec\n\n| field | type | default | may be | what it is |\n| --- | --- | --- | --- | --- |\n\
             | `to` | list of object | must be given | 1 to 10 entries |  |\n\
             | `to[].mode` | string | `A` | `A`, `B` |  |\n\
             | `from` | integer | `3` | 1 to 86,400 | Where it begins \\| ends. |\n"
        );
    }

    #[test]
    fn rules_are_said_with_the_field_that_they_are_about() {
        let rule = |message: &str| json!([{"rule": "x", "message": message}]);
        let schema = json!({"x-kubernetes-validations": rule("whole"), "properties": {"spec": {"properties": {
            "list": {"items": {"x-kubernetes-validations": rule("each")}}}}}});
        assert_eq!(
            rules("Kind", &schema).unwrap().lines().skip(5).collect::<Vec<_>>(),
            ["| the object | whole |", "| `spec.list[]` | each |"]
        );
    }

    #[test]
    fn every_kind_has_its_tables() {
        let root = tempfile::tempdir().unwrap();
        run(root.path(), false).unwrap();
        let text = std::fs::read_to_string(root.path().join("docs/reference.md")).unwrap();
        for heading in ["## EgressGateway", "### EgressGateway: spec", "### NodeEgress: status"] {
            assert!(text.lines().any(|line| line == heading), "{heading}");
        }
        assert!(text.contains("| `drainSeconds` | integer | `300` | 0 to 3,600 |"));
        run(root.path(), true).unwrap();
    }
}
