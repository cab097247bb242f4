//! The driver: observe, decide, act, for each EgressGateway in turn.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use egress_api::{EGRESS_GATEWAY_FINALIZER, EgressGateway, EgressGatewayStatus, GatewayRole};
use egress_digitalocean::Retry;
use egress_runtime::kubernetes::{CallError, watch_settings};
use egress_runtime::lease::Claim;
use futures::{FutureExt, Stream, StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::core::PartialObjectMeta;
use kube::runtime::controller::{Action, Config, trigger_self};
use kube::runtime::events::{Event, EventType, Recorder};
use kube::runtime::reflector::{self, ObjectRef};
use kube::runtime::{WatchStreamExt, applier};
use kube::{Api, Client, Resource};
use tokio_util::sync::CancellationToken;

use crate::act::{Outcome, perform};
use crate::backoff;
use crate::cloud::Cloud;
use crate::decide::decide;
use crate::decision::{Decision, Effect, Happening, Limits};
use crate::live::{ActError, Live};
use crate::metrics::ControllerMetrics;
use crate::observation::{Observation, Trouble};
use crate::observe::{Found, Observer};
use crate::relisting::relisted;
use crate::site::of_cloud;
use crate::unreadable::Unreadable;

// Enough that one slow cloud call does not hold the others; few enough for the rate budget.
const CONCURRENCY: u16 = 8;

// The API server takes 1 kB.
const LONGEST_NOTE: usize = 1000;

const AGAIN: Duration = Duration::from_millis(200);
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What a step needs.
pub struct Context {
    /// Kubernetes.
    pub client: Client,
    /// Reads.
    pub observer: Observer,
    /// DigitalOcean.
    pub cloud: Arc<Cloud>,
    /// Leadership.
    pub claim: Claim,
    /// Times.
    pub limits: Limits,
    /// Counts.
    pub metrics: ControllerMetrics,
    /// Events.
    pub recorder: Recorder,
    /// What failed last, by EgressGateway; gone with the object.
    pub failures: Mutex<HashMap<String, Failures>>,
}

/// Failures in a row of one EgressGateway.
#[derive(Clone, Debug, Default)]
pub struct Failures {
    count: u32,
    trouble: Option<Trouble>,
}

/// Why a step was not finished.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The API server did not say what there is.
    #[error("could not observe")]
    Observe(#[source] CallError),
    /// The effect failed.
    #[error("{effect} failed")]
    Act {
        /// Which.
        effect: &'static str,
        /// Why.
        source: ActError,
    },
}

/// Steps for every EgressGateway until `shutdown`; a step that is under way is finished. `all` asks for a step of each.
pub async fn run(
    context: Arc<Context>,
    all: impl Stream<Item = ()> + Send + 'static,
    shutdown: CancellationToken,
) {
    // Metadata only: the object itself is read anew in each step, and one that cannot be decoded breaks no watch.
    let gateways: Api<PartialObjectMeta<EgressGateway>> = Api::all(context.client.clone());
    let (known, writer) = reflector::store();
    let watched = relisted(gateways, watch_settings()).default_backoff().reflect(writer).applied_objects();
    let changed = trigger_self(watched, ()).map_ok(|request| request.obj_ref);
    let every = {
        let known = known.clone();
        all.flat_map(move |()| stream::iter(known.state()).map(|one| Ok(ObjectRef::from_obj(&*one))))
    };
    let queue = stream::select(changed, every).take_until(async move { shutdown.cancelled().await });
    let steps = |gateway, context| step(gateway, context).boxed();
    let config = Config::default().concurrency(CONCURRENCY);
    applier(steps, pause_after, context, known, queue.boxed(), config)
        .for_each(|result| async move {
            if let Err(error) = result {
                tracing::debug!(%error, "controller");
            }
        })
        .await;
}

#[tracing::instrument(skip_all, fields(egress_gateway = gateway.metadata.name.as_deref()))]
async fn step(
    gateway: Arc<PartialObjectMeta<EgressGateway>>,
    context: Arc<Context>,
) -> Result<Action, StepError> {
    let name = gateway.metadata.name.clone().unwrap_or_default();
    let failure = context.failures().get(&name).and_then(|failures| failures.trouble.clone());
    let observed = Box::pin(context.observer.observe(&name, failure)).await.map_err(StepError::Observe)?;
    let now = context.cloud.now();
    let seen = match observed {
        Found::Nothing => {
            context.forget(&name);
            return Ok(Action::await_change());
        }
        Found::Unreadable(unreadable) => return context.say_unreadable(&unreadable, now).await,
        Found::Seen(seen) => seen,
    };
    let decision = decide(&seen, &context.limits, now);
    if is_let_go(&seen.gateway) {
        // What others still hold it for is not ours to count, and when it goes nobody calls us.
        context.forget(&name);
        return Ok(Action::await_change());
    }
    context.metrics.show(&name, seen.gateway.spec.replicas, &decision.status);
    context.metrics.without_agent(&name, seen.nodes_without_agent());
    let Some(effect) = &decision.effect else {
        context.metrics.reconciled("quiet");
        // Nothing is wanted any more of what failed: somebody else may have done it.
        let moot = context.rest(&name, &decision.status);
        return Ok(Action::requeue(if moot { AGAIN } else { decision.requeue_after }));
    };
    let label = effect.label();
    log_effect(effect);
    let ports = Live::new(
        &context.client,
        &context.cloud,
        context.observer.health(),
        &context.claim,
        &context.limits,
        &seen,
    );
    let outcome = perform(&decision, &ports, now).await;
    let category = match &outcome {
        Ok(Outcome::Done) => "ok",
        Ok(Outcome::Refused) => "refused",
        Err(error) => error.category(),
    };
    context.metrics.effect(label, category);
    match outcome {
        Ok(ended) => {
            context.succeeded(&name, effect);
            if ended == Outcome::Done {
                context.tell(&seen, &decision).await;
            }
            context.metrics.reconciled("effect");
            if *effect == Effect::RemoveFinalizer {
                context.forget(&name);
            }
            Ok(Action::requeue(decision.requeue_after))
        }
        // Somebody else wrote first, or our view was old: begin again.
        Err(ActError::Kubernetes(error)) if error.is_conflict() => {
            context.metrics.reconciled("conflict");
            Ok(Action::requeue(AGAIN))
        }
        Err(source) => Err(StepError::Act { effect: label, source }),
    }
}

fn is_let_go(gateway: &EgressGateway) -> bool {
    let finalizers = gateway.metadata.finalizers.as_deref().unwrap_or_default();
    gateway.metadata.deletion_timestamp.is_some()
        && !finalizers.iter().any(|name| name == EGRESS_GATEWAY_FINALIZER)
}

fn log_effect(effect: &Effect) {
    match effect {
        Effect::CreateDroplet(order) => {
            tracing::info!(droplet = order.name, size = order.size, "create Droplet");
        }
        Effect::DeleteDroplet(droplet) => {
            tracing::info!(droplet = droplet.name(), id = %droplet.id(), "delete Droplet");
        }
        Effect::Untag(own) => {
            tracing::info!(droplet = own.name(), id = %own.droplet(), tag = own.tag(), "take tag off Droplet");
        }
        Effect::PowerOn(droplet) => {
            tracing::info!(droplet = droplet.name(), id = %droplet.id(), "power on Droplet");
        }
        Effect::PowerCycle(droplet) => {
            tracing::info!(droplet = droplet.name(), id = %droplet.id(), "power-cycle Droplet");
        }
        Effect::ApplyStaticRoute(spec) => {
            let gateways: Vec<_> =
                spec.ordered_gateways().into_iter().map(|gateway| gateway.address.0).collect();
            tracing::info!(?gateways, "apply StaticRoute");
        }
        Effect::CreateFirewall(spec) => {
            tracing::info!(firewall = %spec.name, droplets = ?spec.droplets, "create firewall");
        }
        Effect::UpdateFirewall(firewall, spec) => {
            tracing::info!(firewall = firewall.name(), id = %firewall.id(), droplets = ?spec.droplets, "update firewall");
        }
        Effect::DeleteFirewall(firewall) => {
            tracing::info!(firewall = firewall.name(), id = %firewall.id(), "delete firewall");
        }
        Effect::ReserveIp(droplet) => {
            tracing::info!(droplet = droplet.name(), id = %droplet.id(), "reserve an address");
        }
        Effect::MarkIp(droplet, ip) => {
            tracing::info!(droplet = droplet.name(), id = %droplet.id(), %ip, "mark reserved address");
        }
        Effect::AssignIp(ip, droplet) => {
            tracing::info!(ip = %ip.ip(), droplet = droplet.name(), id = %droplet.id(), "assign reserved address");
        }
        Effect::ReleaseIp(ip) => tracing::info!(ip = %ip.ip(), "release reserved address"),
        Effect::AdmitPeers(admission) => {
            tracing::info!(gateway = admission.name, peers = ?admission.peers, "name the gateway's peers");
        }
        Effect::AssignToProject(droplet, project) => {
            tracing::info!(droplet = droplet.name(), id = %droplet.id(), project, "put Droplet into project");
        }
        Effect::DeleteStaticRoute { uid } => tracing::info!(uid, "delete StaticRoute"),
        Effect::AddFinalizer | Effect::WriteStatus | Effect::RemoveFinalizer => {
            tracing::debug!(effect = effect.label());
        }
    }
}

#[allow(clippy::needless_pass_by_value, reason = "the signature is kube's")]
fn pause_after(
    gateway: Arc<PartialObjectMeta<EgressGateway>>,
    error: &StepError,
    context: Arc<Context>,
) -> Action {
    let name = gateway.metadata.name.clone().unwrap_or_default();
    let mut asked_for = Duration::ZERO;
    let mut trouble = None;
    match error {
        StepError::Observe(_) => context.metrics.reconciled("observe_failed"),
        StepError::Act { source, effect } => {
            context.metrics.reconciled("act_failed");
            trouble = Some(describe(effect, source));
            if let ActError::Cloud(error) = source
                && let Retry::After(pause) = error.retry()
            {
                asked_for = pause.min(LONGEST_PAUSE);
            }
        }
    }
    let mut failures = context.failures();
    let entry = failures.entry(name.clone()).or_default();
    entry.count = entry.count.saturating_add(1);
    if trouble.is_some() {
        entry.trouble = trouble;
    }
    let chance = backoff::chance(context.cloud.now());
    let pause = backoff::pause(entry.count, FIRST_PAUSE, LONGEST_PAUSE, chance).max(asked_for);
    let source = std::error::Error::source(error).map(tracing::field::display);
    tracing::warn!(egress_gateway = name, %error, source, pause_seconds = pause.as_secs_f64(), "step failed");
    Action::requeue(pause)
}

fn describe(effect: &str, error: &ActError) -> Trouble {
    let words = effect.replace('_', " ");
    match error {
        ActError::Cloud(error) => {
            let trouble = of_cloud(error);
            Trouble { reason: trouble.reason, message: format!("{words}: {}", trouble.message) }
        }
        other => Trouble { reason: "EffectFailed", message: format!("{words}: {other}") },
    }
}

impl Context {
    fn failures(&self) -> std::sync::MutexGuard<'_, HashMap<String, Failures>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self, name: &str) {
        self.failures().remove(name);
        self.metrics.forget(name);
    }

    // Nothing was to be done. Says whether a failure was forgotten, which the status still tells of.
    fn rest(&self, name: &str, status: &EgressGatewayStatus) -> bool {
        let whole = status.creating.is_empty()
            && status.gateways.iter().all(|gateway| gateway.ready && gateway.role != GatewayRole::Leaving);
        let mut failures = self.failures();
        let Some(entry) = failures.get_mut(name) else { return false };
        entry.count = 0;
        whole && entry.trouble.take().is_some()
    }

    // A status that could be written says nothing about the effect that failed before.
    fn succeeded(&self, name: &str, effect: &Effect) {
        let mut failures = self.failures();
        let entry = failures.entry(name.to_owned()).or_default();
        entry.count = 0;
        if !matches!(effect, Effect::WriteStatus) {
            entry.trouble = None;
        }
    }

    async fn say_unreadable(&self, unreadable: &Unreadable, now: Timestamp) -> Result<Action, StepError> {
        let said = unreadable.say(&self.client, &self.claim, now).await;
        let happening = said.map_err(|source| StepError::Act { effect: "say_unreadable", source })?;
        if let Some(happening) = happening {
            let reference = ObjectReference {
                api_version: Some(EgressGateway::api_version(&()).into_owned()),
                kind: Some(EgressGateway::kind(&()).into_owned()),
                name: unreadable.metadata().name.clone(),
                uid: unreadable.metadata().uid.clone(),
                ..ObjectReference::default()
            };
            self.publish(&happening, "Observe", None, &reference).await;
        }
        self.metrics.reconciled("unreadable");
        Ok(Action::requeue(LONGEST_PAUSE))
    }

    async fn tell(&self, seen: &Observation, decision: &Decision) {
        let reference = seen.gateway.object_ref(&());
        let action = decision.effect.as_ref().map_or("Observe", Effect::label);
        for happening in &decision.events {
            let droplet = droplet_of(&happening.note, &decision.status);
            self.publish(happening, action, droplet, &reference).await;
        }
    }

    // Events are a courtesy: one that cannot be published changes nothing.
    async fn publish(
        &self,
        Happening { warning, reason, note }: &Happening,
        action: &str,
        secondary: Option<ObjectReference>,
        about: &ObjectReference,
    ) {
        tracing::info!(reason, note, warning, "event");
        // A leader that has slept tells nothing of another's time.
        if self.claim.check().is_err() {
            return;
        }
        let event = Event {
            type_: if *warning { EventType::Warning } else { EventType::Normal },
            reason: (*reason).to_owned(),
            note: Some(note.chars().take(LONGEST_NOTE).collect()),
            action: action.to_owned(),
            secondary,
        };
        let published =
            tokio::time::timeout(Duration::from_secs(3), self.recorder.publish(&event, about)).await;
        if !matches!(published, Ok(Ok(()))) {
            tracing::debug!(reason, "event was not published");
        }
    }
}

/// The Droplet that an event speaks of. The recorder takes events that differ only in their words for one that came again: with
/// two gateways, only the first would ever be told of.
fn droplet_of(note: &str, status: &EgressGatewayStatus) -> Option<ObjectReference> {
    let gateways = status.gateways.iter().map(|gateway| &gateway.name);
    let name = gateways
        .chain(status.creating.iter().map(|intent| &intent.name))
        .find(|name| note.contains(*name))?;
    Some(ObjectReference {
        kind: Some("Droplet".into()),
        name: Some(name.clone()),
        ..ObjectReference::default()
    })
}
