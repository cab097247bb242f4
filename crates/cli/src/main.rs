//! The binary `kubectl-egress`, which kubectl runs as `kubectl egress`.
//!
//! It changes nothing, neither in the cluster nor in the cloud. Exit codes: 0, it was done; 1, it could not be done; 2, it was done,
//! and what was asked for cannot be had as it stands.

mod dashboard;
mod plan;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
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
    /// Shows what applying EgressGateways would make, roll and delete, and what it would cost. Changes nothing.
    Plan(plan::Arguments),
    /// Opens the controller's health page in a browser, until it is interrupted. Changes nothing.
    Dashboard(dashboard::Arguments),
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
    let done = match Arguments::parse().command {
        Command::Plan(arguments) => plan::run(&arguments).await,
        Command::Dashboard(arguments) => dashboard::run(&arguments).await,
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
