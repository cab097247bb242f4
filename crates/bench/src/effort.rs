//! How much is measured.

use std::time::Duration;

/// The largest list that a StaticRoute may have.
const MOST: usize = 10_000;
/// The list that people really have: the older operator's users spoke of 2,000 ranges.
pub const MANY: usize = 2_000;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Sizes and how often each is made and deleted.
    pub sizes: &'static [(usize, usize)],
    /// How long processor time is taken for one sample.
    pub quiet: Duration,
    /// How long a program is left alone before it counts as being at rest.
    pub settle: Duration,
    /// Processes whose memory and processor time are taken, one after the other.
    pub processes: usize,
    /// Lists that each of them sees come and go before it holds one: what they leave behind in an allocator counts.
    pub lists: usize,
    /// Nodes of the cluster in which the agent is measured as it is shipped.
    pub nodes: usize,
    /// Size of the list that stays while memory, processor time, switches and restarts are measured.
    pub held: usize,
    /// Switches and restarts.
    pub repeats: usize,
    /// Pause between two samples: what a program does after the last route (its report, its events) is not to be in the next.
    pub rest: Duration,
    /// Most repeats of a size with another program, which may take minutes for each, and most lists that it sees come and go.
    pub peer_repeats: usize,
}

impl Effort {
    /// For numbers to be published.
    pub const FULL: Self = Self {
        sizes: &[(1, 21), (100, 15), (MANY, 11), (MOST, 9)],
        quiet: Duration::from_secs(60),
        settle: Duration::from_secs(10),
        processes: 3,
        lists: 3,
        nodes: 300,
        held: MOST,
        repeats: 9,
        rest: Duration::from_millis(700),
        peer_repeats: 3,
    };
    /// To see that all of it works.
    pub const SHORT: Self = Self {
        sizes: &[(1, 1), (100, 1)],
        quiet: Duration::from_millis(200),
        settle: Duration::from_millis(200),
        processes: 1,
        lists: 1,
        nodes: 5,
        held: 100,
        repeats: 1,
        rest: Duration::from_millis(60),
        peer_repeats: 1,
    };
}
