//! What is tried of a scenario, and how it is compared.
//!
//! `make test` tries one case in so many; `CRASH_POINTS=all` tries all (`make crash-points`).

use std::fmt::Debug;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, OnceLock};
use std::thread;
use std::time::Instant;

use crate::calls::owner;
use crate::gate::Moment;
use crate::run::{Course, Ended, prepared, run};
use crate::scenarios::{SCENARIOS, Scenario};
use crate::world::World;

pub const CRASHES: [Moment; 3] = [Moment::BeforeSent, Moment::ReplyLost, Moment::AfterReply];

fn all() -> bool {
    std::env::var("CRASH_POINTS").is_ok_and(|which| which == "all")
}

/// All cases, or one in so many. A number without a factor 3 meets all three moments of a call in turn.
pub fn sampled<C>(cases: impl IntoIterator<Item = C>, one_in: usize) -> Vec<C> {
    cases.into_iter().step_by(if all() { 1 } else { one_in }).collect()
}

/// Those whose lives are short, or all.
pub fn is_short(scenario: &Scenario) -> bool {
    !scenario.long || all()
}

/// What was tried of one scenario.
pub struct Trial {
    pub scenario: &'static Scenario,
    pub prepared: World,
    pub expected: Ended,
}

/// The undisturbed runs, each led once for all tests.
static TRIALS: LazyLock<Vec<OnceLock<Trial>>> =
    LazyLock::new(|| SCENARIOS.iter().map(|_| OnceLock::new()).collect());

impl Trial {
    fn of(at: usize) -> &'static Self {
        TRIALS[at].get_or_init(|| {
            let scenario = &SCENARIOS[at];
            let prepared = prepared(scenario);
            let expected = run(scenario, &prepared, Course::default());
            Self { scenario, prepared, expected }
        })
    }

    /// Whether the undisturbed run itself is as it should be.
    fn is_sound(&self) -> bool {
        let unknown: Vec<&String> = self.expected.calls.iter().filter(|call| owner(call).is_none()).collect();
        let sound =
            self.expected.violations.is_empty() && self.expected.outcome.is_ok() && unknown.is_empty();
        if !sound {
            let Ended { outcome, violations, calls, .. } = &self.expected;
            println!(
                "{}: {violations:?}, {outcome:?}, no effect of a decision: {unknown:?} in {calls:#?}",
                self.name()
            );
        }
        sound
    }

    pub fn name(&self) -> &'static str {
        self.scenario.name
    }

    pub fn calls(&self) -> usize {
        self.expected.calls.len()
    }

    pub fn run(&self, plan: &[(usize, Moment)]) -> Ended {
        run(self.scenario, &self.prepared, Course { plan, ..Course::default() })
    }

    /// What is not as in the undisturbed run.
    pub fn differences(&self, told: &dyn Debug, found: &Ended) -> usize {
        let mut differences = found.violations.clone();
        match (&self.expected.outcome, &found.outcome) {
            (Ok(expected), Ok(found)) => {
                let expected = expected.as_object().unwrap().iter();
                let differing = expected.filter(|(key, value)| found[key.as_str()] != **value);
                differences.extend(
                    differing.map(|(key, value)| format!("{key}: {value} became {}", found[key.as_str()])),
                );
            }
            (_, Err(words)) | (Err(words), _) => differences.push(words.clone()),
        }
        if !differences.is_empty() {
            let calls =
                found.calls.iter().enumerate().map(|(at, call)| format!("{at} {call}")).collect::<Vec<_>>();
            println!(
                "{} {told:?}:\n  {}\n    {}",
                self.scenario.name,
                differences.join("\n  "),
                calls.join("\n    ")
            );
        }
        usize::from(!differences.is_empty())
    }
}

/// Cases, tried on all cores; prints the line that `make crash-points` adds up.
pub fn try_all<C: Sync + Debug>(what: &str, cases: &[C], one: impl Fn(&C) -> usize + Sync) -> usize {
    let begun = Instant::now();
    let (next, differences) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    differences.fetch_add(one(case), Ordering::Relaxed);
                }
            });
        }
    });
    let (runs, differences) = (cases.len(), differences.into_inner());
    println!("{what}: points={runs} runs={runs} differences={differences} ({:?})", begun.elapsed());
    differences
}

/// Every scenario is tried, also after one that differs; `CRASH_SCENARIO` takes those with this word in their name.
pub fn none_differs(is_tried: impl Fn(&Scenario) -> bool, of_one: impl Fn(&Trial) -> usize) {
    let word = std::env::var("CRASH_SCENARIO").unwrap_or_default();
    let wanted =
        (0..SCENARIOS.len()).filter(|at| SCENARIOS[*at].name.contains(&word) && is_tried(&SCENARIOS[*at]));
    let differences = wanted.map(|at| {
        let trial = Trial::of(at);
        if trial.is_sound() { of_one(trial) } else { 1 }
    });
    assert_eq!(differences.sum::<usize>(), 0);
}

/// Every crash at so many calls.
pub fn singles(calls: usize) -> Vec<(usize, Moment)> {
    (0..calls).flat_map(|call| CRASHES.map(|crash| (call, crash))).collect()
}
