//! The last failover: by the nodes, who move first, or by the order of the list, whichever comes first.

use egress_api::{EgressGatewayStatus, Failover, GatewayStatus, NodeFailover};

use super::{Look, is_proven, roll, route};

/// Fills in `status.lastFailover` when the active gateway changed, or a quorum of nodes left the one they had.
pub(super) fn note(look: &Look<'_>, status: &mut EgressGatewayStatus, head: Option<&GatewayStatus>) {
    let moved = by_nodes(look, status);
    let by_order = head.and_then(|head| Some((was_active(look)?, head)));
    if let Some((from, to)) = by_order.filter(|(from, to)| from.droplet_id != to.droplet_id) {
        if is_told(look, status, from, to) {
            return;
        }
        let told = moved.iter().find(|moved| (&moved.from, &moved.to) == (&from.name, &to.name));
        let own = || Failover {
            time: look.time(),
            from: from.name.clone(),
            to: to.name.clone(),
            reason: reason(look, status, from, to),
            seconds: None,
        };
        status.last_failover = Some(told.map_or_else(own, Moved::record));
        return;
    }
    let agree = |one: &&Moved<'_>| {
        let same = moved.iter().filter(|other| (&one.from, &one.to) == (&other.from, &other.to));
        look.electorate.is_quorum(same.count())
    };
    if let Some(first) = moved.iter().find(agree) {
        status.last_failover = Some(first.record());
    }
}

/// A node's move between two gateways of this EgressGateway.
struct Moved<'a> {
    from: String,
    to: String,
    node: &'a str,
    told: &'a NodeFailover,
}

impl Moved<'_> {
    fn record(&self) -> Failover {
        let NodeFailover { time, reason, seconds, evidence, .. } = self.told;
        Failover {
            time: time.clone(),
            from: self.from.clone(),
            to: self.to.clone(),
            reason: format!("{reason}, says {}: {evidence}", self.node),
            seconds: Some(*seconds),
        }
    }
}

// What nodes did since the last failover that is on record, the earliest first. Times of different nodes are compared to tell a
// story only; nothing is decided on them. Whose gateways they are says which EgressGateway it concerns: of several StaticRoutes
// that move together a node names one.
fn by_nodes<'a>(look: &Look<'a>, status: &EgressGatewayStatus) -> Vec<Moved<'a>> {
    let name_of = |address: &str| {
        let known = status.gateways.iter().chain(&look.before.gateways);
        let mut named = known.filter(|gateway| gateway.private_address.as_deref() == Some(address));
        named.next().map(|gateway| gateway.name.clone())
    };
    let since = look.before.last_failover.as_ref().map(|last| last.time.0);
    let told =
        look.electorate.reports().filter_map(|(node, report)| Some((node, report.last_failover.as_ref()?)));
    let news = told.filter(|(_, told)| Some(told.time.0) > since);
    let mut moved: Vec<Moved<'a>> = news
        .filter_map(|(node, told)| {
            Some(Moved { from: name_of(&told.from)?, to: name_of(&told.to)?, node: &node.name, told })
        })
        .collect();
    moved.sort_by_key(|moved| moved.told.time.0);
    moved
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
            .or_else(|| {
                roll::is_drained(status, gateway).then(|| format!("{} is replaced by a new one", from.name))
            })
            .unwrap_or_else(|| format!("the nodes' list has {} first", to.name)),
        Some(gateway) => gateway.message.clone().unwrap_or_else(|| format!("it is {:?}", gateway.role)),
        None => "its Droplet is gone".to_owned(),
    }
}
