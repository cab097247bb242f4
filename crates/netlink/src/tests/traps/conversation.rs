//! Between us and the kernel: answers and notifications that get lost, come twice or mean nothing to us.

use std::time::{Duration, Instant};

use egress_routing::kernel_state::{Change, Foreign, Managed, NexthopId, PROTOCOL, Route, RouteKind, Rule};

use super::super::kernel::{FIRST, TABLE, apply, claim, gateway, net, put_nexthop, put_route, rules};
use super::super::namespace::{in_namespace, in_namespace_async, ip};
use super::{events, many, replace};
use crate::command::{CommandSocket, Commands};
use crate::error::{ChangeError, Error, Refusal};
use crate::exchange::Reply;
use crate::monitor::{self, Event, Monitor};
use crate::{route, wire};

#[test]
fn the_monitor_tells_each_kind_of_change_and_who_made_it() {
    in_namespace_async(async || {
        let commands = Commands::start().unwrap();
        let eth1 =
            commands.interfaces().await.unwrap().iter().find(|link| link.name == "eth1").unwrap().index;
        let mut monitor = Monitor::subscribe().unwrap();
        ip("address add 10.116.0.9/32 dev eth1");
        assert!(events(&mut monitor).await.contains(&Event::Address));
        ip("rule add pref 1001 lookup 1157");
        let seen = events(&mut monitor).await;
        assert!(matches!(seen[..], [Event::Rule(_)]) && !seen[0].is_by(commands.port()), "{seen:?}");

        let changes = vec![
            put_nexthop(&gateway(FIRST, "10.116.0.5", eth1)),
            put_route("198.51.100.0/24", 0, RouteKind::Nexthop(FIRST)),
            Change::PutRule(Rule::lookup(1000, TABLE)),
        ];
        commands.apply(changes).await;
        let seen = events(&mut monitor).await;
        assert!(matches!(seen[..], [Event::Nexthop(_), Event::Route(_), Event::Rule(_)]), "{seen:?}");
        assert!(seen.iter().all(|event| event.is_by(commands.port())));
        // One message moves all routes of the object.
        let observed = commands.snapshot(claim()).await.unwrap();
        commands.apply(vec![replace(&observed, gateway(FIRST, "10.116.0.6", eth1))]).await;
        let seen = events(&mut monitor).await;
        assert_eq!(seen.iter().filter(|event| matches!(event, Event::Nexthop(_))).count(), 1, "{seen:?}");
        assert!(seen.iter().all(|event| event.is_by(commands.port())));
    });
}

#[test]
fn a_monitor_that_ignores_a_port_hears_all_others_and_is_not_overrun_by_it() {
    in_namespace_async(async || {
        let mut socket = CommandSocket::open().unwrap();
        let commands = Commands::start().unwrap();
        let changes = many(&mut socket, 10_000);
        let mut monitor = Monitor::subscribe().unwrap();
        monitor.ignore(commands.port()).unwrap();
        commands.apply(changes).await;
        assert_eq!(events(&mut monitor).await, []);
        ip("route del 198.18.0.7 table 1157");
        ip("link set eth1 mtu 1400");
        let seen = events(&mut monitor).await;
        assert!(matches!(seen[..], [Event::Route(_), Event::Link, ..]), "{seen:?}");

        // Another socket now has that place.
        let other = Commands::start().unwrap();
        monitor.ignore(other.port()).unwrap();
        commands.apply(vec![Change::PutRule(Rule::lookup(1000, TABLE))]).await;
        assert!(matches!(events(&mut monitor).await[..], [Event::Rule(_)]));
    });
}

#[test]
fn a_monitor_that_is_overrun_says_so_and_goes_on() {
    in_namespace_async(async || {
        let mut socket = CommandSocket::open().unwrap();
        let mut monitor = Monitor::with_receive_buffer(4096).unwrap();
        let changes = many(&mut socket, 1000);
        apply(&mut socket, &changes);
        assert!(events(&mut monitor).await.contains(&Event::Overrun));
        ip("link set eth1 mtu 1400");
        assert!(events(&mut monitor).await.contains(&Event::Link));
    });
}

#[test]
fn lost_acks_end_in_an_error_within_the_deadline_and_the_next_request_works() {
    in_namespace(|| {
        let deadline = Duration::from_millis(500);
        let mut socket = CommandSocket::with_limits(1, deadline).unwrap();
        let changes: Vec<_> =
            (0..128).map(|n| put_route(&format!("198.51.{n}.0/24"), 0, RouteKind::Throw)).collect();
        let start = Instant::now();
        let outcomes = socket.apply(&changes);
        assert!(start.elapsed() < deadline * 2);
        assert_eq!(outcomes.len(), changes.len());
        assert_eq!(outcomes.last(), Some(&Err(ChangeError::Unknown { category: "overrun" })));
        // The kernel did it all the same: only a snapshot tells.
        assert_eq!(CommandSocket::open().unwrap().snapshot(&claim()).unwrap().routes.len(), 128);
        assert_eq!(socket.apply(&changes[..1]), [Err(ChangeError::Refused(taken()))]);
    });
}

fn taken() -> crate::KernelError {
    crate::KernelError::new(-(nix::errno::Errno::EEXIST as i32), None)
}

#[test]
fn a_dump_that_overruns_ends_in_an_error() {
    in_namespace(|| {
        let mut socket = CommandSocket::open().unwrap();
        let changes = many(&mut socket, 5000);
        apply(&mut socket, &changes);
        let mut small = CommandSocket::with_limits(1, Duration::from_millis(500)).unwrap();
        // A dump waits for its reader, so a small buffer only makes it slow.
        match small.snapshot(&claim()) {
            Ok(observed) => assert_eq!(observed.routes.len(), 5000),
            Err(error) => assert!(matches!(error, Error::Overrun | Error::Deadline(_)), "{error}"),
        }
    });
}

#[test]
fn a_request_that_gets_no_answer_ends_at_its_deadline() {
    in_namespace(|| {
        let deadline = Duration::from_millis(100);
        let mut socket = CommandSocket::with_limits(1 << 20, deadline).unwrap();
        // Without the flag the kernel does not acknowledge: an answer that never comes.
        let mut request = crate::rule::put(&Rule::lookup(1001, TABLE));
        request.flags &= !crate::wire::flag::ACK;
        let start = Instant::now();
        assert!(matches!(socket.exchange(&[request], |_| {}), Err(Error::Deadline(_))));
        assert!(start.elapsed() >= deadline && start.elapsed() < deadline * 5);
        assert_eq!(socket.snapshot(&claim()).unwrap().rules.len(), 1);
    });
}

#[test]
fn a_state_that_is_as_it_should_be_is_read_without_a_single_notification() {
    in_namespace_async(async || {
        let mut socket = CommandSocket::open().unwrap();
        let mut changes = many(&mut socket, 10);
        changes.extend(rules().into_iter().map(Change::PutRule));
        let observed = apply(&mut socket, &changes);
        let mut monitor = Monitor::subscribe().unwrap();
        // Another process, as after a restart.
        let mut restarted = CommandSocket::open().unwrap();
        assert_eq!(restarted.snapshot(&claim()).unwrap(), observed);
        assert_eq!(restarted.apply(&[]), []);
        restarted.interfaces().unwrap();
        restarted.main_routes().unwrap();
        assert_eq!(events(&mut monitor).await, []);
    });
}

#[test]
fn requests_of_many_tasks_and_dropped_ones_do_not_mix_up_answers() {
    in_namespace_async(async || {
        let commands = Commands::start().unwrap();
        commands
            .apply(
                (0..100)
                    .map(|n| put_route(&format!("198.51.{n}.0/24"), 0, RouteKind::Throw))
                    .collect::<Vec<_>>(),
            )
            .await;
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..100 {
            let commands = commands.clone();
            tasks.spawn(async move {
                if n % 3 == 0 {
                    // Dropped while under way, or answered in time: what counts is what the others get.
                    let _ = tokio::time::timeout(Duration::from_micros(50), commands.interfaces()).await;
                } else if n % 3 == 1 {
                    assert_eq!(commands.snapshot(claim()).await.unwrap().routes.len(), 100);
                } else {
                    assert_eq!(commands.interfaces().await.unwrap().len(), 3);
                }
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
    });
}

/// Others change tables all the time; what stands still meanwhile is never missing from a snapshot.
#[test]
fn snapshots_under_way_while_others_change_routes_miss_nothing() {
    in_namespace(|| {
        let mut socket = CommandSocket::open().unwrap();
        let changes = many(&mut socket, 3000);
        let before = apply(&mut socket, &changes);
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut other = CommandSocket::open().unwrap();
                let route = |n: u32| Route {
                    table: 5000,
                    destination: net(&format!("10.{}.{}.0/24", n / 256 % 256, n % 256)),
                    metric: 0,
                    kind: RouteKind::Throw,
                };
                for n in 0.. {
                    if stop.load(std::sync::atomic::Ordering::Relaxed) {
                        break;
                    }
                    other.apply(&[Change::PutRoute { route: route(n), replaces: None }]);
                    other.apply(&[Change::DeleteRoute(Managed::prove(route(n), PROTOCOL).unwrap())]);
                }
            });
            let mut unsteady = 0;
            for _ in 0..20 {
                match socket.snapshot(&claim()) {
                    Ok(observed) => {
                        assert!(before.routes.keys().all(|key| observed.routes.contains_key(key)));
                    }
                    Err(Error::Unsteady) => unsteady += 1,
                    Err(error) => panic!("{error}"),
                }
            }
            eprintln!("{unsteady} of 20 snapshots found the tables unsteady");
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    });
}

#[test]
fn a_socket_serves_one_dump_at_a_time_and_ours_never_asks_for_two() {
    in_namespace_async(async || {
        let mut socket = CommandSocket::open().unwrap();
        // More than one datagram holds, so that the first dump is under way when the second request comes.
        let changes = many(&mut socket, 3000);
        apply(&mut socket, &changes);
        let dump = route::dump(Some(TABLE), None);
        let replies = socket.exchange(&[dump.clone(), dump], |_| {}).unwrap();
        let [Reply::Done, Reply::Refused(error)] = &replies[..] else { panic!("{replies:?}") };
        assert_eq!((error.errno, error.refusal), (nix::errno::Errno::EBUSY, Refusal::Transient));

        let commands = Commands::start().unwrap();
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let commands = commands.clone();
            tasks.spawn(async move { commands.snapshot(claim()).await.unwrap().routes.len() });
        }
        while let Some(routes) = tasks.join_next().await {
            assert_eq!(routes.unwrap(), 3000);
        }
    });
}

#[test]
fn what_cannot_be_decoded_wakes_and_breaks_nothing() {
    in_namespace_async(async || {
        let mut socket = CommandSocket::open().unwrap();
        let mut monitor = Monitor::subscribe().unwrap();
        // Nothing that this project ever writes: an object for a bridge's table, under our protocol and in our range.
        ip("nexthop add id 241000005 via 10.116.0.9 fdb proto 157");
        assert!(matches!(events(&mut monitor).await[..], [Event::Nexthop(_)]));
        let seen = socket.snapshot(&claim()).unwrap();
        assert!(seen.nexthops.is_empty());
        assert_eq!(
            seen.foreign,
            [Foreign::Nexthop { id: NexthopId(241_000_005), protocol: PROTOCOL }].into()
        );
    });
    // Types that are not there yet, and bodies that are cut short: a type we follow wakes whatever its body is.
    let frame = |kind| wire::Frame { kind, flags: 0, sequence: 0, port: 0, payload: &[1] };
    assert_eq!(monitor::event(&frame(9999)), None);
    assert!(matches!(monitor::event(&frame(wire::kind::NEW_NEXTHOP)), Some(Event::Nexthop(_))));
    assert_eq!(monitor::event(&frame(wire::kind::DEL_LINK)), Some(Event::Link));
}
