//! Writes this node's NodeEgress, and only that: on change, at the pace of [`crate::pacing`], and again when somebody else
//! changed or deleted it.

use std::time::Duration;

use egress_api::{AGENT_FIELD_MANAGER, NodeEgress, NodeEgressFields, NodeEgressStatus, Repairs};
use egress_runtime::kubernetes::watch_settings;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, OwnerReference};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::concerns;
use crate::drift;
use crate::pacing::Pace;
use crate::report::Report;

/// The client repeats refused calls by itself; this bounds all of it.
const DEADLINE: Duration = Duration::from_secs(10);

/// First and longest pause after a failed write.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));

/// Why a report did not get through.
#[derive(Debug, thiserror::Error)]
enum PublishError {
    #[error("the node {0} is not in the API server")]
    NoNode(String),
    #[error("no answer within {} s", DEADLINE.as_secs())]
    Deadline,
    #[error(transparent)]
    Api(#[from] kube::Error),
}

/// The report as the API server has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Stored {
    /// Nobody has looked yet.
    #[default]
    Unknown,
    /// There is none.
    Absent,
    /// There is one, in this version.
    Version(String),
}

impl Stored {
    /// Whether somebody did something to the report after our write, which made version `ours`.
    fn is_changed_since(&self, ours: Option<&str>) -> bool {
        match (self, ours) {
            (Self::Unknown, _) | (_, None) => false,
            (Self::Absent, Some(_)) => true,
            // An older one is the echo of an earlier write. Versions are numbers by contract since Kubernetes 1.35.
            (Self::Version(theirs), Some(ours)) => match (theirs.parse::<u64>(), ours.parse::<u64>()) {
                (Ok(theirs), Ok(ours)) => theirs > ours,
                _ => theirs != ours,
            },
        }
    }
}

/// Follows this node's report in the API server, for ever.
pub async fn follow(client: Client, node_name: String, stored: watch::Sender<Stored>) {
    let reports: Api<PartialObjectMeta<NodeEgress>> = Api::all(client);
    let only_ours = watch_settings().fields(&format!("metadata.name={node_name}"));
    let mut events = watcher(reports, only_ours).default_backoff().boxed();
    let mut listed = Stored::Absent;
    let version = |object: PartialObjectMeta<NodeEgress>| {
        Stored::Version(object.metadata.resource_version.unwrap_or_default())
    };
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed = Stored::Absent,
            Ok(Event::InitApply(object)) => listed = version(object),
            Ok(Event::InitDone) => stored.send_modify(|known| known.clone_from(&listed)),
            Ok(Event::Apply(object)) => stored.send_modify(|known| *known = version(object)),
            Ok(Event::Delete(_)) => stored.send_modify(|known| *known = Stored::Absent),
            Err(error) => tracing::debug!(%error, "the watch of this node's report broke"),
        }
    }
}

/// What publishing needs.
pub struct Publisher<F> {
    /// The API server.
    pub client: Client,
    /// Name of this node, and of its report.
    pub node_name: String,
    /// What is to be said; the latest value counts.
    pub reports: watch::Receiver<Report>,
    /// What the API server has.
    pub stored: watch::Receiver<Stored>,
    /// How many nodes the cluster has.
    pub nodes: F,
}

impl<F: Fn() -> usize> Publisher<F> {
    /// Publishes every value sent to `reports` that differs from the one before. Ends when the sender is gone and the last value was
    /// written.
    pub async fn run(mut self) {
        // Until the loop has looked once there is nothing to say: what a restarted agent finds stored stays.
        if self.reports.changed().await.is_err() {
            return;
        }
        let epoch = Instant::now();
        let mut pace = Pace::new(&self.node_name);
        let mut written: Option<(Report, Option<String>)> = None;
        let mut told = Told::default();
        let mut pause = RETRY.0;
        let mut ensured = false;
        loop {
            if written.as_ref().is_some_and(|(said, _)| *said == *self.reports.borrow_and_update()) {
                let ours = written.as_ref().and_then(|(_, version)| version.as_deref());
                if self.stored.borrow_and_update().is_changed_since(ours) {
                    tracing::info!("somebody changed this node's report; writing it again");
                    written = None;
                    ensured = false;
                } else if !self.something_happens().await {
                    return;
                }
                continue;
            }
            let nodes = (self.nodes)();
            let at = pace.earliest(nodes).max(epoch.elapsed() + pace.spread(nodes));
            tokio::time::sleep_until(epoch + at).await;
            pace.wrote(epoch.elapsed(), nodes);
            // What changed meanwhile goes with it.
            let wanted = self.reports.borrow_and_update().clone();
            let attempt = write(&self.client, &self.node_name, &wanted, &mut told, ensured);
            match tokio::time::timeout(DEADLINE, attempt).await.unwrap_or(Err(PublishError::Deadline)) {
                Ok(version) => {
                    ensured = true;
                    written = Some((wanted, version));
                    pause = RETRY.0;
                }
                Err(error) => {
                    tracing::warn!(%error, "NodeEgress was not written");
                    // Gone or never made: make it again next time.
                    ensured = false;
                    tokio::time::sleep(pace.apart(pause)).await;
                    pause = (pause * 2).min(RETRY.1);
                }
            }
        }
    }

    /// Waits for something to say. False: nobody will say anything any more.
    async fn something_happens(&mut self) -> bool {
        tokio::select! {
            said = self.reports.changed() => said.is_ok(),
            followed = self.stored.changed() => {
                if followed.is_err() {
                    // Nobody follows it: only what is to be said counts.
                    return self.reports.changed().await.is_ok();
                }
                true
            }
        }
    }
}

/// What the API server was told before, read where that is not known: it goes on over a restart.
#[derive(Debug, Default)]
struct Told {
    /// Conditions, for their times.
    conditions: Vec<Condition>,
    /// The repairs of the agents before this one, as read once.
    repairs: Option<Repairs>,
}

/// Returns the version that the write made.
async fn write(
    client: &Client,
    node_name: &str,
    wanted: &Report,
    told: &mut Told,
    ensured: bool,
) -> Result<Option<String>, PublishError> {
    let reports: Api<NodeEgress> = Api::all(client.clone());
    let ours = PatchParams::apply(AGENT_FIELD_MANAGER).force();
    if !ensured {
        let nodes: Api<Node> = Api::all(client.clone());
        let node = nodes
            .get_metadata_opt(node_name)
            .await?
            .ok_or_else(|| PublishError::NoNode(node_name.to_owned()))?;
        let there = reports.patch(node_name, &ours, &Patch::Apply(&owned_by(&node, node_name))).await?;
        let status = there.status.unwrap_or_default();
        told.conditions = status.conditions;
        told.repairs.get_or_insert(status.repairs.unwrap_or_default());
    }
    let mut report = NodeEgress::new(node_name, NodeEgressFields {});
    let conditions = concerns::conditions(&told.conditions, &wanted.concerns, Timestamp::now());
    let repairs = drift::continued(told.repairs.get_or_insert_default(), wanted.status.repairs.as_ref());
    report.status =
        Some(NodeEgressStatus { conditions: conditions.clone(), repairs, ..wanted.status.clone() });
    let written = reports.patch_status(node_name, &ours, &Patch::Apply(&report)).await?;
    told.conditions = conditions;
    Ok(written.metadata.resource_version)
}

// Owned by the Node, so that the report goes with it.
fn owned_by(node: &PartialObjectMeta<Node>, node_name: &str) -> NodeEgress {
    let mut report = NodeEgress::new(node_name, NodeEgressFields {});
    report.metadata.owner_references = Some(vec![OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node_name.to_owned(),
        uid: node.metadata.uid.clone().unwrap_or_default(),
        ..OwnerReference::default()
    }]);
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_did_to_the_report_is_told_from_the_echo_of_our_own_writes() {
        let version = |text: &str| Stored::Version(text.to_owned());
        for (stored, ours, changed) in [
            (Stored::Unknown, Some("7"), false),
            (Stored::Absent, None, false),
            (Stored::Absent, Some("7"), true),
            (version("6"), Some("7"), false),
            (version("7"), Some("7"), false),
            (version("10"), Some("7"), true),
            (version("a"), Some("a"), false),
            (version("b"), Some("a"), true),
        ] {
            assert_eq!(stored.is_changed_since(ours), changed, "{stored:?} after {ours:?}");
        }
    }
}
