//! Reads what a step needs. Changes nothing.

mod firewalls;
mod reserved_ips;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use egress_api::{
    CreationIntent, Definition, EgressGateway, EgressGatewayStatus, GatewayRole, GatewayStatus, StaticRoute,
};
use egress_digitalocean::{Droplet, DropletId, Error};
use egress_runtime::guarded::Guarded;
use egress_runtime::kubernetes::{CallError, within_deadline};
use futures::future::join_all;
use ipnet::Ipv4Net;
use jiff::Timestamp;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, Client, CustomResourceExt};

use crate::catalogue::{Catalogue, HeldByKey, Need, Offer};
use crate::cloud::{Cloud, elapsed};
use crate::decision::REFUSED_PAUSE;
use crate::health::Endpoints;
use crate::hearing::Hearing;
use crate::identity::{Identity, droplet_id};
use crate::observation::{CloudSeen, Follower, HealthSeen, NodeSeen, Observation, Site, Trouble};
use crate::site::{Locator, of_cloud, pod_ranges};
use crate::unreadable::Unreadable;
use crate::watches::{Mirrors, Quorum};

// The shared list may be this old when nothing is going on: two calls a minute for the whole cluster.
const QUIET_AGE: Duration = Duration::from_secs(30);

// And this old while something is.
const BUSY_AGE: Duration = Duration::from_secs(2);

// How old what is known of a Droplet may be that people have named: where it is does not change, and whether it works the nodes say.
const EXISTING_AGE: Duration = Duration::from_secs(3600);

// And of one that does not serve yet: somebody may be mending it.
const AWAITED_AGE: Duration = Duration::from_secs(60);

// So many nodes are asked for before a "not found" is put down to the token.
const WITNESSES: usize = 3;

// After a day the memory of a silent endpoint begins anew.
const FAILURE_MEMORY: Duration = Duration::from_secs(86_400);

/// What a look came to.
#[derive(Debug)]
pub enum Found {
    /// There is no such object.
    Nothing,
    /// There is one, and nothing can be decided about it.
    Unreadable(Box<Unreadable>),
    /// What there is to decide on.
    Seen(Box<Observation>),
}

/// What the settings say of observations.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// See the flag `--cluster-pod-range`.
    pub pod_range: Option<Ipv4Net>,
    /// How old the list of firewalls may be while nothing is known to change.
    pub firewall_age: Duration,
    /// How old the list of reserved addresses may be while nothing is known to change.
    pub reserved_ip_age: Duration,
}

/// Where observations come from.
pub struct Observer {
    client: Client,
    cluster: String,
    cloud: Arc<Cloud>,
    mirrors: Mirrors,
    health: Arc<dyn Endpoints>,
    locator: Locator,
    catalogue: Catalogue,
    existing: HeldByKey<Option<Droplet>>,
    known: Known,
    failing_since: Mutex<BTreeMap<DropletId, Timestamp>>,
    hearing: Hearing,
}

impl Observer {
    /// An observer for the cluster with this uid.
    pub fn new(
        client: Client,
        cluster: String,
        cloud: Arc<Cloud>,
        mirrors: Mirrors,
        health: Arc<dyn Endpoints>,
        known: Known,
    ) -> Self {
        Self {
            client,
            cluster,
            cloud,
            mirrors,
            health,
            locator: Locator::default(),
            catalogue: Catalogue::default(),
            existing: HeldByKey::default(),
            known,
            failing_since: Mutex::default(),
            hearing: Hearing::default(),
        }
    }

    /// The way to the gateways' own endpoints.
    pub fn health(&self) -> &dyn Endpoints {
        self.health.as_ref()
    }

    /// One look for the EgressGateway of this name.
    ///
    /// The object and its StaticRoute are read from the API server's quorum, never from a cache: paid and destructive calls
    /// depend on them.
    pub async fn observe(&self, name: &str, failure: Option<Trouble>) -> Result<Found, CallError> {
        let gateways: Api<Guarded<EgressGateway>> = Api::all(self.client.clone());
        match within_deadline(gateways.get_opt(name)).await?.map(|gateway| gateway.0) {
            None => Ok(Found::Nothing),
            Some(Ok(gateway)) => Box::pin(self.observe_as(gateway, failure)).await,
            Some(Err(invalid)) => Ok(Found::Unreadable(Box::new(Unreadable::itself(invalid)))),
        }
    }

    /// The same look if the EgressGateway were like this, whatever the API server has.
    pub async fn observe_as(
        &self,
        gateway: EgressGateway,
        failure: Option<Trouble>,
    ) -> Result<Found, CallError> {
        let routes: Api<Guarded<StaticRoute>> = Api::all(self.client.clone());
        let name = gateway.metadata.name.clone().unwrap_or_default();
        let definition = self.definition_if_leaving(&gateway).await?;
        let is_unwanted = gateway.metadata.deletion_timestamp.is_some()
            && !definition.as_ref().is_some_and(|definition| definition.takes_along(&gateway.metadata));
        let route = match within_deadline(routes.get_opt(&name)).await {
            // Every StaticRoute went with its definition. Who holds routes all the same is looked for below; whoever is to stay is left as
            // it is until there is one again.
            Err(error) if is_unwanted && error.is_not_found() => None,
            found => match found?.map(|route| route.0).transpose() {
                Ok(route) => route,
                Err(invalid) => {
                    return Ok(Found::Unreadable(Box::new(Unreadable::route(gateway, &invalid))));
                }
            },
        };
        // What is deleted while a node still routes through it is a black hole; a mirror whose watch broke would not tell.
        let Quorum { nodes, routes, undefined } = if gateway.metadata.deletion_timestamp.is_some() {
            let mut quorum = Quorum::read(&self.client).await?;
            self.mirrors.note_agents(&mut quorum.nodes);
            quorum
        } else {
            let nodes = self.hearing.listen(self.cloud.now(), || self.mirrors.nodes());
            Quorum { nodes, routes: self.mirrors.routes(), undefined: Vec::new() }
        };
        let followers = followers(&name, &routes);
        let node_droplets: BTreeSet<DropletId> = nodes.iter().filter_map(|node| node.droplet).collect();
        let site = self.site(&gateway, &node_droplets).await;
        let offer = self.offer(&gateway, &site).await;
        let cloud = self.cloud(&gateway, &nodes).await;
        let firewalls = match &cloud {
            Ok(cloud) => self.firewalls(&gateway, &nodes, cloud).await,
            Err(trouble) => Err(trouble.clone()),
        };
        let reserved_ips = match &cloud {
            Ok(cloud) => Box::pin(self.reserved_ips(&gateway, &nodes, cloud)).await,
            Err(trouble) => Err(trouble.clone()),
        };
        let health = match &cloud {
            Ok(cloud) => self.health.ask(addresses(&gateway, Some(cloud))).await,
            Err(_) => self.health.ask(addresses(&gateway, None)).await,
        };
        let failing_since = self.remember(&health);
        let delete_accepted = self.cloud.delete_accepted();
        let cluster = self.cluster.clone();
        Ok(Found::Seen(Box::new(Observation {
            gateway,
            cluster,
            route,
            followers,
            nodes,
            definition,
            undefined,
            cloud,
            delete_accepted,
            firewalls,
            reserved_ips,
            health,
            failing_since,
            site,
            offer,
            failure,
        })))
    }

    // Whoever deletes the definition deletes every EgressGateway. Asked after the object was read, so that the answer is younger.
    async fn definition_if_leaving(&self, gateway: &EgressGateway) -> Result<Option<Definition>, CallError> {
        if gateway.metadata.deletion_timestamp.is_none() {
            return Ok(None);
        }
        let definitions: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        let found = within_deadline(definitions.get_metadata_opt(EgressGateway::crd_name())).await?;
        Ok(Some(Definition::of(found.map(|found| found.metadata))))
    }

    // Droplets that are asked no more are forgotten after a while, so that this does not grow.
    fn remember(&self, health: &BTreeMap<DropletId, HealthSeen>) -> BTreeMap<DropletId, Timestamp> {
        let now = self.cloud.now();
        let mut failing = self.failing_since.lock().unwrap_or_else(PoisonError::into_inner);
        failing.retain(|_, since| elapsed(*since, now) < FAILURE_MEMORY);
        for (id, seen) in health {
            if matches!(seen, HealthSeen::Ready { .. }) {
                failing.remove(id);
            } else {
                failing.entry(*id).or_insert(now);
            }
        }
        failing.iter().filter(|(id, _)| health.contains_key(id)).map(|(id, since)| (*id, *since)).collect()
    }

    async fn site(&self, gateway: &EgressGateway, nodes: &BTreeSet<DropletId>) -> Result<Site, Trouble> {
        let of_nodes = self.mirrors.pod_ranges();
        let pods = pod_ranges(self.known.pod_range, of_nodes.iter().map(String::as_str));
        self.locator.locate(&self.cloud, &gateway.spec, nodes, &pods).await
    }

    async fn offer(&self, gateway: &EgressGateway, site: &Result<Site, Trouble>) -> Offer {
        let Ok(site) = site else { return Offer::default() };
        if gateway.metadata.deletion_timestamp.is_some() {
            return Offer::default();
        }
        let status = gateway.status.clone().unwrap_or_default();
        let staying = status.gateways.iter().filter(|entry| entry.role != GatewayRole::Leaving).count();
        let complete = i32::try_from(staying).is_ok_and(|staying| staying >= gateway.spec.replicas);
        let calm = complete && status.creating.is_empty();
        let need = if calm && status.observed_generation == gateway.metadata.generation {
            Need::Quiet
        } else {
            Need::Create
        };
        self.catalogue.offer(&self.cloud, &gateway.spec.droplet, &site.region, need, self.cloud.now()).await
    }

    async fn cloud(&self, gateway: &EgressGateway, nodes: &[NodeSeen]) -> Result<CloudSeen, Trouble> {
        self.read_cloud(gateway, nodes).await.map_err(|error| match error {
            ReadError::Cloud(error) => {
                let Trouble { reason, message } = of_cloud(&error);
                let since = self.cloud.out_since().map(|since| format!(" (since {})", in_seconds(since)));
                Trouble { reason, message: message + &since.unwrap_or_default() }
            }
            ReadError::Blind => blind(),
        })
    }

    async fn read_cloud(&self, gateway: &EgressGateway, nodes: &[NodeSeen]) -> Result<CloudSeen, ReadError> {
        let status = gateway.status.clone().unwrap_or_default();
        let now = self.cloud.now();
        let age = if is_quiet(gateway, &status, now) { QUIET_AGE } else { BUSY_AGE };
        let snapshot = self.cloud.droplets(age).await?;
        let identity = identity_of(gateway, &self.cluster);
        let ours = status.gateways.iter().filter(|entry| !entry.existing);
        let recorded: BTreeSet<DropletId> = ours.filter_map(droplet_id).collect();
        let mut droplets: BTreeMap<DropletId, Droplet> = snapshot
            .droplets
            .values()
            .filter(|droplet| {
                recorded.contains(&droplet.id)
                    || droplet.has_tag(&identity.owner_tag()) == Some(true)
                    || identity.slot_of(&droplet.name).is_some()
            })
            .map(|droplet| (droplet.id, droplet.clone()))
            .collect();
        let mut looked_up = BTreeSet::new();
        for intent in status.creating.iter().filter(|intent| is_asked_for(intent, now)) {
            let named = self.cloud.named(&intent.name).await?;
            droplets.extend(named.into_iter().map(|droplet| (droplet.id, droplet)));
            looked_up.insert(intent.name.clone());
        }
        // A Droplet that the list lacks may only be late in the tag index: it is asked for by id.
        let missing: Vec<DropletId> =
            recorded.iter().filter(|id| !droplets.contains_key(id)).copied().collect();
        let found = join_all(missing.iter().map(|id| self.cloud.unlisted(&snapshot, *id))).await;
        let mut gone = BTreeSet::new();
        for (id, found) in missing.into_iter().zip(found) {
            match found? {
                Some(droplet) => drop(droplets.insert(id, droplet)),
                None => drop(gone.insert(id)),
            }
        }
        let delete_accepted = self.cloud.delete_accepted();
        // Without nodes to ask for, only what this process itself has deleted is taken for gone.
        let explained = || nodes.is_empty() && gone.iter().all(|id| delete_accepted.contains_key(id));
        if !gone.is_empty() && !explained() && !self.sees_the_cluster(nodes).await? {
            return Err(ReadError::Blind);
        }
        let missing = self.read_existing(gateway, &mut droplets).await;
        let fleet = snapshot.droplets.len();
        Ok(CloudSeen { taken: snapshot.taken, droplets, missing, fleet, gone, looked_up })
    }

    // What people have named, read seldom. Gives what there is not.
    async fn read_existing(
        &self,
        gateway: &EgressGateway,
        droplets: &mut BTreeMap<DropletId, Droplet>,
    ) -> BTreeSet<DropletId> {
        let mut missing = BTreeSet::new();
        let recorded = gateway.status.iter().flat_map(|status| &status.gateways);
        let serving: BTreeSet<DropletId> =
            recorded.filter(|entry| entry.existing).filter_map(droplet_id).collect();
        let named = gateway.spec.existing_droplets.iter().filter_map(|id| u64::try_from(*id).ok());
        for id in named.map(DropletId) {
            let read = || self.cloud.droplet(id);
            let serves = serving.contains(&id);
            let age = if serves { EXISTING_AGE } else { AWAITED_AGE };
            let found = self.existing.at_most(&id.to_string(), age, self.cloud.now(), read).await;
            match found.as_deref() {
                Some(Some(droplet)) => drop(droplets.insert(id, droplet.clone())),
                Some(None) => drop(missing.insert(id)),
                None => {}
            }
        }
        missing
    }

    // To a token of another team everything is gone. A Droplet of ours that it sees now shows that it is not such a one; the list of them
    // may have been read with the token before, and one that people named may be anybody's.
    async fn sees_this_account(
        &self,
        gateway: &EgressGateway,
        nodes: &[NodeSeen],
        cloud: &CloudSeen,
    ) -> Result<bool, Error> {
        let named = &gateway.spec.existing_droplets;
        let is_named = |id: &DropletId| i64::try_from(id.0).is_ok_and(|id| named.contains(&id));
        if let Some(ours) = cloud.droplets.keys().copied().find(|id| !is_named(id))
            && self.cloud.sees(ours).await?
        {
            return Ok(true);
        }
        self.sees_the_cluster(nodes).await
    }

    // Whether the token sees the account of this cluster's nodes. One node's Droplet may be gone while its Node lasts.
    async fn sees_the_cluster(&self, nodes: &[NodeSeen]) -> Result<bool, Error> {
        let live = nodes.iter().filter(|node| node.live);
        let witnesses = live.chain(nodes.iter().filter(|node| !node.live)).filter_map(|node| node.droplet);
        for witness in witnesses.take(WITNESSES) {
            if self.cloud.sees(witness).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn followers(name: &str, static_routes: &[StaticRoute]) -> Vec<Follower> {
    let follows = |route: &&StaticRoute| {
        route.spec.gateway_ref.as_ref().is_some_and(|reference| reference.name == name)
    };
    let mut followers: Vec<Follower> = static_routes
        .iter()
        .filter(follows)
        .filter_map(|route| {
            Some(Follower { name: route.metadata.name.clone()?, uid: route.metadata.uid.clone()? })
        })
        .collect();
    followers.sort_unstable();
    followers
}

fn identity_of(gateway: &EgressGateway, cluster: &str) -> Identity {
    Identity {
        name: gateway.metadata.name.clone().unwrap_or_default(),
        owner: gateway.metadata.uid.clone().unwrap_or_default(),
        cluster: cluster.to_owned(),
    }
}

fn in_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

fn blind() -> Trouble {
    let message = "The API token does not see the cluster's own nodes: it belongs to another team, or nodes have wrong provider \
                   ids. Nothing is taken for gone on its word";
    Trouble { reason: "TokenOfAnotherTeam", message: message.to_owned() }
}

enum ReadError {
    Cloud(Error),
    Blind,
}

impl From<Error> for ReadError {
    fn from(error: Error) -> Self {
        Self::Cloud(error)
    }
}

fn is_quiet(gateway: &EgressGateway, status: &EgressGatewayStatus, now: Timestamp) -> bool {
    // What only a person may delete or mend is nothing to hurry for.
    let waits = |entry: &GatewayStatus| entry.delete_refused.is_some() || entry.existing;
    let calm = |entry: &GatewayStatus| {
        waits(entry) || entry.ready && entry.role != GatewayRole::Leaving && entry.suspect_since.is_none()
    };
    let goes = gateway.metadata.deletion_timestamp.is_some()
        && !status.gateways.iter().any(|entry| entry.delete_refused.is_some());
    let comes = status.creating.iter().any(|intent| is_asked_for(intent, now));
    status.gateways.iter().all(calm) && !comes && !goes
}

// A create that the cloud refused rests for a while, and looking for it meanwhile would be calls for nothing.
fn is_asked_for(intent: &CreationIntent, now: Timestamp) -> bool {
    intent.message.is_none() || elapsed(intent.since.0, now) >= REFUSED_PAUSE
}

// Whom to ask: recorded gateways that are to stay, at the address that the cloud gave them.
fn addresses(gateway: &EgressGateway, cloud: Option<&CloudSeen>) -> Vec<(DropletId, Ipv4Addr)> {
    let recorded = gateway.status.as_ref().map(|status| status.gateways.as_slice()).unwrap_or_default();
    let staying = recorded.iter().filter(|entry| entry.role != GatewayRole::Leaving && !entry.existing);
    staying
        .filter_map(|entry| {
            let id = droplet_id(entry)?;
            let seen = cloud.and_then(|cloud| cloud.droplets.get(&id)).and_then(Droplet::private_v4);
            let recorded = entry.private_address.as_deref().and_then(|address| address.parse().ok());
            Some((id, seen.or(recorded)?))
        })
        .collect()
}
