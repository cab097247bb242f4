//! `kubectl egress status`: one screen, what is wrong first.

mod findings;
mod screen;

use std::process::ExitCode;

use clap::Args;
use egress_runtime::kubernetes::{self, within_deadline};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client};

use crate::output::{Format, print};
use crate::view::View;

use findings::Leader;
use screen::Status;

/// Name of the controller's Lease.
const LEASE: &str = "egress-controller";

/// What is shown, and how.
#[derive(Debug, Args)]
#[command(after_help = "Exit codes: 0, all is well; 1, something is wrong; 2, it can't be told.

Examples:
  kubectl egress status
  kubectl egress status demo
  kubectl egress status --all
  kubectl egress status -o json | jq '.findings[] | select(.level == \"wrong\")'
  watch kubectl egress status")]
pub struct Arguments {
    /// Only this EgressGateway or StaticRoute, and what concerns all.
    name: Option<String>,

    /// Shows every line of the tables; otherwise the first twenty of each, what is wrong first.
    #[arg(long)]
    all: bool,

    /// How it is shown.
    #[arg(short = 'o', long, value_enum, default_value_t)]
    output: Format,

    /// Namespace of the controller: of its Lease.
    #[arg(short = 'n', long, default_value = "egress-gateway")]
    namespace: String,
}

/// Reads the cluster and shows its state.
pub async fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let client = kubernetes::client().await?;
    let (view, leader) = tokio::join!(View::read(&client), leader(&client, &arguments.namespace));
    let mut status = Status::of(&view, &leader, Timestamp::now());
    if let Some(name) = &arguments.name {
        anyhow::ensure!(status.restrict_to(name), "no EgressGateway or StaticRoute is called {name}");
    }
    if !arguments.all {
        status.show_at_most(20);
    }
    print(&status, arguments.output)?;
    Ok(status.exit_code())
}

async fn leader(client: &Client, namespace: &str) -> Leader {
    let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
    match within_deadline(leases.get(LEASE)).await {
        Ok(lease) => Leader::of(&lease),
        Err(error) if error.is_not_found() => Leader::Missing { namespace: namespace.to_owned() },
        // Who may not read Leases may still want to see the rest.
        Err(_) => Leader::NotTold,
    }
}
