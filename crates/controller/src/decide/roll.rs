//! Rolling replacement of gateways that work: the new one first, proven; then traffic moves, the old one drains and goes.
//!
//! ```text
//!  chosen ──► made, starting ──► proven: the old one is last in the list, and drains
//!    │             │                 │ nobody uses it, or the deadline
//!    │             │                 ▼
//!    │             │             Leaving ──► let go of, deleted ──► ended
//!    │             └─ never proven, lost, or failed again ────────► stopped, until the spec or the user data changes
//!    └─ another gateway fails, the number changes, there is no reason any more ──► dropped: repair and number come first
//! ```
//!
//! - One at a time, only while all gateways that were asked for work, and the one that carries the traffic last.
//! - What a node uses by its own choice is never taken away: a roll that comes to that is held, and says which node it is.
//! - Until its Droplet is asked to go, the old one is taken back should too few others work.

use std::time::Duration;

use egress_api::condition::{PROGRESSING, Verdict};
use egress_api::{EgressGatewayStatus, GatewayRole, GatewayStatus, NextRoll, NodeRoute, Roll, RouteMode};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::conditions::{in_words, verdict};
use super::outdated::{self, Outdated, outdated};
use super::{Look, Presence, creation, is_leaving, is_proven, population, route};
use crate::identity::droplet_id;
use crate::observation::NodeSeen;

// Nodes hear of a new order some time after it was written, and count `drainSeconds` from then.
const SLACK: Duration = Duration::from_secs(60);

// So coarse is the countdown: each step is a write of the status.
const STEP: i64 = 10;

/// Goes on with the roll that is under way, or begins one, and says which comes next.
pub(super) fn plan(look: &Look<'_>, status: &mut EgressGatewayStatus) {
    outdated::note(look, status);
    status.roll = match status.roll.take() {
        Some(roll) if roll.is_under_way() => go_on(look, status, roll),
        Some(roll) if roll.failure.is_some() && is_another_try(look, &roll) => begin(look, status),
        Some(roll) if roll.failure.is_some() || !is_rested(look, &roll) => Some(roll),
        last => begin(look, status).or(last),
    };
    status.next_roll = next(look, status);
}

/// Whether this gateway makes room for a new one.
pub(super) fn is_rolled(status: &EgressGatewayStatus, gateway: &GatewayStatus) -> bool {
    under_way(status).is_some_and(|roll| roll.from_droplet_id == gateway.droplet_id)
}

/// Whether new connections should go elsewhere, though this gateway works.
pub(super) fn is_drained(status: &EgressGatewayStatus, gateway: &GatewayStatus) -> bool {
    is_rolled(status, gateway) && under_way(status).is_some_and(|roll| roll.drain_since.is_some())
}

/// The roll that goes on, if any.
pub(super) fn under_way(status: &EgressGatewayStatus) -> Option<&Roll> {
    status.roll.as_ref().filter(|roll| roll.is_under_way())
}

/// Whether one goes on, or is due and waits until all has been well for a while.
pub(super) fn is_awaited(look: &Look<'_>, status: &EgressGatewayStatus) -> bool {
    let stopped = status.roll.as_ref().is_some_and(|roll| roll.failure.is_some());
    let is_due = |gateway| is_outdated(look, status, gateway);
    under_way(status).is_some() || (!stopped && status.gateways.iter().any(is_due))
}

/// Whether a gateway is not as it should be, so that of too many it is the one to go.
pub(super) fn is_outdated(look: &Look<'_>, status: &EgressGatewayStatus, gateway: &GatewayStatus) -> bool {
    outdated(look, status, gateway).is_some_and(|outdated| outdated.is_due(look))
}

fn go_on(look: &Look<'_>, status: &mut EgressGatewayStatus, mut roll: Roll) -> Option<Roll> {
    let Some(from) = find(status, roll.from_droplet_id).cloned() else {
        // Gone before its successor worked: that is a loss, and repair's affair.
        let replaced = roll.drain_since.is_some();
        roll.ended = Some(look.time());
        roll.drain_seconds_left = None;
        return replaced.then_some(roll);
    };
    if is_leaving(&from) {
        return if take_back(look, status, &from) { None } else { Some(roll) };
    }
    note_successor(status, &mut roll);
    let successor = roll.to_droplet_id.and_then(|id| find(status, id)).filter(|to| !is_leaving(to)).cloned();
    if let Some(why) = failure(status, &roll, successor.as_ref()) {
        roll.failure = Some(why);
        roll.drain_seconds_left = None;
        return Some(roll);
    }
    let is_other = |one: &&GatewayStatus| {
        one.droplet_id != roll.from_droplet_id && Some(one.droplet_id) != roll.to_droplet_id
    };
    let others_work = status.gateways.iter().filter(is_other).all(is_proven);
    let staying = status.gateways.iter().filter(|one| !is_leaving(one)).count();
    let as_many = staying == look.replicas + usize::from(successor.is_some());
    let has_reason = outdated(look, status, &from).is_some();
    if !(from.ready && others_work && as_many && has_reason) {
        return None;
    }
    if successor.as_ref().is_some_and(is_proven) {
        drain(look, status, &mut roll, &from);
    }
    Some(roll)
}

// A gateway that has just been made, whoever found it.
fn note_successor(status: &EgressGatewayStatus, roll: &mut Roll) {
    let is_new = |one: &&GatewayStatus| match roll.to_droplet_id {
        Some(id) => one.droplet_id == id,
        None => one.role == GatewayRole::Starting && one.droplet_id != roll.from_droplet_id,
    };
    if let Some(to) = status.gateways.iter().find(is_new) {
        if let Some(version) = to.user_data_version.as_ref().filter(|_| roll.to_droplet_id.is_none()) {
            roll.user_data_version.clone_from(version);
        }
        roll.to = Some(to.name.clone());
        roll.to_droplet_id = Some(to.droplet_id);
        roll.to_public_address.clone_from(&to.public_address);
    }
}

// Why the successor that was made is none.
fn failure(status: &EgressGatewayStatus, roll: &Roll, successor: Option<&GatewayStatus>) -> Option<String> {
    roll.to_droplet_id?;
    let name = roll.to.as_deref().unwrap_or_default();
    match successor {
        None => {
            let last = status.last_bring_up_failure.clone();
            Some(last.unwrap_or_else(|| format!("Droplet {name} is gone")))
        }
        Some(to) if to.role == GatewayRole::Failed => {
            Some(format!("it failed after it was proven: {}", in_words(to)))
        }
        // The next one would be no better.
        Some(to) if to.ready => {
            to.user_data_version.as_ref().filter(|says| **says != roll.user_data_version).map(|says| {
                let made = &roll.user_data_version;
                format!("{name} was made with version {made} of the user data and says that it runs {says}")
            })
        }
        Some(_) => None,
    }
}

// Who leaves and is still there is better than nobody.
fn take_back(look: &Look<'_>, status: &mut EgressGatewayStatus, from: &GatewayStatus) -> bool {
    let proven = status.gateways.iter().filter(|one| is_proven(one)).count();
    let asked_to_go = look
        .cloud()
        .is_none_or(|cloud| droplet_id(from).is_none_or(|id| cloud.delete_accepted.contains_key(&id)));
    let there = matches!(look.presence(from), Presence::Found(_));
    let takes = proven < look.replicas && from.ready && there && !asked_to_go;
    for gateway in status.gateways.iter_mut().filter(|one| takes && one.droplet_id == from.droplet_id) {
        gateway.role = GatewayRole::Standby;
    }
    takes
}

fn drain(look: &Look<'_>, status: &mut EgressGatewayStatus, roll: &mut Roll, from: &GatewayStatus) {
    let seconds = u64::try_from(look.seen.gateway.spec.drain_seconds).unwrap_or_default();
    let longest = Duration::from_secs(seconds) + if seconds == 0 { Duration::ZERO } else { SLACK };
    let since = roll.drain_since.get_or_insert_with(|| look.time()).clone();
    let until = since.0.checked_add(longest).unwrap_or(since.0);
    roll.drain_until = Some(Time(until));
    let left = until.duration_since(look.now).as_secs().max(0);
    roll.drain_seconds_left = Some((left + STEP - 1) / STEP * STEP);
    let use_of_it = UseOf::seen(look, from);
    let over = match look.seen.gateway.spec.mode {
        RouteMode::ActiveStandby => use_of_it.by_choice.is_none() && (use_of_it.draining == 0 || left == 0),
        // Who shares does not say when nobody is left.
        RouteMode::ActiveActive => left == 0,
    };
    if over && use_of_it.is_ordered {
        roll.drain_seconds_left = Some(0);
        for gateway in status.gateways.iter_mut().filter(|one| one.droplet_id == from.droplet_id) {
            gateway.role = GatewayRole::Leaving;
        }
    }
}

/// Who uses a gateway that comes last in the list.
struct UseOf<'a> {
    /// Every live node has the list with it last, or as the one that is to be left.
    is_ordered: bool,
    /// The first node that has not heard of that.
    behind: Option<&'a str>,
    /// A node that uses it for new connections all the same: the others do not work for it, or it was not told.
    by_choice: Option<&'a str>,
    /// Nodes with open connections through it.
    draining: usize,
}

impl<'a> UseOf<'a> {
    fn seen(look: &Look<'a>, gateway: &GatewayStatus) -> Self {
        let own = route::ours(look);
        let uid = own.and_then(|route| route.metadata.uid.as_ref());
        let is_meant = |entry: &&NodeRoute| {
            Some(&entry.uid) == uid || look.seen.followers.iter().any(|follower| follower.uid == entry.uid)
        };
        let address = gateway.private_address.as_ref();
        let entries = |node: &'a NodeSeen| {
            let routes = node.report.as_ref().map(|report| report.routes.as_slice()).unwrap_or_default();
            routes.iter().filter(&is_meant)
        };
        let uses = |node: &&'a NodeSeen| {
            entries(node).any(|entry| entry.gateways_in_use().any(|used| Some(used) == address))
        };
        let drains = |node: &&'a NodeSeen| entries(node).any(|entry| entry.draining.as_ref() == address);
        let selector = look.seen.gateway.spec.node_selector.as_ref();
        let behind =
            look.seen.live_nodes().filter(|node| node.should_route(selector)).find(|node| {
                own.is_none_or(|own| route::nodes_applied(own, std::slice::from_ref(*node)).0 == 0)
            });
        let listed_last =
            route::current_list(look).last().is_some_and(|last| Some(&last.address.0) == address);
        let shared = look.seen.gateway.spec.mode == RouteMode::ActiveActive;
        Self {
            is_ordered: listed_last && behind.is_none(),
            behind: behind.map(|node| node.name.as_str()),
            by_choice: look.seen.live_nodes().find(uses).filter(|_| !shared).map(|node| node.name.as_str()),
            draining: look.seen.live_nodes().filter(drains).count(),
        }
    }
}

// A stopped roll is tried again when what it was about has changed.
fn is_another_try(look: &Look<'_>, roll: &Roll) -> bool {
    let changed = look.before.observed_generation != look.seen.gateway.metadata.generation;
    let site = look.seen.site.as_ref().ok();
    changed || site.is_some_and(|site| site.user_data.version != roll.user_data_version)
}

fn is_rested(look: &Look<'_>, roll: &Roll) -> bool {
    roll.ended.as_ref().is_none_or(|ended| look.since(ended) >= look.limits.roll_pause)
}

fn begin(look: &Look<'_>, status: &EgressGatewayStatus) -> Option<Roll> {
    let site = look.seen.site.as_ref().ok()?;
    if !is_calm(look, status) || population::is_held(look) {
        return None;
    }
    // The last of the list carries the least.
    let order = route::order(look, status);
    let due =
        |gateway: &GatewayStatus| outdated(look, status, gateway).filter(|outdated| outdated.is_due(look));
    let (from, Outdated { reason, .. }) =
        order.into_iter().rev().find_map(|gateway| Some((gateway, due(gateway)?)))?;
    Some(Roll {
        since: look.time(),
        reason,
        impact: impact(look, from),
        from: from.name.clone(),
        from_droplet_id: from.droplet_id,
        from_public_address: from.public_address.clone(),
        to: None,
        to_droplet_id: None,
        to_public_address: None,
        drain_since: None,
        drain_until: None,
        drain_seconds_left: None,
        ended: None,
        failure: None,
        user_data_version: site.user_data.version.clone(),
    })
}

// All that were asked for work and have done so for a while, every node that lives uses them, and nothing else is under way.
fn is_calm(look: &Look<'_>, status: &EgressGatewayStatus) -> bool {
    let steady = |gateway: &GatewayStatus| {
        let since = gateway.since.as_ref().map_or(Duration::ZERO, |since| look.since(since));
        is_proven(gateway) && gateway.suspect_since.is_none() && since >= look.limits.roll_pause
    };
    let routed = route::ours(look).is_some_and(|route| {
        let (applied, live) = route::nodes_applied(route, &look.seen.nodes);
        applied == live && live > 0
    });
    look.cloud().is_some()
        && routed
        && status.gateways.len() == look.replicas
        && status.gateways.iter().all(steady)
        && status.creating.is_empty()
        && creation::strangers(look, status).is_empty()
        && !population::has_given_up(status)
}

fn next(look: &Look<'_>, status: &EgressGatewayStatus) -> Option<NextRoll> {
    if under_way(status).is_some() || status.roll.as_ref().is_some_and(|roll| roll.failure.is_some()) {
        return None;
    }
    let when = |gateway| {
        let Outdated { reason, not_before } = outdated(look, status, gateway)?;
        Some((not_before?, gateway, reason))
    };
    let coming = status.gateways.iter().filter(|gateway| is_proven(gateway)).filter_map(when);
    let (not_before, gateway, reason) = coming.min_by_key(|(not_before, ..)| *not_before)?;
    Some(NextRoll {
        not_before: Time(not_before),
        gateway: gateway.name.clone(),
        reason,
        impact: impact(look, gateway),
    })
}

fn impact(look: &Look<'_>, from: &GatewayStatus) -> String {
    let name = &from.name;
    let drain = look.seen.gateway.spec.drain_seconds;
    let address = from.public_address.as_deref().unwrap_or("an address not known");
    let alone = if look.replicas == 1 { ", with one replica too" } else { "" };
    format!(
        "No gap is expected{alone}: the new one is proven before new connections move to it; open ones keep {name} until they are \
         idle, {drain} s at most. {address} goes with {name}, and the new one has another address"
    )
}

/// Progressing while a roll is under way.
pub(super) fn progress(look: &Look<'_>, status: &EgressGatewayStatus) -> Option<Verdict> {
    let roll = under_way(status)?;
    let Roll { from, reason, impact, .. } = roll;
    let successor = roll.to_droplet_id.and_then(|id| find(status, id));
    let doing = match (find(status, roll.from_droplet_id), successor) {
        (Some(old), _) if is_leaving(old) => format!("{from} is let go of and deleted"),
        (_, Some(new)) if !new.ready => format!("its successor comes up: {}", in_words(new)),
        (Some(old), Some(new)) => draining(look, roll, old, new),
        _ => match status.creating.first() {
            Some(intent) => match &intent.message {
                Some(refusal) => format!("the cloud refuses to make {}: {refusal}", intent.name),
                None => format!("{} is being made", intent.name),
            },
            None => "its successor is about to be made".to_owned(),
        },
    };
    Some(verdict(
        PROGRESSING,
        true,
        "Rolling",
        format!("{from} is replaced: {reason}. Now {doing}. {impact}"),
    ))
}

fn draining(look: &Look<'_>, roll: &Roll, old: &GatewayStatus, new: &GatewayStatus) -> String {
    let seen = UseOf::seen(look, old);
    let left = roll.drain_seconds_left.unwrap_or_default();
    let (from, to) = (&old.name, &new.name);
    let users = match (look.seen.gateway.spec.mode, seen.draining) {
        (RouteMode::ActiveActive, _) => "nothing new comes to it".to_owned(),
        (RouteMode::ActiveStandby, 0) => "no node has said that connections use it".to_owned(),
        (RouteMode::ActiveStandby, 1) => "connections of one node use it".to_owned(),
        (RouteMode::ActiveStandby, many) => format!("connections of {many} nodes use it"),
    };
    format!("{to} is proven, and {from} drains: {users}, and what is left is moved in {left} s at the latest")
}

/// What keeps a roll from its end, and what to do.
pub(super) fn trouble(look: &Look<'_>, status: &EgressGatewayStatus) -> Option<(&'static str, String)> {
    let roll = status.roll.as_ref()?;
    if let Some(failure) = &roll.failure {
        let Roll { from, reason, .. } = roll;
        return Some((
            "RollStopped",
            format!(
                "{from} was to be replaced ({reason}), and its successor did not hold: {failure}. {from} works on. Look at size and \
                 image of this object, or at the version of the controller, and take back or mend what was changed; any change of \
                 the spec begins anew"
            ),
        ));
    }
    let from =
        find(status, roll.from_droplet_id).filter(|from| !is_leaving(from) && is_drained(status, from))?;
    if roll.drain_seconds_left != Some(0) {
        return None;
    }
    let seen = UseOf::seen(look, from);
    let name = &from.name;
    let words = match (seen.behind, seen.by_choice) {
        (Some(node), _) => format!("{node} has not heard that it shall leave {name}: its agent must run"),
        (None, Some(node)) => format!(
            "{node} uses {name} all the same: the other gateways do not work for it, and its NodeEgress says why"
        ),
        (None, None) => return None,
    };
    Some((
        "RollHeld",
        format!(
            "{name} is to be replaced and stays while a node needs it. {words}; if the node is beyond help, delete its Node"
        ),
    ))
}

fn find(status: &EgressGatewayStatus, id: i64) -> Option<&GatewayStatus> {
    status.gateways.iter().find(|gateway| gateway.droplet_id == id)
}
