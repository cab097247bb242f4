//! Deletion of an EgressGateway: routes off every live node, then the Droplets one by one, the firewall, the finalizer. With
//! `deletionPolicy: Retain` Droplets and firewall stay, and our tags come off.
//!
//! Never hangs without a word: whatever blocks it is in the Degraded condition, with the way out (invariant I12).

use egress_api::{
    DeletionPolicy, EgressGatewayStatus, GatewayRole, GatewayStatus, NodeRoute, NodeRouteState,
};
use egress_digitalocean::Droplet;

use super::{
    LATER, Look, Presence, SOON, addresses, conditions, creation, events, firewall, first_the_status,
    forget_refused_deletes, population, route, stamp,
};
use crate::decision::{Decision, Effect};
use crate::observation::{FirewallsSeen, NODE_EGRESS, NodeSeen, STATIC_ROUTE, Trouble};

/// The next step towards nothing.
pub(super) fn decide(look: &Look<'_>) -> Decision {
    let mut status = look.before.clone();
    forget_refused_deletes(look, &mut status);
    creation::adopt(look, &mut status);
    status
        .creating
        .retain(|intent| intent.sent.as_ref().is_some_and(|sent| !creation::has_settled(look, sent)));
    status.gateways.retain(|gateway| !matches!(look.presence(gateway), Presence::Gone));
    firewall::record_for_removal(look, &mut status);
    addresses::record_for_removal(look, &mut status);
    let holding = nodes_holding_routes(look);
    let routed = route::ours(look).is_some() || !holding.is_empty() || nobody_knows_who_routes(look);
    if !routed {
        for gateway in &mut status.gateways {
            gateway.role = GatewayRole::Leaving;
        }
        status.gateways.retain(|gateway| !gateway.existing);
        status.gateways.retain(|gateway| !is_released(look, gateway));
        if retains(look) && status.gateways.is_empty() && status.creating.is_empty() {
            // It stays round its Droplets.
            status.firewall = None;
        }
    }
    stamp(look, &mut status);
    let doing = format!("{}{}", doing(look, &status, &holding), left_without(look));
    let blocked = blocked(look, &status, &holding);
    let pause = if blocked.is_some() { LATER } else { SOON };
    conditions::summarize_deletion(look, &mut status, doing, blocked);

    let next = || {
        if let Some(route) = route::ours(look) {
            let leaving_already = route.metadata.deletion_timestamp.is_some();
            let uid = route.metadata.uid.clone()?;
            return (!leaving_already).then_some(Effect::DeleteStaticRoute { uid });
        }
        if routed {
            return None;
        }
        let mut settled = status.gateways.iter().filter(|gateway| !addresses::may_come_for(&status, gateway));
        let delete = settled.find_map(|gateway| {
            if retains(look) {
                release(look, &status, gateway)
            } else {
                population::delete(look, &status, gateway)
            }
        });
        if delete.is_some() || !status.gateways.is_empty() || !status.creating.is_empty() {
            return delete;
        }
        let last = || is_all_gone(look, &status).then_some(Effect::RemoveFinalizer);
        None.or_else(|| addresses::removal(look, &status))
            .or_else(|| firewall::removal(look, &status))
            .or_else(last)
    };
    let effect = first_the_status(look, &status, next);
    let events = events::between(look, &status, effect.as_ref());
    let requeue_after = if effect.is_some() { SOON } else { pause };
    Decision { effect, status, requeue_after, events }
}

fn retains(look: &Look<'_>) -> bool {
    look.seen.gateway.spec.deletion_policy == DeletionPolicy::Retain
}

/// Whether this Droplet was to stay, and carries none of our tags any more.
pub(super) fn is_released(look: &Look<'_>, gateway: &GatewayStatus) -> bool {
    let Presence::Found(droplet) = look.presence(gateway) else { return false };
    let deleting = look.seen.gateway.metadata.deletion_timestamp.is_some();
    let left = look.identity.tag_to_take_off(&look.before.gateways, droplet, &look.nodes);
    deleting && retains(look) && left == Ok(None)
}

fn release(look: &Look<'_>, status: &EgressGatewayStatus, gateway: &GatewayStatus) -> Option<Effect> {
    let Presence::Found(droplet) = look.presence(gateway) else { return None };
    look.identity.tag_to_take_off(&status.gateways, droplet, &look.nodes).ok()?.map(Effect::Untag)
}

// Live nodes whose report still names a StaticRoute of ours, or one that follows and still routes, and those whose agent is Ready and has
// not reported yet, as after its report was lost; dead nodes block nothing.
fn nodes_holding_routes(look: &Look<'_>) -> Vec<String> {
    // One of the same name that somebody else made stays, and so do its routes.
    let foreign = look
        .seen
        .route
        .as_ref()
        .filter(|_| route::is_foreign(look))
        .and_then(|route| route.metadata.uid.clone());
    let is_own = |entry: &NodeRoute| entry.name == look.identity.name && Some(&entry.uid) != foreign.as_ref();
    // One that follows stays, and an agent that knows of the deletion routes nothing for it.
    let follows = |entry: &NodeRoute| {
        let unreadable = entry.reason.as_deref() == Some("Unreadable");
        let routed = entry.gateways_in_use().next().is_some()
            || entry.state != NodeRouteState::NotApplied
            || unreadable;
        routed && look.seen.followers.iter().any(|follower| follower.uid == entry.uid)
    };
    let holds = |node: &&NodeSeen| match &node.report {
        Some(report) => report.routes.iter().any(|entry| is_own(entry) || follows(entry)),
        None => node.agent_ready == Some(true),
    };
    look.seen.live_nodes().filter(holds).map(|node| node.name.clone()).collect()
}

// Without reports nobody can say that a node has let go.
fn nobody_knows_who_routes(look: &Look<'_>) -> bool {
    look.seen.undefined.contains(&NODE_EGRESS) && look.seen.live_nodes().next().is_some()
}

fn is_all_gone(look: &Look<'_>, status: &EgressGatewayStatus) -> bool {
    if !status.gateways.is_empty()
        || !status.creating.is_empty()
        || status.firewall.is_some()
        || !addresses::are_gone(status)
    {
        return false;
    }
    let deleted = look.seen.gateway.metadata.deletion_timestamp.as_ref();
    // Without a word of the firewalls: only if none was ever asked for, as with Droplets.
    let old = |seen: &FirewallsSeen| deleted.is_none_or(|deleted| seen.taken < deleted.0);
    if firewall::seen(look).is_some_and(old) {
        return false;
    }
    match &look.seen.cloud {
        Ok(cloud) => {
            deleted.is_some_and(|deleted| cloud.taken >= deleted.0) && perhaps_ours(look).next().is_none()
        }
        // Without a word from the cloud: only if nothing was ever asked of it. Intents are written before requests are sent.
        Err(_) => true,
    }
}

// Without our VPC nothing is provably ours, not even what carries all our tags.
fn perhaps_ours<'a>(look: &Look<'a>) -> impl Iterator<Item = &'a Droplet> {
    let tags = [look.identity.owner_tag(), look.identity.cluster_tag()];
    let nodes = look.nodes.clone();
    let unknown = look.vpc().is_none();
    let droplets = look.cloud().into_iter().flat_map(|cloud| cloud.droplets.values());
    droplets.filter(move |droplet| {
        unknown && !nodes.contains(&droplet.id) && tags.iter().all(|tag| droplet.has_tag(tag) == Some(true))
    })
}

fn doing(look: &Look<'_>, status: &EgressGatewayStatus, holding: &[String]) -> String {
    if route::ours(look).is_some() {
        return "The StaticRoute is being deleted".to_owned();
    }
    if nobody_knows_who_routes(look) {
        return "It is not known which nodes still have the routes".to_owned();
    }
    if !holding.is_empty() {
        return format!("{} nodes still have the routes, among them {}", holding.len(), holding[0]);
    }
    if !status.gateways.is_empty() && retains(look) {
        return format!("{} Droplets stay and still carry our tags", status.gateways.len());
    }
    if !status.gateways.is_empty() {
        return format!("{} Droplets are still there", status.gateways.len());
    }
    if let Some(intent) = status.creating.first() {
        return format!("Waiting whether Droplet {} appears, which was asked for", intent.name);
    }
    if let Some(address) = status.reserved_ips.iter().find(|recorded| !recorded.given) {
        return format!("Reserved address {} is still there", address.ip);
    }
    if let Some(firewall) = &status.firewall {
        return format!("Firewall {} is still there", firewall.name);
    }
    "Nothing is left".to_owned()
}

// Whose traffic leaves another way from now on should know.
fn left_without(look: &Look<'_>) -> String {
    match look.seen.followers.as_slice() {
        [] => String::new(),
        [one] => format!(
            ". StaticRoute {} names this EgressGateway and routes nothing until it names another",
            one.name
        ),
        [one, rest @ ..] => format!(
            ". StaticRoute {} and {} more name this EgressGateway and route nothing until they name another",
            one.name,
            rest.len()
        ),
    }
}

// It is not billed, and it must not stay unseen.
fn firewall_stays(look: &Look<'_>, status: &EgressGatewayStatus) -> Option<Trouble> {
    let recorded = status.firewall.as_ref()?;
    let unknown = look.seen.cloud.as_ref().err().or(look.seen.firewalls.as_ref().err());
    let trouble = unknown.map(|trouble| (trouble.reason, trouble.message.clone()));
    let trouble = trouble
        .or_else(|| Some(("NotProvablyOurs", firewall::not_provably_ours(look, status)?)))
        .or_else(|| Some(("FirewallRefused", recorded.message.clone()?)));
    let Some((reason, message)) = trouble else { return look.seen.failure.clone() };
    let name = &recorded.name;
    let way_out =
        format!("to give it up, delete firewall {name} by hand in the cloud and remove the finalizer");
    Some(Trouble { reason, message: format!("{message}; {way_out}") })
}

fn held_by_nodes(look: &Look<'_>, holding: &[String]) -> Option<Trouble> {
    const APPLY: &str = "Apply the definitions again (deploy/crds), and the deletion goes on";
    if nobody_knows_who_routes(look) {
        let message = format!(
            "The definition of NodeEgress is gone, so no node can report that it has let go of its routes. {APPLY}"
        );
        return Some(Trouble { reason: "DefinitionGone", message });
    }
    let node = holding.first()?;
    if look.seen.undefined.contains(&STATIC_ROUTE) {
        let message = format!(
            "The definition of StaticRoute is gone. Nodes keep their routes then, among them {node}, and their gateways stay. {APPLY}"
        );
        return Some(Trouble { reason: "DefinitionGone", message });
    }
    Some(Trouble {
        reason: "NodesHoldRoutes",
        message: format!(
            "Node {node} has not reported that the routes are gone. Its agent must run; if the node is beyond help, delete the \
             Node or its NodeEgress object"
        ),
    })
}

fn blocked(look: &Look<'_>, status: &EgressGatewayStatus, holding: &[String]) -> Option<Trouble> {
    if let Some(trouble) = held_by_nodes(look, holding) {
        return Some(trouble);
    }
    if look.vpc().is_none()
        && let Err(trouble) = &look.seen.site
        && let names = perhaps_ours(look).map(|droplet| droplet.name.as_str()).collect::<Vec<_>>()
        && !names.is_empty()
    {
        return Some(Trouble {
            reason: trouble.reason,
            message: format!(
                "{}. Until the VPC is known no Droplet is provably ours: {} stay and are billed. Name the VPC in \
                 spec.droplet.vpcUUID, or delete them by hand in the cloud and remove the finalizer",
                trouble.message,
                names.join(", ")
            ),
        });
    }
    if status.gateways.is_empty() && status.creating.is_empty() {
        return addresses::stays(look, status).or_else(|| firewall_stays(look, status));
    }
    if retains(look) {
        let trouble = look.seen.cloud.as_ref().err().or(look.seen.failure.as_ref())?;
        let message = format!(
            "{}. The Droplets stay in any case, and only our tags are to be taken off them, for which the API token needs the scope \
             tag:delete; to leave the tags too, remove the finalizer",
            trouble.message
        );
        return Some(Trouble { reason: trouble.reason, message });
    }
    if let Err(trouble) = &look.seen.cloud {
        return Some(Trouble {
            reason: trouble.reason,
            message: format!(
                "{}. The Droplets in status.gateways stay and are billed until then; to give them up, delete them by hand in \
                 the cloud and remove the finalizer",
                trouble.message
            ),
        });
    }
    if look.vpc().is_none()
        && let Err(trouble) = &look.seen.site
    {
        return Some(trouble.clone());
    }
    if let Some(message) = population::for_a_person_to_delete(look, status) {
        return Some(Trouble { reason: "DeleteForbidden", message });
    }
    if let Some(message) = population::not_provably_ours(look, status) {
        return Some(Trouble { reason: "NotProvablyOurs", message });
    }
    look.seen.failure.clone()
}
