//! values.yaml and the tables of docs/install.md, from values.schema.json, which is the one place that states a value, what it is
//! by default, its bounds and what it is for.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value};

use super::{COMMAND, Marked, flags};

const WIDTH: usize = 118;
const TABLE: (&str, &str) = ("<!-- values -->", "<!-- end of values -->");

/// The schema, with the flags of both programs in it as they are now.
pub fn with_settings(schema: &str, root: &Path) -> Result<Value> {
    let mut schema: Value = serde_json::from_str(schema).context("values.schema.json")?;
    for program in ["agent", "controller"] {
        let properties = schema
            .pointer_mut(&format!("/properties/{program}/properties"))
            .and_then(Value::as_object_mut)
            .with_context(|| format!("values.schema.json has no values of the {program}"))?;
        properties.insert("settings".to_owned(), flags::schema(root, program)?);
    }
    complete(&schema, "")?;
    Ok(schema)
}

/// Fails where the manifests have another value than the schema has as the default.
pub fn compare_defaults(schema: &Value, marked: &Marked) -> Result<()> {
    for (path, in_manifest) in marked {
        let pointer = format!("/properties/{}", path.replace('.', "/properties/"));
        let node = schema.pointer(&pointer).with_context(|| format!("values.schema.json has no {path}"))?;
        let default = node.get("default").with_context(|| format!("{path} has no default"))?;
        if default != in_manifest {
            bail!("{path} is {default} by default and {in_manifest} in deploy/base: change either");
        }
    }
    Ok(())
}

/// values.yaml.
pub fn yaml(schema: &Value) -> Result<String> {
    let mut text = format!(
        "# Written from values.schema.json by `{COMMAND}`. Do not edit: put what you want otherwise into a file of your own.\n"
    );
    for (key, node) in properties(schema)? {
        text.push('\n');
        write_value(&mut text, key, node, "")?;
    }
    Ok(text)
}

/// The document with the tables between its marks.
pub fn with_tables(document: &str, schema: &Value) -> Result<String> {
    let (before, rest) =
        document.split_once(TABLE.0).context("docs/install.md has no place for the values")?;
    let (_, after) = rest.split_once(TABLE.1).context("docs/install.md has no end of the values")?;
    let mut table = "| value | default | |\n| --- | --- | --- |\n".to_owned();
    rows(&mut table, schema, "")?;
    for program in ["controller", "agent"] {
        write!(table, "\n| `{program}.settings.` | |\n| --- | --- |\n")?;
        let settings = schema
            .pointer(&format!("/properties/{program}/properties/settings"))
            .with_context(|| format!("no settings of the {program}"))?;
        for (key, node) in properties(settings)? {
            writeln!(table, "| `{key}` | {} |", cell(node)?)?;
        }
    }
    Ok(format!("{before}{}\n\n{table}\n{}{after}", TABLE.0, TABLE.1))
}

// Every value says what it is for and what it is by default, and takes nothing that is not named.
fn complete(node: &Value, path: &str) -> Result<()> {
    for (key, node) in properties(node)? {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        ensure!(node.get("description").is_some(), "{path} has no description");
        if node.get("properties").is_some() {
            ensure!(
                node.get("additionalProperties") == Some(&false.into()),
                "{path} takes values that do not exist"
            );
            if node.get("default").is_none() {
                complete(node, &path)?;
            }
        } else {
            ensure!(node.get("default").is_some(), "{path} has no default");
        }
    }
    Ok(())
}

fn rows(table: &mut String, node: &Value, path: &str) -> Result<()> {
    for (key, node) in properties(node)? {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match node.get("default") {
            Some(default) => writeln!(table, "| `{path}` | `{default}` | {} |", cell(node)?)?,
            None => rows(table, node, &path)?,
        }
    }
    Ok(())
}

fn write_value(text: &mut String, key: &str, node: &Value, indent: &str) -> Result<()> {
    for line in wrapped(description(node)?, WIDTH - indent.len()) {
        writeln!(text, "{indent}# {line}")?;
    }
    match node.get("default") {
        Some(Value::Object(map)) if !map.is_empty() => {
            writeln!(text, "{indent}{key}:")?;
            nested(text, &Value::Object(map.clone()), indent)?;
        }
        Some(Value::Array(list)) if !list.is_empty() => {
            writeln!(text, "{indent}{key}:")?;
            nested(text, &Value::Array(list.clone()), indent)?;
        }
        // JSON is YAML.
        Some(default) => writeln!(text, "{indent}{key}: {default}")?,
        None => {
            writeln!(text, "{indent}{key}:")?;
            for (key, node) in properties(node)? {
                write_value(text, key, node, &format!("{indent}  "))?;
            }
        }
    }
    Ok(())
}

fn nested(text: &mut String, value: &Value, indent: &str) -> Result<()> {
    let yaml = serde_saphyr::to_string(value).context("a default cannot be written as YAML")?;
    for line in yaml.lines() {
        writeln!(text, "{indent}  {line}")?;
    }
    Ok(())
}

fn properties(node: &Value) -> Result<&Map<String, Value>> {
    node.get("properties").and_then(Value::as_object).context("no properties")
}

fn description(node: &Value) -> Result<&str> {
    node.get("description").and_then(Value::as_str).context("no description")
}

fn cell(node: &Value) -> Result<String> {
    Ok(description(node)?.replace('|', "\\|"))
}

fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema() -> Value {
        json!({"properties": {
            "a": {"description": "First.", "additionalProperties": false, "properties": {
                "list": {"description": "A list | of things.", "default": [{"operator": "Exists"}]},
                "number": {"description": "A number.", "default": 2}}},
            "agent": {"description": "x", "additionalProperties": false, "properties": {
                "settings": {"description": "Flags.", "additionalProperties": false, "default": {}, "properties": {
                    "log": {"type": "string", "description": "What is logged."}}}}},
            "controller": {"description": "x", "additionalProperties": false, "properties": {
                "settings": {"description": "Flags.", "additionalProperties": false, "default": {}, "properties": {
                    "log": {"type": "string", "description": "What is logged, too."}}}}},
        }})
    }

    #[test]
    fn values_are_written_with_their_defaults_and_what_they_are_for() {
        let text = yaml(&schema()).unwrap();
        let expected = "\n# First.\na:\n  # A list | of things.\n  list:\n    - operator: Exists\n  # A number.\n  number: 2\n";
        assert!(text.contains(expected), "{text}");
        let read: Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(read["a"]["list"], json!([{"operator": "Exists"}]));
        assert_eq!(read["agent"], json!({"settings": {}}));
        let document = with_tables("x\n<!-- values -->old<!-- end of values -->\ny\n", &schema()).unwrap();
        assert!(
            document.contains("| `a.list` | `[{\"operator\":\"Exists\"}]` | A list \\| of things. |\n"),
            "{document}"
        );
        assert!(document.contains("| `log` | What is logged, too. |\n"), "{document}");
        assert!(
            document.starts_with("x\n<!-- values -->\n\n")
                && document.ends_with("<!-- end of values -->\ny\n")
        );
    }

    #[test]
    fn a_default_that_differs_from_the_manifest_and_a_value_that_says_nothing_are_refused() {
        let marked = |value: Value| vec![("a.number".to_owned(), value)];
        compare_defaults(&schema(), &marked(2.into())).unwrap();
        let error = compare_defaults(&schema(), &marked(3.into())).unwrap_err().to_string();
        assert_eq!(error, "a.number is 2 by default and 3 in deploy/base: change either");
        complete(&schema(), "").unwrap();
        for (pointer, complaint) in [
            ("/properties/a/properties/number/description", "a.number has no description"),
            ("/properties/a/properties/number/default", "a.number has no default"),
            ("/properties/a/additionalProperties", "a takes values that do not exist"),
        ] {
            let mut schema = schema();
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            schema.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(key);
            assert_eq!(complete(&schema, "").unwrap_err().to_string(), complaint);
        }
    }
}
