//! How often probes are sent, so that all nodes together never burden a gateway or a target: pure.
//!
//! Every node asks at the interval of the health check, or as seldom as the whole cluster's share of these rates allows:
//!
//! | whom | probes a second of all nodes | why so many |
//! | --- | --- | --- |
//! | a gateway's kernel in the VPC | [`GATEWAY_RATE`] | 16,000 of 16,000 answered at that rate, p99 0.05 ms, no entry in its connection table |
//! | a gateway's probe port on the public side | [`PEER_RATE`] | each crosses two gateways, with an entry in a connection table; 200 entries a second are less than a thousandth of 262,144 in the second that they live |
//! | a target outside | [`TARGET_RATE`] | it is somebody else's: one such client is no burden and no scan |
//!
//! A probe that is missed is repeated at once, by each node that missed one: in the long run no more often than it asks in
//! its turn, beside a few that are saved up (see [`super::schedule`]), so that twice these rates are the bound for whatever lasts. A gateway that was found broken is asked at the same
//! rates, without repetition.

use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::time::Duration;

use tokio::time::Instant;

/// Probes a second of all nodes to one gateway's kernel.
pub const GATEWAY_RATE: u32 = 2_000;

/// Probes a second of all nodes to one gateway's probe port on the public side.
pub const PEER_RATE: u32 = 200;

/// Probes a second of all nodes to one target outside.
pub const TARGET_RATE: u32 = 50;

/// Nodes of the largest DOKS cluster: what is assumed while the API server did not tell, so that many agents that start without it
/// are no burden either. Source: limits of DOKS, up to 512 nodes.
pub const MOST_NODES: usize = 512;

/// Intervals vary by this part to either side: nodes that began together do not go on together.
const JITTER: f64 = 0.05;

/// Time between two probes of a gateway in the VPC.
pub fn reachability(asked: Duration, nodes: usize) -> Duration {
    bounded(asked, nodes, 1.0, GATEWAY_RATE)
}

/// Time between two probes of one level through a gateway. `share` is what one node's rounds bring to whoever gets most of them,
/// as [`shares`] has it.
pub fn path(asked: Duration, nodes: usize, share: f64) -> Duration {
    bounded(asked, nodes, share, 1)
}

fn bounded(asked: Duration, nodes: usize, share: f64, rate: u32) -> Duration {
    let nodes = f64::from(u32::try_from(nodes.max(1)).unwrap_or(u32::MAX));
    asked.max(Duration::from_secs_f64(nodes * share / f64::from(rate)))
}

/// For each that asks, what the busiest of its witnesses gets when everybody who asks asks once: the witnesses of one take turns, and
/// several may ask the same one. In seconds a node: a target that gets one probe takes a fiftieth of a second of its rate.
pub fn shares<K: Ord + Clone>(
    asking: &BTreeMap<K, Vec<SocketAddrV4>>,
    rate: impl Fn(&SocketAddrV4) -> u32,
) -> BTreeMap<K, f64> {
    let mut load: BTreeMap<SocketAddrV4, f64> = BTreeMap::new();
    for asked in asking.values() {
        let part = 1.0 / f64::from(u32::try_from(asked.len()).unwrap_or(u32::MAX));
        for witness in asked {
            *load.entry(*witness).or_default() += part / f64::from(rate(witness));
        }
    }
    let busiest = |asked: &Vec<SocketAddrV4>| asked.iter().map(|witness| load[witness]).fold(0.0, f64::max);
    asking.iter().map(|(who, asked)| (who.clone(), busiest(asked))).collect()
}

/// The next pause: about `interval`, never the same on two nodes for long.
pub fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(1.0 - JITTER + 2.0 * JITTER * fastrand::f64())
}

/// The moments at which this node asks. What is asked at one interval is asked at the same moments, of whichever gateway: a processor that
/// sleeps wakes once for all of them, which is most of what a probe costs. Two nodes never have the same for long.
#[derive(Clone, Copy, Debug)]
pub struct Beat {
    epoch: Instant,
    seed: u64,
}

impl Beat {
    /// Moments of its own.
    pub fn at_random() -> Self {
        Self { epoch: Instant::now(), seed: fastrand::u64(..) }
    }

    /// The first moment at `time` or after it.
    pub fn first(self, time: Instant, interval: Duration) -> Instant {
        let since = nanoseconds(time.saturating_duration_since(self.epoch));
        let turn = since / nanoseconds(interval).max(1);
        // Each comes a phase and a jitter after its turn.
        let near = turn.saturating_sub(2)..turn + 2;
        near.map(|number| self.at(number, interval)).find(|moment| *moment >= time).unwrap_or(time)
    }

    /// The moment after a probe that is sent `now`: one of the beat, in about `interval`. Sooner where that probe was out of step, and
    /// later never.
    pub fn after(self, now: Instant, interval: Duration) -> Instant {
        self.first(now + interval / 2, interval).min(now + interval.mul_f64(1.0 + JITTER))
    }

    fn at(self, number: u64, interval: Duration) -> Instant {
        let random = |seed: u64| fastrand::Rng::with_seed(seed).f64();
        let (phase, jitter) = (random(self.seed), random(self.seed.wrapping_add(number + 1)) * JITTER);
        let turn = Duration::from_nanos(nanoseconds(interval).saturating_mul(number));
        self.epoch + turn + interval.mul_f64(phase + jitter)
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn millis(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn small_clusters_ask_as_often_as_the_health_check_says_and_large_ones_less_often() {
        for (nodes, expected) in [(0, 100), (2, 100), (200, 100), (512, 256), (1000, 500)] {
            assert_eq!(reachability(millis(100), nodes), millis(expected), "{nodes}");
        }
        // A target that gets one probe of each node a round, and one that gets half a probe.
        for (nodes, share, expected) in
            [(2, 0.02, 1000), (50, 0.02, 1000), (512, 0.02, 10_240), (512, 0.01, 5120)]
        {
            assert_eq!(path(millis(1000), nodes, share), millis(expected), "{nodes}");
        }
    }

    proptest! {
        #[test]
        fn nobody_gets_more_probes_than_the_stated_rate_whatever_is_asked(
            nodes in 1_u32..5_000,
            asked in 200_u64..5_000,
            lists in prop::collection::vec(prop::collection::btree_set(0_u8..8, 1..8), 1..16),
        ) {
            let witness = |number: u8| SocketAddrV4::new([192, 0, 2, number].into(), 443);
            let asking: BTreeMap<usize, Vec<SocketAddrV4>> =
                lists.into_iter().map(|list| list.into_iter().map(witness).collect()).enumerate().collect();
            let shares = shares(&asking, |_| TARGET_RATE);
            let mut load = BTreeMap::new();
            for (who, witnesses) in &asking {
                let interval = path(millis(asked), nodes as usize, shares[who]);
                let rate = f64::from(nodes) / interval.as_secs_f64();
                for witness in witnesses {
                    *load.entry(*witness).or_insert(0.0) += rate / f64::from(u32::try_from(witnesses.len()).unwrap());
                }
            }
            prop_assert!(load.values().all(|rate| *rate <= f64::from(TARGET_RATE) * 1.001), "{load:?}");
            let rate = f64::from(nodes) / reachability(millis(asked), nodes as usize).as_secs_f64();
            prop_assert!(rate <= f64::from(GATEWAY_RATE) * 1.001, "{rate}");
        }
    }

    #[test]
    fn pauses_vary_a_little_around_the_interval() {
        let pauses: Vec<Duration> = (0..1000).map(|_| jittered(millis(100))).collect();
        assert!(pauses.iter().all(|pause| (millis(95)..=millis(105)).contains(pause)));
        assert!(
            pauses.iter().any(|pause| *pause < millis(98)) && pauses.iter().any(|pause| *pause > millis(102))
        );
    }

    proptest! {
        #[test]
        fn what_begins_at_any_moment_is_soon_in_step_and_never_asks_less_often(
            interval in 20_u64..12_000,
            starts in prop::collection::vec(0_u64..20_000, 2..6),
        ) {
            let (beat, interval) = (Beat::at_random(), millis(interval));
            let mut latest: Vec<Instant> =
                starts.iter().map(|start| beat.epoch + Duration::from_secs(86_400) + millis(*start)).collect();
            for _ in 0..40 {
                for moment in &mut latest {
                    let next = beat.after(*moment, interval);
                    let pause = next - *moment;
                    prop_assert!(pause >= interval / 2 && pause <= interval.mul_f64(1.0 + JITTER), "{pause:?}");
                    *moment = next;
                }
            }
            // Who began earlier asks now what the others will ask.
            let last = *latest.iter().max().unwrap();
            for moment in &mut latest {
                while *moment < last {
                    let next = beat.after(*moment, interval);
                    prop_assert!(next - *moment >= interval.mul_f64(1.0 - JITTER - 1e-6));
                    *moment = next;
                }
                prop_assert_eq!(*moment, last);
            }
        }
    }

    #[test]
    fn each_node_has_moments_of_its_own_that_vary_a_little() {
        let now = Instant::now() + Duration::from_secs(60);
        let interval = millis(100);
        let first = |beat: Beat| beat.first(now, interval) - now;
        let firsts: Vec<Duration> = (0..100).map(|_| first(Beat::at_random())).collect();
        assert!(firsts.iter().all(|pause| *pause <= interval.mul_f64(1.0 + JITTER)));
        assert!(
            firsts.iter().any(|pause| *pause < millis(25)) && firsts.iter().any(|pause| *pause > millis(75))
        );
        let beat = Beat::at_random();
        let next = |moment: &Instant| Some(beat.after(*moment, interval));
        let moments: Vec<Instant> =
            std::iter::successors(Some(beat.first(now, interval)), next).take(100).collect();
        let pauses: Vec<Duration> = moments.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(
            pauses.iter().any(|pause| *pause < millis(99)) && pauses.iter().any(|pause| *pause > millis(101))
        );
    }
}
