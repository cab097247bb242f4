//! The loop: one node's whole route set, kept as it should be.
//!
//! Level-triggered. API events, netlink events and a timer only wake it; it then reads everything (stores, links, main table,
//! our own state in the kernel), plans, and writes the difference. A probe that changes a verdict takes a shorter way: the
//! StaticRoutes that must move get one nexthop message each, and nothing else is read or asked.
//!
//! - Nothing is planned before every store was filled once: "not read yet" is not "not wanted" (I6). Until then [`holding`]
//!   keeps what is there.
//! - What can't be planned stays: on a node whose VPC interface is not known guards are added, and nothing else is changed.
//! - A restart plans what is there and writes nothing (I7): ids, slots and chosen gateways are read back from the kernel.
//! - What stands at other numbers than the agent was given moves once all of it is known ([`numbers`]).
//! - A change that cuts the node off from what it lives by is taken back ([`confirming`]).
//! - When the loop ends the routes stay, unless an uninstall is confirmed.

mod agenda;
mod confirming;
mod draining;
mod holding;
mod inherited;
mod leftovers;
mod looking;
mod numbers;
mod orphaned;
mod probing;
mod retrying;
mod switching;
mod telling;
mod unknown;
mod writing;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::Duration;

use egress_api::NodeFailover;
use egress_health::Tick;
use egress_netlink::Commands;
use egress_netlink::leftover::Leftover;
use egress_netlink::monitor::{Event, Monitor};
use egress_routing::kernel_state::{NexthopId, Observed};
use egress_routing::{
    Confirmation, Layout, NodePlan, NodeView, ProtectedReason, Selection, WantedRoute, Ways, changes,
};
use egress_runtime::admin::{Liveness, Readiness};
use ipnet::Ipv4Net;
use k8s_openapi::jiff::Timestamp;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api_server::ApiServer;
use crate::boot::{self, BootWindow};
use crate::definition::Definitions;
use crate::departed::Departed;
use crate::drift::{Drift, Tally};
use crate::gateways::Gateways;
use crate::leaving::Leaving;
use crate::lifelines::Looked;
use crate::metrics::AgentMetrics;
use crate::objects::{Labels, Objects};
use crate::probe::{ProbeResult, Probes};
use crate::protected_list::ProtectedList;
use crate::report::{Refused, Report};
use crate::surroundings::{Names, Surroundings};
use crate::watches::Watches;
use agenda::Agenda;
use draining::Drain;
use inherited::Inherited;
use numbers::Numbers;
use probing::SelfTest;
use retrying::Retry;
use telling::Beside;

/// A full comparison at least that often: netlink events get lost.
const FULL_COMPARISON: Duration = Duration::from_secs(30);
const _: () = assert!(FULL_COMPARISON.as_secs() <= 30, "what nobody tells of is put right within 30 s");

/// Events that come in a burst become one pass; what comes during that pass waits for the next, which [`agenda`] spaces.
const SETTLE: Duration = Duration::from_millis(2);

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
    /// The definitions of StaticRoutes and EgressGateways.
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
    /// Set when a plan was written for the first time, as far as the kernel takes it, and the report says what came of it.
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
    self_test: SelfTest,
    last_failover: Option<NodeFailover>,
    selection: Selection,
    /// The planned moves that go on, by uid of the StaticRoute.
    drains: BTreeMap<String, Drain>,
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
    retry: Retry,
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
    /// EgressGateways that are being deleted.
    leaving: Leaving,
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
    boot_id: Option<String>,
    boot_window: BootWindow,
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
            self_test: SelfTest::new(),
            last_failover: None,
            selection: Selection::new(),
            drains: BTreeMap::new(),
            labels: None,
            objects: Objects::default(),
            view: None,
            plan: NodePlan::default(),
            observed: Observed::default(),
            refused: Refused::default(),
            beside: Beside::default(),
            written: Tally::default(),
            drift: Drift::default(),
            retry: Retry::new(),
            confirmation: Confirmation::after_start([]),
            planned_change: 0,
            in_force: None,
            api_servers: BTreeSet::new(),
            looking: false,
            looks,
            looked,
            inherited: None,
            leaving: Leaving::default(),
            departed: Departed::default(),
            definition: None,
            searched: false,
            leftovers_removed: BTreeSet::new(),
            own_names,
            list: ProtectedList::default(),
            boot_id: boot::id(),
            boot_window: BootWindow::default(),
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
            self.last_failover = answer.last_failover;
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
                Some(tested) = self.self_test.tested.recv() => self.on_test(tested),
                () = tokio::time::sleep_until(next_look) => self.begin_look(),
                () = tokio::time::sleep_until(agenda.next()) => {
                    let started = Instant::now();
                    let pause = self.pass().await;
                    agenda.done(started, Instant::now(), pause);
                    agenda.rest_until(Instant::now() + self.drift.rest(self.now()));
                }
                event = monitor.next() => self.on_event(event, &mut monitor, &mut agenda)?,
                () = self.with.changed.notified() => agenda.wake(Instant::now(), SETTLE),
                _ = beat.tick() => {
                    self.beat();
                    // The command socket may have been opened anew.
                    self.ignore_own(&mut monitor);
                    self.on_beat().await;
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
                return self.retry.back_off();
            }
        };
        let in_force = self.confirmation.in_force(&objects.routes, &view, self.now().0);
        let before = self.in_force.as_deref().unwrap_or(&self.objects.routes);
        self.confirmation.note(before, in_force.as_deref().unwrap_or(&objects.routes));
        let definition = self.definition;
        let asked_anew = self.objects != objects
            || !self
                .view
                .as_ref()
                .is_some_and(|before| before.asks_for_the_same(&view, self.drift.heard_of_links()))
            || self.numbers == Numbers::Moving
            || self.confirmation.change() != self.planned_change;
        self.drift.ask(asked_anew);
        self.objects = objects;
        self.in_force = in_force;
        self.view = Some(view);
        if let Err(error) = self.turn_back().await {
            self.with.metrics.netlink_errors.inc();
            tracing::warn!(%error, "the kernel could not be read; it stays as it is");
            return self.retry.back_off();
        }
        // With ten thousand routes a plan is large: the last one is kept only where it is needed.
        let last_plan = std::mem::take(&mut self.plan.state);
        let planned_before = self.objects.may_hold_unknown_routes().then_some(last_plan);
        let chosen = self.selection.clone();
        self.replan();
        self.drift.ask(self.selection != chosen);
        self.search_orphans();
        self.let_orphans_go();
        self.drift.ask(self.definition != definition);
        let mut list = changes(&self.observed, &self.plan.state);
        self.refused = Refused::default();
        if self.is_lost() {
            list.retain(|change| change.only_adds() || change.only_shuts());
            tracing::warn!(
                guards = list.len(),
                "no interface has this node's InternalIP; what the kernel holds stays, and what fails closed is shut"
            );
            self.apply(list).await;
            self.publish();
            self.with.readiness.set_ready();
            return self.retry.back_off();
        }
        if let Some(planned_before) = &planned_before {
            unknown::spare(&mut list, planned_before);
        }
        let repair = self.drift.is_repair();
        if !list.is_empty() {
            tracing::info!(changes = list.len(), repair, "writing to the kernel");
        }
        let taken = self.apply(list).await;
        self.drift.wrote(taken);
        self.note_look(repair);
        self.confirmation.applied(Ways::of(&self.plan.state, &self.layout), self.now().0);
        self.planned_change = self.confirmation.change();
        self.start_probes();
        self.publish();
        // What the kernel refused is told in the report, and must hold up no rollout.
        self.with.readiness.set_ready();
        if !taken {
            return self.retry.back_off();
        }
        self.close_boot_window();
        self.remove_leftovers(&main_routes).await;
        self.move_numbers();
        self.retry.is_over();
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
        let Observed { rules, routes, nexthops, .. } = &self.observed;
        self.boot_window.look(!(rules.is_empty() && routes.is_empty() && nexthops.is_empty()));
        let inherited = Inherited::read(&self.observed);
        self.confirmation = Confirmation::after_start(inherited.addresses().iter().map(Ipv4Net::addr));
        self.inherited = Some(inherited);
    }

    /// The kernel took a plan: the first of this boot ends the time in which nothing held routed packets back.
    fn close_boot_window(&mut self) {
        let routed = self.plan.routes.iter().filter(|report| report.nexthop.is_some());
        let routed: BTreeSet<&str> = routed.map(|report| report.uid.as_str()).collect();
        let routed = self.objects.routes.iter().filter(|route| routed.contains(route.uid.as_str()));
        let created = routed.map(|route| route.created);
        if let Some(open) = self.boot_window.close(created, boot::uptime(), Timestamp::now()) {
            tracing::info!(
                seconds = open.as_secs_f64(),
                "first plan of this boot; until now routed packets left with the node's address"
            );
            self.with.metrics.unguarded.set(open.as_secs_f64());
        }
    }
}
