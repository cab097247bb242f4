//! DigitalOcean's packet rules, and faults, at the bridge ports of the machines.
//!
//! Documented is that traffic "not matching a Droplet's IP address/MAC address" is dropped; read with the working gateway guides:
//! - on the public port a machine may send only with its own public or anchor address;
//! - on its VPC port only with its VPC address; a Droplet that forwards also with sources of the internet (its replies to
//!   nodes); a node of a VPC-native cluster also with its pods' addresses;
//! - there is no IPv6.
//!
//! Faults ([`super::port_faults`]) and cloud firewalls ([`super::walls`]) act at the same ports.

use std::fmt::Write;
use std::net::Ipv4Addr;

use super::addresses::PRIVATE_RANGES;
use super::port_faults;

/// The table, empty of machines. Ports that are in no chain are the fabric's own.
pub(super) const TABLE: &str = r"table bridge ports {
  set from_machine_cut { type ifname; }
  set to_machine_cut { type ifname; }
  map from_machine_faults { type ifname : verdict; }
  map to_machine_faults { type ifname : verdict; }
  set parted { type ifname . ether_addr; }
  set also_from { type ifname . ipv4_addr; }
  map machines { type ifname : verdict; }
  chain from_machine {
    type filter hook prerouting priority -300; policy accept;
    iifname @from_machine_cut counter drop
    iifname . ether daddr @parted counter drop
    iifname vmap @from_machine_faults
    iifname . ip saddr @also_from accept
    iifname vmap @machines
  }
  chain to_machine {
    type filter hook postrouting priority 300; policy accept;
    oifname @to_machine_cut counter drop
    oifname vmap @to_machine_faults
    ether type ip6 drop
  }
}
";

/// Which of a machine's two links.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum Side {
    /// eth0.
    Public,
    /// eth1.
    Vpc,
}

impl Side {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Public, Self::Vpc];
}

/// A direction, as the machine sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum Direction {
    /// Towards the machine.
    In,
    /// From the machine.
    Out,
}

/// Name of the bridge port of a machine. `machine` is a node's or hand-made gateway's name, or `d<id>` of a Droplet.
pub fn port(machine: &str, side: Side) -> String {
    match side {
        Side::Public => format!("{machine}-pub"),
        Side::Vpc => format!("{machine}-vpc"),
    }
}

/// What a port lets its machine send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// The machine's hardware address on that link.
    pub mac: String,
    /// Sources it may use, as elements of an nftables set.
    pub sources: Vec<String>,
    /// Whether sources of the internet pass as well: a Droplet's replies on the VPC side.
    pub internet_sources: bool,
}

impl Rules {
    /// Only these addresses.
    pub fn own(mac: &str, addresses: &[Ipv4Addr]) -> Self {
        let sources = addresses.iter().map(Ipv4Addr::to_string).collect();
        Self { mac: mac.to_owned(), sources, internet_sources: false }
    }
}

/// The transaction that puts rules on a port.
pub fn script(port: &str, rules: &Rules) -> String {
    let mut text = String::new();
    let mut rule = |words: String| {
        // Writing to a String cannot fail.
        let _written = writeln!(text, "{words}");
    };
    rule(format!("add chain bridge ports {port}"));
    rule(format!("flush chain bridge ports {port}"));
    rule(format!("add rule bridge ports {port} ether saddr != {} counter drop", rules.mac));
    rule(format!("add rule bridge ports {port} ether type arp accept"));
    rule(format!("add rule bridge ports {port} ip saddr {{ {} }} accept", rules.sources.join(", ")));
    if rules.internet_sources {
        rule(format!("add rule bridge ports {port} ip saddr != {{ {PRIVATE_RANGES} }} accept"));
    }
    rule(format!("add rule bridge ports {port} ether type ip6 drop"));
    rule(format!("add rule bridge ports {port} counter drop"));
    rule(format!("add element bridge ports machines {{ \"{port}\" : jump {port} }}"));
    text
}

/// The transaction that forgets a port, whether or not it has rules: what is added first is there to be deleted.
pub fn removal(port: &str) -> String {
    let mut text = format!(
        "add chain bridge ports {port}\n\
         add element bridge ports machines {{ \"{port}\" : jump {port} }}\n\
         delete element bridge ports machines {{ \"{port}\" }}\n\
         flush chain bridge ports {port}\n\
         delete chain bridge ports {port}\n"
    );
    text.push_str(&port_faults::end_script(port));
    text
}
