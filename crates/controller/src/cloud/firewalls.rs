//! The account's firewalls. The list cannot be narrowed to ours: the API lists by page only.

use std::collections::BTreeMap;
use std::sync::Arc;

use egress_digitalocean::{Error, Fence, Firewall, FirewallId, FirewallSpec};
use jiff::Timestamp;

use super::Cloud;
use super::shared_list::Reading;

/// One reading of the list, with what our own calls have changed since.
#[derive(Clone, Debug)]
pub struct FirewallList {
    /// When the reading began.
    pub taken: Timestamp,
    /// All of the account's.
    pub firewalls: BTreeMap<FirewallId, Firewall>,
}

impl Reading for FirewallList {
    fn taken(&self) -> Timestamp {
        self.taken
    }
}

impl Cloud {
    /// The list, read after `wanted` if the API gives it, and after `needed` in any case.
    pub async fn firewalls(&self, wanted: Timestamp, needed: Timestamp) -> Result<Arc<FirewallList>, Error> {
        let mut shared = self.firewalls.lock().await;
        let taken = self.now();
        let list = async {
            let listed = self.counted("firewalls.list", self.client.firewalls()).await?;
            let firewalls = listed.into_iter().map(|firewall| (firewall.id.clone(), firewall)).collect();
            Ok(FirewallList { taken, firewalls })
        };
        shared.read(taken, wanted, needed, "firewalls.list", list).await
    }

    /// One firewall, by id.
    pub async fn firewall(&self, id: &FirewallId) -> Result<Option<Firewall>, Error> {
        self.counted("firewalls.get", self.client.firewall(id)).await
    }

    /// Sends one create.
    pub async fn create_firewall(
        &self,
        wanted: &FirewallSpec,
        fence: &dyn Fence,
    ) -> Result<FirewallId, Error> {
        let made = self.counted("firewalls.create", self.client.create_firewall(wanted, fence)).await;
        let made = self.remember(made).await?;
        Ok(made.id)
    }

    /// Makes one what is said; gives what the cloud then shows.
    pub async fn update_firewall(
        &self,
        id: &FirewallId,
        wanted: &FirewallSpec,
        fence: &dyn Fence,
    ) -> Result<Firewall, Error> {
        let made = self.counted("firewalls.update", self.client.update_firewall(id, wanted, fence)).await;
        self.remember(made).await
    }

    /// Deletes by id.
    pub async fn delete_firewall(&self, id: &FirewallId, fence: &dyn Fence) -> Result<(), Error> {
        let deleted = self.counted("firewalls.delete", self.client.delete_firewall(id, fence)).await;
        self.change_list(|firewalls| drop(firewalls.remove(id)), deleted).await.map(drop)
    }

    async fn remember(&self, made: Result<Firewall, Error>) -> Result<Firewall, Error> {
        let shown = made.as_ref().ok().cloned();
        let change =
            |firewalls: &mut BTreeMap<_, _>| firewalls.extend(shown.map(|one| (one.id.clone(), one)));
        self.change_list(change, made).await
    }

    async fn change_list<T>(
        &self,
        change: impl FnOnce(&mut BTreeMap<FirewallId, Firewall>),
        outcome: Result<T, Error>,
    ) -> Result<T, Error> {
        self.firewalls.lock().await.carry(&outcome, |list| change(&mut list.firewalls));
        outcome
    }
}
