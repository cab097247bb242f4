//! What is ours and what is not, and where the kernel would take one for the other.

use egress_routing::kernel_state::{
    Change, Foreign, Gateway, GroupMember, Managed, Nexthop, NexthopId, NexthopTarget, PROTOCOL, Resilient,
    Route, RouteKind, Rule, RuleAction,
};

use super::super::kernel::{
    FIRST, GROUP, SECOND, TABLE, apply, claim, gateway, index_of, net, put_nexthop, put_route,
};
use super::super::namespace::{in_namespace, ip};
use super::replace;
use crate::apply::Outcome;
use crate::command::CommandSocket;
use crate::error::{ChangeError, Refusal};

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
fn a_route_of_somebody_else_at_our_place_is_not_deleted_with_an_old_proof_and_would_be_replaced() {
    in_namespace(|| {
        let mut socket = CommandSocket::open().unwrap();
        let observed = apply(&mut socket, &[put_route("198.51.100.0/24", 0, RouteKind::Throw)]);
        let ours = observed.routes.values().next().unwrap().clone();
        ip("route replace 198.51.100.0/24 via 10.116.0.9 dev eth1 table 1157 proto static");
        assert_eq!(socket.apply(&[Change::DeleteRoute(ours.clone())]), [Ok(Outcome::Unchanged)]);
        assert!(ip("route show table 1157").contains("via 10.116.0.9"));
        // The limit that `ownership` tells of: only a snapshot taken in between would have shown whose it is.
        let route = Route { kind: RouteKind::Blackhole, ..ours.get().clone() };
        assert_eq!(socket.apply(&[Change::PutRoute { route, replaces: Some(ours) }]), [Ok(Outcome::Changed)]);
        assert!(!ip("route show table 1157").contains("10.116.0.9"));
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

/// A kernel newer than this program shows a rule of ours with an attribute that this one has no word for.
#[test]
fn beside_a_rule_that_shows_more_than_we_can_say_no_copy_is_made() {
    in_namespace(|| {
        let mut socket = CommandSocket::open().unwrap();
        ip("rule add pref 1001 lookup 1157 realms 7 protocol 157");
        let before = ip("rule");
        for _ in 0..2 {
            let outcome = socket.apply(&[Change::PutRule(Rule::lookup(1001, TABLE))]).remove(0);
            let Err(ChangeError::Refused(error)) = outcome else { panic!("{outcome:?}") };
            assert_eq!(error.refusal, Refusal::Taken);
            assert_eq!(ip("rule"), before);
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
