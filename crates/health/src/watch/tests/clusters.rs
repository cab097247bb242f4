//! Clusters of every size: the more nodes there are the less often each asks, and what is promised of that.

use super::*;

/// How often nodes ask in clusters of 2, 100, 200 and 512 nodes, and within what time they leave one that answers and does not do its work:
/// `docs/probes.md`. In the VPC, through a gateway, another gateway; the last one, all in milliseconds.
const CLUSTERS: [(u64, u64, u64, u64); 4] = [
    (100, 1_000, 1_000, 2_300),
    (100, 2_300, 1_000, 3_700),
    (100, 4_700, 1_300, 6_200),
    (256, 11_900, 3_200, 13_800),
];

fn of_cluster((vpc, path, source, _): (u64, u64, u64, u64), seed: u64) -> World {
    let mut world = World::with(&[A, B], seed, &Config::default());
    (world.vpc_interval, world.path_interval, world.source_interval) = (vpc, path, source);
    world.runs(120_000);
    world
}

#[test]
fn a_gray_failure_is_left_within_the_time_that_is_stated_for_a_cluster_of_that_size() {
    for cluster in CLUSTERS {
        let (longest, limit) = (cluster.1, cluster.3);
        for seed in 1..=12 {
            for broken in [Deaf(A), NoDefaultRoute(A), WrongSource(A), BlackHole(A)] {
                let mut world = of_cluster(cluster, seed);
                world.runs(longest * seed / 12);
                world.broken.insert(broken);
                let failed = world.now;
                world.runs(2 * limit);
                let left = world.switches.first().map(|(at, ..)| at - failed);
                assert!(
                    left.is_some_and(|left| left < limit),
                    "{broken:?}, {cluster:?}, seed {seed}: {left:?}"
                );
            }
        }
    }
}

#[test]
fn a_node_returns_within_thirty_seconds_of_healing_and_by_one_move() {
    for cluster in CLUSTERS {
        for broken in [
            Dead(A),
            Deaf(A),
            NoDefaultRoute(A),
            WrongSource(A),
            BlackHole(A),
            LosesInVpc(A, 40),
            Loses(A, 70),
        ] {
            let mut world = of_cluster(cluster, 1);
            world.broken.insert(broken);
            // Losses take as many probes to be seen in a large cluster.
            world.runs(30 * cluster.1.max(1_000));
            assert_eq!(world.current, B, "{broken:?}, {cluster:?}");
            world.broken.clear();
            let moves = world.switches.len();
            // That losses are over takes as many probes to be seen, too.
            let is_slow = matches!(broken, Loses(..)) && cluster.1 > 4_000;
            world.runs(if is_slow { 60_000 } else { 30_000 });
            assert_eq!((world.current, world.switches.len() - moves), (A, 1), "{broken:?}, {cluster:?}");
            assert_eq!(world.condemned(), []);
        }
    }
}
