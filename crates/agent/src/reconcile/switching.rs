//! Which gateways each StaticRoute uses, and the short way from a probe to the kernel.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use egress_api::NodeFailover;
use egress_health::Tick;
use egress_routing::{Chosen, Draining, plan};

use super::Reconciler;

impl Reconciler {
    /// Plans with the gateways that were chosen, and chooses anew where the plan says which can be used.
    pub(super) fn replan(&mut self) {
        let Some(view) = self.view_in_force().map(Cow::into_owned) else { return };
        self.selection.retain(|uid, _| self.objects.generations.contains_key(uid));
        self.drains.retain(|uid, _| self.objects.generations.contains_key(uid));
        self.plan = plan(self.routes_in_force(), &view, &self.selection, &self.observed, &self.layout);
        let probed = self.plan.probes.iter().map(|path| path.gateway).collect();
        self.gateways.retain(&probed, &self.objects.probed, self.now());
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
                let none_works = wanted.health_checked && self.gateways.none_works(listed);
                let mut draining = None;
                let gateways = if none_works {
                    current.clone()
                } else if wanted.is_shared() {
                    self.gateways.share(listed, current, now)
                } else if wanted.health_checked {
                    // Before anything moves, it is the gateway to be left that is in use.
                    let watched = selected.and_then(|chosen| chosen.draining).filter(|drain| !drain.moving);
                    let is_current = |gateway: &Ipv4Addr| match watched {
                        Some(drain) => *gateway == drain.from,
                        None => current.contains(gateway),
                    };
                    let current = listed.iter().copied().find(is_current);
                    let choice = self.gateways.choose(listed, current, now)?;
                    draining = self.drained(wanted, report, current, choice, now);
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

    /// Moves every StaticRoute whose choice has changed: one nexthop message each, whatever the number of its routes.
    pub(super) async fn reconsider(&mut self) {
        let Some(view) = self.view.clone() else { return };
        let mut moves = Vec::new();
        let mut behind = false;
        let mut failovers = Vec::new();
        for (uid, chosen) in self.choices() {
            let previous = self.selection.get(&uid).cloned();
            behind |= self.plan.is_behind(&uid, &chosen, &self.layout);
            let change = self.plan.switch(&uid, &chosen, &view, &self.observed, &self.layout);
            if let Some(change) = change {
                let failover = previous.as_ref().and_then(|previous| self.left(&uid, previous, &chosen));
                let evidence = failover.as_ref().map(|(failover, _)| failover.evidence.as_str());
                tracing::warn!(uid, ?previous, ?chosen, evidence, "switching to other gateways");
                self.with.metrics.failovers.inc();
                failovers.extend(failover);
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
        if let Some((failover, since)) = failovers.into_iter().next() {
            let seconds = self.now().since(since).as_secs_f64();
            self.with.metrics.last_failover.set(seconds);
            self.last_failover = Some(NodeFailover { seconds, ..failover });
        }
        self.publish();
    }

    /// Which gateway was left because it does not work, and the first that is used instead.
    fn left(&self, uid: &str, previous: &Chosen, chosen: &Chosen) -> Option<(NodeFailover, Tick)> {
        let to = *chosen.gateways.difference(&previous.gateways).chain(&chosen.gateways).next()?;
        let left = previous.gateways.difference(&chosen.gateways);
        left.filter(|from| **from != to).find_map(|from| self.failover(uid, *from, to))
    }
}
