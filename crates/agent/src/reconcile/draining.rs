//! When a planned move begins, goes on and ends: connections leave a gateway that works one by one (`docs/decisions/0019`).
//!
//! How far it is stands in the kernel, but for the time: an agent that starts counts the deadline anew.

use std::net::Ipv4Addr;
use std::time::Duration;

use egress_health::selection::Why;
use egress_health::{Choice, Tick};
use egress_routing::{Chosen, Draining, RouteReport, WantedRoute, watch_seconds};

use super::Reconciler;

impl Reconciler {
    /// Takes note of a choice.
    pub(super) fn select(&mut self, uid: String, chosen: Chosen) {
        if chosen.draining.is_some() {
            let now = self.now();
            self.drains.entry(uid.clone()).or_insert(now);
        } else {
            self.drains.remove(&uid);
        }
        self.selection.insert(uid, chosen);
    }

    /// The drain that `choice` begins or goes on with: from a gateway that is not dead.
    pub(super) fn drained(
        &self,
        wanted: &WantedRoute,
        report: &RouteReport,
        current: Option<Ipv4Addr>,
        choice: Choice<Ipv4Addr>,
        now: Tick,
    ) -> Option<Draining> {
        if wanted.drain_seconds == 0 {
            return None;
        }
        let selected = self.selection.get(&wanted.uid);
        let under_way = selected.map_or(report.draining, |chosen| chosen.draining);
        let seconds = wanted.drain_seconds;
        let drain = match choice.why {
            // Where it is only watched yet, it is the old gateway that is current after a start.
            Why::EarlierInList => Draining { from: current?, moving: false, seconds },
            Why::Stays => under_way?,
            _ => return None,
        };
        if self.gateways.none_works(&[drain.from]) {
            return None;
        }
        let elapsed = self.drains.get(&wanted.uid).map_or(Duration::ZERO, |since| now.since(*since));
        if elapsed >= Duration::from_secs(seconds.into()) {
            return None;
        }
        let watched = elapsed >= Duration::from_secs(watch_seconds(seconds).into());
        let moving = drain.from != choice.gateway && (drain.moving || watched);
        Some(Draining { moving, ..drain })
    }
}
