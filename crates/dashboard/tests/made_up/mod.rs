//! A cluster of any size, made up: for the tests of the model and those of the page in a browser.

#![allow(dead_code, reason = "each of them uses a part")]
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_wrap,
    reason = "a test that cannot go on says so by ending"
)]

use std::sync::Arc;

use egress_api::condition::{DEGRADED, PROGRESSING, READY, Verdict, set};
use egress_api::{
    EgressGateway, EgressGatewayStatus, Failover, GatewayObservation, GatewayRole, GatewayStatus,
    NodeEgressStatus, NodeFailover, NodeRoute, NodeRouteState,
};
use egress_dashboard::view::{NodeObjects, Objects, Overview};
use egress_runtime::guarded::Guarded;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_780_000_000 + second).unwrap()
}

/// Pairs of gateways and nodes that all use the first of each.
pub struct Cluster {
    pub gateways: Vec<EgressGateway>,
    pub nodes: Vec<(String, NodeEgressStatus)>,
    pub unready: Vec<String>,
}

pub fn address(gateway: usize, slot: usize) -> String {
    format!("10.{}.{}.{}", 116 + slot, gateway / 250, 10 + gateway % 240)
}

fn name(gateway: usize) -> String {
    format!("gw-{gateway:03}")
}

fn pair(number: usize, nodes: usize) -> EgressGateway {
    let name = name(number);
    let mut gateway: EgressGateway = serde_json::from_value(json!({
        "apiVersion": "networking.digitalocean.com/v1alpha1", "kind": "EgressGateway",
        "metadata": {"name": name, "generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"destinations": ["198.51.100.0/24", "203.0.113.7"], "publicIP": "ReservedPerGateway"},
    }))
    .unwrap();
    let machine = |slot: usize, role| {
        let mut one =
            GatewayStatus::new(format!("{name}-{slot}"), slot as i32, (number * 2 + slot) as i64, role);
        one.private_address = Some(address(number, slot));
        one.public_address = Some(format!("203.0.{}.{}", number % 200, 20 + slot));
        one.ready = true;
        one.since = Some(Time(at(0)));
        one
    };
    let mut status = EgressGatewayStatus {
        observed_generation: Some(1),
        gateways: vec![machine(0, GatewayRole::Active), machine(1, GatewayRole::Standby)],
        nodes: Some(format!("{nodes}/{nodes}")),
        gateways_ready: Some("2/2".into()),
        monthly_price_usd: Some("12.00".into()),
        ..EgressGatewayStatus::default()
    };
    status.public_ips = status.gateways.iter().filter_map(|one| one.public_address.clone()).collect();
    say(&mut status, READY, true, "EgressWorks", &format!("{nodes} of {nodes} nodes leave through {name}-0"));
    say(&mut status, PROGRESSING, false, "Settled", "Nothing is being changed");
    say(&mut status, DEGRADED, false, "AsAskedFor", "All gateways work");
    gateway.status = Some(status);
    gateway
}

pub fn say(
    status: &mut EgressGatewayStatus,
    type_: &'static str,
    holds: bool,
    reason: &'static str,
    words: &str,
) {
    let verdict = Verdict { type_, status: Some(holds), reason, message: words.to_owned() };
    set(&mut status.conditions, verdict, Some(1), at(0));
}

pub fn works(address: String) -> GatewayObservation {
    GatewayObservation {
        address,
        reachable: true,
        forwards: Some(true),
        expected_source: Some(true),
        full_size: Some(true),
        since: Some(Time(at(0))),
        ..GatewayObservation::default()
    }
}

impl Cluster {
    pub fn of(gateways: usize, nodes: usize) -> Self {
        let report = || NodeEgressStatus {
            routes: (0..gateways)
                .map(|number| NodeRoute {
                    name: name(number),
                    uid: "u".into(),
                    observed_generation: 1,
                    state: NodeRouteState::Applied,
                    applied: 2,
                    total: 2,
                    gateway: Some(address(number, 0)),
                    gateways: Vec::new(),
                    reason: None,
                    message: None,
                    guarded: true,
                    no_gateway: false,
                    draining: None,
                    unusable_gateways: Vec::new(),
                    failures: Vec::new(),
                })
                .collect(),
            gateways: (0..gateways).flat_map(|one| [0, 1].map(|slot| works(address(one, slot)))).collect(),
            ..NodeEgressStatus::default()
        };
        Self {
            gateways: (0..gateways).map(|number| pair(number, nodes)).collect(),
            nodes: (0..nodes).map(|number| (format!("pool-{number:04}"), report())).collect(),
            unready: Vec::new(),
        }
    }

    pub fn look<T>(&self, look: impl FnOnce(&Objects<'_>) -> T) -> T {
        let gateways: Vec<_> = self.gateways.iter().map(|one| Arc::new(Guarded(Ok(one.clone())))).collect();
        let nodes: Vec<NodeObjects<'_>> = self
            .nodes
            .iter()
            .map(|(name, report)| NodeObjects {
                name,
                ready: !self.unready.contains(name),
                agent_ready: Some(true),
                report: Some(report),
            })
            .collect();
        look(&Objects { gateways: &gateways, nodes: &nodes, known: true, unheard_since: None })
    }

    pub fn overview(&self) -> Overview {
        self.look(|objects| Overview::of(objects, &egress_dashboard::headroom::Headrooms::new()))
    }

    /// The same with other words, in whatever place they stand.
    pub fn renamed(&self, words: &[(String, String)]) -> Self {
        let other = |text: String| words.iter().fold(text, |text, (old, new)| text.replace(old, new));
        let gateways = self.gateways.iter().map(|one| other(serde_json::to_string(one).unwrap()));
        let nodes = self.nodes.iter().map(|(name, report)| {
            let report = serde_json::from_str(&other(serde_json::to_string(report).unwrap())).unwrap();
            (other(name.clone()), report)
        });
        Self {
            gateways: gateways.map(|text| serde_json::from_str(&text).unwrap()).collect(),
            nodes: nodes.collect(),
            unready: self.unready.iter().cloned().map(other).collect(),
        }
    }

    /// What a node sees of a gateway.
    pub fn seen(&mut self, node: usize, gateway: usize, slot: usize) -> &mut GatewayObservation {
        let wanted = address(gateway, slot);
        self.nodes[node].1.gateways.iter_mut().find(|one| one.address == wanted).unwrap()
    }

    /// Every node sees that the active gateway is dead, and moves.
    pub fn kill_active(&mut self, gateway: usize, when: Timestamp) {
        for node in 0..self.nodes.len() {
            let seen = self.seen(node, gateway, 0);
            seen.reachable = false;
            seen.condemned = true;
            seen.message = Some("no answer to 3 probes in a row".into());
            let report = &mut self.nodes[node].1;
            report.routes[gateway].gateway = Some(address(gateway, 1));
            report.last_failover = Some(NodeFailover {
                time: Time(when),
                static_route: name(gateway),
                from: address(gateway, 0),
                to: address(gateway, 1),
                reason: "Unreachable".into(),
                seconds: 0.41,
                evidence: "it did not answer and the other one did".into(),
            });
        }
    }

    /// The same, and the controller has written what became of it.
    pub fn fail_over(&mut self, gateway: usize, when: Timestamp) {
        self.kill_active(gateway, when);
        let status = self.gateways[gateway].status.as_mut().unwrap();
        status.last_failover = Some(Failover {
            time: Time(when),
            from: format!("{}-0", name(gateway)),
            to: format!("{}-1", name(gateway)),
            reason: "it does not answer".into(),
            seconds: Some(0.41),
        });
        status.gateways[0].role = GatewayRole::Failed;
        status.gateways[0].ready = false;
        status.gateways[1].role = GatewayRole::Active;
        status.gateways_ready = Some("1/2".into());
        say(status, DEGRADED, true, "LessRedundancy", "1 of 2 gateways is proven");
    }
}
