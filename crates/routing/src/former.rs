//! What an agent with other numbers left in the kernel: until it is gone it counts like what stands at our own places.
//!
//! Invariant: a table for probes is none of these; a guard tells the two apart.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::gateways::gateways_in_kernel;
use crate::kernel_state::{Observed, RouteKey, RouteKind};
use crate::layout::Layout;

/// The table of all StaticRoutes, and those that were it under other numbers.
pub(crate) fn tables(observed: &Observed, layout: &Layout) -> BTreeSet<u32> {
    let elsewhere = observed.routes.keys().filter(|key| !layout.has_table(key.table));
    let guards = elsewhere.filter(|key| key.metric == layout.guard_metric);
    guards.map(|key| key.table).chain([layout.table]).collect()
}

/// The gateways that destinations have in former tables: an agent that takes over must not undo failovers.
pub(crate) fn gateways(observed: &Observed, layout: &Layout) -> BTreeMap<Ipv4Net, BTreeSet<Ipv4Addr>> {
    let former = tables(observed, layout);
    let of_former =
        |key: &&RouteKey| key.metric == 0 && key.table != layout.table && former.contains(&key.table);
    let routes = observed.routes.iter().filter(|(key, _)| of_former(key));
    routes
        .filter_map(|(key, route)| match route.get().kind {
            RouteKind::Nexthop(id) => Some((key.destination, gateways_in_kernel(id, observed))),
            _ => None,
        })
        .collect()
}
