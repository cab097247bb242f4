//! StaticRoute: which destinations leave through which gateway addresses. Drop-in for the older StaticRoute operator.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Destination, EgressAddress, GatewayAddress, HealthCheck, InvalidSelector, NodeSelector};

/// Which destinations the nodes route through which gateway.
///
/// Exactly one of `gateway`, one address taken on trust, as the older StaticRoute operator had it, unless it has a `healthCheck`; `gateways`, an ordered
/// list that each node probes by itself, using the first that answers or, with `mode: ActiveActive`, all that do; and
/// `gatewayRef`, an EgressGateway whose list it is.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[kube(
    group = "networking.digitalocean.com",
    version = "v1",
    kind = "StaticRoute",
    plural = "staticroutes",
    shortname = "sr",
    category = "egress",
    status = "StaticRouteStatus",
    derive = "PartialEq",
    doc = "Destinations that the nodes of the cluster route through a gateway in the VPC.",
    printcolumn(
        name = "READY",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(
        name = "NODES",
        type_ = "string",
        json_path = ".status.nodes",
        description = "Nodes that have every route in their kernel / nodes that should"
    ),
    printcolumn(
        name = "DESTINATIONS",
        type_ = "string",
        json_path = ".spec.destinations",
        priority = "1",
        description = "What is routed"
    ),
    printcolumn(
        name = "GATEWAY",
        type_ = "string",
        json_path = ".spec['gateway','gateways','gatewayRef']",
        priority = "1",
        description = "Gateway, gateways in order, or the EgressGateway that has them"
    ),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("[has(self.gateway), has(self.gateways), has(self.gatewayRef)].filter(given, given).size() == 1").message("give exactly one of gateway (one address), gateways (an ordered list) and gatewayRef (an EgressGateway, whose list is followed)"),
    validation = Rule::new("!has(self.gateways) || self.gateways.size() > 0 || self.onNoGateway == 'FailClosed'").message("gateways is empty; list the gateways, or write onNoGateway: FailClosed to drop what is sent to destinations until there is one"),
    validation = Rule::new("self.onNoGateway == 'KeepLast' || !has(self.gateway) || has(self.healthCheck)").message("onNoGateway needs to know whether the gateway works; add healthCheck, or write gateways (a list) instead of gateway"),
    validation = Rule::new("self.mode != 'ActiveActive' || !has(self.gateway)").message("mode ActiveActive shares the traffic among several gateways; write gateways (a list) or gatewayRef instead of gateway, or leave mode out")
)]
pub struct StaticRouteSpec {
    /// What is routed: IPv4 addresses and prefixes, 1 to 10,000. `0.0.0.0/0` is all egress; what a node needs to live
    /// (its API server, metadata, DNS, VPC, pods, services) never goes through a gateway.
    #[schemars(length(min = 1, max = 10_000))]
    pub destinations: Vec<Destination>,

    /// What is left out of `destinations`, up to 1,000. It leaves the way it would without this object: another StaticRoute
    /// that lists it still routes it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1_000))]
    pub excluded_destinations: Vec<Destination>,

    /// Private address of the one gateway. Without `healthCheck` it is taken on trust: no probes, no failover.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<GatewayAddress>,

    /// Gateways in order of preference, 1 to 16, each once; none only with `onNoGateway: FailClosed`. Every node probes all of them and
    /// uses the first that works.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    #[x_kube(
        validation = Rule::new("self.all(one, self.exists_one(other, other.address == one.address))").message("an address is listed twice; list every gateway once")
    )]
    pub gateways: Option<Vec<Gateway>>,

    /// The nodes that route. Left out: every node. Followed as labels change; a node that is not selected has no routes and
    /// does not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<NodeSelector>,

    /// The EgressGateway whose proven gateways are used, in its order and as they change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway_ref: Option<GatewayRef>,

    /// How `gateways` are used: `ActiveStandby`, one at a time in their order, or `ActiveActive`, all that work share the traffic.
    #[serde(default)]
    pub mode: RouteMode,

    /// How gateways are watched. Left out: with the default thresholds, and without targets outside; the EgressGateway's own where
    /// `gatewayRef` names one. With `gateway`, left out means that it is not watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheck>,

    /// What happens to `destinations` while no gateway works.
    #[serde(default)]
    pub on_no_gateway: OnNoGateway,

    /// Seconds that open connections keep a gateway which a planned move leaves, at most: 0 to 3600, 300 when left out. One that was
    /// silent for a while moves before that. A gateway that fails is left at once.
    #[serde(default = "default_drain_seconds")]
    #[schemars(range(min = 0, max = 3_600))]
    pub drain_seconds: i32,
}

// Most connections are over by then; an hour is the most that a planned move waits for a few.
pub(crate) fn default_drain_seconds() -> i32 {
    300
}

/// What happens to what is routed while no gateway works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnNoGateway {
    /// It goes on being sent to the gateway that was used last, which may come back any moment. Nothing leaves with a node's own
    /// address.
    #[default]
    KeepLast,
    /// It is dropped, from the moment this object is on a node, whether a gateway was ever there or not. Nothing leaves with a node's
    /// own address.
    FailClosed,
    /// It leaves with the node's own address until a gateway works again. Open connections of pods break both times.
    FailOpen,
}

/// An EgressGateway by its name.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayRef {
    /// `metadata.name` of the EgressGateway.
    #[schemars(length(min = 1, max = 50))]
    #[x_kube(
        validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')").message("is no name of an EgressGateway; write its metadata.name: lower-case letters, digits, '-' and '.'")
    )]
    pub name: String,
}

/// How several gateways are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RouteMode {
    /// Every node uses the first of the list that answers.
    #[default]
    ActiveStandby,
    /// Every node spreads its connections over all that answer, by their weights. The outside sees several addresses.
    ActiveActive,
}

/// One gateway of a StaticRoute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Gateway {
    /// Private address in the nodes' VPC.
    pub address: GatewayAddress,

    /// Public address that the outside sees behind this gateway, when it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress_address: Option<EgressAddress>,

    /// Share of the traffic against the other gateways with `mode: ActiveActive`, 1 to 256, 1 when left out. Without that mode it
    /// is not looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 256))]
    pub weight: Option<i32>,
}

/// What became of a StaticRoute, summed up by the controller from every node's report.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StaticRouteStatus {
    /// Generation of the spec that the rest of the status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// `Ready`: every node that should have the routes has them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,

    /// `applied/total` over the nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<String>,

    /// Nodes that have every route of this object in their kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes_applied: Option<i32>,

    /// Nodes that should have them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes_total: Option<i32>,

    /// Reports of nodes that are not alive: they are not counted, and go with their nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes_stale: Option<i32>,

    /// The first few of these nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5), extend("x-kubernetes-list-type" = "atomic"))]
    pub stale_nodes: Vec<StaleNode>,
}

/// A node whose last report is not to be relied on any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StaleNode {
    /// Its name.
    pub name: String,

    /// Why its report is old.
    pub reason: StaleReason,
}

/// Why a node's report is old.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StaleReason {
    /// The node is not Ready; its kernel may still route.
    NotReady,
    /// There is no such node any more.
    NodeGone,
}

impl std::fmt::Display for StaleReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NotReady => "NotReady",
            Self::NodeGone => "NodeGone",
        })
    }
}

/// Fields that contradict each other; the API server refuses them, but the object may be older than that rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Contradiction {
    /// Nothing is routed.
    #[error("spec.destinations: is empty; list what is to be routed, or delete the StaticRoute")]
    NoDestination,
    /// The list has no gateway.
    #[error(
        "spec.gateways: is empty; list the gateways, write onNoGateway: FailClosed, or delete the StaticRoute"
    )]
    NoGateway,
    /// Nobody looks whether the gateway works.
    #[error("spec.onNoGateway: nobody knows whether the gateway works; add healthCheck, or write gateways")]
    NotWatched,
    /// No way, or more than one, is given.
    #[error("spec: give exactly one of gateway, gateways and gatewayRef; there are {given}")]
    Gateways {
        /// How many of the three there are.
        given: usize,
    },
    /// One gateway can't share.
    #[error(
        "spec.mode: ActiveActive shares the traffic among several gateways; write gateways or gatewayRef instead of gateway"
    )]
    SharedByOne,
}

impl StaticRouteSpec {
    /// Whether the fields go together. What is wrong within one of them is no matter of this.
    pub fn check(&self) -> Result<(), Contradiction> {
        let given = [self.gateway.is_some(), self.gateways.is_some(), self.gateway_ref.is_some()];
        let given = given.into_iter().filter(|given| *given).count();
        if self.destinations.is_empty() {
            return Err(Contradiction::NoDestination);
        }
        if given != 1 {
            return Err(Contradiction::Gateways { given });
        }
        if self.gateways.as_ref().is_some_and(Vec::is_empty) && self.on_no_gateway != OnNoGateway::FailClosed
        {
            return Err(Contradiction::NoGateway);
        }
        if self.on_no_gateway != OnNoGateway::KeepLast && !self.is_health_checked() {
            return Err(Contradiction::NotWatched);
        }
        if self.gateway.is_some() && self.mode == RouteMode::ActiveActive {
            return Err(Contradiction::SharedByOne);
        }
        Ok(())
    }

    /// The gateways in order; the bare `gateway` is a list of one. Empty where an EgressGateway has the list.
    pub fn ordered_gateways(&self) -> Vec<Gateway> {
        match (&self.gateway, &self.gateways) {
            (Some(address), _) => {
                vec![Gateway { address: address.clone(), egress_address: None, weight: None }]
            }
            (None, Some(list)) => list.clone(),
            (None, None) => Vec::new(),
        }
    }

    /// Whether a node with these labels should have the routes.
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> Result<bool, InvalidSelector> {
        self.node_selector.as_ref().map_or(Ok(true), |selector| selector.selects(labels))
    }

    /// Whether nodes probe the gateways and choose among them. A bare `gateway` is a static route, as it always was.
    pub fn is_health_checked(&self) -> bool {
        self.gateway.is_none() || self.health_check.is_some()
    }
}
