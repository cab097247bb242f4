//! What was seen before a step: everything that [`crate::decide`] may know.
//!
//! Values only. Each part says how far it may be trusted; what could not be read is said, never guessed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use egress_api::{Definition, EgressGateway, NodeEgressStatus, NodeSelector, StaticRoute};
use egress_digitalocean::{Droplet, DropletId, Firewall, ReservedIp};
use ipnet::Ipv4Net;
use jiff::Timestamp;

use crate::catalogue::Offer;
use crate::user_data::UserData;

/// Kind of the nodes' reports.
pub const NODE_EGRESS: &str = "NodeEgress";

/// Kind of the lists of gateways that nodes follow.
pub const STATIC_ROUTE: &str = "StaticRoute";

/// One look at the world for one EgressGateway.
#[derive(Clone, Debug)]
pub struct Observation {
    /// The object, by a read that the API server's quorum confirms.
    pub gateway: EgressGateway,
    /// Uid of namespace `kube-system`.
    pub cluster: String,
    /// The StaticRoute of the same name.
    pub route: Option<StaticRoute>,
    /// StaticRoutes that follow this EgressGateway's list by `spec.gatewayRef`, by name.
    pub followers: Vec<Follower>,
    /// Every node there is.
    pub nodes: Vec<NodeSeen>,
    /// The definition of EgressGateways. Looked for in deletions only, after the object was read.
    pub definition: Option<Definition>,
    /// Kinds whose definition is gone, as far as that matters: none of their objects can be read. Looked for in deletions only.
    pub undefined: Vec<&'static str>,
    /// The cloud, or why it could not be read.
    pub cloud: Result<CloudSeen, Trouble>,
    /// Droplets whose delete the cloud has accepted, and when, as far as this process remembers.
    pub delete_accepted: BTreeMap<DropletId, Timestamp>,
    /// The cloud's firewalls, or why they could not be read. Gateways do without.
    pub firewalls: Result<FirewallsSeen, Trouble>,
    /// The cloud's reserved addresses, or why they could not be read.
    pub reserved_ips: Result<ReservedIpsSeen, Trouble>,
    /// What each gateway's own endpoint answers, by Droplet.
    pub health: BTreeMap<DropletId, HealthSeen>,
    /// Since when an endpoint has not said that it is ready, without interruption, as far as this process remembers.
    pub failing_since: BTreeMap<DropletId, Timestamp>,
    /// Where Droplets must go and what they are given, or why that is not known.
    pub site: Result<Site, Trouble>,
    /// Whether the cloud has what is asked for, and for how much.
    pub offer: Offer,
    /// Why the last effect failed, as far as this process remembers; gone with the next effect that succeeds.
    pub failure: Option<Trouble>,
}

/// A StaticRoute of a user that follows the list of an EgressGateway.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Follower {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

/// A node and its agent's report.
#[derive(Clone, Debug, Default)]
pub struct NodeSeen {
    /// Its name.
    pub name: String,
    /// Its `Ready` condition: dead nodes block nothing.
    pub live: bool,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its Droplet.
    pub droplet: Option<DropletId>,
    /// Whether the agent's pod on it is Ready; `None` while that cannot be read.
    pub agent_ready: Option<bool>,
    /// Its NodeEgress.
    pub report: Option<NodeEgressStatus>,
    /// When this process saw what the report says of gateways change last, be it that a verdict was renewed. `None`: never yet,
    /// and nobody knows how old it is.
    pub heard: Option<Timestamp>,
}

/// The Droplets that matter.
#[derive(Clone, Debug)]
pub struct CloudSeen {
    /// When the reading of the list began: it tells nothing of what happened later.
    pub taken: Timestamp,
    /// Droplets with our cluster's tag, those found under the name of an intent, and those that people have named.
    pub droplets: BTreeMap<DropletId, Droplet>,
    /// Droplets that `spec.existingDroplets` names and a read by id did not find.
    pub missing: BTreeSet<DropletId>,
    /// How many Droplets carry our cluster's tag, of all EgressGateways.
    pub fleet: usize,
    /// Recorded Droplets that a read by id did not find, while the list came and showed that the token sees this account.
    pub gone: BTreeSet<DropletId>,
    /// Names of intents that were looked up by name, after the status was read.
    pub looked_up: BTreeSet<String>,
}

/// The firewalls that matter.
#[derive(Clone, Debug)]
pub struct FirewallsSeen {
    /// When the reading of the list began.
    pub taken: Timestamp,
    /// Recorded ones and those with our name, by id. A recorded one that is missing was asked for by id too, while the token showed
    /// that it sees this account.
    pub firewalls: Vec<Firewall>,
}

/// The reserved addresses that matter.
#[derive(Clone, Debug)]
pub struct ReservedIpsSeen {
    /// When the reading of the list began.
    pub taken: Timestamp,
    /// Those that are recorded, that the user gives, or that a Droplet of ours holds. A recorded one that is missing was asked for
    /// by itself too, while the token showed that it sees this account.
    pub addresses: Vec<ReservedIp>,
}

/// Why something is not known or not possible, for a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// One CamelCase word.
    pub reason: &'static str,
    /// A sentence with the way out.
    pub message: String,
}

/// Where Droplets go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// Region slug.
    pub region: String,
    /// VPC of the cluster's nodes.
    pub vpc: String,
    /// Ranges that gateways serve there: the VPC's, and those of pods that keep their own addresses in it.
    pub sources: Vec<Ipv4Net>,
    /// User data of a gateway there.
    pub user_data: UserData,
}

/// What a gateway's health endpoint says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HealthSeen {
    /// Forwarding and translation are in place.
    Ready {
        /// Version of the user data it runs.
        version: Option<String>,
        /// The address it leaves with, as it knows it.
        public_address: Option<Ipv4Addr>,
        /// Public addresses that may probe its public side; `None` if it does not say.
        peers: Option<BTreeSet<Ipv4Addr>>,
    },
    /// All is in place but its reserved address, without which it forwards nothing.
    Awaiting {
        /// Version of the user data it runs.
        version: Option<String>,
    },
    /// It answers, and says why it is not ready.
    NotReady(String),
    /// It did not answer in time.
    Silent(String),
}

/// Whether a node with these labels should have the routes of an object with this selector. One that says nothing selects
/// every node: what is not known to be unwanted must not be missing when all is said to be well.
pub fn is_to_route(selector: Option<&NodeSelector>, labels: Option<&BTreeMap<String, String>>) -> bool {
    let none = BTreeMap::new();
    let labels = labels.unwrap_or(&none);
    selector.is_none_or(|selector| selector.selects(labels).unwrap_or(true))
}

impl NodeSeen {
    /// Whether it is alive and should have the routes of an object with this selector.
    pub fn should_route(&self, selector: Option<&NodeSelector>) -> bool {
        self.live && is_to_route(selector, Some(&self.labels))
    }
}

impl Observation {
    /// Whether it is being deleted because its definition is: nobody is known to want it gone.
    pub fn goes_with_its_definition(&self) -> bool {
        self.definition.as_ref().is_some_and(|definition| definition.takes_along(&self.gateway.metadata))
    }

    /// How many live nodes should have the routes and have no Ready agent, as far as that can be read.
    pub fn nodes_without_agent(&self) -> usize {
        let selector = self.gateway.spec.node_selector.as_ref();
        self.nodes
            .iter()
            .filter(|node| node.should_route(selector) && node.agent_ready == Some(false))
            .count()
    }

    /// Droplets of the cluster's nodes: never to be touched.
    pub fn node_droplets(&self) -> BTreeSet<DropletId> {
        self.nodes.iter().filter_map(|node| node.droplet).collect()
    }

    /// Nodes whose `Ready` condition holds.
    pub fn live_nodes(&self) -> impl Iterator<Item = &NodeSeen> {
        self.nodes.iter().filter(|node| node.live)
    }

    /// Those of them whose agent is not known to be gone: what it said last holds.
    pub fn nodes_that_speak(&self) -> impl Iterator<Item = &NodeSeen> {
        self.live_nodes().filter(|node| node.agent_ready != Some(false))
    }
}
