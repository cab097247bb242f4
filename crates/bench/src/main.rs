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
mod failover;
mod gateway;
mod interruption;
mod kernel;
mod measure;
mod network;
mod numbers;
mod status;
mod subject;
mod switch;

use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;
use serde_json::json;
use testkit::ApiServer;

use crate::measure::{Bench, Effort};
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

    /// Where the numbers go, with every sample.
    #[arg(long, default_value = "target/bench/agent.json")]
    out: PathBuf,

    /// Document whose table is written anew.
    #[arg(long)]
    document: Option<PathBuf>,

    /// Measure nothing but the time to the last route of this many destinations: for a profiler.
    #[arg(long)]
    only: Option<usize>,

    /// A few samples of everything, to see that it still works; the numbers say nothing.
    #[arg(long)]
    short: bool,
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

    let network = Network::new()?;
    // Current-thread: every socket is made on this thread, hence on the node.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _entered = runtime.enter();
    let server = runtime.block_on(interruption::or(ApiServer::start()))?;
    let mut bench = Bench::new(&runtime, &server, &network, effort)?;

    let kubeconfig = server.kubeconfig();
    let mut subjects = vec![Subject::agent(&agent, subject::NODE, &kubeconfig)];
    let peer = settings.peer_command.as_deref();
    subjects.extend(peer.map(|command| Subject::peer(command, settings.peer_table, &kubeconfig)));
    let mut reports = Vec::new();
    for subject in &subjects {
        eprintln!("measuring {}", subject.name);
        reports.push(bench.measure(subject, settings.only)?);
    }
    let mut reports = reports.into_iter();
    let mut report = reports.next().unwrap_or_default();
    report["machine"] = numbers::machine();
    report["peer"] = reports.next().unwrap_or(json!(null));

    if let Some(folder) = settings.out.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(&settings.out, serde_json::to_string_pretty(&report)? + "\n")?;
    let table = document::table(&report);
    println!("{table}");
    if let Some(path) = &settings.document {
        document::write(path, document::BEGIN, document::END, &table)?;
    }
    Ok(())
}
