//! The API token is in its Secret and nowhere else (I10).

use std::process::Command;

use serde_json::json;

use crate::stage::{Fault, TOKEN, play, until};

/// What the controller serves at its admin address, whatever port it got.
async fn metrics() -> String {
    let listening = Command::new("ss").args(["-ltnHp"]).output().unwrap();
    let listening = String::from_utf8(listening.stdout).unwrap();
    let line = listening.lines().find(|line| line.contains("egress-controll")).expect("an admin server");
    let address = line.split_whitespace().nth(3).unwrap();
    let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
    http.get(format!("http://{address}/metrics")).send().await.unwrap().text().await.unwrap()
}

#[test]
fn the_token_is_in_no_object_event_log_metric_or_user_data() {
    play(async |stage| {
        let controller = stage.controller("a");
        stage.ask_for("demo", 2, json!({})).await;
        stage.whole("demo", 2).await;
        // The worst that the cloud can say: the token itself, in the words of a refusal that people are to read.
        let body = json!({"id": "unprocessable_entity", "message": format!("no Droplet for {TOKEN} today")});
        let kind = json!({"status": 422, "body": body});
        stage.cloud.break_with(Fault { route: "POST /v2/droplets", times: 100, kind }).await;
        stage.ask_for("refused", 1, json!({})).await;
        until("the refusal is told", async || {
            let (_, reason, message) = stage.condition("refused", "Degraded").await;
            if reason == "CreateRefused" && message.contains("no Droplet for") {
                Ok(())
            } else {
                Err(message)
            }
        })
        .await;

        let objects = stage.every_object();
        let cloud = stage.cloud.get("/simulator/state").await.to_string();
        for (what, text, known) in [
            ("objects and events", &objects, "CreateRefused"),
            ("user data", &cloud, "#cloud-config"),
            ("log", &controller.log(), "no Droplet for"),
            ("metrics", &metrics().await, "egress_controller_"),
        ] {
            assert!(text.contains(known), "{what} were not searched: {text}");
            let found = text.find(TOKEN).map(|at| &text[at.saturating_sub(200)..at + TOKEN.len()]);
            assert_eq!(found, None, "{what}");
        }
        assert!(
            objects.contains("kind: Event") && objects.contains("kind: NodeEgress"),
            "what there is was read"
        );
    });
}
