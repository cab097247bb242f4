//! The API as a whole does not answer, or answers nobody, or the list that all need does not come: all EgressGateways share one
//! attempt now and then.
//!
//! ```text
//!            a read fails for a reason that every read would fail for
//!   well ────────────────────────────────────────────────────────────► out: nothing is sent before `until`
//!    ▲                                                                  │   ▲      │ time is up: one attempt,
//!    └────────────────── any other answer ◄─────────────────────────────┘   └──────┘ sent once, pause doubled
//! ```

use std::time::Duration;

use egress_digitalocean::{Error, RefusalKind};
use jiff::Timestamp;

use crate::backoff;

/// How things stand with the API.
#[derive(Debug, Default)]
pub(super) struct Standing(Option<Outage>);

#[derive(Debug)]
struct Outage {
    error: Error,
    since: Timestamp,
    until: Timestamp,
    failures: u32,
}

const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

impl Standing {
    /// What to say instead of asking.
    pub(super) fn refusal(&self, now: Timestamp) -> Option<Error> {
        self.0.as_ref().filter(|outage| now < outage.until).map(|outage| outage.error.clone())
    }

    /// Since when the API has been out.
    pub(super) fn since(&self) -> Option<Timestamp> {
        self.0.as_ref().map(|outage| outage.since)
    }

    /// Takes an answer to a read that was sent at `now`. It means an outage if `counts` says so of its error; `chance` spreads the
    /// pauses.
    pub(super) fn note<T>(
        &mut self,
        answer: &Result<T, Error>,
        counts: fn(&Error) -> bool,
        now: Timestamp,
        chance: f64,
    ) {
        let Some(error) = answer.as_ref().err().filter(|error| counts(error)) else {
            self.0 = None;
            return;
        };
        let before = self.0.as_ref();
        let failures = before.map_or(0, |outage| outage.failures).saturating_add(1);
        self.0 = Some(Outage {
            error: error.clone(),
            since: before.map_or(now, |outage| outage.since),
            until: now + backoff::pause(failures, FIRST_PAUSE, LONGEST_PAUSE, chance),
            failures,
        });
    }
}

/// Whether the same read would end like this one again. What was never sent costs nothing and is tried again.
pub(super) fn was_sent(error: &Error) -> bool {
    !matches!(error, Error::Throttled { .. } | Error::Token { .. })
}

/// Whether every other read would end like this one.
pub(super) fn concerns_all(error: &Error) -> bool {
    match error {
        Error::Unreachable { .. } | Error::Lost { .. } | Error::Unreadable { .. } => true,
        Error::Refused { refusal, .. } => {
            matches!(refusal.kind, RefusalKind::Unauthorized | RefusalKind::Server | RefusalKind::Unexpected)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn attempts_become_rarer_and_one_answer_ends_it() {
        let out: Result<(), Error> = Err(Error::Lost { call: "droplets.list", reason: "no answer".into() });
        let mut standing = Standing::default();
        let mut sent = Vec::new();
        for second in 0..200 {
            if standing.refusal(at(second)).is_none() {
                sent.push(second);
                standing.note(&out, concerns_all, at(second), 0.0);
            }
        }
        assert_eq!(sent, [0, 2, 6, 14, 30, 60, 90, 120, 150, 180]);
        assert_eq!(standing.since(), Some(at(0)));
        standing.note(&Ok(()), concerns_all, at(200), 0.0);
        assert!(standing.refusal(at(200)).is_none() && standing.since().is_none());
        // What concerns one call only ends it as well: the API answers.
        standing.note(&out, concerns_all, at(201), 0.0);
        let busy: Result<(), Error> =
            Err(Error::Throttled { call: "droplets.list", wait: Duration::from_secs(9) });
        standing.note(&busy, concerns_all, at(204), 0.0);
        assert!(standing.since().is_none());
        assert!(was_sent(out.as_ref().unwrap_err()) && !was_sent(busy.as_ref().unwrap_err()));
    }
}
