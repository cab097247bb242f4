//! Names that more than one part must spell alike.

/// API group of every kind of ours; the older operator's, on purpose.
pub const GROUP: &str = "networking.digitalocean.com";

/// Field manager of everything the controller applies.
pub const CONTROLLER_FIELD_MANAGER: &str = "egress-controller";

/// Field manager of everything an agent applies.
pub const AGENT_FIELD_MANAGER: &str = "egress-agent";

/// Finalizer on EgressGateway. Only the controller sets and removes it; there is none on StaticRoute.
pub const EGRESS_GATEWAY_FINALIZER: &str = "networking.digitalocean.com/egress-gateway";

/// Label on a StaticRoute that an EgressGateway owns: the gateway's name.
pub const OWNED_BY_LABEL: &str = "networking.digitalocean.com/egress-gateway";

/// Tag on every Droplet of every installation.
pub const FLEET_TAG: &str = "egress-gateway";

/// Prefix of the tag that names the cluster; the uid of namespace `kube-system` follows.
pub const CLUSTER_TAG_PREFIX: &str = "egress-cluster:";

/// Prefix of the tag that names the owner; the uid of the EgressGateway follows.
pub const OWNER_TAG_PREFIX: &str = "egress-owner:";

/// Prefix of the tag that names the slot of a Droplet among those of its EgressGateway; a decimal number follows.
pub const SLOT_TAG_PREFIX: &str = "egress-slot:";

/// Prefix of the tag that names a reserved address which was made for the owner of the Droplet; the address follows, with dashes.
pub const ADDRESS_TAG_PREFIX: &str = "egress-address:";

/// TCP port of a gateway's health endpoint, on its private address only.
pub const GATEWAY_HEALTH_PORT: u16 = 9180;

/// TCP port that a gateway's kernel refuses, untracked: an answer proves that the machine is alive.
pub const GATEWAY_PROBE_PORT: u16 = 9181;

/// First of the TCP ports of a gateway's private address that lead to health targets, one each in the order of their numbers, where one
/// address moves between gateways: who does not hold it shows there that it forwards.
pub const GATEWAY_RELAY_PORT: u16 = 9182;

/// Annotation on an EgressGateway: the name of the gateway that nodes shall use first while it is proven.
pub const PREFERRED_GATEWAY_ANNOTATION: &str = "networking.digitalocean.com/preferred-gateway";

/// Annotation on an EgressGateway: names of gateways, separated by commas, that nodes shall leave while another is proven.
pub const DRAINED_GATEWAYS_ANNOTATION: &str = "networking.digitalocean.com/drained-gateways";

/// Annotation on an EgressGateway: with the value `true` the controller changes nothing for it, in the cloud or on the nodes, and says
/// so. Nodes go on failing over by themselves.
pub const PAUSED_ANNOTATION: &str = "networking.digitalocean.com/paused";

/// Taint (`NoSchedule`) that a node pool gives to new nodes, and the controller takes off once the node's guards stand.
pub const STARTUP_TAINT: &str = "networking.digitalocean.com/egress-not-ready";
