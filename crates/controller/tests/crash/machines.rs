//! What runs on Droplets, as far as others notice: the gateways' own endpoints, and what nodes report of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use do_simulator::cloud::{Droplet, Status};
use egress_controller::health::Endpoints;
use egress_controller::observation::HealthSeen;
use egress_controller::user_data::{LeavesWith, UserDataInput, render};
use egress_digitalocean::DropletId;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::gate::Gate;
use crate::world::{NODES, State, World};

/// From power to a gateway that answers.
const BOOT: Duration = Duration::from_secs(12);

/// How long connections go on through a gateway that works and that nodes are told to leave.
const DRAIN: Duration = Duration::from_secs(8);

/// The gateways' endpoints as one process reaches them.
pub struct Doors {
    pub world: World,
    pub gate: Arc<Gate>,
}

impl Endpoints for Doors {
    fn ask(&self, gateways: Vec<(DropletId, Ipv4Addr)>) -> BoxFuture<'_, BTreeMap<DropletId, HealthSeen>> {
        async move {
            let pass = self.gate.enter(None).await;
            let seen = |address: Ipv4Addr| self.world.state().endpoint(address);
            let answers = gateways.into_iter().map(|(id, address)| (id, seen(address))).collect();
            self.gate.leave(pass).await;
            answers
        }
        .boxed()
    }

    fn admit<'a>(&'a self, gateway: Ipv4Addr, peers: &'a [Ipv4Addr]) -> BoxFuture<'a, Result<(), String>> {
        async move {
            let pass = self.gate.enter(Some(format!("PUT http://{gateway}/peers"))).await;
            self.gate.sends(&pass);
            let taken = self.world.state().admit(gateway, peers);
            self.gate.leave(pass).await;
            taken
        }
        .boxed()
    }
}

/// What is known of a machine beside the cloud's word.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// Since when it has power.
    pub since: Option<Timestamp>,
    /// Never to work again, whatever is done.
    pub dead: bool,
    /// Dead until its power is cycled.
    pub frozen: bool,
    /// Public addresses that may probe its public side.
    pub peers: BTreeSet<Ipv4Addr>,
}

impl State {
    /// Machines begin to boot, and end.
    pub fn follow_power(&mut self) {
        let now = self.now;
        for id in &self.ours {
            let runs = self.cloud.droplets.get(id).is_some_and(|droplet| {
                droplet.exists() && droplet.networked && droplet.status == Status::Active
            });
            let machine = self.machines.entry(*id).or_default();
            match (runs, machine.since) {
                (true, None) => machine.since = Some(now),
                (false, Some(_)) => machine.since = None,
                _ => {}
            }
        }
    }

    fn droplet_at(&self, address: Ipv4Addr) -> Option<&Droplet> {
        self.billed().find(|droplet| droplet.private.address == address)
    }

    /// Whether what is sent through the gateway at this address comes out.
    pub fn works(&self, address: Ipv4Addr) -> bool {
        let leaves = |droplet: &Droplet| self.leaves_with(droplet).is_some();
        self.answers(address) && self.droplet_at(address).is_some_and(leaves)
    }

    /// Whether nodes see that it forwards: past the address where that moves.
    fn forwards(&self, address: Ipv4Addr) -> bool {
        self.works(address)
            || self.answers(address) && self.droplet_at(address).is_some_and(shares_an_address)
    }

    /// Whether it is up, with an address to leave with or without.
    fn answers(&self, address: Ipv4Addr) -> bool {
        let machine = self.droplet_at(address).and_then(|droplet| self.machines.get(&droplet.id));
        machine.is_some_and(|machine| {
            let up = machine.since.is_some_and(|since| since + BOOT <= self.now);
            up && !machine.dead && !machine.frozen
        })
    }

    /// The address that a gateway leaves with.
    pub fn leaves_with(&self, droplet: &Droplet) -> Option<Ipv4Addr> {
        if is_reserved(droplet) {
            let held = self.cloud.reserved_ips.values().find(|one| one.droplet == Some(droplet.id));
            held.map(|one| one.ip)
        } else {
            droplet.public.as_ref().map(|public| public.address)
        }
    }

    pub fn endpoint(&self, address: Ipv4Addr) -> HealthSeen {
        let Some(droplet) = self.droplet_at(address).filter(|_| self.answers(address)) else {
            return HealthSeen::Silent("no connection".into());
        };
        let version = Some(user_data_version(droplet));
        match self.leaves_with(droplet) {
            None => HealthSeen::Awaiting { version },
            public_address => {
                let peers = Some(self.machines[&droplet.id].peers.clone());
                HealthSeen::Ready { version, public_address, peers }
            }
        }
    }

    pub fn admit(&mut self, gateway: Ipv4Addr, peers: &[Ipv4Addr]) -> Result<(), String> {
        let Some(id) = self.droplet_at(gateway).filter(|_| self.answers(gateway)).map(|droplet| droplet.id)
        else {
            return Err("no connection".into());
        };
        if peers.iter().any(|peer| self.droplet_at(*peer).is_none()) {
            self.violations.push(format!("somebody is admitted who is no gateway of ours: {peers:?}"));
        }
        let known = |peer: &Ipv4Addr| {
            let public = self.leaves_with(self.droplet_at(*peer)?)?;
            (self.works(*peer) || self.machines[&id].peers.contains(&public)).then_some(public)
        };
        let admitted = peers.iter().filter_map(known).collect();
        self.machines.get_mut(&id).unwrap().peers = admitted;
        Ok(())
    }

    /// Nodes follow the list: at once away from what is dead or no longer in it, with a drain away from what works.
    pub fn follow_list(&mut self, listed: &[Ipv4Addr]) {
        let now = self.now;
        let held = |address: &Ipv4Addr| listed.contains(address) && self.works(*address);
        let before = self.uses.filter(|address| listed.contains(address));
        let head = listed.iter().copied().find(|address| self.works(*address));
        let uses = head.or(before).or(listed.first().copied());
        let left = before.filter(|address| Some(*address) != uses && held(address));
        let drains = self.drains.filter(|(address, until)| held(address) && now < *until);
        let drains = left.map(|address| (address, now + DRAIN)).or(drains);
        self.drains = drains.filter(|(address, _)| Some(*address) != uses);
        self.uses = uses;
    }

    /// Whether nodes send through the gateway at this address.
    pub fn is_used(&self, address: Ipv4Addr) -> bool {
        self.uses == Some(address) || self.drains.is_some_and(|(drained, _)| drained == address)
    }

    /// What each node reports, where that is news.
    pub fn reports(
        &mut self,
        routes: &[Value],
        addresses: &BTreeSet<Ipv4Addr>,
    ) -> Vec<(&'static str, Value)> {
        let entries: Vec<Value> = routes
            .iter()
            .map(|route| {
                let many = route["spec"]["destinations"].as_array().map_or(0, Vec::len);
                let mut entry = json!({"name": route["metadata"]["name"], "uid": route["metadata"]["uid"],
                    "observedGeneration": route["metadata"]["generation"], "state": "Applied", "applied": many, "total": many});
                let drains = self.drains.map(|(address, _)| address);
                let used = [("gateway", self.uses), ("draining", drains)];
                for (field, address) in used.into_iter().filter_map(|(field, used)| Some((field, used?))) {
                    entry[field] = json!(address);
                }
                entry
            })
            .collect();
        let another =
            |address: &Ipv4Addr| addresses.iter().any(|other| other != address && self.forwards(*other));
        // A verdict is renewed every other second.
        let renewed = Timestamp::from_second(self.now.as_second() / 2 * 2).unwrap().to_string();
        let views: Vec<Value> = addresses
            .iter()
            .map(|address| {
                let forwards = self.forwards(*address);
                let condemned = !forwards && another(address);
                let mut view = json!({"address": address, "reachable": self.answers(*address), "forwards": forwards, "fullSize": forwards, "condemned": condemned});
                if self.works(*address) && self.droplet_at(*address).is_some_and(shares_an_address) {
                    view["expectedSource"] = json!(true);
                }
                if condemned {
                    view["renewed"] = json!(renewed);
                }
                view
            })
            .collect();
        let report =
            json!({"agentVersion": "played", "bootID": "played", "routes": entries, "gateways": views});
        let news = NODES.iter().filter(|(node, _)| self.reported.get(node) != Some(&report));
        let news: Vec<(&'static str, Value)> = news.map(|(node, _)| (*node, report.clone())).collect();
        self.reported.extend(news.iter().cloned());
        news
    }
}

// As its own user data says.
fn is_reserved(droplet: &Droplet) -> bool {
    says_of_its_address(droplet, "reserved") || shares_an_address(droplet)
}

fn shares_an_address(droplet: &Droplet) -> bool {
    says_of_its_address(droplet, "floating")
}

fn says_of_its_address(droplet: &Droplet, word: &str) -> bool {
    let line = format!(r#""egress_address": "{word}""#);
    droplet.user_data.as_deref().is_some_and(|text| text.contains(&line))
}

fn user_data_version(droplet: &Droplet) -> String {
    static VERSIONS: LazyLock<[String; 3]> = LazyLock::new(|| {
        let targets = egress_api::HealthCheck::default().targets;
        let targets = targets.iter().map(|target| target.0.parse().unwrap()).collect();
        [LeavesWith::Own, LeavesWith::Reserved, LeavesWith::Floating { targets }].map(|leaves_with| {
            let input = UserDataInput {
                vpc_range: "10.116.0.0/20".parse().unwrap(),
                pod_ranges: vec!["10.244.0.0/16".parse().unwrap()],
                ssh: false,
                leaves_with,
            };
            render(&input).unwrap().version
        })
    });
    let kind = usize::from(is_reserved(droplet)) + usize::from(shares_an_address(droplet));
    VERSIONS[kind].clone()
}
