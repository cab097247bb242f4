//! Nodes that do what they are told at once.

use egress_api::{GatewayObservation, NodeEgressStatus, NodeRoute, NodeRouteState, StaticRoute};

use crate::observation::NodeSeen;

/// What a node sees of a gateway that works.
pub(super) fn gets_through(address: String) -> GatewayObservation {
    GatewayObservation {
        address,
        reachable: true,
        forwards: Some(true),
        expected_source: Some(true),
        full_size: Some(true),
        ..GatewayObservation::default()
    }
}

/// A node has the routes that it should, sends through the first of the list, and gets through what was `made`.
pub(super) fn follow(
    node: &mut NodeSeen,
    route: Option<&StaticRoute>,
    followers: &[String],
    made: &[String],
) {
    let selected = route.filter(|route| node.should_route(route.spec.node_selector.as_ref()));
    let report = node.report.get_or_insert_with(|| NodeEgressStatus {
        boot_id: Some("of a node whose agent has not reported yet".to_owned()),
        ..NodeEgressStatus::default()
    });
    for address in made {
        if !report.gateways.iter().any(|view| view.address == *address) {
            report.gateways.push(gets_through(address.clone()));
        }
    }
    let head = route.and_then(|route| route.spec.ordered_gateways().into_iter().next());
    let head = head.map(|gateway| gateway.address.0);
    report.routes.retain(|entry| followers.contains(&entry.uid));
    let state = if head.is_some() { NodeRouteState::Applied } else { NodeRouteState::NotApplied };
    for entry in &mut report.routes {
        (entry.state, entry.gateway) = (state, head.clone());
        (entry.draining, entry.reason) = (None, None);
        entry.gateways.clear();
    }
    if let Some(route) = selected {
        report.routes.push(applied(route, head));
    }
}

fn applied(route: &StaticRoute, gateway: Option<String>) -> NodeRoute {
    let many = u32::try_from(route.spec.destinations.len()).unwrap_or(u32::MAX);
    NodeRoute {
        name: route.metadata.name.clone().unwrap_or_default(),
        uid: route.metadata.uid.clone().unwrap_or_default(),
        observed_generation: route.metadata.generation.unwrap_or_default(),
        state: NodeRouteState::Applied,
        applied: many,
        total: many,
        gateway,
        gateways: Vec::new(),
        reason: None,
        message: None,
        guarded: true,
        no_gateway: false,
        draining: None,
        unusable_gateways: Vec::new(),
        failures: Vec::new(),
    }
}
