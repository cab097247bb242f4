//! Nodes, their reports and StaticRoutes, mirrored by watches: read often, changed seldom, and a stale copy only delays.

use std::collections::BTreeMap;

use egress_api::{NodeEgress, NodeEgressStatus, StaticRoute};
use egress_runtime::admin::Readiness;
use egress_runtime::kubernetes::{CallError, watch_settings, within_deadline};
use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Node;
use kube::api::ListParams;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use tokio::sync::watch;

use crate::identity::node_droplet;
use crate::observation::NodeSeen;

/// The mirrors. Clones share them.
#[derive(Clone)]
pub struct Mirrors {
    nodes: Store<Node>,
    reports: Store<DeserializeGuard<NodeEgress>>,
    routes: Store<DeserializeGuard<StaticRoute>>,
}

/// Starts the mirrors. The future keeps them up to date and counts every change in `changes`; it ends only with a bug.
pub fn start(
    client: &Client,
    changes: watch::Sender<u64>,
    known: Readiness,
) -> (Mirrors, impl Future<Output = ()> + Send + use<>) {
    let (nodes, node_writer) = reflector::store();
    let (reports, report_writer) = reflector::store();
    let (routes, route_writer) = reflector::store();
    let node_stream = mirrored(Api::<Node>::all(client.clone()), node_writer, changes.clone());
    let report_stream =
        mirrored(Api::<DeserializeGuard<NodeEgress>>::all(client.clone()), report_writer, changes.clone());
    let route_stream =
        mirrored(Api::<DeserializeGuard<StaticRoute>>::all(client.clone()), route_writer, changes);
    let mirrors = Mirrors { nodes, reports, routes };
    let waiting = mirrors.clone();
    let run = async move {
        let ready = async {
            waiting.known().await;
            known.set_ready();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = ready => {}
            () = drain(node_stream) => {}
            () = drain(report_stream) => {}
            () = drain(route_stream) => {}
        }
    };
    (mirrors, run)
}

fn mirrored<K>(
    api: Api<K>,
    writer: reflector::store::Writer<K>,
    changes: watch::Sender<u64>,
) -> impl Stream<Item = ()> + Send
where
    K: kube::Resource<DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + Send
        + Sync
        + 'static,
{
    watcher(api, watch_settings()).default_backoff().reflect(writer).map(move |event| match event {
        Ok(_) => changes.send_modify(|count| *count = count.wrapping_add(1)),
        Err(error) => {
            tracing::warn!(kind = %K::kind(&()), %error, "watch failed; the last view stays in use");
        }
    })
}

async fn drain(stream: impl Stream<Item = ()> + Send) {
    let mut stream = std::pin::pin!(stream);
    while stream.next().await.is_some() {}
}

impl Mirrors {
    /// Every node with its report, by name. Reports of nodes that do not exist count for nothing.
    pub fn nodes(&self) -> Vec<NodeSeen> {
        let mut seen: Vec<NodeSeen> = self.nodes.state().iter().map(|node| self.node(node)).collect();
        seen.sort_by(|a, b| a.name.cmp(&b.name));
        seen
    }

    fn node(&self, node: &Node) -> NodeSeen {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let report = self.reports.get(&reflector::ObjectRef::new(name));
        node_seen(node, report.and_then(|report| report.0.as_ref().ok()?.status.clone()))
    }

    /// Waits until everything has been read once. An empty view would say that no node holds a route.
    pub async fn known(&self) {
        let all = async {
            self.nodes.wait_until_ready().await?;
            self.reports.wait_until_ready().await?;
            self.routes.wait_until_ready().await
        };
        if all.await.is_err() {
            // The mirrors have ended, and the process with them.
            std::future::pending::<()>().await;
        }
    }

    /// Pod ranges of the nodes, as they are written.
    pub fn pod_ranges(&self) -> Vec<String> {
        let nodes = self.nodes.state();
        let specs = nodes.iter().filter_map(|node| node.spec.as_ref());
        specs.flat_map(|spec| spec.pod_cidrs.iter().flatten().chain(&spec.pod_cidr).cloned()).collect()
    }

    /// Every StaticRoute that can be read, the users' own too. One that cannot, stored by an older CRD, breaks no watch.
    pub fn routes(&self) -> Vec<StaticRoute> {
        self.routes.state().iter().filter_map(|route| route.0.as_ref().ok().cloned()).collect()
    }
}

/// Every node with its report as the API server's quorum has them now, for what cannot be taken back.
pub async fn read_nodes(client: &Client) -> Result<Vec<NodeSeen>, CallError> {
    let everything = ListParams::default();
    let nodes: Api<Node> = Api::all(client.clone());
    let reports: Api<DeserializeGuard<NodeEgress>> = Api::all(client.clone());
    let nodes = within_deadline(nodes.list(&everything)).await?;
    let reports = within_deadline(reports.list(&everything)).await?;
    let mut reports: BTreeMap<String, NodeEgressStatus> = reports
        .items
        .into_iter()
        .filter_map(|report| report.0.ok())
        .filter_map(|report| Some((report.metadata.name?, report.status?)))
        .collect();
    let seen =
        |node: &Node| node_seen(node, reports.remove(node.metadata.name.as_deref().unwrap_or_default()));
    Ok(nodes.items.iter().map(seen).collect())
}

/// Every StaticRoute that can be read, as the API server's quorum has them now.
pub async fn read_routes(client: &Client) -> Result<Vec<StaticRoute>, CallError> {
    let routes: Api<DeserializeGuard<StaticRoute>> = Api::all(client.clone());
    let routes = within_deadline(routes.list(&ListParams::default())).await?;
    Ok(routes.items.into_iter().filter_map(|route| route.0.ok()).collect())
}

fn node_seen(node: &Node, report: Option<NodeEgressStatus>) -> NodeSeen {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    NodeSeen {
        name: node.metadata.name.clone().unwrap_or_default(),
        live: conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True"),
        labels: node.metadata.labels.clone().unwrap_or_default(),
        droplet: node.spec.as_ref().and_then(|spec| spec.provider_id.as_deref()).and_then(node_droplet),
        report,
    }
}
