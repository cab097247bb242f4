//! Into which project Droplets are put: after everything else, since nothing depends on it.

use egress_api::{EgressGatewayStatus, GatewayStatus};

use super::{Look, Presence, is_leaving};
use crate::decision::Effect;

/// The next Droplet to be put into the project that the spec names. That it was put there is recorded, and somebody may then move it.
pub(super) fn assignment(look: &Look<'_>, status: &EgressGatewayStatus) -> Option<Effect> {
    let project = look.seen.gateway.spec.droplet.project_id.as_ref()?;
    // Perhaps it is the project that there is not.
    if look.seen.offer.trouble.is_some() {
        return None;
    }
    let outside = |gateway: &&GatewayStatus| {
        !is_leaving(gateway) && !gateway.existing && gateway.project_id.as_ref() != Some(project)
    };
    status.gateways.iter().filter(outside).find_map(|gateway| {
        let Presence::Found(droplet) = look.presence(gateway) else { return None };
        let proof = look.identity.prove(&status.gateways, droplet, look.vpc()?, &look.nodes);
        proof.ok().map(|owned| Effect::AssignToProject(owned, project.clone()))
    })
}
