//! The control plane is away, or knows nothing of ours any more: nodes fail over all the same, also when their agent is started in
//! the middle (I6).

use std::time::Duration;

use serde_json::json;

use crate::cloud::{A, A_PUBLIC, B, B_PUBLIC, ip, ours, seen_from, sh, until};
use crate::scene::{Agent, LISTED, Monitor, SOON, Scene, metric, settled, until_ready};

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
        scene.until_applied("pair", 1);
    };
    apply();
    until_ready();
    for restarted in [false, true] {
        let before = settled();
        scene.kubectl(&["delete", "customresourcedefinitions", "--all", "--timeout=20s"]);
        if restarted {
            agent.kill();
            agent = Agent::start(&scene);
            agent.until_says("keeping what the kernel holds");
        }
        assert_eq!((settled(), seen_from(LISTED)), (before, Some(A_PUBLIC)), "restarted: {restarted}");
        scene.install_definitions();
        apply();
        assert_eq!(seen_from(LISTED), Some(A_PUBLIC));
    }
    scene.delete_route("pair");
    until("nothing of ours is left", &String::new(), SOON, ours);
}
