//! One gateway of a [`super::Watch`]: its detectors, what it lost, and whether it has come back from a failure.

mod losing;
mod silent;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU8;
use std::time::Duration;

pub(super) use losing::{FAST, SLOW};
use silent::Silent;

use super::peers::Peers;
use super::{Evidence, Fault, Level, Probe, Wanted};
use crate::config::Config;
use crate::detector::{Detector, Outcome, Signal, Standing, Transition, Verdict};
use crate::loss::{Loss, Share, misses_beyond_chance};
use crate::tick::Tick;

/// Whoever failed has come back when, besides its hold-down, so many probes since then, through it and in the VPC, say so. Five: of a
/// way that loses 60 % it happens by chance once in a hundred times.
const SHOWN: (u32, u32) = (5, 10);
/// The same for clusters that are so large, and for levels at which nobody asks any more.
const SHOWN_AFTER: Duration = Duration::from_secs(15);

#[derive(Debug, Clone)]
pub(super) struct Watched<G, W> {
    pub(super) config: Config,
    pub(super) levels: BTreeMap<Level, Detector>,
    /// Fed by the verdict on loss, so that losing has a hold-down, too.
    loss: Detector,
    loses: bool,
    /// When the last probe to a target that was answered was sent.
    pub(super) reached: Option<Tick>,
    /// Probes through it to targets. Those to peers would tell of the peers' losses, too.
    path: Loss,
    /// When it began to answer after a failure, until it has shown that it works: till then it is on trial.
    pub(super) returning: Option<Tick>,
    /// At which levels anybody is asked.
    asked: BTreeSet<Level>,
    /// Who is asked outside.
    targets: BTreeSet<W>,
    /// As whom it is asked about others.
    pub(super) seen_as: BTreeSet<W>,
    /// The address that it has in common with others.
    pub(super) shared_address: Option<W>,
    /// Who is asked as a peer.
    pub(super) peers: Peers<W>,
    /// Who of them is dead.
    silent: Silent<W>,
    /// Who did not answer in the present run of misses of each level.
    unanswered: BTreeMap<Level, Vec<W>>,
    pub(super) condemned: BTreeMap<Fault, Evidence<G, W>>,
}

impl<G, W: Copy + Ord> Watched<G, W> {
    pub(super) fn new(wanted: &Wanted<W>, now: Tick) -> Self {
        let config = &wanted.config;
        let detectors = Level::ALL.map(|level| (level, Detector::new(of_level(config, level), now)));
        Self {
            loss: Detector::new(of_loss(config), now),
            config: config.clone(),
            asked: wanted.asked.clone(),
            targets: wanted.targets.clone(),
            seen_as: wanted.seen_as.clone(),
            shared_address: wanted.shared_address,
            levels: detectors.into_iter().collect(),
            loses: false,
            reached: None,
            path: Loss::default(),
            returning: None,
            peers: Peers::default(),
            silent: Silent::default(),
            unanswered: BTreeMap::new(),
            condemned: BTreeMap::new(),
        }
    }

    pub(super) fn configure(&mut self, wanted: &Wanted<W>, now: Tick) {
        let config = &wanted.config;
        if self.config != *config {
            self.config = config.clone();
            for (level, detector) in &mut self.levels {
                detector.configure(&of_level(config, *level));
            }
            self.loss.configure(&of_loss(config));
        }
        if self.seen_as != wanted.seen_as {
            self.seen_as.clone_from(&wanted.seen_as);
        }
        self.shared_address = wanted.shared_address;
        if self.targets != wanted.targets {
            self.targets.clone_from(&wanted.targets);
        }
        if self.asked != wanted.asked {
            self.asked.clone_from(&wanted.asked);
            self.acquit(now);
        }
    }

    /// What nobody asks any more may be well again, and nobody would know: on trial it shows by the rest that it works.
    fn acquit(&mut self, now: Tick) {
        for level in Level::BEYOND.into_iter().filter(|level| !self.asked.contains(level)) {
            let Some(detector) = self.levels.get_mut(&level) else { continue };
            if detector.is_down() {
                self.returning = Some(now);
            }
            detector.acquit(now);
            if level == Level::Forwarding {
                // What was lost on the way there would be held against it at every look.
                self.path.clear();
            }
        }
    }

    pub(super) fn on_probe(&mut self, probe: Probe<W>, now: Tick) -> Option<Transition> {
        if self.is_of_the_past(probe) {
            return None;
        }
        let is_dead = self.count(probe, now);
        // Its silence is no news: with all dead but one, a single packet that is lost would be a run of misses.
        if is_dead && self.is_told_by_a_target(probe.level) {
            return None;
        }
        let unanswered = self.unanswered.entry(probe.level).or_default();
        match probe.outcome {
            Outcome::Answered => unanswered.clear(),
            // A few are enough to be told of.
            Outcome::Missed if unanswered.len() < 4 && !unanswered.contains(&probe.witness) => {
                unanswered.push(probe.witness);
            }
            Outcome::Missed => {}
        }
        // What does not get through at all says nothing of large packets.
        if probe.level == Level::FullSize
            && probe.outcome == Outcome::Missed
            && self.detector(Level::Forwarding).is_down()
        {
            return None;
        }
        let beyond_chance =
            if probe.outcome == Outcome::Missed { self.misses_beyond_chance(probe.level, now) } else { 0 };
        let of_peer = probe.level == Level::FullSize && self.peers.contains(&probe.witness);
        let detector = self.levels.get_mut(&probe.level)?;
        detector.expect_misses(beyond_chance);
        let transition = detector.on_sent_probe(probe.sent, now, probe.outcome);
        if (of_peer || is_dead) && probe.outcome == Outcome::Missed {
            detector.discount_last();
        }
        match transition {
            Some(Transition::Fell { .. }) => self.on_fall(probe.level),
            Some(Transition::Rose { .. }) => self.returning = Some(now),
            Some(Transition::Met) | None => {}
        }
        if self.is_out() || self.detector(Level::Forwarding).is_down() {
            self.beyond().for_each(Detector::discount);
        }
        transition
    }

    /// Whether it was on its way, unanswered, when the gateway began to answer, for the first time or again.
    fn is_of_the_past(&self, probe: Probe<W>) -> bool {
        let is_missed = probe.outcome == Outcome::Missed && probe.level != Level::Reachability;
        let detector = self.detector(probe.level);
        let begun = detector.last_answered().filter(|_| !detector.is_down()).map(|_| detector.changed());
        is_missed && self.returning.max(begun).is_some_and(|begun| probe.sent < begun)
    }

    /// That is an outage, no loss; and who does not forward, or does not answer at all, is out at every level beyond.
    fn on_fall(&mut self, level: Level) {
        if level == Level::Reachability {
            self.path.clear();
        }
        if matches!(level, Level::Reachability | Level::Forwarding) {
            self.beyond().for_each(Detector::forget_losses);
        }
    }

    /// Takes a verdict. Whoever leads nowhere has an outage, and loses nothing; who only may have one goes on being counted.
    pub(super) fn condemn(&mut self, evidence: Evidence<G, W>) {
        if evidence.fault == Fault::NotForwarding && !self.condemned.contains_key(&evidence.fault) {
            self.path.clear();
        }
        self.condemned.entry(evidence.fault).or_insert(evidence);
    }

    fn beyond(&mut self) -> impl Iterator<Item = &mut Detector> {
        self.levels
            .iter_mut()
            .filter(|(level, _)| Level::BEYOND.contains(level))
            .map(|(_, detector)| detector)
    }

    /// Whether nothing gets through it.
    fn is_out(&self) -> bool {
        self.detector(Level::Reachability).is_down() || self.condemned.contains_key(&Fault::NotForwarding)
    }

    /// Misses in a row that are more than chance at this level: what is lost in the VPC is lost on the way through, too, and on the way
    /// to a peer so is what the peer loses.
    fn misses_beyond_chance(&self, level: Level, now: Tick) -> u8 {
        let in_vpc = |span| misses_beyond_chance(self.detector(Level::Reachability).lost_before(span, now));
        let beyond = |span| {
            let levels =
                Level::BEYOND.into_iter().filter(|one| *one != Level::Source || level == Level::Source);
            let shares = levels.map(|level| self.detector(level).lost_before(span, now));
            misses_beyond_chance(shares.fold(Share::default(), |all, one| all + one))
        };
        // What has just begun, and what comes now and then.
        let spans = [FAST.span, SLOW.span];
        let misses = spans.into_iter().map(|span| {
            if level == Level::Reachability { in_vpc(span) } else { in_vpc(span).max(beyond(span)) }
        });
        misses.max().unwrap_or_default()
    }

    /// Counts what is lost. True: it is somebody dead who is silent once more.
    fn count(&mut self, probe: Probe<W>, now: Tick) -> bool {
        if probe.level == Level::Source && self.shared_address.is_some() {
            // Those are targets, some of which may be dead; what is lost on the way to them is counted past the address.
            return self.silent.hear(probe);
        }
        if probe.level == Level::Source {
            self.peers.hear(probe.witness, probe.sent, probe.outcome);
        }
        if !matches!(probe.level, Level::Forwarding | Level::FullSize) {
            return false;
        }
        let is_dead = self.silent.hear(probe);
        if self.peers.contains(&probe.witness) {
            return is_dead;
        }
        if probe.outcome == Outcome::Answered {
            self.reached = self.reached.max(Some(probe.sent));
        }
        if !self.is_out() && !self.detector(probe.level).is_down() {
            match probe.outcome {
                Outcome::Answered => self.path.answered(now),
                // What never answered is not there yet, and loses nothing.
                Outcome::Missed if !self.has_answered(probe.level) || is_dead => {}
                Outcome::Missed => self.path.missed(now, 1),
            }
        }
        is_dead
    }

    /// Whether a target is asked that is not dead at that level: what fails there, that one misses as well. A peer is no such: what fails on
    /// the way out only, it does not miss.
    fn is_told_by_a_target(&self, level: Level) -> bool {
        self.targets.iter().any(|target| !self.silent.is_dead(level, *target))
    }

    /// Whether this probe says what all the last ones said: that the way is there.
    pub(super) fn is_quiet(&self, probe: Probe<W>) -> bool {
        let detector = self.detector(probe.level);
        probe.outcome == Outcome::Answered
            && detector.missing().is_none()
            && detector.last_answered().is_some()
    }

    /// Whether anything of it is down, was found wanting, or has not shown since that it works.
    pub(super) fn is_in_doubt(&self) -> bool {
        !self.condemned.is_empty()
            || self.loses
            || self.returning.is_some()
            || self.levels.values().any(Detector::is_down)
    }

    pub(super) fn detector(&self, level: Level) -> &Detector {
        &self.levels[&level]
    }

    pub(super) fn detectors(&self) -> impl Iterator<Item = &Detector> {
        self.levels.values().chain([&self.loss])
    }

    pub(super) fn unanswered_at(&self, level: Level) -> Vec<W> {
        self.unanswered.get(&level).cloned().unwrap_or_default()
    }

    pub(super) fn works(&self, level: Level) -> Option<bool> {
        if !self.is_asked(level) {
            return None;
        }
        let detector = self.detector(level);
        if detector.is_down() { Some(false) } else { detector.last_answered().map(|_| true) }
    }

    /// Whether anybody is asked at that level.
    fn is_asked(&self, level: Level) -> bool {
        level == Level::Reachability || self.asked.contains(&level)
    }

    pub(super) fn has_answered(&self, level: Level) -> bool {
        self.detector(level).last_answered().is_some()
    }

    pub(super) fn is_alive(&self) -> bool {
        self.works(Level::Reachability) == Some(true)
    }

    /// When the last probe was sent that it answered at that level, if that is after the last miss of another one, whose misses began at
    /// `since`.
    pub(super) fn answered_after(&self, level: Level, since: Tick, last: Tick) -> Option<Tick> {
        let detector = self.detector(level);
        let answered = detector.last_answered().filter(|answered| *answered > last && !detector.is_down())?;
        // Who was down as well and came back first proves nothing until the other one has missed another probe: the outside may have come
        // back for both.
        (detector.changed() <= since || last >= detector.changed()).then_some(answered)
    }

    pub(super) fn standing(&self, now: Tick, another_is_proven: impl FnOnce() -> bool) -> Standing {
        let reachable = self.detector(Level::Reachability).standing(now);
        if self.shared_address.is_some() && self.works(Level::Source) != Some(true) {
            // Whatever it forwards: what is sent there gets nowhere before the address is there.
            return Standing { verdict: Verdict::Down, signal: Signal::Silent };
        }
        if !self.condemned.is_empty() {
            // It answers in the VPC: where every other one is silent, it may be better than nothing. One that leads nowhere is as good as silent.
            let leads_nowhere = self.condemned.contains_key(&Fault::NotForwarding);
            let signal = if leads_nowhere { Signal::Silent } else { reachable.signal };
            return Standing { verdict: Verdict::Down, signal };
        }
        if reachable.verdict != Verdict::Up {
            return reachable;
        }
        let doubtful = || {
            self.works(Level::Source) == Some(false)
                && !self.has_answered(Level::Source)
                && another_is_proven()
        };
        let is_on_trial = self.is_held_down(now) || self.returning.is_some() || doubtful();
        Standing { verdict: if is_on_trial { Verdict::Trial } else { Verdict::Up }, ..reachable }
    }

    /// Whether the hold-down of anything that failed is not over.
    fn is_held_down(&self, now: Tick) -> bool {
        self.detectors().any(|one| one.has_risen() && one.standing(now).verdict == Verdict::Trial)
    }

    /// Whether it has shown since then that it works: its hold-down is over, whoever answered through it before did so again, and enough
    /// probes were sent to tell of losses.
    pub(super) fn has_shown_itself(&self, begun: Tick, now: Tick) -> bool {
        let answers_again =
            |detector: &Detector| detector.last_answered().is_none_or(|answered| answered >= begun);
        let is_probed = self.is_probed();
        let counted = next_second(begun);
        let is_told = self.detector(Level::Reachability).lost_since(counted).total() >= SHOWN.1
            && (!is_probed || self.path.since(counted).total() >= SHOWN.0)
            && self.levels.values().all(answers_again);
        self.condemned.is_empty() && !self.is_held_down(now) && (is_told || now.since(begun) >= SHOWN_AFTER)
    }

    /// Whether it is the gateway that it was, as far as anybody can tell: not one that came back and that no other has seen since with
    /// its address, though one did before.
    pub(super) fn is_itself(&self) -> bool {
        let seen = self.detector(Level::Source).last_answered();
        self.returning.is_none_or(|begun| seen.is_none_or(|seen| seen >= begun))
    }

    /// Whether it lost hardly any probe since then, as far as any was sent.
    pub(super) fn hardly_lost_since(&self, begun: Tick) -> bool {
        let counted = next_second(begun);
        self.detector(Level::Reachability).lost_since(counted).is_clean(0)
            && self.path.since(counted).is_clean(0)
    }

    /// What was lost through it since then, on the way to targets.
    pub(super) fn lost_on_the_way(&self, begun: Tick) -> Share {
        self.path.since(begun)
    }

    /// What was lost of small packets to targets through it since then.
    pub(super) fn lost_of_small(&self, begun: Tick) -> Share {
        self.detector(Level::Forwarding).lost_since(begun)
    }

    /// Takes back what does not hold any more.
    pub(super) fn forgive(&mut self, now: Tick) {
        if self.loses
            && let Some(begun) = self.clean_since(now)
        {
            // It has worked since then: so long is the hold-down's part that is over.
            self.loses = false;
            self.returning = Some(begun);
            self.loss.on_probe(begun, Outcome::Answered);
            self.path.clear_before(begun);
            self.levels.values_mut().for_each(|one| one.forget_losses_before(begun));
        }
        let (levels, loses) = (&self.levels, self.loses);
        self.condemned.retain(|fault, _| match fault.level() {
            Some(level) => levels.get(&level).is_some_and(Detector::is_down),
            None => loses,
        });
    }
}

/// Losses are counted by the second: in the one in which a gateway began to answer there may be some from before.
fn next_second(begun: Tick) -> Tick {
    Tick(Duration::from_secs(begun.0.as_secs() + u64::from(begun.0.subsec_nanos() > 0)))
}

/// One answer from outside is proof enough: the next witness in turn may be a dead one.
fn of_level(config: &Config, level: Level) -> Config {
    let rise = if level == Level::Reachability { config.rise } else { NonZeroU8::MIN };
    Config { rise, ..config.clone() }
}

/// The verdict on loss is final as it comes: it was made over many probes.
fn of_loss(config: &Config) -> Config {
    Config { fall: NonZeroU8::MIN, rise: NonZeroU8::MIN, ..config.clone() }
}
