//! Actions: what the API is doing to a Droplet.

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};

use super::ids::ActionId;
use super::lenient;

/// What can be asked of a Droplet. Only what needs no parameter and destroys nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DropletAction {
    /// Switch on.
    PowerOn,
    /// Cut the power.
    PowerOff,
    /// Cut the power and switch on.
    PowerCycle,
    /// Ask the operating system to reboot.
    Reboot,
}

/// One action.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Action {
    /// Its id.
    pub id: ActionId,
    /// How it stands.
    #[serde(default)]
    pub status: ActionStatus,
    /// What it is, in the API's words: `create`, `power_on`, `assign_ip`, ...
    #[serde(default, rename = "type")]
    pub kind: String,
    /// Begin.
    #[serde(default, deserialize_with = "lenient::optional")]
    pub started_at: Option<Timestamp>,
    /// End, when it has one.
    #[serde(default, deserialize_with = "lenient::optional")]
    pub completed_at: Option<Timestamp>,
    /// The Droplet's or other resource's number, when it has one.
    #[serde(default, deserialize_with = "lenient::optional")]
    pub resource_id: Option<u64>,
}

/// How an action stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ActionStatus {
    /// Not finished; its resource takes no other action. `new`, seen by DigitalOcean's own clients, counts as this.
    InProgress,
    /// Done.
    Completed,
    /// Failed.
    Errored,
    /// A word this version does not know, empty when there was none.
    Unknown(String),
}

impl Default for ActionStatus {
    fn default() -> Self {
        Self::Unknown(String::new())
    }
}

impl<'de> Deserialize<'de> for ActionStatus {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word: Option<String> = lenient::optional(deserializer)?;
        Ok(match word.as_deref() {
            Some("in-progress" | "new") => Self::InProgress,
            Some("completed") => Self::Completed,
            Some("errored") => Self::Errored,
            other => Self::Unknown(other.unwrap_or_default().to_owned()),
        })
    }
}
