//! Cloud firewalls: rules, and the Droplets they apply to by id or by tag.
//!
//! Invariants: every tag that a firewall names exists, every Droplet that it names has not been deleted, no two firewalls have one
//! name. What a firewall asks for and what it does to packets are two things: [`enforcement`] brings the second after the
//! first, and only the second survives its deletion for a while.

mod calls;
mod enforcement;
mod rules;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub(super) use calls::Change;
pub use enforcement::{Enforcement, Place};
pub use rules::{Peers, Protocol, Rule};

use super::written;
use rules::Way;

/// A firewall.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Firewall {
    /// Id (a UUID).
    pub id: String,
    /// Name; no two have the same.
    pub name: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// Droplets it names.
    pub droplet_ids: Vec<u64>,
    /// Tags it names, in their canonical spelling.
    pub tags: Vec<String>,
    /// What may come in, sorted.
    pub inbound: Vec<Rule>,
    /// What may go out, sorted.
    pub outbound: Vec<Rule>,
    /// Whether it was deleted: the API knows it no more, Droplets still do.
    pub deleted: bool,
    /// What it does at each Droplet, and what it is about to do.
    pub places: BTreeMap<u64, Place>,
}

impl Firewall {
    /// As the API shows it.
    fn json(&self) -> Value {
        let pending: Vec<Value> = self
            .pending()
            .map(|(droplet, removing)| json!({"droplet_id": droplet, "removing": removing, "status": "waiting"}))
            .collect();
        let shown = |rules: &[Rule], way| rules.iter().map(|rule| rule.shown(way)).collect::<Vec<_>>();
        json!({
            "id": self.id, "name": self.name, "created_at": written(self.created_at),
            "status": if pending.is_empty() { "succeeded" } else { "waiting" },
            "pending_changes": pending,
            "droplet_ids": self.droplet_ids, "tags": self.tags,
            "inbound_rules": shown(&self.inbound, Way::In),
            "outbound_rules": shown(&self.outbound, Way::Out),
        })
    }
}
