//! Probes of every gateway a node may use, each in a task of its own.
//!
//! Responsibility: send probes at their interval and hand every outcome to the loop. No verdicts here: those are
//! `egress-health`'s.
//!
//! - Reachability (level 1): a TCP connect to the gateway's probe port over the VPC. Its kernel refuses it, untracked, so an
//!   answer says that the machine is alive even when its connection table is full.
//! - Forwarding (level 2): a TCP connect to a health target outside, from the node's VPC address and a source port of the
//!   gateway's range, which a rule of ours sends through that gateway whatever the routes are. Any answer proves the way.
//!
//! Cancel safety: a task owns nothing but its socket; aborting it closes that.

mod connect;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use egress_api::GATEWAY_PROBE_PORT;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::MissedTickBehavior;

pub use connect::Outcome;
pub(crate) use connect::{connect_from, connect_through};

/// Time between two reachability probes. Three misses make 300 ms: reference measurements put the switch at 0.36 s.
pub const REACHABILITY_INTERVAL: Duration = Duration::from_millis(100);

/// A reachability probe that has no answer by then is a miss. Within a VPC an answer takes well under a millisecond.
const REACHABILITY_DEADLINE: Duration = Duration::from_millis(95);

/// Time between two forwarding probes of one gateway.
const FORWARDING_INTERVAL: Duration = Duration::from_secs(1);

/// Below the second after which a lost SYN would be sent again: a retransmission must not hide a loss.
const FORWARDING_DEADLINE: Duration = Duration::from_millis(900);

/// What was probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The gateway's kernel, in the VPC.
    Reachability,
    /// The way through the gateway to the outside.
    Forwarding,
}

/// One outcome.
#[derive(Clone, Debug)]
pub struct ProbeResult {
    /// Private address of the gateway.
    pub gateway: Ipv4Addr,
    /// What was probed.
    pub level: Level,
    /// What came of it.
    pub outcome: Outcome,
    /// From the first packet to the answer, or to giving up.
    pub took: Duration,
}

/// How one gateway is probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbePlan {
    /// The node's own VPC address.
    pub source: Ipv4Addr,
    /// Source ports that lead through this gateway.
    pub source_ports: RangeInclusive<u16>,
    /// Where forwarding probes go, in turn. Empty: the way through is not probed.
    pub targets: Vec<SocketAddrV4>,
}

/// The running probes. Dropping it ends them.
#[derive(Debug)]
pub struct Probes {
    running: BTreeMap<Ipv4Addr, Running>,
    results: mpsc::Sender<ProbeResult>,
}

#[derive(Debug)]
struct Running {
    plan: ProbePlan,
    tasks: Vec<AbortHandle>,
}

impl Drop for Running {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Probes {
    /// No probes yet; outcomes will go to `results`.
    pub fn new(results: mpsc::Sender<ProbeResult>) -> Self {
        Self { running: BTreeMap::new(), results }
    }

    /// Starts, ends and changes probes so that exactly `wanted` run. What stays the same is not disturbed.
    pub fn reconcile(&mut self, wanted: &BTreeMap<Ipv4Addr, ProbePlan>) {
        self.running.retain(|gateway, running| wanted.get(gateway) == Some(&running.plan));
        for (gateway, plan) in wanted {
            if self.running.contains_key(gateway) {
                continue;
            }
            let mut tasks = vec![
                tokio::spawn(probe_reachability(*gateway, plan.source, self.results.clone())).abort_handle(),
            ];
            if !plan.targets.is_empty() {
                tasks.push(
                    tokio::spawn(probe_forwarding(*gateway, plan.clone(), self.results.clone()))
                        .abort_handle(),
                );
            }
            self.running.insert(*gateway, Running { plan: plan.clone(), tasks });
        }
    }
}

async fn probe_reachability(gateway: Ipv4Addr, source: Ipv4Addr, results: mpsc::Sender<ProbeResult>) {
    let target = SocketAddrV4::new(gateway, GATEWAY_PROBE_PORT);
    let mut ticks = tokio::time::interval(REACHABILITY_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let started = Instant::now();
        let outcome = connect_from(source, target, REACHABILITY_DEADLINE).await;
        let result = ProbeResult { gateway, level: Level::Reachability, outcome, took: started.elapsed() };
        if results.send(result).await.is_err() {
            return;
        }
    }
}

async fn probe_forwarding(gateway: Ipv4Addr, plan: ProbePlan, results: mpsc::Sender<ProbeResult>) {
    let mut ticks = tokio::time::interval(FORWARDING_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut ports = plan.source_ports.clone().cycle();
    let mut first_target = 0;
    loop {
        ticks.tick().await;
        let started = Instant::now();
        // The next target is asked only where the last one did not answer: one dead target condemns nobody, and the
        // targets see one connection a second at most while all is well.
        let mut outcome = Outcome::Inconclusive("no target".to_owned());
        for step in 0..plan.targets.len() {
            let index = (first_target + step) % plan.targets.len();
            let Some(port) = ports.next() else { return };
            let from = SocketAddrV4::new(plan.source, port);
            outcome = connect_through(from, plan.targets[index], FORWARDING_DEADLINE).await;
            if outcome == Outcome::Answered {
                first_target = index;
                break;
            }
        }
        let result = ProbeResult { gateway, level: Level::Forwarding, outcome, took: started.elapsed() };
        if results.send(result).await.is_err() {
            return;
        }
    }
}
