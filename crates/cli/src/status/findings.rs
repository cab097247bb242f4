//! What is wrong, what can't be told, and what is worth knowing: pure.

use std::collections::BTreeMap;
use std::time::Duration;

use egress_api::condition::{DEGRADED, PROGRESSING, READY};
use egress_api::{EgressGateway, OWNED_BY_LABEL, StaticRoute};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource;
use serde::Serialize;

use crate::output::some;
use crate::view::{View, is_ready, name};

/// How grave a finding is. The order is that in which they are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Level {
    /// Something does not do what it should.
    Wrong,
    /// It can't be told.
    Unknown,
    /// Nothing is wrong; good to know.
    Note,
}

/// One thing to know.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// How grave it is.
    pub level: Level,
    /// How much of the egress it concerns; 0 is most. Only for the order.
    #[serde(skip)]
    rank: u8,
    /// What it is about: kind and name.
    pub object: String,
    /// In one word, for programs.
    pub reason: String,
    /// In a sentence, with the way out where there is one.
    pub message: String,
}

/// Who leads among the controllers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leader {
    /// The Lease was renewed then, by this one, and counts for so long.
    Renewed { at: Option<Timestamp>, holder: String, counts: Duration },
    /// There is no Lease.
    Missing { namespace: String },
    /// It can't be read.
    NotTold,
}

/// A Lease that says nothing of it counts for so long.
const LEASE_COUNTS: Duration = Duration::from_secs(15);
/// An object this young may have no status yet.
const YOUNG: Duration = Duration::from_secs(30);

impl Leader {
    /// What the Lease says.
    pub fn of(lease: &Lease) -> Self {
        let spec = lease.spec.clone().unwrap_or_default();
        let counts = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        Self::Renewed {
            at: spec.renew_time.map(|time| time.0),
            holder: spec.holder_identity.unwrap_or_default(),
            counts: counts.map_or(LEASE_COUNTS, Duration::from_secs),
        }
    }
}

/// Everything there is to say, the gravest first.
pub fn findings(view: &View, leader: &Leader, now: Timestamp) -> Vec<Finding> {
    let mut findings = Vec::new();
    for unread in &view.unread {
        findings.push(finding(Level::Unknown, 0, unread.kind, "CannotRead", unread.why.clone()));
    }
    findings.extend(of_the_controller(view, leader, now));
    for gateway in &view.egress_gateways {
        match &gateway.0 {
            Ok(gateway) => of_egress_gateway(gateway, now, &mut findings),
            Err(broken) => findings.push(unreadable("EgressGateway", name(gateway), &broken.error)),
        }
    }
    for route in &view.static_routes {
        match &route.0 {
            Ok(route) => {
                let told = of_static_route(route, &findings, now);
                findings.extend(told);
            }
            Err(broken) => findings.push(unreadable("StaticRoute", name(route), &broken.error)),
        }
    }
    of_nodes(view, &mut findings);
    findings.sort();
    findings.dedup();
    findings
}

fn finding(level: Level, rank: u8, object: &str, reason: &str, message: String) -> Finding {
    Finding { level, rank, object: object.to_owned(), reason: reason.to_owned(), message }
}

fn unreadable(kind: &str, name: &str, error: &str) -> Finding {
    let message = format!("can't be read: {error}; what nodes have of it stays");
    finding(Level::Wrong, 1, &format!("{kind} {name}"), "Unreadable", message)
}

fn of_the_controller(view: &View, leader: &Leader, now: Timestamp) -> Option<Finding> {
    let is_needed = !view.egress_gateways.is_empty() || !view.static_routes.is_empty();
    let wrong =
        |message| is_needed.then(|| finding(Level::Wrong, 1, "controller", "ControllerAway", message));
    let then = "what is said of EgressGateways and StaticRoutes below may be old, and nothing is repaired; nodes fail over by themselves";
    match leader {
        Leader::NotTold => None,
        Leader::Missing { namespace } => wrong(format!(
            "no controller has ever led in namespace {namespace} (another one: --namespace); {then}"
        )),
        Leader::Renewed { at, holder, counts } => {
            // Twice: the clock here is not the clock there.
            let is_late = |at: Timestamp| age(at, now) > *counts * 2;
            let ago = at.map_or_else(|| "never".to_owned(), |at| format!("{} ago", in_words(age(at, now))));
            let is_away = holder.is_empty() || at.is_none_or(is_late);
            is_away.then(|| wrong(format!("nobody leads: the Lease was renewed {ago}; {then}"))).flatten()
        }
    }
}

fn of_egress_gateway(gateway: &EgressGateway, now: Timestamp, findings: &mut Vec<Finding>) {
    let object = format!("EgressGateway {}", name(gateway));
    let status = gateway.status.clone().unwrap_or_default();
    let is_paused =
        is(&status.conditions, PROGRESSING, "False").is_some_and(|found| found.reason == "Paused");
    if let Some(behind) = behind(&object, gateway, status.observed_generation, now).filter(|_| !is_paused) {
        findings.push(behind);
    }
    let is_going = gateway.metadata.deletion_timestamp.is_some();
    let told = |level, rank, condition: &Condition| {
        finding(level, rank, &object, &condition.reason, condition.message.clone())
    };
    let no_gateway = status.active.is_none();
    if let Some(ready) = is(&status.conditions, READY, "False") {
        let level = if is_going { Level::Note } else { Level::Wrong };
        findings.push(told(level, if no_gateway { 0 } else { 2 }, ready));
    }
    if let Some(degraded) = is(&status.conditions, DEGRADED, "True") {
        let said = findings.iter().any(|one| one.object == object && one.message == degraded.message);
        if !said {
            findings.push(told(Level::Wrong, 3, degraded));
        }
    }
    match is(&status.conditions, PROGRESSING, "True") {
        _ if is_going && !findings.iter().any(|one| one.object == object) => {
            findings.push(finding(Level::Note, 5, &object, "Deleting", "it is being deleted".to_owned()));
        }
        Some(progress) if !is_going => findings.push(told(Level::Note, 5, progress)),
        _ if is_paused => {
            if let Some(paused) = is(&status.conditions, PROGRESSING, "False") {
                findings.push(told(Level::Note, 4, paused));
            }
        }
        _ => {}
    }
}

fn of_static_route(route: &StaticRoute, so_far: &[Finding], now: Timestamp) -> Vec<Finding> {
    let object = format!("StaticRoute {}", name(route));
    if route.metadata.deletion_timestamp.is_some() {
        return vec![finding(Level::Note, 5, &object, "Deleting", "it is being deleted".to_owned())];
    }
    // Its EgressGateway has said it already.
    let owner = route.metadata.labels.as_ref().and_then(|labels| labels.get(OWNED_BY_LABEL));
    let owner = owner.map(|owner| format!("EgressGateway {owner}"));
    let is_told = |level| so_far.iter().any(|one| Some(&one.object) == owner.as_ref() && one.level == level);
    let status = route.status.clone().unwrap_or_default();
    let mut findings = Vec::new();
    findings
        .extend(behind(&object, route, status.observed_generation, now).filter(|_| !is_told(Level::Unknown)));
    let told = |rank, condition: &Condition| {
        finding(Level::Wrong, rank, &object, &condition.reason, condition.message.clone())
    };
    let applied = status.nodes_applied.unwrap_or_default();
    let not_ready = is(&status.conditions, READY, "False").filter(|_| !is_told(Level::Wrong));
    findings.extend(not_ready.map(|ready| told(if applied == 0 { 1 } else { 2 }, ready)));
    let degraded = is(&status.conditions, DEGRADED, "True").filter(|_| !is_told(Level::Wrong));
    findings.extend(degraded.map(|degraded| told(3, degraded)));
    findings
}

/// That nobody has looked at the latest version of an object.
fn behind<K: Resource>(object: &str, it: &K, observed: Option<i64>, now: Timestamp) -> Option<Finding> {
    let meta = it.meta();
    if observed.is_some() && observed >= meta.generation {
        return None;
    }
    let created = meta.creation_timestamp.as_ref();
    let is_young = created.is_none_or(|created| age(created.0, now) < YOUNG);
    let message = match observed {
        None if is_young => "it was made just now, and nothing is known of it yet",
        None => "the controller has not looked at it: does it run?",
        Some(_) => "its latest version has not been looked at yet; what is said is of an earlier one",
    };
    Some(finding(Level::Unknown, 2, object, "NotObserved", message.to_owned()))
}

fn of_nodes(view: &View, findings: &mut Vec<Finding>) {
    let reported = view.reported();
    let is_read = |kind| view.unread.iter().all(|unread| unread.kind != kind);
    let mut silent = Vec::new();
    let mut rebooted = Vec::new();
    let mut not_ready = Vec::new();
    // One line for all nodes that say the same.
    let mut troubles: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for node in &view.nodes {
        let node_name = name(node).to_owned();
        if !is_ready(node) {
            not_ready.push(node_name);
            continue;
        }
        let Some(report) = reported.get(node_name.as_str()) else {
            silent.push(node_name);
            continue;
        };
        let info = node.status.as_ref().and_then(|status| status.node_info.as_ref());
        let boot = info.map(|info| &info.boot_id).filter(|id| !id.is_empty());
        if boot.is_some() && report.boot_id.is_some() && report.boot_id.as_ref() != boot {
            rebooted.push(node_name);
            continue;
        }
        for condition in report.conditions.iter().filter(|condition| condition.status == "True") {
            let what = (condition.type_.clone(), condition.message.clone());
            troubles.entry(what).or_default().push(node_name.clone());
        }
        if report.cut_off {
            let what = "it reaches neither a gateway nor a neighbour in the VPC".to_owned();
            troubles.entry(("CutOff".to_owned(), what)).or_default().push(node_name.clone());
        }
    }
    let there_are_routes = !view.static_routes.is_empty();
    let mut tell = |level, rank, nodes: &[String], reason: &str, message: String| {
        if !nodes.is_empty() {
            findings.push(finding(level, rank, &of(nodes), reason, message));
        }
    };
    if is_read("NodeEgresses") {
        let level = if there_are_routes { Level::Wrong } else { Level::Note };
        let words = "no report: does the agent run there? kubectl -n egress-gateway get pods -o wide -l app.kubernetes.io/name=egress-agent";
        tell(level, 2, &silent, "NoReport", words.to_owned());
    }
    let words = "the report is of before the last boot: its agent has not spoken since";
    tell(Level::Unknown, 3, &rebooted, "OldReport", words.to_owned());
    tell(Level::Note, 5, &not_ready, "NodeNotReady", "not Ready in Kubernetes; it is not counted".to_owned());
    for ((type_, message), nodes) in troubles {
        tell(Level::Wrong, 3, &nodes, &type_, message);
    }
}

fn of(nodes: &[String]) -> String {
    format!("{} {}", if nodes.len() == 1 { "node" } else { "nodes" }, some(nodes))
}

/// The condition of this type, if it has this status.
pub fn is<'a>(conditions: &'a [Condition], type_: &str, status: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_ && condition.status == status)
}

/// How long ago that was; zero if it is to come.
pub fn age(then: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or_default()
}

/// As kubectl says it: `45s`, `12m`, `5h`, `3d`.
pub fn in_words(age: Duration) -> String {
    match age.as_secs() {
        seconds @ 0..=119 => format!("{seconds}s"),
        seconds @ 120..=7_199 => format!("{}m", seconds / 60),
        seconds @ 7_200..=172_799 => format!("{}h", seconds / 3_600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests;
