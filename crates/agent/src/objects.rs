//! From API objects to what the plan takes: pure.
//!
//! An object that can't be read keeps its last good version, and the report says why: bad input never costs anybody their
//! routes. What a field's own text gets wrong (a destination, a gateway) is no matter of reading: it costs that entry only.

#[cfg(test)]
mod arbitrary;
mod followed;
mod probed;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use egress_api::{EgressGateway, RouteMode, StaticRoute};
use egress_routing::kernel_state::Observed;
use egress_routing::prefix::parse_egress_address;
use egress_routing::recovery::gateways_of;
use egress_routing::wanted::{StaticRouteFields, WantedRoute};
use egress_routing::{Layout, OnNoGateway, ReferenceFault};
use egress_runtime::guarded::Guarded;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, ResourceExt};

use followed::{Followed, followed};
use probed::Hearing;
pub use probed::{Check, Moving, Probed};

/// A node's labels.
pub type Labels = BTreeMap<String, String>;

/// What the API server asks of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Objects {
    /// StaticRoutes that apply to this node, parsed.
    pub routes: Vec<WantedRoute>,
    /// Generation of each StaticRoute by uid.
    pub generations: BTreeMap<String, i64>,
    /// Name of every StaticRoute that is there and not being deleted, by uid, whether or not it can be read.
    pub present: BTreeMap<String, String>,
    /// Uid of the EgressGateway that a StaticRoute belongs to, by the StaticRoute's uid.
    pub owners: BTreeMap<String, String>,
    /// EgressGateways that somebody deleted, by uid; see [`crate::leaving`].
    pub leaving: BTreeSet<String>,
    /// Gateways to probe, and how.
    pub probed: BTreeMap<Ipv4Addr, Probed>,
    /// Public addresses of gateways: a route to one of them must not go through another.
    pub gateway_addresses: BTreeSet<Ipv4Addr>,
    /// StaticRoutes that can't be read, by uid. The last good version, if this agent has seen one, is among `routes`.
    pub unreadable: BTreeMap<String, Unreadable>,
    /// EgressGateways that can't be read: the field, and what is wrong with it, by name.
    pub unreadable_gateways: BTreeMap<String, String>,
}

/// A StaticRoute that can't be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Name of the object.
    pub name: String,
    /// The generation that can't be read.
    pub generation: i64,
    /// The field, and what is wrong with it.
    pub why: String,
    /// Whether its last good version is known. If not, this agent can't tell which routes in the kernel are its.
    pub is_known: bool,
}

/// Reads the stores. `labels` are this node's, `None` when the API server never told; `previous` is what the last reading gave.
pub fn read<'a>(
    static_routes: impl IntoIterator<Item = &'a Guarded<StaticRoute>>,
    egress_gateways: impl IntoIterator<Item = &'a Guarded<EgressGateway>>,
    labels: Option<&Labels>,
    previous: &Objects,
) -> Objects {
    let static_routes: Vec<_> = static_routes.into_iter().collect();
    let egress_gateways: Vec<_> = egress_gateways.into_iter().collect();
    let mut objects = Objects::default();
    let mut hearing = Hearing::default();
    for guarded in &static_routes {
        let metadata = guarded.meta();
        // Deleted, and only held by somebody's finalizer (the older operator's, say): its routes go.
        if metadata.deletion_timestamp.is_some() {
            continue;
        }
        objects
            .present
            .insert(metadata.uid.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default());
        let selected = guarded.0.as_ref().map_err(|invalid| invalid.error.clone()).and_then(|route| {
            // Whose labels are not known has no address either, and then nothing is written to the kernel.
            let selected = labels.map_or(Ok(true), |labels| route.spec.selects(labels));
            let is_selected = selected.map_err(|invalid| invalid.to_string())?;
            if is_selected {
                route.spec.check().map_err(|contradiction| contradiction.to_string())?;
            }
            Ok(is_selected.then_some(route))
        });
        match selected {
            Ok(Some(route)) => {
                let followed = followed(route, &static_routes, &egress_gateways, previous);
                objects.add_route(route, followed, &mut hearing);
            }
            Ok(None) => {}
            Err(why) => objects.keep(metadata, why, previous),
        }
    }
    for guarded in &egress_gateways {
        match &guarded.0 {
            Ok(gateway) => {
                objects.add_candidates(gateway);
                hearing.egress_gateway(gateway);
            }
            Err(broken) => {
                let name = broken.metadata.name.clone().unwrap_or_default();
                objects.unreadable_gateways.insert(name, broken.error.clone());
            }
        }
    }
    objects.probed = hearing.probed();
    // Those of objects that can't be read any more are asked as they were.
    for gateway in
        objects.routes.iter().filter(|route| route.health_checked).flat_map(|route| &route.gateways)
    {
        let before = || previous.probed.get(gateway).cloned().unwrap_or_default();
        objects.probed.entry(*gateway).or_insert_with(before);
    }
    objects.sort();
    objects
}

fn on_no_gateway(asked: egress_api::OnNoGateway) -> OnNoGateway {
    match asked {
        egress_api::OnNoGateway::KeepLast => OnNoGateway::KeepLast,
        egress_api::OnNoGateway::FailClosed => OnNoGateway::FailClosed,
        egress_api::OnNoGateway::FailOpen => OnNoGateway::FailOpen,
    }
}

impl Objects {
    /// Whether the kernel may hold routes of an object that nobody could read since this agent started.
    pub fn may_hold_unknown_routes(&self) -> bool {
        self.unreadable.values().any(|object| !object.is_known)
    }

    /// Keeps the last good version of an object that can't be read.
    fn keep(&mut self, metadata: &ObjectMeta, why: String, previous: &Objects) {
        let name = metadata.name.clone().unwrap_or_default();
        let uid = metadata.uid.clone().unwrap_or_default();
        let generation = metadata.generation.unwrap_or_default();
        tracing::debug!(name, why, "StaticRoute can't be read");
        let known = previous.generations.get(&uid);
        if let Some(generation) = known {
            self.routes.extend(previous.routes.iter().filter(|route| route.uid == uid).cloned());
            self.generations.insert(uid.clone(), *generation);
        }
        self.unreadable.insert(uid, Unreadable { name, generation, why, is_known: known.is_some() });
    }

    /// Fills in from the kernel what an agent that was started without its EgressGateway can't know.
    pub fn recover(&mut self, observed: &Observed, layout: &Layout) {
        for route in &mut self.routes {
            let keeps = matches!(
                route.reference_fault,
                Some(ReferenceFault::Missing { .. } | ReferenceFault::NotReady { .. })
            );
            if keeps && route.gateways.is_empty() {
                route.gateways = gateways_of(route.destinations.keys(), observed, layout);
                for gateway in &route.gateways {
                    self.probed.entry(*gateway).or_default();
                }
            }
        }
    }

    /// The stores have no order; a plan must not depend on it.
    pub(crate) fn sort(&mut self) {
        self.routes.sort_by(|a, b| (a.created, &a.name, &a.uid).cmp(&(b.created, &b.name, &b.uid)));
    }

    fn add_route(&mut self, route: &StaticRoute, followed: Option<Followed>, hearing: &mut Hearing) {
        let uid = route.uid().unwrap_or_default();
        let (gateways, reference_fault) = match followed {
            None => (route.spec.ordered_gateways(), None),
            Some(Followed::List(list)) => (list, None),
            Some(Followed::Last(list, fault)) => (list, Some(fault)),
        };
        let destinations: Vec<&str> = route.spec.destinations.iter().map(|one| one.0.as_str()).collect();
        let excluded: Vec<&str> = route.spec.excluded_destinations.iter().map(|one| one.0.as_str()).collect();
        let addresses: Vec<&str> = gateways.iter().map(|one| one.address.0.as_str()).collect();
        let weights: Vec<i32> = gateways.iter().map(|one| one.weight.unwrap_or(1)).collect();
        let mut wanted = WantedRoute::parse(StaticRouteFields {
            name: &route.name_any(),
            uid: &uid,
            created: route.creation_timestamp().map_or(0, |time| time.0.as_second()),
            destinations: &destinations,
            excluded: &excluded,
            gateways: &addresses,
            health_checked: route.spec.is_health_checked(),
            reference_fault,
            weights: (route.spec.mode == RouteMode::ActiveActive).then_some(&weights),
            on_no_gateway: on_no_gateway(route.spec.on_no_gateway),
            drain_seconds: u32::try_from(route.spec.drain_seconds).unwrap_or(0),
        });
        let mut public = BTreeMap::new();
        for (index, gateway) in gateways.iter().enumerate() {
            let Some(egress) = &gateway.egress_address else { continue };
            match parse_egress_address(&format!("spec.gateways[{index}].egressAddress"), &egress.0) {
                Ok(address) => {
                    self.gateway_addresses.insert(address);
                    public.insert(gateway.address.0.as_str(), address);
                }
                // As with an address that can't be read: the entry does not count, the others do.
                Err(invalid) => {
                    wanted.gateways.retain(|address| address.to_string() != gateway.address.0);
                    wanted.invalid_gateways.push(invalid);
                }
            }
        }
        if wanted.health_checked {
            let with_public =
                |address: &Ipv4Addr| (*address, public.get(address.to_string().as_str()).copied());
            let listed: Vec<_> = wanted.gateways.iter().map(with_public).collect();
            hearing.list(&listed, route.spec.health_check.as_ref());
        }
        self.routes.push(wanted);
        let owners = route.metadata.owner_references.iter().flatten();
        if let Some(owner) = owners.into_iter().find(|owner| owner.kind == "EgressGateway") {
            self.owners.insert(uid.clone(), owner.uid.clone());
        }
        self.generations.insert(uid, route.metadata.generation.unwrap_or_default());
    }

    fn add_candidates(&mut self, gateway: &EgressGateway) {
        if gateway.metadata.deletion_timestamp.is_some() {
            self.leaving.extend(gateway.uid());
        }
        let status = gateway.status.as_ref().map(|status| status.gateways.as_slice()).unwrap_or_default();
        for one in status {
            let parse = |text: &Option<String>| text.as_ref()?.parse::<Ipv4Addr>().ok();
            self.gateway_addresses.extend(parse(&one.public_address));
        }
    }
}
