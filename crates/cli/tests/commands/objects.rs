//! Objects as people, the controller and agents write them.

use serde_json::{Value, json};

pub const GATEWAYS: &str = "/apis/networking.digitalocean.com/v1alpha1/egressgateways";
pub const ROUTES: &str = "/apis/networking.digitalocean.com/v1/staticroutes";
pub const REPORTS: &str = "/apis/networking.digitalocean.com/v1alpha1/nodeegresses";

pub fn condition(type_: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({"type": type_, "status": status, "reason": reason, "message": message, "lastTransitionTime": "2026-01-01T00:00:00Z"})
}

pub fn nodes() -> Vec<Value> {
    let node = |number: u8| {
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": format!("node-{number}")},
            "spec": {"podCIDR": format!("10.244.{number}.0/24"), "podCIDRs": [format!("10.244.{number}.0/24")],
                     "providerID": format!("digitalocean://{}", 500 + u32::from(number))},
            "status": {"conditions": [{"type": "Ready", "status": "True"}],
                "addresses": [{"type": "InternalIP", "address": format!("10.116.0.{}", number + 1)},
                              {"type": "ExternalIP", "address": format!("203.0.113.{}", number + 10)}]}})
    };
    vec![node(1), node(2)]
}

pub fn egress_gateway() -> Value {
    let gateway = |slot: u8, role: &str| {
        json!({"name": format!("demo-{slot}-x"), "slot": slot, "dropletID": 700 + u32::from(slot), "role": role, "ready": true,
            "privateAddress": format!("10.116.0.{}", 100 + slot), "publicAddress": format!("203.0.113.{}", 100 + slot), "nodes": 2 - 2 * slot})
    };
    json!({"apiVersion": "networking.digitalocean.com/v1alpha1", "kind": "EgressGateway", "metadata": {"name": "demo"},
        "spec": {"destinations": ["0.0.0.0/0"], "excludedDestinations": ["198.51.100.0/24"], "publicIP": "Ephemeral"},
        "status": {"observedGeneration": 1, "active": "demo-0-x", "egressIP": "203.0.113.100",
            "publicIPs": ["203.0.113.100", "203.0.113.101"], "gatewaysReady": "2/2", "nodes": "2/2",
            "gateways": [gateway(0, "Active"), gateway(1, "Standby")],
            "conditions": [condition("Ready", "True", "EgressWorks", "2 of 2 nodes leave"),
                           condition("Progressing", "False", "Stable", "stable"), condition("Degraded", "False", "AsAskedFor", "")]}})
}

fn applied() -> Value {
    json!({"observedGeneration": 1, "nodes": "2/2", "nodesApplied": 2, "nodesTotal": 2,
        "conditions": [condition("Ready", "True", "Applied", "2 of 2 nodes have every route")]})
}

/// The StaticRoute of `demo`.
pub fn owned() -> Value {
    json!({"apiVersion": "networking.digitalocean.com/v1", "kind": "StaticRoute",
        "metadata": {"name": "demo", "labels": {"networking.digitalocean.com/egress-gateway": "demo"}},
        "spec": {"destinations": ["0.0.0.0/0"], "excludedDestinations": ["198.51.100.0/24"],
                 "gateways": [{"address": "10.116.0.100"}, {"address": "10.116.0.101"}]},
        "status": applied()})
}

/// A user's.
pub fn mine() -> Value {
    json!({"apiVersion": "networking.digitalocean.com/v1", "kind": "StaticRoute", "metadata": {"name": "mine"},
        "spec": {"destinations": ["192.0.2.0/24"], "gateway": "10.116.0.5"}, "status": applied()})
}
