//! Whose reserved address is it? (`docs/decisions/0025-reserved-addresses.md`)
//!
//! An address can carry no mark at all: no name, no tags. It is ours when the status records it. One that is not recorded is taken over
//! if a gateway of ours holds it and carries the tag that says so, which it was given with the address.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use egress_api::{ADDRESS_TAG_PREFIX, EgressGatewayStatus, ReservedIpStatus};
use egress_digitalocean::{Droplet, DropletId, RegionSlug, ReservedIp};

use crate::identity::droplet_id;

/// A reserved address that may be assigned: recorded, in our region, and held by nobody but our own gateways.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedIp {
    ip: Ipv4Addr,
}

impl OwnedIp {
    /// The address.
    pub fn ip(&self) -> Ipv4Addr {
        self.ip
    }
}

/// One that may be given back: made for this EgressGateway, and held by nobody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReleasableIp {
    ip: Ipv4Addr,
}

impl ReleasableIp {
    /// The address.
    pub fn ip(&self) -> Ipv4Addr {
        self.ip
    }
}

/// Why an address is left alone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotUsable {
    /// The status does not name it.
    #[error("it is not recorded in the status")]
    NotRecorded,
    /// Somebody assigned it, or moved it.
    #[error("Droplet {0} holds it, which is none of these gateways: unassign it there")]
    HeldBy(DropletId),
    /// Addresses stay in their region.
    #[error("it is in region {0}, and the gateways are in {1}")]
    Region(String, String),
    /// The user's own.
    #[error("it is not known to have been made for this EgressGateway")]
    Given,
    /// Something is under way.
    #[error("the cloud is working on it")]
    Locked,
    /// It is in use.
    #[error("it is in use")]
    Held,
}

/// The tag that says of the address of a Droplet that it was made for the Droplet's owner.
pub fn address_tag(ip: Ipv4Addr) -> String {
    format!("{ADDRESS_TAG_PREFIX}{}", ip.to_string().replace('.', "-"))
}

/// Whether a Droplet carries that tag; `None` when the token may not see tags.
pub fn is_marked(droplet: &Droplet, ip: Ipv4Addr) -> Option<bool> {
    droplet.has_tag(&address_tag(ip))
}

/// The entry of the status for this address.
pub fn recorded(status: &EgressGatewayStatus, ip: Ipv4Addr) -> Option<&ReservedIpStatus> {
    status.reserved_ips.iter().find(|recorded| address(recorded) == Some(ip))
}

/// The address of an entry.
pub fn address(recorded: &ReservedIpStatus) -> Option<Ipv4Addr> {
    recorded.ip.parse().ok()
}

/// Whether nobody but our gateways stands in the way of using an address.
pub fn is_usable(
    status: &EgressGatewayStatus,
    seen: &ReservedIp,
    region: &str,
    nodes: &BTreeSet<DropletId>,
) -> Result<(), NotUsable> {
    if let Some(elsewhere) = seen.region.as_ref().map(RegionSlug::as_str).filter(|slug| *slug != region) {
        return Err(NotUsable::Region(elsewhere.to_owned(), region.to_owned()));
    }
    let ours = |id: &DropletId| {
        let known = status.gateways.iter().any(|gateway| droplet_id(gateway) == Some(*id));
        known && !nodes.contains(id)
    };
    match seen.droplet.filter(|holder| !ours(holder)) {
        Some(holder) => Err(NotUsable::HeldBy(holder)),
        None => Ok(()),
    }
}

/// The proof that an address may be assigned to a gateway.
pub fn prove(
    status: &EgressGatewayStatus,
    seen: &ReservedIp,
    region: &str,
    nodes: &BTreeSet<DropletId>,
) -> Result<OwnedIp, NotUsable> {
    recorded(status, seen.ip).ok_or(NotUsable::NotRecorded)?;
    is_usable(status, seen, region, nodes)?;
    if seen.locked { Err(NotUsable::Locked) } else { Ok(OwnedIp { ip: seen.ip }) }
}

/// The proof that an address may be given back.
pub fn prove_releasable(status: &EgressGatewayStatus, seen: &ReservedIp) -> Result<ReleasableIp, NotUsable> {
    let recorded = recorded(status, seen.ip).ok_or(NotUsable::NotRecorded)?;
    match seen.droplet {
        _ if recorded.given => Err(NotUsable::Given),
        Some(_) => Err(NotUsable::Held),
        None if seen.locked => Err(NotUsable::Locked),
        None => Ok(ReleasableIp { ip: seen.ip }),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn status(given: bool) -> EgressGatewayStatus {
        let mut status: EgressGatewayStatus = serde_json::from_str(
            r#"{"gateways": [{"name": "demo-0", "slot": 0, "dropletID": 7, "role": "Active", "ready": true}]}"#,
        )
        .unwrap();
        status.reserved_ips.push(ReservedIpStatus {
            ip: "203.0.113.200".into(),
            given,
            droplet_id: None,
            since: Time(Timestamp::UNIX_EPOCH),
            assigning: None,
            refused: None,
        });
        status
    }

    fn seen(more: &str) -> ReservedIp {
        serde_json::from_str(&format!(r#"{{"ip": "203.0.113.200", "region": {{"slug": "nyc1"}}{more}}}"#))
            .unwrap()
    }

    #[test]
    fn an_address_is_used_only_if_it_is_recorded_in_the_region_and_held_by_nobody_else() {
        let none = BTreeSet::new();
        let proof = |status: &EgressGatewayStatus, seen: &ReservedIp| prove(status, seen, "nyc1", &none);
        let ours = status(true);
        assert!(proof(&ours, &seen("")).is_ok());
        assert!(proof(&ours, &seen(r#", "droplet": {"id": 7}"#)).is_ok());
        let foreign = seen(r#", "droplet": {"id": 8}"#);
        assert_eq!(proof(&ours, &foreign), Err(NotUsable::HeldBy(DropletId(8))));
        let node = BTreeSet::from([DropletId(7)]);
        let held = seen(r#", "droplet": {"id": 7}"#);
        assert_eq!(prove(&ours, &held, "nyc1", &node), Err(NotUsable::HeldBy(DropletId(7))));
        assert_eq!(prove(&ours, &held, "ams3", &none), Err(NotUsable::Region("nyc1".into(), "ams3".into())));
        assert_eq!(proof(&ours, &seen(r#", "locked": true"#)), Err(NotUsable::Locked));
        assert_eq!(proof(&EgressGatewayStatus::default(), &seen("")), Err(NotUsable::NotRecorded));
    }

    #[test]
    fn only_what_was_made_here_and_is_free_is_given_back() {
        assert!(prove_releasable(&status(false), &seen("")).is_ok());
        assert_eq!(prove_releasable(&status(true), &seen("")), Err(NotUsable::Given));
        assert_eq!(
            prove_releasable(&status(false), &seen(r#", "droplet": {"id": 7}"#)),
            Err(NotUsable::Held)
        );
        assert_eq!(prove_releasable(&status(false), &seen(r#", "locked": true"#)), Err(NotUsable::Locked));
        let unknown = EgressGatewayStatus::default();
        assert_eq!(prove_releasable(&unknown, &seen("")), Err(NotUsable::NotRecorded));
    }

    #[test]
    fn the_tag_names_the_address_in_what_tags_may_hold() {
        let ip = Ipv4Addr::new(203, 0, 113, 200);
        assert_eq!(address_tag(ip), "egress-address:203-0-113-200");
        let droplet: Droplet =
            serde_json::from_str(r#"{"id": 7, "tags": ["egress-address:203-0-113-200"]}"#).unwrap();
        assert_eq!(is_marked(&droplet, ip), Some(true));
        assert_eq!(is_marked(&droplet, Ipv4Addr::new(203, 0, 113, 201)), Some(false));
        assert_eq!(is_marked(&serde_json::from_str(r#"{"id": 7}"#).unwrap(), ip), None);
    }
}
