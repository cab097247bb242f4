//! Reserved addresses: each gateway has one before it carries traffic, and its successor takes it over. Or all have one, which one of them
//! holds at a time ([`floating`]).
//!
//! ```text
//!   a gateway without one ──► intent ──► reserved for it ──► marked ──► held ──► free or held by one that is given up
//!                               │ └─ no answer: not again before the settle time is over          │
//!                               └ spec.reservedIPs: assigned                    moved to the next gateway, at most one call at a time
//! ```
//!
//! Who holds an address is what the cloud shows, never what was asked for. One that was moved by hand is left where it is and told of,
//! and so is one that somebody assigned to a gateway: a Droplet holds one at most. What was given is never given back.

pub(super) mod floating;
mod hold;
mod words;

use std::net::Ipv4Addr;
use std::time::Duration;

use egress_api::{
    DeletionPolicy, EgressGatewayStatus, GatewayRole, GatewayStatus, PublicIp, Refused, ReservedIpStatus,
    ReservingIpStatus,
};
use egress_digitalocean::{Droplet, DropletId, DropletStatus, ReservedIp};

use super::{Look, Presence, is_leaving, is_proven, judge, population, repair};
use crate::act::LONGEST_REST;
use crate::decision::{ASSIGN_AGAIN, Effect};
use crate::identity::OwnedDroplet;
use crate::observation::ReservedIpsSeen;
use crate::reserved_ip::{OwnedIp, address, is_marked, is_usable, prove, prove_releasable, recorded};

pub(super) use hold::{held_by, lacks, public_ips};
pub(super) use words::{complaint, stays};

/// Whether gateways leave with reserved addresses only.
pub(super) fn are_wanted(look: &Look<'_>) -> bool {
    look.seen.gateway.spec.public_ip.is_reserved()
}

/// Whether every gateway is to have one of its own.
pub(super) fn each_has_one(look: &Look<'_>) -> bool {
    look.seen.gateway.spec.public_ip == PublicIp::ReservedPerGateway
}

/// Brings the record up to date with what the cloud shows, and writes the intent to have one more where one is missing.
pub(super) fn record(look: &Look<'_>, status: &mut EgressGatewayStatus) {
    follow(look, status);
    let Some(seen) = seen(look) else { return };
    if status.reserving_ip.is_none() && are_wanted(look) && made(status) < wanted(look) {
        let next = needy(look, status).find(|(gateway, _)| !has_candidate(look, status, seen, gateway));
        status.reserving_ip = next.map(|(gateway, _)| ReservingIpStatus {
            droplet_id: gateway.droplet_id,
            since: look.time(),
            sent: None,
            refused: None,
        });
    }
}

/// The same for one that is paused: nothing is planned.
pub(super) fn record_for_pause(look: &Look<'_>, status: &mut EgressGatewayStatus) {
    follow(look, status);
}

/// The same while the EgressGateway is being deleted: nothing new is wanted.
pub(super) fn record_for_removal(look: &Look<'_>, status: &mut EgressGatewayStatus) {
    follow(look, status);
    if look.seen.gateway.spec.deletion_policy == DeletionPolicy::Retain {
        status.reserved_ips.iter_mut().for_each(|recorded| recorded.given = true);
    }
    status.reserving_ip = status.reserving_ip.take().filter(|reserving| !may_be_sent(look, reserving));
}

/// The call to send now, if any.
pub(super) fn change(look: &Look<'_>, status: &EgressGatewayStatus) -> Option<Effect> {
    let seen = seen(look)?;
    mark(look, status, seen)
        .or_else(|| assignment(look, status, seen))
        .or_else(|| reservation(look, status, seen))
        .or_else(|| mark_ahead(look, status))
        .or_else(|| surplus(look, status, seen))
}

/// The release to send now, if any, when no gateway is left.
pub(super) fn removal(look: &Look<'_>, status: &EgressGatewayStatus) -> Option<Effect> {
    let seen = seen(look)?;
    status.reserved_ips.iter().find_map(|recorded| release(look, status, seen, recorded))
}

/// Whether nothing that was made here is left.
pub(super) fn are_gone(status: &EgressGatewayStatus) -> bool {
    status.reserving_ip.is_none() && status.reserved_ips.iter().all(|recorded| recorded.given)
}

/// Whether it is open if an address was reserved for this gateway: without the Droplet nobody could tell whose it is.
pub(super) fn may_come_for(status: &EgressGatewayStatus, gateway: &GatewayStatus) -> bool {
    let reserving = status.reserving_ip.as_ref().filter(|reserving| reserving.sent.is_some());
    reserving.is_some_and(|reserving| reserving.droplet_id == gateway.droplet_id)
}

/// What is known of addresses. Without a word of Droplets it is nothing: nobody could say whose a holder is.
fn seen<'a>(look: &Look<'a>) -> Option<&'a ReservedIpsSeen> {
    look.seen.reserved_ips.as_ref().ok().filter(|_| look.cloud().is_some())
}

fn found(seen: &ReservedIpsSeen, ip: Ipv4Addr) -> Option<&ReservedIp> {
    seen.addresses.iter().find(|one| one.ip == ip)
}

fn region<'a>(look: &Look<'a>) -> Option<&'a str> {
    look.seen.site.as_ref().ok().map(|site| site.region.as_str())
}

fn made(status: &EgressGatewayStatus) -> usize {
    status.reserved_ips.iter().filter(|recorded| !recorded.given).count()
}

// How many are to be made beside those that the user gives, for gateways that are not Droplets of his own.
fn wanted(look: &Look<'_>) -> usize {
    let spec = &look.seen.gateway.spec;
    let of_people = spec.reserved_ips.len() + spec.existing_droplets.len();
    let all = match look.seen.gateway.spec.public_ip {
        PublicIp::Ephemeral => 0,
        PublicIp::ReservedPerGateway => look.replicas,
        PublicIp::Floating => 1,
    };
    all.saturating_sub(of_people)
}

fn given<'a>(look: &Look<'a>) -> impl Iterator<Item = Ipv4Addr> + 'a {
    look.seen.gateway.spec.reserved_ips.iter().filter_map(|ip| ip.parse().ok())
}

fn follow(look: &Look<'_>, status: &mut EgressGatewayStatus) {
    if status.observed_generation != look.seen.gateway.metadata.generation {
        rest_no_more(status);
    }
    let Some(seen) = seen(look) else { return };
    // Right after a create the cloud may not show yet what it has made.
    let is_new = |recorded: &ReservedIpStatus| look.since(&recorded.since) < look.limits.lost_after;
    status
        .reserved_ips
        .retain(|recorded| address(recorded).is_some_and(|ip| found(seen, ip).is_some()) || is_new(recorded));
    take_given(look, status, seen);
    adopt(look, status, seen);
    let staying: Vec<i64> = status.gateways.iter().map(|gateway| gateway.droplet_id).collect();
    for recorded in &mut status.reserved_ips {
        if let Some(shown) = address(recorded).and_then(|ip| found(seen, ip)) {
            follow_one(look, recorded, shown, seen, &staying);
        }
    }
    forget_refusals(look, status);
    let is_open = |reserving: &ReservingIpStatus| {
        let mut staying = status.gateways.iter().filter(|gateway| !is_leaving(gateway));
        let gateway = staying.find(|gateway| gateway.droplet_id == reserving.droplet_id);
        gateway.is_some_and(|gateway| held_by(status, gateway).is_none()) || !may_be_sent(look, reserving)
    };
    if !status.reserving_ip.as_ref().is_some_and(is_open) {
        status.reserving_ip = None;
    }
}

// What is where it is to be, and known as ours there, is told of no more.
fn forget_refusals(look: &Look<'_>, status: &mut EgressGatewayStatus) {
    let at_rest = |recorded: &ReservedIpStatus| {
        let holder = status.gateways.iter().find(|gateway| recorded.droplet_id == Some(gateway.droplet_id));
        let marked = recorded.droplet_id.and_then(|id| droplet(look, id)).zip(address(recorded));
        let known =
            recorded.given || marked.is_some_and(|(droplet, ip)| is_marked(droplet, ip) == Some(true));
        let stays = holder.is_some_and(|holder| !gives_up(look, status, holder));
        recorded.assigning.is_none() && known && stays && !floating::is_to_move(look, status)
    };
    let at_rest: Vec<bool> = status.reserved_ips.iter().map(at_rest).collect();
    for (recorded, _) in status.reserved_ips.iter_mut().zip(at_rest).filter(|(_, at_rest)| *at_rest) {
        recorded.refused = None;
    }
}

// Who changed the spec may have mended what was refused.
fn rest_no_more(status: &mut EgressGatewayStatus) {
    let recorded = status.reserved_ips.iter_mut().map(|recorded| &mut recorded.refused);
    let reserving = status.reserving_ip.iter_mut().map(|reserving| &mut reserving.refused);
    recorded.chain(reserving).for_each(|refused| *refused = None);
}

fn take_given(look: &Look<'_>, status: &mut EgressGatewayStatus, seen: &ReservedIpsSeen) {
    let Some(region) = region(look) else { return };
    for ip in given(look) {
        if let Some(recorded) = status.reserved_ips.iter_mut().find(|recorded| address(recorded) == Some(ip))
        {
            recorded.given = true;
            continue;
        }
        let usable = |shown: &&ReservedIp| is_usable(status, shown, region, &look.nodes).is_ok();
        if let Some(shown) = found(seen, ip).filter(usable) {
            status.reserved_ips.push(entry(look, shown, true));
        }
    }
}

// What a gateway of ours holds and was made for it: its tag says so, or the answer to the request for it was lost.
fn adopt(look: &Look<'_>, status: &mut EgressGatewayStatus, seen: &ReservedIpsSeen) {
    for shown in &seen.addresses {
        let Some(holder) = shown.droplet.filter(|_| recorded(status, shown.ip).is_none()) else { continue };
        let Some((droplet, _)) = owned(look, status, holder) else { continue };
        let sent = status.reserving_ip.as_ref().filter(|reserving| reserving.sent.is_some());
        let awaited = sent.is_some_and(|reserving| i64::try_from(holder.0) == Ok(reserving.droplet_id));
        if awaited || is_marked(droplet, shown.ip) == Some(true) {
            status.reserved_ips.push(entry(look, shown, false));
            status.reserving_ip = status.reserving_ip.take().filter(|_| !awaited);
        }
    }
}

fn entry(look: &Look<'_>, shown: &ReservedIp, given: bool) -> ReservedIpStatus {
    ReservedIpStatus {
        ip: shown.ip.to_string(),
        given,
        droplet_id: shown.droplet.and_then(|id| i64::try_from(id.0).ok()),
        since: look.time(),
        assigning: None,
        refused: None,
    }
}

fn follow_one(
    look: &Look<'_>,
    recorded: &mut ReservedIpStatus,
    shown: &ReservedIp,
    seen: &ReservedIpsSeen,
    staying: &[i64],
) {
    let holder = shown.droplet.and_then(|id| i64::try_from(id.0).ok());
    if recorded.droplet_id != holder {
        recorded.droplet_id = holder;
        recorded.since = look.time();
    }
    let Some(assigning) = recorded.assigning.as_ref().filter(|_| !shown.locked) else { return };
    let waited = Duration::try_from(seen.taken.duration_since(assigning.since.0)).unwrap_or_default();
    if holder == Some(assigning.droplet_id) {
        recorded.refused = None;
    } else if waited >= ASSIGN_AGAIN {
        let since = recorded.refused.as_ref().map_or(&assigning.since, |refused| &refused.since).clone();
        let pause = look.since(&since).min(LONGEST_REST);
        let until = jiff::Timestamp::from_second((look.now + pause).as_second()).unwrap_or(look.now);
        recorded.refused = Some(Refused {
            message: "the cloud took the assignment and has not carried it out".to_owned(),
            since,
            not_before: k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(until),
        });
    } else if staying.contains(&assigning.droplet_id) {
        return;
    }
    recorded.assigning = None;
}

// Nothing was sent, or so long ago that a success would have been seen.
fn may_be_sent(look: &Look<'_>, reserving: &ReservingIpStatus) -> bool {
    let Some(sent) = &reserving.sent else { return true };
    let settled = |at: jiff::Timestamp| {
        Duration::try_from(at.duration_since(sent.0)).is_ok_and(|age| age >= look.limits.settle)
    };
    settled(look.now) && seen(look).is_some_and(|seen| settled(seen.taken))
}

fn is_resting(look: &Look<'_>, refused: Option<&Refused>) -> bool {
    refused.is_some_and(|refused| look.now < refused.not_before.0)
}

fn droplet<'a>(look: &Look<'a>, id: i64) -> Option<&'a Droplet> {
    look.cloud()?.droplets.get(&DropletId(u64::try_from(id).ok()?))
}

// A Droplet that is provably ours.
fn owned<'a>(
    look: &Look<'a>,
    status: &EgressGatewayStatus,
    id: DropletId,
) -> Option<(&'a Droplet, OwnedDroplet)> {
    let droplet = look.cloud()?.droplets.get(&id)?;
    let proof = look.identity.prove(&status.gateways, droplet, look.vpc()?, &look.nodes).ok()?;
    Some((droplet, proof))
}

// Gateways that are to have an address, could take one now, and hold none: those that carried traffic first.
fn needy<'a>(
    look: &'a Look<'_>,
    status: &'a EgressGatewayStatus,
) -> impl Iterator<Item = (&'a GatewayStatus, OwnedDroplet)> + 'a {
    let is_new = |gateway: &&GatewayStatus| gateway.role == GatewayRole::Starting;
    let known = status.gateways.iter().filter(move |gateway| !is_new(gateway));
    let new = status.gateways.iter().filter(is_new);
    known.chain(new).filter_map(move |gateway| {
        let Presence::Found(droplet) = look.presence(gateway) else { return None };
        let quiet = droplet.status == DropletStatus::Active
            && droplet.locked != Some(true)
            && droplet.private_v4().is_some();
        let served = held_by(status, gateway).is_some() || hold::is_coming_for(status, gateway);
        let taken = hold::foreign_at(look, status, gateway).is_some();
        if floating::is_wanted(look) && !floating::is_next(look, status, gateway) {
            return None;
        }
        // Droplets of people keep the addresses that they have.
        if !quiet || served || taken || gateway.existing || gives_up(look, status, gateway) {
            return None;
        }
        Some((gateway, owned(look, status, droplet.id)?.1))
    })
}

/// Whether a gateway's address is for the next one that works.
fn gives_up(look: &Look<'_>, status: &EgressGatewayStatus, gateway: &GatewayStatus) -> bool {
    is_leaving(gateway) || repair::is_given_up(look, status, gateway)
}

// Who leaves and works is used until the nodes have let go of it; where no other works, until its address is gone.
fn lets_go(look: &Look<'_>, status: &EgressGatewayStatus, holder: &GatewayStatus) -> bool {
    let is_other = |other: &GatewayStatus| other.droplet_id != holder.droplet_id && is_proven(other);
    let is_used = || status.gateways.iter().any(is_other) && !population::has_been_let_go(look, holder);
    repair::is_given_up(look, status, holder) || (is_leaving(holder) && !is_used())
}

// Free ones first; then those of gateways that are given up, once the one that is to have it is up.
fn candidates<'a>(
    look: &'a Look<'_>,
    status: &'a EgressGatewayStatus,
    seen: &'a ReservedIpsSeen,
    gateway: &'a GatewayStatus,
) -> impl Iterator<Item = (&'a ReservedIpStatus, OwnedIp)> + 'a {
    // One that is shared goes to whom nodes have proven.
    let moves = floating::is_wanted(look);
    let answers = moves || judge::answers(look, gateway);
    let free = status.reserved_ips.iter().filter(|recorded| recorded.droplet_id.is_none());
    let held = status.reserved_ips.iter().filter(move |recorded| {
        let holder = |one: &&GatewayStatus| recorded.droplet_id == Some(one.droplet_id);
        let lets_go = |holder: &GatewayStatus| moves || lets_go(look, status, holder);
        answers && status.gateways.iter().find(holder).is_some_and(lets_go)
    });
    free.chain(held).filter(|recorded| recorded.assigning.is_none()).filter_map(move |recorded| {
        let shown = address(recorded).and_then(|ip| found(seen, ip))?;
        Some((recorded, prove(status, shown, region(look)?, &look.nodes).ok()?))
    })
}

// Whether it is to wait for an address that there is, or that a gateway that is given up still holds.
fn has_candidate(
    look: &Look<'_>,
    status: &EgressGatewayStatus,
    seen: &ReservedIpsSeen,
    gateway: &GatewayStatus,
) -> bool {
    candidates(look, status, seen, gateway).next().is_some()
}

// Before it is assigned, so that whoever finds it there knows whose it is.
fn mark(look: &Look<'_>, status: &EgressGatewayStatus, seen: &ReservedIpsSeen) -> Option<Effect> {
    let of_held = status.reserved_ips.iter().find_map(|recorded| {
        let ip = address(recorded).filter(|_| !recorded.given)?;
        let (droplet, proof) = owned(look, status, found(seen, ip)?.droplet?)?;
        let rests = is_resting(look, recorded.refused.as_ref());
        (is_marked(droplet, ip) == Some(false) && !rests).then_some(Effect::MarkIp(proof, ip))
    });
    of_held.or_else(|| {
        let (recorded, ip, proof) = pair(look, status, seen)?;
        let droplet = look.cloud()?.droplets.get(&proof.id())?;
        (!recorded.given && is_marked(droplet, ip.ip()) == Some(false))
            .then(|| Effect::MarkIp(proof, ip.ip()))
    })
}

// Whoever may get the address that is shared carries the tag already: when it has to move, nothing is to be done before.
fn mark_ahead(look: &Look<'_>, status: &EgressGatewayStatus) -> Option<Effect> {
    let shared = floating::address(status).filter(|recorded| floating::is_wanted(look) && !recorded.given)?;
    let ip = address(shared)?;
    status.gateways.iter().filter(|gateway| is_proven(gateway)).find_map(|gateway| {
        let id = DropletId(u64::try_from(gateway.droplet_id).ok()?);
        let (droplet, proof) = owned(look, status, id)?;
        let rests = is_resting(look, shared.refused.as_ref());
        (is_marked(droplet, ip) == Some(false) && !rests).then_some(Effect::MarkIp(proof, ip))
    })
}

fn assignment(look: &Look<'_>, status: &EgressGatewayStatus, seen: &ReservedIpsSeen) -> Option<Effect> {
    pair(look, status, seen).map(|(_, ip, droplet)| Effect::AssignIp(ip, droplet))
}

fn pair<'a>(
    look: &'a Look<'_>,
    status: &'a EgressGatewayStatus,
    seen: &'a ReservedIpsSeen,
) -> Option<(&'a ReservedIpStatus, OwnedIp, OwnedDroplet)> {
    if !are_wanted(look) {
        return None;
    }
    needy(look, status).find_map(|(gateway, droplet)| {
        let mut ready = candidates(look, status, seen, gateway)
            .filter(|(recorded, _)| !is_resting(look, recorded.refused.as_ref()));
        ready.next().map(|(recorded, ip)| (recorded, ip, droplet))
    })
}

fn reservation(look: &Look<'_>, status: &EgressGatewayStatus, seen: &ReservedIpsSeen) -> Option<Effect> {
    let reserving = status.reserving_ip.as_ref()?;
    let due = may_be_sent(look, reserving) && !is_resting(look, reserving.refused.as_ref());
    let looked = seen.taken >= reserving.since.0;
    let id = DropletId(u64::try_from(reserving.droplet_id).ok()?);
    let (droplet, proof) = owned(look, status, id).filter(|_| due && looked)?;
    // The request would be refused, and what it holds says whose it is first.
    let holds = seen.addresses.iter().any(|shown| shown.droplet == Some(id));
    (!holds && droplet.locked != Some(true)).then_some(Effect::ReserveIp(proof))
}

fn surplus(look: &Look<'_>, status: &EgressGatewayStatus, seen: &ReservedIpsSeen) -> Option<Effect> {
    let too_many = made(status) > wanted(look) && status.reserving_ip.is_none();
    let mut recorded = status.reserved_ips.iter().filter(|_| too_many);
    recorded.find_map(|recorded| release(look, status, seen, recorded))
}

fn release(
    look: &Look<'_>,
    status: &EgressGatewayStatus,
    seen: &ReservedIpsSeen,
    recorded: &ReservedIpStatus,
) -> Option<Effect> {
    let shown = address(recorded).and_then(|ip| found(seen, ip))?;
    let idle = recorded.assigning.is_none() && !is_resting(look, recorded.refused.as_ref());
    prove_releasable(status, shown).ok().filter(|_| idle).map(Effect::ReleaseIp)
}
