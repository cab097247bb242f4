//! VPC networks.

use ipnet::Ipv4Net;
use serde::Deserialize;

use super::ids::{RegionSlug, VpcId};
use super::lenient;

/// A VPC network.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Vpc {
    /// Its id.
    pub id: VpcId,
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Its region.
    #[serde(default, deserialize_with = "lenient::slug")]
    pub region: Option<RegionSlug>,
    /// Its addresses.
    #[serde(default, deserialize_with = "lenient::optional")]
    pub ip_range: Option<Ipv4Net>,
    /// Whether it is the region's default.
    #[serde(default)]
    pub default: bool,
}
