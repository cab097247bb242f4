//! The plan and the changes against brute force, over generated covers of the address space.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::Sequence;
use crate::inbound::{ServedPort, Transport};
use crate::prefix::{difference, longest_match};
use crate::protected::ProtectedReason;
use crate::wanted::Destination;

/// Prefixes that meet one another and the node's own: in the corners where the protected ones are, and huge ones.
fn prefix() -> impl Strategy<Value = Ipv4Net> {
    let corner = prop_oneof![
        Just(ip("10.116.0.0")),
        Just(ip("10.244.0.0")),
        Just(ip("198.51.100.0")),
        Just(ip("203.0.113.0")),
        Just(ip("169.254.169.0")),
        Just(ip("67.207.67.0")),
        Just(ip("1.2.3.0")),
        Just(ip("255.255.255.0")),
    ];
    prop_oneof![
        1 => Just(net("0.0.0.0/0")),
        1 => prop_oneof![Just(net("0.0.0.0/1")), Just(net("128.0.0.0/1"))],
        2 => any::<u8>().prop_map(|first| Ipv4Net::new(Ipv4Addr::new(first, 0, 0, 0), 8).unwrap()),
        6 => (corner, 0u8..=16, 8u8..=32).prop_map(|(corner, host, length)| {
            let address = Ipv4Addr::from(u32::from(corner) | u32::from(host));
            Ipv4Net::new(address, length).unwrap().trunc()
        }),
    ]
}

/// Routes of the main table, some of them inside the public subnet.
fn main_route() -> impl Strategy<Value = Ipv4Net> {
    let inside = (0u8..=16, 25u8..=32).prop_map(|(host, length)| {
        Ipv4Net::new(Ipv4Addr::from(u32::from(ON_LINK.addr()) | u32::from(host)), length).unwrap().trunc()
    });
    prop_oneof![2 => prefix(), 1 => inside]
}

/// Something in a pod that is reached from the internet.
const SERVED: ServedPort = ServedPort {
    from: Ipv4Net::new_assert(Ipv4Addr::new(10, 244, 0, 0), 16),
    protocol: Transport::Tcp,
    port: 443,
};

/// The node's public subnet: of what main answers the only one that a destination may come before.
const ON_LINK: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(203, 0, 113, 0), 24);

/// Its answer to a client.
fn reply(to: Ipv4Addr) -> Packet {
    Packet { source_port: 443, ..packet(to) }
}

/// Where no client on the internet is.
fn is_private(address: Ipv4Addr) -> bool {
    let shared = net("100.64.0.0/10");
    address.is_private() || shared.contains(&address)
}

#[derive(Debug, Clone)]
struct Scenario {
    wanted: Vec<WantedRoute>,
    node: NodeView,
    selection: Selection,
}

fn scenario() -> impl Strategy<Value = Scenario> {
    let object = (
        0usize..6,
        0i64..3,
        proptest::collection::vec(prefix(), 1..8),
        proptest::collection::vec(prefix(), 0..3),
        0u8..4,
        any::<bool>(),
        proptest::option::of(1u16..5),
    );
    (
        proptest::collection::vec(object, 0..5),
        proptest::collection::vec(prefix(), 0..3),
        proptest::collection::vec(main_route(), 0..3),
    )
        .prop_map(|(objects, protected, main)| {
            let mut seen = BTreeSet::new();
            let mut selection = Selection::new();
            let mut wanted = Vec::new();
            for (name, created, destinations, excluded, gateway, standby, weight) in objects {
                if !seen.insert(name) {
                    continue;
                }
                let texts: Vec<String> = destinations.iter().map(ToString::to_string).collect();
                let excluded: Vec<String> = excluded.iter().map(ToString::to_string).collect();
                // Two gateways for each object, some shared; gateway 0 is one that no node can use.
                let gateways = match gateway {
                    0 => ["192.0.2.1".to_owned(), "192.0.2.2".to_owned()],
                    n => [format!("10.116.0.{}", 100 + n), format!("10.116.0.{}", 101 + n)],
                };
                let destinations: Vec<&str> = texts.iter().map(String::as_str).collect();
                let excluded: Vec<&str> = excluded.iter().map(String::as_str).collect();
                let mut route = excluding(
                    &name.to_string(),
                    created,
                    &destinations,
                    &excluded,
                    &[&gateways[0], &gateways[1]],
                );
                // Some share the traffic; with `standby` one of the two is out of use, with either mode.
                let weigh = |weight| route.gateways.iter().map(|gateway| (*gateway, weight)).collect();
                route.weights = weight.map(weigh);
                if standby {
                    selection.insert(route.uid.clone(), [route.gateways[1]].into());
                }
                wanted.push(route);
            }
            let mut node = node();
            for prefix in protected {
                node.protected.insert(prefix, ProtectedReason::UserList);
            }
            node.served.insert(SERVED);
            node.main_routes.extend(main.into_iter().filter(|prefix| prefix.prefix_len() > 0));
            Scenario { wanted, node, selection }
        })
}

/// The first and last address of every prefix, and their neighbours outside.
fn samples(scenarios: &[&Scenario], more: &[u32]) -> Vec<Ipv4Addr> {
    let mut addresses: BTreeSet<u32> = more.iter().copied().collect();
    for scenario in scenarios {
        let objects =
            scenario.wanted.iter().flat_map(|route| route.destinations.keys().chain(&route.excluded));
        let own: Vec<Ipv4Net> = scenario.node.protected.iter().map(|(prefix, _)| prefix).collect();
        for prefix in objects.chain(&own).chain(&scenario.node.main_routes) {
            let (first, last) = (u32::from(prefix.network()), u32::from(prefix.broadcast()));
            addresses.extend([first, last, first.wrapping_sub(1), last.wrapping_add(1)]);
        }
    }
    addresses.into_iter().map(Ipv4Addr::from).collect()
}

impl Scenario {
    fn is_able(&self, route: &WantedRoute) -> bool {
        let subnet = self.node.vpc.as_ref().unwrap().subnet;
        route.gateways.iter().any(|gateway| subnet.contains(gateway))
    }

    fn is_protected(&self, prefix: Ipv4Net) -> bool {
        let gateway = |route: &WantedRoute| {
            self.is_able(route)
                && route.gateways.iter().any(|gateway| Ipv4Net::from(*gateway).contains(&prefix))
        };
        self.node.protected.iter().any(|(protected, _)| protected.contains(&prefix))
            || self.wanted.iter().any(gateway)
    }

    /// Who should get `destination`, which is in some object's list.
    fn winner(&self, destination: Ipv4Net) -> Option<&WantedRoute> {
        let claimants = self.wanted.iter().filter(|route| {
            self.is_able(route)
                && route.destinations.contains_key(&destination)
                && !route.excluded.iter().any(|excluded| excluded.contains(&destination))
        });
        claimants.filter(|_| !self.is_protected(destination)).min_by_key(|route| route.seniority())
    }

    /// The route of main that answers for all of `destination` alone.
    fn covering(&self, destination: Ipv4Net) -> Option<Ipv4Net> {
        let covering = self.node.main_routes.iter().filter(|route| route.contains(&destination));
        covering.max_by_key(|route| route.prefix_len()).copied()
    }

    /// Whether main answers for all of `destination` before our table.
    fn is_shadowed(&self, destination: Ipv4Net) -> bool {
        let inside = self.node.main_routes.iter().filter(|route| destination.contains(*route));
        let inside: Vec<Ipv4Net> = inside.copied().collect();
        match self.covering(destination) {
            Some(route) if route != ON_LINK => true,
            covering => {
                let inside: Vec<Ipv4Net> =
                    inside.into_iter().filter(|route| Some(*route) != covering).collect();
                difference(destination, &inside).is_empty()
            }
        }
    }

    /// Where a packet may go, said by brute force and not in the way of the code.
    fn expected(&self, to: Ipv4Addr) -> BTreeSet<Way> {
        let main = longest_match(&self.node.main_routes, to);
        let own_way = BTreeSet::from([if main.is_some() { Way::Main } else { Way::Default }]);
        if self.is_protected(Ipv4Net::from(to)) {
            return own_way;
        }
        let ahead_of_main = self
            .wanted
            .iter()
            .flat_map(|route| route.destinations.keys())
            .filter(|destination| destination.contains(&to) && self.winner(**destination).is_some())
            .any(|destination| self.covering(*destination) == Some(ON_LINK));
        if main.is_some_and(|main| *main != ON_LINK || !ahead_of_main) {
            return own_way;
        }
        let winner = self
            .wanted
            .iter()
            .filter(|route| self.is_able(route))
            .filter(|route| !route.excluded.iter().any(|excluded| excluded.contains(&to)))
            .filter_map(|route| Some((longest_match(route.destinations.keys(), to)?, route)))
            .max_by(|(left, one), (right, other)| {
                left.prefix_len().cmp(&right.prefix_len()).then(other.seniority().cmp(&one.seniority()))
            });
        winner.map_or(own_way, |(_, route)| {
            let all = if route.is_shared() { &route.gateways[..] } else { &route.gateways[..1] };
            let in_use =
                self.selection.get(&route.uid).cloned().unwrap_or_else(|| all.iter().copied().collect());
            in_use.gateways.into_iter().map(Way::Gateway).collect()
        })
    }

    fn plan(&self, observed: &Observed) -> NodePlan {
        plan(&self.wanted, &self.node, &self.selection, observed, &Layout::default())
    }
}

/// Every gateway, before or after, of the objects that list an address before or after.
fn gateways_of(to: Ipv4Addr, scenarios: &[&Scenario]) -> BTreeSet<Way> {
    let objects = || scenarios.iter().flat_map(|scenario| &scenario.wanted);
    let lists = |route: &&WantedRoute| longest_match(route.destinations.keys(), to).is_some();
    let uids: BTreeSet<&str> = objects().filter(lists).map(|route| route.uid.as_str()).collect();
    let theirs = objects().filter(|route| uids.contains(route.uid.as_str()));
    theirs.flat_map(|route| route.gateways.iter().copied().map(Way::Gateway)).collect()
}

fn is_through_gateway(way: Way) -> bool {
    matches!(way, Way::Gateway(_))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(512), ..ProptestConfig::default() })]

    #[test]
    fn every_address_goes_where_brute_force_says(
        scenario in scenario(),
        more in proptest::collection::vec(any::<u32>(), 8),
    ) {
        let plan = scenario.plan(&Observed::default());
        let kernel = holding(&plan.state);
        for to in samples(&[&scenario], &more) {
            let way = lookup(&kernel, &scenario.node.main_routes, packet(to));
            prop_assert!(scenario.expected(to).contains(&way), "{}: {:?}", to, way);
            // Whatever is listed, a protected address stays off the gateways and a reply stays on the public side.
            prop_assert!(!(is_through_gateway(way) && scenario.is_protected(Ipv4Net::from(to))), "{}", to);
            let way = lookup(&kernel, &scenario.node.main_routes, reply(to));
            prop_assert!(is_private(to) || !is_through_gateway(way), "the answer to {}", to);
        }
    }

    #[test]
    fn reports_say_what_the_table_does(scenario in scenario()) {
        let plan = scenario.plan(&Observed::default());
        for (route, report) in scenario.wanted.iter().zip(&plan.routes) {
            if report.problem.is_some() {
                prop_assert!(!scenario.is_able(route));
                prop_assert_eq!((report.applied, report.failures.len()), (0, 0));
                continue;
            }
            prop_assert_eq!(report.applied + report.failures.len(), report.total);
            for (destination, spelling) in &route.destinations {
                let text = Destination { prefix: *destination, spelling: *spelling }.to_string();
                let failure = report.failures.iter().find(|failure| failure.destination == text);
                let won = scenario.winner(*destination).is_some_and(|winner| winner.uid == route.uid);
                let applied = won && !scenario.is_shadowed(*destination);
                prop_assert_eq!(failure.is_none(), applied, "{}: {:?}", text, failure);
            }
        }
    }

    #[test]
    fn a_restart_writes_nothing(scenario in scenario()) {
        let before = scenario.plan(&Observed::default());
        let kernel = holding(&before.state);
        let again = Scenario { selection: Selection::new(), ..scenario }.plan(&kernel);
        prop_assert_eq!(changes(&kernel, &again.state), vec![]);
        prop_assert_eq!(again, before);
    }

    /// On the way from one plan to another each packet goes the old way or the new way at every step: nothing that is
    /// routed before and after is let out in between, and nothing protected gets onto a gateway for a moment.
    #[test]
    fn no_packet_goes_astray_between_two_plans(
        from in scenario(),
        to in scenario(),
        more in proptest::collection::vec(any::<u32>(), 4),
    ) {
        // The main table is the one of the time of the change.
        let main = &to.node.main_routes;
        let mut kernel = holding(&from.plan(&Observed::default()).state);
        let target = to.plan(&kernel);
        let end = holding(&target.state);
        let addresses = samples(&[&from, &to], &more);
        let packets: Vec<Packet> = addresses.iter().flat_map(|to| [packet(*to), reply(*to)]).collect();
        let start: Vec<Way> = packets.iter().map(|packet| lookup(&kernel, main, *packet)).collect();
        let goal: Vec<Way> = packets.iter().map(|packet| lookup(&end, main, *packet)).collect();
        for change in changes(&kernel, &target.state) {
            apply(&mut kernel, &change);
            for ((packet, start), goal) in packets.iter().zip(&start).zip(&goal) {
                let way = lookup(&kernel, main, *packet);
                let known = gateways_of(packet.to, &[&from, &to]);
                prop_assert!(
                    [*start, *goal].map(is_through_gateway).contains(&is_through_gateway(way))
                        && (!is_through_gateway(way) || known.contains(&way)),
                    "{:?} goes by {:?} after {:?}, from {:?} to {:?}", packet, way, change, start, goal
                );
            }
        }
        prop_assert_eq!(changes(&kernel, &target.state), vec![]);
        for (packet, goal) in packets.iter().zip(&goal) {
            prop_assert_eq!(lookup(&kernel, main, *packet), *goal);
        }
    }

    /// With any exception or rule refused no packet gets onto a gateway that was not before and would not be in the end.
    #[test]
    fn a_refused_exception_or_rule_lets_nothing_onto_a_gateway(
        from in scenario(),
        to in scenario(),
        which in any::<proptest::sample::Index>(),
        more in proptest::collection::vec(any::<u32>(), 4),
    ) {
        let main = &to.node.main_routes;
        let mut kernel = holding(&from.plan(&Observed::default()).state);
        let target = to.plan(&kernel);
        let list = changes(&kernel, &target.state);
        let is_relied_on = |change: &&Change| match change {
            Change::PutRule(_) => true,
            Change::PutRoute { route, .. } => route.kind == RouteKind::Throw,
            _ => false,
        };
        let relied_on: Vec<Change> = list.iter().filter(is_relied_on).cloned().collect();
        if relied_on.is_empty() {
            return Ok(());
        }
        let refused = which.get(&relied_on);

        let end = holding(&target.state);
        let packets: Vec<Packet> =
            samples(&[&from, &to], &more).iter().flat_map(|to| [packet(*to), reply(*to)]).collect();
        let start: Vec<Way> = packets.iter().map(|packet| lookup(&kernel, main, *packet)).collect();
        let goal: Vec<Way> = packets.iter().map(|packet| lookup(&end, main, *packet)).collect();
        let mut sequence = Sequence::new(list, Layout::default().table);
        while let Some(batch) = sequence.next_batch() {
            for change in batch {
                if change == *refused {
                    sequence.miss(&change);
                    continue;
                }
                apply(&mut kernel, &change);
                for ((packet, start), goal) in packets.iter().zip(&start).zip(&goal) {
                    let way = lookup(&kernel, main, *packet);
                    prop_assert!(
                        !is_through_gateway(way) || [*start, *goal].into_iter().any(is_through_gateway),
                        "{:?} goes by {:?} after {:?}, with {:?} refused", packet, way, change, refused
                    );
                }
            }
        }
    }
}
