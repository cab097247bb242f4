//! What this node knows of each gateway it probes, and what to say of it. The verdicts are `egress-health`'s.
//!
//! Nothing is said of a gateway before there is a verdict: "not asked yet" read as "does not answer" would be a vote against it.
//! An agent that starts goes on saying what the last one said, with its time, until its own probes say something else; and it takes
//! no gateway for proven whose way through is probed and was not answered yet, so that it does not undo what the last one decided.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::num::NonZeroU8;
use std::time::Duration;

use egress_api::{GatewayObservation, renewal_interval};
use egress_health::detector::{Transition, Verdict};
use egress_health::watch::{self, Evidence, Watch};
use egress_health::{Candidate, Choice, Config, Level, Outcome, Probe, Tick, is_cut_off, select, share};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use crate::objects::{Check, Probed};
use crate::probe::{self, ProbeResult};

/// So long what the last agent said of the way through a gateway counts: in the largest cluster the first round of its probes takes
/// ten seconds.
const REMEMBERED: Duration = Duration::from_secs(30);

/// What one probe changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Noticed {
    /// The choice of a gateway may be another one now.
    pub may_move: bool,
    /// The gateway stopped answering in the VPC.
    pub fell: bool,
    /// What is to be reported changed.
    pub words: bool,
}

/// What is to be watched of a gateway.
#[derive(Clone, Debug)]
struct Asked {
    config: Config,
    /// Whether somebody outside is asked through it.
    through: bool,
}

/// All gateways that are probed.
#[derive(Debug, Default)]
pub struct Gateways {
    watch: Watch<Ipv4Addr, SocketAddrV4>,
    asked: BTreeMap<Ipv4Addr, Asked>,
    said: BTreeMap<Ipv4Addr, GatewayObservation>,
    /// What the last agent of this node said.
    remembered: BTreeMap<Ipv4Addr, GatewayObservation>,
    remembered_until: Tick,
    /// How the neighbours answered, while no gateway does.
    neighbours: Vec<Outcome>,
    /// The turn in which `renewed` was last said anew.
    renewed: u64,
}

impl Gateways {
    /// Keeps exactly these, probed as said; new ones begin as unknown.
    pub fn retain(&mut self, gateways: &BTreeSet<Ipv4Addr>, probed: &BTreeMap<Ipv4Addr, Probed>, now: Tick) {
        let asked = |gateway: &Ipv4Addr| {
            let probed = probed.get(gateway).cloned().unwrap_or_default();
            let through = !probed.targets.is_empty();
            (*gateway, Asked { config: config(probed.check.unwrap_or_default()), through })
        };
        self.asked = gateways.iter().map(asked).collect();
        let configs = self.asked.iter().map(|(gateway, asked)| (*gateway, asked.config.clone())).collect();
        self.watch.retain(&configs, now);
        if now >= self.remembered_until {
            self.remembered.clear();
        }
        self.said.retain(|gateway, _| gateways.contains(gateway));
        for gateway in gateways {
            let remembered = &mut self.remembered;
            self.said
                .entry(*gateway)
                .or_insert_with(|| remembered.remove(gateway).unwrap_or_else(|| unknown(*gateway)));
        }
    }

    /// Goes on from what the last agent of this node said.
    pub fn remember(&mut self, said: &[GatewayObservation], now: Tick) {
        self.remembered_until = now.after(REMEMBERED);
        for said in said {
            let Ok(address) = said.address.parse() else { continue };
            match self.said.get_mut(&address) {
                // Probed already: the same verdict holds since then.
                Some(ours) if may_have_said(ours, said) => *ours = said.clone(),
                Some(_) => {}
                None => {
                    self.remembered.insert(address, said.clone());
                }
            }
        }
    }

    /// Takes one outcome of a probe whose first packet was sent at `sent`.
    pub fn on_probe(&mut self, result: &ProbeResult, sent: Tick, now: Tick, time: Timestamp) -> Noticed {
        if !self.asked.contains_key(&result.gateway) {
            return Noticed::default();
        }
        let (outcome, message) = match &result.outcome {
            probe::Outcome::Answered => (Outcome::Answered, None),
            probe::Outcome::Missed(message) => (Outcome::Missed, Some(message)),
            // The node's own trouble condemns nobody.
            probe::Outcome::Inconclusive(message) => {
                tracing::debug!(gateway = %result.gateway, level = ?result.level, message, "probe says nothing");
                return Noticed::default();
            }
        };
        let probe = Probe { level: result.level, witness: result.witness, sent, outcome };
        let watch::Noticed { transition, may_move } = self.watch.on_probe(result.gateway, probe, now);
        if let Some(transition) = transition {
            tracing::info!(gateway = %result.gateway, level = ?result.level, ?transition, message, "gateway changed");
        }
        let fell = result.level == Level::Reachability && matches!(transition, Some(Transition::Fell { .. }));
        if outcome == Outcome::Answered && result.level == Level::Reachability {
            self.neighbours.clear();
        }
        let words = (transition.is_some() || may_move) && self.say(message, result.gateway, now, time);
        Noticed { may_move, fell, words }
    }

    /// Takes what the neighbours answered. True: the node has to say something new.
    pub fn on_test(&mut self, neighbours: Vec<Outcome>) -> bool {
        let before = self.is_cut_off();
        self.neighbours = neighbours;
        self.is_cut_off() != before
    }

    /// Whether no gateway answers in the VPC: the neighbours tell whose fault that is.
    pub fn all_silent(&self) -> bool {
        self.watch.all_silent()
    }

    /// Whether it is this node that is cut off.
    pub fn is_cut_off(&self) -> bool {
        is_cut_off(self.watch.all_silent(), &self.neighbours)
    }

    /// Says anew what it condemns and who does not answer, when it is this node's turn: `place` is its place among all, 0 to 1. True: it has.
    pub fn renew(&mut self, nodes: usize, place: f64, now: Tick, time: Timestamp) -> bool {
        let interval = renewal_interval(nodes);
        let turn = ((now.0 + interval.mul_f64(place)).as_millis() / interval.as_millis().max(1)) as u64;
        if turn == self.renewed {
            return false;
        }
        self.renewed = turn;
        let failing = |said: &&mut GatewayObservation| said.since.is_some() && is_renewed(said);
        let mut failing = self.said.values_mut().filter(failing).peekable();
        let is_any = failing.peek().is_some();
        failing.for_each(|said| said.renewed = Some(Time(time)));
        is_any
    }

    /// The gateway to use out of `ordered`.
    pub fn choose(
        &self,
        ordered: &[Ipv4Addr],
        current: Option<Ipv4Addr>,
        now: Tick,
    ) -> Option<Choice<Ipv4Addr>> {
        select(&self.candidates(ordered, now), current)
    }

    /// The gateways out of `listed` that share the traffic, when those `in_use` do now.
    pub fn share(&self, listed: &[Ipv4Addr], in_use: &BTreeSet<Ipv4Addr>, now: Tick) -> BTreeSet<Ipv4Addr> {
        share(&self.candidates(listed, now), in_use)
    }

    /// Whether all of `listed` are known to be of no use: what its `onNoGateway` says comes into force.
    pub fn none_works(&self, listed: &[Ipv4Addr]) -> bool {
        self.watch.none_works(listed)
    }

    /// Whether it is known to work.
    pub fn works(&self, gateway: Ipv4Addr, now: Tick) -> bool {
        let candidates = self.candidates(&[gateway], now);
        candidates.iter().all(|one| matches!(one.standing.verdict, Verdict::Up | Verdict::Trial))
    }

    /// On what a node that leaves `gateway` for `other` does so; `None` when `gateway` works.
    pub fn evidence(&self, gateway: Ipv4Addr, other: Ipv4Addr) -> Option<Evidence<Ipv4Addr, SocketAddrV4>> {
        self.watch.evidence(gateway, other)
    }

    fn candidates(&self, listed: &[Ipv4Addr], now: Tick) -> Vec<Candidate<Ipv4Addr>> {
        let mut candidates = self.watch.candidates(listed, now);
        for candidate in &mut candidates {
            let through = self.asked.get(&candidate.gateway).is_some_and(|asked| asked.through);
            let is_unproven = through && self.watch.works(candidate.gateway, Level::Forwarding).is_none();
            if is_unproven && candidate.standing.verdict == Verdict::Up {
                candidate.standing.verdict = Verdict::Trial;
            }
        }
        candidates
    }

    /// What to report, in the order of the addresses.
    pub fn observations(&self) -> impl Iterator<Item = (Ipv4Addr, &GatewayObservation)> {
        let said = self.said.iter().map(|(address, said)| (*address, said));
        said.filter(|(_, said)| said.since.is_some())
    }

    /// The words change with a verdict only: a report is written on change, not on every probe. One gateway's probe may be the proof
    /// against another.
    fn say(&mut self, message: Option<&String>, of: Ipv4Addr, now: Tick, time: Timestamp) -> bool {
        let remembers = now < self.remembered_until;
        let mut is_new = false;
        for (gateway, said) in &mut self.said {
            let message = message.filter(|_| *gateway == of).map(String::as_str);
            is_new |= say(&self.watch, *gateway, said, message, remembers, time);
        }
        is_new
    }
}

/// Says of one gateway what is known of it now; true when that is something else.
fn say(
    watch: &Watch<Ipv4Addr, SocketAddrV4>,
    gateway: Ipv4Addr,
    said: &mut GatewayObservation,
    message: Option<&str>,
    remembers: bool,
    time: Timestamp,
) -> bool {
    let reachable = match watch.works(gateway, Level::Reachability) {
        None if said.since.is_none() => return false,
        None => said.reachable,
        Some(works) => works,
    };
    let level = |level, before: Option<bool>| watch.works(gateway, level).or(before.filter(|_| remembers));
    let new = GatewayObservation {
        reachable,
        forwards: level(Level::Forwarding, said.forwards),
        expected_source: level(Level::Source, said.expected_source),
        full_size: level(Level::FullSize, said.full_size),
        condemned: watch.is_condemned(gateway) || remembers && is_still_condemned(watch, gateway, said),
        ..said.clone()
    };
    if new == *said && said.since.is_some() {
        return false;
    }
    let works = new.reachable && !new.condemned && new.forwards != Some(false);
    let why = || watch.condemned(gateway).map(ToString::to_string).or(message.map(str::to_owned));
    *said = GatewayObservation {
        since: Some(Time(time)),
        message: if works { None } else { why().or_else(|| said.message.clone()) },
        renewed: is_renewed(&new).then_some(Time(time)),
        ..new
    };
    true
}

/// Whether it is a word against the gateway, which counts only while it is renewed.
fn is_renewed(said: &GatewayObservation) -> bool {
    said.condemned || !said.reachable
}

/// Whether the last agent condemned it and nothing that it found failing works now.
fn is_still_condemned(
    watch: &Watch<Ipv4Addr, SocketAddrV4>,
    gateway: Ipv4Addr,
    said: &GatewayObservation,
) -> bool {
    let levels = [
        (Level::Reachability, Some(said.reachable)),
        (Level::Forwarding, said.forwards),
        (Level::Source, said.expected_source),
        (Level::FullSize, said.full_size),
    ];
    let mut failing = levels.into_iter().filter(|(_, said)| *said == Some(false)).peekable();
    said.condemned
        && failing.peek().is_some()
        && failing.all(|(level, _)| watch.works(gateway, level).is_none())
}

fn unknown(gateway: Ipv4Addr) -> GatewayObservation {
    GatewayObservation {
        address: gateway.to_string(),
        reachable: false,
        forwards: None,
        expected_source: None,
        full_size: None,
        condemned: false,
        renewed: None,
        since: None,
        message: None,
    }
}

/// Whether what is said now, as far as anything is, is that.
fn may_have_said(ours: &GatewayObservation, said: &GatewayObservation) -> bool {
    let agrees = |ours: Option<bool>, said| ours.is_none_or(|ours| said == Some(ours));
    ours.since.is_none()
        || (ours.reachable == said.reachable
            && agrees(ours.forwards, said.forwards)
            && agrees(ours.expected_source, said.expected_source)
            && agrees(ours.full_size, said.full_size))
}

fn config(check: Check) -> Config {
    let count = |value| NonZeroU8::new(value).unwrap_or(NonZeroU8::MIN);
    Config {
        interval: check.interval,
        fall: count(check.fall),
        rise: count(check.rise),
        hold_down: check.hold_down,
        longest_hold_down: check.longest_hold_down,
        loss_percent: check.loss_percent,
        ..Config::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Ipv4Addr = Ipv4Addr::new(10, 116, 0, 100);
    const B: Ipv4Addr = Ipv4Addr::new(10, 116, 0, 101);

    fn probed() -> BTreeMap<Ipv4Addr, Probed> {
        let targets = BTreeSet::from([SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 443)]);
        [A, B].map(|gateway| (gateway, Probed { targets: targets.clone(), ..Probed::default() })).into()
    }

    struct Scene {
        gateways: Gateways,
        now: u64,
    }

    impl Scene {
        fn new() -> Self {
            let mut gateways = Gateways::default();
            gateways.retain(&BTreeSet::from([A, B]), &probed(), Tick::default());
            Self { gateways, now: 0 }
        }

        fn probe(&mut self, gateway: Ipv4Addr, level: Level, outcome: probe::Outcome) {
            self.now += 100;
            let witness = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 443);
            let sent = tokio::time::Instant::now();
            let result =
                ProbeResult { gateway, level, witness, outcome, sent, took: Duration::from_millis(1) };
            let time = Timestamp::from_millisecond(i64::try_from(self.now).unwrap()).unwrap();
            let now = Tick::from_millis(self.now);
            self.gateways.on_probe(&result, Tick::from_millis(self.now - 1), now, time);
        }

        fn chosen(&self, current: Ipv4Addr) -> Ipv4Addr {
            self.gateways.choose(&[A, B], Some(current), Tick::from_millis(self.now)).unwrap().gateway
        }

        fn said(&self, gateway: Ipv4Addr) -> GatewayObservation {
            self.gateways.observations().find(|(address, _)| *address == gateway).unwrap().1.clone()
        }
    }

    fn missed() -> probe::Outcome {
        probe::Outcome::Missed("silence".to_owned())
    }

    #[test]
    fn three_misses_move_to_the_one_that_answers() {
        let mut scene = Scene::new();
        for gateway in [A, B] {
            scene.probe(gateway, Level::Reachability, probe::Outcome::Answered);
        }
        scene.probe(A, Level::Reachability, missed());
        scene.probe(A, Level::Reachability, missed());
        assert_eq!(scene.chosen(A), A);
        scene.probe(A, Level::Reachability, missed());
        assert_eq!(scene.chosen(A), B);
        assert_eq!(scene.said(A).message.as_deref(), Some("silence"));
    }

    #[test]
    fn trouble_of_the_node_itself_condemns_nobody() {
        let mut scene = Scene::new();
        scene.probe(A, Level::Reachability, probe::Outcome::Answered);
        scene.probe(B, Level::Reachability, probe::Outcome::Answered);
        for _ in 0..10 {
            scene.probe(A, Level::Reachability, probe::Outcome::Inconclusive("no socket".to_owned()));
        }
        assert_eq!(scene.chosen(A), A);
    }

    #[test]
    fn words_change_with_the_verdict_only() {
        let mut scene = Scene::new();
        scene.probe(A, Level::Reachability, probe::Outcome::Answered);
        scene.probe(A, Level::Forwarding, probe::Outcome::Answered);
        let first = scene.said(A);
        assert_eq!((first.reachable, first.forwards), (true, Some(true)));
        for _ in 0..5 {
            scene.probe(A, Level::Forwarding, probe::Outcome::Answered);
        }
        scene.probe(A, Level::Forwarding, missed());
        assert_eq!(scene.said(A), first, "one miss is no verdict");
        scene.probe(A, Level::Forwarding, missed());
        scene.probe(A, Level::Forwarding, missed());
        assert_eq!(scene.said(A).forwards, Some(false));
        assert_ne!(scene.said(A).since, first.since);
    }
    #[test]
    fn what_was_not_asked_yet_is_not_said_and_no_vote_against_anybody() {
        let mut scene = Scene::new();
        scene.probe(A, Level::Reachability, missed());
        assert_eq!(scene.gateways.observations().count(), 0);
        scene.probe(B, Level::Reachability, probe::Outcome::Answered);
        scene.probe(A, Level::Reachability, missed());
        scene.probe(A, Level::Reachability, missed());
        assert_eq!((scene.said(A).reachable, scene.said(B).reachable), (false, true));
    }

    #[test]
    fn a_restarted_agent_goes_on_saying_what_the_last_one_said_until_it_knows_better() {
        let mut last = Scene::new();
        for gateway in [A, B] {
            last.probe(gateway, Level::Reachability, probe::Outcome::Answered);
            last.probe(gateway, Level::Forwarding, probe::Outcome::Answered);
        }
        let said = [A, B].map(|gateway| last.said(gateway));
        for probed_before in [false, true] {
            let mut scene = Scene { gateways: Gateways::default(), now: 100_000 };
            let start = Tick::from_millis(scene.now);
            if probed_before {
                // While the API server was away.
                scene.gateways.retain(&BTreeSet::from([A, B]), &probed(), start);
                scene.probe(A, Level::Reachability, probe::Outcome::Answered);
            }
            scene.gateways.remember(&said, start);
            scene.gateways.retain(&BTreeSet::from([A, B]), &probed(), start);
            assert_eq!([A, B].map(|gateway| scene.said(gateway)), said);
            scene.probe(A, Level::Reachability, probe::Outcome::Answered);
            scene.probe(A, Level::Forwarding, missed());
            scene.probe(B, Level::Reachability, missed());
            assert_eq!([A, B].map(|gateway| scene.said(gateway)), said, "still not known");
            scene.probe(A, Level::Forwarding, probe::Outcome::Answered);
            assert_eq!(scene.said(A), said[0], "the same, since the same time");
            scene.probe(B, Level::Reachability, missed());
            scene.probe(B, Level::Reachability, missed());
            assert!(!scene.said(B).reachable);
            assert_ne!(scene.said(B).since, said[1].since);
        }
        // Nobody asks whether it forwards any more.
        let mut scene = Scene { gateways: Gateways::default(), now: 100_000 };
        scene.gateways.remember(&said, Tick::from_millis(scene.now));
        scene.gateways.retain(&BTreeSet::from([A]), &BTreeMap::new(), Tick::from_millis(scene.now));
        scene.now += 30_000;
        scene.probe(A, Level::Reachability, probe::Outcome::Answered);
        assert_eq!(scene.said(A).forwards, None);
    }
}
