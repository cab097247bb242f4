//! What never leaves through a gateway, as far as it can be known from outside the nodes.
//!
//! An agent protects what it finds on its node and in the API server. The second is found here in the same way; of the first, what the
//! objects tell. What is missing is said ([`Surroundings::blind`]), and where only the node knows, its report has the last word.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use egress_api::EgressGateway;
use egress_routing::prefix::parse_destination;
use egress_routing::{NodeView, Protected, ProtectedReason, VpcInterface};
use egress_runtime::kubernetes::{CallError, within_deadline};
use ipnet::Ipv4Net;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Node};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::api::ListParams;
use kube::{Api, Client};

use crate::view::View;

/// Name of the agent's DaemonSet and of its container.
const AGENT: &str = "egress-agent";
/// DigitalOcean's resolvers, which its metadata names on every Droplet.
const RESOLVERS: [Ipv4Addr; 2] = [Ipv4Addr::new(67, 207, 67, 2), Ipv4Addr::new(67, 207, 67, 3)];
/// The end of the name that DOKS gives an API server.
const DOKS: &str = ".k8s.ondigitalocean.com";
/// How long a name may take.
const LOOK_UP: Duration = Duration::from_secs(5);

/// What is protected on every node alike, and what could not be read.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// Ranges and addresses, the first reason of each.
    pub protected: Protected,
    /// What could not be read or looked up, as sentences.
    pub blind: Vec<String>,
}

/// The agent's flags that say what is protected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flags {
    protected: Vec<Ipv4Net>,
    protected_names: Vec<String>,
    pod_range: Ipv4Net,
    service_range: Ipv4Net,
    api_server_name: Option<String>,
    protected_list: String,
}

impl Flags {
    /// What these arguments say; `None` when they can't be read.
    pub fn parse(arguments: &[String]) -> Option<Self> {
        let mut given: BTreeMap<&str, String> = BTreeMap::new();
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            let Some(flag) = word.strip_prefix("--") else { continue };
            match flag.split_once('=') {
                Some((flag, value)) => given.insert(flag, value.to_owned()),
                None if flag == "remove-leftovers-of-older-operator" => continue,
                None => given.insert(flag, words.next()?.clone()),
            };
        }
        let value =
            |flag: &str, default: &str| given.get(flag).cloned().unwrap_or_else(|| default.to_owned());
        let list = |text: String| {
            text.split(',').filter(|one| !one.is_empty()).map(str::to_owned).collect::<Vec<_>>()
        };
        Some(Self {
            protected: list(value("protected", ""))
                .iter()
                .map(|one| one.parse().ok())
                .collect::<Option<_>>()?,
            protected_names: list(value("protected-names", "api.digitalocean.com,registry.digitalocean.com")),
            pod_range: value("pod-range", "10.244.0.0/16").parse().ok()?,
            service_range: value("service-range", "10.245.0.0/16").parse().ok()?,
            api_server_name: given
                .get("api-server-name")
                .map(|host| host.split(':').next().unwrap_or_default().to_owned()),
            protected_list: value("protected-list", "egress-protected"),
        })
    }
}

impl Surroundings {
    /// Finds out. `server` is the host of the API server as this program's configuration has it.
    pub async fn find(client: &Client, namespace: &str, server: Option<&str>, view: &View) -> Self {
        let mut found = Self::default();
        let flags = found.flags(client, namespace).await;
        found.take_nodes(view);
        found.take_gateways(view.gateways());
        found.api_server(client, flags.api_server_name.as_deref(), server).await;
        for resolver in RESOLVERS {
            found.protected.insert_address(resolver, ProtectedReason::Resolver);
        }
        found.insert_all(&flags.protected, ProtectedReason::UserList);
        found.protected.insert(flags.pod_range, ProtectedReason::Pods);
        found.protected.insert(flags.service_range, ProtectedReason::Services);
        found.services(client).await;
        found.look_up(&flags.protected_names, ProtectedReason::CloudApi).await;
        found.users_list(client, namespace, &flags.protected_list).await;
        found
    }

    async fn flags(&mut self, client: &Client, namespace: &str) -> Flags {
        let daemonsets: Api<DaemonSet> = Api::namespaced(client.clone(), namespace);
        let arguments = match within_deadline(daemonsets.get(AGENT)).await {
            Ok(daemonset) => {
                let pod = daemonset.spec.and_then(|spec| spec.template.spec).unwrap_or_default();
                let container = pod.containers.into_iter().find(|container| container.name == AGENT);
                container.and_then(|container| container.args).unwrap_or_default()
            }
            Err(error) => {
                self.cannot_read("the agents' DaemonSet, whose flags may protect more", &error);
                Vec::new()
            }
        };
        Flags::parse(&arguments).unwrap_or_else(|| {
            self.blind.push(
                "the flags of the agents' DaemonSet are not understood: they may protect more".to_owned(),
            );
            Flags::default()
        })
    }

    async fn services(&mut self, client: &Client) {
        let ranges: Api<ServiceCIDR> = Api::all(client.clone());
        match within_deadline(ranges.list(&ListParams::default())).await {
            Ok(listed) => {
                let cidrs = listed
                    .items
                    .iter()
                    .filter_map(|range| range.spec.as_ref())
                    .flat_map(|spec| spec.cidrs.iter().flatten());
                for range in cidrs.filter_map(|text| text.parse().ok()) {
                    self.protected.insert(range, ProtectedReason::Services);
                }
            }
            // Before Kubernetes 1.33 there are none, and the flag has the range.
            Err(error) if error.is_not_found() => {}
            Err(error) => self.cannot_read("ServiceCIDRs", &error),
        }
    }

    async fn users_list(&mut self, client: &Client, namespace: &str, list: &str) {
        let (namespace, name) = list.split_once('/').unwrap_or((namespace, list));
        if name.is_empty() {
            return;
        }
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
        match within_deadline(maps.get(name)).await {
            Ok(map) => {
                let (ranges, names) = listed(&map);
                self.insert_all(&ranges, ProtectedReason::UserList);
                self.look_up(&names, ProtectedReason::UserList).await;
            }
            Err(error) if error.is_not_found() => {}
            Err(error) => self
                .cannot_read(&format!("ConfigMap {namespace}/{name}, the list of what is protected"), &error),
        }
    }

    async fn api_server(&mut self, client: &Client, set: Option<&str>, server: Option<&str>) {
        let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), "default");
        let of_api_server = ListParams::default().labels("kubernetes.io/service-name=kubernetes");
        match within_deadline(slices.list(&of_api_server)).await {
            Ok(listed) => {
                let endpoints = listed
                    .items
                    .iter()
                    .flat_map(|slice| &slice.endpoints)
                    .flat_map(|endpoint| &endpoint.addresses);
                for address in endpoints.filter_map(|text| text.parse().ok()) {
                    self.protected.insert_address(address, ProtectedReason::ApiServer);
                }
            }
            Err(error) => self.cannot_read("the endpoints of the API server", &error),
        }
        // On DOKS this program and the nodes know it by the same name.
        let names: BTreeSet<String> =
            set.into_iter().chain(server.filter(|host| host.ends_with(DOKS))).map(str::to_owned).collect();
        self.look_up(&names.into_iter().collect::<Vec<_>>(), ProtectedReason::ApiServer).await;
    }

    async fn look_up(&mut self, names: &[String], reason: ProtectedReason) {
        let answers = futures::future::join_all(names.iter().map(|name| addresses(name))).await;
        for (name, answer) in names.iter().zip(answers) {
            match answer {
                Ok(found) => {
                    for address in found {
                        self.protected.insert_address(address, reason);
                    }
                }
                Err(error) => self.blind.push(format!(
                    "{name}, which is protected, has no address here ({error}): what it stands for may be protected all the same"
                )),
            }
        }
    }

    /// Takes what is protected because of nodes: their addresses and their pods.
    pub fn take_nodes(&mut self, view: &View) {
        for node in &view.nodes {
            for address in of(node, &["InternalIP", "ExternalIP"]) {
                self.protected.insert_address(address, ProtectedReason::Node);
            }
            let ranges = node.spec.iter().flat_map(|spec| spec.pod_cidrs.iter().flatten());
            for range in ranges.filter_map(|text| text.parse().ok()) {
                self.protected.insert(range, ProtectedReason::Pods);
            }
        }
    }

    /// Takes the public addresses of gateways: a way to one must not lead through another.
    pub fn take_gateways<'a>(&mut self, gateways: impl Iterator<Item = &'a EgressGateway>) {
        let machines = gateways.filter_map(|one| one.status.as_ref()).flat_map(|status| &status.gateways);
        for address in machines.filter_map(|one| one.public_address.as_ref()?.parse().ok()) {
            self.protected.insert_address(address, ProtectedReason::Gateway);
        }
    }

    fn insert_all(&mut self, ranges: &[Ipv4Net], reason: ProtectedReason) {
        for range in ranges {
            self.protected.insert(*range, reason);
        }
    }

    fn cannot_read(&mut self, what: &str, error: &CallError) {
        self.blind.push(format!(
            "{what} can't be read ({}): not all that is protected is known here",
            error.category()
        ));
    }
}

impl Default for Flags {
    fn default() -> Self {
        let range = |a, b| Ipv4Net::new_assert(Ipv4Addr::new(a, b, 0, 0), 16);
        Self {
            protected: Vec::new(),
            protected_names: Vec::new(),
            pod_range: range(10, 244),
            service_range: range(10, 245),
            api_server_name: None,
            protected_list: "egress-protected".to_owned(),
        }
    }
}

// As the agent reads it; what is wrong with it, the agent's report says.
fn listed(map: &ConfigMap) -> (Vec<Ipv4Net>, Vec<String>) {
    let lines = |key: &str| -> Vec<String> {
        let text = map.data.as_ref().and_then(|data| data.get(key)).map(String::as_str).unwrap_or_default();
        let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
        lines.filter(|line| !line.is_empty()).map(str::to_owned).collect()
    };
    let ranges = lines("ranges").iter().filter_map(|line| parse_destination("ranges", line).ok()).collect();
    let name = |line: String| line.trim_end_matches('.').to_ascii_lowercase();
    let names = lines("names").into_iter().map(name).filter(|name| name.contains('.') && !name.contains('*'));
    (ranges, names.filter(|name| name.parse::<IpAddr>().is_err()).take(50).collect())
}

/// The IPv4 addresses of a name, as this machine's resolver has them.
pub async fn addresses(name: &str) -> Result<BTreeSet<Ipv4Addr>, String> {
    let answer = tokio::time::timeout(LOOK_UP, tokio::net::lookup_host((name, 443))).await;
    let answer =
        answer.map_err(|_| "the resolver does not answer".to_owned())?.map_err(|error| error.to_string())?;
    let found: BTreeSet<Ipv4Addr> = answer
        .filter_map(|address| match address.ip() {
            IpAddr::V4(v4) => Some(v4),
            IpAddr::V6(_) => None,
        })
        .collect();
    if found.is_empty() { Err("it has no IPv4 address".to_owned()) } else { Ok(found) }
}

/// A node's addresses of these types.
pub fn of(node: &Node, types: &[&str]) -> Vec<Ipv4Addr> {
    let listed = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
    let listed = listed.filter(|address| types.contains(&address.type_.as_str()));
    listed.filter_map(|address| address.address.parse().ok()).collect()
}

/// The node as its agent sees it, as far as objects tell. `near` are addresses that are known to be in its VPC.
pub fn node_view(node: &Node, surroundings: &Surroundings, near: &[Ipv4Addr]) -> NodeView {
    let mut protected = surroundings.protected.clone();
    let vpc = of(node, &["InternalIP"]).first().map(|address| {
        let known =
            near.iter().copied().filter(|one| one.octets()[..2] == address.octets()[..2]).chain([*address]);
        if let Some(range) = around(known) {
            protected.insert(range, ProtectedReason::Vpc);
        }
        // Whether a gateway is on the link, only the node knows, and it reports those that it can't use.
        let subnet = Ipv4Net::from(*address);
        let subnet = Ipv4Net::new(subnet.addr(), 8).map_or(subnet, |wide| wide.trunc());
        VpcInterface { index: 1, up: true, address: *address, subnet }
    });
    NodeView { vpc, protected, ..NodeView::default() }
}

/// The smallest range with all of them in it.
fn around(addresses: impl Iterator<Item = Ipv4Addr>) -> Option<Ipv4Net> {
    let all: Vec<Ipv4Addr> = addresses.collect();
    let first = *all.first()?;
    let holds = |range: &Ipv4Net| all.iter().all(|one| range.contains(one));
    (0..=32).rev().filter_map(|length| Some(Ipv4Net::new(first, length).ok()?.trunc())).find(holds)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use egress_agent::protected_list::ProtectedList;
    use egress_agent::settings::Settings;
    use serde_json::json;

    use super::*;

    fn flags(arguments: &[&str]) -> Option<Flags> {
        Flags::parse(&arguments.iter().map(|&one| one.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn the_flags_mean_what_they_mean_to_the_agent() {
        for arguments in [
            &["--node-name=$(NODE_NAME)", "--namespace=egress-gateway"][..],
            &["--node-name", "n", "--protected=192.0.2.0/24,198.51.100.0/24", "--pod-range", "10.100.0.0/16"],
            &[
                "--node-name=n",
                "--remove-leftovers-of-older-operator",
                "--api-server-name=api.example.com:6443",
            ],
            &[
                "--node-name=n",
                "--protected-names=a.example,b.example",
                "--service-range=10.9.0.0/16",
                "--protected-list=",
            ],
        ] {
            let agents = Settings::parse_from([&["egress-agent"], arguments].concat());
            let ours = flags(arguments).unwrap();
            assert_eq!(ours.protected, agents.protected, "{arguments:?}");
            assert_eq!(ours.protected_names, agents.protected_names, "{arguments:?}");
            assert_eq!((ours.pod_range, ours.service_range), (agents.pod_range, agents.service_range));
            assert_eq!(ours.api_server_name, agents.api_server_name.map(|host| host.name));
            assert_eq!(ours.protected_list, agents.protected_list);
        }
        assert_eq!(flags(&["--pod-range=nonsense"]), None);
    }

    #[test]
    fn the_users_list_means_what_it_means_to_the_agent() {
        let text = "# ours\n203.0.113.0/24 # office\n198.51.100.7\nnonsense\n10.0.0.1/8\n";
        let names = "Vault.example.com.\n*.example.com\nvault\n10.0.0.1\n";
        let map: ConfigMap =
            serde_json::from_value(json!({"data": {"ranges": text, "names": names}})).unwrap();
        let agents = ProtectedList::read(Some(&map));
        let (ranges, names) = listed(&map);
        assert_eq!(ranges.into_iter().collect::<BTreeSet<_>>(), agents.ranges);
        assert_eq!(names.into_iter().collect::<BTreeSet<_>>(), agents.names);
    }

    #[test]
    fn the_vpc_is_at_least_what_lies_between_what_is_known_to_be_in_it() {
        let ip = |text: &str| text.parse().unwrap();
        let range = |all: &[&str]| around(all.iter().map(|one| ip(one))).unwrap().to_string();
        assert_eq!(range(&["10.116.0.2"]), "10.116.0.2/32");
        assert_eq!(range(&["10.116.0.2", "10.116.0.101"]), "10.116.0.0/25");
    }
}
