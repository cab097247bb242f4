//! What time it is in the cloud.
//!
//! Responsibility: the only place that reads the machine's clock, so that a test can drive time instead.

use std::sync::atomic::{AtomicI64, Ordering};

use jiff::{SignedDuration, Timestamp};

/// The cloud's clock.
#[derive(Debug)]
pub enum Clock {
    /// The machine's own.
    Real,
    /// Stands still but for [`Clock::advance`]; milliseconds since the epoch.
    Driven(AtomicI64),
}

/// Where a driven clock begins: 2026-01-01T00:00:00Z.
const DRIVEN_START_MS: i64 = 1_767_225_600_000;

impl Clock {
    /// A clock that only moves when told to.
    pub fn driven() -> Self {
        Self::Driven(AtomicI64::new(DRIVEN_START_MS))
    }

    /// Now.
    pub fn now(&self) -> Timestamp {
        match self {
            Self::Real => Timestamp::now(),
            Self::Driven(milliseconds) => {
                Timestamp::from_millisecond(milliseconds.load(Ordering::SeqCst)).unwrap_or(Timestamp::MAX)
            }
        }
    }

    /// Moves a driven clock forward; `None` when it is the real one.
    pub fn advance(&self, by: SignedDuration) -> Option<Timestamp> {
        match self {
            Self::Real => None,
            Self::Driven(milliseconds) => {
                let by = i64::try_from(by.as_millis()).unwrap_or(i64::MAX).max(0);
                milliseconds.fetch_add(by, Ordering::SeqCst);
                Some(self.now())
            }
        }
    }
}
