//! Who may probe a gateway's public side: the other gateways of the same EgressGateway (`docs/decisions/0021-peers-of-a-gateway.md`).
//! Two filters say so: the gateway's own, and the cloud firewall ([`super::firewall`]).
//!
//! A gateway's own endpoint says whom it admits. Where that differs from the gateways there are, the list is sent again: whatever
//! was lost, or changed by somebody else, is right again after the next look.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use egress_api::{EgressGatewayStatus, GatewayStatus};

use super::{Look, firewall, is_leaving};
use crate::decision::{Admission, Effect};
use crate::identity::droplet_id;
use crate::observation::HealthSeen;

/// A gateway takes no more.
const MOST_PEERS: usize = 8;

/// Writes down whose probes reach each gateway's public side: whom it says that it admits, as far as the cloud firewall lets them
/// come. One that says nothing is taken at its last word.
pub(super) fn record(look: &Look<'_>, status: &mut EgressGatewayStatus) {
    let admitted: Vec<Vec<String>> =
        status.gateways.iter().map(|gateway| admitted(look, status, gateway)).collect();
    for (gateway, admitted) in status.gateways.iter_mut().zip(admitted) {
        gateway.admits = admitted;
    }
}

fn admitted(look: &Look<'_>, status: &EgressGatewayStatus, gateway: &GatewayStatus) -> Vec<String> {
    let come = |address: &&Ipv4Addr| firewall::admits(look, status, gateway, **address);
    match told(look, gateway) {
        Some(peers) => peers.iter().filter(come).take(MOST_PEERS).map(ToString::to_string).collect(),
        None => gateway.admits.clone(),
    }
}

/// Whether probes through this gateway are let in anywhere, as far as is known: else nobody can say with which address it leaves.
pub(super) fn is_let_in(look: &Look<'_>, status: &EgressGatewayStatus, gateway: &GatewayStatus) -> bool {
    let Some(public) = &gateway.public_address else { return false };
    peers_of(status, gateway).any(|peer| admitted(look, status, peer).contains(public))
}

/// The same by what was seen of filters since it has been condemned.
pub(super) fn is_surely_let_in(
    look: &Look<'_>,
    status: &EgressGatewayStatus,
    gateway: &GatewayStatus,
) -> bool {
    let condemned = gateway.suspect_since.as_ref();
    let is_seen = condemned.is_some_and(|since| firewall::is_known_since(look, status, since.0));
    is_seen && is_let_in(look, status, gateway)
}

/// The list to send now, if any: one gateway a step.
pub(super) fn admission(look: &Look<'_>, status: &EgressGatewayStatus) -> Option<Effect> {
    status.gateways.iter().filter(|gateway| !is_leaving(gateway)).find_map(|gateway| {
        let admitted = told(look, gateway)?;
        let peers = || peers_of(status, gateway);
        let wanted: BTreeSet<Ipv4Addr> = peers().filter_map(public).collect();
        // Who does not answer us would not answer the gateway, which asks each of them.
        let answers = |peer: &GatewayStatus| told(look, peer).is_some();
        let mut reachable = peers().filter(|peer| answers(peer)).filter_map(public);
        let missing = reachable.any(|address| !admitted.contains(&address));
        if !missing && admitted.is_subset(&wanted) {
            return None;
        }
        Some(Effect::AdmitPeers(Admission {
            name: gateway.name.clone(),
            gateway: private(gateway)?,
            peers: peers().filter_map(private).take(MOST_PEERS).collect(),
        }))
    })
}

// What it says that it admits; `None` while it is not well, or is older than the list.
fn told<'a>(look: &Look<'a>, gateway: &GatewayStatus) -> Option<&'a BTreeSet<Ipv4Addr>> {
    match droplet_id(gateway).and_then(|id| look.seen.health.get(&id)) {
        Some(HealthSeen::Ready { peers, .. }) => peers.as_ref(),
        _ => None,
    }
}

// The others that stay, the failed ones too: nodes probe through them to see when they work again. A Droplet that people named has no
// endpoint to be asked at.
fn peers_of<'a>(
    status: &'a EgressGatewayStatus,
    gateway: &'a GatewayStatus,
) -> impl Iterator<Item = &'a GatewayStatus> {
    let is_peer = |other: &&GatewayStatus| {
        other.droplet_id != gateway.droplet_id && !is_leaving(other) && !other.existing
    };
    status.gateways.iter().filter(is_peer)
}

fn private(gateway: &GatewayStatus) -> Option<Ipv4Addr> {
    gateway.private_address.as_deref().and_then(|address| address.parse().ok())
}

fn public(gateway: &GatewayStatus) -> Option<Ipv4Addr> {
    gateway.public_address.as_deref().and_then(|address| address.parse().ok())
}
