//! What is found by itself, and what is looked up before anything is made.

use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::stage::{OTHER_VPC, PROJECT, Stage, VPC, play, until};

async fn says(stage: &Stage, name: &str, type_: &str, reason: &str, words: &[&str]) {
    until(&format!("{name}: {type_} says {reason}"), async || {
        let (status, found, message) = stage.condition(name, type_).await;
        if found == reason && words.iter().all(|words| message.contains(words)) {
            Ok(())
        } else {
            Err(format!("{status} {found}: {message}"))
        }
    })
    .await;
}

#[test]
fn nodes_in_several_vpcs_and_a_foreign_vpc_or_region_get_no_droplet_and_no_route() {
    play(async |stage| {
        // The Droplet of this node is in the other VPC.
        let nodes: Api<Node> = Api::all(stage.client.clone());
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "astray"},
            "spec": {"providerID": "digitalocean://601"}});
        nodes.create(&PostParams::default(), &serde_json::from_value(node).unwrap()).await.unwrap();
        let _controller = stage.controller("a");
        stage.ask_for("several", 2, json!({})).await;
        says(&stage, "several", "Ready", "SeveralVpcs", &[VPC, OTHER_VPC]).await;
        stage.gateways().delete("several", &DeleteParams::default()).await.unwrap();
        stage.gone("several").await;
        nodes.delete("astray", &DeleteParams::default()).await.unwrap();

        let droplet = |field: &str, value: &str| json!({"droplet": {"size": "s-1vcpu-1gb", "image": "debian-12-x64", field: value}});
        stage.ask_for("vpc", 2, droplet("vpcUUID", OTHER_VPC)).await;
        says(&stage, "vpc", "Ready", "WrongVpc", &[OTHER_VPC, VPC, "leave it out"]).await;
        stage.ask_for("region", 2, droplet("region", "fra1")).await;
        says(&stage, "region", "Ready", "WrongRegion", &["fra1", "nyc1", "leave it out"]).await;
        assert_eq!(stage.cloud.changes(0).await, Vec::<String>::new());
        for name in ["several", "vpc", "region"] {
            assert!(stage.route(name).await.is_none(), "{name}");
        }

        // All of it left out: the nodes' own region and VPC, and user data for the VPC's range.
        stage.ask_for("found", 1, json!({})).await;
        let status = stage.whole("found", 1).await;
        let made = stage
            .cloud
            .by_hand(reqwest::Method::GET, &format!("/v2/droplets/{}", status.gateways[0].droplet_id), None)
            .await;
        let made = &made["droplet"];
        assert_eq!((&made["region"]["slug"], &made["vpc_uuid"]), (&json!("nyc1"), &json!(VPC)));
        let state = stage.cloud.get("/simulator/state").await;
        let user_data =
            state["droplets"][status.gateways[0].droplet_id.to_string()]["user_data"].as_str().unwrap();
        assert!(user_data.contains("10.116.0.0/20") && user_data.contains("10.244.0.0/16"), "{user_data}");
    });
}

async fn change(stage: &Stage, droplet: Value) {
    let patch = json!({"spec": {"droplet": droplet}});
    stage.gateways().patch("demo", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
}

#[test]
fn what_cannot_be_had_is_refused_with_the_nearest_value_and_made_when_it_is_mended() {
    play(async |stage| {
        let _controller = stage.controller("a");
        stage.ask_for("demo", 2, json!({"droplet": {"size": "s-1vcpu-1bg", "image": "debian-12-x64"}})).await;
        says(&stage, "demo", "Ready", "InvalidSize", &["s-1vcpu-1bg", "the nearest", "s-1vcpu-1gb"]).await;
        change(&stage, json!({"size": "s-1vcpu-1gb", "image": "ubuntu-24-40-x64"})).await;
        says(
            &stage,
            "demo",
            "Ready",
            "InvalidImage",
            &["ubuntu-24-40-x64", "the nearest", "ubuntu-24-04-x64"],
        )
        .await;
        change(&stage, json!({"image": "ubuntu-24-04-x64", "sshKeys": ["289795"]})).await;
        says(&stage, "demo", "Ready", "UnknownSshKey", &["289795", "the nearest is 289794 (ops)"]).await;
        let other = "99999999-dc3e-41f2-a18f-1b4d7ba71679";
        change(&stage, json!({"sshKeys": ["289794"], "projectID": other})).await;
        says(&stage, "demo", "Ready", "UnknownProject", &[other, "the nearest is"]).await;
        assert_eq!(stage.cloud.changes(0).await, Vec::<String>::new());
        assert!(stage.route("demo").await.is_none());

        change(&stage, json!({"projectID": PROJECT})).await;
        let status = stage.whole("demo", 2).await;
        assert_eq!(status.monthly_price_usd.as_deref(), Some("12.00"));
        until("both are in the project", async || {
            let resources = format!("/v2/projects/{PROJECT}/resources");
            let inside = stage.cloud.by_hand(reqwest::Method::GET, &resources, None).await;
            if inside["meta"]["total"] == 2 { Ok(()) } else { Err(inside.to_string()) }
        })
        .await;
    });
}
