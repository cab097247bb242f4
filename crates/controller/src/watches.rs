//! Nodes, their reports and agents, and StaticRoutes, mirrored by watches: read often, changed seldom, and a stale copy only delays.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use egress_api::{NodeEgress, NodeEgressStatus, StaticRoute};
use egress_runtime::admin::Readiness;
use egress_runtime::guarded::Guarded;
use egress_runtime::kubernetes::{CallError, watch_settings, within_deadline};
use futures::{FutureExt as _, Stream, StreamExt};
use k8s_openapi::api::core::v1::Node;
use kube::api::ListParams;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use tokio::sync::watch;

use crate::agents::Agents;
use crate::identity::node_droplet;
use crate::observation::{NODE_EGRESS, NodeSeen, STATIC_ROUTE};
use crate::relisting::relisted;
use crate::route_status::NodeReport;

/// The mirrors. Clones share them.
#[derive(Clone)]
pub struct Mirrors {
    nodes: Store<Node>,
    reports: Store<Guarded<NodeEgress>>,
    routes: Store<Guarded<StaticRoute>>,
    agents: Agents,
}

/// Starts the mirrors; `namespace` is where the agents' pods are. The future keeps them up to date and counts every change in `changes`; it ends only with a bug.
pub fn start(
    client: &Client,
    namespace: &str,
    changes: watch::Sender<u64>,
    known: Readiness,
) -> (Mirrors, impl Future<Output = ()> + Send + use<>) {
    let (nodes, node_writer) = reflector::store();
    let (reports, report_writer) = reflector::store();
    let (routes, route_writer) = reflector::store();
    let node_stream = mirrored(Api::<Node>::all(client.clone()), node_writer, changes.clone());
    let report_stream =
        mirrored(Api::<Guarded<NodeEgress>>::all(client.clone()), report_writer, changes.clone());
    let (agents, agent_stream) = Agents::follow(client, namespace, changes.clone());
    let route_stream = mirrored(Api::<Guarded<StaticRoute>>::all(client.clone()), route_writer, changes);
    let mirrors = Mirrors { nodes, reports, routes, agents };
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
            () = drain(agent_stream) => {}
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
    // Who owns which field is a third of a report, and nobody here asks.
    let trimmed = relisted(api, watch_settings()).modify(|object| object.meta_mut().managed_fields = None);
    trimmed.default_backoff().reflect(writer).map(move |event| match event {
        Ok(_) => changes.send_modify(|count| *count = count.wrapping_add(1)),
        Err(error) => {
            tracing::warn!(kind = %K::kind(&()), %error, "watch failed; the last view stays in use");
        }
    })
}

// What a busy API server asks for.
const AGAIN: Duration = Duration::from_secs(1);

/// What there is now, listed once, in a store that nobody keeps up to date.
pub(crate) async fn listed<K>(api: Api<K>, which: &ListParams) -> Result<Store<K>, CallError>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned + 'static,
{
    // An API server whose definitions are new asks for a second of patience.
    let mut patience = 10;
    let objects = loop {
        match within_deadline(api.list(which)).await {
            Err(error) if error.category() == "throttled" && patience > 0 => patience -= 1,
            listed => break listed?.items,
        }
        tokio::time::sleep(AGAIN).await;
    };
    let (store, mut writer) = reflector::store();
    writer.apply_watcher_event(&watcher::Event::Init);
    for object in objects {
        writer.apply_watcher_event(&watcher::Event::InitApply(object));
    }
    writer.apply_watcher_event(&watcher::Event::InitDone);
    Ok(store)
}

async fn drain(stream: impl Stream<Item = ()> + Send) {
    let mut stream = std::pin::pin!(stream);
    while stream.next().await.is_some() {}
}

impl Mirrors {
    /// Mirrors of now, which nobody keeps up to date: for a single look.
    pub async fn read_once(client: &Client, namespace: &str) -> Result<Self, CallError> {
        let all = ListParams::default();
        Ok(Self {
            nodes: listed(Api::all(client.clone()), &all).await?,
            reports: listed(Api::all(client.clone()), &all).await?,
            routes: listed(Api::all(client.clone()), &all).await?,
            agents: Agents::read_once(client, namespace).await,
        })
    }

    /// Every node with its report, by name. Reports of nodes that do not exist count for nothing.
    pub fn nodes(&self) -> Vec<NodeSeen> {
        let mut seen: Vec<NodeSeen> = self.nodes.state().iter().map(|node| self.node(node)).collect();
        self.note_agents(&mut seen);
        seen.sort_by(|a, b| a.name.cmp(&b.name));
        seen
    }

    /// Says of each node whether its agent is Ready.
    pub fn note_agents(&self, nodes: &mut [NodeSeen]) {
        let ready = self.agents.ready();
        for node in nodes {
            node.agent_ready = ready.as_ref().map(|ready| ready.contains(&node.name));
        }
    }

    /// Names of the nodes whose agent is Ready; `None` while that is not known.
    pub fn nodes_with_ready_agents(&self) -> Option<BTreeSet<String>> {
        self.agents.ready()
    }

    fn node(&self, node: &Node) -> NodeSeen {
        node_seen(node, self.report(node.metadata.name.as_deref().unwrap_or_default()))
    }

    /// Every node.
    pub fn nodes_as_read(&self) -> Vec<Arc<Node>> {
        self.nodes.state()
    }

    /// What a node reports, if that can be read.
    pub fn report(&self, node: &str) -> Option<NodeEgressStatus> {
        self.reports.get(&reflector::ObjectRef::new(node))?.0.as_ref().ok()?.status.clone()
    }

    /// Reports without a node: name and uid.
    pub fn orphans(&self) -> Vec<(String, String)> {
        let is_orphan = |name: &String| self.nodes.get(&reflector::ObjectRef::new(name)).is_none();
        let reports = self.reports.state();
        let metas = reports.iter().map(|report| report.meta());
        metas.filter_map(|meta| Some((meta.name.clone().filter(is_orphan)?, meta.uid.clone()?))).collect()
    }

    /// Waits until everything has been read once, but for the agents' pods: an empty view would say that no node holds a route.
    /// Where pods cannot be read, all else goes on.
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

    /// Whether that has happened.
    pub fn are_known(&self) -> bool {
        self.known().now_or_never().is_some()
    }

    /// Pod ranges of the nodes, as they are written.
    pub fn pod_ranges(&self) -> Vec<String> {
        let nodes = self.nodes.state();
        let specs = nodes.iter().filter_map(|node| node.spec.as_ref());
        specs.flat_map(|spec| spec.pod_cidrs.iter().flatten().chain(&spec.pod_cidr).cloned()).collect()
    }

    /// Every StaticRoute that can be read.
    pub fn routes(&self) -> Vec<StaticRoute> {
        self.routes.state().iter().filter_map(|route| route.0.as_ref().ok().cloned()).collect()
    }

    /// Every StaticRoute, the users' own too, as far as it can be read: one stored by an older CRD breaks no watch.
    pub fn routes_as_read(&self) -> Vec<Arc<Guarded<StaticRoute>>> {
        self.routes.state()
    }

    /// Shows every node, and every report without a node, by name.
    pub fn with_reports<T>(&self, look: impl FnOnce(&[NodeReport<'_>]) -> T) -> T {
        let (nodes, reports) = (self.nodes.state(), self.reports.state());
        let mut seen: BTreeMap<&str, NodeReport<'_>> = BTreeMap::new();
        for node in &nodes {
            let name = node.metadata.name.as_deref().unwrap_or_default();
            let labels = node.metadata.labels.as_ref();
            seen.insert(name, NodeReport { name, is_ready: Some(is_ready(node)), labels, report: None });
        }
        for read in reports.iter().filter_map(|report| report.0.as_ref().ok()) {
            let name = read.metadata.name.as_deref().unwrap_or_default();
            let nobody = NodeReport { name, is_ready: None, labels: None, report: None };
            seen.entry(name).or_insert(nobody).report = read.status.as_ref();
        }
        look(&seen.into_values().collect::<Vec<_>>())
    }
}

/// What the API server's quorum has now, for what cannot be taken back.
#[derive(Debug, Default)]
pub struct Quorum {
    /// Every node with its report.
    pub nodes: Vec<NodeSeen>,
    /// Every StaticRoute that can be read.
    pub routes: Vec<StaticRoute>,
    /// Kinds without a definition: none of their objects can be read, and nothing follows from that.
    pub undefined: Vec<&'static str>,
}

impl Quorum {
    /// Reads it.
    pub async fn read(client: &Client) -> Result<Self, CallError> {
        let nodes: Api<Node> = Api::all(client.clone());
        let nodes = within_deadline(nodes.list(&ListParams::default())).await?;
        let mut quorum = Self::default();
        let reports = quorum.list::<NodeEgress>(client, NODE_EGRESS).await?;
        quorum.routes = quorum.list::<StaticRoute>(client, STATIC_ROUTE).await?;
        let mut reports: BTreeMap<String, NodeEgressStatus> =
            reports.into_iter().filter_map(|report| Some((report.metadata.name?, report.status?))).collect();
        let mut report = |node: &Node| reports.remove(node.metadata.name.as_deref().unwrap_or_default());
        quorum.nodes = nodes.items.iter().map(|node| node_seen(node, report(node))).collect();
        Ok(quorum)
    }

    async fn list<K>(&mut self, client: &Client, kind: &'static str) -> Result<Vec<K>, CallError>
    where
        Guarded<K>: Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
    {
        let objects: Api<Guarded<K>> = Api::all(client.clone());
        match within_deadline(objects.list(&ListParams::default())).await {
            Ok(listed) => Ok(listed.items.into_iter().filter_map(|object| object.0.ok()).collect()),
            Err(error) if error.is_not_found() => {
                self.undefined.push(kind);
                Ok(Vec::new())
            }
            Err(error) => Err(error),
        }
    }
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn node_seen(node: &Node, report: Option<NodeEgressStatus>) -> NodeSeen {
    NodeSeen {
        name: node.metadata.name.clone().unwrap_or_default(),
        live: is_ready(node),
        labels: node.metadata.labels.clone().unwrap_or_default(),
        droplet: node.spec.as_ref().and_then(|spec| spec.provider_id.as_deref()).and_then(node_droplet),
        report,
        agent_ready: None,
        heard: None,
    }
}
