//! `kubectl egress trace`: which way a packet leaves, with which public address, and why.

mod answer;
mod asking;
mod surroundings;
mod wanted;
mod words;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use egress_runtime::kubernetes::{self, within_deadline};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{Api, Client};

use crate::output::{Format, print};
use crate::view::{View, name};

use answer::trace;
use surroundings::{Surroundings, addresses};
use words::Trace;

/// What is asked, and how the answer is shown.
#[derive(Debug, Args)]
#[command(
    after_help = "What the objects and the nodes' reports say is put together as an agent does it; nothing is sent to the address.
Names are looked up here: inside the cluster they may have other addresses.

Exit codes: 0, it leaves as is asked for; 1, a StaticRoute asks for another way and it is not in force, or it is dropped; 2, only
the nodes can tell.

Examples:
  kubectl egress trace 203.0.113.7
  kubectl egress trace db.example.com --pod shop/web-7d4b9c6f5-x2x9k
  kubectl egress trace 203.0.113.7 --node pool-1 -o json"
)]
pub struct Arguments {
    /// Where the packet goes: an IPv4 address or a name.
    to: String,

    /// From this pod: `namespace/name`, or `name` in namespace `default`.
    #[arg(long, value_name = "NAMESPACE/POD", conflicts_with = "node")]
    pod: Option<String>,

    /// From this node. Without either: from each node.
    #[arg(long)]
    node: Option<String>,

    /// How it is shown.
    #[arg(short = 'o', long, value_enum, default_value_t)]
    output: Format,

    /// Namespace of the agents: of their DaemonSet and of the list of what is protected.
    #[arg(short = 'n', long, default_value = "egress-gateway")]
    namespace: String,
}

/// Answers.
pub async fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let (to, notes) = targets(&arguments.to).await?;
    let (client, server) = kubernetes::client_and_server().await?;
    let view = View::read(&client).await;
    // Half of the objects would make a wrong answer.
    if let Some(unread) = view.unread.first() {
        anyhow::bail!("{} can't be read: {}", unread.kind, unread.why);
    }
    let (from, more) = nodes(&client, &view, arguments).await?;
    let host = server.as_ref().map(|(host, _)| host.as_str());
    let surroundings = Surroundings::find(&client, &arguments.namespace, host, &view).await;
    let answers = trace(&to, &from, &view, &surroundings);
    let trace = Trace::new(&arguments.to, [notes, more].concat(), answers);
    print(&trace, arguments.output)?;
    Ok(trace.exit_code())
}

async fn targets(to: &str) -> anyhow::Result<(BTreeSet<Ipv4Addr>, Vec<String>)> {
    if let Ok(address) = to.parse() {
        return Ok((BTreeSet::from([address]), Vec::new()));
    }
    anyhow::ensure!(
        !to.contains(':'),
        "{to} is no IPv4 address and no name; IPv6 never goes through a gateway"
    );
    anyhow::ensure!(!to.contains('/'), "{to} is a range; ask for an address in it");
    let found = addresses(to).await.map_err(|error| anyhow::anyhow!("{to}: {error}"))?;
    let note = format!(
        "{to} has {} as seen from here; pods may be told others",
        crate::output::count(found.len(), "address", "addresses")
    );
    Ok((found, vec![note]))
}

async fn nodes<'a>(
    client: &Client,
    view: &'a View,
    arguments: &Arguments,
) -> anyhow::Result<(Vec<&'a Node>, Vec<String>)> {
    let mut notes = Vec::new();
    let wanted = match (&arguments.pod, &arguments.node) {
        (Some(pod), _) => {
            let (namespace, pod) = pod.split_once('/').unwrap_or(("default", pod));
            let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
            let found =
                within_deadline(pods.get(pod)).await.with_context(|| format!("pod {namespace}/{pod}"))?;
            let spec = found.spec.unwrap_or_default();
            let node =
                spec.node_name.with_context(|| format!("pod {namespace}/{pod} runs on no node yet"))?;
            let network = if spec.host_network == Some(true) {
                "with the node's own network"
            } else {
                "with an address of its own"
            };
            notes.push(format!(
                "pod {namespace}/{pod} runs on {node} {network}; NetworkPolicies are not looked at"
            ));
            Some(node)
        }
        (None, node) => node.clone(),
    };
    let Some(wanted) = wanted else {
        anyhow::ensure!(!view.nodes.is_empty(), "the cluster has no node");
        return Ok((view.nodes.iter().collect(), notes));
    };
    let node = view.nodes.iter().find(|node| name(*node) == wanted);
    Ok((vec![node.with_context(|| format!("there is no node {wanted}"))?], notes))
}
