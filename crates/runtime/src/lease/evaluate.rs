//! What a candidate should do about a lease it has read. Pure; time is an argument.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::LeaseSpec;
use tokio::time::Instant;

use super::LONGEST_LEASE;

/// A sign of life of somebody else, and when *we* saw it. What time their clock showed is of no importance.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    spec: LeaseSpec,
    seen: Instant,
}

impl Observation {
    /// What to remember after a read that ended at `now`: the moment moves only when the lease says something new.
    ///
    /// A lease that has vanished says nothing: the last sign of life still counts.
    #[must_use]
    pub fn after(previous: Option<Self>, read: Option<&LeaseSpec>, now: Instant) -> Option<Self> {
        match (previous, read) {
            (previous, None) => previous,
            (Some(previous), Some(spec)) if previous.spec == *spec => Some(previous),
            (_, Some(spec)) => Some(Self { spec: spec.clone(), seen: now }),
        }
    }

    // The holder promised to act under its own duration; ours is the least.
    fn over_at(&self, own_duration: Duration) -> Instant {
        let seconds = self.spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let promised = Duration::from_secs(seconds.unwrap_or_default()).min(LONGEST_LEASE);
        self.seen + promised.max(own_duration)
    }
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nobody holds it, or nobody has been seen alive for long enough: write our name, on condition that it is unchanged.
    Acquire,
    /// We hold it: say that we live.
    Renew,
    /// Somebody else holds it; not before this moment, unless it is given back.
    Wait(Instant),
}

/// What `me` should do, given the lease as just read (`None`: there is none) and [`Observation::after`] that read.
///
/// `own_duration` is the lease duration that we are configured with.
pub fn evaluate(
    lease: Option<&LeaseSpec>,
    me: &str,
    now: Instant,
    last_observed: Option<&Observation>,
    own_duration: Duration,
) -> Action {
    let holder = match lease {
        Some(spec) => holder(spec),
        // Deleted by hand while somebody held it: their claim may still be current, so it counts as held.
        None => last_observed.and_then(|observed| holder(&observed.spec)).filter(|name| *name != me),
    };
    match holder {
        None => Action::Acquire,
        Some(name) if name == me => Action::Renew,
        Some(_) => {
            // Without an observation the reading itself is the sign of life.
            let until = last_observed.map_or(now + own_duration, |observed| observed.over_at(own_duration));
            if now >= until { Action::Acquire } else { Action::Wait(until) }
        }
    }
}

/// Who holds it. An empty name is what a holder leaves that gave it back.
pub(super) fn holder(spec: &LeaseSpec) -> Option<&str> {
    spec.holder_identity.as_deref().filter(|name| !name.is_empty())
}
