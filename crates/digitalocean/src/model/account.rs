//! The account, and the addresses it holds.

use std::net::Ipv4Addr;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::ids::{DropletId, RegionSlug};
use super::lenient;

/// The account that the token belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Account {
    /// How many Droplets it may have at once.
    #[serde(default, deserialize_with = "lenient::optional")]
    pub droplet_limit: Option<u64>,
    /// How many reserved IPs it may have (the API's old name for them).
    #[serde(default, rename = "floating_ip_limit", deserialize_with = "lenient::optional")]
    pub reserved_ip_limit: Option<u64>,
    /// `active`, `warning` or `locked`.
    #[serde(default, deserialize_with = "lenient::optional")]
    pub status: Option<String>,
}

/// A reserved IPv4 address; the address is its identity.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ReservedIp {
    /// The address.
    pub ip: Ipv4Addr,
    /// Where it lives and stays.
    #[serde(default, deserialize_with = "lenient::slug")]
    pub region: Option<RegionSlug>,
    /// The Droplet that holds it. `None` means free, or that the token lacks `droplet:read`.
    #[serde(default, deserialize_with = "id_of_droplet")]
    pub droplet: Option<DropletId>,
    /// An action runs; another would be refused.
    #[serde(default)]
    pub locked: bool,
}

fn id_of_droplet<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<DropletId>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    Ok(value.get("id").and_then(Value::as_u64).map(DropletId))
}
