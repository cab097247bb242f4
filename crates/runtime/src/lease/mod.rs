//! Leadership by a coordination.k8s.io Lease.
//!
//! Responsibility: at most one process at a time holds a [`Claim`] that is current.
//!
//! Leadership is not a boolean but a claim that runs out: it lasts [`Timing::renew_deadline`] from the moment the request that
//! renewed it was *sent*. Others take the lease over no earlier than `lease_duration`, which is longer, after they *saw* the
//! renewal. The sending comes before the seeing, so the two never overlap, whatever the network does, as long as the clocks
//! run at about the same speed; what time of day they show is of no importance. Every write asks the claim anew.
//!
//! ```text
//!  holder   send ──── renew_deadline ────┤ claim is over
//!  server     └─ commit
//!  other           └─ see ──────── lease_duration ────────┤ may take over
//! ```

mod claim;
mod elector;
mod evaluate;
mod store;
#[cfg(test)]
mod tests;

pub use claim::{Claim, LeadershipLost, Tenure};
pub use elector::Elector;
pub use evaluate::{Action, Observation, evaluate};
pub use store::{KubernetesLease, LeaseStore, StoreError};

use std::time::Duration;

/// The times of an election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    lease_duration: Duration,
    renew_deadline: Duration,
    renew_period: Duration,
    poll_period: Duration,
}

/// Times that would let two leaders overlap, or none ever be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "lease times must grow: renew period < renew deadline < lease duration, which is 1 s to 1 h in whole seconds"
)]
pub struct TimingError;

/// The longest lease that is honoured, so that a damaged one does not keep everybody out for ever.
pub const LONGEST_LEASE: Duration = Duration::from_secs(3600);

impl Timing {
    /// Times of your own.
    ///
    /// `lease_duration`: others keep off this long after a sign of life. `renew_deadline`: a claim lasts this long from the
    /// request that renewed it; the difference is what a write that was allowed at the last moment has to finish in.
    /// `renew_period`: pause between renewals. `poll_period`: pause between looks of those who wait, which bounds how long a
    /// lease that was given back lies about.
    pub fn new(
        lease_duration: Duration,
        renew_deadline: Duration,
        renew_period: Duration,
        poll_period: Duration,
    ) -> Result<Self, TimingError> {
        let whole_seconds = lease_duration.subsec_nanos() == 0;
        let bounded = lease_duration >= Duration::from_secs(1) && lease_duration <= LONGEST_LEASE;
        let growing = renew_period < renew_deadline && renew_deadline < lease_duration;
        if whole_seconds && bounded && growing && !renew_period.is_zero() && !poll_period.is_zero() {
            return Ok(Self { lease_duration, renew_deadline, renew_period, poll_period });
        }
        Err(TimingError)
    }

    /// How long others keep off after a sign of life.
    pub fn lease_duration(&self) -> Duration {
        self.lease_duration
    }

    /// How long a claim lasts from the request that renewed it.
    pub fn renew_deadline(&self) -> Duration {
        self.renew_deadline
    }
}

impl Default for Timing {
    /// 15 s, 10 s, 2 s as in client-go; those who wait look every 0.8 s, so that a hand-over takes less than 2 s.
    fn default() -> Self {
        Self {
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            renew_period: Duration::from_secs(2),
            poll_period: Duration::from_millis(800),
        }
    }
}

/// A name for this process and no other: the pod's name and a number drawn by the kernel.
///
/// The pod's name alone would let a restarted container take itself for the leader it was before.
pub fn identity(pod_name: &str) -> std::io::Result<String> {
    let drawn = std::fs::read_to_string("/proc/sys/kernel/random/uuid")?;
    Ok(format!("{pod_name}_{}", drawn.trim()))
}
