//! The StaticRoute that nodes follow: every proven gateway, in a sticky order. Never an empty list, but for a guard that waits for
//! its first gateway.

use egress_api::{
    EgressAddress, EgressGatewayStatus, Gateway, GatewayAddress, GatewayRole, GatewayStatus, NodeRoute,
    NodeRouteState, OnNoGateway, RouteMode, StaticRoute, StaticRouteSpec,
};

use super::addresses::floating;
use super::{Look, addresses, failover, is_leaving, is_proven, roll};
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
    status.egress_ip = if floating::is_wanted(look) {
        // Whoever is active has it, or is about to.
        floating::address(status).filter(|_| !active.is_empty()).map(|recorded| recorded.ip.clone())
    } else {
        in_one_line(active.iter().filter_map(|gateway| gateway.public_address.as_deref()))
    };
    if !shared {
        failover::note(look, status, order.first());
    }
    count_nodes(look, status);
    status.public_ips = public_ips(look, status, &order);
    RoutePlan { change: change(look, status, &order) }
}

// A node may send through a gateway that was proven, or that it has in its list, until its Droplet is gone.
fn public_ips(look: &Look<'_>, status: &EgressGatewayStatus, order: &[GatewayStatus]) -> Vec<String> {
    if addresses::are_wanted(look) {
        return addresses::public_ips(status);
    }
    let mut addresses: Vec<String> =
        order.iter().filter_map(|gateway| gateway.public_address.clone()).collect();
    let listed = current_list(look);
    for gateway in &status.gateways {
        let Some(public) = &gateway.public_address else { continue };
        let is_listed = listed.iter().any(|entry| Some(&entry.address.0) == gateway.private_address.as_ref());
        if (is_listed || look.before.public_ips.contains(public)) && !addresses.contains(public) {
            addresses.push(public.clone());
        }
    }
    addresses
}

fn in_one_line<'a>(words: impl Iterator<Item = &'a str>) -> Option<String> {
    let line = words.collect::<Vec<_>>().join(", ");
    (!line.is_empty()).then_some(line)
}

// How many nodes leave through each gateway now, by their own word, whichever StaticRoute of ours takes them there.
fn count_nodes(look: &Look<'_>, status: &mut EgressGatewayStatus) {
    let own = ours(look).and_then(|route| route.metadata.uid.as_ref());
    let counts = |entry: &NodeRoute| {
        Some(&entry.uid) == own || look.seen.followers.iter().any(|follower| follower.uid == entry.uid)
    };
    let reports = || look.seen.live_nodes().filter_map(|node| node.report.as_ref());
    for gateway in &mut status.gateways {
        let uses = |entry: &NodeRoute| {
            counts(entry)
                && entry.gateways_in_use().any(|address| Some(address) == gateway.private_address.as_ref())
        };
        let nodes = reports().filter(|report| report.routes.iter().any(uses)).count();
        gateway.nodes = i32::try_from(nodes).unwrap_or(i32::MAX);
    }
}

/// Proven gateways in the order that people ask for; else those that are listed already in their order, then the others by age. One that
/// drains because it is rolled comes last.
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
    order.sort_by_key(|gateway| {
        let wish = look.wishes.rank(&gateway.name);
        let rolled = roll::is_drained(status, gateway);
        // An address that moves is not moved for the order of a list.
        let waits = floating::is_wanted(look) && !floating::is_holder(status, gateway);
        (rolled, wish, waits, place(gateway), !was_active(gateway), gateway.slot, gateway.droplet_id)
    });
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

pub(super) fn current_list(look: &Look<'_>) -> Vec<Gateway> {
    ours(look).map(|route| route.spec.ordered_gateways()).unwrap_or_default()
}

fn change(look: &Look<'_>, status: &EgressGatewayStatus, order: &[GatewayStatus]) -> Option<StaticRouteSpec> {
    if is_foreign(look)
        || look.seen.route.as_ref().is_some_and(|route| route.metadata.deletion_timestamp.is_some())
    {
        return None;
    }
    let mut proven: Vec<Gateway> = listed(look, status, order).iter().filter_map(entry).collect();
    if look.seen.gateway.spec.mode == RouteMode::ActiveActive {
        lighten(&mut proven, order.iter().position(|gateway| roll::is_drained(status, gateway)));
    }
    // When all are dead, the nodes keep what they have: any of them may come back.
    let gateways = if proven.is_empty() { current_list(look) } else { proven };
    // What is to be dropped without a gateway is dropped before there is one; nothing else can be said without a gateway.
    if gateways.is_empty() && look.seen.gateway.spec.on_no_gateway != OnNoGateway::FailClosed {
        return None;
    }
    let wanted = &look.seen.gateway.spec;
    let spec = StaticRouteSpec {
        destinations: wanted.destinations.clone(),
        excluded_destinations: wanted.excluded_destinations.clone(),
        gateway: None,
        gateways: Some(gateways),
        node_selector: wanted.node_selector.clone(),
        gateway_ref: None,
        mode: wanted.mode,
        on_no_gateway: wanted.on_no_gateway,
        drain_seconds: wanted.drain_seconds,
        health_check: Some(wanted.health_check.clone()),
    };
    (ours(look).map(|route| &route.spec) != Some(&spec)).then_some(spec)
}

// Where an address moves, all are listed with it, as soon as one carries traffic with it; and whom nodes use stays until they see it
// elsewhere.
fn listed(look: &Look<'_>, status: &EgressGatewayStatus, order: &[GatewayStatus]) -> Vec<GatewayStatus> {
    if !floating::is_wanted(look) {
        return order.to_vec();
    }
    let begins = current_list(look).is_empty();
    let Some(shared) =
        floating::address(status).filter(|_| !begins || floating::carrier(look, status).is_some())
    else {
        return Vec::new();
    };
    let all = order.iter().chain(floating::held_on_to(look, status)).cloned();
    all.map(|gateway| GatewayStatus { public_address: Some(shared.ip.clone()), ..gateway }).collect()
}

fn entry(gateway: &GatewayStatus) -> Option<Gateway> {
    let address = gateway.private_address.clone().filter(|_| !is_leaving(gateway))?;
    Some(Gateway {
        address: GatewayAddress(address),
        egress_address: gateway.public_address.clone().map(EgressAddress),
        weight: None,
    })
}

// Who shares traffic and drains gets next to nothing new; what it has stays.
fn lighten(gateways: &mut [Gateway], drained: Option<usize>) {
    const ALL: i32 = 256;
    let Some(drained) = drained else { return };
    for (place, gateway) in gateways.iter_mut().enumerate() {
        gateway.weight = Some(if place == drained { 1 } else { ALL });
    }
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
