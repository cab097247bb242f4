//! Reports whose Node is gone.
//!
//! A report is owned by its Node and goes with it: Kubernetes' garbage collector sees to that. Where it does not (it is switched
//! off, it lags, or the report was restored from a backup), the word of a node that is no more would stay for ever.

use std::collections::BTreeMap;
use std::time::Duration;

use egress_api::NodeEgress;
use egress_runtime::kubernetes::within_deadline;
use egress_runtime::lease::Claim;
use k8s_openapi::api::core::v1::Node;
use kube::api::{DeleteParams, Preconditions};
use kube::{Api, Client};
use tokio::time::Instant;

use crate::watches::Mirrors;

/// Reports deleted in one round.
const MOST_IN_A_ROUND: usize = 10;

/// Deletes orphans that have been without a Node for `patience`, for ever.
pub async fn sweep(client: Client, mirrors: Mirrors, claim: Claim, patience: Duration) {
    let nodes: Api<Node> = Api::all(client.clone());
    let reports: Api<NodeEgress> = Api::all(client);
    let mut since = Since::default();
    loop {
        tokio::time::sleep((patience / 4).max(Duration::from_millis(500))).await;
        let orphans = mirrors.orphans();
        for (name, uid) in since.due(&orphans, Instant::now(), patience) {
            // The mirrors may be old; a Node that was just made must not lose its report.
            if !matches!(within_deadline(nodes.get_opt(&name)).await, Ok(None)) || claim.check().is_err() {
                continue;
            }
            let preconditions = Preconditions { uid: Some(uid), ..Preconditions::default() };
            let parameters = DeleteParams::default().preconditions(preconditions);
            match within_deadline(reports.delete(&name, &parameters)).await {
                Ok(_) => tracing::info!(node = name, "deleted the report of a node that is gone"),
                Err(error) => {
                    tracing::debug!(node = name, %error, "the report of a node that is gone stays for now");
                }
            }
        }
    }
}

/// Since when each orphan, by name and uid, is one.
#[derive(Debug, Default)]
struct Since(BTreeMap<(String, String), Instant>);

impl Since {
    fn due(
        &mut self,
        orphans: &[(String, String)],
        now: Instant,
        patience: Duration,
    ) -> Vec<(String, String)> {
        self.0.retain(|orphan, _| orphans.contains(orphan));
        for orphan in orphans {
            self.0.entry(orphan.clone()).or_insert(now);
        }
        let ripe = self.0.iter().filter(|(_, since)| now.saturating_duration_since(**since) >= patience);
        ripe.map(|(orphan, _)| orphan.clone()).take(MOST_IN_A_ROUND).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_orphan_goes_when_it_has_been_one_for_long_and_not_when_its_node_came_back() {
        let patience = Duration::from_secs(60);
        let orphan = |name: &str| (name.to_owned(), format!("uid-of-{name}"));
        let both = [orphan("a"), orphan("b")];
        let start = Instant::now();
        let mut since = Since::default();
        assert_eq!(since.due(&both, start, patience), []);
        assert_eq!(since.due(&both[..1], start + patience / 2, patience), [], "b's node is back");
        assert_eq!(since.due(&both, start + patience, patience), [orphan("a")]);
    }
}
