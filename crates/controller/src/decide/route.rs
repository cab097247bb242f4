//! The StaticRoute that nodes follow: every proven gateway, in a sticky order. Never an empty list.

use egress_api::{
    EgressAddress, EgressGatewayStatus, Failover, Gateway, GatewayAddress, GatewayRole, GatewayStatus,
    NodeRouteState, RouteMode, StaticRoute, StaticRouteSpec,
};

use super::{Look, is_leaving, is_proven};
use crate::observation::NodeSeen;

/// What the StaticRoute should become.
pub(super) struct RoutePlan {
    /// The spec to apply, when it is not that already.
    pub(super) change: Option<StaticRouteSpec>,
}

/// Orders the proven gateways, gives them their roles and addresses in the status, and plans the StaticRoute.
pub(super) fn plan(look: &Look<'_>, status: &mut EgressGatewayStatus) -> RoutePlan {
    let order: Vec<GatewayStatus> = order(look, status).into_iter().cloned().collect();
    let head = order.first().map(|gateway| gateway.droplet_id);
    let shared = look.seen.gateway.spec.mode == RouteMode::ActiveActive;
    for gateway in status.gateways.iter_mut().filter(|gateway| is_proven(gateway)) {
        let active = Some(gateway.droplet_id) == head || shared;
        gateway.role = if active { GatewayRole::Active } else { GatewayRole::Standby };
    }
    let active = if shared { order.as_slice() } else { order.get(..1).unwrap_or_default() };
    status.active = in_one_line(active.iter().map(|gateway| gateway.name.as_str()));
    status.egress_ip = in_one_line(active.iter().filter_map(|gateway| gateway.public_address.as_deref()));
    if !shared && let Some(failover) = failover(look, status, order.first()) {
        status.last_failover = Some(failover);
    }
    status.public_ips = order.iter().filter_map(|gateway| gateway.public_address.clone()).collect();
    RoutePlan { change: change(look, &order) }
}

// From the gateway that was written down as active or, when none works meanwhile, that nodes still have first.
fn failover(look: &Look<'_>, status: &EgressGatewayStatus, head: Option<&GatewayStatus>) -> Option<Failover> {
    let to = head?;
    let listed = current_list(look).into_iter().next().map(|first| first.address.0);
    let was_active = |old: &&GatewayStatus| match &look.before.active {
        Some(name) => *name == old.name,
        None => old.private_address.is_some() && old.private_address == listed,
    };
    let from =
        look.before.gateways.iter().find(was_active).filter(|from| from.droplet_id != to.droplet_id)?;
    let reason = match status.gateways.iter().find(|gateway| gateway.droplet_id == from.droplet_id) {
        Some(gateway) if is_proven(gateway) => format!("the nodes' list has {} first", to.name),
        Some(gateway) => gateway.message.clone().unwrap_or_else(|| format!("it is {:?}", gateway.role)),
        None => "its Droplet is gone".to_owned(),
    };
    let (from, to) = (from.name.clone(), to.name.clone());
    Some(Failover { time: look.time(), from, to, reason, seconds: None })
}

fn in_one_line<'a>(words: impl Iterator<Item = &'a str>) -> Option<String> {
    let line = words.collect::<Vec<_>>().join(", ");
    (!line.is_empty()).then_some(line)
}

/// Proven gateways: those that are listed already in their order, then the others by age.
pub(super) fn order<'a>(look: &Look<'_>, status: &'a EgressGatewayStatus) -> Vec<&'a GatewayStatus> {
    let listed = current_list(look);
    let place = |gateway: &GatewayStatus| {
        listed
            .iter()
            .position(|entry| Some(&entry.address.0) == gateway.private_address.as_ref())
            .unwrap_or(usize::MAX)
    };
    let was_active = |gateway: &GatewayStatus| look.before.active.as_ref() == Some(&gateway.name);
    let mut order: Vec<_> = status
        .gateways
        .iter()
        .filter(|gateway| is_proven(gateway) && gateway.private_address.is_some())
        .collect();
    order.sort_by_key(|gateway| (place(gateway), !was_active(gateway), gateway.slot, gateway.droplet_id));
    order
}

/// A StaticRoute of our name that somebody else made.
pub(super) fn is_foreign(look: &Look<'_>) -> bool {
    look.seen.route.as_ref().is_some_and(|route| !is_ours(look, route))
}

/// Our StaticRoute, as it is.
pub(super) fn ours<'a>(look: &Look<'a>) -> Option<&'a StaticRoute> {
    look.seen.route.as_ref().filter(|route| is_ours(look, route))
}

fn is_ours(look: &Look<'_>, route: &StaticRoute) -> bool {
    let owners = route.metadata.owner_references.as_deref().unwrap_or_default();
    owners.iter().any(|owner| owner.uid == look.identity.owner && owner.controller == Some(true))
}

fn current_list(look: &Look<'_>) -> Vec<Gateway> {
    ours(look).map(|route| route.spec.ordered_gateways()).unwrap_or_default()
}

fn change(look: &Look<'_>, order: &[GatewayStatus]) -> Option<StaticRouteSpec> {
    if is_foreign(look)
        || look.seen.route.as_ref().is_some_and(|route| route.metadata.deletion_timestamp.is_some())
    {
        return None;
    }
    let proven: Vec<Gateway> = order.iter().filter_map(entry).collect();
    // When all are dead, the nodes keep what they have: any of them may come back.
    let gateways = if proven.is_empty() { current_list(look) } else { proven };
    if gateways.is_empty() {
        return None;
    }
    let asked = &look.seen.gateway.spec;
    let spec = StaticRouteSpec {
        destinations: asked.destinations.clone(),
        excluded_destinations: asked.excluded_destinations.clone(),
        gateway: None,
        gateways: Some(gateways),
        node_selector: asked.node_selector.clone(),
        gateway_ref: None,
        mode: asked.mode,
        health_check: Some(asked.health_check.clone()),
        on_no_gateway: asked.on_no_gateway,
        drain_seconds: asked.drain_seconds,
    };
    (ours(look).map(|route| &route.spec) != Some(&spec)).then_some(spec)
}

fn entry(gateway: &GatewayStatus) -> Option<Gateway> {
    let address = gateway.private_address.clone().filter(|_| !is_leaving(gateway))?;
    Some(Gateway {
        address: GatewayAddress(address),
        egress_address: gateway.public_address.clone().map(EgressAddress),
        weight: None,
    })
}

/// How many nodes have all of this generation of the StaticRoute in their kernel, and how many should: those that are alive
/// and selected.
pub fn nodes_applied(route: &StaticRoute, nodes: &[NodeSeen]) -> (usize, usize) {
    let applied = |node: &&NodeSeen| {
        let routes = node.report.as_ref().map(|report| report.routes.as_slice()).unwrap_or_default();
        routes.iter().any(|entry| {
            Some(&entry.uid) == route.metadata.uid.as_ref()
                && Some(entry.observed_generation) == route.metadata.generation
                && entry.state == NodeRouteState::Applied
        })
    };
    let selector = route.spec.node_selector.as_ref();
    let routing = || nodes.iter().filter(|node| node.should_route(selector));
    (routing().filter(applied).count(), routing().count())
}
