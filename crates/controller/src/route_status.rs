//! The status of every StaticRoute, users' own included: the sum of what the nodes report.

use std::time::Duration;

use egress_api::condition::{READY, Verdict, set};
use egress_api::{CONTROLLER_FIELD_MANAGER, NodeRoute, NodeRouteState, StaticRoute, StaticRouteStatus};
use egress_runtime::admin::Liveness;
use egress_runtime::kubernetes::{CallError, within_deadline};
use egress_runtime::lease::{Claim, LeadershipLost};
use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::watch;

use crate::decide::NO_NODES;
use crate::observation::NodeSeen;
use crate::watches::Mirrors;

// Many nodes report at once after a change; one write for all of them.
const GATHER: Duration = Duration::from_millis(300);

// A change that the watches lost is made up for after this.
const AT_LEAST_EVERY: Duration = Duration::from_secs(15);

#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error(transparent)]
    Lease(#[from] LeadershipLost),
    #[error(transparent)]
    Call(#[from] CallError),
}

/// Keeps the sums up to date for ever.
pub async fn keep(
    client: Client,
    mirrors: Mirrors,
    claim: Claim,
    mut changes: watch::Receiver<u64>,
    heart: Liveness,
) {
    let routes: Api<StaticRoute> = Api::all(client);
    loop {
        changes.mark_unchanged();
        let nodes = mirrors.nodes();
        for route in mirrors.routes() {
            heart.beat();
            let before = route.status.clone().unwrap_or_default();
            let after = summarize(&route, &nodes, Timestamp::now());
            if after == before || route.metadata.deletion_timestamp.is_some() {
                continue;
            }
            if let Err(error) = write(&routes, &route, &after, &claim).await {
                // The next round tries again with a fresh view.
                tracing::debug!(static_route = route.metadata.name, %error, "status was not written");
            }
        }
        heart.beat();
        let woken = tokio::time::timeout(AT_LEAST_EVERY, changes.changed()).await;
        if matches!(woken, Ok(Err(_))) {
            return;
        }
        tokio::time::sleep(GATHER).await;
    }
}

async fn write(
    routes: &Api<StaticRoute>,
    route: &StaticRoute,
    status: &StaticRouteStatus,
    claim: &Claim,
) -> Result<(), WriteError> {
    let name = route.metadata.name.as_deref().unwrap_or_default();
    let patch = json!({
        "apiVersion": "networking.digitalocean.com/v1",
        "kind": "StaticRoute",
        "metadata": {"name": name, "resourceVersion": route.metadata.resource_version},
        "status": status,
    });
    let manager = PatchParams::apply(CONTROLLER_FIELD_MANAGER).force();
    claim.check()?;
    within_deadline(routes.patch_status(name, &manager, &Patch::Apply(patch))).await?;
    Ok(())
}

/// What the status of this StaticRoute should be.
pub fn summarize(route: &StaticRoute, nodes: &[NodeSeen], now: Timestamp) -> StaticRouteStatus {
    let mut status = route.status.clone().unwrap_or_default();
    let selector = route.spec.node_selector.as_ref();
    let live: Vec<&NodeSeen> = nodes.iter().filter(|node| node.should_route(selector)).collect();
    let total = live.len();
    let applied = live.iter().filter(|node| matches!(standing(route, node), Standing::Applied)).count();
    let lagging = live.iter().find_map(|node| match standing(route, node) {
        Standing::Applied => None,
        Standing::Failed(words) => Some(("NodesFailed", format!("{}: {words}", node.name))),
        Standing::Pending => {
            Some(("NodesPending", format!("{} has not reported this version yet", node.name)))
        }
    });
    let (holds, reason, message) = match lagging {
        _ if total == 0 => (false, "NoNodes", NO_NODES.to_owned()),
        None => (true, "Applied", format!("All {total} nodes have every route")),
        Some((reason, words)) => {
            (false, reason, format!("{applied} of {total} nodes have every route; {words}"))
        }
    };
    let generation = route.metadata.generation;
    let second = Timestamp::from_second(now.as_second()).unwrap_or(now);
    set(
        &mut status.conditions,
        Verdict { type_: READY, status: Some(holds), reason, message },
        generation,
        second,
    );
    status.observed_generation = generation;
    status.nodes = Some(format!("{applied}/{total}"));
    status.nodes_applied = i32::try_from(applied).ok();
    status.nodes_total = i32::try_from(total).ok();
    status
}

enum Standing {
    Applied,
    Failed(String),
    Pending,
}

fn standing(route: &StaticRoute, node: &NodeSeen) -> Standing {
    let routes = node.report.as_ref().map(|report| report.routes.as_slice()).unwrap_or_default();
    let current = |entry: &&NodeRoute| {
        Some(&entry.uid) == route.metadata.uid.as_ref()
            && Some(entry.observed_generation) == route.metadata.generation
    };
    match routes.iter().find(current) {
        Some(entry) if entry.state == NodeRouteState::Applied => Standing::Applied,
        Some(entry) => {
            let first =
                entry.failures.first().map(|failure| format!("{}: {}", failure.destination, failure.message));
            Standing::Failed(
                entry.message.clone().or(first).unwrap_or_else(|| "not all routes are applied".to_owned()),
            )
        }
        None => Standing::Pending,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use egress_api::{NodeEgressStatus, NodeSelector, StaticRouteSpec};

    use super::*;

    fn route() -> StaticRoute {
        let spec = StaticRouteSpec {
            destinations: vec!["192.0.2.1".into()],
            excluded_destinations: Vec::new(),
            gateway: Some("10.0.0.1".into()),
            gateways: None,
            node_selector: None,
            gateway_ref: None,
        };
        let mut route = StaticRoute::new("sr", spec);
        route.metadata.uid = Some("u".into());
        route.metadata.generation = Some(3);
        route
    }

    fn node(name: &str, uid: &str, generation: i64, state: NodeRouteState) -> NodeSeen {
        let entry = NodeRoute {
            name: "sr".into(),
            uid: uid.into(),
            observed_generation: generation,
            state,
            applied: 1,
            total: 1,
            gateway: None,
            reason: None,
            message: Some("words".into()),
            unusable_gateways: Vec::new(),
            failures: Vec::new(),
        };
        let report = NodeEgressStatus { routes: vec![entry], ..NodeEgressStatus::default() };
        NodeSeen { name: name.into(), live: true, report: Some(report), ..NodeSeen::default() }
    }

    #[test]
    fn only_live_nodes_with_this_object_in_this_version_count() {
        use NodeRouteState::{Applied, Partial};
        let now = Timestamp::from_second(100).unwrap();
        let sum = |nodes: &[NodeSeen]| {
            let status = summarize(&route(), nodes, now);
            (status.nodes.unwrap(), status.conditions[0].reason.clone())
        };
        assert_eq!(sum(&[]), ("0/0".into(), "NoNodes".into()));
        assert_eq!(sum(&[node("a", "u", 3, Applied)]), ("1/1".into(), "Applied".into()));
        assert_eq!(sum(&[node("a", "u", 2, Applied)]), ("0/1".into(), "NodesPending".into()));
        assert_eq!(sum(&[node("a", "old", 3, Applied)]), ("0/1".into(), "NodesPending".into()));
        assert_eq!(
            sum(&[node("a", "u", 3, Applied), node("b", "u", 3, Partial)]),
            ("1/2".into(), "NodesFailed".into())
        );
        let elsewhere = [node("a", "u", 3, Applied), node("b", "other", 1, Applied)];
        let mut selecting = route();
        let pool = |name: &str| BTreeMap::from([("pool".to_owned(), name.to_owned())]);
        selecting.spec.node_selector =
            Some(NodeSelector { match_labels: pool("web"), ..NodeSelector::default() });
        let [a, b] = elsewhere.map(|node| NodeSeen { labels: pool(&node.name), ..node });
        let status = summarize(&selecting, &[NodeSeen { labels: pool("web"), ..a.clone() }, b.clone()], now);
        assert_eq!(status.nodes.as_deref(), Some("1/1"), "a node that is not selected does not count");
        let status = summarize(&selecting, &[a, b], now);
        assert_eq!((status.nodes.as_deref(), status.conditions[0].reason.as_str()), (Some("0/0"), "NoNodes"));
        let dead = NodeSeen { live: false, ..node("b", "u", 1, Applied) };
        assert_eq!(sum(&[node("a", "u", 3, Applied), dead]), ("1/1".into(), "Applied".into()));
    }

    #[test]
    fn a_second_look_changes_nothing() {
        let nodes = [node("a", "u", 3, NodeRouteState::Applied)];
        let mut route = route();
        route.status = Some(summarize(&route, &nodes, Timestamp::from_second(100).unwrap()));
        let again = summarize(&route, &nodes, Timestamp::from_second(900).unwrap());
        assert_eq!(Some(again), route.status);
    }
}
