//! What is known of one node's connections, and what that says of an outage. Pure.
//!
//! ```text
//!  struck        first success begins   it ends
//!    ├── begun meanwhile ──┤               │
//!    │  hang, then end     ├─── begun ─────┤
//!    └──────── the outage, as a user sees it ─┘
//! ```

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use super::traffic::Event;

/// So many connections in a row through another gateway are a move; one may have come to its end late.
const MOVED: u32 = 2;

/// One connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Connection {
    begun: Instant,
    end: Option<(Instant, Option<Ipv4Addr>)>,
}

/// One node's connections since the last kill.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    connections: BTreeMap<u64, Connection>,
    current: Option<Ipv4Addr>,
    /// Successes in a row through one gateway, the last ones.
    run: (Option<Ipv4Addr>, u32),
    /// Moves since the last kill: where to.
    moves: Vec<Ipv4Addr>,
    failures: u32,
}

/// What a node's users saw of an outage.
#[derive(Clone, Debug, PartialEq)]
pub struct Outage {
    /// End of the first connection begun since then that succeeded.
    pub restored: Instant,
    /// How long each connection begun meanwhile took, and when it ended; those that failed apart.
    pub stalled: Vec<(Duration, Instant)>,
    /// Connections begun meanwhile that failed.
    pub failed: u32,
    /// Connections begun meanwhile that are still under way.
    pub open: u32,
}

impl Ledger {
    /// Takes news.
    pub fn take(&mut self, event: Event) {
        match event {
            Event::Begun { number, at } => {
                self.connections.insert(number, Connection { begun: at, end: None });
            }
            Event::Ended { number, at, seen } => {
                // Of those that were forgotten nothing more is to be known.
                let Some(connection) = self.connections.get_mut(&number) else { return };
                connection.end = Some((at, seen));
                self.count(seen);
            }
        }
    }

    fn count(&mut self, seen: Option<Ipv4Addr>) {
        let Some(gateway) = seen else {
            self.failures += 1;
            self.run = (None, 0);
            return;
        };
        let before = if self.run.0 == seen { self.run.1 } else { 0 };
        self.run = (seen, before.saturating_add(1));
        if self.run.1 >= MOVED && self.current != seen {
            if self.current.is_some() {
                self.moves.push(gateway);
            }
            self.current = seen;
        }
    }

    /// Forgets what has come to an end.
    pub fn forget_ended(&mut self) {
        self.connections.retain(|_, connection| connection.end.is_none());
    }

    /// Forgets what has come to an end, the moves and the failures.
    pub fn forget(&mut self) {
        self.forget_ended();
        self.moves.clear();
        self.failures = 0;
    }

    /// Where the node moved since [`Ledger::forget`].
    pub fn moves(&self) -> &[Ipv4Addr] {
        &self.moves
    }

    /// Connections that failed since then.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Whether the last `count` connections went through this gateway and none is under way for longer than a moment.
    pub fn is_settled(&self, gateway: Ipv4Addr, count: u32, now: Instant) -> bool {
        let hangs = |connection: &Connection| {
            connection.end.is_none()
                && now.saturating_duration_since(connection.begun) > Duration::from_millis(200)
        };
        self.run.0 == Some(gateway) && self.run.1 >= count && !self.connections.values().any(hangs)
    }

    /// The outage that began at `struck`; none while no connection begun since then has succeeded.
    pub fn outage(&self, struck: Instant) -> Option<Outage> {
        let since = || self.connections.values().filter(|connection| connection.begun >= struck);
        let succeeded = since().filter_map(|connection| match connection.end {
            Some((at, Some(_))) => Some((at, connection.begun)),
            _ => None,
        });
        let (restored, first) = succeeded.min()?;
        let mut outage = Outage { restored, stalled: Vec::new(), failed: 0, open: 0 };
        for connection in since().filter(|connection| connection.begun < first) {
            match connection.end {
                Some((at, Some(_))) => outage.stalled.push((at - connection.begun, at)),
                Some((_, None)) => outage.failed += 1,
                None => outage.open += 1,
            }
        }
        Some(outage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);
    const B: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 6);

    /// When it ended, and through whom.
    type End = Option<(u64, Option<Ipv4Addr>)>;

    struct Story {
        ledger: Ledger,
        start: Instant,
    }

    impl Story {
        /// Connections: begun at, ended at (ms), and through whom.
        fn of(connections: &[(u64, End)]) -> Self {
            let mut story = Self { ledger: Ledger::default(), start: Instant::now() };
            for (number, (begun, _)) in (0..).zip(connections) {
                story.ledger.take(Event::Begun { number, at: story.at(*begun) });
            }
            let mut ends: Vec<_> =
                (0..).zip(connections).filter_map(|(number, (_, end))| Some((number, (*end)?))).collect();
            ends.sort_by_key(|(_, (at, _))| *at);
            for (number, (at, seen)) in ends {
                story.ledger.take(Event::Ended { number, at: story.at(at), seen });
            }
            story
        }

        fn at(&self, ms: u64) -> Instant {
            self.start + Duration::from_millis(ms)
        }
    }

    #[test]
    fn an_outage_ends_with_the_first_success_of_one_begun_after_the_strike() {
        let story = Story::of(&[
            (95, Some((96, Some(A)))),
            // Begun before, ended after: no new connection.
            (99, Some((120, Some(A)))),
            (105, Some((1_105, Some(B)))),
            (200, Some((260, None))),
            (300, None),
            (460, Some((462, Some(B)))),
            (470, Some((471, Some(B)))),
        ]);
        let outage = story.ledger.outage(story.at(100)).unwrap();
        assert_eq!(outage.restored, story.at(462));
        assert_eq!(outage.stalled, [(Duration::from_secs(1), story.at(1_105))]);
        assert_eq!((outage.failed, outage.open), (1, 1));
        assert_eq!(story.ledger.outage(story.at(471)), None);
    }

    #[test]
    fn a_move_is_two_in_a_row_and_a_node_with_one_that_hangs_is_not_settled() {
        let through = |begun: u64, gateway| (begun, Some((begun + 1, Some(gateway))));
        let mut story = Story::of(&[
            through(0, A),
            through(10, A),
            through(20, B),
            through(30, A),
            through(40, B),
            through(50, B),
        ]);
        assert_eq!(story.ledger.moves(), [B]);
        assert!(story.ledger.is_settled(B, 2, story.at(60)));
        assert!(!story.ledger.is_settled(B, 3, story.at(60)) && !story.ledger.is_settled(A, 1, story.at(60)));
        story.ledger.take(Event::Begun { number: 9, at: story.at(61) });
        assert!(story.ledger.is_settled(B, 2, story.at(100)));
        assert!(!story.ledger.is_settled(B, 2, story.at(300)));
        story.ledger.forget();
        assert!(story.ledger.moves().is_empty());
        story.ledger.take(Event::Ended { number: 9, at: story.at(301), seen: None });
        assert_eq!(story.ledger.failures(), 1);
    }
}
