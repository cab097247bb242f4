//! The status of every StaticRoute, users' own included: the sum of what the nodes report.
//!
//! - One look over all reports for all StaticRoutes ([`sum`]), however many of either there are.
//! - Writes are few ([`agenda`]): what `Ready` says is written at once, how far the nodes have come every two seconds, and all
//!   objects together take twenty writes a second at most.
//! - People are told of transitions ([`telling`]), a constant number of times for each object and change.

mod agenda;
mod sum;
mod telling;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use egress_api::condition::{READY, Verdict, set};
use egress_api::{CONTROLLER_FIELD_MANAGER, StaticRoute, StaticRouteStatus};
use egress_runtime::admin::Liveness;
use egress_runtime::guarded::Guarded;
use egress_runtime::kubernetes::{CallError, within_deadline};
use egress_runtime::lease::{Claim, LeadershipLost};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use kube::api::{Patch, PatchParams};
use kube::runtime::events::{Event, EventType, Recorder};
use kube::{Api, Client, Resource};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::decision::Happening;
use crate::unreadable::UNREADABLE;
use crate::watches::Mirrors;
use agenda::Agenda;
use telling::Told;

pub use sum::{NodeReport, Tally, status, tallies};

// Many nodes report at once after a change; one round of writes for all of them.
const GATHER: Duration = Duration::from_millis(300);

// A change that the watches lost is made up for after this.
const AT_LEAST_EVERY: Duration = Duration::from_secs(15);

// An event is a courtesy; nothing waits for it for longer.
const TELLING: Duration = Duration::from_secs(3);

// The API server takes 1 kB.
const LONGEST_NOTE: usize = 1000;

#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error(transparent)]
    Lease(#[from] LeadershipLost),
    #[error(transparent)]
    Call(#[from] CallError),
}

/// Keeps the sums of all StaticRoutes.
pub struct Sums {
    /// The API server.
    pub client: Client,
    /// Nodes, reports, StaticRoutes.
    pub mirrors: Mirrors,
    /// Leadership.
    pub claim: Claim,
    /// Counts up with each change in the mirrors.
    pub changes: watch::Receiver<u64>,
    /// Beaten while the sums are kept.
    pub heart: Liveness,
    /// Events.
    pub recorder: Recorder,
    /// The time that conditions carry.
    pub clock: Clock,
}

/// What the status of one StaticRoute should become.
struct Wanted {
    metadata: ObjectMeta,
    before: StaticRouteStatus,
    after: StaticRouteStatus,
}

impl Sums {
    /// Keeps the sums up to date; ends when the mirrors do.
    pub async fn keep(mut self) {
        let routes: Api<Guarded<StaticRoute>> = Api::all(self.client.clone());
        let mut agenda = Agenda::default();
        let mut told: BTreeMap<String, Told> = BTreeMap::new();
        loop {
            self.changes.mark_unchanged();
            let wanted = self.wanted();
            let there: BTreeSet<&str> = wanted.iter().map(Wanted::uid).collect();
            told.retain(|uid, _| there.contains(uid.as_str()));
            agenda.retain(&there);
            let now = Instant::now();
            let differing = wanted.iter().map(|one| (one.uid(), one.after != one.before, one.is_news()));
            let mut stored: Vec<bool> = wanted.iter().map(|one| one.after == one.before).collect();
            for index in agenda.choose(differing, now) {
                self.heart.beat();
                let one = &wanted[index];
                let written = self.write(&routes, one).await;
                // A later round tries again with a fresh view.
                if let Err(error) = &written {
                    tracing::debug!(static_route = one.metadata.name, %error, "status was not written");
                }
                stored[index] = written.is_ok();
                agenda.done(one.uid(), stored[index]);
            }
            // Told is what has been written: whoever reads the event finds the status.
            for one in wanted.iter().zip(stored).filter_map(|(one, stored)| stored.then_some(one)) {
                let known = told.entry(one.uid().to_owned()).or_insert_with(|| Told::before(&one.before));
                if let Some(happening) = known.tell(&one.after, self.clock.now()) {
                    self.heart.beat();
                    self.publish(one, &happening).await;
                }
            }
            self.heart.beat();
            let pause = agenda.pause(Instant::now()).unwrap_or(AT_LEAST_EVERY);
            let woken = tokio::time::timeout(pause, self.changes.changed()).await;
            if matches!(woken, Ok(Err(_))) {
                return;
            }
            tokio::time::sleep(GATHER).await;
        }
    }

    fn wanted(&self) -> Vec<Wanted> {
        let now = self.clock.now();
        let routes = self.mirrors.routes_as_read();
        let read = || routes.iter().filter_map(|route| route.0.as_ref().ok());
        let readable: Vec<&StaticRoute> = read().filter(|route| !is_going(&route.metadata)).collect();
        let tallies = self.mirrors.with_reports(|reports| tallies(&readable, reports));
        let summed = readable.iter().zip(&tallies).map(|(route, tally)| Wanted {
            metadata: route.metadata.clone(),
            before: route.status.clone().unwrap_or_default(),
            after: status(route, tally, now),
        });
        summed.chain(routes.iter().filter_map(|route| unreadable(route, now))).collect()
    }

    async fn write(&self, routes: &Api<Guarded<StaticRoute>>, wanted: &Wanted) -> Result<(), WriteError> {
        let name = wanted.metadata.name.as_deref().unwrap_or_default();
        let patch = json!({
            "apiVersion": "networking.digitalocean.com/v1",
            "kind": "StaticRoute",
            "metadata": {"name": name, "resourceVersion": wanted.metadata.resource_version},
            "status": wanted.after,
        });
        let manager = PatchParams::apply(CONTROLLER_FIELD_MANAGER).force();
        self.claim.check()?;
        within_deadline(routes.patch_status(name, &manager, &Patch::Apply(patch))).await?;
        Ok(())
    }

    async fn publish(&self, wanted: &Wanted, happening: &Happening) {
        let Happening { warning, reason, note } = happening;
        tracing::info!(static_route = wanted.metadata.name, reason, note, "event");
        if self.claim.check().is_err() {
            return;
        }
        let event = Event {
            type_: if *warning { EventType::Warning } else { EventType::Normal },
            reason: (*reason).to_owned(),
            note: Some(note.chars().take(LONGEST_NOTE).collect()),
            action: "Report".to_owned(),
            secondary: None,
        };
        let reference = ObjectReference {
            api_version: Some(StaticRoute::api_version(&()).into_owned()),
            kind: Some(StaticRoute::kind(&()).into_owned()),
            name: wanted.metadata.name.clone(),
            uid: wanted.metadata.uid.clone(),
            ..ObjectReference::default()
        };
        let published = tokio::time::timeout(TELLING, self.recorder.publish(&event, &reference)).await;
        if !matches!(published, Ok(Ok(()))) {
            tracing::debug!(reason, "event was not published");
        }
    }
}

impl Wanted {
    fn uid(&self) -> &str {
        self.metadata.uid.as_deref().unwrap_or_default()
    }

    /// Whether people wait for it, as opposed to one more node that has come so far.
    fn is_news(&self) -> bool {
        let said = |status: &StaticRouteStatus| {
            let words = |one: &Condition| (one.type_.clone(), one.status.clone(), one.reason.clone());
            status.conditions.iter().map(words).collect::<Vec<_>>()
        };
        self.before.observed_generation != self.after.observed_generation
            || said(&self.before) != said(&self.after)
    }
}

/// One that this controller can't read: its nodes keep what they have, and somebody has to be told.
fn unreadable(route: &Arc<Guarded<StaticRoute>>, now: Timestamp) -> Option<Wanted> {
    let invalid = route.0.as_ref().err()?;
    if is_going(&invalid.metadata) {
        return None;
    }
    // Its status may be what can't be read: of it only what is written below is looked at.
    let stored = |field: &str| invalid.status.get(field).cloned().unwrap_or_default();
    let mut conditions: Vec<Condition> = serde_json::from_value(stored("conditions")).unwrap_or_default();
    conditions.retain(|condition| condition.type_ == READY);
    let observed_generation = stored("observedGeneration").as_i64();
    let before = StaticRouteStatus { observed_generation, conditions, ..Default::default() };
    let generation = invalid.metadata.generation;
    let mut after = StaticRouteStatus { observed_generation: generation, ..before.clone() };
    let message = format!("The object can't be read, nodes keep what they have of it: {}", invalid.error);
    let verdict = Verdict { type_: READY, status: Some(false), reason: UNREADABLE, message };
    set(&mut after.conditions, verdict, generation, whole_second(now));
    Some(Wanted { metadata: *invalid.metadata.clone(), before, after })
}

fn is_going(metadata: &ObjectMeta) -> bool {
    metadata.deletion_timestamp.is_some()
}

fn whole_second(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}
