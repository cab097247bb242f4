//! On which nodes the agent is Ready: who may be asked about gateways. A watch on the agents' pods, and nothing of their contents.
//!
//! Without the right to read pods, or while the watch is broken, nothing is known of any node: then there is no quorum, and no
//! gateway is condemned on anybody's word.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use egress_runtime::kubernetes::watch_settings;
use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use tokio::sync::watch;

use crate::relisting::relisted;
use crate::watches::listed;

/// What marks the agents' pods in the installation's namespace: the selector of their DaemonSet.
pub const AGENT_LABELS: &str = "app.kubernetes.io/name=egress-agent";

/// The agents' pods. Clones share the view.
#[derive(Clone)]
pub struct Agents {
    pods: Store<Pod>,
    known: Arc<AtomicBool>,
}

impl Agents {
    /// Follows the agents' pods of this namespace. The stream keeps the view up to date and counts every change in `changes`.
    pub fn follow(
        client: &Client,
        namespace: &str,
        changes: watch::Sender<u64>,
    ) -> (Self, impl Stream<Item = ()> + Send + use<>) {
        let (pods, writer) = reflector::store();
        let known = Arc::new(AtomicBool::new(false));
        let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
        let follows = known.clone();
        let bare = relisted(api, watch_settings().labels(AGENT_LABELS)).modify(strip);
        let stream = bare.default_backoff().reflect(writer).map(move |event| match event {
            Ok(event) => {
                // Half a list is none.
                if matches!(event, watcher::Event::InitDone | watcher::Event::Apply(_) | watcher::Event::Delete(_)) {
                    follows.store(true, Ordering::Relaxed);
                }
                changes.send_modify(|count| *count = count.wrapping_add(1));
            }
            Err(error) => {
                follows.store(false, Ordering::Relaxed);
                tracing::warn!(%error, "agents' pods cannot be watched; no gateway is condemned by nodes until they can");
            }
        });
        (Self { pods, known }, stream)
    }

    /// The agents' pods of now, which nobody keeps up to date.
    pub async fn read_once(client: &Client, namespace: &str) -> Self {
        let agents = ListParams::default().labels(AGENT_LABELS);
        match listed(Api::namespaced(client.clone(), namespace), &agents).await {
            Ok(pods) => Self { pods, known: Arc::new(AtomicBool::new(true)) },
            Err(error) => {
                tracing::warn!(%error, "agents' pods cannot be read: it is not known which nodes may condemn a gateway");
                Self { pods: reflector::store().0, known: Arc::default() }
            }
        }
    }

    /// Names of the nodes whose agent is Ready; `None` while that is not known.
    pub fn ready(&self) -> Option<BTreeSet<String>> {
        let known = self.known.load(Ordering::Relaxed);
        known.then(|| self.pods.state().iter().filter_map(|pod| node_of_ready_agent(pod)).collect())
    }
}

// What a pod runs is a thousand times what is asked here.
fn strip(pod: &mut Pod) {
    pod.metadata.managed_fields = None;
    pod.metadata.annotations = None;
    if let Some(spec) = &mut pod.spec {
        let node_name = spec.node_name.take();
        *spec = k8s_openapi::api::core::v1::PodSpec { node_name, ..Default::default() };
    }
    if let Some(status) = &mut pod.status {
        let conditions = status.conditions.take();
        *status = k8s_openapi::api::core::v1::PodStatus { conditions, ..Default::default() };
    }
}

fn node_of_ready_agent(pod: &Pod) -> Option<String> {
    let owners = pod.metadata.owner_references.as_deref().unwrap_or_default();
    let is_daemon = owners.iter().any(|owner| owner.kind == "DaemonSet" && owner.controller == Some(true));
    let conditions = pod.status.as_ref()?.conditions.as_deref().unwrap_or_default();
    let is_ready =
        conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    let leaves = pod.metadata.deletion_timestamp.is_some();
    (is_daemon && is_ready && !leaves).then(|| pod.spec.as_ref()?.node_name.clone())?
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(ready: &str, owner: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "egress-agent-x", "annotations": {"a": "b"},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": owner, "name": "egress-agent", "uid": "u", "controller": true}]},
            "spec": {"nodeName": "pool-1", "containers": [{"name": "agent"}]},
            "status": {"conditions": [{"type": "Ready", "status": ready}]}
        }))
        .unwrap()
    }

    #[test]
    fn only_the_ready_pod_of_a_daemonset_makes_its_node_one_that_votes() {
        let mut ready = pod("True", "DaemonSet");
        strip(&mut ready);
        assert_eq!(node_of_ready_agent(&ready).as_deref(), Some("pool-1"));
        assert_eq!(node_of_ready_agent(&pod("False", "DaemonSet")), None);
        assert_eq!(node_of_ready_agent(&pod("True", "ReplicaSet")), None);
        ready.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH));
        assert_eq!(node_of_ready_agent(&ready), None);
    }
}
