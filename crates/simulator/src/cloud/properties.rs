//! What holds whatever clients, machines and time do.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Create(Option<Variant>),
    Delete(usize),
    Act(usize, &'static str),
    Reserve(Option<usize>),
    Assign(usize, usize),
    Unassign(usize),
    Release(usize),
    Wall(usize, Option<usize>),
    Unwall(usize),
    Machine(bool),
    Enforced(usize),
    Wait(u64),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let variant = prop_oneof![
        6 => Just(None),
        1 => (0..2_000_u64).prop_map(|ms| Some(Variant::Vanish(ms))),
        1 => Just(Some(Variant::StuckNew)),
        1 => Just(Some(Variant::ActionErrored)),
        1 => (0..900_u64).prop_map(|ms| Some(Variant::NetworksLate(ms))),
    ];
    let kind =
        prop::sample::select(vec!["power_on", "power_off", "reboot", "power_cycle", "rename", "rebuild"]);
    prop_oneof![
        3 => variant.prop_map(Step::Create),
        2 => (0..8_usize).prop_map(Step::Delete),
        3 => (0..8_usize, kind).prop_map(|(n, kind)| Step::Act(n, kind)),
        1 => prop::option::of(0..8_usize).prop_map(Step::Reserve),
        2 => (0..3_usize, 0..8_usize).prop_map(|(ip, n)| Step::Assign(ip, n)),
        1 => (0..3_usize).prop_map(Step::Unassign),
        1 => (0..3_usize).prop_map(Step::Release),
        2 => (0..3_usize, prop::option::of(0..8_usize)).prop_map(|(n, droplet)| Step::Wall(n, droplet)),
        1 => (0..3_usize).prop_map(Step::Unwall),
        3 => (0..8_usize).prop_map(Step::Enforced),
        5 => prop::bool::weighted(0.8).prop_map(Step::Machine),
        5 => (0..900_u64).prop_map(Step::Wait),
        1 => Just(Step::Restart),
    ]
}

struct Run {
    cloud: Cloud,
    now: Timestamp,
    waiting: Vec<Effect>,
}

impl Run {
    fn call(&mut self, method: &str, path: &str, body: &Value, variant: Option<&Variant>) {
        let request = Request {
            method: method.into(),
            path: path.into(),
            query: Vec::new(),
            body: if body.is_null() { Vec::new() } else { body.to_string().into_bytes() },
        };
        let answer = self.cloud.apply(&request, variant, self.now);
        assert!(answer.status < 500);
    }

    fn droplet(&self, n: usize) -> u64 {
        let ids: Vec<u64> = self.cloud.droplets.keys().copied().collect();
        ids.get(n % ids.len().max(1)).copied().unwrap_or(1)
    }

    fn ip(&self, n: usize) -> String {
        let ips: Vec<_> = self.cloud.reserved_ips.keys().collect();
        ips.get(n % ips.len().max(1)).map_or_else(|| "192.0.2.1".into(), ToString::to_string)
    }

    /// Id of the firewall of that number.
    fn wall(&self, n: usize) -> Option<String> {
        let mut walls = self.cloud.firewalls.values();
        walls.find(|wall| !wall.deleted && wall.name == format!("wall-{n}")).map(|wall| wall.id.clone())
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Create(variant) => {
                let body = json!({"name": "d", "size": "s-1vcpu-1gb", "image": "debian-12-x64", "region": "nyc1", "tags": ["t"]});
                self.call("POST", "/v2/droplets", &body, variant.as_ref());
            }
            Step::Delete(n) => {
                let id = self.droplet(n);
                self.call("DELETE", &format!("/v2/droplets/{id}"), &Value::Null, None);
            }
            Step::Act(n, kind) => {
                let id = self.droplet(n);
                let body = json!({"type": kind, "name": "e", "image": "debian-13-x64"});
                self.call("POST", &format!("/v2/droplets/{id}/actions"), &body, None);
            }
            Step::Reserve(None) => self.call("POST", "/v2/reserved_ips", &json!({"region": "nyc1"}), None),
            Step::Reserve(Some(n)) => {
                let body = json!({"droplet_id": self.droplet(n)});
                self.call("POST", "/v2/reserved_ips", &body, None);
            }
            Step::Assign(ip, n) => {
                let body = json!({"type": "assign", "droplet_id": self.droplet(n)});
                self.call("POST", &format!("/v2/reserved_ips/{}/actions", self.ip(ip)), &body, None);
            }
            Step::Unassign(ip) => {
                let path = format!("/v2/reserved_ips/{}/actions", self.ip(ip));
                self.call("POST", &path, &json!({"type": "unassign"}), None);
            }
            Step::Release(ip) => {
                self.call("DELETE", &format!("/v2/reserved_ips/{}", self.ip(ip)), &Value::Null, None);
            }
            // Made when it is not there, else changed.
            Step::Wall(n, droplet) => {
                let named: Vec<u64> = droplet.map(|n| self.droplet(n)).into_iter().collect();
                let tags = if named.is_empty() { vec!["t"] } else { Vec::new() };
                let body = json!({"name": format!("wall-{n}"), "droplet_ids": named, "tags": tags, "inbound_rules": [
                    {"protocol": "tcp", "ports": "22", "sources": {"tags": tags, "droplet_ids": named}}]});
                match self.wall(n) {
                    Some(id) => self.call("PUT", &format!("/v2/firewalls/{id}"), &body, None),
                    None => self.call("POST", "/v2/firewalls", &body, None),
                }
            }
            Step::Unwall(n) => {
                let id = self.wall(n).unwrap_or_default();
                self.call("DELETE", &format!("/v2/firewalls/{id}"), &Value::Null, None);
            }
            Step::Enforced(n) => {
                let told = self.cloud.enforcements();
                if let Some(one) = told.get(n % told.len().max(1)) {
                    self.cloud.enforced(one);
                }
            }
            Step::Machine(succeeds) => {
                if !self.waiting.is_empty() {
                    let effect = self.waiting.remove(0);
                    self.cloud.machine_finished(effect.action, succeeds, self.now);
                }
            }
            Step::Wait(milliseconds) => {
                self.now = later(self.now, milliseconds);
                self.cloud.advance(self.now);
            }
            Step::Restart => {
                let text = serde_json::to_string(&self.cloud).unwrap();
                self.cloud = serde_json::from_str(&text).unwrap();
                self.waiting.clear();
                self.cloud.resume();
            }
        }
        self.waiting.extend(self.cloud.take_effects());
    }

    fn check(&self) {
        let cloud = &self.cloud;
        let mut holders = BTreeMap::new();
        for droplet in cloud.droplets.values().filter(|droplet| droplet.exists() || droplet.pending.is_some())
        {
            for address in droplet.addresses() {
                assert_eq!(holders.insert(address, droplet.id), None, "{address} has two holders");
                assert!(!cloud.reserved_ips.contains_key(&address), "{address} is reserved as well");
            }
        }
        for action in cloud.actions.values() {
            let slot =
                action.droplet.and_then(|id| cloud.droplets.get(&id)).and_then(|droplet| droplet.pending);
            let open = action.status == ActionStatus::InProgress;
            assert_eq!(open, slot == Some(action.id), "{action:?} and its Droplet disagree");
            assert_eq!(open, action.completed_at.is_none());
        }
        let mut held = BTreeSet::new();
        for address in cloud.reserved_ips.values() {
            if let Some(id) = address.droplet {
                assert!(held.insert(id), "Droplet {id} holds two reserved IPs");
                assert!(
                    cloud.droplets.get(&id).is_some_and(Droplet::exists),
                    "{address:?} is held by nothing"
                );
            }
            if let Some(action) = address.locked_by {
                assert_eq!(
                    cloud.actions[&action].status,
                    ActionStatus::InProgress,
                    "{address:?} is locked by nothing"
                );
            }
        }
        let mut busy = BTreeSet::new();
        for effect in &self.waiting {
            assert!(busy.insert(effect.droplet), "two commands at once for machine {}", effect.droplet);
        }
    }
}

/// When nothing happens any more every Droplet has what the firewalls ask for, and they say so.
fn check_quiet_firewalls(mut run: Run) {
    run.now = later(run.now, 5_000);
    run.cloud.advance(run.now);
    for told in run.cloud.enforcements() {
        run.cloud.enforced(&told);
    }
    assert_eq!(run.cloud.enforcements(), []);
    let cloud = &run.cloud;
    for firewall in cloud.firewalls.values() {
        assert!(!firewall.deleted, "{firewall:?} acts after its end");
        assert!(firewall.places.values().all(|place| place.coming.is_none() && !place.unconfirmed));
    }
    for droplet in cloud.droplets.values() {
        let covered =
            droplet.exists() && cloud.firewalls.values().any(|firewall| firewall.covers(droplet, run.now));
        assert_eq!(cloud.policy_json(droplet.id)["rules"].is_null(), !covered, "{droplet:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(200), ..ProptestConfig::default() })]

    #[test]
    fn events_addresses_and_commands_stay_single(steps in prop::collection::vec(step(), 1..80)) {
        let mut cloud = Cloud::new(Delays::quick(), true);
        // So few that they must be used again.
        cloud.pools.public = Pool::of("192.0.2.0/29".parse().unwrap());
        let mut run = Run { cloud, now: Timestamp::from_second(1_770_000_000).unwrap(), waiting: Vec::new() };
        for step in steps {
            run.take(step);
            run.check();
        }
        check_quiet_firewalls(run);
    }
}
