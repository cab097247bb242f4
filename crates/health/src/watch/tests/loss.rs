//! Gateways that lose packets.

use super::*;

/// Seconds until the first switch, if there is one within `limit`.
fn leaves(broken: &[Broken], seed: u64, limit: u64) -> Option<u64> {
    let mut world = World::with(&[A, B], seed, &Config::default());
    world.runs(60_000);
    world.broken.extend(broken);
    let start = world.now;
    while world.now < start + limit * 1_000 {
        world.runs(1_000);
        if let Some((at, ..)) = world.switches.first() {
            return Some((at - start) / 1_000);
        }
    }
    None
}

#[test]
fn a_little_loss_moves_nobody_in_an_hour() {
    for (broken, seed) in [(Loses(A, 5), 1), (LosesInVpc(A, 5), 3)] {
        assert_eq!(leaves(&[broken], seed, 3_600), None, "{broken:?}");
    }
    assert_eq!(leaves(&[Loses(A, 10)], 3, 600), None);
}

#[test]
fn much_loss_on_one_is_left_and_the_same_on_both_is_borne() {
    for seed in 1..=3 {
        for (broken, limit) in
            [(Loses(A, 30), 45), (Loses(A, 60), 12), (LosesInVpc(A, 30), 45), (LosesInVpc(A, 60), 12)]
        {
            let left = leaves(&[broken], seed, limit);
            assert!(left.is_some(), "{broken:?} was not left within {limit} s, seed {seed}");
        }
        for percent in [5, 10, 30] {
            let mut world = World::with(&[A, B], seed, &Config::default());
            world.runs(60_000);
            world.broken.extend([Loses(A, percent), Loses(B, percent)]);
            world.runs(120_000);
            let most = if percent < 30 { 0 } else { 3 };
            assert!(world.switches.len() <= most, "{percent} % on both, seed {seed}: {:?}", world.switches);
        }
    }
}

#[test]
fn one_that_lost_packets_is_on_trial_after_it_and_returned_to() {
    let mut world = World::whole(&[A, B]);
    world.broken.insert(LosesInVpc(A, 40));
    world.runs(30_000);
    assert_eq!(world.current, B);
    assert!(world.watch.is_condemned(A));
    world.broken.clear();
    world.runs(5_000);
    assert_eq!(world.current, B);
    world.runs(120_000);
    assert_eq!((world.current, world.condemned()), (A, vec![]));
}
