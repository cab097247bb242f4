//! The binary `egress-controller`.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use egress_controller::cloud::Cloud;
use egress_controller::credentials;
use egress_controller::health::HealthClient;
use egress_controller::metrics::{ControllerMetrics, PREFIX};
use egress_controller::observe::{Known, Observer};
use egress_controller::older_operator;
use egress_controller::orphans;
use egress_controller::reconcile::{self, Context};
use egress_controller::route_status::Sums;
use egress_controller::settings::Settings;
use egress_controller::startup_taint::StartupTaint;
use egress_controller::watches::{self, Mirrors};
use egress_digitalocean::{Client as CloudClient, SharedToken};
use egress_runtime::admin::{Admin, Liveness, Readiness};
use egress_runtime::kubernetes;
use egress_runtime::lease::{self, Claim, Elector, KubernetesLease, Timing};
use egress_runtime::metrics::Metrics;
use egress_runtime::process;
use egress_runtime::shutdown;
use egress_runtime::tasks::Tasks;
use egress_runtime::telemetry;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Namespace;
use kube::runtime::events::{Recorder, Reporter};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

// Longer than the longest single wait of the loop that beats.
const HEART: Duration = Duration::from_secs(90);

// A step that is under way may have a changing cloud call (10 s) in it.
const GRACE: Duration = Duration::from_secs(20);

// Reports of many nodes come in bursts; one round of steps for all of them.
const GATHER: Duration = Duration::from_millis(500);

const LEASE: &str = "egress-controller";

fn main() -> anyhow::Result<()> {
    process::run_on_many_threads(run())?
}

async fn run() -> anyhow::Result<()> {
    kubernetes::install_crypto_provider();
    let settings = Settings::parse();
    telemetry::init(settings.log_format, &settings.log)?;
    let shutdown = shutdown::on_signal().context("signals")?;
    let mut tasks = Tasks::new(shutdown.clone(), GRACE);
    let mut metrics = Metrics::new(PREFIX, env!("CARGO_PKG_VERSION"));
    let counters = ControllerMetrics::register(&mut metrics);
    let heart = Liveness::new(HEART);
    let token_known = Readiness::not_yet("the Secret with the API token has not been looked for yet");
    let mirrors_known = Readiness::not_yet("nodes and their reports have not been read yet");
    let admin = Admin::new(metrics)
        .liveness("loop", heart.clone())
        .readiness("token", token_known.clone())
        .readiness("mirrors", mirrors_known.clone());
    let server = admin.bind(settings.admin_listen).await?;
    tasks.spawn("admin", server.serve(shutdown.clone()));

    let client = kubernetes::client().await?;
    let token = SharedToken::empty();
    let follow =
        credentials::follow(client.clone(), settings.namespace.clone(), token.clone(), token_known.clone());
    tasks.spawn("token", until(shutdown.clone(), follow));
    let (changed, changes) = watch::channel(0);
    let (mirrors, mirroring) = watches::start(&client, &settings.namespace, changed, mirrors_known.clone());
    tasks.spawn("mirrors", until(shutdown.clone(), mirroring));

    let store = KubernetesLease::new(client.clone(), &settings.namespace, LEASE);
    let me = lease::identity(&settings.pod_name).context("no random number from the kernel")?;
    let (elector, claim) = Elector::new(store, me, Timing::default());
    tasks.spawn_closing("lease", |close| elector.run(close));

    let leader = Leader { settings, client, token, counters, heart, claim, mirrors, changes, shutdown };
    tasks.spawn("leader", leader.run());
    tasks.run().await.context("stopped")
}

/// What runs once this process leads.
struct Leader {
    settings: Settings,
    client: Client,
    token: SharedToken,
    counters: ControllerMetrics,
    heart: Liveness,
    claim: Claim,
    mirrors: Mirrors,
    changes: watch::Receiver<u64>,
    shutdown: CancellationToken,
}

impl Leader {
    async fn run(mut self) -> anyhow::Result<()> {
        if !self.waited_for_leadership().await? || !self.knows_the_cluster().await {
            return Ok(());
        }
        self.counters.leads();
        let cluster = self.cluster().await?;
        tracing::info!(cluster, api = self.settings.digitalocean_api, "at work");
        let cloud_client = CloudClient::new(&self.settings.digitalocean_api, Arc::new(self.token.clone()))?;
        let cloud = Arc::new(Cloud::new(cloud_client, &cluster, self.counters.clone()));
        let health = HealthClient::new().context("no HTTP client")?;
        let observer = Observer::new(
            self.client.clone(),
            cluster,
            cloud.clone(),
            self.mirrors.clone(),
            health,
            Known {
                pod_range: self.settings.cluster_pod_range,
                firewall_age: Duration::from_secs(self.settings.firewall_age_seconds.into()),
            },
        );
        let reporter = Reporter {
            controller: "egress-controller".to_owned(),
            instance: Some(self.settings.pod_name.clone()),
        };
        let recorder = Recorder::new(self.client.clone(), reporter);
        let context = Arc::new(Context {
            client: self.client.clone(),
            observer,
            cloud,
            claim: self.claim.clone(),
            limits: self.settings.limits(),
            metrics: self.counters.clone(),
            recorder: recorder.clone(),
            failures: Mutex::new(HashMap::new()),
        });
        let steps = reconcile::run(context, rounds(self.changes.clone()).boxed(), self.shutdown.clone());
        let older = older_operator::clear(
            self.client.clone(),
            self.mirrors.clone(),
            self.claim.clone(),
            self.changes.clone(),
        );
        let stopping = self.shutdown.clone();
        let patience = Duration::from_secs(self.settings.forget_node_after_seconds.into());
        let sweeping =
            orphans::sweep(self.client.clone(), self.mirrors.clone(), self.claim.clone(), patience);
        let taints = StartupTaint {
            client: self.client.clone(),
            mirrors: self.mirrors.clone(),
            claim: self.claim.clone(),
            changes: self.changes.clone(),
            recorder: recorder.clone(),
        };
        let sums = Sums {
            client: self.client,
            mirrors: self.mirrors,
            claim: self.claim,
            changes: self.changes,
            heart: self.heart,
            recorder,
        };
        let sums = async move {
            sums.keep().await;
            // The mirrors end at once; a step that is under way must not be cut off by that.
            if stopping.is_cancelled() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = steps => {}
            () = sums => {}
            () = forever(older) => {}
            () = forever(taints.keep_off()) => {}
            () = sweeping => {}
        }
        anyhow::ensure!(self.shutdown.is_cancelled(), "the controller ended by itself");
        Ok(())
    }

    // A standby is alive too. False: it is time to stop.
    async fn waited_for_leadership(&mut self) -> anyhow::Result<bool> {
        let mut claim = self.claim.clone();
        let mut tick = tokio::time::interval(Duration::from_secs(5));
        loop {
            tokio::select! {
                () = self.shutdown.cancelled() => return Ok(false),
                led = claim.acquired() => {
                    led?;
                    return Ok(true);
                }
                _ = tick.tick() => self.heart.beat(),
            }
        }
    }

    // Without nodes and their reports nothing may be decided. False: it is time to stop.
    async fn knows_the_cluster(&self) -> bool {
        let mut tick = tokio::time::interval(Duration::from_secs(5));
        let mut known = std::pin::pin!(self.mirrors.known());
        loop {
            tokio::select! {
                () = self.shutdown.cancelled() => return false,
                () = &mut known => return true,
                _ = tick.tick() => self.heart.beat(),
            }
        }
    }

    // The uid of kube-system is the cluster's identity: it lives as long as the cluster does.
    async fn cluster(&self) -> anyhow::Result<String> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        loop {
            match kubernetes::within_deadline(namespaces.get("kube-system")).await {
                Ok(namespace) => return namespace.metadata.uid.context("namespace kube-system has no uid"),
                Err(error) => tracing::warn!(%error, "namespace kube-system cannot be read yet"),
            }
            self.heart.beat();
            tokio::select! {
                () = self.shutdown.cancelled() => anyhow::bail!("stopped before the cluster was known"),
                () = tokio::time::sleep(Duration::from_secs(2)) => {}
            }
        }
    }
}

// What has nothing more to do ends nobody else's work.
async fn forever(task: impl Future<Output = ()>) {
    task.await;
    std::future::pending::<()>().await;
}

// One item for each burst of changes.
fn rounds(changes: watch::Receiver<u64>) -> impl futures::Stream<Item = ()> + Send {
    futures::stream::unfold(changes, |mut changes| async move {
        changes.changed().await.ok()?;
        tokio::time::sleep(GATHER).await;
        changes.mark_unchanged();
        Some(((), changes))
    })
}

async fn until(shutdown: CancellationToken, task: impl Future<Output = ()>) -> Result<(), Infallible> {
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = task => {}
    }
    Ok(())
}
