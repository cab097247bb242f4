//! Projects, and which Droplets and reserved addresses are in them.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::paging::page;
use super::{Answer, Cloud, Refusal, Request, request, written};

/// What a project may be for without being written as `Other: ...`.
const PURPOSES: [&str; 9] = [
    "Just trying out DigitalOcean",
    "Class project / Educational purposes",
    "Website or blog",
    "Web Application",
    "Service or API",
    "Mobile Application",
    "Machine learning / AI / Data processing",
    "IoT",
    "Operational / Developer tooling",
];
const ENVIRONMENTS: [&str; 3] = ["Development", "Staging", "Production"];
const MAX_NAME: usize = 175;
const MAX_TEXT: usize = 255;
/// 1 October 2025: what is there from the beginning.
const FOUNDED: Timestamp = Timestamp::constant(1_759_276_800, 0);

/// A project.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Project {
    /// Identity.
    pub id: String,
    /// Display name; no two have the same.
    pub name: String,
    /// What a person says of it.
    #[serde(default)]
    pub description: String,
    /// What it is for.
    #[serde(default = "service")]
    pub purpose: String,
    /// `Development`, `Staging` or `Production`.
    #[serde(default = "production")]
    pub environment: String,
    /// Whether Droplets come into it that nobody has put elsewhere.
    #[serde(default)]
    pub is_default: bool,
    /// When it was made.
    #[serde(default = "founded")]
    pub created_at: Timestamp,
    /// When something of it was changed last.
    #[serde(default = "founded")]
    pub updated_at: Timestamp,
    /// Droplets that were put into it.
    #[serde(default)]
    pub droplets: BTreeSet<u64>,
}

fn service() -> String {
    "Service or API".into()
}

fn production() -> String {
    "Production".into()
}

fn founded() -> Timestamp {
    FOUNDED
}

impl Project {
    pub(super) fn built_in() -> Self {
        Self {
            is_default: true,
            ..Self::new("4e1bfbc3-dc3e-41f2-a18f-1b4d7ba71679".into(), "Default".into(), FOUNDED)
        }
    }

    fn new(id: String, name: String, now: Timestamp) -> Self {
        Self {
            id,
            name,
            description: String::new(),
            purpose: service(),
            environment: production(),
            is_default: false,
            created_at: now,
            updated_at: now,
            droplets: BTreeSet::new(),
        }
    }

    fn json(&self) -> Value {
        json!({
            "id": self.id, "owner_uuid": "99525febec065ca37b2ffe4f852fd2b2581895e7", "owner_id": 258_992, "name": self.name,
            "description": self.description, "purpose": self.purpose, "environment": self.environment,
            "is_default": self.is_default, "created_at": written(self.created_at), "updated_at": written(self.updated_at),
        })
    }

    /// Takes what a body says of it; what it leaves out stays.
    fn take(&mut self, body: &Map<String, Value>) -> Result<(), Refusal> {
        if let Some(name) = short(body, "name", MAX_NAME)? {
            if name.is_empty() {
                return Err(Refusal::unprocessable("name is required."));
            }
            name.clone_into(&mut self.name);
        }
        if let Some(description) = short(body, "description", MAX_TEXT)? {
            description.clone_into(&mut self.description);
        }
        if let Some(purpose) = short(body, "purpose", MAX_TEXT)? {
            let known = PURPOSES.contains(&purpose) || purpose.starts_with("Other: ");
            self.purpose = if known { purpose.to_owned() } else { format!("Other: {purpose}") };
        }
        if let Some(environment) = request::text(body, "environment")? {
            if !ENVIRONMENTS.contains(&environment) {
                return Err(Refusal::unprocessable(format!("environment must be one of {ENVIRONMENTS:?}.")));
            }
            environment.clone_into(&mut self.environment);
        }
        Ok(())
    }
}

fn short<'a>(body: &'a Map<String, Value>, field: &str, most: usize) -> Result<Option<&'a str>, Refusal> {
    let text = request::text(body, field)?;
    if text.is_some_and(|text| text.chars().count() > most) {
        return Err(Refusal::unprocessable(format!("{field} must have {most} characters at most.")));
    }
    Ok(text)
}

fn required(body: &Map<String, Value>, fields: &[&str]) -> Result<(), Refusal> {
    match fields.iter().find(|field| !body.contains_key(**field)) {
        Some(missing) => Err(Refusal::unprocessable(format!("{missing} is required."))),
        None => Ok(()),
    }
}

/// What can be in a project.
#[derive(Debug, Clone, Copy)]
enum Member {
    Droplet(u64),
    Address(Ipv4Addr),
}

impl Member {
    /// By its name. The description and godo call addresses differently: both are taken.
    fn named(urn: &str) -> Option<Self> {
        let (kind, id) = urn.strip_prefix("do:")?.split_once(':')?;
        match kind {
            "droplet" => Some(Self::Droplet(id.parse().ok()?)),
            "floatingip" | "reservedip" => Some(Self::Address(id.parse().ok()?)),
            _ => None,
        }
    }

    fn json(self, status: &str, now: Timestamp) -> Value {
        let (urn, path) = match self {
            Self::Droplet(id) => (format!("do:droplet:{id}"), format!("droplets/{id}")),
            Self::Address(ip) => (format!("do:floatingip:{ip}"), format!("reserved_ips/{ip}")),
        };
        json!({
            "urn": urn, "assigned_at": written(now), "status": status,
            "links": {"self": format!("https://api.digitalocean.com/v2/{path}")},
        })
    }
}

impl Cloud {
    /// Where the project of that id is; `default` names the default one.
    fn project_at(&self, id: &str) -> Result<usize, Refusal> {
        let is_it = |project: &Project| project.id == id || (id == "default" && project.is_default);
        self.projects.iter().position(is_it).ok_or(Refusal::NotFound)
    }

    pub(super) fn list_projects(&self, request: &Request) -> Result<Answer, Refusal> {
        page(request, "projects", self.projects.len(), |i| self.projects[i].json())
    }

    pub(super) fn get_project(&self, id: &str) -> Result<Answer, Refusal> {
        Ok(Answer::json(200, json!({"project": self.projects[self.project_at(id)?].json()})))
    }

    pub(super) fn create_project(&mut self, request: &Request, now: Timestamp) -> Result<Answer, Refusal> {
        let body = request.object()?;
        required(&body, &["name", "purpose"])?;
        let mut project = Project::new(self.next_uuid(), String::new(), now);
        project.take(&body)?;
        self.refuse_name_of_another(&project)?;
        let answer = Answer::json(201, json!({"project": project.json()}));
        self.projects.push(project);
        Ok(answer)
    }

    /// PUT, which must say everything, and PATCH, which need not.
    pub(super) fn update_project(
        &mut self,
        id: &str,
        request: &Request,
        now: Timestamp,
    ) -> Result<Answer, Refusal> {
        let at = self.project_at(id)?;
        let body = request.object()?;
        if request.method == "PUT" {
            required(&body, &["name", "description", "purpose", "environment", "is_default"])?;
        }
        let mut project = self.projects[at].clone();
        project.take(&body)?;
        self.refuse_name_of_another(&project)?;
        match request::flag(&body, "is_default")? {
            Some(false) if project.is_default => {
                return Err(Refusal::unprocessable("Another project must become the default one."));
            }
            Some(true) => {
                self.projects.iter_mut().for_each(|other| other.is_default = false);
                project.is_default = true;
            }
            _ => {}
        }
        project.updated_at = now;
        let answer = Answer::json(200, json!({"project": project.json()}));
        self.projects[at] = project;
        Ok(answer)
    }

    /// Only an empty one can be deleted, and never the default one.
    pub(super) fn delete_project(&mut self, id: &str) -> Result<Answer, Refusal> {
        let at = self.project_at(id)?;
        if self.projects[at].is_default {
            return Err(Refusal::Precondition("The default project cannot be deleted.".into()));
        }
        if !self.members_of(at).is_empty() {
            return Err(Refusal::Precondition("Only an empty project can be deleted.".into()));
        }
        self.projects.remove(at);
        Ok(Answer::no_content())
    }

    fn refuse_name_of_another(&self, wanted: &Project) -> Result<(), Refusal> {
        let taken = |other: &Project| other.id != wanted.id && other.name == wanted.name;
        if self.projects.iter().any(taken) {
            return Err(Refusal::Conflict("name is already in use".into()));
        }
        Ok(())
    }

    /// The project that takes what nobody puts elsewhere.
    pub(super) fn default_project(&self) -> &str {
        self.projects.iter().find(|project| project.is_default).map_or("", |project| &project.id)
    }

    fn members_of(&self, at: usize) -> Vec<Member> {
        let project = &self.projects[at];
        let droplets = project.droplets.iter().map(|id| Member::Droplet(*id));
        let addresses = self.reserved_ips.keys().map(|ip| Member::Address(*ip));
        droplets.chain(addresses).filter(|member| self.is_in(*member, project)).collect()
    }

    fn is_there(&self, member: Member) -> bool {
        match member {
            Member::Droplet(id) => self.droplets.get(&id).is_some_and(super::Droplet::exists),
            Member::Address(ip) => self.reserved_ips.contains_key(&ip),
        }
    }

    fn is_in(&self, member: Member, project: &Project) -> bool {
        match member {
            Member::Droplet(id) => self.is_there(member) && project.droplets.contains(&id),
            Member::Address(ip) => {
                self.reserved_ips.get(&ip).is_some_and(|address| address.project_id == project.id)
            }
        }
    }

    fn put(&mut self, member: Member, at: usize) {
        match member {
            Member::Droplet(id) => {
                for project in &mut self.projects {
                    project.droplets.remove(&id);
                }
                self.projects[at].droplets.insert(id);
            }
            Member::Address(ip) => {
                let id = &self.projects[at].id;
                if let Some(address) = self.reserved_ips.get_mut(&ip) {
                    address.project_id.clone_from(id);
                }
            }
        }
    }

    pub(super) fn list_project_resources(
        &self,
        id: &str,
        request: &Request,
        now: Timestamp,
    ) -> Result<Answer, Refusal> {
        let members = self.members_of(self.project_at(id)?);
        page(request, "resources", members.len(), |i| members[i].json("ok", now))
    }

    pub(super) fn assign_resources(
        &mut self,
        id: &str,
        request: &Request,
        now: Timestamp,
    ) -> Result<Answer, Refusal> {
        let at = self.project_at(id)?;
        let body = request.object()?;
        let named = body.get("resources").and_then(Value::as_array);
        let named = named.ok_or_else(|| Refusal::unprocessable("resources must be a list"))?;
        let members: Option<Vec<Member>> = named.iter().map(|urn| Member::named(urn.as_str()?)).collect();
        let members =
            members.ok_or_else(|| Refusal::unprocessable("only Droplets and reserved IPs are here"))?;
        let mut resources = Vec::new();
        for member in members {
            let status = if !self.is_there(member) {
                "not_found"
            } else if self.is_in(member, &self.projects[at]) {
                "already_assigned"
            } else {
                self.put(member, at);
                "assigned"
            };
            resources.push(member.json(status, now));
        }
        Ok(Answer::json(200, json!({"resources": resources})))
    }
}
