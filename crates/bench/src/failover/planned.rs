//! Planned switches: the order of the list is changed, and a stream of datagrams on each node tells whether any is lost. Nothing
//! drains here (`drainSeconds: 0`): the stream would stay with the gateway that it has.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde::{Deserialize, Serialize};
use serde_json::json;
use testkit::{Traffic, Verdict};

use super::pair::{Pair, ROUTE};
use super::world::GATEWAYS;
use crate::numbers::rounded;

/// So many switches are judged together: the oracle keeps every datagram in memory.
const ROUND: u32 = 20;
/// Nodes follow a new order at once.
const FOLLOWED: Duration = Duration::from_secs(30);
/// Where the datagrams go.
const PORT: u16 = 9_999;

/// What became of planned switches.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Planned {
    /// Changes of the order, each followed by every node.
    pub switches: u32,
    /// Datagrams sent.
    pub sent: u64,
    /// Those that did not arrive, or that a node's kernel refused.
    pub lost: u64,
    /// Those that arrived with a source that is no gateway's, and other such packets.
    pub leaked_packets: u64,
    /// Connections begun meanwhile.
    pub connections_failed: u32,
    /// From the API server's answer until every node's new connections had gone through the other gateway twenty times, ms.
    pub took_ms: Vec<f64>,
}

impl Planned {
    /// Adds another pair's.
    pub fn add(&mut self, other: Self) {
        let Self { switches, sent, lost, leaked_packets, connections_failed, took_ms } = other;
        self.switches += switches;
        self.sent += sent;
        self.lost += lost;
        self.leaked_packets += leaked_packets;
        self.connections_failed += connections_failed;
        self.took_ms.extend(took_ms);
    }

    fn judge(&mut self, verdict: &Verdict, gateways: &[Ipv4Addr]) {
        let strangers = |(source, _): &(&Ipv4Addr, &u64)| !gateways.contains(source);
        self.sent += verdict.sent;
        self.lost += (verdict.lost.len() + verdict.refused.len()) as u64;
        self.leaked_packets +=
            verdict.by_source.iter().filter(strangers).map(|(_, count)| count).sum::<u64>();
    }
}

/// Switches there and back until `more` says that it is enough.
pub fn measure(pair: &mut Pair<'_>, mut more: impl FnMut() -> bool) -> anyhow::Result<Planned> {
    let mut planned = Planned::default();
    let leaked = pair.world.leaked_packets()?;
    pair.forget()?;
    let mut slot = 0;
    let mut goes_on = true;
    while goes_on {
        let streams = streams(pair)?;
        for _ in 0..ROUND {
            goes_on = more();
            if !goes_on {
                break;
            }
            slot = 1 - slot;
            planned.took_ms.push(switch(pair, slot)?);
            planned.switches += 1;
        }
        for stream in streams {
            planned.judge(&stream.stop()?, &GATEWAYS.map(|at| at.public));
        }
        planned.connections_failed += pair.nodes.iter().map(|node| node.ledger.failures()).sum::<u32>();
        pair.forget()?;
    }
    // Datagrams with a foreign source are in both counts; the larger has all of them.
    planned.leaked_packets = planned.leaked_packets.max(pair.world.leaked_packets()? - leaked);
    Ok(planned)
}

fn switch(pair: &mut Pair<'_>, slot: usize) -> anyhow::Result<f64> {
    let order = [GATEWAYS[slot], GATEWAYS[1 - slot]];
    let order = order.map(|at| json!({"address": at.private, "egressAddress": at.public}));
    let answered = pair.api.edit_with(ROUTE, &json!({"gateways": order}))?;
    ensure!(pair.until_all_through(slot, FOLLOWED)?, "the new order was not followed\n{}", pair.last_words());
    Ok(rounded(Instant::now().duration_since(answered.at).as_secs_f64() * 1_000.0))
}

/// One for each node, each to a port of its own outside.
fn streams(pair: &Pair<'_>) -> anyhow::Result<Vec<Traffic>> {
    let mut streams = Vec::new();
    for (n, node) in (0..).zip(&pair.world.nodes) {
        let bound = || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT + n));
        let receiver = pair.world.outside.inside(bound)??;
        let sender = node.inside(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))??;
        let targets = (1..=8).map(|last| SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, last), PORT + n));
        streams.push(Traffic::start(sender, receiver, targets.collect()));
    }
    Ok(streams)
}

/// What is published of it.
pub fn summary(planned: &Planned, commit: &str) -> serde_json::Value {
    json!({
        "commit": commit,
        "switches": planned.switches,
        "datagrams": planned.sent,
        "lost": planned.lost,
        "leaked_packets": planned.leaked_packets,
        "connections_failed": planned.connections_failed,
        "took": super::summary::percentiles(planned.took_ms.clone()),
    })
}
