//! Who else writes routes and rules on a node, as far as their marks tell.

use std::fmt;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// Table of DigitalOcean's managed routing agent.
pub const ROUTING_AGENT_TABLE: u32 = 135;
/// Priority of its rule.
pub const ROUTING_AGENT_PRIORITY: u32 = 15_135;

/// `RTPROT_KERNEL`: the subnets of the node's own links.
const KERNEL: u8 = 2;
/// `RTPROT_STATIC`: what the older operator writes with, and others.
const STATIC: u8 = 4;
/// `RTPROT_DHCP`.
const DHCP: u8 = 16;

/// A protocol number with the name that `ip` gives it, for sentences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Protocol(pub u8);

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            1 => "redirect",
            KERNEL => "kernel",
            3 => "boot",
            STATIC => "static",
            9 => "ra",
            11 => "zebra",
            12 => "bird",
            DHCP => "dhcp",
            18 => "keepalived",
            186 => "bgp",
            188 => "ospf",
            number => return write!(f, "protocol {number}"),
        };
        write!(f, "protocol {}, {name}", self.0)
    }
}

/// Where a route of the main table comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteOrigin {
    /// Its protocol number.
    pub protocol: Protocol,
    /// Its gateway; the first one of several.
    pub gateway: Option<Ipv4Addr>,
    /// Whose it seems to be.
    pub author: Author,
}

/// Whose a route seems to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Author {
    /// digitalocean/k8s-staticroute-operator: it marks its routes as nobody's, but they are static ones through a gateway in the
    /// VPC.
    OlderOperator,
    /// DigitalOcean's managed routing agent: its rule or its table is on the node.
    RoutingAgent,
    /// Anybody's.
    Other,
}

impl RouteOrigin {
    /// Judges a route of the main table. `vpc` is the subnet of the node's interface in the VPC.
    pub fn of(protocol: u8, gateway: Option<Ipv4Addr>, vpc: Option<Ipv4Net>, routing_agent: bool) -> Self {
        let through_vpc = gateway.is_some_and(|gateway| vpc.is_some_and(|subnet| subnet.contains(&gateway)));
        let author = match protocol {
            KERNEL | DHCP => Author::Other,
            _ if through_vpc && routing_agent => Author::RoutingAgent,
            STATIC if through_vpc => Author::OlderOperator,
            _ => Author::Other,
        };
        Self { protocol: Protocol(protocol), gateway, author }
    }

    /// Whether the kernel made it for a link's own subnet.
    pub fn is_kernels(&self) -> bool {
        self.protocol == Protocol(KERNEL)
    }
}

impl fmt::Display for RouteOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "table main, {}", self.protocol)?;
        if let Some(gateway) = self.gateway {
            write!(f, ", via {gateway}")?;
        }
        match self.author {
            Author::OlderOperator => f.write_str(": the older StaticRoute operator, it seems"),
            Author::RoutingAgent => f.write_str(": DigitalOcean's routing agent, it seems"),
            Author::Other => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_operator_and_the_routing_agent_are_told_by_their_marks() {
        let vpc = Some("10.116.0.0/20".parse().unwrap());
        let of = |protocol, gateway: &str, agent| {
            RouteOrigin::of(protocol, Some(gateway.parse().unwrap()), vpc, agent).to_string()
        };
        assert_eq!(
            of(4, "10.116.0.5", false),
            "table main, protocol 4, static, via 10.116.0.5: the older StaticRoute operator, it seems"
        );
        assert_eq!(
            of(4, "10.116.0.5", true),
            "table main, protocol 4, static, via 10.116.0.5: DigitalOcean's routing agent, it seems"
        );
        assert_eq!(of(4, "203.0.113.1", false), "table main, protocol 4, static, via 203.0.113.1");
        assert_eq!(of(250, "10.116.0.5", false), "table main, protocol 250, via 10.116.0.5");
        assert_eq!(RouteOrigin::of(2, None, vpc, true).to_string(), "table main, protocol 2, kernel");
    }
}
