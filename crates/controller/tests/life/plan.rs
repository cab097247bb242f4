//! `kubectl egress plan`: what it says is what is then done, and saying it changes nothing.

use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::stage::{Stage, play, until};

fn manifest(replicas: i32, droplet: &Value) -> Value {
    json!({"apiVersion": "networking.digitalocean.com/v1alpha1", "kind": "EgressGateway", "metadata": {"name": "demo"},
        "spec": {"destinations": ["198.51.100.7", "198.51.100.64/26"], "publicIP": "Ephemeral", "replicas": replicas, "droplet": droplet}})
}

fn small() -> Value {
    json!({"size": "s-1vcpu-1gb", "image": "debian-12-x64"})
}

/// The plan, which must succeed with this exit code.
fn plan(stage: &Stage, manifest: &Value, more: &[&str], code: i32) -> Value {
    let (ended, printed, complaints) = stage.plan(manifest, &[&["-o", "json"][..], more].concat());
    assert_eq!(ended, Some(code), "{printed}\n{complaints}");
    let plans: Value = serde_json::from_str(&printed).unwrap();
    plans[0].clone()
}

fn names(plan: &Value, what: &str) -> Vec<String> {
    let changes = plan["changes"].as_array().unwrap().iter();
    changes.filter(|one| one["do"] == what).map(|one| one["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn what_is_planned_is_what_is_done_and_planning_changes_nothing() {
    play(async |stage| {
        // Before there is anything, without a controller, and with a token that may only read.
        let scopes: Vec<&str> =
            crate::stage::SCOPES.split_whitespace().filter(|scope| scope.ends_with(":read")).collect();
        stage.cloud.change_token(json!({"scopes": scopes.join(" ")})).await;
        let first = plan(&stage, &manifest(2, &small()), &[], 0);
        assert_eq!(names(&first, "createDroplet"), ["demo-0-xxxxxxxx", "demo-1-xxxxxxxx"], "{first}");
        assert_eq!(first["changes"][0]["monthlyPriceUSD"], 6.0, "{first}");
        assert_eq!(first["now"], json!({"droplets": 0, "monthlyPriceUSD": 0.0}));
        assert_eq!(first["then"], json!({"droplets": 2, "monthlyPriceUSD": 12.0}));
        assert!(stage.gateways().get_opt("demo").await.unwrap().is_none(), "a dry run");

        let (code, _, complaints) = stage.plan(&manifest(9, &small()), &[]);
        assert!(code == Some(1) && complaints.contains("spec.replicas"), "{code:?} {complaints}");
        let (code, _, complaints) = stage.plan(&manifest(2, &json!({"sizes": "s-1vcpu-1gb"})), &[]);
        assert!(code == Some(1) && complaints.contains("sizes"), "{code:?} {complaints}");
        let impossible = plan(&stage, &manifest(2, &json!({"size": "s-1vcpu-1bg"})), &[], 2);
        assert_eq!(
            (&impossible["changes"], &impossible["obstacle"]["reason"]),
            (&json!([]), &json!("InvalidSize"))
        );
        assert_eq!(stage.cloud.changes(0).await, Vec::<String>::new());

        // And then it is applied.
        stage.cloud.change_token(json!({"scopes": crate::stage::SCOPES})).await;
        let _controller = stage.controller("a");
        stage.ask_for("demo", 2, json!({"droplet": small()})).await;
        let made = stage.whole("demo", 2).await;
        let version = stage.gateways().get("demo").await.unwrap().metadata.resource_version;
        let changes = stage.cloud.changes(0).await;
        let same = plan(&stage, &manifest(2, &small()), &[], 0);
        assert_eq!((&same["changes"], &same["then"]["droplets"]), (&json!([]), &json!(2)), "{same}");
        let rolled =
            plan(&stage, &manifest(2, &json!({"size": "s-2vcpu-2gb", "image": "debian-12-x64"})), &[], 0);
        assert_eq!(names(&rolled, "createDroplet").len(), 2, "{rolled}");
        let went =
            &rolled["changes"].as_array().unwrap().iter().find(|one| one["do"] == "deleteDroplet").unwrap();
        assert_eq!(went["why"]["because"], "rolled");
        assert!(made.gateways.iter().any(|gateway| json!(gateway.droplet_id) == went["id"]), "{rolled}");
        let deleted = plan(&stage, &manifest(2, &small()), &["--delete"], 0);
        let mut gone = names(&deleted, "deleteDroplet");
        gone.sort_unstable();
        let there: Vec<String> = made.gateways.iter().map(|gateway| gateway.name.clone()).collect();
        assert_eq!((gone, names(&deleted, "deleteFirewall").len()), (there, 1), "{deleted}");
        let now = stage.gateways().get("demo").await.unwrap().metadata.resource_version;
        assert_eq!((now, stage.cloud.changes(0).await), (version, changes), "planning changes nothing");

        let fewer = names(&plan(&stage, &manifest(1, &small()), &[], 0), "deleteDroplet");
        let one = json!({"spec": {"replicas": 1}});
        stage.gateways().patch("demo", &PatchParams::default(), &Patch::Merge(one)).await.unwrap();
        let left = until("one is left", async || {
            let left: Vec<String> = stage.cloud.droplets().await.into_iter().map(|(_, name)| name).collect();
            if left.len() == 1 { Ok(left) } else { Err(format!("{left:?}")) }
        })
        .await;
        assert!(fewer.len() == 1 && !left.contains(&fewer[0]), "{fewer:?} {left:?}");
    });
}
