//! Whose fields are whose: what a write may change in one object, and who owns the fields then.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::fields::{self, Owner, Path, Step};
use super::refusal::Refusal;
use super::store::{Kind, Stored};

/// Who writes what part of a kind.
pub(super) struct Scope<'a> {
    pub(super) kind: &'a Kind,
    pub(super) owner: &'a Owner,
}

impl Scope<'_> {
    /// Server-side apply: what this owner no longer names goes, unless somebody else named it too.
    pub(super) fn apply(&self, after: &mut Stored, config: &Value, force: bool) -> Result<(), Refusal> {
        let schema = self.kind.whole_schema();
        let mut config = self.part(config);
        normalize_without_defaults(&mut config);
        let wanted = fields::paths(&config, Some(&schema));
        let wanted: BTreeMap<Path, Value> = wanted.into_iter().filter(|(path, _)| is_ownable(path)).collect();
        let live = fields::paths(&after.object, Some(&schema));
        for (owner, owned) in after.owners.iter_mut().filter(|(owner, _)| *owner != self.owner) {
            let differing: Vec<Path> = owned
                .iter()
                .filter(|path| wanted.get(*path).is_some_and(|value| live.get(*path) != Some(value)))
                .cloned()
                .collect();
            if !differing.is_empty() && !force {
                return Err(Refusal::apply_conflict(&owner.name, differing.len()));
            }
            owned.retain(|path| !differing.contains(path));
        }
        let mine: BTreeSet<Path> = wanted.keys().cloned().collect();
        let before = after.owners.insert(self.owner.clone(), mine.clone()).unwrap_or_default();
        after.owners.retain(|owner, owned| owner == self.owner || !owned.is_empty());
        let others: BTreeSet<&Path> = after
            .owners
            .iter()
            .filter(|(owner, _)| *owner != self.owner)
            .flat_map(|(_, owned)| owned)
            .collect();
        let gone: BTreeSet<Path> =
            before.difference(&mine).filter(|path| !others.contains(path)).cloned().collect();
        fields::remove(&mut after.object, Some(&schema), &gone);
        fields::merge(&mut after.object, &config, Some(&schema));
        Ok(())
    }

    /// Only what may be written here counts; whoever changed a field owns it.
    pub(super) fn confine(&self, before: &Value, after: &mut Stored) {
        let mut object = before.clone();
        let written = if self.owner.subresource == "status" {
            vec!["status"]
        } else {
            other_fields(&after.object, before)
        };
        let (target, source) = (object.as_object_mut(), after.object.as_object());
        if let (Some(target), Some(source)) = (target, source) {
            for name in written {
                match source.get(name) {
                    _ if name == "status" && self.owner.subresource.is_empty() && self.kind.has_status => {}
                    Some(value) => drop(target.insert(name.to_owned(), value.clone())),
                    None => drop(target.remove(name)),
                }
            }
        }
        after.object = object;
        let schema = self.kind.whole_schema();
        let (old, new) = (fields::paths(before, Some(&schema)), fields::paths(&after.object, Some(&schema)));
        let changed: BTreeSet<Path> = new
            .iter()
            .filter(|(path, value)| is_ownable(path) && old.get(*path) != Some(value))
            .map(|(path, _)| path.clone())
            .collect();
        for owned in after.owners.values_mut() {
            owned.retain(|path| !changed.contains(path) && new.contains_key(path));
        }
        after.owners.entry(self.owner.clone()).or_default().extend(changed);
        after.owners.retain(|_, owned| !owned.is_empty());
    }

    // The part of a configuration that this subresource takes.
    fn part(&self, config: &Value) -> Value {
        let Value::Object(fields) = config else { return json!({}) };
        let status = self.owner.subresource == "status";
        let taken = |name: &String| if name == "status" { status || !self.kind.has_status } else { !status };
        let mut part: Map<String, Value> = fields
            .iter()
            .filter(|(name, _)| taken(name))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        if let Some(metadata) = part.get_mut("metadata").and_then(Value::as_object_mut) {
            for given in ["resourceVersion", "uid", "name", "namespace"] {
                metadata.remove(given);
            }
        }
        Value::Object(part)
    }
}

fn other_fields<'a>(after: &'a Value, before: &'a Value) -> Vec<&'a str> {
    let names =
        |value: &'a Value| value.as_object().into_iter().flat_map(|fields| fields.keys().map(String::as_str));
    names(after).chain(names(before)).collect::<BTreeSet<_>>().into_iter().collect()
}

// What the server itself writes belongs to nobody.
fn is_ownable(path: &Path) -> bool {
    let name = |at: usize| match path.get(at) {
        Some(Step::Field(name)) => name.as_str(),
        _ => "",
    };
    match name(0) {
        "apiVersion" | "kind" | "" => false,
        "metadata" => matches!(name(1), "labels" | "annotations" | "finalizers" | "ownerReferences"),
        _ => true,
    }
}

/// What of an object somebody can own.
pub(super) fn owned_paths(kind: &Kind, object: &Value) -> BTreeSet<Path> {
    fields::paths(object, Some(&kind.whole_schema())).into_keys().filter(is_ownable).collect()
}

// An apply's nulls say nothing.
fn normalize_without_defaults(config: &mut Value) {
    match config {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(normalize_without_defaults);
        }
        Value::Array(items) => items.iter_mut().for_each(normalize_without_defaults),
        _ => {}
    }
}
