//! A node whose interface in the VPC is not known. No gateway can be reached, and nobody knows what the kernel should route; but a
//! guard needs no interface, and `FailClosed` has no exception (`docs/decisions/0018`).

use std::collections::BTreeMap;

use ipnet::Ipv4Net;

use super::claims::{report_claims, resolve_claims};
use super::rules::add_rules;
use super::{NodePlan, below, foreign_destinations, guard, leaves_a_gap};
use crate::kernel_state::{Observed, Route, RouteKind};
use crate::layout::Layout;
use crate::node::NodeView;
use crate::report::RouteProblem;
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
    for report in &mut plan.routes {
        report.problem.get_or_insert(RouteProblem::NoVpcInterface);
    }
    if !wanted.iter().any(WantedRoute::is_fail_closed) {
        return;
    }
    let foreign: BTreeMap<Ipv4Net, u8> = foreign_destinations(observed, layout);
    let resolution = resolve_claims(wanted, &able, &plan.routes, node, &foreign, observed, layout);
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
    report_claims(wanted, &able, resolution, node, observed, layout, plan);
    for index in able {
        let report = &mut plan.routes[index];
        report.guarded = wanted[index].is_fail_closed() && !leaves_a_gap(report);
        report.applied = 0;
        report.failures.clear();
    }
    add_rules(node, layout, &mut plan.state);
}
