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
    /// Object, its destinations, its gateway, and whether it is `FailClosed`.
    Put(usize, Vec<usize>, usize, bool),
    Delete(usize),
    /// Target goes silent or comes back.
    Toggle(usize),
    /// So many looks.
    Look(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0usize..4, proptest::collection::vec(0..DESTINATIONS.len(), 1..3), 0..GATEWAYS.len(), any::<bool>())
            .prop_map(|(object, destinations, gateway, closed)| Step::Put(object, destinations, gateway, closed)),
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

    /// Addresses that a `FailClosed` object lists and that leave by the node's own way though nothing found them cut off.
    fn let_out(&self) -> Vec<Ipv4Addr> {
        let ways = Ways::of(&self.scene.plan.state, &Layout::default());
        let closed = self.wanted.values().filter(|route| route.is_fail_closed());
        let listed = closed.flat_map(|route| route.destinations.keys()).flat_map(|listed| {
            let near = TARGETS.map(|(_, address)| ip(address)).into_iter();
            near.chain([listed.broadcast()]).filter(|address| listed.contains(address)).collect::<Vec<_>>()
        });
        let spared = self.scene.confirmation.spared();
        let is_out = |address: &Ipv4Addr| ways.to(*address).is_none() && !spared.contains_key(address);
        // Of everything the last address is the broadcast one, which is protected always.
        listed.filter(is_out).filter(|address| !address.is_broadcast()).collect()
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
                Step::Put(object, destinations, gateway, closed) => {
                    let destinations: Vec<&str> = destinations.into_iter().map(|one| DESTINATIONS[one]).collect();
                    let created = i64::try_from(object).unwrap();
                    let mode = if closed { OnNoGateway::FailClosed } else { OnNoGateway::KeepLast };
                    let put = route(&object.to_string(), created, &destinations, &[GATEWAYS[gateway]]);
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
                            let route = WantedRoute { guarded: BTreeSet::new(), ..route };
                            confirmed.entry(route.uid.clone()).or_default().push(route);
                        }
                    }
                    Verdict::RolledBack { cut, objects } => {
                        let said = before.iter().find(|(target, _)| *target == cut).unwrap().1;
                        prop_assert_eq!(said, CUT, "without a difference");
                        for uid in objects {
                            let instead = &world.scene.confirmation.rolled_back()[&uid].instead;
                            // But for what stays shut.
                            let instead = WantedRoute { guarded: BTreeSet::new(), ..instead.clone() };
                            let was_confirmed = confirmed.get(&uid).is_some_and(|all| all.contains(&instead));
                            prop_assert!(was_confirmed || instead.destinations.is_empty(), "{uid}");
                        }
                    }
                    Verdict::Spared { cut } => {
                        prop_assert_eq!(before.iter().find(|(target, _)| *target == cut).unwrap().1, CUT);
                    }
                    Verdict::Open => {}
                }
                prop_assert_eq!(world.let_out(), [] as [Ipv4Addr; 0], "a FailClosed guard was taken away");
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
