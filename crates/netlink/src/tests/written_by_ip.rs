//! What `ip` writes we read: every kind of value, and what is not ours beside it.

use egress_routing::BuiltinRule;
use egress_routing::kernel_state::{
    Foreign, Gateway, GroupMember, Nexthop, NexthopId, NexthopTarget, PROTOCOL, Resilient, RouteKey,
    RouteKind, Rule, RuleAction,
};

use super::kernel::{FIRST, GROUP, SECOND, TABLE, address, claim, gateway, index_of, net};
use super::namespace::{in_namespace, ip};
use crate::command::CommandSocket;

#[test]
fn routes_of_every_kind_at_every_metric_are_read() {
    in_namespace(|| {
        let mut socket = CommandSocket::open().unwrap();
        let eth1 = index_of(&mut socket, "eth1");
        ip("nexthop add id 241000000 via 10.116.0.5 dev eth1 proto 157");
        ip("nexthop add id 241000001 blackhole proto 157");
        ip("route add 198.51.100.0/24 nhid 241000000 table 1157 metric 7 proto 157");
        ip("route add 198.51.103.0/24 nhid 241000001 table 1157 proto 157");
        ip("route add throw 10.0.0.0/8 table 1157 proto 157");
        ip("route add throw 10.0.0.0/8 table 1157 metric 4294967295 proto 157");
        ip("route add blackhole default table 1157 metric 4000000 proto 157");
        ip("route add unreachable 192.0.2.7 table 1157 metric 1 proto 157");
        ip("route add 198.51.101.0/24 via 10.116.0.6 dev eth1 table 1160 proto 157");
        ip("route add 198.51.104.0/24 via 192.0.2.1 dev eth1 onlink table 1160 proto 157");
        ip("route add 198.51.102.0/24 via 10.116.0.6 dev eth1 table 1160 proto static");
        let observed = socket.snapshot(&claim()).unwrap();

        let via =
            |text, onlink| RouteKind::Gateway(Gateway { address: address(text), interface: eth1, onlink });
        let key = |table, destination, metric| RouteKey { table, destination: net(destination), metric };
        let routes: Vec<_> =
            observed.routes.iter().map(|(key, route)| (*key, route.get().kind.clone())).collect();
        assert_eq!(
            routes,
            [
                (key(TABLE, "0.0.0.0/0", 4_000_000), RouteKind::Blackhole),
                (key(TABLE, "10.0.0.0/8", 0), RouteKind::Throw),
                (key(TABLE, "10.0.0.0/8", u32::MAX), RouteKind::Throw),
                (key(TABLE, "192.0.2.7/32", 1), RouteKind::Unreachable),
                (key(TABLE, "198.51.100.0/24", 7), RouteKind::Nexthop(FIRST)),
                (key(TABLE, "198.51.103.0/24", 0), RouteKind::Nexthop(SECOND)),
                (key(1160, "198.51.101.0/24", 0), via("10.116.0.6", false)),
                (key(1160, "198.51.104.0/24", 0), via("192.0.2.1", true)),
            ]
        );
        let foreign = key(1160, "198.51.102.0/24", 0);
        assert_eq!(observed.foreign, [Foreign::Route { key: foreign, protocol: 4 }].into());
        assert!(observed.is_taken(&foreign));
    });
}

#[test]
fn nexthop_objects_of_every_kind_are_read() {
    in_namespace(|| {
        let mut socket = CommandSocket::open().unwrap();
        let eth1 = index_of(&mut socket, "eth1");
        ip("nexthop add id 241000000 via 10.116.0.5 dev eth1 proto 157");
        ip("nexthop add id 241000001 blackhole proto 157");
        ip("nexthop add id 241000002 via 192.0.2.1 dev eth1 onlink proto 157");
        ip("nexthop add id 241000100 group 241000000,2/241000002 type resilient buckets 32 idle_timer 5 \
            unbalanced_timer 60 proto 157");
        // The kernel's own timers: 120 s, and never.
        ip("nexthop add id 241000101 group 241000000,256/241000002,255 type resilient buckets 8 proto 157");
        ip("nexthop add id 241000102 group 241000000/241000002,3 proto 157");
        let observed = socket.snapshot(&claim()).unwrap();

        let third = NexthopId(241_000_002);
        let onlink = Gateway { address: address("192.0.2.1"), interface: eth1, onlink: true };
        let group = |id, weights: [u16; 2], resilient| {
            let members = [FIRST, third].into_iter().zip(weights);
            let members = members.map(|(id, weight)| GroupMember { id, weight });
            Nexthop { id: NexthopId(id), via: NexthopTarget::group(members, resilient) }
        };
        let resilient = |buckets, idle_seconds, unbalanced_seconds| {
            Some(Resilient { buckets, idle_seconds, unbalanced_seconds })
        };
        assert_eq!(
            observed.nexthops.values().map(|object| object.get().clone()).collect::<Vec<_>>(),
            [
                gateway(FIRST, "10.116.0.5", eth1),
                Nexthop { id: SECOND, via: NexthopTarget::Blackhole },
                Nexthop { id: third, via: NexthopTarget::Gateway(onlink) },
                group(GROUP.0, [2, 1], resilient(32, 5, 60)),
                group(241_000_101, [256, 255], resilient(8, 120, 0)),
                group(241_000_102, [1, 3], None),
            ]
        );
    });
}

#[test]
fn rules_with_every_field_are_read() {
    in_namespace(|| {
        let mut socket = CommandSocket::open().unwrap();
        ip("rule add pref 900 from 10.116.0.2 ipproto tcp sport 61000-61063 lookup 1160 protocol 157");
        ip("rule add pref 990 iif eth1 from 10.244.0.0/24 ipproto udp sport 53 lookup main protocol 157");
        ip("rule add pref 991 to 198.51.100.0/24 fwmark 0x10/0xf0 lookup 1157 protocol 157");
        ip("rule add pref 992 fwmark 7 lookup 1157 protocol 157");
        ip("rule add pref 993 iif gone0 unreachable protocol 157");
        ip("rule add pref 994 iif lo blackhole protocol 157");
        ip("rule add pref 1000 lookup main suppress_prefixlength 0 protocol 157");
        ip("rule add pref 1001 oif eth1 lookup 1157 protocol 157");
        ip("rule add pref 1001 lookup 99 protocol static");
        ip("rule add pref 5000 lookup 99 protocol static");
        let observed = socket.snapshot(&claim()).unwrap();
        let main = RuleAction::Lookup { table: 254, suppress_prefix_length: Some(0) };
        let iif = |name: &str| Some(name.to_owned());
        assert_eq!(
            observed.rules.iter().map(|rule| rule.get().clone()).collect::<Vec<_>>(),
            [
                Rule {
                    from: Some(net("10.116.0.2/32")),
                    ip_protocol: Some(6),
                    source_ports: Some((61000, 61063)),
                    ..Rule::lookup(900, 1160)
                },
                Rule {
                    from: Some(net("10.244.0.0/24")),
                    iif: iif("eth1"),
                    ip_protocol: Some(17),
                    source_ports: Some((53, 53)),
                    ..Rule::lookup(990, 254)
                },
                Rule {
                    to: Some(net("198.51.100.0/24")),
                    fwmark: Some((0x10, 0xf0)),
                    ..Rule::lookup(991, TABLE)
                },
                Rule { fwmark: Some((7, u32::MAX)), ..Rule::lookup(992, TABLE) },
                Rule { iif: iif("gone0"), action: RuleAction::Unreachable, ..Rule::lookup(993, 1) },
                Rule { iif: iif("lo"), action: RuleAction::Blackhole, ..Rule::lookup(994, 1) },
                Rule { action: main, ..Rule::lookup(1000, 1) },
            ]
        );
        let foreign = |protocol, rule| Foreign::Rule { priority: 1001, protocol, rule };
        assert_eq!(
            observed.foreign,
            [foreign(4, Some(Rule::lookup(1001, 99))), foreign(PROTOCOL, None)].into()
        );
        assert_eq!(observed.lost_builtin_rules, [].into());
    });
}

/// Who keeps main at another priority has not lost it; a rule of ours does not count as the kernel's.
#[test]
fn the_kernels_own_rules_are_missed_only_when_nobody_does_their_work() {
    in_namespace(|| {
        let mut socket = CommandSocket::open().unwrap();
        ip("rule add pref 30000 lookup main protocol static");
        ip("rule add pref 990 lookup default protocol 157");
        ip("rule del pref 32766");
        ip("rule del pref 32767");
        let observed = socket.snapshot(&claim()).unwrap();
        assert_eq!(observed.lost_builtin_rules, [BuiltinRule::Default].into());
    });
}
