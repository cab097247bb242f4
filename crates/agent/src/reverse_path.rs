//! What a node's network keeps our rules from doing: its reverse path filter (`rp_filter`), pods forwarded in eBPF, no public
//! address. Pure, but for reading the filter. Nothing here is ever written: sysctls are read-only in the pod, and they are not ours.
//!
//! Rules by source address and by source port pass the filter in every mode, for its lookup swaps addresses and ports
//! (measured on Linux 6.18). What has neither a rule nor a route back is dropped in mode 1.

use egress_netlink::reading::Interface;
use egress_routing::inbound::answers_for_clients;
use egress_routing::kernel_state::{KernelState, MAIN_TABLE, Rule, RuleAction};
use egress_routing::{Layout, NodeView};

use crate::concerns::Concern;

/// The filter is strict on the public interface.
pub const REVERSE_PATH_FILTER: &str = "ReversePathFilter";
/// Pods may be forwarded past the rules for replies.
pub const EBPF_FORWARDING: &str = "EbpfForwarding";

/// The node has no address that tells answers of its own sockets from their connections.
pub const NO_PUBLIC_ADDRESS: &str = "NoPublicAddress";

/// A packet must come in on the link that a packet to its source would leave by.
const STRICT: u8 = 1;
/// The link that Cilium makes on every node.
const CILIUMS_LINK: &str = "cilium_host";

/// The link with the node's public addresses.
pub fn public_interface<'a>(interfaces: &'a [Interface], view: &NodeView) -> Option<&'a Interface> {
    let is_public =
        |link: &&Interface| link.addresses.iter().any(|address| view.public_addresses.contains(address));
    interfaces.iter().find(is_public)
}

/// The filter's mode on a link: the stricter number of the link's and everybody's, as the kernel takes it.
pub fn mode(interface: &str) -> Option<u8> {
    let read = |name: &str| {
        let text = std::fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{name}/rp_filter")).ok()?;
        text.trim().parse::<u8>().ok()
    };
    Some(read("all")?.max(read(interface)?))
}

/// What a strict filter on the public interface forbids.
pub fn strict(interface: &str, mode: u8) -> Option<Concern> {
    let message = format!(
        "net.ipv4.conf.{interface}.rp_filter is {STRICT}, by itself or through conf.all: of what comes in on {interface} from a \
         routed destination, the kernel drops all that is for neither a public address, a host port nor a node port of this \
         node; 2 or 0 lifts that"
    );
    (mode == STRICT).then_some(Concern { type_: REVERSE_PATH_FILTER, reason: "Strict", message })
}

/// What does not hold where pods are forwarded in eBPF: rules by port, which answer for host ports and node ports.
///
/// Whether Cilium does so can't be seen from here; that it is on the node can.
pub fn ebpf(interfaces: &[Interface], planned: &KernelState) -> Option<Concern> {
    let by_port = |rule: &Rule| {
        rule.source_ports.is_some() && matches!(rule.action, RuleAction::Lookup { table: MAIN_TABLE, .. })
    };
    let may_matter =
        planned.rules.iter().any(by_port) && interfaces.iter().any(|link| link.name == CILIUMS_LINK);
    let message = format!(
        "Cilium is on this node (link {CILIUMS_LINK}): where its status says \"Host Routing: BPF\", the kernel's rules by port do \
         not count for pods, and a client behind a routed destination gets no answer from a pod's host port or node port; \
         exclude such clients (excludedDestinations), or give Cilium bpf.hostLegacyRouting=true"
    );
    may_matter.then_some(Concern { type_: EBPF_FORWARDING, reason: "RulesByPort", message })
}

/// Whom a node without a public interface does not answer.
///
/// Its sockets answer from the address that it connects from as well, so that no rule can tell the two apart.
pub fn no_public_address(view: &NodeView, planned: &KernelState, layout: &Layout) -> Option<Concern> {
    let vpc = view.vpc.as_ref()?;
    let at_stake = view.public_addresses.is_empty() && answers_for_clients(planned, layout);
    let message = format!(
        "this node has no address outside the VPC: a client at a routed address that reaches {} itself, through a balancer that \
         keeps client addresses, is answered through a gateway, and the answer is lost; pods behind host ports and node ports \
         answer; exclude such clients (excludedDestinations)",
        vpc.address
    );
    at_stake.then_some(Concern { type_: NO_PUBLIC_ADDRESS, reason: "RepliesOfSockets", message })
}

#[cfg(test)]
mod tests {
    use egress_routing::VpcInterface;
    use egress_routing::kernel_state::{Route, RouteKind};

    use super::*;
    use crate::fixture;

    fn link(name: &str) -> Interface {
        fixture::link(9, name, "203.0.113.11/24")
    }

    #[test]
    fn only_a_strict_filter_forbids_something() {
        assert_eq!([0, 2].map(|mode| strict("eth0", mode)), [None, None]);
        assert!(strict("eth0", 1).unwrap().message.starts_with("net.ipv4.conf.eth0.rp_filter is 1, "));
        let view = NodeView { public_addresses: link("eth0").addresses, ..NodeView::default() };
        assert_eq!(public_interface(&[link("eth0")], &view), Some(&link("eth0")));
        assert_eq!(public_interface(&[link("eth0")], &NodeView::default()), None);
    }

    #[test]
    fn a_node_without_a_public_address_is_told_of_while_a_client_may_be_routed() {
        let layout = Layout::default();
        let vpc = VpcInterface {
            index: 2,
            up: true,
            address: "10.116.0.2".parse().unwrap(),
            subnet: "10.116.0.0/20".parse().unwrap(),
        };
        let private = NodeView { vpc: Some(vpc), ..NodeView::default() };
        let public = NodeView { public_addresses: link("eth0").addresses, ..private.clone() };
        let routed = |destination: &str| {
            let mut state = KernelState::default();
            let (table, destination) = (layout.table, destination.parse().unwrap());
            state.insert_route(Route { table, destination, metric: 0, kind: RouteKind::Blackhole });
            state
        };
        let told = |view: &NodeView, destination: &str| {
            no_public_address(view, &routed(destination), &layout).is_some()
        };
        assert!(told(&private, "0.0.0.0/0") && told(&private, "192.0.2.80/32"));
        assert!(!told(&private, "172.20.0.0/16"), "no client on the internet is there");
        assert!(!told(&public, "0.0.0.0/0"));
        assert_eq!(no_public_address(&private, &KernelState::default(), &layout), None);
    }

    #[test]
    fn forwarding_in_ebpf_concerns_nobody_without_a_rule_by_port() {
        let mut state = KernelState::default();
        state.rules.insert(Rule::lookup(1000, MAIN_TABLE));
        assert_eq!(ebpf(&[link(CILIUMS_LINK)], &state), None);
        state.rules.insert(Rule {
            ip_protocol: Some(6),
            source_ports: Some((8080, 8080)),
            ..Rule::lookup(991, MAIN_TABLE)
        });
        assert_eq!(ebpf(&[link("eth0")], &state), None);
        assert!(ebpf(&[link("eth0"), link(CILIUMS_LINK)], &state).is_some());
    }
}
