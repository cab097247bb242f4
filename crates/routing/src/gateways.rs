//! Which gateways a node can use, and the slots through which it probes them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use crate::kernel_state::{Foreign, NexthopId, NexthopTarget, Observed};
use crate::layout::{GatewaySlot, Layout};
use crate::node::{NodeView, VpcInterface};
use crate::protected::ProtectedReason;
use crate::report::{GatewayFault, GatewayIssue};

/// Splits gateways into those that this node can use, in the same order, and the others with the reason.
///
/// Health is no part of this: it says what could work at all.
pub fn usable_gateways(
    gateways: &[Ipv4Addr],
    vpc: &VpcInterface,
    node: &NodeView,
) -> (Vec<Ipv4Addr>, Vec<GatewayIssue>) {
    let mut usable = Vec::new();
    let mut issues = Vec::new();
    for &gateway in gateways {
        match fault(gateway, vpc, node) {
            None => usable.push(gateway),
            Some(fault) => issues.push(GatewayIssue { gateway, fault }),
        }
    }
    (usable, issues)
}

fn fault(gateway: Ipv4Addr, vpc: &VpcInterface, node: &NodeView) -> Option<GatewayFault> {
    let subnet = vpc.subnet.trunc();
    // A /31 or /32 has neither network nor broadcast address.
    let has_reserved = subnet.prefix_len() < 31;
    if gateway == vpc.address || node.public_addresses.iter().any(|address| address.addr() == gateway) {
        Some(GatewayFault::OwnAddress)
    } else if !subnet.contains(&gateway) {
        Some(reserved(gateway, node).unwrap_or(GatewayFault::NotOnLink { subnet }))
    } else if has_reserved && gateway == subnet.network() {
        Some(GatewayFault::NetworkAddress)
    } else if has_reserved && gateway == subnet.broadcast() {
        Some(GatewayFault::BroadcastAddress)
    } else if node.protected.reason_of_address(gateway) == Some(ProtectedReason::Node) {
        Some(GatewayFault::Node)
    } else {
        None
    }
}

/// The range that says better than "not on the link" what the address is.
fn reserved(gateway: Ipv4Addr, node: &NodeView) -> Option<GatewayFault> {
    let (prefix, reason) = node.protected.iter().find(|(prefix, reason)| {
        let telling = matches!(
            reason,
            ProtectedReason::Pods
                | ProtectedReason::Services
                | ProtectedReason::LinkLocal
                | ProtectedReason::Loopback
                | ProtectedReason::Multicast
                | ProtectedReason::Broadcast
        );
        telling && prefix.contains(&gateway)
    })?;
    Some(GatewayFault::Reserved { prefix, reason })
}

/// Gives every gateway a slot, and names those for which there was none.
///
/// A gateway keeps the slot that it has in the kernel, so that neither a restart nor other gateways coming and going
/// move it, unless another program has put something at that slot's places. New ones take the lowest free slot, and the slot
/// of one that is gone only when no other is left and no group of the kernel sends packets there: they would go to a gateway
/// that was never theirs.
pub(crate) fn assign_slots(
    gateways: &BTreeSet<Ipv4Addr>,
    observed: &Observed,
    layout: &Layout,
) -> (BTreeMap<GatewaySlot, Ipv4Addr>, Vec<Ipv4Addr>) {
    let mut slots = BTreeMap::new();
    let mut left = Vec::new();
    let in_kernel = slots_in_kernel(observed, layout);
    let taken = slots_of_others(observed, layout);
    let closed = slots_of_groups(observed, layout);
    for (slot, gateway) in in_kernel.iter().filter(|(slot, _)| !taken.contains(slot)) {
        if gateways.contains(gateway) && !slots.values().any(|taken| taken == gateway) {
            slots.insert(*slot, *gateway);
        }
    }
    let seated: BTreeSet<Ipv4Addr> = slots.values().copied().collect();
    for gateway in gateways.difference(&seated) {
        let mut free = (0..layout.probe_slots)
            .map(GatewaySlot)
            .filter(|slot| !slots.contains_key(slot) && !taken.contains(slot) && !closed.contains(slot));
        match free.clone().find(|slot| !in_kernel.contains_key(slot)).or_else(|| free.next()) {
            Some(slot) => {
                slots.insert(slot, *gateway);
            }
            None => left.push(*gateway),
        }
    }
    (slots, left)
}

/// Slots that can't be given to another gateway now: a group of the kernel sends packets there.
fn slots_of_groups(observed: &Observed, layout: &Layout) -> BTreeSet<GatewaySlot> {
    let sharing = observed.nexthops.values().filter_map(|nexthop| match &nexthop.get().via {
        NexthopTarget::Group { members, resilient: Some(_) } => Some(members),
        _ => None,
    });
    sharing.flatten().filter_map(|member| layout.slot_of_nexthop(member.id)).collect()
}

/// The slots that gateways have. One that has none at these numbers has the one that it had at others, so that groups stay as
/// they are.
fn slots_in_kernel(observed: &Observed, layout: &Layout) -> BTreeMap<GatewaySlot, Ipv4Addr> {
    let seat = |id: &NexthopId| Some((layout.slot_at_any_numbers(*id)?, gateway_in_kernel(*id, observed)?));
    let (own, former): (Vec<_>, Vec<_>) =
        observed.nexthops.keys().partition(|id| layout.nexthops().contains(&id.0));
    let mut slots: BTreeMap<_, _> = own.into_iter().filter_map(seat).collect();
    for (slot, gateway) in former.into_iter().filter_map(seat) {
        slots.entry(slot).or_insert(gateway);
    }
    slots
}

/// The gateways that a nexthop object or group sends packets to in the kernel.
pub(crate) fn gateways_in_kernel(id: NexthopId, observed: &Observed) -> BTreeSet<Ipv4Addr> {
    match observed.nexthops.get(&id).map(|nexthop| &nexthop.get().via) {
        Some(NexthopTarget::Gateway(gateway)) => BTreeSet::from([gateway.address]),
        Some(NexthopTarget::Group { members, .. }) => {
            members.iter().filter_map(|member| gateway_in_kernel(member.id, observed)).collect()
        }
        Some(NexthopTarget::Blackhole) | None => BTreeSet::new(),
    }
}

/// Slots of which another program has the table, the priority or the nexthop id: a probe would go its way and not ours.
fn slots_of_others(observed: &Observed, layout: &Layout) -> BTreeSet<GatewaySlot> {
    let slots = (0..layout.probe_slots).map(GatewaySlot);
    let takes = |slot: GatewaySlot, foreign: &Foreign| match foreign {
        Foreign::Route { key, .. } => key.table == layout.probe_table(slot),
        Foreign::Rule { priority, .. } => *priority == layout.probe_priority(slot),
        Foreign::Nexthop { id, .. } => [layout.probe_nexthop(slot), layout.twin_nexthop(slot)].contains(id),
    };
    slots.filter(|slot| observed.foreign.iter().any(|foreign| takes(*slot, foreign))).collect()
}

/// The gateway that a nexthop object sends packets to in the kernel.
pub(crate) fn gateway_in_kernel(id: NexthopId, observed: &Observed) -> Option<Ipv4Addr> {
    match &observed.nexthops.get(&id)?.get().via {
        NexthopTarget::Gateway(gateway) => Some(gateway.address),
        NexthopTarget::Blackhole | NexthopTarget::Group { .. } => None,
    }
}

#[cfg(test)]
mod tests;
