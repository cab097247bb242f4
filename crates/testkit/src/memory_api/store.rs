//! The objects, and what each kind of write makes of them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::Clock;
use super::fields::{self, Owner, Owners};
use super::refusal::Refusal;
use super::schema;
use super::scope::{Scope, owned_paths};
use super::watch::{Change, Watcher};

/// A kind of objects.
#[derive(Clone, Debug)]
pub(super) struct Kind {
    pub(super) group: String,
    pub(super) version: String,
    pub(super) plural: String,
    pub(super) kind: String,
    /// Whether its status is written apart.
    pub(super) has_status: bool,
    /// Schema of the whole object; without one nothing is pruned or defaulted.
    pub(super) schema: Option<Value>,
}

impl Kind {
    pub(super) fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    // A CustomResourceDefinition says nothing of metadata, whose lists are those of every kind.
    pub(super) fn whole_schema(&self) -> Value {
        let mut schema = self.schema.clone().unwrap_or_else(|| json!({}));
        schema["properties"]["metadata"] = json!({"x-kubernetes-preserve-unknown-fields": true, "properties": {
            "finalizers": {"x-kubernetes-list-type": "set"},
            "ownerReferences": {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["uid"]},
        }});
        schema
    }

    fn is_custom(&self) -> bool {
        self.schema.is_some()
    }
}

/// Where an object is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) plural: String,
    pub(super) namespace: Option<String>,
    pub(super) name: String,
}

/// An object, and whose its fields are.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) object: Value,
    pub(super) owners: Owners,
}

/// A write to one object.
pub(super) struct Write {
    pub(super) owner: Owner,
    pub(super) how: How,
}

/// What a write says.
pub(super) enum How {
    /// Server-side apply, by force or not.
    Apply(Value, bool),
    /// A merge patch.
    Merge(Value),
    /// The whole object.
    Replace(Value),
}

pub(super) struct Store {
    pub(super) kinds: Vec<Kind>,
    pub(super) revision: u64,
    pub(super) history: Vec<Change>,
    pub(super) watchers: Vec<Watcher>,
    pub(super) clock: Clock,
    objects: BTreeMap<Place, Stored>,
    made: u64,
}

impl Store {
    pub(super) fn new(kinds: Vec<Kind>, clock: Clock) -> Self {
        Self {
            kinds,
            revision: 1,
            history: Vec::new(),
            watchers: Vec::new(),
            clock,
            objects: BTreeMap::new(),
            made: 0,
        }
    }

    pub(super) fn fork(&self, clock: Clock) -> Self {
        Self {
            kinds: self.kinds.clone(),
            revision: self.revision,
            history: self.history.clone(),
            watchers: Vec::new(),
            clock,
            objects: self.objects.clone(),
            made: self.made,
        }
    }

    pub(super) fn get(&self, place: &Place) -> Option<&Value> {
        self.objects.get(place).map(|stored| &stored.object)
    }

    pub(super) fn list(&self, plural: &str) -> impl Iterator<Item = &Value> {
        let of_kind = self.objects.iter().filter(move |(place, _)| place.plural == plural);
        of_kind.map(|(_, stored)| &stored.object)
    }

    pub(super) fn create(
        &mut self,
        kind: &Kind,
        place: &Place,
        mut object: Value,
        owner: Owner,
    ) -> Result<Value, Refusal> {
        if self.objects.contains_key(place) {
            return Err(Refusal::already_exists(kind, &place.name));
        }
        if object["metadata"].get("resourceVersion").is_some() {
            return Err(Refusal::internal("resourceVersion should not be set on objects to be created"));
        }
        if kind.has_status
            && let Some(fields) = object.as_object_mut()
        {
            fields.remove("status");
        }
        self.born(kind, place, &mut object);
        normalize(kind, &mut object);
        let owned = owned_paths(kind, &object);
        let owners = Owners::from([(owner, owned)]);
        self.put(place, Stored { object, owners }, "ADDED");
        Ok(self.objects[place].object.clone())
    }

    fn born(&mut self, kind: &Kind, place: &Place, object: &mut Value) {
        self.made += 1;
        object["apiVersion"] = json!(kind.api_version());
        object["kind"] = json!(kind.kind);
        let metadata = &mut object["metadata"];
        metadata["name"] = json!(place.name);
        if let Some(namespace) = &place.namespace {
            metadata["namespace"] = json!(namespace);
        }
        metadata["uid"] = json!(format!("{:08x}-0000-4000-8000-{:012x}", 0x1a2b_3c00 + self.made, self.made));
        metadata["creationTimestamp"] = json!(self.second());
        if kind.is_custom() {
            metadata["generation"] = json!(1);
        }
    }

    /// Applies, patches or replaces.
    pub(super) fn write(
        &mut self,
        kind: &Kind,
        place: &Place,
        write: Write,
    ) -> Result<(Value, bool), Refusal> {
        let Write { owner, how } = write;
        let said = match &how {
            How::Apply(said, _) | How::Merge(said) | How::Replace(said) => said.clone(),
        };
        let Some(before) = self.objects.get(place).cloned() else {
            return match how {
                How::Apply(config, _) if owner.subresource.is_empty() => {
                    if let Some(uid) = said["metadata"]["uid"].as_str() {
                        return Err(Refusal::gone_under(kind, &place.name, uid));
                    }
                    let mut config = config;
                    // A version of what is gone is no objection.
                    if let Some(metadata) = config["metadata"].as_object_mut() {
                        metadata.remove("resourceVersion");
                    }
                    self.create(kind, place, config, owner).map(|made| (made, true))
                }
                _ => Err(Refusal::not_found(kind, &place.name)),
            };
        };
        let same = |key: &str| match said["metadata"].get(key).and_then(Value::as_str) {
            Some(wanted) if !wanted.is_empty() => before.object["metadata"][key] == wanted,
            _ => true,
        };
        if !same("resourceVersion") {
            return Err(Refusal::conflict(kind, &place.name));
        }
        // Of whoever applies to what is there the uid is not asked, of others it is.
        if !matches!(how, How::Apply(..)) && !same("uid") {
            return Err(Refusal::invalid(kind, &place.name));
        }
        let mut after = before.clone();
        let scope = Scope { kind, owner: &owner };
        match how {
            How::Apply(config, force) => scope.apply(&mut after, &config, force)?,
            How::Merge(patch) => {
                fields::merge_patch(&mut after.object, &patch);
                scope.confine(&before.object, &mut after);
            }
            How::Replace(object) => {
                after.object = object;
                scope.confine(&before.object, &mut after);
            }
        }
        normalize(kind, &mut after.object);
        keep_system_fields(&before.object, &mut after.object);
        if after.object == before.object && after.owners == before.owners {
            return Ok((before.object, false));
        }
        if kind.is_custom() && differs_outside_status(&before.object, &after.object) {
            bump_generation(&mut after.object);
        }
        let is_over =
            after.object["metadata"].get("deletionTimestamp").is_some() && !has_finalizers(&after.object);
        if is_over {
            // Never stored without its last finalizer: who watches sees it go as it was.
            self.take(place, before);
            return Ok((after.object, false));
        }
        self.put(place, after, "MODIFIED");
        Ok((self.objects[place].object.clone(), false))
    }

    /// Deletes; what has finalizers is only marked. Gives the object while there still is one.
    pub(super) fn delete(
        &mut self,
        kind: &Kind,
        place: &Place,
        options: &Value,
    ) -> Result<Option<Value>, Refusal> {
        let Some(mut stored) = self.objects.get(place).cloned() else {
            return Err(Refusal::not_found(kind, &place.name));
        };
        let metadata = &stored.object["metadata"];
        let preconditions = &options["preconditions"];
        let met = |key: &str| preconditions[key].as_str().is_none_or(|wanted| metadata[key] == wanted);
        if !met("uid") || !met("resourceVersion") {
            return Err(Refusal::conflict(kind, &place.name));
        }
        if !has_finalizers(&stored.object) {
            self.take(place, stored);
            return Ok(None);
        }
        if stored.object["metadata"].get("deletionTimestamp").is_none() {
            stored.object["metadata"]["deletionTimestamp"] = json!(self.second());
            stored.object["metadata"]["deletionGracePeriodSeconds"] = json!(0);
            if kind.is_custom() {
                bump_generation(&mut stored.object);
            }
            self.put(place, stored, "MODIFIED");
        }
        Ok(self.get(place).cloned())
    }

    fn put(&mut self, place: &Place, mut stored: Stored, verb: &'static str) {
        self.revision += 1;
        stored.object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        self.tell(place, verb, stored.object.clone());
        self.objects.insert(place.clone(), stored);
    }

    fn take(&mut self, place: &Place, mut last: Stored) {
        self.revision += 1;
        last.object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        self.objects.remove(place);
        self.tell(place, "DELETED", last.object);
    }

    fn tell(&mut self, place: &Place, verb: &'static str, object: Value) {
        let change = Change { revision: self.revision, kind: place.plural.clone(), verb, object };
        let now = (self.clock)();
        self.watchers.retain(|watcher| watcher.tell(&change, now));
        self.history.push(change);
    }

    // As the API server writes times.
    fn second(&self) -> String {
        let now = (self.clock)();
        Timestamp::from_second(now.as_second()).unwrap_or(now).to_string()
    }
}

fn normalize(kind: &Kind, object: &mut Value) {
    if let Some(schema) = &kind.schema {
        // A definition's schema need not speak of these.
        let common = ["apiVersion", "kind", "metadata"].map(|name| (name, object[name].take()));
        schema::normalize(object, schema);
        common.into_iter().for_each(|(name, value)| object[name] = value);
    }
    let Some(metadata) = object["metadata"].as_object_mut() else { return };
    metadata.remove("managedFields");
    metadata.retain(|name, value| {
        !value.is_null()
            && !(matches!(name.as_str(), "finalizers" | "ownerReferences" | "labels" | "annotations")
                && is_bare(value))
    });
}

fn is_bare(value: &Value) -> bool {
    value.as_array().is_some_and(Vec::is_empty) || value.as_object().is_some_and(Map::is_empty)
}

fn keep_system_fields(before: &Value, after: &mut Value) {
    for key in [
        "uid",
        "name",
        "namespace",
        "creationTimestamp",
        "generation",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "resourceVersion",
    ] {
        if let Some(value) = before["metadata"].get(key) {
            after["metadata"][key] = value.clone();
        } else if let Some(metadata) = after["metadata"].as_object_mut() {
            metadata.remove(key);
        }
    }
    for key in ["apiVersion", "kind"] {
        after[key] = before[key].clone();
    }
}

fn differs_outside_status(before: &Value, after: &Value) -> bool {
    let rest = |value: &Value| {
        let mut rest = value.clone();
        if let Some(fields) = rest.as_object_mut() {
            fields.remove("status");
            fields.remove("metadata");
        }
        rest
    };
    rest(before) != rest(after)
}

fn bump_generation(object: &mut Value) {
    let generation = object["metadata"]["generation"].as_i64().unwrap_or_default() + 1;
    object["metadata"]["generation"] = json!(generation);
}

fn has_finalizers(object: &Value) -> bool {
    object["metadata"]["finalizers"].as_array().is_some_and(|finalizers| !finalizers.is_empty())
}
