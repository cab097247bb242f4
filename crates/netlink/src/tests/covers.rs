//! Whole plans in a real kernel, judged by the kernel's own lookup against brute force: whatever is listed, no protected
//! address leaves through a gateway, and every other listed one leaves through the gateway that longest-prefix match over
//! the set differences names, or one of those that share its traffic.
//!
//! Each address is asked for twice: for a socket of the node, and for a packet that a pod sends through it.
//!
//! The kernel goes from one case to the next by the changes between their plans, as on a node. `make test` runs [`CASES`]; other
//! seeds: suite `kernel-covers` of `scripts/exhaustive.sh`.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use egress_routing::kernel_state::Observed;
use egress_routing::prefix::{difference, longest_match};
use egress_routing::wanted::{StaticRouteFields, WantedRoute};
use egress_routing::{
    Layout, NodePlan, NodeView, OnNoGateway, Protected, ProtectedReason, Selection, VpcInterface, changes,
    plan,
};
use ipnet::Ipv4Net;
use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestRunner};

use super::namespace::{in_namespace, ip};
use crate::CommandSocket;
use crate::ownership::Claim;
use crate::reading::{Lookup, Query};

/// Cases of one run, unless `PROPTEST_CASES` says otherwise.
const CASES: u32 = 10_000;
/// A pod of the node, behind link `cni0`.
const POD: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 10);
/// Where packets are sent in one case, beside every address that its lists single out.
const RANDOM_ADDRESSES: usize = 24;
/// Asking about more tells no more: with 256 prefixes of eight bits their ends are a thousand.
const MOST_ADDRESSES: usize = 240;

/// Routes of the main table that come and go, beside those of the links; two lie in the node's public subnet.
const COMING_AND_GOING: [&str; 6] =
    ["192.0.2.0/24", "4.0.0.0/7", "172.16.0.0/12", "6.0.0.0/8", "203.0.113.8/29", "203.0.113.3/32"];

fn net(text: &str) -> Ipv4Net {
    text.parse().unwrap()
}

fn address(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

/// Prefixes that meet one another and the node's own.
fn prefix() -> impl Strategy<Value = Ipv4Net> {
    let corner = prop_oneof![
        Just("10.116.0.0"),
        Just("10.244.0.0"),
        Just("198.51.100.0"),
        Just("203.0.113.0"),
        Just("169.254.169.0"),
        Just("67.207.67.0"),
        Just("192.0.2.0"),
        Just("5.255.255.0"),
        Just("1.2.3.0"),
        Just("255.255.255.0"),
    ];
    prop_oneof![
        1 => any::<u8>().prop_map(|first| Ipv4Net::new(Ipv4Addr::new(first, 0, 0, 0), 8).unwrap()),
        1 => (any::<u32>(), 1u8..=32).prop_map(|(bits, length)| Ipv4Net::new(bits.into(), length).unwrap().trunc()),
        4 => (corner, 0u8..=16, 8u8..=32).prop_map(|(corner, host, length)| {
            let bits = u32::from(address(corner)) | u32::from(host);
            Ipv4Net::new(bits.into(), length).unwrap().trunc()
        }),
    ]
    // 0.0.0.0 is no destination.
    .prop_filter("a destination", |prefix| *prefix != net("0.0.0.0/32"))
}

/// What one object lists.
fn cover() -> impl Strategy<Value = Vec<Ipv4Net>> {
    let halves = |prefix: Ipv4Net| match prefix.subnets(prefix.prefix_len().saturating_add(1).min(32)) {
        Ok(halves) => halves.collect(),
        Err(_) => vec![prefix],
    };
    prop_oneof![
        3 => Just(vec![net("0.0.0.0/0")]),
        2 => Just(vec![net("0.0.0.0/1"), net("128.0.0.0/1")]),
        // All 256, and all but some.
        1 => proptest::collection::btree_set(any::<u8>(), 0..8).prop_map(|without| {
            (0..=255).filter(|first| !without.contains(first)).map(|first| Ipv4Net::new(Ipv4Addr::new(first, 0, 0, 0), 8).unwrap()).collect()
        }),
        3 => prefix().prop_map(halves),
        8 => proptest::collection::vec(prefix(), 1..8),
        // One inside the other, from everything down to an address.
        2 => any::<u32>().prop_map(|bits| (0u8..=32).step_by(4).map(|length| Ipv4Net::new((bits | 1 << 24).into(), length).unwrap().trunc()).collect()),
    ]
}

#[derive(Debug, Clone)]
struct Object {
    created: i64,
    destinations: Vec<Ipv4Net>,
    excluded: Vec<Ipv4Net>,
    gateway: u8,
    second: bool,
    /// Its gateways share the traffic: both of them, or with `second` the second one alone.
    shared: bool,
}

#[derive(Debug, Clone)]
struct Case {
    objects: Vec<Object>,
    protected: Vec<Ipv4Net>,
    main: Vec<bool>,
    addresses: Vec<u32>,
}

fn case() -> impl Strategy<Value = Case> {
    let excluded = proptest::collection::vec(prefix(), 0..5);
    let object = (0i64..3, cover(), excluded, 0u8..5, any::<bool>(), any::<bool>()).prop_map(
        |(created, destinations, excluded, gateway, second, shared)| Object {
            created,
            destinations,
            excluded,
            gateway,
            second,
            shared,
        },
    );
    let main = proptest::collection::vec(proptest::bool::weighted(0.2), COMING_AND_GOING.len());
    (
        proptest::collection::vec(object, 1..5),
        proptest::collection::vec(prefix(), 0..5),
        main,
        proptest::collection::vec(any::<u32>(), RANDOM_ADDRESSES),
    )
        .prop_map(|(objects, protected, main, addresses)| Case { objects, protected, main, addresses })
}

/// The node in its namespace.
struct Node {
    socket: CommandSocket,
    observed: Observed,
    layout: Layout,
    vpc: u32,
    pods: u32,
    main: Vec<bool>,
    /// What the local table answers before anybody else.
    local: Vec<Ipv4Net>,
}

impl Node {
    fn new() -> Self {
        ip("link add eth0 type veth peer name outside");
        ip("link set outside up");
        ip("link set eth0 up");
        ip("address add 203.0.113.11/24 dev eth0");
        ip("route add default via 203.0.113.1");
        ip("link add cni0 type veth peer name pod");
        ip("link set pod up");
        ip("link set cni0 up");
        ip("address add 10.244.0.1/24 dev cni0");
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        let local = ip("-4 route show table local");
        let local =
            local.lines().filter_map(|line| line.split_whitespace().nth(1)).map(|text| match text.parse() {
                Ok(prefix) => prefix,
                Err(_) => Ipv4Net::from(address(text)),
            });
        let local = local.collect();
        let mut socket = CommandSocket::open().unwrap();
        let links = socket.interfaces().unwrap();
        let index = |name: &str| links.iter().find(|link| link.name == name).unwrap().index;
        let (vpc, pods) = (index("eth1"), index("cni0"));
        let main = vec![false; COMING_AND_GOING.len()];
        Self { socket, observed: Observed::default(), layout: Layout::default(), vpc, pods, main, local }
    }

    /// Other programs' routes come and go.
    fn change_main(&mut self, main: &[bool]) {
        let mut batch = String::new();
        for (route, (there, wanted)) in COMING_AND_GOING.iter().zip(self.main.iter().zip(main)) {
            if there != wanted {
                let verb = if *wanted { "add" } else { "del" };
                writeln!(batch, "route {verb} {route} via 203.0.113.1").unwrap();
            }
        }
        self.main = main.to_vec();
        if batch.is_empty() {
            return;
        }
        let mut child = Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(batch.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "{batch}");
    }

    /// The node as its agent sees it.
    fn view(&mut self, case: &Case) -> NodeView {
        let mut protected = Protected::default();
        for (range, reason) in [
            ("198.51.100.10/32", ProtectedReason::ApiServer),
            ("67.207.67.2/32", ProtectedReason::Resolver),
            ("10.116.0.0/20", ProtectedReason::Vpc),
            ("10.244.0.0/16", ProtectedReason::Pods),
            ("10.245.0.0/16", ProtectedReason::Services),
            ("203.0.113.1/32", ProtectedReason::OnLink),
            ("203.0.113.12/32", ProtectedReason::Node),
            ("10.116.0.3/32", ProtectedReason::Node),
        ] {
            protected.insert(net(range), reason);
        }
        for range in &case.protected {
            protected.insert(*range, ProtectedReason::UserList);
        }
        let main = self.socket.main_routes().unwrap();
        let main = main.into_iter().filter(|route| route.kind == 1 && route.destination.prefix_len() > 0);
        NodeView {
            vpc: Some(VpcInterface {
                index: self.vpc,
                up: true,
                address: address("10.116.0.2"),
                subnet: net("10.116.0.0/20"),
            }),
            public_addresses: vec![net("203.0.113.11/24")],
            main_routes: main.map(|route| route.destination).collect(),
            main_origins: std::collections::BTreeMap::new(),
            protected,
            uncertain: None,
            candidates: BTreeSet::new(),
            default_way: None,
            served: BTreeSet::new(),
        }
    }

    fn bring(&mut self, plan: &NodePlan) -> Result<(), TestCaseError> {
        let list = changes(&self.observed, &plan.state);
        for (change, outcome) in list.iter().zip(self.socket.apply(&list)) {
            prop_assert!(outcome.is_ok(), "{:?}: {:?}", change, outcome);
            self.observed.record(change);
        }
        Ok(())
    }

    /// The gateway in the VPC that a packet to each address leaves through: one of the node itself, or one of a pod.
    fn gateways(&mut self, to: &[Ipv4Addr], of_pod: bool) -> Vec<Option<Ipv4Addr>> {
        let (source, input) = (of_pod.then_some(POD), of_pod.then_some(self.pods));
        let queries: Vec<Query> = to.iter().map(|to| Query { source, input, ..Query::to(*to) }).collect();
        let answers = self.socket.route_get_all(&queries).unwrap();
        let gateway = |answer| match answer {
            Lookup::Found { interface, gateway: Some(gateway), .. } if interface == Some(self.vpc) => {
                Some(gateway)
            }
            Lookup::Found { .. } | Lookup::None(_) => None,
        };
        answers.into_iter().map(gateway).collect()
    }
}

impl Case {
    fn wanted(&self) -> Vec<WantedRoute> {
        let texts = |list: &[Ipv4Net]| -> Vec<String> {
            // In both spellings.
            let text = |(index, prefix): (usize, &Ipv4Net)| {
                if prefix.prefix_len() == 32 && index % 2 == 0 {
                    prefix.addr().to_string()
                } else {
                    prefix.to_string()
                }
            };
            list.iter().enumerate().map(text).collect()
        };
        let objects = self.objects.iter().enumerate().map(|(index, object)| {
            let (destinations, excluded) = (texts(&object.destinations), texts(&object.excluded));
            // Gateway 0 is one that no node can use.
            let gateways = match object.gateway {
                0 => ["192.0.2.1".to_owned(), "192.0.2.2".to_owned()],
                n => [format!("10.116.0.{}", 100 + n), format!("10.116.0.{}", 101 + n)],
            };
            WantedRoute::parse(StaticRouteFields {
                name: &format!("object-{index}"),
                uid: &format!("uid-{index}"),
                created: object.created,
                destinations: &destinations.iter().map(String::as_str).collect::<Vec<_>>(),
                excluded: &excluded.iter().map(String::as_str).collect::<Vec<_>>(),
                gateways: &gateways.each_ref().map(String::as_str),
                health_checked: true,
                reference_fault: None,
                weights: object.shared.then_some(&[3, 1]),
                on_no_gateway: OnNoGateway::KeepLast,
                drain_seconds: 0,
            })
        });
        objects.collect()
    }

    fn selection(&self, wanted: &[WantedRoute]) -> Selection {
        // Every object has a choice, so that what the last case left in the kernel decides nothing.
        let chosen = wanted.iter().zip(&self.objects);
        chosen
            .map(|(route, object)| {
                let chosen = match (object.shared, object.second) {
                    (true, false) => &route.gateways[..],
                    (_, second) => std::slice::from_ref(&route.gateways[usize::from(second)]),
                };
                (route.uid.clone(), chosen.iter().copied().collect())
            })
            .collect()
    }

    /// The ends of everything that is listed, and their neighbours outside.
    fn addresses(&self, view: &NodeView) -> Vec<Ipv4Addr> {
        let lists = self.objects.iter().flat_map(|object| object.excluded.iter().chain(&object.destinations));
        let protected: Vec<Ipv4Net> = view.protected.iter().map(|(range, _)| range).collect();
        let mut addresses: Vec<u32> = Vec::new();
        for prefix in protected.iter().chain(&view.main_routes).chain(lists) {
            let (first, last) = (u32::from(prefix.network()), u32::from(prefix.broadcast()));
            addresses.extend([first, last, first.wrapping_sub(1), last.wrapping_add(1)]);
        }
        addresses.truncate(MOST_ADDRESSES);
        addresses.extend(&self.addresses);
        addresses.sort_unstable();
        addresses.dedup();
        // The kernel takes the unspecified address for the node itself.
        addresses.into_iter().filter(|bits| *bits != 0).map(Ipv4Addr::from).collect()
    }
}

/// Where packets must go, said by brute force and not in the way of the code.
struct Oracle<'a> {
    wanted: &'a [WantedRoute],
    selection: &'a Selection,
    view: &'a NodeView,
    local: &'a [Ipv4Net],
}

impl Oracle<'_> {
    fn able(&self) -> impl Iterator<Item = &WantedRoute> {
        let subnet = net("10.116.0.0/20");
        self.wanted.iter().filter(move |route| route.gateways.iter().any(|gateway| subnet.contains(gateway)))
    }

    fn is_protected(&self, prefix: Ipv4Net) -> bool {
        let mut gateways = self.able().flat_map(|route| &route.gateways);
        self.view.protected.iter().any(|(range, _)| range.contains(&prefix))
            || gateways.any(|gateway| Ipv4Net::from(*gateway).contains(&prefix))
    }

    /// Whether a rule ahead of main sends packets to `to` to our table: one for each routed destination in the public subnet, but
    /// where main has a narrower route than the subnet's.
    fn is_ahead_of_main(&self, to: Ipv4Addr) -> bool {
        let public = net("203.0.113.0/24");
        if longest_match(&self.view.main_routes, to) != Some(&public) {
            return false;
        }
        let in_public = |destination: &Ipv4Net| {
            let covering = self.view.main_routes.iter().filter(|route| route.contains(destination));
            covering.max_by_key(|route| route.prefix_len()) == Some(&public)
        };
        let routed = |route: &WantedRoute, destination: &Ipv4Net| {
            !self.is_protected(*destination)
                && !route.excluded.iter().any(|excluded| excluded.contains(destination))
        };
        self.able().any(|route| {
            route.destinations.keys().any(|destination| {
                destination.contains(&to) && in_public(destination) && routed(route, destination)
            })
        })
    }

    /// The gateways that may be the one, of which there are several where they share the traffic.
    fn gateways(&self, to: Ipv4Addr) -> Option<&BTreeSet<Ipv4Addr>> {
        if self.local.iter().any(|own| own.contains(&to)) || self.is_protected(to.into()) {
            return None;
        }
        if longest_match(&self.view.main_routes, to).is_some() && !self.is_ahead_of_main(to) {
            return None;
        }
        let claims = self
            .able()
            .filter(|route| !route.excluded.iter().any(|excluded| excluded.contains(&to)))
            .filter_map(|route| Some((longest_match(route.destinations.keys(), to)?.prefix_len(), route)));
        // The longest; of two of one length the older object, then the name.
        let winner = claims.min_by_key(|(length, route)| (32 - length, route.created, route.name.clone()))?.1;
        self.selection.get(&winner.uid).map(|chosen| &chosen.gateways)
    }
}

/// Nothing is called applied that the main table answers as a whole.
fn reports_are_true(
    wanted: &[WantedRoute],
    plan: &NodePlan,
    oracle: &Oracle<'_>,
) -> Result<(), TestCaseError> {
    let mains: Vec<Ipv4Net> = oracle.view.main_routes.iter().copied().collect();
    for (route, report) in wanted.iter().zip(&plan.routes).filter(|(_, report)| report.problem.is_none()) {
        let failed: BTreeSet<&str> =
            report.failures.iter().map(|failure| failure.destination.as_str()).collect();
        let applied = route.destinations.keys().filter(|destination| {
            !failed.contains(destination.to_string().as_str())
                && !failed.contains(destination.addr().to_string().as_str())
        });
        for destination in applied.take(8) {
            let answered_by_main = difference(*destination, &mains).is_empty();
            let narrower: Vec<Ipv4Net> = mains
                .iter()
                .filter(|route| destination.contains(*route) && *route != destination)
                .copied()
                .collect();
            let rest = difference(*destination, &narrower);
            let ahead = rest.iter().any(|rest| oracle.is_ahead_of_main(rest.addr()));
            prop_assert!(
                !answered_by_main || ahead,
                "{} is answered by main and called applied",
                destination
            );
        }
    }
    Ok(())
}

fn judge(node: &mut Node, case: &Case) -> Result<(), TestCaseError> {
    node.change_main(&case.main);
    let view = node.view(case);
    let wanted = case.wanted();
    let selection = case.selection(&wanted);
    let plan = plan(&wanted, &view, &selection, &node.observed, &node.layout);
    node.bring(&plan)?;
    let addresses = case.addresses(&view);
    let seen = [false, true].map(|of_pod| node.gateways(&addresses, of_pod));
    let local = node.local.clone();
    let oracle = Oracle { wanted: &wanted, selection: &selection, view: &view, local: &local };
    for (to, seen) in seen.into_iter().flat_map(|seen| addresses.iter().zip(seen)) {
        prop_assert!(!(seen.is_some() && oracle.is_protected((*to).into())), "{} is protected", to);
        match oracle.gateways(*to) {
            None => prop_assert_eq!(seen, None, "{}", to),
            Some(may_be) => prop_assert!(
                seen.is_some_and(|seen| may_be.contains(&seen)),
                "{}: {:?} and not one of {:?}",
                to,
                seen,
                may_be
            ),
        }
    }
    reports_are_true(&wanted, &plan, &oracle)
}

#[test]
fn no_cover_sends_a_protected_address_through_a_gateway_and_every_other_goes_where_brute_force_says() {
    in_namespace(|| {
        let mut node = Node::new();
        let node = std::cell::RefCell::new(&mut node);
        let config = ProptestConfig::default();
        let cases = if std::env::var_os("PROPTEST_CASES").is_some() { config.cases } else { CASES };
        let config = ProptestConfig { cases, source_file: Some(file!()), ..config };
        let mut runner = TestRunner::new(config);
        let outcome = runner.run(&case(), |case| judge(&mut node.borrow_mut(), &case));
        if let Err(error) = outcome {
            panic!("{error}");
        }
        // What was recorded is what the kernel holds.
        let node = node.into_inner();
        let claim = Claim {
            tables: [node.layout.table].into(),
            priorities: Vec::new(),
            nexthops: node.layout.nexthops(),
        };
        assert_eq!(node.socket.snapshot(&claim).unwrap(), node.observed);
    });
}
