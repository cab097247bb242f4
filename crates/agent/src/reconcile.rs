//! The loop: one node's whole route set, kept as it should be.
//!
//! Level-triggered. API events, netlink events and a timer only wake it; it then reads everything (stores, links, main table,
//! our own state in the kernel), plans, and writes the difference. A probe that changes a verdict takes a shorter way: the
//! StaticRoutes that must move get one nexthop message each, and nothing else is read or asked.
//!
//! - Nothing is written before every store was filled once: "not read yet" is not "not wanted" (I6).
//! - A restart plans what is there and writes nothing (I7): ids, slots and chosen gateways are read back from the kernel.
//! - When the loop ends the routes stay, unless an uninstall is confirmed.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use egress_api::NodeEgressStatus;
use egress_health::Tick;
use egress_netlink::monitor::Monitor;
use egress_netlink::ownership::Claim;
use egress_netlink::{ChangeError, Commands};
use egress_routing::kernel_state::{Change, KernelState, Observed};
use egress_routing::{Layout, NodePlan, NodeView, ProtectedReason, Selection, changes, plan};
use egress_runtime::admin::{Liveness, Readiness};
use ipnet::Ipv4Net;
use k8s_openapi::jiff::Timestamp;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::gateways::Gateways;
use crate::metrics::{self, AgentMetrics, StateLabels};
use crate::node::{self, Sources};
use crate::objects::{self, Objects};
use crate::probe::{ProbePlan, ProbeResult, Probes};
use crate::report::{self, Refused};
use crate::surroundings::Surroundings;
use crate::watches::Watches;

/// A full comparison at least that often: netlink events get lost.
const FULL_COMPARISON: Duration = Duration::from_secs(30);

/// Events that come in a burst become one pass.
const SETTLE: Duration = Duration::from_millis(20);

/// Pause before the next try when the kernel refused something, doubling up to the longest.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// The loop beats its heart at least that often.
const BEAT: Duration = Duration::from_secs(1);

/// Ranges that are protected whatever the node says.
pub type Configured = Vec<(Ipv4Net, ProtectedReason)>;

/// What the loop is connected to.
pub struct Connections {
    /// Name of this node.
    pub node_name: String,
    /// Ranges of pods and services, and the user's list.
    pub configured: Configured,
    /// The kernel.
    pub kernel: Commands,
    /// The API server's objects.
    pub watches: Watches,
    /// Notified when an object or the surroundings changed.
    pub changed: Arc<Notify>,
    /// Resolvers and protected names.
    pub surroundings: watch::Receiver<Surroundings>,
    /// Where reports go.
    pub reports: watch::Sender<NodeEgressStatus>,
    /// What is counted.
    pub metrics: AgentMetrics,
    /// Beaten while the loop turns.
    pub liveness: Liveness,
    /// Set when the kernel holds the plan for the first time.
    pub readiness: Readiness,
}

/// Why the loop can't go on.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// No netlink monitor can be had.
    #[error("the kernel's notifications can't be had")]
    Monitor(#[source] egress_netlink::Error),
    /// A watch task ended.
    #[error("a watch ended")]
    Watch(#[from] kube::runtime::reflector::store::WriterDropped),
}

/// The loop's memory. All of it can be read back: from the API server, the kernel, and a second of probing.
pub struct Reconciler {
    with: Connections,
    layout: Layout,
    epoch: Instant,
    probes: Probes,
    results: mpsc::Receiver<ProbeResult>,
    gateways: Gateways,
    selection: Selection,
    objects: Objects,
    view: Option<NodeView>,
    plan: NodePlan,
    observed: Observed,
    refused: Refused,
    retry: Duration,
}

impl Reconciler {
    /// A loop that has seen nothing yet.
    pub fn new(with: Connections) -> Self {
        // Deep enough for one second of probes of 32 gateways; a prober waits when the loop is busy.
        let (sender, results) = mpsc::channel(512);
        Self {
            with,
            layout: Layout::default(),
            epoch: Instant::now(),
            probes: Probes::new(sender),
            results,
            gateways: Gateways::default(),
            selection: Selection::new(),
            objects: Objects::default(),
            view: None,
            plan: NodePlan::default(),
            observed: Observed::default(),
            refused: Refused::default(),
            retry: RETRY.0,
        }
    }

    /// Turns until `shutdown`.
    pub async fn run(&mut self, shutdown: CancellationToken) -> Result<(), ReconcileError> {
        // Subscribe first, look then: what changes in between wakes us.
        let mut monitor = Monitor::subscribe().map_err(ReconcileError::Monitor)?;
        if !self.wait_for_stores(&shutdown).await? {
            return Ok(());
        }
        let mut beat = tokio::time::interval(BEAT);
        let mut next_pass = Instant::now();
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                Some(result) = self.results.recv() => self.on_probe(&result).await,
                () = tokio::time::sleep_until(next_pass) => next_pass = Instant::now() + self.pass().await,
                event = monitor.next() => match event {
                    Ok(event) if event.is_by(self.with.kernel.port()) => {}
                    Ok(_) => next_pass = next_pass.min(Instant::now() + SETTLE),
                    Err(error) => {
                        tracing::warn!(%error, "the monitor socket broke; subscribing anew");
                        monitor = Monitor::subscribe().map_err(ReconcileError::Monitor)?;
                        next_pass = Instant::now();
                    }
                },
                () = self.with.changed.notified() => next_pass = next_pass.min(Instant::now() + SETTLE),
                _ = beat.tick() => {
                    self.with.liveness.beat();
                    // A hold-down may have ended.
                    self.reconsider().await;
                }
            }
        }
    }

    /// Takes everything of ours out of the kernel.
    pub async fn remove_everything(&mut self) {
        self.probes.reconcile(&BTreeMap::new());
        match self.with.kernel.snapshot(self.claim()).await {
            Ok(observed) => self.observed = observed,
            Err(error) => tracing::warn!(%error, "removing what was last known"),
        }
        let list = changes(&self.observed, &KernelState::default());
        let count = list.len();
        self.apply(list).await;
        tracing::info!(removed = count, "uninstalled: nothing of ours is in the kernel");
    }

    async fn wait_for_stores(&self, shutdown: &CancellationToken) -> Result<bool, ReconcileError> {
        let mut beat = tokio::time::interval(BEAT);
        let ready = self.with.watches.ready();
        tokio::pin!(ready);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(false),
                ready = &mut ready => return Ok(ready.map(|()| true)?),
                _ = beat.tick() => self.with.liveness.beat(),
            }
        }
    }

    fn now(&self) -> Tick {
        Tick(self.epoch.elapsed())
    }

    /// Reads everything, plans, writes the difference. Returns how long the next pass may wait.
    async fn pass(&mut self) -> Duration {
        let objects = self.read_objects();
        let view = match self.look().await {
            Ok((look, observed)) => {
                self.observed = observed;
                self.see(&look, &objects)
            }
            Err(error) => {
                self.with.metrics.netlink_errors.inc();
                tracing::warn!(%error, "the kernel could not be read; it stays as it is");
                return self.back_off();
            }
        };
        let asked_anew = self.objects != objects || self.view.as_ref() != Some(&view);
        self.objects = objects;
        self.view = Some(view);
        self.replan();
        let list = changes(&self.observed, &self.plan.state);
        if !list.is_empty() {
            if !asked_anew {
                self.with.metrics.repairs.inc_by(list.len() as u64);
            }
            tracing::info!(changes = list.len(), repair = !asked_anew, "writing to the kernel");
        }
        let broken = self.apply(list).await;
        self.start_probes();
        self.publish();
        if broken || !self.refused.is_empty() {
            return self.back_off();
        }
        self.retry = RETRY.0;
        self.with.readiness.set_ready();
        FULL_COMPARISON
    }

    fn back_off(&mut self) -> Duration {
        let pause = self.retry;
        self.retry = (self.retry * 2).min(RETRY.1);
        pause
    }

    fn read_objects(&self) -> Objects {
        let routes = self.with.watches.static_routes.state();
        let gateways = self.with.watches.egress_gateways.state();
        objects::read(routes.iter().map(AsRef::as_ref), gateways.iter().map(AsRef::as_ref), &self.objects)
    }

    async fn look(&self) -> Result<(Look, Observed), egress_netlink::Error> {
        let interfaces = self.with.kernel.interfaces().await?;
        let main_routes = self.with.kernel.main_routes().await?;
        let observed = self.with.kernel.snapshot(self.claim()).await?;
        Ok((
            Look { interfaces, main_routes, surroundings: self.with.surroundings.borrow().clone() },
            observed,
        ))
    }

    fn see(&self, look: &Look, objects: &Objects) -> NodeView {
        let nodes = self.with.watches.nodes.state();
        let api_servers = self.with.watches.api_servers.state();
        let sources = Sources {
            name: &self.with.node_name,
            interfaces: &look.interfaces,
            main_routes: &look.main_routes,
            nodes: &nodes.iter().map(AsRef::as_ref).collect::<Vec<_>>(),
            api_servers: &api_servers.iter().map(AsRef::as_ref).collect::<Vec<_>>(),
            surroundings: &look.surroundings,
            objects,
            configured: &self.with.configured,
        };
        node::view(sources, self.view.as_ref())
    }

    fn claim(&self) -> Claim {
        let layout = &self.layout;
        let slots = u32::from(layout.probe_slots);
        Claim {
            tables: (layout.first_probe_table..layout.first_probe_table + slots)
                .chain([layout.table])
                .collect(),
            priorities: vec![
                layout.first_probe_priority..=layout.first_probe_priority + slots - 1,
                layout.reply_priority..=layout.reply_priority,
                layout.on_link_priority..=layout.on_link_priority,
                layout.main_priority..=layout.table_priority,
            ],
        }
    }

    /// Plans with the gateways that were chosen, and chooses anew where the plan says which can be used.
    fn replan(&mut self) {
        let Some(view) = &self.view else { return };
        self.selection.retain(|uid, _| self.objects.generations.contains_key(uid));
        self.plan = plan(&self.objects.routes, view, &self.selection, &self.observed, &self.layout);
        let probed = self.plan.probes.iter().map(|path| path.gateway).collect();
        self.gateways.retain(&probed, self.now());
        let chosen = self.choices();
        for (uid, gateway) in chosen {
            self.plan.switch(&uid, gateway, view, &self.observed);
            self.selection.insert(uid, gateway);
        }
    }

    /// The gateway that each StaticRoute should use now.
    fn choices(&self) -> Vec<(String, Ipv4Addr)> {
        let now = self.now();
        let reports = self.objects.routes.iter().zip(&self.plan.routes);
        reports
            .filter_map(|(wanted, report)| {
                let current = self.selection.get(&wanted.uid).copied().or(report.gateway);
                let gateway = if wanted.health_checked {
                    self.gateways.choose(&report.usable_gateways, current, now)?.gateway
                } else {
                    *report.usable_gateways.first()?
                };
                Some((wanted.uid.clone(), gateway))
            })
            .collect()
    }

    async fn on_probe(&mut self, result: &ProbeResult) {
        self.with.metrics.count_probe(result);
        let before: Vec<_> = self.said();
        let may_move = self.gateways.on_probe(result, self.now(), Timestamp::now());
        if may_move {
            self.reconsider().await;
        }
        if before != self.said() {
            self.publish();
        }
    }

    fn said(&self) -> Vec<(bool, Option<bool>)> {
        self.gateways.observations().map(|(_, said)| (said.reachable, said.forwards)).collect()
    }

    /// Moves every StaticRoute whose choice has changed: one nexthop message each, whatever the number of its routes.
    async fn reconsider(&mut self) {
        let Some(view) = &self.view else { return };
        let mut moves = Vec::new();
        for (uid, gateway) in self.choices() {
            let previous = self.selection.insert(uid.clone(), gateway);
            if let Some(change) = self.plan.switch(&uid, gateway, view, &self.observed) {
                tracing::warn!(uid, ?previous, %gateway, "switching to another gateway");
                self.with.metrics.failovers.inc();
                moves.push(change);
            }
        }
        if moves.is_empty() {
            return;
        }
        if self.apply(moves).await {
            // Whether it happened must be read back; the next pass does, and soon.
            self.with.changed.notify_one();
        }
        self.publish();
    }

    /// Writes changes and takes note of what came of each. True: something must be read back.
    async fn apply(&mut self, list: Vec<Change>) -> bool {
        self.refused = Refused::default();
        let mut broken = false;
        let outcomes = self.with.kernel.apply(list.clone()).await;
        for (change, outcome) in list.iter().zip(outcomes) {
            match outcome {
                Ok(_) => {
                    self.with.metrics.kernel_changes.inc();
                    self.observed.record(change);
                }
                Err(error) => {
                    self.with.metrics.netlink_errors.inc();
                    tracing::warn!(?change, %error, "the kernel did not take a change");
                    broken |= matches!(error, ChangeError::Unknown { .. });
                    self.refused.note(change, &error);
                }
            }
        }
        broken
    }

    fn start_probes(&mut self) {
        let wanted = self
            .plan
            .probes
            .iter()
            .map(|path| {
                let targets: Vec<SocketAddrV4> =
                    self.objects.probed.get(&path.gateway).into_iter().flatten().copied().collect();
                let plan =
                    ProbePlan { source: path.source, source_ports: path.source_ports.clone(), targets };
                (path.gateway, plan)
            })
            .collect();
        self.probes.reconcile(&wanted);
    }

    fn publish(&self) {
        let observations = self.gateways.observations().map(|(_, said)| said.clone()).collect();
        let status =
            report::status(&self.plan.routes, &self.objects.generations, &self.refused, observations);
        self.export(&status);
        self.with.reports.send_if_modified(|current| {
            let is_new = *current != status;
            *current = status;
            is_new
        });
    }

    fn export(&self, status: &NodeEgressStatus) {
        let metrics = &self.with.metrics;
        for state in ["Applied", "Partial", "NotApplied"] {
            let count = status.routes.iter().filter(|route| format!("{:?}", route.state) == state).count();
            metrics.static_routes.get_or_create(&StateLabels { state }).set(signed(count));
        }
        metrics.destinations.set(status.routes.iter().map(|route| i64::from(route.applied)).sum());
        metrics.gateway_reachable.clear();
        metrics.gateway_forwards.clear();
        metrics.gateway_in_use.clear();
        for (address, said) in self.gateways.observations() {
            let label = metrics::gateway(address);
            let in_use = self.plan.routes.iter().any(|route| route.gateway == Some(address));
            metrics.gateway_reachable.get_or_create(&label).set(i64::from(said.reachable));
            metrics.gateway_forwards.get_or_create(&label).set(i64::from(said.forwards == Some(true)));
            metrics.gateway_in_use.get_or_create(&label).set(i64::from(in_use));
        }
    }
}

fn signed(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// One look at the kernel.
struct Look {
    interfaces: Vec<egress_netlink::reading::Interface>,
    main_routes: Vec<egress_netlink::reading::MainRoute>,
    surroundings: Surroundings,
}
