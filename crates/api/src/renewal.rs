//! How often a verdict is renewed and how long it counts: arithmetic that agents and controller share.
//!
//! A verdict is written when it changes. While a node condemns a gateway it says so again and again, because the controller must
//! tell a node that still condemns from one whose agent stands still. The whole cluster's renewals are bounded, so the interval
//! grows with the cluster, and with it the time for which a renewal counts.

use std::time::Duration;

/// Renewals a second that all nodes together write at most: the rest of twenty writes a second is for changes, and for what the
/// controller writes of them.
pub const RENEWALS_PER_SECOND: u32 = 15;

/// Between two renewals of one node there is at least so much, however few nodes there are: replacing a gateway takes minutes.
pub const SHORTEST_RENEWAL: Duration = Duration::from_secs(5);

/// A verdict counts for so many intervals: one renewal may be lost and one come late.
const INTERVALS: u32 = 3;

/// How long a node of a cluster of so many waits between two renewals: 5 s up to 75 nodes, 67 s with a thousand.
pub fn renewal_interval(nodes: usize) -> Duration {
    let nodes = u32::try_from(nodes).unwrap_or(u32::MAX);
    (Duration::from_secs(nodes.into()) / RENEWALS_PER_SECOND).max(SHORTEST_RENEWAL)
}

/// How long a verdict counts after it was heard last, in a cluster of so many nodes: 15 s up to 75 nodes, 200 s with a thousand.
pub fn fresh_for(nodes: usize) -> Duration {
    renewal_interval(nodes).saturating_mul(INTERVALS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_of_any_size_renews_fifteen_times_a_second_at_most_and_a_verdict_outlives_a_lost_renewal() {
        for nodes in [0, 1, 2, 75, 76, 1000, 5000, usize::MAX] {
            let interval = renewal_interval(nodes);
            assert!(interval >= SHORTEST_RENEWAL);
            let nodes = u32::try_from(nodes).unwrap_or(u32::MAX);
            assert!(f64::from(nodes) / interval.as_secs_f64() <= 15.000_001, "{nodes}");
            assert!(fresh_for(nodes as usize) >= interval * 2);
        }
        assert_eq!(renewal_interval(10), Duration::from_secs(5));
        assert!(fresh_for(1000).abs_diff(Duration::from_secs(200)) < Duration::from_millis(1));
    }
}
