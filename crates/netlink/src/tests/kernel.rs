//! What we write `ip` shows and we read back. The other direction is in `written_by_ip`.

use std::net::Ipv4Addr;

use egress_routing::kernel_state::{
    Change, Gateway, GroupMember, Nexthop, NexthopId, NexthopTarget, Observed, Resilient, Route, RouteKind,
    Rule, RuleAction,
};
use ipnet::Ipv4Net;
use serde_json::json;

use super::namespace::{in_namespace, ip, ip_json};
use crate::apply::Outcome;
use crate::command::CommandSocket;
use crate::error::{ChangeError, Refusal};
use crate::ownership::Claim;
use crate::reading::{Lookup, Query};

pub(super) const TABLE: u32 = 1157;
pub(super) const FIRST: NexthopId = NexthopId(241_000_000);
pub(super) const SECOND: NexthopId = NexthopId(241_000_001);
pub(super) const GROUP: NexthopId = NexthopId(241_000_100);

pub(super) fn net(text: &str) -> Ipv4Net {
    text.parse().unwrap()
}

pub(super) fn address(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

pub(super) fn claim() -> Claim {
    Claim {
        tables: [TABLE, 1160].into(),
        priorities: vec![900..=931, 990..=1001],
        nexthops: 241_000_000..=241_999_999,
    }
}

pub(super) fn index_of(socket: &mut CommandSocket, name: &str) -> u32 {
    socket.interfaces().unwrap().into_iter().find(|link| link.name == name).unwrap().index
}

pub(super) fn gateway(id: NexthopId, address: &str, interface: u32) -> Nexthop {
    let gateway = Gateway { address: address.parse().unwrap(), interface, onlink: false };
    Nexthop { id, via: NexthopTarget::Gateway(gateway) }
}

pub(super) fn put_nexthop(nexthop: &Nexthop) -> Change {
    Change::PutNexthop { nexthop: nexthop.clone(), replaces: None }
}

pub(super) fn put_route(destination: &str, metric: u32, kind: RouteKind) -> Change {
    let route = Route { table: TABLE, destination: net(destination), metric, kind };
    Change::PutRoute { route, replaces: None }
}

/// Applies, expects every change to change something, and returns what a snapshot then shows.
pub(super) fn apply(socket: &mut CommandSocket, changes: &[Change]) -> Observed {
    for (change, outcome) in changes.iter().zip(socket.apply(changes)) {
        assert_eq!(outcome, Ok(Outcome::Changed), "{change:?}");
    }
    let observed = socket.snapshot(&claim()).unwrap();
    assert_eq!(observed.foreign, [].into());
    observed
}

#[test]
fn routes_of_every_kind_are_written_and_read_back() {
    in_namespace(|| {
        let mut socket = CommandSocket::open().unwrap();
        let eth1 = index_of(&mut socket, "eth1");
        let via = |address: &str, onlink| {
            RouteKind::Gateway(Gateway { address: address.parse().unwrap(), interface: eth1, onlink })
        };
        let changes = [
            put_nexthop(&gateway(FIRST, "10.116.0.5", eth1)),
            put_route("0.0.0.0/0", 0, RouteKind::Nexthop(FIRST)),
            put_route("0.0.0.0/0", 4_000_000_000, RouteKind::Blackhole),
            put_route("198.51.100.0/24", 5, via("10.116.0.5", false)),
            put_route("198.51.101.0/24", 0, via("192.0.2.1", true)),
            put_route("10.116.0.0/20", 0, RouteKind::Throw),
            put_route("203.0.113.7/32", 0, RouteKind::Unreachable),
        ];
        let observed = apply(&mut socket, &changes);

        let mut expected = Observed::default();
        for change in &changes {
            expected.record(change);
        }
        assert_eq!(observed, expected);

        let mut shown: Vec<_> = ip_json("route show table 1157")
            .as_array()
            .unwrap()
            .iter()
            .map(|route| {
                assert_eq!(route["protocol"], "157");
                json!([
                    route["type"],
                    route["dst"],
                    route["metric"],
                    route["nhid"],
                    route["gateway"],
                    route["flags"]
                ])
            })
            .collect();
        shown.sort_by_key(ToString::to_string);
        let mut wanted = vec![
            json!(["unicast", "default", null, 241_000_000, "10.116.0.5", []]),
            json!(["blackhole", "default", 4_000_000_000_u32, null, null, []]),
            json!(["unicast", "198.51.100.0/24", 5, null, "10.116.0.5", []]),
            json!(["unicast", "198.51.101.0/24", null, null, "192.0.2.1", ["onlink"]]),
            json!(["throw", "10.116.0.0/20", null, null, null, []]),
            json!(["unreachable", "203.0.113.7", null, null, null, []]),
        ];
        wanted.sort_by_key(ToString::to_string);
        assert_eq!(shown, wanted);

        let deletions: Vec<_> = observed.routes.values().cloned().map(Change::DeleteRoute).collect();
        assert_eq!(apply(&mut socket, &deletions).routes.len(), 0);
        assert_eq!(socket.apply(&deletions), vec![Ok(Outcome::Unchanged); deletions.len()]);
    });
}

#[test]
fn nexthop_objects_of_every_kind_are_written_and_read_back() {
    in_namespace(|| {
        let mut socket = CommandSocket::open().unwrap();
        let eth1 = index_of(&mut socket, "eth1");
        let onlink = Gateway { address: address("192.0.2.1"), interface: eth1, onlink: true };
        let members = [GroupMember { id: FIRST, weight: 3 }, GroupMember { id: SECOND, weight: 1 }];
        let resilient = Resilient { buckets: 64, idle_seconds: 120, unbalanced_seconds: 0 };
        let objects = [
            gateway(FIRST, "10.116.0.5", eth1),
            Nexthop { id: SECOND, via: NexthopTarget::Gateway(onlink) },
            Nexthop { id: NexthopId(241_000_002), via: NexthopTarget::Blackhole },
            Nexthop { id: GROUP, via: NexthopTarget::group(members, None) },
            Nexthop { id: NexthopId(241_000_101), via: NexthopTarget::group(members, Some(resilient)) },
        ];
        let changes: Vec<_> = objects.iter().map(put_nexthop).collect();
        let observed = apply(&mut socket, &changes);
        assert_eq!(
            observed.nexthops.values().map(|object| object.get().clone()).collect::<Vec<_>>(),
            objects
        );

        let shown = ip_json("nexthop");
        let group = json!([{"id": 241_000_000, "weight": 3}, {"id": 241_000_001}]);
        assert!(shown.as_array().unwrap().iter().all(|object| object["protocol"] == "157"), "{shown}");
        assert_eq!(shown[0]["gateway"], "10.116.0.5");
        assert_eq!(shown[1]["flags"], json!(["onlink"]));
        assert_eq!(shown[2]["blackhole"], json!(null), "{shown}");
        assert_eq!(shown[3]["group"], group);
        assert_eq!(shown[4]["group"], group);
        assert_eq!(shown[4]["type"], "resilient");
        assert_eq!(shown[4]["resilient_args"]["buckets"], 64);
        assert_eq!(shown[4]["resilient_args"]["idle_timer"], 120.0);

        let deletions: Vec<_> =
            observed.nexthops.values().rev().cloned().map(Change::DeleteNexthop).collect();
        assert_eq!(apply(&mut socket, &deletions).nexthops.len(), 0);
        assert_eq!(ip("nexthop"), "");
    });
}

/// Every kind of rule the agent writes, and every field once.
pub(super) fn rules() -> Vec<Rule> {
    let full = Rule {
        priority: 900,
        from: Some(net("10.116.0.2/32")),
        to: Some(net("198.51.100.0/24")),
        iif: Some("lo".to_owned()),
        ip_protocol: Some(6),
        source_ports: Some((61000, 61063)),
        fwmark: Some((0x10, 0xf0)),
        action: RuleAction::Lookup { table: 1160, suppress_prefix_length: None },
    };
    let main = RuleAction::Lookup { table: 254, suppress_prefix_length: Some(0) };
    vec![
        full,
        Rule { from: Some(net("203.0.113.11/32")), ..Rule::lookup(990, 254) },
        Rule {
            from: Some(net("10.244.0.0/16")),
            iif: Some("eth1".to_owned()),
            ip_protocol: Some(17),
            source_ports: Some((53, 53)),
            ..Rule::lookup(991, 254)
        },
        Rule { action: RuleAction::Unreachable, iif: Some("gone0".to_owned()), ..Rule::lookup(995, 1) },
        Rule { action: RuleAction::Blackhole, ..Rule::lookup(996, 1) },
        Rule { action: main, ..Rule::lookup(1000, 1) },
        Rule::lookup(1001, TABLE),
    ]
}

#[test]
fn rules_are_written_and_read_back() {
    in_namespace(|| {
        let mut socket = CommandSocket::open().unwrap();
        let rules = rules();
        let changes: Vec<_> = rules.iter().cloned().map(Change::PutRule).collect();
        let observed = apply(&mut socket, &changes);
        assert_eq!(observed.rules.iter().map(|rule| rule.get().clone()).collect::<Vec<_>>(), rules);

        let text = ip("rule");
        let lines: Vec<_> = text
            .lines()
            .filter(|line| line.ends_with("proto 157"))
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(
            lines,
            [
                "900: from 10.116.0.2 to 198.51.100.0/24 fwmark 0x10/0xf0 iif lo ipproto tcp sport 61000-61063 \
                 lookup 1160 proto 157",
                "990: from 203.0.113.11 lookup main proto 157",
                "991: from 10.244.0.0/16 iif eth1 ipproto udp sport 53 lookup main proto 157",
                "995: from all iif gone0 [detached] unreachable proto 157",
                "996: from all blackhole proto 157",
                "1000: from all lookup main suppress_prefixlength 0 proto 157",
                "1001: from all lookup 1157 proto 157",
            ]
        );

        assert_eq!(socket.apply(&changes), vec![Ok(Outcome::Unchanged); changes.len()]);
        assert_eq!(ip("rule").lines().count(), 3 + rules.len());
        let deletions: Vec<_> = observed.rules.iter().cloned().map(Change::DeleteRule).collect();
        assert_eq!(apply(&mut socket, &deletions).rules.len(), 0);
        assert_eq!(ip("rule").lines().count(), 3);
        assert_eq!(socket.apply(&deletions), vec![Ok(Outcome::Unchanged); deletions.len()]);
    });
}

#[test]
fn refusals_say_what_is_wrong() {
    in_namespace(|| {
        let mut socket = CommandSocket::open().unwrap();
        let eth1 = index_of(&mut socket, "eth1");
        let refusal = |socket: &mut CommandSocket, change: Change| match socket.apply(&[change]).remove(0) {
            Err(ChangeError::Refused(error)) => error,
            other => panic!("{other:?}"),
        };
        let error = refusal(&mut socket, put_nexthop(&gateway(FIRST, "192.0.2.1", eth1)));
        assert_eq!(error.refusal, Refusal::GatewayNotOnLink);
        assert_eq!(error.text.as_deref(), Some("Nexthop has invalid gateway"));
        assert_eq!(
            error.to_string(),
            "the gateway is not on the link: no address of the interface has it in its subnet: \
             Nexthop has invalid gateway (ENETUNREACH: Network is unreachable)"
        );
        let error = refusal(&mut socket, put_nexthop(&gateway(FIRST, "10.116.0.5", 9999)));
        assert_eq!(error.refusal, Refusal::NoInterface);
        let error = refusal(&mut socket, put_route("198.51.100.0/24", 0, RouteKind::Nexthop(FIRST)));
        assert_eq!(error.refusal, Refusal::NoNexthop);
        assert_eq!(error.text.as_deref(), Some("Nexthop id does not exist"));
        ip("link set eth1 down");
        let error = refusal(&mut socket, put_nexthop(&gateway(FIRST, "10.116.0.5", eth1)));
        assert_eq!(error.refusal, Refusal::InterfaceDown);
    });
}

#[test]
fn links_the_main_table_and_lookups_are_read() {
    in_namespace(|| {
        ip("link set eth1 address 02:00:00:00:00:01 mtu 1400");
        ip("address add 10.116.0.3/32 dev eth1");
        ip("link add down0 type veth peer name down1");
        ip("route add default via 10.116.0.1 dev eth1 metric 100 proto dhcp src 10.116.0.2");
        ip("route add blackhole 192.0.2.0/24");
        ip("route add 198.51.100.0/24 via 10.116.0.5 dev eth1 table 1157");
        ip("rule add pref 1001 ipproto tcp sport 61000-61063 lookup 1157");
        let mut socket = CommandSocket::open().unwrap();
        let interfaces = socket.interfaces().unwrap();
        let find = |name: &str| interfaces.iter().find(|link| link.name == name).unwrap();
        let eth1 = find("eth1");
        assert_eq!(eth1.mac, Some([2, 0, 0, 0, 0, 1]));
        assert_eq!(eth1.mtu, 1400);
        assert_eq!(eth1.addresses, [net("10.116.0.2/20"), net("10.116.0.3/32")]);
        assert!(eth1.up && eth1.running && !eth1.loopback);
        assert!(!find("down0").up && find("lo").loopback);
        assert_eq!(find("lo").addresses, [net("127.0.0.1/8")]);

        let main = socket.main_routes().unwrap();
        let route = main.iter().find(|route| route.destination == net("0.0.0.0/0")).unwrap();
        assert_eq!(
            (route.gateway, route.interface, route.metric, route.protocol, route.source),
            (Some(address("10.116.0.1")), Some(eth1.index), 100, 16, Some(address("10.116.0.2")))
        );
        assert!(
            main.iter().any(|route| route.destination == net("10.116.0.0/20") && route.gateway.is_none())
        );
        assert!(main.iter().any(|route| route.destination == net("192.0.2.0/24") && route.kind == 6));

        let target = address("198.51.100.9");
        let found = |table, gateway| Lookup::Found {
            table,
            kind: 1,
            interface: Some(eth1.index),
            gateway: Some(address(gateway)),
            source: Some(address("10.116.0.2")),
        };
        // Without the port the rule does not match and main's default route answers.
        assert_eq!(socket.route_get(&Query::to(target)).unwrap(), found(254, "10.116.0.1"));
        let probe = Query {
            source: Some(address("10.116.0.2")),
            ip_protocol: Some(6),
            source_port: Some(61000),
            ..Query::to(target)
        };
        let Lookup::Found { table, gateway, .. } = socket.route_get(&probe).unwrap() else { panic!() };
        assert_eq!((table, gateway), (1157, Some(address("10.116.0.5"))));
        assert_eq!(
            socket.route_get(&Query::to(address("192.0.2.9"))).unwrap(),
            Lookup::None(nix::errno::Errno::EINVAL)
        );
    });
}
