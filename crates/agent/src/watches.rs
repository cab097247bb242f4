//! What the agent follows in the API server.
//!
//! Responsibility: keep reflectors current and wake the loop when something changed that it reads. Events only wake; the loop reads the whole
//! stores. A watch that breaks is begun anew with growing back-off, and the stores keep what they had meanwhile (I6).

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use egress_api::{EgressGateway, StaticRoute};
use egress_runtime::guarded::Guarded;
use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::cluster_node::ClusterNode;
use crate::inbound;

/// A ConfigMap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// The stores. All are empty until [`Watches::ready`] returns.
pub struct Watches {
    /// Every StaticRoute.
    pub static_routes: Store<Guarded<StaticRoute>>,
    /// Every EgressGateway.
    pub egress_gateways: Store<Guarded<EgressGateway>>,
    /// Every node; labels of this one only.
    pub nodes: Store<ClusterNode>,
    /// Addresses of the API server: the EndpointSlices of Service `default/kubernetes`.
    pub api_servers: Store<EndpointSlice>,
    /// What is served to the outside.
    pub inbound: inbound::follow::Stores,
    /// The user's list of protected ranges and names, when one is followed.
    pub protected_list: Option<Store<ConfigMap>>,
    /// Ranges of Services. Empty where the API server has no such objects (before Kubernetes 1.33).
    pub service_ranges: Store<ServiceCIDR>,
    service_ranges_answered: watch::Receiver<bool>,
}

impl Watches {
    /// Begins to follow; `changed` is notified of what is news. The tasks live in `tasks`. `protected_list` is the ConfigMap
    /// with the user's list.
    pub fn start(
        client: &Client,
        node_name: &str,
        protected_list: Option<&ListName>,
        changed: &Arc<Notify>,
        tasks: &mut JoinSet<()>,
    ) -> Self {
        let this_node = node_name.to_owned();
        let drop_labels_of_others = move |node: &mut ClusterNode| {
            if node.metadata.name.as_ref() != Some(&this_node) {
                node.metadata.labels = None;
            }
        };
        let everything = egress_runtime::kubernetes::watch_settings;
        let api_server = everything().labels("kubernetes.io/service-name=kubernetes");
        let protected_list = protected_list.map(|list| {
            let api = Api::namespaced(client.clone(), &list.namespace);
            let only_it = everything().fields(&format!("metadata.name={}", list.name));
            follow(api, only_it, changed, tasks, |_| {})
        });
        let (service_ranges, service_ranges_answered) =
            follow_if_served(Api::all(client.clone()), changed, tasks);
        Self {
            protected_list,
            service_ranges,
            service_ranges_answered,
            static_routes: follow(Api::all(client.clone()), everything(), changed, tasks, drop_status),
            egress_gateways: follow(Api::all(client.clone()), everything(), changed, tasks, |_| {}),
            nodes: follow(Api::all(client.clone()), everything(), changed, tasks, drop_labels_of_others),
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
        let protected_list = self.protected_list.clone();
        let mut service_ranges_answered = self.service_ranges_answered.clone();
        async move {
            if let Some(list) = protected_list {
                list.wait_until_ready().await?;
            }
            // The sender lives as long as the watch, and a process without it ends.
            drop(service_ranges_answered.wait_for(|answered| *answered).await);
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
    trim: impl Fn(&mut K) + Send + Sync + 'static,
) -> Store<K>
where
    K: Resource + Clone + PartialEq + DeserializeOwned + Debug + Send + Sync + 'static,
    K::DynamicType: Eq + Hash + Clone + Default + Send + Sync,
{
    let (store, mut writer) = reflector::store();
    let kind = <K as Resource>::kind(&Default::default()).into_owned();
    let changed = Arc::clone(changed);
    tasks.spawn(async move {
        let mut events = watcher(api, config)
            .default_backoff()
            .modify(move |object| {
                drop_bookkeeping(object);
                trim(object);
            })
            .boxed();
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    if take_in(&event, &mut writer) {
                        changed.notify_one();
                    }
                }
                Err(error) => tracing::warn!(kind, %error, "watch broke; what is in the kernel stays"),
            }
        }
    });
    store
}

/// The same for objects that not every API server has: the second value tells when it has said which it is.
fn follow_if_served(
    api: Api<ServiceCIDR>,
    changed: &Arc<Notify>,
    tasks: &mut JoinSet<()>,
) -> (Store<ServiceCIDR>, watch::Receiver<bool>) {
    let (store, writer) = reflector::store();
    let (answered, receiver) = watch::channel(false);
    let changed = Arc::clone(changed);
    let config = egress_runtime::kubernetes::watch_settings();
    tasks.spawn(async move {
        let mut events = watcher(api, config).default_backoff().reflect(writer).boxed();
        while let Some(event) = events.next().await {
            match event {
                Ok(watcher::Event::InitDone) => {
                    answered.send_replace(true);
                    changed.notify_one();
                }
                Ok(_) => changed.notify_one(),
                Err(watcher::Error::InitialListFailed(kube::Error::Api(status)))
                    if status.code == 404 || status.code == 403 =>
                {
                    if !answered.send_replace(true) {
                        tracing::info!(
                            code = status.code,
                            "no ServiceCIDR objects; the setting has the range of Services"
                        );
                        changed.notify_one();
                    }
                }
                Err(error) => tracing::warn!(kind = "ServiceCIDR", %error, "watch broke; what it said stays"),
            }
        }
    });
    (store, receiver)
}

/// Brings an event into its store. Returns whether the store then says something else: most events of a big cluster are a node's
/// conditions, the status of a StaticRoute and the readiness of pods, which nobody reads here, and they must cost no pass over ten
/// thousand routes.
pub(crate) fn take_in<K>(event: &watcher::Event<K>, writer: &mut Writer<K>) -> bool
where
    K: Resource + Clone + PartialEq + 'static,
    K::DynamicType: Eq + Hash + Clone + Default,
{
    let is_news = match event {
        watcher::Event::Apply(object) => {
            let before = writer.as_reader().get(&ObjectRef::from_obj(object));
            before.is_none_or(|before| *before != *object)
        }
        watcher::Event::Delete(_) | watcher::Event::InitDone => true,
        // A list is gathered aside until it is whole.
        watcher::Event::Init | watcher::Event::InitApply(_) => false,
    };
    writer.apply_watcher_event(event);
    is_news
}

/// Who wrote which field, and `kubectl apply`'s copy of the whole object: larger than the object, and read by nobody here.
fn drop_bookkeeping<K: Resource>(object: &mut K) {
    let metadata = object.meta_mut();
    metadata.managed_fields = None;
    metadata.annotations = None;
    metadata.resource_version = None;
}

fn drop_status(route: &mut Guarded<StaticRoute>) {
    match &mut route.0 {
        Ok(route) => route.status = None,
        Err(invalid) => invalid.status = serde_json::Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kube::runtime::watcher::Event;
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// An API server that answers everything with that.
    async fn answering(head: &'static str, body: &'static str) -> Client {
        egress_runtime::kubernetes::install_crypto_provider();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 4096];
                let Ok(_) = stream.read(&mut request).await else { continue };
                let length = body.len();
                let answer =
                    format!("HTTP/1.1 {head}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
                // A client that went away needs no answer.
                let _gone = stream.write_all(answer.as_bytes()).await;
            }
        });
        Client::try_from(kube::Config::new(url)).unwrap()
    }

    async fn is_answered(head: &'static str, body: &'static str, within: Duration) -> bool {
        let client = answering(head, body).await;
        let mut tasks = JoinSet::new();
        let (store, mut answered) = follow_if_served(Api::all(client), &Arc::default(), &mut tasks);
        let answer = tokio::time::timeout(within, answered.wait_for(|answered| *answered)).await;
        assert!(store.state().is_empty());
        answer.is_ok()
    }

    #[tokio::test]
    async fn an_api_server_that_has_no_service_cidrs_holds_nobody_up_and_one_that_fails_does() {
        // As Kubernetes before 1.33 says it, and as one does that gives the right to nobody.
        let soon = Duration::from_secs(20);
        assert!(is_answered("404 Not Found", "404 page not found", soon).await);
        let forbidden =
            r#"{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403}"#;
        assert!(is_answered("403 Forbidden", forbidden, soon).await);
        assert!(!is_answered("503 Service Unavailable", "not now", Duration::from_millis(300)).await);
    }

    fn route(version: &str, status: &str, destination: &str) -> Guarded<StaticRoute> {
        let object = json!({"apiVersion": "networking.digitalocean.com/v1", "kind": "StaticRoute",
            "metadata": {"name": "demo", "uid": "u", "resourceVersion": version, "annotations": {"a": version}},
            "spec": {"destinations": [destination], "gateway": "10.116.0.5"}, "status": {"nodes": status}});
        let mut route = serde_json::from_value(object).unwrap();
        drop_bookkeeping(&mut route);
        drop_status(&mut route);
        route
    }

    #[test]
    fn what_nobody_reads_wakes_nobody() {
        let mut writer = Writer::default();
        let mut hear = |event: Event<Guarded<StaticRoute>>| take_in(&event, &mut writer);
        assert!(hear(Event::Apply(route("1", "0/1", "192.0.2.1"))), "new");
        assert!(!hear(Event::Apply(route("2", "1/1", "192.0.2.1"))), "its status, written by the controller");
        assert!(hear(Event::Apply(route("3", "1/1", "192.0.2.2"))), "its spec");
        assert!(!hear(Event::Init) && !hear(Event::InitApply(route("3", "1/1", "192.0.2.2"))));
        assert!(hear(Event::InitDone) && hear(Event::Delete(route("3", "1/1", "192.0.2.2"))));
    }
}
