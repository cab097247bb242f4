//! What a token may do, as DigitalOcean's description says it.

use do_simulator::scope;
use serde_json::{Value, json};

use crate::contract::{IMPLEMENTED, folder};
use crate::simulator::{OPERATOR_TOKEN, Simulator, Wanted};

#[test]
fn every_call_needs_the_scopes_of_its_operation() {
    let Some(folder) = folder() else { return };
    let text = std::fs::read_to_string(folder.join("openapi.strict.json")).unwrap();
    let description: Value = serde_json::from_str(&text).unwrap();
    let mut judged = 0;
    for (path, operations) in description["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let Some(id) = operation["operationId"].as_str() else { continue };
            let called = path.replace(['{', '}'], "");
            let needed = scope::of_call(&method.to_uppercase(), &called);
            if !IMPLEMENTED.contains(&id) && needed.is_empty() {
                continue;
            }
            assert_eq!(json!(needed), operation["security"][0]["bearer_auth"], "{method} {path}");
            judged += 1;
        }
    }
    assert!(judged >= IMPLEMENTED.len());
}

#[tokio::test]
async fn a_call_without_its_scope_is_refused_and_changes_nothing() {
    let scopes = "firewall:read,droplet:read".parse().unwrap();
    let simulator = Simulator::with(Wanted { scopes, ..Wanted::default() }).await;
    let refused = json!({"id": "forbidden", "message": "You are not authorized to perform this operation."});
    let body = json!({"name": "wall", "inbound_rules": [
        {"protocol": "tcp", "ports": "22", "sources": {"addresses": ["192.0.2.1"]}}]});
    assert_eq!(simulator.call("POST", "/v2/firewalls", &body).await, (403, refused.clone()));
    assert_eq!(simulator.get("/v2/tags").await, (403, refused));
    let (status, listed) = simulator.get("/v2/firewalls").await;
    assert_eq!((status, &listed["meta"]["total"]), (200, &json!(0)));
    let (status, droplet) = simulator.get("/v2/droplets/412345601").await;
    assert_eq!((status, &droplet["droplet"]["tags"]), (200, &Value::Null), "tags are read with tag:read");
    assert!(!droplet["droplet"]["name"].is_null());
}

#[tokio::test]
async fn the_operators_token_may_do_everything_and_the_other_can_be_exchanged() {
    let scopes = "droplet:read".parse().unwrap();
    let simulator = Simulator::with(Wanted { scopes, ..Wanted::default() }).await;
    let tag = json!({"name": "by-hand"});
    let status = |answer: reqwest::Result<reqwest::Response>| answer.unwrap().status().as_u16();
    assert_eq!(simulator.call("POST", "/v2/tags", &tag).await.0, 403);
    assert_eq!(status(simulator.send_as(OPERATOR_TOKEN, "POST", "/v2/tags", &tag).await), 201);
    let (_, told) = simulator.get("/simulator/token").await;
    assert_eq!(told, json!({"needed": ["tag:create"]}), "what the operator needs is nobody's business");

    let change = json!({"token": "dop_v1_new", "scopes": "tag:create"});
    assert_eq!(simulator.call("POST", "/simulator/token", &change).await.0, 204);
    assert_eq!(simulator.call("POST", "/v2/tags", &tag).await.0, 401, "the former one");
    let secret = json!({"name": "dop_v1_new"});
    assert_eq!(status(simulator.send_as("dop_v1_new", "POST", "/v2/tags", &secret).await), 201);
    assert_eq!(status(simulator.send_as("dop_v1_new", "GET", "/v2/droplets", &Value::Null).await), 403);
    let journal = simulator.journal().await;
    assert_eq!(journal.iter().filter(|entry| entry["body"]["name"] == "[token]").count(), 1, "{journal:?}");
}
