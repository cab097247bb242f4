#![allow(missing_docs, reason = "a model for tests")]
//! A cloud and a Kubernetes small enough to be run thousands of times: what the controller changes, and what follows from it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use egress_api::{
    EGRESS_GATEWAY_FINALIZER, EgressGateway, EgressGatewayStatus, GatewayObservation, NodeEgressStatus,
    NodeRoute, NodeRouteState, StaticRoute, StaticRouteSpec,
};
use egress_controller::act::{CreateFailure, FirewallFailure, Ports, perform};
use egress_controller::decide::decide;
use egress_controller::decision::{Admission, Decision, Limits, Order, POWER_CYCLE_WINDOW};
use egress_controller::firewall::{OwnedFirewall, recorded_ids};
use egress_controller::identity::{OwnedDroplet, droplet_id};
use egress_controller::observation::{
    CloudSeen, FirewallsSeen, Follower, HealthSeen, NodeSeen, Observation, Site,
};
use egress_controller::user_data::UserData;
use egress_digitalocean::{Droplet, DropletId, FirewallId, FirewallSpec};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use serde_json::json;

use crate::walls::Wall;

pub const OWNER: &str = "1a2b3c4d-5e6f";
pub const CLUSTER: &str = "c0ffee";
pub const VPC: &str = "5a4981aa-9653-4bd1-bef5-d6bff52042e4";
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

#[derive(Clone)]
pub struct Machine {
    name: String,
    tags: Vec<String>,
    vpc: String,
    made: i64,
    deleted: Option<i64>,
    /// Beyond repair.
    pub dead: bool,
    pub off: bool,
    /// Dead until its power is cycled.
    pub frozen: bool,
    /// It answers, its own endpoint says that it is ready, and it forwards nothing.
    pub gray: bool,
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
    pub nodes_follow: bool,
    /// A StaticRoute that follows this EgressGateway's list, on nodes that are slow.
    pub follower: Option<SlowFollower>,
    /// What the controller has heard of nodes that see for themselves; all others see what is so.
    pub said: BTreeMap<String, Said>,
    pub walls: BTreeMap<String, Wall>,
    pub foreign_walls: BTreeSet<String>,
    pub walls_gone: usize,
    /// Why the cloud refuses everything about firewalls, if it does.
    pub walls_refused: Option<&'static str>,
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

pub fn machine_is_ours(name: &str, tags: &[String], vpc: &str) -> bool {
    let tagged = |tag: &str| tags.iter().any(|held| held == tag);
    name.starts_with("demo-")
        && tagged(&format!("egress-owner:{OWNER}"))
        && tagged(&format!("egress-cluster:{CLUSTER}"))
        && vpc == VPC
}

impl World {
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
            deleted: None,
            dead: false,
            off: false,
            frozen: false,
            gray: false,
            booted: 0,
            admits: BTreeSet::new(),
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
            nodes_follow: true,
            follower: None,
            said: BTreeMap::new(),
            walls: BTreeMap::new(),
            foreign_walls: BTreeSet::new(),
            walls_gone: 0,
            walls_refused: None,
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
        let state = self.state();
        let seen = state.observe()?;
        Some(decide(&seen, &self.limits, timestamp(state.now)))
    }

    /// Carries a decision out, which may be an old one.
    pub fn carry_out(&self, decision: &Decision, gateway_version: Option<String>) -> Result<(), Failed> {
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
        self.now += seconds;
        self.move_follower();
        if self.nodes_follow {
            self.applied = self
                .route
                .as_ref()
                .map(|route| (route.metadata.uid.clone().unwrap(), route.metadata.generation.unwrap()));
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

    /// A Droplet of somebody else.
    pub fn foreign(&mut self, id: u64, name: &str) {
        let machine = Machine {
            name: name.to_owned(),
            tags: Vec::new(),
            vpc: VPC.to_owned(),
            made: START - 1000,
            deleted: None,
            dead: false,
            off: false,
            frozen: false,
            gray: false,
            booted: 0,
            admits: BTreeSet::new(),
        };
        self.machines.insert(id, machine);
    }

    pub fn version(&self) -> Option<String> {
        self.gateway.as_ref().and_then(|gateway| gateway.metadata.resource_version.clone())
    }

    pub fn status(&self) -> EgressGatewayStatus {
        self.gateway.as_ref().and_then(|gateway| gateway.status.clone()).unwrap_or_default()
    }

    pub fn ours(&self) -> Vec<(&u64, &Machine)> {
        let ours = |machine: &Machine| machine_is_ours(&machine.name, &machine.tags, &machine.vpc);
        self.machines.iter().filter(|(_, machine)| ours(machine) && self.is_there(machine)).collect()
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

    fn droplet(&self, id: u64, machine: &Machine) -> Droplet {
        let age = self.now - machine.made;
        let networks = if age >= 2 {
            json!({"v4": [{"ip_address": public(id), "type": "public"}, {"ip_address": private(id), "type": "private"}]})
        } else {
            json!({})
        };
        let status = if machine.off {
            "off"
        } else if age >= 1 {
            "active"
        } else {
            "new"
        };
        // Tags land late.
        let tags: Vec<&String> = machine.tags.iter().filter(|_| age >= 4).collect();
        serde_json::from_value(json!({
            "id": id, "name": machine.name, "status": status, "networks": networks, "tags": tags, "vpc_uuid": machine.vpc
        }))
        .unwrap()
    }

    fn is_up(&self, machine: &Machine) -> bool {
        self.is_there(machine)
            && self.now - machine.made.max(machine.booted) >= 8
            && !machine.dead
            && !machine.frozen
            && !machine.off
            && machine.deleted.is_none()
    }

    /// Whether a gateway's kernel answers, and whether it leads outside, too.
    pub fn answers_and_forwards(&self, id: u64) -> (bool, bool) {
        let up = self.machines.get(&id).filter(|machine| self.is_up(machine));
        (up.is_some(), up.is_some_and(|machine| !machine.gray))
    }

    pub fn observe(&self) -> Option<Observation> {
        let gateway = self.gateway.clone()?;
        let status = self.status();
        let there = || self.machines.iter().filter(|(_, machine)| self.is_there(machine));
        let recorded: BTreeSet<u64> = status.gateways.iter().filter_map(droplet_id).map(|id| id.0).collect();
        let looked_up: BTreeSet<String> = status.creating.iter().map(|intent| intent.name.clone()).collect();
        let cluster_tag = format!("egress-cluster:{CLUSTER}");
        let droplets: BTreeMap<DropletId, Droplet> = there()
            .map(|(id, machine)| (*id, self.droplet(*id, machine)))
            .filter(|(id, droplet)| {
                let listed = droplet.has_tag(&cluster_tag) == Some(true);
                listed || recorded.contains(id) || looked_up.contains(&droplet.name)
            })
            .map(|(id, droplet)| (DropletId(id), droplet))
            .collect();
        let gone = recorded.iter().map(|id| DropletId(*id)).filter(|id| !droplets.contains_key(id)).collect();
        let health = there()
            .map(|(id, machine)| {
                let health = if self.is_up(machine) {
                    HealthSeen::Ready { version: None, public_address: None, peers: Some(admitted(machine)) }
                } else {
                    HealthSeen::Silent("no connection".into())
                };
                (DropletId(*id), health)
            })
            .collect();
        let probed = || there().filter(|(id, _)| recorded.contains(id));
        let forwards = |machine: &Machine| self.is_up(machine) && !machine.gray;
        let another = |id: u64| probed().any(|(other, machine)| *other != id && forwards(machine));
        let views: Vec<GatewayObservation> = probed()
            .map(|(id, machine)| GatewayObservation {
                address: private(*id),
                reachable: self.is_up(machine),
                forwards: self.is_up(machine).then_some(!machine.gray),
                condemned: !forwards(machine) && another(*id),
                ..GatewayObservation::default()
            })
            .collect();
        let routes = self.applied.iter().map(|(uid, generation)| NodeRoute {
            name: "demo".into(),
            uid: uid.clone(),
            observed_generation: *generation,
            state: NodeRouteState::Applied,
            applied: 1,
            total: 1,
            gateway: None,
            gateways: Vec::new(),
            reason: None,
            message: None,
            guarded: true,
            no_gateway: false,
            draining: None,
            unusable_gateways: Vec::new(),
            failures: Vec::new(),
        });
        let follower = self.follower.iter().map(|follower| follower_entry(follower.uses.clone()));
        let report = NodeEgressStatus {
            routes: routes.chain(follower).collect(),
            gateways: views,
            boot_id: Some("boot".into()),
            ..NodeEgressStatus::default()
        };
        let node = |name: &str, id: u64| NodeSeen {
            name: name.into(),
            live: true,
            labels: BTreeMap::from([("pool".into(), name.into())]),
            droplet: Some(DropletId(id)),
            agent_ready: Some(true),
            report: Some(match self.said.get(name) {
                Some(said) => NodeEgressStatus {
                    gateways: said.gateways.clone(),
                    cut_off: said.cut_off,
                    ..report.clone()
                },
                None => report.clone(),
            }),
            heard: Some(timestamp(self.said.get(name).map_or(self.now, |said| said.heard))),
        };
        let recorded: Vec<&str> = status.firewall.iter().flat_map(recorded_ids).collect();
        let ours = |id: &str, name: &str| name == firewall_name() || recorded.contains(&id);
        let firewalls =
            self.shown_walls().into_iter().filter(|wall| ours(wall.id.as_str(), &wall.name)).collect();
        let user_data = UserData { text: "#cloud-config".into(), version: "v1".into() };
        Some(Observation {
            gateway,
            cluster: CLUSTER.into(),
            route: self.route.clone(),
            followers: self.follower.iter().map(|_| followed()).collect(),
            nodes: vec![node("pool-1", 1), node("pool-2", 900)],
            cloud: Ok(CloudSeen {
                taken: timestamp(self.now),
                droplets,
                gone,
                looked_up,
                delete_accepted: self.delete_accepted.clone(),
            }),
            firewalls: Ok(FirewallsSeen { taken: timestamp(self.now), firewalls }),
            health,
            failing_since: BTreeMap::new(),
            site: Ok(Site {
                region: "nyc1".into(),
                vpc: VPC.into(),
                sources: vec!["10.116.0.0/20".parse().unwrap()],
                user_data,
            }),
            failure: None,
        })
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

fn followed() -> Follower {
    Follower { name: "payments".into(), uid: "uid-payments".into() }
}

/// What a node reports of a StaticRoute that follows: routed through that gateway, or not at all.
pub fn follower_entry(gateway: Option<String>) -> NodeRoute {
    let state = if gateway.is_some() { NodeRouteState::Applied } else { NodeRouteState::NotApplied };
    NodeRoute {
        name: followed().name,
        uid: followed().uid,
        observed_generation: 1,
        state,
        applied: u32::from(gateway.is_some()),
        total: 1,
        gateway,
        gateways: Vec::new(),
        reason: None,
        message: None,
        guarded: true,
        no_gateway: false,
        draining: None,
        unusable_gateways: Vec::new(),
        failures: Vec::new(),
    }
}

pub fn private(id: u64) -> String {
    format!("10.116.0.{id}")
}

fn admitted(machine: &Machine) -> BTreeSet<std::net::Ipv4Addr> {
    machine.admits.iter().map(|id| public(*id).parse().unwrap()).collect()
}

fn public(id: u64) -> String {
    format!("203.0.113.{id}")
}

// Whether this status gives up a gateway that is there, too soon after another was.
fn is_hasty(state: &State, status: &EgressGatewayStatus) -> bool {
    let (Some(last), Some(next)) = (state.status().last_replacement, &status.last_replacement) else {
        return false;
    };
    let there = state.ours().iter().any(|(id, _)| i64::try_from(**id) == Ok(next.from_droplet_id));
    last.from_droplet_id != next.from_droplet_id
        && there
        && next.time.0.as_second() - last.time.0.as_second() < 600
}

fn end(crash: Option<Crash>) -> Result<(), Failed> {
    if matches!(crash, Some(Crash::ReplyLost | Crash::LateSuccess)) { Err(Failed::Crashed) } else { Ok(()) }
}

fn refused(state: &State) -> Result<(), FirewallFailure<Failed>> {
    let Some(words) = state.walls_refused else { return Ok(()) };
    Err(FirewallFailure::Refused { words: words.to_owned(), pause: Duration::from_secs(60) })
}

/// The name that our firewall has.
pub fn firewall_name() -> String {
    format!("demo-{OWNER}")
}

struct Hands<'a> {
    world: &'a World,
    version: Mutex<Option<String>>,
}

impl Hands<'_> {
    fn change_gateway(&self, change: impl FnOnce(&mut EgressGateway)) -> Result<(), Failed> {
        let mut state = self.world.state();
        let crash = state.begin()?;
        let mut version = self.version.lock().unwrap();
        if state.version() != *version || state.gateway.is_none() {
            return Err(Failed::Conflict);
        }
        let before = state.gateway.clone();
        change(state.gateway.as_mut().unwrap());
        // Writing what is there already makes no new version.
        if state.gateway != before {
            state.bump();
        }
        *version = state.version();
        end(crash)
    }
}

impl Ports for Hands<'_> {
    type Error = Failed;

    async fn add_finalizer(&self) -> Result<(), Failed> {
        self.change_gateway(|gateway| {
            gateway.metadata.finalizers = Some(vec![EGRESS_GATEWAY_FINALIZER.to_owned()]);
        })
    }

    async fn remove_finalizer(&self) -> Result<(), Failed> {
        let mut state = self.world.state();
        let crash = state.begin()?;
        if state.version() != *self.version.lock().unwrap() {
            return Err(Failed::Conflict);
        }
        state.gateway = None;
        state.journal.push("object gone".into());
        if !state.ours().is_empty() {
            state.violations.push("I2: the object is gone and Droplets are left".into());
        }
        // One that still comes is there too.
        let is_left =
            |(id, wall): (&String, &Wall)| wall.name == firewall_name() && !state.foreign_walls.contains(id);
        if state.walls.iter().any(is_left) {
            state.violations.push("I2: the object is gone and a firewall is left".into());
        }
        end(crash)
    }

    async fn write_status(&self, status: &EgressGatewayStatus) -> Result<(), Failed> {
        let hasty = is_hasty(&self.world.state(), status);
        self.change_gateway(|gateway| gateway.status = Some(status.clone()))?;
        if hasty {
            self.world.state().violations.push("I8: two replacements within ten minutes".into());
        }
        Ok(())
    }

    async fn apply_route(&self, spec: &StaticRouteSpec) -> Result<(), Failed> {
        let mut state = self.world.state();
        let crash = state.begin()?;
        if spec.ordered_gateways().is_empty() {
            state.violations.push("an empty list of gateways".into());
        }
        let generation =
            state.route.as_ref().and_then(|route| route.metadata.generation).unwrap_or_default() + 1;
        let mut route = StaticRoute::new("demo", spec.clone());
        route.metadata.uid = Some("route".into());
        route.metadata.generation = Some(generation);
        let owner = OwnerReference { uid: OWNER.into(), controller: Some(true), ..OwnerReference::default() };
        route.metadata.owner_references = Some(vec![owner]);
        let changed = state.route.as_ref().is_none_or(|old| old.spec != *spec);
        if changed {
            state.route = Some(route);
            state.journal.push(format!("route {}", spec.ordered_gateways().len()));
        }
        end(crash)
    }

    async fn delete_route(&self, _uid: &str) -> Result<(), Failed> {
        let mut state = self.world.state();
        let crash = state.begin()?;
        state.route = None;
        state.journal.push("route gone".into());
        end(crash)
    }

    async fn create(&self, order: &Order) -> Result<DropletId, CreateFailure<Failed>> {
        let mut state = self.world.state();
        let crash = state.begin().map_err(CreateFailure::Unknown)?;
        let late = if crash == Some(Crash::LateSuccess) { 25 } else { 0 };
        let id = 100 + u64::try_from(state.machines.len()).unwrap();
        let machine = Machine {
            name: order.name.clone(),
            tags: order.tags.clone(),
            vpc: order.vpc.clone(),
            made: state.now + late,
            deleted: None,
            dead: false,
            off: false,
            frozen: false,
            gray: false,
            booted: 0,
            admits: BTreeSet::new(),
        };
        state.machines.insert(id, machine);
        state.journal.push(format!("create {}", order.name));
        state.check();
        end(crash).map_err(CreateFailure::Unknown)?;
        Ok(DropletId(id))
    }

    async fn power_on(&self, droplet: &OwnedDroplet) -> Result<(), Failed> {
        let mut state = self.world.state();
        let crash = state.begin()?;
        if let Some(machine) = state.machines.get_mut(&droplet.id().0) {
            machine.off = false;
        }
        state.journal.push(format!("power on {}", droplet.name()));
        end(crash)
    }

    async fn create_firewall(&self, wanted: &FirewallSpec) -> Result<FirewallId, FirewallFailure<Failed>> {
        let mut state = self.world.state();
        let crash = state.begin().map_err(FirewallFailure::Unknown)?;
        refused(&state)?;
        let id = state.make_wall(wanted, if crash == Some(Crash::LateSuccess) { 25 } else { 0 });
        end(crash).map_err(FirewallFailure::Unknown)?;
        Ok(id)
    }

    async fn update_firewall(
        &self,
        firewall: &OwnedFirewall,
        wanted: &FirewallSpec,
    ) -> Result<bool, FirewallFailure<Failed>> {
        let mut state = self.world.state();
        let crash = state.begin().map_err(FirewallFailure::Unknown)?;
        refused(&state)?;
        state.change_wall(firewall, wanted).map_err(FirewallFailure::Unknown)?;
        end(crash).map_err(FirewallFailure::Unknown)?;
        Ok(true)
    }

    async fn delete_firewall(&self, firewall: &OwnedFirewall) -> Result<(), FirewallFailure<Failed>> {
        let mut state = self.world.state();
        let crash = state.begin().map_err(FirewallFailure::Unknown)?;
        refused(&state)?;
        state.take_wall(firewall);
        end(crash).map_err(FirewallFailure::Unknown)
    }

    async fn admit(&self, admission: &Admission) -> Result<(), Failed> {
        let mut state = self.world.state();
        let crash = state.begin()?;
        let named: BTreeSet<u64> =
            admission.peers.iter().map(|address| u64::from(address.octets()[3])).collect();
        if named.iter().any(|id| !state.ours().iter().any(|(ours, _)| *ours == id)) {
            state.violations.push("somebody is admitted who is no gateway of ours".into());
        }
        let told = u64::from(admission.gateway.octets()[3]);
        if !state.machines.get(&told).is_some_and(|machine| state.is_up(machine)) {
            return end(crash);
        }
        // It asks each, and takes a silent one at its last word.
        let answers = |id: &u64| state.machines.get(id).is_some_and(|machine| state.is_up(machine));
        let admits = named
            .iter()
            .filter(|id| answers(id) || state.machines[&told].admits.contains(id))
            .copied()
            .collect();
        state.machines.get_mut(&told).unwrap().admits = admits;
        state.journal.push(format!("admit at {}", admission.name));
        end(crash)
    }

    async fn power_cycle(&self, droplet: &OwnedDroplet) -> Result<(), Failed> {
        let mut state = self.world.state();
        let crash = state.begin()?;
        let (id, now) = (droplet.id(), state.now);
        let machine = &state.machines[&id.0];
        // A real one is not up before the window is over, in which a second cycle may follow the first.
        let boots = now - machine.booted < POWER_CYCLE_WINDOW.as_secs().cast_signed();
        if state.is_up(machine) && !machine.gray && !boots {
            state.violations.push("I8: a gateway that works was power-cycled".into());
        }
        let machine = state.machines.get_mut(&id.0).unwrap();
        machine.frozen = false;
        machine.booted = now;
        state.journal.push(format!("power cycle {}", droplet.name()));
        end(crash)
    }

    async fn delete(&self, droplet: &OwnedDroplet) -> Result<(), Failed> {
        let mut state = self.world.state();
        let crash = state.begin()?;
        let (id, now) = (droplet.id().0, state.now);
        let machine = &state.machines[&id];
        if !machine_is_ours(&machine.name, &machine.tags, &machine.vpc) || id < 100 {
            let words = format!("I1: foreign delete of {}", machine.name);
            state.violations.push(words);
        }
        let listed = state.route.as_ref().map(|route| route.spec.ordered_gateways()).unwrap_or_default();
        if listed.iter().any(|entry| entry.address.0 == private(id)) {
            state.violations.push("a Droplet was deleted that nodes are told to use".into());
        }
        let leaving = state.gateway.as_ref().is_some_and(|one| one.metadata.deletion_timestamp.is_some());
        let used = state.follower.as_ref().and_then(|follower| follower.uses.as_ref());
        if leaving && used == Some(&private(id)) {
            state.violations.push("a Droplet was deleted that nodes route to for a follower".into());
        }
        let works = |machine: &Machine| state.is_up(machine) && !machine.gray;
        let others = state.ours().iter().filter(|(other, machine)| **other != id && works(machine)).count();
        let deleting =
            state.gateway.as_ref().is_some_and(|gateway| gateway.metadata.deletion_timestamp.is_some());
        if !deleting && others == 0 && works(&state.machines[&id]) {
            state.violations.push("I8: the last working gateway was deleted".into());
        }
        if state.machines[&id].deleted.is_none() {
            let words = format!("delete {}", droplet.name());
            state.journal.push(words);
            state.machines.get_mut(&id).unwrap().deleted = Some(now);
        }
        state.delete_accepted.insert(DropletId(id), timestamp(now));
        end(crash)
    }
}
