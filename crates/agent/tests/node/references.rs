//! StaticRoutes that follow the list of an EgressGateway.

use egress_api::NodeRouteState;
use serde_json::{Value, json};

use crate::cloud::{A, A_PUBLIC, B, B_PUBLIC, NODE_PUBLIC, ours, seen_from, until};
use crate::scene::{Agent, LISTED, SOON, Scene, settled, until_ready};

/// An EgressGateway as the controller keeps one: with a finalizer, and with a StaticRoute of its own that has the list.
pub fn egress_gateway(scene: &Scene, list: &[&str]) {
    scene.apply(&json!({"apiVersion": "networking.digitalocean.com/v1alpha1", "kind": "EgressGateway",
        "metadata": {"name": "demo", "finalizers": ["networking.digitalocean.com/egress-gateway"]},
        "spec": {"destinations": ["198.18.0.0/24"], "publicIP": "Ephemeral"}}));
    let uid = scene.kubectl(&["get", "egressgateway", "demo", "-o", "jsonpath={.metadata.uid}"]);
    let gateways: Vec<Value> = list.iter().map(|address| json!({"address": address})).collect();
    scene.apply(&json!({"apiVersion": "networking.digitalocean.com/v1", "kind": "StaticRoute",
        "metadata": {"name": "demo", "ownerReferences": [{"apiVersion": "networking.digitalocean.com/v1alpha1",
            "kind": "EgressGateway", "name": "demo", "uid": uid, "controller": true}]},
        "spec": {"destinations": ["198.18.0.0/24"], "gateways": gateways}}));
}

/// A StaticRoute that follows the EgressGateway of that name.
pub fn refer(scene: &Scene, name: &str) {
    scene.route("follower", &json!({"destinations": ["192.0.2.80"], "gatewayRef": {"name": name}}));
}

/// Takes the finalizer off, as the controller does when all is gone, and people do by hand.
pub fn let_go(scene: &Scene) {
    let without = r#"{"metadata":{"finalizers":null}}"#;
    scene.kubectl(&["patch", "egressgateway", "demo", "--type=merge", "-p", without]);
}

fn message(scene: &Scene) -> String {
    let status = scene.status().unwrap_or_default();
    let route = status.routes.into_iter().find(|route| route.name == "follower");
    route.and_then(|route| route.message).unwrap_or_default()
}

#[test]
fn a_reference_follows_keeps_what_it_had_and_lets_go_when_its_egress_gateway_is_deleted() {
    let scene = Scene::new();
    let agent = Agent::start(&scene);
    refer(&scene, "demo");
    until("nothing yet", &Some((NodeRouteState::NotApplied, 0)), SOON, || scene.state_of("follower"));
    assert_eq!(
        message(&scene),
        "EgressGateway demo does not exist; make it, or correct spec.gatewayRef.name"
    );

    // In the order of the list, and as it changes.
    egress_gateway(&scene, &[A, B]);
    scene.until_applied("follower", 1);
    until("through A", &Some(A_PUBLIC), SOON, || seen_from(LISTED));
    egress_gateway(&scene, &[B, A]);
    until("through B", &Some(B_PUBLIC), SOON, || seen_from(LISTED));

    // Probed like a list of its own.
    scene.cloud.power_off("b");
    until("through A", &Some(A_PUBLIC), SOON, || seen_from(LISTED));
    egress_gateway(&scene, &[A]);

    // A slip of the pen costs no route, not over a restart either.
    refer(&scene, "dmeo");
    until(
        "the slip is told",
        &"EgressGateway dmeo does not exist; make it, or correct spec.gatewayRef.name; the gateways it had last stay in use"
            .to_owned(),
        SOON,
        || message(&scene),
    );
    assert_eq!(seen_from(LISTED), Some(A_PUBLIC));
    until_ready();
    let before = settled();
    agent.terminate();
    let agent = Agent::start(&scene);
    until_ready();
    assert_eq!(settled(), before, "a restart writes nothing");
    assert_eq!(seen_from(LISTED), Some(A_PUBLIC));
    refer(&scene, "demo");
    until("mended", &String::new(), SOON, || message(&scene));

    // Deleted: the object is there until its gateways are gone, and nothing is routed to them meanwhile.
    scene.kubectl(&["delete", "egressgateway", "demo", "--wait=false"]);
    until("let go", &Some((NodeRouteState::NotApplied, 0)), SOON, || scene.state_of("follower"));
    until("with the node's own address", &Some(NODE_PUBLIC), SOON, || seen_from(LISTED));
    let told =
        "EgressGateway demo was deleted; name another one in spec.gatewayRef, or delete this StaticRoute";
    assert_eq!(message(&scene), told);
    scene.delete_route("demo");
    let_go(&scene);
    until("gone", &true, SOON, || scene.kubectl(&["get", "egressgateways", "-o", "name"]).is_empty());
    until("nothing of ours is left", &String::new(), SOON, ours);
    assert_eq!(message(&scene), told, "who saw it go knows");
    drop(agent);
}

#[test]
fn what_an_object_excludes_leaves_as_it_would_without_it() {
    let scene = Scene::new();
    let agent = Agent::start(&scene);
    let all = json!({"destinations": ["0.0.0.0/0"], "excludedDestinations": ["192.0.2.0/24", "198.51.100.99"],
        "gateways": [{"address": A}]});
    scene.route("all", &all);
    scene.until_applied("all", 1);
    let [listed, unlisted, other] =
        [LISTED, crate::scene::UNLISTED, std::net::Ipv4Addr::new(198, 51, 100, 98)];
    until("through A", &Some(A_PUBLIC), SOON, || seen_from(other));
    assert_eq!((seen_from(listed), seen_from(unlisted)), (Some(NODE_PUBLIC), Some(NODE_PUBLIC)));
    // Out of its own object only; in both spellings.
    scene.route(
        "some",
        &json!({"destinations": ["192.0.2.80", "192.0.2.80/32"], "gateways": [{"address": B}]}),
    );
    scene.until_applied("some", 1);
    until("through B", &Some(B_PUBLIC), SOON, || seen_from(listed));
    // Taken back.
    scene.route("all", &json!({"destinations": ["0.0.0.0/0"], "gateways": [{"address": A}]}));
    until("through A", &Some(A_PUBLIC), SOON, || seen_from(unlisted));
    assert_eq!(seen_from(listed), Some(B_PUBLIC));
    drop(agent);
}
