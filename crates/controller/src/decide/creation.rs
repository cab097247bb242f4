//! From intent to Droplet: adopt before create, one create per intent, a settle time after one whose outcome is unknown.

use egress_api::{CreationIntent, EgressGatewayStatus, GatewayRole, GatewayStatus};
use egress_digitalocean::Droplet;

use super::{Look, existing, population};
use crate::decision::{Effect, Order, REFUSED_PAUSE};
use crate::identity::droplet_id;

/// Records every Droplet that is provably ours and not recorded: the answer to its create was lost, or the status was.
pub(super) fn adopt(look: &Look<'_>, status: &mut EgressGatewayStatus) {
    let (Some(cloud), Some(vpc)) = (look.cloud(), look.vpc()) else { return };
    for droplet in cloud.droplets.values() {
        let known = status.gateways.iter().any(|gateway| droplet_id(gateway) == Some(droplet.id));
        if known || existing::is_named(look, droplet.id) {
            continue;
        }
        let Ok(slot) = look.identity.adoptable(droplet, vpc, &look.nodes) else { continue };
        // A second one in a slot can only be a success that came after the settle time. It is recorded so that it can go.
        let surplus = status.gateways.iter().any(|gateway| gateway.slot == slot);
        let name = look.identity.droplet_name(slot);
        let intent = status.creating.iter().find(|intent| intent.name == name).cloned();
        status.creating.retain(|intent| intent.name != name);
        let id = i64::try_from(droplet.id.0).unwrap_or_default();
        let role = if surplus { GatewayRole::Leaving } else { GatewayRole::Starting };
        status.gateways.push(GatewayStatus {
            private_address: droplet.private_v4().map(|address| address.to_string()),
            public_address: droplet.public_v4(&[]).map(|address| address.to_string()),
            since: Some(look.time()),
            user_data_version: intent.as_ref().map(|intent| intent.user_data_version.clone()),
            image: intent.and_then(|intent| intent.image),
            ..GatewayStatus::new(name, slot, id, role)
        });
    }
}

/// Droplets that may well be ours and cannot be adopted: the name is ours and the tags are missing (they land late), or the
/// tags are ours and the name is not. They count, and nobody touches them.
///
/// A node, or a Droplet in another VPC, is not ours whatever it carries.
pub(super) fn strangers<'a>(look: &Look<'a>, status: &EgressGatewayStatus) -> Vec<&'a Droplet> {
    let (Some(cloud), Some(vpc)) = (look.cloud(), look.vpc()) else { return Vec::new() };
    let tags = [look.identity.owner_tag(), look.identity.cluster_tag()];
    let recorded =
        |droplet: &Droplet| status.gateways.iter().any(|gateway| droplet_id(gateway) == Some(droplet.id));
    let possible = |droplet: &Droplet| {
        let here = droplet.vpc_uuid.as_ref().is_none_or(|id| id.as_str() == vpc);
        let named = look.identity.slot_of(&droplet.name).is_some();
        let tagged = tags.iter().all(|tag| droplet.has_tag(tag) == Some(true));
        here && (named || tagged)
            && !look.nodes.contains(&droplet.id)
            && !existing::is_named(look, droplet.id)
    };
    cloud.droplets.values().filter(|droplet| possible(droplet) && !recorded(droplet)).collect()
}

/// A new intent in the lowest free slot.
pub(super) fn intend(look: &Look<'_>, status: &mut EgressGatewayStatus) {
    intend_in(look, status, 0..=look.seen.gateway.spec.replicas);
}

// A new intent in the first of these slots that is free.
fn intend_in(look: &Look<'_>, status: &mut EgressGatewayStatus, mut slots: impl Iterator<Item = i32>) {
    let Ok(site) = &look.seen.site else { return };
    let strangers = strangers(look, status);
    let taken = |slot: i32| {
        let name = look.identity.droplet_name(slot);
        status.gateways.iter().any(|gateway| gateway.slot == slot)
            || status.creating.iter().any(|intent| intent.slot == slot)
            || strangers.iter().any(|droplet| droplet.name.eq_ignore_ascii_case(&name))
    };
    let Some(slot) = slots.find(|slot| !taken(*slot)) else { return };
    status.creating.push(CreationIntent {
        name: look.identity.droplet_name(slot),
        slot,
        since: look.time(),
        sent: None,
        user_data_version: site.user_data.version.clone(),
        image: None,
        message: None,
    });
}

/// Whether a Droplet that is not ours has kept this intent waiting for longer than its tags could have taken to land.
pub(super) fn is_in_vain(look: &Look<'_>, strangers: &[&Droplet], intent: &CreationIntent) -> bool {
    intent.sent.is_none()
        && look.since(&intent.since) >= look.limits.settle
        && strangers.iter().any(|droplet| droplet.name.eq_ignore_ascii_case(&intent.name))
}

/// Moves an intent whose name somebody else's Droplet has to a later slot, if one is free, or to that of the one that was replaced last,
/// when it is gone. Back to no other: only names of intents are looked up, so an earlier slot looks free whether it is or not.
pub(super) fn make_way(look: &Look<'_>, status: &mut EgressGatewayStatus) {
    let strangers = strangers(look, status);
    let Some(at) = status.creating.iter().position(|intent| is_in_vain(look, &strangers, intent)) else {
        return;
    };
    let given_up = status.creating.remove(at);
    let others = status.creating.len();
    let later = given_up.slot + 1..=look.seen.gateway.spec.replicas;
    let replaced = status.last_replacement.as_ref().and_then(|last| look.identity.slot_of(&last.from));
    let replaced = replaced.filter(|slot| *slot < given_up.slot);
    intend_in(look, status, later.chain(replaced));
    if status.creating.len() == others {
        status.creating.push(given_up);
    }
}

/// The create to send now, if any.
///
/// Sent only when the cloud was asked for the Droplet, by tag and by name, after the intent was written, and does not have it.
pub(super) fn order(look: &Look<'_>, status: &EgressGatewayStatus) -> Option<Effect> {
    let cloud = look.cloud()?;
    let site = look.seen.site.as_ref().ok()?;
    // What cannot be had would be refused, in fewer words.
    if population::is_held(look) {
        return None;
    }
    let strangers = strangers(look, status);
    let alive = status.gateways.len() + strangers.len();
    if alive >= look.most() {
        return None;
    }
    let intent = status.creating.iter().find(|intent| is_due(look, intent))?;
    let same_name = |droplet: &&Droplet| droplet.name.eq_ignore_ascii_case(&intent.name);
    let looked_up = cloud.looked_up.contains(&intent.name) && cloud.taken >= intent.since.0;
    // What carries the name and is not ours yet may be ours before its tags have landed.
    if !looked_up || strangers.iter().any(same_name) {
        return None;
    }
    let template = &look.seen.gateway.spec.droplet;
    let mut tags = look.identity.tags(intent.slot);
    tags.extend(template.tags.iter().cloned());
    Some(Effect::CreateDroplet(Order {
        slot: intent.slot,
        name: intent.name.clone(),
        region: site.region.clone(),
        vpc: site.vpc.clone(),
        size: template.size.clone(),
        image: template.image.clone(),
        ssh_keys: template.ssh_keys.clone(),
        tags,
        monitoring: template.monitoring,
        user_data: site.user_data.text.clone(),
        user_data_version: site.user_data.version.clone(),
    }))
}

fn is_due(look: &Look<'_>, intent: &CreationIntent) -> bool {
    match (&intent.sent, &intent.message) {
        (Some(sent), _) => has_settled(look, sent),
        // Refused: `since` is when.
        (None, Some(_)) => look.since(&intent.since) >= REFUSED_PAUSE,
        (None, None) => true,
    }
}

/// Whether a create that was sent at this time and has not been seen since can be taken for one that never happened.
pub(super) fn has_settled(
    look: &Look<'_>,
    sent: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Time,
) -> bool {
    let read_late_enough = look.cloud().is_some_and(|cloud| {
        let age = cloud.taken.duration_since(sent.0);
        std::time::Duration::try_from(age).is_ok_and(|age| age >= look.limits.settle)
    });
    read_late_enough && look.since(sent) >= look.limits.settle
}
