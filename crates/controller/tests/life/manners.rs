//! The API at its worst: what it says and does not say is told, nothing is changed for it, and all goes on when it is over.

use egress_api::StaticRouteSpec;
use serde_json::{Value, json};

use crate::stage::{Fault, PROJECT, SCOPES, Stage, TOKEN, play, until};

async fn route(stage: &Stage, name: &str) -> StaticRouteSpec {
    stage.route(name).await.unwrap().spec
}

/// Waits until `name` is degraded for this reason.
async fn degraded(stage: &Stage, name: &str, reason: &str, what: &str) {
    until(&format!("{what}: {name} says {reason}"), async || {
        let (_, found, message) = stage.condition(name, "Degraded").await;
        if found == reason { Ok(()) } else { Err(format!("{found}: {message}")) }
    })
    .await;
}

#[test]
fn no_fault_of_the_api_changes_anything_and_each_is_told() {
    play(async |stage| {
        let _controller = stage.controller("a");
        stage.ask_for("demo", 2, json!({})).await;
        stage.whole("demo", 2).await;
        // One that never comes up is looked at by the second, so that faults are found soon.
        stage.world.freeze("10.116.0.102");
        stage.ask_for("slow", 1, json!({})).await;
        until("the slow one has its address", async || {
            let status = stage.status("slow").await;
            let address = status.gateways.first().and_then(|gateway| gateway.private_address.clone());
            if address.as_deref() == Some("10.116.0.102") { Ok(()) } else { Err(format!("{status:?}")) }
        })
        .await;
        let routed = route(&stage, "demo").await;
        let before = stage.cloud.last().await;
        let faults: [(Value, &str); 9] = [
            (json!({"status": 429, "retry_after": 3}), "CloudThrottles"),
            (json!({"status": 503}), "CloudRefused"),
            (json!({"status": 502, "body": "<html><body>Bad Gateway</body></html>"}), "CloudRefused"),
            (json!("reset_before_commit"), "CloudUnreachable"),
            (json!("truncate"), "CloudUnreachable"),
            (json!({"truncate": 30, "honest_length": true}), "CloudUnreachable"),
            (json!({"delay_ms": 30_000}), "CloudUnreachable"),
            (json!({"status": 403}), "CloudForbids"),
            // A token of another team is told that nothing is there.
            (json!({"status": 404}), "TokenOfAnotherTeam"),
        ];
        for (kind, reason) in faults {
            let what = kind.to_string();
            stage.cloud.break_with(Fault { route: "* /v2/**", times: 100_000, kind }).await;
            degraded(&stage, "slow", reason, &what).await;
            let (ready, ..) = stage.condition("demo", "Ready").await;
            assert_eq!((ready.as_str(), &route(&stage, "demo").await), ("True", &routed), "{what}");
            stage.cloud.mend().await;
            until(&format!("{what} is over"), async || {
                let (_, found, message) = stage.condition("slow", "Degraded").await;
                if found == "AsAskedFor" { Ok(()) } else { Err(format!("{found}: {message}")) }
            })
            .await;
        }
        stage.whole("demo", 2).await;
        assert_eq!(stage.cloud.droplets().await.len(), 3);
        let changes = stage.cloud.changes(before).await;
        assert!(
            !changes.iter().any(|line| line.starts_with("DELETE") || line == "POST /v2/droplets"),
            "{changes:?}"
        );
    });
}

#[test]
fn of_each_create_comes_one_droplet_whatever_becomes_of_its_answer() {
    play(async |stage| {
        let _controller = stage.controller("a");
        let kinds = [
            json!({"status": 500, "after_commit": true}),
            json!({"status": 502, "body": "<html><body>Bad Gateway</body></html>", "after_commit": true}),
            json!("truncate"),
            json!({"truncate": 5, "honest_length": true}),
            // Answered when nobody listens any more.
            json!({"delay_ms": 12_000}),
            json!({"create": {"hidden_gets": 3}}),
            json!({"create": {"networks_late": 3_000}}),
        ];
        for kind in &kinds {
            let kind = kind.clone();
            stage.cloud.break_with(Fault { route: "POST /v2/droplets", times: 1, kind }).await;
        }
        for index in 0..kinds.len() {
            stage.ask_for(&format!("gw-{index}"), 1, json!({})).await;
        }
        for index in 0..kinds.len() {
            stage.whole(&format!("gw-{index}"), 1).await;
        }
        let creates = stage.cloud.changes(0).await.iter().filter(|line| *line == "POST /v2/droplets").count();
        assert_eq!((creates, stage.cloud.droplets().await.len()), (kinds.len(), kinds.len()));
    });
}

#[test]
fn a_token_is_exchanged_without_a_restart_and_needs_no_more_than_it_is_documented_to() {
    play(async |stage| {
        let controller = stage.controller("a");
        // Everything that a spec can name in the cloud.
        let droplet = json!({"size": "s-1vcpu-1gb", "image": "debian-12-x64", "sshKeys": ["289794"], "projectID": PROJECT});
        let spec = json!({"droplet": droplet, "publicIP": "ReservedPerGateway"});
        stage.ask_for("demo", 2, spec).await;
        let before = stage.whole("demo", 2).await;

        // Revoked, and then the new one, as people paste it.
        stage.cloud.change_token(json!({"token": "dop_v1_the_next"})).await;
        degraded(&stage, "demo", "TokenRefused", "revoked").await;
        let (ready, ..) = stage.condition("demo", "Ready").await;
        assert_eq!(ready, "True", "the data path does not need a token");
        stage.put(" \n dop_v1_the_next \n").await;
        let after = stage.whole("demo", 2).await;
        assert_eq!(after.gateways[0].droplet_id, before.gateways[0].droplet_id);
        for token in [TOKEN, "dop_v1_the_next"] {
            assert!(!controller.log().contains(token));
        }

        // Through its whole life it asks for what is documented, and for nothing else.
        stage.cloud.act(after.gateways[0].droplet_id, "power_off").await;
        until("it is powered on", async || {
            let changes = stage.cloud.changes(0).await;
            let power = |line: &&String| line.starts_with("POST /v2/droplets/") && line.ends_with("/actions");
            if changes.iter().filter(power).count() >= 2 { Ok(()) } else { Err(format!("{changes:?}")) }
        })
        .await;
        let whole = stage.whole("demo", 2).await;
        let lost = whole.gateways[1].droplet_id;
        stage.cloud.by_hand(reqwest::Method::DELETE, &format!("/v2/droplets/{lost}"), None).await;
        until("another takes its address over", async || {
            let gateways = stage.status("demo").await.gateways;
            let is_lost = gateways.iter().any(|gateway| gateway.droplet_id == lost);
            if is_lost || gateways.len() < 2 { Err(format!("{gateways:#?}")) } else { Ok(()) }
        })
        .await;
        stage.whole("demo", 2).await;
        stage.ask_for("kept", 1, json!({"deletionPolicy": "Retain"})).await;
        stage.whole("kept", 1).await;
        for name in ["demo", "kept"] {
            stage.gateways().delete(name, &kube::api::DeleteParams::default()).await.unwrap();
            stage.gone(name).await;
        }
        let needed = stage.cloud.scopes_needed().await;
        let documented: Vec<&str> = SCOPES.split_whitespace().collect();
        let beyond: Vec<_> = needed.iter().filter(|scope| !documented.contains(&scope.as_str())).collect();
        assert_eq!(beyond, Vec::<&String>::new(), "undocumented");
        let idle: Vec<_> =
            documented.iter().filter(|scope| !needed.iter().any(|used| used == **scope)).collect();
        assert_eq!(idle, Vec::<&&str>::new(), "documented and never asked for");
    });
}

#[test]
fn without_the_scope_to_delete_a_person_is_told_what_to_delete() {
    play(async |stage| {
        let allowed: Vec<&str> =
            SCOPES.split_whitespace().filter(|scope| !scope.ends_with(":delete")).collect();
        stage.cloud.change_token(json!({"scopes": allowed.join(" ")})).await;
        let _controller = stage.controller("a");
        stage.ask_for("demo", 1, json!({})).await;
        let made = stage.whole("demo", 1).await;
        let id = made.gateways[0].droplet_id;
        stage.gateways().delete("demo", &kube::api::DeleteParams::default()).await.unwrap();
        until("the Droplet is named", async || {
            let (_, reason, message) = stage.condition("demo", "Degraded").await;
            let named = message.contains(&format!("({id})")) && message.contains("droplet:delete");
            if reason == "DeleteForbidden" && named { Ok(()) } else { Err(format!("{reason}: {message}")) }
        })
        .await;
        stage.cloud.by_hand(reqwest::Method::DELETE, &format!("/v2/droplets/{id}"), None).await;
        until("the firewall is named", async || {
            let (_, reason, message) = stage.condition("demo", "Degraded").await;
            let named = message.contains("firewall:delete") && message.contains("by hand");
            if reason == "FirewallRefused" && named { Ok(()) } else { Err(format!("{reason}: {message}")) }
        })
        .await;
        for firewall in stage.cloud.firewalls().await {
            let path = format!("/v2/firewalls/{}", firewall["id"].as_str().unwrap());
            stage.cloud.by_hand(reqwest::Method::DELETE, &path, None).await;
        }
        stage.gone("demo").await;
        // What it may do it does.
        stage.ask_for("next", 2, json!({})).await;
        stage.whole("next", 2).await;
    });
}
