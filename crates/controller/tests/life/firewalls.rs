//! The cloud firewall around a pair: made, kept and taken away; without it everything else works.

use std::time::Duration;

use egress_api::EgressGatewayStatus;
use kube::api::DeleteParams;
use reqwest::Method;
use serde_json::{Value, json};

use crate::stage::{Fault, Stage, play, until};

const KEEN: [&str; 1] = ["--firewall-age-seconds=5"];

fn of_firewalls(changes: &[String], method: &str) -> usize {
    changes.iter().filter(|line| line.starts_with(&format!("{method} /v2/firewalls"))).count()
}

/// The one firewall with our name, as the API shows it.
async fn ours(stage: &Stage, status: &EgressGatewayStatus) -> Value {
    let recorded = status.firewall.clone().expect("a firewall is recorded");
    let mut named = stage.cloud.firewalls().await;
    named.retain(|firewall| firewall["name"] == recorded.name.as_str());
    assert_eq!(named.len(), 1, "{named:#?}");
    assert_eq!(named[0]["id"].as_str(), recorded.id.as_deref());
    named.remove(0)
}

async fn made_by_hand(stage: &Stage, name: &str, droplet: u64) -> Value {
    let rule = json!({"protocol": "tcp", "ports": "22", "sources": {"addresses": ["0.0.0.0/0"]}});
    let body = json!({"name": name, "droplet_ids": [droplet], "inbound_rules": [rule]});
    stage.cloud.by_hand(Method::POST, "/v2/firewalls", Some(body)).await["firewall"].clone()
}

#[test]
fn a_firewall_is_made_once_although_the_answer_is_lost_kept_as_it_is_to_be_and_taken_away_last() {
    play(async |stage| {
        let _controller = stage.controller_with("a", &KEEN);
        let foreign = made_by_hand(&stage, "web", 501).await;
        let lost = Fault { route: "POST /v2/firewalls", times: 1, kind: json!("reset_after_commit") };
        stage.cloud.break_with(lost).await;
        stage.ask_for("demo", 2, json!({})).await;
        let status = stage.whole("demo", 2).await;
        let firewall = ours(&stage, &status).await;
        assert_eq!(
            of_firewalls(&stage.cloud.changes(0).await, "POST"),
            2,
            "one by hand, one by the controller"
        );
        assert_eq!(firewall["tags"], json!([]), "by id, not by tag");

        drift_is_repaired(&stage, &firewall).await;

        // A replacement takes the place of the one that is gone, with its address.
        let gone = status.gateways[0].droplet_id;
        stage.cloud.by_hand(Method::DELETE, &format!("/v2/droplets/{gone}"), None).await;
        until("another is there", async || {
            let status = stage.status("demo").await;
            let there = status.gateways.iter().any(|gateway| gateway.droplet_id == gone);
            if there || status.gateways.len() < 2 { Err(format!("{status:#?}")) } else { Ok(()) }
        })
        .await;
        let status = stage.whole("demo", 2).await;

        let calls = stage.cloud.last().await;
        stage.gateways().delete("demo", &DeleteParams::default()).await.unwrap();
        stage.gone("demo").await;
        let changes = stage.cloud.changes(calls).await;
        let id = status.firewall.unwrap().id.unwrap();
        assert_eq!(changes.last(), Some(&format!("DELETE /v2/firewalls/{id}")), "{changes:?}");
        let left = stage.cloud.firewalls().await;
        assert_eq!(left.len(), 1, "{left:#?}");
        for key in ["id", "name", "droplet_ids", "inbound_rules"] {
            assert_eq!(left[0][key], foreign[key], "nobody else's firewall was touched");
        }
    });
}

async fn drift_is_repaired(stage: &Stage, firewall: &Value) {
    let id = firewall["id"].as_str().unwrap();
    let path = format!("/v2/firewalls/{id}");
    let open = json!({"protocol": "tcp", "ports": "22", "sources": {"addresses": ["0.0.0.0/0"]}});
    let mut opened = firewall["inbound_rules"].as_array().unwrap().clone();
    opened.push(open);
    let mut wide = json!({"name": firewall["name"], "droplet_ids": firewall["droplet_ids"]});
    wide["inbound_rules"] = json!(opened);
    wide["outbound_rules"] = firewall["outbound_rules"].clone();
    let mut short = firewall.clone();
    short["droplet_ids"] = json!([firewall["droplet_ids"][0]]);
    for drifted in [wide, short] {
        let before = stage.cloud.last().await;
        stage.cloud.by_hand(Method::PUT, &path, Some(drifted.clone())).await;
        until("the firewall is what it was", async || {
            // The first one is ours.
            let puts = of_firewalls(&stage.cloud.changes(before).await, "PUT");
            if puts == 2 { Ok(()) } else { Err(format!("{puts} updates after {drifted}")) }
        })
        .await;
        stage.whole("demo", 2).await;
    }
    stage.cloud.by_hand(Method::DELETE, &path, None).await;
    until("there is another", async || {
        let recorded = stage.status("demo").await.firewall.and_then(|firewall| firewall.id);
        if recorded.as_deref().is_some_and(|recorded| recorded != id) {
            Ok(())
        } else {
            Err(format!("{recorded:?}"))
        }
    })
    .await;
    let status = stage.whole("demo", 2).await;
    ours(stage, &status).await;
}

async fn says(stage: &Stage, reason: &str, words: &[&str]) {
    until(&format!("Degraded says {reason}"), async || {
        let (status, found, message) = stage.condition("demo", "Degraded").await;
        let said = status == "True" && found == reason && words.iter().all(|word| message.contains(word));
        if said { Ok(()) } else { Err(format!("{status} {found}: {message}")) }
    })
    .await;
}

async fn works(stage: &Stage) {
    until("egress works", async || {
        let status = stage.status("demo").await;
        let (ready, ..) = stage.condition("demo", "Ready").await;
        if ready == "True" && status.gateways_ready.as_deref() == Some("2/2") {
            Ok(())
        } else {
            Err(format!("{status:#?}"))
        }
    })
    .await;
}

#[test]
fn without_an_answer_the_scopes_or_the_name_egress_works_and_the_condition_says_what_to_do() {
    play(async |stage| {
        let uid = stage.ask_for("demo", 2, json!({})).await;
        let foreign = made_by_hand(&stage, &format!("demo-{uid}"), 501).await;
        let body = json!({"id": "forbidden", "message": "You are not authorized to perform this operation"});
        let forbidden =
            |route| Fault { route, times: 10_000, kind: json!({"status": 403, "body": body.clone()}) };
        let hangs = Fault { route: "GET /v2/firewalls", times: 10_000, kind: json!({"delay_ms": 60_000}) };
        stage.cloud.break_with(hangs).await;
        let zeroth = stage.controller_with("0", &KEEN);
        works(&stage).await;
        says(&stage, "FirewallsUnknown", &["not within 5 s"]).await;
        drop(zeroth);
        stage.cloud.mend().await;

        stage.cloud.break_with(forbidden("* /v2/firewalls")).await;
        let first = stage.controller_with("a", &KEEN);
        says(
            &stage,
            "FirewallsForbidden",
            &["firewall:read", "firewall:create", "firewall:update", "firewall:delete"],
        )
        .await;
        let before = stage.cloud.last().await;
        tokio::time::sleep(Duration::from_secs(8)).await;
        let asked = stage.cloud.journal(before).await;
        let asked = asked.iter().filter(|line| line.contains("/v2/firewalls")).count();
        assert!(asked <= 1, "a refused list is asked for {asked} times in 8 s");
        stage.cloud.mend().await;
        // A new process asks at once.
        drop(first);

        let second = stage.controller_with("b", &KEEN);
        let id = foreign["id"].as_str().unwrap();
        says(&stage, "FirewallNotProvablyOurs", &[id, "501", "rename or delete it"]).await;
        works(&stage).await;
        assert_eq!(of_firewalls(&stage.cloud.changes(0).await, "POST"), 1, "ours would have its name");
        assert_eq!(of_firewalls(&stage.cloud.changes(0).await, "PUT"), 0);

        stage.cloud.break_with(forbidden("POST /v2/firewalls")).await;
        stage.cloud.by_hand(Method::DELETE, &format!("/v2/firewalls/{id}"), None).await;
        says(&stage, "FirewallRefused", &["firewall:create"]).await;
        works(&stage).await;
        let told = stage.told().await;
        assert!(!told.contains(&"FirewallCreated".to_owned()), "it was refused: {told:?}");
        stage.cloud.mend().await;
        drop(second);
        // What was refused rests for minutes, but not when the spec changes.
        let _third = stage.controller_with("c", &KEEN);
        let change = json!({"spec": {"drainSeconds": 301}});
        let merge = kube::api::Patch::Merge(change);
        stage.gateways().patch("demo", &kube::api::PatchParams::default(), &merge).await.unwrap();
        stage.whole("demo", 2).await;
    });
}
