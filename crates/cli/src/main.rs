//! The binary `kubectl-egress`, which kubectl runs as `kubectl egress`.
//!
//! What looks changes nothing; what changes says so before it does. Exit codes stand in each command's `--help`; where it says
//! nothing else: 0, it was done; 1, it could not be done.

mod access;
mod completion;
mod confirm;
mod doctor;
mod migrate;
mod order;
mod orphans;
mod output;
mod plan;
mod status;
mod trace;
mod view;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use egress_runtime::kubernetes;

#[derive(Parser)]
#[command(name = "kubectl egress", bin_name = "kubectl egress", version)]
#[command(about = "Egress gateways of a DigitalOcean Kubernetes cluster")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Shows the state of everything on one screen, what is wrong first.
    Status(status::Arguments),
    /// Says which way a packet to an address leaves, with which public address, and why.
    Trace(trace::Arguments),
    /// Shows what applying EgressGateways would make, roll and delete, and what it would cost. Changes nothing.
    Plan(plan::Arguments),
    /// Makes another gateway the first, as a planned move.
    Failover(order::Failover),
    /// Has nodes leave a gateway while another works.
    Drain(order::Drain),
    /// Takes drained gateways back in.
    Uncordon(order::Uncordon),
    /// Lists what was made in the cloud for EgressGateways that are gone, and deletes what is proven to be.
    Orphans(orphans::Arguments),
    /// Checks the installation, its rights, its network and its neighbours; each finding with the fix.
    Doctor(doctor::Arguments),
    /// Moves from the older StaticRoute operator, or from the Crossplane blueprint: shows, then does.
    Migrate(migrate::Arguments),
    /// Prints the program with which kubectl completes commands, flags and names.
    Completion(completion::Arguments),
    #[command(name = "__complete", hide = true)]
    Complete(completion::Words),
}

impl Command {
    async fn run(&self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Status(arguments) => Box::pin(status::run(arguments)).await,
            Self::Trace(arguments) => trace::run(arguments).await,
            Self::Plan(arguments) => plan::run(arguments).await,
            Self::Failover(arguments) => order::failover(arguments).await,
            Self::Drain(arguments) => order::drain(arguments).await,
            Self::Uncordon(arguments) => order::uncordon(arguments).await,
            Self::Orphans(arguments) => orphans::run(arguments).await,
            Self::Doctor(arguments) => doctor::run(arguments).await,
            Self::Migrate(arguments) => migrate::run(arguments).await,
            Self::Completion(_) => completion::script().map(|()| ExitCode::SUCCESS),
            Self::Complete(words) => {
                completion::complete(words, &Arguments::command()).await.map(|()| ExitCode::SUCCESS)
            }
        }
    }

    /// What is said by the exit code when nothing could be found out: 2 where 1 says that something is wrong.
    fn failure(&self) -> ExitCode {
        match self {
            Self::Status(_) | Self::Trace(_) | Self::Doctor(_) => ExitCode::from(2),
            Self::Orphans(arguments) if arguments.only_looks() => ExitCode::from(2),
            _ => ExitCode::FAILURE,
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    kubernetes::install_crypto_provider();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(tracing::Level::WARN)
        .without_time()
        .with_ansi(false)
        .with_target(false)
        .init();
    let command = Arguments::parse().command;
    match Box::pin(command.run()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            command.failure()
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    #[test]
    fn the_krew_manifest_names_this_program_for_every_platform() {
        let template = include_str!("../../../deploy/krew/egress.yaml");
        let filled_in = template.lines().filter(|line| !line.trim_start().starts_with("{{"));
        let manifest: Value = serde_saphyr::from_str(&filled_in.collect::<Vec<_>>().join("\n")).unwrap();
        assert_eq!((&manifest["kind"], &manifest["metadata"]["name"]), (&"Plugin".into(), &"egress".into()));
        assert!(manifest["spec"]["shortDescription"].as_str().unwrap().len() <= 60);
        let platforms = manifest["spec"]["platforms"].as_array().unwrap();
        assert!(platforms.iter().all(|one| one["bin"] == env!("CARGO_PKG_NAME")));
        let addresses = template.lines().filter(|line| line.contains("addURIAndSha")).count();
        assert_eq!((platforms.len(), addresses), (4, 4));
    }
}
