//! A pair with reserved addresses: made, kept over a replacement, given back; what the user gives and what is to stay stays.

use egress_api::EgressGatewayStatus;
use kube::api::{DeleteParams, Patch, PatchParams};
use reqwest::Method;
use serde_json::json;

use crate::stage::{Fault, Stage, play, until};

const KEEN: [&str; 1] = ["--reserved-ip-age-seconds=5"];

/// What the gateways leave with, as the cloud has it, is what is promised.
async fn promised(stage: &Stage, status: &EgressGatewayStatus) -> Vec<String> {
    let all = stage.cloud.reserved_ips().await;
    let holds = |id: i64| all.iter().find(|(_, holder)| *holder == u64::try_from(id).ok()).map(|(ip, _)| ip);
    let mut held: Vec<&String> =
        status.gateways.iter().map(|gateway| holds(gateway.droplet_id).expect("an address")).collect();
    held.sort_unstable();
    assert_eq!(held, status.public_ips.iter().collect::<Vec<_>>(), "{status:#?}");
    status.public_ips.clone()
}

async fn of_addresses(stage: &Stage, after: u64, method: &str) -> usize {
    let changes = stage.cloud.changes(after).await;
    changes.iter().filter(|line| line.starts_with(method) && line.contains(" /v2/reserved_ips")).count()
}

async fn replaced(stage: &Stage, gone: i64) -> EgressGatewayStatus {
    until("another is there", async || {
        let status = stage.status("demo").await;
        let there = status.gateways.iter().any(|gateway| gateway.droplet_id == gone);
        if there || status.gateways.len() < 2 { Err(format!("{status:#?}")) } else { Ok(()) }
    })
    .await;
    stage.whole("demo", 2).await
}

#[test]
fn addresses_are_made_once_although_an_answer_is_lost_outlive_their_droplets_and_are_given_back() {
    play(async |stage| {
        let _controller = stage.controller_with("a", &KEEN);
        let foreign = stage.cloud.reserve().await;
        let lost = Fault { route: "POST /v2/reserved_ips", times: 1, kind: json!("reset_after_commit") };
        stage.cloud.break_with(lost).await;
        let before = stage.cloud.last().await;
        stage.ask_for("demo", 2, json!({"publicIP": "ReservedPerGateway"})).await;
        let status = stage.whole("demo", 2).await;
        let addresses = promised(&stage, &status).await;
        assert_eq!(addresses.len(), 2);
        assert_eq!(of_addresses(&stage, before, "POST").await, 2, "one request an address");

        let gone = status.gateways[0].droplet_id;
        stage.cloud.by_hand(Method::DELETE, &format!("/v2/droplets/{gone}"), None).await;
        let status = replaced(&stage, gone).await;
        assert_eq!(promised(&stage, &status).await, addresses);

        // One that is dead and there: its address moves while it is.
        let dead =
            status.gateways.iter().find(|gateway| Some(&gateway.name) == status.active.as_ref()).unwrap();
        let before = stage.cloud.last().await;
        stage
            .gateways()
            .patch_status(
                "demo",
                &PatchParams::default(),
                &Patch::Merge(json!({"status": {"lastReplacement": null}})),
            )
            .await
            .unwrap();
        stage.world.freeze(dead.private_address.as_ref().unwrap());
        let status = replaced(&stage, dead.droplet_id).await;
        assert_eq!(promised(&stage, &status).await, addresses);
        assert_eq!(of_addresses(&stage, before, "POST").await, 1, "one move");
        assert_eq!(of_addresses(&stage, before, "DELETE").await, 0);

        stage.gateways().delete("demo", &DeleteParams::default()).await.unwrap();
        stage.gone("demo").await;
        assert_eq!(stage.cloud.reserved_ips().await, [(foreign, None)], "nobody else's address was touched");
    });
}

#[test]
fn what_the_user_gives_is_used_and_kept_and_with_retain_so_is_what_was_made() {
    play(async |stage| {
        let _controller = stage.controller_with("a", &KEEN);
        let given = stage.cloud.reserve().await;
        let spec =
            json!({"publicIP": "ReservedPerGateway", "reservedIPs": [given], "deletionPolicy": "Retain"});
        stage.ask_for("demo", 2, spec).await;
        let status = stage.whole("demo", 2).await;
        let addresses = promised(&stage, &status).await;
        assert!(addresses.contains(&given));
        // The status is lost: tags and the spec say whose they are.
        let lost = json!({"status": {"reservedIPs": null, "gateways": null, "firewall": null}});
        stage.gateways().patch_status("demo", &PatchParams::default(), &Patch::Merge(lost)).await.unwrap();
        let before = stage.cloud.last().await;
        let status = stage.whole("demo", 2).await;
        assert_eq!(promised(&stage, &status).await, addresses);
        assert_eq!(of_addresses(&stage, before, "").await, 0, "nothing was asked for");
        stage.gateways().delete("demo", &DeleteParams::default()).await.unwrap();
        stage.gone("demo").await;
        let left: Vec<String> = stage.cloud.reserved_ips().await.into_iter().map(|(ip, _)| ip).collect();
        assert_eq!(left, addresses);
    });
}

async fn says(stage: &Stage, reason: &str, words: &[&str]) {
    until(&format!("Degraded says {reason}"), async || {
        let (status, found, message) = stage.condition("demo", "Degraded").await;
        let said = status == "True" && found == reason && words.iter().all(|word| message.contains(word));
        if said { Ok(()) } else { Err(format!("{status} {found}: {message}")) }
    })
    .await;
}

#[test]
fn a_quota_and_a_missing_scope_are_said_with_the_way_out_and_no_droplet_is_made_twice_for_them() {
    play(async |stage| {
        let controller = stage.controller_with("a", &KEEN);
        let others = [stage.cloud.reserve().await, stage.cloud.reserve().await];
        stage.ask_for("demo", 2, json!({"publicIP": "ReservedPerGateway"})).await;
        says(&stage, "ReservedIPRefused", &["You have reached your limit of reserved IPs"]).await;
        let status = stage.status("demo").await;
        assert_eq!(
            (status.gateways_ready.as_deref(), status.public_ips.len()),
            (Some("1/2"), 1),
            "{status:#?}"
        );
        stage.cloud.by_hand(Method::DELETE, &format!("/v2/reserved_ips/{}", others[0]), None).await;
        // Who changes the spec does not wait for the pause to be over.
        let change = Patch::Merge(json!({"spec": {"drainSeconds": 301}}));
        stage.gateways().patch("demo", &PatchParams::default(), &change).await.unwrap();
        let status = stage.whole("demo", 2).await;
        let addresses = promised(&stage, &status).await;
        assert_eq!(stage.cloud.droplets().await.len(), 2);
        drop(controller);

        let body = json!({"id": "forbidden", "message": "You are not authorized to perform this operation"});
        let kind = json!({"status": 403, "body": body});
        stage.cloud.break_with(Fault { route: "* /v2/reserved_ips", times: 10_000, kind }).await;
        let second = stage.controller_with("b", &KEEN);
        says(&stage, "ReservedIPsForbidden", &["reserved_ip:read", "reserved_ip:delete", "tag:create"]).await;
        let (ready, ..) = stage.condition("demo", "Ready").await;
        assert_eq!(ready, "True", "what there is works");
        stage.cloud.mend().await;
        drop(second);
        let _third = stage.controller_with("c", &KEEN);
        let status = stage.whole("demo", 2).await;
        assert_eq!(promised(&stage, &status).await, addresses);
    });
}

/// The list of Droplets may be of the token before, when the other lists are of the next one.
#[test]
fn to_a_token_of_another_team_no_address_counts_as_gone_and_none_is_made() {
    play(async |stage| {
        let _controller = stage.controller_with("a", &KEEN);
        stage.ask_for("demo", 2, json!({"publicIP": "ReservedPerGateway"})).await;
        let before = stage.whole("demo", 2).await;
        let calls = stage.cloud.last().await;
        let nothing = json!({"reserved_ips": [], "links": {}, "meta": {"total": 0}});
        let hidden = [
            ("GET /v2/reserved_ips", json!({"status": 200, "body": nothing})),
            ("GET /v2/reserved_ips/*", json!({"status": 404})),
            ("GET /v2/droplets/*", json!({"status": 404})),
        ];
        for (route, kind) in hidden {
            stage.cloud.break_with(Fault { route, times: 10_000, kind }).await;
        }
        says(&stage, "TokenOfAnotherTeam", &["does not see the cluster's own nodes"]).await;
        // And goes on being said, look after look.
        until("several looks", async || {
            let calls = stage.cloud.journal(calls).await;
            let asked = calls.iter().filter(|line| line.starts_with("GET /v2/reserved_ips/")).count();
            if asked >= 12 { Ok(()) } else { Err(format!("{asked} addresses were asked for")) }
        })
        .await;
        let status = stage.status("demo").await;
        assert_eq!((status.public_ips, status.reserving_ip), (before.public_ips, None));
        stage.cloud.mend().await;
        let status = stage.whole("demo", 2).await;
        promised(&stage, &status).await;
        assert_eq!(
            stage.cloud.changes(calls).await,
            Vec::<String>::new(),
            "nothing is made, nothing given back"
        );
    });
}

#[test]
fn an_address_that_was_moved_by_hand_takes_its_gateway_off_the_list_and_is_not_taken_back() {
    play(async |stage| {
        let _controller = stage.controller_with("a", &KEEN);
        stage.ask_for("demo", 2, json!({"publicIP": "ReservedPerGateway"})).await;
        let status = stage.whole("demo", 2).await;
        let addresses = promised(&stage, &status).await;
        let moved = status.egress_ip.clone().unwrap();
        let path = format!("/v2/reserved_ips/{moved}/actions");
        let before = stage.cloud.last().await;
        stage.cloud.by_hand(Method::POST, &path, Some(json!({"type": "assign", "droplet_id": 601}))).await;
        says(&stage, "ReservedIPInUse", &[&moved, "601"]).await;
        until("its gateway is off the list", async || {
            let listed = stage.route("demo").await.unwrap().spec.ordered_gateways();
            let of_it = listed.iter().any(|one| one.egress_address.as_ref().is_some_and(|ip| ip.0 == moved));
            if of_it || listed.len() != 1 { Err(format!("{listed:?}")) } else { Ok(()) }
        })
        .await;
        assert_eq!(stage.status("demo").await.public_ips, addresses);
        assert_eq!(of_addresses(&stage, before, "").await, 1, "the one by hand");
        stage.cloud.by_hand(Method::POST, &path, Some(json!({"type": "unassign"}))).await;
        let status = stage.whole("demo", 2).await;
        assert_eq!(promised(&stage, &status).await, addresses);
        assert_eq!(stage.cloud.droplets().await.len(), 2, "no machine was made for it");
    });
}

#[test]
fn an_assignment_that_the_cloud_puts_off_is_asked_for_again_and_no_droplet_is_made_for_it() {
    play(async |stage| {
        let _controller = stage.controller_with("a", &KEEN);
        stage.ask_for("demo", 2, json!({"publicIP": "ReservedPerGateway"})).await;
        let status = stage.whole("demo", 2).await;
        let addresses = promised(&stage, &status).await;
        let body = json!({"id": "unprocessable_entity", "message": "Droplet already has a pending event."});
        let kind = json!({"status": 422, "body": body});
        stage.cloud.break_with(Fault { route: "POST /v2/reserved_ips/*/actions", times: 1, kind }).await;
        let gone = status.gateways[0].droplet_id;
        stage.cloud.by_hand(Method::DELETE, &format!("/v2/droplets/{gone}"), None).await;
        let before = stage.cloud.last().await;
        let status = replaced(&stage, gone).await;
        assert_eq!(promised(&stage, &status).await, addresses);
        let changes = stage.cloud.changes(before).await;
        let made = changes.iter().filter(|line| *line == "POST /v2/droplets").count();
        assert_eq!(made, 1, "{changes:?}");
    });
}
