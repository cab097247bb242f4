//! The metadata service.
//!
//! Responsibility: what `http://169.254.169.254/metadata/` answers to the Droplet that asks. Pure: the caller is given
//! by its source address, any of its public, private or anchor ones.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use crate::cloud::{Cloud, Droplet, Interface};

/// What the service says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Metadata {
    /// Plain text.
    Text(String),
    /// JSON.
    Json(Value),
    /// The path is an index and lacks its slash.
    MovedTo(String),
    /// No such key, or nobody we know asks.
    NotFound,
}

/// DigitalOcean's resolvers.
const NAMESERVERS: [&str; 2] = ["67.207.67.2", "67.207.67.3"];

enum Node {
    Leaf(String),
    /// An index whose members are not keys of their own, such as the tags.
    Names(Vec<String>),
    Index(Vec<(&'static str, Node)>),
}

/// Answers `path` for the caller at `source`.
pub(crate) fn answer(cloud: &Cloud, source: Ipv4Addr, path: &str) -> Metadata {
    let caller = cloud.droplets.values().find(|droplet| {
        (droplet.exists() || droplet.pending.is_some())
            && droplet.addresses().any(|address| address == source)
    });
    let Some(droplet) = caller else { return Metadata::NotFound };
    match path {
        "/metadata/v1.json" => return Metadata::Json(document(cloud, droplet)),
        "/metadata" => return Metadata::MovedTo("/metadata/".into()),
        "/metadata/" => return Metadata::Text("v1/\nv1.json".into()),
        _ => {}
    }
    let Some(rest) = path.strip_prefix("/metadata/v1") else { return Metadata::NotFound };
    if rest.is_empty() {
        return Metadata::MovedTo(format!("{path}/"));
    }
    let Some(rest) = rest.strip_prefix('/') else { return Metadata::NotFound };
    let (keys, wants_index) = match rest.strip_suffix('/') {
        Some(keys) => (keys, true),
        None => (rest, rest.is_empty()),
    };
    let mut node = tree(cloud, droplet);
    for key in keys.split('/').filter(|key| !key.is_empty()) {
        let Node::Index(members) = node else { return Metadata::NotFound };
        match members.into_iter().find(|(name, _)| *name == key) {
            Some((_, member)) => node = member,
            None => return Metadata::NotFound,
        }
    }
    match node {
        Node::Leaf(_) if wants_index => Metadata::NotFound,
        Node::Leaf(text) => Metadata::Text(text),
        Node::Names(_) | Node::Index(_) if !wants_index => Metadata::MovedTo(format!("{path}/")),
        Node::Names(names) => Metadata::Text(names.join("\n")),
        Node::Index(members) => {
            let lines: Vec<String> = members
                .iter()
                .map(|(name, member)| match member {
                    Node::Leaf(_) => (*name).to_owned(),
                    Node::Names(_) | Node::Index(_) => format!("{name}/"),
                })
                .collect();
            Metadata::Text(lines.join("\n"))
        }
    }
}

fn public_keys(cloud: &Cloud, droplet: &Droplet) -> Vec<String> {
    let keys = cloud.ssh_keys.iter().filter(|key| droplet.ssh_keys.contains(&key.id));
    keys.map(|key| key.public_key.clone()).collect()
}

fn reserved_ip(cloud: &Cloud, droplet: &Droplet) -> Option<Ipv4Addr> {
    cloud.reserved_ips.values().find(|address| address.droplet == Some(droplet.id)).map(|address| address.ip)
}

fn tree(cloud: &Cloud, droplet: &Droplet) -> Node {
    let leaf = |text: &str| Node::Leaf(text.to_owned());
    let tags = droplet.tags.iter().map(|tagged| tagged.name.clone()).collect();
    let mut interfaces = Vec::new();
    if let Some(public) = &droplet.public {
        let anchor = droplet.anchor.as_ref().map(|anchor| ("anchor_ipv4", ipv4_node(anchor)));
        let members = interface_node(public, "public").into_iter().chain(anchor).collect();
        interfaces.push(("public", Node::Index(vec![("0", Node::Index(members))])));
    }
    let private = Node::Index(interface_node(&droplet.private, "private"));
    interfaces.push(("private", Node::Index(vec![("0", private)])));
    let reserved = || {
        let address = reserved_ip(cloud, droplet);
        let mut members = vec![("active", Node::Leaf(address.is_some().to_string()))];
        members.extend(address.map(|address| ("ip_address", Node::Leaf(address.to_string()))));
        Node::Index(vec![("ipv4", Node::Index(members))])
    };
    Node::Index(vec![
        ("id", Node::Leaf(droplet.id.to_string())),
        ("hostname", leaf(&droplet.name)),
        ("user-data", leaf(droplet.user_data.as_deref().unwrap_or_default())),
        ("vendor-data", leaf("")),
        ("public-keys", Node::Leaf(public_keys(cloud, droplet).join("\n"))),
        ("region", leaf(&droplet.region)),
        ("interfaces", Node::Index(interfaces)),
        ("dns", Node::Index(vec![("nameservers", Node::Leaf(NAMESERVERS.join("\n")))])),
        ("floating_ip", reserved()),
        ("reserved_ip", reserved()),
        ("tags", Node::Names(tags)),
        (
            "features",
            Node::Index(vec![("dhcp_enabled", leaf("false")), ("vpc_peering_enabled", leaf("false"))]),
        ),
    ])
}

fn interface_node(interface: &Interface, kind: &str) -> Vec<(&'static str, Node)> {
    vec![
        ("mac", Node::Leaf(interface.mac.clone().unwrap_or_default())),
        ("type", Node::Leaf(kind.to_owned())),
        ("ipv4", ipv4_node(interface)),
    ]
}

fn ipv4_node(interface: &Interface) -> Node {
    Node::Index(vec![
        ("address", Node::Leaf(interface.address.to_string())),
        ("netmask", Node::Leaf(interface.netmask())),
        ("gateway", Node::Leaf(interface.gateway.to_string())),
    ])
}

fn document(cloud: &Cloud, droplet: &Droplet) -> Value {
    let ipv4 = |interface: &Interface| {
        json!({
            "ip_address": interface.address, "netmask": interface.netmask(),
            "gateway": interface.gateway,
        })
    };
    let side = |interface: &Interface, kind: &str| {
        json!({
            "ipv4": ipv4(interface), "mac": interface.mac, "type": kind,
        })
    };
    let mut interfaces = json!({"private": [side(&droplet.private, "private")]});
    if let Some(public) = &droplet.public {
        let mut public = side(public, "public");
        if let Some(anchor) = &droplet.anchor {
            public["anchor_ipv4"] = ipv4(anchor);
        }
        interfaces["public"] = json!([public]);
    }
    let reserved = match reserved_ip(cloud, droplet) {
        Some(address) => json!({"ipv4": {"active": true, "ip_address": address}}),
        None => json!({"ipv4": {"active": false}}),
    };
    json!({
        "droplet_id": droplet.id,
        "hostname": droplet.name,
        "user_data": droplet.user_data.as_deref().unwrap_or_default(),
        "vendor_data": "",
        "public_keys": public_keys(cloud, droplet),
        "auth_key": "",
        "region": droplet.region,
        "interfaces": interfaces,
        "floating_ip": reserved,
        "reserved_ip": reserved,
        "dns": {"nameservers": NAMESERVERS},
        "tags": droplet.tags.iter().map(|tagged| tagged.name.as_str()).collect::<Vec<_>>(),
        "features": {"dhcp_enabled": false, "vpc_peering_enabled": false},
    })
}
