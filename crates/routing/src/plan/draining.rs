//! Planned moves: connections leave a gateway that works one by one, not all at once (`docs/decisions/0019`).
//!
//! ```text
//!  routes on the nexthop object, through `from`
//!    │ each route is replaced in place
//!    ▼
//!  watching: routes on a resilient group of `from` alone; the kernel learns which of its buckets carry packets
//!    │ one message
//!    ▼
//!  moving:   group of `to` 255, `from` 1: buckets that carried nothing move at once, the others stay; new connections go with theirs
//!    │ each route is replaced in place
//!    ▼
//!  routes on the nexthop object, through `to`
//! ```
//!
//! A bucket counts as used by the lookup of a route, and a socket of the node itself looks its route up once and remembers it. So
//! silence is no sign of idleness but in the watch, which begins with a change of every route: then each looks anew. That is why a
//! bucket that was used then keeps its gateway to the end.
//!
//! A new group knows nothing of who uses it: with both gateways in it from the start, live connections would move. Each gateway stands
//! in it twice, as in [`crate::sharing`], since a group of one is not hashed into. What a drain is in is read back from the group.

use std::net::Ipv4Addr;

use std::collections::BTreeMap;

use super::Selection;
use crate::gateways::gateway_in_kernel;
use crate::kernel_state::{GroupMember, Managed, Nexthop, NexthopId, NexthopTarget, Observed, Resilient};
use crate::layout::{GatewaySlot, Layout};
use crate::report::RouteReport;
use crate::sharing::Sharer;
use crate::wanted::WantedRoute;

/// Longest time for which it is watched who sends, in seconds: with a hold-down of 10 s before it, a node is back in the order of
/// its list within 30 s.
const LONGEST_WATCH: u32 = 15;
/// Weights of the new and of the old gateway: the old one's share of idle buckets is next to nothing.
const NEW: u16 = 255;
const OLD: u16 = 1;

/// A planned move that goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draining {
    /// The gateway that is left.
    pub from: Ipv4Addr,
    /// Idle connections move; until then it is watched which are.
    pub moving: bool,
    /// How long the drain lasts. The kernel keeps what sent while it was watched for twice as long, since an agent that starts
    /// in the middle counts anew.
    pub seconds: u32,
}

/// So many seconds a drain watches before anything moves; who is silent all that time moves then.
pub fn watch_seconds(drain_seconds: u32) -> u32 {
    (drain_seconds / 4).clamp(1, LONGEST_WATCH)
}

/// After so many seconds in which nobody sent anything through the old gateway a drain is over. Longer than the keepalives that
/// people set (15 to 60 s) with 300 s to drain.
pub fn quiet_seconds(drain_seconds: u32) -> u32 {
    (drain_seconds / 4).max(1)
}

/// The group of a drain.
pub(super) fn group(
    id: NexthopId,
    drain: Draining,
    to: Option<Ipv4Addr>,
    sharers: &[Sharer],
    layout: &Layout,
) -> Option<Nexthop> {
    let weight = |gateway| match to.filter(|_| drain.moving) {
        Some(to) if gateway == to => Some(NEW),
        _ => (gateway == drain.from).then_some(OLD),
    };
    let members = sharers.iter().filter_map(|sharer| Some((sharer.slot, weight(sharer.gateway)?)));
    let members: Vec<GroupMember> = members
        .flat_map(|(slot, weight)| {
            [layout.probe_nexthop(slot), layout.twin_nexthop(slot)].map(|id| GroupMember { id, weight })
        })
        .collect();
    let resilient = Resilient { idle_seconds: drain.seconds * 2, ..layout.group };
    (!members.is_empty()).then(|| Nexthop { id, via: NexthopTarget::group(members, Some(resilient)) })
}

/// The drain of a StaticRoute, which goes on while both gateways can be used. Fills in which of them new connections use.
pub(super) fn drain_of(
    object: NexthopId,
    route: &WantedRoute,
    report: &mut RouteReport,
    (selection, observed): (&Selection, &Observed),
    slots: &BTreeMap<GatewaySlot, Ipv4Addr>,
    layout: &Layout,
) -> Option<Draining> {
    let (drain, to) = match selection.get(&route.uid) {
        Some(chosen) => (chosen.draining?, chosen.gateways.first().copied()),
        None => in_kernel(object, route, observed, layout)?,
    };
    let used = if drain.moving { to? } else { drain.from };
    let is_able = |gateway: &Ipv4Addr| {
        report.usable_gateways.contains(gateway) && slots.values().any(|probed| probed == gateway)
    };
    if route.is_shared() || ![drain.from, used].iter().all(is_able) {
        return None;
    }
    report.in_use = vec![used];
    Some(drain)
}

/// The gateways that may take part in a drain.
pub(super) fn able(report: &RouteReport, slots: &BTreeMap<GatewaySlot, Ipv4Addr>) -> Vec<Sharer> {
    let able = slots.iter().filter(|(_, gateway)| report.usable_gateways.contains(gateway));
    able.map(|(slot, gateway)| Sharer { gateway: *gateway, slot: *slot, weight: 1 }).collect()
}

/// The drain that the kernel is in, and where it leads, for the StaticRoute known by `object`.
pub(super) fn in_kernel(
    object: NexthopId,
    route: &WantedRoute,
    observed: &Observed,
    layout: &Layout,
) -> Option<(Draining, Option<Ipv4Addr>)> {
    if route.is_shared() || route.drain_seconds == 0 {
        return None;
    }
    let group = observed.nexthops.get(&layout.drain_nexthop(object)).map(Managed::get)?;
    let NexthopTarget::Group { members, resilient: Some(resilient) } = &group.via else { return None };
    let with = |weight| {
        let mut those = members.iter().filter(move |member| member.weight == weight);
        those.find_map(|member| gateway_in_kernel(member.id, observed))
    };
    let (from, to) = (with(OLD)?, with(NEW));
    Some((Draining { from, moving: to.is_some(), seconds: resilient.idle_seconds / 2 }, to))
}
