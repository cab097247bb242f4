//! Rate limits of a token: a sliding hour and a burst of one minute.
//!
//! Responsibility: admit or refuse, and the numbers of the `ratelimit-*` headers. Pure.

use std::collections::VecDeque;

use jiff::{SignedDuration, Timestamp};

/// The two limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Requests in any hour (DigitalOcean: 5,000).
    pub hourly: usize,
    /// Requests in any minute (DigitalOcean: 250).
    pub burst: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { hourly: 5_000, burst: 250 }
    }
}

/// The window of one token.
#[derive(Debug, Default)]
pub struct Window {
    limits: Limits,
    requests: VecDeque<Timestamp>,
}

/// What the headers say after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// `ratelimit-limit`.
    pub limit: usize,
    /// `ratelimit-remaining`.
    pub remaining: usize,
    /// `ratelimit-reset`: epoch seconds at which the oldest request leaves the window.
    pub reset: i64,
    /// Set when the request is refused: seconds to wait, for `retry-after`.
    pub retry_after: Option<i64>,
}

const HOUR: SignedDuration = SignedDuration::from_hours(1);
const MINUTE: SignedDuration = SignedDuration::from_mins(1);

impl Window {
    /// An empty window.
    pub fn new(limits: Limits) -> Self {
        Self { limits, requests: VecDeque::new() }
    }

    /// Counts a request at `now`, or refuses it. A refused request does not count.
    pub fn admit(&mut self, now: Timestamp) -> Rate {
        while self.requests.front().is_some_and(|oldest| now.duration_since(*oldest) >= HOUR) {
            self.requests.pop_front();
        }
        let recent =
            self.requests.iter().rev().take_while(|time| now.duration_since(**time) < MINUTE).count();
        let until = |time: Timestamp, window: SignedDuration| {
            (window - now.duration_since(time)).as_secs().max(0) + 1
        };
        let retry_after = if self.requests.len() >= self.limits.hourly {
            Some(self.requests.front().map_or(1, |oldest| until(*oldest, HOUR)))
        } else if recent >= self.limits.burst {
            let first = self.requests.len().saturating_sub(recent);
            Some(self.requests.get(first).map_or(1, |oldest| until(*oldest, MINUTE)))
        } else {
            self.requests.push_back(now);
            None
        };
        // The burst limit shows as 0 remaining although the hour has more.
        let remaining = if retry_after.is_some() { 0 } else { self.limits.hourly - self.requests.len() };
        Rate { limit: self.limits.hourly, remaining, reset: self.reset(now), retry_after }
    }

    /// The headers of an answer that is not counted, such as a 401.
    pub fn peek(&self, now: Timestamp) -> Rate {
        let remaining = self.limits.hourly.saturating_sub(self.requests.len());
        Rate { limit: self.limits.hourly, remaining, reset: self.reset(now), retry_after: None }
    }

    fn reset(&self, now: Timestamp) -> i64 {
        self.requests.front().copied().unwrap_or(now).as_second() + HOUR.as_secs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).unwrap()
    }

    #[test]
    fn burst_is_refused_with_the_seconds_until_the_oldest_of_the_minute_leaves() {
        let mut window = Window::new(Limits { hourly: 100, burst: 2 });
        assert_eq!(window.admit(at(0)).remaining, 99);
        assert_eq!(window.admit(at(10)).retry_after, None);
        let refused = window.admit(at(20));
        assert_eq!((refused.retry_after, refused.remaining), (Some(41), 0));
        assert_eq!(window.admit(at(61)).retry_after, None);
    }

    #[test]
    fn the_hour_slides_and_reset_is_when_the_oldest_leaves() {
        let mut window = Window::new(Limits { hourly: 2, burst: 100 });
        window.admit(at(0));
        window.admit(at(1800));
        let refused = window.admit(at(3000));
        assert_eq!((refused.retry_after, refused.reset), (Some(601), at(3600).as_second()));
        let admitted = window.admit(at(3600));
        assert_eq!(
            (admitted.retry_after, admitted.remaining, admitted.reset),
            (None, 0, at(5400).as_second())
        );
    }
}
