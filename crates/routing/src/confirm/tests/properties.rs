//! The state machine in a world where some gateways forward and some don't, and where targets go silent and come back.

use proptest::prelude::*;

use super::*;

const TARGETS: [(Lifeline, &str); 3] = [
    (Lifeline::ApiServer, "192.0.2.10"),
    (Lifeline::ApiServer, "192.0.2.200"),
    (Lifeline::Resolver, "198.18.0.53"),
];
const DESTINATIONS: [&str; 6] =
    ["0.0.0.0/0", "192.0.2.0/24", "192.0.2.10/32", "192.0.2.128/25", "198.18.0.53/32", "8.8.8.8/32"];
const GATEWAYS: [&str; 4] = ["10.116.0.100", "10.116.0.101", "10.116.0.102", "10.116.0.103"];

#[derive(Debug, Clone)]
enum Step {
    /// Object, its destinations and exclusions, its gateway, and what it says of no gateway.
    Put(usize, Vec<usize>, Vec<usize>, usize, OnNoGateway),
    Delete(usize),
    /// Target goes silent or comes back.
    Toggle(usize),
    /// So many looks.
    Look(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (
            0usize..4,
            proptest::collection::vec(0..DESTINATIONS.len(), 1..3),
            proptest::collection::vec(1..DESTINATIONS.len(), 0..2),
            0..GATEWAYS.len(),
            proptest::sample::select(vec![OnNoGateway::KeepLast, OnNoGateway::FailClosed, OnNoGateway::FailOpen]),
        )
            .prop_map(|(object, destinations, excluded, gateway, mode)| {
                Step::Put(object, destinations, excluded, gateway, mode)
            }),
        1 => (0usize..4).prop_map(Step::Delete),
        1 => (0..TARGETS.len()).prop_map(Step::Toggle),
        3 => (1usize..5).prop_map(Step::Look),
    ]
}

struct World {
    scene: Scene,
    wanted: BTreeMap<usize, WantedRoute>,
    alive: [bool; TARGETS.len()],
    forwards: Vec<bool>,
}

impl World {
    fn wanted(&self) -> Vec<WantedRoute> {
        self.wanted.values().cloned().collect()
    }

    fn pass(&mut self) {
        let wanted = self.wanted();
        self.scene.pass(&wanted);
    }

    /// What each target answers, by the world's own rules.
    fn answers(&self) -> Vec<(Target, (bool, bool))> {
        let ways = Ways::of(&self.scene.plan.state, &Layout::default());
        let forwards = |nexthop| {
            let report = self.scene.plan.routes.iter().find(|report| report.nexthop == Some(nexthop));
            // A guard drops.
            let Some(gateway) = report.and_then(|report| report.in_use.first().copied()) else {
                return false;
            };
            GATEWAYS.iter().zip(&self.forwards).any(|(address, forwards)| ip(address) == gateway && *forwards)
        };
        let answers = TARGETS.iter().zip(self.alive).map(|((lifeline, address), alive)| {
            let through = alive && ways.to(ip(address)).is_none_or(forwards);
            (target(*lifeline, address), (through, alive))
        });
        answers.collect()
    }

    /// Addresses that a `FailClosed` object lists and that leave by the node's own way, or would if the link took every gateway
    /// along, though nothing found them cut off.
    fn let_out(&self) -> BTreeSet<Ipv4Addr> {
        let layout = Layout::default();
        let mut without_link = self.scene.plan.state.clone();
        without_link.routes.retain(|_, route| !matches!(route.kind, RouteKind::Nexthop(_)));
        let without_link = Ways::of(&without_link, &layout);
        let ways = Ways::of(&self.scene.plan.state, &layout);
        let ends = |text: &&str| [net(text).network(), net(text).broadcast()];
        let all = TARGETS.iter().map(|(_, address)| ip(address)).chain(DESTINATIONS.iter().flat_map(ends));
        let lists = |route: &WantedRoute, address: Ipv4Addr| {
            route.destinations.keys().any(|prefix| prefix.contains(&address))
                && !route.excluded.iter().any(|prefix| prefix.contains(&address))
        };
        let is_shut = |address: &Ipv4Addr| {
            self.wanted.values().any(|route| route.is_fail_closed() && lists(route, *address))
        };
        // What another object opens then is its own.
        let opens = |route: &WantedRoute| route.on_no_gateway == OnNoGateway::FailOpen;
        let is_opened =
            |address: Ipv4Addr| self.scene.in_force.iter().any(|route| opens(route) && lists(route, address));
        let spared = self.scene.confirmation.spared();
        let is_out = |address: &Ipv4Addr| {
            ways.to(*address).is_none() || !is_opened(*address) && without_link.to(*address).is_none()
        };
        // Of everything the last address is the broadcast one, which is protected always.
        let shut =
            all.filter(is_shut).filter(|address| !address.is_broadcast() && !spared.contains_key(address));
        shut.filter(is_out).collect()
    }

    fn look(&mut self) -> Verdict {
        let said = self.answers();
        let verdict = self.scene.look_at(&said);
        if matches!(verdict, Verdict::RolledBack { .. } | Verdict::Spared { .. }) {
            self.pass();
        }
        verdict
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(512), ..ProptestConfig::default() })]

    /// Whatever is edited in whatever order, and whoever is silent for how long meanwhile: when there is calm, nothing that
    /// answers around our table is silent through it, and nobody is rolled back whose way there works.
    #[test]
    fn no_change_leaves_a_node_cut_off_and_nobody_innocent_is_rolled_back(
        steps in proptest::collection::vec(step(), 1..24),
        forwards in proptest::collection::vec(any::<bool>(), GATEWAYS.len()),
    ) {
        let mut world = World {
            scene: Scene::starting(&[]),
            wanted: BTreeMap::new(),
            alive: [true; TARGETS.len()],
            forwards,
        };
        prop_assert_eq!(world.look(), Verdict::Confirmed);
        let mut confirmed: BTreeMap<String, Vec<WantedRoute>> = BTreeMap::new();
        let mut steps: Vec<_> = steps;
        // Calm at the end: everybody answers, and there is time.
        let end = steps.len();
        steps.push(Step::Look(40));
        for (index, step) in steps.into_iter().enumerate() {
            if index == end {
                world.alive = [true; TARGETS.len()];
            }
            let mut looks = 0;
            match step {
                Step::Put(object, destinations, excluded, gateway, mode) => {
                    let [destinations, excluded] = [destinations, excluded]
                        .map(|list| list.into_iter().map(|one| DESTINATIONS[one]).collect::<Vec<_>>());
                    let created = i64::try_from(object).unwrap();
                    let name = object.to_string();
                    let put = excluding(&name, created, &destinations, &excluded, &[GATEWAYS[gateway]]);
                    let put = failing(put, mode);
                    world.wanted.insert(object, put);
                    world.pass();
                }
                Step::Delete(object) => {
                    world.wanted.remove(&object);
                    world.pass();
                }
                Step::Toggle(target) => world.alive[target] = !world.alive[target],
                Step::Look(count) => looks = count,
            }
            for _ in 0..looks {
                let before = world.answers();
                let in_force = world.scene.in_force.clone();
                match world.look() {
                    Verdict::Confirmed => {
                        for route in in_force {
                            confirmed.entry(route.uid.clone()).or_default().push(route.without_guard());
                        }
                    }
                    Verdict::RolledBack { cut, objects } => {
                        let said = before.iter().find(|(target, _)| *target == cut).unwrap().1;
                        prop_assert_eq!(said, CUT, "without a difference");
                        for uid in objects {
                            // But for what stays shut.
                            let instead = world.scene.confirmation.rolled_back()[&uid].instead.without_guard();
                            let was_confirmed = confirmed.get(&uid).is_some_and(|all| all.contains(&instead));
                            prop_assert!(was_confirmed || instead.destinations.is_empty(), "{uid}");
                        }
                    }
                    Verdict::Spared { cut } => {
                        prop_assert_eq!(before.iter().find(|(target, _)| *target == cut).unwrap().1, CUT);
                    }
                    Verdict::Open => {}
                }
                prop_assert_eq!(world.let_out(), BTreeSet::new(), "a FailClosed guard was taken away");
                for (uid, one) in world.scene.confirmation.rolled_back() {
                    let is_it = |wanted: &WantedRoute| {
                        let other_gateways = WantedRoute { gateways: wanted.gateways.clone(), ..one.refused.clone() };
                        *wanted == other_gateways
                    };
                    prop_assert!(world.wanted().iter().any(is_it), "{uid}: an older version is held against it");
                }
            }
        }
        for (target, said) in world.answers() {
            prop_assert_eq!(said, BOTH, "{} is cut off", target);
        }
        prop_assert!(!world.scene.confirmation.is_trying());
    }
}
