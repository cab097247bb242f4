#![allow(missing_docs, reason = "a model for tests")]
//! A cloud and a Kubernetes small enough to be run thousands of times: what the controller changes, and what follows from it.

mod hands;
mod people;
mod seen;
mod votes;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use egress_api::{
    DeletionPolicy, EGRESS_GATEWAY_FINALIZER, EgressGateway, EgressGatewayStatus, GatewayObservation,
    NodeEgressStatus, NodeRoute, NodeRouteState, PublicIp, StaticRoute, StaticRouteSpec,
};
use egress_controller::act::{CallFailure, CreateFailure, Outcome, Ports, perform};
use egress_controller::catalogue::Offer;
use egress_controller::decide::decide;
use egress_controller::decision::{Admission, Decision, Limits, Order, POWER_CYCLE_WINDOW};
use egress_controller::firewall::{OwnedFirewall, recorded_ids};
use egress_controller::identity::{OwnTag, OwnedDroplet, droplet_id};
use egress_controller::observation::{
    CloudSeen, FirewallsSeen, Follower, HealthSeen, NodeSeen, Observation, ReservedIpsSeen, Site,
};
use egress_controller::user_data::UserData;
use egress_digitalocean::{Droplet, DropletId, FirewallId, FirewallSpec};
use hands::Hands;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
pub use seen::follower_entry;
use serde_json::json;

use crate::pool::Address;
use crate::walls::Wall;

pub const OWNER: &str = "1a2b3c4d-5e6f";
pub const CLUSTER: &str = "c0ffee";
pub const VPC: &str = "5a4981aa-9653-4bd1-bef5-d6bff52042e4";
/// The cluster's nodes; the third one where there is one.
pub const NODES: [&str; 3] = ["pool-1", "pool-2", "pool-3"];
const START: i64 = 1_800_000_000;

/// How the controller dies at a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    BeforeSent,
    ReplyLost,
    AfterReply,
    /// Only of a create: the cloud works on it and shows it a while later.
    LateSuccess,
}

#[derive(Clone, Default)]
pub struct Machine {
    name: String,
    pub tags: Vec<String>,
    vpc: String,
    made: i64,
    pub deleted: Option<i64>,
    /// Beyond repair.
    pub dead: bool,
    pub off: bool,
    /// Dead until its power is cycled.
    pub frozen: bool,
    /// It answers, its own endpoint says that it is ready, and it forwards nothing.
    pub gray: bool,
    /// The same, until its power is cycled: its rules are gone.
    pub unruled: bool,
    /// It forwards, and its own endpoint says that it is not ready.
    pub complains: bool,
    /// Packets of full size get lost in it.
    pub swallows: bool,
    /// It forwards probes, and lets nothing out with the address that moves.
    pub blind: bool,
    booted: i64,
    /// The others that its own filter lets probe its public side.
    pub admits: BTreeSet<u64>,
}

/// What the nodes have of a StaticRoute with `gatewayRef`.
#[derive(Clone, Debug, Default)]
pub struct SlowFollower {
    /// Private address of the gateway that they route to.
    pub uses: Option<String>,
    looks_next: i64,
}

#[derive(Clone)]
pub struct State {
    pub now: i64,
    pub gateway: Option<EgressGateway>,
    pub route: Option<StaticRoute>,
    pub machines: BTreeMap<u64, Machine>,
    /// What the nodes have: uid and generation.
    applied: Option<(String, i64)>,
    /// The gateway that they use for new connections.
    pub uses: Option<u64>,
    /// The one that open connections still use, and until when.
    pub drains: Option<(u64, i64)>,
    /// The object went and was to take nothing along.
    pub deletes_nothing: bool,
    /// What is made does not come up.
    pub stillborn: bool,
    pub nodes_follow: bool,
    /// A StaticRoute that follows this EgressGateway's list, on nodes that are slow.
    pub follower: Option<SlowFollower>,
    /// Whether the cluster has one node more than two.
    pub third_node: bool,
    /// What the controller has heard of nodes that see for themselves; all others see what is so.
    pub said: BTreeMap<String, Said>,
    /// When a gateway was proven last, and when a quorum of nodes, as the controller heard them, or the cloud spoke against it last.
    proven: BTreeMap<u64, i64>,
    against: BTreeMap<u64, i64>,
    pub walls: BTreeMap<String, Wall>,
    pub foreign_walls: BTreeSet<String>,
    pub walls_gone: usize,
    /// Why the cloud refuses everything about firewalls, if it does.
    pub walls_refused: Option<&'static str>,
    /// Whether changes of firewalls that the cloud takes come to nothing.
    pub walls_fail: bool,
    /// What the cloud has of what is asked for.
    pub offer: Offer,
    /// Whether the token may delete no Droplet.
    pub deletes_refused: bool,
    pub addresses: BTreeMap<std::net::Ipv4Addr, Address>,
    pub addresses_gone: usize,
    /// Why the cloud refuses everything about reserved addresses, if it does.
    pub addresses_refused: Option<&'static str>,
    /// Whether actions that the cloud takes come to nothing.
    pub addresses_fail: bool,
    /// Seconds until one is done.
    pub addresses_take: i64,
    delete_accepted: BTreeMap<DropletId, Timestamp>,
    versions: u64,
    /// Every change, in words.
    pub journal: Vec<String>,
    pub calls: usize,
    crashes: Vec<(usize, Crash)>,
    crashed: bool,
    pub violations: Vec<String>,
}

/// The last report of a node that the controller has.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Said {
    pub gateways: Vec<GatewayObservation>,
    pub cut_off: bool,
    pub heard: i64,
}

pub struct World {
    state: Mutex<State>,
    pub limits: Limits,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Failed {
    Crashed,
    Conflict,
}

/// Whether a machine was made by the controller, and not by a person or for the cluster.
pub fn is_made(id: u64) -> bool {
    id >= FIRST_MADE
}

const FIRST_MADE: u64 = 100;

impl Machine {
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it answers and forwards nothing.
    fn is_gray(&self) -> bool {
        self.gray || self.unruled
    }
}

impl World {
    /// With reserved addresses, the first of them given by the user.
    pub fn reserved(crashes: Vec<(usize, Crash)>, given: &[&str]) -> Self {
        Self::with_addresses(PublicIp::ReservedPerGateway, crashes, given)
    }

    /// With one that moves, which the user may give.
    pub fn floating(crashes: Vec<(usize, Crash)>, given: &[&str]) -> Self {
        Self::with_addresses(PublicIp::Floating, crashes, given)
    }

    fn with_addresses(public_ip: PublicIp, crashes: Vec<(usize, Crash)>, given: &[&str]) -> Self {
        let world = Self::new(crashes);
        {
            let mut state = world.state();
            // Somebody else's: one that is free, one that a node holds.
            state.foreign_address(180, None);
            state.foreign_address(181, Some(2));
            let spec = &mut state.gateway.as_mut().unwrap().spec;
            spec.public_ip = public_ip;
            spec.reserved_ips = given.iter().map(|ip| (*ip).to_owned()).collect();
        }
        world
    }

    pub fn new(crashes: Vec<(usize, Crash)>) -> Self {
        let gateway: EgressGateway = serde_json::from_value(json!({
            "apiVersion": "networking.digitalocean.com/v1alpha1", "kind": "EgressGateway",
            "metadata": {"name": "demo", "uid": OWNER, "generation": 1, "resourceVersion": "1"},
            "spec": {"destinations": ["0.0.0.0/0"], "publicIP": "Ephemeral", "replicas": 2}
        }))
        .unwrap();
        let decoy = |name: &str, tags: &[&str], vpc: &str| Machine {
            name: name.to_owned(),
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            vpc: vpc.to_owned(),
            made: START - 1000,
            ..Machine::default()
        };
        let cluster = format!("egress-cluster:{CLUSTER}");
        let owner = format!("egress-owner:{OWNER}");
        let machines = BTreeMap::from([
            // A node that somebody tagged as ours, a Droplet of another owner, one of another cluster.
            (1, decoy("pool-1", &[&cluster, &owner], VPC)),
            (2, decoy("other-0-99999999", &[&cluster, "egress-owner:other"], VPC)),
            (3, decoy("demo-0-ffffffff", &["egress-cluster:other", &owner], VPC)),
        ]);
        let state = State {
            now: START,
            gateway: Some(gateway),
            route: None,
            machines,
            applied: None,
            uses: None,
            drains: None,
            deletes_nothing: false,
            stillborn: false,
            nodes_follow: true,
            follower: None,
            third_node: false,
            said: BTreeMap::new(),
            proven: BTreeMap::new(),
            against: BTreeMap::new(),
            walls: BTreeMap::new(),
            foreign_walls: BTreeSet::new(),
            walls_gone: 0,
            walls_refused: None,
            walls_fail: false,
            offer: Offer { trouble: None, price: Some(6.0) },
            deletes_refused: false,
            addresses: BTreeMap::new(),
            addresses_gone: 0,
            addresses_refused: None,
            addresses_fail: false,
            addresses_take: 3,
            delete_accepted: BTreeMap::new(),
            versions: 1,
            journal: Vec::new(),
            calls: 0,
            crashes,
            crashed: false,
            violations: Vec::new(),
        };
        let mut state = state;
        // One of somebody else, and one of another EgressGateway that begins like ours.
        state.foreign_wall("wall-web", "web", &[2]);
        state.foreign_wall("wall-other", "demo-99999999", &[2]);
        let seconds = Duration::from_secs;
        let limits = Limits {
            settle: seconds(40),
            bring_up: seconds(90),
            replace_after: seconds(5),
            power_on: seconds(30),
            lost_after: seconds(30),
            roll_pause: seconds(10),
            user_data_spread: seconds(480),
            most_droplets: 100,
        };
        Self { state: Mutex::new(state), limits }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// The same world, to be led another way.
    pub fn fork(&self) -> Self {
        Self { state: Mutex::new(self.state().clone()), limits: self.limits }
    }

    /// Observes and decides.
    pub fn next(&self) -> Option<Decision> {
        let mut state = self.state();
        let seen = state.observe()?;
        state.note_who_is_spoken_against();
        Some(decide(&seen, &self.limits, timestamp(state.now)))
    }

    /// Carries a decision out, which may be an old one.
    pub fn carry_out(&self, decision: &Decision, gateway_version: Option<String>) -> Result<Outcome, Failed> {
        let (now, version) = {
            let mut state = self.state();
            state.crashed = false;
            (state.now, gateway_version.or_else(|| state.version()))
        };
        let hands = Hands { world: self, version: Mutex::new(version) };
        let outcome = futures::executor::block_on(perform(decision, &hands, timestamp(now)));
        let mut state = self.state();
        if outcome == Err(Failed::Crashed) {
            // A new process remembers nothing.
            state.delete_accepted.clear();
        }
        outcome
    }

    /// So many steps, each a second.
    pub fn steps(&self, count: usize) {
        for _ in 0..count {
            let Some(decision) = self.next() else { return };
            let _ = self.carry_out(&decision, None);
            self.state().tick(1);
        }
    }

    /// Steps until nothing is left to do and nothing is under way; says whether that came.
    pub fn settle(&self, most_steps: usize) -> bool {
        for _ in 0..most_steps {
            let Some(decision) = self.next() else { return true };
            if decision.effect.is_none() && decision.requeue_after > Duration::from_secs(6) {
                return true;
            }
            let _ = self.carry_out(&decision, None);
            self.state().tick(1);
        }
        false
    }
}

pub fn timestamp(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

impl State {
    pub fn tick(&mut self, seconds: i64) {
        for _ in 0..seconds {
            self.now += 1;
            self.settle_addresses();
        }
        self.move_follower();
        if self.nodes_follow {
            self.applied = self
                .route
                .as_ref()
                .map(|route| (route.metadata.uid.clone().unwrap(), route.metadata.generation.unwrap()));
            self.move_nodes();
        }
        self.check_addresses();
    }

    // Nodes follow the list: at once away from what is dead or not listed, and with a drain away from what works.
    fn move_nodes(&mut self) {
        const DRAIN: i64 = 20;
        let listed = self.listed();
        let works = |id: &u64| self.carries(*id);
        let head = listed.iter().copied().find(works);
        let held = |id: &u64| listed.contains(id) && works(id);
        let mut drains = self.drains.filter(|(id, until)| held(id) && self.now < *until);
        let before = self.uses.filter(|id| listed.contains(id));
        let uses = head.or(before).or(listed.first().copied());
        if let Some(left) = before.filter(|id| Some(*id) != uses && held(id)) {
            drains = Some((left, self.now + DRAIN));
        }
        self.uses = uses;
        self.drains = drains.filter(|(id, _)| Some(*id) != uses);
    }

    fn listed(&self) -> Vec<u64> {
        let listed = self.route.as_ref().map(|route| route.spec.ordered_gateways()).unwrap_or_default();
        let id = |address: &str| address.rsplit('.').next().and_then(|last| last.parse().ok());
        listed.iter().filter_map(|entry| id(&entry.address.0)).collect()
    }

    /// Whether nodes use this one, which works, although another one that is listed works.
    pub fn is_used_beside_another(&self, id: u64) -> bool {
        let works = |id: u64| self.carries(id);
        let used = self.uses == Some(id) || self.drains.is_some_and(|(drained, _)| drained == id);
        used && works(id) && self.listed().into_iter().any(|other| other != id && works(other))
    }

    // What leaves, leaves with an address that people were told of.
    fn check_addresses(&mut self) {
        let status = self.status();
        let sends = self.uses.into_iter().chain(self.drains.map(|(id, _)| id));
        let sends: Vec<u64> = sends.filter(|id| self.carries(*id)).collect();
        for id in sends {
            let recorded = status.gateways.iter().any(|one| u64::try_from(one.droplet_id) == Ok(id));
            let Some(address) = self.leaves_with(id).filter(|_| recorded) else { continue };
            if !status.public_ips.contains(&address) {
                self.violations.push(format!("{address} leaves and is not in publicIPs at {}", self.now));
            }
        }
    }

    // Every few seconds its nodes see what has become of the list.
    fn move_follower(&mut self) {
        const LAG: i64 = 9;
        let deleted = |gateway: &EgressGateway| gateway.metadata.deletion_timestamp.is_some();
        let goes = self.gateway.as_ref().is_none_or(deleted);
        let listed = self.route.as_ref().map(|route| route.spec.ordered_gateways()).unwrap_or_default();
        let now = self.now;
        if let Some(follower) = self.follower.as_mut().filter(|follower| now >= follower.looks_next) {
            follower.looks_next = now + LAG;
            let head = listed.first().map(|gateway| gateway.address.0.clone());
            follower.uses = if goes { None } else { head.or(follower.uses.take()) };
        }
    }

    pub fn version(&self) -> Option<String> {
        self.gateway.as_ref().and_then(|gateway| gateway.metadata.resource_version.clone())
    }

    pub fn status(&self) -> EgressGatewayStatus {
        self.gateway.as_ref().and_then(|gateway| gateway.status.clone()).unwrap_or_default()
    }

    pub fn ours(&self) -> Vec<(&u64, &Machine)> {
        self.machines.iter().filter(|(id, machine)| is_made(**id) && self.is_there(machine)).collect()
    }

    pub fn names(&self) -> BTreeSet<String> {
        self.ours().into_iter().map(|(_, machine)| machine.name.clone()).collect()
    }

    pub fn kill_active(&mut self) {
        let active = self
            .status()
            .gateways
            .into_iter()
            .find(|gateway| Some(&gateway.name) == self.status().active.as_ref());
        let id = u64::try_from(active.unwrap().droplet_id).unwrap();
        self.machines.get_mut(&id).unwrap().dead = true;
    }

    /// The first recorded gateway that works, unless it is the only one.
    pub fn kill_first_that_works(&mut self) {
        let ids: Vec<u64> = self.ours().into_iter().map(|(id, _)| *id).collect();
        let working: Vec<u64> =
            ids.into_iter().filter(|id| self.answers_and_forwards(*id) == (true, true)).collect();
        if let [first, _, ..] = working[..] {
            self.machines.get_mut(&first).unwrap().dead = true;
        }
    }

    /// The machine of the first recorded gateway.
    pub fn first(&mut self) -> &mut Machine {
        let id = u64::try_from(self.status().gateways[0].droplet_id).unwrap();
        self.machines.get_mut(&id).unwrap()
    }

    pub fn delete(&mut self) {
        let now = timestamp(self.now);
        if let Some(gateway) = &mut self.gateway {
            gateway.metadata.deletion_timestamp = Some(Time(now));
            gateway.metadata.generation = gateway.metadata.generation.map(|generation| generation + 1);
        }
        self.bump();
    }

    /// What is there is to stay when the object goes.
    pub fn retain(&mut self) {
        self.gateway.as_mut().unwrap().spec.deletion_policy = DeletionPolicy::Retain;
    }

    /// Somebody changes the size of the Droplets.
    pub fn ask_for_size(&mut self, size: &str) {
        let gateway = self.gateway.as_mut().unwrap();
        size.clone_into(&mut gateway.spec.droplet.size);
        gateway.metadata.generation = gateway.metadata.generation.map(|generation| generation + 1);
        self.bump();
    }

    fn bump(&mut self) {
        self.versions += 1;
        let version = self.versions.to_string();
        if let Some(gateway) = &mut self.gateway {
            gateway.metadata.resource_version = Some(version);
        }
    }

    // Billed: from the moment it is made until 3 s after its delete.
    pub fn is_there(&self, machine: &Machine) -> bool {
        machine.made <= self.now && machine.deleted.is_none_or(|deleted| self.now < deleted + 3)
    }

    /// Whether gateways leave with reserved addresses.
    pub fn has_reserved_addresses(&self) -> bool {
        self.gateway.as_ref().is_some_and(|gateway| gateway.spec.public_ip.is_reserved())
    }

    /// Whether all gateways have one address.
    pub fn has_one_address(&self) -> bool {
        self.gateway.as_ref().is_some_and(|gateway| gateway.spec.public_ip.moves())
    }

    /// The address with which it leaves, if it may leave at all.
    fn leaves_with(&self, id: u64) -> Option<String> {
        if self.has_reserved_addresses() {
            self.held_by(id).filter(|_| !self.machines[&id].blind).map(|ip| ip.to_string())
        } else {
            Some(public(id))
        }
    }

    fn is_up(&self, machine: &Machine) -> bool {
        self.is_there(machine)
            && self.now - machine.made.max(machine.booted) >= 8
            && !machine.dead
            && !machine.frozen
            && !machine.off
            && machine.deleted.is_none()
    }

    /// Whether a gateway's kernel answers, and whether it leads outside, too: past the address, where that moves.
    pub fn answers_and_forwards(&self, id: u64) -> (bool, bool) {
        let up = self.machines.get(&id).filter(|machine| self.is_up(machine));
        let leads = || self.has_one_address() || self.leaves_with(id).is_some();
        (up.is_some(), up.is_some_and(|machine| !machine.is_gray() && leads()))
    }

    /// Whether what nodes send to it comes out.
    pub fn carries(&self, id: u64) -> bool {
        self.answers_and_forwards(id) == (true, true) && self.leaves_with(id).is_some()
    }

    /// The process dies at its next call.
    pub fn crash_next(&mut self, crash: Crash) {
        self.crashes.push((self.calls, crash));
    }

    // Counts a call and says how it ends; the change is made unless the process dies before.
    fn begin(&mut self) -> Result<Option<Crash>, Failed> {
        if self.crashed {
            return Err(Failed::Crashed);
        }
        let call = self.calls;
        self.calls += 1;
        let crash = self.crashes.iter().find(|(at, _)| *at == call).map(|(_, crash)| *crash);
        self.crashed = crash.is_some();
        if crash == Some(Crash::BeforeSent) { Err(Failed::Crashed) } else { Ok(crash) }
    }

    fn check(&mut self) {
        let count = self.ours().len();
        if count > 3 {
            self.violations.push(format!("I3: {count} Droplets at {}", self.now));
        }
    }
}

pub fn private(id: u64) -> String {
    format!("10.116.0.{id}")
}

pub fn public(id: u64) -> String {
    format!("203.0.113.{id}")
}

/// The name that our firewall has.
pub fn firewall_name() -> String {
    format!("demo-{OWNER}")
}
