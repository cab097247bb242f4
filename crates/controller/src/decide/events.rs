//! What people are told: transitions only, by comparing the status before with the status after.

use egress_api::condition::{DEGRADED, READY};
use egress_api::{EgressGatewayStatus, Failover, GatewayRole, PublicIp, Replacement, Roll};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::addresses::floating;
use super::{Look, addresses, degraded, happening, teardown};
use crate::decision::{Effect, Happening};
use crate::firewall::recorded_ids;

/// Events that belong to this step. They are published after its effect.
pub(super) fn between(
    look: &Look<'_>,
    after: &EgressGatewayStatus,
    effect: Option<&Effect>,
) -> Vec<Happening> {
    match effect {
        Some(Effect::WriteStatus) => transitions(look, after),
        Some(effect) => of_effect(effect).into_iter().collect(),
        None => Vec::new(),
    }
}

fn of_effect(effect: &Effect) -> Option<Happening> {
    match effect {
        Effect::CreateDroplet(order) => {
            Some(happening(false, "DropletCreated", format!("Droplet {} was asked for", order.name)))
        }
        Effect::PowerOn(droplet) => Some(happening(
            true,
            "PoweredOn",
            format!("Droplet {} was off and was powered on", droplet.name()),
        )),
        Effect::PowerCycle(droplet) => Some(happening(
            true,
            "PowerCycled",
            format!(
                "Droplet {} was active and dead and was power-cycled; it keeps its address",
                droplet.name()
            ),
        )),
        Effect::DeleteDroplet(droplet) => {
            let note = format!("Droplet {} ({}) was deleted", droplet.name(), droplet.id());
            Some(happening(false, "DropletDeleted", note))
        }
        Effect::CreateFirewall(spec) => {
            Some(happening(false, "FirewallCreated", format!("Firewall {} was asked for", spec.name)))
        }
        Effect::UpdateFirewall(firewall, spec) => {
            let note = format!(
                "Firewall {} ({}) was brought up to date: {} Droplets, {} inbound rules",
                firewall.name(),
                firewall.id(),
                spec.droplets.len(),
                spec.inbound.len()
            );
            Some(happening(false, "FirewallUpdated", note))
        }
        Effect::DeleteFirewall(firewall) => {
            let note = format!("Firewall {} ({}) was deleted", firewall.name(), firewall.id());
            Some(happening(false, "FirewallDeleted", note))
        }
        Effect::ReserveIp(droplet) => {
            let note = format!("An address was reserved for {} ({})", droplet.name(), droplet.id());
            Some(happening(false, "ReservedIPCreated", note))
        }
        Effect::AssignIp(ip, droplet) => {
            let note = format!("Reserved address {} is assigned to {}", ip.ip(), droplet.name());
            Some(happening(false, "ReservedIPAssigned", note))
        }
        Effect::ReleaseIp(ip) => Some(happening(
            false,
            "ReservedIPReleased",
            format!("Reserved address {} was given back", ip.ip()),
        )),
        Effect::AddFinalizer
        | Effect::WriteStatus
        | Effect::MarkIp(..)
        | Effect::ApplyStaticRoute(_)
        | Effect::DeleteStaticRoute { .. }
        | Effect::AdmitPeers(_)
        | Effect::AssignToProject(..)
        | Effect::Untag(_)
        | Effect::RemoveFinalizer => None,
    }
}

fn transitions(look: &Look<'_>, after: &EgressGatewayStatus) -> Vec<Happening> {
    let before = &look.before;
    let mut told = Vec::new();
    for gateway in &after.gateways {
        let old = before.gateways.iter().find(|old| old.droplet_id == gateway.droplet_id);
        let why = gateway.message.as_deref().unwrap_or_default();
        let name = &gateway.name;
        match old {
            None => {
                let note = format!("Droplet {name} ({}) was found and taken over", gateway.droplet_id);
                told.push(happening(false, "DropletAdopted", note));
            }
            Some(old) if !old.ready && gateway.ready => {
                let address = in_words(gateway.public_address.as_ref());
                let (reason, words) = match old.role {
                    GatewayRole::Failed => ("GatewayRecovered", "works again"),
                    _ => ("GatewayProven", "is proven"),
                };
                told.push(happening(false, reason, format!("{name} {words}; it leaves as {address}")));
            }
            Some(old) if old.suspect_since.is_none() && gateway.suspect_since.is_some() && gateway.ready => {
                told.push(happening(true, "GatewayCondemned", format!("{name}: {why}")));
            }
            Some(old) if old.suspect_since.is_some() && gateway.suspect_since.is_none() && gateway.ready => {
                told.push(happening(false, "GatewayRecovered", format!("{name} is condemned no more")));
            }
            Some(old) if old.role != gateway.role && gateway.role == GatewayRole::Failed => {
                told.push(happening(true, "GatewayFailed", format!("{name}: {why}")));
            }
            Some(old) if old.role != gateway.role && gateway.role == GatewayRole::Leaving => {
                told.push(happening(
                    false,
                    "GatewayLeaves",
                    format!("{name} ({:?}) leaves. {why}", old.role),
                ));
            }
            Some(_) => {}
        }
    }
    for gone in before
        .gateways
        .iter()
        .filter(|old| !after.gateways.iter().any(|new| new.droplet_id == old.droplet_id))
    {
        let droplet = format!("Droplet {} ({})", gone.name, gone.droplet_id);
        let address = in_words(gone.public_address.as_ref());
        told.push(if teardown::is_released(look, gone) {
            let note =
                format!("{droplet} stays in the cloud with {address}, without our tags, and is billed");
            happening(false, "DropletRetained", note)
        } else {
            let taken =
                if addresses::are_wanted(look) { String::new() } else { format!(", and {address} with it") };
            happening(false, "DropletGone", format!("{droplet} is gone{taken}"))
        });
    }
    told.extend(firewall_lost(before, after));
    told.extend(reserved_ips_lost(look, after));
    told.extend(failed_over(look, after));
    told.extend(replaced(look, after));
    told.extend(rolled(look, after));
    told.extend(of_conditions(&before.conditions, &after.conditions));
    told
}

fn firewall_lost(before: &EgressGatewayStatus, after: &EgressGatewayStatus) -> Option<Happening> {
    let old = before.firewall.as_ref()?;
    let id = old.id.as_ref()?;
    let recorded = after.firewall.iter().flat_map(recorded_ids).any(|one| one == id);
    let note = || format!("Firewall {} ({id}) is gone; another is made", old.name);
    (!recorded && after.firewall.is_some()).then(|| happening(true, "FirewallGone", note()))
}

fn reserved_ips_lost(look: &Look<'_>, after: &EgressGatewayStatus) -> Vec<Happening> {
    let still = |ip: &String| after.reserved_ips.iter().any(|recorded| recorded.ip == *ip);
    let lost = look.before.reserved_ips.iter().filter(|recorded| !still(&recorded.ip));
    lost.map(|recorded| {
        let note =
            format!("Reserved address {} is gone from the account: whoever admits it need not", recorded.ip);
        happening(true, "ReservedIPGone", note)
    })
    .collect()
}

fn failed_over(look: &Look<'_>, after: &EgressGatewayStatus) -> Option<Happening> {
    let last =
        after.last_failover.as_ref().filter(|last| look.before.last_failover.as_ref() != Some(last))?;
    let to = after.gateways.iter().find(|gateway| gateway.name == last.to);
    let shared = floating::address(after).filter(|_| floating::is_wanted(look)).map(|recorded| &recorded.ip);
    let address = in_words(shared.or(to.and_then(|gateway| gateway.public_address.as_ref())));
    let Failover { from, to, reason, seconds, .. } = last;
    let took = seconds.map(|seconds| format!(" within {seconds:.2} s")).unwrap_or_default();
    let note = format!("{to} ({address}) carries the traffic instead of {from}{took}: {reason}");
    Some(happening(false, "FailedOver", note))
}

// Partners keep lists of addresses: both are named.
fn replaced(look: &Look<'_>, after: &EgressGatewayStatus) -> Option<Happening> {
    let (before, reserved) = (&look.before, addresses::are_wanted(look));
    let last = after.last_replacement.as_ref()?;
    let recorded =
        |before: &&Replacement| before.from_droplet_id == last.from_droplet_id && before.time == last.time;
    let known = before.last_replacement.as_ref().filter(recorded);
    let (from, old) = (&last.from, in_words(last.from_public_address.as_ref()));
    match &last.to {
        None if known.is_none() => {
            let address = match look.seen.gateway.spec.public_ip {
                PublicIp::Ephemeral => "will have another address",
                PublicIp::ReservedPerGateway => "takes over a reserved address",
                PublicIp::Floating => "has the same address when that moves to it",
            };
            let note = format!("{from} ({old}) is replaced: {}. Its successor {address}", last.reason);
            Some(happening(true, "Replacing", note))
        }
        Some(to) if to != from && known.is_none_or(|known| known.to.is_none()) => {
            let new = in_words(last.to_public_address.as_ref());
            let note = if reserved {
                format!("{from} was replaced by {to}, which has {new}: the addresses to admit are the same")
            } else {
                format!("{from} ({old}) was replaced by {to} ({new}): who admits {old} must admit {new} now")
            };
            Some(happening(!reserved, "Replaced", note))
        }
        _ => None,
    }
}

// What a roll has come to since.
fn rolled(look: &Look<'_>, after: &EgressGatewayStatus) -> Option<Happening> {
    let (before, reserved) = (&look.before, addresses::are_wanted(look));
    let roll = after.roll.as_ref()?;
    let same = |old: &&Roll| (&old.since, old.from_droplet_id) == (&roll.since, roll.from_droplet_id);
    let known = before.roll.as_ref().filter(same);
    let (from, to) = (&roll.from, roll.to.as_deref().unwrap_or_default());
    let (old, new) = (in_words(roll.from_public_address.as_ref()), in_words(roll.to_public_address.as_ref()));
    let Some(known) = known else {
        let note = format!("{from} ({old}) is replaced: {}. {}", roll.reason, roll.impact);
        return Some(happening(false, "Rolling", note));
    };
    if let Some(failure) = roll.failure.as_ref().filter(|_| known.failure.is_none()) {
        let note = format!("{from} ({old}) works on; its successor {to} did not hold: {failure}");
        return Some(happening(true, "RollStopped", note));
    }
    if roll.ended.is_some() && known.ended.is_none() {
        let note = if reserved {
            format!("{from} was replaced by {to}, which has {new}: the addresses to admit are the same")
        } else {
            format!("{from} ({old}) was replaced by {to} ({new}): who admits {old} must admit {new} now")
        };
        return Some(happening(false, "Rolled", note));
    }
    let until = roll.drain_until.as_ref().filter(|_| known.drain_since.is_none())?.0;
    let note = if reserved {
        format!("{to} is up; {from} drains until {until} at the latest, and then {old} moves to {to}")
    } else {
        format!("{to} ({new}) is proven; {from} ({old}) drains until {until} at the latest")
    };
    Some(happening(false, "Draining", note))
}

fn in_words(address: Option<&String>) -> &str {
    address.map_or("an unknown address", String::as_str)
}

fn of_conditions(before: &[Condition], after: &[Condition]) -> Vec<Happening> {
    let find =
        |list: &[Condition], type_: &str| list.iter().find(|condition| condition.type_ == type_).cloned();
    let mut told = Vec::new();
    if let Some(ready) = find(after, READY)
        && find(before, READY).is_none_or(|old| old.status != ready.status)
        && ready.status == "True"
    {
        told.push(happening(false, "Ready", ready.message));
    }
    if let Some(degraded) = find(after, DEGRADED)
        && degraded.status == "True"
        // The condition says it. Whatever led to it has its own event, and while a pair comes up nothing is wrong.
        && degraded.reason != degraded::FEWER
        && find(before, DEGRADED)
            .is_none_or(|old| (old.status, old.reason) != (degraded.status, degraded.reason.clone()))
    {
        told.push(happening(true, "Degraded", format!("{}: {}", degraded.reason, degraded.message)));
    }
    told
}
