//! The startup taint: pods wait for a new node's guards.
//!
//! Whoever fails closed gives the nodes of a pool [`STARTUP_TAINT`] from their first moment on (`docs/startup.md` says how). It is taken
//! off here once the node's own report says that the guards are in its kernel, and never put on. Nothing else of a node is changed:
//! `deploy/base/controller-nodes.yaml` has the API server refuse it.
//!
//! ```text
//!  tainted ── the mirrors show the node guarded ──► read anew ── still so ──► taint off, on the version that was read
//!     ▲                                                 │                        │
//!     └───────────── not (any more), refused, conflict ─┴────────────────────────┘ looked at again with the next change
//! ```

mod verdict;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use egress_api::{CONTROLLER_FIELD_MANAGER, EgressGateway, NodeEgress, STARTUP_TAINT, StaticRoute};
use egress_runtime::guarded::Guarded;
use egress_runtime::kubernetes::{CallError, within_deadline};
use egress_runtime::lease::{Claim, LeadershipLost};
use k8s_openapi::api::core::v1::{Node, ObjectReference, Taint};
use kube::api::{ListParams, Patch, PatchParams};
use kube::runtime::events::{Event, EventType, Recorder};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::watches::Mirrors;
use verdict::{Asked, Waiting, guarded};

/// Changes come in bursts; one look for all of them.
const GATHER: Duration = Duration::from_millis(200);

/// Time between two looks while a node is tainted: an EgressGateway wakes nobody here.
const LOOK: Duration = Duration::from_secs(5);

/// A node that is tainted for longer is told of: by then any agent that comes up at all has.
const PATIENCE: Duration = Duration::from_secs(60);

/// First and longest pause before the taint is taken off a node again: who keeps putting it on shall not be fought with.
const AGAIN: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));

/// How long an event may take.
const TELLING: Duration = Duration::from_secs(3);

#[derive(Debug, thiserror::Error)]
enum TaintError {
    #[error(transparent)]
    Waiting(#[from] Waiting),
    #[error(transparent)]
    Lease(#[from] LeadershipLost),
    #[error(transparent)]
    Call(#[from] CallError),
}

/// What is remembered of a node.
#[derive(Debug)]
struct Remembered {
    /// Since when it has been tainted.
    since: Instant,
    /// What an event said last that it waits for.
    told: Option<Waiting>,
    /// When the taint may be taken off next.
    not_before: Instant,
    /// The pause after that.
    pause: Duration,
}

impl Remembered {
    fn new(now: Instant) -> Self {
        Self { since: now, told: None, not_before: now, pause: AGAIN.0 }
    }

    /// The taint was taken off: whoever puts it back is followed ever more slowly, and after a long peace at once.
    fn taken_off(&mut self, now: Instant) {
        if now.saturating_duration_since(self.not_before) > AGAIN.1 {
            self.pause = AGAIN.0;
        }
        self.not_before = now + self.pause;
        self.pause = (self.pause * 2).min(AGAIN.1);
    }
}

/// Takes the taint off nodes.
pub struct StartupTaint {
    /// The API server.
    pub client: Client,
    /// Nodes, reports, StaticRoutes.
    pub mirrors: Mirrors,
    /// Leadership.
    pub claim: Claim,
    /// Counts up with each change in the mirrors.
    pub changes: watch::Receiver<u64>,
    /// Events.
    pub recorder: Recorder,
}

impl StartupTaint {
    /// Goes on for ever; ends when the mirrors do.
    pub async fn keep_off(mut self) {
        let mut known: BTreeMap<String, Remembered> = BTreeMap::new();
        loop {
            self.changes.mark_unchanged();
            let nodes = self.mirrors.nodes_as_read();
            let (tainted, others): (Vec<&Arc<Node>>, _) = nodes.iter().partition(|node| is_tainted(node));
            let there: BTreeSet<&str> = nodes.iter().map(|node| uid_of(node)).collect();
            known.retain(|uid, _| there.contains(uid.as_str()));
            for node in others {
                if let Some(remembered) = known.get_mut(uid_of(node)) {
                    (remembered.since, remembered.told) = (Instant::now(), None);
                }
            }
            for node in &tainted {
                let remembered =
                    known.entry(uid_of(node).to_owned()).or_insert_with(|| Remembered::new(Instant::now()));
                if Instant::now() >= remembered.not_before {
                    self.consider(node, remembered).await;
                }
            }
            let woken = if tainted.is_empty() {
                self.changes.changed().await
            } else {
                tokio::time::timeout(LOOK, self.changes.changed()).await.unwrap_or(Ok(()))
            };
            if woken.is_err() {
                return;
            }
            tokio::time::sleep(GATHER).await;
        }
    }

    async fn consider(&self, node: &Node, remembered: &mut Remembered) {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let attempt = match self.by_the_mirrors(node) {
            Ok(()) => self.take_off(name).await,
            Err(waiting) => Err(waiting.into()),
        };
        match attempt {
            Ok(()) => {
                remembered.taken_off(Instant::now());
                let note =
                    format!("took the taint {STARTUP_TAINT} off: what fails closed is guarded on this node");
                self.tell(node, EventType::Normal, "EgressReady", note).await;
            }
            Err(TaintError::Waiting(waiting)) => {
                tracing::debug!(node = name, %waiting, "the startup taint stays for now");
                if remembered.since.elapsed() >= PATIENCE && remembered.told.as_ref() != Some(&waiting) {
                    let note = format!("the taint {STARTUP_TAINT} stays: {waiting}");
                    self.tell(node, EventType::Warning, "EgressNotReady", note).await;
                    remembered.told = Some(waiting);
                }
            }
            // Somebody else changed it first, or it is gone: the next look sees.
            Err(error) => tracing::debug!(node = name, %error, "the startup taint stays for now"),
        }
    }

    /// What the mirrors say: a look that costs no call, and may be old.
    fn by_the_mirrors(&self, node: &Node) -> Result<(), Waiting> {
        let report = self.mirrors.report(node.metadata.name.as_deref().unwrap_or_default());
        let routes = self.mirrors.routes_as_read();
        guarded(
            node,
            report.as_ref(),
            &Asked { routes: routes.iter().map(AsRef::as_ref).collect(), gateways: Vec::new() },
        )
    }

    /// Reads everything anew, and takes the taint off exactly what was read.
    async fn take_off(&self, name: &str) -> Result<(), TaintError> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let reports: Api<Guarded<NodeEgress>> = Api::all(self.client.clone());
        let routes: Api<Guarded<StaticRoute>> = Api::all(self.client.clone());
        let gateways: Api<Guarded<EgressGateway>> = Api::all(self.client.clone());
        let everything = ListParams::default();
        let routes = within_deadline(routes.list(&everything)).await?;
        let gateways = within_deadline(gateways.list(&everything)).await?;
        let report = within_deadline(reports.get_opt(name)).await?;
        let report = report.and_then(|report| report.0.ok()?.status);
        let node = within_deadline(nodes.get(name)).await?;
        let asked =
            Asked { routes: routes.items.iter().collect(), gateways: gateways.items.iter().collect() };
        guarded(&node, report.as_ref(), &asked)?;
        self.claim.check()?;
        let manager = PatchParams {
            field_manager: Some(CONTROLLER_FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        within_deadline(nodes.patch(name, &manager, &Patch::Merge(without_taint(&node)))).await?;
        Ok(())
    }

    async fn tell(&self, node: &Node, type_: EventType, reason: &str, note: String) {
        tracing::info!(node = node.metadata.name, reason, note, "event");
        if self.claim.check().is_err() {
            return;
        }
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(note),
            action: "Admit".to_owned(),
            secondary: None,
        };
        let reference = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Node".to_owned()),
            name: node.metadata.name.clone(),
            uid: node.metadata.uid.clone(),
            ..ObjectReference::default()
        };
        let published = tokio::time::timeout(TELLING, self.recorder.publish(&event, &reference)).await;
        if !matches!(published, Ok(Ok(()))) {
            tracing::debug!(reason, "event was not published");
        }
    }
}

fn uid_of(node: &Node) -> &str {
    node.metadata.uid.as_deref().unwrap_or_default()
}

fn taints(node: &Node) -> &[Taint] {
    node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
}

/// Whatever its value and effect: people write taints by hand.
fn is_tainted(node: &Node) -> bool {
    taints(node).iter().any(|taint| taint.key == STARTUP_TAINT)
}

/// The patch that takes exactly this taint off, and only off this version: a list of taints can only be written whole.
fn without_taint(node: &Node) -> Value {
    let others: Vec<&Taint> = taints(node).iter().filter(|taint| taint.key != STARTUP_TAINT).collect();
    json!({
        "metadata": {"uid": node.metadata.uid, "resourceVersion": node.metadata.resource_version},
        "spec": {"taints": others},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_this_taint_is_taken_off_and_only_off_what_was_read() {
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": "pool-1", "uid": "u", "resourceVersion": "7", "labels": {"pool": "a"}},
            "spec": {"unschedulable": true, "taints": [
                {"key": "example.com/mine", "value": "x", "effect": "NoExecute"},
                {"key": STARTUP_TAINT, "effect": "NoSchedule"},
                {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"},
            ]},
        }))
        .unwrap();
        assert!(is_tainted(&node));
        let patch = without_taint(&node);
        assert_eq!(
            patch,
            json!({
                "metadata": {"uid": "u", "resourceVersion": "7"},
                "spec": {"taints": [
                    {"key": "example.com/mine", "value": "x", "effect": "NoExecute"},
                    {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"},
                ]},
            })
        );
        assert!(!is_tainted(&Node::default()));
    }

    #[test]
    fn who_keeps_putting_the_taint_on_is_followed_ever_more_slowly_and_after_a_long_peace_at_once() {
        let start = Instant::now();
        let mut remembered = Remembered::new(start);
        let mut now = start;
        let mut pauses = Vec::new();
        for _ in 0..8 {
            remembered.taken_off(now);
            pauses.push(remembered.not_before.duration_since(now).as_secs());
            now = remembered.not_before;
        }
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 300, 300]);
        now += AGAIN.1 + Duration::from_secs(1);
        remembered.taken_off(now);
        assert_eq!(remembered.not_before.duration_since(now), AGAIN.0);
    }
}
