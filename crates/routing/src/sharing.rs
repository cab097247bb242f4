//! Gateways that share the traffic of a StaticRoute (ECMP): resilient nexthop groups.
//!
//! The kernel hashes each flow to one of a group's buckets, and a bucket keeps its gateway while packets go through it. So a
//! gateway that leaves moves its own flows only; one that comes back is given buckets that are idle.
//!
//! Every gateway stands in the group twice, as two nexthop objects with its weight each. With one object each there is a trap
//! when one gateway is left: a group of one is not hashed into, its buckets all look idle, and a second gateway that joins then
//! takes half of the live flows (measured, Linux 6.18: 19 of 40 were reset). Two objects of one gateway are a group of two, the
//! buckets stay busy, and nothing has to be remembered of how a group came to be what it is.
//!
//! Which gateways take part is read back from the group in the kernel where nobody has an opinion, so a restart writes nothing.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use crate::kernel_state::{GroupMember, Nexthop, NexthopId, NexthopTarget};
use crate::layout::{GatewaySlot, Layout};

/// One gateway that can take part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Sharer {
    pub gateway: Ipv4Addr,
    pub slot: GatewaySlot,
    /// 1 to 256.
    pub weight: u16,
}

/// The group `id` in which those of `sharers` take part that are `in_use`; `None` when none does.
pub(crate) fn group(
    id: NexthopId,
    sharers: &[Sharer],
    in_use: &BTreeSet<Ipv4Addr>,
    layout: &Layout,
) -> Option<Nexthop> {
    let members: Vec<GroupMember> = sharers
        .iter()
        .filter(|sharer| in_use.contains(&sharer.gateway))
        .flat_map(|sharer| {
            let objects = [layout.probe_nexthop(sharer.slot), layout.twin_nexthop(sharer.slot)];
            objects.map(|id| GroupMember { id, weight: sharer.weight })
        })
        .collect();
    (!members.is_empty()).then(|| Nexthop { id, via: NexthopTarget::group(members, Some(layout.group)) })
}

#[cfg(test)]
mod tests;
