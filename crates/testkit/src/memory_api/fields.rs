//! Server-side apply: who owns which field of an object.
//!
//! A field is a path from the object's top to a value that is set as a whole: a scalar, an atomic list or map, an empty one; and each
//! item of a list whose items are told apart, beside its fields. As `structured-merge-diff` has it, as far as the controller needs.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::schema::{self, Items, Schema};

/// One step on the way to a value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    /// A field of an object.
    Field(String),
    /// An item, by its keys or itself.
    Item(String),
}

/// The way to a value.
pub(super) type Path = Vec<Step>;

/// Fields by owner: its name, its way of writing, and the subresource it writes to.
pub(super) type Owners = BTreeMap<Owner, BTreeSet<Path>>;

/// Who writes, and how.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Owner {
    pub(super) name: String,
    pub(super) applies: bool,
    pub(super) subresource: String,
}

/// What identifies an item of a list.
fn identity(item: &Value, items: &Items) -> String {
    match items {
        Items::Keyed(keys) => {
            let part = |key: &String| item.get(key).cloned().unwrap_or_default();
            Value::Array(keys.iter().map(part).collect()).to_string()
        }
        Items::Set | Items::Atomic => item.to_string(),
    }
}

/// Every path below a value, with the value there (none for an item that has fields of its own).
pub(super) fn paths(value: &Value, schema: Schema<'_>) -> BTreeMap<Path, Value> {
    let mut found = BTreeMap::new();
    walk(value, schema, &mut Vec::new(), &mut found);
    found
}

fn walk(value: &Value, schema: Schema<'_>, path: &mut Path, found: &mut BTreeMap<Path, Value>) {
    match value {
        Value::Object(fields) if !fields.is_empty() && !schema::is_atomic_map(schema) => {
            for (name, value) in fields {
                path.push(Step::Field(name.clone()));
                walk(value, schema::field(schema, name), path, found);
                path.pop();
            }
        }
        Value::Array(list) if !list.is_empty() && schema::items(schema) != Items::Atomic => {
            let items = schema::items(schema);
            for item in list {
                path.push(Step::Item(identity(item, &items)));
                found.insert(path.clone(), Value::Null);
                if matches!(items, Items::Keyed(_)) {
                    walk(item, schema::item(schema), path, found);
                }
                path.pop();
            }
        }
        other => drop(found.insert(path.clone(), other.clone())),
    }
}

/// Takes away the values at these paths, and what is empty then.
pub(super) fn remove(value: &mut Value, schema: Schema<'_>, gone: &BTreeSet<Path>) {
    let gone: Vec<&[Step]> = gone.iter().map(Vec::as_slice).collect();
    take_away(value, schema, &gone);
}

fn take_away(value: &mut Value, schema: Schema<'_>, gone: &[&[Step]]) {
    match value {
        Value::Object(fields) => {
            let names: Vec<String> = fields.keys().cloned().collect();
            for name in names {
                let below = below(gone, &Step::Field(name.clone()));
                if below.is_empty() {
                    continue;
                }
                if below.iter().any(|path| path.is_empty()) {
                    fields.remove(&name);
                } else if let Some(value) = fields.get_mut(&name) {
                    take_away(value, schema::field(schema, &name), &below);
                    if is_empty(value) {
                        fields.remove(&name);
                    }
                }
            }
        }
        Value::Array(list) => {
            let items = schema::items(schema);
            list.retain_mut(|item| {
                let below = below(gone, &Step::Item(identity(item, &items)));
                if below.iter().any(|path| path.is_empty()) {
                    return false;
                }
                if !below.is_empty() {
                    take_away(item, schema::item(schema), &below);
                }
                true
            });
        }
        _ => {}
    }
}

fn below<'a>(paths: &[&'a [Step]], step: &Step) -> Vec<&'a [Step]> {
    let rest =
        |path: &&'a [Step]| path.split_first().filter(|(first, _)| *first == step).map(|(_, rest)| rest);
    paths.iter().filter_map(rest).collect()
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

/// Puts a configuration over what is there.
pub(super) fn merge(live: &mut Value, config: &Value, schema: Schema<'_>) {
    match (live, config) {
        (Value::Object(live), Value::Object(config)) if !schema::is_atomic_map(schema) => {
            for (name, value) in config {
                merge(live.entry(name.clone()).or_insert(Value::Null), value, schema::field(schema, name));
            }
        }
        (Value::Array(live), Value::Array(config)) if schema::items(schema) != Items::Atomic => {
            let items = schema::items(schema);
            let mut others = std::mem::take(live);
            for item in config {
                let id = identity(item, &items);
                let known = others.iter().position(|other| identity(other, &items) == id);
                let mut merged = known.map_or(Value::Null, |at| others.remove(at));
                merge(&mut merged, item, schema::item(schema));
                live.push(merged);
            }
            live.append(&mut others);
        }
        (live, config) => *live = config.clone(),
    }
}

/// A JSON merge patch (RFC 7386).
pub(super) fn merge_patch(live: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *live = patch.clone();
        return;
    };
    if !live.is_object() {
        *live = Value::Object(Map::new());
    }
    let Value::Object(fields) = live else { return };
    for (name, value) in patch {
        if value.is_null() {
            fields.remove(name);
        } else {
            merge_patch(fields.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}
