//! With which address gateways leave, in every situation in which peers are silent: who must be condemned, and who must not.

use super::*;

/// All that is broken at once, from whole gateways on: who is condemned, and who is used, after ten seconds.
fn after_ten_seconds(gateways: &[char], broken: &[Broken], seed: u64) -> (Vec<char>, char) {
    let mut world = World::whole_with(gateways, seed, &Config::default());
    world.broken.extend(broken);
    for _ in 0..100 {
        world.runs(100);
        assert!(!world.watch.none_works(gateways), "{broken:?}: {:?}", world.condemned());
    }
    let condemned = world.condemned();
    assert!(
        condemned.iter().all(|(_, fault)| *fault == Fault::UnexpectedSource),
        "{broken:?}: {condemned:?}"
    );
    (condemned.into_iter().map(|(gateway, _)| gateway).collect(), world.current)
}

#[test]
fn in_a_pair_the_silence_of_a_peer_counts_where_that_peer_is_answered_itself() {
    for (broken, condemned, used) in [
        (vec![WrongSource(A)], vec![A], B),
        (vec![WrongSource(B)], vec![B], A),
        // The same to see as a wrong address of A: the controller looks at the firewall before anything is made anew.
        (vec![PortShut(B)], vec![A], B),
        (vec![PortShut(A)], vec![B], A),
        // What fails through everybody.
        (vec![PortShut(A), PortShut(B)], vec![], A),
        (vec![Apart(A, B)], vec![], A),
        (vec![WrongSource(A), WrongSource(B)], vec![], A),
        (vec![TakenOver(A)], vec![], A),
        // Dead men tell no tales.
        (vec![Dead(B), WrongSource(A)], vec![], A),
        (vec![Dead(B), PortShut(A)], vec![], A),
        (vec![Dead(A), WrongSource(B)], vec![], B),
        (vec![Dead(A), PortShut(B)], vec![], B),
        // Nobody can tell of A.
        (vec![WrongSource(A), PortShut(A)], vec![], A),
    ] {
        for seed in 1..=5 {
            let found = after_ten_seconds(&[A, B], &broken, seed);
            assert_eq!(found, (condemned.clone(), used), "{broken:?}, seed {seed}");
        }
    }
    assert_eq!(
        after_ten_seconds(&[A], &[WrongSource(A)], 1),
        (vec![], A),
        "without a partner nobody can tell"
    );
}

#[test]
fn with_a_third_gateway_a_peer_that_is_silent_to_all_who_ask_it_is_no_witness() {
    for (broken, condemned, used) in [
        (vec![WrongSource(A)], vec![A], B),
        (vec![WrongSource(A), WrongSource(B)], vec![A, B], C),
        (vec![WrongSource(A), Dead(B)], vec![A], C),
        (vec![WrongSource(A), PortShut(B)], vec![A], B),
        (vec![WrongSource(A), Dead(B), Dead(C)], vec![], A),
        (vec![PortShut(B)], vec![], A),
        (vec![PortShut(B), PortShut(C)], vec![], A),
        (vec![PortShut(A), PortShut(B), PortShut(C)], vec![], A),
        (vec![Apart(A, B)], vec![], A),
        (vec![Apart(A, B), Apart(A, C)], vec![], A),
        (vec![Apart(A, B), Dead(C)], vec![], A),
        // As in a pair.
        (vec![PortShut(B), Dead(C)], vec![A], B),
    ] {
        for seed in 1..=5 {
            let found = after_ten_seconds(&[A, B, C], &broken, seed);
            assert_eq!(found, (condemned.clone(), used), "{broken:?}, seed {seed}");
        }
    }
}

/// The rule that lets probes in is taken out of the firewall of both, at one gateway a little later than at the other.
#[test]
fn when_the_probe_ports_of_both_are_shut_one_after_the_other_one_of_them_works_all_the_time() {
    for seed in 1..=3 {
        for later in [0, 50, 100, 200, 400, 800, 1_500, 3_000, 10_000] {
            let mut world = World::whole_with(&[A, B], seed, &Config::default());
            world.broken.insert(PortShut(B));
            world.runs(later);
            world.broken.insert(PortShut(A));
            for _ in 0..300 {
                world.runs(100);
                assert!(!world.watch.none_works(&[A, B]), "{later} ms, seed {seed}: {:?}", world.condemned());
            }
            let condemned = world.condemned();
            assert!(condemned.len() <= usize::from(later > 400), "{later} ms, seed {seed}: {condemned:?}");
            // Let in again.
            world.broken.clear();
            world.runs(60_000);
            assert_eq!((world.condemned(), world.current), (vec![], A), "{later} ms, seed {seed}");
        }
    }
}

#[test]
fn a_wrong_address_that_was_seen_is_remembered_when_its_witness_dies_and_not_longer_than_it_is_asked_about() {
    let mut world = World::whole(&[A, B]);
    world.broken.insert(WrongSource(A));
    world.runs(5_000);
    world.broken.insert(Dead(B));
    world.runs(2_000);
    assert_eq!(
        (world.condemned(), world.current),
        (vec![(A, Fault::UnexpectedSource)], A),
        "better than nothing"
    );
    assert!(world.watch.none_works(&[A, B]));
    // Nobody is asked any more: A is on trial, and then as good as any.
    let now = Tick::from_millis(world.now);
    let mut unasked = wanted(&[A, B], &Config::default());
    unasked.get_mut(&A).unwrap().asked.remove(&Level::Source);
    world.watch.retain(&unasked, now);
    assert_eq!(world.condemned(), []);
    assert_eq!(world.watch.works(A, Level::Source), None);
    assert!(!world.watch.none_works(&[A, B]));
    assert_eq!(world.standing(A).verdict, Verdict::Trial);
    assert!(world.watch.has_answered(A, Level::Source));
    // Asked again, it is found out again.
    world.watch.retain(&wanted(&[A, B], &Config::default()), now);
    world.broken.remove(&Dead(B));
    world.runs(20_000);
    assert_eq!((world.condemned(), world.current), (vec![(A, Fault::UnexpectedSource)], B));
}

#[test]
fn a_new_gateway_that_asks_the_old_one_and_is_not_asked_yet_accuses_nobody() {
    // B is dead, and C takes its place: A admits it already, and not the other way round.
    let mut world = World::whole(&[A, B, C]);
    world.not_admitted.extend([(A, C), (B, C), (C, B)]);
    world.broken.insert(Dead(B));
    for _ in 0..300 {
        world.runs(100);
        assert_eq!(world.condemned(), []);
    }
    assert_eq!(world.current, A);
}

#[test]
fn one_that_came_back_while_both_probe_ports_were_shut_is_not_returned_to_and_works_when_it_is_needed() {
    for seed in 1..=5 {
        let mut world = World::whole_with(&[A, B], seed, &Config::default());
        world.broken.extend([PortShut(A), PortShut(B), Dead(A)]);
        world.runs(5_000);
        world.broken.remove(&Dead(A));
        world.runs(60_000);
        assert_eq!((world.condemned(), world.current), (vec![], B), "it might be another machine");
        world.broken.insert(Dead(B));
        for _ in 0..50 {
            world.runs(100);
            assert!(!world.watch.none_works(&[A, B]));
        }
        assert_eq!(world.current, A, "seed {seed}");
    }
}
