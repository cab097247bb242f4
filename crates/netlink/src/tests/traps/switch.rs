//! Ten thousand routes move with one message, and every packet sent meanwhile is accounted for.
//!
//! ```text
//!  node  eth1 10.116.0.2 ──── 10.116.0.5  outside: owns every address,
//!        eth2 10.117.0.2 ──── 10.117.0.5  takes every datagram
//!        eth0 203.0.113.11 ── 203.0.113.1 (main's default route)
//! ```
//! A packet gets the address of the link that it leaves by, so its source tells which gateway it took, or that it leaked.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::Instant;

use egress_routing::kernel_state::{Change, Managed, Nexthop, NexthopTarget, Observed, Rule, RuleAction};
use testkit::Traffic;

use super::super::kernel::{FIRST, apply, claim, gateway, index_of};
use super::super::namespace::{in_namespace, ip, ip_json, until};
use super::{many, replace};
use crate::apply::Outcome;
use crate::command::CommandSocket;

const ROUTES: u32 = 10_000;
const THROUGH_FIRST: Ipv4Addr = Ipv4Addr::new(10, 116, 0, 2);
const THROUGH_SECOND: Ipv4Addr = Ipv4Addr::new(10, 117, 0, 2);
const LEAKED: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 11);

/// The namespace at the other end of the node's links.
struct Outside(String);

impl Outside {
    /// Moves `far` there and adds the other links.
    fn beyond() -> Self {
        let name = format!("netlink-{}", nix::unistd::gettid());
        ip(&format!("netns add {name}"));
        ip(&format!("-n {name} link set lo up"));
        ip(&format!("-n {name} route add local 0.0.0.0/0 dev lo"));
        ip(&format!("link set far netns {name}"));
        ip(&format!("link add eth2 type veth peer name far2 netns {name}"));
        ip(&format!("link add eth0 type veth peer name far0 netns {name}"));
        for (link, address) in
            [("far", "10.116.0.5/20"), ("far2", "10.117.0.5/20"), ("far0", "203.0.113.1/24")]
        {
            ip(&format!("-n {name} address add {address} dev {link}"));
            ip(&format!("-n {name} link set {link} up"));
        }
        for (link, address) in [("eth2", "10.117.0.2/20"), ("eth0", "203.0.113.11/24")] {
            ip(&format!("address add {address} dev {link}"));
            ip(&format!("link set {link} up"));
        }
        until("all links have a carrier", || {
            let links = ip_json("link show type veth");
            links.as_array()?.iter().all(|link| link["operstate"] == "UP").then_some(())
        });
        ip("route add default via 203.0.113.1");
        Self(name)
    }

    fn listen(&self) -> UdpSocket {
        let namespace = File::open(format!("/run/netns/{}", self.0)).unwrap();
        // A socket stays where it was made; the thread that made it need not.
        let made = std::thread::spawn(move || {
            nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            UdpSocket::bind("0.0.0.0:9999").unwrap()
        });
        made.join().unwrap()
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        ip(&format!("netns del {}", self.0));
    }
}

/// The node routes all destinations through the first gateway, and datagrams flow to all of them.
fn under_traffic(socket: &mut CommandSocket, outside: &Outside) -> (Observed, Traffic) {
    let main = RuleAction::Lookup { table: 254, suppress_prefix_length: Some(0) };
    let mut list = many(socket, ROUTES);
    list.push(Change::PutRule(Rule { action: main, ..Rule::lookup(1000, 254) }));
    list.push(Change::PutRule(Rule::lookup(1001, 1157)));
    let begun = Instant::now();
    let observed = apply(socket, &list);
    eprintln!("{ROUTES} routes applied and read back in {:?}", begun.elapsed());
    assert_eq!(observed.routes.len(), ROUTES as usize);
    let targets = observed.routes.keys().map(|key| SocketAddrV4::new(key.destination.addr(), 9999)).collect();
    let traffic = Traffic::start(UdpSocket::bind("0.0.0.0:0").unwrap(), outside.listen(), targets);
    assert!(traffic.goes_on(u64::from(ROUTES)), "every destination once");
    (observed, traffic)
}

#[test]
fn ten_thousand_routes_switch_with_one_message_and_none_is_lost() {
    in_namespace(|| {
        let outside = Outside::beyond();
        let mut socket = CommandSocket::open().unwrap();
        let (mut observed, traffic) = under_traffic(&mut socket, &outside);
        let first = gateway(FIRST, "10.116.0.5", index_of(&mut socket, "eth1"));
        let second = gateway(FIRST, "10.117.0.5", index_of(&mut socket, "eth2"));
        let mut slowest = std::time::Duration::ZERO;
        for nexthop in [&second, &first].into_iter().cycle().take(20) {
            let switch = replace(&observed, nexthop.clone());
            let begun = Instant::now();
            assert_eq!(socket.apply(std::slice::from_ref(&switch)), [Ok(Outcome::Changed)]);
            slowest = slowest.max(begun.elapsed());
            observed.record(&switch);
            assert!(traffic.goes_on(1_000));
        }
        let verdict = traffic.stop().unwrap();
        eprintln!(
            "20 switches, the slowest in {slowest:?}; {} packets in {:?}: {:?}",
            verdict.sent, verdict.took, verdict.by_source
        );
        assert!(
            verdict.is_whole(&[THROUGH_FIRST, THROUGH_SECOND]),
            "{} lost, {} refused, {:?}",
            verdict.lost.len(),
            verdict.refused.len(),
            verdict.by_source
        );
        assert!(verdict.from(THROUGH_FIRST) > 5_000 && verdict.from(THROUGH_SECOND) > 5_000);
        assert_eq!(socket.snapshot(&claim()).unwrap(), observed);

        // To a blackhole and back: the routes stay.
        let closed = replace(&observed, Nexthop { id: FIRST, via: NexthopTarget::Blackhole });
        assert_eq!(apply(&mut socket, &[closed]).routes, observed.routes);
    });
}

/// What the test above would see of a switch that is not one message.
#[test]
fn deleting_and_adding_would_lose_and_leak() {
    in_namespace(|| {
        let outside = Outside::beyond();
        let mut socket = CommandSocket::open().unwrap();
        let (observed, traffic) = under_traffic(&mut socket, &outside);
        let eth2 = index_of(&mut socket, "eth2");
        apply(&mut socket, &[Change::DeleteNexthop(observed.nexthops[&FIRST].clone())]);
        // Whoever sends just then: on a busy machine nobody may have its turn in the moment between two messages.
        assert!(traffic.goes_on(100));
        let mut list =
            vec![Change::PutNexthop { nexthop: gateway(FIRST, "10.117.0.5", eth2), replaces: None }];
        let routes = observed.routes.values().map(Managed::get).cloned();
        list.extend(routes.map(|route| Change::PutRoute { route, replaces: None }));
        apply(&mut socket, &list);
        assert!(traffic.goes_on(1_000));
        let verdict = traffic.stop().unwrap();
        eprintln!("{:?}, {} lost, {} refused", verdict.by_source, verdict.lost.len(), verdict.refused.len());
        assert!(verdict.from(LEAKED) > 0);
    });
}
