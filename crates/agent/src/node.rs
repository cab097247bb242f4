//! From what the kernel and the API server say of this node to what the plan takes: pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use egress_netlink::reading::{Interface, MainRoute};
use egress_routing::kernel_state::Gateway;
use egress_routing::{NodeView, Protected, ProtectedReason, Uncertainty, VpcInterface};
use ipnet::Ipv4Net;

use crate::api_server::ApiServer;
use crate::cluster_node::{ClusterNode, EXTERNAL, INTERNAL};
use crate::objects::Objects;
use crate::surroundings::Surroundings;

/// `RTN_UNICAST`.
const UNICAST: u8 = 1;
/// Kinds of routes that answer: `RTN_UNICAST`, and those that drop, `RTN_BLACKHOLE`, `RTN_UNREACHABLE` and `RTN_PROHIBIT`. After a
/// `RTN_THROW` the lookup goes on.
const ANSWERS: [u8; 4] = [UNICAST, 6, 7, 8];

/// Everything that the view is made of.
#[derive(Clone, Copy, Debug)]
pub struct Sources<'a> {
    /// Name of this node.
    pub name: &'a str,
    /// The node's links.
    pub interfaces: &'a [Interface],
    /// The main table.
    pub main_routes: &'a [MainRoute],
    /// Every node of the cluster.
    pub nodes: &'a [&'a ClusterNode],
    /// Where the API server is, as far as it is known without asking for names.
    pub api_server: &'a ApiServer,
    /// Resolvers, names of the API server, protected names.
    pub surroundings: &'a Surroundings,
    /// Names that are to be protected.
    pub protected_names: &'a BTreeSet<String>,
    /// Those of them that this agent was started with: the cloud's API. The others are in the user's list.
    pub own_names: &'a BTreeSet<String>,
    /// Gateways to probe, and their public addresses.
    pub objects: &'a Objects,
    /// Ranges of pods, services, and the user's list.
    pub configured: &'a [(Ipv4Net, ProtectedReason)],
    /// Addresses that were protected when the agent started: they stay so until the surroundings are known.
    pub inherited: Option<&'a BTreeSet<Ipv4Net>>,
}

/// Sees the node. `previous` is what was seen last: while the VPC link is away, its last address counts on (`up: false`),
/// and while the API server has no InternalIP for this node (its Node is being made anew), the last one does.
pub fn view(sources: Sources<'_>, previous: Option<&NodeView>) -> NodeView {
    let vpc = vpc_interface(&sources, previous);
    let vpc_index = vpc.as_ref().map(|vpc| vpc.index);
    let default_route = default_route(sources.main_routes);
    let public_addresses = default_route
        .and_then(|route| sources.interfaces.iter().find(|link| Some(link.index) == route.interface))
        .filter(|link| Some(link.index) != vpc_index)
        .map(|link| link.addresses.clone())
        .unwrap_or_default();
    let main_routes = sources
        .main_routes
        .iter()
        .filter(|route| ANSWERS.contains(&route.kind) && route.destination.prefix_len() > 0)
        .map(|route| route.destination)
        .collect();
    let protected = protected(&sources, vpc.as_ref(), default_route.and_then(|route| route.gateway));
    let uncertain = uncertain(&sources, &protected);
    let candidates = sources.objects.probed.keys().copied().collect();
    let default_way = default_route.and_then(|route| {
        // Beyond the link's own subnet too, as some clouds have it.
        Some(Gateway { address: route.gateway?, interface: route.interface?, onlink: true })
    });
    NodeView {
        vpc,
        public_addresses,
        main_routes,
        main_origins: BTreeMap::new(),
        protected,
        uncertain,
        candidates,
        default_way,
        served: BTreeSet::new(),
    }
}

// Nothing may be opened before it is known what must stay shut.
fn uncertain(sources: &Sources<'_>, protected: &Protected) -> Option<Uncertainty> {
    let surroundings = sources.surroundings;
    let asked = |name: &String| surroundings.names.contains_key(name);
    if !surroundings.looked || !sources.protected_names.iter().all(asked) {
        return Some(Uncertainty::LookingAround);
    }
    let nameless = surroundings.api_server.iter().find(|(_, addresses)| addresses.is_empty());
    if let Some((name, _)) = nameless {
        return Some(Uncertainty::ApiServerName { name: name.clone() });
    }
    if surroundings.metadata_is_silent {
        return Some(Uncertainty::MetadataSilent);
    }
    // What a Service address or the node's own loopback stands for is somewhere else.
    let stands_for_itself = |address: &Ipv4Addr| {
        let own = Ipv4Net::from(*address);
        !protected.iter().any(|(range, why)| {
            range.contains(&own)
                && matches!(
                    why,
                    ProtectedReason::Services | ProtectedReason::Loopback | ProtectedReason::LinkLocal
                )
        })
    };
    let mut known = surroundings.api_server.values().flatten().chain(sources.api_server.addresses());
    if !known.any(stands_for_itself) {
        return Some(Uncertainty::NoApiServer);
    }
    let unanswered = |name: &&String| surroundings.names.get(*name).is_some_and(BTreeSet::is_empty);
    let waits_for = sources.own_names.iter().find(unanswered).filter(|_| !surroundings.waited)?;
    Some(Uncertainty::ProtectedName { name: waits_for.clone() })
}

fn default_route(routes: &[MainRoute]) -> Option<&MainRoute> {
    routes
        .iter()
        .filter(|route| route.kind == UNICAST && route.destination.prefix_len() == 0)
        .min_by_key(|route| route.metric)
}

// The node's InternalIP is its address in the VPC: that is how DOKS names its nodes, and it tells the interface whatever
// its name is.
fn vpc_interface(sources: &Sources<'_>, previous: Option<&NodeView>) -> Option<VpcInterface> {
    let mut internal: BTreeSet<Ipv4Addr> = sources
        .nodes
        .iter()
        .filter(|node| node.metadata.name.as_deref() == Some(sources.name))
        .flat_map(|node| node.addresses(&[INTERNAL]))
        .collect();
    if internal.is_empty() {
        internal.extend(previous.and_then(|previous| Some(previous.vpc.as_ref()?.address)));
    }
    let found = sources.interfaces.iter().find_map(|link| {
        let address = link.addresses.iter().find(|address| internal.contains(&address.addr()))?;
        Some(VpcInterface {
            index: link.index,
            up: link.up && link.running,
            address: address.addr(),
            subnet: address.trunc(),
        })
    });
    found.or_else(|| {
        let last = previous?.vpc.as_ref()?;
        Some(VpcInterface { up: false, ..last.clone() })
    })
}

fn protected(sources: &Sources<'_>, vpc: Option<&VpcInterface>, provider: Option<Ipv4Addr>) -> Protected {
    let mut protected = Protected::default();
    for node in sources.nodes {
        for address in node.addresses(&[INTERNAL, EXTERNAL]) {
            protected.insert_address(address, ProtectedReason::Node);
        }
        for range in node.pod_ranges() {
            protected.insert(range, ProtectedReason::Pods);
        }
    }
    for address in sources.surroundings.api_server.values().flatten().chain(sources.api_server.addresses()) {
        protected.insert_address(*address, ProtectedReason::ApiServer);
    }
    for resolver in &sources.surroundings.resolvers {
        protected.insert_address(*resolver, ProtectedReason::Resolver);
    }
    for (name, addresses) in &sources.surroundings.names {
        let is_own = sources.own_names.contains(name);
        let reason = if is_own { ProtectedReason::CloudApi } else { ProtectedReason::UserList };
        for address in addresses {
            protected.insert_address(*address, reason);
        }
    }
    for address in &sources.objects.gateway_addresses {
        protected.insert_address(*address, ProtectedReason::Gateway);
    }
    if let Some(vpc) = vpc {
        protected.insert(vpc.subnet, ProtectedReason::Vpc);
    }
    if let Some(provider) = provider {
        protected.insert_address(provider, ProtectedReason::OnLink);
    }
    for (range, reason) in sources.configured {
        protected.insert(*range, *reason);
    }
    for subnet in
        sources.interfaces.iter().flat_map(|link| &link.addresses).filter(|address| is_private(**address))
    {
        protected.insert(subnet.trunc(), ProtectedReason::OnLink);
    }
    for address in sources.inherited.into_iter().flatten() {
        protected.insert(*address, ProtectedReason::Inherited);
    }
    protected
}

// The anchor's range, bridges of containers: what the node is attached to beside VPC and public subnet. RFC 1918, RFC 6598.
fn is_private(subnet: Ipv4Net) -> bool {
    let address = subnet.addr();
    let shared = address.octets()[0] == 100 && address.octets()[1] & 0xc0 == 64;
    subnet.prefix_len() > 0 && (address.is_private() || shared)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fixture::link;

    fn route(destination: &str, interface: u32, gateway: Option<&str>) -> MainRoute {
        MainRoute {
            destination: destination.parse().unwrap(),
            gateway: gateway.map(|text| text.parse().unwrap()),
            interface: Some(interface),
            source: None,
            metric: 0,
            protocol: 2,
            kind: UNICAST,
        }
    }

    fn node(name: &str, internal: &str, external: &str) -> ClusterNode {
        serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {"podCIDRs": ["10.244.1.0/24"]},
            "status": {"addresses": [
                {"type": "InternalIP", "address": internal},
                {"type": "ExternalIP", "address": external},
                {"type": "Hostname", "address": name},
            ]},
        }))
        .unwrap()
    }

    fn see(interfaces: &[Interface], previous: Option<&NodeView>) -> NodeView {
        let nodes =
            [node("node-1", "10.116.0.2", "203.0.113.11"), node("node-2", "10.116.0.3", "203.0.113.12")];
        see_with(interfaces, previous, &nodes, &Surroundings::default(), None)
    }

    fn see_with(
        interfaces: &[Interface],
        previous: Option<&NodeView>,
        nodes: &[ClusterNode],
        surroundings: &Surroundings,
        inherited: Option<&BTreeSet<Ipv4Net>>,
    ) -> NodeView {
        let mut api_server = ApiServer::default();
        let slice =
            json!({"addressType": "IPv4", "metadata": {}, "endpoints": [{"addresses": ["198.51.100.10"]}]});
        api_server.see([&serde_json::from_value(slice).unwrap()], std::time::Instant::now());
        let sources = Sources {
            name: "node-1",
            interfaces,
            main_routes: &[
                route("0.0.0.0/0", 2, Some("203.0.113.1")),
                route("203.0.113.0/24", 2, None),
                route("10.116.0.0/20", 3, None),
            ],
            nodes: &nodes.iter().collect::<Vec<_>>(),
            api_server: &api_server,
            surroundings,
            protected_names: &BTreeSet::new(),
            own_names: &["api.digitalocean.com".to_owned()].into(),
            objects: &Objects::default(),
            configured: &[("10.245.0.0/16".parse().unwrap(), ProtectedReason::Services)],
            inherited,
        };
        view(sources, previous)
    }

    #[test]
    fn the_vpc_interface_is_the_one_with_the_internal_ip_whatever_its_name() {
        let links = [link(2, "ens3", "203.0.113.11/24"), link(3, "ens4", "10.116.0.2/20")];
        let seen = see(&links, None);
        let vpc = seen.vpc.unwrap();
        assert_eq!((vpc.index, vpc.up, vpc.address), (3, true, Ipv4Addr::new(10, 116, 0, 2)));
        assert_eq!(vpc.subnet, "10.116.0.0/20".parse().unwrap());
        assert_eq!(seen.public_addresses, ["203.0.113.11/24".parse::<Ipv4Net>().unwrap()]);
        assert_eq!(seen.main_routes.len(), 2);
    }

    #[test]
    fn an_interface_that_lost_its_address_is_down_and_not_forgotten() {
        let links = [link(2, "eth0", "203.0.113.11/24"), link(3, "eth1", "10.116.0.2/20")];
        let before = see(&links, None);
        let after = see(&links[..1], Some(&before)).vpc.unwrap();
        assert!(!after.up);
        assert_eq!(after.address, Ipv4Addr::new(10, 116, 0, 2));
    }

    #[test]
    fn a_node_that_the_api_server_has_forgotten_keeps_its_interface() {
        let links = [link(2, "eth0", "203.0.113.11/24"), link(3, "eth1", "10.116.0.2/20")];
        let before = see(&links, None);
        let after = see_with(&links, Some(&before), &[], &Surroundings::default(), None);
        assert_eq!(after.vpc, before.vpc);
    }

    #[test]
    fn while_the_metadata_service_is_silent_the_endpoints_are_not_enough() {
        let links = [link(2, "eth0", "203.0.113.11/24"), link(3, "eth1", "10.116.0.2/20")];
        let sure = Surroundings { looked: true, ..Surroundings::default() };
        assert_eq!(see_with(&links, None, &[], &sure, None).uncertain, None);
        let silent = Surroundings { metadata_is_silent: true, ..sure };
        assert!(silent.is_incomplete(), "what the kernel protects is not explained yet");
        let uncertain = see_with(&links, None, &[], &silent, None).uncertain;
        assert_eq!(uncertain, Some(Uncertainty::MetadataSilent));
    }

    #[test]
    fn the_clouds_api_is_waited_for_as_long_as_an_agent_is_new_and_a_name_of_the_users_is_not() {
        let links = [link(2, "eth0", "203.0.113.11/24"), link(3, "eth1", "10.116.0.2/20")];
        let unanswered = |name: &str| Surroundings {
            looked: true,
            names: [(name.to_owned(), BTreeSet::new())].into(),
            ..Surroundings::default()
        };
        let see = |surroundings: &Surroundings| see_with(&links, None, &[], surroundings, None).uncertain;
        let own = unanswered("api.digitalocean.com");
        let name = "api.digitalocean.com".to_owned();
        assert_eq!(see(&own), Some(Uncertainty::ProtectedName { name }));
        assert_eq!(see(&Surroundings { waited: true, ..own }), None, "then the condition tells");
        assert_eq!(see(&unanswered("registry.example.com")), None);
    }

    #[test]
    fn what_the_node_needs_to_live_is_protected() {
        let links = [link(2, "eth0", "203.0.113.11/24"), link(3, "eth1", "10.116.0.2/20")];
        let nodes =
            [node("node-1", "10.116.0.2", "203.0.113.11"), node("node-2", "10.116.0.3", "203.0.113.12")];
        let name = |name: &str, address: [u8; 4]| (name.to_owned(), [address.into()].into());
        let names =
            [name("api.digitalocean.com", [192, 0, 2, 5]), name("registry.example.com", [192, 0, 2, 6])];
        let surroundings = Surroundings { names: names.into(), ..Surroundings::default() };
        let seen = see_with(&links, None, &nodes, &surroundings, None);
        for (address, reason) in [
            ("198.51.100.10/32", ProtectedReason::ApiServer),
            ("203.0.113.12/32", ProtectedReason::Node),
            ("203.0.113.1/32", ProtectedReason::OnLink),
            ("10.116.3.3/32", ProtectedReason::Vpc),
            ("10.244.1.9/32", ProtectedReason::Pods),
            ("10.245.0.1/32", ProtectedReason::Services),
            ("169.254.169.254/32", ProtectedReason::LinkLocal),
            ("192.0.2.5/32", ProtectedReason::CloudApi),
            ("192.0.2.6/32", ProtectedReason::UserList),
        ] {
            let address: Ipv4Net = address.parse().unwrap();
            let found = seen.protected.iter().find(|(range, why)| range.contains(&address) && *why == reason);
            assert!(found.is_some(), "{address} is not protected as {reason}");
        }
    }
}
