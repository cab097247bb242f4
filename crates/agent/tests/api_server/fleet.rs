//! Nodes by the hundred: the agent's own code from the watches to the report, with a kernel that takes everything.
//!
//! What is shared, so that one machine can bear it: the watches, among a hundred nodes each. Everything behind them runs once
//! for each node, and each writes its own NodeEgress.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use egress_agent::objects::{self, Labels, Objects};
use egress_agent::publish::{Publisher, Stored};
use egress_agent::report::{self, Refused, Report};
use egress_agent::watches::Watches;
use egress_api::{EgressGateway, GatewayObservation, StaticRoute};
use egress_routing::kernel_state::Observed;
use egress_routing::{Layout, NodeView, Selection, VpcInterface, plan};
use egress_runtime::guarded::Guarded;
use futures::StreamExt;
use kube::api::PostParams;
use kube::runtime::reflector::Store;
use kube::{Api, Client};
use serde_json::json;
use testkit::ApiServer;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

/// Nodes that share their watches.
pub const SHARE: usize = 100;

/// As the agent's loop: events that come in a burst become one pass.
const SETTLE: Duration = Duration::from_millis(20);

pub struct Fleet {
    /// What each node sees of its gateways, one number for all: raise it, and every node has something new to say.
    pub verdicts: watch::Sender<u64>,
    _tasks: JoinSet<()>,
}

pub fn node_name(number: usize) -> String {
    format!("pool-web-{number:04}")
}

impl Fleet {
    /// Makes the Nodes, and starts their agents.
    pub async fn start(server: &ApiServer, nodes: usize) -> Self {
        make_nodes(&server.admin().unwrap(), nodes).await;
        let (verdicts, verdict) = watch::channel(0);
        let mut tasks = JoinSet::new();
        for first in (0..nodes).step_by(SHARE) {
            let client = server.admin().unwrap();
            let changed = Arc::new(Notify::new());
            let name = node_name(first);
            let watches = Watches::start(&client, &name, None, &changed, &mut tasks);
            watches.ready().await.unwrap();
            let (waking, woken) = watch::channel(());
            tasks.spawn(async move {
                loop {
                    changed.notified().await;
                    waking.send_replace(());
                }
            });
            for number in first..nodes.min(first + SHARE) {
                let (reports, said) = watch::channel(Report::default());
                // Nobody touches the reports but their agents.
                let (untouched, stored) = watch::channel(Stored::Unknown);
                let every_node = watches.nodes.clone();
                let publisher = Publisher {
                    client: client.clone(),
                    node_name: node_name(number),
                    reports: said,
                    stored,
                    nodes: move || every_node.state().len(),
                };
                let agent = Agent {
                    routes: watches.static_routes.clone(),
                    gateways: watches.egress_gateways.clone(),
                    labels: labels(number),
                    view: view(number),
                    objects: Objects::default(),
                };
                tasks.spawn(agent.run(woken.clone(), verdict.clone(), reports));
                tasks.spawn(async move {
                    publisher.run().await;
                    drop(untouched);
                });
            }
        }
        Self { verdicts, _tasks: tasks }
    }
}

struct Agent {
    routes: Store<Guarded<StaticRoute>>,
    gateways: Store<Guarded<EgressGateway>>,
    labels: Labels,
    view: NodeView,
    objects: Objects,
}

impl Agent {
    async fn run(
        mut self,
        mut woken: watch::Receiver<()>,
        mut verdict: watch::Receiver<u64>,
        reports: watch::Sender<Report>,
    ) {
        loop {
            let report = self.pass(*verdict.borrow_and_update());
            reports.send_if_modified(|said| {
                let is_new = *said != report;
                *said = report;
                is_new
            });
            tokio::select! {
                changed = woken.changed() => if changed.is_err() { return },
                changed = verdict.changed() => if changed.is_err() { return },
            }
            tokio::time::sleep(SETTLE).await;
        }
    }

    fn pass(&mut self, verdict: u64) -> Report {
        let (routes, gateways) = (self.routes.state(), self.gateways.state());
        self.objects = objects::read(
            routes.iter().map(AsRef::as_ref),
            gateways.iter().map(AsRef::as_ref),
            Some(&self.labels),
            &self.objects,
        );
        let planned = plan(
            &self.objects.routes,
            &self.view,
            &Selection::new(),
            &Observed::default(),
            &Layout::default(),
        );
        let seen = GatewayObservation {
            address: "10.116.0.5".to_owned(),
            reachable: verdict.is_multiple_of(2),
            forwards: None,
            since: None,
            message: None,
            ..GatewayObservation::default()
        };
        let status = report::status(&planned.routes, &self.objects, &Refused::default(), vec![seen]);
        Report { status, concerns: Vec::new() }
    }
}

fn labels(number: usize) -> Labels {
    BTreeMap::from([("half".to_owned(), (number % 2).to_string())])
}

fn view(number: usize) -> NodeView {
    let [.., high, low] = u32::try_from(number).unwrap().to_be_bytes();
    let vpc = VpcInterface {
        index: 3,
        up: true,
        address: [10, 116, 4 + high, low].into(),
        subnet: "10.116.0.0/20".parse().unwrap(),
    };
    NodeView { vpc: Some(vpc), ..NodeView::default() }
}

async fn make_nodes(client: &Client, nodes: usize) {
    let all: Api<k8s_openapi::api::core::v1::Node> = Api::all(client.clone());
    let make = |number: usize| {
        let node = serde_json::from_value(json!({
            "metadata": {"name": node_name(number), "labels": labels(number)},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        }));
        let all = all.clone();
        async move {
            all.create(&PostParams::default(), &node.unwrap()).await.unwrap();
        }
    };
    futures::stream::iter((0..nodes).map(make)).buffer_unordered(16).collect::<Vec<()>>().await;
}
