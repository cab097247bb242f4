//! The cloud as a value: everything DigitalOcean would know about one team, and how requests and time change it.
//!
//! Responsibility: [`Cloud::apply`] answers one request, [`Cloud::advance`] lets time pass,
//! [`Cloud::machine_finished`] takes the result of a machine command. All three are pure: no clock, no I/O, no
//! randomness; ids and addresses come from counters, so the same calls give the same cloud.
//!
//! Invariants:
//! - a Droplet has at most one pending event ([`Droplet::pending`]); whatever else asks for one gets a 422;
//! - an address is never handed out again while the machine that had it may still be running;
//! - what has to be done to machines leaves as [`Effect`]s, never as a side effect.

mod action;
mod address;
mod catalogue;
mod create;
mod delay;
mod droplet;
mod event;
mod firewall;
mod image;
mod paging;
mod project;
mod request;
mod reserved_ip;
mod routes;
mod ssh_key;
mod tag;
mod vpc;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

pub use action::{Action, ActionStatus};
pub use address::{Interface, Pool, Pools};
pub use catalogue::{Account, Region, Size};
pub use create::Variant;
pub use delay::Delays;
pub use droplet::{Droplet, Phase, Status};
pub use event::{Effect, MachineVerb};
pub use firewall::{Enforcement, Firewall};
pub use image::Image;
pub use project::Project;
pub use request::{Answer, Refusal, Request};
pub use reserved_ip::{ReservedIp, Translation};
pub use ssh_key::SshKey;
pub use tag::{Tag, Tagged};
pub use vpc::Vpc;

/// One team's cloud.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Cloud {
    /// Limits and identity of the account.
    pub account: Account,
    /// Regions, in the order they are listed.
    pub regions: Vec<Region>,
    /// Sizes, in the order they are listed.
    pub sizes: Vec<Size>,
    /// Images, in the order they are listed.
    pub images: Vec<Image>,
    /// VPCs, oldest first.
    pub vpcs: Vec<Vpc>,
    /// SSH keys of the team.
    pub ssh_keys: Vec<SshKey>,
    /// Projects, the default one first.
    pub projects: Vec<Project>,
    /// Every Droplet, those that are only still visible in tag lists included.
    pub droplets: BTreeMap<u64, Droplet>,
    /// Every action ever started.
    pub actions: BTreeMap<u64, Action>,
    /// Tags by their canonical (first) spelling.
    pub tags: BTreeMap<String, Tag>,
    /// Reserved IPv4 addresses.
    pub reserved_ips: BTreeMap<Ipv4Addr, ReservedIp>,
    /// Firewalls by id, those that are deleted and still act included.
    pub firewalls: BTreeMap<String, Firewall>,
    /// Where addresses come from.
    pub pools: Pools,
    /// How long things take.
    pub delays: Delays,
    /// Whether a machine command exists; without one Droplets are pure state and no effect is ever made.
    pub machines: bool,
    /// Addresses of machines that could not be destroyed; never handed out again.
    pub lost_addresses: BTreeSet<Ipv4Addr>,
    /// Droplets whose firewalls' effect the machine room has yet to confirm.
    enforcing: BTreeSet<u64>,
    /// Which reserved addresses the machine room translates.
    #[serde(default)]
    translated: Vec<Translation>,
    /// When the next tag lands on a Droplet, while there are firewalls.
    landing: Option<Timestamp>,
    counters: Counters,
    #[serde(skip)]
    outbox: Vec<Effect>,
}

/// Next id of each kind. Deterministic, so that two runs of a test give the same ids.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Counters {
    droplet: u64,
    action: u64,
    ssh_key: u64,
    uuid: u64,
}

impl Cloud {
    /// A cloud with the built-in catalogue, no VPC and no Droplet.
    pub fn new(delays: Delays, machines: bool) -> Self {
        Self {
            account: Account::default(),
            regions: catalogue::regions(),
            sizes: catalogue::sizes(),
            images: image::built_in(),
            vpcs: Vec::new(),
            ssh_keys: Vec::new(),
            projects: vec![Project::built_in()],
            droplets: BTreeMap::new(),
            actions: BTreeMap::new(),
            tags: BTreeMap::new(),
            reserved_ips: BTreeMap::new(),
            firewalls: BTreeMap::new(),
            pools: Pools::default(),
            delays,
            machines,
            lost_addresses: BTreeSet::new(),
            enforcing: BTreeSet::new(),
            translated: Vec::new(),
            landing: None,
            counters: Counters { droplet: 3_164_494, action: 36_804_636, ssh_key: 289_794, uuid: 1 },
            outbox: Vec::new(),
        }
    }

    /// Answers one request at the time `now`. What it asks of machines is in [`Cloud::take_effects`] afterwards.
    ///
    /// `variant` bends what becomes of a Droplet this request creates; it is ignored by every other request.
    pub fn apply(&mut self, request: &Request, variant: Option<&Variant>, now: Timestamp) -> Answer {
        self.advance(now);
        let answer = routes::dispatch(self, request, variant, now).unwrap_or_else(|refusal| refusal.answer());
        if request.method != "GET" {
            self.bring_firewalls_after(now);
        }
        self.advance(now);
        answer
    }

    /// The effects that came up since the last call, oldest first.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.outbox)
    }

    fn next_droplet_id(&mut self) -> u64 {
        while self.droplets.contains_key(&self.counters.droplet) {
            self.counters.droplet += 1;
        }
        self.counters.droplet += 1;
        self.counters.droplet - 1
    }

    fn next_uuid(&mut self) -> String {
        let n = self.counters.uuid;
        self.counters.uuid += 1;
        format!("5a4981aa-9653-4bd1-bef5-{n:012x}")
    }

    fn region(&self, slug: &str) -> Option<&Region> {
        self.regions.iter().find(|region| region.slug == slug)
    }

    fn size(&self, slug: &str) -> Option<&Size> {
        self.sizes.iter().find(|size| size.slug == slug)
    }

    fn image(&self, id_or_slug: &str) -> Option<&Image> {
        self.images.iter().find(|image| image.answers_to(id_or_slug))
    }

    fn vpc(&self, id: &str) -> Option<&Vpc> {
        self.vpcs.iter().find(|vpc| vpc.id == id)
    }
}

/// `now` plus `milliseconds`; saturates, since a simulated clock may be driven anywhere.
fn later(now: Timestamp, milliseconds: u64) -> Timestamp {
    let delay = SignedDuration::from_millis(i64::try_from(milliseconds).unwrap_or(i64::MAX));
    now.saturating_add(delay).unwrap_or(Timestamp::MAX)
}

/// The API's way to write a time: whole seconds, UTC.
fn written(time: Timestamp) -> String {
    Timestamp::from_second(time.as_second()).unwrap_or(time).to_string()
}
