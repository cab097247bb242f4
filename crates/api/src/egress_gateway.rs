//! EgressGateway: gateways with fixed public addresses, and what leaves through them.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::health_check::HealthCheck;
use crate::public_ip::PublicIp;
use crate::static_route::default_drain_seconds;
use crate::{DeletionPolicy, Destination, EgressGatewayStatus, NodeSelector, OnNoGateway, RouteMode};

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
    validation = Rule::new("!has(self.spec.existingDroplets) || self.spec.existingDroplets.size() <= self.spec.replicas").message("spec.existingDroplets must not be longer than spec.replicas is high: they count towards it; raise replicas or name fewer"),
    printcolumn(name = "ACTIVE", type_ = "string", json_path = ".status.active", description = "Gateway at the head of the nodes' list"),
    printcolumn(name = "EGRESS-IP", type_ = "string", json_path = ".status.egressIP", description = "Public address of the active gateway"),
    printcolumn(name = "GATEWAYS", type_ = "string", json_path = ".status.gatewaysReady", description = "Proven gateways / gateways asked for"),
    printcolumn(name = "NODES", type_ = "string", json_path = ".status.nodes", description = "Nodes that have every route / nodes that should"),
    printcolumn(name = "READY", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "REASON", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason", priority = "1"),
    printcolumn(name = "USD/MONTH", type_ = "string", json_path = ".status.monthlyPriceUSD", priority = "1", description = "List price of the Droplets that are asked for"),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.reservedIPs) || self.reservedIPs.size() == 0 || self.publicIP != 'Ephemeral'").message("reservedIPs are used with publicIP: ReservedPerGateway or Floating only; write one of these, or leave reservedIPs out"),
    validation = Rule::new("self.publicIP != 'Floating' || !has(self.reservedIPs) || self.reservedIPs.size() <= 1").message("with publicIP: Floating all gateways have one address; name one in reservedIPs, or write ReservedPerGateway"),
    validation = Rule::new("self.publicIP != 'Floating' || (has(oldSelf.reservedIPs) && oldSelf.reservedIPs.size() > 0) == (has(self.reservedIPs) && self.reservedIPs.size() > 0)").message("with publicIP: Floating the address is chosen when the EgressGateway is made, because partners may admit the one that it has; make another EgressGateway for another address"),
    validation = Rule::new("self.publicIP != 'Floating' || self.mode != 'ActiveActive'").message("with publicIP: Floating one gateway at a time has the address and carries the traffic; leave mode out, or write publicIP: ReservedPerGateway"),
    validation = Rule::new("self.publicIP != 'Floating' || !has(self.existingDroplets) || self.existingDroplets.size() == 0").message("existingDroplets keep the addresses that they have, and cannot take one that moves; leave them out, or write publicIP: Ephemeral"),
    validation = Rule::new("!has(self.reservedIPs) || self.reservedIPs.size() <= self.replicas").message("reservedIPs has more addresses than there are gateways; raise replicas, or leave some out"),
    validation = Rule::new("!has(oldSelf.reservedIPs) || oldSelf.reservedIPs.all(ip, has(self.reservedIPs) && ip in self.reservedIPs)").message("reservedIPs: an address that is in use cannot be taken out, because partners may admit it; make another EgressGateway for other addresses")
)]
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

    /// Where the public addresses come from. It can't be changed later: the addresses would.
    #[serde(rename = "publicIP")]
    #[x_kube(
        validation = Rule::new("self == oldSelf").message("cannot be changed, because the addresses that partners admit would change with it; make another EgressGateway and move destinations there")
    )]
    pub public_ip: PublicIp,

    /// Droplets of your own that serve as gateways, by id, at most 5. They count towards `replicas`, and the controller makes the
    /// rest. They are judged by the data path alone, and never changed, replaced or deleted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5), inner(range(min = 1)), extend("x-kubernetes-list-type" = "set"))]
    pub existing_droplets: Vec<i64>,

    /// Reserved addresses of yours for `publicIP: ReservedPerGateway`, one a gateway at most, or the one of `Floating`; the rest is
    /// reserved for you. They are assigned, never given back. More can be added; one that is there stays.
    #[serde(default, rename = "reservedIPs", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5), inner(length(max = 15)))]
    #[x_kube(
        validation = Rule::new("self.all(ip, ip.matches('^[0-9.]+$') && isIP(ip))").message("must be IPv4 addresses, as doctl compute reserved-ip list shows them, like 203.0.113.40"),
        validation = Rule::new("self.all(ip, self.exists_one(other, other == ip))").message("an address is listed twice; every gateway needs one of its own")
    )]
    pub reserved_ips: Vec<String>,

    /// The Droplets. A change of `size` or `image` replaces them one by one; other changes apply to Droplets made from then on.
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

    /// What becomes of what was made in the cloud when this object is deleted: `Delete`, or `Retain`, which leaves it there and billed.
    /// Routes go off the nodes either way.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,

    /// The nodes that leave through the gateways. Left out: every node. All nodes help to prove the gateways.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<NodeSelector>,
}

fn default_replicas() -> i32 {
    2
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

    /// Days after which a Droplet is replaced, 1 to 365, the new one first. Left out: never for its age.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(
        validation = Rule::new("self >= 1 && self <= 365").message("must be 1 to 365 days; write 14 for two weeks, or leave it out so that no Droplet is replaced for its age")
    )]
    pub max_age_days: Option<i32>,
    /// Project that the Droplets are put into. Left out: they stay in the account's default project.
    #[serde(default, rename = "projectID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(
        validation = Rule::new("self.matches('^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$')").message("is no UUID; write the one that doctl projects list shows, in lower case, or leave it out")
    )]
    pub project_id: Option<String>,
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
            max_age_days: None,
            project_id: None,
        }
    }
}

fn default_size() -> String {
    "s-1vcpu-1gb".to_owned()
}

fn default_image() -> String {
    "ubuntu-24-04-x64".to_owned()
}
