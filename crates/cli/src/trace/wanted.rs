//! From StaticRoutes to what a node's plan takes, as the agent reads them: pure.
//!
//! The agent itself is not used: it is a program for Linux, and this one runs where people sit. A test holds the two together.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use egress_api::{
    Destination, EgressGateway, Gateway, GatewayAddress, GatewayStatus, NodeRoute, RouteMode, StaticRoute,
};
use egress_routing::prefix::parse_egress_address;
use egress_routing::wanted::{StaticRouteFields, WantedRoute};
use egress_routing::{OnNoGateway, ReferenceFault};
use kube::ResourceExt;

use crate::view::View;

/// Why a StaticRoute does not apply to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Aside {
    /// Somebody deleted it.
    Deleted,
    /// Its node selector leaves the node out.
    NotSelected,
    /// Its fields go against one another. What the node has of an earlier version stays.
    Unusable(String),
}

/// A StaticRoute for a node with these labels. `has` is what the node reports of it.
pub fn wanted(
    route: &StaticRoute,
    view: &View,
    labels: &BTreeMap<String, String>,
    has: Option<&NodeRoute>,
) -> Result<WantedRoute, Aside> {
    if route.metadata.deletion_timestamp.is_some() {
        return Err(Aside::Deleted);
    }
    if !route.spec.selects(labels).map_err(|error| Aside::Unusable(error.to_string()))? {
        return Err(Aside::NotSelected);
    }
    route.spec.check().map_err(|error| Aside::Unusable(error.to_string()))?;
    let (gateways, reference_fault) = match followed(route, view, has) {
        None => (route.spec.ordered_gateways(), None),
        Some((list, fault)) => (list, fault),
    };
    let (destinations, excluded) =
        (texts(&route.spec.destinations), texts(&route.spec.excluded_destinations));
    let addresses: Vec<&str> = gateways.iter().map(|one| one.address.0.as_str()).collect();
    let weights: Vec<i32> = gateways.iter().map(|one| one.weight.unwrap_or(1)).collect();
    let mut wanted = WantedRoute::parse(StaticRouteFields {
        name: &route.name_any(),
        uid: &route.uid().unwrap_or_default(),
        created: route.creation_timestamp().map_or(0, |time| time.0.as_second()),
        destinations: &destinations,
        excluded: &excluded,
        gateways: &addresses,
        health_checked: route.spec.is_health_checked(),
        reference_fault,
        weights: (route.spec.mode == RouteMode::ActiveActive).then_some(&weights),
        on_no_gateway: match route.spec.on_no_gateway {
            egress_api::OnNoGateway::KeepLast => OnNoGateway::KeepLast,
            egress_api::OnNoGateway::FailClosed => OnNoGateway::FailClosed,
            egress_api::OnNoGateway::FailOpen => OnNoGateway::FailOpen,
        },
        drain_seconds: u32::try_from(route.spec.drain_seconds).unwrap_or(0),
    });
    for (index, gateway) in gateways.iter().enumerate() {
        let Some(egress) = &gateway.egress_address else { continue };
        if let Err(invalid) =
            parse_egress_address(&format!("spec.gateways[{index}].egressAddress"), &egress.0)
        {
            wanted.gateways.retain(|address| address.to_string() != gateway.address.0);
            wanted.invalid_gateways.push(invalid);
        }
    }
    Ok(wanted)
}

fn texts(list: &[Destination]) -> Vec<&str> {
    list.iter().map(|one| one.0.as_str()).collect()
}

/// The gateways of a StaticRoute in order, whoever lists them.
pub fn listed(route: &StaticRoute, view: &View) -> Vec<Gateway> {
    followed(route, view, None).map_or_else(|| route.spec.ordered_gateways(), |(list, _)| list)
}

// The list of the EgressGateway that it follows; while there is none, what the node has of it.
fn followed(
    route: &StaticRoute,
    view: &View,
    has: Option<&NodeRoute>,
) -> Option<(Vec<Gateway>, Option<ReferenceFault>)> {
    let name = route.spec.gateway_ref.as_ref()?.name.clone();
    let last = |fault| {
        let used = has.into_iter().flat_map(NodeRoute::gateways_in_use);
        let one = |address: &String| Gateway {
            address: GatewayAddress(address.clone()),
            egress_address: None,
            weight: None,
        };
        Some((used.map(one).collect(), Some(fault)))
    };
    let metadata = view.egress_gateways.iter().map(kube::Resource::meta);
    let Some(egress_gateway) = metadata.into_iter().find(|metadata| metadata.name.as_ref() == Some(&name))
    else {
        return last(ReferenceFault::Missing { name });
    };
    if egress_gateway.deletion_timestamp.is_some() {
        return Some((Vec::new(), Some(ReferenceFault::Deleted { name })));
    }
    let own = view.routes().find(|one| {
        let owners = one.metadata.owner_references.as_deref().unwrap_or_default();
        owners
            .iter()
            .any(|owner| Some(&owner.uid) == egress_gateway.uid.as_ref() && owner.controller == Some(true))
    });
    match own.map(|own| own.spec.ordered_gateways()) {
        Some(list) if !list.is_empty() => Some((list, None)),
        _ => last(ReferenceFault::NotReady { name }),
    }
}

/// Whose machine has this private address: the EgressGateway, the gateway's name, its public address.
pub fn machine(view: &View, address: Ipv4Addr) -> Option<(&EgressGateway, &GatewayStatus)> {
    let text = address.to_string();
    let all = view.gateways().flat_map(|gateway| {
        gateway.status.iter().flat_map(|status| &status.gateways).map(move |one| (gateway, one))
    });
    all.into_iter().find(|(_, one)| one.private_address.as_ref() == Some(&text))
}

#[cfg(test)]
mod tests {
    use egress_agent::objects::{self, Objects};
    use egress_api::NodeSelector;
    use egress_runtime::guarded::Guarded;
    use serde_json::json;

    use super::*;
    use crate::view::fixture::{egress_gateway, static_route, view};

    #[test]
    fn objects_are_read_as_the_agent_reads_them() {
        let mut owned = static_route("demo", 1, &["0.0.0.0/0"], &["10.116.0.100", "10.116.0.101"]);
        owned["metadata"]["ownerReferences"] = json!([{"apiVersion": "networking.digitalocean.com/v1alpha1",
            "kind": "EgressGateway", "name": "demo", "uid": "uid-demo", "controller": true}]);
        let mut follows = static_route("follows", 2, &["192.0.2.0/24"], &[]);
        follows["spec"] = json!({"destinations": ["192.0.2.0/24"], "gatewayRef": {"name": "demo"}});
        let mut lost = follows.clone();
        lost["metadata"]["name"] = json!("lost");
        lost["metadata"]["uid"] = json!("uid-lost");
        lost["spec"]["gatewayRef"]["name"] = json!("nobody");
        let mut bare = static_route("bare", 3, &[], &[]);
        bare["spec"] =
            json!({"destinations": ["192.0.2.1", "192.0.2.1/32", "nonsense"], "gateway": "10.116.0.5"});
        let mut shared = static_route("shared", 4, &["198.51.100.0/24"], &["10.116.0.5", "10.116.0.6"]);
        shared["spec"]["mode"] = json!("ActiveActive");
        shared["spec"]["gateways"][1]["weight"] = json!(3);
        shared["spec"]["gateways"][0]["egressAddress"] = json!("nonsense");
        shared["spec"]["excludedDestinations"] = json!(["198.51.100.7"]);
        shared["spec"]["onNoGateway"] = json!("FailClosed");
        let mut selected = static_route("selected", 5, &["192.0.2.9"], &["10.116.0.5"]);
        selected["spec"]["nodeSelector"] = serde_json::to_value(NodeSelector {
            match_labels: BTreeMap::from([("pool".to_owned(), "other".to_owned())]),
            ..NodeSelector::default()
        })
        .unwrap();
        let mut broken = static_route("broken", 6, &["192.0.2.9"], &["10.116.0.5"]);
        broken["spec"]["excludedDestinations"] = json!(["10.0.0.1/8"]);
        let mut contradictory = static_route("contradictory", 7, &["192.0.2.9"], &["10.116.0.5"]);
        contradictory["spec"]["gateway"] = json!("10.116.0.6");
        let view = view(&[
            egress_gateway("demo"),
            owned,
            follows,
            lost,
            bare,
            shared,
            selected,
            broken,
            contradictory,
        ]);

        let labels = BTreeMap::new();
        let read =
            objects::read(&view.static_routes, &view.egress_gateways, Some(&labels), &Objects::default());
        let mut agents: Vec<WantedRoute> = read.routes;
        let mut ours: Vec<WantedRoute> =
            view.routes().filter_map(|route| wanted(route, &view, &labels, None).ok()).collect();
        agents.sort_by(|a, b| a.uid.cmp(&b.uid));
        ours.sort_by(|a, b| a.uid.cmp(&b.uid));
        assert_eq!(ours, agents);
        assert_eq!(ours.len(), 6, "all but the one that is not selected and the one that contradicts itself");
        let aside = |name: &str| {
            let route = view.static_routes.iter().filter_map(|Guarded(route)| route.as_ref().ok());
            wanted(route.into_iter().find(|route| route.name_any() == name).unwrap(), &view, &labels, None)
                .err()
        };
        assert_eq!(aside("selected"), Some(Aside::NotSelected));
        assert!(matches!(aside("contradictory"), Some(Aside::Unusable(_))));
    }
}
