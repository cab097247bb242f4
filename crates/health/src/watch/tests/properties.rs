//! Whatever breaks and heals, in whatever order.

use proptest::prelude::*;

use super::*;

fn any_broken() -> impl Strategy<Value = Broken> {
    let gateway = || prop_oneof![Just(A), Just(B), Just(C)];
    prop_oneof![
        gateway().prop_map(Dead),
        gateway().prop_map(Deaf),
        gateway().prop_map(NoDefaultRoute),
        gateway().prop_map(WrongSource),
        gateway().prop_map(BlackHole),
        (0..3_usize).prop_map(|index| Target(TARGETS[index])),
        Just(Internet),
        Just(Node),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Whatever breaks and heals, in whatever order: a whole gateway is never condemned for a total fault while the others are whole or
    /// broken, a node ends on one that works where there is one, and none is said to work only when that is so.
    #[test]
    fn a_node_ends_on_a_gateway_that_works_and_no_whole_one_is_condemned(
        steps in prop::collection::vec((any_broken(), prop::bool::ANY, 200_u64..8_000), 1..12)
    ) {
        let mut world = World::whole(&[A, B, C]);
        for (broken, heals, time) in steps {
            if heals {
                world.broken.remove(&broken);
            } else {
                world.broken.insert(broken);
            }
            world.runs(time);
        }
        world.broken.retain(|broken| !matches!(broken, Internet | Node | Target(_)));
        world.runs(330_000);
        let is_whole = |gateway: char| {
            [Dead(gateway), Deaf(gateway), NoDefaultRoute(gateway), WrongSource(gateway), BlackHole(gateway)]
                .iter()
                .all(|broken| !world.broken.contains(broken))
        };
        let whole: Vec<char> = [A, B, C].into_iter().filter(|gateway| is_whole(*gateway)).collect();
        for gateway in &whole {
            prop_assert!(world.watch.condemned(*gateway).is_none(), "{:?}: {:?}", world.broken, world.condemned());
        }
        if let Some(first) = whole.first() {
            prop_assert!(whole.contains(&world.current), "{:?}: on {}", world.broken, world.current);
            prop_assert_eq!(world.current, *first, "the order of the list");
            prop_assert!(!world.watch.none_works(&[A, B, C]));
        }
    }

    /// An hour of any single probes lost here and there condemns nobody.
    #[test]
    fn single_losses_move_nobody(lost in prop::collection::btree_set(0_usize..4_000, 0..60)) {
        let mut world = World::whole(&[A, B]);
        let mut last = None;
        for index in 0..4_000 {
            // Never two in a row.
            let lose = lost.contains(&index) && last != Some(index.wrapping_sub(1));
            if lose {
                last = Some(index);
            }
            world.now += 100;
            let now = Tick::from_millis(world.now);
            for gateway in [A, B] {
                let level = Level::ALL[index % 4];
                let outcome = if lose { Outcome::Missed } else { Outcome::Answered };
                world.watch.on_probe(gateway, Probe { level, witness: 'x', sent: now, outcome }, now);
            }
            world.choose();
        }
        prop_assert!(world.switches.is_empty());
        prop_assert!(select(&world.watch.candidates(&[A, B], Tick::from_millis(world.now)), Some(A)).unwrap().why == Why::Stays);
    }
}
