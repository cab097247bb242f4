//! The next step for one EgressGateway: a pure function of what was seen and the time.
//!
//! Invariants (`docs/guarantees.md`: I1-I3, I8, I12):
//! - The status comes first: whatever an effect relies on (an intent, a role, an id) has been written before the effect comes
//!   out. A crash between any two effects leaves a state that leads to the same end.
//! - At most `replicas + 1` Droplets, intents included. A slot is taken as long as anything is known to hold it.
//! - Only what is proven is listed; the list is never made empty. Who is listed leaves it before its Droplet is deleted.
//! - One gateway leaves at a time, and never the last one that works; one is replaced in ten minutes. A roll of gateways that work comes
//!   after every repair.
//! - Who is deleted with its definition (CRD) is kept like any other: only a deletion that somebody wants takes anything away (I6).
//! - What changes or deletes a Droplet, a firewall or an address carries the proof that it is ours.

mod addresses;
mod admits;
mod conditions;
mod creation;
mod degraded;
mod events;
mod existing;
mod failover;
mod firewall;
mod judge;
mod order;
mod outdated;
mod pause;
mod population;
mod project;
mod quorum;
mod repair;
mod roll;
mod route;
mod teardown;

use std::collections::BTreeSet;
use std::time::Duration;

use egress_api::{CreationIntent, EGRESS_GATEWAY_FINALIZER, EgressGatewayStatus, GatewayRole, GatewayStatus};
use egress_digitalocean::{Droplet, DropletId};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::decision::{Decision, Effect, Happening, Limits};
use crate::identity::{Identity, droplet_id};
use crate::observation::{CloudSeen, Observation};

use order::Wishes;
use quorum::Electorate;

pub(crate) use conditions::no_nodes;
pub use route::nodes_applied;

// While something is under way; the cloud's states change within seconds.
const SOON: Duration = Duration::from_secs(1);
// While waiting for something that takes tens of seconds.
const LATER: Duration = Duration::from_secs(5);
// A Droplet that takes longer than this is not waited for by the second.
const USUAL_BRING_UP: Duration = Duration::from_secs(180);
// When nothing is to be done; NodeEgress and StaticRoute changes wake us anyway.
const QUIET: Duration = Duration::from_secs(12);

/// Decides the next step.
pub fn decide(seen: &Observation, limits: &Limits, now: Timestamp) -> Decision {
    let look = Look::new(seen, limits, now);
    let finalizer = has_finalizer(seen);
    if pause::is_asked_for(&look) {
        let is_over = seen.gateway.metadata.deletion_timestamp.is_some() && !finalizer;
        return if is_over { look.nothing() } else { pause::decide(&look) };
    }
    match (seen.gateway.metadata.deletion_timestamp.is_some(), finalizer) {
        (true, true) if !seen.goes_with_its_definition() => teardown::decide(&look),
        (_, true) => keep(&look),
        (true, false) => look.nothing(),
        (false, false) => {
            Decision { effect: Some(Effect::AddFinalizer), requeue_after: SOON, ..look.nothing() }
        }
    }
}

fn has_finalizer(seen: &Observation) -> bool {
    let finalizers = seen.gateway.metadata.finalizers.as_deref().unwrap_or_default();
    finalizers.iter().any(|finalizer| finalizer == EGRESS_GATEWAY_FINALIZER)
}

// Makes the gateways that were asked for, and keeps them.
fn keep(look: &Look<'_>) -> Decision {
    let mut status = look.before.clone();
    if status.observed_generation != look.seen.gateway.metadata.generation {
        // Whoever changed the spec may have mended what kept gateways from coming up.
        status.failed_bring_ups = None;
        status.last_bring_up_failure = None;
    }
    forget_refused_deletes(look, &mut status);
    existing::record(look, &mut status);
    creation::adopt(look, &mut status);
    addresses::record(look, &mut status);
    judge::judge(look, &mut status);
    firewall::record(look, &mut status);
    admits::record(look, &mut status);
    repair::plan(look, &mut status);
    roll::plan(look, &mut status);
    population::choose(look, &mut status);
    let route = route::plan(look, &mut status);
    stamp(look, &mut status);
    conditions::summarize(look, &mut status, &route);

    let next = || {
        // Nothing gets through while an address that moves is where nobody can use it.
        let urgent = || addresses::change(look, &status).filter(|_| addresses::floating::is_wanted(look));
        urgent()
            .or_else(|| route.change.clone().map(Effect::ApplyStaticRoute))
            .or_else(|| repair::power(look, &status))
            .or_else(|| creation::order(look, &status))
            .or_else(|| addresses::change(look, &status))
            .or_else(|| population::deletion(look, &status))
            .or_else(|| firewall::change(look, &status))
            .or_else(|| admits::admission(look, &status))
            .or_else(|| project::assignment(look, &status))
    };
    let effect = first_the_status(look, &status, next);
    let requeue_after = pace(look, &status, effect.as_ref());
    let events = events::between(look, &status, effect.as_ref());
    Decision { effect, status, requeue_after, events }
}

// Whoever changed the spec, or asked for the deletion, may have given the token what it lacked. What the cloud has taken since goes like
// any other.
fn forget_refused_deletes(look: &Look<'_>, status: &mut EgressGatewayStatus) {
    let is_new = status.observed_generation != look.seen.gateway.metadata.generation;
    for gateway in status.gateways.iter_mut().filter(|one| is_new || population::is_being_deleted(look, one))
    {
        gateway.delete_refused = None;
    }
}

// Sentences may change with every look; they must not keep effects waiting.
fn first_the_status(
    look: &Look<'_>,
    status: &EgressGatewayStatus,
    next: impl FnOnce() -> Option<Effect>,
) -> Option<Effect> {
    if without_words(status) != without_words(&look.before) {
        return Some(Effect::WriteStatus);
    }
    next().or_else(|| (*status != look.before).then_some(Effect::WriteStatus))
}

fn without_words(status: &EgressGatewayStatus) -> EgressGatewayStatus {
    let mut bare = status.clone();
    bare.conditions.iter_mut().for_each(|condition| condition.message.clear());
    for gateway in &mut bare.gateways {
        gateway.message = None;
        gateway.nodes = 0;
    }
    if let Some(roll) = &mut bare.roll {
        roll.drain_seconds_left = None;
    }
    bare
}

fn pace(look: &Look<'_>, status: &EgressGatewayStatus, effect: Option<&Effect>) -> Duration {
    let settling = status.creating.iter().any(|intent| intent.sent.is_some());
    let lately = |then: &Option<Time>| then.as_ref().is_some_and(|then| look.since(then) < USUAL_BRING_UP);
    // What waits for a person is looked at when nodes say something new.
    let waits = |gateway: &GatewayStatus| gateway.existing || gateway.delete_refused.is_some();
    let is_unsteady =
        |gateway: &&GatewayStatus| !waits(gateway) && (!gateway.ready || gateway.suspect_since.is_some());
    let unsteady = || status.gateways.iter().filter(is_unsteady);
    // The cloud takes its time.
    let is_going = || status.gateways.iter().any(|gateway| is_leaving(gateway) && !waits(gateway));
    let strangers = creation::strangers(look, status);
    let wanted = || status.creating.iter().filter(|intent| intent.message.is_none());
    let in_the_way = |intent: &CreationIntent| {
        strangers.iter().any(|droplet| droplet.name.eq_ignore_ascii_case(&intent.name))
    };
    match effect {
        // A peer that does not answer the gateway is not asked for every second.
        Some(Effect::AdmitPeers(_)) => LATER,
        Some(_) => SOON,
        None if unsteady().any(|gateway| lately(&gateway.since) || lately(&gateway.suspect_since)) => SOON,
        None if addresses::floating::is_coming(look, status) => SOON,
        None if settling || unsteady().next().is_some() || is_going() => LATER,
        None if addresses::floating::is_missed(look, status) => LATER,
        None if firewall::is_coming(look, status) || roll::is_awaited(look, status) => LATER,
        None if wanted().any(|intent| !in_the_way(intent)) => SOON,
        None if wanted().next().is_some() => LATER,
        None => QUIET,
    }
}

// `since` tells when role or readiness changed last.
fn stamp(look: &Look<'_>, status: &mut EgressGatewayStatus) {
    for gateway in &mut status.gateways {
        let before = look.before.gateways.iter().find(|old| old.droplet_id == gateway.droplet_id);
        let unchanged = before.is_some_and(|old| (old.role, old.ready) == (gateway.role, gateway.ready));
        if !unchanged {
            gateway.since = Some(look.time());
        }
    }
    status.gateways.sort_by_key(|gateway| (gateway.slot, gateway.droplet_id));
    status.creating.sort_by_key(|intent| intent.slot);
}

/// What was seen, with what follows from it at once.
struct Look<'a> {
    seen: &'a Observation,
    limits: &'a Limits,
    now: Timestamp,
    identity: Identity,
    before: EgressGatewayStatus,
    nodes: BTreeSet<DropletId>,
    electorate: Electorate<'a>,
    wishes: Wishes,
    replicas: usize,
}

/// Where a recorded Droplet is.
enum Presence<'a> {
    /// The cloud shows it.
    Found(&'a Droplet),
    /// The cloud, asked by id, says that there is none.
    Gone,
    /// Neither was seen.
    Unknown,
}

impl<'a> Look<'a> {
    fn new(seen: &'a Observation, limits: &'a Limits, now: Timestamp) -> Self {
        let meta = &seen.gateway.metadata;
        let identity = Identity {
            name: meta.name.clone().unwrap_or_default(),
            owner: meta.uid.clone().unwrap_or_default(),
            cluster: seen.cluster.clone(),
        };
        Self {
            seen,
            limits,
            now,
            identity,
            before: seen.gateway.status.clone().unwrap_or_default(),
            nodes: seen.node_droplets(),
            electorate: Electorate::of(&seen.nodes, seen.gateway.spec.node_selector.as_ref()),
            wishes: Wishes::of(&seen.gateway),
            replicas: usize::try_from(seen.gateway.spec.replicas).unwrap_or(1).max(1),
        }
    }

    fn nothing(&self) -> Decision {
        Decision { effect: None, status: self.before.clone(), requeue_after: QUIET, events: Vec::new() }
    }

    fn time(&self) -> Time {
        // Kubernetes keeps whole seconds; what is compared with what was read back must not have more.
        let second = Timestamp::from_second(self.now.as_second()).unwrap_or(self.now);
        Time(second)
    }

    fn since(&self, then: &Time) -> Duration {
        Duration::try_from(self.now.duration_since(then.0)).unwrap_or_default()
    }

    fn cloud(&self) -> Option<&'a CloudSeen> {
        self.seen.cloud.as_ref().ok()
    }

    // The VPC in which alone something can be ours.
    fn vpc(&self) -> Option<&'a str> {
        let asked_for = self.seen.gateway.spec.droplet.vpc_uuid.as_deref();
        self.seen.site.as_ref().ok().map(|site| site.vpc.as_str()).or(asked_for)
    }

    fn presence(&self, gateway: &GatewayStatus) -> Presence<'a> {
        let (Some(cloud), Some(id)) = (self.cloud(), droplet_id(gateway)) else { return Presence::Unknown };
        match cloud.droplets.get(&id) {
            Some(droplet) => Presence::Found(droplet),
            None if cloud.gone.contains(&id) => Presence::Gone,
            None => Presence::Unknown,
        }
    }

    // Most Droplets there may be, intents included.
    fn most(&self) -> usize {
        self.replicas + 1
    }
}

fn is_leaving(gateway: &GatewayStatus) -> bool {
    gateway.role == GatewayRole::Leaving
}

fn is_proven(gateway: &GatewayStatus) -> bool {
    gateway.ready && !is_leaving(gateway)
}

fn happening(warning: bool, reason: &'static str, note: String) -> Happening {
    Happening { warning, reason, note }
}
