//! Who works. A gateway is proven by its own word and by packets that got through it; it is condemned by what a quorum of nodes
//! sees, whatever its own word is, or by the cloud when that says that it is off.
//!
//! ```text
//!              endpoint ready, a node got through, with
//!              full packets, and with the expected address
//!   Starting ─────────────────────────────────────────► Active / Standby ◄─────────┐
//!      │                                                      │                    │ the same
//!      │ bring-up time is over                                │ off at once;       │ proof again
//!      ▼                                                      │ condemned for 3 s  │
//!   Leaving ◄──── population: replaced, surplus ──── Failed ◄─┘ ───────────────────┘
//!      │                                               └── repair: power on, power cycle
//!      └──► gone: the entry is dropped when the cloud says 404
//! ```
//!
//! Condemned is who fails by difference: a quorum of nodes says so and another gateway stands. Where none stands there is no
//! difference, and only two words together condemn: no answer to a quorum of nodes, and none to us either. Its own endpoint
//! alone condemns nobody: a health server may hang while the kernel forwards, and one that complains answers.
//!
//! In a pair the wrong address of one looks like the shut probe port of the other. So where nodes see no more than that, whether the other
//! one is let to be asked is looked at first ([`may_be_the_filter`]).

use std::net::Ipv4Addr;

use egress_api::{EgressGatewayStatus, GatewayObservation, GatewayRole, GatewayStatus, Replacement};
use egress_digitalocean::Droplet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::addresses::floating;
use super::quorum::{Ballot, ballot, complaint};
use super::{Look, Presence, addresses, admits, is_leaving, is_proven, repair};
use crate::decision::CONDEMNED_AFTER;
use crate::identity::droplet_id;
use crate::observation::HealthSeen;

/// Brings addresses, readiness and suspicion of every recorded gateway up to date, and drops those that are gone.
pub(super) fn judge(look: &Look<'_>, status: &mut EgressGatewayStatus) {
    drop_what_is_gone(look, status);
    let verdicts: Vec<Verdict> =
        status.gateways.iter().map(|gateway| Verdict::of(look, status, gateway)).collect();
    let mut proven = Vec::new();
    for (gateway, verdict) in status.gateways.iter_mut().zip(verdicts) {
        if is_leaving(gateway) {
            continue;
        }
        let before = (gateway.ready, gateway.role);
        match verdict {
            Verdict::Works => approve(look, gateway),
            Verdict::Condemned(why) => condemn(look, gateway, why),
            Verdict::Doubtful(why) => doubt(gateway, why),
        }
        if gateway.ready && !before.0 {
            proven.push((gateway.clone(), before.1 == GatewayRole::Starting));
        }
    }
    for (gateway, is_new) in proven {
        status.failed_bring_ups = None;
        status.last_bring_up_failure = None;
        repair::note_successor(status, &gateway, is_new);
    }
}

/// One more Droplet in a row that never became ready.
pub(super) fn failed_bring_up(status: &mut EgressGatewayStatus, failure: String) {
    status.failed_bring_ups = Some(status.failed_bring_ups.unwrap_or_default().saturating_add(1));
    status.last_bring_up_failure = Some(failure);
}

/// What this gateway's endpoint says, if it was asked.
pub(super) fn health<'a>(look: &Look<'a>, gateway: &GatewayStatus) -> Option<&'a HealthSeen> {
    droplet_id(gateway).and_then(|id| look.seen.health.get(&id))
}

/// Whether it answers, whatever it says.
pub(super) fn answers(look: &Look<'_>, gateway: &GatewayStatus) -> bool {
    health(look, gateway).is_some_and(|seen| !matches!(seen, HealthSeen::Silent(_)))
}

/// Whether another gateway than this one carries traffic: proven, powered, with nodes that get through it and no quorum
/// against it.
pub(super) fn another_stands(look: &Look<'_>, status: &EgressGatewayStatus, gateway: &GatewayStatus) -> bool {
    let others = status.gateways.iter().filter(|other| other.droplet_id != gateway.droplet_id);
    others.filter(|other| other.ready && !is_leaving(other)).any(|other| {
        let ballot = ballot(look, other);
        ballot.through > 0 && !ballot.condemns() && is_there(look, other)
    })
}

/// How many others would carry the traffic without this one: proven, there, with no quorum against them, and with nodes that get through
/// them wherever some get through this one.
pub(super) fn others_that_stand(
    look: &Look<'_>,
    status: &EgressGatewayStatus,
    gateway: &GatewayStatus,
) -> usize {
    let through = ballot(look, gateway).through;
    let stands = |other: &&GatewayStatus| {
        let ballot = ballot(look, other);
        is_proven(other)
            && is_there(look, other)
            && !ballot.condemns()
            && (ballot.through > 0 || through == 0)
    };
    let others = status.gateways.iter().filter(|other| other.droplet_id != gateway.droplet_id);
    others.filter(stands).count()
}

/// Whether nodes condemn it for nothing but its address, and nobody can say that probes through it are let in where they ask: no firewall
/// and no filter is known to be in order since that began. Nothing that cannot be taken back is done on such a word.
pub(super) fn may_be_the_filter(
    look: &Look<'_>,
    status: &EgressGatewayStatus,
    gateway: &GatewayStatus,
) -> bool {
    // Where an address moves, targets are asked and no filters.
    !floating::is_wanted(look)
        && ballot(look, gateway).condemns_by_source_alone()
        && !admits::is_surely_let_in(look, status, gateway)
}

/// Whether packets of a node get through it, by its own word and by theirs, and no quorum is against it.
pub(super) fn gets_through(look: &Look<'_>, gateway: &GatewayStatus) -> bool {
    let ballot = ballot(look, gateway);
    // Of a Droplet that people named nobody is asked but the nodes.
    let says_so = gateway.existing
        || match health(look, gateway) {
            Some(HealthSeen::Ready { .. }) => true,
            // The address that it lacks is at another one.
            Some(HealthSeen::Awaiting { .. }) => floating::is_wanted(look),
            _ => false,
        };
    says_so && ballot.through > 0 && !ballot.condemns() && is_there(look, gateway)
}

enum Verdict {
    Works,
    Condemned(String),
    // Neither proven nor condemned; for one that was proven, the words are a worry at most.
    Doubtful(Option<String>),
}

impl Verdict {
    fn of(look: &Look<'_>, status: &EgressGatewayStatus, gateway: &GatewayStatus) -> Self {
        let ballot = ballot(look, gateway);
        let endpoint = health(look, gateway);
        // One that complains has answered.
        let endpoint_silent = matches!(endpoint, Some(HealthSeen::Silent(_)));
        let endpoint_silent = endpoint_silent || gateway.existing;
        if repair::is_off_in_the_cloud(look, gateway) {
            return Self::Condemned("the cloud says that it is powered off".to_owned());
        }
        if let Some(words) = addresses::lacks(look, status, gateway) {
            // Whatever it forwards leaves with another address, or not at all.
            if !gateway.ready {
                return Self::Doubtful(Some(words));
            }
            if another_stands(look, status, gateway) {
                return Self::Condemned(words);
            }
            return Self::Doubtful(Some(format!("{words}; no other gateway works, so it stays")));
        }
        if let Some(words) = floating::is_unseen(look, status, gateway) {
            if gateway.ready && another_stands(look, status, gateway) {
                return Self::Condemned(words);
            }
            return Self::Doubtful(Some(words));
        }
        let asks_peers = !floating::is_wanted(look);
        if asks_peers && ballot.condemns_by_source_alone() && !admits::is_let_in(look, status, gateway) {
            let words = why_not(look, gateway, &ballot);
            return Self::Doubtful(Some(format!(
                "{words}; but no gateway lets its probes in now, so that may be a filter's fault, and it stays"
            )));
        }
        let by_difference = ballot.condemns() && another_stands(look, status, gateway);
        let by_silence = endpoint_silent && ballot.finds_it_silent();
        if by_difference || by_silence {
            return Self::Condemned(why_not(look, gateway, &ballot));
        }
        if gets_through(look, gateway) {
            let missing = if gateway.ready { None } else { missing_witness(look, status, gateway) };
            return missing.map_or(Self::Works, |words| Self::Doubtful(Some(words)));
        }
        if !gateway.ready {
            return Self::Doubtful(Some(why_not(look, gateway, &ballot)));
        }
        Self::Doubtful(match endpoint {
            Some(HealthSeen::NotReady(words) | HealthSeen::Silent(words)) => {
                Some(format!("its own endpoint: {words}; the nodes do not agree, so it stays"))
            }
            Some(HealthSeen::Awaiting { .. }) => Some(
                "its own endpoint: it has no reserved address; the nodes do not agree, so it stays"
                    .to_owned(),
            ),
            _ if ballot.condemns() => {
                let words = why_not(look, gateway, &ballot);
                Some(format!("{words}; no other gateway works, so it stays"))
            }
            _ => None,
        })
    }
}

fn is_there(look: &Look<'_>, gateway: &GatewayStatus) -> bool {
    !matches!(look.presence(gateway), Presence::Gone) && !repair::is_off_in_the_cloud(look, gateway)
}

// What keeps a gateway out that packets get through: what else has to be seen of it, as far as anybody can tell. What nobody can tell keeps
// nobody out for ever.
fn missing_witness(look: &Look<'_>, status: &EgressGatewayStatus, gateway: &GatewayStatus) -> Option<String> {
    let waited = gateway.since.as_ref().is_some_and(|since| look.since(since) >= look.limits.bring_up / 2);
    unseen_address(look, status, gateway, waited).or_else(|| unseen_full_size(look, status, gateway, waited))
}

// The outside has to see the address that it should. Only a proven peer that admits the new one can be asked.
fn unseen_address(
    look: &Look<'_>,
    status: &EgressGatewayStatus,
    gateway: &GatewayStatus,
    waited: bool,
) -> Option<String> {
    if floating::is_wanted(look) {
        let held = addresses::held_by(status, gateway).filter(|_| !floating::is_seen(look, gateway))?;
        return Some(format!("no node sees {} through it yet", held.ip));
    }
    let public = gateway.public_address.as_ref()?;
    let admits = |peer: &&GatewayStatus| {
        peer.droplet_id != gateway.droplet_id && is_proven(peer) && peer.admits.contains(public)
    };
    let peer = status.gateways.iter().find(admits)?;
    let sources: Vec<Option<bool>> = views(look, gateway).map(|view| view.expected_source).collect();
    if sources.contains(&Some(true)) {
        return None;
    }
    if sources.contains(&Some(false)) {
        return Some(format!(
            "{} does not answer through it: it leaves with another address than {public}, or is not let in there",
            peer.name
        ));
    }
    (!waited).then(|| format!("no node has asked {} yet with which address it leaves", peer.name))
}

// Packets of full size have to get through it. Where they get through no other one it may be the targets, which do not answer such.
fn unseen_full_size(
    look: &Look<'_>,
    status: &EgressGatewayStatus,
    gateway: &GatewayStatus,
    waited: bool,
) -> Option<String> {
    let seen = |one: &GatewayStatus, said| views(look, one).any(|view| view.full_size == Some(said));
    if seen(gateway, true) {
        return None;
    }
    let is_swallowed = seen(gateway, false);
    let mut others = status.gateways.iter().filter(|other| other.droplet_id != gateway.droplet_id);
    if is_swallowed && let Some(other) = others.find(|other| is_proven(other) && seen(other, true)) {
        return Some(format!("packets of full size do not get through it, and do through {}", other.name));
    }
    let words = if is_swallowed {
        "packets of full size do not get through it, and no other gateway tells yet whether that is its fault"
    } else {
        "no node has got a packet of full size through it yet"
    };
    (!waited).then(|| words.to_owned())
}

/// What nodes say of it.
pub(super) fn views<'a>(
    look: &Look<'a>,
    gateway: &GatewayStatus,
) -> impl Iterator<Item = &'a GatewayObservation> {
    let address = gateway.private_address.clone();
    let reports = look.seen.nodes_that_speak().filter_map(|node| node.report.as_ref());
    reports.flat_map(|report| &report.gateways).filter(move |view| Some(&view.address) == address.as_ref())
}

fn drop_what_is_gone(look: &Look<'_>, status: &mut EgressGatewayStatus) {
    let mut failures = Vec::new();
    let mut lost = None;
    let reserved = addresses::are_wanted(look).then(|| status.clone());
    status.gateways.retain_mut(|gateway| match look.presence(gateway) {
        // Its owner may have deleted it; the nodes see for themselves.
        Presence::Gone if gateway.existing => true,
        Presence::Gone if gateway.role == GatewayRole::Starting => {
            match lost_bring_up(look, gateway) {
                Some(failure) => failures.push(failure),
                None => return true,
            }
            false
        }
        Presence::Gone => {
            if !is_leaving(gateway) {
                lost = Some(gateway.clone());
            }
            false
        }
        Presence::Found(droplet) => {
            take_facts(look, gateway, droplet);
            take_addresses(gateway, droplet, reserved.as_ref());
            true
        }
        Presence::Unknown => true,
    });
    for failure in failures {
        failed_bring_up(status, failure);
    }
    if let Some(lost) = lost {
        note_loss(look, status, &lost);
    }
}

// So that its successor's event can name both addresses. A replacement that is under way keeps its record.
fn note_loss(look: &Look<'_>, status: &mut EgressGatewayStatus, lost: &GatewayStatus) {
    let there = |id| status.gateways.iter().any(|gateway| gateway.droplet_id == id);
    let under_way = |last: &Replacement| {
        last.to.is_none() && (there(last.from_droplet_id) || last.from_droplet_id == lost.droplet_id)
    };
    if !status.last_replacement.as_ref().is_some_and(under_way) {
        status.last_replacement = Some(repair::replacement(look, lost, "its Droplet is gone".to_owned()));
    }
}

fn lost_bring_up(look: &Look<'_>, gateway: &GatewayStatus) -> Option<String> {
    let waited = gateway.since.as_ref().is_some_and(|since| look.since(since) >= look.limits.lost_after);
    let (name, id) = (&gateway.name, gateway.droplet_id);
    waited.then(|| format!("the cloud accepted Droplet {name} ({id}) and then had none"))
}

// Addresses may come later than `active`, and one at a time. A reserved one is the Droplet's as long as it is assigned.
fn take_addresses(gateway: &mut GatewayStatus, droplet: &Droplet, reserved: Option<&EgressGatewayStatus>) {
    if let Some(address) = droplet.private_v4() {
        gateway.private_address = Some(address.to_string());
    }
    if let Some(status) = reserved.filter(|_| !gateway.existing) {
        gateway.public_address = addresses::held_by(status, gateway).map(|held| held.ip.clone());
        return;
    }
    // One that somebody assigned is shown beside its own.
    let known = gateway.public_address.as_ref().and_then(|address| address.parse::<Ipv4Addr>().ok());
    let still = known.is_some_and(|known| droplet.v4.iter().any(|shown| shown.ip == known));
    if let Some(address) = droplet.public_v4(&[]).filter(|_| !still) {
        gateway.public_address = Some(address.to_string());
    }
}

fn take_facts(look: &Look<'_>, gateway: &mut GatewayStatus, droplet: &Droplet) {
    // Somebody may have resized it.
    if let Some(size) = &droplet.size_slug {
        gateway.size = Some(size.as_str().to_owned());
    }
    // The slug moves on to newer images.
    gateway.image = gateway.image.take().or_else(|| droplet.image_slug.clone());
    gateway.created.get_or_insert_with(|| droplet.created_at.map_or_else(|| look.time(), Time));
}

fn approve(look: &Look<'_>, gateway: &mut GatewayStatus) {
    if let Some(
        HealthSeen::Ready { version: Some(version), .. } | HealthSeen::Awaiting { version: Some(version) },
    ) = health(look, gateway)
    {
        gateway.user_data_version = Some(version.clone());
    }
    gateway.suspect_since = None;
    gateway.message = None;
    if !gateway.ready {
        gateway.ready = true;
        gateway.role = GatewayRole::Standby;
    }
}

fn condemn(look: &Look<'_>, gateway: &mut GatewayStatus, why: String) {
    gateway.message = Some(why);
    if !gateway.ready && gateway.role != GatewayRole::Failed {
        gateway.role = GatewayRole::Starting;
        return;
    }
    let suspect_since = gateway.suspect_since.get_or_insert_with(|| look.time()).clone();
    // Without its reserved address it carries nothing: there is nothing to wait for.
    let without_address = addresses::each_has_one(look) && gateway.public_address.is_none();
    let at_once = repair::is_off_in_the_cloud(look, gateway) || without_address;
    if at_once || look.since(&suspect_since) >= CONDEMNED_AFTER {
        gateway.ready = false;
        gateway.role = GatewayRole::Failed;
    }
}

fn doubt(gateway: &mut GatewayStatus, why: Option<String>) {
    gateway.suspect_since = None;
    gateway.message = why;
    if !gateway.ready && gateway.role != GatewayRole::Failed {
        gateway.role = GatewayRole::Starting;
    }
}

fn why_not(look: &Look<'_>, gateway: &GatewayStatus, ballot: &Ballot<'_>) -> String {
    match look.presence(gateway) {
        Presence::Gone => return "the cloud has accepted it and does not show it yet".to_owned(),
        Presence::Unknown if ballot.complaining.is_empty() => {
            return "the cloud was not asked or did not answer".to_owned();
        }
        Presence::Unknown | Presence::Found(_) => {}
    }
    if gateway.private_address.is_none() {
        return "the cloud has given it no address in the VPC yet".to_owned();
    }
    let nodes = match complaint(ballot) {
        Some((_, words)) => words,
        None if ballot.reporting == 0 => "no node has tried it yet".to_owned(),
        None => format!("of {} nodes {} get through it", ballot.reporting, ballot.through),
    };
    match health(look, gateway) {
        Some(HealthSeen::Awaiting { .. }) => format!("its own endpoint: it has no reserved address; {nodes}"),
        Some(HealthSeen::NotReady(words)) => format!("its own endpoint: {words}; {nodes}"),
        Some(HealthSeen::Silent(words)) => format!("its own endpoint does not answer ({words}); {nodes}"),
        Some(HealthSeen::Ready { .. }) | None => nodes,
    }
}
