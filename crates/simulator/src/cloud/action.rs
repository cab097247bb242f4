//! Actions: the record of every event, and the calls that start one on a Droplet.

use std::net::Ipv4Addr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::paging::page;
use super::request;
use super::{Answer, Cloud, MachineVerb, Phase, Refusal, Request, Status, create, later, written};

/// State of an action as the API names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ActionStatus {
    /// Running.
    InProgress,
    /// Done.
    Completed,
    /// Given up; what it had already changed stays changed.
    Errored,
}

/// How far the machine commands of an action are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Machine {
    /// It has none.
    None,
    /// Handed out as an effect, no result yet.
    Running,
    /// All exited with 0.
    Done,
    /// One did not.
    Failed,
}

/// What completing an action changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The Droplet is live and has networks.
    Create,
    /// The Droplet is gone.
    Destroy,
    /// Power state.
    Power(Status),
    /// New name.
    Rename(String),
    /// New size.
    Resize(String),
    /// New image, by id.
    Rebuild(u64),
    /// The address points at the Droplet.
    AssignIp {
        /// The Reserved IP.
        ip: Ipv4Addr,
        /// Its new holder.
        droplet: u64,
    },
    /// The address points nowhere.
    UnassignIp {
        /// The Reserved IP.
        ip: Ipv4Addr,
    },
    /// Nothing that the simulator models (snapshots, backups, ...).
    Nothing,
}

/// An action.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Action {
    /// Identity.
    pub id: u64,
    /// Type as the API names it.
    pub kind: String,
    /// State.
    pub status: ActionStatus,
    /// When it was accepted.
    pub started_at: Timestamp,
    /// When it ended, either way.
    pub completed_at: Option<Timestamp>,
    /// Droplet id, or the address as a number for a Reserved IP.
    pub resource_id: u64,
    /// `droplet` or `reserved_ip`.
    pub resource_type: String,
    /// Slug of the region.
    pub region: String,
    /// Project of a Reserved IP.
    pub project_id: Option<String>,
    /// Whose event slot it takes.
    pub droplet: Option<u64>,
    /// Earliest end; `None` for never.
    pub due: Option<Timestamp>,
    /// Machine commands.
    pub machine: Machine,
    /// Which ones.
    pub verbs: Vec<MachineVerb>,
    /// What it will change.
    pub outcome: Outcome,
    /// Fault: it ends as errored.
    pub fails: bool,
}

impl Action {
    /// When it can complete, as far as known now.
    pub(super) fn ripe_at(&self) -> Option<Timestamp> {
        let open = self.status == ActionStatus::InProgress && self.machine != Machine::Running;
        self.due.filter(|_| open)
    }

    pub(super) fn finish(&mut self, status: ActionStatus, at: Timestamp) {
        self.status = status;
        self.completed_at = Some(at);
    }
}

impl Cloud {
    pub(super) fn action_json(&self, action: &Action) -> Value {
        let mut value = json!({
            "id": action.id, "status": action.status, "type": action.kind,
            "started_at": written(action.started_at), "completed_at": action.completed_at.map(written),
            "resource_id": action.resource_id, "resource_type": action.resource_type,
            "region": self.region_json(&action.region), "region_slug": action.region,
        });
        if let Some(project) = &action.project_id {
            value["project_id"] = json!(project);
        }
        value
    }

    /// Lists the actions that `wanted` picks, newest first.
    pub(super) fn page_of_actions(
        &self,
        request: &Request,
        wanted: impl Fn(&Action) -> bool,
    ) -> Result<Answer, Refusal> {
        let found: Vec<&Action> = self.actions.values().rev().filter(|action| wanted(action)).collect();
        page(request, "actions", found.len(), |i| self.action_json(found[i]))
    }

    pub(super) fn get_action(&self, id: &str, wanted: impl Fn(&Action) -> bool) -> Result<Answer, Refusal> {
        let id: u64 = id.parse().map_err(|_| Refusal::NotFound)?;
        let action = self.actions.get(&id).filter(|action| wanted(action)).ok_or(Refusal::NotFound)?;
        Ok(Answer::json(200, json!({"action": self.action_json(action)})))
    }

    pub(super) fn list_droplet_actions(&self, id: &str, request: &Request) -> Result<Answer, Refusal> {
        let id = self.existing(id)?.id;
        self.page_of_actions(request, |action| action.of_droplet(id))
    }

    pub(super) fn get_droplet_action(&self, id: &str, action: &str) -> Result<Answer, Refusal> {
        let id = self.existing(id)?.id;
        self.get_action(action, |action| action.of_droplet(id))
    }

    pub(super) fn post_droplet_action(
        &mut self,
        id: &str,
        request: &Request,
        now: Timestamp,
    ) -> Result<Answer, Refusal> {
        let id = self.existing(id)?.id;
        let body = request.object()?;
        let action = self.start_action(id, &body, now)?;
        let action = self.actions.get(&action).map_or(Value::Null, |action| self.action_json(action));
        Ok(Answer::json(201, json!({"action": action})))
    }

    /// The same action on everything the tag index lists; Droplets that refuse are left out.
    pub(super) fn post_action_by_tag(
        &mut self,
        request: &Request,
        now: Timestamp,
    ) -> Result<Answer, Refusal> {
        let tag = request
            .parameter("tag_name")
            .ok_or_else(|| Refusal::unprocessable("tag_name is required."))?
            .to_owned();
        let body = request.object()?;
        let kind = request::text(&body, "type")?.unwrap_or_default();
        let allowed = [
            "power_cycle",
            "power_on",
            "power_off",
            "shutdown",
            "enable_ipv6",
            "enable_backups",
            "disable_backups",
            "snapshot",
        ];
        if !allowed.contains(&kind) {
            return Err(Refusal::unprocessable("The action type is not allowed by tag."));
        }
        let targets: Vec<u64> = self
            .droplets
            .values()
            .filter(|droplet| droplet.exists() && droplet.listed_under(&tag, now))
            .map(|droplet| droplet.id)
            .collect();
        let started: Vec<u64> =
            targets.into_iter().filter_map(|id| self.start_action(id, &body, now).ok()).collect();
        let shown: Vec<Value> = started
            .iter()
            .filter_map(|id| self.actions.get(id))
            .map(|action| self.action_json(action))
            .collect();
        Ok(Answer::json(201, json!({"actions": shown})))
    }

    fn start_action(&mut self, id: u64, body: &Map<String, Value>, now: Timestamp) -> Result<u64, Refusal> {
        let droplet = self.droplets.get(&id).ok_or(Refusal::NotFound)?;
        if droplet.phase == Phase::Deleting {
            return Err(Refusal::NotFound);
        }
        let text = |field: &str| request::text(body, field);
        let kind = text("type")?.ok_or_else(|| Refusal::unprocessable("type is required."))?;
        let off = droplet.status == Status::Off;
        let (outcome, verbs): (Outcome, &[MachineVerb]) = match kind {
            "power_on" if droplet.status == Status::Active => {
                return Err(Refusal::unprocessable("Droplet is already powered on."));
            }
            "power_off" | "shutdown" if off => {
                return Err(Refusal::unprocessable("Droplet is already powered off."));
            }
            "reboot" if off => {
                return Err(Refusal::unprocessable("Droplet is currently off. Please power it on."));
            }
            "power_on" => (Outcome::Power(Status::Active), &[MachineVerb::Boot]),
            "power_off" => (Outcome::Power(Status::Off), &[MachineVerb::PowerOff]),
            "shutdown" => (Outcome::Power(Status::Off), &[MachineVerb::Shutdown]),
            "reboot" => (Outcome::Power(Status::Active), &[MachineVerb::Shutdown, MachineVerb::Boot]),
            "power_cycle" => (Outcome::Power(Status::Active), &[MachineVerb::PowerOff, MachineVerb::Boot]),
            "rename" => {
                let name = text("name")?.ok_or_else(|| Refusal::unprocessable("name is required."))?;
                create::check_name(name)?;
                (Outcome::Rename(name.into()), &[])
            }
            "resize" => {
                request::flag(body, "disk")?;
                let size = text("size")?.filter(|size| self.size(size).is_some());
                let size = size.ok_or_else(|| Refusal::unprocessable("You specified an invalid size."))?;
                if !off {
                    return Err(Refusal::unprocessable(
                        "Droplet must be powered off before it can be resized.",
                    ));
                }
                (Outcome::Resize(size.into()), &[])
            }
            "rebuild" => {
                let named = body.get("image").map(create::slug_or_id).unwrap_or_default();
                let image = self.image(&named).ok_or_else(|| Refusal::unprocessable("Image not found."))?;
                (Outcome::Rebuild(image.id), &[MachineVerb::Destroy, MachineVerb::Boot])
            }
            "snapshot" => {
                text("name")?;
                (Outcome::Nothing, &[])
            }
            "enable_ipv6"
            | "enable_backups"
            | "disable_backups"
            | "change_backup_policy"
            | "restore"
            | "password_reset"
            | "change_kernel" => (Outcome::Nothing, &[]),
            _ => return Err(Refusal::unprocessable("The action type is not known.")),
        };
        self.refuse_when_pending(id)?;
        let due = later(now, self.delays.action);
        Ok(self.start_droplet_event(id, kind, outcome, verbs, Some(due), now))
    }
}

impl Action {
    fn of_droplet(&self, id: u64) -> bool {
        self.resource_type == "droplet" && self.resource_id == id
    }
}
