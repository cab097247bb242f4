//! Many EgressGateways: what they cost in memory and in calls. A thousand take a machine to themselves, and ten minutes:
//! `EGRESS_GATEWAYS=1000 cargo test --workspace --test life -- scale::`.

use std::time::Duration;

use egress_api::{EgressGateway, StaticRoute};
use futures::stream::{self, StreamExt};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::stage::{SCOPES, VPC, play_among, until_within};

/// In `make test`, beside everything else.
const MANY: usize = 150;
/// As it is shipped, with every page of its file that there is.
const MOST_MIB: u64 = 50;

/// So large is the file that is shipped; one that is built for debugging is several times as large.
const SHIPPED_FILE_MIB: u64 = 12;

/// Each takes two looks or three, a thousand looks from one to the next, and others use the machine too.
const FIRST_LOOKS: Duration = Duration::from_secs(900);

fn many() -> usize {
    std::env::var("EGRESS_GATEWAYS").ok().map_or(MANY, |text| text.parse().unwrap())
}

/// Objects whose gateways work, as they are after a while; gives what the cloud has of them.
async fn furnish(client: Client) -> Vec<Value> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let cluster = namespaces.get("kube-system").await.unwrap().metadata.uid.unwrap();
    let made = stream::iter(0..many()).map(|number| one(client.clone(), number, cluster.clone()));
    made.buffer_unordered(16).collect().await
}

async fn one(client: Client, number: usize, cluster: String) -> Value {
    let api: Api<EgressGateway> = Api::all(client);
    let name = format!("gw-{number}");
    let object = json!({"apiVersion": "networking.digitalocean.com/v1alpha1", "kind": "EgressGateway",
        "metadata": {"name": name, "finalizers": ["networking.digitalocean.com/egress-gateway"]},
        "spec": {"destinations": [format!("198.51.{}.{}", number / 250, number % 250)], "publicIP": "Ephemeral", "replicas": 1}});
    let made = api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
    let owner = made.metadata.uid.unwrap();
    let droplet = format!("{name}-0-{}", &owner[..8]);
    let id = 100_000 + number;
    let address = std::net::Ipv4Addr::from(0x0a74_0400 + u32::try_from(number).unwrap());
    let gateway = json!({"name": droplet, "slot": 0, "dropletID": id, "privateAddress": address, "role": "Active",
                         "ready": true, "since": "2026-01-01T00:00:00Z", "nodes": 0});
    let status = json!({"status": {"observedGeneration": 1, "gateways": [gateway]}});
    api.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    let tags =
        ["egress-gateway".to_owned(), format!("egress-cluster:{cluster}"), format!("egress-owner:{owner}")];
    json!({"id": id, "name": droplet, "vpc": VPC, "private_address": address, "size": "s-1vcpu-1gb", "tags": tags})
}

#[test]
fn many_fit_into_fifty_mebibytes_and_cost_little_when_idle() {
    play_among(furnish, async |stage| {
        let many = many();
        // Firewalls would have to be made first, at two hundred calls a minute.
        let scopes: Vec<&str> =
            SCOPES.split_whitespace().filter(|scope| !scope.starts_with("firewall:")).collect();
        stage.cloud.change_token(json!({"scopes": scopes.join(" ")})).await;
        let controller = stage.controller_with("a", &["--max-droplets=2000"]);
        let routes: Api<StaticRoute> = Api::all(stage.client.clone());
        let mut most = 0;
        until_within(FIRST_LOOKS, "each has its StaticRoute", async || {
            most = most.max(controller.process.memory_of_its_own());
            let listed = routes.list_metadata(&ListParams::default()).await.unwrap().items.len();
            if listed == many { Ok(()) } else { Err(format!("{listed}")) }
        })
        .await;
        let before = stage.cloud.last().await;
        let window = Duration::from_secs(60);
        // What it costs while nothing happens is a matter of time.
        tokio::time::sleep(window).await;
        let calls = stage.cloud.journal(before).await;
        let changes = stage.cloud.changes(0).await;
        let now = controller.process.memory_of_its_own();
        let peak = most.max(now) + SHIPPED_FILE_MIB;
        println!("{many} EgressGateways: {now} MiB, {most} MiB at most, {} calls in {window:?}", calls.len());
        assert!(changes.is_empty(), "{changes:?}");
        // Five pages every two minutes, and a forbidden list of firewalls now and then.
        assert!(calls.len() <= 10, "{calls:?}");
        assert!(peak <= MOST_MIB, "{peak} MiB");
    });
}
