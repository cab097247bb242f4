//! A node whose interface in the VPC is not known. No gateway can be reached, and nobody knows what the kernel should route; but a
//! guard needs no interface, and `FailClosed` has no exception (`docs/decisions/0018`).

use std::collections::{BTreeMap, BTreeSet};

use ipnet::Ipv4Net;

use super::claims::{report_claims, resolve_claims};
use super::rules::add_rules;
use super::{NodePlan, below, foreign_destinations, guard, leaves_a_gap};
use crate::kernel_state::{
    Gateway, KernelState, Managed, NexthopId, NexthopTarget, Observed, Route, RouteKind,
};
use crate::layout::Layout;
use crate::node::NodeView;
use crate::report::RouteProblem;
use crate::resolve::Resolution;
use crate::wanted::{OnNoGateway, WantedRoute};

/// Fills in the guards of what fails closed, with what they must spare. What the kernel has beside them is not in the plan: it is to
/// be left as it is.
pub(super) fn shut(
    wanted: &[WantedRoute],
    node: &NodeView,
    observed: &Observed,
    layout: &Layout,
    plan: &mut NodePlan,
) {
    let is_able = |index: &usize| plan.routes[*index].problem.is_none() || wanted[*index].is_fail_closed();
    let mut able: Vec<usize> = (0..wanted.len()).filter(is_able).collect();
    able.sort_by_key(|index| wanted[*index].seniority());
    let foreign: BTreeMap<Ipv4Net, u8> = foreign_destinations(observed, layout);
    let is_asked = wanted.iter().any(WantedRoute::is_fail_closed);
    let resolution =
        is_asked.then(|| resolve_claims(wanted, &able, &plan.routes, node, &foreign, observed, layout));
    for report in &mut plan.routes {
        report.problem.get_or_insert(RouteProblem::NoVpcInterface);
    }
    let Some(resolution) = resolution else { return };
    for (destination, object) in &resolution.table {
        let destination = *destination;
        let route = match object.map(|object| &wanted[able[object]]) {
            _ if foreign.contains_key(&destination) => None,
            None => Some(Route { table: layout.table, destination, metric: 0, kind: RouteKind::Throw }),
            // Where it lies inside what is shut, the wider guard drops it, as it would be dropped while the link is down.
            Some(route) if route.on_no_gateway == OnNoGateway::KeepLast => None,
            Some(route) => below(destination, route, |object| &wanted[able[object]], &resolution)
                .map(|kind| guard(destination, kind, layout)),
        };
        plan.state.routes.extend(route.map(|route| (route.key(), route)));
    }
    let let_out = let_out(&resolution, node, observed, layout, &plan.state);
    report_claims(wanted, &able, resolution, node, observed, layout, plan);
    for (object, index) in able.into_iter().enumerate() {
        let report = &mut plan.routes[index];
        report.guarded =
            wanted[index].is_fail_closed() && !leaves_a_gap(report) && !let_out.contains(&object);
        report.applied = 0;
        report.failures.clear();
    }
    add_rules(node, layout, &mut plan.state);
}

/// Objects of whose destinations the kernel lets something out, whatever is planned. It stays so until the interface is known: an
/// exception that nobody plans now may be what keeps the VPC's own subnet reachable.
fn let_out(
    resolution: &Resolution,
    node: &NodeView,
    observed: &Observed,
    layout: &Layout,
    planned: &KernelState,
) -> BTreeSet<usize> {
    let exit = observed.nexthops.get(&layout.exit_nexthop()).and_then(|exit| match exit.get().via {
        NexthopTarget::Gateway(gateway) => Some(gateway),
        NexthopTarget::Blackhole | NexthopTarget::Group { .. } => None,
    });
    let own_ways: Vec<Gateway> = node.default_way.into_iter().chain(exit).collect();
    let routes = observed.routes.values().map(Managed::get).filter(|route| route.table == layout.table);
    let open = routes.filter(|route| match route.kind {
        RouteKind::Nexthop(id) => leads_out(id, &own_ways, observed),
        // A guard takes its place, as [`Change::only_shuts`](crate::kernel_state::Change::only_shuts) allows.
        RouteKind::Throw => planned.routes.get(&route.key()).is_none_or(|it| it.kind != RouteKind::Blackhole),
        RouteKind::Gateway(_) => true,
        RouteKind::Unreachable | RouteKind::Blackhole => false,
    });
    open.filter_map(|route| owner(route.destination, resolution)).collect()
}

/// Whether a nexthop object leads out by one of the node's own ways.
fn leads_out(id: NexthopId, own_ways: &[Gateway], observed: &Observed) -> bool {
    match observed.nexthops.get(&id).map(|nexthop| &nexthop.get().via) {
        Some(NexthopTarget::Gateway(gateway)) => own_ways.contains(gateway),
        Some(NexthopTarget::Group { members, .. }) => {
            members.iter().any(|member| leads_out(member.id, own_ways, observed))
        }
        Some(NexthopTarget::Blackhole) => false,
        None => true,
    }
}

/// Whose word counts for all of `destination`.
fn owner(destination: Ipv4Net, resolution: &Resolution) -> Option<usize> {
    let wider = (0..=destination.prefix_len())
        .rev()
        .filter_map(|length| Ipv4Net::new(destination.addr(), length).ok());
    wider.map(|range| range.trunc()).find_map(|range| resolution.table.get(&range).copied()).flatten()
}
