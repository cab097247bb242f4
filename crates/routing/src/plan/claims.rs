//! Who gets which destination: what objects claim, and what stands in a claim's way.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::Ipv4Net;

use super::NodePlan;
use crate::kernel_state::{
    KernelState, MAIN_TABLE, Managed, Observed, RouteKey, RouteKind, Rule, RuleAction,
};
use crate::layout::Layout;
use crate::node::NodeView;
use crate::prefix::difference;
use crate::protected::ProtectedReason;
use crate::report::{Failure, FailureCause, RouteReport};
use crate::resolve::{Claims, Resolution, resolve};
use crate::wanted::{Destination, Spelling, WantedRoute};

/// Rules for destinations in the public on-link subnet cost each packet a comparison; above this many, destinations are
/// `Shadowed` instead. What has one in the kernel keeps it: a destination that works is not given up for a new one.
pub(super) const MOST_ON_LINK_RULES: usize = 256;

/// Resolves the claims of the objects in `able`, the senior one first. `foreign` are destinations of others' routes in our table, with
/// their protocol numbers.
pub(super) fn resolve_claims(
    wanted: &[WantedRoute],
    able: &[usize],
    reports: &[RouteReport],
    node: &NodeView,
    foreign: &BTreeMap<Ipv4Net, u8>,
    observed: &Observed,
    layout: &Layout,
) -> Resolution {
    let mut claims: Vec<Claims<'_>> = Vec::with_capacity(able.len());
    // Whose each of them is, and whether it is what a refused version leaves shut.
    let mut owners: Vec<(usize, bool)> = Vec::with_capacity(able.len());
    for (object, index) in able.iter().enumerate() {
        let route = &wanted[*index];
        let mut own = Claims { name: &route.name, destinations: Vec::new(), excluded: Vec::new() };
        if route.lists_for_itself(reports[*index].problem.is_none()) {
            own.destinations.extend(route.destinations.keys());
            own.excluded.extend(&route.excluded);
        }
        let guard = route.guard.as_ref().map(|guard| {
            let routed = own.destinations.iter().flat_map(|prefix| difference(*prefix, &own.excluded));
            let excluded = guard.excluded.iter().copied().chain(routed).collect();
            Claims { name: &route.name, destinations: guard.destinations.iter().copied().collect(), excluded }
        });
        owners.push((object, false));
        owners.extend(guard.as_ref().map(|_| (object, true)));
        claims.push(own);
        claims.extend(guard);
    }
    let mut protected = node.protected.clone();
    for gateway in able.iter().flat_map(|index| &reports[*index].usable_gateways) {
        protected.insert_address(*gateway, ProtectedReason::Gateway);
    }
    let obstacle = |prefix: Ipv4Net| match foreign.get(&prefix) {
        Some(protocol) => Some(FailureCause::Foreign { protocol: *protocol, table: layout.table }),
        None => uncertain(prefix, node, observed, layout),
    };
    let resolution = resolve(&claims, &protected, &kept_shut(node, observed, layout), obstacle);
    if owners.len() == able.len() { resolution } else { by_object(resolution, &owners) }
}

/// What was resolved for claims, for the objects whose they are.
fn by_object(resolution: Resolution, owners: &[(usize, bool)]) -> Resolution {
    let Resolution { mut table, mut shut, mut won, mut lost } = resolution;
    for (destination, answer) in &mut table {
        let Some(claim) = answer else { continue };
        let (object, is_guard) = owners[*claim];
        *claim = object;
        if is_guard {
            shut.insert(*destination);
        }
    }
    for (claim, _) in &mut won {
        *claim = owners[*claim].0;
    }
    // What a guard does not get is routed, or another object's; but a place where it can't be is an open one.
    lost.retain(|(claim, _, cause)| !owners[*claim].1 || cause.leaves_a_gap());
    for (claim, ..) in &mut lost {
        *claim = owners[*claim].0;
    }
    Resolution { table, shut, won, lost }
}

/// Writes what became of each claim into the reports.
pub(super) fn report_claims(
    wanted: &[WantedRoute],
    able: &[usize],
    resolution: Resolution,
    node: &NodeView,
    observed: &Observed,
    layout: &Layout,
    plan: &mut NodePlan,
) {
    let lengths = node.main_routes.iter().map(Ipv4Net::prefix_len).collect();
    let Resolution { mut won, mut lost, shut, .. } = resolution;
    let rules = observed.rules.iter().map(Managed::get);
    let present: BTreeSet<Ipv4Net> =
        rules.filter_map(|rule| rule.to.filter(|to| *rule == on_link_rule(*to, layout))).collect();
    won.sort_by_key(|(_, destination)| !present.contains(destination));
    for (object, destination) in won {
        match answered_by_main(destination, node, &lengths, layout, &mut plan.state) {
            None if shut.contains(&destination) => {}
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
        let listed = wanted[index].destinations.get(&prefix).copied();
        if let Some(spelling) = listed.or(cause.leaves_a_gap().then_some(Spelling::Prefix)) {
            let destination = Destination { prefix, spelling };
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

/// Gives our table the word ahead of main.
fn on_link_rule(destination: Ipv4Net, layout: &Layout) -> Rule {
    Rule { to: Some(destination), ..Rule::lookup(layout.on_link_priority, layout.table) }
}

/// Gives the word ahead of [`on_link_rule`]s to what main has inside the on-link `subnet`: somebody's own route there wins over
/// a wider destination as it does everywhere else.
fn inside_on_link_rule(subnet: Ipv4Net, layout: &Layout) -> Rule {
    let suppress_prefix_length = Some(subnet.prefix_len().into());
    let action = RuleAction::Lookup { table: MAIN_TABLE, suppress_prefix_length };
    Rule { to: Some(subnet), action, ..Rule::lookup(layout.inside_on_link_priority, MAIN_TABLE) }
}

/// What the table passes over now, as long as it is not known what may be opened.
fn kept_shut(node: &NodeView, observed: &Observed, layout: &Layout) -> BTreeSet<Ipv4Net> {
    if node.uncertain.is_none() {
        return BTreeSet::new();
    }
    let ours = observed.routes.values().map(Managed::get).filter(|route| route.table == layout.table);
    ours.filter(|route| route.is_exception()).map(|route| route.destination).collect()
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

/// The route of the main table that answers for all of `destination` before our table is asked, if there is one. `lengths` are
/// those that its routes have.
///
/// Our route is written nevertheless: it takes over the moment the other one goes, with no packet in between. In the
/// public on-link subnet a rule ahead of main gives our table the word, but where main has a narrower route than the subnet's own.
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
    let is_on_link = |route: &Ipv4Net| node.public_addresses.iter().any(|address| address.trunc() == *route);
    if let Some(route) = covering.filter(|route| !is_on_link(route)) {
        return Some(route);
    }
    // None covers it alone ahead of our table; several may together, such as two halves of everything.
    let behind = node.main_routes.range(destination..).copied();
    let inside =
        behind.take_while(|route| destination.contains(route)).filter(|route| Some(*route) != covering);
    let inside: Vec<Ipv4Net> = inside.collect();
    if let Some(first) = inside.first().filter(|_| difference(destination, &inside).is_empty()) {
        return Some(*first);
    }
    let subnet = covering?;
    let rules = state.rules.iter().filter(|rule| rule.priority == layout.on_link_priority).count();
    if rules >= MOST_ON_LINK_RULES {
        return Some(subnet);
    }
    state.rules.insert(inside_on_link_rule(subnet, layout));
    state.rules.insert(on_link_rule(destination, layout));
    None
}
