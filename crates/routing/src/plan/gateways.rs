//! Through which gateways a StaticRoute goes: those it can use, those it uses, and what the kernel needs for that.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use super::{NodePlan, Selection};
use crate::gateways::{gateways_in_kernel, usable_gateways};
use crate::kernel_state::{Gateway, KernelState, Nexthop, NexthopId, NexthopTarget, Observed};
use crate::layout::{GatewaySlot, Layout};
use crate::node::{NodeView, VpcInterface};
use crate::recovery;
use crate::report::{GatewayIssue, RouteProblem, RouteReport};
use crate::sharing::{self, Sharer};
use crate::wanted::{ReferenceFault, WantedRoute};

pub(super) fn check_gateways(
    wanted: &[WantedRoute],
    vpc: &VpcInterface,
    node: &NodeView,
    reports: &mut [RouteReport],
) {
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

/// The gateways that can share the traffic of a StaticRoute; none where one is used at a time.
pub(super) fn sharers(
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

/// The nexthop object or group of a StaticRoute that has routes, through the gateways that are chosen.
pub(super) fn choose_nexthop(
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

pub(super) fn in_order(gateways: &[Ipv4Addr], wanted: impl Fn(&Ipv4Addr) -> bool) -> Vec<Ipv4Addr> {
    gateways.iter().copied().filter(|gateway| wanted(gateway)).collect()
}

pub(super) fn through(id: NexthopId, gateway: Ipv4Addr, vpc: &VpcInterface) -> Nexthop {
    let via = NexthopTarget::Gateway(Gateway { address: gateway, interface: vpc.index, onlink: false });
    Nexthop { id, via }
}

/// The second nexthop object of every gateway that can share somebody's traffic, whether it does now or not.
pub(super) fn add_twins<'a>(
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
pub(super) fn record_lists(
    wanted: &[WantedRoute],
    sharers: &[Vec<Sharer>],
    layout: &Layout,
    plan: &mut NodePlan,
) {
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
