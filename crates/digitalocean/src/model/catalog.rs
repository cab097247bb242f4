//! What can be had where: sizes, regions, images.

use serde::Deserialize;

use super::ids::{RegionSlug, SizeSlug};
use super::lenient;

/// A Droplet size.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Size {
    /// Its name.
    pub slug: SizeSlug,
    /// RAM, MB.
    #[serde(default)]
    pub memory: u64,
    /// Virtual processors.
    #[serde(default)]
    pub vcpus: u64,
    /// Disk, GB.
    #[serde(default)]
    pub disk: u64,
    /// Outbound transfer included, TB a month, pooled over the team.
    #[serde(default, deserialize_with = "lenient::optional")]
    pub transfer: Option<f64>,
    /// US dollars a month.
    #[serde(default, deserialize_with = "lenient::optional")]
    pub price_monthly: Option<f64>,
    /// Where it can be had.
    #[serde(default, deserialize_with = "lenient::list")]
    pub regions: Vec<RegionSlug>,
    /// Whether it can be had at all.
    #[serde(default)]
    pub available: bool,
}

/// An SSH key of the team.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct SshKey {
    /// Its number.
    pub id: u64,
    /// Its MD5 fingerprint.
    #[serde(default)]
    pub fingerprint: String,
    /// What it is called.
    #[serde(default)]
    pub name: String,
}

/// A region.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Region {
    /// Its name in requests.
    pub slug: RegionSlug,
    /// Its name for people.
    #[serde(default)]
    pub name: String,
    /// Whether new Droplets can be made there.
    #[serde(default)]
    pub available: bool,
    /// Sizes to be had there.
    #[serde(default, deserialize_with = "lenient::list")]
    pub sizes: Vec<SizeSlug>,
}

/// An image to boot from.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Image {
    /// Its number.
    pub id: u64,
    /// Its name, for public images.
    #[serde(default, deserialize_with = "lenient::optional")]
    pub slug: Option<String>,
    /// What it is called.
    #[serde(default, deserialize_with = "lenient::optional")]
    pub name: Option<String>,
    /// `Ubuntu`, `Debian`, ...
    #[serde(default, deserialize_with = "lenient::optional")]
    pub distribution: Option<String>,
    /// Where it can be had.
    #[serde(default, deserialize_with = "lenient::list")]
    pub regions: Vec<RegionSlug>,
    /// `available`, `pending`, `deleted`, `retired`, ...
    #[serde(default, deserialize_with = "lenient::optional")]
    pub status: Option<String>,
    /// The smallest disk it fits on, GB.
    #[serde(default, deserialize_with = "lenient::optional")]
    pub min_disk_size: Option<u64>,
}
