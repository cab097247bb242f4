//! Every point of every scenario, and every pair of points.

use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::gate::Moment;
use crate::trial::{CRASHES, is_short, none_differs, sampled, singles, try_all};

#[test]
fn killed_at_every_call_the_end_is_the_same() {
    none_differs(
        |_| true,
        |trial| {
            try_all(
                trial.name(),
                &sampled(singles(trial.calls()), if is_short(trial.scenario) { 13 } else { 61 }),
                |(call, crash)| {
                    let found = trial.run(&[(*call, *crash)]);
                    assert!(
                        found.calls.len() > *call,
                        "{}: call {call} was never made: {:#?}",
                        trial.name(),
                        found.calls
                    );
                    trial.differences(&(call, crash), &found)
                },
            )
        },
    );
}

#[test]
fn killed_twice_the_end_is_the_same() {
    none_differs(
        |scenario| scenario.pairs && is_short(scenario),
        |trial| {
            // How many calls there are after the first crash is not known before.
            let firsts = sampled(singles(trial.calls()), 37);
            let lengths = Mutex::new(BTreeMap::new());
            let first = try_all(&format!("{}, the first of two", trial.name()), &firsts, |first| {
                let found = trial.run(&[*first]);
                lengths.lock().unwrap().insert(*first, found.calls.len());
                trial.differences(first, &found)
            });
            let lengths = lengths.into_inner().unwrap();
            let pairs = lengths.iter().flat_map(|(first, calls)| {
                let seconds = first.0 + 1..*calls;
                seconds.flat_map(|call| CRASHES.map(|crash| [*first, (call, crash)])).collect::<Vec<_>>()
            });
            let pairs: Vec<[(usize, Moment); 2]> = sampled(pairs, 31);
            let second = try_all(&format!("{}, twice", trial.name()), &pairs, |pair| {
                trial.differences(pair, &trial.run(pair))
            });
            first + second
        },
    );
}
