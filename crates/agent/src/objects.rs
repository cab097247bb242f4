//! From API objects to what the plan takes: pure.
//!
//! An object that can't be read keeps its last good version, and the report says why: bad input never costs anybody their
//! routes. What a field's own text gets wrong (a destination, a gateway) is no matter of reading: it costs that entry only.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use egress_api::{EgressGateway, Gateway, GatewayAddress, RouteMode, StaticRoute};
use egress_routing::kernel_state::Observed;
use egress_routing::prefix::parse_egress_address;
use egress_routing::recovery::gateways_of;
use egress_routing::wanted::{StaticRouteFields, WantedRoute};
use egress_routing::{Layout, OnNoGateway, ReferenceFault};
use egress_runtime::guarded::Guarded;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, ResourceExt};

use probed::Hearing;
pub use probed::{Check, Probed};

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
    /// EgressGateways that are being deleted, by uid.
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

/// What an EgressGateway gives a StaticRoute that names it.
enum Followed {
    /// Its proven gateways, in order.
    List(Vec<Gateway>),
    /// None, and what was used last.
    Last(Vec<Gateway>, ReferenceFault),
}

/// The list that a StaticRoute follows; `None` when it names no EgressGateway.
///
/// The list is that of the EgressGateway's own StaticRoute: ordered, proven, and never made empty while there is hope.
fn followed(
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

mod probed;

#[cfg(test)]
mod arbitrary;

#[cfg(test)]
mod tests {
    use egress_api::{EgressGatewayStatus, GatewayRole, GatewayStatus};
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
        let objects = read(&stores, [], None, &Objects::default());
        assert_eq!(objects.routes.len(), 2);
        assert_eq!(objects.probed.keys().collect::<Vec<_>>(), [&Ipv4Addr::new(10, 116, 0, 7)]);
        assert!(objects.gateway_addresses.contains(&Ipv4Addr::new(203, 0, 113, 7)));
        assert_eq!(objects.generations["uid-old"], 3);
    }

    #[test]
    fn only_active_active_shares_and_a_weight_left_out_is_one() {
        let gateways = json!([{"address": "10.116.0.7", "weight": 3}, {"address": "10.116.0.8"}]);
        let mut active = old_shape("active");
        active["spec"] =
            json!({"destinations": ["192.0.2.0/24"], "gateways": gateways, "mode": "ActiveActive"});
        let mut standby = old_shape("standby");
        standby["spec"] = json!({"destinations": ["192.0.2.0/24"], "gateways": gateways});
        let objects = read(&[static_route(active), static_route(standby)], [], None, &Objects::default());
        let (a, b) = (Ipv4Addr::new(10, 116, 0, 7), Ipv4Addr::new(10, 116, 0, 8));
        assert_eq!(objects.routes[0].weights, Some([(a, 3), (b, 1)].into()));
        assert_eq!(objects.routes[1].weights, None);
    }

    #[test]
    fn an_unreadable_object_keeps_its_last_good_version() {
        let good = read(&[static_route(old_shape("old"))], [], None, &Objects::default());
        let mut broken = old_shape("old");
        broken["spec"]["destinations"] = json!("not a list");
        broken["metadata"]["generation"] = json!(4);
        let after = read(&[static_route(broken.clone())], [], None, &good);
        assert_eq!(after.routes, good.routes);
        assert_eq!(after.generations["uid-old"], 3, "the one whose routes are there");
        let unreadable = &after.unreadable["uid-old"];
        assert_eq!((unreadable.generation, unreadable.is_known), (4, true));
        assert_eq!(
            unreadable.why,
            "spec.destinations: invalid type: string \"not a list\", expected a sequence"
        );
        assert!(!after.may_hold_unknown_routes());

        // An agent that starts with it knows no good version: whose routes are in the kernel can't be told.
        let fresh = read(&[static_route(broken.clone())], [], None, &Objects::default());
        assert!(fresh.routes.is_empty() && fresh.may_hold_unknown_routes());

        broken["metadata"]["deletionTimestamp"] = json!("2026-11-21T00:00:00Z");
        let deleted = read(&[static_route(broken)], [], None, &good);
        assert!(deleted.routes.is_empty() && deleted.unreadable.is_empty());
    }

    #[test]
    fn only_objects_that_select_this_node_are_wanted() {
        let selecting = |name: &str, selector: serde_json::Value| {
            let mut object = old_shape(name);
            object["spec"]["nodeSelector"] = selector;
            static_route(object)
        };
        let stores = [
            selecting("all", json!({})),
            selecting("ours", json!({"matchLabels": {"pool": "web"}})),
            selecting(
                "theirs",
                json!({"matchExpressions": [{"key": "pool", "operator": "NotIn", "values": ["web"]}]}),
            ),
            selecting("void", json!({"matchExpressions": [{"key": "pool", "operator": "In"}]})),
        ];
        let names = |labels: Option<&Labels>| {
            let objects = read(&stores, [], labels, &Objects::default());
            let names = objects.routes.iter().map(|route| route.name.clone()).collect::<Vec<_>>();
            (
                names.join(" "),
                objects.unreadable.into_values().map(|one| one.why).collect::<Vec<_>>().join(" "),
            )
        };
        let void = "spec.nodeSelector.matchExpressions[0]: In on 'pool' needs values";
        let web = Labels::from([("pool".to_owned(), "web".to_owned())]);
        assert_eq!(names(Some(&web)), ("all ours".to_owned(), void.to_owned()));
        assert_eq!(names(Some(&Labels::new())), ("all theirs".to_owned(), void.to_owned()));
        // Without a Node there is no address either, so nothing of this reaches the kernel.
        assert_eq!(names(None), ("all ours theirs void".to_owned(), String::new()));
    }

    #[test]
    fn a_deleted_object_is_not_wanted_whoever_holds_it() {
        let mut held = old_shape("old");
        held["metadata"]["deletionTimestamp"] = json!("2026-11-21T00:00:00Z");
        assert!(read(&[static_route(held)], [], None, &Objects::default()).routes.is_empty());
    }

    fn following(name: &str) -> serde_json::Value {
        json!({
            "apiVersion": "networking.digitalocean.com/v1", "kind": "StaticRoute",
            "metadata": {"name": "follower", "uid": "uid-follower", "generation": 1},
            "spec": {"destinations": ["192.0.2.0/24"], "gatewayRef": {"name": name}},
        })
    }

    fn egress_gateway(name: &str, deleted: bool) -> Guarded<EgressGateway> {
        let mut object = json!({
            "apiVersion": "networking.digitalocean.com/v1alpha1", "kind": "EgressGateway",
            "metadata": {"name": name, "uid": format!("uid-{name}")},
            "spec": {"destinations": ["192.0.2.80"], "publicIP": "Ephemeral"},
        });
        if deleted {
            object["metadata"]["deletionTimestamp"] = json!("2026-11-21T00:00:00Z");
        }
        serde_json::from_value(object).unwrap()
    }

    fn list_of(name: &str, addresses: &[&str]) -> Guarded<StaticRoute> {
        let gateways: Vec<_> = addresses.iter().map(|address| json!({"address": address})).collect();
        let mut object = old_shape(name);
        object["metadata"]["ownerReferences"] = json!([{"apiVersion": "networking.digitalocean.com/v1alpha1",
            "kind": "EgressGateway", "name": name, "uid": format!("uid-{name}"), "controller": true}]);
        object["spec"] = json!({"destinations": ["192.0.2.80"], "gateways": gateways});
        static_route(object)
    }

    fn follower(objects: &Objects) -> &WantedRoute {
        objects.routes.iter().find(|route| route.name == "follower").unwrap()
    }

    #[test]
    fn a_reference_follows_the_list_of_its_egress_gateway_as_it_changes() {
        let demo = [egress_gateway("demo", false)];
        let stores = |list: &[&str]| [static_route(following("demo")), list_of("demo", list)];
        let first = read(&stores(&["10.116.0.7", "10.116.0.5"]), &demo, None, &Objects::default());
        let list = ["10.116.0.7", "10.116.0.5"].map(|text| text.parse::<Ipv4Addr>().unwrap());
        assert_eq!(follower(&first).gateways, list);
        assert!(follower(&first).health_checked && follower(&first).reference_fault.is_none());
        let second = read(&stores(&["10.116.0.5"]), &demo, None, &first);
        assert_eq!(follower(&second).gateways, list[1..]);
        // Somebody else's StaticRoute of that name is no list of it.
        let foreign = [static_route(following("demo")), static_route(old_shape("demo"))];
        let third = read(&foreign, &demo, None, &second);
        assert_eq!(follower(&third).gateways, list[1..], "the last list stays");
        assert_eq!(follower(&third).reference_fault.as_ref().unwrap().reason(), "EgressGatewayNotReady");
    }

    #[test]
    fn a_reference_to_nothing_keeps_what_there_was_unless_it_was_seen_to_be_deleted() {
        let stores = [static_route(following("demo")), list_of("demo", &["10.116.0.7"])];
        let before = read(&stores, &[egress_gateway("demo", false)], None, &Objects::default());
        // A slip of the pen.
        let slip = read(&[static_route(following("dmeo"))], &[egress_gateway("demo", false)], None, &before);
        assert_eq!(follower(&slip).gateways, follower(&before).gateways);
        assert_eq!(
            follower(&slip).reference_fault.as_ref().unwrap().to_string(),
            "EgressGateway dmeo does not exist; make it, or correct spec.gatewayRef.name"
        );
        // Gone from the store without a word, as when its definition was deleted: no confirmed delete.
        let gone = read(&stores[..1], [], None, &before);
        assert_eq!(follower(&gone).reference_fault.as_ref().unwrap().reason(), "EgressGatewayMissing");
        // Being deleted, and gone afterwards.
        let leaving = read(&stores[..1], &[egress_gateway("demo", true)], None, &before);
        assert_eq!(follower(&leaving).reference_fault.as_ref().unwrap().reason(), "EgressGatewayDeleted");
        let left = read(&stores[..1], [], None, &leaving);
        assert_eq!(follower(&left).reference_fault.as_ref().unwrap().reason(), "EgressGatewayDeleted");
        assert!(follower(&left).gateways.is_empty());
        // Made again.
        let again = read(&stores, &[egress_gateway("demo", false)], None, &left);
        assert_eq!(follower(&again).reference_fault, None);
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
                power_cycled: None,
                power_cycle_accepted: None,
                nodes: 0,
                admits: Vec::new(),
            }],
            ..EgressGatewayStatus::default()
        });
        let objects = read([], &[Guarded(Ok(gateway))], None, &Objects::default());
        let targets = &objects.probed[&Ipv4Addr::new(10, 116, 0, 100)];
        assert_eq!(targets.targets.len(), 3);
        assert!(objects.routes.is_empty());
    }
}
