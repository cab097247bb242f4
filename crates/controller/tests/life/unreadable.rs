//! Objects that this version can't read: stored by a newer one before it was taken back, or by a definition that took anything.

use egress_api::StaticRoute;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::core::DynamicObject;
use kube::discovery::ApiResource;
use serde_json::{Value, json};

use crate::stage::{Stage, play, until};

/// More than one round of status writes.
const MANY: usize = 8;

fn raw<K: kube::Resource<DynamicType = ()>>(stage: &Stage) -> Api<DynamicObject> {
    Api::all_with(stage.client.clone(), &ApiResource::erase::<K>(&()))
}

/// Status, reason and message of a condition, read past our own types.
fn condition(object: &DynamicObject, type_: &str) -> (String, String, String) {
    let conditions = object.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = conditions.into_iter().find(|condition| condition["type"] == type_).unwrap_or_default();
    let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    (text("status"), text("reason"), text("message"))
}

async fn says_unreadable(
    objects: &Api<DynamicObject>,
    name: &str,
    type_: &str,
    words: &str,
) -> DynamicObject {
    until(&format!("{name}: {type_} says Unreadable"), async || {
        let object = objects.get(name).await.unwrap();
        let (_, reason, message) = condition(&object, type_);
        if reason == "Unreadable" && message.contains(words) {
            Ok(object)
        } else {
            Err(format!("{:#}", object.data["status"]))
        }
    })
    .await
}

// A definition takes a moment to count after it was written.
async fn patch_spec(objects: &Api<DynamicObject>, name: &str, spec: Value) {
    let patch = Patch::Merge(json!({"spec": spec}));
    until(&format!("{name} takes {spec}"), async || {
        let patched = objects.patch(name, &PatchParams::default(), &patch).await;
        patched.map(drop).map_err(|error| error.to_string())
    })
    .await;
}

#[test]
fn staticroutes_that_cannot_be_read_are_said_to_be_so_once_each_and_hold_nobody_up() {
    play(async |stage| {
        let routes = raw::<StaticRoute>(&stage);
        let object = |name: &str, spec: Value| {
            let object = json!({"apiVersion": "networking.digitalocean.com/v1", "kind": "StaticRoute",
                "metadata": {"name": name}, "spec": spec});
            serde_json::from_value::<DynamicObject>(object).unwrap()
        };
        stage.install_lax_definitions().await;
        for number in 0..MANY {
            let lame = object(&format!("lame-{number}"), json!({"gateway": "10.116.0.5"}));
            until("the lax definition counts", async || {
                let created = routes.create(&PostParams::default(), &lame).await;
                created.map(drop).map_err(|error| error.to_string())
            })
            .await;
        }
        stage.install_definitions().await;
        let sound = object("sound", json!({"destinations": ["192.0.2.80"], "gateway": "10.116.0.5"}));
        routes.create(&PostParams::default(), &sound).await.unwrap();

        let controller = stage.controller("a");
        let mut before = Vec::new();
        for number in 0..MANY {
            let lame = says_unreadable(&routes, &format!("lame-{number}"), "Ready", "destinations").await;
            before.push((lame.metadata.name, lame.metadata.resource_version));
        }
        // Rounds go by: each of these has its status only after one.
        for last in 81..84 {
            patch_spec(&routes, "sound", json!({"destinations": [format!("192.0.2.{last}")]})).await;
            until("the sound one is summed up", async || {
                let sound = routes.get("sound").await.unwrap();
                let summed = sound.data["status"]["observedGeneration"].as_i64();
                if summed == sound.metadata.generation { Ok(()) } else { Err(format!("{summed:?}")) }
            })
            .await;
        }
        let list = routes.list(&ListParams::default()).await.unwrap().items.into_iter();
        let after: Vec<_> =
            list.map(|lame| (lame.metadata.name, lame.metadata.resource_version)).take(MANY).collect();
        assert_eq!(after, before, "written once each");
        let log = controller.log();
        let warnings: Vec<&str> = log.lines().filter(|line| line.contains(" WARN ")).collect();
        assert!(warnings.len() <= MANY, "{warnings:#?}");
    });
}

#[test]
fn an_egressgateway_that_cannot_be_read_is_said_to_be_so_keeps_its_droplets_and_goes_on_once_mended() {
    play(async |stage| {
        let gateways = raw::<egress_api::EgressGateway>(&stage);
        let controller = stage.controller("a");
        stage.ask_for("demo", 1, json!({})).await;
        let whole = stage.whole("demo", 1).await;
        let before = stage.cloud.last().await;

        stage.install_lax_definitions().await;
        patch_spec(&gateways, "demo", json!({"mode": "RoundRobin"})).await;
        stage.install_definitions().await;
        let told =
            says_unreadable(&gateways, "demo", "Ready", "spec.mode: unknown variant `RoundRobin`").await;
        assert_eq!(condition(&told, "Ready").0, "False");
        assert_eq!(condition(&told, "Degraded").0, "True");
        assert_eq!(condition(&told, "Progressing").0, "False");
        let kept = &told.data["status"]["gateways"][0]["dropletID"];
        assert_eq!(*kept, json!(whole.gateways[0].droplet_id), "the record of its Droplets stays");
        let events: Api<Event> = Api::all(stage.client.clone());
        until("an event tells of it", async || {
            let all = events.list(&ListParams::default()).await.unwrap().items;
            let tells = |event: &Event| event.reason.as_deref() == Some("Unreadable");
            if all.iter().any(tells) { Ok(()) } else { Err(format!("{} events", all.len())) }
        })
        .await;

        let _going = gateways.delete("demo", &DeleteParams::default()).await.unwrap();
        let finalizer = "networking.digitalocean.com/egress-gateway";
        says_unreadable(&gateways, "demo", "Degraded", finalizer).await;
        assert_eq!(stage.cloud.changes(before).await, Vec::<String>::new());

        patch_spec(&gateways, "demo", json!({"mode": "ActiveStandby"})).await;
        stage.gone("demo").await;
        let firewall = whole.firewall.unwrap().id.unwrap();
        let wanted = [
            format!("DELETE /v2/droplets/{}", whole.gateways[0].droplet_id),
            format!("DELETE /v2/firewalls/{firewall}"),
        ];
        assert_eq!(stage.cloud.changes(before).await, wanted);
        drop(controller);
    });
}
