//! What the loop does about probes: which run, what their outcomes change, and the node's test of itself.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use egress_api::NodeFailover;
use egress_health::{Outcome, Tick};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Reconciler;
use crate::cluster_node::INTERNAL;
use crate::pacing;
use crate::probe::{ProbeResult, askings};
use crate::self_test::{self, PAUSE, known_neighbours};

/// The node's test of itself, which runs only while no gateway answers. One at a time.
#[derive(Debug)]
pub(super) struct SelfTest {
    runs: bool,
    /// Not before that.
    next: Instant,
    done: mpsc::Sender<Vec<Outcome>>,
    pub(super) tested: mpsc::Receiver<Vec<Outcome>>,
}

impl SelfTest {
    pub(super) fn new() -> Self {
        let (done, tested) = mpsc::channel(1);
        Self { runs: false, next: Instant::now(), done, tested }
    }

    /// Begins one if it is time.
    fn begin(&mut self, source: Ipv4Addr, neighbours: impl FnOnce() -> BTreeSet<Ipv4Addr>) {
        let now = Instant::now();
        if self.runs || now < self.next {
            return;
        }
        self.runs = true;
        self.next = now + PAUSE;
        let (neighbours, done) = (neighbours(), self.done.clone());
        tokio::spawn(async move {
            // Nobody waits any more when the loop has ended.
            let _ended = done.send(self_test::test(source, &neighbours).await).await;
        });
    }
}

impl Reconciler {
    /// Asks through these paths, at the rate that this cluster's size allows.
    pub(super) fn start_probes(&mut self) {
        self.probes.share_among(self.nodes());
        self.probes.reconcile(askings(&self.plan.probes, &self.objects.probed));
        self.probes.judge(self.gateways.judged());
    }

    /// How many nodes the cluster has; this one is there in any case.
    fn nodes(&self) -> usize {
        self.with.watches.nodes.state().len().max(1)
    }

    /// When something was, in the time of the verdicts.
    pub(super) fn tick(&self, time: Instant) -> Tick {
        Tick(time.saturating_duration_since(self.epoch))
    }

    pub(super) async fn on_probe(&mut self, result: &ProbeResult) {
        self.with.metrics.count_probe(result);
        let sent = self.tick(result.sent);
        let noticed = self.gateways.on_probe(result, sent, self.now(), Timestamp::now());
        if noticed.level {
            self.probes.judge(self.gateways.judged());
        }
        if noticed.may_move {
            self.reconsider().await;
        }
        if noticed.fell {
            let interface = self.view.as_ref().and_then(|view| Some(view.vpc.as_ref()?.index));
            self.ask_anew(interface, result.gateway).await;
            self.test_itself();
        }
        if noticed.words {
            self.publish();
        }
    }

    /// The address may have come back on another machine, and the kernel would believe its old Ethernet address for long.
    pub(super) async fn ask_anew(&self, interface: Option<u32>, gateway: Ipv4Addr) {
        let Some(interface) = interface else { return };
        match self.with.kernel.forget_neighbour(interface, gateway).await {
            Ok(forgotten) => tracing::debug!(%gateway, forgotten, "its Ethernet address will be asked anew"),
            Err(error) => tracing::debug!(%gateway, %error, "its Ethernet address could not be forgotten"),
        }
    }

    /// While no gateway answers: asks neighbours in the VPC whether it is this node that is cut off.
    pub(super) fn test_itself(&mut self) {
        let Some(vpc) = self.view.as_ref().and_then(|view| view.vpc.clone()) else { return };
        if !self.gateways.all_silent() {
            return;
        }
        let nodes = self.with.watches.nodes.state();
        let others = nodes.iter().flat_map(|node| node.addresses(&[INTERNAL]));
        let link = self.beside.link(vpc.index).unwrap_or_default();
        let gateways: BTreeSet<Ipv4Addr> = self.plan.probes.iter().map(|path| path.gateway).collect();
        self.self_test.begin(vpc.address, || {
            let known = known_neighbours(link).into_iter().chain(others);
            known.filter(|address| *address != vpc.address && !gateways.contains(address)).collect()
        });
    }

    pub(super) fn on_test(&mut self, outcomes: Vec<Outcome>) {
        self.self_test.runs = false;
        self.with.metrics.count_test(&outcomes);
        if self.gateways.on_test(outcomes) {
            if self.gateways.is_cut_off() {
                tracing::warn!(
                    "neither a gateway nor a neighbour in the VPC answers: this node is cut off, and holds"
                );
            } else {
                tracing::info!("this node is not cut off");
            }
            self.publish();
        }
    }

    /// What a second brings: a hold-down or a planned move may have ended, a verdict may have to be said anew.
    pub(super) async fn on_beat(&mut self) {
        self.look_at_drains().await;
        self.reconsider().await;
        self.test_itself();
        let place = pacing::place(&self.with.node_name);
        if self.gateways.renew(self.nodes(), place, self.now(), Timestamp::now()) {
            self.publish();
        }
    }

    /// On what a StaticRoute leaves `from` for `to`; `None` where nothing is wrong with `from`.
    pub(super) fn failover(&self, uid: &str, from: Ipv4Addr, to: Ipv4Addr) -> Option<(NodeFailover, Tick)> {
        let evidence = self.gateways.evidence(from, to)?;
        let name = self.plan.routes.iter().find(|route| route.uid == uid).map(|route| route.name.clone());
        let failover = NodeFailover {
            time: Time(Timestamp::now()),
            static_route: name.unwrap_or_default(),
            from: from.to_string(),
            to: to.to_string(),
            reason: evidence.fault.reason().to_owned(),
            seconds: 0.0,
            evidence: evidence.to_string(),
        };
        Some((failover, evidence.since))
    }
}
