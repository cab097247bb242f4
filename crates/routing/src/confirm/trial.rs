//! A change on trial: what was confirmed, what is tried, and what was found cut off since.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use super::look::Target;
use crate::kernel_state::NexthopId;
use crate::ways::Ways;

/// Looks in a row that must see the same cut. One look takes 0.9 s at most: a lost packet, and even a gateway that dies and
/// is left in that moment, cost nobody a rollback, and three are over in well under 5 s.
const MISSES: u32 = 3;

/// Time from a look that saw a cut to the next.
const AGAIN: Duration = Duration::from_millis(100);

/// First and longest time between two looks that proved nothing.
const SILENCE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));

#[derive(Debug)]
pub(super) struct Trial {
    /// `None` after a start.
    pub confirmed: Option<Ways>,
    pub tried: Ways,
    pub next_look: Duration,
    /// The change that `next_look` was set for.
    change: u64,
    misses: BTreeMap<Target, Cut>,
    pause: Duration,
}

/// A target that was found cut off.
#[derive(Debug)]
struct Cut {
    /// In how many looks in a row.
    looks: u32,
    /// What had changed when the first of them began.
    change: u64,
}

impl Trial {
    pub fn new(confirmed: Option<Ways>, tried: Ways, change: u64, now: Duration) -> Self {
        Self { confirmed, tried, next_look: now, change, misses: BTreeMap::new(), pause: SILENCE.0 }
    }

    /// Another change joins, or the same again: then looks go on as they were.
    pub fn joins(&mut self, tried: Ways, change: u64, now: Duration) {
        self.tried = tried;
        if self.change != change {
            self.change = change;
            self.next_look = now;
            self.pause = SILENCE.0;
        }
    }

    /// Whether packets to `address` go to a gateway because of what is tried. `worked`: what is there answered before.
    pub fn made_the_way_to(
        &self,
        address: Ipv4Addr,
        worked: bool,
        is_suspect: impl Fn(NexthopId) -> bool,
    ) -> bool {
        let Some(way) = self.tried.to(address) else { return false };
        // Nobody knows what was before.
        let Some(confirmed) = &self.confirmed else { return true };
        match confirmed.to(address) {
            // It worked before: the way was the one around our table, and that one answers.
            None => true,
            Some(before) => worked && (before != way || is_suspect(way)),
        }
    }

    /// Notes what a look saw cut, of everything it looked at: whoever is not in `cut` begins anew.
    pub fn miss(&mut self, cut: &BTreeSet<Target>, change: u64) {
        self.misses.retain(|target, _| cut.contains(target));
        for target in cut {
            self.misses.entry(*target).or_insert(Cut { looks: 0, change }).looks += 1;
        }
    }

    /// A target that is cut off beyond doubt, and what had changed when that was first seen.
    pub fn proven(&self) -> Option<(Target, u64)> {
        let (target, cut) = self.misses.iter().find(|(_, cut)| cut.looks >= MISSES)?;
        Some((*target, cut.change))
    }

    /// Sets the next look after one that decided nothing.
    pub fn waits(&mut self, now: Duration) {
        if self.misses.is_empty() {
            self.next_look = now + self.pause;
            self.pause = (self.pause * 2).min(SILENCE.1);
        } else {
            self.next_look = now + AGAIN;
        }
    }

    /// What was cut off was dealt with: looks begin anew.
    pub fn begins_anew(&mut self, now: Duration) {
        self.misses.clear();
        self.next_look = now + AGAIN;
    }
}
