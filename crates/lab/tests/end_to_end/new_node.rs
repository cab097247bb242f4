//! A node that joins a cluster with something that fails closed: the startup taint holds pods off it until its guard stands.
//!
//! What makes a node a new one, on a node of the lab: a Node object that carries the taint from its first moment, no report of an
//! earlier life, a kernel with nothing of ours in it, and an agent that is started because the node is there.

use std::time::Duration;

use serde_json::{Value, json};

use crate::lab::{Lab, until};

const MINUTE: Duration = Duration::from_secs(60);
const NODE: &str = "node-2";
/// Its own addresses; no packet to a listed destination may have the public one.
const NODE_PUBLIC: &str = "203.0.113.12";
const NODE_PRIVATE: &str = "10.116.0.3";
const TAINT: &str = "networking.digitalocean.com/egress-not-ready";
/// What the pod that waits for the guard sends to, and what the one that does not.
const LISTED: &str = "192.0.2.80";
const LISTED_TOO: &str = "192.0.2.81";
/// Set up by hand, as the older operator's users do: private and public address.
const GATEWAY: (&str, &str) = ("10.116.0.5", "203.0.113.5");

#[test]
fn a_pod_that_waits_for_a_new_node_never_sends_with_the_nodes_address() {
    let lab = Lab::new("e2enode");
    lab.lab(&["start", "--assets", lab.assets.to_str().unwrap()]);
    lab.install();
    lab.wait_for_rollout();
    let node = leave(&lab);
    lab.apply(&json!({
        "apiVersion": "networking.digitalocean.com/v1", "kind": "StaticRoute", "metadata": {"name": "closed"},
        "spec": {"destinations": [LISTED, LISTED_TOO], "gateways": [{"address": GATEWAY.0}], "onNoGateway": "FailClosed"},
    }));
    lab.apply(&sender("patient", LISTED, &json!([])));
    // For comparison: what becomes of one that tolerates every taint is a matter of who starts first.
    lab.apply(&sender("hasty", LISTED_TOO, &json!([{"operator": "Exists"}])));
    lab.lab(&["oracle", "reset"]);

    join(&lab, &node);
    until("the pod that waited is answered", &true, 3 * MINUTE, || answers(&lab).len() > 2);
    assert!(!taints(&lab).contains(&TAINT.to_owned()), "{:?}", taints(&lab));
    let report = lab.get(&["nodeegress", NODE]);
    let routes = report["status"]["routes"].as_array().unwrap();
    assert!(routes.iter().any(|route| route["name"] == "closed" && route["guarded"] == true), "{report:#}");
    until("the event", &true, MINUTE, || {
        lab.kubectl(&["get", "events", "-A", "-o", "jsonpath={.items[*].reason}"]).contains("EgressReady")
    });
    let seen = answers(&lab);
    assert!(seen.iter().all(|address| address == GATEWAY.1), "{seen:?}");
    let (from_gateway, from_others) = packets(&lab, LISTED);
    assert!(from_gateway > 0);
    assert_eq!(from_others, 0, "packets left with an address that is not the gateway's");
    let (_, hasty) = packets(&lab, LISTED_TOO);
    eprintln!(
        "ok   a new node: 0 packets of the pod that waited left with {NODE_PUBLIC}, {hasty} of one that tolerates the taint"
    );
    lab.lab(&["stop"]);
}

/// Takes the node out of the cluster with all that ran there. Returns it as it is to come back.
fn leave(lab: &Lab) -> Value {
    let mut node = lab.get(&["node", NODE]);
    lab.kubectl(&["delete", "node", NODE]);
    let field = format!("--field-selector=spec.nodeName={NODE}");
    lab.kubectl(&["delete", "pods", "-A", &field, "--force", "--grace-period=0"]);
    until("no agent runs there", &String::new(), MINUTE, || {
        lab.lab(&["exec", NODE, "--", "ss", "-Hltn", "sport = :9191"])
    });
    lab.kubectl(&["delete", "nodeegress", NODE, "--ignore-not-found"]);
    assert_eq!(lab.ours(NODE), "", "nothing was routed before");
    let metadata = json!({"name": NODE, "labels": node["metadata"]["labels"].take()});
    let spec = json!({
        "providerID": node["spec"]["providerID"].take(),
        "podCIDR": node["spec"]["podCIDR"].take(),
        "podCIDRs": node["spec"]["podCIDRs"].take(),
        "taints": [{"key": TAINT, "value": "true", "effect": "NoSchedule"}],
    });
    json!({"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": spec})
}

/// The node joins. As on DOKS its addresses are told a moment later.
fn join(lab: &Lab, node: &Value) {
    lab.apply(node);
    let status = json!({"status": {"addresses": [
        {"type": "InternalIP", "address": NODE_PRIVATE},
        {"type": "ExternalIP", "address": NODE_PUBLIC},
        {"type": "Hostname", "address": NODE},
    ]}});
    let patch = ["patch", "node", NODE, "--subresource=status", "--type=merge", "-p", &status.to_string()];
    lab.kubectl(&patch);
}

/// A pod on that node that sends from its first instruction on.
fn sender(name: &str, to: &str, tolerations: &Value) -> Value {
    let script = format!("while :; do curl -sS --max-time 1 http://{to}/ip; echo; sleep 0.02; done");
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {
            "nodeSelector": {"kubernetes.io/hostname": NODE},
            "tolerations": tolerations,
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "curl", "image": "curlimages/curl:7.80.0", "command": ["sh", "-c", script]}],
        },
    })
}

/// The addresses that the outside saw of the pod that waits.
fn answers(lab: &Lab) -> Vec<String> {
    let log = lab.kubectl_tried(&["logs", "patient"]).unwrap_or_default();
    let is_address = |line: &&str| line.parse::<std::net::Ipv4Addr>().is_ok();
    log.lines().map(str::trim).filter(is_address).map(str::to_owned).collect()
}

fn taints(lab: &Lab) -> Vec<String> {
    let node = lab.get(&["node", NODE]);
    let taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
    taints.iter().filter_map(|taint| taint["key"].as_str().map(str::to_owned)).collect()
}

/// Packets to `destination` that came out: those of the gateway, and all others.
fn packets(lab: &Lab, destination: &str) -> (u64, u64) {
    let oracle: Value = serde_json::from_str(&lab.lab(&["oracle", "-o", "json"])).unwrap();
    let seen = oracle["packets"].as_array().unwrap().iter().filter(|one| one["destination"] == destination);
    seen.fold((0, 0), |(gateway, others), one| {
        let packets = one["packets"].as_u64().unwrap();
        if one["source"] == GATEWAY.1 { (gateway + packets, others) } else { (gateway, others + packets) }
    })
}
