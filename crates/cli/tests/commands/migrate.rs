//! `migrate`.

use serde_json::{Value, json};

use crate::objects::{GATEWAYS, ROUTES, condition};
use crate::stage::{Stage, until};

const DROPLETS: &str = "/apis/compute.do.crossplane.io/v1alpha1/droplets";

/// Crossplane's definition, as far as it matters.
fn definition() -> Value {
    let any = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "droplets.compute.do.crossplane.io"},
        "spec": {"group": "compute.do.crossplane.io", "scope": "Cluster", "names": {"kind": "Droplet", "plural": "droplets"},
            "versions": [{"name": "v1alpha1", "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": any, "status": any}}}}]}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_blueprints_droplet_becomes_a_gateway() {
    let stage = &Stage::furnished().await;
    stage.server.install(vec![serde_json::from_value(definition()).unwrap()]).await.unwrap();
    stage
        .make(DROPLETS, &json!({"apiVersion": "compute.do.crossplane.io/v1alpha1", "kind": "Droplet", "metadata": {"name": "egress-gw-nyc1"},
            "spec": {"forProvider": {"region": "nyc1", "size": "s-1vcpu-1gb", "image": "ubuntu-20-04-x64"}, "deletionPolicy": "Delete"},
            "status": {"atProvider": {"id": 3_164_494, "privateIPv4": "10.116.0.5", "publicIPv4": "203.0.113.5", "status": "active"}}}))
        .await;
    let migrate = ["migrate", "blueprint", "egress-gw-nyc1", "--name", "egress", "--replicas", "1"];
    let with = |more: &[&'static str]| [&migrate, more].concat();
    stage.run(&with(&["--dry-run"])).expect(
        0,
        &["1. [to do] set deletionPolicy: Orphan", "existingDroplets:", "delete StaticRoute mine"],
    );
    assert!(stage.get(&format!("{GATEWAYS}/egress")).await.is_none(), "a dry run");

    // Nobody proves it: it stops there, and nothing was taken away.
    stage
        .run(&with(&["--yes", "--timeout", "0", "--take-over", "--forget"]))
        .expect(1, &["run it again to go on from here"]);
    let policy = async || {
        stage
            .get(&format!("{DROPLETS}/egress-gw-nyc1"))
            .await
            .map(|one| one["spec"]["deletionPolicy"].clone())
    };
    assert_eq!(policy().await, Some(json!("Orphan")));
    assert!(stage.get(&format!("{ROUTES}/mine")).await.is_some());
    let made = stage.get(&format!("{GATEWAYS}/egress")).await.unwrap();
    assert_eq!(made["spec"]["existingDroplets"], json!([3_164_494]), "the API server takes it: {made}");

    let gateway = json!({"name": "egress-gw-nyc1", "slot": -1, "dropletID": 3_164_494, "existing": true, "role": "Active", "ready": true});
    let status = json!({"status": {"gateways": [gateway], "conditions": [condition("Ready", "True", "EgressWorks", "")]}});
    stage.change(&format!("{GATEWAYS}/egress/status"), &status).await;
    stage.run(&with(&["--yes"])).expect(0, &["1. [done]", "The StaticRoutes are in force still"]);
    assert!(stage.get(&format!("{ROUTES}/mine")).await.is_some() && policy().await.is_some());
    stage
        .run(&with(&["--yes", "--take-over", "--forget"]))
        .expect(0, &["3. deleting StaticRoute mine", "4. deleting Crossplane's object"]);
    assert!(stage.get(&format!("{ROUTES}/mine")).await.is_none() && policy().await.is_none());
    stage.send("DELETE", &format!("{GATEWAYS}/egress"), &json!({})).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_older_operator_goes_and_its_routes_after_it() {
    let stage = &Stage::furnished().await;
    stage.install(&["agent.yaml"]);
    stage.make("/api/v1/namespaces", &json!({"metadata": {"name": "static-routes"}})).await;
    let operator = "/apis/apps/v1/namespaces/static-routes/daemonsets";
    let labels = json!({"name": "k8s-staticroute-operator"});
    let daemonset = json!({"metadata": {"name": "k8s-staticroute-operator"}, "spec": {"selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "a", "image": "a"}]}}}});
    stage.make(operator, &daemonset).await;
    stage.report(&[]).await;
    let shadowed =
        json!({"status": {"conditions": [condition("Ready", "False", "NodesFailed", "node-1: Shadowed")]}});
    stage.change(&format!("{ROUTES}/mine/status"), &shadowed).await;
    stage
        .run(&["migrate", "older-operator", "--dry-run"])
        .expect(0, &["not yet: node-1, node-2", "2. [to do]"]);
    stage
        .run(&["migrate", "older-operator", "--yes"])
        .expect(1, &["our agents must run on every node first"]);
    stage.report(&[("demo", "10.116.0.100"), ("mine", "10.116.0.5")]).await;

    let running = stage.start(&["migrate", "older-operator", "--yes"]);
    let agents = "/apis/apps/v1/namespaces/egress-gateway/daemonsets/egress-agent";
    let arguments = async || {
        let agents = stage.get(agents).await.unwrap();
        agents["spec"]["template"]["spec"]["containers"][0]["args"].to_string()
    };
    let flag = "--remove-leftovers-of-older-operator";
    until("the agents are told to", async || arguments().await.contains(flag).then_some(())).await;
    assert!(stage.get(&format!("{operator}/k8s-staticroute-operator")).await.is_none());
    assert!(arguments().await.contains("--node-name=$(NODE_NAME)"), "the other arguments stay");
    let applied = json!({"status": {"conditions": [condition("Ready", "True", "Applied", "")]}});
    stage.change(&format!("{ROUTES}/mine/status"), &applied).await;
    running.ended().expect(0, &["Done: every StaticRoute is ours and in force."]);
    assert!(!arguments().await.contains(flag));
    stage.run(&["migrate", "older-operator"]).expect(0, &["Nothing is left to do."]);
}
