use std::num::NonZeroU8;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use Outcome::{Answered, Missed};

/// fall 3, rise 2, hold-down 10 s; a probe every 100 ms from 0.
fn fed(outcomes: &[Outcome]) -> (Detector, Tick, Vec<Transition>) {
    let mut detector = Detector::new(Config::default(), Tick::default());
    let mut now = Tick::default();
    let mut transitions = Vec::new();
    for outcome in outcomes {
        now = now.after(Duration::from_millis(100));
        transitions.extend(detector.on_probe(now, *outcome));
    }
    (detector, now, transitions)
}

fn verdict(outcomes: &[Outcome], later: Duration) -> Verdict {
    let (detector, now, _) = fed(outcomes);
    detector.standing(now.after(later)).verdict
}

const AT_ONCE: Duration = Duration::ZERO;
const HELD: Duration = Duration::from_secs(10);

#[test]
fn every_arrow_of_the_diagram() {
    let fallen = [Answered, Missed, Missed, Missed];
    let risen = [&fallen[..], &[Answered, Answered]].concat();
    for (outcomes, later, expected) in [
        // Unknown
        (vec![], AT_ONCE, Verdict::Unknown),
        (vec![], HELD, Verdict::Unknown),
        (vec![Missed, Missed], AT_ONCE, Verdict::Unknown),
        (vec![Missed, Missed, Missed], AT_ONCE, Verdict::Down),
        (vec![Answered], AT_ONCE, Verdict::Trial),
        (vec![Missed, Missed, Answered], AT_ONCE, Verdict::Trial),
        // Trial
        (vec![Answered], HELD, Verdict::Up),
        (vec![Answered], Duration::from_millis(9_999), Verdict::Trial),
        (vec![Answered, Missed, Missed], HELD, Verdict::Up),
        (fallen.to_vec(), AT_ONCE, Verdict::Down),
        (vec![Answered, Missed, Missed, Answered, Missed, Missed], AT_ONCE, Verdict::Trial),
        // Down
        (fallen.to_vec(), Duration::from_secs(3600), Verdict::Down),
        ([&fallen[..], &[Answered]].concat(), AT_ONCE, Verdict::Down),
        ([&fallen[..], &[Answered, Missed, Answered]].concat(), AT_ONCE, Verdict::Down),
        (risen.clone(), AT_ONCE, Verdict::Trial),
        (risen, HELD, Verdict::Up),
    ] {
        assert_eq!(verdict(&outcomes, later), expected, "{outcomes:?} and {later:?}");
    }
}

#[test]
fn a_run_of_misses_spans_all_of_them_in_whatever_order_they_end() {
    let mut detector = Detector::new(Config::default(), Tick::default());
    let at = Tick::from_millis;
    detector.on_sent_probe(at(100), at(101), Answered);
    // The network refused the second one at once; the first and the third waited for their deadlines.
    for (sent, ended) in [(450, 451), (200, 900), (400, 1_100)] {
        detector.on_sent_probe(at(sent), at(ended), Missed);
    }
    assert!(detector.is_down());
    assert_eq!(detector.missing(), Some((at(200), at(450))));
}

#[test]
fn up_falls_like_trial() {
    let (mut detector, now, _) = fed(&[Answered]);
    let mut now = now.after(HELD);
    assert_eq!(detector.standing(now).verdict, Verdict::Up);
    for _ in 0..3 {
        now = now.after(Duration::from_millis(100));
        detector.on_probe(now, Missed);
    }
    assert_eq!(detector.standing(now), Standing { verdict: Verdict::Down, signal: Signal::Silent });
}

#[test]
fn the_signal_follows_the_last_probes_whatever_the_verdict() {
    for (outcomes, expected) in [
        (vec![], Signal::Wavering),
        (vec![Missed], Signal::Wavering),
        (vec![Answered], Signal::Answering),
        (vec![Answered, Missed, Missed], Signal::Wavering),
        (vec![Answered, Missed, Missed, Missed], Signal::Silent),
        (vec![Missed, Missed, Missed, Answered], Signal::Answering),
        (vec![Missed, Missed, Missed, Answered, Missed], Signal::Wavering),
        (vec![Missed, Missed, Missed, Answered, Missed, Missed, Missed], Signal::Silent),
    ] {
        let (detector, now, _) = fed(&outcomes);
        assert_eq!(detector.standing(now).signal, expected, "{outcomes:?}");
    }
}

#[test]
fn transitions_carry_their_evidence() {
    let (detector, _, transitions) =
        fed(&[Answered, Missed, Answered, Missed, Missed, Missed, Missed, Answered, Answered]);
    assert_eq!(
        transitions,
        [
            Transition::Met,
            Transition::Fell { misses: 3, since: Tick::from_millis(400) },
            Transition::Rose { until: Tick::from_millis(10_900) },
        ]
    );
    assert_eq!(detector.changed(), Tick::from_millis(900));
    assert_eq!(detector.next_deadline(Tick::from_millis(900)), Some(Tick::from_millis(10_900)));
    assert_eq!(detector.next_deadline(Tick::from_millis(10_900)), None);
}

/// Falls, rises, and stays up for `up` after its hold-down; returns that.
fn cycle(detector: &mut Detector, now: &mut Tick, up: Duration) -> Duration {
    let mut held = Duration::ZERO;
    for outcome in [Missed, Missed, Missed, Answered, Answered] {
        *now = now.after(Duration::from_millis(100));
        if let Some(Transition::Rose { until }) = detector.on_probe(*now, outcome) {
            held = until.since(*now);
        }
    }
    *now = now.after(held).after(up);
    held
}

#[test]
fn hold_down_doubles_while_it_flaps_up_to_its_limit_and_begins_anew_after_calm() {
    let (mut detector, mut now, _) = fed(&[Answered]);
    let second = Duration::from_secs(1);
    let held: Vec<u64> = (0..8).map(|_| cycle(&mut detector, &mut now, second).as_secs()).collect();
    assert_eq!(held, [10, 20, 40, 80, 160, 300, 300, 300]);
    // Alive for less than twice the hold-down is not calm, more is.
    now = now.after(Duration::from_secs(290));
    assert_eq!(cycle(&mut detector, &mut now, second).as_secs(), 300);
    now = now.after(Duration::from_secs(300));
    assert_eq!(cycle(&mut detector, &mut now, second).as_secs(), 10);
}

#[test]
fn who_falls_on_trial_is_held_down_again_and_no_longer() {
    let (mut detector, mut now, _) = fed(&[Answered]);
    cycle(&mut detector, &mut now, Duration::from_secs(1));
    for _ in 0..5 {
        for outcome in [Missed, Missed, Missed, Answered, Answered] {
            now = now.after(Duration::from_millis(100));
            detector.on_probe(now, outcome);
        }
        assert_eq!(detector.next_deadline(now), Some(now.after(2 * HELD)));
    }
}

#[test]
fn one_fall_a_minute_is_no_flapping() {
    let (mut detector, mut now, _) = fed(&[Answered]);
    for _ in 0..5 {
        assert_eq!(cycle(&mut detector, &mut now, Duration::from_secs(60)), HELD);
    }
}

#[test]
fn time_that_runs_backwards_makes_nothing_happen_early() {
    let mut detector = Detector::new(Config::default(), Tick::from_millis(50_000));
    detector.on_probe(Tick::from_millis(50_000), Answered);
    assert_eq!(detector.standing(Tick::from_millis(1_000)).verdict, Verdict::Trial);
}

fn config() -> impl Strategy<Value = Config> {
    (1u8..6, 1u8..5).prop_map(|(fall, rise)| Config {
        fall: NonZeroU8::new(fall).unwrap(),
        rise: NonZeroU8::new(rise).unwrap(),
        ..Config::default()
    })
}

proptest! {
    /// Down is entered by exactly `fall` misses in a row and left by exactly `rise` answers in a row.
    #[test]
    fn down_is_entered_and_left_as_configured(
        config in config(),
        probes in proptest::collection::vec((any::<bool>(), 1u64..5_000), 1..400),
    ) {
        let mut detector = Detector::new(config.clone(), Tick::default());
        let mut now = Tick::default();
        let (mut missed, mut answered) = (0u32, 0u32);
        let mut down = false;
        for (answer, wait) in probes {
            now = now.after(Duration::from_millis(wait));
            if answer { answered += 1; missed = 0 } else { missed += 1; answered = 0 }
            detector.on_probe(now, if answer { Answered } else { Missed });
            down = if down { answered < u32::from(config.rise.get()) } else { missed >= u32::from(config.fall.get()) };
            let standing = detector.standing(now);
            prop_assert_eq!(standing.verdict == Verdict::Down, down);
            prop_assert_eq!(standing.signal == Signal::Answering, missed == 0);
            prop_assert_eq!(standing.signal == Signal::Silent, missed >= u32::from(config.fall.get()));
            if let Some(deadline) = detector.next_deadline(now) {
                prop_assert!(deadline.since(now) <= config.longest_hold_down);
                prop_assert_eq!(standing.verdict, Verdict::Trial);
                prop_assert_eq!(detector.standing(deadline).verdict, Verdict::Up);
            } else {
                prop_assert_ne!(standing.verdict, Verdict::Trial);
            }
        }
    }
}
