//! `kubectl egress plan`: the controller's own decisions, led to their end on paper.
//!
//! Read from the API server: whether it would take the manifest (a dry run), nodes, reports, StaticRoutes, the controller's Deployment
//! and the token's Secret. Read from the cloud: what the controller reads. Written: nothing.

mod cluster;
mod manifest;
mod words;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use egress_controller::forecast::forecast;
use egress_controller::observe::Found;
use egress_runtime::kubernetes;
use jiff::Timestamp;

use crate::access::Access;

use cluster::Cluster;
use manifest::Manifest;
use words::Plan;

/// What is to be planned, and how it is shown.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kubectl egress plan -f egressgateway.yaml
  kubectl egress plan -f egressgateway.yaml -o json
  kubectl egress plan --delete -f egressgateway.yaml
  kustomize build . | kubectl egress plan -f -")]
pub struct Arguments {
    /// Manifests with EgressGateways; `-` is standard input. Other objects in them are passed over.
    #[arg(short = 'f', long = "filename", required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Plans the deletion of the EgressGateways instead of their application.
    #[arg(long)]
    delete: bool,

    /// How it is shown.
    #[arg(short = 'o', long, value_enum, default_value = "text")]
    output: Output,

    #[command(flatten)]
    access: Access,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    Text,
    Json,
    Yaml,
}

/// Plans every EgressGateway of the files and prints the plans.
pub async fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let manifests = manifest::read(&arguments.files)?;
    let client = kubernetes::client().await?;
    let cluster = Cluster::read(client, arguments).await?;
    let mut plans = Vec::new();
    for manifest in manifests {
        let name = format!("EgressGateway {}", manifest.name);
        plans.push(plan(&cluster, manifest, arguments.delete).await.context(name)?);
    }
    print(&plans, arguments.output)?;
    Ok(if plans.iter().any(Plan::is_obstructed) { ExitCode::from(2) } else { ExitCode::SUCCESS })
}

async fn plan(cluster: &Cluster, manifest: Manifest, delete: bool) -> anyhow::Result<Plan> {
    let stored = if delete { cluster.deleted(&manifest).await? } else { cluster.stored(manifest).await? };
    let seen = match cluster.observe(stored.gateway.clone()).await? {
        Found::Seen(seen) => seen,
        Found::Unreadable(unreadable) => anyhow::bail!("{}", unreadable.message()),
        Found::Nothing => anyhow::bail!("there is no such EgressGateway"),
    };
    let prices = cluster.prices().await;
    let forecast = forecast(&seen, &cluster.limits(), &prices, Timestamp::now());
    Ok(Plan::new(&stored, &prices, forecast))
}

fn print(plans: &[Plan], output: Output) -> anyhow::Result<()> {
    match output {
        Output::Text => {
            for plan in plans {
                println!("{plan}");
            }
        }
        Output::Json => println!("{}", serde_json::to_string_pretty(plans)?),
        Output::Yaml => print!("{}", serde_saphyr::to_string(&plans)?),
    }
    Ok(())
}
