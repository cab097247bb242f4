//! One script against Kubernetes' API in memory and a real one: every answer is the same.
//!
//! Compared are codes, reasons of refusals, and whole objects of ours; of built-in kinds, whose defaults are many, what was written.
//! Uids, versions and times are compared by when they were seen first.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{AsyncBufReadExt as _, StreamExt as _, TryStreamExt as _};
use http::Method;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use testkit::ApiServer;
use testkit::memory_api::{Delivery, Lens, MemoryApi};

use crate::world::{APPLY, MERGE};

const JSON: &str = "application/json";
const GATEWAYS: &str = "/apis/networking.digitalocean.com/v1alpha1/egressgateways";
const GATEWAY: &str = "/apis/networking.digitalocean.com/v1alpha1/egressgateways/demo";
const ROUTES: &str = "/apis/networking.digitalocean.com/v1/staticroutes";
const ROUTE: &str = "/apis/networking.digitalocean.com/v1/staticroutes/demo";
const REPORT: &str = "/apis/networking.digitalocean.com/v1alpha1/nodeegresses/pool-1";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/crash/leases";
const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/crash/events";
const OURS: &str = "fieldManager=egress-controller&force=true";

/// Somebody who asks, and everything that was answered.
struct Caller {
    client: Client,
    told: Vec<Value>,
    seen: BTreeMap<String, String>,
}

impl Caller {
    /// Asks; the answer is compared, and given as it is.
    async fn ask(&mut self, method: Method, path: &str, kind: &str, body: &Value) -> Value {
        let answer = self.plain(method.clone(), path, kind, JSON, body).await;
        let (code, said) = answer;
        let shown = if code >= 300 { json!(said["reason"]) } else { self.normal(&said) };
        self.told.push(json!({"asked": format!("{method} {path}"), "code": code, "answer": shown}));
        said
    }

    async fn plain(
        &self,
        method: Method,
        path: &str,
        kind: &str,
        accept: &str,
        body: &Value,
    ) -> (u16, Value) {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", kind)
            .header("accept", accept)
            .body(Body::from(body))
            .unwrap();
        let answer = self.client.send(request).await.unwrap();
        let code = answer.status().as_u16();
        let bytes = answer.into_body().collect_bytes().await.unwrap();
        (code, serde_json::from_slice(&bytes).unwrap())
    }

    async fn get(&mut self, path: &str) -> Value {
        self.ask(Method::GET, path, JSON, &Value::Null).await
    }

    async fn post(&mut self, path: &str, body: &Value) -> Value {
        self.ask(Method::POST, path, JSON, body).await
    }

    async fn apply(&mut self, path: &str, body: &Value) -> Value {
        self.ask(Method::PATCH, &format!("{path}?{OURS}"), APPLY, body).await
    }

    async fn merge(&mut self, path: &str, body: &Value) -> Value {
        self.ask(Method::PATCH, &format!("{path}?fieldManager=egress-controller"), MERGE, body).await
    }

    async fn delete(&mut self, path: &str, body: &Value) -> Value {
        self.ask(Method::DELETE, path, JSON, body).await
    }

    /// The same whoever was asked.
    fn normal(&mut self, value: &Value) -> Value {
        match value {
            Value::Object(fields) => {
                let built_in = ["Node", "Pod", "Secret", "Namespace", "Lease", "Event"]
                    .iter()
                    .any(|kind| fields.get("kind") == Some(&json!(kind)));
                let mut normal = serde_json::Map::new();
                for (name, value) in fields {
                    let is_written = matches!(name.as_str(), "apiVersion" | "kind" | "metadata" | "data");
                    let is_servers = matches!(name.as_str(), "managedFields" | "selfLink" | "details")
                        || value.get("kubernetes.io/metadata.name").is_some();
                    if is_servers || built_in && !is_written {
                        continue;
                    }
                    let value = match name.as_str() {
                        "uid" | "resourceVersion" => json!(self.first_seen(name, value)),
                        "creationTimestamp" | "deletionTimestamp" => json!("a time"),
                        _ => self.normal(value),
                    };
                    normal.insert(name.clone(), value);
                }
                Value::Object(normal)
            }
            Value::Array(items) => Value::Array(items.iter().map(|item| self.normal(item)).collect()),
            other => other.clone(),
        }
    }

    fn first_seen(&mut self, name: &str, value: &Value) -> String {
        let next = format!("{name} {}", self.seen.len());
        self.seen.entry(format!("{name} {value}")).or_insert(next).clone()
    }

    /// What a watch from this version shows until the object of this name and verb comes.
    async fn watch(&mut self, path: &str, since: &str, until: (&str, &str)) {
        let request = http::Request::builder()
            .uri(format!(
                "{path}?watch=true&allowWatchBookmarks=true&timeoutSeconds=20&resourceVersion={since}"
            ))
            .body(Vec::new())
            .unwrap();
        let lines = self.client.request_stream(request).await.unwrap().lines();
        let mut lines = Box::pin(lines.map_err(|error| error.to_string()));
        while let Some(line) = lines.next().await {
            let event: Value = serde_json::from_str(&line.unwrap()).unwrap();
            if event["type"] == "BOOKMARK" {
                continue;
            }
            let shown = self.normal(&event);
            self.told.push(json!({"watched": path, "event": shown}));
            if event["type"] == until.1 && event["object"]["metadata"]["name"] == until.0 {
                return;
            }
        }
        panic!("{path}: {until:?} was not seen");
    }
}

fn version(object: &Value) -> String {
    object["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
}

fn condition(type_: &str, status: &str) -> Value {
    json!({"type": type_, "status": status, "reason": "Said", "message": "so", "lastTransitionTime": "2027-01-15T08:00:00Z"})
}

fn gateway_entry(slot: i64) -> Value {
    json!({"name": format!("demo-{slot}-1a2b3c01"), "slot": slot, "dropletID": 100 + slot, "role": "Starting", "ready": false,
           "nodes": 0, "admits": []})
}

fn status(said: &Value, object: &Value) -> Value {
    json!({"apiVersion": "networking.digitalocean.com/v1alpha1", "kind": "EgressGateway",
        "metadata": {"name": "demo", "uid": object["metadata"]["uid"], "resourceVersion": object["metadata"]["resourceVersion"]},
        "status": said})
}

async fn script(client: Client) -> Vec<Value> {
    let mut caller = Caller { client, told: Vec::new(), seen: BTreeMap::new() };
    let gateways = caller.plain(Method::GET, GATEWAYS, JSON, JSON, &Value::Null).await.1;
    let routes = caller.plain(Method::GET, ROUTES, JSON, JSON, &Value::Null).await.1;
    caller.post("/api/v1/namespaces", &json!({"metadata": {"name": "crash"}})).await;
    egress_gateway(&mut caller).await;
    static_route(&mut caller).await;
    built_in(&mut caller).await;
    end_of_an_object(&mut caller).await;
    caller.watch(GATEWAYS, &version(&gateways), ("demo", "DELETED")).await;
    caller.watch(ROUTES, &version(&routes), ("demo", "DELETED")).await;
    caller.told
}

async fn egress_gateway(caller: &mut Caller) {
    let object = json!({"apiVersion": "networking.digitalocean.com/v1alpha1", "kind": "EgressGateway", "metadata": {"name": "demo"},
        "spec": {"destinations": ["198.51.100.7"], "publicIP": "Ephemeral"}});
    let made = caller.post(GATEWAYS, &object).await;
    caller.post(GATEWAYS, &object).await;
    caller.get(&format!("{GATEWAYS}/other")).await;
    let finalizers = |version: &str| json!({"metadata": {"resourceVersion": version, "finalizers": ["example.com/mine", "networking.digitalocean.com/egress-gateway"]}});
    let held = caller.merge(GATEWAY, &finalizers(&version(&made))).await;
    caller.merge(GATEWAY, &finalizers(&version(&made))).await;

    let intent = json!({"name": "demo-1-1a2b3c01", "slot": 1, "since": "2027-01-15T08:00:00Z", "userDataVersion": "v1"});
    let first = json!({"observedGeneration": 1, "gateways": [gateway_entry(0)], "creating": [intent], "publicIPs": ["203.0.113.100"],
        "conditions": [condition("Ready", "False"), condition("Progressing", "True")]});
    let said = caller.apply(&format!("{GATEWAY}/status"), &status(&first, &held)).await;
    let again = caller.apply(&format!("{GATEWAY}/status"), &status(&first, &said)).await;
    assert_eq!(version(&said), version(&again), "what is so already makes no version");
    caller.apply(&format!("{GATEWAY}/status"), &status(&first, &held)).await;
    let mut foreign = status(&first, &again);
    foreign["metadata"]["uid"] = json!("00000000-0000-4000-8000-000000000000");
    caller.apply(&format!("{GATEWAY}/status"), &foreign).await;
    foreign["status"]["publicIPs"] = json!(["203.0.113.101"]);
    let again = caller.apply(&format!("{GATEWAY}/status"), &foreign).await;
    let second = json!({"observedGeneration": 1, "gateways": [gateway_entry(1), gateway_entry(0)], "publicIPs": [],
        "conditions": [condition("Ready", "True"), condition("Degraded", "False")]});
    caller.apply(&format!("{GATEWAY}/status"), &status(&second, &held)).await;
    let said = caller.apply(&format!("{GATEWAY}/status"), &status(&second, &again)).await;
    // As one that can't be read is told of.
    let patch = json!({"metadata": {"resourceVersion": version(&said)}, "status": {"conditions": [condition("Ready", "False")]}});
    let said = caller.merge(&format!("{GATEWAY}/status"), &patch).await;
    let third = json!({"observedGeneration": 1, "gateways": [gateway_entry(1)], "conditions": [condition("Ready", "True")]});
    caller.apply(&format!("{GATEWAY}/status"), &status(&third, &said)).await;
    caller.ask(Method::PATCH, GATEWAY, MERGE, &json!({"spec": {"replicas": 1}})).await;
    caller.ask(Method::PATCH, GATEWAY, MERGE, &json!({"spec": {"replicas": 1}})).await;
    caller.ask(Method::PATCH, &format!("{GATEWAY}/status"), MERGE, &json!({"status": null})).await;
}

async fn static_route(caller: &mut Caller) {
    let route = |gateways: &[&str]| {
        let gateways: Vec<Value> = gateways
            .iter()
            .map(|address| json!({"address": address, "egressAddress": "203.0.113.9"}))
            .collect();
        json!({"apiVersion": "networking.digitalocean.com/v1", "kind": "StaticRoute",
            "metadata": {"name": "demo", "labels": {"networking.digitalocean.com/owned-by": "demo"}, "ownerReferences": [{
                "apiVersion": "networking.digitalocean.com/v1alpha1", "kind": "EgressGateway", "name": "demo",
                "uid": "7a2b3c01-0000-4000-8000-000000000007", "controller": true, "blockOwnerDeletion": false}]},
            "spec": {"destinations": ["198.51.100.7"], "gateways": gateways, "mode": "ActiveStandby"}})
    };
    let made = caller.apply(ROUTE, &route(&["10.116.0.100"])).await;
    let mut next = route(&["10.116.0.101", "10.116.0.100"]);
    next["metadata"]["resourceVersion"] = made["metadata"]["resourceVersion"].clone();
    let changed = caller.apply(ROUTE, &next).await;
    let mut late = route(&["10.116.0.100"]);
    late["metadata"]["resourceVersion"] = made["metadata"]["resourceVersion"].clone();
    caller.apply(ROUTE, &late).await;
    caller.apply(ROUTE, &next).await;
    next["metadata"]["resourceVersion"] = changed["metadata"]["resourceVersion"].clone();
    let same = caller.apply(ROUTE, &next).await;
    assert_eq!(version(&changed), version(&same));
    next["spec"].as_object_mut().unwrap().remove("mode");
    next["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    caller.apply(ROUTE, &next).await;
    let told = json!({"apiVersion": "networking.digitalocean.com/v1", "kind": "StaticRoute", "metadata": {"name": "demo"},
        "status": {"observedGeneration": 2, "nodesApplied": 1, "nodesTotal": 2, "conditions": [condition("Ready", "False")]}});
    caller.apply(&format!("{ROUTE}/status"), &told).await;
    // Two who apply.
    let other = json!({"apiVersion": "networking.digitalocean.com/v1", "kind": "StaticRoute", "metadata": {"name": "demo", "labels": {"mine": "yes"}}, "spec": {"onNoGateway": "FailClosed"}});
    caller.ask(Method::PATCH, &format!("{ROUTE}?fieldManager=user"), APPLY, &other).await;
    let clash = json!({"apiVersion": "networking.digitalocean.com/v1", "kind": "StaticRoute", "metadata": {"name": "demo"}, "spec": {"destinations": ["198.51.100.8"]}});
    caller.ask(Method::PATCH, &format!("{ROUTE}?fieldManager=user"), APPLY, &clash).await;
    caller.ask(Method::PATCH, &format!("{ROUTE}?fieldManager=user"), APPLY, &json!({"apiVersion": "networking.digitalocean.com/v1", "kind": "StaticRoute", "metadata": {"name": "demo"}})).await;

    let report = |status: Option<Value>| {
        let mut object = json!({"apiVersion": "networking.digitalocean.com/v1alpha1", "kind": "NodeEgress", "metadata": {"name": "pool-1"}});
        object["status"] = status.unwrap_or_default();
        object
    };
    caller.apply(REPORT, &report(None)).await;
    let status = json!({"agentVersion": "v", "bootID": "b", "routes": [], "gateways": [{"address": "10.116.0.100", "reachable": true, "condemned": false}]});
    caller.apply(&format!("{REPORT}/status"), &report(Some(status))).await;
}

async fn built_in(caller: &mut Caller) {
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "egress-controller"}, "spec": {"holderIdentity": "a", "leaseDurationSeconds": 15}});
    let made = caller.post(LEASES, &lease).await;
    caller.post(LEASES, &lease).await;
    let mut renewed = made.clone();
    renewed["spec"]["holderIdentity"] = json!("b");
    let path = format!("{LEASES}/egress-controller");
    let taken = caller.ask(Method::PUT, &path, JSON, &renewed).await;
    assert_eq!(taken["spec"]["holderIdentity"], "b");
    caller.ask(Method::PUT, &path, JSON, &renewed).await;
    let event = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "told", "namespace": "crash"}, "eventTime": "2027-01-15T08:00:00.000000Z",
        "type": "Normal", "reason": "Said", "action": "Say", "reportingController": "c", "reportingInstance": "i", "note": "so",
        "regarding": {"kind": "Namespace", "name": "crash", "namespace": "crash"}});
    caller.post(EVENTS, &event).await;
    let node = json!({"metadata": {"name": "pool-1"}, "spec": {"providerID": "digitalocean://501", "taints": [{"key": "a", "effect": "NoSchedule"}, {"key": "b", "effect": "NoSchedule"}]}});
    let node = caller.post("/api/v1/nodes", &node).await;
    let taints = |version: &str| json!({"metadata": {"resourceVersion": version}, "spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}});
    let changed = caller.merge("/api/v1/nodes/pool-1", &taints(&version(&node))).await;
    assert_eq!(changed["spec"]["taints"].as_array().unwrap().len(), 1);
    caller.merge("/api/v1/nodes/pool-1", &taints(&version(&node))).await;
    let mut foreign = taints(&version(&changed));
    foreign["metadata"]["uid"] = json!("00000000-0000-4000-8000-000000000000");
    foreign["spec"]["taints"] = json!([]);
    caller.merge("/api/v1/nodes/pool-1", &foreign).await;
    for (name, labels) in [("agent-1", json!({"app": "agent"})), ("other", json!({"app": "other"}))] {
        let secret = json!({"metadata": {"name": name, "labels": labels}, "data": {"token": "eA=="}});
        caller.post("/api/v1/namespaces/crash/secrets", &secret).await;
    }
    for selection in
        ["labelSelector=app%3Dagent", "fieldSelector=metadata.name%3Dother", "labelSelector=app%3Dnone"]
    {
        let path = format!("/api/v1/namespaces/crash/secrets?{selection}");
        let listed = caller.plain(Method::GET, &path, JSON, JSON, &Value::Null).await.1;
        let names: Vec<&Value> =
            listed["items"].as_array().unwrap().iter().map(|item| &item["metadata"]["name"]).collect();
        caller.told.push(json!({"listed": selection, "kind": listed["kind"], "names": names}));
    }
    let partial = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
    let of_one = caller.plain(Method::GET, GATEWAY, JSON, partial, &Value::Null).await.1;
    let of_one = caller.normal(&of_one);
    let list = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    let of_all = caller.plain(Method::GET, GATEWAYS, JSON, list, &Value::Null).await.1;
    let kinds = json!([of_all["kind"], of_all["apiVersion"], of_all["items"][0].get("spec").is_some()]);
    caller.told.push(json!({"metadata": of_one, "list": kinds}));
}

async fn end_of_an_object(caller: &mut Caller) {
    let going = caller.delete(GATEWAY, &Value::Null).await;
    caller.delete(GATEWAY, &Value::Null).await;
    let said =
        caller.apply(&format!("{GATEWAY}/status"), &status(&json!({"observedGeneration": 3}), &going)).await;
    let left = |finalizers: &[&str], object: &Value| json!({"metadata": {"resourceVersion": version(object), "finalizers": finalizers}});
    let held = caller.merge(GATEWAY, &left(&["example.com/mine"], &said)).await;
    caller.merge(GATEWAY, &left(&[], &held)).await;
    caller.get(GATEWAY).await;
    caller.merge(GATEWAY, &left(&[], &held)).await;
    caller.apply(&format!("{GATEWAY}/status"), &status(&json!({}), &held)).await;

    let route = caller.get(ROUTE).await;
    let precondition = |uid: &str| json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}, "propagationPolicy": "Background"});
    caller.delete(ROUTE, &precondition("00000000-0000-4000-8000-000000000000")).await;
    let deleted = caller
        .plain(Method::DELETE, ROUTE, JSON, JSON, &precondition(route["metadata"]["uid"].as_str().unwrap()))
        .await;
    caller.told.push(json!({"deleted": [deleted.0, deleted.1["status"]]}));
    caller.delete(ROUTE, &precondition("00000000-0000-4000-8000-000000000000")).await;
    let mut late = json!({"apiVersion": "networking.digitalocean.com/v1", "kind": "StaticRoute", "metadata": {"name": "demo"},
        "spec": {"destinations": ["198.51.100.7"], "gateway": "10.116.0.100"}});
    late["metadata"]["resourceVersion"] = route["metadata"]["resourceVersion"].clone();
    caller.apply(ROUTE, &late).await;
}

fn in_memory() -> Client {
    let definitions = egress_api::custom_resource_definitions().into_iter().map(|(_, definition)| definition);
    let api = MemoryApi::new(definitions.collect(), Arc::new(jiff::Timestamp::now));
    let lens: Lens = Arc::new(|_| Delivery::Now);
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let (api, lens) = (api.clone(), lens.clone());
        async move {
            let (parts, body) = request.into_parts();
            let request = http::Request::from_parts(parts, body.collect_bytes().await?);
            Ok::<_, kube::Error>(api.answer(&request, &lens))
        }
    });
    Client::new(service, "default")
}

#[test]
fn the_api_in_memory_answers_as_a_real_one() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let memory = tokio::time::timeout(Duration::from_secs(60), script(in_memory())).await.unwrap();
        let server = ApiServer::start().await.unwrap();
        let definitions =
            egress_api::custom_resource_definitions().into_iter().map(|(_, definition)| definition);
        server.install(definitions.collect()).await.unwrap();
        let real = script(server.admin().unwrap()).await;
        let both = real.iter().zip(&memory).enumerate();
        let differing: Vec<String> = both
            .filter(|(_, (real, memory))| real != memory)
            .map(|(at, (real, memory))| format!("{at}, real:   {real}\n{at}, memory: {memory}"))
            .collect();
        assert!(differing.is_empty(), "\n{}", differing.join("\n"));
        assert_eq!(real.len(), memory.len());
        assert!(real.len() > 60, "{} answers", real.len());
    });
}
