//! Reserved addresses: what is sent to one arrives at its holder's anchor address, and what leaves from there through the anchor
//! gateway has the reserved one outside.
//!
//! Documented is (docs.digitalocean.com, "Outbound traffic from a Reserved IP") that a Droplet leaves with its reserved address if, and
//! only if, it sends with its anchor address through the anchor gateway; that without a reserved address nothing leaves that way is
//! what public scripts take for granted. The gateway is a machine of its own on the segment, so that a Droplet that sends to the other
//! one is found out.
//!
//! The translation keeps no memory: an address that moves takes its connections along from one packet to the next. What an error of a
//! router quotes is not translated.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use serde::Deserialize;

use super::CLOUD;
use super::addresses::{ANCHOR_GATEWAY, ANCHORS, PUBLIC_SEGMENT, RESERVED};
use crate::error::Result;
use crate::netns;
use crate::state::LabName;

/// A reserved address that has a holder, in the shape of the machine hook (docs/architecture.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Translation {
    /// The reserved address.
    pub ip: Ipv4Addr,
    /// The holder's anchor address.
    pub anchor: Ipv4Addr,
}

/// Links and routes of the anchor gateway, as seen from the fabric.
pub(super) fn links() -> Vec<String> {
    let mut lines = vec![
        // With a hardware address of its own on the segment.
        "link add anchor address 02:00:00:00:00:03 type veth peer name anchor-port".to_owned(),
        "link set anchor-port master pub".to_owned(),
        format!("addr add {ANCHOR_GATEWAY}/16 dev anchor"),
        "link set anchor-port up".to_owned(),
        "link set anchor up".to_owned(),
    ];
    // Machines of the segment take them for neighbours: the provider's gateway answers for them.
    let [.., first] = RESERVED.0.octets();
    let [a, b, c, last] = RESERVED.1.octets();
    for host in first..=last {
        let ip = Ipv4Addr::new(a, b, c, host);
        lines.push(format!("route add {ip}/32 dev anchor"));
        lines.push(format!("neigh add proxy {ip} dev pub"));
    }
    lines
}

/// The table of translations, empty.
pub(super) fn table() -> String {
    let (first, last) = RESERVED;
    format!(
        r#"table ip reserved {{
  map outside {{
    type ipv4_addr : ipv4_addr
  }}
  map holders {{
    type ipv4_addr : ipv4_addr
  }}
  chain prerouting {{
    type filter hook prerouting priority raw; policy accept;
    iifname "anchor" ip saddr != {ANCHORS} counter drop
    iifname "anchor" ip saddr set ip saddr map @outside
    ip daddr {first}-{last} meta mark set {TRANSLATED}
    ip daddr set ip daddr map @holders
  }}
}}
"#
    )
}

/// Mark of packets to a reserved address: what is sent to an anchor address itself never arrives.
const TRANSLATED: u32 = 0x0a17;

/// Rules of the fabric for what comes from and goes to anchor addresses.
pub(super) fn forwarding() -> String {
    format!(
        r#"    oifname "anchor" ip daddr {ANCHORS} meta mark {TRANSLATED} accept
    oifname "anchor" counter drop
    iifname "anchor" oifname "pub" ip saddr {PUBLIC_SEGMENT} ip daddr {PUBLIC_SEGMENT} accept
"#
    )
}

/// Translates these from now on, and nothing else: an address moves in one step.
pub fn translate(name: &LabName, translations: &[Translation]) -> Result<()> {
    netns::nft(&name.namespace(CLOUD), &script(translations))
}

fn script(translations: &[Translation]) -> String {
    let mut text = "flush map ip reserved outside\nflush map ip reserved holders\n".to_owned();
    for Translation { ip, anchor } in translations {
        // Writing to a String cannot fail.
        let _written = writeln!(text, "add element ip reserved outside {{ {anchor} : {ip} }}");
        let _written = writeln!(text, "add element ip reserved holders {{ {ip} : {anchor} }}");
    }
    text
}
