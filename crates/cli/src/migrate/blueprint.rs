//! From the Crossplane blueprint: shows what will be, then does it.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use egress_api::condition::READY;
use egress_api::{EgressGateway, StaticRoute};
use egress_runtime::kubernetes::{self, within_deadline};
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client};
use serde_json::json;

use super::blueprint_plan::{Migration, Wish};
use super::until;
use crate::confirm::confirm;
use crate::doctor::blueprint_kind;
use crate::output::say;
use crate::view::View;

/// Which, and how far.
#[derive(Debug, Args)]
#[command(
    after_help = "The machine and its address stay. Up to step 2 nothing changes its way, and the way back is to delete the EgressGateway: the
controller never deletes a machine that it did not make.

Examples:
  kubectl egress migrate blueprint egress-gw-nyc1 --dry-run
  kubectl egress migrate blueprint egress-gw-nyc1 --name egress
  kubectl egress migrate blueprint egress-gw-nyc1 --name egress --take-over --forget"
)]
pub struct Arguments {
    /// Name of the `Droplet` of compute.do.crossplane.io.
    droplet: String,

    /// Name of the EgressGateway. Left out: that of the Droplet.
    #[arg(long)]
    name: Option<String>,

    /// How many gateways there are to be; the machine is one of them.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(i64).range(1..=5))]
    replicas: i64,

    /// What leaves through it, besides what the StaticRoutes through it list. Can be given several times.
    #[arg(long = "destination", value_name = "PREFIX")]
    destinations: Vec<String>,

    /// Deletes the StaticRoutes through the machine once the EgressGateway is proven.
    #[arg(long)]
    take_over: bool,

    /// Deletes Crossplane's object at the end; the machine stays.
    #[arg(long)]
    forget: bool,

    /// Only shows what would be done.
    #[arg(long)]
    dry_run: bool,

    /// Does not ask.
    #[arg(short = 'y', long)]
    yes: bool,

    /// How long each step may take, in seconds.
    #[arg(long, default_value_t = 900, value_name = "SECONDS")]
    timeout: u64,
}

/// Does it.
pub async fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let client = kubernetes::client().await?;
    let droplets = droplets(&client);
    let object = within_deadline(droplets.get(&arguments.droplet)).await;
    let object =
        object.with_context(|| format!("Droplet {} of compute.do.crossplane.io", arguments.droplet))?;
    let view = View::read(&client).await;
    if let Some(unread) = view.unread.first() {
        anyhow::bail!("{} can't be read: {}", unread.kind, unread.why);
    }
    let wish = Wish {
        name: arguments.name.clone(),
        replicas: arguments.replicas,
        destinations: arguments.destinations.clone(),
    };
    let migration = Migration::of(&serde_json::to_value(&object)?, &view, &wish)?;
    say(&migration.to_string())?;
    if arguments.dry_run {
        return Ok(ExitCode::SUCCESS);
    }
    if !confirm(
        "Droplets may be made, which cost money (kubectl egress plan says how much).",
        &migration.name,
        arguments.yes,
    )? {
        anyhow::bail!("nothing was changed");
    }
    let patience = Duration::from_secs(arguments.timeout);
    let_go(&droplets, &migration).await?;
    make(&client, &migration, patience).await?;
    if arguments.take_over {
        take_over(&client, &migration, patience).await?;
    }
    if arguments.forget {
        forget(&droplets, &migration).await?;
    }
    say("Done.\n")?;
    if !arguments.take_over && !migration.routes.is_empty() {
        say("The StaticRoutes are in force still; --take-over hands their destinations over.\n")?;
    }
    Ok(ExitCode::SUCCESS)
}

fn droplets(client: &Client) -> Api<DynamicObject> {
    Api::all_with(client.clone(), &ApiResource::from_gvk_with_plural(&blueprint_kind(), "droplets"))
}

async fn let_go(droplets: &Api<DynamicObject>, migration: &Migration) -> anyhow::Result<()> {
    if !migration.is_bound {
        return Ok(());
    }
    say("1. Crossplane lets the machine go\n")?;
    let patch = json!({"spec": {"deletionPolicy": "Orphan"}});
    within_deadline(droplets.patch(&migration.droplet, &PatchParams::default(), &Patch::Merge(patch)))
        .await?;
    is_let_go(droplets, migration).await
}

// A webhook, or somebody who applies the old manifest again, must not cost the machine.
async fn is_let_go(droplets: &Api<DynamicObject>, migration: &Migration) -> anyhow::Result<()> {
    let object = within_deadline(droplets.get(&migration.droplet)).await?;
    let policy = object.data["spec"]["deletionPolicy"].as_str().unwrap_or("Delete").to_owned();
    let id = object.data["status"]["atProvider"]["id"].as_i64();
    anyhow::ensure!(
        policy == "Orphan" && id == Some(migration.id),
        "Droplet {} has deletionPolicy {policy} and machine {id:?}: somebody changed it; nothing more is done",
        migration.droplet
    );
    Ok(())
}

async fn make(client: &Client, migration: &Migration, patience: Duration) -> anyhow::Result<()> {
    let gateways: Api<EgressGateway> = Api::all(client.clone());
    if within_deadline(gateways.get_opt(&migration.name)).await?.is_none() {
        say(&format!("2. making EgressGateway {}\n", migration.name))?;
        let object: EgressGateway = serde_json::from_value(migration.manifest.clone())?;
        within_deadline(gateways.create(&PostParams::default(), &object)).await?;
    }
    until(patience, async || {
        let object = within_deadline(gateways.get(&migration.name)).await?;
        let status = object.status.unwrap_or_default();
        let own = status.gateways.iter().find(|one| one.droplet_id == migration.id);
        Ok(match own {
            Some(own) if own.ready => Ok(()),
            Some(own) => Err(format!(
                "{}: {}",
                own.name,
                own.message.clone().unwrap_or_else(|| "is not proven yet".to_owned())
            )),
            None => {
                let told =
                    status.conditions.iter().find(|one| one.type_ == READY).map(|one| one.message.clone());
                Err(told.unwrap_or_else(|| "the controller has not looked at it yet".to_owned()))
            }
        })
    })
    .await
}

async fn take_over(client: &Client, migration: &Migration, patience: Duration) -> anyhow::Result<()> {
    let routes: Api<StaticRoute> = Api::all(client.clone());
    for name in &migration.routes {
        say(&format!("3. deleting StaticRoute {name}\n"))?;
        if let Some(there) = within_deadline(routes.get_opt(name)).await? {
            // That which was looked at, and no new one of its name.
            let preconditions = Preconditions { uid: there.metadata.uid, ..Preconditions::default() };
            within_deadline(routes.delete(name, &DeleteParams::default().preconditions(preconditions)))
                .await?;
        }
    }
    let gateways: Api<EgressGateway> = Api::all(client.clone());
    until(patience, async || {
        let status = within_deadline(gateways.get(&migration.name)).await?.status.unwrap_or_default();
        let ready = status.conditions.iter().find(|one| one.type_ == READY);
        Ok(match ready {
            Some(ready) if ready.status == "True" => Ok(()),
            Some(ready) => Err(ready.message.clone()),
            None => Err("nothing is known of it yet".to_owned()),
        })
    })
    .await
}

async fn forget(droplets: &Api<DynamicObject>, migration: &Migration) -> anyhow::Result<()> {
    is_let_go(droplets, migration).await?;
    say(&format!("4. deleting Crossplane's object {}; the machine stays\n", migration.droplet))?;
    within_deadline(droplets.delete(&migration.droplet, &DeleteParams::default())).await?;
    Ok(())
}
