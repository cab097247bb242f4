//! `status` and `trace`.

use serde_json::{Value, json};

use crate::objects::{GATEWAYS, ROUTES, condition};
use crate::stage::{Stage, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_without_definitions_and_one_without_objects() {
    let stage = Stage::set().await;
    stage
        .run(&["status"])
        .expect(2, &["EgressGateways: CannotRead", "kubectl apply --server-side -f crds.yaml"]);
    stage.run(&["trace", "192.0.2.1"]).expect(2, &["can't be read"]);
    stage.define().await;
    stage.run(&["status"]).expect(0, &["There is no EgressGateway and no StaticRoute."]);
    stage.run(&["status", "nobody"]).expect(2, &["no EgressGateway or StaticRoute is called nobody"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_says_what_is_wrong_first_and_by_its_exit_code() {
    let stage = Stage::furnished().await;
    let well = stage.run(&["status"]);
    well.expect(
        0,
        &[
            "All is well.",
            "203.0.113.100,203.0.113.101",
            "demo-1-x",
            "Standby",
            "2 nodes: 2 Ready, 2 of them report",
        ],
    );
    assert!(well.out.starts_with("All is well."), "{well:#?}");
    let ready = |status: &str, message: &str| json!({"status": {"conditions": [condition("Ready", status, "NodesFailed", message)]}});
    stage.change(&format!("{ROUTES}/mine/status"), &ready("False", "node-1: GatewayNotOnLink")).await;
    let wrong = stage.run(&["status"]);
    wrong
        .expect(1, &["1 thing is wrong.\n  WRONG   StaticRoute mine: NodesFailed: node-1: GatewayNotOnLink"]);
    stage.run(&["status", "demo"]).expect(0, &["All is well."]);
    stage.run(&["status", "mine"]).expect(1, &[]);
    let told = stage.run(&["status", "-o", "json"]).json();
    assert_eq!(
        (&told["level"], &told["findings"][0]["reason"]),
        (&json!("wrong"), &json!("NodesFailed")),
        "{told}"
    );
    assert_eq!(told["egressGateways"][0]["gateways"][1]["state"], "Standby", "{told}");
    stage.run(&["status", "-o", "yaml"]).expect(1, &["level: wrong"]);
    stage.change(&format!("{ROUTES}/mine/status"), &ready("True", "2 of 2 nodes have every route")).await;

    // The controller has not looked at the latest version.
    let changed = stage.change(&format!("{GATEWAYS}/demo"), &json!({"spec": {"drainSeconds": 5}})).await;
    stage.run(&["status"]).expect(2, &["UNKNOWN EgressGateway demo: NotObserved"]);
    let observed = json!({"status": {"observedGeneration": changed["metadata"]["generation"]}});
    stage.change(&format!("{GATEWAYS}/demo/status"), &observed).await;
    stage.run(&["status"]).expect(0, &[]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trace_answers_for_nodes_and_pods() {
    let stage = Stage::furnished().await;
    // Names are looked up elsewhere: there is no resolver here.
    let labels = json!({"a": "b"});
    let container = json!({"name": "egress-agent", "image": "a", "args": ["--protected-names="]});
    let daemonset = json!({"metadata": {"name": "egress-agent"}, "spec": {"selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}}}});
    stage.make("/apis/apps/v1/namespaces/egress-gateway/daemonsets", &daemonset).await;

    let way = |told: &Value, answer: usize| told["answers"][answer]["way"].clone();
    let all = stage.run(&["trace", "8.8.8.8", "-o", "json"]);
    all.expect(0, &[]);
    let all = all.json();
    assert_eq!(all["answers"].as_array().unwrap().len(), 1, "both nodes answer alike: {all}");
    assert_eq!(way(&all, 0)["gateways"][0]["publicAddress"], "203.0.113.100", "{all}");
    assert_eq!(way(&all, 0)["staticRoute"], "demo");
    stage
        .run(&["trace", "192.0.2.7", "--node", "node-2"])
        .expect(0, &["node node-2: leaves through gateway 10.116.0.5, by StaticRoute mine"]);
    stage
        .run(&["trace", "198.51.100.7", "--node", "node-1"])
        .expect(0, &["leaves out 198.51.100.0/24", "seen as  203.0.113.11, the node's own"]);
    stage.run(&["trace", "localhost"]).expect(0, &["protected: loopback"]);
    stage.run(&["trace", "2001:db8::1"]).expect(2, &["IPv6"]);
    stage.run(&["trace", "8.8.8.8", "--node", "nobody"]).expect(2, &["there is no node nobody"]);

    // What only the API server's own objects tell: where it is, and which addresses Services have.
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes";
    let slice = until("the endpoints of Service kubernetes", async || stage.get(slices).await).await;
    let address = slice["endpoints"][0]["addresses"][0].as_str().unwrap();
    let reason = if address.starts_with("127.") { "protected: loopback" } else { "protected: " };
    stage.run(&["trace", address]).expect(0, &[reason]);
    stage.run(&["trace", "10.245.3.4"]).expect(0, &["10.245.0.0/16, which is protected: services"]);
    stage
        .make(
            "/api/v1/namespaces/egress-gateway/configmaps",
            &json!({"metadata": {"name": "egress-protected"}, "data": {"ranges": "9.9.9.0/24"}}),
        )
        .await;
    stage
        .run(&["trace", "9.9.9.9"])
        .expect(0, &["9.9.9.0/24, which is protected: the list of protected ranges and names"]);

    let pod = json!({"metadata": {"name": "web"}, "spec": {"nodeName": "node-2", "hostNetwork": true, "containers": [{"name": "a", "image": "a"}]}});
    stage.make("/api/v1/namespaces/default/pods", &pod).await;
    stage.run(&["trace", "8.8.8.8", "--pod", "default/web"]).expect(
        0,
        &[
            "pod default/web runs on node-2 with the node's own network",
            "8.8.8.8 from node node-2: leaves through gateway demo-0-x",
        ],
    );
    stage.run(&["trace", "8.8.8.8", "--pod", "default/nobody"]).expect(2, &["pod default/nobody"]);

    // A node has failed over by itself, the other not: two answers.
    let report = "/apis/networking.digitalocean.com/v1alpha1/nodeegresses/node-2";
    let mut routes = stage.get(report).await.unwrap()["status"]["routes"].clone();
    let demo = routes.as_array_mut().unwrap().iter_mut().find(|one| one["name"] == "demo").unwrap();
    demo["gateway"] = json!("10.116.0.101");
    stage.change(&format!("{report}/status"), &json!({"status": {"routes": routes}})).await;
    stage.run(&["trace", "8.8.8.8"]).expect(0, &["seen as  203.0.113.100", "seen as  203.0.113.101"]);
    routes.as_array_mut().unwrap().iter_mut().for_each(|one| one["noGateway"] = json!(true));
    stage.change(&format!("{report}/status"), &json!({"status": {"routes": routes}})).await;
    stage.run(&["trace", "8.8.8.8"]).expect(1, &[]);
    stage.report(&[("demo", "10.116.0.100"), ("mine", "10.116.0.5")]).await;
}
