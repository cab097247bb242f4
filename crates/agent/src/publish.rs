//! Writes this node's NodeEgress, and only that, on change only and at most a few times a second.

use std::time::Duration;

use egress_api::{AGENT_FIELD_MANAGER, NodeEgress, NodeEgressFields, NodeEgressStatus};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use tokio::sync::watch;

/// Least time between two writes. Five a second at most from one node, and a burst of changes becomes one write.
const SPACING: Duration = Duration::from_millis(200);

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

/// Publishes every value of `reports` that differs from the one before. Ends when the sender is gone and the last value was
/// written.
pub async fn publish(client: Client, node_name: String, mut reports: watch::Receiver<NodeEgressStatus>) {
    let mut written: Option<NodeEgressStatus> = None;
    let mut pause = RETRY.0;
    let mut ensured = false;
    loop {
        let wanted = reports.borrow_and_update().clone();
        if written.as_ref() != Some(&wanted) {
            let attempt = write(&client, &node_name, &wanted, ensured);
            let outcome =
                tokio::time::timeout(DEADLINE, attempt).await.unwrap_or(Err(PublishError::Deadline));
            match outcome {
                Ok(()) => {
                    ensured = true;
                    written = Some(wanted);
                    pause = RETRY.0;
                    tokio::time::sleep(SPACING).await;
                }
                Err(error) => {
                    tracing::warn!(%error, "NodeEgress was not written");
                    // Gone or never made: make it again next time.
                    ensured = false;
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RETRY.1);
                }
            }
            continue;
        }
        if reports.changed().await.is_err() {
            return;
        }
    }
}

async fn write(
    client: &Client,
    node_name: &str,
    status: &NodeEgressStatus,
    ensured: bool,
) -> Result<(), PublishError> {
    let reports: Api<NodeEgress> = Api::all(client.clone());
    let ours = PatchParams::apply(AGENT_FIELD_MANAGER).force();
    if !ensured {
        let nodes: Api<Node> = Api::all(client.clone());
        let node =
            nodes.get_opt(node_name).await?.ok_or_else(|| PublishError::NoNode(node_name.to_owned()))?;
        reports.patch(node_name, &ours, &Patch::Apply(&owned_by(&node, node_name))).await?;
    }
    let mut report = NodeEgress::new(node_name, NodeEgressFields {});
    report.status = Some(status.clone());
    reports.patch_status(node_name, &ours, &Patch::Apply(&report)).await?;
    Ok(())
}

// Owned by the Node, so that the report goes with it.
fn owned_by(node: &Node, node_name: &str) -> NodeEgress {
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
