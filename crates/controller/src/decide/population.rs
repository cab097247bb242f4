//! How many, and which: who leaves, whether one more is needed, what is deleted. One gateway leaves at a time.
//!
//! Who leaves and works comes back when too few others are left that do, until its Droplet is asked to go; and while nobody else works it
//! is not asked. That holds for one that is too many as for one that is rolled; and one that failed, was given up and works again comes
//! back where nobody else works. A newcomer that was never proven does not: it is in no list, and is in the way of the next.

use std::time::Duration;

use egress_api::{EgressGatewayStatus, GatewayRole, GatewayStatus, StaticRoute};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Look, Presence, creation, existing, is_leaving, is_proven, judge, quorum, repair, roll, route};
use crate::decision::{DELETE_AGAIN, Effect, LET_GO, MOST_FAILED_BRING_UPS};
use crate::identity::droplet_id;
use crate::observation::Trouble;

// A surplus gateway that works is kept while a node may still use it, but not for ever.
const LET_GO_OF_A_WORKING_ONE: Duration = Duration::from_secs(300);

/// Marks who leaves and writes intents for who is missing.
pub(super) fn choose(look: &Look<'_>, status: &mut EgressGatewayStatus) {
    give_up_bring_ups(look, status);
    for leaving in status.gateways.clone().iter().filter(|gateway| is_leaving(gateway) && !gateway.existing) {
        // Of one that is rolled the roll has to know.
        let _comes_back = !roll::is_rolled(status, leaving) && take_back(look, status, leaving);
    }
    // One that only a person may delete has left already, as far as nodes go.
    let goes = |gateway: &GatewayStatus| is_leaving(gateway) && gateway.delete_refused.is_none();
    if !status.gateways.iter().any(goes) {
        let leaves = who_leaves(look, status).map(|gateway| gateway.droplet_id);
        for gateway in status.gateways.iter_mut().filter(|gateway| Some(gateway.droplet_id) == leaves) {
            gateway.role = GatewayRole::Leaving;
        }
    }
    let expected = expected(look, status);
    if expected + status.creating.len() > look.replicas {
        // Nothing was sent for these, or so long ago that it would be there by now; nobody will miss them.
        let came_to_nothing =
            |sent: &Option<Time>| sent.as_ref().is_none_or(|sent| creation::has_settled(look, sent));
        if let Some(intent) = status.creating.iter().rposition(|intent| came_to_nothing(&intent.sent)) {
            status.creating.remove(intent);
        }
    }
    if is_held(look) {
        status.creating.retain(|intent| intent.sent.is_some());
    }
    if may_create(look, status) {
        creation::make_way(look, status);
    }
    let alive = status.gateways.len() + creation::strangers(look, status).len() + status.creating.len();
    if expected + status.creating.len() < look.replicas && alive < look.most() && may_create(look, status) {
        creation::intend(look, status);
    }
}

/// The delete to send now, if any: of a gateway that leaves, is in no list any more, and is provably ours.
pub(super) fn deletion(look: &Look<'_>, status: &EgressGatewayStatus) -> Option<Effect> {
    status
        .gateways
        .iter()
        .filter(|gateway| is_leaving(gateway) && !gateway.existing && has_been_let_go(look, gateway))
        .filter(|gateway| !is_needed(look, status, gateway) && !roll::keeps(look, status, gateway))
        .find_map(|gateway| delete(look, status, gateway))
}

/// Takes one that leaves back if it is there, works, and others are too few; says whether.
pub(super) fn take_back(look: &Look<'_>, status: &mut EgressGatewayStatus, leaving: &GatewayStatus) -> bool {
    let others = judge::others_that_stand(look, status, leaving);
    let is_wanted = others == 0 || others < look.replicas && !quorum::ballot(look, leaving).condemns();
    // Where the cloud cannot be asked, what was not asked to go is there.
    let is_there = !matches!(look.presence(leaving), Presence::Gone) && !is_asked_to_go(look, leaving);
    // One that failed is judged anew.
    let works_again =
        others == 0 && repair::has_failed(status, leaving) && judge::gets_through(look, leaving);
    let comes_back = (leaving.ready && is_wanted || works_again) && is_there;
    let role = if leaving.ready { GatewayRole::Standby } else { GatewayRole::Failed };
    for gateway in status.gateways.iter_mut().filter(|one| comes_back && one.droplet_id == leaving.droplet_id)
    {
        gateway.role = role;
        // What it was given up for is over.
        gateway.suspect_since = None;
        // Nobody is to delete it any more.
        gateway.delete_refused = None;
    }
    comes_back
}

/// Whether the cloud has taken the delete of this gateway, as far as this process remembers.
pub(super) fn is_asked_to_go(look: &Look<'_>, gateway: &GatewayStatus) -> bool {
    droplet_id(gateway).is_none_or(|id| look.seen.delete_accepted.contains_key(&id))
}

// Whether it may be all that there is. What is not ready is in no list and carries nothing.
fn is_needed(look: &Look<'_>, status: &EgressGatewayStatus, gateway: &GatewayStatus) -> bool {
    gateway.ready && judge::others_that_stand(look, status, gateway) == 0
}

/// The delete of this gateway, unless it is under way or not provably ours.
pub(super) fn delete(
    look: &Look<'_>,
    status: &EgressGatewayStatus,
    gateway: &GatewayStatus,
) -> Option<Effect> {
    if gateway.existing {
        return None;
    }
    let rests = gateway.delete_refused.as_ref().is_some_and(|refused| look.now < refused.not_before.0);
    if rests {
        return None;
    }
    match look.presence(gateway) {
        Presence::Found(droplet) if !is_being_deleted(look, gateway) => {
            let proof = look.identity.prove(&status.gateways, droplet, look.vpc()?, &look.nodes);
            proof.ok().map(Effect::DeleteDroplet)
        }
        _ => None,
    }
}

/// Whether the cloud has taken the delete of this gateway, so lately that it may still be there.
pub(super) fn is_being_deleted(look: &Look<'_>, gateway: &GatewayStatus) -> bool {
    let asked = droplet_id(gateway).and_then(|id| look.seen.delete_accepted.get(&id));
    asked.is_some_and(|asked| {
        Duration::try_from(look.now.duration_since(*asked)).unwrap_or_default() < DELETE_AGAIN
    })
}

/// Recorded Droplets that should go and cannot, because they are not provably ours, with the reason.
pub(super) fn not_provably_ours(look: &Look<'_>, status: &EgressGatewayStatus) -> Option<String> {
    let vpc = look.vpc()?;
    let goes = |gateway: &&GatewayStatus| is_leaving(gateway) && !gateway.existing;
    status.gateways.iter().filter(goes).find_map(|gateway| {
        let Presence::Found(droplet) = look.presence(gateway) else { return None };
        let refusal = look.identity.prove(&status.gateways, droplet, vpc, &look.nodes).err()?;
        Some(format!(
            "Droplet {} ({}) should go, but {refusal}; it is left alone: restore the tag or delete the Droplet by hand",
            gateway.name, gateway.droplet_id
        ))
    })
}

/// A gateway that works and is not provably ours any more, because somebody took its tags off.
pub(super) fn no_longer_ours(look: &Look<'_>, status: &EgressGatewayStatus) -> Option<String> {
    let vpc = look.vpc()?;
    // Tags land late on a new one.
    let stays = |gateway: &&GatewayStatus| gateway.ready && !is_leaving(gateway) && !gateway.existing;
    status.gateways.iter().filter(stays).find_map(|gateway| {
        let Presence::Found(droplet) = look.presence(gateway) else { return None };
        let refusal = look.identity.prove(&status.gateways, droplet, vpc, &look.nodes).err()?;
        Some(format!(
            "Droplet {} ({}) works, but {refusal}: it is neither repaired nor deleted until that is restored",
            gateway.name, gateway.droplet_id
        ))
    })
}

/// Droplets that the token may not delete, for a person to do so.
pub(super) fn for_a_person_to_delete(look: &Look<'_>, status: &EgressGatewayStatus) -> Option<String> {
    let refused = |gateway: &&GatewayStatus| {
        gateway.delete_refused.is_some() && !matches!(look.presence(gateway), Presence::Gone)
    };
    let left: Vec<&GatewayStatus> = status.gateways.iter().filter(refused).collect();
    let words = &left.first()?.delete_refused.as_ref()?.message;
    let names: Vec<String> =
        left.iter().map(|gateway| format!("Droplet {} ({})", gateway.name, gateway.droplet_id)).collect();
    Some(format!(
        "Delete by hand: {}, which the controller may not delete. {words}. Until then they are billed, and count towards the \
         {} Droplets that there may be",
        names.join(", "),
        look.most()
    ))
}

/// What to say when a Droplet is wanted and the controller may make no more.
pub(super) fn at_the_limit(look: &Look<'_>, status: &EgressGatewayStatus) -> Option<Trouble> {
    let expected = expected(look, status);
    let sent = status.creating.iter().filter(|intent| intent.sent.is_some()).count();
    let wanted = expected + sent < look.replicas;
    (wanted && is_fleet_full(look)).then(|| Trouble {
        reason: "DropletLimit",
        message: format!(
            "The controller has {} Droplets, as many as it may have for all EgressGateways of this cluster: raise its flag \
             --max-droplets, or ask for fewer",
            look.limits.most_droplets
        ),
    })
}

/// Whether no create may be sent, and none is to be prepared: what is asked for cannot be had, or there may be no more Droplets.
pub(super) fn is_held(look: &Look<'_>) -> bool {
    look.seen.offer.trouble.is_some() || is_fleet_full(look)
}

fn is_fleet_full(look: &Look<'_>) -> bool {
    look.cloud().is_some_and(|cloud| cloud.fleet >= look.limits.most_droplets)
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
    let strangers = creation::strangers(look, status);
    // One whose name somebody else's Droplet has comes when a slot is free.
    let in_vain =
        status.creating.iter().filter(|intent| creation::is_in_vain(look, &strangers, intent)).count();
    // Nor does one serve that is to be replaced next.
    let is_next = |gateway: &&GatewayStatus| {
        gateway.role == GatewayRole::Failed
            && is_expected(look, status, gateway)
            && repair::is_due(look, status, gateway).is_some()
    };
    let in_vain = in_vain + status.gateways.iter().filter(is_next).count();
    let coming = (expected(look, status) + status.creating.len()).saturating_sub(in_vain);
    let full = status.gateways.len() + status.creating.len() + strangers.len() >= look.most();
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
        // Those that people have named stay, whoever complains.
        let ours: Vec<_> = order.iter().copied().filter(|gateway| !gateway.existing).collect();
        // Old words count here: whoever so many complain of is the one to go. A single node chooses nobody.
        let condemned = ours.iter().filter(|gateway| look.electorate.is_quorum(complaints(gateway)));
        let outdated = ours.iter().rev().find(|gateway| roll::is_outdated(look, status, gateway));
        let leaves = condemned.max_by_key(|gateway| complaints(gateway)).or(outdated).or(ours.last());
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
    status.gateways.iter().find(|gateway| is_enough && !gateway.ready && !gateway.existing)
}

// Those that stay, and those that people have named and that cannot serve yet.
fn expected(look: &Look<'_>, status: &EgressGatewayStatus) -> usize {
    let staying = status.gateways.iter().filter(|gateway| is_expected(look, status, gateway)).count();
    staying + existing::awaited(look, status)
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
    look.cloud().is_some()
        && look.seen.site.is_ok()
        && !is_held(look)
        && !route::is_foreign(look)
        && !has_given_up(status)
}

// Every node that lives has the list without it or, when it is no longer selected, no routes; or the gateway is dead anyway and
// nodes had their time.
pub(super) fn has_been_let_go(look: &Look<'_>, gateway: &GatewayStatus) -> bool {
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
