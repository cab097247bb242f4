//! Who of those that are asked through one gateway is dead: what such a one leaves without an answer is no loss; nor is it a miss while a
//! target is there to tell.

use std::collections::BTreeMap;

use crate::detector::Outcome;
use crate::watch::{Level, Probe};

/// Whoever left so many probes in a row without an answer is dead from the next one on.
const DEAD: u8 = 3;
/// So many are told apart: more than a health check and a list can have, at two levels.
const MOST: usize = 128;

/// How many probes in a row each of them left without an answer, at each level by itself.
#[derive(Debug, Clone)]
pub(super) struct Silent<W> {
    missed: BTreeMap<(Level, W), u8>,
}

impl<W> Default for Silent<W> {
    fn default() -> Self {
        Self { missed: BTreeMap::new() }
    }
}

impl<W: Copy + Ord> Silent<W> {
    /// Takes the outcome of a probe; true: a dead one is silent once more.
    pub(super) fn hear(&mut self, probe: Probe<W>) -> bool {
        let asked = (probe.level, probe.witness);
        if probe.outcome == Outcome::Answered {
            self.missed.remove(&asked);
            return false;
        }
        if self.missed.len() >= MOST && !self.missed.contains_key(&asked) {
            self.missed.clear();
        }
        let missed = self.missed.entry(asked).or_default();
        *missed = missed.saturating_add(1);
        self.is_dead(probe.level, probe.witness)
    }

    /// Whether that one is dead at that level.
    pub(super) fn is_dead(&self, level: Level, witness: W) -> bool {
        self.missed.get(&(level, witness)).is_some_and(|missed| *missed > DEAD)
    }
}
