//! Replies to connections that came in on the node's public side and were sent on: host ports and NodePorts.
//!
//! A socket of the node answers from the public address, and one rule keeps that in the main table. A connection that was
//! sent on (DNAT, by the CNI's portmap or by kube-proxy) is answered by a pod, or by another node, and the kernel looks the
//! way up before it puts the public address back: all it has to go by is the answering address and its port. So there is one
//! rule for each of those, and it holds at every `rp_filter`, because the kernel's check of the request's source swaps the
//! ports as well (measured, Linux 6.18).
//!
//! The price: a pod that *opens* a connection from such a port by itself leaves with the node's address. Clients take their
//! ports from the ephemeral range (32768 to 60999), so this concerns targets in there, or clients that ask for the port.
//!
//! Invariants: no rule without a route that could answer for a client on the internet; [`MOST_RULES`] at most, and what is in
//! the kernel already comes first, so that a port that works goes on working when others are added.

use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::kernel_state::{KernelState, MAIN_TABLE, Managed, Observed, RouteKind, Rule};
use crate::layout::Layout;

/// Every packet is compared with every rule, 3 to 5 ns each (measured, Linux 6.18): half a microsecond at the most.
pub const MOST_RULES: usize = 128;

/// Where no client on the internet is: RFC 1918 and RFC 6598.
const PRIVATE: [(Ipv4Addr, u8); 4] = [
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
];

/// A transport protocol whose ports a rule can tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
}

impl Transport {
    /// Its IP protocol number.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

/// A port that answers connections which came in on the public side of some node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServedPort {
    /// Where those who answer live: a range of pods, or the VPC for nodes.
    pub from: Ipv4Net,
    /// The protocol.
    pub protocol: Transport,
    /// The port they answer from: behind the DNAT, not the one that the client knows. 1 to 65535.
    pub port: u16,
}

impl ServedPort {
    fn rule(self, layout: &Layout) -> Rule {
        Rule {
            from: Some(self.from),
            ip_protocol: Some(self.protocol.number()),
            source_ports: Some((self.port, self.port)),
            ..Rule::lookup(layout.inbound_priority, MAIN_TABLE)
        }
    }
}

/// Adds the rules to a state whose routes are complete. Returns the ports for which there was no room.
pub(crate) fn add_rules(
    served: &BTreeSet<ServedPort>,
    observed: &Observed,
    layout: &Layout,
    state: &mut KernelState,
) -> Vec<ServedPort> {
    if !answers_for_clients(state, layout) {
        return Vec::new();
    }
    let present: BTreeSet<&Rule> = observed.rules.iter().map(Managed::get).collect();
    let mut ports: Vec<(bool, ServedPort)> =
        served.iter().map(|port| (!present.contains(&port.rule(layout)), *port)).collect();
    ports.sort_unstable();
    let left = ports.split_off(ports.len().min(MOST_RULES));
    state.rules.extend(ports.iter().map(|(_, port)| port.rule(layout)));
    left.into_iter().map(|(_, port)| port).collect()
}

/// Whether a client on the internet may have an address for which our table has a gateway.
pub fn answers_for_clients(state: &KernelState, layout: &Layout) -> bool {
    state.routes.values().any(|route| {
        route.table == layout.table
            && matches!(route.kind, RouteKind::Nexthop(_) | RouteKind::Blackhole)
            && !is_private(route.destination)
    })
}

fn is_private(destination: Ipv4Net) -> bool {
    PRIVATE.iter().any(|(address, length)| {
        Ipv4Net::new(*address, *length).is_ok_and(|private| private.contains(&destination))
    })
}

#[cfg(test)]
mod tests;
