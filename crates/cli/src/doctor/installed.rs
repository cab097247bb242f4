//! The controller and the agents: there, ready, of one version.

use std::collections::{BTreeMap, BTreeSet};

use egress_runtime::kubernetes::within_deadline;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use kube::{Api, Client};

use super::Finding;
use crate::access::CONTROLLER;
use crate::output::some;
use crate::view::{View, is_ready, name, why};

/// Name of the agents' DaemonSet.
const AGENT: &str = "egress-agent";
/// What installs them.
const INSTALL: &str = "kubectl apply -f install.yaml, or the chart: docs/install.md";

pub(super) async fn look(client: &Client, namespace: &str, view: &View) -> Vec<Finding> {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    let daemonsets: Api<DaemonSet> = Api::namespaced(client.clone(), namespace);
    let mut findings = Vec::new();
    findings.push(match within_deadline(deployments.get(CONTROLLER)).await {
        Ok(deployment) => controller(&deployment, namespace),
        Err(error) if error.is_not_found() => Finding::wrong(
            "controller",
            format!("there is none in namespace {namespace}"),
            format!("{INSTALL}; in another namespace: --namespace"),
        ),
        Err(error) => Finding::unknown("controller", why(&error), "ask for the right to read Deployments"),
    });
    findings.extend(match within_deadline(daemonsets.get(AGENT)).await {
        Ok(daemonset) => agents(&daemonset, namespace, view),
        Err(error) if error.is_not_found() => {
            vec![Finding::wrong(
                "agents",
                format!("there are none in namespace {namespace}: nothing routes"),
                INSTALL,
            )]
        }
        Err(error) => vec![Finding::unknown("agents", why(&error), "ask for the right to read DaemonSets")],
    });
    findings.extend(versions(view));
    findings
}

fn controller(deployment: &Deployment, namespace: &str) -> Finding {
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let available = deployment.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0);
    let fix = format!(
        "kubectl -n {namespace} get pods,events -l app.kubernetes.io/name={CONTROLLER}; kubectl -n {namespace} logs deploy/{CONTROLLER}"
    );
    match (available, wanted) {
        (_, 0) => Finding::wrong(
            "controller",
            "it is scaled to none: nothing is made, repaired or deleted",
            format!("kubectl -n {namespace} scale deploy/{CONTROLLER} --replicas=2"),
        ),
        (0, _) => Finding::wrong(
            "controller",
            format!("none of {wanted} is available: nothing is made, repaired or deleted"),
            fix,
        ),
        (available, wanted) if available < wanted => {
            Finding::note("controller", format!("{available} of {wanted} are available"), fix)
        }
        (available, _) => Finding::fine("controller", format!("{available} are available")),
    }
}

fn agents(daemonset: &DaemonSet, namespace: &str, view: &View) -> Vec<Finding> {
    let status = daemonset.status.clone().unwrap_or_default();
    let (wanted, ready) = (status.desired_number_scheduled, status.number_ready);
    let mut findings = Vec::new();
    let nodes = i32::try_from(view.nodes.len()).unwrap_or(i32::MAX);
    if wanted < nodes {
        let message = format!(
            "they are to run on {wanted} of {nodes} nodes; pods on the others leave with their nodes' addresses"
        );
        findings.push(Finding::wrong(
            "agents",
            message,
            format!("take nodeSelector and affinity out of daemonset/{AGENT}, or add tolerations"),
        ));
    }
    if ready < wanted {
        let reported = view.reported();
        let lacking = view.nodes.iter().filter(|node| is_ready(node)).map(|node| name(node).to_owned());
        let silent: Vec<String> = lacking.filter(|node| !reported.contains_key(node.as_str())).collect();
        let where_ =
            if silent.is_empty() { String::new() } else { format!("; no report from {}", some(&silent)) };
        let fix = format!(
            "kubectl -n {namespace} get pods -o wide -l app.kubernetes.io/name={AGENT}; kubectl -n {namespace} logs <pod>"
        );
        findings.push(Finding::wrong("agents", format!("{ready} of {wanted} are Ready{where_}"), fix));
    }
    let updated = status.updated_number_scheduled.unwrap_or(0);
    if updated < wanted {
        let message = format!(
            "{updated} of {wanted} have the latest version: an update goes on, or waits for pods to be deleted"
        );
        findings.push(Finding::note(
            "agents",
            message,
            format!("kubectl -n {namespace} rollout status daemonset/{AGENT}"),
        ));
    }
    if findings.is_empty() {
        findings.push(Finding::fine("agents", format!("{ready} of {wanted} are Ready")));
    }
    findings
}

fn versions(view: &View) -> Vec<Finding> {
    const OWN: &str = env!("CARGO_PKG_VERSION");
    let mut by_version: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let live: BTreeSet<&str> = view.nodes.iter().map(name).collect();
    for (node, report) in view.reported().into_iter().filter(|(node, _)| live.contains(node)) {
        by_version
            .entry(report.agent_version.as_deref().unwrap_or("unknown"))
            .or_default()
            .push(node.to_owned());
    }
    let told: Vec<String> =
        by_version.iter().map(|(version, nodes)| format!("{version} on {}", some(nodes))).collect();
    match by_version.keys().collect::<Vec<_>>().as_slice() {
        [] => Vec::new(),
        [version] if **version == OWN => {
            vec![Finding::fine("versions", format!("all agents are {OWN}, as this command line"))]
        }
        [version] => vec![Finding::note(
            "versions",
            format!("all agents are {version}, this command line is {OWN}"),
            "use the command line of the version that you run",
        )],
        _ => vec![Finding::note(
            "versions",
            format!("agents differ: {}", told.join("; ")),
            "finish the update: docs/upgrade.md",
        )],
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Level;
    use super::*;
    use crate::view::fixture::{nodes, report, view};

    #[test]
    fn a_controller_is_judged_by_its_available_replicas() {
        let told = |wanted: i32, available: i32| {
            let deployment = json!({"spec": {"replicas": wanted, "selector": {}, "template": {}}, "status": {"availableReplicas": available}});
            controller(&serde_json::from_value(deployment).unwrap(), "n").level
        };
        assert_eq!(
            [told(2, 2), told(2, 1), told(2, 0), told(0, 0)],
            [Level::Fine, Level::Note, Level::Wrong, Level::Wrong]
        );
    }

    #[test]
    fn agents_are_judged_by_the_nodes_they_are_ready_on() {
        let view = view(&[nodes(), vec![report(1, &[])]].concat());
        let told = |wanted: i32, ready: i32, updated: i32| -> Vec<(Level, String)> {
            let status = json!({"desiredNumberScheduled": wanted, "numberReady": ready, "updatedNumberScheduled": updated,
                "currentNumberScheduled": ready, "numberMisscheduled": 0});
            let daemonset = serde_json::from_value(json!({"status": status})).unwrap();
            agents(&daemonset, "n", &view).into_iter().map(|one| (one.level, one.message)).collect()
        };
        assert_eq!(told(2, 2, 2)[0].0, Level::Fine);
        assert!(told(1, 1, 1)[0].1.contains("1 of 2 nodes"));
        assert!(told(2, 1, 2)[0].1.ends_with("no report from node-2"));
        assert_eq!(told(2, 2, 1)[0].0, Level::Note);
    }

    #[test]
    fn versions_that_differ_are_told() {
        let of = |first: &str, second: &str| {
            let (mut one, mut two) = (report(1, &[]), report(2, &[]));
            one["status"]["agentVersion"] = json!(first);
            two["status"]["agentVersion"] = json!(second);
            let found = versions(&view(&[nodes(), vec![one, two]].concat()));
            (found[0].level, found[0].message.clone())
        };
        let own = env!("CARGO_PKG_VERSION");
        assert_eq!(of(own, own).0, Level::Fine);
        assert!(of("9.9.9", "9.9.9").1.contains("all agents are 9.9.9"));
        assert!(of(own, "9.9.9").1.contains("9.9.9 on node-2"));
    }
}
