//! The claim: leadership as something that runs out, asked for at each write.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// A stretch of leadership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tenure {
    expires: Instant,
}

impl Tenure {
    /// From a renewal whose request was *sent* at this moment; when it was answered is of no importance.
    pub fn from_request(sent: Instant, renew_deadline: Duration) -> Self {
        Self { expires: sent + renew_deadline }
    }

    /// When it ends if nothing renews it.
    pub fn expires(&self) -> Instant {
        self.expires
    }

    /// Whether it lasts.
    pub fn is_current(&self, now: Instant) -> bool {
        now < self.expires
    }
}

/// This process does not lead, or no longer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeadershipLost {
    /// It never led, or has given the lease back.
    #[error("this process does not lead")]
    NotHeld,
    /// No renewal succeeded in time.
    #[error("the lease was not renewed in time")]
    Expired,
    /// Somebody else holds the lease.
    #[error("the lease is held by {0}")]
    TakenBy(String),
}

/// Leadership of this process as of now. Clones share it; asking costs no I/O.
#[derive(Clone, Debug)]
pub struct Claim {
    tenure: watch::Receiver<Option<Tenure>>,
}

impl Claim {
    pub(super) fn new(tenure: watch::Receiver<Option<Tenure>>) -> Self {
        Self { tenure }
    }

    /// Asked immediately before each write: may it be made?
    pub fn check(&self) -> Result<(), LeadershipLost> {
        let tenure = *self.tenure.borrow();
        match tenure {
            None => Err(LeadershipLost::NotHeld),
            Some(tenure) if tenure.is_current(Instant::now()) => Ok(()),
            Some(_) => Err(LeadershipLost::Expired),
        }
    }

    /// Asked before a write that takes its time: will the claim last for `needed` even if nothing renews it?
    pub fn check_lasting(&self, needed: Duration) -> Result<(), LeadershipLost> {
        self.check()?;
        if self.is_current(Instant::now() + needed) { Ok(()) } else { Err(LeadershipLost::Expired) }
    }

    /// Whether the claim stands at `now`.
    pub fn is_current(&self, now: Instant) -> bool {
        self.tenure.borrow().is_some_and(|tenure| tenure.is_current(now))
    }

    /// Waits until this process leads. Cancel safe. `NotHeld` when the elector is gone.
    pub async fn acquired(&mut self) -> Result<(), LeadershipLost> {
        let leads = |tenure: &Option<Tenure>| tenure.is_some_and(|tenure| tenure.is_current(Instant::now()));
        self.tenure.wait_for(leads).await.map(drop).map_err(|_closed| LeadershipLost::NotHeld)
    }
}
