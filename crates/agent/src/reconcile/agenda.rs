//! When the loop looks next.

use std::time::Duration;

use tokio::time::Instant;

/// Passes that events ask for take one part in this many of the time at most: other programs' routes may change all day.
const SHARE: u32 = 5;

/// Drift is put right within two seconds, however long a look takes.
const LONGEST_REST: Duration = Duration::from_secs(1);

/// The next look, and the earliest that an event may ask for.
#[derive(Debug)]
pub(super) struct Agenda {
    next: Instant,
    earliest: Instant,
}

impl Agenda {
    /// The first look.
    pub(super) fn at(first: Instant) -> Self {
        Self { next: first, earliest: first }
    }

    /// When to look.
    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// Something happened at `now`: look within that time, or as soon after as the machine's other work allows.
    pub(super) fn wake(&mut self, now: Instant, within: Duration) {
        self.next = self.next.min((now + within).max(self.earliest));
    }

    /// What can't wait for the machine's other work: look at once.
    pub(super) fn wake_at_once(&mut self, now: Instant) {
        self.next = self.next.min(now);
    }

    /// Events may not ask for a look before that time; [`Agenda::wake_at_once`] may.
    pub(super) fn rest_until(&mut self, time: Instant) {
        self.earliest = self.earliest.max(time);
    }

    /// A look that began at `started` has ended at `now`; the next one is after `pause` unless something happens before.
    pub(super) fn done(&mut self, started: Instant, now: Instant, pause: Duration) {
        self.earliest = now + ((now - started) * (SHARE - 1)).min(LONGEST_REST);
        self.next = now + pause;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn events_bring_the_look_forward_and_never_put_it_off() {
        let start = Instant::now();
        let mut agenda = Agenda::at(start);
        agenda.done(start, start, millis(30_000));
        agenda.wake(start, millis(20));
        agenda.wake(start + millis(10), millis(20));
        assert_eq!(agenda.next(), start + millis(20));
    }

    #[test]
    fn a_storm_of_events_takes_a_fifth_of_the_time() {
        let start = Instant::now();
        let mut agenda = Agenda::at(start);
        let mut looks = 0;
        while agenda.next() < start + millis(10_000) {
            looks += 1;
            let began = agenda.next();
            let ended = began + millis(50);
            agenda.done(began, ended, millis(30_000));
            agenda.wake(ended, Duration::ZERO);
        }
        assert_eq!(looks, 40, "of 50 ms each in 10 s");
    }
}
