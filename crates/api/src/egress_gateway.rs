//! EgressGateway: gateways with fixed public addresses, and what leaves through them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::health_check::HealthCheck;
use crate::static_route::default_drain_seconds;
use crate::{Destination, NodeSelector, OnNoGateway, RouteMode};

/// What the user asks for.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[kube(
    group = "networking.digitalocean.com",
    version = "v1alpha1",
    kind = "EgressGateway",
    plural = "egressgateways",
    shortname = "egw",
    category = "egress",
    status = "EgressGatewayStatus",
    derive = "PartialEq",
    doc = "NAT gateways (Droplets) in the cluster's VPC that give the cluster's egress a public address of its own, kept alive and failed over by the controller and the nodes.",
    validation = Rule::new("self.metadata.name.size() <= 50").message("metadata.name must be at most 50 characters: it becomes part of the Droplets' host names; choose a shorter name"),
    printcolumn(name = "ACTIVE", type_ = "string", json_path = ".status.active", description = "Gateway at the head of the nodes' list"),
    printcolumn(name = "EGRESS-IP", type_ = "string", json_path = ".status.egressIP", description = "Public address of the active gateway"),
    printcolumn(name = "GATEWAYS", type_ = "string", json_path = ".status.gatewaysReady", description = "Proven gateways / gateways asked for"),
    printcolumn(name = "NODES", type_ = "string", json_path = ".status.nodes", description = "Nodes that have every route / nodes that should"),
    printcolumn(name = "READY", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "REASON", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason", priority = "1"),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct EgressGatewaySpec {
    /// What leaves through the gateways: IPv4 addresses and prefixes, 1 to 10,000. All egress is written `0.0.0.0/0`.
    #[schemars(length(min = 1, max = 10_000))]
    pub destinations: Vec<Destination>,

    /// What is left out of `destinations`, up to 1,000: it leaves with the nodes' own addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1_000))]
    pub excluded_destinations: Vec<Destination>,

    /// How many gateways are kept, 1 to 5. With 2, the default, one is active and one stands by (or both are, see `mode`); with 1
    /// there is a gap whenever it fails.
    #[serde(default = "default_replicas")]
    #[schemars(range(min = 1, max = 5))]
    pub replicas: i32,

    /// How the gateways are used: `ActiveStandby`, one at a time, or `ActiveActive`, all proven ones share the traffic and the
    /// outside sees the addresses of all.
    #[serde(default)]
    pub mode: RouteMode,

    /// Where the public addresses come from.
    #[serde(rename = "publicIP")]
    pub public_ip: PublicIp,

    /// The Droplets. Changes apply to gateways made from then on.
    #[serde(default)]
    pub droplet: DropletTemplate,

    /// How gateways are watched, and how the way through one to the outside is proven.
    #[serde(default)]
    #[x_kube(
        validation = Rule::new("self.targets.size() > 0").message("targets must not be empty: without one no gateway could be proven; list addresses outside, like 1.1.1.1:443, or leave healthCheck.targets out")
    )]
    pub health_check: HealthCheck,

    /// What happens to `destinations` while no gateway works.
    #[serde(default)]
    pub on_no_gateway: OnNoGateway,

    /// Seconds that open connections keep a gateway which a planned move leaves, at most: 0 to 3600, 300 when left out. One that was
    /// silent for a while moves before that. A gateway that fails is left at once.
    #[serde(default = "default_drain_seconds")]
    #[schemars(range(min = 0, max = 3_600))]
    pub drain_seconds: i32,

    /// The nodes that leave through the gateways. Left out: every node. All nodes help to prove the gateways.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<NodeSelector>,
}

fn default_replicas() -> i32 {
    2
}

/// Where the public address of a gateway comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PublicIp {
    /// The Droplet's own address. It goes with the Droplet: a replaced gateway has another one.
    Ephemeral,
}

/// What the Droplets are.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DropletTemplate {
    /// Region slug, such as `nyc1`. Left out: the region of the cluster's own nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(
        validation = Rule::new("self.matches('^[A-Za-z0-9._-]*$')").message("may have letters, digits, '.', '_' and '-' only; write the slug of a region, like nyc1")
    )]
    pub region: Option<String>,

    /// VPC. Left out: that of the cluster's own nodes. It must be theirs: a gateway is reached on-link.
    #[serde(default, rename = "vpcUUID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(
        validation = Rule::new("self.matches('^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$')").message("is no UUID; write the one that doctl vpcs list shows, in lower case, or leave it out")
    )]
    pub vpc_uuid: Option<String>,

    /// Size slug. The smallest sizes carry a few hundred megabits.
    #[serde(default = "default_size")]
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(
        validation = Rule::new("self.matches('^[A-Za-z0-9._-]*$')").message("may have letters, digits, '.', '_' and '-' only; write the slug of a size, like s-1vcpu-1gb")
    )]
    pub size: String,

    /// Image slug: Ubuntu 24.04, Debian 12 or Debian 13.
    #[serde(default = "default_image")]
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(
        validation = Rule::new("self.matches('^[A-Za-z0-9._-]*$')").message("may have letters, digits, '.', '_' and '-' only; write the slug of an image, like debian-13-x64")
    )]
    pub image: String,

    /// Ids or fingerprints of SSH keys. Without any the Droplets have no SSH server.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), inner(length(min = 1, max = 64)))]
    #[x_kube(
        validation = Rule::new("self.all(key, key.matches('^([0-9]+|[0-9a-f]{2}(:[0-9a-f]{2}){15})$'))").message("keys are named by id (512189) or MD5 fingerprint (3b:16:e4:...), as doctl compute ssh-key list shows them; the key itself does not go here")
    )]
    pub ssh_keys: Vec<String>,

    /// Tags beside our own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), inner(length(min = 1, max = 255)))]
    #[x_kube(
        validation = Rule::new("self.all(tag, tag.matches('^[a-zA-Z0-9_:-]*$'))").message("tags have letters, digits, ':', '_' and '-' only; write them like team:payments"),
        validation = Rule::new("self.all(t, !t.lowerAscii().startsWith('egress-') && !t.lowerAscii().startsWith('k8s'))").message("tags that begin with egress- are the controller's own, those that begin with k8s DigitalOcean's; choose others")
    )]
    pub tags: Vec<String>,

    /// Install DigitalOcean's metrics agent.
    #[serde(default)]
    pub monitoring: bool,
}

impl Default for DropletTemplate {
    fn default() -> Self {
        Self {
            region: None,
            vpc_uuid: None,
            size: default_size(),
            image: default_image(),
            ssh_keys: Vec::new(),
            tags: Vec::new(),
            monitoring: false,
        }
    }
}

fn default_size() -> String {
    "s-1vcpu-1gb".to_owned()
}

fn default_image() -> String {
    "ubuntu-24-04-x64".to_owned()
}

/// What became of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EgressGatewayStatus {
    /// Generation of the spec that the rest of the status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// `Ready`: at least one gateway is proven and every node has the routes. `Progressing`: something is being made or
    /// replaced. `Degraded`: less redundancy than asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,

    /// Public addresses of all proven gateways: what a partner must allow.
    #[serde(default, rename = "publicIPs", skip_serializing_if = "Vec::is_empty")]
    pub public_ips: Vec<String>,

    /// Name of the gateway at the head of the nodes' list; with `mode: ActiveActive` the names of all in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<String>,

    /// Public address of the active gateway, or addresses of the active gateways.
    #[serde(default, rename = "egressIP", skip_serializing_if = "Option::is_none")]
    pub egress_ip: Option<String>,

    /// The last time that another gateway became the active one. With `mode: ActiveActive` there is none to record: all share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failover: Option<Failover>,

    /// The last gateway that was given up for another, or was gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_replacement: Option<Replacement>,

    /// `proven/asked for`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateways_ready: Option<String>,

    /// `applied/total` over the nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<String>,

    /// Every gateway we have in the cloud, in slot order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["dropletID"]))]
    pub gateways: Vec<GatewayStatus>,

    /// Droplets that are about to be created or whose creation has not been seen in the cloud yet. Written before the
    /// request is sent, so that a crash at any moment leaves a trace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub creating: Vec<CreationIntent>,

    /// How many Droplets in a row were given up because they never became ready. After three no more are made until one is
    /// proven or the spec changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_bring_ups: Option<i32>,

    /// Why the last of them was given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_bring_up_failure: Option<String>,

    /// The cloud firewall around the gateways.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firewall: Option<FirewallStatus>,
}

/// The cloud firewall of an EgressGateway: on the public side it lets in nothing but probes of one gateway by the others. Gateways work
/// without it too, kept by their own filter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FirewallStatus {
    /// Its name in the cloud.
    pub name: String,

    /// Its id, once the cloud has given one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,

    /// Ids of others of that name that are ours too: what came of creates whose answers were lost. They are deleted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub doubles: Vec<String>,

    /// When it was decided to have one.
    pub since: Time,

    /// When the cloud was asked to make it, until its answer or the firewall has been seen. A second request waits for a settle
    /// time from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent: Option<Time>,

    /// Why the cloud did not do what it was asked for last, in its own words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,

    /// Since when the cloud has done nothing that it was asked for: the pauses between requests grow with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused_since: Option<Time>,

    /// When it is asked again at the earliest, after a refusal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Time>,
}

/// A change of the active gateway.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Failover {
    /// When the controller made `to` the active one. Nodes leave a gateway that they find dead by themselves, before that.
    pub time: Time,

    /// Name of the gateway that was active.
    pub from: String,

    /// Name of the gateway that is active since.
    pub to: String,

    /// Why `from` was left, in a sentence.
    pub reason: String,

    /// From the first probe that `from` left unanswered until a node had moved, in seconds, where a node moved first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub seconds: Option<f64>,
}

/// A gateway that made room for another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Replacement {
    /// When that was decided. The next one comes ten minutes later at the earliest.
    pub time: Time,

    /// Name of the gateway that is replaced.
    pub from: String,

    /// Id of its Droplet.
    #[serde(rename = "fromDropletID")]
    pub from_droplet_id: i64,

    /// Public address that goes with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_public_address: Option<String>,

    /// Name of the gateway that took its place, once it is proven. Its own name if it worked again before that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,

    /// Public address of that gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_public_address: Option<String>,

    /// Why it is replaced, in a sentence.
    pub reason: String,
}

/// One gateway as it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayStatus {
    /// Name of the Droplet.
    pub name: String,

    /// Its slot among those of this EgressGateway.
    pub slot: i32,

    /// Its id in the cloud.
    #[serde(rename = "dropletID")]
    pub droplet_id: i64,

    /// Address in the VPC, once the cloud has given one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_address: Option<String>,

    /// Public address, once the cloud has given one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_address: Option<String>,

    /// What it does now.
    pub role: GatewayRole,

    /// Whether the way through it is proven: its own health endpoint said so, a node got through, and the outside saw the address that
    /// it should, where a proven gateway can tell.
    pub ready: bool,

    /// Since when `role` and `ready` are what they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,

    /// Why it is not ready, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,

    /// Since when it is condemned without interruption: the cloud says that it is off; a quorum of nodes says that it fails while
    /// another works; or neither a quorum of nodes nor the controller gets an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspect_since: Option<Time>,

    /// When the cloud was asked to power it on again, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub powered_on: Option<Time>,

    /// When it was decided to switch it off and on again, if it was. Written before the cloud is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power_cycled: Option<Time>,

    /// When the cloud took that, as far as is known: it is not asked again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power_cycle_accepted: Option<Time>,

    /// Version of the user data it was made with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_data_version: Option<String>,

    /// Nodes that send through it now.
    #[serde(default)]
    pub nodes: i32,

    /// Public addresses whose probes it answers on its public side: those of the other gateways, once the cloud firewall lets them
    /// in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub admits: Vec<String>,
}

/// What a gateway does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum GatewayRole {
    /// Head of the nodes' list; with `mode: ActiveActive` anywhere in it.
    Active,
    /// Proven, and next in the list.
    Standby,
    /// Made, not proven yet.
    Starting,
    /// Was proven and is not now.
    Failed,
    /// About to be deleted.
    Leaving,
}

/// A Droplet that is being created.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreationIntent {
    /// Name of the Droplet.
    pub name: String,

    /// Its slot.
    pub slot: i32,

    /// When the intent was written.
    pub since: Time,

    /// When the request was sent, if it was. A second request waits for a settle time from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent: Option<Time>,

    /// Version of the user data it is made with.
    pub user_data_version: String,

    /// Why the cloud refused the last request, in its own words. The next one waits a while.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}
