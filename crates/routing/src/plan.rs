//! The plan for one node: everything of ours that its kernel should hold, and what became of each StaticRoute.
//!
//! A pure function of what is wanted, what the node looks like, which gateways were chosen, and what the kernel holds
//! already. The last is looked at for one thing only: to leave what is there as it is (nexthop ids, slots, and the
//! gateway where nobody has an opinion), so that a restarted agent writes nothing.
//!
//! ```text
//!  rules      900+n from <vpc address> tcp sport <ports of slot n>  lookup 1160+n      one per probed gateway
//!             932   from <vpc address> tcp sport <ports of its own>  lookup main, only without a public address
//!             990   from <public address>                           lookup main
//!             991   from <pods, or nodes> tcp|udp sport <port>       lookup main     one per port served to the outside
//!             994   to <public on-link subnet>                      lookup main, only what is narrower than the subnet
//!             995   to <destination in the public on-link subnet>   lookup 1157
//!             1000                                                  lookup main, not its default route
//!             1001                                                  lookup 1157
//!             32766, 32767                                          the kernel's own, where they are missing
//!  table 1157       <destination>  nexthop object of its StaticRoute, or the group of gateways that share its traffic
//!                   <destination>  blackhole, at a worse metric: the guard
//!                   <protected or excluded range inside one>  throw
//!  table 1160+n     default        nexthop object of the gateway in slot n
//!  no table         a nexthop group that records the gateways of a StaticRoute in their order (`recovery`)
//! ```
//!
//! Invariants: no protected address is routed to a gateway; every other listed one is, unless its failure is reported;
//! without a routed destination and a probed gateway the state is empty, and so is the node.

mod claims;
mod course;
pub(crate) mod draining;
mod gateways;
mod probes;
mod rules;
mod without_vpc;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::inbound::{self, ServedPort};
use crate::kernel_state::{Change, KernelState, Observed, Route, RouteKind};
use crate::layout::{Layout, ProbePath};
use crate::nexthop_ids;
use crate::node::NodeView;
use crate::recovery;
use crate::report::{RouteProblem, RouteReport};
use crate::resolve::Resolution;
use crate::sharing::Sharer;
use crate::wanted::{OnNoGateway, WantedRoute};

use claims::{report_claims, resolve_claims};
pub(crate) use course::Course;
use course::{add_diversions, choose_nexthop};
pub use draining::{Draining, quiet_seconds, watch_seconds};
use gateways::{add_twins, check_gateways, in_order, record_lists, sharers};
use probes::{add_probes, probed_slots};
use rules::add_rules;

/// What was chosen for each StaticRoute, by uid.
///
/// An object that is not in here keeps what it has in the kernel, if that is of its list or what its `onNoGateway` says; else it
/// gets the first gateway of the list (`ActiveActive`: all of them): right after a start, when nothing was probed yet.
pub type Selection = BTreeMap<String, Chosen>;

/// Which gateways a StaticRoute uses now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chosen {
    /// One, or with `ActiveActive` all that share its traffic; while none works the last ones.
    pub gateways: BTreeSet<Ipv4Addr>,
    /// None works: what its `onNoGateway` says is in force.
    pub none_works: bool,
    /// Connections still leave this gateway for the chosen one.
    pub draining: Option<Draining>,
}

impl From<BTreeSet<Ipv4Addr>> for Chosen {
    /// These, and they work.
    fn from(gateways: BTreeSet<Ipv4Addr>) -> Self {
        Self { gateways, none_works: false, draining: None }
    }
}

impl<const N: usize> From<[Ipv4Addr; N]> for Chosen {
    fn from(gateways: [Ipv4Addr; N]) -> Self {
        BTreeSet::from(gateways).into()
    }
}

impl FromIterator<Ipv4Addr> for Chosen {
    fn from_iter<I: IntoIterator<Item = Ipv4Addr>>(gateways: I) -> Self {
        gateways.into_iter().collect::<BTreeSet<_>>().into()
    }
}

/// What a node's kernel should hold, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodePlan {
    /// Everything of ours.
    pub state: KernelState,
    /// One report per StaticRoute, in the order in which they were passed.
    pub routes: Vec<RouteReport>,
    /// How to probe each gateway, in the order of the slots.
    pub probes: Vec<ProbePath>,
    /// Gateways for which no slot was left: they are not probed.
    pub unprobed: Vec<Ipv4Addr>,
    /// Ports served to the outside for which no rule was left: clients behind a routed destination get no answer from them.
    pub unserved: Vec<ServedPort>,
}

/// Plans a node. `wanted` are the StaticRoutes that apply to it, in any order.
pub fn plan(
    wanted: &[WantedRoute],
    node: &NodeView,
    selection: &Selection,
    observed: &Observed,
    layout: &Layout,
) -> NodePlan {
    let mut plan = NodePlan { routes: wanted.iter().map(blank_report).collect(), ..NodePlan::default() };
    let Some(vpc) = &node.vpc else {
        without_vpc::shut(wanted, node, observed, layout, &mut plan);
        return plan;
    };
    check_gateways(wanted, vpc, node, &mut plan.routes);
    let (slots, unprobed) =
        if vpc.up { probed_slots(wanted, vpc, node, observed, layout, &plan) } else { Default::default() };
    plan.unprobed = unprobed;
    let sharers: Vec<Vec<Sharer>> =
        wanted.iter().zip(&plan.routes).map(|(route, report)| sharers(route, report, &slots)).collect();
    if vpc.up {
        for ((route, report), sharers) in wanted.iter().zip(&mut plan.routes).zip(&sharers) {
            if route.is_shared() && sharers.is_empty() {
                report.problem.get_or_insert(RouteProblem::NotProbed);
            }
        }
    }

    // Only objects that can be routed at all take part, and those that must be shut then: one whose gateways this node can't use
    // stands in nobody's way otherwise.
    let is_able = |index: &usize| plan.routes[*index].problem.is_none() || wanted[*index].is_fail_closed();
    let mut able: Vec<usize> = (0..wanted.len()).filter(is_able).collect();
    able.sort_by_key(|index| wanted[*index].seniority());
    let foreign = foreign_destinations(observed, layout);
    let resolution = resolve_claims(wanted, &able, &plan.routes, node, &foreign, observed, layout);
    let uids: Vec<&str> = able.iter().map(|index| wanted[*index].uid.as_str()).collect();
    let ids = nexthop_ids::assign(&uids, &resolution.table, observed, layout);
    for (index, id) in able.iter().zip(ids) {
        let (route, report) = (&wanted[*index], &mut plan.routes[*index]);
        report.object = id;
        report.draining =
            id.and_then(|id| draining::drain_of(id, route, report, (selection, observed), &slots, layout));
        report.nexthop = id.map(|id| match (route.is_shared(), report.draining) {
            (true, _) => layout.group_nexthop(id),
            (false, Some(_)) => layout.drain_nexthop(id),
            (false, None) => id,
        });
    }
    let sharers: Vec<Vec<Sharer>> = sharers
        .into_iter()
        .zip(&plan.routes)
        .map(
            |(sharers, report)| {
                if report.draining.is_some() { draining::able(report, &slots) } else { sharers }
            },
        )
        .collect();
    let mut routed = BTreeSet::new();
    for (destination, object) in &resolution.table {
        if foreign.contains_key(destination) {
            continue;
        }
        let (table, destination, metric) = (layout.table, *destination, 0);
        let Some(object) = object else {
            plan.state.insert_route(Route { table, destination, metric, kind: RouteKind::Throw });
            continue;
        };
        let index = able[*object];
        let id = plan.routes[index].nexthop;
        if id.is_some() || wanted[index].is_fail_closed() {
            let below = below(destination, &wanted[index], |object| &wanted[able[object]], &resolution);
            plan.state
                .routes
                .extend(below.map(|kind| guard(destination, kind, layout)).map(|it| (it.key(), it)));
        }
        if let Some(id) = id.filter(|_| !resolution.shut.contains(&destination)) {
            routed.insert(index);
            // With the link the kernel drops the group, and nothing can stand in for one: the guard answers.
            if vpc.up || !wanted[index].is_shared() {
                plan.state.insert_route(Route { table, destination, metric, kind: RouteKind::Nexthop(id) });
            }
        }
    }
    report_claims(wanted, &able, resolution, node, observed, layout, &mut plan);

    for index in able {
        let report = &mut plan.routes[index];
        report.guarded = wanted[index].on_no_gateway != OnNoGateway::FailOpen && !leaves_a_gap(report);
        if report.nexthop.is_none() {
            report.problem.get_or_insert(RouteProblem::NoNexthopId);
        }
        if report.problem.is_some() {
            report.applied = 0;
            report.failures.clear();
        }
        report.nexthop = report.nexthop.filter(|_| routed.contains(&index));
        let known = (selection, observed);
        let nexthop = choose_nexthop(&wanted[index], &sharers[index], vpc, node, known, layout, report);
        if let Some(nexthop) = nexthop {
            plan.state.insert_nexthop(nexthop);
        }
    }
    let with_nexthop =
        wanted.iter().zip(&plan.routes).filter_map(|(route, report)| Some((route, report.nexthop?)));
    add_diversions(with_nexthop, node, layout, &mut plan.state);
    add_probes(&slots, vpc, layout, &mut plan);
    add_twins(sharers.iter().flatten(), vpc, layout, &mut plan.state);
    record_lists(wanted, &sharers, layout, &mut plan);
    add_rules(node, layout, &mut plan.state);
    plan.unserved = inbound::add_rules(&node.served, observed, layout, &mut plan.state);
    plan
}

impl NodePlan {
    /// Moves one StaticRoute to other gateways of its list, one or with `ActiveActive` several, or to what its `onNoGateway` says:
    /// the change that does it, or `None` when there is nothing to do. The plan then says the same as a new one made with that
    /// selection would, but where a drain begins or ends: its routes move one by one ([`Self::is_behind`]).
    pub fn switch(
        &mut self,
        uid: &str,
        chosen: &Chosen,
        node: &NodeView,
        observed: &Observed,
        layout: &Layout,
    ) -> Option<Change> {
        let vpc = node.vpc.as_ref().filter(|vpc| vpc.up)?;
        let index = self.routes.iter().position(|report| report.uid == uid)?;
        let report = &mut self.routes[index];
        let id = report.nexthop?;
        let is_drain = layout.is_drain(id);
        let sharers = if is_drain {
            let slots = self.probes.iter().map(|path| (path.slot, path.gateway)).collect();
            Some(draining::able(report, &slots))
        } else {
            report.shared.then(|| recovery::sharers(id, &self.state, layout))
        };
        let able = |gateway: &Ipv4Addr| {
            sharers.as_ref().is_none_or(|sharers| sharers.iter().any(|sharer| sharer.gateway == *gateway))
        };
        let mut gateways =
            in_order(&report.usable_gateways, |gateway| chosen.gateways.contains(gateway) && able(gateway));
        if !report.shared {
            gateways.truncate(1);
        }
        let course = match chosen.draining {
            Some(_) if !is_drain => return None,
            Some(drain) => Course::Draining(drain, gateways),
            None if chosen.none_works => {
                Course::without_gateway(report.on_no_gateway, gateways, node.default_way)
            }
            None => Course::Through(gateways),
        };
        let nexthop = course.nexthop(id, sharers.as_deref(), vpc.index, layout)?;
        report.draining = chosen.draining;
        report.no_gateway = chosen.none_works;
        report.in_use = course.gateways();
        if self.state.nexthops.get(&id) == Some(&nexthop) {
            return None;
        }
        self.state.insert_nexthop(nexthop.clone());
        Some(Change::PutNexthop { replaces: observed.nexthops.get(&id).cloned(), nexthop })
    }
}

impl NodePlan {
    /// Whether only a new plan can make it so: a drain begins, or is over.
    pub fn is_behind(&self, uid: &str, chosen: &Chosen, layout: &Layout) -> bool {
        let nexthop = self.routes.iter().find(|report| report.uid == uid).and_then(|report| report.nexthop);
        nexthop.is_some_and(|id| layout.is_drain(id) != chosen.draining.is_some())
    }
}

/// Destinations of others' routes in our table, with their protocol numbers.
fn foreign_destinations(observed: &Observed, layout: &Layout) -> BTreeMap<Ipv4Net, u8> {
    let foreign = observed.foreign_routes();
    let in_table = foreign.filter(|(key, _)| key.table == layout.table && key.metric == 0);
    in_table.map(|(key, protocol)| (key.destination, protocol)).collect()
}

fn blank_report(route: &WantedRoute) -> RouteReport {
    RouteReport {
        name: route.name.clone(),
        uid: route.uid.clone(),
        applied: 0,
        total: route.destinations.len() + route.invalid_destinations.len(),
        in_use: Vec::new(),
        shared: route.is_shared(),
        nexthop: None,
        object: None,
        draining: None,
        usable_gateways: Vec::new(),
        gateway_issues: Vec::new(),
        invalid_gateways: route.invalid_gateways.clone(),
        problem: route.refused.clone().map(RouteProblem::InvalidExclusion),
        caveat: None,
        on_no_gateway: route.on_no_gateway,
        no_gateway: false,
        guarded: false,
        failures: Vec::new(),
    }
}

/// What answers for a routed destination while its own route is gone: when the VPC link goes down the kernel takes every
/// nexthop on it along, and until the agent has noticed, packets would leave with the node's own address.
fn guard(destination: Ipv4Net, kind: RouteKind, layout: &Layout) -> Route {
    Route { table: layout.table, destination, metric: layout.guard_metric, kind }
}

/// What lies below a destination of `route`: what `FailOpen` lists is let out then, also where another object guards a wider range.
fn below<'a>(
    destination: Ipv4Net,
    route: &WantedRoute,
    object: impl Fn(usize) -> &'a WantedRoute,
    resolution: &Resolution,
) -> Option<RouteKind> {
    if route.on_no_gateway != OnNoGateway::FailOpen {
        return Some(RouteKind::Blackhole);
    }
    let wider =
        (0..destination.prefix_len()).filter_map(|length| Ipv4Net::new(destination.addr(), length).ok());
    let mut around = wider.filter_map(|range| *resolution.table.get(&range.trunc())?);
    around.any(|index| object(index).on_no_gateway != OnNoGateway::FailOpen).then_some(RouteKind::Throw)
}

/// Whether something that an object lists and would get is neither routed nor guarded for now.
fn leaves_a_gap(report: &RouteReport) -> bool {
    report.failures.iter().any(|failure| failure.cause.leaves_a_gap())
}

#[cfg(test)]
mod tests;
