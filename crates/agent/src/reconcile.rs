//! The loop: one node's whole route set, kept as it should be.
//!
//! Level-triggered. API events, netlink events and a timer only wake it; it then reads everything (stores, links, main table,
//! our own state in the kernel), plans, and writes the difference. A probe that changes a verdict takes a shorter way: the
//! StaticRoutes that must move get one nexthop message each, and nothing else is read or asked.
//!
//! - Nothing is planned before every store was filled once: "not read yet" is not "not wanted" (I6). Until then [`holding`]
//!   keeps what is there.
//! - What can't be planned stays: a node whose VPC interface is not known is left as it is.
//! - A restart plans what is there and writes nothing (I7): ids, slots and chosen gateways are read back from the kernel.
//! - What stands at other numbers than the agent was given moves once all of it is known ([`numbers`]).
//! - A change that cuts the node off from what it lives by is taken back ([`confirming`]).
//! - When the loop ends the routes stay, unless an uninstall is confirmed.

mod agenda;
mod confirming;
mod holding;
mod inherited;
mod leftovers;
mod numbers;
mod orphaned;
mod switching;
mod trouble;
mod unknown;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::Duration;

use egress_health::Tick;
use egress_netlink::Commands;
use egress_netlink::leftover::Leftover;
use egress_netlink::monitor::{Event, Monitor};
use egress_netlink::ownership::Claim;
use egress_routing::clash::{SeenRule, has_routing_agent};
use egress_routing::kernel_state::{Change, KernelState, NexthopId, Observed, RouteKey};
use egress_routing::{
    Confirmation, GatewaySlot, Layout, NodePlan, NodeView, ProtectedReason, Selection, ServedPort,
    WantedRoute, Ways, changes, diff,
};
use egress_runtime::admin::{Liveness, Readiness};
use ipnet::Ipv4Net;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::reflector::ObjectRef;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api_server::ApiServer;
use crate::definition::Definitions;
use crate::departed::Departed;
use crate::drift::{Drift, Tally};
use crate::gateways::Gateways;
use crate::inbound;
use crate::lifelines::Looked;
use crate::metrics::AgentMetrics;
use crate::neighbours;
use crate::node::{self, Sources};
use crate::objects::{self, Labels, Objects};
use crate::probe::{ProbePlan, ProbeResult, Probes};
use crate::protected_list::ProtectedList;
use crate::report::{self, Refused, Report};
use crate::surroundings::{Names, Surroundings};
use crate::watches::Watches;
use agenda::Agenda;
use inherited::Inherited;
use numbers::Numbers;
use trouble::Beside;

/// A full comparison at least that often: netlink events get lost.
const FULL_COMPARISON: Duration = Duration::from_secs(30);

/// Events that come in a burst become one pass; what comes during that pass waits for the next, which [`agenda`] spaces.
const SETTLE: Duration = Duration::from_millis(2);

/// Pause before the next try when the kernel refused something, doubling up to the longest.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// How often an uninstall looks whether everything is gone; the last look only tells.
const REMOVALS: usize = 4;

/// The loop beats its heart at least that often.
const BEAT: Duration = Duration::from_secs(1);

/// Ranges that are protected whatever the node says.
pub type Configured = Vec<(Ipv4Net, ProtectedReason)>;

/// What the loop is connected to.
pub struct Connections {
    /// Name of this node.
    pub node_name: String,
    /// Where our state shall live in the kernel.
    pub layout: Layout,
    /// Ranges of pods and services, and the user's list.
    pub configured: Configured,
    /// Whether the older operator's routes go once ours are in force.
    pub remove_leftovers: bool,
    /// The kernel.
    pub kernel: Commands,
    /// The API server's objects.
    pub watches: Watches,
    /// Host and port of the API server, as the client has them.
    pub server: Option<(String, u16)>,
    /// The definition of StaticRoutes.
    pub definitions: Definitions,
    /// Notified when an object or the surroundings changed.
    pub changed: Arc<Notify>,
    /// Where the API server is.
    pub api_server: ApiServer,
    /// Names to be looked for.
    pub names: watch::Sender<Names>,
    /// What the node needs to live.
    pub surroundings: watch::Receiver<Surroundings>,
    /// Where reports go.
    pub reports: watch::Sender<Report>,
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
    /// Where our state lives in the kernel now; see [`numbers`].
    layout: Layout,
    numbers: Numbers,
    epoch: Instant,
    probes: Probes,
    results: mpsc::Receiver<ProbeResult>,
    gateways: Gateways,
    selection: Selection,
    labels: Option<Labels>,
    objects: Objects,
    view: Option<NodeView>,
    plan: NodePlan,
    observed: Observed,
    refused: Refused,
    beside: Beside,
    /// What the kernel took of the last list of changes.
    written: Tally,
    drift: Drift,
    retry: Duration,
    confirmation: Confirmation,
    /// The change that was planned last.
    planned_change: u64,
    /// The objects as they are planned, where that is not as they are.
    in_force: Option<Vec<WantedRoute>>,
    /// Addresses of the API server's host.
    api_servers: BTreeSet<SocketAddrV4>,
    looking: bool,
    looks: mpsc::Sender<Looked>,
    looked: mpsc::Receiver<Looked>,
    /// Addresses that the kernel kept from every gateway when this agent started; `None` before the first look.
    inherited: Option<Inherited>,
    /// StaticRoutes that are gone and still routed.
    departed: Departed,
    /// Record of the definition under which the StaticRoutes were made; `None` before it is known that none is orphaned.
    definition: Option<NexthopId>,
    /// Whether the kernel was searched for orphans of the time before this agent.
    searched: bool,
    /// Routes of the older operator that were taken away: what comes back is somebody's, who would be fought with.
    leftovers_removed: BTreeSet<Leftover>,
    /// Names that are protected whatever the user's list says.
    own_names: BTreeSet<String>,
    list: ProtectedList,
}

impl Reconciler {
    /// A loop that has seen nothing yet.
    pub fn new(with: Connections) -> Self {
        // Deep enough for one second of probes of 32 gateways; a prober waits when the loop is busy.
        let (sender, results) = mpsc::channel(512);
        let own_names = with.names.borrow().protected.clone();
        // One look at a time.
        let (looks, looked) = mpsc::channel(1);
        Self {
            layout: with.layout.clone(),
            numbers: Numbers::Unread,
            with,
            epoch: Instant::now(),
            probes: Probes::new(sender),
            results,
            gateways: Gateways::default(),
            selection: Selection::new(),
            labels: None,
            objects: Objects::default(),
            view: None,
            plan: NodePlan::default(),
            observed: Observed::default(),
            refused: Refused::default(),
            beside: Beside::default(),
            written: Tally::default(),
            drift: Drift::default(),
            retry: RETRY.0,
            confirmation: Confirmation::after_start([]),
            planned_change: 0,
            in_force: None,
            api_servers: BTreeSet::new(),
            looking: false,
            looks,
            looked,
            inherited: None,
            departed: Departed::default(),
            definition: None,
            searched: false,
            leftovers_removed: BTreeSet::new(),
            own_names,
            list: ProtectedList::default(),
        }
    }

    /// Turns until `shutdown`.
    pub async fn run(&mut self, shutdown: CancellationToken) -> Result<(), ReconcileError> {
        // Subscribe first, look then: what changes in between wakes us.
        let mut monitor = self.subscribe()?;
        if !self.hold(&mut monitor, &shutdown).await? {
            return Ok(());
        }
        if let Some(answer) = self.with.definitions.answer() {
            self.gateways.remember(&answer.gateways, self.now());
        }
        let mut beat = tokio::time::interval(BEAT);
        let mut agenda = Agenda::at(Instant::now());
        loop {
            let next_look = self.next_look();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                Some(result) = self.results.recv() => self.on_probe(&result).await,
                Some(looked) = self.looked.recv() => self.on_look(looked, &mut agenda),
                () = tokio::time::sleep_until(next_look) => self.begin_look(),
                () = tokio::time::sleep_until(agenda.next()) => {
                    let started = Instant::now();
                    let pause = self.pass().await;
                    agenda.done(started, Instant::now(), pause);
                    agenda.rest_until(Instant::now() + self.drift.rest());
                }
                event = monitor.next() => self.on_event(event, &mut monitor, &mut agenda)?,
                () = self.with.changed.notified() => agenda.wake(Instant::now(), SETTLE),
                _ = beat.tick() => {
                    self.beat();
                    // The command socket may have been opened anew.
                    self.ignore_own(&mut monitor);
                    // A hold-down may have ended.
                    self.reconsider().await;
                }
            }
        }
    }

    /// A loop that turns without ever reaching the kernel is as good as one that stands still.
    fn beat(&self) {
        if self.with.kernel.is_answering() {
            self.with.liveness.beat();
        }
    }

    fn subscribe(&self) -> Result<Monitor, ReconcileError> {
        let mut monitor = Monitor::subscribe().map_err(ReconcileError::Monitor)?;
        self.ignore_own(&mut monitor);
        Ok(monitor)
    }

    /// What we write ourselves wakes nobody, and need not come all the way to be left aside.
    fn ignore_own(&self, monitor: &mut Monitor) {
        if let Err(error) = monitor.ignore(self.with.kernel.port()) {
            tracing::debug!(%error, "our own changes are left aside one by one");
        }
    }

    fn on_event(
        &mut self,
        event: Result<Event, egress_netlink::Error>,
        monitor: &mut Monitor,
        agenda: &mut Agenda,
    ) -> Result<(), ReconcileError> {
        match event {
            Ok(event) if event.is_by(self.with.kernel.port()) => {}
            Ok(event) => {
                self.drift.heard(&event);
                // With the link its nexthops may be gone, and what was routed there leaves with the node's own address.
                agenda.wake(Instant::now(), if event == Event::Link { Duration::ZERO } else { SETTLE });
            }
            Err(error) => {
                tracing::warn!(%error, "the monitor socket broke; subscribing anew");
                *monitor = self.subscribe()?;
                agenda.wake(Instant::now(), Duration::ZERO);
            }
        }
        Ok(())
    }

    /// Takes everything of ours out of the kernel.
    pub async fn remove_everything(&mut self) {
        self.probes.reconcile(&BTreeMap::new());
        for _ in 0..REMOVALS {
            match self.with.kernel.snapshot(self.claim()).await {
                Ok(observed) => self.observed = observed,
                Err(error) => tracing::warn!(%error, "removing what was last known"),
            }
            let list = changes(&self.observed, &KernelState::default());
            if list.is_empty() {
                tracing::info!("uninstalled: nothing of ours is in the kernel");
                return;
            }
            tracing::info!(removing = list.len(), "being uninstalled");
            self.apply(list).await;
        }
        tracing::error!("uninstalled, and not everything of ours could be taken out of the kernel");
    }

    fn now(&self) -> Tick {
        Tick(self.epoch.elapsed())
    }

    /// Reads everything, plans, writes the difference. Returns how long the next pass may wait.
    async fn pass(&mut self) -> Duration {
        self.read_labels();
        self.read_protected_list();
        let mut objects = self.read_objects();
        let (view, main_routes) = match self.look().await {
            Ok((look, observed)) => {
                self.observed = observed;
                self.inherit();
                let slices = self.with.watches.api_servers.state();
                self.with.api_server.see(slices.iter().map(AsRef::as_ref), std::time::Instant::now());
                objects.recover(&self.observed, &self.layout);
                let mut view = self.see(&look, &objects);
                if let Some(inherited) = &mut self.inherited {
                    let known = !look.surroundings.is_incomplete() && view.uncertain.is_none();
                    inherited.settle(known, &objects, &mut view.protected, std::time::Instant::now());
                }
                self.beside = Beside::look(look.rules, look.interfaces, &view, &self.layout);
                (view, look.main_routes)
            }
            Err(error) => {
                self.with.metrics.netlink_errors.inc();
                tracing::warn!(%error, "the kernel could not be read; it stays as it is");
                return self.back_off();
            }
        };
        let in_force = self.confirmation.in_force(&objects.routes, &view, self.now().0);
        let before = self.in_force.as_deref().unwrap_or(&self.objects.routes);
        self.confirmation.note(before, in_force.as_deref().unwrap_or(&objects.routes));
        let definition = self.definition;
        let mut asked_anew = self.objects != objects
            || !self.view.as_ref().is_some_and(|before| before.asks_for_the_same(&view))
            || self.numbers == Numbers::Moving
            || self.confirmation.change() != self.planned_change;
        self.objects = objects;
        self.in_force = in_force;
        self.view = Some(view);
        // With ten thousand routes a plan is large: the last one is kept only where it is needed.
        let last_plan = std::mem::take(&mut self.plan.state);
        let planned_before = self.objects.may_hold_unknown_routes().then_some(last_plan);
        let chosen = self.selection.clone();
        self.replan();
        asked_anew |= self.selection != chosen;
        if let Err(error) = self.search_orphans() {
            tracing::warn!(%error, "the kernel stays as it is");
            return self.back_off();
        }
        self.let_orphans_go();
        asked_anew |= self.definition != definition;
        if self.is_lost() {
            tracing::warn!("no interface has this node's InternalIP; the kernel stays as it is");
            self.publish();
            return self.back_off();
        }
        let mut list = changes(&self.observed, &self.plan.state);
        if let Some(planned_before) = &planned_before {
            unknown::spare(&mut list, planned_before);
        }
        if !list.is_empty() {
            tracing::info!(changes = list.len(), repair = !asked_anew, "writing to the kernel");
        }
        self.refused = Refused::default();
        let taken = self.apply(list).await;
        self.note_look(!asked_anew);
        self.confirmation.applied(Ways::of(&self.plan.state, &self.layout), self.now().0);
        self.planned_change = self.confirmation.change();
        self.start_probes();
        self.publish();
        if !taken {
            return self.back_off();
        }
        self.remove_leftovers(&main_routes).await;
        self.move_numbers();
        self.retry = RETRY.0;
        self.with.readiness.set_ready();
        FULL_COMPARISON
    }

    /// A look is over; what was written is a repair where nobody had asked for anything new.
    fn note_look(&mut self, repair: bool) {
        let repaired = if repair { std::mem::take(&mut self.written) } else { Tally::default() };
        self.with.metrics.repairs.inc_by(repaired.count().into());
        self.drift.looked(&repaired, self.now(), Timestamp::now());
    }

    /// Whether there is something to route and nobody knows where. An empty plan would then take away what works.
    fn is_lost(&self) -> bool {
        self.view.as_ref().is_some_and(|view| view.vpc.is_none()) && !self.objects.routes.is_empty()
    }

    /// On the first look: which single addresses does our table pass over?
    fn inherit(&mut self) {
        if self.inherited.is_some() {
            return;
        }
        let inherited = Inherited::read(&self.observed);
        self.confirmation = Confirmation::after_start(inherited.addresses().iter().map(Ipv4Net::addr));
        self.inherited = Some(inherited);
    }

    fn back_off(&mut self) -> Duration {
        let pause = self.retry;
        self.retry = (self.retry * 2).min(RETRY.1);
        pause
    }

    /// While the API server has no Node of this name (it is being made anew), the last labels count on.
    fn read_labels(&mut self) {
        let node = self.with.watches.nodes.get(&ObjectRef::new(&self.with.node_name));
        if let Some(node) = node {
            self.labels = Some(node.metadata.labels.clone().unwrap_or_default());
        }
    }

    fn read_objects(&mut self) -> Objects {
        let routes = self.with.watches.static_routes.state();
        let gateways = self.with.watches.egress_gateways.state();
        let mut objects = objects::read(
            routes.iter().map(AsRef::as_ref),
            gateways.iter().map(AsRef::as_ref),
            self.labels.as_ref(),
            &self.objects,
        );
        self.keep_departed(&mut objects);
        objects
    }

    /// Reads the user's list, and has its names looked up.
    fn read_protected_list(&mut self) {
        let object = self.with.watches.protected_list.as_ref().and_then(|store| store.state().pop());
        self.list = ProtectedList::read(object.as_deref());
        let wanted: BTreeSet<String> = self.own_names.union(&self.list.names).cloned().collect();
        self.with.names.send_if_modified(|names| {
            let is_new = names.protected != wanted;
            names.protected = wanted;
            is_new
        });
    }

    /// Ranges that are protected because somebody says so, and those of Services.
    fn configured(&self) -> Configured {
        let services = self.with.watches.service_ranges.state();
        let services = services
            .iter()
            .filter_map(|range| range.spec.as_ref())
            .flat_map(|spec| spec.cidrs.iter().flatten());
        let services =
            services.filter_map(|text| text.parse().ok()).map(|range| (range, ProtectedReason::Services));
        let listed = self.list.ranges.iter().map(|range| (*range, ProtectedReason::UserList));
        self.with.configured.iter().copied().chain(services).chain(listed).collect()
    }

    async fn look(&mut self) -> Result<(Look, Observed), egress_netlink::Error> {
        let interfaces = self.with.kernel.interfaces().await?;
        let main_routes = self.with.kernel.main_routes().await?;
        let rules = neighbours::seen_rules(self.with.kernel.rules().await?);
        let observed = self.snapshot().await?;
        Ok((
            Look { interfaces, main_routes, rules, surroundings: self.with.surroundings.borrow().clone() },
            observed,
        ))
    }

    fn see(&self, look: &Look, objects: &Objects) -> NodeView {
        let nodes = self.with.watches.nodes.state();
        let names = self.with.names.borrow();
        let sources = Sources {
            name: &self.with.node_name,
            interfaces: &look.interfaces,
            main_routes: &look.main_routes,
            nodes: &nodes.iter().map(AsRef::as_ref).collect::<Vec<_>>(),
            api_server: &self.with.api_server,
            surroundings: &look.surroundings,
            protected_names: &names.protected,
            own_names: &self.own_names,
            objects,
            configured: &self.configured(),
            inherited: self.inherited.as_ref().map(Inherited::addresses),
        };
        let mut view = node::view(sources, self.view.as_ref());
        let vpc = view.vpc.as_ref().map(|vpc| vpc.subnet);
        view.main_origins = neighbours::origins(&look.main_routes, vpc, has_routing_agent(&look.rules));
        view.served = self.served(&view);
        view
    }

    fn served(&self, view: &NodeView) -> BTreeSet<ServedPort> {
        let stores = &self.with.watches.inbound;
        let (pods, services, slices) = (stores.pods.state(), stores.services.state(), stores.slices.state());
        inbound::served_ports(
            pods.iter().map(AsRef::as_ref),
            services.iter().map(AsRef::as_ref),
            slices.iter().map(AsRef::as_ref),
            view,
        )
    }

    fn claim(&self) -> Claim {
        let layout = &self.layout;
        let probe_tables = (0..layout.probe_slots).map(|slot| layout.probe_table(GatewaySlot(slot)));
        Claim {
            tables: probe_tables.chain([layout.table]).collect(),
            priorities: vec![layout.priorities()],
            nexthops: layout.nexthops(),
        }
    }

    /// Writes changes and takes note of what came of each. False: not all of them are known to be in the kernel.
    async fn apply(&mut self, mut list: Vec<Change>) -> bool {
        self.written = Tally::default();
        let rest = list.split_off(diff::before_opening(&list));
        let untaken = self.send(list).await;
        // What must stay out of a range is in the kernel before the range is, or the range waits.
        let missing: Vec<RouteKey> = untaken.iter().filter_map(diff::exception).collect();
        let (withheld, rest): (Vec<_>, Vec<_>) =
            rest.into_iter().partition(|change| diff::opens(change, &missing));
        for change in &withheld {
            self.refused.note(change, &"what must stay out of it could not be written first");
        }
        let later = self.send(rest).await;
        untaken.is_empty() && withheld.is_empty() && later.is_empty()
    }

    /// The changes that the kernel did not take.
    async fn send(&mut self, list: Vec<Change>) -> Vec<Change> {
        let mut untaken = Vec::new();
        if list.is_empty() {
            return untaken;
        }
        let list = Arc::new(list);
        let outcomes = self.with.kernel.apply(Arc::clone(&list)).await;
        for (change, outcome) in list.iter().zip(outcomes) {
            match outcome {
                Ok(_) => {
                    self.with.metrics.kernel_changes.inc();
                    self.written.add(change);
                    self.observed.record(change);
                    self.refused.settle(change);
                }
                Err(error) => {
                    untaken.push(change.clone());
                    self.with.metrics.netlink_errors.inc();
                    tracing::warn!(?change, %error, "the kernel did not take a change");
                    self.refused.note(change, &error);
                }
            }
        }
        untaken
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

    fn publish(&mut self) {
        let observations = self.gateways.observations().map(|(_, said)| said.clone()).collect();
        let mut status = report::status(&self.plan.routes, &self.objects, &self.refused, observations);
        let drift = self.drift.told(self.now()).clone();
        status.repairs = drift.repairs;
        self.with.metrics.export(&status, &self.plan.routes);
        let concerns = self.concerns().into_iter().chain(drift.concern).collect();
        let report = Report { status, concerns };
        self.with.reports.send_if_modified(|current| {
            let is_new = *current != report;
            *current = report;
            is_new
        });
    }
}

/// One look at the kernel.
struct Look {
    interfaces: Vec<egress_netlink::reading::Interface>,
    main_routes: Vec<egress_netlink::reading::MainRoute>,
    rules: Vec<SeenRule>,
    surroundings: Surroundings,
}
