//! What others do to a node's routing, what the kernel says of it, and what is left.

use std::net::{Ipv4Addr, UdpSocket};

use egress_routing::kernel_state::{
    Change, Gateway, GroupMember, KernelState, Managed, Nexthop, NexthopTarget, PROTOCOL, RouteKind, Rule,
};
use egress_routing::{BuiltinRule, changes};

use super::super::kernel::{
    FIRST, GROUP, SECOND, TABLE, apply, claim, gateway, index_of, put_nexthop, put_route, rules,
};
use super::super::namespace::{in_namespace_async, ip, until};
use super::{events, many};
use crate::apply::Outcome;
use crate::command::CommandSocket;
use crate::error::{ChangeError, Refusal};
use crate::monitor::{Event, Monitor};

#[test]
fn a_link_that_goes_down_takes_everything_and_only_the_link_event_tells() {
    in_namespace_async(async || {
        let mut socket = CommandSocket::open().unwrap();
        let changes = many(&mut socket, 3);
        apply(&mut socket, &changes);
        let mut monitor = Monitor::subscribe().unwrap();
        ip("link set eth1 down");
        let seen = events(&mut monitor).await;
        assert!(seen.contains(&Event::Link), "{seen:?}");
        assert!(!seen.iter().any(|event| matches!(event, Event::Nexthop(_))), "{seen:?}");
        let observed = socket.snapshot(&claim()).unwrap();
        assert!(observed.nexthops.is_empty() && observed.routes.is_empty());

        ip("link set eth1 up");
        assert!(events(&mut monitor).await.contains(&Event::Link));
        assert!(socket.snapshot(&claim()).unwrap().nexthops.is_empty(), "nothing comes back by itself");
        // What was lost is made anew, also by a change that believes to replace.
        let eth1 = index_of(&mut socket, "eth1");
        let ours = Managed::prove(gateway(FIRST, "10.116.0.5", eth1), PROTOCOL).unwrap();
        let change = Change::PutNexthop { nexthop: gateway(FIRST, "10.116.0.6", eth1), replaces: Some(ours) };
        assert_eq!(socket.apply(&[change]), [Ok(Outcome::Changed)]);
    });
}

#[test]
fn a_carrier_that_is_lost_takes_everything_and_only_the_link_event_tells() {
    in_namespace_async(async || {
        let mut socket = CommandSocket::open().unwrap();
        let changes = many(&mut socket, 3);
        apply(&mut socket, &changes);
        let mut monitor = Monitor::subscribe().unwrap();
        let is_running = |socket: &mut CommandSocket| {
            let links = socket.interfaces().unwrap();
            let eth1 = links.iter().find(|link| link.name == "eth1").unwrap();
            assert!(eth1.up, "nobody has set it down");
            eth1.running
        };
        ip("link set far down");
        until("its carrier is lost", || (!is_running(&mut socket)).then_some(()));
        until("all is gone", || {
            let observed = socket.snapshot(&claim()).unwrap();
            (observed.nexthops.is_empty() && observed.routes.is_empty()).then_some(())
        });
        let seen = events(&mut monitor).await;
        assert!(seen.contains(&Event::Link), "{seen:?}");
        assert!(!seen.iter().any(|event| matches!(event, Event::Nexthop(_) | Event::Route(_))), "{seen:?}");

        ip("link set far up");
        until("it is back", || is_running(&mut socket).then_some(()));
        assert!(events(&mut monitor).await.contains(&Event::Link));
        assert!(socket.snapshot(&claim()).unwrap().nexthops.is_empty(), "nothing comes back by itself");
    });
}

#[test]
fn a_rule_flush_takes_main_too_and_all_of_it_is_put_back_as_it_was() {
    in_namespace_async(async || {
        let mut socket = CommandSocket::open().unwrap();
        let puts: Vec<_> = rules().into_iter().map(Change::PutRule).collect();
        let observed = apply(&mut socket, &puts);
        let want = KernelState {
            rules: rules().into_iter().collect(),
            builtin_rules: BuiltinRule::ALL.into(),
            ..KernelState::default()
        };
        assert_eq!(changes(&observed, &want), []);
        let before = ip("-d rule");
        let mut monitor = Monitor::subscribe().unwrap();
        ip("rule flush");
        assert!(events(&mut monitor).await.iter().any(|event| matches!(event, Event::Rule(_))));
        assert_eq!(ip("-d rule").lines().count(), 1, "only priority 0 is left");

        let flushed = socket.snapshot(&claim()).unwrap();
        let list = changes(&flushed, &want);
        assert_eq!(apply(&mut socket, &list), observed);
        assert_eq!(ip("-d rule"), before, "to the letter, protocol and all");

        // They are the kernel's: what is ours goes, they stay.
        let list = changes(&observed, &KernelState::default());
        apply(&mut socket, &list);
        let left = ip("-d rule");
        let left: Vec<&str> = left.lines().map(|line| line.split(':').next().unwrap()).collect();
        assert_eq!(left, ["0", "32766", "32767"]);
    });
}

#[test]
fn without_the_address_packets_get_the_public_source_and_new_objects_need_onlink() {
    in_namespace_async(async || {
        ip("link add eth0 type veth peer name outside");
        ip("link set outside up");
        ip("link set eth0 up");
        ip("address add 203.0.113.11/24 dev eth0");
        ip("route add default via 203.0.113.1");
        let mut socket = CommandSocket::open().unwrap();
        let mut list = many(&mut socket, 3);
        list.push(Change::PutRule(Rule::lookup(1001, TABLE)));
        let before = apply(&mut socket, &list);
        assert_eq!(source_to("198.18.0.1"), Ipv4Addr::new(10, 116, 0, 2));

        let mut monitor = Monitor::subscribe().unwrap();
        ip("address del 10.116.0.2/20 dev eth1");
        assert!(events(&mut monitor).await.contains(&Event::Address));
        assert_eq!(socket.snapshot(&claim()).unwrap(), before, "nothing is lost");
        assert_eq!(
            source_to("198.18.0.1"),
            Ipv4Addr::new(203, 0, 113, 11),
            "through the gateway's link all the same"
        );

        let eth1 = index_of(&mut socket, "eth1");
        let change = put_nexthop(&gateway(SECOND, "10.116.0.6", eth1));
        let Err(ChangeError::Refused(error)) = socket.apply(&[change]).remove(0) else { panic!() };
        assert_eq!(error.refusal, Refusal::GatewayNotOnLink);
        let onlink = Gateway { address: "10.116.0.6".parse().unwrap(), interface: eth1, onlink: true };
        apply(&mut socket, &[put_nexthop(&Nexthop { id: SECOND, via: NexthopTarget::Gateway(onlink) })]);
    });
}

/// The address that the kernel gives packets to `target`.
fn source_to(target: &str) -> Ipv4Addr {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect((target, 9)).unwrap();
    match socket.local_addr().unwrap() {
        std::net::SocketAddr::V4(address) => *address.ip(),
        other @ std::net::SocketAddr::V6(_) => panic!("{other}"),
    }
}

#[test]
fn flushed_nexthop_objects_take_their_routes_along_in_silence() {
    in_namespace_async(async || {
        let mut socket = CommandSocket::open().unwrap();
        let mut list = many(&mut socket, 3);
        let members = [GroupMember { id: FIRST, weight: 1 }];
        list.push(put_nexthop(&Nexthop { id: GROUP, via: NexthopTarget::group(members, None) }));
        list.push(put_route("0.0.0.0/0", 0, RouteKind::Nexthop(GROUP)));
        apply(&mut socket, &list);
        let mut monitor = Monitor::subscribe().unwrap();
        ip("nexthop flush");
        let seen = events(&mut monitor).await;
        assert!(seen.iter().any(|event| matches!(event, Event::Nexthop(_))), "{seen:?}");
        assert!(!seen.iter().any(|event| matches!(event, Event::Route(_))), "{seen:?}");
        let left = socket.snapshot(&claim()).unwrap();
        assert!(left.nexthops.is_empty() && left.routes.is_empty(), "{left:?}");
    });
}

#[test]
fn a_table_flush_stops_half_way_and_what_is_missing_is_put_back() {
    in_namespace_async(async || {
        let mode = std::fs::read_to_string("/proc/sys/net/ipv4/nexthop_compat_mode").unwrap();
        assert_eq!(mode.trim(), "1", "the kernel's default");
        let mut socket = CommandSocket::open().unwrap();
        let mut list = many(&mut socket, 3);
        list.push(put_route("10.0.0.0/8", 0, RouteKind::Throw));
        list.push(put_route("0.0.0.0/0", 9, RouteKind::Blackhole));
        let before = apply(&mut socket, &list);
        let mut monitor = Monitor::subscribe().unwrap();
        let flush =
            std::process::Command::new("ip").args(["route", "flush", "table", "1157"]).output().unwrap();
        let words = String::from_utf8_lossy(&flush.stderr);
        assert!(!flush.status.success() && words.contains("Invalid argument"), "{words}");
        let seen = events(&mut monitor).await;
        assert!(seen.iter().any(|event| matches!(event, Event::Route(_))), "{seen:?}");

        let after = socket.snapshot(&claim()).unwrap();
        assert_eq!(after.routes.len(), 3, "{:?}", after.routes);
        assert!(after.routes.values().all(|route| route.get().kind == RouteKind::Nexthop(FIRST)));
        let missing: Vec<_> = before
            .routes
            .iter()
            .filter(|(key, _)| !after.routes.contains_key(key))
            .map(|(_, route)| Change::PutRoute { route: route.get().clone(), replaces: None })
            .collect();
        assert_eq!(apply(&mut socket, &missing), before);
    });
}
