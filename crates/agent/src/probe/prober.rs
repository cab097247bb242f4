//! One task: the witnesses of one level through one gateway, asked in turn, each answer handed on as it comes. When, and whom, says
//! [`super::schedule`].

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::Instant;

use super::connect::{connect_from, connect_full_size, connect_through};
use super::rate::{self, Beat};
use super::schedule::{Pace, Schedule};
use super::{Level, ProbeResult};

/// A probe on the way through a gateway that has no answer by then is repeated. Answers from another continent take less.
const LATE: Duration = Duration::from_millis(250);

/// A probe on the way through a gateway that has no answer by then is a miss. Below the second after which its SYN would be sent
/// again: a repetition must not hide a loss, and has no data.
const PATH_DEADLINE: Duration = Duration::from_millis(700);

/// The same for a probe that stays in the VPC, where an answer takes well under a millisecond, when the interval is long.
const LONGEST_DEADLINE: Duration = Duration::from_millis(500);

/// What a task asks, and how often.
#[derive(Clone, Debug, PartialEq)]
pub struct Asking {
    /// The gateway under test.
    pub gateway: Ipv4Addr,
    /// What an answer proves.
    pub level: Level,
    /// The node's own VPC address.
    pub source: Ipv4Addr,
    /// Source ports that lead through the gateway; `None`: any, for what stays in the VPC.
    pub source_ports: Option<RangeInclusive<u16>>,
    /// Who is asked, in turn; not empty.
    pub witnesses: Vec<SocketAddrV4>,
    /// Time between two probes that the health check asks for.
    pub interval: Duration,
    /// What the busiest witness gets of it; see [`rate::shares`].
    pub share: f64,
    /// How long a connection that was missed rests; see [`super::connections`].
    pub rest: Duration,
    /// Unanswered probes in a row that are a failure.
    pub fall: u8,
    /// Answers in a row that end it.
    pub rise: u8,
}

impl Asking {
    /// Time between two probes in a cluster of so many nodes.
    pub(super) fn interval(&self, nodes: usize) -> Duration {
        match self.level {
            Level::Reachability => rate::reachability(self.interval, nodes),
            Level::Forwarding | Level::Source | Level::FullSize => {
                rate::path(self.interval, nodes, self.share)
            }
        }
    }

    /// How soon an unanswered probe is repeated.
    pub(super) fn late(&self) -> Duration {
        match self.level {
            Level::Reachability => self.deadline(),
            _ => LATE.min(self.interval),
        }
    }

    pub(super) fn deadline(&self) -> Duration {
        match self.level {
            Level::Reachability => self.interval.mul_f64(0.95).min(LONGEST_DEADLINE),
            _ => PATH_DEADLINE,
        }
    }

    /// Whether a doubt of that gateway at that level is a reason to ask at once. A verdict is made by difference: the same is asked through
    /// the others. And of whose address, or of whose large packets, there is doubt is asked whether it forwards at all.
    pub(super) fn is_concerned_by(&self, (gateway, level): (Ipv4Addr, Level)) -> bool {
        match level {
            // Who does not answer in the VPC is down, whoever else does.
            Level::Reachability => false,
            Level::Source | Level::FullSize if gateway == self.gateway => self.level == Level::Forwarding,
            _ => gateway != self.gateway && self.level == level,
        }
    }

    async fn ask(self: Arc<Self>, port: u16, witness: SocketAddrV4) -> (u16, ProbeResult) {
        let started = Instant::now();
        let from = SocketAddrV4::new(self.source, port);
        let outcome = match self.level {
            Level::Reachability => connect_from(self.source, witness, self.deadline()).await,
            Level::Forwarding | Level::Source => connect_through(from, witness, self.deadline()).await,
            Level::FullSize => connect_full_size(from, witness, self.deadline()).await,
        };
        let took = started.elapsed();
        let result =
            ProbeResult { gateway: self.gateway, level: self.level, witness, outcome, sent: started, took };
        (port, result)
    }
}

/// What probers have in common.
#[derive(Clone, Debug)]
pub struct Common {
    /// How many nodes share the probes that anybody gets.
    pub nodes: Arc<AtomicUsize>,
    /// Which level fails or came back through which gateway just now. A few of them; who misses one hears the next.
    pub doubts: broadcast::Sender<(Ipv4Addr, Level)>,
    /// What is known to fail: asking it again at once would tell nothing new.
    pub judged: watch::Receiver<BTreeSet<(Ipv4Addr, Level)>>,
    /// When this node asks.
    pub beat: Beat,
    /// Where outcomes go.
    pub results: mpsc::Sender<ProbeResult>,
}

/// Asks for ever. Ends when nobody takes the answers. Cancel safe: what it owns are sockets, which close.
pub async fn probe(asking: Asking, common: Common) {
    let asking = Arc::new(asking);
    let Common { nodes, doubts, beat, judged, results } = common;
    let mut doubted = doubts.subscribe();
    let interval = || asking.interval(nodes.load(Ordering::Relaxed));
    let doubt = || {
        // There may be no other gateway to ask through.
        let _alone = doubts.send((asking.gateway, asking.level));
    };
    let mut schedule = Schedule::new(&asking, beat.first(Instant::now(), interval()));
    let mut under_way = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            Some(ended) = under_way.next(), if !under_way.is_empty() => {
                let (port, result): (u16, ProbeResult) = ended;
                if schedule.ended(port, result.witness, &result.outcome, Instant::now()) {
                    doubt();
                }
                if results.send(result).await.is_err() {
                    return;
                }
            }
            heard = doubted.recv() => {
                if heard.is_ok_and(|doubt| asking.is_concerned_by(doubt)) {
                    schedule.doubted(Instant::now());
                }
            }
            () = tokio::time::sleep_until(schedule.wakes()) => {
                let is_judged = judged.borrow().contains(&(asking.gateway, asking.level));
                let pace = Pace { beat, interval: interval(), is_judged };
                let Some(turn) = schedule.wake(&asking, pace, Instant::now()) else { continue };
                under_way.push(Arc::clone(&asking).ask(turn.port, turn.witness));
                if turn.is_doubted {
                    doubt();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::Outcome;

    #[tokio::test(start_paused = true)]
    async fn a_prober_whose_probe_was_answered_waits_for_nothing_and_asks_at_once_when_another_is_in_doubt() {
        let (results, mut outcomes) = mpsc::channel(1);
        let common = Common {
            nodes: Arc::new(AtomicUsize::new(1)),
            doubts: broadcast::Sender::new(1),
            beat: Beat::at_random(),
            judged: watch::Sender::default().subscribe(),
            results,
        };
        let asking = Asking {
            gateway: Ipv4Addr::LOCALHOST,
            level: Level::Forwarding,
            source: Ipv4Addr::LOCALHOST,
            source_ports: None,
            // Nobody listens there: it is refused, which is an answer.
            witnesses: vec![SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9)],
            interval: Duration::from_secs(60),
            share: 0.0,
            rest: Duration::ZERO,
            fall: 3,
            rise: 2,
        };
        let prober = tokio::spawn(probe(asking, common.clone()));
        let first = outcomes.recv().await.unwrap();
        assert_eq!(first.outcome, Outcome::Answered);
        // Let it take note of its answer, which it hands on before it waits again.
        tokio::task::yield_now().await;
        common.doubts.send((Ipv4Addr::new(192, 0, 2, 1), Level::Forwarding)).unwrap();
        let second = outcomes.recv().await.unwrap();
        assert_eq!(
            second.sent - first.sent,
            Duration::ZERO,
            "on a clock that moves only when everybody waits"
        );
        prober.abort();
    }
}
