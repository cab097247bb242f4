//! What the agent follows in the API server.
//!
//! Responsibility: keep reflectors current and wake the loop on any change. Events only wake; the loop reads the whole
//! stores. A watch that breaks is begun anew with growing back-off, and the stores keep what they had meanwhile (I6).

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use egress_api::{EgressGateway, StaticRoute};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::guarded::Guarded;
use crate::inbound;

/// The stores. All are empty until [`Watches::ready`] returns.
pub struct Watches {
    /// Every StaticRoute.
    pub static_routes: Store<Guarded<StaticRoute>>,
    /// Every EgressGateway.
    pub egress_gateways: Store<Guarded<EgressGateway>>,
    /// Every node, without the parts that the agent does not read.
    pub nodes: Store<Node>,
    /// Addresses of the API server: the EndpointSlices of Service `default/kubernetes`.
    pub api_servers: Store<EndpointSlice>,
    /// What is served to the outside.
    pub inbound: inbound::follow::Stores,
}

impl Watches {
    /// Begins to follow; `changed` is notified on every event. The tasks live in `tasks`.
    pub fn start(client: &Client, node_name: &str, changed: &Arc<Notify>, tasks: &mut JoinSet<()>) -> Self {
        let everything = egress_runtime::kubernetes::watch_settings;
        let api_server = everything().labels("kubernetes.io/service-name=kubernetes");
        Self {
            static_routes: follow(Api::all(client.clone()), everything(), changed, tasks, |_| {}),
            egress_gateways: follow(Api::all(client.clone()), everything(), changed, tasks, |_| {}),
            nodes: follow(Api::all(client.clone()), everything(), changed, tasks, drop_unread_parts),
            api_servers: follow(
                Api::namespaced(client.clone(), "default"),
                api_server,
                changed,
                tasks,
                |_| {},
            ),
            inbound: inbound::follow::Stores::start(client, node_name, changed, tasks),
        }
    }

    /// Waits until every store has been filled once. Without that the agent would take "not read yet" for "not wanted".
    pub fn ready(&self) -> impl Future<Output = Result<(), reflector::store::WriterDropped>> + use<> {
        let (static_routes, egress_gateways) = (self.static_routes.clone(), self.egress_gateways.clone());
        let (nodes, api_servers) = (self.nodes.clone(), self.api_servers.clone());
        let inbound = self.inbound.clone();
        async move {
            static_routes.wait_until_ready().await?;
            egress_gateways.wait_until_ready().await?;
            nodes.wait_until_ready().await?;
            api_servers.wait_until_ready().await?;
            inbound.ready().await
        }
    }
}

pub(crate) fn follow<K>(
    api: Api<K>,
    config: watcher::Config,
    changed: &Arc<Notify>,
    tasks: &mut JoinSet<()>,
    trim: fn(&mut K),
) -> Store<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    K::DynamicType: Eq + Hash + Clone + Default + Send + Sync,
{
    let (store, writer) = reflector::store();
    let kind = <K as Resource>::kind(&Default::default()).into_owned();
    let changed = Arc::clone(changed);
    tasks.spawn(async move {
        let mut events = watcher(api, config).default_backoff().modify(trim).reflect(writer).boxed();
        while let Some(event) = events.next().await {
            match event {
                Ok(_) => changed.notify_one(),
                Err(error) => tracing::warn!(kind, %error, "watch broke; what is in the kernel stays"),
            }
        }
    });
    store
}

fn drop_unread_parts(node: &mut Node) {
    node.metadata.managed_fields = None;
    node.metadata.annotations = None;
    if let Some(status) = &mut node.status {
        status.images = None;
        status.conditions = None;
        status.volumes_attached = None;
        status.volumes_in_use = None;
    }
}
