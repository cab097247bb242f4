//! One address for all gateways: who is to hold it, and when it moves (`docs/decisions/0027-floating.md`).
//!
//! ```text
//!   free ──► the first that is proven, or that comes up ──► held ──► seen there by nodes: it carries the traffic
//!                                                            │
//!        another one is proven and first in the order: the holder failed, leaves, is rolled, or is to be drained
//!                                                            ▼
//!                                                    moved in one action, and not again before the cloud shows where it is
//! ```
//!
//! Proven is who forwards, as nodes see past the address, so that it moves to nobody who could not use it. Nobody needs to be silenced
//! first: the machine translates to its anchor address and no other, which the cloud lets out at the holder only.

use egress_api::{EgressGatewayStatus, GatewayRole, GatewayStatus, ReservedIpStatus};
use egress_digitalocean::ReservedIp;

use super::super::{Look, USUAL_BRING_UP, is_leaving, is_proven, judge, route};
use super::hold;
use crate::decision::SEEN_WITHIN;
use crate::observation::HealthSeen;

/// Whether all gateways have one address.
pub(in super::super) fn is_wanted(look: &Look<'_>) -> bool {
    look.seen.gateway.spec.public_ip.moves()
}

/// The address, once it is known.
pub(in super::super) fn address(status: &EgressGatewayStatus) -> Option<&ReservedIpStatus> {
    let is_held = |recorded: &&ReservedIpStatus| {
        status.gateways.iter().any(|gateway| recorded.droplet_id == Some(gateway.droplet_id))
    };
    status.reserved_ips.iter().find(is_held).or(status.reserved_ips.first())
}

/// Whether this gateway has it, as the cloud showed it last.
pub(in super::super) fn is_holder(status: &EgressGatewayStatus, gateway: &GatewayStatus) -> bool {
    hold::held_by(status, gateway).is_some()
}

/// The gateway through which traffic leaves: proven, with the address, and seen with it.
pub(in super::super) fn carrier<'a>(
    look: &Look<'_>,
    status: &'a EgressGatewayStatus,
) -> Option<&'a GatewayStatus> {
    let carries =
        |gateway: &&GatewayStatus| is_proven(gateway) && is_holder(status, gateway) && is_seen(look, gateway);
    status.gateways.iter().find(carries)
}

/// Whether somebody could use the address and nobody does.
pub(in super::super) fn is_missed(look: &Look<'_>, status: &EgressGatewayStatus) -> bool {
    is_wanted(look) && status.gateways.iter().any(is_proven) && carrier(look, status).is_none()
}

/// Whether it is missed, or on its way, since not long ago: the cloud works on it, or is asked again.
pub(in super::super) fn is_coming(look: &Look<'_>, status: &EgressGatewayStatus) -> bool {
    let shared = address(status).filter(|_| is_wanted(look));
    let assigning = shared.and_then(|recorded| recorded.assigning.as_ref()).map(|assigning| &assigning.since);
    let refused = shared.and_then(|recorded| recorded.refused.as_ref()).map(|refused| &refused.since);
    let reserving = status.reserving_ip.as_ref().map(|reserving| &reserving.since);
    let held = shared.map(|recorded| &recorded.since).filter(|_| is_missed(look, status));
    let mut times = [assigning, refused, reserving, held].into_iter().flatten();
    is_wanted(look) && times.any(|time| look.since(time) < USUAL_BRING_UP)
}

/// Whether a node sees the address through it.
pub(in super::super) fn is_seen(look: &Look<'_>, gateway: &GatewayStatus) -> bool {
    judge::views(look, gateway).any(|view| view.expected_source == Some(true))
}

/// That a quorum of nodes gets through it and has not seen the address there, though it has been there for long enough.
pub(in super::super) fn is_unseen(
    look: &Look<'_>,
    status: &EgressGatewayStatus,
    gateway: &GatewayStatus,
) -> Option<String> {
    let held = hold::held_by(status, gateway).filter(|_| is_wanted(look))?;
    if look.since(&held.since) < SEEN_WITHIN || is_seen(look, gateway) {
        return None;
    }
    let sees_nothing = |view: &egress_api::GatewayObservation| {
        Some(&view.address) == gateway.private_address.as_ref()
            && view.reachable
            && view.forwards == Some(true)
            && view.expected_source != Some(true)
    };
    let blind = look.electorate.reports().filter(|(_, report)| report.gateways.iter().any(sees_nothing));
    let is_told = look.electorate.is_quorum(blind.count());
    is_told.then(|| format!("it forwards, and no node sees {} through it", held.ip))
}

/// Whether what nodes say of the address is no word against this gateway: it does not hold it, or has not for long.
pub(in super::super) fn is_excused(look: &Look<'_>, gateway: &GatewayStatus) -> bool {
    let held = hold::held_by(&look.before, gateway);
    is_wanted(look) && held.is_none_or(|held| look.since(&held.since) < SEEN_WITHIN)
}

/// What is wrong with the address of a gateway: one that is not the one.
pub(super) fn is_strange(
    look: &Look<'_>,
    status: &EgressGatewayStatus,
    gateway: &GatewayStatus,
) -> Option<String> {
    if let Some(ReservedIp { ip, .. }) = hold::foreign_at(look, status, gateway) {
        return Some(format!("it holds reserved address {ip}, which is not one of ours"));
    }
    let wanted = &address(status)?.ip;
    match judge::health(look, gateway) {
        Some(HealthSeen::Ready { public_address: Some(own), .. }) if own.to_string() != *wanted => {
            Some(format!("it leaves with {own}, not with {wanted}"))
        }
        _ => None,
    }
}

/// Whether the address is to go to this gateway now.
pub(super) fn is_next(look: &Look<'_>, status: &EgressGatewayStatus, gateway: &GatewayStatus) -> bool {
    let holder = status.gateways.iter().find(|one| is_holder(status, one));
    let first = route::order(look, status).into_iter().next();
    let is_first = first.is_some_and(|first| first.droplet_id == gateway.droplet_id);
    match holder {
        // Nobody who could use it is known yet: whoever comes up first.
        None if first.is_none() => true,
        None => is_first,
        Some(holder) => is_first && may_lose_it(look, status, holder),
    }
}

/// Whether it is to move, as far as the last look tells.
pub(super) fn is_to_move(look: &Look<'_>, status: &EgressGatewayStatus) -> bool {
    is_wanted(look) && status.gateways.iter().any(|one| !is_holder(status, one) && is_next(look, status, one))
}

// Who comes up with it is given its time: it would only come back.
fn may_lose_it(look: &Look<'_>, status: &EgressGatewayStatus, holder: &GatewayStatus) -> bool {
    match holder.role {
        GatewayRole::Starting => is_unseen(look, status, holder).is_some(),
        GatewayRole::Active | GatewayRole::Standby | GatewayRole::Failed | GatewayRole::Leaving => true,
    }
}

/// Gateways that stay in the nodes' list though they are not proven (any more): nodes use them until they see the address elsewhere.
pub(in super::super) fn held_on_to<'a>(
    look: &Look<'_>,
    status: &'a EgressGatewayStatus,
) -> Vec<&'a GatewayStatus> {
    if !is_wanted(look) || carrier(look, status).is_some() {
        return Vec::new();
    }
    let listed = route::current_list(look);
    let is_listed = |gateway: &GatewayStatus| {
        listed.iter().any(|entry| Some(&entry.address.0) == gateway.private_address.as_ref())
    };
    let stays = |gateway: &&GatewayStatus| !is_proven(gateway) && !is_leaving(gateway) && is_listed(gateway);
    status.gateways.iter().filter(stays).collect()
}

/// Where the address is while nobody carries traffic with it, in a sentence.
pub(in super::super) fn whereabouts(status: &EgressGatewayStatus) -> String {
    let Some(recorded) = address(status) else { return "No address is reserved yet".to_owned() };
    let name = |id: i64| {
        let gateway = status.gateways.iter().find(|gateway| gateway.droplet_id == id);
        gateway.map_or("a Droplet that is none of these", |gateway| gateway.name.as_str())
    };
    let ip = &recorded.ip;
    match (&recorded.assigning, recorded.droplet_id) {
        (Some(assigning), _) => format!("Reserved address {ip} moves to {}", name(assigning.droplet_id)),
        (None, Some(holder)) => {
            format!("Reserved address {ip} is with {}, and no node sees it there", name(holder))
        }
        (None, None) => format!("Reserved address {ip} is with nobody"),
    }
}
