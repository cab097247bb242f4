//! Two controllers, of which the leader is stopped, or told to end, at every call.

use std::time::Duration;

use crate::gate::Moment;
use crate::run::{Course, Life, prepared, run};
use crate::scenarios::{SCENARIOS, is_whole};
use crate::trial::{Trial, is_short, none_differs, sampled, try_all};

/// What must hold of a run in which a leader stood still or was told to end.
fn of_two(trial: &Trial, case: (usize, Moment)) -> usize {
    let found =
        run(trial.scenario, &trial.prepared, Course { plan: &[case], two: true, ..Course::default() });
    let (call, moment) = case;
    let mut differences = trial.differences(&case, &found);
    // What was on its way to Kubernetes or a gateway when it was stopped arrives late, and is refused or says what is so. No other
    // call does, and none to the cloud.
    let allowed = usize::from(moment == Moment::StopBefore);
    if found.stale.len() > allowed || found.stale.iter().any(|call| call.contains(" /v2/")) {
        println!("{} {case:?}: sent under another's lease: {:?}", trial.scenario.name, found.stale);
        differences = 1;
    }
    if moment == Moment::Terminate
        && found.calls.len() > call
        && found.handed_over.is_none_or(|took| took >= Duration::from_secs(2))
    {
        println!("{} {case:?}: handed over after {:?}", trial.scenario.name, found.handed_over);
        differences = 1;
    }
    differences
}

#[test]
fn a_leader_that_is_stopped_anywhere_and_wakes_up_later_does_no_harm() {
    none_differs(is_short, |trial| {
        let moments = [Moment::StopBefore, Moment::StopAfter, Moment::Terminate];
        let cases = (0..trial.calls()).flat_map(|call| moments.map(|moment| (call, moment)));
        let cases: Vec<(usize, Moment)> = sampled(cases, 29);
        try_all(&format!("{}, two controllers", trial.name()), &cases, |case| of_two(trial, *case))
    });
}

#[test]
fn a_hand_over_changes_nothing_and_takes_less_than_two_seconds() {
    let scenario = SCENARIOS.iter().find(|scenario| scenario.before == 2).unwrap();
    let world = prepared(scenario);
    let mut life = Life::new(world.clone(), 2);
    life.settle();
    world.begin(&[], None);
    life.terminate_leader();
    life.lead(|world| is_whole(world, 2)).unwrap();
    assert_eq!(world.state().calls, Vec::<String>::new());
    assert!(life.handed_over.unwrap() < Duration::from_secs(2), "{:?}", life.handed_over);
}
