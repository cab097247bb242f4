//! The DigitalOcean v2 API and metadata service with state machines and faults on demand.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use do_simulator::clock::Clock;
use do_simulator::cloud::{Cloud, Delays};
use do_simulator::fixtures::Fixtures;
use do_simulator::rate::Limits;
use do_simulator::scope::Scopes;
use do_simulator::{Options, start};

/// A DigitalOcean cloud on one machine: API, metadata service, faults and a clock that tests can drive.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Address of the API and of the control routes under /simulator/.
    #[arg(long)]
    listen: SocketAddr,
    /// The token that is let in.
    #[arg(long, env = "DO_SIMULATOR_TOKEN", hide_env_values = true)]
    token: String,
    /// Another one that may do everything, as a person at the cloud's own pages may.
    #[arg(long, env = "DO_SIMULATOR_OPERATOR_TOKEN", hide_env_values = true)]
    operator_token: Option<String>,
    /// Append every request to this file, one JSON object a line.
    #[arg(long)]
    journal: Option<PathBuf>,
    /// Keep a snapshot here, written after each change and read at the start (fixtures are then not used).
    #[arg(long)]
    state: Option<PathBuf>,
    /// Address of the metadata service (169.254.169.254:80 for real machines).
    #[arg(long)]
    metadata_listen: Option<SocketAddr>,
    /// What exists at the start (JSON; see the module `fixtures`).
    #[arg(long)]
    fixtures: Option<PathBuf>,
    /// Called as `CMD <verb> <droplet id>` with JSON on standard input; without it Droplets are pure state.
    #[arg(long)]
    machine_command: Option<String>,
    /// Seconds one machine command may take.
    #[arg(long, default_value_t = 300)]
    machine_deadline: u64,
    /// Whose time it is: the machine's, or that of POST /simulator/clock.
    #[arg(long, value_enum, default_value_t = ClockKind::Real)]
    clock: ClockKind,
    /// How long things take.
    #[arg(long, value_enum, default_value_t = Profile::Quick)]
    profile: Profile,
    /// What the token may do (for example `droplet:read,tag:read`); without it everything.
    #[arg(long)]
    scopes: Option<Scopes>,
    /// Requests a token may make in any hour.
    #[arg(long, default_value_t = 5_000)]
    hourly_limit: usize,
    /// Requests a token may make in any minute.
    #[arg(long, default_value_t = 250)]
    burst_limit: usize,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ClockKind {
    Real,
    Driven,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Profile {
    /// Fractions of a second, for tests and the lab.
    Quick,
    /// As long as on the real cloud.
    Real,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let arguments = Arguments::parse();

    let clock = match arguments.clock {
        ClockKind::Real => Clock::Real,
        ClockKind::Driven => Clock::driven(),
    };
    let delays = match arguments.profile {
        Profile::Quick => Delays::quick(),
        Profile::Real => Delays::real(),
    };
    let mut cloud = Cloud::new(delays, arguments.machine_command.is_some());
    if let Some(path) = &arguments.fixtures {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        Fixtures::parse(&text)
            .and_then(|fixtures| fixtures.furnish(&mut cloud, clock.now()))
            .with_context(|| path.display().to_string())?;
    }
    let mut running = start(Options {
        listen: arguments.listen,
        metadata: arguments.metadata_listen,
        token: arguments.token,
        operator_token: arguments.operator_token,
        journal: arguments.journal,
        state: arguments.state,
        machine_command: arguments.machine_command,
        machine_deadline: Duration::from_secs(arguments.machine_deadline),
        clock,
        limits: Limits { hourly: arguments.hourly_limit, burst: arguments.burst_limit },
        scopes: arguments.scopes.unwrap_or_default(),
        cloud,
    })
    .await?;
    tracing::info!(api = %running.api, metadata = ?running.metadata, "listening");

    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        () = running.ended() => anyhow::bail!("a listener ended"),
        _ = terminate.recv() => Ok(()),
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}
