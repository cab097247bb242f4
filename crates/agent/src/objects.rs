//! From API objects to what the plan takes: pure.
//!
//! An object that can't be decoded keeps its last good version: bad input never costs anybody their routes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};

use egress_api::{EgressGateway, StaticRoute};
use egress_routing::wanted::{StaticRouteFields, WantedRoute};
use kube::ResourceExt;

use crate::watches::Guarded;

/// What the API server asks of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Objects {
    /// StaticRoutes, parsed.
    pub routes: Vec<WantedRoute>,
    /// Generation of each StaticRoute by uid.
    pub generations: BTreeMap<String, i64>,
    /// Gateways to probe, each with the targets that prove the way through it (none: only the gateway itself is probed).
    pub probed: BTreeMap<Ipv4Addr, BTreeSet<SocketAddrV4>>,
    /// Public addresses of gateways: a route to one of them must not go through another.
    pub gateway_addresses: BTreeSet<Ipv4Addr>,
}

/// Reads the stores. `previous` is what the last reading gave.
pub fn read<'a>(
    static_routes: impl IntoIterator<Item = &'a Guarded<StaticRoute>>,
    egress_gateways: impl IntoIterator<Item = &'a Guarded<EgressGateway>>,
    previous: &Objects,
) -> Objects {
    let mut objects = Objects::default();
    for guarded in static_routes {
        match &guarded.0 {
            // Deleted, and only held by somebody's finalizer (the older operator's, say): its routes go.
            Ok(route) if route.metadata.deletion_timestamp.is_some() => {}
            Ok(route) => objects.add_route(route),
            Err(broken) => {
                let uid = broken.metadata.uid.clone().unwrap_or_default();
                tracing::warn!(name = broken.metadata.name, error = %broken.error, "StaticRoute can't be read");
                objects.routes.extend(previous.routes.iter().filter(|route| route.uid == uid).cloned());
                objects
                    .generations
                    .extend(previous.generations.get_key_value(&uid).map(|(k, v)| (k.clone(), *v)));
            }
        }
    }
    for guarded in egress_gateways {
        match &guarded.0 {
            Ok(gateway) => objects.add_candidates(gateway),
            Err(broken) => {
                tracing::warn!(name = broken.metadata.name, error = %broken.error, "EgressGateway can't be read");
            }
        }
    }
    for route in objects.routes.iter().filter(|route| route.health_checked) {
        for gateway in &route.gateways {
            objects.probed.entry(*gateway).or_default();
        }
    }
    // The stores have no order; a plan must not depend on it.
    objects.routes.sort_by(|a, b| (a.created, &a.name, &a.uid).cmp(&(b.created, &b.name, &b.uid)));
    objects
}

impl Objects {
    fn add_route(&mut self, route: &StaticRoute) {
        let uid = route.uid().unwrap_or_default();
        let gateways = route.spec.ordered_gateways();
        let destinations: Vec<&str> = route.spec.destinations.iter().map(|one| one.0.as_str()).collect();
        let addresses: Vec<&str> = gateways.iter().map(|one| one.address.0.as_str()).collect();
        self.routes.push(WantedRoute::parse(StaticRouteFields {
            name: &route.name_any(),
            uid: &uid,
            created: route.creation_timestamp().map_or(0, |time| time.0.as_second()),
            destinations: &destinations,
            excluded: &[],
            gateways: &addresses,
            health_checked: route.spec.is_health_checked(),
        }));
        self.gateway_addresses.extend(
            gateways.iter().filter_map(|one| one.egress_address.as_ref()?.0.parse::<Ipv4Addr>().ok()),
        );
        self.generations.insert(uid, route.metadata.generation.unwrap_or_default());
    }

    fn add_candidates(&mut self, gateway: &EgressGateway) {
        let targets: BTreeSet<SocketAddrV4> =
            gateway.spec.health_check.targets.iter().filter_map(|target| target.0.parse().ok()).collect();
        let status = gateway.status.as_ref().map(|status| status.gateways.as_slice()).unwrap_or_default();
        for one in status {
            let parse = |text: &Option<String>| text.as_ref()?.parse::<Ipv4Addr>().ok();
            self.gateway_addresses.extend(parse(&one.public_address));
            if let Some(address) = parse(&one.private_address) {
                self.probed.entry(address).or_default().extend(&targets);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use egress_api::{EgressGatewayStatus, GatewayRole, GatewayStatus};
    use kube::core::DeserializeGuard;
    use serde_json::json;

    use super::*;

    fn static_route(object: serde_json::Value) -> Guarded<StaticRoute> {
        serde_json::from_value(object).unwrap()
    }

    fn old_shape(name: &str) -> serde_json::Value {
        json!({
            "apiVersion": "networking.digitalocean.com/v1", "kind": "StaticRoute",
            "metadata": {"name": name, "uid": format!("uid-{name}"), "generation": 3},
            "spec": {"destinations": ["34.160.111.145"], "gateway": "10.116.0.5"},
        })
    }

    #[test]
    fn a_bare_gateway_is_taken_on_trust_and_a_list_is_probed() {
        let mut listed = old_shape("listed");
        listed["spec"] = json!({"destinations": ["192.0.2.0/24"],
            "gateways": [{"address": "10.116.0.7", "egressAddress": "203.0.113.7"}]});
        let stores = [static_route(old_shape("old")), static_route(listed)];
        let objects = read(&stores, [], &Objects::default());
        assert_eq!(objects.routes.len(), 2);
        assert_eq!(objects.probed.keys().collect::<Vec<_>>(), [&Ipv4Addr::new(10, 116, 0, 7)]);
        assert!(objects.gateway_addresses.contains(&Ipv4Addr::new(203, 0, 113, 7)));
        assert_eq!(objects.generations["uid-old"], 3);
    }

    #[test]
    fn an_unreadable_object_keeps_its_last_good_version() {
        let good = read(&[static_route(old_shape("old"))], [], &Objects::default());
        let mut broken = old_shape("old");
        broken["spec"]["destinations"] = json!("not a list");
        let after = read(&[static_route(broken)], [], &good);
        assert_eq!(after.routes, good.routes);
    }

    #[test]
    fn a_deleted_object_is_not_wanted_whoever_holds_it() {
        let mut held = old_shape("old");
        held["metadata"]["deletionTimestamp"] = json!("2026-11-21T00:00:00Z");
        assert!(read(&[static_route(held)], [], &Objects::default()).routes.is_empty());
    }

    #[test]
    fn gateways_that_wait_to_be_proven_are_probed_through_to_the_targets() {
        let mut gateway: EgressGateway = serde_json::from_value(json!({
            "apiVersion": "networking.digitalocean.com/v1alpha1", "kind": "EgressGateway",
            "metadata": {"name": "demo"},
            "spec": {"destinations": ["192.0.2.80"], "publicIP": "Ephemeral"},
        }))
        .unwrap();
        gateway.status = Some(EgressGatewayStatus {
            gateways: vec![GatewayStatus {
                name: "demo-0".to_owned(),
                slot: 0,
                droplet_id: 1,
                private_address: Some("10.116.0.100".to_owned()),
                public_address: Some("203.0.113.100".to_owned()),
                role: GatewayRole::Starting,
                ready: false,
                since: None,
                message: None,
                suspect_since: None,
                powered_on: None,
                user_data_version: None,
            }],
            ..EgressGatewayStatus::default()
        });
        let objects = read([], &[DeserializeGuard(Ok(gateway))], &Objects::default());
        let targets = &objects.probed[&Ipv4Addr::new(10, 116, 0, 100)];
        assert_eq!(targets.len(), 3);
        assert!(objects.routes.is_empty());
    }
}
