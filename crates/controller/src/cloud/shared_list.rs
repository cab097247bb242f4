//! A list of the whole account that all EgressGateways share: read seldom, and kept by what our own calls say in between.
//!
//! One that fails opens no outage for anything else, and is not asked for again for a while.

use std::sync::Arc;
use std::time::Duration;

use egress_digitalocean::{Error, RefusalKind};
use jiff::Timestamp;

use super::elapsed;

/// A token that lacks the scope lacks it until somebody acts: thirty calls an hour.
const FORBIDDEN_PAUSE: Duration = Duration::from_secs(120);
const FAILED_PAUSE: Duration = Duration::from_secs(60);

/// A list that does not come holds up the looks at all EgressGateways, which have better things to do.
const PATIENCE: Duration = Duration::from_secs(5);

/// A list this old is still taken while the API does not give another.
const GOOD_ENOUGH: Duration = Duration::from_secs(900);

/// One reading.
pub(super) trait Reading: Clone {
    /// When it began.
    fn taken(&self) -> Timestamp;
}

/// The last reading, and the last failure.
pub(super) struct SharedList<L> {
    last: Option<Arc<L>>,
    failed: Option<(Error, Timestamp)>,
}

impl<L> Default for SharedList<L> {
    fn default() -> Self {
        Self { last: None, failed: None }
    }
}

impl<L: Reading> SharedList<L> {
    /// The list, read after `wanted` if the API gives it, and after `needed` in any case.
    pub(super) async fn read(
        &mut self,
        now: Timestamp,
        wanted: Timestamp,
        needed: Timestamp,
        call: &'static str,
        list: impl Future<Output = Result<L, Error>>,
    ) -> Result<Arc<L>, Error> {
        if let Some(list) = self.last.as_ref().filter(|list| list.taken() >= wanted.max(needed)) {
            return Ok(list.clone());
        }
        let resting = self.failed.as_ref().filter(|(_, until)| now < *until).map(|(error, _)| error.clone());
        let listed = match resting {
            Some(error) => Err(error),
            None => in_time(call, list).await,
        };
        match listed {
            Ok(list) => {
                let list = Arc::new(list);
                *self = Self { last: Some(list.clone()), failed: None };
                Ok(list)
            }
            Err(error) => {
                if self.failed.as_ref().is_none_or(|(_, until)| now >= *until) {
                    self.failed = Some((error.clone(), now + pause_after(&error)));
                }
                let old = self.last.as_ref();
                let enough =
                    |list: &&Arc<L>| list.taken() >= needed && elapsed(list.taken(), now) < GOOD_ENOUGH;
                old.filter(enough).cloned().ok_or(error)
            }
        }
    }

    /// Carries one change of ours into the list. What was refused has changed nothing. The list is everybody's: it is not dropped for one
    /// change that fails again and again.
    pub(super) fn carry<T>(&mut self, outcome: &Result<T, Error>, change: impl FnOnce(&mut L)) {
        match (outcome, &mut self.last) {
            (Ok(_), Some(list)) => change(Arc::make_mut(list)),
            (Err(error), last) if only_a_new_list_tells(error) => *last = None,
            _ => {}
        }
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

async fn in_time<T>(call: &'static str, list: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let late = |_| Error::Lost { call, reason: format!("not within {} s", PATIENCE.as_secs()) };
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
