//! `kubectl egress orphans`: what carries our tags in the cloud and belongs to no EgressGateway any more.
//!
//! Invariant: nothing is deleted that is not proven to be this cluster's and nobody's (I1), by id only, and the proof is made anew from
//! what cloud and API server say right before the request.

mod judge;

use std::collections::BTreeSet;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use egress_controller::identity::node_droplet;
use egress_digitalocean::{
    Client as CloudClient, Deletion, Droplet, DropletFilter, DropletId, FenceLost, Firewall, FirewallId,
    TagName,
};
use egress_runtime::kubernetes::{self, within_deadline};
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client};

use crate::access::Access;
use crate::confirm::confirm;
use crate::output::{Format, print, say};
use crate::view::View;

use judge::{Cluster, Orphan, Orphans, Resource};

/// What is looked for, and what is done about it.
#[derive(Debug, Args)]
#[command(
    after_help = "A tag proves nothing on its own. What can be deleted is proven: its tags, its name, its VPC, that it is no node, and that no
EgressGateway has it or names it. What is not proven is shown with what is missing, and left to you.

Exit codes: 0, there are none (or all that was to be deleted is); 1, there are some; 2, it can't be told.

Examples:
  kubectl egress orphans
  kubectl egress orphans --delete 3164494
  kubectl egress orphans --delete 3164494 --delete 0a2c9a1e-5f0c-4b43-8a4e-3f1f6a1e2b7c --yes
  kubectl egress orphans -o json"
)]
pub struct Arguments {
    /// Deletes this Droplet or firewall, by the id that is shown, after showing the proof and asking. Can be given several times.
    /// Needs a token with `droplet:delete`, `firewall:delete`.
    #[arg(long, value_name = "ID")]
    delete: Vec<String>,

    /// Does not ask.
    #[arg(long, requires = "delete")]
    yes: bool,

    /// How it is shown.
    #[arg(short = 'o', long, value_enum, default_value_t)]
    output: Format,

    #[command(flatten)]
    access: Access,
}

impl Arguments {
    /// Whether nothing is to be deleted.
    pub fn only_looks(&self) -> bool {
        self.delete.is_empty()
    }
}

/// Looks, and deletes what it is told to.
pub async fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let client = kubernetes::client().await?;
    let settings = arguments.access.settings(&client).await;
    let cloud = arguments.access.cloud(&client, &settings).await?;
    let orphans = look(&client, &cloud).await?;
    if arguments.delete.is_empty() {
        print(&orphans, arguments.output)?;
        return Ok(orphans.exit_code());
    }
    let chosen = arguments.delete.iter().map(|id| {
        orphans
            .find(id)
            .with_context(|| format!("{id} is none of the orphans; kubectl egress orphans lists them"))
    });
    let mut chosen: Vec<&Orphan> = chosen.collect::<anyhow::Result<_>>()?;
    // A firewall without Droplets proves nothing any more: what is known of it now counts.
    chosen.sort_by_key(|orphan| orphan.kind == Resource::Firewall);
    for orphan in &chosen {
        say(&orphan.proof_in_words())?;
        anyhow::ensure!(orphan.is_proven(), "{} is not proven to be ours, and is left alone", orphan.id);
    }
    let mut deleted: BTreeSet<DropletId> = BTreeSet::new();
    for orphan in chosen {
        let question =
            format!("Delete {} {} ({})? It can't be taken back.", orphan.kind.word(), orphan.name, orphan.id);
        if !confirm(&question, &orphan.id, arguments.yes)? {
            anyhow::bail!("{} is left alone", orphan.id);
        }
        delete(&client, &cloud, orphan, &mut deleted).await?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn look(client: &Client, cloud: &CloudClient) -> anyhow::Result<Orphans> {
    let cluster = Box::pin(read_cluster(client, cloud)).await?;
    let fleet = DropletFilter::Tag(TagName::new(egress_api::FLEET_TAG)?);
    let droplets = cloud.droplets(&fleet).await.context("Droplets")?;
    let firewalls = cloud.firewalls().await.map_err(|error| format!("firewalls can't be read: {error}"));
    let addresses =
        cloud.reserved_ips().await.map_err(|error| format!("reserved addresses can't be read: {error}"));
    Ok(Orphans::among(&cluster, &droplets, firewalls, addresses))
}

async fn read_cluster(client: &Client, cloud: &CloudClient) -> anyhow::Result<Cluster> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let system = within_deadline(namespaces.get("kube-system")).await.context("namespace kube-system")?;
    let uid = system.metadata.uid.context("namespace kube-system has no uid")?;
    let view = View::read(client).await;
    // Who is not known to be there would be taken for gone.
    if let Some(unread) = view.unread.iter().find(|unread| ["EgressGateways", "Nodes"].contains(&unread.kind))
    {
        anyhow::bail!("{} can't be read: {}", unread.kind, unread.why);
    }
    let providers = view.nodes.iter().filter_map(|node| node.spec.as_ref()?.provider_id.as_deref());
    let nodes: BTreeSet<DropletId> = providers.filter_map(node_droplet).collect();
    let mut vpc = None;
    for node in nodes.iter().take(8) {
        let droplet = cloud.droplet(*node).await.context("the Droplet of a node")?;
        vpc = droplet.and_then(|droplet| droplet.vpc_uuid).map(|vpc| vpc.as_str().to_owned());
        if vpc.is_some() {
            break;
        }
    }
    let vpc = vpc.context("the token sees no Droplet of a node of this cluster: is it of another team?")?;
    Ok(Cluster::new(uid, vpc, nodes, &view))
}

/// Deletes one, after the proof was made again.
async fn delete(
    client: &Client,
    cloud: &CloudClient,
    orphan: &Orphan,
    deleted: &mut BTreeSet<DropletId>,
) -> anyhow::Result<()> {
    let cluster = Box::pin(read_cluster(client, cloud)).await?;
    let nobody_else = || -> Result<(), FenceLost> { Ok(()) };
    let done = match orphan.kind {
        Resource::Droplet => {
            let id = DropletId(orphan.id.parse()?);
            let Some(droplet) = cloud.droplet(id).await? else {
                return say(&format!("{id} is gone already\n"));
            };
            anyhow::ensure!(
                is_still_proven(&cluster, &droplet),
                "{id} is not proven to be ours any more, and is left alone"
            );
            deleted.insert(id);
            cloud.delete_droplet(id, &nobody_else).await?
        }
        Resource::Firewall => {
            let id = FirewallId::new(orphan.id.clone())?;
            let Some(firewall) = cloud.firewall(&id).await? else {
                return say(&format!("{id} is gone already\n"));
            };
            let same = is_same(&firewall, orphan, deleted)
                && !cluster.has_owner(judge::uid_of(&firewall.name).unwrap_or_default());
            anyhow::ensure!(same, "{id} was changed meanwhile, and is left alone");
            cloud.delete_firewall(&id, &nobody_else).await?
        }
        Resource::ReservedAddress => anyhow::bail!("{} is not deleted from here", orphan.id),
    };
    let words = if done == Deletion::Accepted { "is being deleted" } else { "was gone already" };
    say(&format!("{} {} ({}) {words}\n", orphan.kind.word(), orphan.name, orphan.id))
}

fn is_still_proven(cluster: &Cluster, droplet: &Droplet) -> bool {
    cluster.judge(droplet).is_some_and(|orphan| orphan.is_proven())
}

// What it applied to when it was proven, less what has been deleted since.
fn is_same(firewall: &Firewall, orphan: &Orphan, deleted: &BTreeSet<DropletId>) -> bool {
    let known = |id: &DropletId| deleted.contains(id) || orphan.droplets.contains(id);
    firewall.name == orphan.name
        && firewall.tags.as_ref().is_some_and(Vec::is_empty)
        && firewall.droplet_ids.iter().all(known)
}
