//! Reads the firewalls that matter to one EgressGateway, at the price of one list in five minutes for all of them while nothing
//! is going on (`--firewall-age-seconds`).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use egress_api::{EgressGateway, FirewallStatus};
use egress_digitalocean::{Error, Firewall, FirewallId, FirewallStatus as Progress, RefusalKind};
use jiff::Timestamp;

use super::{BUSY_AGE, Observer, identity_of};
use crate::cloud::FirewallList;
use crate::firewall::recorded_ids;
use crate::observation::{CloudSeen, FirewallsSeen, NodeSeen, Trouble};
use crate::site::of_cloud;

/// While it is open whether a create has happened, or a change is not in force yet: nodes prove the addresses of gateways only then.
const OPEN_AGE: Duration = Duration::from_secs(5);

/// While the EgressGateway is being deleted: a person may have deleted what the token may not.
const LEAVING_AGE: Duration = Duration::from_secs(30);

/// Every scope that calls about firewalls need.
const SCOPES: &str = "firewall:read, firewall:create, firewall:update and firewall:delete";

impl Observer {
    /// What there is of firewalls. `cloud` is what was seen of Droplets just now.
    pub(super) async fn firewalls(
        &self,
        gateway: &EgressGateway,
        nodes: &[NodeSeen],
        cloud: &CloudSeen,
    ) -> Result<FirewallsSeen, Trouble> {
        let status = gateway.status.as_ref();
        let recorded = status.and_then(|status| status.firewall.as_ref());
        let has_gateways = status.is_some_and(|status| !status.gateways.is_empty());
        if recorded.is_none() && !has_gateways && gateway.metadata.deletion_timestamp.is_none() {
            return Ok(FirewallsSeen { taken: Timestamp::UNIX_EPOCH, firewalls: Vec::new() });
        }
        let (list, unlisted) = self.listed(gateway, recorded).await.map_err(|error| trouble(&error))?;
        let identity = identity_of(gateway, &self.cluster);
        let ids: BTreeSet<&str> = recorded.into_iter().flat_map(recorded_ids).collect();
        let ours = |firewall: &&Firewall| ids.contains(firewall.id.as_str()) || identity.names(firewall);
        let firewalls: Vec<Firewall> =
            list.firewalls.values().filter(ours).cloned().chain(unlisted).collect();
        let gone = ids.iter().any(|id| firewalls.iter().all(|firewall| firewall.id.as_str() != *id));
        if gone && !nodes.is_empty() {
            let sees =
                self.sees_this_account(gateway, nodes, cloud).await.map_err(|error| trouble(&error))?;
            if !sees {
                return Err(super::blind());
            }
        }
        Ok(FirewallsSeen { taken: list.taken, firewalls })
    }

    // The list, and what it lacks and a read by id finds.
    async fn listed(
        &self,
        gateway: &EgressGateway,
        recorded: Option<&FirewallStatus>,
    ) -> Result<(Arc<FirewallList>, Vec<Firewall>), Error> {
        let now = self.cloud.now();
        let needed = needed(gateway, recorded, now);
        let is_leaving = gateway.metadata.deletion_timestamp.is_some();
        let age = self.known.firewall_age.min(if is_leaving { LEAVING_AGE } else { Duration::MAX });
        let wanted = (now - age).max(condemned(gateway));
        let mut list = self.cloud.firewalls(wanted, needed).await?;
        let ids: Vec<FirewallId> =
            recorded.into_iter().flat_map(recorded_ids).filter_map(|id| FirewallId::new(id).ok()).collect();
        let lacks = |list: &FirewallList| ids.iter().any(|id| !list.firewalls.contains_key(id));
        let waits =
            |id: &FirewallId| list.firewalls.get(id).is_some_and(|one| one.status == Progress::Waiting);
        if ids.iter().any(waits) {
            list = self.cloud.firewalls(now - OPEN_AGE, needed).await?;
        }
        if lacks(&list) {
            list = self.cloud.firewalls(now - BUSY_AGE, needed).await?;
        }
        let mut unlisted = Vec::new();
        for id in ids.iter().filter(|id| !list.firewalls.contains_key(id)) {
            unlisted.extend(self.cloud.firewall(id).await?);
        }
        Ok((list, unlisted))
    }
}

// An older list could not answer what is open.
fn needed(gateway: &EgressGateway, recorded: Option<&FirewallStatus>, now: Timestamp) -> Timestamp {
    let deleted = gateway.metadata.deletion_timestamp.as_ref().map(|deleted| deleted.0);
    let resting =
        |recorded: &&FirewallStatus| recorded.not_before.as_ref().is_some_and(|until| now < until.0);
    let open = recorded.filter(|recorded| recorded.id.is_none() && !resting(recorded));
    let open = open.map(|recorded| match recorded.sent {
        Some(_) => now - OPEN_AGE,
        None => recorded.since.0,
    });
    deleted.max(open).unwrap_or(Timestamp::UNIX_EPOCH)
}

// Since a gateway is condemned: what nodes see may be what somebody changed in the firewall. One more list each time, and an older one is
// better than none.
fn condemned(gateway: &EgressGateway) -> Timestamp {
    let gateways = gateway.status.iter().flat_map(|status| &status.gateways);
    let since = gateways.filter_map(|one| one.suspect_since.as_ref()).map(|since| since.0);
    since.max().unwrap_or(Timestamp::UNIX_EPOCH)
}

fn trouble(error: &Error) -> Trouble {
    let trouble = of_cloud(error);
    if error.refused_as() != Some(RefusalKind::Forbidden) {
        return Trouble {
            reason: "FirewallsUnknown",
            message: format!("Firewalls cannot be read. {}", trouble.message),
        };
    }
    let way_out =
        format!("the API token needs the scopes {SCOPES}; gateways work without, kept by their own filter");
    Trouble {
        reason: "FirewallsForbidden",
        message: format!("There is no cloud firewall. {}: {way_out}", trouble.message),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn with(gateways: &Value) -> EgressGateway {
        let mut gateway: EgressGateway = serde_json::from_value(json!({
            "apiVersion": "networking.digitalocean.com/v1alpha1", "kind": "EgressGateway", "metadata": {"name": "demo"},
            "spec": {"destinations": ["0.0.0.0/0"], "publicIP": "Ephemeral"}
        }))
        .unwrap();
        gateway.status = Some(serde_json::from_value(json!({"gateways": gateways})).unwrap());
        gateway
    }

    #[test]
    fn the_firewall_is_read_again_as_soon_as_a_gateway_is_condemned() {
        let one = |suspect_since: Value| json!({"name": "demo-0", "slot": 0, "dropletID": 103, "role": "Active", "ready": true, "suspectSince": suspect_since});
        let fine = json!([one(Value::Null), one(Value::Null)]);
        assert_eq!(condemned(&with(&fine)), Timestamp::UNIX_EPOCH);
        let since = "2026-11-29T12:00:00Z";
        let suspected = json!([one(json!(since)), one(Value::Null)]);
        assert_eq!(condemned(&with(&suspected)), since.parse().unwrap());
    }
}
