use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::detector::Outcome;
use crate::selection::{Why, select};

mod clusters;
mod moving;
mod source;
mod world;

use world::Broken::*;
use world::{At, Broken, TARGETS, World, wanted};

const A: char = 'A';
const B: char = 'B';
const C: char = 'C';

#[test]
fn every_row_of_the_table() {
    use Fault::{LosesLargePackets, NotForwarding, UnexpectedSource};
    let whole = World::whole(&[A, B]);
    for (broken, condemned, used) in [
        (vec![], vec![], A),
        (vec![Deaf(A)], vec![(A, NotForwarding)], B),
        (vec![NoDefaultRoute(A)], vec![(A, NotForwarding)], B),
        (vec![WrongSource(A)], vec![(A, UnexpectedSource)], B),
        (vec![BlackHole(A)], vec![(A, LosesLargePackets)], B),
        (vec![Dead(A)], vec![], B),
        (vec![Dead(B)], vec![], A),
        (vec![Deaf(B)], vec![(B, NotForwarding)], A),
        (vec![BlackHole(B)], vec![(B, LosesLargePackets)], A),
        (vec![WrongSource(B)], vec![(B, UnexpectedSource)], A),
        (vec![Target('x')], vec![], A),
        (vec![Target('x'), Target('y')], vec![], A),
        (vec![Target('x'), Target('y'), Target('z')], vec![], A),
        (vec![Internet], vec![], A),
        (vec![Internet, Dead(A)], vec![], B),
        (vec![Deaf(A), Deaf(B)], vec![], A),
        (vec![Dead(A), Dead(B)], vec![], A),
        (vec![Node], vec![], A),
    ] {
        let mut world = whole.clone();
        world.broken.extend(broken.clone());
        world.runs(10_000);
        assert_eq!((world.condemned(), world.current), (condemned, used), "{broken:?}");
        let out = world.broken.iter().any(|broken| matches!(broken, Node))
            || [Dead(A), Dead(B)].iter().all(|dead| world.is(*dead));
        assert_eq!(world.watch.none_works(&[A, B]), out, "{broken:?}");
        assert!(world.switches.len() <= 1, "{broken:?}: {:?}", world.switches);
    }
}

#[test]
fn with_a_third_gateway_the_same_ones_are_condemned() {
    for (broken, condemned) in [
        (Deaf(A), vec![(A, Fault::NotForwarding)]),
        (WrongSource(A), vec![(A, Fault::UnexpectedSource)]),
        (BlackHole(C), vec![(C, Fault::LosesLargePackets)]),
        (Dead(C), vec![]),
        (Internet, vec![]),
    ] {
        let mut world = World::whole(&[A, B, C]);
        world.broken.insert(broken);
        world.runs(10_000);
        assert_eq!(world.condemned(), condemned, "{broken:?}");
    }
}

#[test]
fn a_gray_failure_is_left_within_three_seconds_whenever_it_happens() {
    for offset in (0..1_000).step_by(125) {
        for broken in [Deaf(A), NoDefaultRoute(A), WrongSource(A), BlackHole(A)] {
            let mut world = World::whole(&[A, B]);
            world.runs(offset);
            world.broken.insert(broken);
            let failed = world.now;
            world.runs(5_000);
            let left = world.switches[0].0 - failed;
            assert!(left < 3_000 && world.current == B, "{broken:?} after {offset} ms: {left} ms");
        }
    }
}

#[test]
fn a_target_that_has_been_dead_for_a_minute_delays_a_verdict_by_one_probe_at_most() {
    for seed in 1..=12 {
        for broken in [Deaf(A), NoDefaultRoute(A), WrongSource(A), BlackHole(A)] {
            let mut world = World::whole_with(&[A, B], seed, &Config::default());
            world.broken.insert(Target('x'));
            world.runs(60_000 + 83 * seed);
            assert_eq!((world.condemned(), world.current), (vec![], A));
            world.broken.insert(broken);
            let failed = world.now;
            world.runs(20_000);
            let left = world.switches.first().map(|(at, ..)| at - failed);
            assert!(left.is_some_and(|left| left < 3_500), "{broken:?}, seed {seed}: {left:?}");
        }
    }
}

#[test]
fn with_all_targets_dead_but_one_a_single_lost_packet_condemns_nobody() {
    for broken in [vec![Target('x'), Target('y')], vec![Target('x'), Target('y'), Target('z')]] {
        let mut world = World::whole(&[A, B]);
        world.broken.extend(broken.clone());
        world.runs(60_000);
        assert_eq!(world.condemned(), [], "{broken:?}");
    }
    for seed in 1..=40 {
        let mut world = World::whole_with(&[A, B], seed, &Config::default());
        world.broken.extend([Target('x'), Target('y')]);
        world.runs(60_000 + 83 * seed);
        // So short that at each level one probe is lost at most, and another is answered through the other one.
        world.broken.insert(Deaf(A));
        world.runs(240);
        world.broken.remove(&Deaf(A));
        world.runs(10_000);
        assert_eq!((world.condemned(), world.switches.len()), (vec![], 0), "seed {seed}");
    }
}

#[test]
fn with_all_targets_dead_but_one_a_gray_failure_is_left_within_two_intervals_more() {
    for seed in 1..=40 {
        for broken in [Deaf(A), NoDefaultRoute(A), WrongSource(A), BlackHole(A)] {
            let mut world = World::whole_with(&[A, B], seed, &Config::default());
            world.broken.extend([Target('x'), Target('y')]);
            world.runs(60_000 + 83 * seed);
            assert_eq!((world.condemned(), world.current), (vec![], A));
            world.broken.insert(broken);
            let failed = world.now;
            world.runs(20_000);
            let left = world.switches.first().map(|(at, ..)| at - failed);
            assert!(left.is_some_and(|left| left < 4_500), "{broken:?}, seed {seed}: {left:?}");
        }
    }
}

#[test]
fn what_was_missed_before_a_gateway_was_there_makes_nobody_slower_to_leave_it() {
    for seed in 1..=10 {
        for broken in [Deaf(A), WrongSource(A), BlackHole(A)] {
            let mut world = World::with(&[A, B], seed, &hasty());
            // Too short for a fall: all that was missed then might pass for loss.
            world.broken.extend([Deaf(A), Deaf(B)]);
            world.runs(650);
            world.broken.clear();
            world.runs(12_000);
            world.broken.insert(broken);
            let failed = world.now;
            world.runs(5_000);
            let left = world.switches.last().map(|(at, ..)| at - failed);
            assert!(left.is_some_and(|left| left < 3_000), "{broken:?}, seed {seed}: {left:?}");
        }
    }
}

#[test]
fn one_that_does_not_work_is_left_for_at_once_when_the_other_is_dead() {
    let mut world = World::whole(&[A, B]);
    world.broken.insert(BlackHole(A));
    world.runs(5_000);
    world.broken.insert(Dead(B));
    world.runs(2_000);
    assert_eq!(world.current, A, "better than nothing");
    assert!(!world.watch.none_works(&[A, B]));
    world.broken = BTreeSet::from([Deaf(A)]);
    world.runs(5_000);
    world.broken.insert(Dead(B));
    world.runs(2_000);
    assert!(world.watch.none_works(&[A, B]));
    world.broken.remove(&Dead(B));
    world.runs(1_000);
    assert!(!world.watch.none_works(&[A, B]));
    assert_eq!(world.current, B, "hold-down keeps nobody on one that does not work");
}

#[test]
fn who_was_never_seen_with_the_expected_address_is_not_condemned_and_not_returned_to() {
    let mut world = World::new(&[A, B]);
    world.broken.insert(WrongSource(A));
    world.current = B;
    world.runs(120_000);
    assert_eq!((world.condemned(), world.current), (vec![], B));
    assert_eq!(world.watch.works(A, Level::Source), Some(false));
    assert!(!world.watch.has_answered(A, Level::Source));
    world.broken.clear();
    world.runs(30_000);
    assert_eq!(world.current, A);
}

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
fn much_loss_on_one_is_left() {
    for (broken, half, all) in [
        (Loses(A, 30), 30, 75),
        (Loses(A, 60), 8, 20),
        (LosesInVpc(A, 30), 30, 75),
        (LosesInVpc(A, 60), 8, 20),
    ] {
        // When it is a matter of chance.
        let mut seconds: Vec<_> =
            (1..=20).map(|seed| leaves(&[broken], seed, all).ok_or((broken, seed))).collect();
        seconds.sort_unstable();
        assert!(seconds.iter().all(Result::is_ok), "not within {all} s: {:?}", seconds.last());
        assert!(seconds[seconds.len() / 2] <= Ok(half), "half of them within {half} s: {seconds:?}");
    }
}

/// How many of so many nodes leave A within 45 s of that.
fn leavers(nodes: u64, broken: &[Broken]) -> usize {
    (1..=nodes).filter(|seed| leaves(broken, *seed, 45).is_some()).count()
}

#[test]
fn the_same_loss_on_both_or_loss_on_the_other_one_moves_hardly_anybody() {
    for percent in [5, 10, 30, 60] {
        // Three misses in a row come by chance, and count before anybody can know of the loss.
        let both = leavers(20, &[Loses(A, percent), Loses(B, percent)]);
        assert!(both <= 1, "{percent} % on both: {both} of 20");
        let other = leavers(20, &[Loses(B, percent)]);
        assert!(other == 0, "{percent} % on the other one: {other} of 20");
    }
}

/// The shortest hold-down of the failure matrix and of the benchmarks.
fn hasty() -> Config {
    Config {
        hold_down: Duration::from_secs(1),
        longest_hold_down: Duration::from_secs(3),
        ..Config::default()
    }
}

#[test]
fn however_short_the_hold_down_is_nobody_returns_to_one_that_goes_on_losing() {
    for (broken, most) in [(Loses(A, 60), 1), (LosesInVpc(A, 60), 0)] {
        let mut returns = 0;
        for seed in 1..=20 {
            let mut world = World::whole_with(&[A, B], seed, &hasty());
            world.broken.insert(broken);
            world.runs(60_000);
            returns += world.switches.iter().filter(|(_, _, to)| *to == A).count();
        }
        assert!(returns <= most, "{broken:?}: {returns} returns in twenty minutes");
    }
}

#[test]
fn what_was_lost_in_an_outage_delays_neither_the_return_nor_the_next_departure() {
    for seed in 1..=4 {
        let mut world = World::whole_with(&[A, B], seed, &hasty());
        for broken in [Deaf(A), WrongSource(A), NoDefaultRoute(A), BlackHole(A), Deaf(A), WrongSource(A)] {
            world.broken.insert(broken);
            let failed = world.now;
            world.runs(6_000);
            let left = world.switches.last().map(|(at, ..)| at - failed);
            assert!(
                world.current == B && left.is_some_and(|left| left < 3_000),
                "{broken:?}: {left:?}, seed {seed}"
            );
            world.broken.clear();
            let healed = world.now;
            world.runs(15_000);
            let (at, _, to) = *world.switches.last().unwrap();
            assert!(
                to == A && at - healed < 12_000,
                "{broken:?}: back after {} ms, seed {seed}",
                at - healed
            );
        }
    }
}

#[test]
fn what_was_on_its_way_when_a_short_outage_ended_delays_no_return() {
    for (seed, lasts) in (1..=6).zip([1_800, 2_000, 2_200, 2_400, 2_700, 3_000]) {
        for broken in [Deaf(A), BlackHole(A), NoDefaultRoute(A)] {
            let mut world = World::whole_with(&[A, B], seed, &hasty());
            world.broken.insert(broken);
            world.runs(lasts);
            world.broken.clear();
            let healed = world.now;
            world.runs(20_000);
            let back = world.switches.last().map_or(0, |(at, ..)| at.saturating_sub(healed));
            assert!(world.current == A && back < 10_000, "{broken:?} for {lasts} ms: {back} ms, seed {seed}");
        }
    }
}

#[test]
fn one_that_answers_in_the_vpc_again_is_not_returned_to_before_the_outside_saw_its_address() {
    for seed in 1..=10 {
        let mut world = World::whole_with(&[A, B], seed, &hasty());
        // Another machine takes its address over.
        world.broken.insert(Dead(A));
        world.runs(450);
        world.broken = BTreeSet::from([WrongSource(A)]);
        world.runs(30_000);
        assert_eq!((world.switches.len(), world.current), (1, B), "seed {seed}: {:?}", world.switches);
        world.broken.clear();
        world.runs(15_000);
        assert_eq!(world.current, A, "seed {seed}");
    }
}

#[test]
fn the_silence_of_a_peer_whose_address_another_machine_took_over_condemns_nobody() {
    for seed in 1..=10 {
        for silent in [450, 5_000] {
            let mut world = World::whole_with(&[A, B], seed, &hasty());
            world.broken.insert(Dead(A));
            world.runs(silent);
            world.broken = BTreeSet::from([TakenOver(A)]);
            for _ in 0..600 {
                world.runs(100);
                assert!(
                    !world.watch.none_works(&[A, B]),
                    "{silent} ms, seed {seed}: {:?}",
                    world.condemned()
                );
            }
            assert_eq!(world.current, B, "{silent} ms, seed {seed}");
            world.broken.clear();
            world.runs(20_000);
            assert_eq!(world.current, A, "{silent} ms, seed {seed}");
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

#[test]
fn a_node_uses_one_that_is_partly_bad_rather_than_one_through_which_nothing_gets() {
    for partly in [Loses(B, 30), BlackHole(B)] {
        for seed in 1..=10 {
            // The worse one fails last, and first.
            for order in [[partly, Deaf(A)], [Deaf(A), partly]] {
                let mut world = World::whole_with(&[A, B], seed, &Config::default());
                for broken in order {
                    world.broken.insert(broken);
                    world.runs(60_000);
                }
                assert_eq!(world.current, B, "{order:?}, seed {seed}: {:?}", world.condemned());
                assert!(!world.watch.none_works(&[A, B]), "{order:?}, seed {seed}");
            }
        }
    }
}

#[test]
fn losses_are_forgiven_where_nobody_is_asked_through_the_gateways_any_more() {
    let mut world = World::whole(&[A, B]);
    world.broken.insert(Loses(A, 60));
    world.runs(30_000);
    assert_eq!((world.condemned(), world.current), (vec![(A, Fault::LosesPackets)], B));
    world.asks_in_the_vpc_only();
    world.runs(1_000);
    assert_eq!(world.condemned(), [], "nobody could show any more that it loses no packets");
    world.runs(60_000);
    assert_eq!((world.condemned(), world.current), (vec![], A));
}

#[test]
fn flapping_moves_a_node_ever_more_rarely() {
    for period in [1_000, 20_000, 60_000] {
        let mut world = World::whole(&[A, B]);
        for _ in 0..(600_000 / period) {
            world.broken.insert(Dead(A));
            world.runs(period / 2);
            world.broken.clear();
            world.runs(period / 2);
        }
        // Once away and a few returns, each after a longer time.
        assert!(world.switches.len() <= 14, "period {period}: {} switches", world.switches.len());
        let back: Vec<u64> =
            world.switches.iter().filter(|(_, _, to)| *to == A).map(|(at, ..)| *at).collect();
        assert!(back.windows(2).all(|pair| pair[1] - pair[0] >= 10_000), "{period}: {back:?}");
    }
}

#[test]
fn neighbours_tell_whether_it_is_the_node_that_is_cut_off() {
    use Outcome::{Answered, Missed};
    let mut world = World::whole(&[A, B]);
    assert!(!world.watch.all_silent());
    world.broken.insert(Node);
    world.runs(1_000);
    assert!(world.watch.all_silent());
    for (neighbours, cut_off) in
        [(vec![], false), (vec![Missed], true), (vec![Missed, Missed], true), (vec![Missed, Answered], false)]
    {
        assert_eq!(is_cut_off(true, &neighbours), cut_off, "{neighbours:?}");
        assert!(!is_cut_off(false, &neighbours));
    }
    assert!(!Watch::<char, char>::default().all_silent());
}

#[test]
fn evidence_says_what_was_asked_and_who_answered_instead() {
    let mut world = World::whole(&[A, B]);
    world.broken.insert(Deaf(A));
    world.runs(4_000);
    let evidence = world.watch.evidence(A, B).unwrap();
    assert_eq!((evidence.fault.reason(), evidence.other), ("NotForwarding", B));
    let said = evidence.to_string();
    assert!(said.starts_with("nothing outside answers through it: "), "{said}");
    assert!(said.contains(" probes in a row without an answer from "), "{said}");
    assert!(said.ends_with("one that went through B was answered"), "{said}");

    world = World::whole(&[A, B]);
    world.broken.insert(Dead(A));
    world.runs(1_000);
    let evidence = world.watch.evidence(A, B).unwrap();
    assert_eq!(evidence.fault, Fault::Unreachable);
    assert!(world.watch.is_condemned(A) && !world.watch.is_condemned(B));
}

#[test]
fn thresholds_may_change_and_gateways_come_and_go() {
    let mut world = World::whole(&[A, B]);
    world.broken.insert(Deaf(A));
    world.runs(4_000);
    assert_eq!(world.current, B);
    let now = Tick::from_millis(world.now);
    let other = Config { hold_down: Duration::from_secs(1), ..Config::default() };
    world.watch.retain(&wanted(&[A, B], &other), now);
    assert!(world.watch.condemned(A).is_some(), "nothing is forgotten");
    world.watch.retain(&wanted(&[A], &other), now);
    assert!(world.watch.condemned(A).is_some(), "nor when it is the only one");
    assert_eq!(world.watch.works(B, Level::Reachability), None);
}

#[test]
fn a_verdict_outlives_the_gateway_that_it_was_made_by() {
    for broken in [Deaf(A), NoDefaultRoute(A), WrongSource(A), BlackHole(A)] {
        let mut world = World::whole(&[A, B, C]);
        world.broken.insert(broken);
        world.runs(15_000);
        let evidence = world.watch.condemned(A).cloned();
        assert_eq!((world.current, evidence.is_some()), (B, true), "{broken:?}");
        world.lists(&[A, C]);
        assert_eq!(world.current, C, "{broken:?}: the head of the list does not work");
        assert_eq!(world.watch.condemned(A), evidence.as_ref(), "{broken:?}: one vote, since then");
        for _ in 0..100 {
            world.runs(100);
            assert!(world.watch.is_condemned(A) && world.current == C, "{broken:?}");
        }
        world.broken.clear();
        world.runs(60_000);
        assert_eq!((world.condemned(), world.current), (vec![], A), "{broken:?}");
    }
}

#[test]
fn the_only_gateway_that_is_left_stays_condemned_until_it_works() {
    for broken in [Deaf(A), NoDefaultRoute(A), BlackHole(A)] {
        let mut world = World::whole(&[A, B]);
        world.broken.insert(broken);
        world.runs(15_000);
        let evidence = world.watch.condemned(A).cloned();
        assert_eq!((world.current, evidence.is_some()), (B, true), "{broken:?}");
        world.lists(&[A]);
        for _ in 0..600 {
            world.runs(100);
            assert_eq!((world.current, world.watch.condemned(A)), (A, evidence.as_ref()), "{broken:?}");
            assert!(world.watch.is_condemned(A), "{broken:?}: a vote");
            assert_eq!(
                world.watch.none_works(&[A]),
                broken != BlackHole(A),
                "{broken:?}: it is better than nothing"
            );
        }
        world.broken.clear();
        world.runs(15_000);
        assert_eq!((world.condemned(), world.watch.none_works(&[A])), (vec![], false), "{broken:?}");
    }
    // With nobody left to say with which address it leaves, none is held against it.
    let mut world = World::whole(&[A, B]);
    world.broken.insert(WrongSource(A));
    world.runs(15_000);
    assert!(world.watch.is_condemned(A));
    world.lists(&[A]);
    assert!(!world.watch.is_condemned(A) && !world.watch.none_works(&[A]));
}

#[test]
fn the_only_gateway_there_is_is_found_dead_and_never_condemned_for_what_fails_beyond_it() {
    let mut world = World::whole(&[A]);
    world.broken.insert(Dead(A));
    world.runs(1_000);
    assert_eq!(world.watch.works(A, Level::Reachability), Some(false));
    assert!(world.watch.none_works(&[A]) && world.watch.all_silent() && !world.watch.is_condemned(A));
    world.broken.clear();
    world.runs(1_000);
    assert!(!world.watch.none_works(&[A]));
    for broken in [Deaf(A), Internet, BlackHole(A)] {
        world.broken = BTreeSet::from([broken]);
        world.runs(30_000);
        let said = [Level::Forwarding, Level::FullSize].map(|level| world.watch.works(A, level));
        assert!(said.contains(&Some(false)), "{broken:?}: told, {said:?}");
        assert!(!world.watch.is_condemned(A) && !world.watch.none_works(&[A]), "{broken:?}");
        world.broken.clear();
        world.runs(30_000);
    }
}

fn any_broken() -> impl Strategy<Value = Broken> {
    let gateway = || prop_oneof![Just(A), Just(B), Just(C)];
    prop_oneof![
        gateway().prop_map(Dead),
        gateway().prop_map(Deaf),
        gateway().prop_map(NoDefaultRoute),
        gateway().prop_map(WrongSource),
        gateway().prop_map(PortShut),
        gateway().prop_map(BlackHole),
        (0..3_usize).prop_map(|index| Target(TARGETS[index])),
        Just(Internet),
        Just(Node),
    ]
}

/// A few in every run of the tests, since each is minutes of a node's life; as many as are asked for in the suite `health-watch`.
fn lives() -> ProptestConfig {
    let asked = ProptestConfig::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { asked.cases } else { 12 };
    ProptestConfig { cases, ..asked }
}

proptest! {
    #![proptest_config(lives())]

    /// Whatever breaks and heals, in whatever order: a whole gateway that another one can vouch for is not condemned, and a node ends on the
    /// first of these or on a whole one before it; that none works is not said while there is one.
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
        let answers_peers = |gateway: char| {
            [Dead(gateway), Deaf(gateway), PortShut(gateway)].iter().all(|broken| !world.broken.contains(broken))
        };
        let is_vouched_for = |gateway: &&char| [A, B, C].iter().any(|other| other != *gateway && answers_peers(*other));
        for gateway in whole.iter().filter(is_vouched_for) {
            prop_assert!(world.watch.condemned(*gateway).is_none(), "{:?}: {:?}", world.broken, world.condemned());
        }
        if let Some(first) = whole.iter().find(is_vouched_for) {
            prop_assert!(whole.contains(&world.current), "{:?}: on {}", world.broken, world.current);
            prop_assert!(world.current <= *first, "the order of the list, {:?}: on {}", world.broken, world.current);
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
