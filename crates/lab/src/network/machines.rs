//! The two links of every machine.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::CLOUD;
use super::addresses::{
    HandMadeGateway, NODES, Node, PODS, PUBLIC_GATEWAY, PUBLIC_PREFIX, VPC_GATEWAY, VPC_PREFIX, mac,
};
use super::ports::{self, Rules, Side};
use crate::error::Result;
use crate::netns;
use crate::state::{Lab, LabName, Variant};

/// A machine's place on one segment, in the shape of the machine hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Its address.
    pub address: Ipv4Addr,
    /// Prefix length of the segment.
    pub prefix: u8,
    /// The provider's gateway on it.
    pub gateway: Ipv4Addr,
    /// Its hardware address; the anchor shares that of the public side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
}

impl Segment {
    fn hardware_address(&self) -> String {
        self.mac.clone().unwrap_or_else(|| mac(self.address))
    }
}

/// The addresses of a Droplet, in the shape of the machine hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropletLinks {
    /// eth0.
    pub public: Segment,
    /// eth1.
    pub private: Segment,
    /// Second address of eth0.
    #[serde(default)]
    pub anchor: Option<Segment>,
}

/// Puts eth0 and eth1 (down, without addresses: the machine configures them) into the network namespace of `leader`, a process
/// of the machine, with their ports on the bridges and DigitalOcean's packet rules on the ports. They go when the namespace
/// goes; call [`detach_droplet`] then.
pub fn attach_droplet(lab: &Lab, id: u64, links: &DropletLinks, leader: u32) -> Result<()> {
    let name = format!("d{id}");
    detach_droplet(lab, id)?;
    let anchor = links.anchor.iter().map(|anchor| anchor.address);
    let public: Vec<_> = std::iter::once(links.public.address).chain(anchor).collect();
    let (public_mac, private_mac) = (links.public.hardware_address(), links.private.hardware_address());
    let vpc = Rules { internet_sources: true, ..Rules::own(&private_mac, &[links.private.address]) };
    attach(lab.name(), &name, &leader.to_string(), &Rules::own(&public_mac, &public), &vpc)
}

/// Forgets the ports of a Droplet. One that has none is no error.
pub fn detach_droplet(lab: &Lab, id: u64) -> Result<()> {
    let name = format!("d{id}");
    let cloud = lab.namespace(CLOUD);
    let ports = Side::ALL.map(|side| ports::port(&name, side));
    let existing = netns::run(&cloud, "ip", &["-o", "link", "show"])?;
    let deletions: Vec<_> = ports
        .iter()
        .filter(|port| existing.contains(&format!(" {port}@")))
        .map(|port| format!("link del {port}"))
        .collect();
    // The kernel removes them with the namespace at the other end, a little later than the namespace's last process: one that
    // went meanwhile is what was wanted.
    let deleted = netns::ip_batch(&cloud, &deletions);
    let left = netns::run(&cloud, "ip", &["-o", "link", "show"])?;
    if ports.iter().any(|port| left.contains(&format!(" {port}@"))) {
        deleted?;
    }
    netns::nft(&cloud, &ports.map(|port| ports::removal(&port)).concat())
}

/// Links, rules and routes of a worker node.
pub(super) fn attach_node(name: &LabName, node: &Node, variant: Variant) -> Result<()> {
    let mut vpc = Rules::own(&mac(node.vpc), &[node.vpc]);
    if variant == Variant::VpcNative {
        vpc.sources.push(format!("{}/24", node.pods));
    }
    let namespace = name.namespace(node.name);
    attach(name, node.name, &namespace, &Rules::own(&mac(node.public), &[node.public]), &vpc)?;
    // Debian's and systemd's default; before the links come up, which take theirs from it.
    netns::sysctl(
        &namespace,
        &[
            ("ipv4/ip_forward", "1"),
            ("ipv4/conf/all/rp_filter", "2"),
            ("ipv4/conf/default/rp_filter", "2"),
            ("ipv4/conf/eth0/rp_filter", "2"),
            ("ipv4/conf/eth1/rp_filter", "2"),
        ],
    )?;
    netns::ip_batch(&namespace, &addressing(node.public, node.vpc))?;
    netns::ip_batch(&namespace, &pod_routes(node, variant))?;
    if variant == Variant::Overlay {
        for other in NODES.iter().filter(|other| other.name != node.name) {
            let (hardware, through) = (mac(other.pods), other.vpc.to_string());
            netns::run(&namespace, "bridge", &["fdb", "add", &hardware, "dev", "tunnel", "dst", &through])?;
        }
    }
    netns::nft(&namespace, &pod_translation(variant))
}

/// Links, rules, forwarding and translation of a hand-made gateway.
pub(super) fn attach_hand_made_gateway(
    name: &LabName,
    gateway: &HandMadeGateway,
    variant: Variant,
) -> Result<()> {
    let vpc = Rules { internet_sources: true, ..Rules::own(&mac(gateway.vpc), &[gateway.vpc]) };
    let namespace = name.namespace(gateway.name);
    let public = Rules::own(&mac(gateway.public), &[gateway.public]);
    attach(name, gateway.name, &namespace, &public, &vpc)?;
    netns::sysctl(&namespace, &[("ipv4/ip_forward", "1")])?;
    let mut lines = addressing(gateway.public, gateway.vpc);
    if variant == Variant::VpcNative {
        lines.push(format!("route add {PODS} via {VPC_GATEWAY} dev eth1"));
    }
    netns::ip_batch(&namespace, &lines)?;
    netns::nft(
        &namespace,
        "table ip gateway {\n chain postrouting {\n type nat hook postrouting priority srcnat;\n \
         oifname \"eth0\" masquerade\n }\n}\n",
    )
}

/// Makes both links. `target` is a namespace's name or a process id.
fn attach(name: &LabName, machine: &str, target: &str, public: &Rules, vpc: &Rules) -> Result<()> {
    let cloud = name.namespace(CLOUD);
    let [eth0, eth1] = Side::ALL.map(|side| ports::port(machine, side));
    netns::nft(&cloud, &(ports::script(&eth0, public) + &ports::script(&eth1, vpc)))?;
    let lines = vec![
        format!("link add {eth0} type veth peer name eth0 address {} netns {target}", public.mac),
        format!("link add {eth1} type veth peer name eth1 address {} netns {target}", vpc.mac),
        format!("link set {eth0} master pub"),
        format!("link set {eth1} master vpc"),
        format!("link set {eth0} up"),
        format!("link set {eth1} up"),
    ];
    netns::ip_batch(&cloud, &lines)
}

fn addressing(public: Ipv4Addr, vpc: Ipv4Addr) -> Vec<String> {
    vec![
        "link set lo up".into(),
        format!("addr add {public}/{PUBLIC_PREFIX} dev eth0"),
        format!("addr add {vpc}/{VPC_PREFIX} dev eth1"),
        "link set eth0 up".into(),
        "link set eth1 up".into(),
        format!("route add default via {PUBLIC_GATEWAY} dev eth0"),
    ]
}

/// How a node reaches the other nodes' pods: through a tunnel over the VPC, as DOKS' overlay does, or routed by the VPC.
fn pod_routes(node: &Node, variant: Variant) -> Vec<String> {
    if variant == Variant::VpcNative {
        return vec![format!("route add {PODS} via {VPC_GATEWAY} dev eth1")];
    }
    let mut lines = vec![
        format!(
            "link add tunnel address {} type vxlan id 1 local {} dev eth1 dstport 8472 nolearning",
            mac(node.pods),
            node.vpc
        ),
        format!("addr add {}/32 dev tunnel", node.pods),
        "link set tunnel up".to_owned(),
    ];
    for other in NODES.iter().filter(|other| other.name != node.name) {
        let (pods, hardware) = (other.pods, mac(other.pods));
        lines.push(format!("neigh add {pods} lladdr {hardware} dev tunnel nud permanent"));
        lines.push(format!("route add {pods}/24 via {pods} dev tunnel onlink"));
    }
    lines
}

/// A node translates what its pods send outside, as DOKS does: with the overlay towards everything that is no pod, in the
/// VPC-native variant only towards the public side.
fn pod_translation(variant: Variant) -> String {
    let links = match variant {
        Variant::Overlay => "{ \"eth0\", \"eth1\" }",
        Variant::VpcNative => "\"eth0\"",
    };
    format!(
        "table ip node {{\n chain postrouting {{\n type nat hook postrouting priority srcnat;\n \
         oifname {links} ip saddr {PODS} masquerade\n }}\n}}\n"
    )
}
