//! What is in the cloud before anyone asks for anything.
//!
//! Responsibility: read a fixtures file (JSON) into a [`Cloud`]. Everything is optional; what is absent keeps the
//! built-in value. Droplets of the fixtures exist and run already: they are never given to the machine command.
//!
//! ```json
//! {
//!   "account": {"droplet_limit": 10},
//!   "vpcs": [{"id": "0e1f0f0e-c8a5-4e4c-a8b6-5d7b9f3b7f11", "name": "lab", "region": "nyc1",
//!             "ip_range": "10.116.0.0/20", "default": true}],
//!   "ssh_keys": [{"id": 289794, "name": "ops", "public_key": "ssh-ed25519 AAAA… ops",
//!                 "fingerprint": "3b:16:e4:bf:8b:00:8b:b8:59:8c:a9:d3:f0:19:fa:45"}],
//!   "droplets": [{"id": 412345601, "name": "pool-a-1", "vpc": "0e1f0f0e-c8a5-4e4c-a8b6-5d7b9f3b7f11",
//!                 "tags": ["k8s", "k8s:worker"], "size": "s-2vcpu-4gb", "image": "debian-12-x64",
//!                 "public_address": "203.0.113.11", "private_address": "10.116.0.2",
//!                 "public_mac": "02:00:00:00:00:0b", "private_mac": "02:00:00:00:00:02"}],
//!   "pools": {"public": {"range": "203.0.113.0/24", "first": "203.0.113.100", "last": "203.0.113.199",
//!                        "gateway": "203.0.113.1"}}
//! }
//! ```
//!
//! A VPC's own pool begins at host 100 and its gateway is host 1 unless `first`, `last` or `gateway` say otherwise.
//! `regions`, `sizes`, `images`, `projects`, `tags`, `delays` and the pools `reserved` and `anchor` can be given too.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use jiff::Timestamp;
use serde::Deserialize;

use crate::cloud::{
    Account, Cloud, Delays, Droplet, Image, Interface, Phase, Pool, Pools, Project, Region, Size, SshKey,
    Status, Tag, Tagged, Vpc,
};

/// The file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fixtures {
    account: Option<Account>,
    regions: Option<Vec<Region>>,
    sizes: Option<Vec<Size>>,
    images: Option<Vec<Image>>,
    vpcs: Vec<VpcFixture>,
    ssh_keys: Vec<SshKey>,
    projects: Vec<Project>,
    tags: Vec<String>,
    droplets: Vec<DropletFixture>,
    pools: Option<Pools>,
    delays: Option<Delays>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct VpcFixture {
    id: String,
    name: String,
    region: String,
    ip_range: Ipv4Net,
    #[serde(default)]
    default: bool,
    #[serde(default)]
    description: String,
    first: Option<Ipv4Addr>,
    last: Option<Ipv4Addr>,
    gateway: Option<Ipv4Addr>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DropletFixture {
    id: u64,
    name: String,
    vpc: String,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default = "default_size")]
    size: String,
    #[serde(default = "default_image")]
    image: String,
    public_address: Option<Ipv4Addr>,
    private_address: Ipv4Addr,
    anchor_address: Option<Ipv4Addr>,
    public_mac: Option<String>,
    private_mac: Option<String>,
    #[serde(default)]
    user_data: Option<String>,
}

fn default_size() -> String {
    "s-2vcpu-4gb".into()
}

fn default_image() -> String {
    "debian-12-x64".into()
}

/// What is wrong with a fixtures file.
#[derive(Debug, thiserror::Error)]
pub enum FixtureError {
    /// Not the JSON this module describes.
    #[error("fixtures: {0}")]
    Syntax(#[from] serde_json::Error),
    /// A reference that leads nowhere.
    #[error("fixtures: {what} {name:?} of {of:?} is not known")]
    Unknown {
        /// Kind of thing.
        what: &'static str,
        /// Its name.
        name: String,
        /// Who refers to it.
        of: String,
    },
    /// Two Droplets with one id.
    #[error("fixtures: Droplet {0} is there twice")]
    Twice(u64),
}

impl Fixtures {
    /// Reads the file's text.
    ///
    /// # Errors
    /// When it is not what this module describes.
    pub fn parse(text: &str) -> Result<Self, FixtureError> {
        Ok(serde_json::from_str(text)?)
    }

    /// Puts everything into `cloud`, as made at `now`.
    ///
    /// # Errors
    /// When something refers to a VPC, size, image or region that is not there.
    pub fn furnish(self, cloud: &mut Cloud, now: Timestamp) -> Result<(), FixtureError> {
        let Self { account, regions, sizes, images, vpcs, ssh_keys, projects, tags, droplets, pools, delays } =
            self;
        cloud.account = account.unwrap_or_else(|| cloud.account.clone());
        cloud.regions = regions.unwrap_or_else(|| std::mem::take(&mut cloud.regions));
        cloud.sizes = sizes.unwrap_or_else(|| std::mem::take(&mut cloud.sizes));
        cloud.images = images.unwrap_or_else(|| std::mem::take(&mut cloud.images));
        cloud.pools = pools.unwrap_or_else(|| cloud.pools.clone());
        cloud.delays = delays.unwrap_or(cloud.delays);
        cloud.ssh_keys.extend(ssh_keys);
        cloud.projects.extend(projects);
        for vpc in vpcs {
            require(
                cloud.regions.iter().any(|region| region.slug == vpc.region),
                "region",
                &vpc.region,
                &vpc.name,
            )?;
            cloud.vpcs.push(vpc.build(now));
        }
        for name in tags.into_iter().chain(droplets.iter().flat_map(|droplet| droplet.tags.clone())) {
            cloud.tags.entry(name.clone()).or_insert(Tag { name });
        }
        for droplet in droplets {
            let built = droplet.build(cloud, now)?;
            if cloud.droplets.insert(built.id, built.clone()).is_some() {
                return Err(FixtureError::Twice(built.id));
            }
        }
        Ok(())
    }
}

impl VpcFixture {
    fn build(self, now: Timestamp) -> Vpc {
        let standard = Pool::of(self.ip_range);
        Vpc {
            id: self.id,
            name: self.name,
            description: self.description,
            region: self.region,
            default: self.default,
            created_at: now,
            pool: Pool {
                first: self.first.unwrap_or(standard.first),
                last: self.last.unwrap_or(standard.last),
                gateway: self.gateway.unwrap_or(standard.gateway),
                ..standard
            },
        }
    }
}

impl DropletFixture {
    fn build(self, cloud: &mut Cloud, now: Timestamp) -> Result<Droplet, FixtureError> {
        let vpc = cloud.vpcs.iter().find(|vpc| vpc.id == self.vpc);
        let vpc = vpc.ok_or_else(|| unknown("VPC", &self.vpc, &self.name))?;
        let image = cloud.images.iter().find(|image| image.answers_to(&self.image));
        let image = image.ok_or_else(|| unknown("image", &self.image, &self.name))?;
        require(cloud.sizes.iter().any(|size| size.slug == self.size), "size", &self.size, &self.name)?;
        let inside = |pool: &Pool, address: Ipv4Addr, mac: Option<String>| Interface {
            address,
            prefix: pool.range.prefix_len(),
            gateway: pool.gateway,
            mac,
        };
        let (image, region) = (image.id, vpc.region.clone());
        let private = inside(&vpc.pool, self.private_address, self.private_mac);
        Ok(Droplet {
            id: self.id,
            name: self.name,
            size: self.size,
            image,
            region,
            vpc: self.vpc,
            created_at: now,
            user_data: self.user_data,
            ssh_keys: Vec::new(),
            features: vec!["private_networking".into()],
            volumes: Vec::new(),
            tags: self.tags.into_iter().map(|name| Tagged { name, listed_from: now }).collect(),
            status: Status::Active,
            phase: Phase::Live,
            pending: None,
            networked: true,
            public: self.public_address.map(|address| inside(&cloud.pools.public, address, self.public_mac)),
            private,
            anchor: self.anchor_address.map(|address| inside(&cloud.pools.anchor, address, None)),
            has_machine: false,
            vanish_at: None,
            hidden_gets: 0,
        })
    }
}

fn require(known: bool, what: &'static str, name: &str, of: &str) -> Result<(), FixtureError> {
    if known { Ok(()) } else { Err(unknown(what, name, of)) }
}

fn unknown(what: &'static str, name: &str, of: &str) -> FixtureError {
    FixtureError::Unknown { what, name: name.into(), of: of.into() }
}
