//! One kill from a whole pair to a whole pair, and what was seen of it.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::fault::{Class, Fault};
use super::pair::Pair;
use super::world::GATEWAYS;
use crate::numbers::rounded;

/// A node that has no new connection by then has not failed over.
pub const LONGEST: Duration = Duration::from_secs(15);
/// The last connection begun meanwhile has ended by then: it had patience for 20 s.
const ALL_ENDED: Duration = Duration::from_secs(25);
/// Nodes return within 30 s of healing; a busy machine gets more.
const WHOLE: Duration = Duration::from_secs(60);
/// Between a whole pair and the kill: a random time, so that no phase of any probe is favoured.
const QUIET: std::ops::Range<u64> = 200..1_400;

/// What was seen of one kill. Times are milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kill {
    /// Seed of the run.
    pub seed: u64,
    /// Which pair of how many at a time.
    pub pair: usize,
    /// How many.
    pub pairs: usize,
    /// Name of the fault.
    pub fault: String,
    /// How long it took to bring it about. All times begin before it.
    pub strike_ms: f64,
    /// From the kill to the end of the first new connection that succeeded, for each node; none for one that had none.
    pub nodes_ms: Vec<Option<f64>>,
    /// How long each connection begun meanwhile took.
    pub stalled_ms: Vec<f64>,
    /// From the kill to the end of the last of them.
    pub stalled_until_ms: f64,
    /// Connections begun meanwhile that failed.
    pub failed: u32,
    /// Other connections that failed: under way at the kill or at the return, or for no reason at all.
    pub failed_otherwise: u32,
    /// Packets that reached the outside with a source that is no gateway's.
    pub leaked_packets: u64,
    /// Moves that no kill explains.
    pub false_failovers: u32,
    /// From healing until all nodes were on the first gateway again.
    pub return_ms: f64,
    /// Time without a fault in which a move would have been a false one, all nodes together.
    pub watched_ms: f64,
}

impl Kill {
    /// Until every node had a new connection; a node that had none counts as [`LONGEST`].
    pub fn every_node_ms(&self) -> f64 {
        let longest = LONGEST.as_secs_f64() * 1_000.0;
        self.nodes_ms.iter().map(|ms| ms.unwrap_or(longest)).fold(0.0, f64::max)
    }

    /// The fault's class; dead for a fault that is no longer known.
    pub fn class(&self) -> Class {
        Fault::named(&self.fault).map_or(Class::Dead, Fault::class)
    }

    /// Whether every node had a new connection.
    pub fn is_restored(&self) -> bool {
        self.nodes_ms.iter().all(Option::is_some)
    }
}

/// Strikes the gateway in use at a random moment, waits until every connection begun meanwhile has ended, heals it, and waits
/// until the pair is whole.
pub fn measure(pair: &mut Pair<'_>, fault: Fault, random: &mut fastrand::Rng) -> anyhow::Result<Kill> {
    let gateway = &GATEWAYS[0];
    pair.until_whole(WHOLE)?;
    pair.world.forget_unanswered(gateway)?;
    let leaked = pair.world.leaked_packets()?;
    pair.forget()?;
    let quiet = Instant::now();
    pair.watch(Duration::from_millis(random.u64(QUIET)))?;
    let watched = quiet.elapsed();

    let struck = fault.strike(pair.world, gateway)?;
    let since = struck.done;
    pair.until(LONGEST, |pair| pair.nodes.iter().all(|node| node.ledger.outage(since).is_some()))?;
    pair.until(ALL_ENDED, |pair| {
        let ended =
            |node: &super::pair::Node| node.ledger.outage(since).is_none_or(|outage| outage.open == 0);
        pair.nodes.iter().all(ended)
    })?;
    let outages: Vec<_> = pair.nodes.iter().map(|node| node.ledger.outage(since)).collect();
    if outages.iter().any(Option::is_none) {
        eprintln!(
            "{}: no new connection on every node after {LONGEST:?}\n{}",
            fault.name(),
            pair.last_words()
        );
    }

    fault.heal(pair.world, gateway)?;
    let healed = Instant::now();
    pair.until_whole(WHOLE)?;
    let moved = |node: &super::pair::Node| {
        node.ledger.moves().iter().filter(|to| **to != gateway.public).count() as u32
    };
    let moves: u32 = pair.nodes.iter().map(moved).sum();
    let explained = outages.iter().flatten().count() as u32;
    let failures: u32 = pair.nodes.iter().map(|node| node.ledger.failures()).sum();

    let ms = |time: Duration| rounded(time.as_secs_f64() * 1_000.0);
    let of_all = || outages.iter().flatten();
    let stalled = || of_all().flat_map(|outage| &outage.stalled);
    let failed = of_all().map(|outage| outage.failed).sum();
    Ok(Kill {
        seed: 0,
        pair: 0,
        pairs: 0,
        fault: fault.name().to_owned(),
        strike_ms: ms(struck.done - struck.begun),
        nodes_ms: outages
            .iter()
            .map(|outage| outage.as_ref().map(|seen| ms(seen.restored - struck.begun)))
            .collect(),
        stalled_ms: stalled().map(|(took, _)| ms(*took)).collect(),
        stalled_until_ms: stalled().map(|(_, ended)| ms(*ended - struck.begun)).fold(0.0, f64::max),
        failed,
        failed_otherwise: failures.saturating_sub(failed),
        leaked_packets: pair.world.leaked_packets()?.saturating_sub(leaked),
        false_failovers: moves.saturating_sub(explained),
        return_ms: ms(healed.elapsed()),
        watched_ms: ms(watched * pair.nodes.len() as u32),
    })
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A kill with these times and nothing else to tell.
    pub fn kill(fault: &str, nodes_ms: &[Option<f64>]) -> Kill {
        Kill {
            seed: 1,
            pair: 0,
            pairs: 1,
            fault: fault.to_owned(),
            strike_ms: 1.0,
            nodes_ms: nodes_ms.to_vec(),
            stalled_ms: vec![1_010.0, 1_020.0],
            stalled_until_ms: 1_300.0,
            failed: 0,
            failed_otherwise: 0,
            leaked_packets: 0,
            false_failovers: 0,
            return_ms: 1_400.0,
            watched_ms: 900.0,
        }
    }

    #[test]
    fn a_kill_takes_as_long_as_its_slowest_node_and_one_that_stays_out_counts_with_the_longest_time() {
        assert!((kill("frozen", &[Some(310.0), Some(390.0)]).every_node_ms() - 390.0).abs() < 0.01);
        let out = kill("frozen", &[Some(310.0), None]);
        assert!((out.every_node_ms() - 15_000.0).abs() < 0.01 && !out.is_restored());
        assert_eq!(kill("nat-gone", &[]).class(), Class::Gray);
    }
}
