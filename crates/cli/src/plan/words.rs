//! A plan as it is read by people and by programs.

use std::fmt;

use egress_api::EgressGatewayStatus;
use egress_api::condition::{DEGRADED, PROGRESSING, READY};
use egress_controller::forecast::{Bill, Change, Forecast, Prices, Routes, Why};
use serde::Serialize;

use super::cluster::Stored;

/// What would come of one EgressGateway.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    name: String,
    is_new: bool,
    changes: Vec<Item>,
    #[serde(skip_serializing_if = "Option::is_none")]
    routes: Option<Routes>,
    now: Bill,
    most: Bill,
    then: Bill,
    /// What comes later by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    later: Option<String>,
    /// What keeps it from becoming what is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    obstacle: Option<Obstacle>,
}

/// A change, and what comes on the bill with it.
#[derive(Debug, Serialize)]
struct Item {
    #[serde(flatten)]
    change: Change,
    #[serde(rename = "monthlyPriceUSD", skip_serializing_if = "Option::is_none")]
    monthly_usd: Option<f64>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Obstacle {
    reason: String,
    message: String,
}

/// Stands for the part of a uid that a new object is not given yet.
const NO_UID_YET: &str = "xxxxxxxx";

impl Plan {
    /// The plan for an EgressGateway that would be stored like this.
    pub fn new(stored: &Stored, prices: &Prices, forecast: Forecast) -> Self {
        let Forecast { changes, routes, status, is_gone, is_settled, now, most, then } = forecast;
        let meta = &stored.gateway.metadata;
        let uid = meta.uid.clone().filter(|_| stored.is_new).unwrap_or_default();
        let item = |change: Change| {
            let size = if let Change::CreateDroplet { size, .. } = &change { Some(size) } else { None };
            let monthly_usd = size.and_then(|size| prices.get(size).copied());
            Item { change: without_uid(change, &uid), monthly_usd }
        };
        let later = status.next_roll.as_ref();
        let later = later.map(|next| {
            let (gateway, not_before, reason) = (&next.gateway, next.not_before.0, &next.reason);
            format!("{} is replaced from {not_before} on: {reason}", anonymous(gateway, &uid))
        });
        let obstacle = if is_gone { None } else { obstacle(&status, is_settled) };
        Self {
            name: meta.name.clone().unwrap_or_default(),
            is_new: stored.is_new,
            changes: changes.into_iter().map(item).collect(),
            routes,
            now,
            most,
            then,
            later,
            obstacle: obstacle.map(|one| Obstacle { message: anonymous(&one.message, &uid), ..one }),
        }
    }

    /// Whether it would not become what is asked for.
    pub fn is_obstructed(&self) -> bool {
        self.obstacle.is_some()
    }
}

fn obstacle(status: &EgressGatewayStatus, is_settled: bool) -> Option<Obstacle> {
    let is = |type_: &str, value: &str| {
        let found = status.conditions.iter().find(|condition| condition.type_ == type_)?;
        (found.status == value)
            .then(|| Obstacle { reason: found.reason.clone(), message: found.message.clone() })
    };
    let paused = || is(PROGRESSING, "False").filter(|found| found.reason == "Paused");
    let endless = || {
        let waits = is(PROGRESSING, "True")?;
        Some(Obstacle { message: format!("it waits for what may not come. {}", waits.message), ..waits })
    };
    paused()
        .or_else(|| is(DEGRADED, "True"))
        .or_else(|| is(READY, "False"))
        .or_else(|| if is_settled { None } else { endless() })
}

// The uid that a dry run gives is not the one that an object will get.
fn anonymous(text: &str, uid: &str) -> String {
    if uid.is_empty() {
        return text.to_owned();
    }
    let short: String = uid.chars().take(8).collect();
    text.replace(uid, NO_UID_YET).replace(&short, NO_UID_YET)
}

fn without_uid(mut change: Change, uid: &str) -> Change {
    match &mut change {
        Change::CreateDroplet { name, .. }
        | Change::DeleteDroplet { name, .. }
        | Change::PowerOn { name }
        | Change::PowerCycle { name }
        | Change::AssignToProject { name, .. }
        | Change::LeaveDroplet { name }
        | Change::ReserveAddress { name }
        | Change::MoveAddress { name, .. }
        | Change::CreateFirewall { name }
        | Change::UpdateFirewall { name }
        | Change::DeleteFirewall { name } => *name = anonymous(name, uid),
        Change::ReleaseAddress { .. } => {}
    }
    change
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let new = if self.is_new { " (new)" } else { "" };
        writeln!(f, "EgressGateway {}{new}", self.name)?;
        let mut line = |verb: &str, rest: String| writeln!(f, "  {verb:<8} {rest}");
        for Item { change, monthly_usd } in &self.changes {
            let (verb, rest) = in_words(change, *monthly_usd);
            line(verb, rest)?;
        }
        match self.routes {
            Some(Routes::Made) => line("routes", "nodes are given them".to_owned())?,
            Some(Routes::Changed) => line("routes", "nodes are given others".to_owned())?,
            Some(Routes::TakenAway) => line("routes", "are taken off the nodes first".to_owned())?,
            None => {}
        }
        if self.changes.is_empty() && self.routes.is_none() {
            line("nothing", "is made, rolled or deleted".to_owned())?;
        }
        let more = self.most.droplets > self.now.droplets.max(self.then.droplets);
        let between = if more { format!(", at most {} meanwhile", bill(self.most)) } else { String::new() };
        line("cost", format!("{} now, {} then{between}", bill(self.now), bill(self.then)))?;
        if let Some(later) = &self.later {
            line("later", later.clone())?;
        }
        if let Some(Obstacle { reason, message }) = &self.obstacle {
            line("but", format!("{reason}: {message}"))?;
        }
        Ok(())
    }
}

fn in_words(change: &Change, monthly_usd: Option<f64>) -> (&'static str, String) {
    match change {
        Change::CreateDroplet { name, size, image, region } => {
            let price = monthly_usd
                .map_or_else(|| "at a price not known".to_owned(), |usd| format!("{usd:.2} USD a month"));
            ("create", format!("Droplet {name}: {size}, {image}, {region}, {price}"))
        }
        Change::DeleteDroplet { name, id, why } => {
            let id = id.map(|id| format!(" ({id})")).unwrap_or_default();
            let (verb, why) = match why {
                Why::Rolled { by, reason } => ("roll", format!(", {by} takes its place: {reason}")),
                Why::Replaced { by: Some(by), reason } => {
                    ("replace", format!(", {by} takes its place: {reason}"))
                }
                Why::Replaced { by: None, reason } => ("replace", format!(": {reason}")),
                Why::Surplus => ("delete", ": there are more than are asked for".to_owned()),
                Why::Deleted => ("delete", String::new()),
            };
            (verb, format!("Droplet {name}{id}{why}"))
        }
        Change::PowerOn { name } => ("power on", format!("Droplet {name}")),
        Change::PowerCycle { name } => ("cycle", format!("Droplet {name}: its power")),
        Change::AssignToProject { name, project } => {
            ("move", format!("Droplet {name} into project {project}"))
        }
        Change::LeaveDroplet { name } => ("leave", format!("Droplet {name}, without our tags")),
        Change::ReserveAddress { name } => ("reserve", format!("an address for Droplet {name}")),
        Change::MoveAddress { address, name } => ("move", format!("address {address} to Droplet {name}")),
        Change::ReleaseAddress { address } => ("release", format!("address {address}")),
        Change::CreateFirewall { name } => ("create", format!("firewall {name}")),
        Change::UpdateFirewall { name } => ("change", format!("firewall {name}")),
        Change::DeleteFirewall { name } => ("delete", format!("firewall {name}")),
    }
}

fn bill(Bill { droplets, monthly_usd }: Bill) -> String {
    let many = if droplets == 1 { "1 Droplet".to_owned() } else { format!("{droplets} Droplets") };
    let price =
        monthly_usd.map_or_else(|| "a price not known".to_owned(), |usd| format!("{usd:.2} USD a month"));
    format!("{many} for {price}")
}

#[cfg(test)]
mod tests;
