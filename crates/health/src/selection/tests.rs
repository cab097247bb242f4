use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::{Config, Detector, Outcome, Tick};

const UP: Standing = Standing { verdict: Verdict::Up, signal: Signal::Answering };
const UP_WAVERING: Standing = Standing { verdict: Verdict::Up, signal: Signal::Wavering };
const TRIAL: Standing = Standing { verdict: Verdict::Trial, signal: Signal::Answering };
const DOWN: Standing = Standing { verdict: Verdict::Down, signal: Signal::Silent };
const DOWN_ANSWERING: Standing = Standing { verdict: Verdict::Down, signal: Signal::Answering };
const DOWN_WAVERING: Standing = Standing { verdict: Verdict::Down, signal: Signal::Wavering };
const WRONG_SOURCE: Standing = Standing { verdict: Verdict::Down, signal: Signal::WrongSource };
const UNKNOWN: Standing = Standing { verdict: Verdict::Unknown, signal: Signal::Wavering };

fn choice(standings: &[Standing], current: Option<usize>) -> (usize, Why) {
    let ordered: Vec<_> = standings
        .iter()
        .enumerate()
        .map(|(gateway, standing)| Candidate { gateway, standing: *standing })
        .collect();
    let choice = select(&ordered, current).unwrap();
    (choice.gateway, choice.why)
}

#[test]
fn an_empty_list_has_no_gateway() {
    assert_eq!(select::<u8>(&[], Some(1)), None);
}

#[test]
fn each_rule() {
    for (standings, current, expected) in [
        // 1: stays while not down
        (vec![UP, UP], Some(0), (0, Why::Stays)),
        (vec![UP_WAVERING, UP], Some(0), (0, Why::Stays)),
        (vec![UNKNOWN, UP], Some(0), (0, Why::Stays)),
        (vec![DOWN, UP], Some(1), (1, Why::Stays)),
        (vec![TRIAL, UP], Some(1), (1, Why::Stays)),
        (vec![UP_WAVERING, TRIAL], Some(1), (1, Why::Stays)),
        (vec![UNKNOWN, UNKNOWN], Some(1), (1, Why::Stays)),
        // ... and returns to the order of the list
        (vec![UP, UP], Some(1), (0, Why::EarlierInList)),
        (vec![UP, UNKNOWN], Some(1), (0, Why::EarlierInList)),
        (vec![TRIAL, UP, UP], Some(2), (1, Why::EarlierInList)),
        // 2: leaves one that is down
        (vec![DOWN, UP], Some(0), (1, Why::CurrentDown)),
        (vec![DOWN, TRIAL], Some(0), (1, Why::CurrentDown)),
        (vec![DOWN, TRIAL, UP], Some(0), (2, Why::CurrentDown)),
        (vec![DOWN, UP, UP], Some(0), (1, Why::CurrentDown)),
        (vec![UP, DOWN], Some(1), (0, Why::CurrentDown)),
        (vec![DOWN_ANSWERING, UP], Some(0), (1, Why::CurrentDown)),
        (vec![DOWN, DOWN_ANSWERING], Some(0), (1, Why::CurrentDown)),
        (vec![DOWN_WAVERING, DOWN_ANSWERING], Some(0), (0, Why::NoneAnswers)),
        (vec![DOWN_ANSWERING, DOWN_ANSWERING], Some(1), (1, Why::NoneAnswers)),
        // ... and, of those that are down, an address that is wrong for anything but that or silence
        (vec![WRONG_SOURCE, DOWN_ANSWERING], Some(0), (1, Why::CurrentDown)),
        (vec![DOWN_ANSWERING, WRONG_SOURCE], Some(0), (0, Why::NoneAnswers)),
        (vec![WRONG_SOURCE, DOWN_WAVERING], Some(0), (0, Why::NoneAnswers)),
        (vec![DOWN_WAVERING, WRONG_SOURCE], Some(0), (0, Why::NoneAnswers)),
        (vec![WRONG_SOURCE, DOWN], Some(0), (0, Why::NoneAnswers)),
        (vec![WRONG_SOURCE, WRONG_SOURCE], Some(1), (1, Why::NoneAnswers)),
        (vec![DOWN, WRONG_SOURCE], Some(0), (1, Why::CurrentDown)),
        (vec![DOWN, WRONG_SOURCE, DOWN_ANSWERING], Some(0), (2, Why::CurrentDown)),
        (vec![WRONG_SOURCE, TRIAL], Some(0), (1, Why::CurrentDown)),
        // 3: silence of all proves nothing against one
        (vec![DOWN, DOWN], Some(1), (1, Why::NoneAnswers)),
        (vec![DOWN, UP_WAVERING], Some(0), (0, Why::NoneAnswers)),
        (vec![DOWN, UNKNOWN], Some(0), (0, Why::NoneAnswers)),
        // 4: no current one
        (vec![UNKNOWN, UP], None, (0, Why::NoCurrent)),
        (vec![DOWN, UNKNOWN], None, (1, Why::NoCurrent)),
        (vec![DOWN, DOWN_ANSWERING], None, (1, Why::NoCurrent)),
        (vec![DOWN, DOWN], None, (0, Why::NoCurrent)),
        (vec![WRONG_SOURCE, DOWN_ANSWERING], None, (1, Why::NoCurrent)),
        (vec![TRIAL, UP], Some(9), (0, Why::NoCurrent)),
    ] {
        assert_eq!(choice(&standings, current), expected, "{standings:?} from {current:?}");
    }
}

/// A node with detectors, probed in rounds of 100 ms.
struct Node {
    now: Tick,
    detectors: BTreeMap<usize, Detector>,
    current: Option<usize>,
    switches: Vec<(usize, Why)>,
}

impl Node {
    fn new(gateways: usize) -> Self {
        let now = Tick::default();
        let detectors =
            (0..gateways).map(|gateway| (gateway, Detector::new(Config::default(), now))).collect();
        Self { now, detectors, current: None, switches: Vec::new() }
    }

    fn round(&mut self, answers: &[bool]) -> Why {
        self.now = self.now.after(Duration::from_millis(100));
        for (detector, answered) in self.detectors.values_mut().zip(answers) {
            detector.on_probe(self.now, if *answered { Outcome::Answered } else { Outcome::Missed });
        }
        let ordered: Vec<_> = self
            .detectors
            .iter()
            .map(|(gateway, detector)| Candidate { gateway: *gateway, standing: detector.standing(self.now) })
            .collect();
        let choice = select(&ordered, self.current).unwrap();
        if self.current != Some(choice.gateway) {
            self.switches.push((choice.gateway, choice.why));
        }
        self.current = Some(choice.gateway);
        choice.why
    }

    fn rounds(&mut self, count: usize, answers: &[bool]) {
        for _ in 0..count {
            self.round(answers);
        }
    }
}

#[test]
fn leaves_a_dead_gateway_at_the_third_miss_and_returns_within_thirty_seconds() {
    let mut node = Node::new(2);
    node.rounds(50, &[true, true]);
    assert_eq!(node.switches, [(0, Why::NoCurrent)]);
    node.rounds(2, &[false, true]);
    assert_eq!(node.current, Some(0));
    node.round(&[false, true]);
    assert_eq!(node.current, Some(1));
    node.rounds(300, &[false, true]);
    node.rounds(100, &[true, true]);
    assert_eq!(node.current, Some(1), "still in the hold-down");
    node.rounds(5, &[true, true]);
    assert_eq!(node.current, Some(0));
    assert_eq!(node.switches.len(), 3);
}

#[test]
fn a_node_cut_off_from_all_holds_and_goes_to_whichever_answers_first() {
    let mut node = Node::new(2);
    node.rounds(5, &[true, true]);
    node.rounds(100, &[false, false]);
    assert_eq!(node.current, Some(0));
    assert_eq!(
        node.round(&[false, true]),
        Why::CurrentDown,
        "its first answer is enough: nothing better is known"
    );
    assert_eq!(node.current, Some(1));
}

#[test]
fn an_agent_that_restarts_does_not_undo_its_failover() {
    let mut node = Node::new(2);
    node.current = Some(1);
    node.rounds(99, &[true, true]);
    assert_eq!(node.switches, []);
    node.rounds(5, &[true, true]);
    assert_eq!(node.switches, [(0, Why::EarlierInList)]);
}

#[test]
fn a_flapping_head_is_returned_to_ever_more_rarely() {
    // 15 s up, 15 s down for an hour: 120 periods.
    let mut node = Node::new(2);
    for _ in 0..120 {
        node.rounds(150, &[true, true]);
        node.rounds(150, &[false, true]);
    }
    let returns = node.switches.iter().filter(|(_, why)| *why == Why::EarlierInList).count();
    assert_eq!(returns, 1, "hold-down 10 s fits into 15 s, 20 s does not");
}

proptest! {
    #[test]
    fn never_on_a_dead_one_while_a_live_one_is_known_and_never_moved_by_fewer_misses_than_fall(
        probability in proptest::collection::vec(0.0f64..=1.0, 1..4),
        seeds in proptest::collection::vec(proptest::collection::vec(0.0f64..1.0, 4), 1..600),
        blocks in 1usize..40,
    ) {
        let gateways = probability.len();
        let mut node = Node::new(gateways);
        let mut missed = vec![0u32; gateways];
        for (step, seed) in seeds.iter().enumerate() {
            // Each gateway answers with its own probability, and sometimes is dead for a stretch.
            let answers: Vec<bool> = (0..gateways)
                .map(|g| seed[g] < probability[g] && (step / blocks + g) % 3 != 0)
                .collect();
            for (count, answer) in missed.iter_mut().zip(&answers) {
                *count = if *answer { 0 } else { *count + 1 };
            }
            let before = node.current;
            let why = node.round(&answers);
            let standing = |g: usize| node.detectors[&g].standing(node.now);
            let current = node.current.unwrap();
            if standing(current).verdict == Verdict::Down {
                let live = (0..gateways)
                    .any(|g| standing(g).verdict != Verdict::Down && standing(g).signal == Signal::Answering);
                prop_assert!(!live, "on {current}, which is down, while another works");
            }
            if let Some(before) = before.filter(|before| *before != current) {
                match why {
                    Why::CurrentDown => {
                        prop_assert_eq!(standing(before).verdict, Verdict::Down);
                        prop_assert_eq!(missed[current], 0);
                    }
                    Why::EarlierInList => {
                        prop_assert!(current < before);
                        prop_assert_eq!(standing(current).verdict, Verdict::Up);
                    }
                    other => prop_assert!(false, "moved because {other:?}"),
                }
            }
        }
    }
}
