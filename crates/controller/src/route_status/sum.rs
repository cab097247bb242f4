//! One look over all reports: how many nodes have each StaticRoute, who fails, whose word is old. Pure.

use std::collections::{BTreeMap, HashMap};

use egress_api::condition::{DEGRADED, READY, Verdict, set};
use egress_api::{
    NodeEgressStatus, NodeRoute, NodeRouteState, NodeSelector, StaleNode, StaleReason, StaticRoute,
    StaticRouteStatus,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::decide;
use crate::observation::is_to_route;

/// Reason of `Ready`: all nodes have every route.
pub(super) const APPLIED: &str = "Applied";
/// Reason of `Ready`: at least one node can't have them.
pub(super) const FAILED: &str = "NodesFailed";
/// Reason of `Ready`: no node fails, and not all have reported this version.
pub(super) const PENDING: &str = "NodesPending";
/// Reason of `Ready`: nobody should have them.
pub(super) const NO_NODES: &str = "NoNodes";

/// Reason of `Degraded`: nodes can't use some of the gateways.
const GATEWAYS_UNUSABLE: &str = "GatewaysUnusable";
/// Reasons of `Degraded` that a node gives.
const DEGRADATIONS: [&str; 2] = ["EgressGatewayMissing", "EgressGatewayNotReady"];

/// Stale entries that a status names.
const MOST_STALE: usize = 5;

/// A node and its report.
#[derive(Clone, Copy, Debug)]
pub struct NodeReport<'a> {
    /// Name of the node.
    pub name: &'a str,
    /// Its `Ready` condition; `None` when there is a report and no node.
    pub is_ready: Option<bool>,
    /// Its labels.
    pub labels: Option<&'a BTreeMap<String, String>>,
    /// What its agent says.
    pub report: Option<&'a NodeEgressStatus>,
}

/// What the nodes say of one StaticRoute.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    total: usize,
    applied: usize,
    failed: usize,
    /// The first node that fails, and why.
    first_failed: Option<(String, String)>,
    /// The first node that has not reported this version.
    first_pending: Option<String>,
    /// That node's report has no room for it.
    is_left_out: bool,
    /// Nodes that have every route, and something to say all the same.
    warned: usize,
    /// The first of them: its name, what it says in one word, and in a sentence.
    first_warned: Option<(String, String, String)>,
    stale: usize,
    first_stale: Vec<StaleNode>,
}

/// Counts for each of `routes`, in their order. `nodes` are in the order in which they should be named.
pub fn tallies(routes: &[&StaticRoute], nodes: &[NodeReport<'_>]) -> Vec<Tally> {
    let mut tallies = vec![Tally::default(); routes.len()];
    for node in nodes {
        let entries: HashMap<&str, &NodeRoute> = node
            .report
            .iter()
            .flat_map(|report| &report.routes)
            .map(|entry| (entry.uid.as_str(), entry))
            .collect();
        for (route, tally) in routes.iter().zip(&mut tallies) {
            let uid = route.metadata.uid.as_deref().unwrap_or_default();
            tally.count(route, node, entries.get(uid).copied());
        }
    }
    tallies
}

impl Tally {
    fn count(&mut self, route: &StaticRoute, node: &NodeReport<'_>, entry: Option<&NodeRoute>) {
        let reason = match node.is_ready {
            Some(true) => None,
            Some(false) => Some(StaleReason::NotReady),
            None => Some(StaleReason::NodeGone),
        };
        if let Some(reason) = reason {
            if entry.is_some() {
                self.stale += 1;
                if self.first_stale.len() < MOST_STALE {
                    self.first_stale.push(StaleNode { name: node.name.to_owned(), reason });
                }
            }
            return;
        }
        if !is_to_route(route.spec.node_selector.as_ref(), node.labels) {
            return;
        }
        self.total += 1;
        match entry.filter(|entry| Some(entry.observed_generation) == route.metadata.generation) {
            Some(entry) if entry.state == NodeRouteState::Applied => {
                self.applied += 1;
                if let Some((reason, message)) = warning(entry) {
                    self.warned += 1;
                    self.first_warned.get_or_insert_with(|| (node.name.to_owned(), reason, message));
                }
            }
            Some(entry) => {
                self.failed += 1;
                self.first_failed.get_or_insert_with(|| (node.name.to_owned(), words(entry)));
            }
            None => {
                if self.first_pending.is_none() {
                    self.first_pending = Some(node.name.to_owned());
                    let told = node.report.map_or(0, |report| report.routes.len());
                    self.is_left_out = entry.is_none() && told >= NodeEgressStatus::MOST_ROUTES;
                }
            }
        }
    }

    /// Of what could be said, what people should hear first: that somebody fails.
    fn verdict(&self, selector: Option<&NodeSelector>) -> (bool, &'static str, String) {
        let Self { total, applied, failed, first_failed, first_pending, stale, first_stale, .. } = self;
        let (holds, reason, message) = match (first_failed, first_pending) {
            _ if *total == 0 => (false, NO_NODES, decide::no_nodes(selector).to_owned()),
            (Some((node, why)), _) => {
                let others = failed - 1;
                let more = if others > 0 { format!(" (and {others} more)") } else { String::new() };
                (false, FAILED, format!("{applied} of {total} nodes have every route; {node}{more}: {why}"))
            }
            (None, Some(node)) => {
                let words = if self.is_left_out {
                    let room = NodeEgressStatus::MOST_ROUTES;
                    format!(
                        "the report of {node} has room for {room} StaticRoutes, and this one is not among them"
                    )
                } else {
                    format!("{node} has not reported this version yet")
                };
                (false, PENDING, format!("{applied} of {total} nodes have every route; {words}"))
            }
            (None, None) => {
                let all = format!("All {total} nodes have every route");
                let message =
                    self.warning().map_or_else(|| all.clone(), |(_, words)| format!("{all}; {words}"));
                (true, APPLIED, message)
            }
        };
        match first_stale.first() {
            Some(first) => {
                let others = if *stale > 1 { format!(" and {} more", stale - 1) } else { String::new() };
                (holds, reason, format!("{message}; not counted: {} ({}){others}", first.name, first.reason))
            }
            None => (holds, reason, message),
        }
    }
}

impl Tally {
    /// What nodes say that have every route: in one word, and in a sentence.
    fn warning(&self) -> Option<(String, String)> {
        let (node, reason, words) = self.first_warned.as_ref()?;
        let others = self.warned - 1;
        let more = if others > 0 { format!(" (and {others} more)") } else { String::new() };
        Some((reason.clone(), format!("{node}{more}: {words}")))
    }
}

/// What is wrong though all is applied: an EgressGateway that there is not, a gateway of the list that can't be used.
fn warning(entry: &NodeRoute) -> Option<(String, String)> {
    let told = entry.message.clone().map(|message| (entry.reason.clone().unwrap_or_default(), message));
    let unusable = || entry.unusable_gateways.first().map(|one| (one.reason.clone(), one.message.clone()));
    told.or_else(unusable)
}

fn words(entry: &NodeRoute) -> String {
    let first = entry.failures.first().map(|failure| format!("{}: {}", failure.destination, failure.message));
    entry.message.clone().or(first).unwrap_or_else(|| "not all routes are applied".to_owned())
}

/// What the status of this StaticRoute should be.
pub fn status(route: &StaticRoute, tally: &Tally, now: Timestamp) -> StaticRouteStatus {
    let mut status = route.status.clone().unwrap_or_default();
    let (holds, reason, message) = tally.verdict(route.spec.node_selector.as_ref());
    let generation = route.metadata.generation;
    let verdict = Verdict { type_: READY, status: Some(holds), reason, message };
    let now = super::whole_second(now);
    set(&mut status.conditions, verdict, generation, now);
    set_degraded(&mut status.conditions, tally.warning(), generation, now);
    status.observed_generation = generation;
    status.nodes = Some(format!("{}/{}", tally.applied, tally.total));
    status.nodes_applied = i32::try_from(tally.applied).ok();
    status.nodes_total = i32::try_from(tally.total).ok();
    status.nodes_stale = i32::try_from(tally.stale).ok().filter(|stale| *stale > 0);
    status.stale_nodes.clone_from(&tally.first_stale);
    status
}

/// `Degraded` is there once it was `True`.
fn set_degraded(
    conditions: &mut Vec<Condition>,
    warning: Option<(String, String)>,
    generation: Option<i64>,
    now: Timestamp,
) {
    let known = |reason: &str| DEGRADATIONS.into_iter().find(|known| *known == reason);
    let verdict = match warning {
        Some((reason, message)) => Verdict {
            type_: DEGRADED,
            status: Some(true),
            reason: known(&reason).unwrap_or(GATEWAYS_UNUSABLE),
            message,
        },
        None if conditions.iter().any(|condition| condition.type_ == DEGRADED) => {
            Verdict { type_: DEGRADED, status: Some(false), reason: "AsAsked", message: String::new() }
        }
        None => return,
    };
    set(conditions, verdict, generation, now);
}

#[cfg(test)]
mod tests;
