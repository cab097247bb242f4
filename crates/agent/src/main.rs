//! The node agent.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use egress_agent::api_server::ApiServer;
use egress_agent::definition::Definitions;
use egress_agent::metrics::{AgentMetrics, PREFIX};
use egress_agent::publish::{self, Publisher};
use egress_agent::reconcile::{Configured, Connections, Reconciler};
use egress_agent::report::Report;
use egress_agent::settings::Settings;
use egress_agent::surroundings::{Names, Surroundings, look_around};
use egress_agent::uninstall::Uninstall;
use egress_agent::watches::Watches;
use egress_netlink::Commands;
use egress_routing::{Layout, ProtectedReason};
use egress_runtime::admin::{Admin, Liveness, Readiness};
use egress_runtime::metrics::Metrics;
use egress_runtime::tasks::Tasks;
use egress_runtime::{kubernetes, process, shutdown, telemetry};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

/// The loop beats every second; a netlink request may take ten.
const SILENCE: Duration = Duration::from_secs(30);

/// How long tasks may take to stop.
const GRACE: Duration = Duration::from_secs(10);

// One thread beside that of netlink: the agent must stay small on every node, and handing work to another costs more than the work.
fn main() -> anyhow::Result<()> {
    process::run_on_one_thread(run())?
}

async fn run() -> anyhow::Result<()> {
    let settings = Settings::parse();
    telemetry::init(settings.log_format, &settings.log)?;
    let layout = Layout::new(settings.numbers())?;
    let shutdown = shutdown::on_signal()?;
    let (client, server) = kubernetes::client_and_server().await?;

    let mut metrics = Metrics::new(PREFIX, env!("CARGO_PKG_VERSION"));
    let agent_metrics = AgentMetrics::register(&mut metrics);
    let liveness = Liveness::new(SILENCE);
    let readiness = Readiness::not_yet("no plan has been written to the kernel yet");
    let admin = Admin::new(metrics)
        .liveness("loop", liveness.clone())
        .readiness("routes", readiness.clone())
        .bind(settings.admin_listen)
        .await?;

    let changed = Arc::new(Notify::new());
    let mut followers = JoinSet::new();
    let watches = Watches::start(
        &client,
        &settings.node_name,
        settings.protected_list().as_ref(),
        &changed,
        &mut followers,
    );
    let definitions = Definitions::follow(&client, &settings.node_name, &changed, &mut followers);
    let uninstall = Uninstall::follow(&client, &settings.namespace, &settings.daemonset, &mut followers);
    let (found, surroundings) = watch::channel(Surroundings::at_start());
    let (names, wanted) = watch::channel(own_names(&settings, server.as_ref()));
    followers.spawn(look_around(
        Duration::from_secs(settings.names_interval),
        wanted,
        found,
        Arc::clone(&changed),
    ));
    let (reports, published) = watch::channel(Report::default());
    let (storing, stored) = watch::channel(publish::Stored::default());
    followers.spawn(publish::follow(client.clone(), settings.node_name.clone(), storing));
    let nodes = watches.nodes.clone();
    let publisher = Publisher {
        client: client.clone(),
        node_name: settings.node_name.clone(),
        reports: published,
        stored,
        nodes: move || nodes.state().len(),
    };

    let mut reconciler = Reconciler::new(Connections {
        node_name: settings.node_name.clone(),
        layout,
        configured: configured(&settings),
        remove_leftovers: settings.remove_leftovers_of_older_operator,
        kernel: Commands::start().context("no netlink socket")?,
        watches,
        server: server.clone(),
        definitions,
        changed,
        api_server: ApiServer::new(
            server.as_ref(),
            settings.api_server_name.as_ref().and_then(|host| host.port),
        ),
        names,
        surroundings,
        reports,
        metrics: agent_metrics,
        liveness,
        readiness,
    });

    let mut tasks = Tasks::new(shutdown, GRACE);
    tasks.spawn("admin server", admin.serve(tasks.shutdown()));
    let stop = tasks.shutdown();
    tasks.spawn("report", async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = publisher.run() => {}
        }
        Ok::<_, Infallible>(())
    });
    let stop = tasks.shutdown();
    tasks.spawn("routes", async move {
        reconciler.run(stop).await?;
        if uninstall.is_confirmed().await {
            reconciler.remove_everything().await;
        }
        drop(followers);
        Ok::<_, egress_agent::reconcile::ReconcileError>(())
    });
    tracing::info!(node = settings.node_name, version = env!("CARGO_PKG_VERSION"), "egress-agent started");
    Ok(tasks.run().await?)
}

fn own_names(settings: &Settings, server: Option<&(String, u16)>) -> Names {
    let host = server.map(|(host, _)| host.clone());
    Names {
        api_server: settings.api_server_name.as_ref().map(|host| host.name.clone()),
        client: host.filter(|host| host.parse::<IpAddr>().is_err()),
        protected: settings.protected_names.iter().filter(|name| !name.is_empty()).cloned().collect(),
    }
}

fn configured(settings: &Settings) -> Configured {
    let users = settings.protected.iter().map(|range| (*range, ProtectedReason::UserList));
    users
        .chain([
            (settings.pod_range, ProtectedReason::Pods),
            (settings.service_range, ProtectedReason::Services),
        ])
        .collect()
}
