//! The price of quick failover: what probing costs while all is well, and whether loss and a busy processor move anybody.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::pair::Pair;
use super::world::GATEWAYS;
use crate::numbers::{count, rounded};
use crate::processor::Processor;

/// Of a thousand packets so many are lost, each way, on each link of each gateway.
const LOST_OF_A_THOUSAND: u32 = 10;
/// How long the price is taken.
const QUIET: Duration = Duration::from_secs(30);

/// Probes that a gateway, and the outside, got in a second.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Price {
    /// To the first gateway's probe port in the VPC, from all nodes.
    pub in_the_vpc: f64,
    /// To its probe port outside, through the other gateway.
    pub peers: f64,
    /// To the targets of the health check.
    pub targets: f64,
    /// Share of a core that each agent had, percent.
    pub agents_percent: Vec<f64>,
}

/// What a pair went through.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Soak {
    /// With no loss and nothing else to do.
    pub quiet: Price,
    /// Under loss and load.
    pub loaded: Price,
    /// Moves of any node; nothing had failed.
    pub false_failovers: u32,
    /// Connections that failed. Each has 20 s, in which SYNs and segments are sent again.
    pub connections_failed: u32,
    /// Packets with a source that is no gateway's.
    pub leaked_packets: u64,
    /// Time of all nodes together.
    pub node_hours: f64,
}

/// Takes the price, then soaks for `time`, or until `stop`.
pub fn measure(pair: &mut Pair<'_>, time: Duration, stop: &AtomicBool) -> anyhow::Result<Soak> {
    let mut soak = Soak::default();
    let leaked = pair.world.leaked_packets()?;
    pair.world.count_probes()?;
    soak.quiet = price(pair, QUIET.min(time), stop)?.0;
    pair.forget()?;
    for at in &GATEWAYS {
        pair.world.gateway(at)?.nft(&losing())?;
    }
    let ended = AtomicBool::new(false);
    let burners = std::thread::available_parallelism().map_or(2, std::num::NonZero::get) * 2;
    let loaded = std::thread::scope(|scope| {
        for _ in 0..burners {
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let loaded = price(pair, time, stop);
        ended.store(true, Ordering::Relaxed);
        loaded
    });
    let (price, took) = loaded?;
    soak.loaded = price;
    soak.false_failovers = pair.nodes.iter().map(|node| node.ledger.moves().len() as u32).sum();
    soak.connections_failed = pair.nodes.iter().map(|node| node.ledger.failures()).sum();
    soak.leaked_packets = pair.world.leaked_packets()? - leaked;
    soak.node_hours = rounded(took.as_secs_f64() / 3_600.0 * count(pair.nodes.len()));
    Ok(soak)
}

fn price(pair: &mut Pair<'_>, time: Duration, stop: &AtomicBool) -> anyhow::Result<(Price, Duration)> {
    let before = pair.world.probes()?;
    let mut processors = Vec::new();
    for node in &pair.nodes {
        processors.push(node.agent.processor()?);
    }
    let begun = Instant::now();
    while begun.elapsed() < time && !stop.load(Ordering::Relaxed) {
        pair.watch(Duration::from_millis(500).min(time))?;
        pair.nodes.iter_mut().for_each(|node| node.ledger.forget_ended());
        processors.iter_mut().try_for_each(Processor::look)?;
    }
    let took = begun.elapsed();
    let seconds = took.as_secs_f64();
    let seen = pair.world.probes()?.since(before);
    let percent = |processor: &Processor| rounded(processor.total().as_secs_f64() / seconds * 100.0);
    let rate = |probes: u64| rounded(count(probes) / seconds);
    let price = Price {
        in_the_vpc: rate(seen.in_the_vpc),
        peers: rate(seen.of_peers),
        targets: rate(seen.of_targets),
        agents_percent: processors.iter().map(percent).collect(),
    };
    Ok((price, took))
}

fn losing() -> String {
    let hooks = ["ingress eth0", "egress eth0", "ingress eth1", "egress eth1"];
    let drop = format!("numgen random mod 1000 < {LOST_OF_A_THOUSAND} drop");
    format!("table netdev loss {{\n{}}}\n", super::fault::chains(&hooks, &drop))
}

/// What is published of all pairs'.
pub fn summary(soaks: &[Soak], commit: &str, minutes: u64) -> Value {
    let prices = |of: fn(&Soak) -> &Price| {
        let mean = |value: fn(&Price) -> f64| {
            rounded(soaks.iter().map(|soak| value(of(soak))).sum::<f64>() / count(soaks.len().max(1)))
        };
        let agents = || soaks.iter().flat_map(|soak| &of(soak).agents_percent).copied();
        json!({
            "probes_per_second_of_a_gateway_in_the_vpc": mean(|price| price.in_the_vpc),
            "probes_per_second_of_a_gateway_outside": mean(|price| price.peers),
            "probes_per_second_of_all_targets": mean(|price| price.targets),
            "agent_processor_percent": rounded(agents().sum::<f64>() / count(agents().count().max(1))),
            "agent_processor_percent_most": agents().fold(0.0, f64::max),
        })
    };
    json!({
        "commit": commit,
        "minutes": minutes,
        "pairs_at_a_time": soaks.len(),
        "nodes": soaks.first().map(|soak| soak.quiet.agents_percent.len()),
        "node_hours": rounded(soaks.iter().map(|soak| soak.node_hours).sum()),
        "lost_percent_each_way_on_each_link_of_a_gateway": f64::from(LOST_OF_A_THOUSAND) / 10.0,
        "false_failovers": soaks.iter().map(|soak| soak.false_failovers).sum::<u32>(),
        "connections_failed": soaks.iter().map(|soak| soak.connections_failed).sum::<u32>(),
        "leaked_packets": soaks.iter().map(|soak| soak.leaked_packets).sum::<u64>(),
        "quiet": prices(|soak| &soak.quiet),
        "loaded": prices(|soak| &soak.loaded),
    })
}
