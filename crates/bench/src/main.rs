//! Measures the agent from outside: `agent` how fast and how big it is, beside any other program of its kind in the same run;
//! `failover` how long users are without a gateway when one dies ([`failover`]); `gateway` what one gateway can bear ([`gateway`]).
//! `status` writes down what a thousand agents measured.
//!
//! ```text
//!  this program ── create, delete ──► API server (real, on loopback)
//!       │                                  │ watch
//!       │ dumps, lookups                   ▼
//!       └────────────► kernel ◄── the program under test, on a node with two gateways
//! ```
//!
//! Nothing is asked of the program under test: what it did is seen in the kernel, its size and time in `/proc`, its writes in
//! the API server's own counters, and its probes on the gateway's wire. What is measured and how: `docs/benchmarks.md`.

mod api;
mod apply;
mod document;
mod effort;
mod failover;
mod gateway;
mod interruption;
mod kernel;
mod measure;
mod network;
mod nodes;
mod numbers;
mod processor;
mod provider;
mod rest;
mod shipped;
mod status;
mod subject;
mod switch;

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Context;
use clap::Parser;
use serde_json::{Value, json};
use testkit::ApiServer;

use crate::effort::Effort;
use crate::measure::Bench;
use crate::network::Network;
use crate::subject::Subject;

/// Measures the agent, with a real API server and a real kernel.
#[derive(Debug, Parser)]
#[command(name = "egress-bench", version)]
enum Command {
    /// How fast and how big it is.
    Agent(Settings),
    /// How long users are without a gateway when one dies.
    Failover(failover::Settings),
    /// What one gateway can bear.
    Gateway(gateway::Settings),
    /// Writes down what `make bench-status` measured.
    Status(status::Settings),
}

/// Measures the agent on a node of its own.
#[derive(Debug, Parser)]
struct Settings {
    /// The agent, in release form.
    #[arg(long, default_value = "target/release/egress-agent")]
    agent: PathBuf,

    /// Another program to measure in the same run: a shell command that is started on the node, with KUBECONFIG and NODE_NAME
    /// set, follows StaticRoutes and ends with SIGTERM.
    #[arg(long)]
    peer_command: Option<String>,

    /// Table in which the other program has its routes.
    #[arg(long, default_value_t = 254)]
    peer_table: u32,

    /// Where the numbers go, with every sample. Left out: target/bench/agent.json, or agent-part.json with `--only`.
    #[arg(long)]
    out: Option<PathBuf>,

    /// Document whose tables are written anew, as far as everything in them was measured.
    #[arg(long)]
    document: Option<PathBuf>,

    /// Measure nothing but memory and processor at rest (`idle`), the same of the agent as it is shipped (`shipped`), or, for a
    /// profiler, the time to the last route of a number of destinations.
    #[arg(long)]
    only: Option<Only>,

    /// A few samples of everything, to see that it still works; the numbers say nothing.
    #[arg(long)]
    short: bool,
}

/// A part of the measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Only {
    /// The time to the last route of so many destinations.
    Destinations(usize),
    /// Memory and processor at rest.
    Idle,
    /// The same of the agent as it is shipped.
    Shipped,
}

impl FromStr for Only {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "idle" => Ok(Self::Idle),
            "shipped" => Ok(Self::Shipped),
            count => count.parse().map(Self::Destinations).map_err(|_| {
                format!("'{count}' is neither idle, shipped, nor a number of destinations such as 2000")
            }),
        }
    }
}

fn main() -> anyhow::Result<()> {
    match Command::parse() {
        Command::Agent(settings) => prepared().and_then(|()| measure_agent(&settings)),
        Command::Failover(settings) => prepared().and_then(|()| failover::run(&settings)),
        Command::Gateway(settings) => prepared().and_then(|()| gateway::run(&settings)),
        Command::Status(settings) => status::run(&settings),
    }
}

/// For what makes namespaces and starts programs.
fn prepared() -> anyhow::Result<()> {
    anyhow::ensure!(nix::unistd::geteuid().is_root(), "this makes network namespaces and needs root");
    interruption::catch()
}

fn measure_agent(settings: &Settings) -> anyhow::Result<()> {
    let agent = settings.agent.canonicalize().with_context(|| format!("{}", settings.agent.display()))?;
    let effort = if settings.short { Effort::SHORT } else { Effort::FULL };
    let mut report = json!({"raw": {}});
    if settings.only != Some(Only::Shipped) {
        report = beside_the_peer(settings, &agent, effort)?;
    }
    if !matches!(settings.only, Some(Only::Destinations(_))) {
        eprintln!("measuring the agent as it is shipped");
        let (summary, raw) = shipped::measure(&agent, effort)?;
        report["shipped"] = summary;
        report["raw"]["shipped"] = raw;
    }
    report["machine"] = numbers::machine();
    write(settings, &report)
}

/// The agent in the shape that other programs understand too, and the other program, one after the other.
fn beside_the_peer(settings: &Settings, agent: &Path, effort: Effort) -> anyhow::Result<Value> {
    let network = Network::new()?;
    // Current-thread: every socket is made on this thread, hence on the node.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _entered = runtime.enter();
    let server = runtime.block_on(interruption::or(ApiServer::start()))?;
    let mut bench = Bench::new(&runtime, &server, &network, effort)?;

    let kubeconfig = server.kubeconfig();
    let mut subjects = vec![Subject::agent(agent, subject::NODE, &kubeconfig)];
    let peer = settings.peer_command.as_deref();
    subjects.extend(peer.map(|command| Subject::peer(command, settings.peer_table, &kubeconfig)));
    let mut reports = Vec::new();
    for subject in &subjects {
        eprintln!("measuring {}", subject.name);
        reports.push(bench.measure(subject, settings.only)?);
    }
    let mut reports = reports.into_iter();
    let mut report = reports.next().unwrap_or_default();
    report["peer"] = reports.next().unwrap_or(json!(null));
    Ok(report)
}

fn write(settings: &Settings, report: &Value) -> anyhow::Result<()> {
    let name = if settings.only.is_some() { "agent-part.json" } else { "agent.json" };
    let out = settings.out.clone().unwrap_or_else(|| Path::new("target/bench").join(name));
    if let Some(folder) = out.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(&out, serde_json::to_string_pretty(report)? + "\n")?;
    for (table, is_at_rest) in [(&document::SPEED, false), (&document::AT_REST, true)] {
        let text = table.of(report);
        println!("{text}");
        // One that was measured in part would lose what it has.
        let is_whole = settings.only.is_none() || settings.only == Some(Only::Idle) && is_at_rest;
        if let Some(path) = settings.document.as_ref().filter(|_| is_whole) {
            table.write(path, &text)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_has_a_name_or_is_a_number_of_destinations() {
        assert_eq!(
            ["idle", "shipped", "2000"].map(str::parse),
            [Ok(Only::Idle), Ok(Only::Shipped), Ok(Only::Destinations(2000))]
        );
        assert!("cpu".parse::<Only>().unwrap_err().contains("'cpu' is neither idle, shipped"));
    }
}
