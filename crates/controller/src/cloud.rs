//! The cloud as all EgressGateways share it: one list by tag for all of them, so that the cost in calls does not grow with
//! their number.

mod firewalls;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use egress_digitalocean::{
    Client, CreateDroplet, Deletion, Droplet, DropletAction, DropletFilter, DropletId, DropletName, Error,
    Fence, InvalidValue, RefusalKind, TagName, Vpc, VpcId,
};
use jiff::Timestamp;

use crate::clock::Clock;
use crate::identity::cluster_tag;
use crate::metrics::ControllerMetrics;

pub use firewalls::FirewallList;

/// One reading of the list.
#[derive(Debug)]
pub struct Snapshot {
    /// When the reading began.
    pub taken: Timestamp,
    /// Droplets with our cluster's tag.
    pub droplets: BTreeMap<DropletId, Droplet>,
    // What the list lacked and a read by id found: as good as the list, for as long as the list is.
    found: Mutex<BTreeMap<DropletId, Droplet>>,
}

/// The client, the shared list, and what this process remembers of its own calls.
pub struct Cloud {
    client: Client,
    clock: Clock,
    tag: Result<TagName, InvalidValue>,
    metrics: ControllerMetrics,
    // Held while the list is read: whoever comes meanwhile waits for that reading instead of starting another.
    snapshot: tokio::sync::Mutex<Option<Arc<Snapshot>>>,
    firewalls: tokio::sync::Mutex<firewalls::Shared>,
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    delete_accepted: BTreeMap<DropletId, Timestamp>,
    changed: Option<Timestamp>,
    node_seen: Option<Timestamp>,
    outage: Option<Outage>,
}

/// The API as a whole does not answer, or answers nobody: all EgressGateways share one attempt now and then.
struct Outage {
    error: Error,
    until: Timestamp,
    pause: Duration,
}

// Accepted deletes are forgotten after this; Droplets are gone long before.
const DELETE_MEMORY: Duration = Duration::from_secs(600);

// For so long a node's Droplet that was found shows that the token sees the cluster's account. Tokens can be exchanged at
// any time.
const SENTINEL_AGE: Duration = Duration::from_secs(5);

const FIRST_OUTAGE_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_OUTAGE_PAUSE: Duration = Duration::from_secs(30);

impl Cloud {
    /// The cloud as seen by the cluster with this uid.
    pub fn new(client: Client, cluster: &str, metrics: ControllerMetrics, clock: Clock) -> Self {
        Self {
            client,
            clock,
            tag: TagName::new(cluster_tag(cluster)),
            metrics,
            snapshot: tokio::sync::Mutex::default(),
            firewalls: tokio::sync::Mutex::default(),
            memory: Mutex::default(),
        }
    }

    /// What time it is, by the clock that readings are stamped with.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The list, not older than `age`, and not older than our own last change.
    pub async fn droplets(&self, age: Duration) -> Result<Arc<Snapshot>, Error> {
        let mut held = self.snapshot.lock().await;
        let changed = self.memory().changed;
        if let Some(snapshot) = held.as_ref()
            && elapsed(snapshot.taken, self.now()) < age
            && changed.is_none_or(|changed| snapshot.taken > changed)
        {
            return Ok(snapshot.clone());
        }
        let tag = self.tag.clone().map_err(|source| Error::Invalid { call: "droplets.list", source })?;
        let taken = self.now();
        let listed = self.read("droplets.list", self.client.droplets(&DropletFilter::Tag(tag))).await?;
        let droplets = listed.into_iter().map(|droplet| (droplet.id, droplet)).collect();
        let snapshot = Arc::new(Snapshot { taken, droplets, found: Mutex::default() });
        *held = Some(snapshot.clone());
        Ok(snapshot)
    }

    /// Droplets of this name.
    pub async fn named(&self, name: &str) -> Result<Vec<Droplet>, Error> {
        let name =
            DropletName::new(name).map_err(|source| Error::Invalid { call: "droplets.list", source })?;
        self.read("droplets.list", self.client.droplets(&DropletFilter::Name(name))).await
    }

    /// One Droplet.
    pub async fn droplet(&self, id: DropletId) -> Result<Option<Droplet>, Error> {
        self.read("droplets.get", self.client.droplet(id)).await
    }

    /// One Droplet that the list lacks: its tags land late. Asked for once in the life of that list if it is found.
    pub async fn unlisted(&self, snapshot: &Snapshot, id: DropletId) -> Result<Option<Droplet>, Error> {
        let known = snapshot.found.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned();
        if known.is_some() {
            return Ok(known);
        }
        let found = self.droplet(id).await?;
        if let Some(droplet) = &found {
            snapshot.found.lock().unwrap_or_else(PoisonError::into_inner).insert(id, droplet.clone());
        }
        Ok(found)
    }

    /// One VPC.
    pub async fn vpc(&self, id: &VpcId) -> Result<Option<Vpc>, Error> {
        self.read("vpcs.get", self.client.vpc(id)).await
    }

    /// Whether the token sees the account that the cluster lives in. A token of another team gets "not found" for everything,
    /// which must not be taken for absence.
    pub async fn sees(&self, node: DropletId) -> Result<bool, Error> {
        let seen = self.memory().node_seen;
        if seen.is_some_and(|seen| elapsed(seen, self.now()) < SENTINEL_AGE) {
            return Ok(true);
        }
        let sees = self.droplet(node).await?.is_some();
        if sees {
            self.memory().node_seen = Some(self.now());
        }
        Ok(sees)
    }

    /// Sends one create.
    pub async fn create(&self, new: &CreateDroplet, fence: &dyn Fence) -> Result<DropletId, Error> {
        let created = self.counted("droplets.create", self.client.create_droplet(new, fence)).await;
        self.has_changed();
        let id = created?.droplet.id;
        self.metrics.droplet_created();
        Ok(id)
    }

    /// Deletes by id.
    pub async fn delete(&self, id: DropletId, fence: &dyn Fence) -> Result<(), Error> {
        let deleted = self.counted("droplets.delete", self.client.delete_droplet(id, fence)).await;
        self.has_changed();
        if deleted? == Deletion::Accepted {
            self.metrics.droplet_deleted();
        }
        self.memory().delete_accepted.insert(id, self.now());
        Ok(())
    }

    /// Powers on.
    pub async fn power_on(&self, id: DropletId, fence: &dyn Fence) -> Result<(), Error> {
        self.act(id, DropletAction::PowerOn, fence).await
    }

    /// Power-cycles.
    pub async fn power_cycle(&self, id: DropletId, fence: &dyn Fence) -> Result<(), Error> {
        self.act(id, DropletAction::PowerCycle, fence).await
    }

    async fn act(&self, id: DropletId, action: DropletAction, fence: &dyn Fence) -> Result<(), Error> {
        let acted = self.counted("droplets.act", self.client.act_on_droplet(id, action, fence)).await;
        self.has_changed();
        acted.map(drop)
    }

    /// Deletes that were accepted lately.
    pub fn delete_accepted(&self) -> BTreeMap<DropletId, Timestamp> {
        let now = self.now();
        let mut memory = self.memory();
        memory.delete_accepted.retain(|_, accepted| elapsed(*accepted, now) < DELETE_MEMORY);
        memory.delete_accepted.clone()
    }

    fn has_changed(&self) {
        self.memory().changed = Some(self.now());
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // A read, unless the API as a whole has just failed.
    async fn read<T>(
        &self,
        route: &'static str,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        if let Some(outage) = self.memory().outage.as_ref().filter(|outage| self.now() < outage.until) {
            return Err(outage.error.clone());
        }
        let answer = self.counted(route, call).await;
        let mut memory = self.memory();
        match &answer {
            Err(error) if concerns_all(error) => {
                let before = memory.outage.as_ref().map(|outage| outage.pause.saturating_mul(2));
                let pause = before.unwrap_or(FIRST_OUTAGE_PAUSE).min(LONGEST_OUTAGE_PAUSE);
                memory.outage = Some(Outage { error: error.clone(), until: self.now() + pause, pause });
            }
            _ => memory.outage = None,
        }
        answer
    }

    async fn counted<T>(
        &self,
        route: &'static str,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let answer = call.await;
        self.metrics.cloud_request(route, answer.as_ref().map_or_else(Error::category, |_| "ok"));
        self.metrics.quota(self.client.quota().remaining);
        answer
    }
}

// Whether every other read would end like this one. What was never sent costs nothing and is tried again.
fn concerns_all(error: &Error) -> bool {
    match error {
        Error::Unreachable { .. } | Error::Lost { .. } | Error::Unreadable { .. } => true,
        Error::Refused { refusal, .. } => {
            matches!(refusal.kind, RefusalKind::Unauthorized | RefusalKind::Server | RefusalKind::Unexpected)
        }
        _ => false,
    }
}

/// Time from `then` to `now`, zero if the clock went back.
pub fn elapsed(then: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or_default()
}
