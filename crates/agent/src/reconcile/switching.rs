//! Which gateway each StaticRoute uses, and the short way from a probe to the kernel.

use std::borrow::Cow;
use std::net::Ipv4Addr;

use egress_routing::plan;
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
        let chosen = self.choices();
        for (uid, gateway) in chosen {
            self.plan.switch(&uid, gateway, &view, &self.observed);
            self.selection.insert(uid, gateway);
        }
        for report in &mut self.plan.routes {
            if let Some(rolled_back) = self.confirmation.rolled_back().get(&report.uid) {
                rolled_back.mark(report);
            }
        }
        self.record_definition();
    }

    /// The gateway that each StaticRoute should use now, where that is another than the last chosen or planned one.
    fn choices(&self) -> Vec<(String, Ipv4Addr)> {
        let now = self.now();
        let reports = self.routes_in_force().iter().zip(&self.plan.routes);
        reports
            .filter_map(|(wanted, report)| {
                let selected = self.selection.get(&wanted.uid).copied();
                let gateway = if wanted.health_checked {
                    let current = selected.or(report.gateway);
                    self.gateways.choose(&report.usable_gateways, current, now)?.gateway
                } else {
                    *report.usable_gateways.first()?
                };
                let is_new = selected != Some(gateway) || report.gateway != Some(gateway);
                is_new.then(|| (wanted.uid.clone(), gateway))
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
        if !self.apply(moves).await {
            // The plan says so and the kernel may not: the next pass puts that right, and soon.
            self.with.changed.notify_one();
        }
        self.publish();
    }
}
