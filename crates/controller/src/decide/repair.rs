//! From power to replacement: what is tried for a gateway that is not proven (any more), in this order.
//!
//! ```text
//!  off ──► power on ──┐
//!                     ├─ not proven in time ──► condemned: power-cycle ── not proven in time ──► replaced
//!  condemned for 30 s ┘   (active; its endpoint silent, or another stands        (at most one in 10 min)
//!        │                 and a replacement would change the address)
//!        └─ else ──────────────────────────────────────────────────────────────────────────────► replaced
//! ```
//!
//! What a power cycle did not help is replaced while a quorum condemns it, and after a bring-up's time without its word, too: should the other
//! gateway fail meanwhile there is no difference any more, and neither would ever be repaired.
//!
//! Nobody is replaced for nothing but a wrong address while it may be a filter that keeps the probes out which ask for it.
//!
//! Power comes first because it keeps the public address, which partners have in their lists. Each is tried once: what is
//! recorded of it is forgotten only when the gateway has worked for a while since.

use std::time::Duration;

use egress_api::{EgressGatewayStatus, GatewayRole, GatewayStatus, Replacement};
use egress_digitalocean::{Droplet, DropletStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Look, Presence, addresses, ahead, is_leaving, judge, quorum};
use crate::decision::{Effect, POWER_CYCLE_WINDOW, REPAIR_MEMORY, REPLACEMENT_PAUSE};
use crate::identity::OwnedDroplet;
use crate::observation::HealthSeen;

/// What is next for a gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Rung {
    /// Nothing, for now or at all.
    Wait,
    /// It is off.
    PowerOn,
    /// It is active, and dead or forwards nothing.
    PowerCycle,
    /// It makes room for another, for this reason.
    Replace(String),
}

fn rung(look: &Look<'_>, status: &EgressGatewayStatus, gateway: &GatewayStatus) -> Rung {
    if gateway.ready || is_leaving(gateway) || gateway.existing {
        return Rung::Wait;
    }
    let why = gateway.message.clone().unwrap_or_else(|| "it is not proven".to_owned());
    let reserved = addresses::held_by(status, gateway).map(|held| look.since(&held.since));
    let since = gateway.since.as_ref().map_or(Duration::ZERO, |since| look.since(since));
    // Without its address it could not show that it works.
    let since =
        if addresses::are_wanted(look) { reserved.map_or(since, |held| held.min(since)) } else { since };
    let over = |tried| look.since(tried) >= look.limits.power_on;
    let ours = owned(look, gateway).is_some();
    let condemned =
        gateway.suspect_since.as_ref().is_some_and(|since| look.since(since) >= look.limits.replace_after);
    if is_off_in_the_cloud(look, gateway) {
        return match &gateway.powered_on {
            Some(tried) if over(tried) => Rung::Replace(format!("powering it on again did not help: {why}")),
            // Not for ever where the cloud refuses.
            None if ours && since < look.limits.bring_up => Rung::PowerOn,
            None if ours || condemned => Rung::Replace(why),
            _ => Rung::Wait,
        };
    }
    if gateway.powered_on.as_ref().is_some_and(|tried| !over(tried)) {
        return Rung::Wait;
    }
    // What an address lacks no other machine has; one that does not answer lacks more.
    if addresses::lacks(look, status, gateway).is_some() && judge::answers(look, gateway) {
        return Rung::Wait;
    }
    if gateway.role != GatewayRole::Failed {
        return match &gateway.powered_on {
            Some(_) => Rung::Replace(format!("powering it on again did not help: {why}")),
            None if since >= look.limits.bring_up => Rung::Replace(why),
            None => Rung::Wait,
        };
    }
    match &gateway.power_cycled {
        Some(tried) if !over(tried) => Rung::Wait,
        _ if judge::may_be_the_filter(look, status, gateway) => Rung::Wait,
        // Without the cloud's word that it took one, none may have been sent: it refused, or the gateway answered before.
        Some(_) if condemned && gateway.power_cycle_accepted.is_none() => Rung::Replace(why),
        Some(tried) if condemned || is_cycled_in_vain(look, gateway, tried) => {
            Rung::Replace(format!("a power cycle did not help: {why}"))
        }
        None if condemned && ours && may_be_cycled(look, status, gateway) => Rung::PowerCycle,
        None if condemned && ours && may_have_come_back(look, status, gateway) => Rung::Wait,
        None if condemned => Rung::Replace(why),
        // Off the list nobody may condemn it; that nobody gets through it for so long while another works is as much.
        _ if since >= look.limits.bring_up && judge::another_stands(look, status, gateway) => {
            Rung::Replace(why)
        }
        _ => Rung::Wait,
    }
}

// Its quorum was before the cycle, and since then nobody has got through it for as long as a new one may take.
fn is_cycled_in_vain(look: &Look<'_>, gateway: &GatewayStatus, tried: &Time) -> bool {
    gateway.power_cycle_accepted.is_some() && look.since(tried) >= look.limits.bring_up
}

/// Why a gateway should make room for another, if it should.
pub(super) fn is_due(
    look: &Look<'_>,
    status: &EgressGatewayStatus,
    gateway: &GatewayStatus,
) -> Option<String> {
    match rung(look, status, gateway) {
        Rung::Replace(why) => Some(why),
        Rung::Wait | Rung::PowerOn | Rung::PowerCycle => None,
    }
}

/// Whether this gateway is being replaced: it was written down, and nothing has changed for the better since.
pub(super) fn is_given_up(look: &Look<'_>, status: &EgressGatewayStatus, gateway: &GatewayStatus) -> bool {
    gateway.role == GatewayRole::Failed
        && record_of(status, gateway).is_some_and(|last| last.to.as_ref() != Some(&last.from))
        && is_due(look, status, gateway).is_some()
}

/// Whether another has taken the place of this gateway.
pub(super) fn has_successor(status: &EgressGatewayStatus, gateway: &GatewayStatus) -> bool {
    let successor = record_of(status, gateway).and_then(|last| last.to.as_ref());
    successor.is_some_and(|successor| *successor != gateway.name)
}

/// Whether one that leaves was proven once and then failed. One whose bring-up was given up never was.
pub(super) fn has_failed(status: &EgressGatewayStatus, gateway: &GatewayStatus) -> bool {
    !gateway.ready && (gateway.suspect_since.is_some() || record_of(status, gateway).is_some())
}

fn record_of<'a>(status: &'a EgressGatewayStatus, gateway: &GatewayStatus) -> Option<&'a Replacement> {
    status.last_replacement.as_ref().filter(|last| last.from_droplet_id == gateway.droplet_id)
}

/// Forgets what was tried for gateways that have worked for long since, and writes down what is to be tried or replaced now.
pub(super) fn plan(look: &Look<'_>, status: &mut EgressGatewayStatus) {
    for gateway in status.gateways.iter_mut().filter(|gateway| gateway.ready) {
        let steady = gateway.since.as_ref().is_some_and(|since| look.since(since) >= REPAIR_MEMORY);
        if steady {
            gateway.powered_on = None;
            gateway.power_cycled = None;
            gateway.power_cycle_accepted = None;
        }
        // It came back before the call was sent: that was no try.
        if gateway.power_cycle_accepted.is_none() {
            gateway.power_cycled = None;
        }
    }
    let failed = |gateway: &&GatewayStatus| gateway.role == GatewayRole::Failed;
    // One at a time: should the nodes be wrong, they are not wrong about all at once.
    let under_way = status.gateways.iter().filter(failed).any(|gateway| {
        gateway.power_cycled.as_ref().is_some_and(|tried| look.since(tried) < look.limits.power_on)
    });
    let next = status.gateways.iter().filter(failed);
    let next = next
        .filter(|gateway| rung(look, status, gateway) == Rung::PowerCycle)
        .map(|gateway| gateway.droplet_id);
    if let Some(id) = next.min().filter(|_| !under_way) {
        for gateway in status.gateways.iter_mut().filter(|gateway| gateway.droplet_id == id) {
            gateway.power_cycled = Some(look.time());
        }
    }
    give_up(look, status);
}

// One replacement at a time, and the next not before the pause is over.
fn give_up(look: &Look<'_>, status: &mut EgressGatewayStatus) {
    if status.gateways.iter().any(|gateway| is_given_up(look, status, gateway)) {
        return;
    }
    let lately = status
        .last_replacement
        .as_ref()
        .is_some_and(|last| look.since(ahead::counts_from(last)) < REPLACEMENT_PAUSE);
    let due = status.gateways.iter().filter(|gateway| gateway.role == GatewayRole::Failed);
    let mut due = due.filter_map(|gateway| Some((gateway.clone(), is_due(look, status, gateway)?)));
    let Some((gateway, why)) = due.next() else { return };
    if lately {
        let waits = "its replacement waits until ten minutes after the last one";
        for held in status.gateways.iter_mut().filter(|one| one.droplet_id == gateway.droplet_id) {
            held.message = Some(format!("{why}; {waits}"));
        }
        return;
    }
    status.last_replacement = Some(replacement(look, &gateway, why));
}

/// The record of a gateway that makes room for another.
pub(super) fn replacement(look: &Look<'_>, gateway: &GatewayStatus, reason: String) -> Replacement {
    Replacement {
        time: look.time(),
        held_since: None,
        from: gateway.name.clone(),
        from_droplet_id: gateway.droplet_id,
        from_public_address: gateway.public_address.clone(),
        to: None,
        to_public_address: None,
        reason,
    }
}

/// Writes down who took the place of the one that was replaced: the first new one that is proven, or itself if that comes first.
pub(super) fn note_successor(status: &mut EgressGatewayStatus, proven: &GatewayStatus, is_new: bool) {
    let last = status.last_replacement.as_mut().filter(|last| last.to.is_none());
    if let Some(last) = last.filter(|last| is_new || last.from_droplet_id == proven.droplet_id) {
        last.to = Some(proven.name.clone());
        last.to_public_address.clone_from(&proven.public_address);
    }
}

/// The power call to send now, if any: on for what is off; a cycle for what was written down to get one, until the cloud has
/// accepted it. Should a crash hide that it has, a second one within the window only lengthens the boot.
pub(super) fn power(look: &Look<'_>, status: &EgressGatewayStatus) -> Option<Effect> {
    status.gateways.iter().find_map(|gateway| match rung(look, status, gateway) {
        Rung::PowerOn => owned(look, gateway).map(Effect::PowerOn),
        _ if is_to_be_cycled(look, status, gateway) => owned(look, gateway).map(Effect::PowerCycle),
        _ => None,
    })
}

fn is_to_be_cycled(look: &Look<'_>, status: &EgressGatewayStatus, gateway: &GatewayStatus) -> bool {
    let decided =
        gateway.power_cycled.as_ref().is_some_and(|decided| look.since(decided) < POWER_CYCLE_WINDOW);
    let condemned = gateway.role == GatewayRole::Failed && gateway.suspect_since.is_some();
    // The nodes' word lags behind: one that answers us again since it was decided has come back by itself.
    decided && condemned && gateway.power_cycle_accepted.is_none() && may_be_cycled(look, status, gateway)
}

// Whether a boot may help: it is dead, or it answers us, and nodes see that it does not work. A boot applies its rules anew and keeps an
// address that a replacement would change; a reserved one moves along anyway.
fn may_be_cycled(look: &Look<'_>, status: &EgressGatewayStatus, gateway: &GatewayStatus) -> bool {
    is_active(look, gateway)
        && (is_silent(look, gateway)
            || is_gray(look, status, gateway) && !may_have_come_back(look, status, gateway))
}

// It answers us, a quorum condemns it, another one stands, and a replacement would change its address.
fn is_gray(look: &Look<'_>, status: &EgressGatewayStatus, gateway: &GatewayStatus) -> bool {
    is_active(look, gateway)
        && !is_silent(look, gateway)
        && !addresses::are_wanted(look)
        && quorum::ballot(look, gateway).condemns()
        && judge::another_stands(look, status, gateway)
}

// It answers us, and no node says that it does. The words of nodes are older than ours: one that has just come back is left alone until
// all of them were renewed, and if they say the same then, nodes do not reach it.
fn may_have_come_back(look: &Look<'_>, status: &EgressGatewayStatus, gateway: &GatewayStatus) -> bool {
    let renewed = look.limits.replace_after + egress_api::fresh_for(look.electorate.nodes());
    let lasts = gateway.suspect_since.as_ref().is_some_and(|since| look.since(since) >= renewed);
    is_gray(look, status, gateway) && !lasts && !quorum::ballot(look, gateway).sees_it_fail_beyond()
}

fn is_active(look: &Look<'_>, gateway: &GatewayStatus) -> bool {
    matches!(look.presence(gateway), Presence::Found(droplet) if droplet.status == DropletStatus::Active)
}

fn owned(look: &Look<'_>, gateway: &GatewayStatus) -> Option<OwnedDroplet> {
    let Presence::Found(droplet) = look.presence(gateway) else { return None };
    if gateway.existing {
        return None;
    }
    look.identity.prove(&look.before.gateways, droplet, look.vpc()?, &look.nodes).ok()
}

fn is_silent(look: &Look<'_>, gateway: &GatewayStatus) -> bool {
    matches!(judge::health(look, gateway), Some(HealthSeen::Silent(_)))
}

/// Whether the cloud says that it has no power.
pub(super) fn is_off_in_the_cloud(look: &Look<'_>, gateway: &GatewayStatus) -> bool {
    !gateway.existing && matches!(look.presence(gateway), Presence::Found(droplet) if is_off(droplet))
}

/// Whether a Droplet has no power.
pub(super) fn is_off(droplet: &Droplet) -> bool {
    matches!(droplet.status, DropletStatus::Off | DropletStatus::Archive)
}
