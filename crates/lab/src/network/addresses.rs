//! The lab's addresses (docs/architecture.md, "The lab's addresses") and what follows from them.

use std::net::Ipv4Addr;

/// Prefix length of the public segment.
pub const PUBLIC_PREFIX: u8 = 24;
/// The public segment.
pub const PUBLIC_SEGMENT: &str = "203.0.113.0/24";
/// The provider's gateway on the public segment.
pub const PUBLIC_GATEWAY: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// Its hardware address.
pub const PUBLIC_GATEWAY_MAC: &str = "02:00:00:00:00:01";
/// Prefix length of the VPC.
pub const VPC_PREFIX: u8 = 20;
/// The VPC.
pub const VPC: &str = "10.116.0.0/20";
/// The VPC's gateway. Like DigitalOcean's it routes between private ranges and to the metadata service, never outwards.
pub const VPC_GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 116, 0, 1);
/// The anchor network of the region, on the public segment.
pub const ANCHORS: &str = "10.17.0.0/16";
/// The provider's end of it.
pub const ANCHOR_GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 17, 0, 1);
/// The region's reserved addresses, first and last; they lie on the public segment.
pub const RESERVED: (Ipv4Addr, Ipv4Addr) = (Ipv4Addr::new(203, 0, 113, 200), Ipv4Addr::new(203, 0, 113, 249));
/// All pods.
pub const PODS: &str = "10.244.0.0/16";
/// All Services.
pub const SERVICES: &str = "10.245.0.0/16";
/// Service address of the API server.
pub const API_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 245, 0, 1);
/// Service address of cluster DNS.
pub const DNS_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 245, 0, 10);
/// The API server, at a public address as on DOKS.
pub const API_SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
/// Its port.
pub const API_SERVER_PORT: u16 = 6443;
/// Id of the cluster; nodes have the tag `k8s:<id>`.
pub const CLUSTER_ID: &str = "b2f1d0c4-7a3e-4b52-8c56-0d1e2f3a4b5c";
/// The API server's name as on DOKS: `<cluster id>.k8s.ondigitalocean.com`.
pub const API_NAME: &str = "b2f1d0c4-7a3e-4b52-8c56-0d1e2f3a4b5c.k8s.ondigitalocean.com";
/// What that name means at first in a lab whose nodes use it; elsewhere it means [`API_SERVER`].
pub const API_NAME_ADDRESSES: [Ipv4Addr; 2] =
    [Ipv4Addr::new(198, 51, 100, 11), Ipv4Addr::new(198, 51, 100, 12)];
/// DigitalOcean's API.
pub const CLOUD_API: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 20);
/// DigitalOcean's registry: nothing of it is there but its address, at which the internet says who asks.
pub const REGISTRY: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 30);
/// The metadata service.
pub const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// The resolvers.
pub const RESOLVERS: [Ipv4Addr; 2] = [Ipv4Addr::new(67, 207, 67, 2), Ipv4Addr::new(67, 207, 67, 3)];
/// With this address the internet itself opens connections.
pub const STRANGER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// Ranges that are nobody's on the internet, as an nftables set.
pub const PRIVATE_RANGES: &str =
    "10.0.0.0/8, 100.64.0.0/10, 127.0.0.0/8, 169.254.0.0/16, 172.16.0.0/12, 192.168.0.0/16, 224.0.0.0/3";

/// Names that the resolvers know from the start.
pub const NAMES: [(&str, Ipv4Addr); 8] = [
    (API_NAME, API_SERVER),
    ("api.digitalocean.com", CLOUD_API),
    ("registry.digitalocean.com", REGISTRY),
    ("ifconfig.me", Ipv4Addr::new(34, 160, 111, 145)),
    ("ipinfo.io", Ipv4Addr::new(34, 117, 59, 81)),
    ("icanhazip.com", Ipv4Addr::new(104, 18, 115, 97)),
    ("db.example.com", Ipv4Addr::new(192, 0, 2, 10)),
    ("whoami.example.com", Ipv4Addr::new(192, 0, 2, 80)),
];

/// A worker node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// Its name in Kubernetes, in the cloud, and of its namespace.
    pub name: &'static str,
    /// Id of its Droplet.
    pub droplet: u64,
    /// Public address, on eth0.
    pub public: Ipv4Addr,
    /// VPC address, on eth1; Kubernetes' InternalIP.
    pub vpc: Ipv4Addr,
    /// First address of its pods' /24.
    pub pods: Ipv4Addr,
}

/// The worker nodes.
pub const NODES: [Node; 2] = [
    Node {
        name: "node-1",
        droplet: 400_000_001,
        public: Ipv4Addr::new(203, 0, 113, 11),
        vpc: Ipv4Addr::new(10, 116, 0, 2),
        pods: Ipv4Addr::new(10, 244, 0, 0),
    },
    Node {
        name: "node-2",
        droplet: 400_000_002,
        public: Ipv4Addr::new(203, 0, 113, 12),
        vpc: Ipv4Addr::new(10, 116, 0, 3),
        pods: Ipv4Addr::new(10, 244, 1, 0),
    },
];

/// A gateway that somebody set up by hand, as the older operator's users do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HandMadeGateway {
    /// Its name, and of its namespace.
    pub name: &'static str,
    /// Id of its Droplet.
    pub droplet: u64,
    /// Public address.
    pub public: Ipv4Addr,
    /// VPC address, which the seeds' manifests name.
    pub vpc: Ipv4Addr,
}

/// The hand-made gateways.
pub const HAND_MADE_GATEWAYS: [HandMadeGateway; 2] = [
    HandMadeGateway {
        name: "gateway-a",
        droplet: 400_000_011,
        public: Ipv4Addr::new(203, 0, 113, 5),
        vpc: Ipv4Addr::new(10, 116, 0, 5),
    },
    HandMadeGateway {
        name: "gateway-b",
        droplet: 400_000_012,
        public: Ipv4Addr::new(203, 0, 113, 6),
        vpc: Ipv4Addr::new(10, 116, 0, 12),
    },
];

/// What the ports of a Droplet are called after: a node's or hand-made gateway's name, or `d<id>`.
pub fn port_owner(droplet: u64) -> String {
    let nodes = NODES.iter().map(|node| (node.droplet, node.name));
    let gateways = HAND_MADE_GATEWAYS.iter().map(|gateway| (gateway.droplet, gateway.name));
    let known = nodes.chain(gateways).find(|(id, _)| *id == droplet);
    known.map_or_else(|| format!("d{droplet}"), |(_, name)| name.to_owned())
}

/// The hardware address of an interface that the lab itself configures: locally administered, then the IPv4 address.
pub fn mac(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("02:01:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}
