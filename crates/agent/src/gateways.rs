//! What this node knows of each gateway it probes: the detectors of both levels, and what to say of them.
//!
//! Nothing is said of a gateway before there is a verdict: "not asked yet" read as "does not answer" would be a vote against it.
//! An agent that starts goes on saying what the last one said, with its time, until its own probes say something else.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::num::NonZeroU8;
use std::time::Duration;

use egress_api::GatewayObservation;
use egress_health::detector::{Signal, Transition, Verdict};
use egress_health::{Candidate, Choice, Config, Detector, Outcome, Standing, Tick, select, share};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use crate::probe::{self, Level, ProbeResult};

/// Thresholds of the forwarding level: a second apart, three misses, and one answer is proof enough.
fn forwarding_config() -> Config {
    Config { interval: Duration::from_secs(1), rise: NonZeroU8::MIN, ..Config::default() }
}

const UNKNOWN: Standing = Standing { verdict: Verdict::Unknown, signal: Signal::Wavering };

/// So long what the last agent said of forwarding counts: the first probes of that level are a second apart.
const REMEMBERED: Duration = Duration::from_secs(10);

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

/// All gateways that are probed.
#[derive(Debug, Default)]
pub struct Gateways {
    known: BTreeMap<Ipv4Addr, Gateway>,
    /// What the last agent of this node said.
    remembered: BTreeMap<Ipv4Addr, GatewayObservation>,
    remembered_until: Tick,
}

#[derive(Debug)]
struct Gateway {
    reachability: Detector,
    forwarding: Detector,
    said: GatewayObservation,
}

impl Gateways {
    /// Keeps exactly these; new ones begin as unknown.
    pub fn retain(&mut self, probed: &BTreeSet<Ipv4Addr>, now: Tick) {
        self.known.retain(|address, _| probed.contains(address));
        let unknown = |address: &Ipv4Addr| GatewayObservation {
            address: address.to_string(),
            ..GatewayObservation::default()
        };
        if now >= self.remembered_until {
            self.remembered.clear();
        }
        for address in probed {
            self.known.entry(*address).or_insert_with(|| Gateway {
                reachability: Detector::new(Config::default(), now),
                forwarding: Detector::new(forwarding_config(), now),
                said: self.remembered.remove(address).unwrap_or_else(|| unknown(address)),
            });
        }
    }

    /// Goes on from what the last agent of this node said.
    pub fn remember(&mut self, said: &[GatewayObservation], now: Tick) {
        self.remembered_until = now.after(REMEMBERED);
        for said in said {
            let Ok(address) = said.address.parse() else { continue };
            match self.known.get_mut(&address) {
                // Probed already: the same verdict holds since then.
                Some(gateway) if gateway.may_have_said(said) => gateway.said = said.clone(),
                Some(_) => {}
                None => {
                    self.remembered.insert(address, said.clone());
                }
            }
        }
    }

    /// Takes one outcome.
    pub fn on_probe(&mut self, result: &ProbeResult, now: Tick, time: Timestamp) -> Noticed {
        let Some(gateway) = self.known.get_mut(&result.gateway) else { return Noticed::default() };
        let (outcome, message) = match &result.outcome {
            probe::Outcome::Answered => (Outcome::Answered, None),
            probe::Outcome::Missed(message) => (Outcome::Missed, Some(message)),
            // The node's own trouble condemns nobody.
            probe::Outcome::Inconclusive(message) => {
                tracing::debug!(gateway = %result.gateway, message, "probe says nothing");
                return Noticed::default();
            }
        };
        let detector = match result.level {
            Level::Reachability => &mut gateway.reachability,
            Level::Forwarding => &mut gateway.forwarding,
        };
        let before = detector.standing(now);
        let transition = detector.on_probe(now, outcome);
        let changed = before != detector.standing(now);
        if let Some(transition) = transition {
            tracing::info!(gateway = %result.gateway, level = ?result.level, ?transition, message, "gateway changed");
        }
        let words = gateway.say(message, now, time, now < self.remembered_until);
        let decides = result.level == Level::Reachability;
        let fell = decides && matches!(transition, Some(Transition::Fell { .. }));
        Noticed { may_move: changed && decides, fell, words }
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

    /// Whether all of `listed` are known to be dead: what its `onNoGateway` says comes into force.
    pub fn none_works(&self, listed: &[Ipv4Addr], now: Tick) -> bool {
        let is_dead = |candidate: &Candidate<Ipv4Addr>| {
            candidate.standing.verdict == Verdict::Down && candidate.standing.signal == Signal::Silent
        };
        !listed.is_empty() && self.candidates(listed, now).iter().all(is_dead)
    }

    /// Whether it is known to work.
    pub fn works(&self, gateway: Ipv4Addr, now: Tick) -> bool {
        self.candidates(&[gateway], now).iter().all(|candidate| is_alive(candidate.standing))
    }

    fn candidates(&self, listed: &[Ipv4Addr], now: Tick) -> Vec<Candidate<Ipv4Addr>> {
        let standing =
            |gateway| self.known.get(gateway).map_or(UNKNOWN, |one| one.reachability.standing(now));
        listed.iter().map(|gateway| Candidate { gateway: *gateway, standing: standing(gateway) }).collect()
    }

    /// What to report, in the order of the addresses.
    pub fn observations(&self) -> impl Iterator<Item = (Ipv4Addr, &GatewayObservation)> {
        let said = self.known.iter().map(|(address, gateway)| (*address, &gateway.said));
        said.filter(|(_, said)| said.since.is_some())
    }
}

impl Gateway {
    // The words change with the verdict only: a report is written on change, not on every probe.
    fn say(&mut self, message: Option<&String>, now: Tick, time: Timestamp, remembers: bool) -> bool {
        let (reachability, forwarding) = (self.reachability.standing(now), self.forwarding.standing(now));
        let reachable = match reachability.verdict {
            Verdict::Unknown if self.said.since.is_none() => return false,
            Verdict::Unknown => self.said.reachable,
            _ => is_alive(reachability),
        };
        let forwards = match forwarding.verdict {
            Verdict::Unknown => self.said.forwards.filter(|_| remembers),
            _ => Some(is_alive(forwarding)),
        };
        let is_new =
            (reachable, forwards) != (self.said.reachable, self.said.forwards) || self.said.since.is_none();
        if is_new {
            self.said.reachable = reachable;
            self.said.forwards = forwards;
            self.said.since = Some(Time(time));
            self.said.message = if reachable && forwards != Some(false) { None } else { message.cloned() };
        }
        is_new
    }

    /// Whether what is known now, as far as anything is, is that.
    fn may_have_said(&self, said: &GatewayObservation) -> bool {
        self.said.since.is_none()
            || (self.said.reachable == said.reachable
                && self.said.forwards.is_none_or(|forwards| said.forwards == Some(forwards)))
    }
}

fn is_alive(standing: Standing) -> bool {
    matches!(standing.verdict, Verdict::Up | Verdict::Trial)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Ipv4Addr = Ipv4Addr::new(10, 116, 0, 100);
    const B: Ipv4Addr = Ipv4Addr::new(10, 116, 0, 101);

    struct Scene {
        gateways: Gateways,
        now: u64,
    }

    impl Scene {
        fn new() -> Self {
            let mut gateways = Gateways::default();
            gateways.retain(&BTreeSet::from([A, B]), Tick::default());
            Self { gateways, now: 0 }
        }

        fn probe(&mut self, gateway: Ipv4Addr, level: Level, outcome: probe::Outcome) {
            self.now += 100;
            let result = ProbeResult { gateway, level, outcome, took: Duration::from_millis(1) };
            let time = Timestamp::from_millisecond(i64::try_from(self.now).unwrap()).unwrap();
            self.gateways.on_probe(&result, Tick::from_millis(self.now), time);
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
                scene.gateways.retain(&BTreeSet::from([A, B]), start);
                scene.probe(A, Level::Reachability, probe::Outcome::Answered);
            }
            scene.gateways.remember(&said, start);
            scene.gateways.retain(&BTreeSet::from([A, B]), start);
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
        scene.gateways.retain(&BTreeSet::from([A]), Tick::from_millis(scene.now));
        scene.now += 10_000;
        scene.probe(A, Level::Reachability, probe::Outcome::Answered);
        assert_eq!(scene.said(A).forwards, None);
    }
}
