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
use egress_health::watch::{self, Evidence, Wanted, Watch};
use egress_health::{Candidate, Choice, Config, Level, Outcome, Probe, Tick, is_cut_off, select, share};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use crate::objects::{Check, Probed};
use crate::probe::{self, ProbeResult, at_probe_port, witnesses};

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
    /// [`Gateways::judged`] may be something else now.
    pub level: bool,
}

/// All gateways that are probed.
#[derive(Debug, Default)]
pub struct Gateways {
    watch: Watch<Ipv4Addr, SocketAddrV4>,
    wanted: BTreeMap<Ipv4Addr, Wanted<SocketAddrV4>>,
    said: BTreeMap<Ipv4Addr, GatewayObservation>,
    /// What the last agent of this node said.
    remembered: BTreeMap<Ipv4Addr, GatewayObservation>,
    remembered_until: Tick,
    /// Whether what the last agent said is still part of what is said.
    remembers: bool,
    /// Gateways that the last agent condemned for their address or for large packets, and that have not shown since that they are well.
    /// What never got through in its own time this agent takes for nothing that can fail.
    inherited: BTreeMap<Ipv4Addr, BTreeSet<Level>>,
    /// How the neighbours answered, while no gateway does.
    neighbours: Vec<Outcome>,
    /// The turn in which `renewed` was last said anew.
    renewed: u64,
}

impl Gateways {
    /// Keeps exactly these, probed as said; new ones begin as unknown.
    pub fn retain(&mut self, gateways: &BTreeSet<Ipv4Addr>, probed: &BTreeMap<Ipv4Addr, Probed>, now: Tick) {
        let nothing = Probed::default();
        let wanted = |gateway: &Ipv4Addr| (*gateway, wanted(probed.get(gateway).unwrap_or(&nothing)));
        self.wanted = gateways.iter().map(wanted).collect();
        self.watch.retain(&self.wanted, now);
        self.said.retain(|gateway, _| gateways.contains(gateway));
        self.inherit_what_is_asked();
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
        self.remembers = true;
        for said in said {
            let Ok(address) = said.address.parse() else { continue };
            let failing = found_failing_alone(said);
            if !failing.is_empty() {
                self.inherited.insert(address, failing);
            }
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
        if !self.wanted.contains_key(&result.gateway) {
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
        if outcome == Outcome::Answered {
            self.shows(result.gateway, result.level);
        }
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
        Noticed { may_move, fell, words, level: transition.is_some() }
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

    /// Says anew what it condemns and who does not answer, when it is this node's turn: `place` is its place among all, 0 to 1. What the last
    /// agent said is said no more once this one had its time. True: there is something to report.
    pub fn renew(&mut self, nodes: usize, place: f64, now: Tick, time: Timestamp) -> bool {
        let is_new = self.forgets(now, time);
        let interval = renewal_interval(nodes);
        let turn = ((now.0 + interval.mul_f64(place)).as_millis() / interval.as_millis().max(1)) as u64;
        if turn == self.renewed {
            return is_new;
        }
        self.renewed = turn;
        let mut failing =
            self.said.values_mut().filter(|said| said.since.is_some() && is_renewed(said)).peekable();
        let is_any = failing.peek().is_some();
        failing.for_each(|said| said.renewed = Some(Time(time)));
        is_new || is_any
    }

    /// Where nobody asks any more what the last agent found failing, no probe will ever change what is said.
    fn forgets(&mut self, now: Tick, time: Timestamp) -> bool {
        if !self.remembers || now < self.remembered_until {
            return false;
        }
        self.remembers = false;
        self.remembered.clear();
        self.inherit_what_is_asked();
        let mut is_new = false;
        for (gateway, said) in self.said.iter_mut().filter(|(_, said)| said.since.is_some()) {
            let is_inherited = self.inherited.contains_key(gateway);
            is_new |= say(&self.watch, *gateway, said, None, Before { remembers: false, is_inherited }, time);
        }
        is_new
    }

    /// What nobody asks any more may be well again, and nobody would know. An agent that has just started has not been told yet what to ask.
    fn inherit_what_is_asked(&mut self) {
        if self.remembers {
            return;
        }
        let wanted = &self.wanted;
        for (gateway, levels) in &mut self.inherited {
            // Where an address moves, that it was not seen tells nothing of the gateway.
            let is_kept = |wanted: &Wanted<_>, level: &Level| {
                wanted.asked.contains(level) && (wanted.shared_address.is_none() || *level != Level::Source)
            };
            levels.retain(|level| wanted.get(gateway).is_some_and(|wanted| is_kept(wanted, level)));
        }
        self.inherited.retain(|_, levels| !levels.is_empty());
    }

    /// It works there now.
    fn shows(&mut self, gateway: Ipv4Addr, level: Level) {
        if let Some(levels) = self.inherited.get_mut(&gateway) {
            levels.remove(&level);
            if levels.is_empty() {
                self.inherited.remove(&gateway);
            }
        }
    }

    /// Levels that are known to fail, at which more probes at once would tell nothing new.
    pub fn judged(&self) -> BTreeSet<(Ipv4Addr, Level)> {
        let levels = |gateway: &Ipv4Addr| Level::ALL.map(|level| (*gateway, level));
        let all = self.wanted.keys().flat_map(levels);
        all.filter(|(gateway, level)| self.watch.is_judged(*gateway, *level)).collect()
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
            let is_asked = |wanted: &Wanted<_>| wanted.asked.contains(&Level::Forwarding);
            let through = self.wanted.get(&candidate.gateway).is_some_and(is_asked);
            let is_unproven = through && self.watch.works(candidate.gateway, Level::Forwarding).is_none();
            let is_inherited = self.inherited.contains_key(&candidate.gateway);
            if (is_unproven || is_inherited) && candidate.standing.verdict == Verdict::Up {
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
            let is_inherited = self.inherited.contains_key(gateway);
            is_new |= say(&self.watch, *gateway, said, message, Before { remembers, is_inherited }, time);
        }
        is_new
    }
}

/// What of the last agent's words counts.
#[derive(Clone, Copy)]
struct Before {
    /// All that this agent does not know yet.
    remembers: bool,
    /// That it condemned this gateway.
    is_inherited: bool,
}

/// Levels at which the last agent condemned a gateway that forwards: nothing that forwarding says can tell whether it is well again.
fn found_failing_alone(said: &GatewayObservation) -> BTreeSet<Level> {
    let levels = [(Level::Source, said.expected_source), (Level::FullSize, said.full_size)];
    let failing = levels.into_iter().filter(|(_, said)| *said == Some(false)).map(|(level, _)| level);
    if said.condemned && said.forwards == Some(true) { failing.collect() } else { BTreeSet::new() }
}

/// Says of one gateway what is known of it now; true when that is something else.
fn say(
    watch: &Watch<Ipv4Addr, SocketAddrV4>,
    gateway: Ipv4Addr,
    said: &mut GatewayObservation,
    message: Option<&str>,
    before: Before,
    time: Timestamp,
) -> bool {
    let Before { remembers, is_inherited } = before;
    let reachable = match watch.works(gateway, Level::Reachability) {
        None if said.since.is_none() => return false,
        None => said.reachable,
        Some(works) => works,
    };
    let level = |level, before: Option<bool>| watch.works(gateway, level).or(before.filter(|_| remembers));
    let new = GatewayObservation {
        reachable,
        forwards: level(Level::Forwarding, said.forwards),
        expected_source: watch.is_seen_as_expected(gateway).or(said.expected_source.filter(|_| remembers)),
        full_size: level(Level::FullSize, said.full_size),
        condemned: watch.is_condemned(gateway)
            || is_inherited
            || remembers && is_still_condemned(watch, gateway, said),
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

/// What is to be watched of a gateway that is probed like this.
fn wanted(probed: &Probed) -> Wanted<SocketAddrV4> {
    let is_asked = |level: &Level| *level == Level::Reachability || !witnesses(probed, *level).is_empty();
    Wanted {
        config: config(probed.check.unwrap_or_default()),
        asked: Level::ALL.into_iter().filter(is_asked).collect(),
        targets: match &probed.moving {
            Some(moving) => moving.relays.keys().chain(moving.relays.values()).copied().collect(),
            None => probed.targets.clone(),
        },
        seen_as: probed.public.iter().copied().map(at_probe_port).collect(),
        shared_address: probed.moving.as_ref().map(|moving| at_probe_port(moving.address)),
    }
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
mod tests;
