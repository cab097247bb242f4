//! A deletion that is blocked says by what and how to get out, and goes on when it is not any more.

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use crate::stage::{Fault, Stage, play, until};

const EGRESS_GATEWAYS: &str = "egressgateways.networking.digitalocean.com";
const STATIC_ROUTES: &str = "staticroutes.networking.digitalocean.com";
const NODE_EGRESSES: &str = "nodeegresses.networking.digitalocean.com";

async fn says(stage: &Stage, name: &str, reason: &str, words: &[&str]) {
    until(&format!("{name}: Degraded says {reason}"), async || {
        let (status, found, message) = stage.condition(name, "Degraded").await;
        let said = status == "True" && found == reason && words.iter().all(|word| message.contains(word));
        if said { Ok(()) } else { Err(format!("{status} {found}: {message}")) }
    })
    .await;
}

async fn delete(stage: &Stage, name: &str) {
    stage.gateways().delete(name, &DeleteParams::default()).await.unwrap();
}

fn of_droplets(changes: Vec<String>) -> Vec<String> {
    changes.into_iter().filter(|line| line.contains("/v2/droplets")).collect()
}

#[test]
fn without_token_or_api_a_deletion_takes_the_routes_and_says_what_it_waits_for_and_ends_when_they_return() {
    play(async |stage| {
        let _controller = stage.controller("a");
        stage.ask_for("demo", 2, json!({})).await;
        let status = stage.whole("demo", 2).await;
        let before = stage.cloud.last().await;

        // A node that died holds nobody up, whatever its last report says.
        stage.world.deafen("pool-2");
        let dead = json!({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}});
        let nodes: Api<Node> = Api::all(stage.client.clone());
        nodes.patch_status("pool-2", &PatchParams::default(), &Patch::Merge(dead)).await.unwrap();

        stage.take_token().await;
        delete(&stage, "demo").await;
        says(
            &stage,
            "demo",
            "TokenMissing",
            &["digitalocean-token", "are billed until then", "remove the finalizer"],
        )
        .await;
        assert!(stage.route("demo").await.is_none(), "the routes go all the same");
        stage.put("dop_v1_revoked").await;
        says(&stage, "demo", "TokenRefused", &["are billed until then", "remove the finalizer"]).await;
        let kind = json!({"status": 503, "body": "<html>bad gateway</html>"});
        stage.cloud.break_with(Fault { route: "* /v2/**", times: 10_000, kind }).await;
        stage.put_token().await;
        says(&stage, "demo", "CloudRefused", &["are billed until then", "remove the finalizer"]).await;
        assert_eq!(stage.cloud.droplets().await.len(), 2);
        stage.cloud.mend().await;
        stage.gone("demo").await;
        assert_eq!(stage.cloud.droplets().await, []);
        let deletes: Vec<String> = status
            .gateways
            .iter()
            .map(|gateway| format!("DELETE /v2/droplets/{}", gateway.droplet_id))
            .collect();
        assert_eq!(of_droplets(stage.cloud.changes(before).await), deletes, "each once");
    });
}

#[test]
fn a_token_that_goes_and_comes_back_leaves_routes_and_gateways_alone() {
    play(async |stage| {
        let _controller = stage.controller("a");
        stage.ask_for("demo", 2, json!({})).await;
        let status = stage.whole("demo", 2).await;
        let route = stage.route("demo").await.unwrap();
        let before = stage.cloud.last().await;
        stage.take_token().await;
        says(&stage, "demo", "TokenMissing", &["digitalocean-token", "nodes keep what they have"]).await;
        for useless in ["", "dop_v1_revoked"] {
            stage.put(useless).await;
            let reason = if useless.is_empty() { "TokenMissing" } else { "TokenRefused" };
            says(&stage, "demo", reason, &[]).await;
        }
        let (ready, ..) = stage.condition("demo", "Ready").await;
        assert_eq!(ready, "True", "nodes leave through the gateways as before");
        assert_eq!(stage.route("demo").await.unwrap().metadata.generation, route.metadata.generation);
        stage.put_token().await;
        assert_eq!(stage.whole("demo", 2).await.gateways, status.gateways);
        assert_eq!(of_droplets(stage.cloud.changes(before).await), Vec::<String>::new());
    });
}

#[test]
fn definitions_that_are_deleted_first_hold_a_deletion_up_until_they_are_back_and_that_of_egressgateways_takes_nothing()
 {
    play(async |stage| {
        let _controller = stage.controller("a");
        let definitions: Api<CustomResourceDefinition> = Api::all(stage.client.clone());
        let gone = async |name: &str| {
            definitions.delete(name, &DeleteParams::default()).await.unwrap();
            until(&format!("{name} is gone"), async || match definitions.get_opt(name).await.unwrap() {
                None => Ok(()),
                Some(there) => Err(format!("{:?}", there.status)),
            })
            .await;
        };
        for (definition, words) in [(STATIC_ROUTES, "StaticRoute"), (NODE_EGRESSES, "NodeEgress")] {
            stage.ask_for("demo", 1, json!({})).await;
            let status = stage.whole("demo", 1).await;
            let before = stage.cloud.last().await;
            gone(definition).await;
            delete(&stage, "demo").await;
            says(&stage, "demo", "DefinitionGone", &[words, "deploy/crds"]).await;
            assert_eq!(
                of_droplets(stage.cloud.changes(before).await),
                Vec::<String>::new(),
                "nodes still route"
            );
            stage.install_definitions().await;
            stage.gone("demo").await;
            let deleted = format!("DELETE /v2/droplets/{}", status.gateways[0].droplet_id);
            assert_eq!(of_droplets(stage.cloud.changes(before).await), [deleted]);
        }

        // Nobody is known to want what goes with its kind gone, addresses neither.
        stage.ask_for("demo", 2, json!({"publicIP": "ReservedPerGateway"})).await;
        let status = stage.whole("demo", 2).await;
        let before = stage.cloud.last().await;
        definitions.delete(EGRESS_GATEWAYS, &DeleteParams::default()).await.unwrap();
        let addresses: Vec<&str> = status.public_ips.iter().map(String::as_str).collect();
        assert_eq!(addresses.len(), 2);
        says(&stage, "demo", "DefinitionGone", &addresses).await;
        assert_eq!(stage.cloud.changes(before).await, Vec::<String>::new());
        assert!(stage.route("demo").await.is_some());
    });
}

#[test]
fn what_is_to_be_retained_stays_untagged_and_without_the_scope_for_it_the_condition_says_so() {
    play(async |stage| {
        let _controller = stage.controller("a");
        stage.ask_for("demo", 2, json!({"deletionPolicy": "Retain"})).await;
        let status = stage.whole("demo", 2).await;
        let body = json!({"id": "forbidden", "message": "You are not authorized to perform this operation"});
        let kind = json!({"status": 403, "body": body});
        stage.cloud.break_with(Fault { route: "DELETE /v2/tags/**", times: 10_000, kind }).await;
        delete(&stage, "demo").await;
        says(&stage, "demo", "CloudForbids", &["tag:delete", "remove the finalizer"]).await;
        stage.cloud.mend().await;
        stage.gone("demo").await;
        assert!(stage.route("demo").await.is_none());
        assert_eq!(stage.cloud.droplets().await.len(), 2);
        for gateway in status.gateways {
            let path = format!("/v2/droplets/{}", gateway.droplet_id);
            let droplet = stage.cloud.by_hand(reqwest::Method::GET, &path, None).await;
            assert_eq!(droplet["droplet"]["tags"], json!([]));
        }
        assert_eq!(stage.cloud.firewalls().await.len(), 1, "it goes on protecting them");
        until("people are told", async || {
            let told = stage.told().await;
            if told.iter().any(|reason| reason == "DropletRetained") {
                Ok(())
            } else {
                Err(format!("{told:?}"))
            }
        })
        .await;
    });
}
