//! Projects, and which Droplets are in them.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::paging::page;
use super::{Answer, Cloud, Refusal, Request, written};

/// A project.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Project {
    /// Identity.
    pub id: String,
    /// Display name.
    pub name: String,
    /// Whether Droplets come into it that nobody has put elsewhere.
    #[serde(default)]
    pub is_default: bool,
    /// Droplets that were put into it.
    #[serde(default)]
    pub droplets: BTreeSet<u64>,
}

impl Project {
    pub(super) fn built_in() -> Self {
        Self {
            id: "4e1bfbc3-dc3e-41f2-a18f-1b4d7ba71679".into(),
            name: "Default".into(),
            is_default: true,
            droplets: BTreeSet::new(),
        }
    }

    fn json(&self) -> Value {
        json!({
            "id": self.id, "owner_uuid": "99525febec065ca37b2ffe4f852fd2b2581895e7", "owner_id": 258_992, "name": self.name,
            "description": "", "purpose": "Service or API", "environment": "Production", "is_default": self.is_default,
            "created_at": "2025-10-01T00:00:00Z", "updated_at": "2025-10-01T00:00:00Z",
        })
    }
}

fn urn(droplet: u64) -> String {
    format!("do:droplet:{droplet}")
}

fn resource(droplet: u64, status: &str, now: Timestamp) -> Value {
    json!({
        "urn": urn(droplet), "assigned_at": written(now), "status": status,
        "links": {"self": format!("https://api.digitalocean.com/v2/droplets/{droplet}")},
    })
}

impl Cloud {
    pub(super) fn list_projects(&self, request: &Request) -> Result<Answer, Refusal> {
        page(request, "projects", self.projects.len(), |i| self.projects[i].json())
    }

    pub(super) fn get_project(&self, id: &str) -> Result<Answer, Refusal> {
        let project = self.projects.iter().find(|project| project.id == id).ok_or(Refusal::NotFound)?;
        Ok(Answer::json(200, json!({"project": project.json()})))
    }

    pub(super) fn list_project_resources(
        &self,
        id: &str,
        request: &Request,
        now: Timestamp,
    ) -> Result<Answer, Refusal> {
        let project = self.projects.iter().find(|project| project.id == id).ok_or(Refusal::NotFound)?;
        let droplets: Vec<u64> = project.droplets.iter().copied().collect();
        page(request, "resources", droplets.len(), |i| resource(droplets[i], "ok", now))
    }

    pub(super) fn assign_resources(
        &mut self,
        id: &str,
        request: &Request,
        now: Timestamp,
    ) -> Result<Answer, Refusal> {
        let at = self.projects.iter().position(|project| project.id == id).ok_or(Refusal::NotFound)?;
        let body = request.object()?;
        let named = body.get("resources").and_then(Value::as_array);
        let named = named.ok_or_else(|| Refusal::unprocessable("resources must be a list"))?;
        let number = |urn: &Value| urn.as_str()?.strip_prefix("do:droplet:")?.parse().ok();
        let droplets: Option<Vec<u64>> = named.iter().map(number).collect();
        let droplets = droplets.ok_or_else(|| Refusal::unprocessable("only Droplets are here"))?;
        let mut resources = Vec::new();
        for droplet in droplets {
            let status = if !self.droplets.get(&droplet).is_some_and(super::Droplet::exists) {
                "not_found"
            } else if self.projects[at].droplets.contains(&droplet) {
                "already_assigned"
            } else {
                for project in &mut self.projects {
                    project.droplets.remove(&droplet);
                }
                self.projects[at].droplets.insert(droplet);
                "assigned"
            };
            resources.push(resource(droplet, status, now));
        }
        Ok(Answer::json(200, json!({"resources": resources})))
    }
}
