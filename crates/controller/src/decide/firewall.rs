//! The cloud firewall around the gateways: adopted before it is made, made once, kept what it is to be, deleted last.
//!
//! ```text
//!            first gateway that is provably ours      the cloud's answer, or found by its name
//!   nothing ───────────────────────────► intent ───────────────────────────────► kept ──► deleted with the EgressGateway,
//!                                          ▲   └─ no answer: not again before a   │        when no Droplet is left
//!                                          │      settle time is over             │
//!                                          └──────── somebody deleted it ─────────┘
//! ```
//!
//! No gateway waits for it and none is judged by it: without it their own filter keeps strangers out. A refusal is written down and
//! told in `Degraded`, and what was refused is asked for again after a pause.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use egress_api::{EgressGatewayStatus, FirewallStatus, GatewayStatus};
use egress_digitalocean::{DropletId, Firewall, FirewallSpec, FirewallStatus as Progress};
use jiff::Timestamp;

use super::{Look, Presence, addresses, is_leaving};
use crate::decision::Effect;
use crate::firewall::{OwnedFirewall, lets_in, recorded_ids, spec};
use crate::identity::droplet_id;
use crate::observation::{FirewallsSeen, Trouble};

/// Each came of a create whose answer was lost; more than a few would be another program's doing.
const MOST_DOUBLES: usize = 8;

/// Takes over what is ours, forgets what is gone, and writes the intent to have one as soon as there is something to put into it.
pub(super) fn record(look: &Look<'_>, status: &mut EgressGatewayStatus) {
    rest_no_more_if_changed(look, status);
    take_over(look, status);
    forget_refusal(look, status);
    if status.firewall.is_none() && seen(look).is_some() && wanted(look, status, None).is_some() {
        status.firewall = Some(intent(look));
    }
}

/// The same while the EgressGateway is being deleted: what was never asked for, or asked for so long ago that it cannot come any
/// more, is given up.
pub(super) fn record_for_removal(look: &Look<'_>, status: &mut EgressGatewayStatus) {
    rest_no_more_if_changed(look, status);
    take_over(look, status);
    let nothing_can_come = |recorded: &FirewallStatus| {
        recorded.id.is_none() && recorded.doubles.is_empty() && may_be_sent(look, recorded)
    };
    status.firewall = status.firewall.take().filter(|recorded| !nothing_can_come(recorded));
}

/// The call to send now, if any.
pub(super) fn change(look: &Look<'_>, status: &EgressGatewayStatus) -> Option<Effect> {
    let (seen, recorded) = (seen(look)?, status.firewall.as_ref()?);
    if is_resting(look, recorded) {
        return None;
    }
    if let Some(double) = recorded.doubles.first() {
        return delete(look, status, double);
    }
    if recorded.id.is_none() {
        let looked = seen.taken >= recorded.since.0 && may_be_sent(look, recorded);
        let may = looked && !is_name_taken(look, seen);
        return wanted(look, status, None).filter(|_| may).map(Effect::CreateFirewall);
    }
    let kept = kept(look, status)?;
    (!kept.is_as_wanted).then_some(Effect::UpdateFirewall(kept.owned, kept.wanted))
}

/// The delete to send now, if any, when nothing is left that the firewall is for.
pub(super) fn removal(look: &Look<'_>, status: &EgressGatewayStatus) -> Option<Effect> {
    let recorded = status.firewall.as_ref().filter(|recorded| !is_resting(look, recorded))?;
    recorded_ids(recorded).find_map(|id| delete(look, status, id))
}

/// Whether this address reaches a gateway's probe port through the firewall, as far as is known. What is not in force yet admits
/// only whom the gateway admitted before: a witness that does not answer says nothing of whom it was asked about.
pub(super) fn admits(
    look: &Look<'_>,
    status: &EgressGatewayStatus,
    gateway: &GatewayStatus,
    address: Ipv4Addr,
) -> bool {
    let Some(id) = status.firewall.as_ref().and_then(|recorded| recorded.id.as_ref()) else { return true };
    let before = || gateway.admits.contains(&address.to_string());
    let Some(seen) = seen(look) else { return before() };
    let Some(firewall) = found(seen, id).filter(|firewall| is_around(firewall, gateway)) else { return true };
    let in_force = !matches!(firewall.status, Progress::Waiting | Progress::Failed);
    lets_in(firewall, address) && (in_force || before())
}

/// Whether what the firewall lets in was read since then; where there is none, its absence says as much.
pub(super) fn is_known_since(look: &Look<'_>, status: &EgressGatewayStatus, since: Timestamp) -> bool {
    let has_one = status.firewall.as_ref().is_some_and(|recorded| recorded.id.is_some());
    !has_one || seen(look).is_some_and(|seen| seen.taken >= since)
}

/// What is wrong with the firewall, for `Degraded`.
pub(super) fn complaint(look: &Look<'_>, status: &EgressGatewayStatus) -> Option<(&'static str, String)> {
    let trouble =
        look.seen.firewalls.as_ref().err().filter(|_| look.cloud().is_some() && !status.gateways.is_empty());
    if let Some(Trouble { reason, message }) = trouble {
        return Some((reason, message.clone()));
    }
    let recorded = status.firewall.as_ref()?;
    let name = &recorded.name;
    if let Some(message) = not_provably_ours(look, status) {
        return Some(("FirewallNotProvablyOurs", message));
    }
    if let Some(message) = &recorded.message {
        let words = "is not as it should be; gateways work without, kept by their own filter";
        return Some(("FirewallRefused", format!("The cloud firewall {name} {words}: {message}")));
    }
    let firewall = found(seen(look)?, recorded.id.as_ref()?)?;
    let failed = firewall.status == Progress::Failed;
    failed.then(|| {
        (
            "FirewallFailed",
            format!("The cloud says that it could not put firewall {name} into force; it is asked again"),
        )
    })
}

/// Why a firewall that is recorded, or that has our name, is left alone.
pub(super) fn not_provably_ours(look: &Look<'_>, status: &EgressGatewayStatus) -> Option<String> {
    let (seen, recorded) = (seen(look)?, status.firewall.as_ref()?);
    let name = &recorded.name;
    let ours = ours(status);
    seen.firewalls.iter().find_map(|firewall| {
        if recorded_ids(recorded).any(|id| id == firewall.id.as_str()) {
            let refusal = look.identity.prove_firewall(Some(recorded), firewall).err()?;
            return Some(format!(
                "Firewall {} is recorded as {name}, but {refusal}; it is left alone: name it {name} again, or delete it",
                firewall.id
            ));
        }
        let refusal = look.identity.adoptable_firewall(firewall, &ours).err()?;
        let named = recorded.id.is_none() && look.identity.names(firewall);
        named.then(|| {
            format!(
                "Firewall {} has the name {name} that ours is to have, but {refusal}; it is left alone and none is made: \
                 rename or delete it",
                firewall.id
            )
        })
    })
}

/// Whether the outcome of a create is open, one is about to be sent, or a change is not in force yet: until it is, gateways are not
/// asked about each other, and one that leaves with a wrong address is not found.
pub(super) fn is_coming(look: &Look<'_>, status: &EgressGatewayStatus) -> bool {
    let (Some(seen), Some(recorded)) = (seen(look), &status.firewall) else { return false };
    match &recorded.id {
        None => !is_resting(look, recorded) && !is_name_taken(look, seen),
        Some(id) => found(seen, id).is_some_and(|firewall| firewall.status == Progress::Waiting),
    }
}

/// What is known of firewalls. Without a word of Droplets it is nothing: nobody could say whom a firewall is to be around.
pub(super) fn seen<'a>(look: &Look<'a>) -> Option<&'a FirewallsSeen> {
    look.seen.firewalls.as_ref().ok().filter(|_| look.cloud().is_some())
}

// By one that could not be taken over.
fn is_name_taken(look: &Look<'_>, seen: &FirewallsSeen) -> bool {
    seen.firewalls.iter().any(|firewall| look.identity.names(firewall))
}

fn found<'a>(seen: &'a FirewallsSeen, id: &str) -> Option<&'a Firewall> {
    seen.firewalls.iter().find(|firewall| firewall.id.as_str() == id)
}

/// Our firewall, and what it is to be.
struct Kept<'a> {
    firewall: &'a Firewall,
    owned: OwnedFirewall,
    wanted: FirewallSpec,
    /// Nothing is to be asked for: it shows what it is to be, and the cloud has not failed at it.
    is_as_wanted: bool,
}

fn kept<'a>(look: &Look<'a>, status: &EgressGatewayStatus) -> Option<Kept<'a>> {
    let (seen, recorded) = (seen(look)?, status.firewall.as_ref()?);
    let firewall = found(seen, recorded.id.as_ref()?)?;
    let owned = look.identity.prove_firewall(Some(recorded), firewall).ok()?;
    let wanted = wanted(look, status, Some(firewall))?;
    let shows_it = wanted.is_met_by(&without_the_dying(look, status, firewall));
    Some(Kept { firewall, owned, wanted, is_as_wanted: shows_it && firewall.status != Progress::Failed })
}

// Who changed the spec, or deletes, may have mended what was refused, or wants something else.
fn rest_no_more_if_changed(look: &Look<'_>, status: &mut EgressGatewayStatus) {
    let changed = status.observed_generation != look.seen.gateway.metadata.generation;
    if let Some(recorded) = status.firewall.as_mut().filter(|_| changed) {
        rest_no_more(recorded);
    }
}

fn rest_no_more(recorded: &mut FirewallStatus) {
    recorded.not_before = None;
    recorded.refused_since = None;
}

// However it came to be as it should: the answer that said so was lost, a Droplet went, somebody lent a hand.
fn forget_refusal(look: &Look<'_>, status: &mut EgressGatewayStatus) {
    let Some(kept) = kept(look, status).filter(|kept| kept.is_as_wanted) else { return };
    let Some(recorded) = &mut status.firewall else { return };
    // What the cloud failed at before rests until this time has shown that it does not fail again.
    let on_trial = recorded.message.is_none() && kept.firewall.status == Progress::Waiting;
    recorded.message = None;
    if !on_trial {
        rest_no_more(recorded);
    }
}

fn intent(look: &Look<'_>) -> FirewallStatus {
    FirewallStatus {
        name: look.identity.firewall_name(),
        id: None,
        doubles: Vec::new(),
        since: look.time(),
        sent: None,
        message: None,
        refused_since: None,
        not_before: None,
    }
}

// After a refusal, or after the cloud has failed.
fn is_resting(look: &Look<'_>, recorded: &FirewallStatus) -> bool {
    recorded.not_before.as_ref().is_some_and(|until| look.now < until.0)
}

// Nothing was sent, or so long ago that a success would have been seen.
fn may_be_sent(look: &Look<'_>, recorded: &FirewallStatus) -> bool {
    let Some(sent) = &recorded.sent else { return true };
    let settled = |at: jiff::Timestamp| {
        std::time::Duration::try_from(at.duration_since(sent.0)).is_ok_and(|age| age >= look.limits.settle)
    };
    settled(look.now) && seen(look).is_some_and(|seen| settled(seen.taken))
}

fn take_over(look: &Look<'_>, status: &mut EgressGatewayStatus) {
    let Some(seen) = seen(look) else { return };
    let is_there = |id: &String| found(seen, id).is_some();
    if let Some(recorded) = &mut status.firewall {
        recorded.doubles.retain(is_there);
        if !recorded.id.as_ref().is_none_or(is_there) {
            recorded.id = None;
            recorded.since = look.time();
            // Of another one nothing was refused.
            recorded.message = None;
            rest_no_more(recorded);
        }
    }
    let ours = ours(status);
    for firewall in &seen.firewalls {
        let known = status.firewall.iter().flat_map(recorded_ids).any(|id| id == firewall.id.as_str());
        if known || look.identity.adoptable_firewall(firewall, &ours).is_err() {
            continue;
        }
        let recorded = status.firewall.get_or_insert_with(|| intent(look));
        if recorded.doubles.len() < MOST_DOUBLES {
            recorded.doubles.push(firewall.id.as_str().to_owned());
        }
    }
    // The first that is there is as good as any; what it lacks it gets.
    if let Some(recorded) = status.firewall.as_mut().filter(|recorded| recorded.id.is_none())
        && !recorded.doubles.is_empty()
    {
        recorded.id = Some(recorded.doubles.remove(0));
        recorded.sent = None;
        recorded.message = None;
        rest_no_more(recorded);
    }
}

fn ours(status: &EgressGatewayStatus) -> BTreeSet<DropletId> {
    status.gateways.iter().filter_map(droplet_id).collect()
}

fn is_around(firewall: &Firewall, gateway: &GatewayStatus) -> bool {
    droplet_id(gateway).is_some_and(|id| firewall.droplet_ids.contains(&id))
}

// What it is to be, as soon as there is a gateway to put into it. Only what is provably ours is put in; what is in it and ours by
// record stays until it is known to be gone, lest a tag that somebody took off opened a gateway.
fn wanted(look: &Look<'_>, status: &EgressGatewayStatus, has: Option<&Firewall>) -> Option<FirewallSpec> {
    let (site, vpc) = (look.seen.site.as_ref().ok()?, look.vpc()?);
    let is_member = |gateway: &&GatewayStatus| {
        let kept = has.is_some_and(|firewall| is_around(firewall, gateway));
        let joins = match look.presence(gateway) {
            Presence::Found(droplet) => {
                kept || look.identity.prove(&status.gateways, droplet, vpc, &look.nodes).is_ok()
            }
            Presence::Unknown => kept,
            Presence::Gone => false,
        };
        joins
            && !gateway.existing
            && !is_dying(look, gateway)
            && droplet_id(gateway).is_some_and(|id| !look.nodes.contains(&id))
    };
    let members: BTreeSet<DropletId> =
        status.gateways.iter().filter(is_member).filter_map(droplet_id).collect();
    let staying = status.gateways.iter().filter(|gateway| !is_leaving(gateway));
    let addresses = if addresses::are_wanted(look) {
        // Whoever holds them now.
        addresses::public_ips(status).iter().filter_map(|ip| ip.parse().ok()).collect()
    } else {
        staying.filter_map(|gateway| gateway.public_address.as_ref()?.parse().ok()).collect()
    };
    if members.is_empty() && has.is_none() {
        return None;
    }
    spec(&look.identity.firewall_name(), members, &site.sources, &addresses)
}

fn is_dying(look: &Look<'_>, gateway: &GatewayStatus) -> bool {
    droplet_id(gateway).is_some_and(|id| look.seen.delete_accepted.contains_key(&id))
}

// The cloud takes a Droplet out of its firewalls when it is gone; until then it may be in or not.
fn without_the_dying(look: &Look<'_>, status: &EgressGatewayStatus, firewall: &Firewall) -> Firewall {
    let dying: BTreeSet<DropletId> =
        status.gateways.iter().filter(|gateway| is_dying(look, gateway)).filter_map(droplet_id).collect();
    let mut rest = firewall.clone();
    rest.droplet_ids.retain(|id| !dying.contains(id));
    rest
}

fn delete(look: &Look<'_>, status: &EgressGatewayStatus, id: &str) -> Option<Effect> {
    let firewall = found(seen(look)?, id)?;
    look.identity.prove_firewall(status.firewall.as_ref(), firewall).ok().map(Effect::DeleteFirewall)
}
