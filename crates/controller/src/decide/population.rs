//! How many, and which: who leaves, whether one more is needed, what is deleted. One gateway leaves at a time.
//!
//! Who leaves and works comes back when too few others are left that do, until its Droplet is asked to go; and while nobody else works it
//! is not asked. That holds for one that is too many as for one that is rolled.

use std::time::Duration;

use egress_api::{EgressGatewayStatus, GatewayRole, GatewayStatus, StaticRoute};

use super::{Look, Presence, creation, is_leaving, is_proven, judge, quorum, repair, roll, route};
use crate::decision::{DELETE_AGAIN, Effect, LET_GO, MOST_FAILED_BRING_UPS};
use crate::identity::droplet_id;

// A surplus gateway that works is kept while a node may still use it, but not for ever.
const LET_GO_OF_A_WORKING_ONE: Duration = Duration::from_secs(300);

/// Marks who leaves and writes intents for who is missing.
pub(super) fn choose(look: &Look<'_>, status: &mut EgressGatewayStatus) {
    give_up_bring_ups(look, status);
    for leaving in status.gateways.clone().iter().filter(|gateway| is_leaving(gateway)) {
        // Of one that is rolled the roll has to know.
        let _comes_back = !roll::is_rolled(status, leaving) && take_back(look, status, leaving);
    }
    if !status.gateways.iter().any(is_leaving) {
        let leaves = who_leaves(look, status).map(|gateway| gateway.droplet_id);
        for gateway in status.gateways.iter_mut().filter(|gateway| Some(gateway.droplet_id) == leaves) {
            gateway.role = GatewayRole::Leaving;
        }
    }
    let expected = status.gateways.iter().filter(|gateway| is_expected(look, status, gateway)).count();
    if expected + status.creating.len() > look.replicas {
        // Nothing was sent for these; nobody will miss them.
        if let Some(unsent) = status.creating.iter().rposition(|intent| intent.sent.is_none()) {
            status.creating.remove(unsent);
        }
    }
    if may_create(look, status) {
        creation::make_way(look, status);
    }
    let alive = status.gateways.len() + creation::strangers(look, status).len() + status.creating.len();
    if expected + status.creating.len() < look.replicas && alive < look.most() && may_create(look, status) {
        creation::intend(look, status, 0);
    }
}

/// The delete to send now, if any: of a gateway that leaves, is in no list any more, and is provably ours.
pub(super) fn deletion(look: &Look<'_>, status: &EgressGatewayStatus) -> Option<Effect> {
    status
        .gateways
        .iter()
        .filter(|gateway| is_leaving(gateway) && has_been_let_go(look, gateway))
        .filter(|gateway| !is_needed(look, status, gateway))
        .find_map(|gateway| delete(look, status, gateway))
}

/// Takes one that leaves back if it is there, works, and others are too few; says whether.
pub(super) fn take_back(look: &Look<'_>, status: &mut EgressGatewayStatus, leaving: &GatewayStatus) -> bool {
    let others = judge::others_that_stand(look, status, leaving);
    let is_wanted = others == 0 || others < look.replicas && !quorum::ballot(look, leaving).condemns();
    let is_asked_to_go = look
        .cloud()
        .is_none_or(|cloud| droplet_id(leaving).is_none_or(|id| cloud.delete_accepted.contains_key(&id)));
    let is_there = matches!(look.presence(leaving), Presence::Found(_));
    let comes_back = leaving.ready && is_wanted && is_there && !is_asked_to_go;
    for gateway in status.gateways.iter_mut().filter(|one| comes_back && one.droplet_id == leaving.droplet_id)
    {
        gateway.role = GatewayRole::Standby;
    }
    comes_back
}

// Whether it may be all that there is, whatever was decided about it before.
fn is_needed(look: &Look<'_>, status: &EgressGatewayStatus, gateway: &GatewayStatus) -> bool {
    let works = gateway.ready || quorum::ballot(look, gateway).through > 0;
    works && judge::others_that_stand(look, status, gateway) == 0
}

/// The delete of this gateway, unless it is under way or not provably ours.
pub(super) fn delete(
    look: &Look<'_>,
    status: &EgressGatewayStatus,
    gateway: &GatewayStatus,
) -> Option<Effect> {
    let (cloud, id) = (look.cloud()?, droplet_id(gateway)?);
    let asked = cloud.delete_accepted.get(&id);
    let under_way = asked.is_some_and(|asked| {
        Duration::try_from(look.now.duration_since(*asked)).unwrap_or_default() < DELETE_AGAIN
    });
    match look.presence(gateway) {
        Presence::Found(droplet) if !under_way => {
            let proof = look.identity.prove(&status.gateways, droplet, look.vpc()?, &look.nodes);
            proof.ok().map(Effect::DeleteDroplet)
        }
        _ => None,
    }
}

/// Recorded Droplets that should go and cannot, because they are not provably ours, with the reason.
pub(super) fn not_provably_ours(look: &Look<'_>, status: &EgressGatewayStatus) -> Option<String> {
    let vpc = look.vpc()?;
    status.gateways.iter().filter(|gateway| is_leaving(gateway)).find_map(|gateway| {
        let Presence::Found(droplet) = look.presence(gateway) else { return None };
        let refusal = look.identity.prove(&status.gateways, droplet, vpc, &look.nodes).err()?;
        Some(format!(
            "Droplet {} ({}) should go, but {refusal}; it is left alone: restore the tag or delete the Droplet by hand",
            gateway.name, gateway.droplet_id
        ))
    })
}

/// Whether bring-ups have failed so often that no more are tried.
pub(super) fn has_given_up(status: &EgressGatewayStatus) -> bool {
    status.failed_bring_ups.unwrap_or_default() >= MOST_FAILED_BRING_UPS
}

fn give_up_bring_ups(look: &Look<'_>, status: &mut EgressGatewayStatus) {
    let starting = status.gateways.iter().filter(|gateway| gateway.role == GatewayRole::Starting);
    let given_up: Vec<(i64, String)> = starting
        .filter_map(|gateway| Some((gateway, repair::is_due(look, status, gateway)?)))
        .map(|(gateway, why)| (gateway.droplet_id, format!("Droplet {} was given up: {why}", gateway.name)))
        .collect();
    for gateway in &mut status.gateways {
        if given_up.iter().any(|(id, _)| *id == gateway.droplet_id) {
            gateway.role = GatewayRole::Leaving;
        }
    }
    for (_, failure) in given_up {
        judge::failed_bring_up(status, failure);
    }
}

fn who_leaves<'a>(look: &Look<'_>, status: &'a EgressGatewayStatus) -> Option<&'a GatewayStatus> {
    if roll::under_way(status).is_some() {
        // It says itself when, and nobody else goes meanwhile.
        return None;
    }
    let proven = status.gateways.iter().filter(|gateway| is_proven(gateway)).count();
    let coming = status.gateways.iter().filter(|gateway| is_expected(look, status, gateway)).count()
        + status.creating.len();
    let full = status.gateways.len() + status.creating.len() >= look.most();
    let dead = status.gateways.iter().find(|gateway| repair::is_given_up(look, status, gateway));
    // A dead one goes when its successor works, or when its slot is all that the next successor waits for.
    let in_the_way = proven > 0 && full && coming < look.replicas;
    let may_go =
        |dead: &&GatewayStatus| proven >= look.replicas || in_the_way || repair::has_successor(status, dead);
    if let Some(dead) = dead.filter(may_go) {
        return Some(dead);
    }
    let complaints = |gateway: &GatewayStatus| quorum::ballot(look, gateway).complaining.len();
    if proven > look.replicas {
        let order = route::order(look, status);
        // Old words count here: whoever so many complain of is the one to go. A single node chooses nobody.
        let condemned = order.iter().filter(|gateway| look.electorate.is_quorum(complaints(gateway)));
        let outdated = order.iter().rev().find(|gateway| roll::is_outdated(look, status, gateway));
        let leaves = condemned.max_by_key(|gateway| complaints(gateway)).or(outdated).or(order.last());
        // The only one that nobody complains of is never too many.
        let is_missed = |leaves: &&&GatewayStatus| {
            complaints(leaves) == 0
                && order.iter().all(|other| other.slot == leaves.slot || complaints(other) > 0)
        };
        let is_spare =
            |leaves: &&&GatewayStatus| judge::others_that_stand(look, status, leaves) >= look.replicas;
        return leaves.filter(is_spare).filter(|leaves| !is_missed(leaves)).copied();
    }
    // As many as were asked for work: whatever else there is, is too many; but for a newcomer while a node complains of one of those.
    // Words of a quorum may have grown old, and the fault be there.
    let is_doubted =
        status.gateways.iter().filter(|gateway| is_proven(gateway)).any(|gateway| complaints(gateway) > 0);
    let is_enough = proven == look.replicas && !is_doubted;
    status.gateways.iter().find(|gateway| is_enough && !gateway.ready)
}

fn is_expected(look: &Look<'_>, status: &EgressGatewayStatus, gateway: &GatewayStatus) -> bool {
    match gateway.role {
        GatewayRole::Active | GatewayRole::Standby | GatewayRole::Starting => {
            !roll::is_rolled(status, gateway)
        }
        GatewayRole::Failed => !repair::is_given_up(look, status, gateway),
        GatewayRole::Leaving => false,
    }
}

fn may_create(look: &Look<'_>, status: &EgressGatewayStatus) -> bool {
    look.cloud().is_some() && look.seen.site.is_ok() && !route::is_foreign(look) && !has_given_up(status)
}

// Every node that lives has the list without it or, when it is no longer selected, no routes; or the gateway is dead anyway and
// nodes had their time.
fn has_been_let_go(look: &Look<'_>, gateway: &GatewayStatus) -> bool {
    let Some(route) = look.seen.route.as_ref() else { return true };
    let listed = route.spec.ordered_gateways();
    if listed.iter().any(|entry| Some(&entry.address.0) == gateway.private_address.as_ref()) {
        return false;
    }
    let (current, live) = route::nodes_applied(route, &look.seen.nodes);
    let waited = gateway.since.as_ref().map_or(Duration::ZERO, |since| look.since(since));
    let patience = if gateway.ready { LET_GO_OF_A_WORKING_ONE } else { LET_GO };
    (current == live && !unselected_nodes_hold_on(look, route) && !is_used(look, gateway))
        || waited >= patience
}

fn unselected_nodes_hold_on(look: &Look<'_>, route: &StaticRoute) -> bool {
    let selector = route.spec.node_selector.as_ref();
    look.seen.live_nodes().filter(|node| !node.should_route(selector)).any(|node| {
        let routes = node.report.as_ref().map(|report| report.routes.as_slice()).unwrap_or_default();
        routes.iter().any(|entry| Some(&entry.uid) == route.metadata.uid.as_ref())
    })
}

// StaticRoutes that follow have the list from ours, and their nodes say themselves what they use.
fn is_used(look: &Look<'_>, gateway: &GatewayStatus) -> bool {
    let reports = look.seen.live_nodes().filter_map(|node| node.report.as_ref());
    let mut entries = reports.flat_map(|report| &report.routes);
    entries.any(|entry| {
        let follows = look.seen.followers.iter().any(|follower| follower.uid == entry.uid);
        follows && entry.gateways_in_use().any(|address| Some(address) == gateway.private_address.as_ref())
    })
}
