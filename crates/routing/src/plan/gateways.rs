//! Through which gateways a StaticRoute goes: those it can use, those it uses, and what the kernel needs for that.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use super::NodePlan;
use crate::gateways::{gateways_in_kernel, usable_gateways};
use crate::kernel_state::{Gateway, KernelState, Nexthop, NexthopId, NexthopTarget, Observed};
use crate::layout::{GatewaySlot, Layout};
use crate::node::{NodeView, VpcInterface};
use crate::recovery;
use crate::report::{GatewayIssue, RouteProblem, RouteReport};
use crate::sharing::Sharer;
use crate::wanted::{OnNoGateway, ReferenceFault, WantedRoute};

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

/// The gateways that a StaticRoute has in the kernel, also when its mode was another one there.
pub(super) fn kept_gateways(id: NexthopId, observed: &Observed, layout: &Layout) -> BTreeSet<Ipv4Addr> {
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

pub(super) fn through(id: NexthopId, gateway: Ipv4Addr, interface: u32) -> Nexthop {
    let via = NexthopTarget::Gateway(Gateway { address: gateway, interface, onlink: false });
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
        state.insert_nexthop(through(layout.twin_nexthop(sharer.slot), sharer.gateway, vpc.index));
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
        // With one gateway there is nothing to move between, but something to close or open.
        let least = if route.on_no_gateway == OnNoGateway::KeepLast { 2 } else { 1 };
        let list = if route.is_shared() {
            recovery::record(
                nexthop,
                least,
                sharers.iter().map(|sharer| (sharer.slot, sharer.weight)),
                layout,
            )
        } else if route.health_checked {
            let slots = report.usable_gateways.iter().filter_map(|gateway| slots.get(gateway).copied());
            recovery::record(nexthop, least, slots.zip(1..), layout)
        } else {
            None
        };
        if let Some(list) = list {
            plan.state.insert_nexthop(list);
        }
    }
}
