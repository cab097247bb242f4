//! Links of a node that take packets of different sizes (MTU): pure.
//!
//! DigitalOcean's public interfaces and VPCs carry 1500 bytes, no jumbo frames. What is larger than the VPC interface takes is
//! not routed differently for that: the kernel answers it with "fragmentation needed", and whoever does not listen to that
//! loses it, which probes of a few bytes do not notice.

use egress_netlink::reading::Interface;
use egress_routing::{NodeView, ProtectedReason};
use ipnet::Ipv4Net;

use crate::concerns::Concern;

/// The VPC interface takes packets of another size than where they come from, or than the VPC carries.
pub const PACKET_SIZE: &str = "PacketSize";

/// What a VPC carries, bytes.
const VPC_CARRIES: u32 = 1500;

/// What does not go together on this node.
pub fn concern(interfaces: &[Interface], view: &NodeView) -> Option<Concern> {
    let vpc = interfaces.iter().find(|link| Some(link.index) == view.vpc.as_ref().map(|vpc| vpc.index))?;
    let Interface { name, mtu, .. } = vpc;
    let because = |reason, message| Some(Concern { type_: PACKET_SIZE, reason, message });
    if *mtu > VPC_CARRIES {
        let message = format!(
            "the MTU of {name}, this node's VPC interface, is {mtu}, and a VPC carries packets of {VPC_CARRIES} bytes: larger ones \
             to a gateway are lost; ip link set {name} mtu {VPC_CARRIES}"
        );
        return because("LargerThanVpc", message);
    }
    let brings_more =
        |link: &&Interface| link.mtu > *mtu && !link.loopback && link.up && brings_traffic(link, view);
    let largest = interfaces.iter().filter(brings_more).max_by_key(|link| (link.mtu, &link.name))?;
    let message = format!(
        "the MTU of {name}, this node's VPC interface, is {mtu}, and that of {} is {}: of what is sent through a gateway, larger \
         packets are refused (ICMP \"fragmentation needed\"), and lost where nobody listens to that; ip link set {name} mtu {}, or \
         {mtu} for pods",
        largest.name, largest.mtu, largest.mtu
    );
    because("SmallerThanOthers", message)
}

/// Whether what is routed through a gateway may have been made for this link: it has the node's public address, or one of pods.
fn brings_traffic(link: &Interface, view: &NodeView) -> bool {
    let pods = || view.protected.iter().filter(|(_, reason)| *reason == ProtectedReason::Pods);
    let is_of_pods = |own: &Ipv4Net| pods().any(|(range, _)| range.contains(&own.addr()));
    link.addresses.iter().any(|own| view.public_addresses.contains(own) || is_of_pods(own))
}

#[cfg(test)]
mod tests {
    use egress_routing::VpcInterface;

    use super::*;
    use crate::fixture;

    fn link(index: u32, name: &str, mtu: u32, address: &str) -> Interface {
        Interface { mtu, loopback: name == "lo", ..fixture::link(index, name, address) }
    }

    fn reason(vpc: u32, public: u32, pods: u32) -> Option<&'static str> {
        let links = [
            link(1, "lo", 65_536, "127.0.0.1/8"),
            link(2, "eth0", public, "203.0.113.11/24"),
            link(3, "eth1", vpc, "10.116.0.2/20"),
            link(4, "cilium_host", pods, "10.244.0.7/32"),
            link(5, "wg0", 9000, "10.99.0.1/24"),
        ];
        let interface = VpcInterface {
            index: 3,
            up: true,
            address: "10.116.0.2".parse().unwrap(),
            subnet: "10.116.0.0/20".parse().unwrap(),
        };
        let mut view = NodeView { vpc: Some(interface), ..NodeView::default() };
        view.public_addresses.clone_from(&links[1].addresses);
        view.protected.insert("10.244.0.0/16".parse().unwrap(), ProtectedReason::Pods);
        concern(&links, &view).map(|concern| concern.reason)
    }

    #[test]
    fn only_packets_that_may_not_fit_are_a_concern() {
        assert_eq!(reason(1500, 1500, 1500), None);
        assert_eq!(reason(1500, 1400, 1450), None, "there is room for more");
        assert_eq!(reason(1400, 1500, 1400), Some("SmallerThanOthers"));
        assert_eq!(reason(1450, 1450, 1500), Some("SmallerThanOthers"), "pods count too");
        assert_eq!(reason(9000, 1500, 1500), Some("LargerThanVpc"));
        assert_eq!(concern(&[], &NodeView::default()), None);
    }
}
