//! Which nexthop object belongs to which StaticRoute.
//!
//! The kernel keeps no owner beside an id, so the id follows from the object's uid: a hash picks the home id, and an
//! object whose home is taken goes to one of the next few. Thus a restarted agent finds the same ids without having
//! written anything down, and other objects that come and go move none. A StaticRoute whose gateways share its traffic uses the
//! group beside its id ([`Layout::group_nexthop`]), so that the id also outlives a change of the mode.
//!
//! Where homes collide, what the kernel has decides: an object whose routes use an id near its home keeps that id. An id
//! that routes of something gone still use is not given away in the same step, because replacing that nexthop would send
//! those last routes to a gateway that was never theirs. One that no route uses (somebody took the routes away, or the
//! agent ended between the two) is free.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use ipnet::Ipv4Net;

use crate::kernel_state::{NexthopId, Observed, RouteKey, RouteKind};
use crate::layout::{Layout, NEXTHOP_BLOCK};

/// How far from its home an object may live. With 1,000 objects a run of even 10 taken ids is next to impossible.
const REACH: u32 = 16;

/// The id of each object, in the order of `uids`; `None` when all within reach are taken.
///
/// `table` says which object (index into `uids`) each prefix is routed for.
pub(crate) fn assign(
    uids: &[&str],
    table: &BTreeMap<Ipv4Net, Option<usize>>,
    observed: &Observed,
    layout: &Layout,
) -> Vec<Option<NexthopId>> {
    let mut ids = vec![None; uids.len()];
    let mut taken = BTreeSet::new();
    // First those that live somewhere already: most routes first, then nearest to home.
    let mut settled: Vec<_> = routes_in_kernel(table, observed, layout)
        .into_iter()
        .filter_map(|((object, id), routes)| {
            let step = (0..REACH).find(|step| address(uids[object], *step, layout) == id)?;
            Some((Reverse(routes), step, object, id))
        })
        .collect();
    settled.sort_unstable();
    for (_, _, object, id) in settled {
        if ids[object].is_none() && taken.insert(id) {
            ids[object] = Some(id);
        }
    }
    // Then the newcomers.
    taken.extend(observed.routes.values().filter_map(|route| match route.get().kind {
        RouteKind::Nexthop(id) => layout.nexthop_of_routes(id),
        _ => None,
    }));
    taken.extend(observed.foreign_nexthops().filter_map(|id| layout.nexthop_of_routes(id)));
    for (uid, slot) in uids.iter().zip(&mut ids) {
        if slot.is_none() {
            *slot = (0..REACH).map(|step| address(uid, step, layout)).find(|id| !taken.contains(id));
            taken.extend(*slot);
        }
    }
    ids
}

/// How many of an object's prefixes the kernel routes to which nexthop object, or the group in its stead.
fn routes_in_kernel(
    table: &BTreeMap<Ipv4Net, Option<usize>>,
    observed: &Observed,
    layout: &Layout,
) -> BTreeMap<(usize, NexthopId), usize> {
    let mut counts = BTreeMap::new();
    for (destination, object) in table {
        let key = RouteKey { table: layout.table, destination: *destination, metric: 0 };
        if let Some(object) = object
            && let Some(route) = observed.routes.get(&key)
            && let RouteKind::Nexthop(id) = route.get().kind
            && let Some(id) = layout.nexthop_of_routes(id)
        {
            *counts.entry((*object, id)).or_default() += 1;
        }
    }
    counts
}

/// Whether an object with this uid may have this id.
pub(crate) fn may_have(uid: &str, id: NexthopId, layout: &Layout) -> bool {
    (0..REACH).any(|step| address(uid, step, layout) == id)
}

/// What an object is called of which only its nexthop object is known; no uid looks like that.
pub(crate) fn uid_of_unknown(id: NexthopId) -> String {
    format!("{UNKNOWN}{id}")
}

const UNKNOWN: &str = "nexthop/";

/// The id `step` places from an object's home.
fn address(uid: &str, step: u32, layout: &Layout) -> NexthopId {
    let known = uid.strip_prefix(UNKNOWN).and_then(|id| id.parse::<u32>().ok());
    let home = known.map_or_else(|| hash(uid), |id| id % NEXTHOP_BLOCK);
    layout.object_nexthop(home.wrapping_add(step))
}

/// FNV-1a and a final mix: `std`'s hashers may change between releases, and with them the ids of a running node.
pub(crate) fn hash(uid: &str) -> u32 {
    let mut hash = uid.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    // Uids that differ in their last byte only must not be neighbours.
    for _ in 0..2 {
        hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    }
    (hash >> 32) as u32
}

#[cfg(test)]
mod tests;
