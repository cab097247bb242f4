//! Cloud firewalls at the bridge ports of the machines: outside of them, where nothing that they do changes it.
//!
//! True to DigitalOcean (docs.digitalocean.com, "Firewalls Limits"; "VPC features"): a firewall judges the public and the VPC
//! side alike, at the port, so also what a gateway forwards; it keeps state, so answers to what it let through pass, whatever the
//! rules have become meanwhile; only TCP, UDP and ICMP can be let through. The metadata service is no business of it.
//!
//! The bridge has its own memory of what was let through, a set for each port: the kernel's table of connections can be asked there
//! only where it was built for that, and it would know one connection where two machines' firewalls have each to know theirs.
//!
//! Rules are the port's, not the link's: a machine that is off, or reboots, comes back to them.

use std::fmt::Write;

use ipnet::Ipv4Net;
use serde::Deserialize;

use super::CLOUD;
use super::addresses::METADATA;
use super::ports::{Direction, Side, port};
use crate::error::Result;
use crate::netns;
use crate::state::LabName;

/// Part of the table of port rules: behind the rules of who may send what, and before the faults of what arrives.
pub(super) const CHAINS: &str = r"table bridge walls {
  map wall_out { type ifname : verdict; }
  map wall_in { type ifname : verdict; }
  chain through_walls_out {
    type filter hook prerouting priority -200; policy accept;
    iifname vmap @wall_out
  }
  chain through_walls_in {
    type filter hook postrouting priority 200; policy accept;
    oifname vmap @wall_in
  }
}
";

/// What the firewalls of a machine let through, in the shape of the machine hook (docs/architecture.md).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Passes {
    /// What may come in.
    pub inbound: Vec<Pass>,
    /// What may go out.
    pub outbound: Vec<Pass>,
}

/// What may pass by one rule.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Pass {
    /// Which packets.
    pub protocol: Protocol,
    /// A port, a range of ports, or `0` for all.
    pub ports: String,
    /// From whom (inbound) or to whom (outbound); never empty.
    pub addresses: Vec<Ipv4Net>,
}

/// What a firewall can tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP.
    Icmp,
}

/// Puts up the firewall of a machine, or takes it down: without one everything passes. Connections that were let through stay.
pub fn put_up(name: &LabName, machine: &str, passes: Option<&Passes>) -> Result<()> {
    let one_side = |side| {
        let port = port(machine, side);
        passes.map_or_else(|| removal(&port), |passes| script(&port, passes))
    };
    netns::nft(&name.namespace(CLOUD), &Side::ALL.map(one_side).concat())
}

impl Direction {
    const fn wall(self) -> (&'static str, &'static str) {
        match self {
            Self::In => ("wall_in", "in"),
            Self::Out => ("wall_out", "out"),
        }
    }

    /// What names a connection by the machine's side first, in nftables' words.
    const fn connection(self) -> &'static str {
        match self {
            Self::In => "ip daddr . ip saddr . meta l4proto . th dport . th sport",
            Self::Out => "ip saddr . ip daddr . meta l4proto . th sport . th dport",
        }
    }

    const fn pair(self) -> &'static str {
        match self {
            Self::In => "ip daddr . ip saddr",
            Self::Out => "ip saddr . ip daddr",
        }
    }

    const fn other_side(self) -> &'static str {
        match self {
            Self::In => "ip saddr",
            Self::Out => "ip daddr",
        }
    }
}

/// The transaction that makes a port let through this and no more.
fn script(port: &str, passes: &Passes) -> String {
    let mut text = sets(port);
    for (direction, passes) in [(Direction::In, &passes.inbound), (Direction::Out, &passes.outbound)] {
        let (map, way) = direction.wall();
        let (chain, admit) = (format!("{port}-{way}"), format!("{port}-{way}-admit"));
        let (connection, pair) = (direction.connection(), direction.pair());
        let mut line = |words: String| {
            // Writing to a String cannot fail.
            let _written = writeln!(text, "{words}");
        };
        for chain in [&admit, &chain] {
            line(format!("add chain bridge walls {chain}"));
            line(format!("flush chain bridge walls {chain}"));
        }
        // In rules of their own: a full set must not stop packets.
        let rule = |chain: &str, words: &str| format!("add rule bridge walls {chain} {words}");
        line(rule(&admit, &format!("meta l4proto {{ tcp, udp }} update @{port}-open {{ {connection} }}")));
        line(rule(&admit, &format!("icmp type echo-request update @{port}-pinged {{ {pair} }}")));
        line(rule(&admit, "accept"));

        line(rule(&chain, "ether type != ip accept"));
        line(rule(&chain, &format!("{} {METADATA} accept", direction.other_side())));
        // The rest of a packet whose beginning was judged; without that it is nothing.
        line(rule(&chain, "ip frag-off & 0x1fff != 0 accept"));
        line(rule(&chain, &format!("meta l4proto {{ tcp, udp }} {connection} @{port}-open goto {admit}")));
        line(rule(&chain, &format!("icmp type echo-reply {pair} @{port}-pinged accept")));
        line(rule(&chain, "icmp type { destination-unreachable, time-exceeded, parameter-problem } accept"));
        for pass in passes {
            line(rule(&chain, &format!("{} goto {admit}", pass.matches(direction))));
        }
        line(rule(&chain, "counter drop"));
        line(format!("add element bridge walls {map} {{ \"{port}\" : jump {chain} }}"));
    }
    text
}

/// A port's memory of what was let through: connections, and who was asked for an echo. What is quiet for so long is forgotten.
fn sets(port: &str) -> String {
    format!(
        "add set bridge walls {port}-open {{ type ipv4_addr . ipv4_addr . inet_proto . inet_service . inet_service; \
         flags dynamic,timeout; size 1000000; timeout 1h; }}\n\
         add set bridge walls {port}-pinged {{ type ipv4_addr . ipv4_addr; flags dynamic,timeout; size 65536; timeout 1m; }}\n"
    )
}

/// The transaction that leaves nothing of a port's wall, whether or not there is one: what is added first is there to be deleted.
fn removal(port: &str) -> String {
    let mut text = sets(port);
    for direction in [Direction::In, Direction::Out] {
        let (map, way) = direction.wall();
        let (chain, admit) = (format!("{port}-{way}"), format!("{port}-{way}-admit"));
        for line in [
            format!("add chain bridge walls {admit}"),
            format!("add chain bridge walls {chain}"),
            format!("add element bridge walls {map} {{ \"{port}\" : jump {chain} }}"),
            format!("delete element bridge walls {map} {{ \"{port}\" }}"),
            format!("flush chain bridge walls {chain}"),
            format!("delete chain bridge walls {chain}"),
            format!("flush chain bridge walls {admit}"),
            format!("delete chain bridge walls {admit}"),
        ] {
            // Writing to a String cannot fail.
            let _written = writeln!(text, "{line}");
        }
    }
    text + &format!("delete set bridge walls {port}-open\ndelete set bridge walls {port}-pinged\n")
}

impl Pass {
    /// What it is about, in nftables' words.
    fn matches(&self, direction: Direction) -> String {
        // Ranges of a set must not overlap.
        let addresses: Vec<String> =
            Ipv4Net::aggregate(&self.addresses).iter().map(Ipv4Net::to_string).collect();
        let protocol = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Icmp => "icmp",
        };
        let packets = match self.ports.as_str() {
            "0" => format!("meta l4proto {protocol}"),
            ports => format!("{protocol} dport {ports}"),
        };
        format!("{} {{ {} }} {packets}", direction.other_side(), addresses.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_names_the_other_side_its_protocol_and_ports() {
        let pass = |protocol, ports: &str, addresses: &[&str]| Pass {
            protocol,
            ports: ports.into(),
            addresses: addresses.iter().map(|one| one.parse().unwrap()).collect(),
        };
        for (pass, direction, words) in [
            (
                pass(Protocol::Tcp, "9181", &["203.0.113.21/32"]),
                Direction::In,
                "ip saddr { 203.0.113.21/32 } tcp dport 9181",
            ),
            (
                pass(Protocol::Udp, "1-9", &["10.116.0.0/20", "10.116.0.5/32", "192.0.2.1/32"]),
                Direction::Out,
                "ip daddr { 10.116.0.0/20, 192.0.2.1/32 } udp dport 1-9",
            ),
            (
                pass(Protocol::Icmp, "0", &["0.0.0.0/0"]),
                Direction::In,
                "ip saddr { 0.0.0.0/0 } meta l4proto icmp",
            ),
        ] {
            assert_eq!(pass.matches(direction), words);
        }
    }

    #[test]
    fn both_ways_end_in_a_drop() {
        let text = script("d7-pub", &Passes { inbound: Vec::new(), outbound: Vec::new() });
        for chain in ["d7-pub-in", "d7-pub-out"] {
            let mut rules =
                text.lines().filter(|line| line.starts_with(&format!("add rule bridge walls {chain} ")));
            assert_eq!(
                rules.next_back(),
                Some(format!("add rule bridge walls {chain} counter drop").as_str())
            );
        }
    }
}
