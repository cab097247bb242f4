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
//! | B's probe port is shut: with two gateways nobody can tell it from that | ok / ok | fails / ok | ok / ok | A: unexpected source |
//! | both probe ports are shut, or A and B do not reach each other outside | ok / ok | fails / fails | ok / ok | nobody |
//! | A: black hole for large packets | ok / ok | ok / ok | fails / ok | A: loses large packets |
//! | B is dead: A's only peer | ok / fails | fails / fails | ok / fails | B, not A |
//! | one target is dead | ok / ok (the next is asked) | ok / ok | ok / ok | nobody |
//! | all targets but one have been dead for long | ok / ok (their silence is no news) | ok / ok | ok / ok | nobody |
//! | all targets, or the internet | fails / fails | ok / ok | ok or fails / the same | nobody: hold |
//!
//! - **Source**: the silence of a peer counts where that peer answers somebody else, of all gateways that ask it; where A alone asks it, when
//!   it gets an answer itself from whom it asks, A for one (`source`). Where a gateway was never seen with the expected address, nobody
//!   knows whether its peers admit it: it is not condemned, but it is on trial while another is proven.
//!   One that came back and was not seen with its address since may be another machine, or shut off from the others: it is not condemned
//!   either, and on trial while another was there all the time.
//! - **Full size**: peers and targets are asked in turn, or A's way out and B's way in could not be told apart. It condemns only who
//!   once got such an answer: some targets never give one.
//! - **Loss** is judged by difference, too: [`Config::loss_percent`] over 30 s, or twice that over 6 s, against a gateway that lost at
//!   most 5 % in that time. In the VPC and on the way through, each by itself.
//!
//! Where gateways have one address in common, which is at one of them at a time (`moving`), [`Level::Source`] asks who has it: the way out
//! with that address, which is open at its holder only. Forwarding and full size are asked another way, past the address, so that whoever
//! waits for it is judged as its holder is. A gateway at which the address is not seen is as good as silent: nobody goes there, and who is
//! there stays until it is seen elsewhere.
//!
//! Whoever was condemned is on trial once it works again, as after a fall in the VPC: for its hold-down, and until it has shown that it
//! works. What counts for that begins when it began to answer: whoever answered through it before has answered again, and of the probes
//! since then it lost hardly any, or no more than the others. So one that loses many is not returned to for an answer now and then, and
//! what was lost before keeps nobody away.

mod evidence;
mod judge;
mod moving;
mod peers;
mod source;
#[cfg(test)]
mod tests;
mod watched;

use std::collections::{BTreeMap, BTreeSet};

pub use evidence::{Evidence, Fault};
use watched::Watched;

use crate::config::Config;
use crate::detector::{Outcome, Signal, Standing, Transition, Verdict};
use crate::selection::Candidate;
use crate::tick::Tick;

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

/// A gateway that is to be watched, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted<W> {
    /// Its thresholds.
    pub config: Config,
    /// At which levels anybody is asked, besides [`Level::Reachability`]. What nobody asks any more is held against nobody.
    pub asked: BTreeSet<Level>,
    /// Who is asked outside, off the gateways' own subnet.
    pub targets: BTreeSet<W>,
    /// As whom it is asked about the others: its own public probe port.
    pub seen_as: BTreeSet<W>,
    /// The address that it has in common with others, at one of which it is at a time.
    pub shared_address: Option<W>,
}

impl<W: Ord> Wanted<W> {
    /// Asked about at every level, of these targets, and about others as `seen_as`.
    pub fn at_every_level(config: Config, targets: impl IntoIterator<Item = W>, seen_as: W) -> Self {
        let targets = targets.into_iter().collect();
        let seen_as = [seen_as].into();
        Self { config, asked: Level::ALL.into(), targets, seen_as, shared_address: None }
    }
}

/// What one probe changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Noticed {
    /// The level of that gateway fell, rose or was met.
    pub transition: Option<Transition>,
    /// The choice of a gateway may be another one now.
    pub may_move: bool,
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

impl<G: Copy + Ord, W: Copy + Ord> Watch<G, W> {
    /// Watches exactly these; of new ones nothing is known.
    pub fn retain(&mut self, wanted: &BTreeMap<G, Wanted<W>>, now: Tick) {
        self.gateways.retain(|gateway, _| wanted.contains_key(gateway));
        for (gateway, wanted) in wanted {
            let watched = self.gateways.entry(*gateway).or_insert_with(|| Watched::new(wanted, now));
            watched.configure(wanted, now);
        }
        // A verdict by difference holds until what failed works, whether or not the gateway that it was made by is still there, or any other.
        self.judge(now);
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

    /// What to say of a level: `None` while it was never answered, nor failed, or nobody asks.
    pub fn works(&self, gateway: G, level: Level) -> Option<bool> {
        self.gateways.get(&gateway)?.works(level)
    }

    /// Whether the outside sees its packets with the address that they should have. Of an address that moves: `None` where it is not and
    /// need not be.
    pub fn is_seen_as_expected(&self, gateway: G) -> Option<bool> {
        let watched = self.gateways.get(&gateway)?;
        let is_blamed = watched.condemned.contains_key(&Fault::UnexpectedSource);
        let works = watched.works(Level::Source)?;
        (works || watched.shared_address.is_none() || is_blamed).then_some(works)
    }

    /// Whether it is known what a level of it is worth for now: it is down, or the gateway does not answer at all. More probes at once
    /// would tell nothing new.
    pub fn is_judged(&self, gateway: G, level: Level) -> bool {
        [level, Level::Reachability].iter().any(|level| self.works(gateway, *level) == Some(false))
    }

    /// Whether a level was ever answered.
    pub fn has_answered(&self, gateway: G, level: Level) -> bool {
        self.gateways.get(&gateway).is_some_and(|watched| watched.has_answered(level))
    }

    /// Whether every one of them is known to be of no use: what `onNoGateway` waits for. Not while anything is unknown or in doubt, not
    /// when the outside is gone through all of them, and not when one only loses packets. Who waits for an address is of no use when the
    /// one is out that had it.
    pub fn none_works(&self, listed: &[G]) -> bool {
        let is_out = |gateway: &G| {
            self.gateways.get(gateway).is_some_and(|watched| {
                watched.works(Level::Reachability) == Some(false)
                    || watched.condemned.keys().any(|fault| fault.is_total())
            })
        };
        let is_passed_over = |gateway: &G| self.waits_for_the_address(*gateway, listed, is_out);
        !listed.is_empty() && listed.iter().all(|gateway| is_out(gateway) || is_passed_over(gateway))
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
}

/// Whether it is the node that is cut off, when no gateway answers it: none of its neighbours in the VPC does. A node that knows of no
/// neighbour can't tell, and is not.
pub fn is_cut_off(all_silent: bool, neighbours: &[Outcome]) -> bool {
    all_silent && !neighbours.is_empty() && neighbours.iter().all(|outcome| *outcome == Outcome::Missed)
}
