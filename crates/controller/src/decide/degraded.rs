//! `Degraded`: what is wrong although traffic may well flow. One reason at a time, the gravest first.

use std::time::Duration;

use egress_api::condition::{DEGRADED, Verdict};
use egress_api::{EGRESS_GATEWAY_FINALIZER, EgressGatewayStatus, GatewayRole, GatewayStatus};

use super::addresses::floating;
use super::conditions::{in_words, obstacle, verdict};
use super::quorum::{ballot, complaint};
use super::{Look, addresses, creation, existing, firewall, is_proven, judge, pause, population, roll};
use crate::cloud::elapsed;
use crate::identity::droplet_id;
use crate::observation::HealthSeen;

/// Reason when all that exists works and more was asked for.
pub(super) const FEWER: &str = "FewerGateways";

// An endpoint that misses a look or two is nothing to tell people of. With the pause between two looks of a quiet pair it is told within
// half a minute.
const DOUBT: Duration = Duration::from_secs(10);

/// The condition.
pub(super) fn degraded(look: &Look<'_>, status: &EgressGatewayStatus, proven: usize) -> Verdict {
    let found = goes_with_its_definition(look, status)
        .or_else(|| obstacle(look, status).map(|trouble| (trouble.reason, trouble.message)))
        .or_else(|| refused(status))
        .or_else(|| population::for_a_person_to_delete(look, status).map(|words| ("DeleteForbidden", words)))
        .or_else(|| look.seen.failure.as_ref().map(|failure| (failure.reason, failure.message.clone())))
        .or_else(|| population::not_provably_ours(look, status).map(|message| ("NotProvablyOurs", message)))
        .or_else(|| existing::complaint(look).map(|message| ("ExistingDropletUnfit", message)))
        .or_else(|| population::no_longer_ours(look, status).map(|message| ("NotProvablyOurs", message)))
        .or_else(|| addresses::complaint(look, status))
        .or_else(|| unknown_droplet(look, status))
        .or_else(|| nobody_may_say(look, status))
        .or_else(|| condemned(look, status))
        .or_else(|| failed(status))
        .or_else(|| outside_unreachable(look, status))
        .or_else(|| fewer(look, proven))
        .or_else(|| roll::trouble(look, status))
        .or_else(|| firewall::complaint(look, status))
        .or_else(|| pause::complaint(look).map(|message| ("UnknownAnnotationValue", message)))
        .or_else(|| look.wishes.complaint(status).map(|message| ("UnknownGatewayName", message)))
        .or_else(|| doubtful(look, status));
    match found {
        Some((reason, message)) => verdict(DEGRADED, true, reason, message),
        None => verdict(DEGRADED, false, "AsAskedFor", "Nothing is known to be wrong".to_owned()),
    }
}

// Nobody can take its deletion back, and nobody is known to have wanted it.
fn goes_with_its_definition(look: &Look<'_>, status: &EgressGatewayStatus) -> Option<(&'static str, String)> {
    let made = status.reserved_ips.iter().filter(|recorded| !recorded.given);
    let addresses: Vec<&str> = made.map(|recorded| recorded.ip.as_str()).collect();
    let addresses = match addresses.as_slice() {
        [] => String::new(),
        addresses => {
            format!("; release its addresses too, or name them in spec.reservedIPs: {}", addresses.join(", "))
        }
    };
    let message = || {
        format!(
            "The definition of EgressGateway was deleted and takes this object along, which is no wish to have its Droplets and routes \
             gone: both stay and are looked after. To go on, take the finalizer {EGRESS_GATEWAY_FINALIZER} off it and apply the \
             definitions (deploy/crds) and the object again: it gets new Droplets, and nodes keep these until then. To be rid of it, \
             delete that one. In either case delete the Droplets of this one by hand in the cloud afterwards: their tag is {}{addresses}",
            look.identity.owner_tag()
        )
    };
    look.seen.goes_with_its_definition().then(|| ("DefinitionGone", message()))
}

fn refused(status: &EgressGatewayStatus) -> Option<(&'static str, String)> {
    let refusal = status.creating.iter().find_map(|intent| intent.message.as_ref())?;
    Some(("CreateRefused", format!("The cloud refuses to make a Droplet: {refusal}")))
}

fn unknown_droplet(look: &Look<'_>, status: &EgressGatewayStatus) -> Option<(&'static str, String)> {
    let strangers = creation::strangers(look, status);
    // One whose tags may still land is nothing to tell people of.
    let awaited = |name: &str| {
        let mut intents = status.creating.iter().filter(|intent| intent.name.eq_ignore_ascii_case(name));
        intents.any(|intent| !creation::is_in_vain(look, &strangers, intent))
    };
    let stranger = strangers.iter().find(|stranger| !awaited(&stranger.name))?;
    let (name, id) = (&stranger.name, stranger.id);
    let words = "has our name or our tags, not both; it counts as one of ours and is left alone";
    Some(("UnknownDroplet", format!("Droplet {name} ({id}) {words}")))
}

// Nodes condemn, and it is not known whose agent is Ready.
fn nobody_may_say(look: &Look<'_>, status: &EgressGatewayStatus) -> Option<(&'static str, String)> {
    let reports =
        look.seen.live_nodes().filter_map(|node| node.report.as_ref()).filter(|report| !report.cut_off);
    let condemned: Vec<&str> = reports
        .flat_map(|report| &report.gateways)
        .filter(|view| view.condemned)
        .map(|view| view.address.as_str())
        .collect();
    let address = |gateway: &&GatewayStatus| {
        gateway.private_address.as_deref().is_some_and(|address| condemned.contains(&address))
    };
    let gateway = status.gateways.iter().filter(|_| look.electorate.is_unknown()).find(address)?;
    let message = format!(
        "Nodes condemn {}, but the controller cannot read which agents are Ready, so nothing is replaced on their word: it \
         needs to list and watch pods in its own namespace",
        gateway.name
    );
    Some(("AgentsUnknown", message))
}

// Which gateway, at which level, for how many nodes: those that were condemned come first, then those that only some nodes leave.
fn condemned(look: &Look<'_>, status: &EgressGatewayStatus) -> Option<(&'static str, String)> {
    let may_be = |gateway: &&GatewayStatus| matches!(gateway.role, GatewayRole::Failed) || is_proven(gateway);
    let mut blamed: Vec<&GatewayStatus> = status.gateways.iter().filter(may_be).collect();
    blamed.sort_by_key(|gateway| gateway.ready);
    blamed.into_iter().find_map(|gateway| {
        let (level, words) = complaint(&ballot(look, gateway))?;
        let words = if gateway.ready { words } else { gateway.message.clone().unwrap_or(words) };
        Some((level.reason(), format!("{}: {words}", gateway.name)))
    })
}

fn failed(status: &EgressGatewayStatus) -> Option<(&'static str, String)> {
    let failed = status.gateways.iter().find(|gateway| gateway.role == GatewayRole::Failed)?;
    Some(("GatewayFailed", in_words(failed)))
}

// Nobody is to blame while the outside answers through nobody: nodes and gateways hold still.
fn outside_unreachable(look: &Look<'_>, status: &EgressGatewayStatus) -> Option<(&'static str, String)> {
    let addresses: Vec<&str> = status
        .gateways
        .iter()
        .filter(|gateway| is_proven(gateway))
        .filter_map(|gateway| gateway.private_address.as_deref())
        .collect();
    let nodes = look.electorate.reports().filter(|(_, report)| {
        let mut views =
            report.gateways.iter().filter(|view| addresses.contains(&view.address.as_str())).peekable();
        views.peek().is_some() && views.all(|view| view.forwards == Some(false))
    });
    let (count, voters) = (nodes.count(), look.electorate.len());
    let message = format!(
        "{count} of {voters} nodes get to no target through any gateway. With no difference between gateways none is to blame: \
         look at the targets (spec.healthCheck.targets) and at the network beyond"
    );
    look.electorate.is_quorum(count).then_some(("OutsideUnreachable", message))
}

fn fewer(look: &Look<'_>, proven: usize) -> Option<(&'static str, String)> {
    let message = || format!("{proven} of {} gateways are proven", look.replicas);
    (proven > 0 && proven < look.replicas).then(|| (FEWER, message()))
}

// The data path works and its own endpoint does not say so: a process there hangs, and traffic flows.
fn doubtful(look: &Look<'_>, status: &EgressGatewayStatus) -> Option<(&'static str, String)> {
    let lasting = |gateway: &&GatewayStatus| {
        let since = droplet_id(gateway).and_then(|id| look.seen.failing_since.get(&id));
        // One that waits for the address that moves is as it should be.
        let waits = floating::is_wanted(look)
            && matches!(judge::health(look, gateway), Some(HealthSeen::Awaiting { .. }));
        gateway.ready && !waits && since.is_some_and(|since| elapsed(*since, look.now) >= DOUBT)
    };
    status.gateways.iter().find(lasting).map(|gateway| ("GatewayDoubtful", in_words(gateway)))
}
