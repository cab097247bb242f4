//! Tags. Names are case-stable: the first spelling is canonical, later spellings mean the same tag, and only the
//! canonical one works in an address.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::paging::page;
use super::{Answer, Cloud, Refusal, Request, later};

/// A tag of the team.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tag {
    /// Canonical spelling.
    pub name: String,
}

/// A tag on a Droplet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tagged {
    /// Canonical spelling.
    pub name: String,
    /// When `?tag_name=` begins to list the Droplet.
    pub listed_from: Timestamp,
}

/// # Errors
/// 422 unless the name matches `^[a-zA-Z0-9_\-:]{1,255}$`.
pub(super) fn check_tag(name: &str) -> Result<(), Refusal> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_-:".contains(c);
    if !name.is_empty() && name.len() <= 255 && name.chars().all(allowed) {
        Ok(())
    } else {
        Err(Refusal::unprocessable(
            "Tag names may only contain letters, numbers, colons, dashes, and underscores.",
        ))
    }
}

impl Cloud {
    /// The canonical spelling of a tag, creating it when it is new.
    pub(super) fn ensure_tag(&mut self, name: &str) -> String {
        if let Some(known) = self.tags.keys().find(|known| known.eq_ignore_ascii_case(name)) {
            return known.clone();
        }
        self.tags.insert(name.into(), Tag { name: name.into() });
        name.into()
    }

    fn tag_json(&self, tag: &Tag) -> Value {
        let holders: Vec<u64> = self
            .droplets
            .values()
            .filter(|droplet| droplet.exists() && droplet.tags.iter().any(|tagged| tagged.name == tag.name))
            .map(|droplet| droplet.id)
            .collect();
        let none = json!({"count": 0});
        let mut droplets = json!({"count": holders.len()});
        if let Some(last) = holders.last() {
            droplets["last_tagged_uri"] = json!(format!("https://api.digitalocean.com/v2/droplets/{last}"));
        }
        let mut resources = droplets.clone();
        resources["droplets"] = droplets;
        for other in ["images", "volumes", "volume_snapshots", "databases"] {
            resources[other] = none.clone();
        }
        json!({"name": tag.name, "resources": resources})
    }

    pub(super) fn list_tags(&self, request: &Request) -> Result<Answer, Refusal> {
        let tags: Vec<&Tag> = self.tags.values().collect();
        page(request, "tags", tags.len(), |i| self.tag_json(tags[i]))
    }

    pub(super) fn create_tag(&mut self, request: &Request) -> Result<Answer, Refusal> {
        // Every 400 of this call has the tags' own shape.
        let bad = |refusal: Refusal| Refusal::BadTag(refusal.to_string());
        let body = request.object().map_err(bad)?;
        let name = body.get("name").and_then(Value::as_str).unwrap_or_default();
        check_tag(name).map_err(bad)?;
        let name = self.ensure_tag(name);
        self.get_tag(&name).map(|answer| Answer { status: 201, ..answer })
    }

    pub(super) fn get_tag(&self, name: &str) -> Result<Answer, Refusal> {
        let tag = self.tags.get(name).ok_or(Refusal::NotFound)?;
        Ok(Answer::json(200, json!({"tag": self.tag_json(tag)})))
    }

    pub(super) fn delete_tag(&mut self, name: &str) -> Result<Answer, Refusal> {
        self.tags.remove(name).ok_or(Refusal::NotFound)?;
        for droplet in self.droplets.values_mut() {
            droplet.tags.retain(|tagged| tagged.name != name);
        }
        for firewall in self.firewalls.values_mut() {
            firewall.tags.retain(|tag| tag != name);
        }
        Ok(Answer::no_content())
    }

    /// Attach (`on`) or detach a tag; all resources must exist, or nothing happens.
    pub(super) fn tag_resources(
        &mut self,
        name: &str,
        request: &Request,
        on: bool,
        now: Timestamp,
    ) -> Result<Answer, Refusal> {
        if !self.tags.contains_key(name) {
            return Err(Refusal::NotFound);
        }
        let body = request.object()?;
        let Some(Value::Array(resources)) = body.get("resources") else {
            return Err(Refusal::unprocessable("resources is required."));
        };
        let mut ids = Vec::new();
        for resource in resources {
            if resource.get("resource_type").and_then(Value::as_str) != Some("droplet") {
                return Err(Refusal::NotFound);
            }
            let id = resource.get("resource_id").and_then(Value::as_str);
            let id = id.ok_or_else(|| Refusal::unprocessable("resource_id must be a string."))?;
            ids.push(self.existing(id)?.id);
        }
        let listed_from = later(now, self.delays.tag_index);
        for id in ids {
            let Some(droplet) = self.droplets.get_mut(&id) else { continue };
            let has = droplet.tags.iter().any(|tagged| tagged.name == name);
            if !on {
                droplet.tags.retain(|tagged| tagged.name != name);
            } else if !has {
                droplet.tags.push(Tagged { name: name.into(), listed_from });
            }
        }
        Ok(Answer::no_content())
    }
}
