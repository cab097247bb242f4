//! How gateways are probed: a table, a rule and ports for each, so that a probe goes through its gateway whatever is routed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::NodePlan;
use super::gateways::through;
use crate::gateways::{assign_slots, usable_gateways};
use crate::inbound::Transport;
use crate::kernel_state::{Observed, Route, RouteKind, Rule};
use crate::layout::{GatewaySlot, Layout, ProbePath};
use crate::node::{NodeView, VpcInterface};
use crate::wanted::WantedRoute;

/// The slot of each gateway that is probed, and the gateways for which none was left.
pub(super) fn probed_slots(
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

/// Adds what probes of these gateways need.
pub(super) fn add_probes(
    slots: &BTreeMap<GatewaySlot, Ipv4Addr>,
    vpc: &VpcInterface,
    layout: &Layout,
    plan: &mut NodePlan,
) {
    for (&slot, &gateway) in slots {
        let id = layout.probe_nexthop(slot);
        let ports = layout.probe_port_range(slot);
        let table = layout.probe_table(slot);
        plan.state.insert_nexthop(through(id, gateway, vpc.index));
        plan.state.insert_route(Route {
            table,
            destination: Ipv4Net::default(),
            metric: 0,
            kind: RouteKind::Nexthop(id),
        });
        plan.state.rules.insert(Rule {
            from: Some(Ipv4Net::from(vpc.address)),
            ip_protocol: Some(Transport::Tcp.number()),
            source_ports: Some((*ports.start(), *ports.end())),
            ..Rule::lookup(layout.probe_priority(slot), table)
        });
        plan.probes.push(ProbePath { slot, gateway, source: vpc.address, source_ports: ports });
    }
}
