//! Who of those that are asked through one gateway is dead: what such a one leaves without an answer is no loss; nor is it a miss while a
//! target is there to tell, nor where it was dead before the others began to be silent.

use std::collections::BTreeMap;

use crate::detector::Outcome;
use crate::tick::Tick;
use crate::watch::{Level, Probe};

/// Whoever left so many probes in a row without an answer is dead from the next one on.
const DEAD: u8 = 3;
/// So many are told apart: more than a health check and a list can have, at two levels.
const MOST: usize = 128;

/// What each of them said last, at each level by itself.
#[derive(Debug, Clone)]
pub(super) struct Silent<W> {
    heard: BTreeMap<(Level, W), Heard>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Heard {
    has_answered: bool,
    /// Probes in a row without an answer.
    missed: u8,
    /// When the one was sent by which it is dead.
    dead_since: Option<Tick>,
}

impl<W> Default for Silent<W> {
    fn default() -> Self {
        Self { heard: BTreeMap::new() }
    }
}

impl<W: Copy + Ord> Silent<W> {
    /// Takes the outcome of a probe; since when it is a dead one that is silent once more, if it is.
    pub(super) fn hear(&mut self, probe: Probe<W>) -> Option<Tick> {
        let asked = (probe.level, probe.witness);
        if self.heard.len() >= MOST && !self.heard.contains_key(&asked) {
            self.heard.clear();
        }
        let heard = self.heard.entry(asked).or_default();
        if probe.outcome == Outcome::Answered {
            *heard = Heard { has_answered: true, ..Heard::default() };
            return None;
        }
        heard.missed = heard.missed.saturating_add(1);
        if heard.missed > DEAD {
            heard.dead_since.get_or_insert(probe.sent);
        }
        heard.dead_since
    }

    /// Whether that one is dead at that level.
    pub(super) fn is_dead(&self, level: Level, witness: W) -> bool {
        self.heard.get(&(level, witness)).is_some_and(|heard| heard.dead_since.is_some())
    }

    /// Whether that one ever answered at that level.
    pub(super) fn has_answered(&self, level: Level, witness: W) -> bool {
        self.heard.get(&(level, witness)).is_some_and(|heard| heard.has_answered)
    }

    /// Nobody is asked at that level any more.
    pub(super) fn forget(&mut self, level: Level) {
        self.heard.retain(|(asked, _), _| *asked != level);
    }
}
