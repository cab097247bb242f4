//! A group of one is a trap for the gateway that joins it, and why every gateway stands in a group twice.
//!
//! The kernel's own lookup stands for the packets of a flow: it hashes as packets are hashed, and keeps the flow's bucket busy.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use egress_routing::kernel_state::{GroupMember, KernelState, NexthopTarget, Observed, Resilient};
use egress_routing::wanted::{StaticRouteFields, WantedRoute};
use egress_routing::{Layout, NodePlan, NodeView, OnNoGateway, Selection, VpcInterface, changes, plan};

use super::super::kernel::index_of;
use super::super::namespace::in_namespace;
use crate::CommandSocket;
use crate::reading::{Lookup, Query};

const A: Ipv4Addr = Ipv4Addr::new(10, 116, 0, 5);
const B: Ipv4Addr = Ipv4Addr::new(10, 116, 0, 12);
/// A bucket that no packet went through for so long may move: two minutes on a node.
const IDLE: Duration = Duration::from_secs(2);

/// A node whose two gateways share everything.
struct Node {
    socket: CommandSocket,
    observed: Observed,
    layout: Layout,
    view: NodeView,
    wanted: WantedRoute,
    /// Whether each gateway has its second object in the group, as the plan has it.
    twice: bool,
}

impl Node {
    fn new(twice: bool) -> Self {
        let mut socket = CommandSocket::open().unwrap();
        let address = Ipv4Addr::new(10, 116, 0, 2);
        let subnet = "10.116.0.0/20".parse().unwrap();
        let vpc = VpcInterface { index: index_of(&mut socket, "eth1"), up: true, address, subnet };
        let group = Resilient { buckets: 256, idle_seconds: IDLE.as_secs() as u32, unbalanced_seconds: 0 };
        let wanted = WantedRoute::parse(StaticRouteFields {
            name: "all",
            uid: "uid",
            created: 0,
            destinations: &["0.0.0.0/0"],
            excluded: &[],
            gateways: &["10.116.0.5", "10.116.0.12"],
            health_checked: true,
            reference_fault: None,
            weights: Some(&[]),
            on_no_gateway: OnNoGateway::KeepLast,
            drain_seconds: 0,
        });
        Self {
            socket,
            observed: Observed::default(),
            layout: Layout { group, ..Layout::default() },
            view: NodeView { vpc: Some(vpc), ..NodeView::default() },
            wanted,
            twice,
        }
    }

    fn share_among(&mut self, gateways: &[Ipv4Addr]) {
        let selection = Selection::from([("uid".to_owned(), gateways.iter().copied().collect())]);
        let wanted = std::slice::from_ref(&self.wanted);
        let mut plan = plan(wanted, &self.view, &selection, &self.observed, &self.layout);
        if !self.twice {
            self.take_twins_out(&mut plan);
        }
        let list = changes(&self.observed, &plan.state);
        for (change, outcome) in list.iter().zip(self.socket.apply(&list)) {
            assert!(outcome.is_ok(), "{change:?}: {outcome:?}");
            self.observed.record(change);
        }
    }

    fn take_twins_out(&self, plan: &mut NodePlan) {
        for nexthop in plan.state.nexthops.values_mut() {
            if let NexthopTarget::Group { members, resilient: Some(resilient) } = &nexthop.via {
                let first = members.iter().filter(|member| self.layout.slot_of_nexthop(member.id).is_some());
                let first: Vec<GroupMember> = first.copied().collect();
                nexthop.via = NexthopTarget::group(first, Some(*resilient));
            }
        }
    }

    fn remove_everything(&mut self) {
        let list = changes(&self.observed, &KernelState::default());
        for (change, outcome) in list.iter().zip(self.socket.apply(&list)) {
            assert!(outcome.is_ok(), "{change:?}: {outcome:?}");
        }
    }

    /// One packet of each flow: the gateway that it takes.
    fn send(&mut self) -> BTreeMap<Ipv4Addr, Ipv4Addr> {
        let flows: Vec<Ipv4Addr> = (1..=100).map(|host| Ipv4Addr::new(192, 0, 2, host)).collect();
        let queries: Vec<Query> = flows.iter().map(|flow| Query::to(*flow)).collect();
        let answers = self.socket.route_get_all(&queries).unwrap();
        let gateway = |answer| match answer {
            Lookup::Found { gateway: Some(gateway), .. } => gateway,
            other => panic!("{other:?}"),
        };
        flows.into_iter().zip(answers.into_iter().map(gateway)).collect()
    }

    /// Sends for longer than a bucket needs to be idle. False when this machine stood still for that long.
    fn keep_sending(&mut self) -> bool {
        let (begun, mut last) = (Instant::now(), Instant::now());
        while begun.elapsed() < IDLE + IDLE / 2 {
            self.send();
            if last.elapsed() > IDLE / 2 {
                return false;
            }
            last = Instant::now();
            std::thread::sleep(Duration::from_millis(50));
        }
        true
    }
}

/// How many of a hundred live flows lose their gateway when A joins B, which was alone.
fn moved_by_the_one_that_joins(twice: bool) -> usize {
    loop {
        let mut node = Node::new(twice);
        node.share_among(&[A, B]);
        let both = node.send();
        assert!(both.values().any(|gateway| *gateway == A) && both.values().any(|gateway| *gateway == B));
        node.share_among(&[B]);
        let alone = node.send();
        assert!(alone.values().all(|gateway| *gateway == B));
        let no_pause = node.keep_sending();
        node.share_among(&[A, B]);
        if no_pause {
            let after = node.send();
            return alone.iter().filter(|(flow, gateway)| after[*flow] != **gateway).count();
        }
        node.remove_everything();
    }
}

#[test]
fn a_gateway_that_joins_the_last_one_takes_no_live_flow() {
    in_namespace(|| assert_eq!(moved_by_the_one_that_joins(true), 0));
}

#[test]
fn with_one_object_each_it_would_take_half_of_them() {
    in_namespace(|| {
        let moved = moved_by_the_one_that_joins(false);
        assert!((25..=75).contains(&moved), "{moved} of 100");
    });
}
