//! Addresses and MACs of Droplets.
//!
//! Responsibility: pools and their allocation. Invariant: allocation goes round the pool, so a replaced Droplet gets
//! another address than its predecessor as long as the pool has one, and never one that is in use.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// One address of a Droplet and the segment it is in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// The address.
    pub address: Ipv4Addr,
    /// Prefix length of the segment.
    pub prefix: u8,
    /// Gateway of the segment.
    pub gateway: Ipv4Addr,
    /// MAC of the interface; an anchor address has none of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
}

impl Interface {
    /// Dotted netmask, as the API writes it.
    pub fn netmask(&self) -> String {
        Ipv4Net::new(self.address, self.prefix).map(|net| net.netmask().to_string()).unwrap_or_default()
    }

    pub(super) fn network_json(&self, kind: &str) -> Value {
        json!({
            "ip_address": self.address, "netmask": self.netmask(), "gateway": self.gateway.to_string(), "type": kind,
        })
    }
}

/// A range of addresses in one segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// The segment.
    pub range: Ipv4Net,
    /// First address to hand out.
    pub first: Ipv4Addr,
    /// Last address to hand out.
    pub last: Ipv4Addr,
    /// Gateway of the segment.
    pub gateway: Ipv4Addr,
    /// Where the next search begins; `first` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Ipv4Addr>,
}

impl Pool {
    /// Hosts 100 and up of a segment whose gateway is host 1.
    pub fn of(range: Ipv4Net) -> Self {
        let host = |n: u32| Ipv4Addr::from(u32::from(range.network()).saturating_add(n));
        let last = Ipv4Addr::from(u32::from(range.broadcast()).saturating_sub(1));
        let first = if range.contains(&host(100)) { host(100) } else { host(2) };
        Self { range, first, last, gateway: host(1), next: None }
    }

    /// The next free address, or `None` when all are taken.
    pub fn take(&mut self, taken: &BTreeSet<Ipv4Addr>) -> Option<Ipv4Addr> {
        let (first, last) = (u32::from(self.first), u32::from(self.last));
        let start = self.next.map_or(first, u32::from).clamp(first, last.max(first));
        let found = (start..=last)
            .chain(first..start)
            .map(Ipv4Addr::from)
            .find(|address| !taken.contains(address))?;
        let following = u32::from(found) + 1;
        self.next = Some(Ipv4Addr::from(if following > last { first } else { following }));
        Some(found)
    }

    pub(super) fn interface(&self, address: Ipv4Addr, mac: Option<String>) -> Interface {
        Interface { address, prefix: self.range.prefix_len(), gateway: self.gateway, mac }
    }
}

/// Where addresses come from. The VPC pools live in the VPCs.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pools {
    /// Public addresses of Droplets.
    #[serde(default = "public")]
    pub public: Pool,
    /// Reserved IPs; they lie in the same public segment.
    #[serde(default = "reserved")]
    pub reserved: Pool,
    /// Anchor addresses. One range for all regions (really each region has its own `10.<n>.0.0/16`); nothing depends
    /// on which.
    #[serde(default = "anchor")]
    pub anchor: Pool,
}

fn segment(range: [u8; 4], prefix: u8) -> Ipv4Net {
    Ipv4Net::new(range.into(), prefix).unwrap_or_default()
}

fn public() -> Pool {
    let range = segment([203, 0, 113, 0], 24);
    Pool { last: Ipv4Addr::new(203, 0, 113, 199), ..Pool::of(range) }
}

fn reserved() -> Pool {
    let range = segment([203, 0, 113, 0], 24);
    Pool { first: Ipv4Addr::new(203, 0, 113, 200), last: Ipv4Addr::new(203, 0, 113, 249), ..Pool::of(range) }
}

fn anchor() -> Pool {
    Pool::of(segment([10, 17, 0, 0], 16))
}

impl Default for Pools {
    fn default() -> Self {
        Self { public: public(), reserved: reserved(), anchor: anchor() }
    }
}

/// A stable, locally administered MAC: `role` tells the interface, the rest is the Droplet id.
pub(super) fn mac(role: u8, droplet: u64) -> String {
    let [.., a, b, c, d] = droplet.to_be_bytes();
    format!("02:{role:02x}:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}
