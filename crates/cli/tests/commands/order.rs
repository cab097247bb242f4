//! `failover`, `drain`, `uncordon`.

use serde_json::{Value, json};

use crate::objects::GATEWAYS;
use crate::stage::{Stage, until};

async fn annotation(stage: &Stage, key: &str) -> Value {
    let object = stage.get(&format!("{GATEWAYS}/demo")).await.unwrap();
    object["metadata"]["annotations"][format!("networking.digitalocean.com/{key}")].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moves_are_wished_for_by_annotations() {
    let stage = &Stage::furnished().await;
    stage
        .run(&["failover", "demo", "--dry-run"])
        .expect(0, &["demo-1-x is to come first: the egress address becomes 203.0.113.101"]);
    stage.run(&["failover", "demo"]).expect(1, &["nobody is there to be asked"]);
    assert_eq!(annotation(stage, "preferred-gateway").await, Value::Null);
    stage
        .run(&["failover", "demo", "--yes", "--timeout", "0"])
        .expect(1, &["has not ordered the gateways yet", "not within 0 s"]);
    assert_eq!(annotation(stage, "preferred-gateway").await, "demo-1-x");

    // Once more, and controller and nodes follow.
    stage.run(&["failover", "demo", "--back"]).expect(0, &["demo-1-x is not preferred any more"]);
    let running = stage.start(&["failover", "demo", "--to", "demo-1-x", "--yes"]);
    until("the wish is written", async || {
        (annotation(stage, "preferred-gateway").await == "demo-1-x").then_some(())
    })
    .await;
    stage.change(&format!("{GATEWAYS}/demo/status"), &json!({"status": {"active": "demo-1-x"}})).await;
    stage.report(&[("demo", "10.116.0.101"), ("mine", "10.116.0.5")]).await;
    running.ended().expect(0, &["demo-1-x comes first, and every node uses it"]);

    stage.run(&["drain", "demo", "demo-0-x", "--yes", "--no-wait"]).expect(0, &[]);
    assert_eq!(annotation(stage, "drained-gateways").await, "demo-0-x");
    stage.run(&["drain", "demo", "demo-1-x", "--yes"]).expect(1, &["nodes would keep demo-1-x"]);
    stage.run(&["failover", "demo", "--to", "demo-0-x", "--yes"]).expect(1, &["demo-0-x is drained"]);
    stage.run(&["uncordon", "demo", "demo-0-x"]).expect(0, &["demo-0-x may be used again"]);
    assert_eq!(annotation(stage, "drained-gateways").await, Value::Null);
    stage.run(&["failover", "demo", "--back"]).expect(0, &[]);
    stage.run(&["failover", "nobody", "--yes"]).expect(1, &["EgressGateway nobody"]);
    stage.change(&format!("{GATEWAYS}/demo/status"), &json!({"status": {"active": "demo-0-x"}})).await;
    stage.report(&[("demo", "10.116.0.100"), ("mine", "10.116.0.5")]).await;
}
