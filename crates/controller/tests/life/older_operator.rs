//! The older StaticRoute operator on its way out.

use egress_api::StaticRoute;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::json;

use crate::stage::{play, until};

const FINALIZER: &str = "kopf.zalando.org/KopfFinalizerMarker";
const ANNOTATION: &str = "kopf.zalando.org/last-handled-configuration";
const DEFINITION: &str = "staticroutes.networking.digitalocean.com";

#[test]
fn its_marks_go_with_it_and_the_loss_of_the_shared_definition_does_no_harm() {
    play(async |stage| {
        let namespaces: Api<Namespace> = Api::all(stage.client.clone());
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "static-routes"}});
        namespaces.create(&PostParams::default(), &serde_json::from_value(namespace).unwrap()).await.unwrap();
        let daemonsets: Api<DaemonSet> = Api::namespaced(stage.client.clone(), "static-routes");
        let daemonset = json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "k8s-staticroute-operator"},
        "spec": {"selector": {"matchLabels": {"name": "k8s-staticroute-operator"}}, "template": {
            "metadata": {"labels": {"name": "k8s-staticroute-operator"}},
            "spec": {"containers": [{"name": "k8s-staticroute-operator", "image": "none.invalid/operator"}]}}}});
        daemonsets.create(&PostParams::default(), &serde_json::from_value(daemonset).unwrap()).await.unwrap();

        let routes: Api<StaticRoute> = Api::all(stage.client.clone());
        let marked = |name: &str| {
            let object = json!({"apiVersion": "networking.digitalocean.com/v1", "kind": "StaticRoute",
            "metadata": {"name": name, "finalizers": ["example.com/other", FINALIZER],
                         "annotations": {ANNOTATION: "{}", "example.com/note": "kept"}},
            "spec": {"destinations": ["192.0.2.80"], "gateway": "10.116.0.5"}});
            serde_json::from_value::<StaticRoute>(object).unwrap()
        };
        routes.create(&PostParams::default(), &marked("old")).await.unwrap();
        let _controller = stage.controller("a");
        stage.ask_for("demo", 1, json!({})).await;
        stage.whole("demo", 1).await;

        // It is there: what it wrote is its own business. The controller has been over the object, its status says so.
        let seen = until("summed up", async || {
            let route = routes.get("old").await.unwrap();
            if route.status.is_some() { Ok(route) } else { Err("no status".to_owned()) }
        })
        .await;
        assert_eq!(seen.metadata.finalizers.unwrap().len(), 2);
        assert!(seen.metadata.annotations.unwrap().contains_key(ANNOTATION));

        daemonsets.delete("k8s-staticroute-operator", &DeleteParams::default()).await.unwrap();
        let freed = until("its marks are off", async || {
            let route = routes.get("old").await.unwrap();
            let finalizers = route.metadata.finalizers.clone().unwrap_or_default();
            if finalizers == ["example.com/other"] { Ok(route) } else { Err(format!("{finalizers:?}")) }
        })
        .await;
        let annotations = freed.metadata.annotations.unwrap();
        assert!(!annotations.contains_key(ANNOTATION), "{annotations:?}");
        assert_eq!(annotations["example.com/note"], "kept");

        // Deleted by its own manifest: the definition goes, and with it every StaticRoute. Nothing follows from that.
        let mut free = marked("free");
        free.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
        routes.create(&PostParams::default(), &free).await.unwrap();
        let mut other = routes.get("old").await.unwrap();
        other.metadata.finalizers = None;
        routes.replace("old", &PostParams::default(), &other).await.unwrap();
        let status = stage.status("demo").await;
        let before = stage.cloud.last().await;
        let definitions: Api<CustomResourceDefinition> = Api::all(stage.client.clone());
        definitions.delete(DEFINITION, &DeleteParams::default()).await.unwrap();
        until("the definition is gone, held up by no finalizer", async || {
            match definitions.get_opt(DEFINITION).await.unwrap() {
                None => Ok(()),
                Some(there) => Err(format!("{:?}", there.status)),
            }
        })
        .await;
        stage.install_definitions().await;
        let again = stage.whole("demo", 1).await;
        until("the StaticRoute is back", async || stage.route("demo").await.ok_or_else(String::new)).await;
        assert_eq!(stage.cloud.changes(before).await, Vec::<String>::new());
        assert_eq!(again.gateways[0].droplet_id, status.gateways[0].droplet_id);
    });
}
