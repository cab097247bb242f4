//! When the loop tries again what came to nothing.

use std::time::Duration;

/// First and longest pause. What nobody tells of is seen by a full comparison in any case, so longer ones would gain nothing.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), super::FULL_COMPARISON);

/// Pauses that double.
#[derive(Debug)]
pub(super) struct Retry {
    next: Duration,
}

impl Retry {
    /// Nothing came to nothing yet.
    pub(super) const fn new() -> Self {
        Self { next: PAUSES.0 }
    }

    /// The pause before the next try.
    pub(super) fn back_off(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(PAUSES.1);
        pause
    }

    /// It was taken.
    pub(super) fn is_over(&mut self) {
        *self = Self::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_from_half_a_second_to_half_a_minute_and_begin_anew_after_success() {
        let mut retry = Retry::new();
        let pauses: Vec<f64> = (0..9).map(|_| retry.back_off().as_secs_f64()).collect();
        assert_eq!(pauses, [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]);
        retry.is_over();
        assert_eq!(retry.back_off(), Duration::from_millis(500));
    }
}
