use std::collections::BTreeSet;
use std::time::Duration;

use super::*;
use crate::config::Config;
use crate::selection::{Why, select};

mod loss;
mod properties;
mod world;

use world::*;

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
fn a_node_returns_within_thirty_seconds_of_healing_and_by_one_move() {
    for broken in [Dead(A), Deaf(A), NoDefaultRoute(A), WrongSource(A), BlackHole(A)] {
        let mut world = World::whole(&[A, B]);
        world.broken.insert(broken);
        world.runs(20_000);
        world.broken.clear();
        world.runs(30_000);
        assert_eq!((world.current, world.switches.len()), (A, 2), "{broken:?}");
        assert_eq!(world.condemned(), []);
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
    world.watch.retain(&BTreeMap::from([(A, other.clone()), (B, other)]), now);
    assert!(world.watch.condemned(A).is_some(), "nothing is forgotten");
    world.watch.retain(&BTreeMap::from([(A, Config::default())]), now);
    assert!(world.watch.condemned(A).is_none(), "without the other there is no difference");
    assert_eq!(world.watch.works(B, Level::Reachability), None);
}
