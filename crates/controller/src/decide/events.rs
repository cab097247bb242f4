//! What people are told: transitions only, by comparing the status before with the status after.

use egress_api::condition::{DEGRADED, READY};
use egress_api::{EgressGatewayStatus, GatewayRole};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::{Look, conditions, happening};
use crate::decision::{Effect, Happening};

/// Events that belong to this step. They are published after its effect.
pub(super) fn between(
    look: &Look<'_>,
    after: &EgressGatewayStatus,
    effect: Option<&Effect>,
) -> Vec<Happening> {
    match effect {
        Some(Effect::WriteStatus) => transitions(&look.before, after),
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
        Effect::DeleteDroplet(droplet) => {
            let note = format!("Droplet {} ({}) was deleted", droplet.name(), droplet.id());
            Some(happening(false, "DropletDeleted", note))
        }
        Effect::AddFinalizer
        | Effect::WriteStatus
        | Effect::ApplyStaticRoute(_)
        | Effect::DeleteStaticRoute { .. }
        | Effect::RemoveFinalizer => None,
    }
}

fn transitions(before: &EgressGatewayStatus, after: &EgressGatewayStatus) -> Vec<Happening> {
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
                let address = gateway.public_address.as_deref().unwrap_or("unknown");
                told.push(happening(
                    false,
                    "GatewayProven",
                    format!("{name} is proven; it leaves as {address}"),
                ));
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
        told.push(happening(
            false,
            "DropletGone",
            format!("Droplet {} ({}) is gone", gone.name, gone.droplet_id),
        ));
    }
    if before.active != after.active
        && let (Some(from), Some(to)) = (&before.active, &after.active)
    {
        let address = after.egress_ip.as_deref().unwrap_or("unknown");
        told.push(happening(false, "ActiveChanged", format!("{to} ({address}) is active instead of {from}")));
    }
    told.extend(of_conditions(&before.conditions, &after.conditions));
    told
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
        && degraded.reason != conditions::FEWER
        && find(before, DEGRADED)
            .is_none_or(|old| (old.status, old.reason) != (degraded.status, degraded.reason.clone()))
    {
        told.push(happening(true, "Degraded", format!("{}: {}", degraded.reason, degraded.message)));
    }
    told
}
