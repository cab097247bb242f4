//! Watches whose view is old, or lacks an event.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use testkit::memory_api::{Change, Delivery, Lens};

use crate::run::{Course, run};
use crate::trial::{Trial, is_short, none_differs, sampled, singles, try_all};
use crate::world::is_watched;

/// The age of an old view. Reports, nodes and StaticRoutes are seen so late.
const OLD: Duration = Duration::from_secs(20);

fn late() -> Lens {
    Arc::new(|change: &Change| if is_watched(change) { Delivery::After(OLD) } else { Delivery::Now })
}

/// Loses the change of this number, for everybody, for ever.
fn without(number: usize) -> Lens {
    let counted = Mutex::new(BTreeMap::new());
    Arc::new(move |change: &Change| {
        if !is_watched(change) {
            return Delivery::Now;
        }
        let mut counted = counted.lock().unwrap();
        let next = counted.len();
        if *counted.entry(change.revision).or_insert(next) == number {
            Delivery::Never
        } else {
            Delivery::Now
        }
    })
}

#[test]
fn with_an_old_view_the_end_is_the_same_wherever_it_is_killed() {
    none_differs(is_short, |trial| {
        let undisturbed =
            run(trial.scenario, &trial.prepared, Course { lens: Some(late()), ..Course::default() });
        let differences = trial.differences(&"an old view", &undisturbed);
        let cases = sampled(singles(undisturbed.calls.len()), 47);
        differences
            + try_all(&format!("{}, with an old view", trial.name()), &cases, |case| {
                let found = run(
                    trial.scenario,
                    &trial.prepared,
                    Course { plan: &[*case], lens: Some(late()), ..Course::default() },
                );
                trial.differences(case, &found)
            })
    });
}

/// Every change that anybody watches, in words.
fn watched(trial: &Trial) -> Vec<String> {
    let seen = Arc::new(Mutex::new(BTreeMap::new()));
    let told = seen.clone();
    let lens: Lens = Arc::new(move |change: &Change| {
        if is_watched(change) {
            let words = format!("{} {} {}", change.verb, change.kind, change.object["metadata"]["name"]);
            told.lock().unwrap().insert(change.revision, words);
        }
        Delivery::Now
    });
    run(trial.scenario, &trial.prepared, Course { lens: Some(lens), ..Course::default() });
    let seen = seen.lock().unwrap();
    seen.values().cloned().collect()
}

#[test]
fn whichever_event_is_lost_the_end_is_the_same() {
    none_differs(is_short, |trial| {
        let events = watched(trial);
        let cases = sampled(0..events.len(), 37);
        try_all(&format!("{}, without an event", trial.name()), &cases, |lost| {
            let found = run(
                trial.scenario,
                &trial.prepared,
                Course { lens: Some(without(*lost)), ..Course::default() },
            );
            trial.differences(&(lost, &events[*lost]), &found)
        })
    });
}
