//! The cloud as all EgressGateways share it: one list by tag for all of them, so that the cost in calls does not grow with
//! their number.

mod firewalls;
mod fleet;
mod outage;
mod reserved_ips;
mod shared_list;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use egress_digitalocean::{
    Client, CreateDroplet, Deletion, Droplet, DropletAction, DropletFilter, DropletId, DropletName, Error,
    Fence, Image, ImageRef, InvalidValue, Project, ProjectId, Region, Size, SshKey, TagName, Vpc, VpcId,
};
use jiff::Timestamp;

use crate::backoff;
use crate::clock::Clock;
use crate::identity::{OwnTag, cluster_tag};
use crate::metrics::ControllerMetrics;

pub use firewalls::FirewallList;
use fleet::Fleet;
use outage::Standing;
pub use reserved_ips::ReservedIpList;
use shared_list::SharedList;

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

impl Snapshot {
    fn pages(&self) -> u32 {
        u32::try_from(self.droplets.len().div_ceil(egress_digitalocean::PER_PAGE)).unwrap_or(u32::MAX).max(1)
    }
}

/// The client, the shared list, and what this process remembers of its own calls.
pub struct Cloud {
    client: Client,
    clock: Clock,
    tag: Result<TagName, InvalidValue>,
    metrics: ControllerMetrics,
    // Held while the list is read: whoever comes meanwhile waits for that reading instead of starting another.
    list: tokio::sync::Mutex<Shared>,
    firewalls: tokio::sync::Mutex<SharedList<FirewallList>>,
    reserved_ips: tokio::sync::Mutex<SharedList<ReservedIpList>>,
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Shared {
    last: Option<Arc<Snapshot>>,
    // Of the list alone: a scope that is missing, or a list that changes all the time, concerns nothing else.
    standing: Standing,
}

#[derive(Default)]
struct Memory {
    delete_accepted: BTreeMap<DropletId, Timestamp>,
    changed: Option<Timestamp>,
    node_seen: Option<Timestamp>,
    fleet: Fleet,
    standing: Standing,
}

// What somebody changed by hand must not stay unseen for long.
const MOST_TIMES: u32 = 4;

// Accepted deletes are forgotten after this; Droplets are gone long before.
const DELETE_MEMORY: Duration = Duration::from_secs(600);

// For so long a node's Droplet that was found shows that the token sees the cluster's account. Tokens can be exchanged at
// any time.
const SENTINEL_AGE: Duration = Duration::from_secs(5);

impl Cloud {
    /// The cloud as seen by the cluster with this uid.
    pub fn new(client: Client, cluster: &str, metrics: ControllerMetrics, clock: Clock) -> Self {
        Self {
            client,
            clock,
            tag: TagName::new(cluster_tag(cluster)),
            metrics,
            list: tokio::sync::Mutex::default(),
            firewalls: tokio::sync::Mutex::default(),
            reserved_ips: tokio::sync::Mutex::default(),
            memory: Mutex::default(),
        }
    }

    /// What time it is, by the clock that readings are stamped with.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The list, not older than `age`, and not older than our own last change. One of several pages, each a call, may be as many
    /// times as old: what it costs does not grow with the fleet.
    pub async fn droplets(&self, age: Duration) -> Result<Arc<Snapshot>, Error> {
        let mut list = self.list.lock().await;
        let changed = self.memory().changed;
        if let Some(snapshot) = &list.last
            && elapsed(snapshot.taken, self.now()) < age.saturating_mul(snapshot.pages().min(MOST_TIMES))
            && changed.is_none_or(|changed| snapshot.taken > changed)
        {
            return Ok(snapshot.clone());
        }
        let tag = self.tag.clone().map_err(|source| Error::Invalid { call: "droplets.list", source })?;
        let taken = self.now();
        if let Some(error) = list.standing.refusal(taken) {
            return Err(error);
        }
        let listed = self.read("droplets.list", self.reader().droplets(&DropletFilter::Tag(tag))).await;
        let now = self.now();
        list.standing.note(&listed, outage::was_sent, now, backoff::chance(now));
        let droplets: BTreeMap<DropletId, Droplet> =
            listed?.into_iter().map(|droplet| (droplet.id, droplet)).collect();
        self.memory().fleet.list(&droplets);
        let snapshot = Arc::new(Snapshot { taken, droplets, found: Mutex::default() });
        list.last = Some(snapshot.clone());
        Ok(snapshot)
    }

    /// Droplets of this name.
    pub async fn named(&self, name: &str) -> Result<Vec<Droplet>, Error> {
        let name =
            DropletName::new(name).map_err(|source| Error::Invalid { call: "droplets.list", source })?;
        self.read("droplets.list", self.reader().droplets(&DropletFilter::Name(name))).await
    }

    /// One Droplet.
    pub async fn droplet(&self, id: DropletId) -> Result<Option<Droplet>, Error> {
        self.read("droplets.get", self.reader().droplet(id)).await
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
        self.read("vpcs.get", self.reader().vpc(id)).await
    }

    /// Every size.
    pub async fn sizes(&self) -> Result<Vec<Size>, Error> {
        self.read("sizes.list", self.reader().sizes()).await
    }

    /// Every region.
    pub async fn regions(&self) -> Result<Vec<Region>, Error> {
        self.read("regions.list", self.reader().regions()).await
    }

    /// One image.
    pub async fn image(&self, image: &ImageRef) -> Result<Option<Image>, Error> {
        self.read("images.get", self.reader().image(image)).await
    }

    /// Every public image of a distribution.
    pub async fn distributions(&self) -> Result<Vec<Image>, Error> {
        self.read("images.list", self.reader().distributions()).await
    }

    /// Every SSH key of the team.
    pub async fn ssh_keys(&self) -> Result<Vec<SshKey>, Error> {
        self.read("ssh_keys.list", self.reader().ssh_keys()).await
    }

    /// Every project.
    pub async fn projects(&self) -> Result<Vec<Project>, Error> {
        self.read("projects.list", self.reader().projects()).await
    }

    /// Moves a Droplet into a project.
    pub async fn assign(&self, id: DropletId, project: &ProjectId, fence: &dyn Fence) -> Result<(), Error> {
        self.counted("projects.assign", self.client.assign_droplet(project, id, fence)).await
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

    /// Sends one create, unless there would be more than `most` Droplets then.
    ///
    /// Steps for several EgressGateways run beside each other, and the tag index lags: what was made, or may have been, counts from
    /// the request on.
    pub async fn create(
        &self,
        new: &CreateDroplet,
        most: usize,
        fence: &dyn Fence,
    ) -> Result<DropletId, CreateError> {
        let now = self.now();
        if !self.memory().fleet.reserve(most, now) {
            return Err(CreateError::Limit(most));
        }
        let created = self.counted("droplets.create", self.client.create_droplet(new, fence)).await;
        self.memory().fleet.settle(&created, now);
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

    /// Takes a tag off a Droplet that stays.
    pub async fn untag(&self, own: &OwnTag, fence: &dyn Fence) -> Result<(), Error> {
        let tag = TagName::new(own.tag()).map_err(|source| Error::Invalid { call: "tags.untag", source })?;
        let untagged =
            self.counted("tags.untag", self.client.untag_droplet(&tag, own.droplet(), fence)).await;
        self.has_changed();
        untagged
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

    /// Since when the API as a whole has not answered.
    pub fn out_since(&self) -> Option<Timestamp> {
        self.memory().standing.since()
    }

    // While the API is out, one request is enough to see whether it still is.
    fn reader(&self) -> Client {
        if self.out_since().is_some() { self.client.without_repetition() } else { self.client.clone() }
    }

    // A read, unless the API as a whole has just failed.
    async fn read<T>(
        &self,
        route: &'static str,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        if let Some(error) = self.memory().standing.refusal(self.now()) {
            return Err(error);
        }
        let answer = self.counted(route, call).await;
        let now = self.now();
        self.memory().standing.note(&answer, outage::concerns_all, now, backoff::chance(now));
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

/// Why a create gave no id.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// Nothing was sent.
    #[error("the controller may have {0} Droplets for all EgressGateways (--max-droplets), and has them")]
    Limit(usize),
    /// The cloud refused, or did not answer.
    #[error(transparent)]
    Cloud(#[from] Error),
}

/// Time from `then` to `now`, zero if the clock went back.
pub fn elapsed(then: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or_default()
}
