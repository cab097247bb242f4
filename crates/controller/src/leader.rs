//! What the one controller does that holds the lease.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use egress_runtime::kubernetes;
use egress_runtime::lease::{Claim, LeadershipLost};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::runtime::events::{Recorder, Reporter};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::cloud::Cloud;
use crate::observe::{Known, Observer};
use crate::older_operator;
use crate::orphans;
use crate::process::Surroundings;
use crate::reconcile::{self, Context};
use crate::route_status::Sums;
use crate::startup_taint::StartupTaint;
use crate::watches::Mirrors;

// Reports of many nodes come in bursts; one round of steps for all of them.
const GATHER: Duration = Duration::from_millis(500);

/// Why a leader ends that nobody has asked to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LeaderError {
    /// The elector has ended.
    #[error(transparent)]
    Lease(#[from] LeadershipLost),
    /// Without it nothing in the cloud is provably of this cluster.
    #[error("namespace kube-system has no uid")]
    NoUid,
    /// A part of it has ended.
    #[error("the controller ended by itself")]
    Ended,
}

/// What runs once this process leads.
pub(crate) struct Leader {
    pub(crate) surroundings: Surroundings,
    pub(crate) claim: Claim,
    pub(crate) mirrors: Mirrors,
    pub(crate) changes: watch::Receiver<u64>,
    pub(crate) shutdown: CancellationToken,
}

impl Leader {
    /// Waits until this process leads, then works until it is time to stop.
    pub(crate) async fn run(mut self) -> Result<(), LeaderError> {
        if !self.waited_for_leadership().await? || !self.knows_the_cluster().await {
            return Ok(());
        }
        self.surroundings.metrics.leads();
        let Some(cluster) = self.cluster().await? else { return Ok(()) };
        let Self { surroundings, claim, mirrors, changes, shutdown } = self;
        let Surroundings { settings, client, cloud, endpoints, clock, metrics, heart, .. } = surroundings;
        tracing::info!(cluster, api = settings.digitalocean_api, "at work");
        let cloud = Arc::new(Cloud::new(cloud, &cluster, metrics.clone(), clock.clone()));
        let known = Known {
            pod_range: settings.cluster_pod_range,
            firewall_age: Duration::from_secs(settings.firewall_age_seconds.into()),
            reserved_ip_age: Duration::from_secs(settings.reserved_ip_age_seconds.into()),
        };
        let observer =
            Observer::new(client.clone(), cluster, cloud.clone(), mirrors.clone(), endpoints, known);
        let reporter = Reporter {
            controller: "egress-controller".to_owned(),
            instance: Some(settings.pod_name.clone()),
        };
        let recorder = Recorder::new(client.clone(), reporter);
        let context = Arc::new(Context {
            client: client.clone(),
            observer,
            cloud,
            claim: claim.clone(),
            limits: settings.limits(),
            metrics,
            recorder: recorder.clone(),
            failures: Mutex::new(HashMap::new()),
        });
        let steps = reconcile::run(context, rounds(changes.clone()).boxed(), shutdown.clone());
        let older = older_operator::clear(client.clone(), mirrors.clone(), claim.clone(), changes.clone());
        let stopping = shutdown.clone();
        let patience = Duration::from_secs(settings.forget_node_after_seconds.into());
        let sweeping = orphans::sweep(client.clone(), mirrors.clone(), claim.clone(), patience);
        let taints = StartupTaint {
            client: client.clone(),
            mirrors: mirrors.clone(),
            claim: claim.clone(),
            changes: changes.clone(),
            recorder: recorder.clone(),
        };
        let sums = Sums { client, mirrors, claim, changes, heart, recorder, clock };
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
        if shutdown.is_cancelled() { Ok(()) } else { Err(LeaderError::Ended) }
    }

    // A standby is alive too. False: it is time to stop.
    async fn waited_for_leadership(&mut self) -> Result<bool, LeaderError> {
        let mut claim = self.claim.clone();
        let mut tick = tokio::time::interval(Duration::from_secs(5));
        loop {
            tokio::select! {
                () = self.shutdown.cancelled() => return Ok(false),
                led = claim.acquired() => {
                    led?;
                    return Ok(true);
                }
                _ = tick.tick() => self.surroundings.heart.beat(),
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
                _ = tick.tick() => self.surroundings.heart.beat(),
            }
        }
    }

    // The uid of kube-system is the cluster's identity: it lives as long as the cluster does. Nothing: it is time to stop.
    async fn cluster(&self) -> Result<Option<String>, LeaderError> {
        let namespaces: Api<Namespace> = Api::all(self.surroundings.client.clone());
        loop {
            match kubernetes::within_deadline(namespaces.get("kube-system")).await {
                Ok(namespace) => return namespace.metadata.uid.map(Some).ok_or(LeaderError::NoUid),
                Err(error) => tracing::warn!(%error, "namespace kube-system cannot be read yet"),
            }
            self.surroundings.heart.beat();
            tokio::select! {
                () = self.shutdown.cancelled() => return Ok(None),
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
