//! Failure detector for one level of one gateway.
//!
//! ```text
//!                  first answer                       hold-down over
//!    ┌─────────┐ ───────────────► ┌───────────────┐ ─────────────────► ┌────────┐
//!    │ Unknown │                  │     Trial     │                    │   Up   │
//!    └─────────┘                  └───────────────┘                    └────────┘
//!         │                          ▲         │                            │
//!         │ `fall` misses            │         │ `fall` misses              │ `fall` misses
//!         │ in a row          `rise` answers   │ in a row                   │ in a row
//!         │                     in a row       ▼                            │
//!         │                       ┌───────────────┐                         │
//!         └─────────────────────► │     Down      │ ◄───────────────────────┘
//!                                 └───────────────┘
//! ```
//!
//! Trial and Up differ in one thing: a node that works elsewhere returns to a gateway that is Up and not to one on trial.
//! A node whose own gateway is down takes one on trial at once, and even one that is Down and answered its last probe:
//! rise and hold-down never keep a node on a dead gateway. A gateway that an agent has just met is on trial too, so that
//! a restarted agent does not undo what it had decided.
//!
//! The hold-down doubles each time the gateway falls soon after it was up again, before it was calm, and begins anew after calm. One
//! that falls on trial has cost nobody a move: its hold-down begins again, and is no longer.
//!
//! `fall` misses are enough where hardly any probe was lost lately; where some were, it takes as many as are as unlikely to be chance
//! (`loss`), so that a way that loses one probe in twenty condemns nobody by itself.
//!
//! One detector is one level of one gateway; [`crate::watch`] has them all.

use std::time::Duration;

use crate::config::Config;
use crate::loss::{Loss, Share};
use crate::tick::Tick;

/// How one probe ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The gateway answered in time.
    Answered,
    /// It did not.
    Missed,
}

/// What is known of a gateway: the verdict and what its last probes said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The state in the diagram of this module.
    pub verdict: Verdict,
    /// The last probes.
    pub signal: Signal,
}

/// The state in the diagram of this module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// It works.
    Up,
    /// It works, and has not for long.
    Trial,
    /// It does not work.
    Down,
    /// Nothing is known yet.
    Unknown,
}

/// What the last probes of a gateway said. Of gateways that are down an earlier one is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Signal {
    /// The last probe was answered.
    Answering,
    /// The same, and it was found to leave with another address: whoever knows its own by name refuses what comes through it.
    WrongSource,
    /// The same, and the only target that is left to tell gets nothing through it, which may be that target's own doing.
    Doubtful,
    /// The last probe was missed, and fewer than `fall` in a row; or there was none.
    Wavering,
    /// At least the last `fall` probes were missed.
    Silent,
}

/// A change of state, for events and logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transition {
    /// The first answer of a gateway that nothing was known of.
    Met,
    /// It missed `misses` probes in a row; the first of them at `since`.
    Fell {
        /// Probes missed in a row.
        misses: u8,
        /// When the first of them was found missed.
        since: Tick,
    },
    /// It answers again; a node that works elsewhere returns to it from `until` on.
    Rose {
        /// End of the hold-down.
        until: Tick,
    },
}

/// Failure detector for one level of one gateway; see the module for its states.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detector {
    config: Config,
    state: State,
    /// Misses in a row up to now, when the first was found, and when the first and the last of them were sent.
    misses: u8,
    /// Of these, those that are part of an outage or somebody else's, and no loss.
    discounted: u8,
    missed_since: Tick,
    missing: (Tick, Tick),
    /// When the last probe that was answered was sent.
    answered: Option<Tick>,
    loss: Loss,
    /// Misses in a row that are more than chance, as things are; see [`crate::watch`].
    beyond_chance: u8,
    /// Falls that came too soon after the end of a hold-down, in a row.
    flaps: u32,
    changed: Tick,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Unknown,
    /// On trial until `trusted`, up from then on. `fell_before`: it was down once.
    Alive {
        trusted: Tick,
        fell_before: bool,
    },
    /// Answers in a row so far.
    Down {
        answers: u8,
    },
}

impl Detector {
    /// A detector of a gateway that nothing is known of.
    pub fn new(config: Config, now: Tick) -> Self {
        Self {
            config,
            state: State::Unknown,
            misses: 0,
            discounted: 0,
            missed_since: now,
            missing: (now, now),
            answered: None,
            loss: Loss::default(),
            beyond_chance: 0,
            flaps: 0,
            changed: now,
        }
    }

    /// Goes on with other thresholds; what is known stays.
    pub fn configure(&mut self, config: &Config) {
        if self.config != *config {
            self.config = config.clone();
        }
    }

    /// Takes the outcome of a probe that ended at `now`, as soon as it was sent.
    pub fn on_probe(&mut self, now: Tick, outcome: Outcome) -> Option<Transition> {
        self.on_sent_probe(now, now, outcome)
    }

    /// Takes the outcome of a probe that was sent at `sent` and ended at `now`.
    pub fn on_sent_probe(&mut self, sent: Tick, now: Tick, outcome: Outcome) -> Option<Transition> {
        match outcome {
            Outcome::Answered => {
                self.answered = self.answered.max(Some(sent));
                self.on_answer(now)
            }
            Outcome::Missed => self.on_miss(sent, now),
        }
    }

    /// What is known of the gateway at `now`.
    pub fn standing(&self, now: Tick) -> Standing {
        let signal = match (self.misses, self.state) {
            (0, State::Unknown) => Signal::Wavering,
            (0, _) => Signal::Answering,
            (misses, _) if misses < self.fall() => Signal::Wavering,
            _ => Signal::Silent,
        };
        let verdict = match self.state {
            State::Unknown => Verdict::Unknown,
            State::Alive { trusted, .. } if now < trusted => Verdict::Trial,
            State::Alive { .. } => Verdict::Up,
            State::Down { .. } => Verdict::Down,
        };
        Standing { verdict, signal }
    }

    /// When the standing will change without a probe: the end of the hold-down.
    pub fn next_deadline(&self, now: Tick) -> Option<Tick> {
        match self.state {
            State::Alive { trusted, .. } => (now < trusted).then_some(trusted),
            State::Unknown | State::Down { .. } => None,
        }
    }

    /// When it last fell, rose or was met; before that, when the detector was made.
    pub fn changed(&self) -> Tick {
        self.changed
    }

    /// Misses in a row up to now, 255 at most.
    pub fn misses(&self) -> u8 {
        self.misses
    }

    /// Whether it is down.
    pub fn is_down(&self) -> bool {
        matches!(self.state, State::Down { .. })
    }

    /// Whether it was down before it was alive.
    pub(crate) fn has_risen(&self) -> bool {
        matches!(self.state, State::Alive { fell_before: true, .. })
    }

    /// When the last probe that was answered was sent.
    pub fn last_answered(&self) -> Option<Tick> {
        self.answered
    }

    /// When the first and the last probe of the present run of misses were sent.
    pub fn missing(&self) -> Option<(Tick, Tick)> {
        (self.misses > 0).then_some(self.missing)
    }

    /// Probes of the last `span` while it was not down, the present run of misses included.
    pub(crate) fn lost(&self, span: Duration, now: Tick) -> Share {
        self.loss.over(span, now) + self.run()
    }

    /// The same since that second, 30 s at most.
    pub(crate) fn lost_since(&self, begun: Tick) -> Share {
        self.loss.since(begun) + self.run()
    }

    /// The present run of misses, as far as it is loss: what was missed before the first answer of all was not there yet.
    fn run(&self) -> Share {
        let is_alive = matches!(self.state, State::Alive { .. });
        let missed = if is_alive { self.misses.saturating_sub(self.discounted) } else { 0 };
        Share { answered: 0, missed: missed.into() }
    }

    /// The same without the present run of misses.
    pub(crate) fn lost_before(&self, span: Duration, now: Tick) -> Share {
        self.loss.over(span, now)
    }

    /// The last miss is somebody else's: it counts for a fall, and is no loss.
    pub(crate) fn discount_last(&mut self) {
        self.discounted = self.discounted.saturating_add(1).min(self.misses);
    }

    /// What it misses now is part of an outage: no loss.
    pub(crate) fn discount(&mut self) {
        self.discounted = self.misses;
    }

    /// The same, and so is what it lost until now: the outage may have begun with it.
    pub(crate) fn forget_losses(&mut self) {
        self.loss.clear();
        self.discount();
    }

    /// What was lost before that second does not count any more.
    pub(crate) fn forget_losses_before(&mut self, begun: Tick) {
        self.loss.clear_before(begun);
    }

    /// From now on a fall takes at least so many misses in a row.
    pub(crate) fn expect_misses(&mut self, beyond_chance: u8) {
        self.beyond_chance = beyond_chance;
    }

    /// Nobody asks any more: what it missed is held against it no longer, and it is on trial as after a failure.
    pub(crate) fn acquit(&mut self, now: Tick) {
        self.misses = 0;
        self.discounted = 0;
        if self.is_down() {
            self.come_alive(now, true);
        }
    }

    /// Misses in a row that make it fall.
    fn fall(&self) -> u8 {
        self.config.fall.get().max(self.beyond_chance)
    }

    fn on_answer(&mut self, now: Tick) -> Option<Transition> {
        if !matches!(self.state, State::Down { .. }) {
            self.loss.missed(now, self.run().missed.try_into().unwrap_or(u16::MAX));
            self.loss.answered(now);
        }
        self.misses = 0;
        self.discounted = 0;
        match self.state {
            State::Alive { .. } => None,
            State::Unknown => {
                self.come_alive(now, false);
                Some(Transition::Met)
            }
            State::Down { answers } => {
                let answers = answers.saturating_add(1);
                if answers < self.config.rise.get() {
                    self.state = State::Down { answers };
                    return None;
                }
                let until = self.come_alive(now, true);
                Some(Transition::Rose { until })
            }
        }
    }

    fn come_alive(&mut self, now: Tick, fell_before: bool) -> Tick {
        let trusted = now.after(self.config.hold_down_after(self.flaps));
        self.state = State::Alive { trusted, fell_before };
        self.changed = now;
        trusted
    }

    fn on_miss(&mut self, sent: Tick, now: Tick) -> Option<Transition> {
        if self.misses == 0 {
            self.missed_since = now;
            self.missing = (sent, sent);
        }
        // One that the network refused ends at once, and before one that waits for its deadline.
        self.missing = (self.missing.0.min(sent), self.missing.1.max(sent));
        self.misses = self.misses.saturating_add(1);
        match self.state {
            State::Down { .. } => {
                self.state = State::Down { answers: 0 };
                return None;
            }
            State::Unknown | State::Alive { .. } if self.misses < self.fall() => return None,
            // Nobody had returned to it yet.
            State::Alive { fell_before: true, trusted } if now < trusted => {}
            State::Alive { fell_before: true, .. } if self.fell_soon(now) => {
                self.flaps = self.flaps.saturating_add(1);
            }
            State::Unknown | State::Alive { .. } => self.flaps = 0,
        }
        self.state = State::Down { answers: 0 };
        self.loss.clear();
        self.changed = now;
        Some(Transition::Fell { misses: self.misses, since: self.missed_since })
    }

    /// Whether it was up for less than calm asks for; `changed` is when it rose.
    fn fell_soon(&self, now: Tick) -> bool {
        let calm = self.config.calm.max(self.config.hold_down_after(self.flaps).saturating_mul(2));
        now.since(self.changed) < calm
    }
}

#[cfg(test)]
mod tests;
