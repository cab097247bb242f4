//! Which gateways each StaticRoute uses, and the short way from a probe to the kernel.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use egress_routing::{Chosen, Draining, plan};
use k8s_openapi::jiff::Timestamp;

use super::Reconciler;
use crate::probe::ProbeResult;

impl Reconciler {
    /// Plans with the gateways that were chosen, and chooses anew where the plan says which can be used.
    pub(super) fn replan(&mut self) {
        let Some(view) = self.view_in_force().map(Cow::into_owned) else { return };
        self.selection.retain(|uid, _| self.objects.generations.contains_key(uid));
        self.plan = plan(self.routes_in_force(), &view, &self.selection, &self.observed, &self.layout);
        let probed = self.plan.probes.iter().map(|path| path.gateway).collect();
        self.gateways.retain(&probed, self.now());
        let mut behind = false;
        for (uid, chosen) in self.choices() {
            self.plan.switch(&uid, &chosen, &view, &self.observed, &self.layout);
            behind |= self.plan.is_behind(&uid, &chosen, &self.layout);
            self.select(uid, chosen);
        }
        if behind {
            self.plan = plan(self.routes_in_force(), &view, &self.selection, &self.observed, &self.layout);
        }
        for report in &mut self.plan.routes {
            if let Some(rolled_back) = self.confirmation.rolled_back().get(&report.uid) {
                rolled_back.mark(report);
            }
        }
        self.record_definition();
    }

    /// What each StaticRoute should use now, where that is something else than the last choice or the plan.
    fn choices(&self) -> Vec<(String, Chosen)> {
        let now = self.now();
        let reports = self.routes_in_force().iter().zip(&self.plan.routes);
        reports
            .filter_map(|(wanted, report)| {
                let selected = self.selection.get(&wanted.uid);
                let planned: BTreeSet<Ipv4Addr> = report.in_use.iter().copied().collect();
                let current = selected.map_or(&planned, |chosen| &chosen.gateways);
                let listed = &report.usable_gateways;
                let none_works = wanted.health_checked && self.gateways.none_works(listed, now);
                let mut draining = None;
                let gateways = if none_works {
                    current.clone()
                } else if wanted.is_shared() {
                    self.gateways.share(listed, current, now)
                } else if wanted.health_checked {
                    let current = listed.iter().copied().find(|gateway| current.contains(gateway));
                    let choice = self.gateways.choose(listed, current, now)?;
                    draining = self.drained(wanted, report, current, &choice, now);
                    BTreeSet::from([choice.gateway])
                } else {
                    BTreeSet::from([*listed.first()?])
                };
                // What was shut or opened stays so until one is known to work: a restart decides nothing before it knows.
                let is_unproven =
                    |gateway: &Ipv4Addr| wanted.health_checked && !self.gateways.works(*gateway, now);
                if report.is_diverted() && !none_works && gateways.iter().all(is_unproven) {
                    return None;
                }
                let used = match draining {
                    Some(Draining { from, moving: false, .. }) => BTreeSet::from([from]),
                    _ => gateways.clone(),
                };
                let is_moved = !report.is_diverted() && planned != used;
                let chosen = Chosen { gateways, none_works, draining };
                let is_new = selected != Some(&chosen) || is_moved || report.no_gateway != none_works;
                is_new.then(|| (wanted.uid.clone(), chosen))
            })
            .collect()
    }

    pub(super) async fn on_probe(&mut self, result: &ProbeResult) {
        self.with.metrics.count_probe(result);
        let noticed = self.gateways.on_probe(result, self.now(), Timestamp::now());
        if noticed.may_move {
            self.reconsider().await;
        }
        if noticed.fell {
            let interface = self.view.as_ref().and_then(|view| Some(view.vpc.as_ref()?.index));
            self.ask_anew(interface, result.gateway).await;
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

    /// Moves every StaticRoute whose choice has changed: one nexthop message each, whatever the number of its routes.
    pub(super) async fn reconsider(&mut self) {
        let Some(view) = self.view.clone() else { return };
        let mut moves = Vec::new();
        let mut behind = false;
        for (uid, chosen) in self.choices() {
            let previous = self.selection.get(&uid).cloned();
            behind |= self.plan.is_behind(&uid, &chosen, &self.layout);
            let change = self.plan.switch(&uid, &chosen, &view, &self.observed, &self.layout);
            if let Some(change) = change {
                tracing::warn!(uid, ?previous, ?chosen, "switching to other gateways");
                self.with.metrics.failovers.inc();
                moves.push(change);
            }
            self.select(uid, chosen);
        }
        if behind {
            self.drift.ask(true);
            self.with.changed.notify_one();
        }
        if moves.is_empty() {
            return;
        }
        if !self.apply(moves).await {
            // The plan says so and the kernel may not: the next pass puts that right, and soon.
            self.with.changed.notify_one();
        }
        self.publish();
    }
}
