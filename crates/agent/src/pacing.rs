//! When this node may write its report, so that a large cluster's nodes together do not burden the API server: pure.
//!
//! - Sustained: all nodes together write [`SUSTAINED`] reports a second at most, whatever flaps.
//! - A change that comes after a quiet time is reported at once by every node, three times in a row: whoever changed something
//!   waits for it. From the fourth ([`BURST`]) on nodes take turns in the order of their places, so that those that wrote
//!   together do not go on together. What all nodes notice at the same moment is spread by their names over half a millisecond a node.
//! - One node writes five times a second at most, however small the cluster.
//!
//! Numbers, and why not so few for everything: `docs/decisions/0013-reports-of-many-nodes.md`.

use std::time::Duration;

/// Reports a second that all nodes together write for long: with what the controller writes of them, less than twenty writes.
pub const SUSTAINED: u32 = 18;

/// Reports that a node may write beyond [`SUSTAINED`]; the last of them when it is its turn.
pub const BURST: u32 = 4;

/// Least time between two reports of one node.
pub const SPACING: Duration = Duration::from_millis(200);

/// How much later the last node of a cluster reports than the first, for each node.
const SPREAD: Duration = Duration::from_micros(500);

/// The pace of one node. Times are counted from any fixed moment.
#[derive(Clone, Debug)]
pub struct Pace {
    /// Place of this node among all, 0 to 1: a hash of its name.
    place: f64,
    /// When the node will have regained all of its burst.
    regained: Duration,
    /// When it last wrote.
    last: Option<Duration>,
}

impl Pace {
    /// The pace of the node of this name.
    pub fn new(node_name: &str) -> Self {
        Self { place: place(node_name), regained: Duration::ZERO, last: None }
    }

    /// How long this node waits with something that all `nodes` notice at the same moment.
    pub fn spread(&self, nodes: usize) -> Duration {
        (SPREAD * count(nodes)).mul_f64(self.place)
    }

    /// The earliest moment for the next report.
    pub fn earliest(&self, nodes: usize) -> Duration {
        let turn = interval(nodes).mul_f64(self.place);
        let sustained = (self.regained + turn).saturating_sub(interval(nodes) * (BURST - 1));
        let spaced = self.last.map_or(Duration::ZERO, |last| last + SPACING);
        sustained.max(spaced)
    }

    /// A report is being written.
    pub fn wrote(&mut self, now: Duration, nodes: usize) {
        self.regained = self.regained.max(now) + interval(nodes);
        self.last = Some(now);
    }

    /// A pause after a failure, different on each node: those that failed together do not come back together.
    pub fn apart(&self, pause: Duration) -> Duration {
        pause.mul_f64(1.0 + self.place / 2.0)
    }
}

/// Time in which a node regains one report.
fn interval(nodes: usize) -> Duration {
    (Duration::from_secs(1) * count(nodes) / SUSTAINED).max(SPACING)
}

fn count(nodes: usize) -> u32 {
    u32::try_from(nodes.max(1)).unwrap_or(u32::MAX)
}

/// Place of the node of that name among all, 0 to 1: FNV-1a, the upper 32 bits after a multiplication that mixes them.
pub fn place(name: &str) -> f64 {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mixed = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    f64::from((mixed >> 32) as u32) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seconds(value: f64) -> Duration {
        Duration::from_secs_f64(value)
    }

    /// Writes as soon as it may whenever something changes; tells when it wrote.
    fn writes(nodes: usize, changes: impl Iterator<Item = Duration>) -> Vec<Duration> {
        let mut pace = Pace::new("node-1");
        let mut written: Vec<Duration> = Vec::new();
        for change in changes {
            if written.last().is_some_and(|last| *last > change) {
                // That report, still to come then, told of this change too.
                continue;
            }
            let at = pace.earliest(nodes).max(change);
            pace.wrote(at, nodes);
            written.push(at);
        }
        written
    }

    #[test]
    fn a_change_after_a_quiet_time_is_reported_at_once_and_flapping_is_not() {
        let flapping = writes(1000, (0..6000).map(|tenth| seconds(f64::from(tenth) / 10.0)));
        assert!(flapping[BURST as usize - 2] <= seconds(1.0), "the first few: {flapping:?}");
        // A thousand nodes, once in 56 s each: 18 a second.
        let in_ten_minutes = flapping.iter().filter(|at| **at < seconds(600.0)).count();
        assert_eq!(in_ten_minutes, 3 + 11, "{flapping:?}");
        let alone = writes(1, (0..100).map(|hundredth| seconds(f64::from(hundredth) / 100.0)));
        let in_a_second = alone.iter().filter(|at| **at < seconds(1.0)).count();
        assert_eq!(in_a_second, 5, "a second of changes on a cluster of one node: {alone:?}");
    }

    #[test]
    fn nodes_that_wrote_together_do_not_go_on_together() {
        let mut in_second = [0_u32; 300];
        for number in 0..1000 {
            let mut pace = Pace::new(&format!("pool-web-{number:04}"));
            // What it sees changes all the time.
            let mut now = Duration::ZERO;
            while now < seconds(300.0) {
                in_second[usize::try_from(now.as_secs()).unwrap()] += 1;
                pace.wrote(now, 1000);
                now = now.max(pace.earliest(1000));
            }
        }
        assert!(in_second[0] >= 3000, "three of each at once: {in_second:?}");
        let later = &in_second[2..];
        assert!(later.iter().all(|count| *count <= 40), "{later:?}");
        let sum: u32 = later.iter().sum();
        assert!((17 * 298..=19 * 298).contains(&sum), "{sum} in 298 s");
    }

    #[test]
    fn nodes_spread_what_all_of_them_notice_over_half_a_second_in_a_thousand() {
        let names = (0..1000).map(|number| format!("pool-web-{number:03}"));
        let mut delays: Vec<Duration> = names.map(|name| Pace::new(&name).spread(1000)).collect();
        delays.sort_unstable();
        assert!(delays[999] <= seconds(0.5), "{:?}", delays[999]);
        for (tenth, chunk) in delays.chunks(100).enumerate() {
            let ideal = 0.05 * f64::from(u32::try_from(tenth).unwrap());
            assert!((chunk[0].as_secs_f64() - ideal).abs() < 0.02, "{tenth}: {:?}", chunk[0]);
        }
        assert!(Pace::new("pool-web-000").spread(3) < seconds(0.002));
    }

    proptest! {
        #[test]
        fn no_window_of_time_sees_more_than_the_burst_and_the_sustained_rate(
            nodes in 1_usize..3000,
            pauses in prop::collection::vec(0_u32..20_000, 1..300),
            from in 0_usize..300,
        ) {
            let mut now = Duration::ZERO;
            let changes = pauses.iter().map(|millis| {
                now += Duration::from_millis((*millis).into());
                now
            });
            let written = writes(nodes, changes);
            let first = written[from % written.len()];
            for (count, last) in written.iter().filter(|at| **at >= first).enumerate() {
                let regained = last.saturating_sub(first).as_secs_f64() / interval(nodes).as_secs_f64();
                let most = f64::from(BURST) + regained;
                prop_assert!(f64::from(u32::try_from(count).unwrap()) + 1.0 <= most + 1e-6);
            }
        }
    }
}
