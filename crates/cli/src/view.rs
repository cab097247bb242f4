//! The objects of a cluster, read once. What can't be read is said, and the rest counts.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use egress_api::{EgressGateway, NodeEgress, NodeEgressStatus, StaticRoute};
use egress_runtime::guarded::Guarded;
use egress_runtime::kubernetes::{CallError, within_deadline};
use k8s_openapi::api::core::v1::Node;
use kube::api::ListParams;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;

/// Everything that an answer is made from, as the API server has it.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Every EgressGateway.
    pub egress_gateways: Vec<Guarded<EgressGateway>>,
    /// Every StaticRoute.
    pub static_routes: Vec<Guarded<StaticRoute>>,
    /// Every node's report.
    pub reports: Vec<Guarded<NodeEgress>>,
    /// Every node.
    pub nodes: Vec<Node>,
    /// Kinds that can't be listed, and why.
    pub unread: Vec<Unread>,
}

/// What a busy API server asks for.
const AGAIN: Duration = Duration::from_secs(1);

/// A kind that can't be listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unread {
    /// The kind.
    pub kind: &'static str,
    /// Why, and the way out.
    pub why: String,
}

impl View {
    /// Reads it.
    pub async fn read(client: &Client) -> Self {
        let (egress_gateways, static_routes, reports, nodes) = tokio::join!(
            list(client, "EgressGateways"),
            list(client, "StaticRoutes"),
            list(client, "NodeEgresses"),
            list(client, "Nodes")
        );
        let mut view = Self::default();
        view.egress_gateways = view.keep(egress_gateways);
        view.static_routes = view.keep(static_routes);
        view.reports = view.keep(reports);
        view.nodes = view.keep(nodes);
        view
    }

    /// What each node reports, by name; only what can be read.
    pub fn reported(&self) -> BTreeMap<&str, &NodeEgressStatus> {
        let read = self.reports.iter().filter_map(|report| report.0.as_ref().ok());
        read.filter_map(|report| Some((report.metadata.name.as_deref()?, report.status.as_ref()?))).collect()
    }

    /// EgressGateways that can be read.
    pub fn gateways(&self) -> impl Iterator<Item = &EgressGateway> {
        self.egress_gateways.iter().filter_map(|gateway| gateway.0.as_ref().ok())
    }

    /// StaticRoutes that can be read.
    pub fn routes(&self) -> impl Iterator<Item = &StaticRoute> {
        self.static_routes.iter().filter_map(|route| route.0.as_ref().ok())
    }

    fn keep<K>(&mut self, listed: Result<Vec<K>, Unread>) -> Vec<K> {
        listed.unwrap_or_else(|unread| {
            self.unread.push(unread);
            Vec::new()
        })
    }
}

async fn list<K>(client: &Client, kind: &'static str) -> Result<Vec<K>, Unread>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let api: Api<K> = Api::all(client.clone());
    // An API server whose definitions are new asks for a moment of patience.
    let mut patience = 10;
    loop {
        match within_deadline(api.list(&ListParams::default())).await {
            Err(error) if error.category() == "throttled" && patience > 0 => patience -= 1,
            listed => {
                return listed.map(|list| list.items).map_err(|error| Unread { kind, why: why(&error) });
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Why a call failed, and the way out.
pub fn why(error: &CallError) -> String {
    let said = match error {
        CallError::Kubernetes(kube::Error::Api(status)) => status.message.clone(),
        other => other.to_string(),
    };
    match error.category() {
        "not_found" => "the API server does not know the kind; install the CRDs: kubectl apply --server-side -f crds.yaml".to_owned(),
        "forbidden" => format!("you may not: {said}"),
        _ => said,
    }
}

/// Its name.
pub fn name<K: Resource>(object: &K) -> &str {
    object.meta().name.as_deref().unwrap_or_default()
}

/// Whether its `Ready` condition holds.
pub fn is_ready(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

#[cfg(test)]
pub mod fixture {
    //! A cluster of two nodes with the lab's addresses, out of JSON.

    use serde_json::{Value, json};

    use super::View;

    /// Two Ready nodes, `node-1` and `node-2`.
    pub fn nodes() -> Vec<Value> {
        let node = |number: u8| {
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": format!("node-{number}"), "labels": {"pool": format!("p{number}")}},
                "spec": {"podCIDRs": [format!("10.244.{number}.0/24")], "providerID": format!("digitalocean://{}", 500 + u32::from(number))},
                "status": {"conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": {"bootID": format!("boot-{number}"),
                    "architecture": "", "containerRuntimeVersion": "", "kernelVersion": "", "kubeProxyVersion": "", "kubeletVersion": "",
                    "machineID": "", "operatingSystem": "", "osImage": "", "systemUUID": ""},
                    "addresses": [{"type": "InternalIP", "address": format!("10.116.0.{}", number + 1)},
                                  {"type": "ExternalIP", "address": format!("203.0.113.{}", number + 10)}]}})
        };
        vec![node(1), node(2)]
    }

    /// An EgressGateway with two proven gateways, 10.116.0.100 (active) and .101.
    pub fn egress_gateway(name: &str) -> Value {
        let gateway = |slot: u8, role: &str| {
            json!({"name": format!("{name}-{slot}-uid"), "slot": slot, "dropletID": 700 + u32::from(slot), "role": role, "ready": true,
                "privateAddress": format!("10.116.0.{}", 100 + slot), "publicAddress": format!("203.0.113.{}", 100 + slot), "nodes": 2 - 2 * slot})
        };
        json!({"apiVersion": "networking.digitalocean.com/v1alpha1", "kind": "EgressGateway",
            "metadata": {"name": name, "uid": format!("uid-{name}"), "generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"destinations": ["0.0.0.0/0"], "publicIP": "Ephemeral"},
            "status": {"observedGeneration": 1, "active": format!("{name}-0-uid"), "egressIP": "203.0.113.100",
                "publicIPs": ["203.0.113.100", "203.0.113.101"], "gatewaysReady": "2/2", "nodes": "2/2",
                "gateways": [gateway(0, "Active"), gateway(1, "Standby")],
                "conditions": [condition("Ready", "True", "EgressWorks", "2 of 2 nodes leave through it"),
                               condition("Progressing", "False", "Stable", "Everything that was asked for is there"),
                               condition("Degraded", "False", "AsAskedFor", "")]}})
    }

    /// A condition.
    pub fn condition(type_: &str, status: &str, reason: &str, message: &str) -> Value {
        json!({"type": type_, "status": status, "reason": reason, "message": message, "lastTransitionTime": "2026-01-01T00:00:00Z"})
    }

    /// A StaticRoute with a list of gateways.
    pub fn static_route(name: &str, created: u8, destinations: &[&str], gateways: &[&str]) -> Value {
        let gateways: Vec<Value> = gateways.iter().map(|address| json!({"address": address})).collect();
        json!({"apiVersion": "networking.digitalocean.com/v1", "kind": "StaticRoute",
            "metadata": {"name": name, "uid": format!("uid-{name}"), "generation": 1, "creationTimestamp": format!("2026-01-01T00:00:{created:02}Z")},
            "spec": {"destinations": destinations, "gateways": gateways},
            "status": {"observedGeneration": 1, "nodes": "2/2", "nodesApplied": 2, "nodesTotal": 2,
                "conditions": [condition("Ready", "True", "Applied", "2 of 2 nodes have every route")]}})
    }

    /// What a node has of it.
    pub fn entry(name: &str, gateway: &str) -> Value {
        json!({"name": name, "uid": format!("uid-{name}"), "observedGeneration": 1, "state": "Applied", "applied": 1, "total": 1,
            "gateway": gateway, "guarded": true})
    }

    /// A node's report.
    pub fn report(node: u8, routes: &[Value]) -> Value {
        json!({"apiVersion": "networking.digitalocean.com/v1alpha1", "kind": "NodeEgress", "metadata": {"name": format!("node-{node}")},
            "status": {"agentVersion": "0.1.0", "summary": "", "routes": routes, "bootID": format!("boot-{node}")}})
    }

    /// The view of these objects.
    pub fn view(objects: &[Value]) -> View {
        let mut view = View::default();
        for object in objects {
            let object = object.clone();
            match object["kind"].as_str().unwrap() {
                "EgressGateway" => view.egress_gateways.push(serde_json::from_value(object).unwrap()),
                "StaticRoute" => view.static_routes.push(serde_json::from_value(object).unwrap()),
                "NodeEgress" => view.reports.push(serde_json::from_value(object).unwrap()),
                "Node" => view.nodes.push(serde_json::from_value(object).unwrap()),
                other => panic!("{other}"),
            }
        }
        view
    }
}
