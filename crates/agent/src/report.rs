//! What this node says of itself, from what was planned, what the kernel took, and what the probes saw: pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use egress_api::{GatewayObservation, NodeEgressStatus, NodeRoute, NodeRouteState, RouteFailure};
use egress_routing::RouteReport;
use egress_routing::kernel_state::{Change, NexthopId, RouteKind};

/// A status names so many failures of one StaticRoute at most: it must stay small with 10,000 destinations (I11).
const MOST_FAILURES: usize = 5;

/// What the kernel refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// Nexthop objects that could not be written, with the reason.
    nexthops: BTreeMap<NexthopId, String>,
    /// Destinations that could not be written, by the nexthop object they should point at.
    routes: BTreeMap<NexthopId, BTreeMap<String, String>>,
    /// Anything else, which then concerns every StaticRoute.
    rest: BTreeSet<String>,
}

impl Refused {
    /// Takes note of one change that the kernel did not take.
    pub fn note(&mut self, change: &Change, reason: &impl ToString) {
        match change {
            Change::PutNexthop { nexthop, .. } => {
                self.nexthops.insert(nexthop.id, reason.to_string());
            }
            Change::PutRoute { route, .. } => match route.kind {
                RouteKind::Nexthop(id) => {
                    let destination = route.destination.to_string();
                    self.routes.entry(id).or_default().insert(destination, reason.to_string());
                }
                _ => {
                    self.rest.insert(format!("route {}: {}", route.destination, reason.to_string()));
                }
            },
            Change::PutRule(rule) => {
                self.rest.insert(format!("rule {}: {}", rule.priority, reason.to_string()));
            }
            // What should go and is still there harms no StaticRoute; the next comparison tries again.
            Change::DeleteRule(_) | Change::DeleteRoute(_) | Change::DeleteNexthop(_) => {}
        }
    }

    /// Takes note that the kernel took a change: what it had refused of the same object no longer counts.
    pub fn settle(&mut self, change: &Change) {
        if let Change::PutNexthop { nexthop, .. } = change {
            self.nexthops.remove(&nexthop.id);
        }
    }

    /// Whether the kernel took everything.
    pub fn is_empty(&self) -> bool {
        self.nexthops.is_empty() && self.routes.is_empty() && self.rest.is_empty()
    }
}

/// The report of a whole node.
pub fn status(
    routes: &[RouteReport],
    generations: &BTreeMap<String, i64>,
    refused: &Refused,
    gateways: Vec<GatewayObservation>,
) -> NodeEgressStatus {
    let routes: Vec<NodeRoute> = routes.iter().map(|route| node_route(route, generations, refused)).collect();
    let applied = routes.iter().filter(|route| route.state == NodeRouteState::Applied).count();
    NodeEgressStatus {
        agent_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        summary: Some(format!("{applied}/{}", routes.len())),
        routes,
        gateways,
    }
}

fn node_route(report: &RouteReport, generations: &BTreeMap<String, i64>, refused: &Refused) -> NodeRoute {
    let not_written = report.nexthop.and_then(|id| refused.routes.get(&id));
    let nexthop_refused = report.nexthop.and_then(|id| refused.nexthops.get(&id));
    let obstacle = report
        .problem
        .as_ref()
        .map(ToString::to_string)
        .or_else(|| nexthop_refused.map(|reason| format!("the kernel refused the gateway: {reason}")))
        .or_else(|| {
            refused.rest.first().map(|reason| format!("the kernel refused a part of the plan: {reason}"))
        });
    let applied = match &obstacle {
        Some(_) => 0,
        None => report.applied.saturating_sub(not_written.map_or(0, BTreeMap::len)),
    };
    let state = if obstacle.is_none() && applied == report.total {
        NodeRouteState::Applied
    } else if applied > 0 {
        NodeRouteState::Partial
    } else {
        NodeRouteState::NotApplied
    };
    let failures = report
        .failures
        .iter()
        .map(|failure| RouteFailure {
            destination: failure.destination.clone(),
            reason: failure.cause.reason().to_owned(),
            message: failure.cause.to_string(),
        })
        .chain(not_written.into_iter().flatten().map(|(destination, reason)| RouteFailure {
            destination: destination.clone(),
            reason: "KernelRefused".to_owned(),
            message: reason.clone(),
        }));
    NodeRoute {
        name: report.name.clone(),
        uid: report.uid.clone(),
        observed_generation: generations.get(&report.uid).copied().unwrap_or_default(),
        state,
        applied: bounded(applied),
        total: bounded(report.total),
        gateway: report.gateway.as_ref().map(Ipv4Addr::to_string),
        message: obstacle,
        failures: failures.take(MOST_FAILURES).collect(),
    }
}

fn bounded(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use egress_routing::kernel_state::{Nexthop, NexthopTarget, Route};
    use egress_routing::report::{Failure, FailureCause};

    use super::*;

    fn report(applied: usize, total: usize) -> RouteReport {
        RouteReport {
            name: "demo".to_owned(),
            uid: "u".to_owned(),
            applied,
            total,
            gateway: Some(Ipv4Addr::new(10, 116, 0, 5)),
            nexthop: Some(NexthopId(241_000_007)),
            usable_gateways: Vec::new(),
            gateway_issues: Vec::new(),
            problem: None,
            failures: Vec::new(),
        }
    }

    fn only(report: RouteReport, refused: &Refused) -> NodeRoute {
        status(&[report], &BTreeMap::new(), refused, Vec::new()).routes.remove(0)
    }

    #[test]
    fn a_plan_counts_as_applied_only_when_the_kernel_took_it() {
        assert_eq!(only(report(2, 2), &Refused::default()).state, NodeRouteState::Applied);

        let mut refused = Refused::default();
        let kind = RouteKind::Nexthop(NexthopId(241_000_007));
        let route = Route { table: 1157, destination: "192.0.2.0/24".parse().unwrap(), metric: 0, kind };
        refused.note(&Change::PutRoute { route, replaces: None }, &"no memory");
        let partial = only(report(2, 2), &refused);
        assert_eq!((partial.state, partial.applied), (NodeRouteState::Partial, 1));
        assert_eq!(partial.failures[0].message, "no memory");

        let mut refused = Refused::default();
        let nexthop = Nexthop { id: NexthopId(241_000_007), via: NexthopTarget::Blackhole };
        refused.note(&Change::PutNexthop { nexthop, replaces: None }, &"not on the link");
        let none = only(report(2, 2), &refused);
        assert_eq!((none.state, none.applied), (NodeRouteState::NotApplied, 0));
        assert!(none.message.unwrap().contains("not on the link"));
    }

    #[test]
    fn a_switch_that_the_kernel_took_settles_its_own_nexthop_and_nothing_else() {
        let put = |id| Change::PutNexthop {
            nexthop: Nexthop { id: NexthopId(id), via: NexthopTarget::Blackhole },
            replaces: None,
        };
        let mut refused = Refused::default();
        refused.note(&put(241_000_007), &"not on the link");
        refused.note(&put(241_000_008), &"not on the link");
        refused.settle(&put(241_000_008));
        assert_eq!(only(report(2, 2), &refused).state, NodeRouteState::NotApplied, "another one's success");
        refused.settle(&put(241_000_007));
        assert!(refused.is_empty());
    }

    #[test]
    fn a_report_names_a_few_failures_however_many_there_are() {
        let mut many = report(0, 10_000);
        many.failures = (0..10_000)
            .map(|n| Failure {
                destination: format!("10.0.{}.{}", n / 256, n % 256),
                cause: FailureCause::Conflict { winner: "older".to_owned() },
            })
            .collect();
        let reported = only(many, &Refused::default());
        assert_eq!(reported.failures.len(), MOST_FAILURES);
        assert_eq!(reported.failures[0].reason, "Conflict");
    }
}
