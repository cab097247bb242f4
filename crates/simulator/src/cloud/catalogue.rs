//! Account, regions and sizes: what a client looks up before it creates.
//!
//! Responsibility: the built-in catalogue. Prices and transfer are DigitalOcean's list prices for basic, CPU-optimised
//! and general-purpose Droplets; a fixtures file may replace any of it.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::paging::page;
use super::{Answer, Cloud, Refusal, Request};

/// The account, as `GET /v2/account` shows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Account {
    /// Most Droplets the team may have.
    pub droplet_limit: u64,
    /// Most Reserved IPs the team may have.
    pub floating_ip_limit: u64,
    /// Address of the owner.
    pub email: String,
    /// Display name.
    pub name: String,
    /// Id of the account.
    pub uuid: String,
    /// Whether the address was confirmed.
    pub email_verified: bool,
    /// `active`, `warning` or `locked`.
    pub status: String,
    /// Reason of a status other than `active`.
    pub status_message: String,
    /// The team the token belongs to.
    pub team: Team,
}

/// The team of an account.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Team {
    /// Id of the team.
    pub uuid: String,
    /// Display name.
    pub name: String,
}

impl Default for Account {
    fn default() -> Self {
        Self {
            droplet_limit: 25,
            floating_ip_limit: 3,
            email: "team@example.com".into(),
            name: "Example".into(),
            uuid: "b6fr89dbf6d9156cace5f3c78dc9851d957381ef".into(),
            email_verified: true,
            status: "active".into(),
            status_message: String::new(),
            team: Team { uuid: "5df3e3004a17e242b7c20ca6c9fc25b701a47ece".into(), name: "My Team".into() },
        }
    }
}

/// A region.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Region {
    /// Slug, for example `nyc1`.
    pub slug: String,
    /// Display name.
    pub name: String,
    /// Capabilities.
    pub features: Vec<String>,
    /// Whether anything can be created there.
    pub available: bool,
}

/// A size.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Size {
    /// Slug, for example `s-1vcpu-1gb`.
    pub slug: String,
    /// MiB.
    pub memory: u64,
    /// Virtual CPUs.
    pub vcpus: u64,
    /// GiB.
    pub disk: u64,
    /// TB a month.
    pub transfer: f64,
    /// US dollars.
    pub price_monthly: f64,
    /// US dollars.
    pub price_hourly: f64,
    /// Slugs of the regions that have it.
    pub regions: Vec<String>,
    /// Whether it can be created at all.
    pub available: bool,
    /// Class, for example `Basic`.
    pub description: String,
}

impl Size {
    /// GPU Droplets are left out of lists unless asked for.
    pub fn has_gpu(&self) -> bool {
        self.slug.starts_with("gpu-")
    }
}

/// `nyc2` is there and closed, as in reality: it makes "region not available" testable.
const REGIONS: [(&str, &str); 12] = [
    ("nyc1", "New York 1"),
    ("nyc2", "New York 2"),
    ("nyc3", "New York 3"),
    ("sfo2", "San Francisco 2"),
    ("sfo3", "San Francisco 3"),
    ("ams3", "Amsterdam 3"),
    ("sgp1", "Singapore 1"),
    ("lon1", "London 1"),
    ("fra1", "Frankfurt 1"),
    ("tor1", "Toronto 1"),
    ("blr1", "Bangalore 1"),
    ("syd1", "Sydney 1"),
];

pub(super) fn regions() -> Vec<Region> {
    let features = ["backups", "ipv6", "metadata", "install_agent", "storage", "image_transfer"];
    REGIONS
        .iter()
        .map(|(slug, name)| Region {
            slug: (*slug).into(),
            name: (*name).into(),
            features: features.iter().map(ToString::to_string).collect(),
            available: *slug != "nyc2",
        })
        .collect()
}

pub(super) fn sizes() -> Vec<Size> {
    /// slug, MiB, vCPUs, GiB, TB, dollars a month, dollars an hour, class.
    type Row = (&'static str, u64, u64, u64, f64, f64, f64, &'static str);
    const SIZES: [Row; 10] = [
        ("s-1vcpu-512mb-10gb", 512, 1, 10, 0.5, 4.0, 0.00595, "Basic"),
        ("s-1vcpu-1gb", 1024, 1, 25, 1.0, 6.0, 0.00893, "Basic"),
        ("s-1vcpu-2gb", 2048, 1, 50, 2.0, 12.0, 0.01786, "Basic"),
        ("s-2vcpu-2gb", 2048, 2, 60, 3.0, 18.0, 0.02679, "Basic"),
        ("s-2vcpu-4gb", 4096, 2, 80, 4.0, 24.0, 0.03571, "Basic"),
        ("s-4vcpu-8gb", 8192, 4, 160, 5.0, 48.0, 0.07143, "Basic"),
        ("s-8vcpu-16gb", 16384, 8, 320, 6.0, 96.0, 0.14286, "Basic"),
        ("c-2", 4096, 2, 25, 4.0, 42.0, 0.0625, "CPU-Optimized"),
        ("c-4", 8192, 4, 50, 5.0, 84.0, 0.125, "CPU-Optimized"),
        ("g-2vcpu-8gb", 8192, 2, 25, 4.0, 63.0, 0.09375, "General Purpose"),
    ];
    let everywhere: Vec<String> =
        REGIONS.iter().map(|(slug, _)| (*slug).into()).filter(|slug: &String| slug != "nyc2").collect();
    // The smallest size came to five regions only (release notes of DigitalOcean).
    let few: Vec<String> = ["nyc1", "fra1", "sfo3", "sgp1", "ams3"].iter().map(ToString::to_string).collect();
    SIZES
        .iter()
        .map(|(slug, memory, vcpus, disk, transfer, monthly, hourly, description)| Size {
            slug: (*slug).into(),
            memory: *memory,
            vcpus: *vcpus,
            disk: *disk,
            transfer: *transfer,
            price_monthly: *monthly,
            price_hourly: *hourly,
            regions: if slug.contains("512mb") { few.clone() } else { everywhere.clone() },
            available: true,
            description: (*description).into(),
        })
        .collect()
}

impl Cloud {
    /// A region as the API shows it; `null` members never, an unknown slug gives an unavailable region.
    pub(super) fn region_json(&self, slug: &str) -> Value {
        let sizes: Vec<&str> = self
            .sizes
            .iter()
            .filter(|size| size.regions.iter().any(|region| region == slug))
            .map(|size| size.slug.as_str())
            .collect();
        match self.region(slug) {
            Some(region) => json!({
                "slug": region.slug, "name": region.name, "features": region.features,
                "available": region.available, "sizes": sizes,
            }),
            None => json!({"slug": slug, "name": slug, "features": [], "available": false, "sizes": sizes}),
        }
    }

    pub(super) fn size_json(&self, slug: &str) -> Value {
        self.size(slug).map_or(Value::Null, size_json)
    }

    pub(super) fn get_account(&self) -> Answer {
        Answer::json(200, json!({"account": self.account}))
    }

    pub(super) fn list_regions(&self, request: &Request) -> Result<Answer, Refusal> {
        page(request, "regions", self.regions.len(), |i| self.region_json(&self.regions[i].slug))
    }

    pub(super) fn list_sizes(&self, request: &Request) -> Result<Answer, Refusal> {
        page(request, "sizes", self.sizes.len(), |i| size_json(&self.sizes[i]))
    }
}

fn size_json(size: &Size) -> Value {
    json!({
        "slug": size.slug, "memory": size.memory, "vcpus": size.vcpus, "disk": size.disk,
        "transfer": size.transfer, "price_monthly": size.price_monthly, "price_hourly": size.price_hourly,
        "regions": size.regions, "available": size.available, "description": size.description,
        "disk_info": [{"type": "local", "size": {"amount": size.disk, "unit": "gib"}}],
    })
}
