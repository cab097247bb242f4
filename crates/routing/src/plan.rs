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

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::builtin_rules::BuiltinRule;
use crate::gateways::{assign_slots, gateways_in_kernel, usable_gateways};
use crate::inbound::{self, ServedPort};
use crate::kernel_state::{
    Change, Foreign, Gateway, KernelState, MAIN_TABLE, Managed, Nexthop, NexthopId, NexthopTarget, Observed,
    Route, RouteKey, RouteKind, Rule, RuleAction,
};
use crate::layout::{GatewaySlot, Layout, ProbePath};
use crate::nexthop_ids;
use crate::node::{NodeView, VpcInterface};
use crate::prefix::difference;
use crate::protected::ProtectedReason;
use crate::recovery;
use crate::report::{Failure, FailureCause, GatewayIssue, RouteProblem, RouteReport};
use crate::resolve::{Claims, Resolution, resolve};
use crate::sharing::{self, Sharer};
use crate::wanted::{Destination, ReferenceFault, WantedRoute};

/// Protocol number of TCP.
const TCP: u8 = 6;
/// Rules for destinations in the public on-link subnet cost each packet a comparison; above this many, destinations are
/// `Shadowed` instead.
const MOST_ON_LINK_RULES: usize = 256;

/// The gateways that each StaticRoute uses now, by uid: one, or with `ActiveActive` all that share its traffic.
///
/// An object that is not in here keeps the gateways that it has in the kernel if they are still in its list, else it gets the
/// first of the list (`ActiveActive`: all of them): right after a start, when nothing was probed yet, and when no gateway
/// answers (`KeepLast`).
pub type Selection = BTreeMap<String, BTreeSet<Ipv4Addr>>;

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
        for report in &mut plan.routes {
            report.problem.get_or_insert(RouteProblem::NoVpcInterface);
        }
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

    // Only objects that can be routed at all take part: one whose gateways this node can't use stands in nobody's way.
    let mut able: Vec<usize> =
        (0..wanted.len()).filter(|index| plan.routes[*index].problem.is_none()).collect();
    able.sort_by_key(|index| wanted[*index].seniority());
    let foreign = foreign_routes(observed, layout);
    let resolution =
        resolve_claims(wanted, &able, node, &plan.routes, &kept_shut(node, observed, layout), |prefix| {
            let of_others = foreign.get(&prefix);
            let of_others =
                of_others.map(|protocol| FailureCause::Foreign { protocol: *protocol, table: layout.table });
            of_others.or_else(|| uncertain(prefix, node, observed, layout))
        });
    let uids: Vec<&str> = able.iter().map(|index| wanted[*index].uid.as_str()).collect();
    let ids = nexthop_ids::assign(&uids, &resolution.table, observed, layout);
    for (index, id) in able.iter().zip(ids) {
        let shared = wanted[*index].is_shared();
        plan.routes[*index].nexthop = id.map(|id| if shared { layout.group_nexthop(id) } else { id });
    }
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
        if let Some(id) = plan.routes[index].nexthop {
            routed.insert(index);
            plan.state.insert_route(guard(destination, layout));
            // With the link the kernel drops the group, and nothing can stand in for one: the guard answers.
            if vpc.up || !wanted[index].is_shared() {
                plan.state.insert_route(Route { table, destination, metric, kind: RouteKind::Nexthop(id) });
            }
        }
    }
    report_claims(wanted, &able, resolution, node, layout, &mut plan);

    for index in able {
        let report = &mut plan.routes[index];
        if report.nexthop.is_none() {
            report.problem = Some(RouteProblem::NoNexthopId);
            report.applied = 0;
            report.failures.clear();
        }
        report.nexthop = report.nexthop.filter(|_| routed.contains(&index));
        let nexthop =
            choose_nexthop(&wanted[index], &sharers[index], vpc, selection, observed, layout, report);
        if let Some(nexthop) = nexthop {
            plan.state.insert_nexthop(nexthop);
        }
    }
    add_probes(&slots, vpc, layout, &mut plan);
    add_twins(sharers.iter().flatten(), vpc, layout, &mut plan.state);
    record_lists(wanted, &sharers, layout, &mut plan);
    add_rules(node, layout, &mut plan.state);
    plan.unserved = inbound::add_rules(&node.served, observed, layout, &mut plan.state);
    plan
}

impl NodePlan {
    /// Moves one StaticRoute to other gateways of its list, one or with `ActiveActive` several: the change that does it, or
    /// `None` when there is nothing to do. The plan then says the same as a new one made with that selection would.
    pub fn switch(
        &mut self,
        uid: &str,
        gateways: &BTreeSet<Ipv4Addr>,
        node: &NodeView,
        observed: &Observed,
        layout: &Layout,
    ) -> Option<Change> {
        let vpc = node.vpc.as_ref().filter(|vpc| vpc.up)?;
        let index = self.routes.iter().position(|report| report.uid == uid)?;
        let report = &self.routes[index];
        let id = report.nexthop?;
        let present = self.state.nexthops.get(&id)?;
        let (nexthop, in_use) = if let NexthopTarget::Group { .. } = present.via {
            let sharers = recovery::sharers(id, &self.state, layout);
            let in_use = in_order(&report.usable_gateways, |gateway| {
                gateways.contains(gateway) && sharers.iter().any(|sharer| sharer.gateway == *gateway)
            });
            (sharing::group(id, &sharers, &in_use.iter().copied().collect(), layout)?, in_use)
        } else {
            let gateway = *report.usable_gateways.iter().find(|gateway| gateways.contains(gateway))?;
            (through(id, gateway, vpc), vec![gateway])
        };
        if nexthop == *present {
            return None;
        }
        self.state.insert_nexthop(nexthop.clone());
        self.routes[index].in_use = in_use;
        Some(Change::PutNexthop { replaces: observed.nexthops.get(&id).cloned(), nexthop })
    }
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
        usable_gateways: Vec::new(),
        gateway_issues: Vec::new(),
        invalid_gateways: route.invalid_gateways.clone(),
        problem: route.refused.clone().map(RouteProblem::InvalidExclusion),
        caveat: None,
        failures: Vec::new(),
    }
}

fn check_gateways(wanted: &[WantedRoute], vpc: &VpcInterface, node: &NodeView, reports: &mut [RouteReport]) {
    for (route, report) in wanted.iter().zip(reports) {
        let (usable, issues) = usable_gateways(&route.gateways, vpc, node);
        match &route.reference_fault {
            Some(fault @ ReferenceFault::Deleted { .. }) => {
                report.problem.get_or_insert_with(|| RouteProblem::Reference(fault.clone()));
            }
            Some(fault) if route.gateways.is_empty() => {
                report.problem.get_or_insert_with(|| RouteProblem::Reference(fault.clone()));
            }
            fault => report.caveat.clone_from(fault),
        }
        if usable.is_empty() && report.problem.is_none() {
            report.problem = Some(no_gateway(route, &issues));
        }
        report.usable_gateways = usable;
        report.gateway_issues = issues;
    }
}

fn no_gateway(route: &WantedRoute, issues: &[GatewayIssue]) -> RouteProblem {
    match (issues, route.invalid_gateways.first()) {
        ([], Some(invalid)) => RouteProblem::InvalidGateway(invalid.clone()),
        _ => RouteProblem::NoUsableGateway { issues: issues.to_vec() },
    }
}

/// Resolves the claims of the objects in `able`, the senior one first.
fn resolve_claims(
    wanted: &[WantedRoute],
    able: &[usize],
    node: &NodeView,
    reports: &[RouteReport],
    kept: &BTreeSet<Ipv4Net>,
    obstacle: impl Fn(Ipv4Net) -> Option<FailureCause>,
) -> Resolution {
    let claims: Vec<Claims<'_>> = able
        .iter()
        .map(|index| Claims {
            name: &wanted[*index].name,
            destinations: wanted[*index].destinations.keys().copied().collect(),
            excluded: wanted[*index].excluded.iter().copied().collect(),
        })
        .collect();
    let mut protected = node.protected.clone();
    for gateway in able.iter().flat_map(|index| &reports[*index].usable_gateways) {
        protected.insert_address(*gateway, ProtectedReason::Gateway);
    }
    resolve(&claims, &protected, kept, obstacle)
}

/// Writes what became of each claim into the reports.
fn report_claims(
    wanted: &[WantedRoute],
    able: &[usize],
    resolution: Resolution,
    node: &NodeView,
    layout: &Layout,
    plan: &mut NodePlan,
) {
    let lengths = node.main_routes.iter().map(Ipv4Net::prefix_len).collect();
    let mut lost = resolution.lost;
    for (object, destination) in resolution.won {
        match answered_by_main(destination, node, &lengths, layout, &mut plan.state) {
            None => plan.routes[able[object]].applied += 1,
            Some(route) => {
                let origin = node.main_origins.get(&route).copied();
                lost.push((object, destination, FailureCause::Shadowed { destination, route, origin }));
            }
        }
    }
    lost.sort_by_key(|(object, destination, _)| (*object, *destination));
    for (object, prefix, cause) in lost {
        let index = able[object];
        if let Some(spelling) = wanted[index].destinations.get(&prefix) {
            let destination = Destination { prefix, spelling: *spelling };
            plan.routes[index].failures.push(Failure::new(destination, cause));
        }
    }
    for index in able {
        let invalid = wanted[*index].invalid_destinations.iter().map(|error| Failure {
            destination: error.value.clone(),
            cause: FailureCause::Invalid(error.clone()),
        });
        plan.routes[*index].failures.extend(invalid);
    }
}

/// What the table passes over now, as long as it is not known what may be opened.
fn kept_shut(node: &NodeView, observed: &Observed, layout: &Layout) -> BTreeSet<Ipv4Net> {
    if node.uncertain.is_none() {
        return BTreeSet::new();
    }
    let ours = observed.routes.values().map(Managed::get).filter(|route| route.table == layout.table);
    ours.filter(|route| route.kind == RouteKind::Throw).map(|route| route.destination).collect()
}

/// Why a destination is not routed that is not routed yet.
fn uncertain(
    destination: Ipv4Net,
    node: &NodeView,
    observed: &Observed,
    layout: &Layout,
) -> Option<FailureCause> {
    let uncertainty = node.uncertain.as_ref().filter(|uncertainty| uncertainty.forbids(destination))?;
    let has = |metric, is_it: fn(&RouteKind) -> bool| {
        let key = RouteKey { table: layout.table, destination, metric };
        observed.routes.get(&key).is_some_and(|route| is_it(&route.get().kind))
    };
    // When a link goes down, the guard is all that is left of a route.
    let there = has(0, |kind| matches!(kind, RouteKind::Nexthop(_)))
        || has(layout.guard_metric, |kind| *kind == RouteKind::Blackhole);
    (!there).then(|| FailureCause::Uncertain(uncertainty.clone()))
}

/// What answers for a routed destination while its own route is gone: when the VPC link goes down the kernel takes every
/// nexthop on it along, and until the agent has noticed, packets would leave with the node's own address.
fn guard(destination: Ipv4Net, layout: &Layout) -> Route {
    Route { table: layout.table, destination, metric: layout.guard_metric, kind: RouteKind::Blackhole }
}

fn foreign_routes(observed: &Observed, layout: &Layout) -> BTreeMap<Ipv4Net, u8> {
    observed
        .foreign
        .iter()
        .filter_map(|foreign| match foreign {
            Foreign::Route { key, protocol } if key.table == layout.table && key.metric == 0 => {
                Some((key.destination, *protocol))
            }
            _ => None,
        })
        .collect()
}

/// The route of the main table that answers for all of `destination` before our table is asked, if there is one. `lengths` are
/// those that its routes have.
///
/// Our route is written nevertheless: it takes over the moment the other one goes, with no packet in between. In the
/// public on-link subnet a rule ahead of main gives our table the word.
fn answered_by_main(
    destination: Ipv4Net,
    node: &NodeView,
    lengths: &BTreeSet<u8>,
    layout: &Layout,
    state: &mut KernelState,
) -> Option<Ipv4Net> {
    let covers = |length: &&u8| (1..=destination.prefix_len()).contains(*length);
    let covering = lengths.iter().rev().filter(covers).find_map(|length| {
        let wider = Ipv4Net::new(destination.addr(), *length).ok()?.trunc();
        node.main_routes.contains(&wider).then_some(wider)
    });
    if let Some(route) = covering {
        let on_link = node.public_addresses.iter().any(|address| address.trunc() == route);
        let rules = state.rules.iter().filter(|rule| rule.priority == layout.on_link_priority).count();
        if on_link && rules < MOST_ON_LINK_RULES {
            let to = Some(destination);
            state.rules.insert(Rule { to, ..Rule::lookup(layout.on_link_priority, layout.table) });
            return None;
        }
        return Some(route);
    }
    // None covers it alone; several may together, such as two halves of everything.
    let behind = node.main_routes.range(destination..);
    let inside: Vec<Ipv4Net> = behind.copied().take_while(|route| destination.contains(route)).collect();
    let first = *inside.first()?;
    difference(destination, &inside).is_empty().then_some(first)
}

/// The nexthop object or group of a StaticRoute that has routes, through the gateways that are chosen.
fn choose_nexthop(
    route: &WantedRoute,
    sharers: &[Sharer],
    vpc: &VpcInterface,
    selection: &Selection,
    observed: &Observed,
    layout: &Layout,
    report: &mut RouteReport,
) -> Option<Nexthop> {
    let id = report.nexthop?;
    if !vpc.up {
        report.problem = Some(RouteProblem::LinkDown);
        report.applied = 0;
        // Blackhole and gateway replace one another in place, so the routes stay.
        return (!route.is_shared()).then_some(Nexthop { id, via: NexthopTarget::Blackhole });
    }
    let able =
        |gateway: &Ipv4Addr| !route.is_shared() || sharers.iter().any(|sharer| sharer.gateway == *gateway);
    let those = |wanted: &BTreeSet<Ipv4Addr>| {
        in_order(&report.usable_gateways, |gateway| wanted.contains(gateway) && able(gateway))
    };
    let chosen = selection.get(&route.uid).map(&those).unwrap_or_default();
    let kept = || those(&kept_gateways(id, observed, layout));
    // A bare gateway is what the object says, whatever was in the kernel: its list has one entry.
    let all = || in_order(&report.usable_gateways, able);
    let mut in_use = [chosen]
        .into_iter()
        .chain(std::iter::once_with(kept))
        .find(|some| !some.is_empty())
        .unwrap_or_else(all);
    let nexthop = if route.is_shared() {
        sharing::group(id, sharers, &in_use.iter().copied().collect(), layout)
    } else {
        in_use.truncate(1);
        in_use.first().map(|gateway| through(id, *gateway, vpc))
    };
    report.in_use = in_use;
    nexthop
}

/// The gateways that a StaticRoute has in the kernel, also when its mode was another one there.
fn kept_gateways(id: NexthopId, observed: &Observed, layout: &Layout) -> BTreeSet<Ipv4Addr> {
    let kept = gateways_in_kernel(id, observed);
    if !kept.is_empty() {
        return kept;
    }
    let object = layout.nexthop_of_routes(id).unwrap_or(id);
    let mut other = gateways_in_kernel(object, observed);
    other.extend(gateways_in_kernel(layout.group_nexthop(object), observed));
    other
}

fn in_order(gateways: &[Ipv4Addr], wanted: impl Fn(&Ipv4Addr) -> bool) -> Vec<Ipv4Addr> {
    gateways.iter().copied().filter(|gateway| wanted(gateway)).collect()
}

fn through(id: NexthopId, gateway: Ipv4Addr, vpc: &VpcInterface) -> Nexthop {
    let via = NexthopTarget::Gateway(Gateway { address: gateway, interface: vpc.index, onlink: false });
    Nexthop { id, via }
}

/// The slot of each gateway that is probed, and the gateways for which none was left.
fn probed_slots(
    wanted: &[WantedRoute],
    vpc: &VpcInterface,
    node: &NodeView,
    observed: &Observed,
    layout: &Layout,
    plan: &NodePlan,
) -> (BTreeMap<GatewaySlot, Ipv4Addr>, Vec<Ipv4Addr>) {
    let candidates: Vec<Ipv4Addr> = node.candidates.iter().copied().collect();
    let (candidates, _) = usable_gateways(&candidates, vpc, node);
    let probed: BTreeSet<Ipv4Addr> = wanted
        .iter()
        .zip(&plan.routes)
        .filter(|(route, _)| route.health_checked && route.refused.is_none())
        .flat_map(|(_, report)| report.usable_gateways.iter().copied())
        .chain(candidates)
        .collect();
    assign_slots(&probed, observed, layout)
}

/// The gateways that can share the traffic of a StaticRoute; none where one is used at a time.
fn sharers(
    route: &WantedRoute,
    report: &RouteReport,
    slots: &BTreeMap<GatewaySlot, Ipv4Addr>,
) -> Vec<Sharer> {
    let Some(weights) = route.weights.as_ref().filter(|_| report.problem.is_none()) else {
        return Vec::new();
    };
    slots
        .iter()
        .filter(|(_, gateway)| report.usable_gateways.contains(gateway))
        .map(|(slot, gateway)| {
            let weight = weights.get(gateway).copied().unwrap_or(1);
            Sharer { gateway: *gateway, slot: *slot, weight }
        })
        .collect()
}

fn add_probes(
    slots: &BTreeMap<GatewaySlot, Ipv4Addr>,
    vpc: &VpcInterface,
    layout: &Layout,
    plan: &mut NodePlan,
) {
    for (&slot, &gateway) in slots {
        let id = layout.probe_nexthop(slot);
        let ports = layout.probe_port_range(slot);
        let table = layout.probe_table(slot);
        plan.state.insert_nexthop(through(id, gateway, vpc));
        plan.state.insert_route(Route {
            table,
            destination: Ipv4Net::default(),
            metric: 0,
            kind: RouteKind::Nexthop(id),
        });
        plan.state.rules.insert(Rule {
            from: Some(Ipv4Net::from(vpc.address)),
            ip_protocol: Some(TCP),
            source_ports: Some((*ports.start(), *ports.end())),
            ..Rule::lookup(layout.probe_priority(slot), table)
        });
        plan.probes.push(ProbePath { slot, gateway, source: vpc.address, source_ports: ports });
    }
}

/// The second nexthop object of every gateway that can share somebody's traffic, whether it does now or not.
fn add_twins<'a>(
    sharers: impl Iterator<Item = &'a Sharer>,
    vpc: &VpcInterface,
    layout: &Layout,
    state: &mut KernelState,
) {
    for sharer in sharers {
        state.insert_nexthop(through(layout.twin_nexthop(sharer.slot), sharer.gateway, vpc));
    }
}

/// Leaves the lists of gateways in the kernel, for an agent that starts while the API server is away.
fn record_lists(wanted: &[WantedRoute], sharers: &[Vec<Sharer>], layout: &Layout, plan: &mut NodePlan) {
    let slots: BTreeMap<Ipv4Addr, GatewaySlot> =
        plan.probes.iter().map(|path| (path.gateway, path.slot)).collect();
    for ((route, report), sharers) in wanted.iter().zip(&plan.routes).zip(sharers) {
        let Some(nexthop) = report.nexthop.and_then(|id| layout.nexthop_of_routes(id)) else { continue };
        let list = if route.is_shared() {
            recovery::record(nexthop, sharers.iter().map(|sharer| (sharer.slot, sharer.weight)), layout)
        } else if route.health_checked {
            let slots = report.usable_gateways.iter().filter_map(|gateway| slots.get(gateway).copied());
            recovery::record(nexthop, slots.zip(1..), layout)
        } else {
            None
        };
        if let Some(list) = list {
            plan.state.insert_nexthop(list);
        }
    }
}

fn add_rules(node: &NodeView, layout: &Layout, state: &mut KernelState) {
    if !state.routes.keys().any(|key| key.table == layout.table) {
        return;
    }
    if let Some(vpc) = node.vpc.as_ref().filter(|_| node.public_addresses.is_empty()) {
        let ports = layout.around_ports();
        state.rules.insert(Rule {
            from: Some(Ipv4Net::from(vpc.address)),
            ip_protocol: Some(TCP),
            source_ports: Some((*ports.start(), *ports.end())),
            ..Rule::lookup(layout.around_priority, MAIN_TABLE)
        });
    }
    for address in &node.public_addresses {
        let from = Some(Ipv4Net::from(address.addr()));
        state.rules.insert(Rule { from, ..Rule::lookup(layout.reply_priority, MAIN_TABLE) });
    }
    state.rules.insert(Rule {
        action: RuleAction::Lookup { table: MAIN_TABLE, suppress_prefix_length: Some(0) },
        ..Rule::lookup(layout.main_priority, MAIN_TABLE)
    });
    state.rules.insert(Rule::lookup(layout.table_priority, layout.table));
    state.builtin_rules = BuiltinRule::ALL.into();
}

#[cfg(test)]
mod tests;
