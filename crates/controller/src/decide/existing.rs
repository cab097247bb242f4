//! Droplets that people name as gateways: judged by the data path alone, and otherwise theirs.
//!
//! None is made, powered, renamed, put behind a firewall, replaced or deleted, whatever it carries: what is marked as existing is left
//! out wherever an effect on a Droplet is planned. One that is named no more leaves the nodes' list and is then forgotten.

use egress_api::{EgressGatewayStatus, GatewayRole, GatewayStatus};
use egress_digitalocean::{Droplet, DropletId};

use super::{Look, is_leaving, population};
use crate::identity::droplet_id;

/// Records those that are named and can serve, and lets go of those that are named no more.
pub(super) fn record(look: &Look<'_>, status: &mut EgressGatewayStatus) {
    let named = named(look);
    for gateway in &mut status.gateways {
        let is_named = droplet_id(gateway).is_some_and(|id| named.contains(&id));
        // One of ours that somebody pins is theirs from now on.
        gateway.existing |= is_named;
        match gateway.role {
            GatewayRole::Leaving if is_named => gateway.role = GatewayRole::Starting,
            _ if gateway.existing && !is_named => gateway.role = GatewayRole::Leaving,
            _ => {}
        }
    }
    status.gateways.retain(|gateway| {
        !(gateway.existing && is_leaving(gateway) && population::has_been_let_go(look, gateway))
    });
    let Some(cloud) = look.cloud() else { return };
    for id in named {
        let recorded = status.gateways.iter().any(|gateway| droplet_id(gateway) == Some(id));
        let Some(droplet) = cloud.droplets.get(&id).filter(|_| !recorded) else { continue };
        if unfit(look, droplet).is_none() {
            status.gateways.push(entry(look, droplet));
        }
    }
}

/// How many are named and not recorded: nothing is made in their place.
pub(super) fn awaited(look: &Look<'_>, status: &EgressGatewayStatus) -> usize {
    let recorded = |id: &DropletId| status.gateways.iter().any(|gateway| droplet_id(gateway) == Some(*id));
    named(look).iter().filter(|id| !recorded(id)).count()
}

/// What keeps a named Droplet from serving.
pub(super) fn complaint(look: &Look<'_>) -> Option<String> {
    let cloud = look.cloud()?;
    named(look).into_iter().find_map(|id| match cloud.droplets.get(&id) {
        Some(droplet) => unfit(look, droplet),
        None if cloud.missing.contains(&id) => Some(format!(
            "spec.existingDroplets: the API token sees no Droplet {id}; name another, or remove it"
        )),
        None => None,
    })
}

/// Whether people have named this Droplet.
pub(super) fn is_named(look: &Look<'_>, id: DropletId) -> bool {
    named(look).contains(&id)
}

fn named(look: &Look<'_>) -> Vec<DropletId> {
    let ids = look.seen.gateway.spec.existing_droplets.iter();
    ids.filter_map(|id| u64::try_from(*id).ok().map(DropletId)).collect()
}

fn unfit(look: &Look<'_>, droplet: &Droplet) -> Option<String> {
    let (id, name) = (droplet.id, &droplet.name);
    if look.nodes.contains(&id) {
        return Some(format!(
            "spec.existingDroplets: {id} ({name}) is a node of this cluster; name another Droplet"
        ));
    }
    let vpc = look.vpc()?;
    if droplet.vpc_uuid.as_ref().is_none_or(|found| found.as_str() != vpc) {
        return Some(format!(
            "spec.existingDroplets: {id} ({name}) is not in VPC {vpc}, where the nodes are; a gateway can be reached in its own only"
        ));
    }
    droplet
        .private_v4()
        .is_none()
        .then(|| format!("spec.existingDroplets: {id} ({name}) has no address in the VPC"))
}

fn entry(look: &Look<'_>, droplet: &Droplet) -> GatewayStatus {
    let id = i64::try_from(droplet.id.0).unwrap_or_default();
    GatewayStatus {
        existing: true,
        private_address: droplet.private_v4().map(|address| address.to_string()),
        public_address: droplet.public_v4(&[]).map(|address| address.to_string()),
        since: Some(look.time()),
        // It takes none of our slots.
        ..GatewayStatus::new(droplet.name.clone(), -1, id, GatewayRole::Starting)
    }
}
