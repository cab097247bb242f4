//! The driver: reads, decides with [`evaluate`], writes, publishes the claim.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::evaluate::holder;
use super::{Action, Claim, LeadershipLost, LeaseStore, Observation, StoreError, Tenure, Timing, evaluate};

// One call to the API server; several fit into a renew deadline.
const CALL_DEADLINE: Duration = Duration::from_secs(3);

/// Runs for leadership until told to stop.
pub struct Elector<S> {
    store: S,
    me: String,
    timing: Timing,
    tenure: watch::Sender<Option<Tenure>>,
    observed: Option<Observation>,
    /// The lease as we wrote it last; `None` sends us to read it.
    held: Option<Lease>,
}

#[derive(Debug, thiserror::Error)]
enum CallError {
    #[error("no answer from the API server in time")]
    Deadline,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl<S: LeaseStore> Elector<S> {
    /// A candidate called `me` (see [`super::identity`]) and the claim it publishes. Two candidates of one name would both
    /// believe to lead.
    pub fn new(store: S, me: String, timing: Timing) -> (Self, Claim) {
        let (tenure, receiver) = watch::channel(None);
        (Self { store, me, timing, tenure, observed: None, held: None }, Claim::new(receiver))
    }

    /// Takes part in the election until `stop` is cancelled, then gives the lease back so that another can have it at once.
    ///
    /// Cancel `stop` only when everything that was done under the claim has ended (see `Tasks::spawn_closing`). An error means
    /// that leadership was held and is lost: the process must end, since work begun under it may still be under way.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), LeadershipLost> {
        loop {
            let pause = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                round = self.round() => match round {
                    Ok(pause) => pause,
                    Err(lost) => {
                        self.tenure.send_replace(None);
                        tracing::error!(reason = %lost, "leadership lost");
                        return Err(lost);
                    }
                },
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = tokio::time::sleep(pause) => {}
            }
        }
        self.release().await;
        Ok(())
    }

    // One look at the lease and at most one write. Returns the pause before the next.
    pub(super) async fn round(&mut self) -> Result<Duration, LeadershipLost> {
        if let Some(lease) = self.held.take() {
            return self.write(lease).await;
        }
        let read = self.call(self.store.read()).await;
        let now = Instant::now();
        let lease = match read {
            Ok(lease) => lease,
            Err(error) => return self.failed("read", &error, now),
        };
        let spec = lease.as_ref().and_then(|lease| lease.spec.as_ref());
        self.observed = Observation::after(self.observed.take(), spec, now);
        match evaluate(spec, &self.me, now, self.observed.as_ref(), self.timing.lease_duration) {
            Action::Acquire | Action::Renew => self.write(lease.unwrap_or_default()).await,
            Action::Wait(until) => {
                if self.leads() {
                    let other = spec.and_then(holder).unwrap_or("nobody").to_owned();
                    return Err(LeadershipLost::TakenBy(other));
                }
                Ok(self.timing.poll_period.min(until.saturating_duration_since(now)))
            }
        }
    }

    async fn write(&mut self, lease: Lease) -> Result<Duration, LeadershipLost> {
        let mine = self.with_my_name(lease);
        let sent = Instant::now();
        match self.call(self.store.write(&mine)).await {
            Ok(written) => {
                if !self.leads() {
                    tracing::info!(me = self.me, "leading");
                }
                self.held = Some(written);
                self.tenure.send_replace(Some(Tenure::from_request(sent, self.timing.renew_deadline)));
                Ok(self.timing.renew_period)
            }
            // Somebody else was quicker; a read tells who.
            Err(CallError::Store(StoreError::Conflict)) => {
                self.still_current(Instant::now()).map(|()| CONFLICT_PAUSE)
            }
            // It may have been written all the same: the resource version is out of date then, so it is read first.
            Err(error) => self.failed("write", &error, Instant::now()),
        }
    }

    fn with_my_name(&self, mut lease: Lease) -> Lease {
        let before = lease.spec.take().unwrap_or_default();
        let now = MicroTime(Timestamp::now());
        let mine_already = holder(&before) == Some(self.me.as_str());
        let transitions = before.lease_transitions.unwrap_or_default();
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(self.me.clone()),
            lease_duration_seconds: i32::try_from(self.timing.lease_duration.as_secs()).ok(),
            acquire_time: if mine_already { before.acquire_time } else { Some(now.clone()) },
            renew_time: Some(now),
            lease_transitions: Some(if mine_already { transitions } else { transitions.saturating_add(1) }),
            ..LeaseSpec::default()
        });
        lease
    }

    fn failed(&self, verb: &str, error: &CallError, now: Instant) -> Result<Duration, LeadershipLost> {
        tracing::warn!(verb, %error, leads = self.leads(), "lease call failed");
        self.still_current(now)?;
        Ok(self.timing.poll_period)
    }

    fn leads(&self) -> bool {
        self.tenure.borrow().is_some()
    }

    fn still_current(&self, now: Instant) -> Result<(), LeadershipLost> {
        match *self.tenure.borrow() {
            Some(tenure) if !tenure.is_current(now) => Err(LeadershipLost::Expired),
            _ => Ok(()),
        }
    }

    // A holder's call ends with its claim at the latest, so that the loss is noticed when it happens.
    async fn call<T>(
        &self,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, CallError> {
        let tenure = *self.tenure.borrow();
        let limit = tenure.map_or(CALL_DEADLINE, |tenure| {
            CALL_DEADLINE.min(tenure.expires().saturating_duration_since(Instant::now()))
        });
        match timeout(limit, call).await {
            Ok(answer) => Ok(answer?),
            Err(_elapsed) => Err(CallError::Deadline),
        }
    }

    // The claim ends before anybody else can have the lease. If giving it back fails, it runs out by itself.
    async fn release(mut self) {
        self.tenure.send_replace(None);
        let given_back = self.call(self.give_back()).await;
        self.held = None;
        match given_back {
            Ok(true) => tracing::info!(me = self.me, "lease given back"),
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "lease not given back; it runs out by itself"),
        }
    }

    // Always reads first: a write that was under way when we were told to stop may have come through.
    async fn give_back(&self) -> Result<bool, StoreError> {
        let Some(mut lease) = self.store.read().await? else { return Ok(false) };
        let Some(spec) = lease.spec.as_mut().filter(|spec| holder(spec) == Some(self.me.as_str())) else {
            return Ok(false);
        };
        spec.holder_identity = None;
        spec.renew_time = Some(MicroTime(Timestamp::now()));
        // As client-go does: whoever reads it need not wait.
        spec.lease_duration_seconds = Some(1);
        self.store.write(&lease).await.map(|_| true)
    }
}

// Long enough not to spin when two candidates collide, short beside every other time.
const CONFLICT_PAUSE: Duration = Duration::from_millis(50);
