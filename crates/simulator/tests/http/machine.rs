//! The machine command, as docs/architecture.md describes it.

use std::fmt::Write as _;

use do_simulator::clock::Clock;
use serde_json::{Value, json};

use crate::simulator::{Simulator, Wanted};

/// A command that writes down verb, id and name, and fails while the file `fail-<verb>` exists.
fn command(folder: &std::path::Path) -> String {
    let script = folder.join("machine.sh");
    let mut text = String::from("input=$(cat)\n");
    let _ = writeln!(text, "printf '%s %s %s\\n' $1 $2 \"$input\" >> {}/calls", folder.display());
    let _ = writeln!(text, "test ! -e {}/fail-$1", folder.display());
    std::fs::write(&script, text).unwrap();
    format!("sh {}", script.display())
}

fn calls(folder: &std::path::Path) -> Vec<(String, u64, Value)> {
    let text = std::fs::read_to_string(folder.join("calls")).unwrap_or_default();
    text.lines()
        .map(|line| {
            let mut words = line.splitn(3, ' ');
            let verb = words.next().unwrap().to_owned();
            let id = words.next().unwrap().parse().unwrap();
            (verb, id, serde_json::from_str(words.next().unwrap()).unwrap())
        })
        .collect()
}

async fn with_machines(folder: &std::path::Path) -> Simulator {
    let machine_command = Some(command(folder));
    Simulator::with(Wanted { clock: Clock::Real, machine_command, ..Wanted::default() }).await
}

#[tokio::test]
async fn every_event_of_a_machine_reaches_the_command() {
    let folder = tempfile::tempdir().unwrap();
    let simulator = with_machines(folder.path()).await;
    let id = simulator.droplet("gw-0").await;
    let path = format!("/v2/droplets/{id}");
    simulator.until(&path, |_, body| body["droplet"]["locked"] == false).await;
    for kind in ["power_off", "power_on", "reboot", "shutdown"] {
        assert_eq!(
            simulator.call("POST", &format!("{path}/actions"), &json!({"type": kind})).await.0,
            201,
            "{kind}"
        );
        simulator.until(&path, |_, body| body["droplet"]["locked"] == false).await;
    }
    assert_eq!(simulator.call("DELETE", &path, &Value::Null).await.0, 204);
    simulator.until(&path, |status, _| status == 404).await;

    let calls = calls(folder.path());
    let verbs: Vec<&str> = calls.iter().map(|(verb, ..)| verb.as_str()).collect();
    assert_eq!(verbs, ["boot", "power-off", "boot", "shutdown", "boot", "shutdown", "destroy"]);
    assert!(calls.iter().all(|(_, called, machine)| *called == id && machine["id"] == id));
    let machine = &calls[0].2;
    assert_eq!(machine["user_data"], "#cloud-config\n");
    assert_eq!(machine["public"]["address"], "127.1.0.100");
    assert_eq!(machine["private"]["prefix"], 20);
    assert_eq!(machine["anchor"]["gateway"], "127.3.0.1");
    assert_eq!(machine["image"], "debian-12-x64");
}

#[tokio::test]
async fn a_failed_command_is_an_errored_action() {
    let folder = tempfile::tempdir().unwrap();
    let simulator = with_machines(folder.path()).await;
    let id = simulator.droplet("gw-0").await;
    let path = format!("/v2/droplets/{id}");
    simulator.until(&path, |_, body| body["droplet"]["locked"] == false).await;
    std::fs::write(folder.path().join("fail-power-off"), "").unwrap();
    let (_, action) = simulator.call("POST", &format!("{path}/actions"), &json!({"type": "power_off"})).await;
    let action = format!("/v2/actions/{}", action["action"]["id"]);
    let body = simulator.until(&action, |_, body| body["action"]["status"] != "in-progress").await;
    assert_eq!(body["action"]["status"], "errored");
    assert_eq!(simulator.get(&path).await.1["droplet"]["status"], "active");

    std::fs::write(folder.path().join("fail-boot"), "").unwrap();
    let id = simulator.droplet("gw-1").await;
    simulator.until(&format!("/v2/droplets/{id}"), |status, _| status == 404).await;
}

#[tokio::test]
async fn droplets_of_the_fixtures_have_no_machine() {
    let folder = tempfile::tempdir().unwrap();
    let simulator = with_machines(folder.path()).await;
    let path = "/v2/droplets/412345601";
    assert_eq!(simulator.call("DELETE", path, &Value::Null).await.0, 204);
    simulator.until(path, |status, _| status == 404).await;
    assert!(calls(folder.path()).is_empty());
}

#[tokio::test]
async fn a_firewall_reaches_the_command_for_every_droplet_and_acts_when_it_was_taken() {
    let folder = tempfile::tempdir().unwrap();
    let simulator = with_machines(folder.path()).await;
    let id = 412_345_601_u64;
    let refuses = folder.path().join("fail-firewall");
    std::fs::write(&refuses, "").unwrap();
    let wanted = json!({"name": "wall", "droplet_ids": [id], "inbound_rules": [
        {"protocol": "tcp", "ports": "22", "sources": {"addresses": ["192.0.2.1"]}}]});
    let (_, made) = simulator.call("POST", "/v2/firewalls", &wanted).await;
    let path = format!("/v2/firewalls/{}", made["firewall"]["id"].as_str().unwrap());
    let acting = format!("/simulator/droplets/{id}/firewall");
    simulator.until(&acting, |_, body| !body["rules"].is_null()).await;
    simulator.until("/v2/account", |_, _| !calls(folder.path()).is_empty()).await;
    assert_eq!(simulator.get(&path).await.1["firewall"]["status"], "waiting");
    std::fs::remove_file(refuses).unwrap();
    simulator.until(&path, |_, body| body["firewall"]["status"] == "succeeded").await;

    assert_eq!(simulator.call("DELETE", &path, &Value::Null).await.0, 204);
    simulator.until(&acting, |_, body| body["rules"].is_null()).await;
    simulator
        .until("/v2/account", |_, _| {
            calls(folder.path()).last().is_some_and(|call| call.2["rules"].is_null())
        })
        .await;
    let calls = calls(folder.path());
    assert!(calls.iter().all(|(verb, called, _)| verb == "firewall" && *called == id), "{calls:?}");
    let passes = json!({"inbound": [{"protocol": "tcp", "ports": "22", "addresses": ["192.0.2.1/32"]}], "outbound": []});
    assert_eq!(calls[0].2, json!({"id": id, "rules": passes}));
}
