//! What time it is: the machine's clock, as far as it goes forward, or one that a test drives.
//!
//! Invariant of the default one: it is never set back, and never goes slower than time passes. What was heard or read at some moment is
//! then as old as it is, and old words are not made new by a machine whose clock is put right.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

/// Tells the time of day. Clones are the same clock.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// A clock that says what `now` says.
    pub fn new(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// A clock that says what `wall` says, and does not go back with it; `steady` is how much time has passed since any moment.
    pub fn forward(
        wall: impl Fn() -> Timestamp + Send + Sync + 'static,
        steady: impl Fn() -> Duration + Send + Sync + 'static,
    ) -> Self {
        let last = Mutex::new(Forward { said: wall(), steady: steady() });
        Self::new(move || {
            let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
            *last = last.then(wall(), steady());
            last.said
        })
    }

    /// Now.
    pub fn now(&self) -> Timestamp {
        (self.0)()
    }
}

impl Default for Clock {
    fn default() -> Self {
        let start = Instant::now();
        Self::forward(Timestamp::now, move || start.elapsed())
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({})", self.now())
    }
}

/// What was said last, and when that was by a clock that nobody sets.
#[derive(Clone, Copy)]
struct Forward {
    said: Timestamp,
    steady: Duration,
}

impl Forward {
    fn then(self, wall: Timestamp, steady: Duration) -> Self {
        let passed = steady.saturating_sub(self.steady);
        let at_least = self.said.checked_add(passed).unwrap_or(self.said);
        Self { said: wall.max(at_least), steady }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::elapsed;

    /// A machine's clock that can be set, and the time that passes, in seconds.
    fn machine() -> (Arc<Mutex<(i64, u64)>>, Clock) {
        let machine = Arc::new(Mutex::new((10_000, 0)));
        let (wall, steady) = (machine.clone(), machine.clone());
        let clock = Clock::forward(
            move || Timestamp::from_second(wall.lock().unwrap().0).unwrap(),
            move || Duration::from_secs(steady.lock().unwrap().1),
        );
        (machine, clock)
    }

    #[test]
    fn what_was_heard_grows_old_though_the_clock_of_the_machine_is_set_back() {
        let (machine, clock) = machine();
        let age = |wall: i64, steady: u64, heard| {
            *machine.lock().unwrap() = (wall, steady);
            elapsed(heard, clock.now()).as_secs()
        };
        let heard = clock.now();
        assert_eq!(age(10_005, 5, heard), 5);
        // An hour back, and time goes on.
        assert_eq!(age(6_410, 10, heard), 10);
        assert_eq!(age(6_430, 30, heard), 30);
        assert_eq!(age(10_020, 3_620, heard), 3_620);
        // Forward it is followed, and from there never back.
        assert_eq!(age(20_000, 3_621, heard), 10_000);
        assert_eq!(age(13_622, 3_622, heard), 10_001);
    }

    #[test]
    fn a_clock_that_goes_as_it_should_is_said_as_it_is() {
        let (machine, clock) = machine();
        for second in 0..100 {
            *machine.lock().unwrap() = (10_000 + second, second.unsigned_abs());
            assert_eq!(clock.now().as_second(), 10_000 + second);
        }
    }
}
