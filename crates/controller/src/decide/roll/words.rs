//! What people are told of a roll: what it costs, what it waits for, what stopped it.

use egress_api::condition::{PROGRESSING, Verdict};
use egress_api::{EgressGatewayStatus, GatewayStatus, Roll, RouteMode};

use super::super::addresses::floating;
use super::super::conditions::{in_words, verdict};
use super::super::{Look, addresses, is_leaving};
use super::{UseOf, find, is_drained, under_way};

/// What it costs whoever sends through the gateways.
pub(super) fn impact(look: &Look<'_>, from: &GatewayStatus) -> String {
    let name = &from.name;
    let drain = look.seen.gateway.spec.drain_seconds;
    let address = from.public_address.as_deref().unwrap_or("an address not known");
    let alone = look.replicas == 1;
    if floating::is_wanted(look) {
        let shared = floating::address(&look.before).map_or("the address", |recorded| recorded.ip.as_str());
        return format!(
            "The new one is proven first. Where {name} holds {shared}, it then moves to another gateway, which takes the cloud some \
             seconds: nothing gets through meanwhile, and connections that send go on afterwards"
        );
    }
    if addresses::are_wanted(look) {
        return if alone {
            format!(
                "A gap of some ten seconds is expected, because there is no other gateway: {address} moves from {name} to the new one, \
                 and connections that are open then break. With replicas: 2 there is none"
            )
        } else {
            format!(
                "No gap is expected: new connections go to another gateway first, open ones keep {name} until they are idle, {drain} s \
                 at most. Then {address} moves to the new one, and until that is proven there is one gateway less"
            )
        };
    }
    let alone = if alone { ", with one replica too" } else { "" };
    format!(
        "No gap is expected{alone}: the new one is proven before new connections move to it; open ones keep {name} until they are \
         idle, {drain} s at most. {address} goes with {name}, and the new one has another address"
    )
}

/// Progressing while a roll is under way.
pub(in super::super) fn progress(look: &Look<'_>, status: &EgressGatewayStatus) -> Option<Verdict> {
    let roll = under_way(status)?;
    let Roll { from, reason, impact, .. } = roll;
    let successor = roll.to_droplet_id.and_then(|id| find(status, id));
    let doing = match (find(status, roll.from_droplet_id), successor) {
        (Some(old), Some(new)) if is_leaving(old) && !new.ready && addresses::each_has_one(look) => {
            let address = roll.from_public_address.as_deref().unwrap_or("its address");
            format!("{address} moves from {from} to its successor. {}", in_words(new))
        }
        (Some(old), _) if is_leaving(old) => format!("{from} is let go of and deleted"),
        (Some(old), Some(new)) if is_drained(status, old) => draining(look, roll, old, new),
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
    let stands = if new.ready { "is proven" } else { "is up and waits for its address" };
    format!("{to} {stands}, and {from} drains: {users}, and what is left is moved in {left} s at the latest")
}

/// What keeps a roll from its end, and what to do.
pub(in super::super) fn trouble(
    look: &Look<'_>,
    status: &EgressGatewayStatus,
) -> Option<(&'static str, String)> {
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
