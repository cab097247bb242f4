//! All gateways of a node, at every level, and who of them does not work: the verdict by difference.
//!
//! | level | an answer proves |
//! | --- | --- |
//! | [`Level::Reachability`] | the gateway's kernel lives |
//! | [`Level::Forwarding`] | it forwards and translates, and has a way out, to a target off the gateways' own subnet |
//! | [`Level::Source`] | the outside sees the expected address: another gateway did, which answers to that address only |
//! | [`Level::FullSize`] | packets of full size get through |
//!
//! Each level of each gateway has a [`Detector`] of its own. A gateway that does not answer in the VPC is down, whoever else is. A level
//! above that is judged by **difference**: it condemns gateway A when it is down at A and another gateway B, which answers in the VPC,
//! got an answer to a probe that was sent *after* the last of the misses that brought it down. What fails through everybody (a dead
//! target, the internet) so condemns nobody.
//!
//! | what is broken | forwarding A / B | source A / B | full size A / B | condemned |
//! | --- | --- | --- | --- | --- |
//! | nothing | ok / ok | ok / ok | ok / ok | nobody |
//! | A: forwarding off, no translation, public link down, one direction dropped, connection table full | fails / ok | fails / fails or ok | fails / ok | A: does not forward |
//! | A: no default route, or a dead provider's gateway | fails / ok | ok / ok (on-link) | ok or fails / ok | A: does not forward |
//! | A leaves with another address | ok / ok | fails / ok | ok / ok | A: unexpected source |
//! | A: black hole for large packets | ok / ok | ok / ok | fails / ok | A: loses large packets |
//! | B is dead: A's only peer | ok / fails | fails / fails | ok / fails | B, not A |
//! | one target is dead | ok / ok (the next is asked) | ok / ok | ok / ok | nobody |
//! | all targets, or the internet | fails / fails | ok / ok | ok or fails / the same | nobody: hold |
//!
//! - **Source**: A is asked about by its peers; that one is dead says nothing against A. So B must have got answers from outside all
//!   the time, and after A's misses (level forwarding), which a dead B does not. Where a gateway was never seen with the expected address, nobody
//!   knows whether its peers admit it: it is not condemned, but it is on trial while another is proven.
//! - **Full size**: peers and targets are asked in turn, or A's way out and B's way in could not be told apart. It condemns only who
//!   once got such an answer: some targets never give one.
//! - **Loss** is judged by difference, too: [`Config::loss_percent`] over 30 s, or twice that over 6 s, against a gateway that lost at
//!   most 5 % in that time. In the VPC and on the way through, each by itself.
//!
//! Whoever was condemned is on trial for its hold-down once it works again, as after a fall in the VPC.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU8;
use std::time::Duration;

use crate::config::Config;
use crate::detector::{Detector, Outcome, Signal, Standing, Transition, Verdict};
use crate::loss::{Loss, Share, misses_beyond_chance};
use crate::selection::Candidate;
use crate::tick::Tick;

mod evidence;

pub use evidence::{Evidence, Fault};

/// What a probe asks; the table of this module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// The gateway's kernel, in the VPC.
    Reachability,
    /// The way through it to a target outside.
    Forwarding,
    /// The way through it to another gateway, which answers to the expected address only.
    Source,
    /// The way through it for a packet of full size.
    FullSize,
}

impl Level {
    /// All of them, from the gateway outwards.
    pub const ALL: [Self; 4] = [Self::Reachability, Self::Forwarding, Self::Source, Self::FullSize];
    const BEYOND: [Self; 3] = [Self::Forwarding, Self::Source, Self::FullSize];
}

/// One probe that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe<W> {
    /// What it asked.
    pub level: Level,
    /// Whom.
    pub witness: W,
    /// When it was sent.
    pub sent: Tick,
    /// How it ended.
    pub outcome: Outcome,
}

/// What one probe changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Noticed {
    /// The level of that gateway fell, rose or was met.
    pub transition: Option<Transition>,
    /// The choice of a gateway may be another one now.
    pub may_move: bool,
}

/// Windows of the loss detectors, fast and slow. Besides the share that is lost, so many probes must have been lost that chance does
/// not do it at a true 10 %: of eleven probes through a gateway in six seconds (two levels, about one a second each) seven, of about
/// fifty-five in thirty seconds sixteen: about once in 44,000 windows, and in 15,000. Misses are asked again at once, so that at 60 % loss there are
/// twenty probes and more in six seconds. The VPC is asked ten times a second.
const FAST: Window =
    Window { span: Duration::from_secs(6), lost: 7, clean: 6, lost_in_vpc: 20, clean_in_vpc: 30 };
const SLOW: Window =
    Window { span: Duration::from_secs(30), lost: 16, clean: 30, lost_in_vpc: 50, clean_in_vpc: 150 };
/// So long a peer that came back must have been there before a probe that it leaves without an answer counts again.
const BELIEVED_AFTER: Duration = Duration::from_secs(3);
/// So many peers are told from targets: more than a list can have.
const MOST_PEERS: usize = 32;

#[derive(Debug, Clone, Copy)]
struct Window {
    span: Duration,
    /// The fewest lost probes that condemn, and the fewest probes that clear, on the way through.
    lost: u32,
    clean: u32,
    /// The same in the VPC.
    lost_in_vpc: u32,
    clean_in_vpc: u32,
}

/// The gateways of a node. `G` names a gateway, `W` whoever is asked through it.
#[derive(Debug, Clone)]
pub struct Watch<G, W> {
    gateways: BTreeMap<G, Watched<G, W>>,
}

impl<G, W> Default for Watch<G, W> {
    fn default() -> Self {
        Self { gateways: BTreeMap::new() }
    }
}

#[derive(Debug, Clone)]
struct Watched<G, W> {
    config: Config,
    levels: BTreeMap<Level, Detector>,
    /// Fed by the verdict on loss, so that losing has a hold-down, too.
    loss: Detector,
    loses: bool,
    /// Probes through it to targets. Those to peers would tell of the peers' losses, too.
    path: Loss,
    /// Who is asked as a peer.
    peers: BTreeSet<W>,
    /// Who did not answer in the present run of misses of each level.
    unanswered: BTreeMap<Level, Vec<W>>,
    condemned: BTreeMap<Fault, Evidence<G, W>>,
}

impl<G: Copy + Ord, W: Copy + Ord> Watch<G, W> {
    /// Watches exactly these; of new ones nothing is known.
    pub fn retain(&mut self, wanted: &BTreeMap<G, Config>, now: Tick) {
        self.gateways.retain(|gateway, _| wanted.contains_key(gateway));
        for (gateway, config) in wanted {
            let watched = self.gateways.entry(*gateway).or_insert_with(|| Watched::new(config.clone(), now));
            watched.configure(config);
        }
        for watched in self.gateways.values_mut() {
            watched.condemned.retain(|_, evidence| wanted.contains_key(&evidence.other));
        }
    }

    /// Takes one probe that ended at `now`.
    pub fn on_probe(&mut self, gateway: G, probe: Probe<W>, now: Tick) -> Noticed {
        let Some(watched) = self.gateways.get_mut(&gateway) else { return Noticed::default() };
        let is_quiet = watched.is_quiet(probe);
        let before = self.standings(now);
        let Some(watched) = self.gateways.get_mut(&gateway) else { return Noticed::default() };
        let transition = watched.on_probe(probe, now);
        // Most probes are answered by one that works, among others that do: they change nothing.
        if !is_quiet || self.gateways.values().any(Watched::is_in_doubt) {
            self.judge(now);
        }
        Noticed { transition, may_move: before != self.standings(now) }
    }

    /// What is known of a gateway, all levels together: what [`crate::select`] and [`crate::share`] take.
    pub fn standing(&self, gateway: G, now: Tick) -> Standing {
        let Some(watched) = self.gateways.get(&gateway) else {
            return Standing { verdict: Verdict::Unknown, signal: Signal::Wavering };
        };
        let another_is_proven = || {
            self.others(gateway)
                .any(|other| other.works(Level::Source) == Some(true) && other.condemned.is_empty())
        };
        watched.standing(now, another_is_proven)
    }

    /// The gateways of an ordered list with their standings.
    pub fn candidates(&self, listed: &[G], now: Tick) -> Vec<Candidate<G>> {
        let candidate = |gateway: &G| Candidate { gateway: *gateway, standing: self.standing(*gateway, now) };
        listed.iter().map(candidate).collect()
    }

    /// Why a gateway that answers in the VPC does not work, if it is known not to; the first reason from the gateway outwards.
    pub fn condemned(&self, gateway: G) -> Option<&Evidence<G, W>> {
        self.gateways.get(&gateway)?.condemned.values().next()
    }

    /// Why a node that used `gateway` left it for another one: [`Watch::condemned`], or that it does not answer in the VPC.
    pub fn evidence(&self, gateway: G, other: G) -> Option<Evidence<G, W>> {
        let watched = self.gateways.get(&gateway)?;
        let detector = watched.detector(Level::Reachability);
        let (Some((since, _)), true) =
            (detector.missing(), watched.works(Level::Reachability) == Some(false))
        else {
            return self.condemned(gateway).cloned();
        };
        Some(Evidence {
            fault: Fault::Unreachable,
            since,
            misses: detector.misses(),
            lost_percent: None,
            unanswered: watched.unanswered_at(Level::Reachability),
            other,
            answered: self
                .gateways
                .get(&other)
                .and_then(|other| other.detector(Level::Reachability).last_answered()),
        })
    }

    /// Whether the node would not use it while another works: a vote for its replacement.
    pub fn is_condemned(&self, gateway: G) -> bool {
        let Some(watched) = self.gateways.get(&gateway) else { return false };
        let silent = watched.works(Level::Reachability) == Some(false);
        !watched.condemned.is_empty()
            || silent && self.others(gateway).any(|other| other.works(Level::Reachability) == Some(true))
    }

    /// What to say of a level: `None` while it was never answered, nor failed.
    pub fn works(&self, gateway: G, level: Level) -> Option<bool> {
        self.gateways.get(&gateway)?.works(level)
    }

    /// Whether a level was ever answered.
    pub fn has_answered(&self, gateway: G, level: Level) -> bool {
        self.gateways.get(&gateway).is_some_and(|watched| watched.has_answered(level))
    }

    /// Whether every one of them is known to be of no use: what `onNoGateway` waits for. Not while anything is unknown or in doubt, not
    /// when the outside is gone through all of them, and not when one only loses packets.
    pub fn none_works(&self, listed: &[G]) -> bool {
        let is_out = |gateway: &G| {
            self.gateways.get(gateway).is_some_and(|watched| {
                watched.works(Level::Reachability) == Some(false)
                    || watched.condemned.keys().any(|fault| fault.is_total())
            })
        };
        !listed.is_empty() && listed.iter().all(is_out)
    }

    /// Whether no gateway answers in the VPC: then the neighbours tell whether it is the node that is cut off.
    pub fn all_silent(&self) -> bool {
        !self.gateways.is_empty()
            && self.gateways.values().all(|watched| watched.works(Level::Reachability) == Some(false))
    }

    /// When a standing will change without a probe: the end of a hold-down.
    pub fn next_deadline(&self, now: Tick) -> Option<Tick> {
        self.gateways.values().flat_map(Watched::detectors).filter_map(|one| one.next_deadline(now)).min()
    }

    fn others(&self, gateway: G) -> impl Iterator<Item = &Watched<G, W>> {
        self.gateways.iter().filter(move |(other, _)| **other != gateway).map(|(_, watched)| watched)
    }

    fn standings(&self, now: Tick) -> Vec<Standing> {
        self.gateways.keys().map(|gateway| self.standing(*gateway, now)).collect()
    }

    // By difference: pairs are few, and this is the one place where gateways are compared.
    fn judge(&mut self, now: Tick) {
        let gateways: Vec<G> = self.gateways.keys().copied().collect();
        for gateway in gateways {
            self.forgive(gateway, now);
            for level in Level::BEYOND {
                if let Some(evidence) = self.accuse(gateway, level) {
                    self.condemn(gateway, evidence);
                }
            }
            if let Some(evidence) = self.accuse_of_loss(gateway, now) {
                self.condemn(gateway, evidence);
            }
        }
    }

    fn condemn(&mut self, gateway: G, evidence: Evidence<G, W>) {
        if let Some(watched) = self.gateways.get_mut(&gateway) {
            watched.condemned.entry(evidence.fault).or_insert(evidence);
        }
    }

    fn forgive(&mut self, gateway: G, now: Tick) {
        let Some(watched) = self.gateways.get_mut(&gateway) else { return };
        if watched.loses && watched.hardly_loses(SLOW, now) {
            watched.loses = false;
            watched.loss.on_probe(now, Outcome::Answered);
        }
        let (levels, loses) = (&watched.levels, watched.loses);
        watched.condemned.retain(|fault, _| match fault.level() {
            Some(level) => levels.get(&level).is_some_and(Detector::is_down),
            None => loses,
        });
    }

    fn accuse(&self, gateway: G, level: Level) -> Option<Evidence<G, W>> {
        let watched = self.gateways.get(&gateway).filter(|watched| watched.is_alive())?;
        let detector = watched.levels.get(&level).filter(|detector| detector.is_down())?;
        if level != Level::Forwarding && !watched.has_answered(level) {
            return None;
        }
        let (since, last) = detector.missing()?;
        let proof = if level == Level::Source { Level::Forwarding } else { level };
        let (other, answered) = self.gateways.iter().find_map(|(other, watched)| {
            let detector = watched.levels.get(&proof)?;
            let answered = detector.last_answered()?;
            let is_better = *other != gateway && answered > last && watched.is_alive() && !detector.is_down();
            // Who was down as well and came back first proves nothing until the accused has missed another probe: the outside may have
            // come back for both. A peer that was dead meanwhile answered nobody: that is no word against the source of another until
            // it was there for a while.
            let believed = if level == Level::Source { BELIEVED_AFTER } else { Duration::ZERO };
            let was_there = detector.changed() <= since || last >= detector.changed().after(believed);
            (is_better && was_there).then_some((*other, answered))
        })?;
        Some(Evidence {
            fault: Fault::of(level),
            since,
            misses: detector.misses(),
            lost_percent: None,
            unanswered: watched.unanswered_at(level),
            other,
            answered: Some(answered),
        })
    }

    fn accuse_of_loss(&mut self, gateway: G, now: Tick) -> Option<Evidence<G, W>> {
        let watched = self.gateways.get(&gateway).filter(|watched| watched.is_alive())?;
        let slow_percent = u32::from(watched.config.loss_percent);
        let fast_percent = (2 * slow_percent).min(90);
        let (span, lost, other) =
            [(FAST, fast_percent), (SLOW, slow_percent)].into_iter().find_map(|(window, percent)| {
                let lost = watched.loses(window, percent, now)?;
                let better = self.gateways.iter().find(|(other, watched)| {
                    **other != gateway
                        && watched.is_alive()
                        && watched.condemned.is_empty()
                        && watched.hardly_loses(window, now)
                })?;
                Some((window.span, lost, *better.0))
            })?;
        let watched = self.gateways.get_mut(&gateway)?;
        if !watched.loses {
            watched.loses = true;
            watched.loss.on_probe(now, Outcome::Missed);
        }
        Some(Evidence {
            fault: Fault::LosesPackets,
            since: Tick(now.0.saturating_sub(span)),
            misses: u8::try_from(lost.missed).unwrap_or(u8::MAX),
            lost_percent: Some(u8::try_from(lost.missed * 100 / lost.total().max(1)).unwrap_or(100)),
            unanswered: Vec::new(),
            other,
            answered: None,
        })
    }
}

impl<G, W: Copy + Ord> Watched<G, W> {
    fn new(config: Config, now: Tick) -> Self {
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

    fn configure(&mut self, config: &Config) {
        if self.config != *config {
            self.config = config.clone();
            for (level, detector) in &mut self.levels {
                detector.configure(&of_level(config, *level));
            }
            self.loss.configure(&of_loss(config));
        }
    }

    fn on_probe(&mut self, probe: Probe<W>, now: Tick) -> Option<Transition> {
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
    fn is_quiet(&self, probe: Probe<W>) -> bool {
        let detector = self.detector(probe.level);
        probe.outcome == Outcome::Answered
            && detector.missing().is_none()
            && detector.last_answered().is_some()
    }

    /// Whether anything of it is down, or was found wanting.
    fn is_in_doubt(&self) -> bool {
        !self.condemned.is_empty() || self.loses || self.levels.values().any(Detector::is_down)
    }

    fn detector(&self, level: Level) -> &Detector {
        &self.levels[&level]
    }

    fn detectors(&self) -> impl Iterator<Item = &Detector> {
        self.levels.values().chain([&self.loss])
    }

    fn unanswered_at(&self, level: Level) -> Vec<W> {
        self.unanswered.get(&level).cloned().unwrap_or_default()
    }

    fn works(&self, level: Level) -> Option<bool> {
        let detector = self.detector(level);
        if detector.is_down() { Some(false) } else { detector.last_answered().map(|_| true) }
    }

    fn has_answered(&self, level: Level) -> bool {
        self.detector(level).last_answered().is_some()
    }

    fn is_alive(&self) -> bool {
        self.works(Level::Reachability) == Some(true)
    }

    fn standing(&self, now: Tick, another_is_proven: impl FnOnce() -> bool) -> Standing {
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

    fn loses(&self, window: Window, percent: u32, now: Tick) -> Option<Share> {
        let vpc = self.detector(Level::Reachability).lost(window.span, now);
        let path = self.path.over(window.span, now);
        let shares = [(vpc, window.lost_in_vpc), (path, window.lost)];
        shares.into_iter().find(|(share, enough)| share.loses(percent, *enough)).map(|(share, _)| share)
    }

    // Where the way through it is not probed, the VPC alone tells.
    fn hardly_loses(&self, window: Window, now: Tick) -> bool {
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

/// Whether it is the node that is cut off, when no gateway answers it: none of its neighbours in the VPC does. A node that knows of no
/// neighbour can't tell, and is not.
pub fn is_cut_off(all_silent: bool, neighbours: &[Outcome]) -> bool {
    all_silent && !neighbours.is_empty() && neighbours.iter().all(|outcome| *outcome == Outcome::Missed)
}

#[cfg(test)]
mod tests;
