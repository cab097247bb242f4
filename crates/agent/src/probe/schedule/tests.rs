use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use egress_routing::{GatewaySlot, ProbePath};

use super::*;
use crate::objects::Probed;
use crate::probe::rate::{MOST_NODES, PEER_RATE, TARGET_RATE};
use crate::probe::{Level, askings};

/// The pauses of a prober whose probes are answered or not, in that order; the first `silent` go to somebody who is known to be.
fn pauses(answered: impl IntoIterator<Item = bool>, silent: usize, judged_after: usize) -> Vec<Next> {
    let mut rhythm = Rhythm::default();
    let pause = |(number, is_answered)| {
        rhythm.asked(number < silent);
        if is_answered {
            rhythm.answered();
        }
        rhythm.next(4, 2, number >= judged_after)
    };
    answered.into_iter().enumerate().map(pause).collect()
}

#[test]
fn a_miss_and_a_recovery_are_confirmed_at_once_and_a_failure_is_asked_at_leisure() {
    use Next::{Failing, Interval, Now};
    const NEVER: usize = usize::MAX;
    assert_eq!(pauses([true, true], 0, NEVER), [Interval, Interval]);
    assert_eq!(pauses([true, false, true], 0, NEVER), [Interval, Now, Interval]);
    assert_eq!(pauses([false; 5], 0, NEVER), [Now, Now, Now, Failing, Failing]);
    assert_eq!(pauses([false; 4], 0, 2), [Now, Now, Failing, Failing], "as soon as it is known to fail");
    let healed = [false, false, false, false, true, true, true, false];
    assert_eq!(pauses(healed, 0, NEVER), [Now, Now, Now, Failing, Now, Interval, Interval, Now]);
    // Somebody who is silent for long is no news, and whoever is silent besides is.
    assert_eq!(pauses([false, true], 1, NEVER), [Interval, Interval]);
    assert_eq!(pauses([false, false, false], 1, NEVER), [Interval, Now, Now]);
    assert_eq!(pauses([false; 5], 5, NEVER), [Interval, Interval, Interval, Failing, Failing]);
    let some_are_dead = [false, false, false, false, true, false, false, true];
    assert_eq!(pauses(some_are_dead, 7, NEVER)[3..], [Failing, Now, Interval, Interval, Interval]);
}

/// One node of a cluster of so many, which probes a pair.
struct Node {
    asked: Vec<(Asking, Schedule)>,
    nodes: usize,
    beat: Beat,
    now: Instant,
    under_way: BTreeSet<(Instant, usize, u16, SocketAddrV4, bool)>,
    /// Misses in a row, of each that asks.
    missed: Vec<u8>,
    /// Probes that each witness got.
    got: BTreeMap<SocketAddrV4, u32>,
}

fn target(last: u8) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, last), 443)
}

/// Whether a probe through that gateway to that witness is carried there, and whether it is answered.
type Ways<'a> = &'a dyn Fn(Ipv4Addr, SocketAddrV4) -> (bool, bool);

const A: Ipv4Addr = Ipv4Addr::new(10, 116, 0, 100);

impl Node {
    fn new(nodes: usize) -> Self {
        let path = |slot: u8| ProbePath {
            slot: GatewaySlot(slot),
            gateway: Ipv4Addr::new(10, 116, 0, 100 + slot),
            source: Ipv4Addr::new(10, 116, 0, 2),
            source_ports: 61_000 + 64 * u16::from(slot)..=61_063 + 64 * u16::from(slot),
        };
        let probed = |peer: u8| Probed {
            targets: [1, 2, 3].map(target).into(),
            peers: [Ipv4Addr::new(203, 0, 113, peer)].into(),
            is_ours: true,
            ..Probed::default()
        };
        let paths = [path(0), path(1)];
        let probed = [(paths[0].gateway, probed(101)), (paths[1].gateway, probed(100))].into();
        let (beat, now) = (Beat::at_random(), Instant::now());
        let through = askings(&paths, &probed).into_iter().filter(|one| one.level != Level::Reachability);
        let asked: Vec<_> = through
            .map(|asking| {
                let schedule = Schedule::new(&asking, beat.first(now, asking.interval(nodes)));
                (asking, schedule)
            })
            .collect();
        let missed = vec![0; asked.len()];
        Self { asked, nodes, beat, now, under_way: BTreeSet::new(), missed, got: BTreeMap::new() }
    }

    /// So much time passes.
    fn runs(&mut self, time: Duration, ways: Ways<'_>) {
        let end = self.now + time;
        loop {
            let wakes = self.asked.iter().enumerate().map(|(index, (_, schedule))| (schedule.wakes(), index));
            let (at, index) = wakes.min().unwrap();
            let ended = self.under_way.first().copied().filter(|(ends, ..)| *ends <= at);
            let next = ended.map_or(at, |(ends, ..)| ends);
            if next >= end {
                break;
            }
            self.now = self.now.max(next);
            if let Some(ended) = ended {
                self.under_way.remove(&ended);
                self.ends(ended);
            } else {
                self.wakes(index, ways);
            }
        }
        self.now = end;
    }

    fn ends(&mut self, (_, index, port, witness, answered): (Instant, usize, u16, SocketAddrV4, bool)) {
        let outcome = if answered { Outcome::Answered } else { Outcome::Missed(String::new()) };
        self.missed[index] = if answered { 0 } else { self.missed[index].saturating_add(1) };
        if self.asked[index].1.ended(port, witness, &outcome, self.now) {
            self.doubts(index);
        }
    }

    fn wakes(&mut self, index: usize, ways: Ways<'_>) {
        let (asking, schedule) = &mut self.asked[index];
        let pace = Pace {
            beat: self.beat,
            interval: asking.interval(self.nodes),
            is_judged: self.missed[index] >= asking.fall,
        };
        let Some(turn) = schedule.wake(asking, pace, self.now) else { return };
        let (arrives, answered) = ways(asking.gateway, turn.witness);
        *self.got.entry(turn.witness).or_default() += u32::from(arrives);
        let ends = self.now + if answered { Duration::from_millis(1) } else { asking.deadline() };
        self.under_way.insert((ends, index, turn.port, turn.witness, answered));
        if turn.is_doubted {
            self.doubts(index);
        }
    }

    fn doubts(&mut self, index: usize) {
        let doubt = (self.asked[index].0.gateway, self.asked[index].0.level);
        let now = self.now;
        let concerned = self.asked.iter_mut().filter(|(asking, _)| asking.is_concerned_by(doubt));
        concerned.for_each(|(_, schedule)| schedule.doubted(now));
    }
}

/// What the busiest witness of this kind gets a second of all nodes of a cluster: by a few of them, each for so long, after a while.
fn busiest(nodes: usize, few: u32, before: Duration, time: Duration, ways: Ways<'_>) -> (f64, f64) {
    let mut got: BTreeMap<SocketAddrV4, u32> = BTreeMap::new();
    // The same nodes in each run: how many are unlucky together is a matter of chance.
    fastrand::seed(1);
    for _ in 0..few {
        let mut node = Node::new(nodes);
        node.runs(Duration::from_secs(120), &|_, _| (true, true));
        node.runs(before, ways);
        node.got.clear();
        node.runs(time, ways);
        node.got.into_iter().for_each(|(witness, count)| *got.entry(witness).or_default() += count);
    }
    let all = f64::from(u32::try_from(nodes).unwrap()) / f64::from(few) / time.as_secs_f64();
    let most = |is_target: bool| {
        let those = got.iter().filter(|(witness, _)| (witness.port() == 443) == is_target);
        those.map(|(_, count)| f64::from(*count) * all).fold(0.0, f64::max)
    };
    (most(true), most(false))
}

const LONG: Duration = Duration::from_secs(1_200);

#[test]
fn whatever_has_been_dead_for_a_while_nobody_gets_more_probes_than_the_stated_rate() {
    let (one, two) = (target(1), [target(1), target(2)]);
    let dead: [(&str, Ways<'_>); 5] = [
        ("nothing", &|_, _| (true, true)),
        ("one target", &|_, witness| (true, witness != one)),
        ("two targets", &|_, witness| (true, !two.contains(&witness))),
        ("all targets", &|_, witness| (true, witness.port() != 443)),
        ("a gateway", &|gateway, _| (gateway != A, gateway != A)),
    ];
    for nodes in [2, 42, 100, 512] {
        for (what, ways) in dead {
            let (target, peer) = busiest(nodes, 1, Duration::from_secs(120), LONG, ways);
            // That of which a node asks whom is a matter of chance, a little.
            assert!(target <= f64::from(TARGET_RATE) * 1.05, "{nodes} nodes, {what}: {target} a second");
            assert!(peer <= f64::from(PEER_RATE) * 1.05, "{nodes} nodes, {what}: {peer} a second");
        }
    }
}

/// `docs/probes.md` states these numbers.
#[test]
fn however_much_is_lost_for_however_long_nobody_gets_more_than_twice_the_stated_rate() {
    let is_lost = |percent: u8| fastrand::u8(..100) < percent;
    for nodes in [42, 100, 512] {
        for percent in [10, 30, 60, 80, 90, 97] {
            let one: Ways<'_> = &|gateway, _| (true, gateway != A || !is_lost(percent));
            let both: Ways<'_> = &|_, _| (true, !is_lost(percent));
            for (what, ways) in [("one", one), ("both", both)] {
                let (target, peer) = busiest(nodes, 3, Duration::from_secs(120), LONG, ways);
                assert!(
                    target <= 2.0 * 1.05 * f64::from(TARGET_RATE),
                    "{nodes}, {percent} % on {what}: {target}"
                );
                assert!(peer <= 2.0 * 1.05 * f64::from(PEER_RATE), "{nodes}, {percent} % on {what}: {peer}");
            }
        }
    }
}

/// So do these.
#[test]
fn when_something_begins_to_fail_repetitions_are_a_few_times_the_rate_for_one_interval() {
    let begins = |nodes: usize, seconds: u64, ways: Ways<'_>| {
        busiest(nodes, 60, Duration::ZERO, Duration::from_secs(seconds), ways)
    };
    for (nodes, interval) in [(100, 3), (512, 12)] {
        let deaf: Ways<'_> = &|gateway, _| (gateway != A, gateway != A);
        let (target, peer) = begins(nodes, interval, deaf);
        assert!(target <= 2.5 * f64::from(TARGET_RATE), "{nodes} nodes, a deaf gateway: {target} a second");
        assert!(peer <= 2.5 * f64::from(PEER_RATE), "{nodes} nodes, a deaf gateway: {peer} a second");
        let (target, _) = begins(nodes, interval, &|_, witness| (true, witness.port() != 443));
        assert!(target <= 8.0 * f64::from(TARGET_RATE), "{nodes} nodes, no target: {target} a second");
        let (target, _) = begins(nodes, interval, &|_, witness| (true, witness != self::target(1)));
        assert!(target <= 2.2 * f64::from(TARGET_RATE), "{nodes} nodes, one target: {target} a second");
    }
}

/// `docs/probes.md` states within which time.
#[test]
fn doubts_of_others_that_last_leave_enough_to_find_one_that_forwards_no_more() {
    for seed in 1..=20 {
        fastrand::seed(seed);
        let mut node = Node::new(MOST_NODES);
        for _ in 0..300 {
            node.runs(Duration::from_secs(1), &|_, _| (true, true));
            let now = node.now;
            node.asked.iter_mut().for_each(|(_, schedule)| schedule.doubted(now));
        }
        let begun = node.now;
        let is_found = |node: &Node| {
            let mut asked = node.asked.iter().zip(&node.missed);
            asked.all(|((asking, _), missed)| asking.gateway != A || *missed >= asking.fall)
        };
        while !is_found(&node) {
            node.runs(Duration::from_millis(100), &|gateway, _| (true, gateway != A));
            let passed = node.now.duration_since(begun);
            assert!(passed < Duration::from_millis(13_800), "seed {seed}: {:?}", node.missed);
        }
    }
}
