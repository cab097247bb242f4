//! What people and programs read: conditions and columns.

use egress_api::condition::{DEGRADED, PROGRESSING, READY, Verdict, set};
use egress_api::{EgressGatewayStatus, GatewayRole, GatewayStatus, NodeRouteState, NodeSelector};

use super::addresses::floating;
use super::route::{self, RoutePlan};
use super::{Look, addresses, degraded, is_proven, pause, population, roll};
use crate::observation::{NodeSeen, Trouble};

/// Message of Ready when there is nobody to route for.
pub(crate) fn no_nodes(selector: Option<&NodeSelector>) -> &'static str {
    match selector {
        Some(_) => "The cluster has no Ready node that spec.nodeSelector selects",
        None => "The cluster has no Ready node",
    }
}

/// Fills in conditions, columns and the observed generation.
pub(super) fn summarize(look: &Look<'_>, status: &mut EgressGatewayStatus, plan: &RoutePlan) {
    let proven = status.gateways.iter().filter(|gateway| is_proven(gateway)).count();
    let (applied, live) = nodes(look);
    status.gateways_ready = Some(format!("{proven}/{}", look.replicas));
    status.nodes = Some(format!("{applied}/{live}"));
    status.monthly_price_usd = price(look);
    let verdicts = [
        ready(look, status, plan, proven),
        progressing(look, status, plan),
        degraded::degraded(look, status, proven),
    ];
    publish(look, status, verdicts);
}

// What the cloud does not tell now it told before, unless something else is asked for now.
fn price(look: &Look<'_>) -> Option<String> {
    let same = look.before.observed_generation == look.seen.gateway.metadata.generation;
    let before = || look.before.monthly_price_usd.clone().filter(|_| same);
    let spec = &look.seen.gateway.spec;
    // People's own are no cost of what is asked for here.
    let theirs = i32::try_from(spec.existing_droplets.len()).unwrap_or(spec.replicas);
    let many = spec.replicas.saturating_sub(theirs).max(0);
    look.seen.offer.price.map(|each| format!("{:.2}", each * f64::from(many))).or_else(before)
}

/// Conditions of an EgressGateway that is being deleted: what is done, and what blocks it.
pub(super) fn summarize_deletion(
    look: &Look<'_>,
    status: &mut EgressGatewayStatus,
    doing: String,
    blocked: Option<Trouble>,
) {
    status.active = None;
    status.egress_ip = None;
    // Nodes may route until they have let go, and a Droplet is gone when its entry is.
    let there =
        |address: &String| status.gateways.iter().any(|one| one.public_address.as_ref() == Some(address));
    status.public_ips.retain(there);
    if addresses::are_wanted(look) {
        // Of gateways that were just taken over, too.
        status.public_ips = addresses::public_ips(status);
    }
    status.roll = None;
    status.next_roll = None;
    status.gateways_ready = Some(format!("0/{}", look.replicas));
    status.monthly_price_usd = None;
    let ready = verdict(READY, false, "Deleting", doing.clone());
    let progressing = verdict(PROGRESSING, true, "Deleting", doing);
    let degraded = match blocked {
        Some(trouble) => verdict(DEGRADED, true, trouble.reason, trouble.message),
        None => verdict(DEGRADED, false, "Deleting", "Nothing blocks the deletion".to_owned()),
    };
    publish(look, status, [ready, progressing, degraded]);
}

fn publish(look: &Look<'_>, status: &mut EgressGatewayStatus, verdicts: [Verdict; 3]) {
    let generation = look.seen.gateway.metadata.generation;
    for verdict in verdicts {
        set(&mut status.conditions, verdict, generation, look.time().0);
    }
    status.observed_generation = generation;
}

fn ready(look: &Look<'_>, status: &EgressGatewayStatus, plan: &RoutePlan, proven: usize) -> Verdict {
    let no = |reason, message| verdict(READY, false, reason, message);
    if route::is_foreign(look) {
        return no("StaticRouteTaken", taken(look));
    }
    if proven == 0 {
        if let Some(trouble) = obstacle(look, status) {
            return no(trouble.reason, trouble.message);
        }
        let listed = route::ours(look).is_some();
        let held = if listed { "; the nodes keep the list they have" } else { "" };
        return no("NoGatewayProven", format!("No gateway is proven{held}. {}", gateways_in_words(status)));
    }
    if floating::is_wanted(look) && floating::carrier(look, status).is_none() {
        return no("AddressMoves", floating::whereabouts(status));
    }
    if route::ours(look).is_none() || plan.change.is_some() {
        return no("RoutesPending", "The StaticRoute is being written".to_owned());
    }
    let (applied, live) = nodes(look);
    if live == 0 {
        return no("NoNodes", no_nodes(look.seen.gateway.spec.node_selector.as_ref()).to_owned());
    }
    if applied < live {
        return no("NodesPending", format!("{applied} of {live} nodes have every route{}", lagging(look)));
    }
    let address = status.egress_ip.as_deref().unwrap_or("an address not known yet");
    let name = status.active.as_deref().unwrap_or_default();
    verdict(READY, true, "EgressWorks", format!("{live} of {live} nodes leave through {name} as {address}"))
}

fn progressing(look: &Look<'_>, status: &EgressGatewayStatus, plan: &RoutePlan) -> Verdict {
    if pause::is_asked_for(look) {
        return verdict(PROGRESSING, false, "Paused", pause::words());
    }
    if let Some(rolling) = roll::progress(look, status) {
        return rolling;
    }
    let yes = |reason, message| verdict(PROGRESSING, true, reason, message);
    if let Some(intent) = status.creating.first() {
        let words = match (&intent.message, &intent.sent) {
            (Some(refusal), _) => {
                format!("Droplet {} was refused and will be asked for again: {refusal}", intent.name)
            }
            (None, Some(_)) => format!("Waiting whether Droplet {} appears", intent.name),
            (None, None) => format!("Droplet {} is about to be created", intent.name),
        };
        return yes("Creating", words);
    }
    let role = |role| status.gateways.iter().find(|gateway| gateway.role == role);
    if let Some(gateway) = role(GatewayRole::Starting) {
        return yes("Starting", in_words(gateway));
    }
    if let Some(gateway) = role(GatewayRole::Leaving) {
        return yes("Removing", format!("{} leaves", gateway.name));
    }
    if let Some(trouble) = obstacle(look, status) {
        return verdict(PROGRESSING, false, trouble.reason, trouble.message);
    }
    if let Some(gateway) = role(GatewayRole::Failed) {
        return yes("Repairing", in_words(gateway));
    }
    if plan.change.is_some() {
        return yes("RoutesPending", "The StaticRoute is being written".to_owned());
    }
    let stable = "Everything that was asked for is there";
    let words = status.next_roll.as_ref().map_or_else(
        || stable.to_owned(),
        |next| {
            let (gateway, not_before, reason) = (&next.gateway, next.not_before.0, &next.reason);
            format!("{stable}. {gateway} is replaced from {not_before} on: {reason}. {}", next.impact)
        },
    );
    verdict(PROGRESSING, false, "Stable", words)
}

/// What stands in the way of making Droplets.
pub(super) fn obstacle(look: &Look<'_>, status: &EgressGatewayStatus) -> Option<Trouble> {
    if route::is_foreign(look) {
        return Some(Trouble { reason: "StaticRouteTaken", message: taken(look) });
    }
    if population::has_given_up(status) {
        let last = status.last_bring_up_failure.as_deref().unwrap_or("no reason is known");
        let failures = status.failed_bring_ups.unwrap_or_default();
        return Some(Trouble {
            reason: "BringUpFailed",
            message: format!(
                "{failures} Droplets in a row never became ready, so no more are made. The last: {last}. Look at its console \
                 and at size, image and targets of this object; any change of the spec starts a new try"
            ),
        });
    }
    let cloud = look.seen.cloud.as_ref().err();
    let known = cloud.or(look.seen.site.as_ref().err()).or(look.seen.offer.trouble.as_ref()).cloned();
    known.or_else(|| population::at_the_limit(look, status))
}

fn taken(look: &Look<'_>) -> String {
    let name = &look.identity.name;
    format!(
        "StaticRoute {name} exists and is not ours; delete or rename it, or give this EgressGateway another name"
    )
}

fn nodes(look: &Look<'_>) -> (usize, usize) {
    match route::ours(look) {
        Some(route) => route::nodes_applied(route, &look.seen.nodes),
        None => (0, routing_nodes(look).count()),
    }
}

// Nodes that should leave through the gateways.
fn routing_nodes<'a>(look: &Look<'a>) -> impl Iterator<Item = &'a NodeSeen> {
    let selector = look.seen.gateway.spec.node_selector.as_ref();
    look.seen.nodes.iter().filter(move |node| node.should_route(selector))
}

// The first of them that lags, and why.
fn lagging(look: &Look<'_>) -> String {
    let Some(route) = route::ours(look) else { return String::new() };
    for node in routing_nodes(look) {
        let Some(report) = &node.report else {
            return format!("; {} reports nothing: does its agent run?", node.name);
        };
        let entry = report.routes.iter().find(|entry| Some(&entry.uid) == route.metadata.uid.as_ref());
        match entry {
            Some(entry) if Some(entry.observed_generation) != route.metadata.generation => {
                return format!("; {} has an older version", node.name);
            }
            Some(entry) if entry.state != NodeRouteState::Applied => {
                let why = entry
                    .message
                    .as_deref()
                    .or_else(|| entry.failures.first().map(|first| first.message.as_str()));
                return format!("; {}: {}", node.name, why.unwrap_or("not all routes are applied"));
            }
            Some(_) => {}
            None => return format!("; {} does not know the StaticRoute yet", node.name),
        }
    }
    String::new()
}

fn gateways_in_words(status: &EgressGatewayStatus) -> String {
    if status.gateways.is_empty() {
        return "No Droplet exists yet".to_owned();
    }
    status.gateways.iter().map(in_words).collect::<Vec<_>>().join("; ")
}

pub(super) fn in_words(gateway: &GatewayStatus) -> String {
    match &gateway.message {
        Some(message) => format!("{}: {message}", gateway.name),
        None => format!("{}: {:?}", gateway.name, gateway.role),
    }
}

pub(super) fn verdict(type_: &'static str, status: bool, reason: &'static str, message: String) -> Verdict {
    Verdict { type_, status: Some(status), reason, message }
}
