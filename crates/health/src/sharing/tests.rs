use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::detector::{Outcome, Standing};
use crate::{Config, Detector, Tick};

const ANSWERING: Standing = Standing { verdict: Verdict::Up, signal: Signal::Answering };
const TRIAL: Standing = Standing { verdict: Verdict::Trial, signal: Signal::Answering };
const WAVERING: Standing = Standing { verdict: Verdict::Up, signal: Signal::Wavering };
const RISING: Standing = Standing { verdict: Verdict::Down, signal: Signal::Answering };
const DEAD: Standing = Standing { verdict: Verdict::Down, signal: Signal::Silent };
const LOST_ONE: Standing = Standing { verdict: Verdict::Down, signal: Signal::Wavering };
const WRONG_SOURCE: Standing = Standing { verdict: Verdict::Down, signal: Signal::WrongSource };
const UNKNOWN: Standing = Standing { verdict: Verdict::Unknown, signal: Signal::Wavering };

/// Gateways 1, 2, ... with these standings.
fn shared(standings: &[Standing], in_use: &[u8]) -> Vec<u8> {
    let listed: Vec<_> =
        (1..).zip(standings).map(|(gateway, standing)| Candidate { gateway, standing: *standing }).collect();
    share(&listed, &in_use.iter().copied().collect()).into_iter().collect()
}

#[test]
fn a_dead_gateway_leaves_and_comes_back_when_its_hold_down_is_over() {
    assert_eq!(shared(&[ANSWERING, WAVERING, ANSWERING], &[1, 2, 3]), [1, 2, 3], "a miss is no death");
    assert_eq!(shared(&[ANSWERING, DEAD, ANSWERING], &[1, 2, 3]), [1, 3]);
    assert_eq!(shared(&[ANSWERING, RISING, ANSWERING], &[1, 3]), [1, 3]);
    assert_eq!(shared(&[ANSWERING, TRIAL, ANSWERING], &[1, 3]), [1, 3], "on trial");
    assert_eq!(shared(&[ANSWERING, WAVERING, ANSWERING], &[1, 3]), [1, 3], "not while it misses");
    assert_eq!(shared(&[ANSWERING, ANSWERING, ANSWERING], &[1, 3]), [1, 2, 3]);
}

#[test]
fn when_all_in_use_are_dead_whoever_answers_takes_over_and_else_they_stay() {
    assert_eq!(shared(&[DEAD, DEAD, TRIAL], &[1, 2]), [3]);
    assert_eq!(shared(&[RISING, DEAD, TRIAL, TRIAL], &[1, 2]), [3, 4], "the best of those that answer");
    assert_eq!(shared(&[RISING, DEAD, DEAD], &[1, 2]), [1], "one answer is better than none");
    assert_eq!(shared(&[LOST_ONE, DEAD, RISING], &[1, 2]), [1], "a miss is no silence");
    assert_eq!(shared(&[RISING, DEAD, DEAD], &[2]), [1], "while those in use are silent");
    assert_eq!(shared(&[DEAD, DEAD, DEAD], &[1, 2]), [1, 2], "KeepLast");
    assert_eq!(shared(&[DEAD, DEAD, UNKNOWN], &[1, 2]), [1, 2], "nothing is known of the third");
}

#[test]
fn of_those_that_are_down_the_better_ones_share_and_an_address_that_is_wrong_is_worse_than_loss() {
    let lossy = RISING;
    assert_eq!(shared(&[WRONG_SOURCE, lossy], &[1]), [2]);
    assert_eq!(shared(&[WRONG_SOURCE, lossy], &[2]), [2]);
    assert_eq!(shared(&[WRONG_SOURCE, lossy], &[1, 2]), [2], "and nothing leaves with the wrong one");
    assert_eq!(shared(&[WRONG_SOURCE, DEAD], &[1, 2]), [1], "better than nothing");
    assert_eq!(shared(&[WRONG_SOURCE, LOST_ONE], &[1]), [1], "it may be gone");
    assert_eq!(shared(&[WRONG_SOURCE, WRONG_SOURCE], &[1, 2]), [1, 2]);
    assert_eq!(shared(&[WRONG_SOURCE, lossy], &[]), [2]);
    assert_eq!(shared(&[WRONG_SOURCE, lossy, TRIAL], &[1, 2]), [3]);
}

#[test]
fn at_the_start_all_are_used_that_may_live() {
    assert_eq!(shared(&[UNKNOWN, UNKNOWN, DEAD], &[]), [1, 2]);
    assert_eq!(shared(&[DEAD, RISING], &[]), [2]);
    assert_eq!(shared(&[DEAD, DEAD], &[]), [1, 2]);
    assert_eq!(shared(&[UNKNOWN, TRIAL], &[9]), [1, 2], "those in use have left the list");
    assert_eq!(shared(&[], &[1]), [] as [u8; 0]);
}

#[test]
fn an_agent_that_restarts_does_not_take_back_what_was_dead() {
    assert_eq!(shared(&[UNKNOWN, UNKNOWN], &[2]), [2]);
    assert_eq!(shared(&[TRIAL, TRIAL], &[2]), [2], "first answers");
}

proptest! {
    /// Some lives of three gateways, probed every 100 ms.
    #[test]
    fn nobody_shares_who_is_dead_while_another_works_and_nobody_leaves_who_lives(
        lives in proptest::collection::vec(proptest::array::uniform3(any::<bool>()), 1..400),
    ) {
        let mut detectors: BTreeMap<u8, Detector> =
            (0..3).map(|gateway| (gateway, Detector::new(Config::default(), Tick::default()))).collect();
        let mut in_use = BTreeSet::new();
        for (step, answers) in (1_u64..).zip(lives) {
            let now = Tick::from_millis(step * 100);
            for (detector, answers) in detectors.values_mut().zip(answers) {
                detector.on_probe(now, if answers { Outcome::Answered } else { Outcome::Missed });
            }
            let listed: Vec<_> = detectors
                .iter()
                .map(|(gateway, detector)| Candidate { gateway: *gateway, standing: detector.standing(now) })
                .collect();
            let next = share(&listed, &in_use);
            prop_assert!(!next.is_empty());
            prop_assert_eq!(&share(&listed, &next), &next, "a choice stands until something happens");
            let is_down = |gateway: &u8| detectors[gateway].standing(now).verdict == Verdict::Down;
            let answers = |gateway: &u8| detectors[gateway].standing(now).signal == Signal::Answering;
            if detectors.keys().any(|gateway| !is_down(gateway) && answers(gateway)) {
                prop_assert!(!next.iter().any(is_down), "{:?} of {:?}", next, listed);
            }
            for left in in_use.difference(&next) {
                prop_assert!(is_down(left), "{} was left alive", left);
            }
            in_use = next;
        }
    }
}
