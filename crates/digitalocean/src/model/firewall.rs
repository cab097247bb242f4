//! Cloud firewalls: which packets reach and leave Droplets, judged at their network cards, public and VPC side alike.
//!
//! A firewall applies to the Droplets it names and to those with a tag it names. Several that apply to one Droplet add up;
//! what none of them lets through is dropped; answers to what was let through pass (DigitalOcean, "VPC features"). Ours name
//! Droplets only, by id: a tag can be given to any Droplet by anybody.

use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Deserializer, Serialize};

use super::ids::{DropletId, FirewallId, FirewallName};
use super::lenient;

/// A firewall as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Firewall {
    /// Its identity.
    pub id: FirewallId,
    /// Its name, which proves nothing.
    #[serde(default)]
    pub name: String,
    /// Whether the last change of it acts on packets yet.
    #[serde(default)]
    pub status: FirewallStatus,
    /// Droplets that it names by id.
    #[serde(default, deserialize_with = "lenient::list")]
    pub droplet_ids: Vec<DropletId>,
    /// Tags whose Droplets it applies to; null stands for none of them. `None` when the field is not there, as for a token that
    /// may not see tags.
    #[serde(default, deserialize_with = "lenient::nullable_list")]
    pub tags: Option<Vec<String>>,
    /// What may come in.
    #[serde(default, rename = "inbound_rules", deserialize_with = "rules")]
    pub inbound: Vec<FirewallRule>,
    /// What may go out.
    #[serde(default, rename = "outbound_rules", deserialize_with = "rules")]
    pub outbound: Vec<FirewallRule>,
}

/// How far a change of a firewall has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FirewallStatus {
    /// The cloud is at it.
    Waiting,
    /// It acts on packets.
    Succeeded,
    /// The cloud could not do it.
    Failed,
    /// A word this version does not know, or none.
    #[default]
    #[serde(other)]
    Unknown,
}

/// What a firewall lets through.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FirewallRule {
    /// Which packets.
    pub protocol: Protocol,
    /// To which ports; of no meaning for ICMP.
    pub ports: Ports,
    /// From whom (inbound) or to whom (outbound).
    pub peers: Peers,
}

/// What a firewall can tell apart. Nothing else can be let through: GRE, ESP and SCTP pass no firewalled Droplet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP, all types.
    Icmp,
    /// A word this version does not know.
    #[serde(other)]
    Unknown,
}

/// Ports of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ports {
    /// All. Answers say `0`, clients also `all` or `1-65535`.
    All,
    /// These, both ends included.
    Range(u16, u16),
}

impl Ports {
    /// One port.
    pub fn one(port: u16) -> Self {
        Self::Range(port, port)
    }

    fn read(text: &str) -> Option<Self> {
        let text = text.trim();
        match text {
            "0" | "all" | "1-65535" | "0-65535" | "" => return Some(Self::All),
            _ => {}
        }
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        Some(Self::Range(first.trim().parse().ok()?, last.trim().parse().ok()?))
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("0"),
            Self::Range(first, last) if first == last => first.fmt(f),
            Self::Range(first, last) => write!(f, "{first}-{last}"),
        }
    }
}

/// The other side of a rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Peers {
    /// IPv4 ranges, sorted.
    pub addresses: Vec<Ipv4Net>,
    /// Whether something else is named too: IPv6, a Droplet, a tag, a load balancer, a cluster.
    pub others: bool,
}

impl Peers {
    /// These ranges and nothing else.
    pub fn ranges(ranges: impl IntoIterator<Item = Ipv4Net>) -> Self {
        let mut addresses: Vec<Ipv4Net> = ranges.into_iter().map(|range| range.trunc()).collect();
        addresses.sort_unstable();
        addresses.dedup();
        Self { addresses, others: false }
    }
}

#[derive(Deserialize)]
struct Written {
    protocol: Protocol,
    #[serde(default, deserialize_with = "lenient::optional")]
    ports: Option<String>,
    #[serde(default)]
    sources: serde_json::Value,
    #[serde(default)]
    destinations: serde_json::Value,
}

impl Written {
    fn rule(self, peers: &serde_json::Value) -> Option<FirewallRule> {
        let ports = match self.protocol {
            Protocol::Icmp => Ports::All,
            _ => Ports::read(self.ports.as_deref().unwrap_or_default())?,
        };
        let texts = peers["addresses"].as_array().cloned().unwrap_or_default();
        let read = |text: &serde_json::Value| {
            let text = text.as_str()?;
            text.parse::<Ipv4Net>().ok().or_else(|| text.parse::<Ipv4Addr>().ok().map(Ipv4Net::from))
        };
        let ranges: Vec<Ipv4Net> = texts.iter().filter_map(read).collect();
        let named = ["droplet_ids", "load_balancer_uids", "kubernetes_ids", "tags"];
        let others = ranges.len() < texts.len()
            || named.iter().any(|key| peers[key].as_array().is_some_and(|list| !list.is_empty()));
        Some(FirewallRule {
            protocol: self.protocol,
            ports,
            peers: Peers { others, ..Peers::ranges(ranges) },
        })
    }
}

impl<'de> Deserialize<'de> for FirewallRule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = Written::deserialize(deserializer)?;
        let peers = if written.sources.is_null() { &written.destinations } else { &written.sources }.clone();
        written.rule(&peers).ok_or_else(|| serde::de::Error::custom("unreadable ports"))
    }
}

// A rule that can't be read is one that was not asked for: it stands as a rule that equals none of ours.
fn rules<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<FirewallRule>, D::Error> {
    let values: Option<Vec<serde_json::Value>> = lenient::optional(deserializer)?;
    let unreadable = FirewallRule {
        protocol: Protocol::Unknown,
        ports: Ports::All,
        peers: Peers { addresses: Vec::new(), others: true },
    };
    let read = |value| serde_json::from_value(value).unwrap_or_else(|_| unreadable.clone());
    Ok(values.unwrap_or_default().into_iter().map(read).collect())
}

/// What a firewall is to be: the whole of it, since an update takes away what it does not name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirewallSpec {
    /// Its name. The API refuses one that another firewall of the account has.
    pub name: FirewallName,
    /// Droplets it applies to, which must exist; at most [`MOST_DROPLETS`](Self::MOST_DROPLETS).
    pub droplets: Vec<DropletId>,
    /// What may come in.
    pub inbound: Vec<FirewallRule>,
    /// What may go out.
    pub outbound: Vec<FirewallRule>,
}

impl FirewallSpec {
    /// Most Droplets that one firewall may name (DigitalOcean, "Firewalls limits").
    pub const MOST_DROPLETS: usize = 10;

    /// Whether a firewall is exactly this. Order does not matter.
    pub fn is_met_by(&self, firewall: &Firewall) -> bool {
        let sorted = |rules: &[FirewallRule]| {
            let mut rules = rules.to_vec();
            rules.sort();
            rules.dedup();
            rules
        };
        let set = |droplets: &[DropletId]| droplets.iter().copied().collect::<BTreeSet<DropletId>>();
        firewall.name == self.name.as_str()
            && set(&firewall.droplet_ids) == set(&self.droplets)
            && firewall.tags.iter().flatten().next().is_none()
            && sorted(&firewall.inbound) == sorted(&self.inbound)
            && sorted(&firewall.outbound) == sorted(&self.outbound)
    }
}

#[derive(Serialize)]
struct Body<'a> {
    name: &'a FirewallName,
    droplet_ids: &'a [DropletId],
    tags: [&'static str; 0],
    inbound_rules: Vec<RuleBody<'a>>,
    outbound_rules: Vec<RuleBody<'a>>,
}

#[derive(Serialize)]
struct RuleBody<'a> {
    protocol: Protocol,
    ports: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    sources: Option<PeersBody<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    destinations: Option<PeersBody<'a>>,
}

#[derive(Serialize)]
struct PeersBody<'a> {
    addresses: &'a [Ipv4Net],
}

impl Serialize for FirewallSpec {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let body = |rule: &'_ FirewallRule| (rule.protocol, rule.ports.to_string());
        let inbound = self.inbound.iter().map(|rule| {
            let (protocol, ports) = body(rule);
            let sources = Some(PeersBody { addresses: &rule.peers.addresses });
            RuleBody { protocol, ports, sources, destinations: None }
        });
        let outbound = self.outbound.iter().map(|rule| {
            let (protocol, ports) = body(rule);
            let destinations = Some(PeersBody { addresses: &rule.peers.addresses });
            RuleBody { protocol, ports, sources: None, destinations }
        });
        Body {
            name: &self.name,
            droplet_ids: &self.droplets,
            tags: [],
            inbound_rules: inbound.collect(),
            outbound_rules: outbound.collect(),
        }
        .serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> FirewallSpec {
        let rule = |protocol, ports, range: &str| FirewallRule {
            protocol,
            ports,
            peers: Peers::ranges([range.parse().unwrap()]),
        };
        FirewallSpec {
            name: FirewallName::new("egress-demo-1a2b3c4d").unwrap(),
            droplets: vec![DropletId(7), DropletId(8)],
            inbound: vec![
                rule(Protocol::Tcp, Ports::All, "10.116.0.0/20"),
                rule(Protocol::Icmp, Ports::All, "10.116.0.0/20"),
                rule(Protocol::Tcp, Ports::one(9181), "203.0.113.21/32"),
            ],
            outbound: vec![rule(Protocol::Udp, Ports::All, "0.0.0.0/0")],
        }
    }

    // As the API writes it: other words for the same, in another order.
    const SHOWN: &str = r#"{"id": "bb4b2611-3d72-467b-8602-280330ecd65c", "name": "egress-demo-1a2b3c4d", "status": "waiting",
        "tags": null, "droplet_ids": [8, 7], "inbound_rules": [
            {"protocol": "tcp", "ports": "9181", "sources": {"addresses": ["203.0.113.21"]}},
            {"protocol": "icmp", "ports": "0", "sources": {"addresses": ["10.116.0.0/20"], "tags": []}},
            {"protocol": "tcp", "ports": "1-65535", "sources": {"addresses": ["10.116.0.0/20"]}}],
        "outbound_rules": [{"protocol": "udp", "ports": "all", "destinations": {"addresses": ["0.0.0.0/0"]}}]}"#;

    #[test]
    fn other_words_for_the_same_are_no_drift() {
        let shown: Firewall = serde_json::from_str(SHOWN).unwrap();
        assert!(spec().is_met_by(&shown), "{shown:?}");
    }

    #[test]
    fn null_is_no_tags_and_a_field_that_is_not_there_is_no_word_on_them() {
        let tags = |json: &str| serde_json::from_str::<Firewall>(json).unwrap().tags;
        assert_eq!(tags(SHOWN), Some(Vec::new()));
        assert_eq!(tags(&SHOWN.replacen(r#""tags": null,"#, "", 1)), None);
        assert_eq!(tags(&SHOWN.replacen(r#""tags": null"#, r#""tags": "web""#, 1)), None);
    }

    #[test]
    fn every_kind_of_drift_is_seen() {
        for (from, to) in [
            (r#""name": "egress-demo-"#, r#""name": "my-"#),
            (r#""tags": null"#, r#""tags": ["web"]"#),
            ("[8, 7]", "[8]"),
            ("[8, 7]", "null"),
            ("[8, 7]", "[8, 7, 9]"),
            (r#""9181""#, r#""9181-9182""#),
            (r#""9181""#, r#""ssh""#),
            ("203.0.113.21", "203.0.113.0/24"),
            ("203.0.113.21", "::/0"),
            (r#""tags": []"#, r#""tags": ["web"]"#),
            (r#""protocol": "udp""#, r#""protocol": "sctp""#),
            ("1-65535", "1-65534"),
        ] {
            let drifted: Firewall = serde_json::from_str(&SHOWN.replacen(from, to, 1)).unwrap();
            assert!(!spec().is_met_by(&drifted), "{from} to {to}");
        }
    }

    #[test]
    fn what_is_sent_is_read_back_as_the_same() {
        let mut sent = serde_json::to_value(spec()).unwrap();
        sent["id"] = "bb4b2611".into();
        let read: Firewall = serde_json::from_value(sent).unwrap();
        assert!(spec().is_met_by(&read), "{read:?}");
    }
}
