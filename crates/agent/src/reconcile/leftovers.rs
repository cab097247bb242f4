//! Takes the older operator's routes out of the main table, where an option asks for that.
//!
//! Main answers before our table is asked, so such a route shadows ours, through the same gateway. Ours is in the kernel
//! before the other goes: no packet is without a route in between. An older operator that still runs puts a route back when it
//! starts or its object changes; that one stays, and the destination is told to be shadowed.

use egress_netlink::leftover::leftovers;
use egress_netlink::reading::MainRoute;
use egress_routing::kernel_state::{NexthopTarget, RouteKey, RouteKind};
use ipnet::Ipv4Net;

use super::Reconciler;

impl Reconciler {
    /// After a pass that left the whole plan in the kernel.
    pub(super) async fn remove_leftovers(&mut self, main_routes: &[MainRoute]) {
        if !self.with.remove_leftovers {
            return;
        }
        let listed = |destination: Ipv4Net, gateway| {
            self.objects.routes.iter().any(|route| {
                route.destinations.contains_key(&destination) && route.gateways.contains(&gateway)
            })
        };
        let found: Vec<_> = leftovers(main_routes, |destination, gateway| {
            listed(destination, gateway) && self.is_routed(destination)
        })
        .into_iter()
        .filter(|leftover| !self.leftovers_removed.contains(leftover))
        .collect();
        if found.is_empty() {
            return;
        }
        tracing::info!(routes = found.len(), "taking away what the older operator left in the main table");
        for (leftover, outcome) in found.iter().zip(self.with.kernel.remove_leftovers(found.clone()).await) {
            match outcome {
                Ok(_) => {
                    self.leftovers_removed.insert(*leftover);
                }
                Err(error) => {
                    self.with.metrics.netlink_errors.inc();
                    tracing::warn!(destination = %leftover.destination(), %error, "the older operator's route stays");
                }
            }
        }
        // What was shadowed is not any more.
        self.with.changed.notify_one();
    }

    /// Whether the kernel has a route of ours for exactly this destination that leads to a gateway.
    fn is_routed(&self, destination: Ipv4Net) -> bool {
        let key = RouteKey { table: self.layout.table, destination, metric: 0 };
        let Some(RouteKind::Nexthop(id)) = self.observed.routes.get(&key).map(|route| &route.get().kind)
        else {
            return false;
        };
        let target = self.observed.nexthops.get(id).map(|nexthop| &nexthop.get().via);
        target.is_some_and(|target| !matches!(target, NexthopTarget::Blackhole))
    }
}
