//! One controller process: all its tasks, whatever they are connected to.

use std::convert::Infallible;
use std::sync::Arc;

use egress_digitalocean::{Client as CloudClient, SharedToken};
use egress_runtime::admin::{Liveness, Readiness};
use egress_runtime::lease::{self, Elector, KubernetesLease, Timing};
use egress_runtime::tasks::Tasks;
use kube::Client;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::credentials;
use crate::health::Endpoints;
use crate::leader::Leader;
use crate::metrics::ControllerMetrics;
use crate::settings::Settings;
use crate::watches::{self, Mirrors};

/// Name of the Lease.
pub const LEASE: &str = "egress-controller";

/// What a process is connected to, and by what it is looked at.
pub struct Surroundings {
    /// Command line and environment.
    pub settings: Settings,
    /// Kubernetes.
    pub client: Client,
    /// DigitalOcean, asked with what `token` holds.
    pub cloud: CloudClient,
    /// Kept equal to the Secret.
    pub token: SharedToken,
    /// The gateways.
    pub endpoints: Arc<dyn Endpoints>,
    /// The time of day.
    pub clock: Clock,
    /// Counts.
    pub metrics: ControllerMetrics,
    /// Beaten while there is life.
    pub heart: Liveness,
    /// Ready once the Secret was looked for.
    pub token_known: Readiness,
    /// Ready once nodes and their reports were read.
    pub mirrors_known: Readiness,
}

/// What every controller sees of the cluster, whether it leads or not.
pub struct Mirrored {
    /// It.
    pub mirrors: Mirrors,
    /// Counts its changes.
    pub changes: watch::Receiver<u64>,
}

/// Starts everything that a controller does; it ends with the tasks' shutdown token. Fails where the kernel draws no random number.
pub fn start(surroundings: Surroundings, tasks: &mut Tasks) -> std::io::Result<Mirrored> {
    let shutdown = tasks.shutdown();
    let client = surroundings.client.clone();
    let namespace = surroundings.settings.namespace.clone();
    let token = surroundings.token.clone();
    let follow =
        credentials::follow(client.clone(), namespace.clone(), token, surroundings.token_known.clone());
    tasks.spawn("token", until(shutdown.clone(), follow));
    let (changed, changes) = watch::channel(0);
    let (mirrors, mirroring) =
        watches::start(&client, &namespace, changed, surroundings.mirrors_known.clone());
    tasks.spawn("mirrors", until(shutdown.clone(), mirroring));

    let store = KubernetesLease::new(client, &namespace, LEASE);
    let me = lease::identity(&surroundings.settings.pod_name)?;
    let (elector, claim) = Elector::new(store, me, Timing::default());
    tasks.spawn_closing("lease", |close| elector.run(close));

    let mirrored = Mirrored { mirrors: mirrors.clone(), changes: changes.clone() };
    let leader = Leader { surroundings, claim, mirrors, changes, shutdown };
    tasks.spawn("leader", leader.run());
    Ok(mirrored)
}

async fn until(shutdown: CancellationToken, task: impl Future<Output = ()>) -> Result<(), Infallible> {
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = task => {}
    }
    Ok(())
}
