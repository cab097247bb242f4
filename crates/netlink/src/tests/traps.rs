//! The traps of the kernel that this crate is shaped by, one test each.

use std::time::{Duration, Instant};

use egress_routing::kernel_state::{
    Change, Foreign, Gateway, GroupMember, Managed, Nexthop, NexthopId, NexthopTarget, Observed, PROTOCOL,
    Resilient, Route, RouteKind, Rule, RuleAction,
};

use super::kernel::{
    FIRST, GROUP, SECOND, TABLE, apply, claim, gateway, index_of, net, put_nexthop, put_route, rules,
};
use super::namespace::{in_namespace, in_namespace_async, ip, until};
use crate::apply::Outcome;
use crate::command::{CommandSocket, Commands};
use crate::error::{ChangeError, Error, Refusal};
use crate::monitor::{Event, Monitor};

/// One gateway and `count` /32 routes through it.
fn many(socket: &mut CommandSocket, count: u32) -> Vec<Change> {
    let eth1 = index_of(socket, "eth1");
    let mut changes = vec![put_nexthop(&gateway(FIRST, "10.116.0.5", eth1))];
    changes.extend((0..count).map(|n| {
        let destination = std::net::Ipv4Addr::from_bits(0xc612_0000 + n);
        put_route(&format!("{destination}/32"), 0, RouteKind::Nexthop(FIRST))
    }));
    changes
}

fn replace(observed: &Observed, nexthop: Nexthop) -> Change {
    Change::PutNexthop { replaces: observed.nexthops.get(&nexthop.id).cloned(), nexthop }
}

/// The events that come until nothing has come for a while.
async fn events(monitor: &mut Monitor) -> Vec<Event> {
    let mut events = Vec::new();
    while let Ok(event) = tokio::time::timeout(Duration::from_millis(200), monitor.next()).await {
        events.push(event.unwrap());
    }
    events
}

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
        ip("nexthop flush");
        let seen = events(&mut monitor).await;
        assert!(seen.iter().any(|event| matches!(event, Event::Nexthop(_))), "{seen:?}");
        assert!(commands.snapshot(claim()).await.unwrap().routes.is_empty(), "flushed with their object");
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
fn ten_thousand_routes_switch_with_one_message_and_none_is_lost() {
    in_namespace(|| {
        let mut socket = CommandSocket::open().unwrap();
        let changes = many(&mut socket, 10_000);
        let start = Instant::now();
        let outcomes = socket.apply(&changes);
        let applied = start.elapsed();
        assert!(outcomes.iter().all(|outcome| *outcome == Ok(Outcome::Changed)));
        let start = Instant::now();
        let observed = socket.snapshot(&claim()).unwrap();
        let read = start.elapsed();
        assert_eq!(observed.routes.len(), 10_000);

        let eth1 = index_of(&mut socket, "eth1");
        let start = Instant::now();
        let switch = replace(&observed, gateway(FIRST, "10.116.0.6", eth1));
        assert_eq!(socket.apply(std::slice::from_ref(&switch)), [Ok(Outcome::Changed)]);
        let switched = start.elapsed();
        eprintln!("10,000 routes: applied in {applied:?}, read in {read:?}, switched in {switched:?}");

        let mut expected = observed;
        expected.record(&switch);
        assert_eq!(socket.snapshot(&claim()).unwrap(), expected);
        let text = ip("route show table 1157");
        assert_eq!(text.lines().filter(|line| line.contains("via 10.116.0.6")).count(), 10_000);

        // To a blackhole and back: the routes stay.
        let observed = socket.snapshot(&claim()).unwrap();
        let closed = replace(&observed, Nexthop { id: FIRST, via: NexthopTarget::Blackhole });
        assert_eq!(apply(&mut socket, &[closed]).routes, expected.routes);
    });
}

#[test]
fn an_object_that_somebody_replaced_without_protocol_is_no_longer_ours() {
    in_namespace(|| {
        let mut socket = CommandSocket::open().unwrap();
        let eth1 = index_of(&mut socket, "eth1");
        let observed = apply(&mut socket, &[put_nexthop(&gateway(FIRST, "10.116.0.5", eth1))]);
        // Our own replace keeps it.
        let again = replace(&observed, gateway(FIRST, "10.116.0.6", eth1));
        let observed = apply(&mut socket, std::slice::from_ref(&again));
        assert_eq!(observed.nexthops.len(), 1);

        ip("nexthop replace id 241000000 via 10.116.0.7 dev eth1");
        let seen = socket.snapshot(&claim()).unwrap();
        assert_eq!(seen.foreign, [Foreign::Nexthop { id: FIRST, protocol: 0 }].into());
        // Also with the proof of a moment ago it is neither replaced nor deleted.
        let ours = observed.nexthops[&FIRST].clone();
        assert_eq!(
            socket.apply(&[again, Change::DeleteNexthop(ours)]),
            [Err(ChangeError::Foreign { protocol: 0 }), Err(ChangeError::Foreign { protocol: 0 })]
        );
        assert!(ip("nexthop").contains("via 10.116.0.7"));
    });
}

#[test]
fn foreign_objects_at_our_places_are_reported_and_not_touched() {
    in_namespace(|| {
        let mut socket = CommandSocket::open().unwrap();
        let eth1 = index_of(&mut socket, "eth1");
        ip("nexthop add id 241000000 via 10.116.0.9 dev eth1 proto static");
        ip("nexthop add id 7 via 10.116.0.9 dev eth1 proto 157");
        ip("route add 198.51.100.0/24 via 10.116.0.9 dev eth1 table 1157 proto static");
        ip("rule add pref 1001 lookup 1157 protocol static");
        let before = [ip("nexthop"), ip("route show table 1157"), ip("rule")];
        let seen = socket.snapshot(&claim()).unwrap();
        assert!(seen.rules.is_empty() && seen.routes.is_empty() && seen.nexthops.is_empty());
        assert_eq!(seen.foreign.len(), 4);

        let outcomes = socket.apply(&[
            put_nexthop(&gateway(FIRST, "10.116.0.5", eth1)),
            put_route("198.51.100.0/24", 0, RouteKind::Throw),
        ]);
        for outcome in outcomes {
            let Err(ChangeError::Refused(error)) = outcome else { panic!("{outcome:?}") };
            assert_eq!(error.refusal, Refusal::Taken);
        }
        // Deletions with a proof that no longer holds.
        let route = Route {
            table: TABLE,
            destination: net("198.51.100.0/24"),
            metric: 0,
            kind: RouteKind::Gateway(Gateway {
                address: "10.116.0.9".parse().unwrap(),
                interface: eth1,
                onlink: false,
            }),
        };
        let outcomes = socket.apply(&[
            Change::DeleteRoute(Managed::prove(route, PROTOCOL).unwrap()),
            Change::DeleteNexthop(Managed::prove(gateway(FIRST, "10.116.0.9", eth1), PROTOCOL).unwrap()),
            Change::DeleteRule(Managed::prove(Rule::lookup(1001, TABLE), PROTOCOL).unwrap()),
        ]);
        assert_eq!(
            outcomes,
            [Ok(Outcome::Unchanged), Err(ChangeError::Foreign { protocol: 4 }), Ok(Outcome::Unchanged)]
        );
        assert_eq!([ip("nexthop"), ip("route show table 1157"), ip("rule")], before);
    });
}

/// The kernel deletes the first rule that fits what the message says, and leaving something out fits anything.
#[test]
fn deleting_a_rule_never_hits_another_one() {
    in_namespace(|| {
        let mut socket = CommandSocket::open().unwrap();
        apply(&mut socket, &[Change::PutRule(Rule::lookup(1001, TABLE))]);
        ip("rule del pref 1001");
        // The same one of somebody else, and a narrower one, come first: the protocol keeps them safe.
        ip("rule add pref 1001 lookup 1157 protocol static");
        ip("rule add pref 1001 from 192.0.2.0/24 lookup 1157 protocol static");
        let foreign = ip("rule");
        assert_eq!(socket.apply(&[Change::PutRule(Rule::lookup(1001, TABLE))]), [Ok(Outcome::Changed)]);
        assert_eq!(ip("rule").lines().count(), foreign.lines().count() + 1);
        let delete = |rule: Rule| Change::DeleteRule(Managed::prove(rule, PROTOCOL).unwrap());
        assert_eq!(socket.apply(&[delete(Rule::lookup(1001, TABLE))]), [Ok(Outcome::Changed)]);
        assert_eq!(ip("rule"), foreign);

        // Between our own the kernel does not tell one with suppression from one without.
        let main = RuleAction::Lookup { table: 254, suppress_prefix_length: Some(0) };
        let suppressed = Rule { action: main, ..Rule::lookup(1000, 254) };
        let plain = Rule::lookup(1000, 254);
        let both = [Change::PutRule(suppressed.clone()), Change::PutRule(plain.clone())];
        assert_eq!(socket.apply(&both), [Ok(Outcome::Changed), Ok(Outcome::Changed)]);
        let before = ip("rule");
        let refused = "another rule of ours would be deleted in its place";
        assert_eq!(socket.apply(&[delete(plain.clone())]), [Err(ChangeError::Invalid(refused))]);
        assert_eq!(ip("rule"), before);
        let outcomes = socket.apply(&[delete(suppressed), delete(plain)]);
        assert_eq!(outcomes, [Ok(Outcome::Changed), Ok(Outcome::Changed)]);
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
            .apply((0..100).map(|n| put_route(&format!("198.51.{n}.0/24"), 0, RouteKind::Throw)).collect())
            .await;
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..100 {
            let commands = commands.clone();
            tasks.spawn(async move {
                if n % 3 == 0 {
                    // Dropped while under way.
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

#[test]
fn groups_keep_their_members_and_cannot_become_single() {
    in_namespace(|| {
        let mut socket = CommandSocket::open().unwrap();
        let eth1 = index_of(&mut socket, "eth1");
        let member = |id, weight| GroupMember { id, weight };
        let resilient = Some(Resilient { buckets: 32, idle_seconds: 60, unbalanced_seconds: 0 });
        let group = |members: &[_]| Nexthop {
            id: GROUP,
            via: NexthopTarget::group(members.iter().copied(), resilient),
        };
        let both = group(&[member(FIRST, 2), member(SECOND, 1)]);
        let observed = apply(
            &mut socket,
            &[
                put_nexthop(&gateway(FIRST, "10.116.0.5", eth1)),
                put_nexthop(&gateway(SECOND, "10.116.0.6", eth1)),
                put_nexthop(&both),
                put_route("0.0.0.0/0", 0, RouteKind::Nexthop(GROUP)),
            ],
        );
        let one = replace(&observed, group(&[member(SECOND, 1)]));
        let observed = apply(&mut socket, &[one]);
        assert_eq!(observed.nexthops[&GROUP].get(), &group(&[member(SECOND, 1)]));
        assert_eq!(observed.routes.len(), 1);
        let single = replace(&observed, gateway(GROUP, "10.116.0.5", eth1));
        let Err(ChangeError::Refused(error)) = socket.apply(&[single]).remove(0) else { panic!() };
        assert_eq!(error.text.as_deref(), Some("Can not replace a nexthop group with a nexthop."));
        // A second object for the same gateway: the remedy for the last member's trap.
        let twin = NexthopId(241_000_050);
        let observed = apply(&mut socket, &[put_nexthop(&gateway(twin, "10.116.0.6", eth1))]);
        let with_twin = replace(&observed, group(&[member(SECOND, 1), member(twin, 1)]));
        apply(&mut socket, &[with_twin]);
    });
}

#[test]
fn flushed_rules_are_missed_and_put_back() {
    in_namespace_async(async || {
        let mut socket = CommandSocket::open().unwrap();
        let changes: Vec<_> = rules().into_iter().map(Change::PutRule).collect();
        let before = apply(&mut socket, &changes);
        let mut monitor = Monitor::subscribe().unwrap();
        ip("rule flush");
        assert!(events(&mut monitor).await.iter().any(|event| matches!(event, Event::Rule(_))));
        assert!(socket.snapshot(&claim()).unwrap().rules.is_empty());
        // Main's own rule went too; the lookup of main in our scheme is ours and comes back.
        assert_eq!(apply(&mut socket, &changes), before);
        let main = |rule: &Rule| matches!(rule.action, RuleAction::Lookup { table: 254, .. });
        assert!(until("main is looked up", || {
            socket.rules().unwrap().iter().any(|seen| main(&seen.rule)).then_some(true)
        }));
    });
}

#[test]
fn an_address_that_goes_takes_nothing_along_but_new_objects_need_onlink() {
    in_namespace_async(async || {
        let mut socket = CommandSocket::open().unwrap();
        let changes = many(&mut socket, 3);
        let before = apply(&mut socket, &changes);
        let mut monitor = Monitor::subscribe().unwrap();
        ip("address del 10.116.0.2/20 dev eth1");
        assert!(events(&mut monitor).await.contains(&Event::Address));
        assert_eq!(socket.snapshot(&claim()).unwrap(), before);
        let eth1 = index_of(&mut socket, "eth1");
        let change = put_nexthop(&gateway(SECOND, "10.116.0.6", eth1));
        let Err(ChangeError::Refused(error)) = socket.apply(&[change]).remove(0) else { panic!() };
        assert_eq!(error.refusal, Refusal::GatewayNotOnLink);
        let onlink = Gateway { address: "10.116.0.6".parse().unwrap(), interface: eth1, onlink: true };
        apply(&mut socket, &[put_nexthop(&Nexthop { id: SECOND, via: NexthopTarget::Gateway(onlink) })]);
    });
}

/// `ip route flush` stops half-way when the table has routes on nexthop objects.
#[test]
fn a_flushed_table_is_seen_and_filled_again() {
    in_namespace_async(async || {
        let mut socket = CommandSocket::open().unwrap();
        let mut changes = many(&mut socket, 3);
        changes.push(put_route("10.0.0.0/8", 0, RouteKind::Throw));
        changes.push(put_route("0.0.0.0/0", 9, RouteKind::Blackhole));
        let before = apply(&mut socket, &changes);
        let mut monitor = Monitor::subscribe().unwrap();
        let _ = std::process::Command::new("ip").args(["route", "flush", "table", "1157"]).output().unwrap();
        let seen = events(&mut monitor).await;
        assert!(seen.iter().any(|event| matches!(event, Event::Route(_))), "{seen:?}");
        let after = socket.snapshot(&claim()).unwrap();
        assert!(after.routes.len() < before.routes.len());
        let missing: Vec<_> = before
            .routes
            .iter()
            .filter(|(key, _)| !after.routes.contains_key(key))
            .map(|(_, route)| Change::PutRoute { route: route.get().clone(), replaces: None })
            .collect();
        assert_eq!(apply(&mut socket, &missing), before);
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

/// The kernel takes a rule for one that is there when a narrower one is.
#[test]
fn a_rule_is_made_beside_a_narrower_one_and_never_twice() {
    in_namespace(|| {
        let mut socket = CommandSocket::open().unwrap();
        let narrow = Rule { from: Some(net("192.0.2.0/24")), ..Rule::lookup(1001, TABLE) };
        let both = [Change::PutRule(narrow), Change::PutRule(Rule::lookup(1001, TABLE))];
        assert_eq!(apply(&mut socket, &both).rules.len(), 2);
        assert_eq!(socket.apply(&both), [Ok(Outcome::Unchanged), Ok(Outcome::Unchanged)]);
        assert_eq!(ip("rule").lines().count(), 5);
    });
}
