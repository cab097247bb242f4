//! The time before every store was filled once: an agent that was started while the API server is away.
//!
//! What StaticRoutes want is not known then, so nothing is planned. What the kernel holds of ours is kept as it was found,
//! and a StaticRoute whose gateway died is moved within its own list, which the kernel holds too (`docs/decisions/0006`).
//! Nobody is moved for any other reason: order and return are decided again when the objects are there.
//! What the node lives by is looked at too: an agent that was killed while it tried a change may have left one that cuts the
//! node off from the very API server that it waits for.

use std::collections::{BTreeMap, BTreeSet};

use egress_health::selection::Why;
use egress_netlink::monitor::Monitor;
use egress_routing::{Chosen, OnNoGateway, Recovered, changes};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Agenda, BEAT, FULL_COMPARISON, ReconcileError, Reconciler, Retry, SETTLE};
use crate::leaving::Leaving;
use crate::probe::{ProbeResult, askings};

/// How long the stores may take before the kernel's word is taken. An API server that answers fills them in less, and its
/// word is the newer one.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(2);

impl Reconciler {
    /// Keeps what is there until the stores are filled. False: told to end before that.
    pub(super) async fn hold(
        &mut self,
        monitor: &mut Monitor,
        shutdown: &CancellationToken,
    ) -> Result<bool, ReconcileError> {
        let mut beat = tokio::time::interval(BEAT);
        let filled = self.with.watches.ready();
        let gateways = self.with.watches.egress_gateways.clone();
        let definitions = self.with.definitions.clone();
        let ready = async move {
            filled.await?;
            // With the answer at hand no pass takes one that leaves for one that stays.
            let mut leaving = Leaving::default();
            leaving.judge(gateways.state(), None, || definitions.ask());
            definitions.known().await;
            Ok::<_, ReconcileError>(leaving)
        };
        tokio::pin!(ready);
        let mut held = None;
        let mut agenda = Agenda::at(Instant::now() + PATIENCE);
        loop {
            let next_look = self.next_look();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(false),
                ready = &mut ready => {
                    self.leaving = ready?;
                    return Ok(true);
                }
                Some(result) = self.results.recv() => {
                    if let Some(held) = &mut held
                        && !self.on_held_probe(held, &result).await
                    {
                        agenda.wake(Instant::now(), SETTLE);
                    }
                }
                Some(looked) = self.looked.recv() => {
                    if let Some(held) = &mut held
                        && self.on_held_look(looked, held)
                    {
                        agenda.wake_at_once(Instant::now());
                    }
                }
                () = tokio::time::sleep_until(next_look), if held.is_some() => self.begin_look(),
                () = tokio::time::sleep_until(agenda.next()) => {
                    let started = Instant::now();
                    let pause = if self.keep(&mut held).await { FULL_COMPARISON } else { Retry::new().back_off() };
                    agenda.done(started, Instant::now(), pause);
                    agenda.rest_until(Instant::now() + self.drift.rest(self.now()));
                }
                event = monitor.next(), if held.is_some() => self.on_event(event, monitor, &mut agenda)?,
                _ = beat.tick() => {
                    self.beat();
                    // A hold-down may have ended.
                    if let Some(held) = &mut held
                        && !self.reconsider_held(held).await
                    {
                        agenda.wake(Instant::now(), SETTLE);
                    }
                }
            }
        }
    }

    /// Reads the kernel, the first time to learn what is to be kept, and puts back what is missing. False: try again soon.
    async fn keep(&mut self, held: &mut Option<Recovered>) -> bool {
        let (interfaces, observed) = match (self.with.kernel.interfaces().await, self.snapshot().await) {
            (Ok(interfaces), Ok(observed)) => (interfaces, observed),
            (Err(error), _) | (_, Err(error)) => {
                self.with.metrics.netlink_errors.inc();
                tracing::warn!(%error, "the kernel could not be read; it stays as it is");
                return false;
            }
        };
        self.observed = observed;
        self.inherit();
        let Some(held) = held else {
            let recovered = Recovered::read(&self.observed, &self.layout);
            self.confirmation.applied(self.held_ways(&recovered), self.now().0);
            tracing::warn!(
                static_routes = recovered.routes.len(),
                gateways = recovered.probes.len(),
                "the API server does not answer; keeping what the kernel holds, and leaving gateways that die"
            );
            self.probe_held(&recovered);
            *held = Some(recovered);
            return true;
        };
        let is_up = |index| interfaces.iter().any(|link| link.index == index && link.up && link.running);
        let list = changes(&self.observed, &held.state(&self.layout, is_up));
        if !list.is_empty() {
            tracing::info!(changes = list.len(), "putting back what was taken away");
        }
        let taken = self.apply(list).await;
        self.note_look(true);
        taken
    }

    /// Only whether a gateway answers: where its targets are is not known.
    fn probe_held(&mut self, held: &Recovered) {
        self.probes.reconcile(askings(&held.probes, &BTreeMap::new()));
        let probed = held.probes.iter().map(|path| path.gateway).collect();
        self.gateways.retain(&probed, &BTreeMap::new(), self.now());
    }

    /// False: the kernel did not take a move.
    async fn on_held_probe(&mut self, held: &mut Recovered, result: &ProbeResult) -> bool {
        self.with.metrics.count_probe(result);
        let (sent, time) = (self.tick(result.sent), k8s_openapi::jiff::Timestamp::now());
        let noticed = self.gateways.on_probe(result, sent, self.now(), time);
        let taken = !noticed.may_move || self.reconsider_held(held).await;
        if noticed.fell {
            let interface = held.interface_of(result.gateway);
            self.ask_anew(interface, result.gateway).await;
        }
        taken
    }

    /// Leaves gateways that are dead, and where several share the traffic, takes back those that work. False: the kernel did
    /// not take a move.
    async fn reconsider_held(&mut self, held: &mut Recovered) -> bool {
        let now = self.now();
        let mut moves = Vec::new();
        for index in 0..held.routes.len() {
            let route = &held.routes[index];
            let listed: Vec<_> = route.gateways.iter().map(|gateway| gateway.address).collect();
            let none_works =
                route.on_no_gateway != OnNoGateway::KeepLast && self.gateways.none_works(&listed);
            let gateways = if none_works {
                route.current.clone()
            } else if route.current.is_empty() {
                // Shut, opened, or left so by a link that was down: until one is known to work.
                let mut working = listed.iter().copied().filter(|gateway| self.gateways.works(*gateway, now));
                if route.shared { working.collect() } else { working.next().into_iter().collect() }
            } else if route.shared {
                let next = self.gateways.share(&listed, &route.current, now);
                let stay: BTreeSet<_> = next.intersection(&route.current).copied().collect();
                // A planned move goes on between its two gateways; nobody else joins.
                if route.draining && !stay.is_empty() { stay } else { next }
            } else {
                match self.gateways.choose(&listed, route.current.first().copied(), now) {
                    Some(choice) if choice.why == Why::CurrentDown => [choice.gateway].into(),
                    _ => continue,
                }
            };
            if gateways == route.current && (!none_works || gateways.is_empty()) {
                continue;
            }
            let next = Chosen { gateways, none_works, draining: None };
            let (nexthop, from) = (route.nexthop, route.current.clone());
            if let Some(change) = held.switch(index, &next, &self.observed, &self.layout) {
                tracing::warn!(%nexthop, ?from, to = ?next, "switching to other gateways");
                self.with.metrics.failovers.inc();
                moves.push(change);
            }
        }
        moves.is_empty() || self.apply(moves).await
    }
}
