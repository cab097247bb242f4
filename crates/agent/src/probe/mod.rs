//! Probes of every gateway a node may use, one task for each level.
//!
//! Responsibility: send probes in time and hand every outcome to the loop. No verdicts here: those are `egress-health`'s.
//!
//! | level | who is asked | what an answer proves |
//! | --- | --- | --- |
//! | reachability | the gateway's probe port in the VPC | its machine is alive: its kernel refuses, untracked, also with a full connection table |
//! | forwarding | a target outside, off the gateways' own subnet | it forwards, translates, and has a way out |
//! | source | another gateway's probe port on the public side | the same, and that it leaves with an address that the other admits: its own |
//! | full size | targets and other gateways in turn, with as much data as a packet takes | packets of full size get through |
//!
//! All but the first go through the gateway under test whatever the routes are: they are sent from the node's VPC address and a
//! source port of the gateway's range, for which a rule of ours has a table of its own.
//!
//! Cancel safety: a task owns nothing but its sockets; aborting it closes them.

mod connect;
mod connections;
mod plan;
mod prober;
pub mod rate;
mod schedule;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

pub use connect::Outcome;
pub(crate) use connect::{connect_from, connect_through};
pub use egress_health::Level;
pub use plan::askings;
pub(crate) use plan::{at_probe_port, witnesses};
pub use prober::Asking;
use prober::Common;

/// Doubts that a prober may be behind: three levels of a few gateways at a time.
const DOUBTS: usize = 64;

/// One outcome.
#[derive(Clone, Debug)]
pub struct ProbeResult {
    /// Private address of the gateway.
    pub gateway: Ipv4Addr,
    /// What was probed.
    pub level: Level,
    /// Who was asked.
    pub witness: SocketAddrV4,
    /// What came of it.
    pub outcome: Outcome,
    /// When its first packet was sent.
    pub sent: Instant,
    /// From the first packet to the answer, or to giving up.
    pub took: Duration,
}

/// The running probes. Dropping it ends them.
#[derive(Debug)]
pub struct Probes {
    running: BTreeMap<(Ipv4Addr, Level), Running>,
    judged: watch::Sender<BTreeSet<(Ipv4Addr, Level)>>,
    common: Common,
}

#[derive(Debug)]
struct Running {
    asking: Asking,
    task: AbortHandle,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Probes {
    /// No probes yet; outcomes will go to `results`.
    pub fn new(results: mpsc::Sender<ProbeResult>) -> Self {
        let nodes = Arc::new(AtomicUsize::new(rate::MOST_NODES));
        let judged = watch::Sender::default();
        let common = Common {
            nodes,
            doubts: broadcast::Sender::new(DOUBTS),
            beat: rate::Beat::at_random(),
            judged: judged.subscribe(),
            results,
        };
        Self { running: BTreeMap::new(), judged, common }
    }

    /// Which levels of which gateways are known to fail: what they leave without an answer is not repeated.
    pub fn judge(&self, failing: BTreeSet<(Ipv4Addr, Level)>) {
        self.judged.send_if_modified(|before| {
            let is_new = *before != failing;
            *before = failing;
            is_new
        });
    }

    /// How many nodes the cluster has: they share the probes that anybody gets. Until that is known it is the largest.
    pub fn share_among(&self, nodes: usize) {
        self.common.nodes.store(nodes, Ordering::Relaxed);
    }

    /// Starts, ends and changes probes so that exactly `wanted` run. What stays the same is not disturbed.
    pub fn reconcile(&mut self, wanted: Vec<Asking>) {
        let mut before = std::mem::take(&mut self.running);
        for asking in wanted {
            let key = (asking.gateway, asking.level);
            let running =
                before.remove(&key).filter(|running| running.asking == asking).unwrap_or_else(|| {
                    let task = prober::probe(asking.clone(), self.common.clone());
                    Running { asking, task: tokio::spawn(task).abort_handle() }
                });
            self.running.insert(key, running);
        }
    }
}
