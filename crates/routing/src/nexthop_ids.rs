//! Which nexthop object belongs to which StaticRoute.
//!
//! The kernel keeps no owner beside an id, so the id follows from the object's uid: a hash picks the home id, and an
//! object whose home is taken goes to one of the next few. Thus a restarted agent finds the same ids without having
//! written anything down, and other objects that come and go move none.
//!
//! Where homes collide, what the kernel has decides: an object whose routes use an id near its home keeps that id. An id
//! that the kernel still holds for something that is gone is not given away in the same step, because replacing that
//! nexthop would send the gone object's last routes to a gateway that was never theirs.

use std::collections::{BTreeMap, BTreeSet};

use crate::kernel_state::{Foreign, NexthopId, Observed, RouteKey, RouteKind};
use crate::layout::Layout;
use crate::wanted::WantedRoute;

/// How far from its home an object may live. With 1,000 objects a run of even 10 taken ids is next to impossible.
const REACH: u32 = 64;

/// The id of each object, in the order of `wanted`; `None` when all within reach are taken.
pub(crate) fn assign(
    wanted: &[&WantedRoute],
    observed: &Observed,
    layout: &Layout,
) -> Vec<Option<NexthopId>> {
    let mut ids = vec![None; wanted.len()];
    let mut taken = BTreeSet::new();
    // First those that live somewhere already, nearest to home first; then the newcomers.
    let mut settled: Vec<(u32, usize, NexthopId)> = wanted
        .iter()
        .enumerate()
        .flat_map(|(index, route)| {
            let near = addresses(route, layout);
            used_by_routes_of(route, observed, layout)
                .into_iter()
                .filter_map(move |id| Some((*near.get(&id)?, index, id)))
        })
        .collect();
    settled.sort_unstable();
    for (_, index, id) in settled {
        if ids[index].is_none() && taken.insert(id) {
            ids[index] = Some(id);
        }
    }
    taken.extend(observed.nexthops.keys());
    taken.extend(observed.foreign.iter().filter_map(|foreign| match foreign {
        Foreign::Nexthop { id, .. } => Some(*id),
        Foreign::Route { .. } | Foreign::Rule { .. } => None,
    }));
    for (index, route) in wanted.iter().enumerate() {
        if ids[index].is_none() {
            let home = home(&route.uid);
            let free = (0..REACH)
                .map(|step| layout.object_nexthop(home.wrapping_add(step)))
                .find(|id| !taken.contains(id));
            ids[index] = free;
            taken.extend(free);
        }
    }
    ids
}

/// The ids within reach of an object, with their distance from its home.
fn addresses(route: &WantedRoute, layout: &Layout) -> BTreeMap<NexthopId, u32> {
    let home = home(&route.uid);
    (0..REACH).map(|step| (layout.object_nexthop(home.wrapping_add(step)), step)).collect()
}

/// The nexthop objects that the kernel's routes to this object's destinations use.
fn used_by_routes_of(route: &WantedRoute, observed: &Observed, layout: &Layout) -> BTreeSet<NexthopId> {
    route
        .destinations
        .keys()
        .filter_map(|destination| {
            let key = RouteKey { table: layout.table, destination: *destination, metric: 0 };
            match observed.routes.get(&key)?.get().kind {
                RouteKind::Nexthop(id) => Some(id),
                _ => None,
            }
        })
        .collect()
}

/// FNV-1a, folded: `std`'s hashers may change between releases, and with them the ids of a running node.
fn home(uid: &str) -> u32 {
    let hash = uid.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash ^ (hash >> 32)) as u32
}

#[cfg(test)]
mod tests;
