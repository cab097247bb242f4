//! Reserved IPv4 addresses.

use std::net::Ipv4Addr;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::ids::{DropletId, RegionSlug};
use super::lenient;

/// A reserved IPv4 address; the address is its identity. It has no name and no tags.
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

/// Reserves an address for a Droplet and begins to assign it.
#[derive(Serialize)]
pub struct CreateReservedIp {
    pub droplet_id: DropletId,
}

/// What can be asked of a reserved address.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ReservedIpAction {
    Assign { droplet_id: DropletId },
}
