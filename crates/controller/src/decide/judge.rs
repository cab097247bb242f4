//! Who works: judged by the gateway's own endpoint *and* by the nodes, never by one of them alone.
//!
//! ```text
//!              endpoint ready and a node got through
//!   Starting ─────────────────────────────────────────► Active / Standby ◄──────────┐
//!      │                                                      │                     │ the same
//!      │ bring-up time is over                                │ off, or endpoint    │ proof again
//!      ▼                                                      │ silent and quorum,  │
//!   Leaving ◄──── population: replaced, surplus ──── Failed ◄─┘ for 3 s ────────────┘
//!      │
//!      └──► gone: the entry is dropped when the cloud says 404
//! ```

use egress_api::{EgressGatewayStatus, GatewayRole, GatewayStatus};
use egress_digitalocean::{Droplet, DropletStatus};

use super::{Look, Presence, is_leaving};
use crate::decision::{CONDEMNED_AFTER, Effect};
use crate::identity::droplet_id;
use crate::observation::HealthSeen;

/// Nodes that report on one gateway.
#[derive(Clone, Copy, Debug, Default)]
struct Votes {
    reporting: usize,
    through: usize,
    unreachable: usize,
    not_through: usize,
}

impl Votes {
    // At least half. Getting no further than the gateway counts only if another gateway shows that the outside is there.
    fn condemn(self, another_works: bool) -> bool {
        let against = self.unreachable + if another_works { self.not_through } else { 0 };
        self.reporting > 0 && against * 2 >= self.reporting
    }
}

/// Brings addresses, readiness and suspicion of every recorded gateway up to date, and drops those that are gone.
pub(super) fn judge(look: &Look<'_>, status: &mut EgressGatewayStatus) {
    let mut failures = Vec::new();
    status.gateways.retain_mut(|gateway| match look.presence(gateway) {
        Presence::Gone => stays_though_not_found(look, gateway, &mut failures),
        Presence::Found(droplet) => {
            take_addresses(gateway, droplet);
            true
        }
        Presence::Unknown => true,
    });
    for failure in failures {
        failed_bring_up(status, failure);
    }
    let working: Vec<i64> = status
        .gateways
        .iter()
        .filter(|gateway| works(look, gateway))
        .map(|gateway| gateway.droplet_id)
        .collect();
    let mut proven_one = false;
    for gateway in status.gateways.iter_mut().filter(|gateway| !is_leaving(gateway)) {
        let another_works = working.iter().any(|id| *id != gateway.droplet_id);
        if working.contains(&gateway.droplet_id) {
            proven_one |= !gateway.ready;
            approve(look, gateway);
        } else if gateway.ready {
            doubt(look, gateway, another_works);
        } else {
            explain(look, gateway, another_works);
        }
    }
    if proven_one {
        status.failed_bring_ups = None;
        status.last_bring_up_failure = None;
    }
}

/// Powers on what the cloud says is off: that keeps the address, a replacement would not. Tried once.
pub(super) fn power_on(look: &Look<'_>, status: &EgressGatewayStatus) -> Option<Effect> {
    let vpc = look.vpc()?;
    status.gateways.iter().filter(|gateway| !is_leaving(gateway) && gateway.powered_on.is_none()).find_map(
        |gateway| match look.presence(gateway) {
            Presence::Found(droplet) if is_off(droplet) => {
                look.identity.prove(&status.gateways, droplet, vpc, &look.nodes).ok().map(Effect::PowerOn)
            }
            _ => None,
        },
    )
}

/// Why a gateway should make room for another, if it should.
pub(super) fn is_due(look: &Look<'_>, gateway: &GatewayStatus) -> Option<String> {
    let since = gateway.since.as_ref().map_or(std::time::Duration::ZERO, |since| look.since(since));
    let why = gateway.message.clone().unwrap_or_else(|| "it is not proven".to_owned());
    let provably_ours = look.vpc().is_some_and(|vpc| match look.presence(gateway) {
        Presence::Found(droplet) => {
            look.identity.prove(&look.before.gateways, droplet, vpc, &look.nodes).is_ok()
        }
        _ => false,
    });
    if gateway.ready || is_leaving(gateway) {
        return None;
    }
    if let Some(powered_on) = &gateway.powered_on {
        let over = look.since(powered_on) >= look.limits.power_on;
        return over.then(|| format!("powering it on again did not help: {why}"));
    }
    match look.presence(gateway) {
        // Power comes first, where we may switch it; not for ever where the cloud refuses.
        Presence::Found(droplet) if is_off(droplet) && provably_ours => {
            return (since >= look.limits.bring_up).then_some(why);
        }
        _ => {}
    }
    let over = match (&gateway.suspect_since, gateway.role) {
        (Some(suspect), GatewayRole::Failed) => look.since(suspect) >= look.limits.replace_after,
        _ => since >= look.limits.bring_up,
    };
    over.then_some(why)
}

/// One more Droplet in a row that never became ready.
pub(super) fn failed_bring_up(status: &mut EgressGatewayStatus, failure: String) {
    status.failed_bring_ups = Some(status.failed_bring_ups.unwrap_or_default().saturating_add(1));
    status.last_bring_up_failure = Some(failure);
}

fn stays_though_not_found(look: &Look<'_>, gateway: &GatewayStatus, failures: &mut Vec<String>) -> bool {
    if gateway.role != GatewayRole::Starting {
        return false;
    }
    let waited = gateway.since.as_ref().is_some_and(|since| look.since(since) >= look.limits.lost_after);
    if waited {
        failures.push(format!(
            "the cloud accepted Droplet {} ({}) and then had none",
            gateway.name, gateway.droplet_id
        ));
    }
    !waited
}

// Addresses may come later than `active`, and one at a time.
fn take_addresses(gateway: &mut GatewayStatus, droplet: &Droplet) {
    if let Some(address) = droplet.private_v4() {
        gateway.private_address = Some(address.to_string());
    }
    if let Some(address) = droplet.public_v4(&[]) {
        gateway.public_address = Some(address.to_string());
    }
}

fn is_off(droplet: &Droplet) -> bool {
    matches!(droplet.status, DropletStatus::Off | DropletStatus::Archive)
}

fn is_off_in_the_cloud(look: &Look<'_>, gateway: &GatewayStatus) -> bool {
    matches!(look.presence(gateway), Presence::Found(droplet) if is_off(droplet))
}

fn health<'a>(look: &Look<'a>, gateway: &GatewayStatus) -> Option<&'a HealthSeen> {
    droplet_id(gateway).and_then(|id| look.seen.health.get(&id))
}

fn votes(look: &Look<'_>, gateway: &GatewayStatus) -> Votes {
    let mut votes = Votes::default();
    let Some(address) = gateway.private_address.as_deref() else { return votes };
    for report in look.seen.live_nodes().filter_map(|node| node.report.as_ref()) {
        let Some(view) = report.gateways.iter().find(|view| view.address == address) else { continue };
        votes.reporting += 1;
        match (view.reachable, view.forwards) {
            (false, _) => votes.unreachable += 1,
            (true, Some(true)) => votes.through += 1,
            (true, Some(false)) => votes.not_through += 1,
            (true, None) => {}
        }
    }
    votes
}

fn works(look: &Look<'_>, gateway: &GatewayStatus) -> bool {
    let endpoint = matches!(health(look, gateway), Some(HealthSeen::Ready { .. }));
    let absent = matches!(look.presence(gateway), Presence::Gone) || is_off_in_the_cloud(look, gateway);
    endpoint && votes(look, gateway).through > 0 && !absent
}

fn approve(look: &Look<'_>, gateway: &mut GatewayStatus) {
    if let Some(HealthSeen::Ready { version: Some(version), .. }) = health(look, gateway) {
        gateway.user_data_version = Some(version.clone());
    }
    gateway.suspect_since = None;
    gateway.powered_on = None;
    gateway.message = None;
    if !gateway.ready {
        gateway.ready = true;
        gateway.role = GatewayRole::Standby;
    }
}

// A proven gateway that does not show its proof right now.
fn doubt(look: &Look<'_>, gateway: &mut GatewayStatus, another_works: bool) {
    let off = is_off_in_the_cloud(look, gateway);
    if !off && !is_condemned(look, gateway, another_works) {
        gateway.suspect_since = None;
        gateway.message = match health(look, gateway) {
            Some(HealthSeen::NotReady(words) | HealthSeen::Silent(words)) => {
                Some(format!("its own endpoint: {words}; the nodes do not agree, so it stays"))
            }
            _ => None,
        };
        return;
    }
    gateway.message = Some(why_not(look, gateway));
    let suspect_since = gateway.suspect_since.get_or_insert_with(|| look.time()).clone();
    if off || look.since(&suspect_since) >= CONDEMNED_AFTER {
        gateway.ready = false;
        gateway.role = GatewayRole::Failed;
    }
}

// Not proven, or not any more.
fn explain(look: &Look<'_>, gateway: &mut GatewayStatus, another_works: bool) {
    gateway.message = Some(why_not(look, gateway));
    if gateway.role == GatewayRole::Failed {
        if is_off_in_the_cloud(look, gateway) || is_condemned(look, gateway, another_works) {
            gateway.suspect_since.get_or_insert_with(|| look.time());
        } else {
            gateway.suspect_since = None;
        }
    } else {
        gateway.role = GatewayRole::Starting;
    }
}

fn is_condemned(look: &Look<'_>, gateway: &GatewayStatus, another_works: bool) -> bool {
    let endpoint_fails =
        matches!(health(look, gateway), Some(HealthSeen::NotReady(_) | HealthSeen::Silent(_)));
    endpoint_fails && votes(look, gateway).condemn(another_works)
}

fn why_not(look: &Look<'_>, gateway: &GatewayStatus) -> String {
    let droplet = match look.presence(gateway) {
        Presence::Gone => return "the cloud has accepted it and does not show it yet".to_owned(),
        Presence::Found(droplet) => droplet,
        Presence::Unknown => return "the cloud was not asked or did not answer".to_owned(),
    };
    if is_off(droplet) {
        return "the cloud says that it is powered off".to_owned();
    }
    if gateway.private_address.is_none() {
        return "the cloud has given it no address in the VPC yet".to_owned();
    }
    let votes = votes(look, gateway);
    let nodes = match votes {
        Votes { reporting: 0, .. } => "no node has tried it yet".to_owned(),
        Votes { through: 0, unreachable: 0, not_through: 0, .. } => {
            "no node has tried the way through it yet".to_owned()
        }
        Votes { reporting, through, unreachable, .. } => {
            format!("of {reporting} nodes {through} get through it and {unreachable} do not reach it")
        }
    };
    match health(look, gateway) {
        Some(HealthSeen::NotReady(words)) => format!("its own endpoint: {words}; {nodes}"),
        Some(HealthSeen::Silent(words)) => format!("its own endpoint does not answer ({words}); {nodes}"),
        Some(HealthSeen::Ready { .. }) | None => nodes,
    }
}
