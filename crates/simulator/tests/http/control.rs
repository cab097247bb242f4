//! Journal, snapshot and clock.

use do_simulator::clock::Clock;
use serde_json::{Value, json};

use crate::simulator::{Simulator, TOKEN, Wanted, wish};

#[tokio::test]
async fn the_journal_has_every_request_in_order_and_never_the_token() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("journal");
    let simulator = Simulator::with(Wanted { journal: Some(file.clone()), ..Wanted::default() }).await;
    let mut body = wish("gw-0");
    body["user_data"] = json!(format!("#cloud-config\n# {TOKEN}"));
    simulator.call("POST", "/v2/droplets", &body).await;
    simulator.get(&format!("/v2/droplets?name={TOKEN}")).await;
    simulator.get(&format!("/v2/tags/{TOKEN}")).await;

    let text = std::fs::read_to_string(&file).unwrap();
    assert!(!text.contains(TOKEN), "{text}");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines, simulator.journal().await);
    assert_eq!(lines.iter().map(|line| line["seq"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(lines[0]["body"]["name"], "gw-0");
    assert_eq!(lines[1]["status"], 200);
    let after = simulator.get("/simulator/journal?after=2").await.1;
    assert_eq!((after["entries"].as_array().map(Vec::len), &after["last"]), (Some(1), &json!(3)));

    drop(simulator);
    let again = Simulator::with(Wanted { journal: Some(file), ..Wanted::default() }).await;
    again.get("/v2/account").await;
    assert_eq!(again.journal().await[0]["seq"], 4, "numbers go on after a restart");
}

#[tokio::test]
async fn a_machine_that_went_down_by_itself_shows_as_off() {
    let simulator = Simulator::driven().await;
    let id = simulator.droplet("gw-0").await;
    let (machine, path) = (format!("/simulator/droplets/{id}/machine"), format!("/v2/droplets/{id}"));
    assert_eq!(simulator.call("POST", &machine, &json!({"running": false})).await.0, 204);
    assert_eq!(simulator.get(&path).await.1["droplet"]["status"], "off");
    simulator.call("POST", &format!("{path}/actions"), &json!({"type": "power_on"})).await;
    assert_eq!(simulator.call("POST", &machine, &json!({"running": false})).await.0, 409);
    simulator.advance(1_000).await;
    assert_eq!(simulator.get(&path).await.1["droplet"]["status"], "active");
}

#[tokio::test]
async fn a_snapshot_outlives_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let state = Some(folder.path().join("state"));
    let first = Simulator::with(Wanted { state: state.clone(), ..Wanted::default() }).await;
    let id = first.droplet("gw-0").await;
    let before = first.get(&format!("/v2/droplets/{id}")).await;
    assert_eq!(before.1["droplet"]["status"], "active");
    drop(first);
    let second = Simulator::with(Wanted { state, ..Wanted::default() }).await;
    assert_eq!(second.get(&format!("/v2/droplets/{id}")).await, before);
    assert_eq!(second.droplet("gw-1").await, id + 1);
}

#[tokio::test]
async fn the_real_clock_cannot_be_driven_and_runs_by_itself() {
    let simulator = Simulator::with(Wanted { clock: Clock::Real, ..Wanted::default() }).await;
    assert_eq!(simulator.call("POST", "/simulator/clock", &json!({"advance_ms": 1})).await.0, 409);
    let id = simulator.droplet("gw-0").await;
    simulator.until(&format!("/v2/droplets/{id}"), |_, body| body["droplet"]["locked"] == false).await;
    assert_eq!(simulator.call("DELETE", &format!("/v2/droplets/{id}"), &Value::Null).await.0, 204);
    simulator.until(&format!("/v2/droplets/{id}"), |status, _| status == 404).await;
}

#[tokio::test]
async fn a_driven_clock_stands_still() {
    let simulator = Simulator::driven().await;
    let (_, before) = simulator.get("/simulator/clock").await;
    simulator.call("POST", "/v2/droplets", &wish("gw-0")).await;
    assert_eq!(simulator.get("/simulator/clock").await.1, before);
    simulator.advance(1_500).await;
    let (_, after) = simulator.get("/simulator/clock").await;
    assert_eq!(
        (&before["now"], &after["now"]),
        (&json!("2026-01-01T00:00:00Z"), &json!("2026-01-01T00:00:01.5Z"))
    );
}

#[tokio::test]
async fn unknown_paths_and_methods_are_told_apart() {
    let simulator = Simulator::driven().await;
    for path in ["/v2/nothing", "/v2/kubernetes/clusters", "/v2/load_balancers", "/v2/firewalls/1"] {
        assert_eq!(simulator.get(path).await.1["id"], "not_found", "{path}");
    }
    for (method, path) in [
        ("PATCH", "/v2/droplets"),
        ("PATCH", "/v2/account/keys"),
        ("POST", "/v2/vpcs"),
        ("PATCH", "/v2/firewalls"),
        ("POST", "/v2/projects"),
        ("POST", "/v2/reserved_ipv6"),
    ] {
        assert_eq!(simulator.call(method, path, &json!({})).await.0, 405, "{method} {path}");
    }
    let response = simulator.send("POST", "/v2/droplets", &json!([1])).await.unwrap();
    assert_eq!(response.status(), 400);
}

#[tokio::test]
async fn how_long_the_cloud_takes_can_be_changed_while_it_runs() {
    let simulator = Simulator::driven().await;
    let before = simulator.get("/simulator/delays").await.1;
    let (status, after) = simulator.call("POST", "/simulator/delays", &json!({"reserved_ip": 30_000})).await;
    assert_eq!((status, &after["reserved_ip"]), (200, &json!(30_000)));
    assert_eq!(after["action"], before["action"]);
    assert_eq!(simulator.get("/simulator/delays").await.1, after);
    let (status, refused) = simulator.call("POST", "/simulator/delays", &json!({"reserved_up": 1})).await;
    assert!(status == 422 && refused["error"].as_str().unwrap().contains("reserved_up"), "{refused}");
}
