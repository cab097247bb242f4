//! What is wrong with addresses, with the way out.

use std::time::Duration;

use egress_api::{EgressGatewayStatus, Refused};
use egress_digitalocean::{DropletId, ReservedIp};

use super::{Look, are_wanted, found, given, hold, region, seen};
use crate::observation::Trouble;
use crate::reserved_ip::{NotUsable, address, is_usable};

/// A Droplet's pending event, or a lock, that passes is nothing to tell people of.
const PASSES: Duration = Duration::from_secs(30);

/// An action takes seconds.
const LONG: Duration = Duration::from_secs(300);

/// What is wrong, for `Degraded`.
pub(in super::super) fn complaint(
    look: &Look<'_>,
    status: &EgressGatewayStatus,
) -> Option<(&'static str, String)> {
    if !are_wanted(look) {
        return None;
    }
    if let Err(trouble) = &look.seen.reserved_ips {
        return Some((trouble.reason, trouble.message.clone()));
    }
    None.or_else(|| unusable(look, status))
        .or_else(|| foreign(look, status))
        .or_else(|| refused(look, status))
}

/// What stays while the EgressGateway is being deleted, and why.
pub(in super::super) fn stays(look: &Look<'_>, status: &EgressGatewayStatus) -> Option<Trouble> {
    let made = status.reserved_ips.iter().find(|recorded| !recorded.given)?;
    let way_out = format!(
        "to keep it, write deletionPolicy: Retain; to give it up, release {} by hand in the cloud and remove the finalizer",
        made.ip
    );
    let told = |reason, message: &str| Some(Trouble { reason, message: format!("{message}; {way_out}") });
    let Some(seen) = seen(look) else {
        let unknown = look.seen.cloud.as_ref().err().or(look.seen.reserved_ips.as_ref().err())?;
        return told(unknown.reason, &unknown.message);
    };
    if let Some(refused) = &made.refused {
        return told("ReservedIPRefused", &format!("{} is not given back: {}", made.ip, refused.message));
    }
    let holder = address(made).and_then(|ip| found(seen, ip)?.droplet)?;
    let ours = status.gateways.iter().any(|gateway| u64::try_from(gateway.droplet_id) == Ok(holder.0));
    if ours {
        return None;
    }
    told("ReservedIPInUse", &format!("Reserved address {} is held by Droplet {holder}", made.ip))
}

fn unusable(look: &Look<'_>, status: &EgressGatewayStatus) -> Option<(&'static str, String)> {
    let (seen, region) = (seen(look)?, region(look)?);
    let made = status.reserved_ips.iter().filter(|recorded| !recorded.given).filter_map(address);
    let given_here: Vec<_> = given(look).collect();
    given_here.iter().copied().chain(made).find_map(|ip| {
        let named = if given_here.contains(&ip) { "of spec.reservedIPs " } else { "" };
        let Some(shown) = found(seen, ip) else {
            // One that was made a moment ago comes to light.
            return given_here.contains(&ip).then(|| {
                let message = format!(
                    "Reserved address {ip} {named}is not one of the account that the API token belongs to: doctl compute reserved-ip \
                     list shows those that are"
                );
                ("ReservedIPUnknown", message)
            });
        };
        let (reason, refusal) = match is_usable(status, shown, region, &look.nodes) {
            Err(refusal @ NotUsable::Region(..)) => ("ReservedIPElsewhere", refusal),
            Err(refusal) => ("ReservedIPInUse", refusal),
            Ok(()) => return None,
        };
        Some((reason, format!("Reserved address {ip} {named}cannot be used: {refusal}")))
    })
}

fn foreign(look: &Look<'_>, status: &EgressGatewayStatus) -> Option<(&'static str, String)> {
    status.gateways.iter().find_map(|gateway| {
        let ReservedIp { ip, .. } = hold::foreign_at(look, status, gateway)?;
        let message = format!(
            "{} holds reserved address {ip}, which was not made for it and is not in spec.reservedIPs; it is left alone, and no other \
             can be assigned: unassign it, or add it to spec.reservedIPs",
            gateway.name
        );
        Some(("ReservedIPNotOurs", message))
    })
}

fn refused(look: &Look<'_>, status: &EgressGatewayStatus) -> Option<(&'static str, String)> {
    let lasting = |refused: &&Refused| look.since(&refused.since) >= PASSES;
    let reserving = status.reserving_ip.as_ref().and_then(|one| one.refused.as_ref()).filter(lasting);
    if let Some(refused) = reserving {
        return Some(("ReservedIPRefused", format!("No address can be reserved: {}", refused.message)));
    }
    status.reserved_ips.iter().find_map(|one| {
        let name = |id: i64| {
            let named = status.gateways.iter().find(|gateway| gateway.droplet_id == id);
            named.map_or_else(|| DropletId(id.unsigned_abs()).to_string(), |gateway| gateway.name.clone())
        };
        if let Some(refused) = one.refused.as_ref().filter(lasting) {
            let words = format!("Reserved address {}: {}; it is asked again", one.ip, refused.message);
            return Some(("ReservedIPRefused", words));
        }
        let assigning = one.assigning.as_ref().filter(|assigning| look.since(&assigning.since) >= LONG)?;
        let words = format!(
            "Reserved address {} is being assigned to {} since {}: the cloud has not finished",
            one.ip,
            name(assigning.droplet_id),
            assigning.since.0
        );
        Some(("ReservedIPLocked", words))
    })
}
