//! `kubectl egress failover`, `drain`, `uncordon`: which gateway comes first, by the annotations that the controller honours.
//!
//! Nothing is moved from here: the controller orders the list and nodes follow, open connections last. A wish is written only where it
//! can come true, and then it is watched until it has.

mod wish;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use egress_api::{EgressGateway, NodeEgress};
use egress_runtime::kubernetes::{self, within_deadline};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client};
use tokio::time::Instant;

use crate::confirm::confirm;
use crate::output::say;

use wish::{Progress, Wish};

/// What all three need to know.
#[derive(Clone, Debug, Args)]
pub struct Manner {
    /// Does not wait until it has come true.
    #[arg(long)]
    no_wait: bool,

    /// How long it is waited for, in seconds. Left out: a minute more than `spec.drainSeconds`.
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,

    /// Only says what would be done.
    #[arg(long)]
    dry_run: bool,

    /// Does not ask.
    #[arg(short = 'y', long)]
    yes: bool,
}

/// Which gateway is to come first.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "New connections use the other gateway within seconds. Open ones keep the old one for spec.drainSeconds at most, and break then,
unless the public address moves along. The preference stays until it is taken back: a gateway that fails is left all the same.

Exit codes: 0, it is so; 1, it can't be, or did not come true in time.

Examples:
  kubectl egress failover demo
  kubectl egress failover demo --to demo-1-1a2b3c4d
  kubectl egress failover demo --back          # no preference any more"
)]
pub struct Failover {
    /// The EgressGateway.
    name: String,

    /// The gateway that is to come first. Left out: the next one that is proven.
    #[arg(long, value_name = "GATEWAY", conflicts_with = "back")]
    to: Option<String>,

    /// Takes the preference back: gateways come in the controller's own order.
    #[arg(long)]
    back: bool,

    #[command(flatten)]
    manner: Manner,
}

/// Which gateway is to be left.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Nodes leave the gateway, open connections last (spec.drainSeconds). It stays proven and steps in when no other works; kubectl egress
uncordon takes it back in.

Exit codes: 0, nothing uses it any more; 1, it can't be drained, or that did not come true in time.

Examples:
  kubectl egress drain demo demo-0-1a2b3c4d
  kubectl egress drain demo demo-0-1a2b3c4d --no-wait --yes"
)]
pub struct Drain {
    /// The EgressGateway.
    name: String,

    /// The gateway.
    gateway: String,

    #[command(flatten)]
    manner: Manner,
}

/// Which gateway may be used again.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  kubectl egress uncordon demo demo-0-1a2b3c4d
  kubectl egress uncordon demo --all")]
pub struct Uncordon {
    /// The EgressGateway.
    name: String,

    /// The gateway.
    #[arg(required_unless_present = "all")]
    gateway: Option<String>,

    /// All that are drained.
    #[arg(long, conflicts_with = "gateway")]
    all: bool,

    #[command(flatten)]
    manner: Manner,
}

/// Makes another gateway the first.
pub async fn failover(arguments: &Failover) -> anyhow::Result<ExitCode> {
    let wish = if arguments.back { Wish::NoPreference } else { Wish::First(arguments.to.clone()) };
    carry_out(&arguments.name, wish, &arguments.manner).await
}

/// Has a gateway left.
pub async fn drain(arguments: &Drain) -> anyhow::Result<ExitCode> {
    carry_out(&arguments.name, Wish::Leave(arguments.gateway.clone()), &arguments.manner).await
}

/// Takes gateways back in.
pub async fn uncordon(arguments: &Uncordon) -> anyhow::Result<ExitCode> {
    carry_out(&arguments.name, Wish::TakeBack(arguments.gateway.clone()), &arguments.manner).await
}

async fn carry_out(name: &str, wish: Wish, manner: &Manner) -> anyhow::Result<ExitCode> {
    let client = kubernetes::client().await?;
    let gateways: Api<EgressGateway> = Api::all(client.clone());
    let object =
        within_deadline(gateways.get(name)).await.with_context(|| format!("EgressGateway {name}"))?;
    let deed = wish.deed(&object)?;
    say(&format!("{}\n", deed.words))?;
    let Some(patch) = &deed.patch else { return Ok(ExitCode::SUCCESS) };
    if manner.dry_run {
        return Ok(ExitCode::SUCCESS);
    }
    if deed.moves
        && !confirm("Open connections that last longer than the drain will break.", name, manner.yes)?
    {
        anyhow::bail!("nothing was changed");
    }
    // The version that was looked at: somebody else's wish is not overwritten unseen.
    let patched = within_deadline(gateways.patch(name, &PatchParams::default(), &Patch::Merge(patch))).await;
    if patched.as_ref().is_err_and(egress_runtime::kubernetes::CallError::is_conflict) {
        anyhow::bail!("EgressGateway {name} was changed meanwhile; look again and repeat it");
    }
    patched?;
    if manner.no_wait || !deed.moves {
        return Ok(ExitCode::SUCCESS);
    }
    let drain = u64::try_from(object.spec.drain_seconds).unwrap_or_default();
    let patience = Duration::from_secs(manner.timeout.unwrap_or(drain + 60));
    watch(&client, name, &deed.goal, patience).await
}

async fn watch(
    client: &Client,
    name: &str,
    goal: &wish::Goal,
    patience: Duration,
) -> anyhow::Result<ExitCode> {
    let gateways: Api<EgressGateway> = Api::all(client.clone());
    let reports: Api<NodeEgress> = Api::all(client.clone());
    let end = Instant::now() + patience;
    let mut last = String::new();
    loop {
        let object = within_deadline(gateways.get(name)).await?;
        let reports = within_deadline(reports.list(&ListParams::default())).await?.items;
        let progress = goal.progress(&object, &reports);
        let words = progress.to_string();
        if words != last {
            say(&format!("{words}\n"))?;
        }
        if matches!(progress, Progress::Done(_)) {
            return Ok(ExitCode::SUCCESS);
        }
        if Instant::now() >= end {
            eprintln!(
                "error: not within {} s; it goes on by itself: kubectl egress status {name}",
                patience.as_secs()
            );
            return Ok(ExitCode::FAILURE);
        }
        last = words;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
