//! What became of an EgressGateway. Written by the controller only.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::public_ip::{ReservedIpStatus, ReservingIpStatus};
use crate::{NextRoll, Roll};

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

    /// Public addresses with which traffic may leave: what a partner must allow. Those of all proven gateways in their order, then
    /// those of gateways that were proven and are not gone yet; or all reserved ones, where `publicIP` asks for such.
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

    /// The last replacement of a gateway that works, because it is not as the spec has it or too old.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roll: Option<Roll>,

    /// The next one that will come by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_roll: Option<NextRoll>,

    /// Since when a gateway runs another version of the user data than this controller makes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_data_outdated_since: Option<Time>,

    /// What the Droplets that are asked for cost a month, in US dollars: DigitalOcean's list price of `spec.droplet.size` times
    /// `spec.replicas` less `spec.existingDroplets`. Left out while it is not known.
    #[serde(default, rename = "monthlyPriceUSD", skip_serializing_if = "Option::is_none")]
    pub monthly_price_usd: Option<String>,

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

    /// Its reserved addresses.
    #[serde(default, rename = "reservedIPs", skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["ip"]))]
    pub reserved_ips: Vec<ReservedIpStatus>,

    /// The next one, from when it was decided to reserve it until the cloud shows it.
    #[serde(default, rename = "reservingIP", skip_serializing_if = "Option::is_none")]
    pub reserving_ip: Option<ReservingIpStatus>,
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

    /// Its slot among those of this EgressGateway; -1 for a Droplet that exists already.
    pub slot: i32,

    /// Its id in the cloud.
    #[serde(rename = "dropletID")]
    pub droplet_id: i64,

    /// Whether it is a Droplet that `spec.existingDroplets` names: not the controller's to change.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub existing: bool,

    /// Address in the VPC, once the cloud has given one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_address: Option<String>,

    /// The public address with which it leaves, once the cloud has given one: its reserved address where it is to have one. With
    /// `publicIP: Floating` only its holder has one.
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

    /// Why the cloud did not delete it, if it was asked to and refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delete_refused: Option<Refused>,

    /// Version of the user data it was made with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_data_version: Option<String>,

    /// Size slug that it was made with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,

    /// Image that it was made with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,

    /// When it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<Time>,

    /// Project that it was put into, if one was asked for.
    #[serde(default, rename = "projectID", skip_serializing_if = "Option::is_none")]
    pub project_id: Option<String>,

    /// Nodes that send through it now.
    #[serde(default)]
    pub nodes: i32,

    /// Public addresses whose probes it answers on its public side: those of the other gateways, once the cloud firewall lets them
    /// in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub admits: Vec<String>,
}

impl GatewayStatus {
    /// A Droplet that is there, and of which nothing else is known.
    pub fn new(name: String, slot: i32, droplet_id: i64, role: GatewayRole) -> Self {
        Self {
            name,
            slot,
            droplet_id,
            existing: false,
            private_address: None,
            public_address: None,
            role,
            ready: false,
            since: None,
            message: None,
            suspect_since: None,
            powered_on: None,
            power_cycled: None,
            power_cycle_accepted: None,
            delete_refused: None,
            project_id: None,
            user_data_version: None,
            size: None,
            image: None,
            created: None,
            nodes: 0,
            admits: Vec::new(),
        }
    }
}

/// What the cloud refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Refused {
    /// Why, in its own words.
    pub message: String,

    /// Since when it refuses that without interruption.
    pub since: Time,

    /// When it is asked again at the earliest; a change of the spec does not wait.
    pub not_before: Time,
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

    /// Image that it is made with, since the request was sent: the cloud does not name every image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,

    /// Why the cloud refused the last request, in its own words. The next one waits a while.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}
