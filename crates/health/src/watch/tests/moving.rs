//! An address that moves: who is used and who is condemned while it is at one, at the other, or on its way.

use super::*;

const SEEDS: std::ops::RangeInclusive<u64> = 1..=8;

fn seen(world: &World, gateway: char) -> [Option<bool>; 2] {
    [Level::Forwarding, Level::Source].map(|level| world.watch.works(gateway, level))
}

#[test]
fn who_waits_for_the_address_is_seen_to_forward_is_not_condemned_and_not_used() {
    for seed in SEEDS {
        let world = World::moving(&[A, B, C], seed);
        assert_eq!(seen(&world, A), [Some(true); 2]);
        for waits in [B, C] {
            assert_eq!(seen(&world, waits), [Some(true), Some(false)]);
            assert_eq!(world.standing(waits).verdict, Verdict::Down);
        }
        assert_eq!((world.condemned(), world.current), (vec![], A));
        assert!(world.switches.is_empty() && !world.watch.none_works(&[A, B, C]));
    }
}

#[test]
fn a_dead_holder_is_left_when_the_address_is_seen_elsewhere_and_not_before() {
    for seed in SEEDS {
        for takes in [5_000, 30_000] {
            let mut world = World::moving(&[A, B], seed);
            world.broken.insert(Dead(A));
            world.runs(1_000);
            assert!(world.watch.is_condemned(A) && !world.watch.is_condemned(B));
            for _ in 0..takes / 1_000 {
                world.runs(1_000);
                assert_eq!((world.current, world.switches.len()), (A, 0), "{takes}, seed {seed}");
                assert!(world.watch.none_works(&[A, B]));
            }
            world.address = Some(At::Gateway(B));
            let moved = world.now;
            world.runs(3_000);
            assert_eq!(world.current, B, "{takes}, seed {seed}");
            assert!(world.switches[0].0 - moved < 1_500, "{takes}, seed {seed}: {:?}", world.switches);
            assert!(!world.watch.none_works(&[A, B]));
            // It comes back, and waits.
            world.broken.clear();
            world.runs(60_000);
            assert_eq!((world.condemned(), world.current, world.switches.len()), (vec![], B, 1));
            assert_eq!(seen(&world, A), [Some(true), Some(false)]);
        }
    }
}

#[test]
fn an_address_that_is_gone_is_the_holders_fault_until_it_is_seen_elsewhere() {
    for seed in SEEDS {
        let mut world = World::moving(&[A, B], seed);
        world.address = Some(At::Nobody);
        world.runs(6_000);
        assert_eq!(
            (world.condemned(), world.current),
            (vec![(A, Fault::UnexpectedSource)], A),
            "seed {seed}"
        );
        assert!(world.watch.none_works(&[A, B]));
        world.address = Some(At::Gateway(B));
        world.runs(2_000);
        assert_eq!((world.condemned(), world.current), (vec![], B), "seed {seed}");
        // And back again, by somebody's wish: both work all the time.
        world.address = Some(At::Gateway(A));
        world.runs(6_000);
        assert_eq!((world.condemned(), world.current), (vec![], A), "seed {seed}");
        assert_eq!(world.switches.len(), 2);
    }
}

#[test]
fn whoever_has_the_address_or_waits_for_it_is_judged_by_difference_past_the_address() {
    for seed in SEEDS {
        for (broken, condemned) in [
            (vec![Deaf(A)], vec![(A, Fault::NotForwarding)]),
            (vec![Deaf(B)], vec![(B, Fault::NotForwarding)]),
            (vec![NoDefaultRoute(B)], vec![(B, Fault::NotForwarding)]),
            (vec![BlackHole(A)], vec![(A, Fault::LosesLargePackets)]),
            (vec![BlackHole(B)], vec![(B, Fault::LosesLargePackets)]),
            (vec![Dead(B)], vec![]),
            (vec![Target('x')], vec![]),
            (vec![Target('x'), Target('y')], vec![]),
            (vec![Internet], vec![]),
            (vec![Internet, Dead(B)], vec![]),
            (vec![Target('x'), Target('y'), Target('z')], vec![]),
            (vec![Node], vec![]),
        ] {
            let mut world = World::moving(&[A, B], seed);
            world.broken.extend(broken.clone());
            world.runs(20_000);
            assert_eq!(world.condemned(), condemned, "{broken:?}, seed {seed}");
            // Nobody else has the address.
            assert_eq!((world.current, world.switches.len()), (A, 0), "{broken:?}, seed {seed}");
            let holder_is_out = [Deaf(A), Node].iter().any(|one| world.is(*one));
            assert_eq!(world.watch.none_works(&[A, B]), holder_is_out, "{broken:?}, seed {seed}");
        }
    }
}

#[test]
fn with_some_loss_on_the_way_the_address_is_not_taken_for_lost() {
    for seed in SEEDS {
        for percent in [5, 20] {
            let mut world = World::moving(&[A, B], seed);
            world.broken.insert(Loses(A, percent));
            for _ in 0..60 {
                world.runs(1_000);
                let condemned = world.condemned();
                let taken = condemned.iter().any(|(_, fault)| *fault == Fault::UnexpectedSource);
                assert!(!taken, "{percent} %, seed {seed}: {condemned:?}");
            }
        }
    }
}

#[test]
fn an_agent_that_has_just_started_moves_nobody_before_it_has_seen_the_address() {
    let mut world = World::moving(&[A, B], 1);
    world.watch = Watch::default();
    let mut wanted = wanted(&[A, B], &Config::default());
    wanted.values_mut().for_each(|one| one.shared_address = Some('r'));
    world.watch.retain(&wanted, Tick::from_millis(world.now));
    world.address = Some(At::Nobody);
    world.runs(20_000);
    // It never saw who had it: nobody is out.
    assert_eq!((world.condemned(), world.current), (vec![], A));
    assert!(!world.watch.none_works(&[A, B]));
    world.address = Some(At::Gateway(B));
    world.runs(3_000);
    assert_eq!(world.current, B);
}
