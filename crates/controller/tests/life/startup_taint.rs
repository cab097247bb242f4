//! The startup taint of a new node, and what the controller may change of a node.

use egress_api::{NodeEgress, STARTUP_TAINT, StaticRoute};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::stage::{Controller, Stage, play, until};

const NODE: &str = "pool-3";
const MINE: &str = "example.com/mine";

fn taint(key: &str) -> Value {
    json!({"key": key, "effect": "NoSchedule"})
}

/// Keys of a node's taints, in order; the API server itself puts `not-ready` on nodes that are new.
async fn taints(nodes: &Api<Node>, name: &str) -> Vec<String> {
    let node = nodes.get(name).await.unwrap();
    let taints = node.spec.and_then(|spec| spec.taints).unwrap_or_default();
    taints.into_iter().map(|taint| taint.key).filter(|key| !key.starts_with("node.kubernetes.io/")).collect()
}

/// The node boots: the kubelet tells of another boot.
async fn boots(nodes: &Api<Node>, name: &str, boot: &str) {
    let info = json!({"bootID": boot, "architecture": "amd64", "containerRuntimeVersion": "x", "kernelVersion": "x",
        "kubeProxyVersion": "x", "kubeletVersion": "x", "machineID": "x", "operatingSystem": "linux", "osImage": "x", "systemUUID": "x"});
    let status = json!({"status": {"nodeInfo": info}});
    nodes.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
}

/// A node with a label, a taint of somebody's and the startup taint.
async fn new_node(nodes: &Api<Node>, name: &str, boot: &str) {
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"pool": "a"}},
        "spec": {"taints": [taint(MINE), taint(STARTUP_TAINT)]}});
    nodes.create(&PostParams::default(), &serde_json::from_value(node).unwrap()).await.unwrap();
    boots(nodes, name, boot).await;
}

/// What a node's agent says of `closed`.
async fn report(
    client: &Client,
    node: &str,
    boot: &str,
    closed: Option<(&StaticRoute, i64, bool)>,
) -> Result<(), String> {
    let routes = closed.map(|(route, generation, guarded)| {
        json!({"name": "closed", "uid": route.metadata.uid, "observedGeneration": generation, "state": "NotApplied",
            "applied": 0, "total": 1, "guarded": guarded})
    });
    let status =
        json!({"agentVersion": "played", "bootID": boot, "routes": routes.into_iter().collect::<Vec<_>>()});
    let object = |more: Value| {
        let mut object = json!({"apiVersion": "networking.digitalocean.com/v1alpha1", "kind": "NodeEgress", "metadata": {"name": node}});
        object.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
        Patch::Apply(object)
    };
    let manager = PatchParams::apply("played-agent").force();
    let reports: Api<NodeEgress> = Api::all(client.clone());
    reports.patch(node, &manager, &object(json!({}))).await.map_err(|error| error.to_string())?;
    let written = reports.patch_status(node, &manager, &object(json!({"status": status}))).await;
    written.map(drop).map_err(|error| error.to_string())
}

/// Waits until the controller has looked at a tainted node with everything that was written before.
async fn looked_at(controller: &Controller) {
    let looks = || controller.log().matches("the startup taint stays for now").count();
    let before = looks();
    until(
        "the controller looks",
        async || if looks() >= before + 2 { Ok(()) } else { Err(looks().to_string()) },
    )
    .await;
}

async fn route(stage: &Stage, name: &str, fails: &str) -> StaticRoute {
    let object = json!({"apiVersion": "networking.digitalocean.com/v1", "kind": "StaticRoute", "metadata": {"name": name},
        "spec": {"destinations": ["192.0.2.80"], "gateways": [{"address": "10.116.0.5"}], "onNoGateway": fails}});
    let routes: Api<StaticRoute> = Api::all(stage.client.clone());
    routes.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap()
}

/// A client with the token that a kubelet gives the agent's Pod on `node`.
async fn agent_on(stage: &Stage, node: &str) -> Client {
    stage.install(&["agent-rbac.yaml", "agent-reports.yaml"]);
    let pods: Api<Pod> = Api::namespaced(stage.client.clone(), "egress-gateway");
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "agent"},
        "spec": {"serviceAccountName": "egress-agent", "nodeName": node, "containers": [{"name": "agent", "image": "agent"}]}});
    pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    stage.client_of("egress-agent", &["--bound-object-kind=Pod", "--bound-object-name=agent"])
}

#[test]
fn the_startup_taint_goes_when_the_nodes_own_report_of_this_boot_has_every_guard() {
    play(async |stage| {
        let nodes: Api<Node> = Api::all(stage.client.clone());
        let closed = route(&stage, "closed", "FailClosed").await;
        route(&stage, "open", "KeepLast").await;
        new_node(&nodes, NODE, "boot-2").await;
        let controller = stage.controller("a");
        let stays = async |why: &str| {
            looked_at(&controller).await;
            assert_eq!(taints(&nodes, NODE).await, [MINE, STARTUP_TAINT], "{why}");
        };

        stays("nobody reported").await;
        let say = async |boot: &str, generation: i64, guarded: bool| {
            report(&stage.client, NODE, boot, Some((&closed, generation, guarded))).await.unwrap();
        };
        say("boot-1", 1, true).await;
        stays("a report of another boot").await;
        say("boot-2", 1, false).await;
        stays("routes without a guard").await;
        say("boot-2", 0, true).await;
        stays("guards of another version").await;
        report(&stage.client, NODE, "boot-2", None).await.unwrap();
        stays("nothing is said of it").await;

        // Somebody with the token of another node's agent.
        let hostile = agent_on(&stage, "pool-2").await;
        // The policy acts some moments after it was made: until then it says what takes no taint off.
        let hostile_says = async |guards: Option<(&StaticRoute, i64, bool)>| {
            let said = report(&hostile, NODE, "boot-2", guards).await.err().unwrap_or_default();
            if said.contains("may write NodeEgress pool-2 only, not pool-3") { Ok(()) } else { Err(said) }
        };
        until("another node's agent is refused", async || hostile_says(None).await).await;
        hostile_says(Some((&closed, 1, true))).await.unwrap();
        report(&stage.client, NODE, "boot-2", None).await.unwrap();
        stays("another node's agent").await;

        say("boot-2", 1, true).await;
        let off = async |name: &str| {
            until("the taint is off", async || match taints(&nodes, name).await {
                left if left == [MINE] => Ok(()),
                left => Err(format!("{left:?}")),
            })
            .await;
        };
        off(NODE).await;
        let node = nodes.get(NODE).await.unwrap();
        assert_eq!(node.metadata.labels.unwrap().get("pool").map(String::as_str), Some("a"));
        let events: Api<Event> = Api::namespaced(stage.client.clone(), "default");
        let told = async || {
            let events = events.list(&ListParams::default()).await.unwrap();
            let is_it = |event: &&Event| event.reason.as_deref() == Some("EgressReady");
            let names = events.items.iter().filter(is_it).filter_map(|event| event.regarding.clone()?.name);
            names.collect::<Vec<_>>()
        };
        until(
            "an event",
            async || if told().await == [NODE] { Ok(()) } else { Err(format!("{:?}", told().await)) },
        )
        .await;

        // It boots again, and somebody tainted it before: what the last boot had is gone.
        boots(&nodes, NODE, "boot-3").await;
        let again = json!({"spec": {"taints": [taint(MINE), taint(STARTUP_TAINT)]}});
        nodes.patch(NODE, &PatchParams::default(), &Patch::Merge(again)).await.unwrap();
        stays("rebooted").await;
        say("boot-3", 1, true).await;
        off(NODE).await;

        // With nothing that fails closed the first report of the boot is enough.
        let routes: Api<StaticRoute> = Api::all(stage.client.clone());
        routes.delete("closed", &DeleteParams::default()).await.unwrap();
        new_node(&nodes, "pool-4", "boot-1").await;
        looked_at(&controller).await;
        assert_eq!(taints(&nodes, "pool-4").await, [MINE, STARTUP_TAINT], "no report at all");
        report(&stage.client, "pool-4", "boot-1", None).await.unwrap();
        off("pool-4").await;
    });
}

#[test]
fn of_a_node_the_controller_can_change_nothing_but_that_taint() {
    play(async |stage| {
        let nodes: Api<Node> = Api::all(stage.client.clone());
        new_node(&nodes, NODE, "boot-1").await;
        let controller: Api<Node> = Api::all(stage.client_of("egress-controller", &[]));
        let patch = async |patch: Value| {
            let done = controller.patch(NODE, &PatchParams::default(), &Patch::Merge(patch)).await;
            done.map(drop).map_err(|error| error.to_string())
        };
        // A policy acts some moments after it was made; until then each patch must change something.
        let tries = std::cell::Cell::new(0);
        until("the policy acts", async || {
            tries.set(tries.get() + 1);
            let label = json!({"metadata": {"labels": {"tried": tries.get().to_string()}}});
            let said = patch(label).await.err().unwrap_or_default();
            if said.contains("nothing of a Node but its taint") { Ok(()) } else { Err(said) }
        })
        .await;
        let before = nodes.get(NODE).await.unwrap();
        // The API server itself has put one on, too.
        let there =
            serde_json::to_value(before.spec.clone().unwrap().taints).unwrap().as_array().unwrap().clone();
        let with = |more: Value| [there.clone(), vec![more]].concat();
        let without =
            |key: &str| there.iter().filter(|taint| taint["key"] != key).cloned().collect::<Vec<_>>();
        let harder: Vec<Value> =
            there.iter().map(|taint| json!({"key": taint["key"], "effect": "NoExecute"})).collect();
        let refused = [
            json!({"metadata": {"labels": {"pool": null}}}),
            json!({"metadata": {"annotations": {"a": "b"}}}),
            json!({"metadata": {"finalizers": ["example.com/mine"]}}),
            json!({"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "x", "uid": "y"}]}}),
            json!({"spec": {"unschedulable": true}}),
            json!({"spec": {"podCIDR": "10.244.9.0/24", "podCIDRs": ["10.244.9.0/24"]}}),
            json!({"spec": {"providerID": "digitalocean://7"}}),
            json!({"spec": {"taints": []}}),
            json!({"spec": {"taints": without(MINE)}}),
            json!({"spec": {"taints": with(taint("example.com/new"))}}),
            json!({"spec": {"taints": harder}}),
            json!({"spec": {"taints": without(STARTUP_TAINT)}, "metadata": {"labels": {"pool": "b"}}}),
        ];
        for change in refused {
            let said = patch(change.clone()).await.err().unwrap_or_default();
            assert!(
                said.contains("'egress-controller-startup-taint'") && said.contains("denied"),
                "{change}: {said}"
            );
        }
        let status = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
        assert!(controller.patch_status(NODE, &PatchParams::default(), &Patch::Merge(status)).await.is_err());
        assert!(controller.delete(NODE, &DeleteParams::default()).await.is_err());
        assert_eq!(nodes.get(NODE).await.unwrap().spec, before.spec);

        // The one thing it may; and nothing puts the taint back on.
        patch(json!({"spec": {"taints": without(STARTUP_TAINT)}})).await.unwrap();
        assert_eq!(taints(&nodes, NODE).await, [MINE]);
        let said = patch(json!({"spec": {"taints": there}})).await.err();
        assert!(said.as_ref().is_some_and(|said| said.contains("put none on")), "{said:?}");
        // Others are not restricted.
        let label = json!({"metadata": {"labels": {"pool": "c"}}});
        nodes.patch(NODE, &PatchParams::default(), &Patch::Merge(label)).await.unwrap();
    });
}
