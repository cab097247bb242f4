//! `target/demo/report.json`: what the demo showed and measured.

use std::path::Path;

use anyhow::Context;
use serde::Serialize;
use serde_json::Value;

use super::timeline::Timeline;

/// The report.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Every step that was begun.
    pub steps: Vec<StepReport>,
    /// Public address that the pod's traffic left with.
    pub egress_ip: Option<String>,
    /// The measured failover.
    pub failover: Option<FailoverReport>,
    /// The gateway that lost its power, as its EgressGateway told of it before.
    #[serde(skip)]
    pub killed: Option<Value>,
    /// What was found after everything had been deleted.
    pub left_behind: Option<LeftBehind>,
}

/// One step.
#[derive(Debug, Serialize)]
pub struct StepReport {
    /// Its name.
    pub name: &'static str,
    /// Whether it showed what it must.
    pub ok: bool,
    /// How long it took.
    pub seconds: f64,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The failover in three numbers, and the whole timeline.
#[derive(Debug, Serialize)]
pub struct FailoverReport {
    /// Connections that got no answer.
    pub failed_connections: usize,
    /// From the loss of power to the first new connection that succeeded, in milliseconds.
    pub gap_ms: Option<f64>,
    /// Packets to the routed destination that reached the outside with an address that is no gateway's.
    pub leaked_packets: u64,
    /// Everything else.
    pub timeline: Timeline,
}

/// What a deleted EgressGateway left behind. All zero, or the demo fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct LeftBehind {
    /// Droplets that carry our fleet tag.
    pub droplets: usize,
    /// Reserved addresses of the account.
    pub reserved_ips: usize,
    /// Routes, rules and nexthop objects of ours on all nodes.
    pub routes: usize,
}

impl Report {
    /// Writes it, folders included.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let text = serde_json::to_string_pretty(self)?;
        std::fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))
    }
}
