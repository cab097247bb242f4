//! What the simulator says about a Droplet: the object of `docs/architecture.md`, "The machine hook of the simulator".

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// A Droplet to boot. Unknown fields are ignored: the simulator may say more than a machine needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropletSpec {
    /// Id in the cloud.
    pub id: u64,
    /// Name, which becomes the host name.
    pub name: String,
    /// Image of the cloud it is made from, for example `debian-12-x64`.
    #[serde(default)]
    pub image: String,
    /// cloud-init user data; empty when there is none.
    #[serde(default)]
    pub user_data: String,
    /// Public SSH keys that the Droplet was made with, as lines of an `authorized_keys`.
    #[serde(default)]
    pub ssh_keys: Vec<String>,
    /// Public side.
    pub public: Port,
    /// VPC side.
    pub private: Port,
    /// Anchor address on the public side.
    #[serde(default)]
    pub anchor: Option<Anchor>,
}

/// One interface of a Droplet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Its address.
    pub address: Ipv4Addr,
    /// Prefix length of its network, 0-32.
    pub prefix: u8,
    /// The provider's gateway (public) or the VPC's (private).
    pub gateway: Ipv4Addr,
    /// MAC address, lower case with colons.
    pub mac: String,
}

/// The anchor address, which reserved addresses are translated to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    /// The address.
    pub address: Ipv4Addr,
    /// Prefix length of the anchor network, 0-32.
    pub prefix: u8,
    /// The anchor gateway.
    pub gateway: Ipv4Addr,
}
