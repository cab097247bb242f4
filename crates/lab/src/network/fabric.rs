//! The fabric between the machines, the provider's services and the internet.

use std::net::Ipv4Addr;
use std::path::Path;

use super::addresses::{
    ANCHORS, API_SERVER, CLOUD_API, METADATA, NODES, PRIVATE_RANGES, PUBLIC_GATEWAY, PUBLIC_GATEWAY_MAC,
    PUBLIC_PREFIX, PUBLIC_SEGMENT, RESOLVERS, STRANGER, VPC, VPC_GATEWAY, VPC_PREFIX,
};
use super::{CLOUD, INTERNET, PROVIDER, ports, reserved, walls};
use crate::error::Result;
use crate::netns;
use crate::state::{LabName, Variant};

/// Transfer networks between the fabric and its two neighbours; never seen by a machine.
const TO_INTERNET: (&str, &str) = ("100.127.0.1", "100.127.0.2");
const TO_PROVIDER: (&str, &str) = ("100.127.1.1", "100.127.1.2");

/// Connects and configures the namespaces of fabric, internet and provider.
pub fn build(name: &LabName, variant: Variant) -> Result<()> {
    let [cloud, internet, provider] = [CLOUD, INTERNET, PROVIDER].map(|part| name.namespace(part));
    netns::ip_batch(&cloud, &links(&internet, &provider, variant))?;
    netns::ip_batch(&internet, &internet_side())?;
    netns::ip_batch(&provider, &provider_side())?;
    let router = [
        ("ipv4/ip_forward", "1"),
        ("ipv4/conf/all/rp_filter", "0"),
        ("ipv4/conf/pub/rp_filter", "0"),
        ("ipv4/conf/vpc/rp_filter", "0"),
        ("ipv4/conf/anchor/rp_filter", "0"),
        ("ipv4/conf/anchor/send_redirects", "0"),
        // Two gateways on one segment: each answers for its own address only.
        ("ipv4/conf/pub/arp_ignore", "1"),
        ("ipv4/conf/anchor/arp_ignore", "1"),
        ("ipv4/neigh/pub/proxy_delay", "0"),
        ("ipv4/conf/anchor/arp_announce", "2"),
        ("ipv4/conf/pub/arp_announce", "2"),
        ("ipv4/conf/internet/rp_filter", "0"),
        ("ipv4/conf/provider/rp_filter", "0"),
        ("ipv4/conf/all/send_redirects", "0"),
        ("ipv4/conf/vpc/send_redirects", "0"),
        ("ipv4/conf/pub/send_redirects", "0"),
    ];
    netns::sysctl(&cloud, &router)?;
    // What is bridged is no business of the routing rules. The parameter is there only with the module br_netfilter.
    if Path::new("/proc/sys/net/bridge/bridge-nf-call-iptables").exists() {
        netns::sysctl(
            &cloud,
            &[("bridge/bridge-nf-call-iptables", "0"), ("bridge/bridge-nf-call-arptables", "0")],
        )?;
    }
    for outside in [&internet, &provider] {
        netns::sysctl(outside, &[("ipv4/conf/all/rp_filter", "0"), ("ipv4/conf/uplink/rp_filter", "0")])?;
    }
    // It has every address: the one of the transfer network asks for neighbours.
    netns::sysctl(&internet, &[("ipv4/conf/uplink/arp_announce", "2")])?;
    netns::nft(&cloud, &forwarding())?;
    netns::nft(&cloud, &reserved::table())?;
    netns::nft(&cloud, ports::TABLE)?;
    netns::nft(&cloud, walls::CHAINS)
}

/// Public addresses become the provider's: whatever listens there is reached at them, too.
pub fn announce(name: &LabName, addresses: &[Ipv4Addr]) -> Result<()> {
    let own = addresses.iter().map(|address| format!("addr replace {address}/32 dev lo"));
    netns::ip_batch(&name.namespace(PROVIDER), &own.collect::<Vec<_>>())?;
    let routes = addresses.iter().map(|address| format!("route replace {address}/32 via {}", TO_PROVIDER.1));
    netns::ip_batch(&name.namespace(CLOUD), &routes.collect::<Vec<_>>())
}

/// Makes addresses of the internet swallow what is sent to them, until [`end_silence`].
pub fn silence(name: &LabName, addresses: &[Ipv4Addr]) -> Result<()> {
    let list: Vec<_> = addresses.iter().map(Ipv4Addr::to_string).collect();
    netns::nft(&name.namespace(CLOUD), &format!("add element ip fabric silent {{ {} }}\n", list.join(", ")))
}

/// They answer again.
pub fn end_silence(name: &LabName) -> Result<()> {
    netns::nft(&name.namespace(CLOUD), "flush set ip fabric silent\n")
}

/// Ends [`announce`]: they are the internet's again.
pub fn withdraw(name: &LabName, addresses: &[Ipv4Addr]) -> Result<()> {
    let routes = addresses.iter().map(|address| format!("route del {address}/32"));
    netns::ip_batch(&name.namespace(CLOUD), &routes.collect::<Vec<_>>())?;
    let own = addresses.iter().map(|address| format!("addr del {address}/32 dev lo"));
    netns::ip_batch(&name.namespace(PROVIDER), &own.collect::<Vec<_>>())
}

/// Bridges and transfer links, as seen from the fabric.
fn links(internet: &str, provider: &str, variant: Variant) -> Vec<String> {
    let mut lines = vec![
        "link set lo up".to_owned(),
        // With an address of their own: a bridge otherwise takes that of a port, and changes it when that machine dies, so that
        // for the others the provider's gateway is gone until they ask for its address again.
        format!(
            "link add pub address {PUBLIC_GATEWAY_MAC} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"
        ),
        "link add vpc address 02:00:00:00:00:02 type bridge stp_state 0 forward_delay 0 mcast_snooping 0"
            .to_owned(),
        format!("link add internet type veth peer name uplink netns {internet}"),
        format!("link add provider type veth peer name uplink netns {provider}"),
        format!("addr add {PUBLIC_GATEWAY}/{PUBLIC_PREFIX} dev pub"),
        format!("addr add {VPC_GATEWAY}/{VPC_PREFIX} dev vpc"),
        format!("addr add {}/30 dev internet", TO_INTERNET.0),
        format!("addr add {}/30 dev provider", TO_PROVIDER.0),
    ];
    lines.extend(["pub", "vpc", "internet", "provider"].map(|link| format!("link set {link} up")));
    lines.extend(reserved::links());
    lines.push(format!("route add default via {}", TO_INTERNET.1));
    let own = [API_SERVER, CLOUD_API, METADATA].into_iter().chain(RESOLVERS);
    lines.extend(own.map(|address| format!("route add {address}/32 via {}", TO_PROVIDER.1)));
    if variant == Variant::VpcNative {
        lines.extend(NODES.iter().map(|node| format!("route add {}/24 via {} dev vpc", node.pods, node.vpc)));
    }
    lines
}

/// The internet owns every address that it has no better route for.
fn internet_side() -> Vec<String> {
    vec![
        "link set lo up".into(),
        "link set uplink up".into(),
        format!("addr add {}/30 dev uplink", TO_INTERNET.1),
        format!("addr add {STRANGER}/32 dev lo"),
        format!("route add {PUBLIC_SEGMENT} via {} src {STRANGER}", TO_INTERNET.0),
        // In the table local, where the kernel looks when it asks whether it may answer from an address; the way back to
        // the machines comes before it.
        format!("rule add pref 10 to {PUBLIC_SEGMENT} lookup main"),
        format!("rule add pref 11 to {}/32 lookup main", TO_INTERNET.0),
        "rule add pref 20 lookup local".into(),
        "rule del pref 0".into(),
        "route add local default dev lo table local".into(),
    ]
}

fn provider_side() -> Vec<String> {
    let mut lines = vec![
        "link set lo up".to_owned(),
        "link set uplink up".to_owned(),
        format!("addr add {}/30 dev uplink", TO_PROVIDER.1),
    ];
    let own = [API_SERVER, CLOUD_API, METADATA].into_iter().chain(RESOLVERS);
    lines.extend(own.map(|address| format!("addr add {address}/32 dev lo")));
    lines.push(format!("route add {PUBLIC_SEGMENT} via {} src {API_SERVER}", TO_PROVIDER.0));
    // Only answers of the metadata service go there; the fabric drops everything else.
    lines.extend(
        [VPC, ANCHORS].map(|range| format!("route add {range} via {} src {METADATA}", TO_PROVIDER.0)),
    );
    lines
}

/// What the fabric routes, and the count of every packet that leaves for the internet or the provider's services by source and
/// destination. The count has a rule of its own: a full set must not stop packets.
fn forwarding() -> String {
    let reserved = reserved::forwarding();
    format!(
        r#"table ip fabric {{
  set packets {{
    typeof ip saddr . ip daddr . ip protocol
    flags dynamic
    size 65535
    counter
  }}
  set silent {{
    type ipv4_addr
  }}
  set private {{
    type ipv4_addr
    flags interval
    elements = {{ {PRIVATE_RANGES} }}
  }}
  chain forward {{
    type filter hook forward priority filter; policy drop;
    ip daddr @silent counter drop
    oifname "provider" ip daddr {METADATA} tcp dport 80 accept
    iifname "provider" ip saddr {METADATA} tcp sport 80 accept
{reserved}    iifname "vpc" oifname "vpc" accept
    iifname "vpc" counter drop
    oifname {{ "internet", "provider" }} ip saddr {PUBLIC_SEGMENT} ip daddr != @private update @packets {{ ip saddr . ip daddr . ip protocol counter }}
    oifname {{ "internet", "provider" }} ip saddr {PUBLIC_SEGMENT} ip daddr != @private accept
    iifname {{ "internet", "provider" }} oifname "pub" ip saddr != @private accept
    counter drop
  }}
}}
"#
    )
}
