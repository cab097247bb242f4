//! Which gateway has which address, and what that means for it.

use std::net::Ipv4Addr;

use egress_api::{EgressGatewayStatus, GatewayStatus, ReservedIpStatus};
use egress_digitalocean::ReservedIp;

use super::{Look, are_wanted, floating, judge, seen};
use crate::identity::droplet_id;
use crate::observation::HealthSeen;
use crate::reserved_ip::{address, recorded};

/// The recorded address that this gateway holds.
pub(in super::super) fn held_by<'a>(
    status: &'a EgressGatewayStatus,
    gateway: &GatewayStatus,
) -> Option<&'a ReservedIpStatus> {
    status.reserved_ips.iter().find(|recorded| recorded.droplet_id == Some(gateway.droplet_id))
}

/// Every address that traffic may leave with, in an order that a replacement does not change.
pub(in super::super) fn public_ips(status: &EgressGatewayStatus) -> Vec<String> {
    let of_people = status.gateways.iter().filter(|gateway| gateway.existing);
    let theirs = of_people.filter_map(|gateway| gateway.public_address.as_ref()?.parse().ok());
    let mut addresses: Vec<Ipv4Addr> = status.reserved_ips.iter().filter_map(address).chain(theirs).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses.iter().map(ToString::to_string).collect()
}

/// Why a gateway may carry no traffic, as far as its address goes.
pub(in super::super) fn lacks(
    look: &Look<'_>,
    status: &EgressGatewayStatus,
    gateway: &GatewayStatus,
) -> Option<String> {
    if !are_wanted(look) || gateway.existing {
        return None;
    }
    if floating::is_wanted(look) {
        return floating::is_strange(look, status, gateway);
    }
    if let Some(held) = held_by(status, gateway) {
        return match judge::health(look, gateway) {
            Some(HealthSeen::Ready { public_address: Some(own), .. }) if own.to_string() != held.ip => {
                Some(format!("it leaves with {own}, not with its reserved address {} yet", held.ip))
            }
            _ => None,
        };
    }
    if let Some(foreign) = foreign_at(look, status, gateway) {
        return Some(format!("it holds reserved address {}, which is not one of ours", foreign.ip));
    }
    let of_this = |recorded: &&ReservedIpStatus| {
        recorded.assigning.as_ref().is_some_and(|assigning| assigning.droplet_id == gateway.droplet_id)
    };
    if let Some(coming) = status.reserved_ips.iter().find(of_this) {
        return Some(format!("reserved address {} is being assigned to it", coming.ip));
    }
    let reserving = status.reserving_ip.as_ref().filter(|one| one.droplet_id == gateway.droplet_id);
    Some(match reserving {
        Some(reserving) => match &reserving.refused {
            Some(refused) => format!("no address could be reserved for it: {}", refused.message),
            None => "an address is being reserved for it".to_owned(),
        },
        None => "it has no reserved address".to_owned(),
    })
}

/// Whether an address has been asked for, for this gateway.
pub(super) fn is_coming_for(status: &EgressGatewayStatus, gateway: &GatewayStatus) -> bool {
    let assigned = status.reserved_ips.iter().filter_map(|recorded| recorded.assigning.as_ref());
    let reserved = status.reserving_ip.iter().map(|reserving| reserving.droplet_id);
    assigned.map(|assigning| assigning.droplet_id).chain(reserved).any(|id| id == gateway.droplet_id)
}

/// A reserved address that this gateway holds and that is not recorded.
pub(super) fn foreign_at<'a>(
    look: &Look<'a>,
    status: &EgressGatewayStatus,
    gateway: &GatewayStatus,
) -> Option<&'a ReservedIp> {
    let id = droplet_id(gateway).filter(|_| !gateway.existing)?;
    seen(look)?
        .addresses
        .iter()
        .find(|shown| shown.droplet == Some(id) && recorded(status, shown.ip).is_none())
}
