//! Lines on standard error that say what is going on, with the time since the beginning.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// At least that often while something is waited for.
const INTERVAL: Duration = Duration::from_secs(2);

/// Tells of one command.
#[derive(Debug)]
pub struct Progress {
    begun: Instant,
    told: Cell<Instant>,
}

impl Progress {
    /// Begins now.
    pub fn begin() -> Self {
        let now = Instant::now();
        Self { begun: now, told: Cell::new(now) }
    }

    /// Something begins or is done.
    pub fn say(&self, line: &str) {
        eprintln!("[{:6.1} s] {line}", self.begun.elapsed().as_secs_f64());
        self.told.set(Instant::now());
    }

    /// Something is still waited for: a line if the last is old.
    pub fn waiting(&self, what: &str) {
        if self.told.get().elapsed() >= INTERVAL {
            self.say(&format!("... waiting for {what}"));
        }
    }
}
