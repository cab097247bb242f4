//! The last failover: by the nodes, who move first, or by the order of the list, whichever comes first.

use egress_api::{EgressGatewayStatus, Failover, GatewayStatus, NodeFailover};

use super::{Look, is_proven, route};

/// Fills in `status.lastFailover` when the active gateway changed, or a quorum of nodes left the one they had.
pub(super) fn note(look: &Look<'_>, status: &mut EgressGatewayStatus, head: Option<&GatewayStatus>) {
    let by_order = head
        .and_then(|head| Some((was_active(look)?, head)))
        .filter(|(from, to)| from.droplet_id != to.droplet_id);
    if let Some((from, to)) = by_order {
        if is_told(look, status, from, to) {
            return;
        }
        let told = by_nodes(look, status)
            .find(|(told_from, told_to, _)| (&from.name, &to.name) == (told_from, told_to));
        let own = || Failover {
            time: look.time(),
            from: from.name.clone(),
            to: to.name.clone(),
            reason: reason(look, status, from, to),
            seconds: None,
        };
        status.last_failover = Some(told.map_or_else(own, |(from, to, first)| of_node(from, to, first)));
        return;
    }
    let quorum = by_nodes(look, status).find(|(from, to, _)| {
        let moved =
            by_nodes(look, status).filter(|(other_from, other_to, _)| (from, to) == (other_from, other_to));
        look.electorate.is_quorum(moved.count())
    });
    if let Some((from, to, first)) = quorum {
        status.last_failover = Some(of_node(from, to, first));
    }
}

/// What the node that moved first saw, if the recorded failover is a node's.
pub(super) fn evidence(look: &Look<'_>, failover: &Failover) -> Option<String> {
    failover.seconds?;
    let moved =
        look.electorate.reports().filter_map(|(node, report)| Some((node, report.last_failover.as_ref()?)));
    let mut first = moved.filter(|(_, told)| told.time == failover.time && told.reason == failover.reason);
    first.next().map(|(node, told)| format!("{}: {}", node.name, told.evidence))
}

fn of_node(from: String, to: String, first: &NodeFailover) -> Failover {
    Failover {
        time: first.time.clone(),
        from,
        to,
        reason: first.reason.clone(),
        seconds: Some(first.seconds),
    }
}

// What nodes did since the last failover that is on record, the earliest first. Times of different nodes are compared to tell a
// story only; nothing is decided on them.
fn by_nodes<'a>(
    look: &Look<'a>,
    status: &EgressGatewayStatus,
) -> impl Iterator<Item = (String, String, &'a NodeFailover)> + use<'a> {
    let name_of = |address: &str| {
        let known = status.gateways.iter().chain(&look.before.gateways);
        let mut named = known.filter(|gateway| gateway.private_address.as_deref() == Some(address));
        named.next().map(|gateway| gateway.name.clone())
    };
    let since = look.before.last_failover.as_ref().map(|last| last.time.0);
    let own = route::ours(look).and_then(|route| route.metadata.name.as_deref());
    let told = look.electorate.reports().filter_map(|(_, report)| report.last_failover.as_ref());
    let news = told.filter(|told| Some(told.static_route.as_str()) == own && Some(told.time.0) > since);
    let mut moved: Vec<_> =
        news.filter_map(|told| Some((name_of(&told.from)?, name_of(&told.to)?, told))).collect();
    moved.sort_by_key(|(.., told)| told.time.0);
    moved.into_iter()
}

// The nodes' move is on record already when the list follows it.
fn is_told(look: &Look<'_>, status: &EgressGatewayStatus, from: &GatewayStatus, to: &GatewayStatus) -> bool {
    const STORY: std::time::Duration = std::time::Duration::from_secs(600);
    status.last_failover.as_ref().is_some_and(|last| {
        let same = (&last.from, &last.to) == (&from.name, &to.name);
        same && last.seconds.is_some() && look.since(&last.time) < STORY
    })
}

// Who was written down as active or, when none works meanwhile, whom nodes still have first.
fn was_active<'a>(look: &'a Look<'_>) -> Option<&'a GatewayStatus> {
    let listed = route::current_list(look).into_iter().next().map(|first| first.address.0);
    look.before.gateways.iter().find(|old| match &look.before.active {
        Some(name) => *name == old.name,
        None => old.private_address.is_some() && old.private_address == listed,
    })
}

fn reason(look: &Look<'_>, status: &EgressGatewayStatus, from: &GatewayStatus, to: &GatewayStatus) -> String {
    match status.gateways.iter().find(|gateway| gateway.droplet_id == from.droplet_id) {
        Some(gateway) if is_proven(gateway) => look
            .wishes
            .reason(&from.name, &to.name)
            .unwrap_or_else(|| format!("the nodes' list has {} first", to.name)),
        Some(gateway) => gateway.message.clone().unwrap_or_else(|| format!("it is {:?}", gateway.role)),
        None => "its Droplet is gone".to_owned(),
    }
}
