//! What this node says of itself, from what was planned, what the kernel took, and what the probes saw: pure.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use egress_api::{
    GatewayObservation, NodeEgressStatus, NodeRoute, NodeRouteState, RouteFailure, UnusableGateway,
};
use egress_routing::kernel_state::{Change, KernelState, NexthopId, Route, RouteKey, RouteKind};
use egress_routing::{OnNoGateway, ReferenceFault, RouteReport};
use ipnet::Ipv4Net;

use crate::concerns::Concern;
use crate::objects::{Objects, Unreadable};
use size::{Allowance, shortened};

mod size;

/// What the node has to say. Conditions are made of the concerns where the report is published: only there it is known what
/// was said before.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// All but the conditions.
    pub status: NodeEgressStatus,
    /// What is wrong with the node as a whole.
    pub concerns: Vec<Concern>,
}

/// What the kernel refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// Nexthop objects that could not be written, with the reason.
    nexthops: BTreeMap<NexthopId, String>,
    /// Destinations that could not be written, by the nexthop object they should point at.
    routes: BTreeMap<NexthopId, BTreeMap<String, String>>,
    /// The first rule that could not be written, which concerns every StaticRoute.
    rule: Option<String>,
    /// Some guard could not be written.
    guard: bool,
}

impl Refused {
    /// Takes note of one change that the kernel did not take, under the destinations of the plan that it concerns.
    pub fn note(&mut self, change: &Change, planned: &KernelState, reason: &impl ToString) {
        let reason = reason.to_string();
        match change {
            Change::PutNexthop { nexthop, .. } => {
                self.nexthops.insert(nexthop.id, reason);
            }
            Change::PutRoute { route, .. } => self.note_route(route, planned, reason),
            Change::PutRule(rule) => self.note_rule(rule.priority, &reason),
            Change::RestoreRule(rule) => self.note_rule(rule.rule().priority, &reason),
            // What should go and is still there harms no StaticRoute; the next comparison tries again.
            Change::DeleteRule(_) | Change::DeleteRoute(_) | Change::DeleteNexthop(_) => {}
        }
    }

    fn note_route(&mut self, route: &Route, planned: &KernelState, reason: String) {
        let at = route.destination;
        match route.kind {
            RouteKind::Nexthop(id) => self.note_destination(id, at, reason),
            RouteKind::Throw if route.is_exception() => {
                let around = (0..=at.prefix_len()).filter_map(|length| Ipv4Net::new(at.addr(), length).ok());
                for range in around.map(|range| range.trunc()) {
                    if let Some(id) = routed(planned, route.table, range) {
                        self.note_destination(id, range, format!("{at} must stay out of it: {reason}"));
                    }
                }
            }
            // A guard, or what stands in for one.
            RouteKind::Throw | RouteKind::Gateway(_) | RouteKind::Unreachable | RouteKind::Blackhole => {
                self.guard = true;
                if let Some(id) = routed(planned, route.table, at) {
                    self.note_destination(id, at, format!("its guard: {reason}"));
                }
            }
        }
    }

    /// The first reason is the cause of those that follow.
    fn note_destination(&mut self, id: NexthopId, destination: Ipv4Net, reason: String) {
        self.routes.entry(id).or_default().entry(destination.to_string()).or_insert(reason);
    }

    fn note_rule(&mut self, priority: u32, reason: &str) {
        self.rule.get_or_insert_with(|| format!("rule {priority}: {reason}"));
    }

    /// Takes note that the kernel took a change: what it had refused of the same object no longer counts.
    pub fn settle(&mut self, change: &Change) {
        if let Change::PutNexthop { nexthop, .. } = change {
            self.nexthops.remove(&nexthop.id);
        }
    }

    /// Whether the kernel took everything.
    pub fn is_empty(&self) -> bool {
        self.nexthops.is_empty() && self.routes.is_empty() && self.rule.is_none() && !self.guard
    }
}

/// The nexthop object of the route to exactly this destination.
fn routed(planned: &KernelState, table: u32, destination: Ipv4Net) -> Option<NexthopId> {
    let key = |metric| RouteKey { table, destination, metric };
    let routes = planned.routes.range(key(0)..=key(u32::MAX));
    routes.map(|(_, route)| &route.kind).find_map(|kind| match kind {
        RouteKind::Nexthop(id) => Some(*id),
        _ => None,
    })
}

/// The report of a whole node, without conditions, within the bounds of [`size`].
pub fn status(
    routes: &[RouteReport],
    objects: &Objects,
    refused: &Refused,
    mut gateways: Vec<GatewayObservation>,
) -> NodeEgressStatus {
    let mut allowance = Allowance::default();
    let planned =
        routes.iter().map(|route| (&route.uid, node_route(route, objects, refused, &mut allowance)));
    let mut entries: BTreeMap<&String, NodeRoute> = planned.collect();
    for (uid, unreadable) in &objects.unreadable {
        entries.insert(uid, not_read(uid, unreadable));
    }
    let applied = entries.values().filter(|route| route.state == NodeRouteState::Applied).count();
    let summary = Some(format!("{applied}/{}", entries.len()));
    // The oldest objects are the ones that are told of: they are first in the plan.
    let eldest = routes.iter().map(|route| &route.uid).chain(objects.unreadable.keys());
    let mut routes: Vec<NodeRoute> =
        eldest.filter_map(|uid| entries.remove(uid)).take(NodeEgressStatus::MOST_ROUTES).collect();
    routes.sort_by(|a, b| (&a.name, &a.uid).cmp(&(&b.name, &b.uid)));
    for message in gateways.iter_mut().filter_map(|gateway| gateway.message.as_mut()) {
        *message = shortened(message);
    }
    let agent_version = Some(env!("CARGO_PKG_VERSION").to_owned());
    NodeEgressStatus { agent_version, summary, routes, gateways, ..NodeEgressStatus::default() }
}

/// How many StaticRoutes there are to tell of.
pub fn known(routes: &[RouteReport], objects: &Objects) -> usize {
    let unread = objects.unreadable.keys().filter(|uid| !routes.iter().any(|route| route.uid == **uid));
    routes.len() + unread.count()
}

/// An object whose present version can't be read. What its last good one has in the kernel is not what is asked for now.
fn not_read(uid: &str, object: &Unreadable) -> NodeRoute {
    NodeRoute {
        name: object.name.clone(),
        uid: uid.to_owned(),
        observed_generation: object.generation,
        state: NodeRouteState::NotApplied,
        applied: 0,
        total: 0,
        gateway: None,
        gateways: Vec::new(),
        reason: Some("Unreadable".to_owned()),
        message: Some(shortened(&format!("what this node has of it stays; {}", object.why))),
        guarded: false,
        no_gateway: false,
        draining: None,
        unusable_gateways: Vec::new(),
        failures: Vec::new(),
    }
}

/// Why nothing of an object is in the kernel, in one word and in a sentence.
fn obstacle(report: &RouteReport, refused: &Refused) -> Option<(&'static str, String)> {
    if let Some(problem) = &report.problem {
        return Some((problem.reason(), problem.to_string()));
    }
    let nexthop = report.nexthop.and_then(|id| refused.nexthops.get(&id));
    if report.is_diverted() {
        return no_gateway(report).map(|words| (NO_GATEWAY, words));
    }
    let words = nexthop.map(|why| format!("the kernel refused the gateway: {why}"));
    let words = words
        .or_else(|| refused.rule.as_ref().map(|why| format!("the kernel refused a part of the plan: {why}")));
    words.map(|words| ("KernelRefused", words))
}

fn node_route(
    report: &RouteReport,
    objects: &Objects,
    refused: &Refused,
    allowance: &mut Allowance,
) -> NodeRoute {
    let not_written = report.nexthop.and_then(|id| refused.routes.get(&id));
    let (reason, message) = obstacle(report, refused).unzip();
    let applied = match &reason {
        Some(_) => 0,
        None => report.applied.saturating_sub(not_written.map_or(0, BTreeMap::len)),
    };
    let state = if reason.is_none() && applied == report.total {
        NodeRouteState::Applied
    } else if applied > 0 {
        NodeRouteState::Partial
    } else {
        NodeRouteState::NotApplied
    };
    let failure = |destination: &str, reason: &str, message: &str| RouteFailure {
        destination: shortened(destination),
        reason: reason.to_owned(),
        message: shortened(message),
    };
    let planned = report
        .failures
        .iter()
        .map(|one| failure(&one.destination, one.cause.reason(), &one.cause.to_string()));
    let unwritten = not_written
        .into_iter()
        .flatten()
        .map(|(destination, why)| failure(destination, "KernelRefused", why));
    let invalid = report.invalid_gateways.iter().map(|invalid| UnusableGateway {
        address: shortened(&invalid.value),
        reason: "Invalid".to_owned(),
        message: shortened(&invalid.to_string()),
    });
    let unusable = report.gateway_issues.iter().map(|issue| UnusableGateway {
        address: issue.gateway.to_string(),
        reason: issue.fault.reason().to_owned(),
        message: shortened(&issue.to_string()),
    });
    NodeRoute {
        name: report.name.clone(),
        uid: report.uid.clone(),
        observed_generation: objects.generations.get(&report.uid).copied().unwrap_or_default(),
        state,
        applied: bounded(applied),
        total: bounded(report.total),
        gateway: report.in_use.first().filter(|_| !report.shared).map(Ipv4Addr::to_string),
        gateways: report.in_use.iter().filter(|_| report.shared).map(Ipv4Addr::to_string).collect(),
        reason: reason.or_else(|| caveat_reason(report)).map(str::to_owned),
        message: message.or_else(|| caveat(report)).map(|message| shortened(&message)),
        guarded: report.guarded && !refused.guard && refused.rule.is_none(),
        no_gateway: report.no_gateway,
        draining: report.draining.filter(|drain| drain.moving).map(|drain| drain.from.to_string()),
        unusable_gateways: allowance.some_of(unusable.chain(invalid)),
        failures: allowance.some_of(planned.chain(unwritten)),
    }
}

/// What is said where no gateway works.
const NO_GATEWAY: &str = "NoGateway";

/// What is wrong though what it has in the kernel stays: in one word.
fn caveat_reason(report: &RouteReport) -> Option<&'static str> {
    report.caveat.as_ref().map(ReferenceFault::reason).or(report.no_gateway.then_some(NO_GATEWAY))
}

/// And in a sentence.
fn caveat(report: &RouteReport) -> Option<String> {
    let fault = report.caveat.as_ref().map(|fault| format!("{fault}; the gateways it had last stay in use"));
    fault.or_else(|| no_gateway(report))
}

/// What happens to the traffic while no gateway works.
fn no_gateway(report: &RouteReport) -> Option<String> {
    let course = match (report.on_no_gateway, report.is_diverted()) {
        (OnNoGateway::FailOpen, true) => {
            "its traffic leaves with the node's own address until one works again (FailOpen)"
        }
        (OnNoGateway::FailOpen, false) => {
            "and this node has no default route through a gateway to leave by (FailOpen); its traffic goes to the last gateway"
        }
        (OnNoGateway::FailClosed, _) => "its traffic is dropped until one works again (FailClosed)",
        (OnNoGateway::KeepLast, _) => "its traffic goes to the last one (KeepLast)",
    };
    report.no_gateway.then(|| format!("no gateway works: {course}"))
}

fn bounded(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
