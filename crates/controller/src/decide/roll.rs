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
//! With reserved addresses a new Droplet can carry nothing before it has the old one's: `hand_over`.
//!
//! - One at a time, only while all gateways that were asked for work, and the one that carries the traffic last.
//! - What a node uses by its own choice is never taken away: a roll that comes to that is held, and says which node it is.
//! - Until its Droplet is asked to go, the old one is taken back should too few others work.

mod hand_over;
mod words;

use std::time::Duration;

use egress_api::{EgressGatewayStatus, GatewayRole, GatewayStatus, NextRoll, NodeRoute, Roll, RouteMode};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::conditions::in_words;
use super::outdated::{self, Outdated, outdated};
use super::{Look, addresses, creation, is_leaving, is_proven, population, route};
use crate::observation::NodeSeen;

pub(super) use hand_over::keeps;
use words::impact;
pub(super) use words::{progress, trouble};

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
        note_successor(status, &mut roll);
        roll.ended = Some(look.time());
        roll.drain_seconds_left = None;
        return replaced.then_some(roll);
    };
    let hands_over = addresses::each_has_one(look);
    if is_leaving(&from) && !hands_over {
        return if population::take_back(look, status, &from) { None } else { Some(roll) };
    }
    note_successor(status, &mut roll);
    let successor = roll.to_droplet_id.and_then(|id| find(status, id)).filter(|to| !is_leaving(to)).cloned();
    if let Some(why) = failure(look, status, &roll, successor.as_ref()) {
        hand_over::undo(look, status, &roll, &from);
        return Some(stopped(roll, why));
    }
    let is_other = |one: &&GatewayStatus| {
        one.droplet_id != roll.from_droplet_id && Some(one.droplet_id) != roll.to_droplet_id
    };
    let others_work = status.gateways.iter().filter(is_other).all(is_proven);
    if is_leaving(&from) {
        return hand_over::go_on(look, status, roll, &from, others_work);
    }
    let staying = status.gateways.iter().filter(|one| !is_leaving(one)).count();
    let as_many = staying == look.replicas + usize::from(successor.is_some());
    let has_reason = outdated(look, status, &from).is_some();
    if !(from.ready && others_work && as_many && has_reason) {
        return None;
    }
    let may_drain =
        |to: &GatewayStatus| is_proven(to) || (hands_over && hand_over::is_ready(look, &roll, to));
    if successor.as_ref().is_some_and(may_drain) {
        drain(look, status, &mut roll, &from);
    }
    Some(roll)
}

fn stopped(roll: Roll, why: String) -> Roll {
    Roll { failure: Some(why), drain_seconds_left: None, ..roll }
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
fn failure(
    look: &Look<'_>,
    status: &EgressGatewayStatus,
    roll: &Roll,
    successor: Option<&GatewayStatus>,
) -> Option<String> {
    roll.to_droplet_id?;
    let name = roll.to.as_deref().unwrap_or_default();
    let other_version = |says: &str| {
        let made = roll.user_data_version.as_str();
        let differs = says != made;
        differs.then(|| {
            format!("{name} was made with version {made} of the user data and says that it runs {says}")
        })
    };
    match successor {
        None => {
            let last = status.last_bring_up_failure.clone();
            Some(last.unwrap_or_else(|| format!("Droplet {name} is gone")))
        }
        Some(to) if to.role == GatewayRole::Failed => {
            Some(format!("it failed after it was proven: {}", in_words(to)))
        }
        // The next one would be no better.
        Some(to) if to.ready => to.user_data_version.as_deref().and_then(other_version),
        Some(to) => hand_over::version_of(look, to).and_then(other_version),
    }
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
    // Who has no partner has nobody to drain to, and nobody else's address to wait with.
    let alone = addresses::each_has_one(look) && look.replicas == 1;
    if alone {
        roll.drain_until = Some(since);
        hand_over::begin(status, roll);
        return;
    }
    let over = match look.seen.gateway.spec.mode {
        RouteMode::ActiveStandby => use_of_it.by_choice.is_none() && (use_of_it.draining == 0 || left == 0),
        // Who shares does not say when nobody is left.
        RouteMode::ActiveActive => left == 0,
    };
    if over && use_of_it.is_ordered {
        hand_over::begin(status, roll);
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

fn find(status: &EgressGatewayStatus, id: i64) -> Option<&GatewayStatus> {
    status.gateways.iter().find(|gateway| gateway.droplet_id == id)
}
