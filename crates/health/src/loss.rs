//! How many probes a gateway has lost lately.
//!
//! A run of misses that ends in a fall does not count: it was an outage, not loss. While a run goes on it is counted apart, and
//! what was missed beside an outage does not count either.

use std::time::Duration;

use crate::tick::Tick;

/// What is remembered, in whole seconds.
const SECONDS: usize = 30;

/// Losses of the last half minute, by the second.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Loss {
    seconds: [Second; SECONDS],
    /// The second, since the epoch, of the newest entry.
    newest: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Second {
    answered: u16,
    missed: u16,
}

/// How many probes were answered and missed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) answered: u32,
    pub(crate) missed: u32,
}

impl Share {
    pub(crate) fn total(self) -> u32 {
        self.answered + self.missed
    }

    /// What part was missed, 0 to 1.
    fn lost(self) -> f64 {
        f64::from(self.missed) / f64::from(self.total().max(1))
    }

    /// Whether at least so many percent, and so many in number, were missed.
    pub(crate) fn loses(self, percent: u32, at_least: u32) -> bool {
        self.missed >= at_least && self.missed * 100 >= percent * self.total()
    }

    /// Whether of at least so many hardly any, one of twenty, was missed.
    pub(crate) fn is_clean(self, of_at_least: u32) -> bool {
        self.total() >= of_at_least && self.missed * 20 <= self.total()
    }
}

impl std::ops::Add for Share {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { answered: self.answered + other.answered, missed: self.missed + other.missed }
    }
}

impl Default for Loss {
    fn default() -> Self {
        Self { seconds: [Second::default(); SECONDS], newest: 0 }
    }
}

impl Loss {
    pub(crate) fn answered(&mut self, now: Tick) {
        let second = self.at(now);
        second.answered = second.answered.saturating_add(1);
    }

    pub(crate) fn missed(&mut self, now: Tick, times: u16) {
        let second = self.at(now);
        second.missed = second.missed.saturating_add(times);
    }

    /// Forgets everything: what was lost before an outage says nothing of the time after it.
    pub(crate) fn clear(&mut self) {
        *self = Self { newest: self.newest, ..Self::default() };
    }

    /// Forgets what was before that second.
    pub(crate) fn clear_before(&mut self, begun: Tick) {
        let oldest = (self.newest + 1).saturating_sub(SECONDS as u64);
        for second in oldest..begun.0.as_secs().min(self.newest + 1) {
            self.seconds[index(second)] = Second::default();
        }
    }

    /// Over the last `span`, 30 s at most, the running second included.
    pub(crate) fn over(&self, span: Duration, now: Tick) -> Share {
        let now = now.0.as_secs().max(self.newest);
        self.counted_from((now + 1).saturating_sub(span.as_secs().min(SECONDS as u64)))
    }

    /// Since that second, 30 s at most.
    pub(crate) fn since(&self, begun: Tick) -> Share {
        self.counted_from(begun.0.as_secs())
    }

    fn counted_from(&self, oldest: u64) -> Share {
        let first_kept = (self.newest + 1).saturating_sub(SECONDS as u64);
        let seconds = oldest.max(first_kept)..=self.newest;
        seconds.map(|second| self.seconds[index(second)]).fold(Share::default(), |share, second| {
            share + Share { answered: second.answered.into(), missed: second.missed.into() }
        })
    }

    fn at(&mut self, now: Tick) -> &mut Second {
        // A clock that runs backwards adds to the newest second.
        let now = now.0.as_secs().max(self.newest);
        for second in (self.newest + 1..=now).rev().take(SECONDS) {
            self.seconds[index(second)] = Second::default();
        }
        self.newest = now;
        &mut self.seconds[index(now)]
    }
}

fn index(second: u64) -> usize {
    usize::try_from(second % SECONDS as u64).unwrap_or_default()
}

/// Misses in a row that are as unlikely to be chance as three in a row are at 1 % loss: one in a million.
///
/// At ten probes a second and `fall` 3 that is one false verdict in 28 hours at 1 %; without this rule 5 % loss would make four an hour.
/// It comes to 5 misses at 5 %, 6 at 10 %, 12 at 30 %; by then the loss itself is the reason to leave. In the first ten seconds of a loss
/// that nobody knows of yet, three misses are still enough: at 5 % they come in one of a hundred such beginnings.
pub(crate) fn misses_beyond_chance(share: Share) -> u8 {
    const ODDS: f64 = 1e-6;
    // Of fewer probes nothing can be said.
    const ENOUGH: u32 = 20;
    if share.total() < ENOUGH { 1 } else { misses_at(share.lost(), ODDS) }
}

/// Misses in a row that are no chance where these ways lost packets at the same time, each of which a probe has to pass or is compared
/// with: one in ten thousand.
///
/// That comes to 4 misses where one of ten was lost, to 7 at one of four and to 19 at six of ten.
pub(crate) fn misses_beside(ways: &[Share]) -> u8 {
    misses_at(1.0 - ways.iter().map(|way| 1.0 - way.lost()).product::<f64>(), 1e-4)
}

/// How long a run of misses must be for chance to make it with those odds, 1e-6 at least, at that loss.
fn misses_at(loss: f64, odds: f64) -> u8 {
    if loss <= 0.0 {
        return 1;
    }
    // Between 1 and 132.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded just before")]
    let misses = (odds.ln() / loss.min(0.9).ln()).ceil() as u8;
    misses
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Tick {
        Tick::from_millis(millis)
    }

    #[test]
    fn a_window_holds_its_span_and_no_more() {
        let mut loss = Loss::default();
        for second in 0..100 {
            loss.answered(at(second * 1000));
            loss.missed(at(second * 1000 + 500), 1);
        }
        let now = at(99_900);
        assert_eq!(loss.over(Duration::from_secs(6), now), Share { answered: 6, missed: 6 });
        assert_eq!(loss.over(Duration::from_secs(30), now), Share { answered: 30, missed: 30 });
        assert_eq!(loss.over(Duration::from_secs(6), at(103_000)), Share { answered: 2, missed: 2 });
        assert_eq!(loss.over(Duration::from_secs(30), at(400_000)), Share::default());
        assert_eq!(loss.since(at(97_900)), Share { answered: 3, missed: 3 }, "of whole seconds");
        assert_eq!(loss.since(at(0)), Share { answered: 30, missed: 30 }, "no more is remembered");
        loss.clear_before(at(98_000));
        assert_eq!(loss.since(at(0)), Share { answered: 2, missed: 2 });
        loss.answered(at(400_000));
        assert_eq!(loss.over(Duration::from_secs(30), at(400_000)), Share { answered: 1, missed: 0 });
    }

    #[test]
    fn the_more_is_lost_the_more_misses_it_takes() {
        let of = |missed| misses_beyond_chance(Share { answered: 1000 - missed, missed });
        assert_eq!([0, 1, 10, 11, 50, 100, 300].map(of), [1, 2, 3, 4, 5, 6, 12]);
        assert_eq!(misses_beyond_chance(Share { answered: 9, missed: 10 }), 1, "too few");
        assert_eq!(misses_beyond_chance(Share { answered: 0, missed: 1000 }), 132);
        let share = |missed, answered| Share { answered, missed };
        let beside = |missed, answered| misses_beside(&[share(0, 0), share(missed, answered)]);
        assert_eq!([beside(0, 0), beside(0, 9), beside(1, 9), beside(1, 3), beside(6, 4)], [1, 1, 4, 7, 19]);
        assert_eq!(misses_beside(&[share(1, 1), share(1, 1)]), 33, "three of four, all in all");
    }
}
