//! Rules of a firewall: read, validated and shown.
//!
//! The real API's words are used where they were seen: `invalid port range`, `invalid address`, `tag x does not exist`.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::super::Refusal;

/// Most rules of one firewall, inbound and outbound together (docs.digitalocean.com, "Firewalls Limits").
const MOST_RULES: usize = 50;
/// Most entries in the sources or destinations of one rule (the same).
const MOST_PEERS: usize = 1_000;

/// Which side of a Droplet a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    In,
    Out,
}

impl Way {
    pub(super) const fn list(self) -> &'static str {
        match self {
            Self::In => "inbound_rules",
            Self::Out => "outbound_rules",
        }
    }

    const fn peers(self) -> &'static str {
        match self {
            Self::In => "sources",
            Self::Out => "destinations",
        }
    }
}

/// What a rule can tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP, all types.
    Icmp,
}

/// Who is on the other side of a rule; none of them is nobody.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Peers {
    /// Addresses and ranges, as they were sent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    /// Droplets by id.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub droplet_ids: Vec<u64>,
    /// Load balancers. This cloud has none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub load_balancer_uids: Vec<String>,
    /// Kubernetes clusters: their nodes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kubernetes_ids: Vec<String>,
    /// Droplets by tag.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Rule {
    /// Which packets.
    pub protocol: Protocol,
    /// First and last port; 0 to 65535 for all, and for ICMP.
    pub ports: (u16, u16),
    /// From or to whom.
    pub peers: Peers,
}

const ALL_PORTS: (u16, u16) = (0, u16::MAX);

impl Rule {
    /// The ports as the API shows them: `0` is all.
    pub(super) fn shown_ports(&self) -> String {
        match self.ports {
            ALL_PORTS => "0".into(),
            (first, last) if first == last => first.to_string(),
            (first, last) => format!("{first}-{last}"),
        }
    }

    pub(super) fn shown(&self, way: Way) -> Value {
        json!({"protocol": self.protocol, "ports": self.shown_ports(), way.peers(): self.peers})
    }

    fn read(value: &Value, way: Way) -> Result<Self, Refusal> {
        let protocol = serde_json::from_value(value["protocol"].clone())
            .map_err(|_| Refusal::unprocessable("invalid protocol"))?;
        let mut peers = read_peers(&value[way.peers()])?;
        peers.addresses.sort();
        Ok(Self { protocol, ports: read_ports(protocol, &value["ports"])?, peers })
    }
}

/// Clients leave the ports out for ICMP, and say `all` or `1-65535` for all.
fn read_ports(protocol: Protocol, ports: &Value) -> Result<(u16, u16), Refusal> {
    let invalid = || Refusal::unprocessable("invalid port range");
    let text = match (protocol, ports) {
        (Protocol::Icmp, _) => return Ok(ALL_PORTS),
        (_, Value::String(text)) => text.as_str(),
        _ => return Err(invalid()),
    };
    if ["0", "all", "1-65535"].contains(&text) {
        return Ok(ALL_PORTS);
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.parse::<u16>(), last.parse::<u16>()) {
        (Ok(first), Ok(last)) if 0 < first && first <= last => Ok((first, last)),
        _ => Err(invalid()),
    }
}

fn read_peers(value: &Value) -> Result<Peers, Refusal> {
    const KINDS: [&str; 5] = ["addresses", "droplet_ids", "load_balancer_uids", "kubernetes_ids", "tags"];
    let object =
        value.as_object().ok_or_else(|| Refusal::unprocessable("a rule needs sources or destinations"))?;
    if let Some(unknown) = object.keys().find(|key| !KINDS.contains(&key.as_str())) {
        return Err(Refusal::unprocessable(format!("{unknown} is not a kind of source or destination")));
    }
    // Official clients send null for a list that they leave empty.
    let given: Map<String, Value> = object
        .iter()
        .filter(|(_, list)| !list.is_null())
        .map(|(kind, list)| (kind.clone(), list.clone()))
        .collect();
    let peers: Peers = serde_json::from_value(Value::Object(given))
        .map_err(|_| Refusal::unprocessable("invalid sources or destinations"))?;
    if !peers.addresses.iter().all(|text| range(text).is_some()) {
        return Err(Refusal::unprocessable("invalid address"));
    }
    let count = [
        peers.addresses.len(),
        peers.droplet_ids.len(),
        peers.load_balancer_uids.len(),
        peers.kubernetes_ids.len(),
        peers.tags.len(),
    ];
    match count.iter().sum() {
        0 => Err(Refusal::unprocessable("a rule needs sources or destinations")),
        1..=MOST_PEERS => Ok(peers),
        _ => Err(Refusal::unprocessable(format!("a rule has at most {MOST_PEERS} sources or destinations"))),
    }
}

/// The range that an address of a rule means.
pub(super) fn range(text: &str) -> Option<IpNet> {
    text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

/// The rules of a body, sorted: their order is not kept, which is why official clients treat them as sets.
pub(super) fn read(body: &Map<String, Value>, way: Way) -> Result<Vec<Rule>, Refusal> {
    let rules = list(body, way.list())?;
    let mut rules = rules.iter().map(|rule| Rule::read(rule, way)).collect::<Result<Vec<_>, _>>()?;
    rules.sort();
    Ok(rules)
}

/// # Errors
/// 422 when a firewall cannot have these rules.
pub(super) fn check(inbound: &[Rule], outbound: &[Rule]) -> Result<(), Refusal> {
    // Both are sorted.
    let twice = |rules: &[Rule]| rules.windows(2).any(|pair| pair[0] == pair[1]);
    if twice(inbound) || twice(outbound) {
        return Err(Refusal::unprocessable("duplicate rule"));
    }
    match inbound.len() + outbound.len() {
        0 => Err(Refusal::unprocessable("a firewall needs at least one inbound or outbound rule")),
        1..=MOST_RULES => Ok(()),
        _ => Err(Refusal::unprocessable(format!("a firewall has at most {MOST_RULES} rules"))),
    }
}

/// A list of a body; nothing and null are empty.
pub(super) fn list(body: &Map<String, Value>, field: &str) -> Result<Vec<Value>, Refusal> {
    match body.get(field) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(values)) => Ok(values.clone()),
        Some(_) => Err(Refusal::BadRequest("error parsing request body".into())),
    }
}
