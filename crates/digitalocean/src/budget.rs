//! The rate budget: how many requests may go out, by our own bucket and by what the API says is left.
//!
//! Pure: time is an argument. DigitalOcean allows 5,000 requests an hour and 250 a minute *per token*, in sliding
//! windows; an autoscaler or cloud-controller-manager with the same token spends from the same budget. So the bucket
//! stays below the minute's limit, slows down when little of the hour is left, and stands still when nothing is.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Requests that may go out at once. With [`REFILL_PER_MINUTE`] the worst minute has 240, below the API's 250.
pub const BURST: f64 = 40.0;

/// Refill of the bucket.
pub const REFILL_PER_MINUTE: f64 = 200.0;

/// Refill when less than a tenth of the hour's requests is left. The hour allows 83 a minute in the long run, so
/// this lets the window recover.
pub const SLOW_REFILL_PER_MINUTE: f64 = 50.0;

/// The longest standstill that a header can order; a wrong clock on either side must not stop us for ever.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// Standstill when nothing is left and the API does not say until when.
const PAUSE_WITHOUT_HINT: Duration = Duration::from_secs(60);

/// Time, so that tests can drive it.
pub trait Clock: Send + Sync {
    /// Monotonic time since any fixed moment.
    fn elapsed(&self) -> Duration;
    /// Seconds since the UNIX epoch, to read `ratelimit-reset`.
    fn unix_seconds(&self) -> u64;
}

/// The machine's clocks.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock {
    start: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self { start: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    fn unix_seconds(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }
}

/// What is known of the quota, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Quota {
    /// `ratelimit-limit`: requests an hour for this token.
    pub limit: Option<u64>,
    /// `ratelimit-remaining`, as of the last answer.
    pub remaining: Option<u64>,
    /// Requests that our own bucket would let out at once.
    pub bucket: f64,
    /// How long nothing may go out, zero when something may.
    pub paused_for: Duration,
}

/// What one answer said about the rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RateHeaders {
    /// `ratelimit-limit`.
    pub limit: Option<u64>,
    /// `ratelimit-remaining`. Zero may mean the minute's limit as well as the hour's.
    pub remaining: Option<u64>,
    /// `ratelimit-reset`, seconds since the epoch: when the oldest request leaves the sliding window.
    pub reset_unix: Option<u64>,
    /// `retry-after`, seconds.
    pub retry_after: Option<Duration>,
}

impl RateHeaders {
    /// How long to wait after a 429: `retry-after`, else until the reset, else a minute; between one second and one
    /// hour.
    pub fn pause(&self, now_unix: u64) -> Duration {
        self.retry_after
            .or_else(|| {
                let seconds = self.reset_unix?.checked_sub(now_unix)?;
                Some(Duration::from_secs(seconds))
            })
            .unwrap_or(PAUSE_WITHOUT_HINT)
            .clamp(Duration::from_secs(1), LONGEST_PAUSE)
    }
}

/// The token bucket. All times are of one [`Clock`].
#[derive(Debug, Clone)]
pub struct Budget {
    level: f64,
    counted_at: Duration,
    paused_until: Duration,
    limit: Option<u64>,
    remaining: Option<u64>,
}

impl Budget {
    /// A full bucket.
    pub fn new(now: Duration) -> Self {
        Self { level: BURST, counted_at: now, paused_until: Duration::ZERO, limit: None, remaining: None }
    }

    /// Takes the right to send one request, or says how long until it is worth asking again (never zero).
    pub fn take(&mut self, now: Duration) -> Result<(), Duration> {
        self.refill(now);
        if now < self.paused_until {
            return Err(self.paused_until.saturating_sub(now));
        }
        if self.level < 1.0 {
            let missing = (1.0 - self.level) / self.per_second();
            return Err(Duration::from_secs_f64(missing) + Duration::from_millis(1));
        }
        self.level -= 1.0;
        Ok(())
    }

    /// Learns from an answer. `refused` is a 429.
    pub fn observe(&mut self, headers: &RateHeaders, refused: bool, now: Duration, now_unix: u64) {
        self.refill(now);
        if headers.limit.is_some() {
            self.limit = headers.limit;
        }
        if headers.remaining.is_some() {
            self.remaining = headers.remaining;
        }
        if refused {
            self.paused_until = self.paused_until.max(now + headers.pause(now_unix));
            // After the pause, go on gently: the window frees one request at a time.
            self.level = self.level.min(1.0);
        } else if headers.remaining == Some(0) {
            // Answers overtake each other; only a refusal is taken at its word for longer than a minute.
            let pause = headers.pause(now_unix).min(PAUSE_WITHOUT_HINT);
            self.paused_until = self.paused_until.max(now + pause);
        }
    }

    /// What is known, for metrics.
    pub fn quota(&mut self, now: Duration) -> Quota {
        self.refill(now);
        Quota {
            limit: self.limit,
            remaining: self.remaining,
            bucket: self.level,
            paused_for: self.paused_until.saturating_sub(now),
        }
    }

    fn refill(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.counted_at);
        self.level = passed.as_secs_f64().mul_add(self.per_second(), self.level).min(BURST);
        self.counted_at = self.counted_at.max(now);
    }

    fn per_second(&self) -> f64 {
        let scarce = matches!((self.limit, self.remaining), (Some(limit), Some(left)) if left < limit / 10);
        let per_minute = if scarce { SLOW_REFILL_PER_MINUTE } else { REFILL_PER_MINUTE };
        per_minute / 60.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Sends as fast as the budget allows and counts what goes out in `window`.
    fn sent_within(budget: &mut Budget, from: Duration, window: Duration) -> u32 {
        let (mut now, mut sent) = (from, 0);
        loop {
            match budget.take(now) {
                Ok(()) => sent += 1,
                Err(wait) => now += wait,
            }
            if now >= from + window {
                return sent;
            }
        }
    }

    #[test]
    fn the_worst_minute_stays_below_the_apis_burst_limit() {
        let sent = sent_within(&mut Budget::new(secs(0)), secs(0), secs(60));
        assert!((200..250).contains(&sent), "{sent}");
    }

    #[test]
    fn little_left_of_the_hour_slows_down_to_less_than_the_window_frees() {
        let mut budget = Budget::new(secs(0));
        let headers = RateHeaders { limit: Some(5000), remaining: Some(499), ..RateHeaders::default() };
        budget.observe(&headers, false, secs(0), 1000);
        sent_within(&mut budget, secs(0), secs(60));
        let sent = sent_within(&mut budget, secs(60), secs(60));
        assert!(sent <= 52, "{sent}");
    }

    #[test]
    fn a_refusal_stops_everything_for_as_long_as_it_says() {
        let mut budget = Budget::new(secs(0));
        let headers = RateHeaders { retry_after: Some(secs(7)), ..RateHeaders::default() };
        budget.observe(&headers, true, secs(10), 1000);
        assert_eq!(budget.take(secs(10)), Err(secs(7)));
        assert_eq!(budget.take(secs(16)), Err(secs(1)));
        assert_eq!(budget.take(secs(17)), Ok(()));
    }

    #[test]
    fn nothing_remaining_waits_for_the_reset_but_not_for_a_broken_clock() {
        let mut budget = Budget::new(secs(0));
        let headers = RateHeaders { remaining: Some(0), reset_unix: Some(1020), ..RateHeaders::default() };
        budget.observe(&headers, false, secs(0), 1000);
        assert_eq!(budget.take(secs(0)), Err(secs(20)));

        let far = RateHeaders { reset_unix: Some(u64::MAX), ..RateHeaders::default() };
        assert_eq!(far.pause(1000), secs(3600));
        let past = RateHeaders { reset_unix: Some(1), ..RateHeaders::default() };
        assert_eq!(past.pause(1000), secs(60));
        let now = RateHeaders { retry_after: Some(secs(0)), ..RateHeaders::default() };
        assert_eq!(now.pause(1000), secs(1));
    }

    #[test]
    fn a_clock_that_goes_back_neither_panics_nor_fills_the_bucket() {
        let mut budget = Budget::new(secs(100));
        while budget.take(secs(100)).is_ok() {}
        assert!(budget.take(secs(50)).is_err());
        assert!(budget.take(secs(100)).is_err());
    }
}
