//! One task: the witnesses of one level through one gateway, asked in turn, each answer handed on as it comes.
//!
//! A probe that stays without an answer is confirmed at once by others, to the next witnesses, without waiting for its
//! deadline; so is the first answer after a failure. After that the level is asked at its interval again.
//!
//! ```text
//!            asked every interval                     asked every `failing`
//!   ┌─────────┐  unanswered   ┌────────────┐  4 × `fall` of it ┌─────────┐
//!   │ working │ ────────────► │ confirming │ ────────────────► │ failing │
//!   └─────────┘ ◄──────────── └────────────┘                   └─────────┘
//!        ▲        an answer                                         │
//!        └──────────────────────────────────────────────────────────┘
//!                     `rise` answers, asked without a pause
//! ```

use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::{broadcast, mpsc};
use tokio::time::Instant;

use super::connect::{Outcome, connect_from, connect_full_size, connect_through};
use super::connections::Connections;
use super::rate::{self, Beat};
use super::{Level, ProbeResult};

/// A probe on the way through a gateway that has no answer by then is repeated. Answers from another continent take less.
const LATE: Duration = Duration::from_millis(250);

/// A probe on the way through a gateway that has no answer by then is a miss. Below the second after which its SYN would be sent
/// again: a repetition must not hide a loss, and has no data.
const PATH_DEADLINE: Duration = Duration::from_millis(700);

/// The same for a probe that stays in the VPC, where an answer takes well under a millisecond, when the interval is long.
const LONGEST_DEADLINE: Duration = Duration::from_millis(500);

/// An unanswered probe is repeated so many times as often as a failure takes: where packets were lost before, `egress-health` wants
/// more misses, and more probes to count the losses.
const REPEATED: u8 = 4;

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
    fn interval(&self, nodes: usize) -> Duration {
        match self.level {
            Level::Reachability => rate::reachability(self.interval, nodes),
            Level::Forwarding | Level::Source | Level::FullSize => {
                rate::path(self.interval, nodes, self.share)
            }
        }
    }

    /// How soon an unanswered probe is repeated.
    fn late(&self) -> Duration {
        match self.level {
            Level::Reachability => self.deadline(),
            _ => LATE.min(self.interval),
        }
    }

    fn deadline(&self) -> Duration {
        match self.level {
            Level::Reachability => self.interval.mul_f64(0.95).min(LONGEST_DEADLINE),
            _ => PATH_DEADLINE,
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

/// What of the last probes says when the next one is due: pure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Rhythm {
    /// Probes since the last answer.
    unanswered: u8,
    /// Answers since the last failure, while it counts.
    answers: u8,
    failing: bool,
}

/// When the next probe is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// At once.
    Now,
    /// After the interval.
    Interval,
    /// After the longer one of what fails.
    Failing,
}

impl Rhythm {
    fn asked(&mut self) {
        self.unanswered = self.unanswered.saturating_add(1);
    }

    fn answered(&mut self) {
        self.unanswered = 0;
        self.answers = self.answers.saturating_add(1);
    }

    /// To be asked when the last probe is late or has ended.
    fn next(&mut self, fall: u8, rise: u8) -> Next {
        match (self.unanswered > 0, self.failing) {
            (true, _) if self.unanswered >= fall || self.failing => {
                *self = Self { failing: true, answers: 0, ..*self };
                Next::Failing
            }
            (true, _) => Next::Now,
            (false, true) if self.answers < rise => Next::Now,
            (false, _) => {
                self.failing = false;
                Next::Interval
            }
        }
    }
}

/// What probers have in common.
#[derive(Clone, Debug)]
pub struct Common {
    /// How many nodes share the probes that anybody gets.
    pub nodes: Arc<AtomicUsize>,
    /// Which level fails or came back through which gateway just now: the same is asked through the others at once, for a verdict is
    /// made by difference. A few of them; who misses one hears the next.
    pub doubts: broadcast::Sender<(Ipv4Addr, Level)>,
    /// When this node asks.
    pub beat: Beat,
    /// Where outcomes go.
    pub results: mpsc::Sender<ProbeResult>,
}

/// Whose answer through another gateway tells whether it is the gateway: what admits an address is asked through one only.
fn compared(level: Level) -> Option<Level> {
    match level {
        // Who does not answer in the VPC is down, whoever else does.
        Level::Reachability => None,
        Level::Forwarding | Level::Source => Some(Level::Forwarding),
        Level::FullSize => Some(Level::FullSize),
    }
}

/// Asks for ever. Ends when nobody takes the answers. Cancel safe: what it owns are sockets, which close.
pub async fn probe(asking: Asking, common: Common) {
    let asking = Arc::new(asking);
    let Common { nodes, doubts, beat, results } = common;
    let mut doubted = doubts.subscribe();
    let nodes = || nodes.load(Ordering::Relaxed);
    // Nodes that begin together begin with different witnesses.
    let mut connections = Connections::new(asking.source_ports.as_ref(), &asking.witnesses, asking.rest)
        .begin_with(fastrand::usize(..asking.witnesses.len()));
    let mut rhythm = Rhythm::default();
    let mut under_way = FuturesUnordered::new();
    let mut due = beat.first(Instant::now(), asking.interval(nodes()));
    let mut is_late = None;
    loop {
        tokio::select! {
            biased;
            Some(ended) = under_way.next(), if !under_way.is_empty() => {
                let (port, result): (u16, ProbeResult) = ended;
                let is_missed = matches!(result.outcome, Outcome::Missed(_));
                connections.put_back(port, result.witness, is_missed, Instant::now());
                if result.outcome == Outcome::Answered {
                    if let Some(level) = compared(asking.level).filter(|_| rhythm.failing) {
                        let _alone = doubts.send((asking.gateway, level));
                    }
                    rhythm.answered();
                    // What works needs no look whether it is late: each wakes the machine.
                    if is_late.is_some() && !rhythm.failing {
                        is_late = None;
                    }
                }
                if results.send(result).await.is_err() {
                    return;
                }
            }
            doubt = doubted.recv() => {
                let concerns_us = doubt.is_ok_and(|(gateway, level)| gateway != asking.gateway && level == asking.level);
                if concerns_us {
                    due = Instant::now();
                }
            }
            () = tokio::time::sleep_until(is_late.unwrap_or(due)) => {
                if let Some(_late) = is_late.take() {
                    match rhythm.next(asking.fall.saturating_mul(REPEATED), asking.rise) {
                        Next::Now => due = Instant::now(),
                        Next::Interval => {}
                        Next::Failing => due += connections.pause(Instant::now()).saturating_sub(asking.interval(nodes())),
                    }
                    continue;
                }
                let (now, interval) = (Instant::now(), asking.interval(nodes()));
                let works = rhythm.unanswered == 0 && !rhythm.failing;
                // What does not work is asked at times of its own, and its connections rest as long as they must.
                due = if works { beat.after(now, interval) } else { now + rate::jittered(interval) };
                let Some((port, witness)) = connections.next(now) else { continue };
                let repeats = rhythm.unanswered > 0 && !rhythm.failing;
                rhythm.asked();
                under_way.push(Arc::clone(&asking).ask(port, witness));
                if let Some(level) = compared(asking.level).filter(|_| repeats) {
                    // There may be no other gateway to ask through.
                    let _alone = doubts.send((asking.gateway, level));
                }
                is_late = Some(now + asking.late());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pauses of a prober whose probes are answered or not, in that order.
    fn pauses(answered: impl IntoIterator<Item = bool>) -> Vec<Next> {
        let mut rhythm = Rhythm::default();
        let pause = |is_answered| {
            rhythm.asked();
            if is_answered {
                rhythm.answered();
            }
            rhythm.next(3, 2)
        };
        answered.into_iter().map(pause).collect()
    }

    #[test]
    fn a_miss_and_a_recovery_are_confirmed_at_once_and_a_failure_is_asked_at_leisure() {
        use Next::{Failing, Interval, Now};
        assert_eq!(pauses([true, true]), [Interval, Interval]);
        assert_eq!(pauses([true, false, true]), [Interval, Now, Interval]);
        assert_eq!(pauses([false; 5]), [Now, Now, Failing, Failing, Failing]);
        let healed = [false, false, false, true, true, true, false];
        assert_eq!(pauses(healed), [Now, Now, Failing, Now, Interval, Interval, Now]);
        assert_eq!(pauses([false, false, false, true, false, true]), [Now, Now, Failing, Now, Failing, Now]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_prober_whose_probe_was_answered_waits_for_nothing_and_asks_at_once_when_another_is_in_doubt() {
        let (results, mut outcomes) = mpsc::channel(1);
        let common = Common {
            nodes: Arc::new(AtomicUsize::new(1)),
            doubts: broadcast::Sender::new(1),
            beat: Beat::at_random(),
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
