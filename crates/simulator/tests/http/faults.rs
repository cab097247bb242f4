//! Faults as a client sees them, and what they leave in the cloud.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::simulator::{Simulator, wish};

async fn droplets(simulator: &Simulator) -> u64 {
    // One is the fixtures' node.
    simulator.get("/v2/droplets").await.1["meta"]["total"].as_u64().unwrap() - 1
}

#[tokio::test]
async fn a_lost_reply_was_committed_and_a_reset_request_was_not() {
    let simulator = Simulator::driven().await;
    for (kind, expected) in [("reset_before_commit", 0), ("reset_after_commit", 1)] {
        simulator.fault("POST /v2/droplets", Some(1), json!(kind)).await;
        let error = simulator.send("POST", "/v2/droplets", &wish("gw-0")).await.unwrap_err();
        assert!(error.is_request() && !error.is_timeout(), "{kind}: {error:?}");
        assert_eq!(droplets(&simulator).await, expected, "{kind}");
    }
    let creates: Vec<Value> =
        simulator.journal().await.into_iter().filter(|entry| entry["method"] == "POST").collect();
    assert_eq!(creates.len(), 2);
    assert_eq!(creates[0]["committed"], false);
    assert_eq!((&creates[0]["status"], &creates[0]["fault"]), (&Value::Null, &json!("reset_before_commit")));
    assert_eq!(creates[1]["committed"], true);
    assert_eq!((&creates[1]["status"], &creates[1]["fault"]), (&json!(202), &json!("reset_after_commit")));
    assert_eq!(simulator.call("POST", "/v2/droplets", &wish("gw-1")).await.0, 202, "the fault is used up");
}

#[tokio::test]
async fn truncated_answers_break_off_or_lie() {
    let simulator = Simulator::driven().await;
    simulator.fault("GET /v2/account", Some(1), json!("truncate")).await;
    let response = simulator.send("GET", "/v2/account", &Value::Null).await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.text().await.is_err(), "the body ends before its length");

    simulator.fault("GET /v2/account", Some(1), json!({"truncate": 20, "honest_length": true})).await;
    let response = simulator.send("GET", "/v2/account", &Value::Null).await.unwrap();
    let text = response.text().await.unwrap();
    assert_eq!(text.len(), 20);
    assert!(serde_json::from_str::<Value>(&text).is_err());
}

#[tokio::test]
async fn other_statuses_come_with_any_body_before_or_after_the_commit() {
    let simulator = Simulator::driven().await;
    let html = "<html><body>502 Bad Gateway</body></html>";
    simulator.fault("POST /v2/droplets", Some(1), json!({"status": 502, "body": html})).await;
    let response = simulator.send("POST", "/v2/droplets", &wish("gw-0")).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["content-type"]),
        (502, &"text/html".parse().unwrap())
    );
    assert_eq!(response.text().await.unwrap(), html);
    assert_eq!(droplets(&simulator).await, 0);

    simulator.fault("POST /v2/droplets", Some(1), json!({"status": 504, "after_commit": true})).await;
    assert_eq!(simulator.call("POST", "/v2/droplets", &wish("gw-0")).await.0, 504);
    assert_eq!(droplets(&simulator).await, 1);

    simulator.fault("* /v2/**", Some(1), json!({"status": 429, "retry_after": 7})).await;
    let response = simulator.send("GET", "/v2/droplets", &Value::Null).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["retry-after"]),
        (429, &"7".parse().unwrap())
    );
}

#[tokio::test]
async fn slow_answers_take_their_time_and_others_do_not_wait_for_them() {
    let simulator = Simulator::driven().await;
    simulator.fault("GET /v2/account", Some(1), json!({"delay_ms": 400})).await;
    let started = Instant::now();
    let none = Value::Null;
    let slow = simulator.send("GET", "/v2/account", &none);
    let (slow, quick) = tokio::join!(slow, async {
        // Ordered by the journal, not by luck: the slow request must have been decided first.
        while simulator.journal().await.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(simulator.get("/v2/account").await.0, 200);
        started.elapsed()
    });
    assert_eq!(slow.unwrap().status(), 200);
    assert!(started.elapsed() >= Duration::from_millis(400));
    assert!(quick < Duration::from_millis(400), "{quick:?}");
}

#[tokio::test]
async fn a_droplet_can_vanish_after_it_was_accepted() {
    let simulator = Simulator::driven().await;
    simulator.fault("POST /v2/droplets", Some(1), json!({"create": {"vanish": 200}})).await;
    let (status, body) = simulator.call("POST", "/v2/droplets", &wish("gw-0")).await;
    assert_eq!(status, 202);
    let path = format!("/v2/droplets/{}", body["droplet"]["id"]);
    assert_eq!(simulator.get(&path).await.0, 200);
    simulator.advance(200).await;
    assert_eq!(simulator.get(&path).await.0, 404);
}

#[tokio::test]
async fn faults_can_be_listed_and_taken_back() {
    let simulator = Simulator::driven().await;
    simulator.fault("* /v2/**", None, json!({"status": 500})).await;
    for _ in 0..3 {
        assert_eq!(simulator.get("/v2/account").await.0, 500);
    }
    assert_eq!(simulator.get("/simulator/faults").await.1["faults"].as_array().map(Vec::len), Some(1));
    assert_eq!(simulator.call("DELETE", "/simulator/faults", &Value::Null).await.0, 204);
    assert_eq!(simulator.get("/v2/account").await.0, 200);
}

#[tokio::test]
async fn of_a_list_with_a_fault_that_could_never_strike_none_is_taken() {
    let simulator = Simulator::driven().await;
    let list =
        json!([{"route": "GET /v2/account", "kind": {"status": 500}}, {"route": "POST", "kind": "truncate"}]);
    let (status, body) = simulator.call("POST", "/simulator/faults", &list).await;
    let error = r#"[1].route: "POST": write a method and a path, like "POST /v2/droplets""#;
    assert_eq!((status, body), (422, json!({"error": error})));
    assert_eq!(simulator.get("/v2/account").await.0, 200);
}

#[tokio::test]
async fn a_request_that_is_held_back_is_shown_and_goes_with_who_sent_it() {
    let simulator = Simulator::driven().await;
    let held = async || simulator.get("/simulator/held").await.1["held"].clone();
    let kind = json!({"delay_ms": 3_600_000, "before_commit": true});
    simulator.fault("POST /v2/droplets", Some(1), kind).await;
    let wish = wish("gw-0");
    let mut sent = Box::pin(simulator.send("POST", "/v2/droplets", &wish));
    let deadline = Instant::now() + Duration::from_secs(20);
    while held().await != json!(["POST /v2/droplets"]) {
        assert!(Instant::now() < deadline, "{}", held().await);
        tokio::select! {
            _ = &mut sent => panic!("it was answered"),
            () = tokio::time::sleep(Duration::from_millis(20)) => {}
        }
    }
    drop(sent);
    while held().await != json!([]) {
        assert!(Instant::now() < deadline, "{}", held().await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(droplets(&simulator).await, 0);
}
