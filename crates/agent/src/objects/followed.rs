//! The list of gateways of a StaticRoute that names an EgressGateway instead.

use egress_api::{EgressGateway, Gateway, GatewayAddress, StaticRoute};
use egress_routing::ReferenceFault;
use egress_runtime::guarded::Guarded;

use super::Objects;

/// What an EgressGateway gives a StaticRoute that names it.
pub(super) enum Followed {
    /// Its proven gateways, in order.
    List(Vec<Gateway>),
    /// None, and what was used last.
    Last(Vec<Gateway>, ReferenceFault),
}

/// The list that a StaticRoute follows; `None` when it names no EgressGateway.
///
/// The list is that of the EgressGateway's own StaticRoute: ordered, proven, and never made empty while there is hope.
pub(super) fn followed(
    route: &StaticRoute,
    static_routes: &[&Guarded<StaticRoute>],
    egress_gateways: &[&Guarded<EgressGateway>],
    previous: &Objects,
) -> Option<Followed> {
    let name = &route.spec.gateway_ref.as_ref()?.name;
    let before = previous.routes.iter().find(|one| Some(&one.uid) == route.metadata.uid.as_ref());
    let last = |fault| {
        let addresses = before.map(|before| before.gateways.as_slice()).unwrap_or_default();
        let weights = before.and_then(|before| before.weights.as_ref());
        let gateways = addresses.iter().map(|address| Gateway {
            address: GatewayAddress(address.to_string()),
            egress_address: None,
            weight: weights.and_then(|weights| Some(i32::from(*weights.get(address)?))),
        });
        Some(Followed::Last(gateways.collect(), fault))
    };
    let metadata = egress_gateways.iter().map(|guarded| match &guarded.0 {
        Ok(gateway) => &gateway.metadata,
        Err(broken) => &broken.metadata,
    });
    let name = name.clone();
    let deleted = ReferenceFault::Deleted { name: name.clone() };
    let gone = Some(Followed::Last(Vec::new(), deleted.clone()));
    let Some(egress_gateway) = metadata.into_iter().find(|metadata| metadata.name.as_ref() == Some(&name))
    else {
        // Whoever saw it go knows better than who finds nothing.
        let saw_it_go = before.is_some_and(|before| before.reference_fault.as_ref() == Some(&deleted));
        return if saw_it_go { gone } else { last(ReferenceFault::Missing { name }) };
    };
    if egress_gateway.deletion_timestamp.is_some() {
        return gone;
    }
    let is_its = |one: &&StaticRoute| {
        let owners = one.metadata.owner_references.as_deref().unwrap_or_default();
        owners
            .iter()
            .any(|owner| Some(&owner.uid) == egress_gateway.uid.as_ref() && owner.controller == Some(true))
    };
    let its_own = static_routes.iter().filter_map(|guarded| guarded.0.as_ref().ok()).find(is_its);
    match its_own.map(|own| own.spec.ordered_gateways()) {
        Some(list) if !list.is_empty() => Some(Followed::List(list)),
        _ => last(ReferenceFault::NotReady { name }),
    }
}
