//! Nodes see nothing wrong with a gateway but its address outside. In a pair that is what a firewall looks like that keeps its probes out:
//! nothing that cannot be taken back is done before the firewall is known to be in order.

use std::collections::BTreeSet;

use egress_api::GatewayRole;
use egress_controller::decision::{Decision, Effect};
use egress_controller::observation::{HealthSeen, Observation, Trouble};
use egress_digitalocean::FirewallStatus;

use crate::prepared;
use crate::situations::{FIRST, SECOND, at};
use crate::world::{World, private, timestamp};

/// A pair, and nodes that condemn the first gateway for its address alone.
struct Accused {
    world: World,
    seen: Observation,
    now: i64,
}

impl Accused {
    fn new() -> Self {
        let world = prepared();
        let (mut seen, now) = {
            let state = world.state();
            (state.observe().unwrap(), state.now)
        };
        let reports = seen.nodes.iter_mut().filter_map(|node| node.report.as_mut());
        for view in reports.flat_map(|report| &mut report.gateways) {
            view.expected_source = Some(view.address != private(FIRST.0));
            view.condemned = view.address == private(FIRST.0);
        }
        Self { world, seen, now }
    }

    /// A second passes, with renewed reports and, maybe, a list of firewalls that was just read.
    fn second(&mut self, reads_firewalls: bool) -> Decision {
        self.now += 1;
        for node in &mut self.seen.nodes {
            node.heard = Some(timestamp(self.now));
        }
        if let Some(firewalls) = self.seen.firewalls.as_mut().ok().filter(|_| reads_firewalls) {
            firewalls.taken = timestamp(self.now);
        }
        let decision = at(&self.world, &self.seen, self.now);
        self.seen.gateway.status = Some(decision.status.clone());
        if let Some(Effect::ApplyStaticRoute(spec)) = &decision.effect {
            self.seen.route.as_mut().unwrap().spec = spec.clone();
        }
        decision
    }

    fn seconds(&mut self, count: usize, reads_firewalls: bool) -> Decision {
        let last = (0..count).map(|_| self.second(reads_firewalls)).last();
        last.unwrap()
    }

    fn role(&self) -> GatewayRole {
        self.seen.gateway.status.as_ref().unwrap().gateways[0].role
    }

    /// Whether anything was begun that cannot be taken back.
    fn is_repaired(&self) -> bool {
        let status = self.seen.gateway.status.as_ref().unwrap();
        status.last_replacement.is_some() || status.gateways[0].power_cycled.is_some()
    }
}

#[test]
fn where_the_firewall_is_in_order_it_is_replaced() {
    let mut accused = Accused::new();
    accused.seconds(5, true);
    assert_eq!((accused.role(), accused.is_repaired()), (GatewayRole::Failed, false));
    accused.seconds(5, true);
    assert!(accused.is_repaired());
    // Without a firewall it is the gateways' own filter that lets probes in.
    let mut accused = Accused::new();
    accused.seen.gateway.status.as_mut().unwrap().firewall = None;
    accused.seen.firewalls.as_mut().unwrap().firewalls.clear();
    accused.seen.firewalls.as_mut().unwrap().taken = timestamp(0);
    accused.seconds(10, false);
    assert!(accused.is_repaired());
}

#[test]
fn on_a_list_of_firewalls_from_before_it_leaves_the_list_of_nodes_and_is_not_replaced() {
    let mut accused = Accused::new();
    accused.seconds(1_000, false);
    assert_eq!((accused.role(), accused.is_repaired()), (GatewayRole::Failed, false));
    accused.second(true);
    assert!(accused.is_repaired(), "{:#?}", accused.seen.gateway.status);
    // One that cannot be read says nothing either.
    let mut accused = Accused::new();
    accused.seen.firewalls = Err(Trouble { reason: "FirewallsUnknown", message: String::new() });
    accused.seconds(1_000, true);
    assert_eq!((accused.role(), accused.is_repaired()), (GatewayRole::Failed, false));
}

#[test]
fn while_its_probes_are_let_in_nowhere_it_is_not_condemned_at_all() {
    type Shut = fn(&mut Observation);
    let shut: [(&str, Shut); 3] = [
        ("the firewall lets nobody in", |seen| {
            seen.firewalls.as_mut().unwrap().firewalls[0].inbound.clear();
        }),
        ("a change that lets it in is not in force", |seen| {
            seen.firewalls.as_mut().unwrap().firewalls[0].status = FirewallStatus::Waiting;
            for gateway in &mut seen.gateway.status.as_mut().unwrap().gateways {
                gateway.admits.clear();
            }
        }),
        ("the other gateway's own filter does not", |seen| {
            let peers = Some(BTreeSet::new());
            seen.health.insert(SECOND, HealthSeen::Ready { version: None, public_address: None, peers });
        }),
    ];
    for (what, shut) in shut {
        let mut accused = Accused::new();
        shut(&mut accused.seen);
        let decision = accused.seconds(200, true);
        assert_eq!((accused.role(), accused.is_repaired()), (GatewayRole::Active, false), "{what}");
        let message = decision.status.gateways[0].message.clone().unwrap_or_default();
        assert!(message.contains("no gateway lets its probes in"), "{what}: {message}");
        // Found out when it has left the list already.
        let mut accused = Accused::new();
        accused.seconds(5, false);
        assert_eq!(accused.role(), GatewayRole::Failed, "{what}");
        shut(&mut accused.seen);
        accused.seconds(200, true);
        assert!(!accused.is_repaired(), "{what}");
    }
}

#[test]
fn what_nodes_see_besides_needs_no_word_of_the_firewall() {
    let mut accused = Accused::new();
    let reports = accused.seen.nodes.iter_mut().filter_map(|node| node.report.as_mut());
    for view in reports.flat_map(|report| &mut report.gateways) {
        view.forwards = Some(view.address != private(FIRST.0));
    }
    accused.seconds(10, false);
    assert!(accused.is_repaired());
}
