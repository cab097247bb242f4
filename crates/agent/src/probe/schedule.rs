//! When one level through one gateway is asked next, and whom: pure.
//!
//! A probe that stays without an answer is confirmed at once by others, to the next witnesses, without waiting for its
//! deadline; so is the first answer after a failure. After that the level is asked at its interval again.
//!
//! ```text
//!            asked every interval                      asked every `failing`
//!   ┌─────────┐  unanswered   ┌────────────┐ it is known to ┌─────────┐
//!   │ working │ ────────────► │ confirming │ ─────────────► │ failing │
//!   └─────────┘ ◄──────────── └────────────┘ fail, or 4 ×   └─────────┘
//!        ▲        an answer                  `fall` of it        │
//!        └───────────────────────────────────────────────────────┘
//!                     `rise` answers, asked without a pause
//! ```
//!
//! Whatever is asked before its turn is paid for: each probe in its turn earns one, and some are saved up for when something begins to fail.
//! So in the long run nobody gets more than twice the rate of [`super::rate`], whatever is lost. What others are in doubt about takes no
//! more than leaves enough for a failure of one's own.
//!
//! The silence of a witness that has been silent for long is no news and not confirmed: so a dead target costs the others nothing, and
//! the bounds of [`super::rate`] hold as long as it is dead. Nor is it asked before its turn while another is there: it could not tell.

use std::net::SocketAddrV4;
use std::time::Duration;

use tokio::time::Instant;

use super::connect::Outcome;
use super::connections::Connections;
use super::prober::Asking;
use super::rate::{Beat, jittered};

/// An unanswered probe is repeated so many times as often as a failure takes: where packets were lost before, `egress-health` wants
/// more misses, and more probes to count the losses. As many before their turn may be saved up.
const REPEATED: u8 = 4;

/// The probes of one level through one gateway.
#[derive(Debug)]
pub(super) struct Schedule {
    connections: Connections,
    rhythm: Rhythm,
    due: Instant,
    /// Whether that is before its time.
    hurries: bool,
    /// How many more may be.
    credit: u8,
    most: u8,
    /// So many of them are kept for what is found here, whatever others ask for.
    kept: u8,
    /// When the last probe is late, until it is answered or that was looked at.
    late: Option<Instant>,
}

/// How often to ask now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// The node's moments.
    pub(super) beat: Beat,
    /// Time between two probes of what works.
    pub(super) interval: Duration,
    /// Whether the level is known to fail.
    pub(super) is_judged: bool,
}

/// A probe to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    /// From which port; 0: any.
    pub(super) port: u16,
    /// To whom.
    pub(super) witness: SocketAddrV4,
    /// Whether the level seems to fail: others are to be asked the same.
    pub(super) is_doubted: bool,
}

impl Schedule {
    /// One whose first probe is due then. Nodes that begin together begin with different witnesses.
    pub(super) fn new(asking: &Asking, first: Instant) -> Self {
        let connections = Connections::new(asking.source_ports.as_ref(), &asking.witnesses, asking.rest)
            .begin_with(fastrand::usize(..asking.witnesses.len()));
        let most = asking.fall.saturating_mul(REPEATED);
        Self {
            connections,
            rhythm: Rhythm::default(),
            due: first,
            hurries: false,
            credit: most,
            most,
            kept: asking.fall,
            late: None,
        }
    }

    /// When to wake it.
    pub(super) fn wakes(&self) -> Instant {
        self.late.unwrap_or(self.due)
    }

    /// That moment has come: a probe to send, or nothing yet.
    pub(super) fn wake(&mut self, asking: &Asking, pace: Pace, now: Instant) -> Option<Turn> {
        if self.late.take().is_some() {
            match self.rhythm.next(self.most, asking.rise, pace.is_judged) {
                Next::Now => self.hurry(now),
                Next::Interval => {}
                Next::Failing => self.due += self.connections.pause(now).saturating_sub(pace.interval),
            }
            return None;
        }
        // What does not work is asked at times of its own, and its connections rest as long as they must.
        let works = !self.rhythm.is_surprised() && !self.rhythm.failing;
        self.due = if works { pace.beat.after(now, pace.interval) } else { now + jittered(pace.interval) };
        let hurried = std::mem::take(&mut self.hurries);
        let (port, witness) = self.connections.next(hurried, now)?;
        if !hurried {
            self.credit = self.credit.saturating_add(1).min(self.most);
        }
        // Not on account of the one that is just sent.
        let is_surprised = self.rhythm.is_surprised();
        self.rhythm.asked(self.connections.is_silent(witness));
        self.late = Some(now + asking.late());
        Some(Turn { port, witness, is_doubted: is_surprised && self.rhythm.is_in_doubt(asking.fall) })
    }

    /// A probe ended. True: the level came back, and others are to be asked the same.
    pub(super) fn ended(
        &mut self,
        port: u16,
        witness: SocketAddrV4,
        outcome: &Outcome,
        now: Instant,
    ) -> bool {
        self.connections.put_back(port, witness, matches!(outcome, Outcome::Missed(_)), now);
        if *outcome != Outcome::Answered {
            return false;
        }
        self.rhythm.answered();
        if !self.rhythm.failing {
            // What works needs no look whether it is late: each wakes the machine.
            self.late = None;
        }
        self.rhythm.failing
    }

    /// Another gateway is in doubt: to be asked at once. One that is in doubt for long leaves enough to confirm a failure of this one.
    pub(super) fn doubted(&mut self, now: Instant) {
        if self.credit > self.kept {
            self.hurry(now);
        }
    }

    /// Asks before its turn, if there is enough for that.
    fn hurry(&mut self, now: Instant) {
        if now < self.due && self.credit > 0 {
            (self.due, self.hurries, self.credit) = (now, true, self.credit - 1);
        }
    }
}

/// What of the last probes says when the next one is due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Rhythm {
    /// Probes since the last answer.
    unanswered: u8,
    /// Of these, to witnesses that answer otherwise.
    surprising: u8,
    /// Answers since the last failure, while it counts.
    answers: u8,
    failing: bool,
}

/// When the next probe is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// At once.
    Now,
    /// After the interval.
    Interval,
    /// After the longer one of what fails.
    Failing,
}

impl Rhythm {
    /// A probe is sent, to somebody who has been silent for long or not.
    fn asked(&mut self, is_silent: bool) {
        self.unanswered = self.unanswered.saturating_add(1);
        self.surprising = self.surprising.saturating_add(u8::from(!is_silent));
    }

    fn answered(&mut self) {
        (self.unanswered, self.surprising) = (0, 0);
        self.answers = self.answers.saturating_add(1);
    }

    fn is_surprised(self) -> bool {
        self.surprising > 0
    }

    /// Whether so many probes are under way or missed that it takes one through another gateway to tell whose fault that is.
    fn is_in_doubt(self, fall: u8) -> bool {
        self.unanswered >= fall && !self.failing
    }

    /// To be asked when the last probe is late.
    fn next(&mut self, most: u8, rise: u8, is_judged: bool) -> Next {
        match (self.unanswered > 0, self.failing) {
            // It came back, and whoever is silent still has been for long.
            (true, true) if self.answers > 0 && !self.is_surprised() && !is_judged => {
                self.failing = false;
                Next::Interval
            }
            (true, _) if self.unanswered >= most || self.failing || is_judged => {
                *self = Self { failing: true, answers: 0, ..*self };
                Next::Failing
            }
            (true, _) if self.is_surprised() => Next::Now,
            (true, _) => Next::Interval,
            (false, true) if self.answers < rise => Next::Now,
            (false, _) => {
                self.failing = false;
                Next::Interval
            }
        }
    }
}

#[cfg(test)]
mod tests;
