//! What stands in the way is said in the condition, and nothing is done meanwhile.

use egress_api::StaticRoute;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::stage::{Fault, OTHER_VPC, Stage, play, until};

async fn says(stage: &Stage, name: &str, type_: &str, reason: &str, words: &str) {
    until(&format!("{name}: {type_} says {reason}"), async || {
        let (status, found, message) = stage.condition(name, type_).await;
        if found == reason && message.contains(words) {
            Ok(())
        } else {
            Err(format!("{status} {found}: {message}"))
        }
    })
    .await;
}

#[test]
fn a_wrong_vpc_a_full_account_and_a_token_that_goes_are_said_and_do_no_harm() {
    play(async |stage| {
        let _controller = stage.controller("a");
        let droplet =
            json!({"droplet": {"size": "s-1vcpu-1gb", "image": "debian-12-x64", "vpcUUID": OTHER_VPC}});
        stage.ask_for("astray", 2, droplet).await;
        says(&stage, "astray", "Ready", "WrongVpc", OTHER_VPC).await;
        assert_eq!(stage.cloud.changes(0).await, Vec::<String>::new());
        // Deleting it needs nothing from the cloud.
        stage.gateways().delete("astray", &DeleteParams::default()).await.unwrap();

        let body = json!({"id": "unprocessable_entity", "message": "creating this/these droplet(s) will exceed your droplet limit"});
        stage
            .cloud
            .break_with(Fault {
                route: "POST /v2/droplets",
                times: 100,
                kind: json!({"status": 422, "body": body}),
            })
            .await;
        stage.ask_for("demo", 1, json!({})).await;
        says(&stage, "demo", "Degraded", "CreateRefused", "will exceed your droplet limit").await;
        let before = stage.cloud.last().await;
        tokio::time::sleep(std::time::Duration::from_secs(5)).await;
        assert_eq!(stage.cloud.changes(before).await, Vec::<String>::new(), "no second try at once");
        let looks = stage.cloud.journal(before).await;
        assert!(looks.len() <= 2, "looks while nothing can change: {looks:?}");
        stage.cloud.mend().await;
        // A changed spec does not wait for the pause to be over; a new object does not either.
        stage.ask_for("other", 2, json!({})).await;
        stage.whole("other", 2).await;

        stage.take_token().await;
        says(&stage, "other", "Degraded", "TokenMissing", "digitalocean-token").await;
        let status = stage.status("other").await;
        assert_eq!(status.gateways_ready.as_deref(), Some("2/2"));
        assert!(stage.route("other").await.is_some(), "routes stay");
        let (ready, ..) = stage.condition("other", "Ready").await;
        assert_eq!(ready, "True");
        stage.put_token().await;
        stage.whole("other", 2).await;

        let status = stage.whole("other", 2).await;
        let scale = json!({"spec": {"replicas": 1}});
        stage.gateways().patch("other", &PatchParams::default(), &Patch::Merge(scale)).await.unwrap();
        let after = stage.whole("other", 1).await;
        assert_eq!(after.gateways[0].droplet_id, status.gateways[0].droplet_id, "the active one stays");

        // What the cloud refused, and somebody else then did, is no trouble any more.
        let id = after.gateways[0].droplet_id;
        stage.cloud.act(id, "power_off").await;
        let body = json!({"id": "unprocessable_entity", "message": "Droplet already has a pending event."});
        let kind = json!({"status": 422, "body": body});
        stage.cloud.break_with(Fault { route: "POST /v2/droplets/*/actions", times: 100, kind }).await;
        says(&stage, "other", "Degraded", "CloudRefused", "pending event").await;
        stage.cloud.mend().await;
        stage.cloud.act(id, "power_on").await;
        stage.whole("other", 1).await;
    });
}

#[test]
fn the_deletion_of_the_definition_takes_no_droplet_and_no_route_along() {
    play(async |stage| {
        const DEFINITION: &str = "egressgateways.networking.digitalocean.com";
        let _controller = stage.controller("a");
        stage.ask_for("demo", 1, json!({})).await;
        let status = stage.whole("demo", 1).await;
        let before = stage.cloud.last().await;
        let definitions: Api<CustomResourceDefinition> = Api::all(stage.client.clone());
        definitions.delete(DEFINITION, &DeleteParams::default()).await.unwrap();
        says(&stage, "demo", "Degraded", "DefinitionGone", "deploy/crds").await;
        let (ready, ..) = stage.condition("demo", "Ready").await;
        assert_eq!(ready, "True");
        assert!(stage.route("demo").await.is_some());

        // The way that the condition tells.
        let without = json!({"metadata": {"finalizers": null}});
        stage.gateways().patch("demo", &PatchParams::default(), &Patch::Merge(without)).await.unwrap();
        until("the definition is gone", async || match definitions.get_opt(DEFINITION).await.unwrap() {
            None => Ok(()),
            Some(there) => Err(format!("{:?}", there.status)),
        })
        .await;
        assert_eq!(stage.cloud.changes(before).await, Vec::<String>::new());
        assert!(stage.route("demo").await.is_some());
        stage.install_definitions().await;
        let routes: Api<StaticRoute> = Api::all(stage.client.clone());
        routes.delete("demo", &DeleteParams::default()).await.unwrap();
        stage.ask_for("demo", 1, json!({})).await;
        let again = stage.whole("demo", 1).await;
        assert_ne!(again.gateways[0].droplet_id, status.gateways[0].droplet_id);
        let changes = stage.cloud.changes(before).await;
        assert!(!changes.iter().any(|change| change.starts_with("DELETE")), "{changes:?}");
    });
}

#[test]
fn who_cannot_know_which_nodes_hold_routes_deletes_nothing_and_who_is_not_seen_is_seldom_asked_for() {
    play(async |stage| {
        let controller = stage.controller("a");
        stage.ask_for("demo", 1, json!({})).await;
        let status = stage.whole("demo", 1).await;

        // The reports cannot be read any more, and a new leader has never read them.
        let roles: Api<ClusterRole> = Api::all(stage.client.clone());
        let role = roles.get("egress-controller").await.unwrap();
        let mut blind = role.clone();
        blind.rules.as_mut().unwrap().retain(|rule| {
            !rule
                .resources
                .as_ref()
                .is_some_and(|resources| resources.iter().any(|name| name == "nodeegresses"))
        });
        roles.replace("egress-controller", &PostParams::default(), &blind).await.unwrap();
        drop(controller);
        stage.world.deafen("pool-2");
        let before = stage.cloud.last().await;
        let second = stage.controller("b");
        until(
            "the second leads",
            async || {
                if second.log().contains("leading") { Ok(()) } else { Err(second.log()) }
            },
        )
        .await;
        stage.gateways().delete("demo", &DeleteParams::default()).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_secs(5)).await;
        assert_eq!(
            stage.cloud.changes(before).await,
            Vec::<String>::new(),
            "a node may still route through it"
        );

        blind.rules = role.rules;
        blind.metadata.resource_version = None;
        blind.metadata.managed_fields = None;
        roles
            .patch("egress-controller", &PatchParams::apply("test").force(), &Patch::Apply(&blind))
            .await
            .unwrap();
        says(&stage, "demo", "Degraded", "NodesHoldRoutes", "pool-2").await;
        assert_eq!(stage.cloud.changes(before).await, Vec::<String>::new());
        stage.world.all_follow();
        until("it is deleted", async || {
            let wanted = format!("DELETE /v2/droplets/{}", status.gateways[0].droplet_id);
            let changes = stage.cloud.changes(before).await;
            if changes.first() == Some(&wanted) { Ok(()) } else { Err(format!("{changes:?}")) }
        })
        .await;

        stage.gone("demo").await;

        // A Node whose Droplet the token does not see.
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "ghost"}, "spec": {"providerID": "digitalocean://7"}});
        Api::<Node>::all(stage.client.clone())
            .create(&PostParams::default(), &serde_json::from_value(node).unwrap())
            .await
            .unwrap();
        let before = stage.cloud.last().await;
        stage.ask_for("demo", 2, json!({})).await;
        stage.whole("demo", 2).await;
        let asked =
            stage.cloud.journal(before).await.iter().filter(|line| *line == "GET /v2/droplets/7").count();
        assert!(asked <= 2, "asked for {asked} times");
    });
}

/// The cloud answers 404 for all that the token does not see: to one of another team everything is gone.
#[test]
fn to_a_token_of_another_team_nothing_counts_as_gone_and_nothing_is_made() {
    play(async |stage| {
        let _controller = stage.controller("a");
        stage.ask_for("demo", 2, json!({})).await;
        let before = stage.whole("demo", 2).await;
        let calls = stage.cloud.last().await;
        for kind in ["droplets", "firewalls"] {
            let nothing = json!({kind: [], "links": {}, "meta": {"total": 0}});
            let (list, one) = match kind {
                "droplets" => ("GET /v2/droplets", "GET /v2/droplets/*"),
                _ => ("GET /v2/firewalls", "GET /v2/firewalls/*"),
            };
            let kind = json!({"status": 200, "body": nothing});
            stage.cloud.break_with(Fault { route: list, times: 10_000, kind }).await;
            stage.cloud.break_with(Fault { route: one, times: 10_000, kind: json!({"status": 404}) }).await;
        }
        says(&stage, "demo", "Degraded", "TokenOfAnotherTeam", "does not see the cluster's own nodes").await;
        // And goes on being said, look after look.
        until("several looks", async || {
            let calls = stage.cloud.journal(calls).await;
            let asked = calls.iter().filter(|line| line.starts_with("GET /v2/droplets/")).count();
            if asked >= 12 { Ok(()) } else { Err(format!("{asked} Droplets were asked for")) }
        })
        .await;
        assert_eq!(
            stage.cloud.changes(calls).await,
            Vec::<String>::new(),
            "nothing is made, nothing deleted"
        );
        let ids = |status: &egress_api::EgressGatewayStatus| {
            status.gateways.iter().map(|gateway| (gateway.droplet_id, gateway.ready)).collect::<Vec<_>>()
        };
        let status = stage.status("demo").await;
        assert_eq!(ids(&status), ids(&before), "nothing is given up for lost");
        assert_eq!((status.creating.len(), status.last_replacement), (0, None));
        stage.cloud.mend().await;
        says(&stage, "demo", "Degraded", "AsAskedFor", "").await;
        assert_eq!(stage.cloud.changes(calls).await, Vec::<String>::new());
    });
}
