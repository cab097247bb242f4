//! Reads the reserved addresses that matter to one EgressGateway, at the price of one list in five minutes for all of them while
//! nothing is going on (`--reserved-ip-age-seconds`).

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use egress_api::{EgressGateway, EgressGatewayStatus, GatewayRole, GatewayStatus};
use egress_digitalocean::{DropletId, Error, RefusalKind, ReservedIp};
use jiff::Timestamp;

use super::{BUSY_AGE, Observer};
use crate::cloud::ReservedIpList;
use crate::identity::droplet_id;
use crate::observation::{CloudSeen, NodeSeen, ReservedIpsSeen, Trouble};
use crate::reserved_ip::address;
use crate::site::of_cloud;

/// While the cloud is busy with an address, or a gateway waits for one.
const OPEN_AGE: Duration = Duration::from_secs(3);

/// While a gateway is not proven.
const UNSTEADY_AGE: Duration = Duration::from_secs(15);

/// Every scope that calls about reserved addresses need.
const SCOPES: &str =
    "reserved_ip:read, reserved_ip:create, reserved_ip:update, reserved_ip:delete and tag:create";

impl Observer {
    /// What there is of reserved addresses. `cloud` is what was seen of Droplets just now.
    pub(super) async fn reserved_ips(
        &self,
        gateway: &EgressGateway,
        nodes: &[NodeSeen],
        cloud: &CloudSeen,
    ) -> Result<ReservedIpsSeen, Trouble> {
        let status = gateway.status.clone().unwrap_or_default();
        let wanted = gateway.spec.public_ip.is_reserved();
        if !wanted && status.reserved_ips.is_empty() && status.reserving_ip.is_none() {
            return Ok(ReservedIpsSeen { taken: Timestamp::UNIX_EPOCH, addresses: Vec::new() });
        }
        let recorded: BTreeSet<Ipv4Addr> = status.reserved_ips.iter().filter_map(address).collect();
        let (list, unlisted) =
            self.listed_ips(gateway, &status, &recorded).await.map_err(|error| trouble(&error))?;
        let given: BTreeSet<Ipv4Addr> =
            gateway.spec.reserved_ips.iter().filter_map(|ip| ip.parse().ok()).collect();
        // Droplets that are to be taken over, too.
        let recorded_gateways = status.gateways.iter().filter_map(droplet_id);
        let holders: BTreeSet<DropletId> = recorded_gateways.chain(cloud.droplets.keys().copied()).collect();
        let matters = |shown: &&ReservedIp| {
            recorded.contains(&shown.ip)
                || given.contains(&shown.ip)
                || shown.droplet.is_some_and(|holder| holders.contains(&holder))
        };
        let addresses: Vec<ReservedIp> =
            list.addresses.values().filter(matters).cloned().chain(unlisted).collect();
        let gone = recorded.iter().any(|ip| addresses.iter().all(|shown| shown.ip != *ip));
        if gone && !nodes.is_empty() {
            let sees =
                self.sees_this_account(gateway, nodes, cloud).await.map_err(|error| trouble(&error))?;
            if !sees {
                return Err(super::blind());
            }
        }
        Ok(ReservedIpsSeen { taken: list.taken, addresses })
    }

    // The list, and what it lacks and a read by itself finds.
    async fn listed_ips(
        &self,
        gateway: &EgressGateway,
        status: &EgressGatewayStatus,
        recorded: &BTreeSet<Ipv4Addr>,
    ) -> Result<(Arc<ReservedIpList>, Vec<ReservedIp>), Error> {
        let now = self.cloud.now();
        let needed = needed(gateway, status, now);
        let mut list = self.cloud.reserved_ips(now - self.age(gateway, status), needed).await?;
        let lacks = |list: &ReservedIpList| recorded.iter().any(|ip| !list.addresses.contains_key(ip));
        if lacks(&list) {
            list = self.cloud.reserved_ips(now - BUSY_AGE, needed).await?;
        }
        let mut unlisted = Vec::new();
        for ip in recorded.iter().filter(|ip| !list.addresses.contains_key(ip)) {
            unlisted.extend(self.cloud.reserved_ip(*ip).await?);
        }
        Ok((list, unlisted))
    }

    fn age(&self, gateway: &EgressGateway, status: &EgressGatewayStatus) -> Duration {
        let busy = status.reserved_ips.iter().any(|recorded| recorded.assigning.is_some());
        let staying = || status.gateways.iter().filter(|one| one.role != GatewayRole::Leaving);
        // The successor of one that still drains.
        let rolled = status.roll.as_ref().filter(|roll| roll.is_under_way());
        let drained = rolled.filter(|roll| staying().any(|one| one.droplet_id == roll.from_droplet_id));
        let its_turn = |id| drained.is_none_or(|roll| roll.to_droplet_id != Some(id));
        let held = |id| status.reserved_ips.iter().any(|recorded| recorded.droplet_id == Some(id));
        let waits = |one: &GatewayStatus| {
            one.private_address.is_some()
                && !one.existing
                && !held(one.droplet_id)
                && its_turn(one.droplet_id)
        };
        // Of one address for all it is enough that somebody who works has it.
        let waiting = if gateway.spec.public_ip.moves() {
            !staying().any(|one| one.ready && held(one.droplet_id)) && staying().any(waits)
        } else {
            staying().any(waits)
        };
        if busy || waiting || gateway.metadata.deletion_timestamp.is_some() {
            OPEN_AGE
        } else if staying().any(|one| !one.ready) {
            UNSTEADY_AGE
        } else {
            self.known.reserved_ip_age
        }
    }
}

// An older list could not answer what is open.
fn needed(gateway: &EgressGateway, status: &EgressGatewayStatus, now: Timestamp) -> Timestamp {
    let deleted = gateway.metadata.deletion_timestamp.as_ref().map(|deleted| deleted.0);
    let open = status.reserving_ip.as_ref().map(|reserving| match reserving.sent {
        Some(_) => now - OPEN_AGE,
        None => reserving.since.0,
    });
    deleted.max(open).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn trouble(error: &Error) -> Trouble {
    let trouble = of_cloud(error);
    if error.refused_as() != Some(RefusalKind::Forbidden) {
        let message = format!("Reserved addresses cannot be read. {}", trouble.message);
        return Trouble { reason: "ReservedIPsUnknown", message };
    }
    let message = format!("{}: reserved addresses need a token with the scopes {SCOPES}", trouble.message);
    Trouble { reason: "ReservedIPsForbidden", message }
}
