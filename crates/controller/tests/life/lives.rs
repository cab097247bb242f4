//! A pair from birth to death.

use egress_api::{EGRESS_GATEWAY_FINALIZER, GatewayRole, GatewayStatus};
use k8s_openapi::api::events::v1::Event;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams};
use serde_json::json;

use crate::stage::{NODES, OTHER_VPC, Stage, VPC, play, until};

#[test]
fn a_pair_is_made_proven_and_routed_repaired_and_taken_away() {
    play(async |stage| {
        let _controller = stage.controller("a");
        let uid = stage.ask_for("demo", 2, json!({})).await;
        foreign_things(&stage, &uid).await;
        made_proven_and_routed(&stage, &uid).await;
        quiet_writes_nothing(&stage).await;
        powered_off_outside_is_powered_on(&stage).await;
        deleted_outside_is_replaced(&stage).await;
        deleted_in_order(&stage).await;
    });
}

async fn foreign_things(stage: &Stage, uid: &str) {
    let short: String = uid.chars().take(8).collect();
    let kube_system: k8s_openapi::api::core::v1::Namespace =
        kube::Api::all(stage.client.clone()).get("kube-system").await.unwrap();
    let ours = [format!("egress-cluster:{}", kube_system.uid().unwrap()), format!("egress-owner:{uid}")];
    // Our tags on a worker; our name and tags in another VPC; the name of another EgressGateway that begins like ours.
    for tag in &ours {
        stage.cloud.tag(NODES[1].1, tag).await;
    }
    stage.cloud.foreign(&format!("demo-0-{short}"), OTHER_VPC, &ours).await;
    stage.cloud.foreign(&format!("demo-0-0-{short}"), VPC, &[]).await;
}

async fn made_proven_and_routed(stage: &Stage, uid: &str) {
    let status = stage.whole("demo", 2).await;
    let roles: Vec<_> = status.gateways.iter().map(|gateway| (gateway.slot, gateway.role)).collect();
    assert_eq!(roles, [(0, GatewayRole::Active), (1, GatewayRole::Standby)]);
    let ids: Vec<i64> = status.gateways.iter().map(|gateway| gateway.droplet_id).collect();
    assert!(ids[0] != ids[1]);
    for gateway in &status.gateways {
        assert_eq!(gateway.name, format!("demo-{}-{}", gateway.slot, &uid[..8]));
        let path = format!("/v2/droplets/{}", gateway.droplet_id);
        let droplet = stage.cloud.by_hand(reqwest::Method::GET, &path, None).await["droplet"].take();
        let features = droplet["features"].as_array().unwrap();
        assert!(
            !features.contains(&json!("droplet_agent")),
            "the console's agent was asked for: {features:?}"
        );
    }
    assert_eq!(
        stage.cloud.droplets().await.len(),
        4,
        "two of ours, two of others: {:?}",
        stage.cloud.droplets().await
    );
    // The columns are of these fields.
    assert_eq!((status.gateways_ready.as_deref(), status.nodes.as_deref()), (Some("2/2"), Some("2/2")));
    assert_eq!(status.active, Some(status.gateways[0].name.clone()));
    assert_eq!(status.egress_ip, status.gateways[0].public_address);
    let public: Vec<String> =
        status.gateways.iter().filter_map(|gateway| gateway.public_address.clone()).collect();
    assert_eq!(status.public_ips, public);

    each_gateway_is_told_of(stage, &status.gateways).await;

    let route = stage.route("demo").await.expect("a StaticRoute of the same name");
    let owner = &route.owner_references()[0];
    assert_eq!(
        (owner.kind.as_str(), owner.uid.as_str(), owner.controller),
        ("EgressGateway", uid, Some(true))
    );
    let spec = serde_json::to_value(&route.spec).unwrap();
    let entry = |index: usize| {
        let gateway = &status.gateways[index];
        json!({"address": gateway.private_address, "egressAddress": gateway.public_address})
    };
    assert_eq!(
        spec,
        json!({
            "destinations": ["198.51.100.7", "198.51.100.64/26"],
            "gateways": [entry(0), entry(1)],
            "mode": "ActiveStandby",
            "onNoGateway": "KeepLast",
            "drainSeconds": 300,
            "healthCheck": stage.gateways().get("demo").await.unwrap().spec.health_check,
        })
    );
    until("the StaticRoute's own status", async || {
        let status = stage.route("demo").await.and_then(|route| route.status).unwrap_or_default();
        if (status.nodes_applied, status.nodes_total) == (Some(2), Some(2)) {
            Ok(())
        } else {
            Err(format!("{status:?}"))
        }
    })
    .await;
}

async fn each_gateway_is_told_of(stage: &Stage, gateways: &[GatewayStatus]) {
    let events: kube::Api<Event> = kube::Api::namespaced(stage.client.clone(), "default");
    for gateway in gateways {
        until("an event that this gateway is proven", async || {
            let notes: Vec<_> = events.list(&ListParams::default()).await.unwrap().items;
            let told = notes.iter().any(|event| {
                event.reason.as_deref() == Some("GatewayProven")
                    && event.note.as_ref().is_some_and(|note| note.contains(&gateway.name))
            });
            if told { Ok(()) } else { Err(gateway.name.clone()) }
        })
        .await;
    }
}

async fn quiet_writes_nothing(stage: &Stage) {
    let versions = async || {
        let gateway = stage.gateways().get("demo").await.unwrap();
        let route = stage.route("demo").await.unwrap();
        (gateway.resource_version(), route.resource_version())
    };
    let (before, calls) = (versions().await, stage.cloud.last().await);
    tokio::time::sleep(std::time::Duration::from_secs(10)).await;
    assert_eq!(versions().await, before, "{:#?}", stage.status("demo").await);
    let changes = stage.cloud.changes(calls).await;
    assert!(changes.is_empty(), "{changes:?}");
}

async fn powered_off_outside_is_powered_on(stage: &Stage) {
    let before = stage.status("demo").await;
    let calls = stage.cloud.last().await;
    let active = before.gateways[0].droplet_id;
    stage.cloud.act(active, "power_off").await;
    until("powered on", async || {
        let wanted = format!("POST /v2/droplets/{active}/actions");
        let actions = stage.cloud.changes(calls).await;
        // The first one is our own power_off.
        if actions.iter().filter(|line| **line == wanted).count() == 2 {
            Ok(())
        } else {
            Err(format!("{actions:?}"))
        }
    })
    .await;
    let after = stage.whole("demo", 2).await;
    let kept = |status: &egress_api::EgressGatewayStatus| {
        status
            .gateways
            .iter()
            .map(|gateway| (gateway.droplet_id, gateway.public_address.clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(kept(&before), kept(&after), "it keeps its address, and nothing was replaced");
}

async fn deleted_outside_is_replaced(stage: &Stage) {
    let before = stage.whole("demo", 2).await;
    let calls = stage.cloud.last().await;
    let (gone, kept) = (before.gateways[0].droplet_id, before.gateways[1].droplet_id);
    stage.cloud.by_hand(reqwest::Method::DELETE, &format!("/v2/droplets/{gone}"), None).await;
    until("another is there", async || {
        let status = stage.status("demo").await;
        let others =
            status.gateways.iter().filter(|gateway| gateway.ready && gateway.droplet_id != gone).count();
        if others == 2 { Ok(()) } else { Err(format!("{status:#?}")) }
    })
    .await;
    let after = stage.whole("demo", 2).await;
    assert!(
        after
            .gateways
            .iter()
            .any(|gateway| gateway.droplet_id == kept && gateway.role == GatewayRole::Active)
    );
    let (mut changes, walls) = parted(stage.cloud.changes(calls).await);
    changes.sort_unstable();
    assert_eq!(
        changes,
        [format!("DELETE /v2/droplets/{gone}"), "POST /v2/droplets".to_owned()],
        "one create, no delete of ours"
    );
    let kept = format!("PUT /v2/firewalls/{}", after.firewall.unwrap().id.unwrap());
    assert!((1..=3).contains(&walls.len()) && walls.iter().all(|line| *line == kept), "{walls:?}");
}

// Changes of Droplets, and of firewalls.
fn parted(changes: Vec<String>) -> (Vec<String>, Vec<String>) {
    changes.into_iter().partition(|line| !line.contains("/v2/firewalls"))
}

async fn deleted_in_order(stage: &Stage) {
    let before = stage.whole("demo", 2).await;
    let calls = stage.cloud.last().await;
    let others: Vec<_> = stage
        .cloud
        .droplets()
        .await
        .into_iter()
        .filter(|(id, _)| {
            before.gateways.iter().all(|gateway| gateway.droplet_id != i64::try_from(*id).unwrap())
        })
        .collect();
    stage.world.deafen("pool-2");
    stage.gateways().delete("demo", &DeleteParams::default()).await.unwrap();
    until("a node that holds routes is named", async || {
        let (status, reason, message) = stage.condition("demo", "Degraded").await;
        let said = status == "True" && reason == "NodesHoldRoutes" && message.contains("pool-2");
        if said { Ok(()) } else { Err(format!("{status} {reason} {message}")) }
    })
    .await;
    assert!(stage.route("demo").await.is_none(), "the StaticRoute goes first");
    assert_eq!(
        stage.cloud.changes(calls).await,
        Vec::<String>::new(),
        "no Droplet goes while a live node routes through it"
    );
    let held = stage.gateways().get("demo").await.unwrap();
    assert!(held.finalizers().iter().any(|finalizer| finalizer == EGRESS_GATEWAY_FINALIZER));
    stage.world.all_follow();
    stage.gone("demo").await;
    let changes = stage.cloud.changes(calls).await;
    let mut expected: Vec<String> =
        before.gateways.iter().map(|gateway| format!("DELETE /v2/droplets/{}", gateway.droplet_id)).collect();
    expected.push(format!("DELETE /v2/firewalls/{}", before.firewall.unwrap().id.unwrap()));
    assert_eq!(changes, expected, "by id, each once, and the firewall last");
    assert!(stage.cloud.firewalls().await.is_empty());
    assert_eq!(stage.cloud.droplets().await, others, "what is not ours is untouched");
}
