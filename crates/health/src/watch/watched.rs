//! What is known of one gateway: a detector for each level, one for loss, who did not answer, and what it is condemned for.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU8;
use std::time::Duration;

use super::evidence::{Evidence, Fault};
use super::{Level, Probe};
use crate::config::Config;
use crate::detector::{Detector, Outcome, Standing, Transition, Verdict};
use crate::loss::{Loss, Share, misses_beyond_chance};
use crate::tick::Tick;

/// Windows of the loss detectors, fast and slow. Besides the share that is lost, so many probes must have been lost that chance does
/// not do it at a true 10 %: of eleven probes through a gateway in six seconds (two levels, about one a second each) seven, of about
/// fifty-five in thirty seconds sixteen: about once in 44,000 windows, and in 15,000. Misses are asked again at once, so that at 60 % loss there are
/// twenty probes and more in six seconds. The VPC is asked ten times a second.
pub(super) const FAST: Window =
    Window { span: Duration::from_secs(6), lost: 7, clean: 6, lost_in_vpc: 20, clean_in_vpc: 30 };
pub(super) const SLOW: Window =
    Window { span: Duration::from_secs(30), lost: 16, clean: 30, lost_in_vpc: 50, clean_in_vpc: 150 };
/// So many peers are told from targets: more than a list can have.
const MOST_PEERS: usize = 32;

#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    pub(super) span: Duration,
    /// The fewest lost probes that condemn, and the fewest probes that clear, on the way through.
    lost: u32,
    clean: u32,
    /// The same in the VPC.
    lost_in_vpc: u32,
    clean_in_vpc: u32,
}

#[derive(Debug, Clone)]
pub(super) struct Watched<G, W> {
    pub(super) config: Config,
    pub(super) levels: BTreeMap<Level, Detector>,
    /// Fed by the verdict on loss, so that losing has a hold-down, too.
    pub(super) loss: Detector,
    pub(super) loses: bool,
    /// Probes through it to targets. Those to peers would tell of the peers' losses, too.
    path: Loss,
    /// Who is asked as a peer.
    peers: BTreeSet<W>,
    /// Who did not answer in the present run of misses of each level.
    unanswered: BTreeMap<Level, Vec<W>>,
    pub(super) condemned: BTreeMap<Fault, Evidence<G, W>>,
}

impl<G, W: Copy + Ord> Watched<G, W> {
    pub(super) fn new(config: Config, now: Tick) -> Self {
        let detectors = Level::ALL.map(|level| (level, Detector::new(of_level(&config, level), now)));
        Self {
            loss: Detector::new(of_loss(&config), now),
            config,
            levels: detectors.into_iter().collect(),
            loses: false,
            path: Loss::default(),
            peers: BTreeSet::new(),
            unanswered: BTreeMap::new(),
            condemned: BTreeMap::new(),
        }
    }

    pub(super) fn configure(&mut self, config: &Config) {
        if self.config != *config {
            self.config = config.clone();
            for (level, detector) in &mut self.levels {
                detector.configure(&of_level(config, *level));
            }
            self.loss.configure(&of_loss(config));
        }
    }

    pub(super) fn on_probe(&mut self, probe: Probe<W>, now: Tick) -> Option<Transition> {
        let unanswered = self.unanswered.entry(probe.level).or_default();
        match probe.outcome {
            Outcome::Answered => unanswered.clear(),
            // A few are enough to be told of.
            Outcome::Missed if unanswered.len() < 4 && !unanswered.contains(&probe.witness) => {
                unanswered.push(probe.witness);
            }
            Outcome::Missed => {}
        }
        self.count(probe, now);
        // What does not get through at all says nothing of large packets.
        if probe.level == Level::FullSize
            && probe.outcome == Outcome::Missed
            && self.detector(Level::Forwarding).is_down()
        {
            return None;
        }
        let beyond_chance =
            if probe.outcome == Outcome::Missed { self.misses_beyond_chance(probe.level, now) } else { 0 };
        let detector = self.levels.get_mut(&probe.level)?;
        detector.expect_misses(beyond_chance);
        let transition = detector.on_sent_probe(probe.sent, now, probe.outcome);
        if matches!(transition, Some(Transition::Fell { .. })) {
            // That is an outage, no loss.
            self.path.clear();
        }
        transition
    }

    /// Misses in a row that are more than chance at this level: what is lost in the VPC is lost on the way through, too.
    fn misses_beyond_chance(&self, level: Level, now: Tick) -> u8 {
        let in_vpc = |span| misses_beyond_chance(self.detector(Level::Reachability).lost_before(span, now));
        let beyond = |span| {
            let shares = Level::BEYOND.map(|level| self.detector(level).lost_before(span, now));
            misses_beyond_chance(shares.into_iter().fold(Share::default(), |all, one| all + one))
        };
        // What has just begun, and what comes now and then.
        let spans = [FAST.span, SLOW.span];
        let misses = spans.into_iter().map(|span| {
            if level == Level::Reachability { in_vpc(span) } else { in_vpc(span).max(beyond(span)) }
        });
        misses.max().unwrap_or_default()
    }

    fn count(&mut self, probe: Probe<W>, now: Tick) {
        let is_out = [Level::Reachability, Level::Forwarding, probe.level]
            .iter()
            .any(|level| self.detector(*level).is_down());
        match (probe.level, probe.outcome) {
            (Level::Source, _) if self.peers.len() < MOST_PEERS => {
                self.peers.insert(probe.witness);
            }
            (Level::Reachability | Level::Source, _) => {}
            _ if is_out || self.peers.contains(&probe.witness) => {}
            (_, Outcome::Answered) => self.path.answered(now),
            (_, Outcome::Missed) => self.path.missed(now, 1),
        }
    }

    /// Whether this probe says what all the last ones said: that the way is there.
    pub(super) fn is_quiet(&self, probe: Probe<W>) -> bool {
        let detector = self.detector(probe.level);
        probe.outcome == Outcome::Answered
            && detector.missing().is_none()
            && detector.last_answered().is_some()
    }

    /// Whether anything of it is down, or was found wanting.
    pub(super) fn is_in_doubt(&self) -> bool {
        !self.condemned.is_empty() || self.loses || self.levels.values().any(Detector::is_down)
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
        let detector = self.detector(level);
        if detector.is_down() { Some(false) } else { detector.last_answered().map(|_| true) }
    }

    pub(super) fn has_answered(&self, level: Level) -> bool {
        self.detector(level).last_answered().is_some()
    }

    pub(super) fn is_alive(&self) -> bool {
        self.works(Level::Reachability) == Some(true)
    }

    pub(super) fn standing(&self, now: Tick, another_is_proven: impl FnOnce() -> bool) -> Standing {
        let reachable = self.detector(Level::Reachability).standing(now);
        if !self.condemned.is_empty() {
            // It answers in the VPC: where every other one is silent, it may be better than nothing.
            return Standing { verdict: Verdict::Down, ..reachable };
        }
        if reachable.verdict != Verdict::Up {
            return reachable;
        }
        let recovering = Level::BEYOND
            .map(|level| self.detector(level))
            .into_iter()
            .chain([&self.loss])
            .any(|one| one.has_risen() && one.standing(now).verdict == Verdict::Trial);
        let doubtful = || {
            self.works(Level::Source) == Some(false)
                && !self.has_answered(Level::Source)
                && another_is_proven()
        };
        let verdict = if recovering || doubtful() { Verdict::Trial } else { Verdict::Up };
        Standing { verdict, ..reachable }
    }

    pub(super) fn loses(&self, window: Window, percent: u32, now: Tick) -> Option<Share> {
        let vpc = self.detector(Level::Reachability).lost(window.span, now);
        let path = self.path.over(window.span, now);
        let shares = [(vpc, window.lost_in_vpc), (path, window.lost)];
        shares.into_iter().find(|(share, enough)| share.loses(percent, *enough)).map(|(share, _)| share)
    }

    // Where the way through it is not probed, the VPC alone tells.
    pub(super) fn hardly_loses(&self, window: Window, now: Tick) -> bool {
        let vpc = self.detector(Level::Reachability).lost(window.span, now);
        let path = self.path.over(window.span, now);
        let is_probed = self.has_answered(Level::Forwarding);
        vpc.is_clean(window.clean_in_vpc) && (!is_probed || path.is_clean(window.clean))
    }
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
