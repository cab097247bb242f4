//! The account's firewalls: one list for all EgressGateways, read seldom, and kept by what our own calls say in between.
//!
//! It cannot be narrowed to ours: the API lists by page only. A list that fails opens no outage for anything else, since gateways do
//! without firewalls, and is not asked for again for a while.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use egress_digitalocean::{Error, Fence, Firewall, FirewallId, FirewallSpec, RefusalKind};
use jiff::Timestamp;

use super::{Cloud, elapsed};

/// One reading of the list, with what our own calls have changed since.
#[derive(Clone, Debug)]
pub struct FirewallList {
    /// When the reading began.
    pub taken: Timestamp,
    /// All of the account's.
    pub firewalls: BTreeMap<FirewallId, Firewall>,
}

#[derive(Default)]
pub(super) struct Shared {
    last: Option<Arc<FirewallList>>,
    failed: Option<(Error, Timestamp)>,
}

/// A token that lacks the scope lacks it until somebody acts: thirty calls an hour.
const FORBIDDEN_PAUSE: Duration = Duration::from_secs(120);
const FAILED_PAUSE: Duration = Duration::from_secs(60);

/// A list that does not come holds up the looks at all EgressGateways, which have better things to do.
const PATIENCE: Duration = Duration::from_secs(5);

/// A list this old is still taken while the API does not give another.
const GOOD_ENOUGH: Duration = Duration::from_secs(900);

impl Cloud {
    /// The list, read after `wanted` if the API gives it, and after `needed` in any case.
    pub async fn firewalls(&self, wanted: Timestamp, needed: Timestamp) -> Result<Arc<FirewallList>, Error> {
        let mut shared = self.firewalls.lock().await;
        if let Some(list) = shared.last.as_ref().filter(|list| list.taken >= wanted.max(needed)) {
            return Ok(list.clone());
        }
        let taken = self.now();
        let resting =
            shared.failed.as_ref().filter(|(_, until)| taken < *until).map(|(error, _)| error.clone());
        let listed = match resting {
            Some(error) => Err(error),
            None => self.counted("firewalls.list", in_time(self.client.firewalls())).await,
        };
        match listed {
            Ok(list) => {
                let firewalls = list.into_iter().map(|firewall| (firewall.id.clone(), firewall)).collect();
                let list = Arc::new(FirewallList { taken, firewalls });
                *shared = Shared { last: Some(list.clone()), failed: None };
                Ok(list)
            }
            Err(error) => {
                if shared.failed.as_ref().is_none_or(|(_, until)| taken >= *until) {
                    shared.failed = Some((error.clone(), taken + pause_after(&error)));
                }
                let old = shared.last.as_ref();
                let enough = |list: &&Arc<FirewallList>| {
                    list.taken >= needed && elapsed(list.taken, taken) < GOOD_ENOUGH
                };
                old.filter(enough).cloned().ok_or(error)
            }
        }
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

    // What was refused has changed nothing. The list is everybody's: it is not dropped for one change that fails again and again.
    async fn change_list<T>(
        &self,
        change: impl FnOnce(&mut BTreeMap<FirewallId, Firewall>),
        outcome: Result<T, Error>,
    ) -> Result<T, Error> {
        let mut shared = self.firewalls.lock().await;
        match (&outcome, &mut shared.last) {
            (Ok(_), Some(list)) => change(&mut Arc::make_mut(list).firewalls),
            (Err(error), last) if only_a_new_list_tells(error) => *last = None,
            _ => {}
        }
        outcome
    }
}

/// Whether it is open what a change did, or its refusal says that there is something else than the list shows.
fn only_a_new_list_tells(error: &Error) -> bool {
    let is_open = matches!(error, Error::Ambiguous { .. } | Error::Lost { .. } | Error::Unreadable { .. });
    let surprise = matches!(
        error.refused_as(),
        Some(RefusalKind::NotFound | RefusalKind::Conflict | RefusalKind::AlreadyExists)
    );
    is_open || surprise
}

async fn in_time<T>(list: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let late =
        |_| Error::Lost { call: "firewalls.list", reason: format!("not within {} s", PATIENCE.as_secs()) };
    tokio::time::timeout(PATIENCE, list).await.map_err(late).flatten()
}

fn pause_after(error: &Error) -> Duration {
    match error.refused_as() {
        Some(RefusalKind::Forbidden) => FORBIDDEN_PAUSE,
        _ => FAILED_PAUSE,
    }
}

#[cfg(test)]
mod tests {
    use egress_digitalocean::Refusal;

    use super::*;

    #[test]
    fn a_list_outlives_what_was_clearly_refused_and_no_other_failure() {
        let call = "firewalls.update";
        let refused = |kind| Error::Refused {
            call,
            refusal: Box::new(Refusal {
                kind,
                status: 400,
                id: None,
                message: String::new(),
                request_id: None,
                pause: None,
            }),
        };
        for kind in [RefusalKind::Server, RefusalKind::Forbidden, RefusalKind::Unprocessable] {
            assert!(!only_a_new_list_tells(&refused(kind)), "{kind:?}");
        }
        for kind in [RefusalKind::NotFound, RefusalKind::Conflict] {
            assert!(only_a_new_list_tells(&refused(kind)), "{kind:?}");
        }
        assert!(only_a_new_list_tells(&Error::Lost { call, reason: String::new() }));
        assert!(!only_a_new_list_tells(&Error::Unreachable { call, reason: String::new() }));
    }
}
