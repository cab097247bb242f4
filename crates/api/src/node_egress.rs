//! NodeEgress: what one node has in its kernel and what it sees of each gateway. Written by that node's agent only.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// NodeEgress has no spec: it is a report.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "networking.digitalocean.com",
    version = "v1alpha1",
    kind = "NodeEgress",
    plural = "nodeegresses",
    shortname = "ne",
    category = "egress",
    status = "NodeEgressStatus",
    derive = "PartialEq",
    no_spec,
    doc = "What one node has in its kernel, per StaticRoute, and what it sees of each gateway. Written by the node's agent only; it carries the name of the node and is owned by it.",
    printcolumn(
        name = "ROUTES",
        type_ = "string",
        json_path = ".status.summary",
        description = "StaticRoutes applied / known to this node"
    ),
    printcolumn(
        name = "TROUBLE",
        type_ = "string",
        json_path = ".status.conditions[?(@.status==\"True\")].type",
        description = "The first thing that is wrong with the whole node; every one stands in status.conditions"
    ),
    printcolumn(name = "AGENT", type_ = "string", json_path = ".status.agentVersion", priority = "1"),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
pub struct NodeEgressFields {}

/// The report. Bounded: counts and the first few failures, never one entry per destination. Written only on change.
// `routes` and `gateways` are written whole, by the one agent whose they are: as lists by key, the API server would keep a
// record of owners larger than the entries themselves.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeEgressStatus {
    /// Version of the agent that wrote this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_version: Option<String>,

    /// `applied/known` StaticRoutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,

    /// What is wrong with the node as a whole, such as another program's rules in the way. `True` is trouble, and a condition
    /// that is not listed never was `True`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,

    /// One entry per StaticRoute that applies to this node, by name; at most 1,000.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000), extend("x-kubernetes-list-type" = "atomic"))]
    pub routes: Vec<NodeRoute>,

    /// One entry per gateway that this node probes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub gateways: Vec<GatewayObservation>,

    /// What others changed of this node's rules, routes and nexthop objects and the agent put right. Absent while that never
    /// happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repairs: Option<Repairs>,

    /// The kernel's id of this boot (`/proc/sys/kernel/random/boot_id`), as the Node has it in `status.nodeInfo.bootID`: a report of
    /// an earlier boot says nothing of the kernel as it is.
    #[serde(default, rename = "bootID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub boot_id: Option<String>,

    /// The node reaches neither a gateway nor a neighbour in the VPC: what it says of gateways is no vote.
    #[serde(default)]
    pub cut_off: bool,

    /// The last time that this node left a gateway because it did not work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failover: Option<NodeFailover>,
}

/// One move of a node away from a gateway that did not work.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeFailover {
    /// When the kernel had taken it.
    pub time: Time,

    /// Name of the StaticRoute; of several that moved together the first.
    pub static_route: String,

    /// Private address of the gateway that was left.
    pub from: String,

    /// Private address of the gateway that is used since.
    pub to: String,

    /// Why, in one word: `Unreachable`, `NotForwarding`, `UnexpectedSource`, `LosesLargePackets`, `LosesPackets`.
    pub reason: String,

    /// From the first probe that was not answered until the kernel had taken the move.
    #[schemars(range(min = 0))]
    pub seconds: f64,

    /// On what the decision was made, in a sentence.
    #[schemars(length(max = 1024))]
    pub evidence: String,
}

/// What the agent put right though nobody had asked for anything new.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Repairs {
    /// Rules, routes and nexthop objects put right since this report was made.
    pub count: u32,

    /// The last occasion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Repair>,
}

/// One occasion on which the agent put something right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Repair {
    /// When.
    pub time: Time,

    /// What was missing or wrong, such as `rules 1000, 1001, 2 routes in table 1157`.
    pub what: String,

    /// What had happened, where the kernel said it: to a link or an address, or which program did it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
}

impl NodeEgressStatus {
    /// StaticRoutes that a report has room for; the youngest are left out. etcd takes objects of 1.5 MiB.
    pub const MOST_ROUTES: usize = 1000;
}

/// What the node has of one StaticRoute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeRoute {
    /// Name of the StaticRoute.
    pub name: String,

    /// Its uid: a report about an object that was deleted and made again is no report about the new one.
    pub uid: String,

    /// Generation that was applied.
    pub observed_generation: i64,

    /// Whether all of it is in the kernel.
    pub state: NodeRouteState,

    /// Destinations that the kernel routes through the gateway, after duplicates were folded.
    pub applied: u32,

    /// Destinations that should be.
    pub total: u32,

    /// Private address of the gateway that is used now, with `ActiveStandby`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,

    /// Private addresses of the gateways that share the traffic now, with `ActiveActive`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub gateways: Vec<String>,

    /// Why not, in one word, when nothing of it is applied: `GatewayNotOnLink`, `NoVpcInterface`, `Invalid`, ...
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,

    /// Why not, in a sentence, when `state` is not `Applied`; else what is wrong all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,

    /// Whether a guard stands below every destination, so that none leaves with the node's own address whatever becomes of the
    /// gateways.
    #[serde(default)]
    pub guarded: bool,

    /// Whether no gateway works, so that what `onNoGateway` says is in force.
    #[serde(default)]
    pub no_gateway: bool,

    /// Private address of the gateway whose open connections still use it after a planned move.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draining: Option<String>,

    /// Gateways of the list that this node can't use, whatever their health; the first few.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5))]
    pub unusable_gateways: Vec<UnusableGateway>,

    /// The first few destinations that are not applied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5))]
    pub failures: Vec<RouteFailure>,
}

impl NodeRoute {
    /// Private addresses of all gateways that are used now, whatever the mode.
    pub fn gateways_in_use(&self) -> impl Iterator<Item = &String> {
        self.gateway.iter().chain(&self.gateways)
    }
}

/// How much of a StaticRoute is in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum NodeRouteState {
    /// All of it.
    Applied,
    /// Some destinations are not; see `failures`.
    Partial,
    /// None of it; see `message`.
    NotApplied,
}

/// One destination that is not applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RouteFailure {
    /// The destination as it was written.
    pub destination: String,

    /// One word: `Conflict`, `Protected`, `Shadowed`, `Invalid`, ...
    pub reason: String,

    /// A sentence that names the cause.
    pub message: String,
}

/// A gateway that this node can't use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UnusableGateway {
    /// The gateway as it was written.
    pub address: String,

    /// One word: `GatewayNotOnLink`, `GatewayIsNode`, ...
    pub reason: String,

    /// A sentence that names the cause.
    pub message: String,
}

/// What the node sees of one gateway.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayObservation {
    /// Private address of the gateway.
    pub address: String,

    /// Its kernel answers in the VPC.
    pub reachable: bool,

    /// A connection through it reached a health target. Absent until it was tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forwards: Option<bool>,

    /// The outside sees its packets with the address that is expected: another gateway, which answers to that address only, did.
    /// Absent until one has. Of an address that moves: that it is seen here; absent where it is not and need not be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_source: Option<bool>,

    /// Packets of full size get through. Absent until one has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full_size: Option<bool>,

    /// The node finds that it does not work: it is not used while another works. A vote for its replacement.
    #[serde(default)]
    pub condemned: bool,

    /// When it was last said anew that the gateway is condemned, or does not answer. It is while that lasts, so that a vote of an agent that
    /// is gone does not count for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewed: Option<Time>,

    /// Since when this is so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,

    /// What failed last, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}
