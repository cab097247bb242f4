//! What the kernel tells of a resilient group's buckets, on which the end of a planned move relies.

use std::io::Write;
use std::net::{Ipv4Addr, UdpSocket};
use std::process::{Command, Stdio};
use std::time::Duration;

use egress_routing::kernel_state::NexthopId;

use super::kernel::address;
use super::namespace::{in_namespace, ip, until};
use crate::CommandSocket;
use crate::bucket::Bucket;
use crate::reading::{Lookup, Query};

const GROUP: NexthopId = NexthopId(241_600_000);
const OLD: NexthopId = NexthopId(241_100_000);
const NEW: NexthopId = NexthopId(241_100_001);
/// Nothing moves by itself while a test runs.
const MEMBERS: &str =
    "group 241100000,1/241110000,1/241100001,255/241110001,255 type resilient buckets 256 idle_timer 600";

/// A group of its old gateway alone, as while a drain watches; every destination of 192.0.2.0/24 goes there.
fn watch() {
    for (id, gateway) in [(241_100_000, 5), (241_110_000, 5), (241_100_001, 12), (241_110_001, 12)] {
        ip(&format!("nexthop add id {id} via 10.116.0.{gateway} dev eth1 proto 157"));
    }
    ip(
        "nexthop add id 241600000 group 241100000/241110000 type resilient buckets 256 idle_timer 600 proto 157",
    );
    ip("route add 192.0.2.0/24 nhid 241600000 proto 157");
    // See below what becomes of who asks at once.
    wait(Duration::from_millis(30));
}

fn replace_by_itself() {
    ip(&format!("nexthop replace id 241600000 {MEMBERS} proto 157"));
}

/// Buckets of the old gateway.
fn old(socket: &mut CommandSocket) -> Vec<Bucket> {
    let is_old = |bucket: &Bucket| [OLD, NexthopId(OLD.0 + 10_000)].contains(&bucket.nexthop);
    socket.buckets(GROUP).unwrap().into_iter().filter(is_old).collect()
}

fn wait(time: Duration) {
    std::thread::sleep(time);
}

#[test]
fn buckets_tell_their_gateway_and_when_a_way_was_last_looked_up() {
    in_namespace(|| {
        let mut socket = CommandSocket::open().unwrap();
        watch();
        // Another group beside it.
        ip(
            "nexthop add id 241600001 group 241100001/241110001 type resilient buckets 8 idle_timer 600 proto 157",
        );
        let all = socket.buckets(GROUP).unwrap();
        assert_eq!((all.len(), old(&mut socket).len()), (256, 256));
        let flow = Query::to(address("192.0.2.7"));
        socket.route_get(&flow).unwrap();
        replace_by_itself();
        until("what was not used has moved", || (old(&mut socket).len() <= 2).then_some(()));
        assert!(socket.buckets(GROUP).unwrap().iter().any(|bucket| bucket.nexthop == NEW));
        wait(Duration::from_millis(300));
        let idle = |socket: &mut CommandSocket| old(socket).iter().map(|bucket| bucket.idle).min().unwrap();
        assert!(idle(&mut socket) >= Duration::from_millis(290), "{:?}", old(&mut socket));
        until("a lookup tells", || {
            socket.route_get(&flow).unwrap();
            (idle(&mut socket) < Duration::from_millis(290)).then_some(())
        });
        assert!(socket.buckets(NexthopId(241_600_009)).is_err(), "a group that is not there");
    });
}

/// The premise of a planned move that ends early: without it a socket that sends all the time would look idle.
#[test]
fn a_socket_of_the_node_is_seen_again_after_its_group_was_replaced_by_itself() {
    in_namespace(|| {
        let mut socket = CommandSocket::open().unwrap();
        watch();
        let sender = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        sender.connect("192.0.2.7:9").unwrap();
        sender.send(b"x").unwrap();
        replace_by_itself();
        until("what was not used has moved", || (old(&mut socket).len() <= 4).then_some(()));
        let least_idle =
            |socket: &mut CommandSocket| old(socket).iter().map(|bucket| bucket.idle).min().unwrap();
        sender.send(b"x").unwrap();
        for _ in 0..30 {
            wait(Duration::from_millis(10));
            // Nobody answers for the gateway here, which the kernel may say at the next send.
            let _unreachable = sender.send(b"x");
        }
        assert!(least_idle(&mut socket) >= Duration::from_millis(290), "a socket remembers its way");
        let before = old(&mut socket).len();
        replace_by_itself();
        assert!(least_idle(&mut socket) >= Duration::from_millis(290), "it has not sent since");
        until("it asks again", || {
            let _unreachable = sender.send(b"x");
            (least_idle(&mut socket) < Duration::from_millis(290)).then_some(())
        });
        assert_eq!(old(&mut socket).len(), before, "and nothing has moved");
    });
}

/// In how many of so many drains a socket of the node is moved that sends right after the group was made, and `later` replaces
/// the group by itself or not.
fn moved(socket: &mut CommandSocket, tries: usize, later: impl Fn(&UdpSocket)) -> usize {
    let begin = "nexthop replace id 241600000 group 241100000/241110000 type resilient buckets 256 idle_timer 600 proto 157\n\
                 route replace 192.0.2.0/24 nhid 241600000 proto 157\n";
    (0..tries)
        .filter(|_| {
            let sender = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
            let mut batch = Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().unwrap();
            batch.stdin.take().unwrap().write_all(begin.as_bytes()).unwrap();
            assert!(batch.wait().unwrap().success());
            sender.connect("192.0.2.7:9").unwrap();
            let _unreachable = sender.send(b"x");
            later(&sender);
            ip(&format!("nexthop replace id 241600000 {MEMBERS} proto 157"));
            until("what was not used has moved", || (old(socket).len() <= 4).then_some(()));
            // By the pair of addresses, as the socket.
            let flow = Query { source: Some(address("10.116.0.2")), ..Query::to(address("192.0.2.7")) };
            let way = socket.route_get(&flow).unwrap();
            ip("route del 192.0.2.0/24");
            ip("nexthop del id 241600000");
            matches!(way, Lookup::Found { gateway, .. } if gateway == Some(address("10.116.0.12")))
        })
        .count()
}

#[test]
fn who_asks_in_the_tick_in_which_a_group_is_made_looks_unused_unless_the_roll_is_called() {
    in_namespace(|| {
        let mut socket = CommandSocket::open().unwrap();
        watch();
        ip("route del 192.0.2.0/24");
        ip("nexthop del id 241600000");
        let at_once = moved(&mut socket, 60, |_| {});
        let called = moved(&mut socket, 20, |sender| {
            wait(Duration::from_millis(30));
            ip(
                "nexthop replace id 241600000 group 241100000/241110000 type resilient buckets 256 idle_timer 600 proto 157",
            );
            let _unreachable = sender.send(b"x");
        });
        eprintln!(
            "moved under the hands of their sender: {at_once} of 60, and {called} of 20 once the roll was called"
        );
        assert!(at_once > 0);
        assert_eq!(called, 0);
    });
}
