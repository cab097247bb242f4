//! Objects of ours in documents and in the files that they point to.

use std::path::Path;

use anyhow::{Context, Result};
use egress_api::{EgressGateway, GROUP, StaticRoute};
use serde_json::{Value, json};

use super::{Documents, read};
use crate::{schema, tree};

/// Folders whose YAML users are told to apply.
const FOLDERS: [&str; 2] = ["examples", "tests/seeds"];

/// An object as somebody shows it.
pub struct Shown {
    /// File and line.
    place: String,
    object: Value,
}

/// Prints all of them as one list, for a real API server to judge by what it alone knows (CEL).
pub fn print(root: &Path) -> Result<()> {
    let shown = shown(root, &read(root)?)?;
    let items: Vec<Value> = shown.into_iter().map(|shown| shown.object).collect();
    println!("{}", json!({"apiVersion": "v1", "kind": "List", "items": items}));
    Ok(())
}

/// All of them. A block of YAML that cannot be read is an error, whatever it shows.
pub fn shown(root: &Path, documents: &Documents) -> Result<Vec<Shown>> {
    let mut found = Vec::new();
    for (path, document) in documents {
        for block in &document.blocks {
            if matches!(block.language.as_str(), "yaml" | "yml") {
                take(&format!("{}:{}", path.display(), block.line), &block.text, &mut found)?;
            }
        }
    }
    for folder in FOLDERS.map(|folder| root.join(folder)).into_iter().filter(|folder| folder.is_dir()) {
        for file in tree::files(&folder, ".yaml")? {
            let place = file.strip_prefix(root).unwrap_or(&file).display().to_string();
            take(&place, &std::fs::read_to_string(&file)?, &mut found)?;
        }
    }
    Ok(found)
}

fn take(place: &str, yaml: &str, found: &mut Vec<Shown>) -> Result<()> {
    let objects: Vec<Value> =
        serde_saphyr::from_multiple(yaml).with_context(|| format!("{place}: no YAML"))?;
    let ours = objects.into_iter().filter(|object| version(object).is_some());
    found.extend(ours.map(|object| Shown { place: place.to_owned(), object }));
    Ok(())
}

fn version(object: &Value) -> Option<&str> {
    let (group, version) = object["apiVersion"].as_str()?.split_once('/')?;
    (group == GROUP).then_some(version)
}

/// What is wrong with one, in so many sentences.
pub fn complaints(shown: &Shown) -> Result<Vec<String>> {
    let Shown { place, object } = shown;
    let kind = object["kind"].as_str().unwrap_or_default();
    let version = version(object).unwrap_or_default();
    let Some(schema) = schema_of(kind, version)? else {
        return Ok(vec![format!("{place}: {GROUP}/{version} has no kind {kind}")]);
    };
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let mut faults = Vec::new();
    if name.is_empty() {
        faults.push("metadata.name: is missing".to_owned());
    }
    for (field, value) in object.as_object().into_iter().flatten() {
        match field.as_str() {
            "apiVersion" | "kind" | "metadata" => {}
            _ => faults.extend(match schema["properties"].get(field) {
                Some(schema) => schema::faults(value, schema, field)?,
                None => vec![format!("{field}: there is no such field")],
            }),
        }
    }
    let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    faults.extend(
        required.filter(|field| object.get(*field).is_none()).map(|field| format!("{field}: is missing")),
    );
    if faults.is_empty() {
        faults.extend(contradiction(kind, object));
    }
    Ok(faults.into_iter().map(|fault| format!("{place}: {kind} {name}: {fault}")).collect())
}

fn schema_of(kind: &str, version: &str) -> Result<Option<Value>> {
    for (_, definition) in egress_api::custom_resource_definitions() {
        let definition = serde_json::to_value(&definition)?;
        let versions = definition["spec"]["versions"].as_array().into_iter().flatten();
        let mut fitting =
            versions.filter(|one| definition["spec"]["names"]["kind"] == kind && one["name"] == version);
        if let Some(found) = fitting.next() {
            return Ok(Some(found["schema"]["openAPIV3Schema"].clone()));
        }
    }
    Ok(None)
}

// What no schema says: fields that do not go together, and values that the types refuse.
fn contradiction(kind: &str, object: &Value) -> Option<String> {
    match kind {
        "StaticRoute" => match serde_json::from_value::<StaticRoute>(object.clone()) {
            Ok(route) => route.spec.check().err().map(|contradiction| contradiction.to_string()),
            Err(error) => Some(error.to_string()),
        },
        "EgressGateway" => {
            serde_json::from_value::<EgressGateway>(object.clone()).err().map(|error| error.to_string())
        }
        _ => None,
    }
}
