//! `kubectl egress migrate`: from the older StaticRoute operator, and from the Crossplane blueprint. Shows, then does.
//!
//! Every step looks first whether it is done already, so that a migration that was broken off goes on where it stopped.

mod blueprint;
mod blueprint_plan;
mod older_operator;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use tokio::time::Instant;

use crate::output::say;

/// Where from.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    from: From,
}

#[derive(Debug, Subcommand)]
enum From {
    /// From the older StaticRoute operator: its DaemonSet goes, and its routes after ours are in force.
    OlderOperator(older_operator::Arguments),
    /// From the Crossplane blueprint: an EgressGateway over the same machine, which Crossplane lets go of.
    Blueprint(blueprint::Arguments),
}

/// Migrates.
pub async fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    match &arguments.from {
        From::OlderOperator(arguments) => older_operator::run(arguments).await,
        From::Blueprint(arguments) => blueprint::run(arguments).await,
    }
}

/// Waits until `look` says yes; it says what it waits for otherwise, which is shown when it changes.
async fn until(
    patience: Duration,
    mut look: impl AsyncFnMut() -> anyhow::Result<Result<(), String>>,
) -> anyhow::Result<()> {
    let end = Instant::now() + patience;
    let mut last = String::new();
    loop {
        match look().await? {
            Ok(()) => return Ok(()),
            Err(words) if words == last => {}
            Err(words) => {
                say(&format!("   waiting: {words}\n"))?;
                last = words;
            }
        }
        anyhow::ensure!(
            Instant::now() < end,
            "not within {} s: {last}. Nothing is broken by that; run it again to go on from here",
            patience.as_secs()
        );
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}
