//! The control plane is away, or knows nothing of ours any more: nodes fail over all the same, also when their agent is started in
//! the middle (I6).

use std::net::Ipv4Addr;
use std::time::Duration;

use egress_api::NodeRouteState;
use serde_json::json;

use crate::cloud::{A, A_PUBLIC, B, B_PUBLIC, ip, ours, seen_from, sh, until};
use crate::references::{egress_gateway, let_go, refer};
use crate::scene::{Agent, LISTED, Monitor, SOON, Scene, metric, settled, until_ready};

/// A destination of the EgressGateway's own StaticRoute.
const OWNED: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 80);
/// One of a StaticRoute that follows it.
const FOLLOWED: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 81);
const EGRESS_GATEWAYS: &str = "egressgateways.networking.digitalocean.com";
const TAKEN_ALONG: &str = "the definition of EgressGateways is being deleted, and this one with it";

#[test]
fn without_the_api_server_routes_stay_and_dead_gateways_are_left() {
    let scene = Scene::new();
    let agent = Agent::start(&scene);
    scene.route("all", &json!({"destinations": ["0.0.0.0/0"], "gateways": [{"address": A}, {"address": B}]}));
    scene.until_applied("all", 1);
    until("through A", &Some(A_PUBLIC), SOON, || seen_from(LISTED));
    let before = ours();

    // The API server is gone, the agent has its objects.
    scene.cut_off_api_server();
    scene.cloud.power_off("a");
    let took = until("through B", &Some(B_PUBLIC), Duration::from_secs(5), || seen_from(LISTED));
    eprintln!("without an API server: new connections got through {took:?} after A lost power");

    // An agent that never saw the API server: A is back, and B, which is in use now, dies.
    agent.kill();
    assert_eq!(seen_from(LISTED), Some(B_PUBLIC), "routes stay when the agent dies");
    scene.cloud.start_gateway("a", "203.0.113.5", A);
    let agent = Agent::start(&scene);
    agent.until_says("keeping what the kernel holds");
    until("probed", &true, SOON, || {
        metric("egress_agent_probes_total{level=\"reachability\",outcome=\"answered\"}") > 20.0
    });
    assert_eq!(seen_from(LISTED), Some(B_PUBLIC), "nobody is moved off a gateway that works");
    scene.cloud.power_off("b");
    let took = until("through A", &Some(A_PUBLIC), Duration::from_secs(5), || seen_from(LISTED));
    eprintln!("agent started without an API server: new connections got through {took:?} after B lost power");
    until("as it was", &before, Duration::from_secs(5), ours);

    // What somebody takes away comes back, and what was routed never leaves with the node's own address.
    sh("ip rule del pref 1001");
    until("repaired", &before, Duration::from_secs(5), ours);
    sh("ip link set eth1 down");
    until("dropped", &true, Duration::from_secs(5), || !ip("nexthop show proto 157").contains("via"));
    assert_eq!(seen_from(LISTED), None);
    sh("ip link set eth1 up");
    until("repaired", &before, Duration::from_secs(5), ours);
    until("through A", &Some(A_PUBLIC), Duration::from_secs(5), || seen_from(LISTED));

    // Back again: nothing flaps, nothing is written.
    let monitor = Monitor::start(&["route", "rule", "nexthop"]);
    scene.reconnect_api_server();
    until_ready();
    assert_eq!(seen_from(LISTED), Some(A_PUBLIC));
    assert_eq!(ours(), before);
    assert_eq!(monitor.stop(), Vec::<String>::new());
    drop(agent);
}

#[test]
fn without_any_definition_of_ours_routes_stay_and_when_all_is_applied_again_it_goes_on() {
    let scene = Scene::new();
    let mut agent = Agent::start(&scene);
    let apply = || {
        scene.route(
            "pair",
            &json!({"destinations": ["192.0.2.80"], "gateways": [{"address": A}, {"address": B}]}),
        );
        until_its_own_is_applied(&scene, "pair");
    };
    apply();
    until_ready();
    let owned_and_following = || {
        egress_gateway(&scene, &[A, B]);
        scene.route("follower", &json!({"destinations": [FOLLOWED], "gatewayRef": {"name": "demo"}}));
        until_its_own_is_applied(&scene, "demo");
        until_its_own_is_applied(&scene, "follower");
    };
    let mut destinations = vec![LISTED];
    // Without an EgressGateway nothing holds the definitions; with one, its finalizer keeps one definition and itself in sight.
    for (held, restarted) in [(false, false), (false, true), (true, false), (true, true)] {
        if held {
            owned_and_following();
            destinations = vec![LISTED, OWNED, FOLLOWED];
        }
        let before = settled();
        scene.kubectl(&["delete", "customresourcedefinitions", "--all", "--wait=false"]);
        until("the definitions are gone", &usize::from(held), SOON, || definitions(&scene));
        if restarted {
            agent.kill();
            agent = Agent::start(&scene);
            agent.until_says("keeping what the kernel holds");
        } else if held {
            agent.until_says(TAKEN_ALONG);
        }
        assert_eq!(settled(), before, "held: {held}, restarted: {restarted}");
        let through_a = |destination: &Ipv4Addr| seen_from(*destination) == Some(A_PUBLIC);
        assert!(destinations.iter().all(through_a), "held: {held}, restarted: {restarted}");
        if held {
            let_go(&scene);
            until("the last definition is gone", &0, SOON, || definitions(&scene));
            assert_eq!(settled(), before, "let go, restarted: {restarted}");
        }
        scene.install_definitions();
        apply();
        assert!(destinations.iter().all(through_a), "held: {held}, restarted: {restarted}");
    }
    // Orphans go when their objects are there again and are deleted.
    owned_and_following();
    for name in ["follower", "demo", "pair"] {
        scene.delete_route(name);
    }
    until("nothing of ours is left", &String::new(), SOON, ours);
}

#[test]
fn the_definition_of_egress_gateways_takes_no_route_along_and_a_deletion_that_somebody_wants_does() {
    let scene = Scene::new();
    let mut agent = Agent::start(&scene);
    let apply = || {
        egress_gateway(&scene, &[A, B]);
        refer(&scene, "demo");
        until_its_own_is_applied(&scene, "demo");
        until_its_own_is_applied(&scene, "follower");
    };
    apply();
    until_ready();
    let before = settled();
    let unchanged = |when: &str| {
        assert_eq!((settled(), seen_from(LISTED)), (before.clone(), Some(A_PUBLIC)), "{when}");
        assert_eq!(seen_from(OWNED), Some(A_PUBLIC), "{when}");
    };
    scene.kubectl(&["delete", "crd", EGRESS_GATEWAYS, "--wait=false"]);
    agent.until_says(TAKEN_ALONG);
    unchanged("while it is being deleted");
    agent.terminate();
    agent = Agent::start(&scene);
    until_ready();
    unchanged("an agent started meanwhile");

    // Let go of by hand, it is gone, and Kubernetes' garbage collector deletes what it owned.
    let_go(&scene);
    until("the definition is gone", &2, SOON, || definitions(&scene));
    scene.delete_route("demo");
    agent.until_says("its definition was deleted: it is orphaned");
    unchanged("it is gone");

    scene.install_definitions();
    apply();
    assert_eq!((seen_from(LISTED), seen_from(OWNED)), (Some(A_PUBLIC), Some(A_PUBLIC)));
    scene.kubectl(&["delete", "egressgateway", "demo", "--wait=false"]);
    until("the follower let go", &Some((NodeRouteState::NotApplied, 0)), SOON, || scene.state_of("follower"));
    scene.delete_route("demo");
    until("nothing of ours is left", &String::new(), SOON, ours);
}

#[test]
fn an_orphan_whose_gateway_nobody_knows_stays_dropped_and_holds_up_no_other() {
    let scene = Scene::new();
    let agent = Agent::start(&scene);
    scene.route("bare", &json!({"destinations": ["192.0.2.80"], "gateway": A}));
    scene.until_applied("bare", 1);
    // The agent puts a blackhole in the place of its gateway, and dies; the definition is another one when the next one starts.
    sh("ip link set eth1 down");
    until("dropped", &true, SOON, || {
        ip("nexthop show proto 157").contains("id 2410") && !ip("nexthop show").contains("via")
    });
    agent.kill();
    scene.kubectl(&["delete", "crd", "staticroutes.networking.digitalocean.com", "--timeout=30s"]);
    sh("ip link set eth1 up");
    scene.install_definitions();
    let agent = Agent::start(&scene);
    scene.route("other", &json!({"destinations": [FOLLOWED], "gateways": [{"address": B}, {"address": A}]}));
    scene.until_applied("other", 1);
    until_ready();
    assert_eq!((seen_from(LISTED), seen_from(FOLLOWED)), (None, Some(B_PUBLIC)));
    let told = scene.condition("Orphaned").unwrap();
    assert!(told.2.contains("nobody knows the gateway of bare any more"), "{told:?}");
    let before = settled();
    agent.terminate();
    let agent = Agent::start(&scene);
    until_ready();
    assert_eq!((settled(), seen_from(LISTED)), (before, None), "a restart writes nothing");

    scene.route("bare", &json!({"destinations": ["192.0.2.80"], "gateway": A}));
    until("through A", &Some(A_PUBLIC), SOON, || seen_from(LISTED));
    scene.delete_route("bare");
    scene.delete_route("other");
    until("nothing of ours is left", &String::new(), SOON, ours);
    drop(agent);
}

/// Of an orphan of that name the report says that it is applied, too.
fn until_its_own_is_applied(scene: &Scene, name: &str) {
    let uid = scene.kubectl(&["get", "staticroute", name, "-o", "jsonpath={.metadata.uid}"]);
    until(name, &Some((uid, NodeRouteState::Applied)), SOON, || {
        scene.route_report(name).map(|report| (report.uid, report.state))
    });
}

fn definitions(scene: &Scene) -> usize {
    let named = scene.kubectl(&["get", "customresourcedefinitions", "-o", "name"]);
    named.lines().filter(|name| name.contains("networking.digitalocean.com")).count()
}
