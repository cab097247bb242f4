//! A roll with reserved addresses: the address of the old gateway is the new one's, and moves when nothing uses the old one any more.
//!
//! ```text
//!  the new one awaits nothing but an address ──► the old one drains to its partner ──► Leaving, off the list, let go of by nodes
//!     └─ replicas: 1: there is nobody to drain to ─────────────────────────────────────►  │
//!                                                                                         ▼
//!   deleted ◄── the new one is proven with the address, and listed ◄── the cloud moves the address
//!                        │
//!                        └─ never proven, or the address does not move: the old one is taken back, with its address
//! ```
//!
//! The old Droplet is not deleted before the new one is proven: until then it is the way back. A list is never made empty, so a gateway
//! without a partner stays in it until the new one takes its place.

use std::time::Duration;

use egress_api::{EgressGatewayStatus, GatewayRole, GatewayStatus, Roll};

use super::super::{Look, Presence, addresses, is_leaving, is_proven, judge, population, quorum};
use super::{find, stopped, under_way};
use crate::observation::HealthSeen;

// Nodes have that long to let go of a gateway that works, before the address moves whatever they use.
const LET_GO: Duration = Duration::from_secs(300);

/// Whether this one stays until its successor is proven.
pub(in super::super) fn keeps(
    look: &Look<'_>,
    status: &EgressGatewayStatus,
    gateway: &GatewayStatus,
) -> bool {
    let roll = under_way(status).filter(|roll| roll.from_droplet_id == gateway.droplet_id);
    addresses::each_has_one(look) && roll.is_some_and(|roll| !successor(status, roll).is_some_and(is_proven))
}

/// Whether the new one lacks nothing but the address of the old one.
pub(super) fn is_ready(look: &Look<'_>, roll: &Roll, to: &GatewayStatus) -> bool {
    let awaits = matches!(judge::health(look, to), Some(HealthSeen::Awaiting { .. }));
    let as_made = version_of(look, to).is_none_or(|version| version == roll.user_data_version);
    awaits && as_made && !quorum::ballot(look, to).finds_it_silent()
}

/// The version of the user data that a gateway says it runs while it waits for its address.
pub(super) fn version_of<'a>(look: &Look<'a>, to: &GatewayStatus) -> Option<&'a str> {
    match judge::health(look, to) {
        Some(HealthSeen::Awaiting { version }) => version.as_deref(),
        _ => None,
    }
}

/// Lets the old one leave.
pub(super) fn begin(status: &mut EgressGatewayStatus, roll: &mut Roll) {
    roll.drain_seconds_left = Some(0);
    let from = status.gateways.iter_mut().filter(|one| one.droplet_id == roll.from_droplet_id);
    from.for_each(|from| from.role = GatewayRole::Leaving);
}

/// The old one leaves, and the new one is not proven yet, or just now.
pub(super) fn go_on(
    look: &Look<'_>,
    status: &mut EgressGatewayStatus,
    roll: Roll,
    from: &GatewayStatus,
    others_work: bool,
) -> Option<Roll> {
    // What is under way is waited for.
    let held = addresses::held_by(status, from).filter(|held| held.assigning.is_none()).cloned();
    let Some(held) = held.filter(|_| !successor(status, &roll).is_some_and(is_proven)) else {
        return Some(roll);
    };
    if !others_work {
        undo(look, status, &roll, from);
        return None;
    }
    let waited = from.since.as_ref().map_or(Duration::ZERO, |since| look.since(since));
    let patience = look.limits.bring_up + if held.refused.is_some() { Duration::ZERO } else { LET_GO };
    if waited < patience {
        return Some(roll);
    }
    let cause =
        held.refused.map_or_else(|| "the cloud could not be asked".to_owned(), |refused| refused.message);
    undo(look, status, &roll, from);
    Some(stopped(roll, format!("reserved address {} could not be moved to it: {cause}", held.ip)))
}

/// The new one is none: the old one works on, or gets back what it gave. Not if it was asked to go.
pub(super) fn undo(look: &Look<'_>, status: &mut EgressGatewayStatus, roll: &Roll, from: &GatewayStatus) {
    let asked_to_go = population::is_asked_to_go(look, from);
    let there = matches!(look.presence(from), Presence::Found(_));
    if !is_leaving(from) || asked_to_go || !there || successor(status, roll).is_some_and(is_proven) {
        return;
    }
    let holds = addresses::held_by(status, from).is_some();
    for gateway in &mut status.gateways {
        if gateway.droplet_id == roll.from_droplet_id {
            gateway.ready &= holds;
            gateway.role = if holds { GatewayRole::Standby } else { GatewayRole::Failed };
        } else if Some(gateway.droplet_id) == roll.to_droplet_id && !holds {
            gateway.role = GatewayRole::Leaving;
        }
    }
}

fn successor<'a>(status: &'a EgressGatewayStatus, roll: &Roll) -> Option<&'a GatewayStatus> {
    roll.to_droplet_id.and_then(|id| find(status, id))
}
