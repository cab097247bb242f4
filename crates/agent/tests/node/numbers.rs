//! Agents with other numbers than the one before: they take over what that one left.

use std::process::Command;

use serde_json::{Value, json};

use crate::cloud::{A, A_PUBLIC, B, B_PUBLIC, ours, seen_from, sh, until};
use crate::packets::Packets;
use crate::scene::{Agent, Hosts, LISTED, SOON, Scene, until_ready};
use crate::tracer::{Frozen, NETLINK};

const ELSEWHERE: [&str; 5] = [
    "--table=2157",
    "--probe-tables=2160",
    "--rule-priorities=950",
    "--probe-ports=63424",
    "--nexthop-ids=242000000",
];

#[test]
fn an_agent_with_other_numbers_takes_everything_over_without_a_gap_or_a_leak() {
    let scene = Scene::new();
    let spec = json!({"destinations": ["192.0.2.80", "198.18.0.0/15"], "gateways": [{"address": A}, {"address": B}]});
    scene.route("demo", &spec);
    let agent = Agent::start(&scene);
    scene.until_applied("demo", 2);
    until_ready();
    scene.cloud.power_off("a");
    until("through B", &Some(B_PUBLIC), SOON, || seen_from(LISTED));
    let first = ours();

    let packets = Packets::start(&scene.cloud);
    agent.kill();
    let agent = start_elsewhere(&scene);
    until("nothing of the old numbers", &String::new(), SOON, old_ones);
    until_ready();
    let moved = ours();
    assert_eq!(moved.lines().count(), first.lines().count(), "{first}\nbecame\n{moved}");
    agent.kill();
    let _agent = Agent::start(&scene);
    until("back at the first numbers", &first, SOON, ours);

    packets.all_arrived(&scene.cloud);
    assert_eq!(seen_from(LISTED), Some(B_PUBLIC), "and the failover was kept");
}

#[test]
fn a_number_that_cannot_be_used_is_named_at_the_start() {
    let output = Command::new(env!("CARGO_BIN_EXE_egress-agent"))
        .args(["--node-name=node-1", "--table=135"])
        .env("KUBECONFIG", "/nonexistent")
        .output()
        .unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("--table 135 can't be used: 135 belongs to DigitalOcean's managed routing agent"),
        "{said}"
    );
}

#[test]
fn an_agent_with_other_numbers_works_with_those_it_finds_until_it_knows_everything() {
    let scene = Scene::new();
    let pair = || {
        let gateways = json!([{"address": A}, {"address": B}]);
        scene.route("pair", &json!({"destinations": ["192.0.2.80", "198.18.0.0/15"], "gateways": gateways}));
    };
    pair();
    let agent = Agent::start(&scene);
    scene.until_applied("pair", 2);
    until_ready();
    let before = ours();
    let packets = Packets::start(&scene.cloud);

    // Without the API server.
    agent.kill();
    scene.cut_off_api_server();
    let agent = start_elsewhere(&scene);
    agent.until_says("keeping what the kernel holds");
    assert_eq!(ours(), before);
    scene.cloud.power_off("a");
    until("through B", &Some(B_PUBLIC), SOON, || seen_from(LISTED));
    scene.cloud.start_gateway("a", "203.0.113.5", A);
    agent.kill();
    scene.reconnect_api_server();

    // While a StaticRoute can't be read: any of the kernel's routes may be its.
    loosen_definition(&scene);
    until("the API server takes anything", &true, SOON, || scene.try_apply(&unreadable()));
    let agent = start_elsewhere(&scene);
    until("said", &true, SOON, || waits_until(&scene, "every StaticRoute can be read"));
    assert!(is_at_the_old_numbers());
    scene.cloud.power_off("b");
    until("through A", &Some(A_PUBLIC), SOON, || seen_from(LISTED));
    scene.cloud.start_gateway("b", "203.0.113.6", B);
    scene.kubectl(&["delete", "staticroute", "unreadable"]);
    until("moved", &String::new(), SOON, old_ones);
    until("said", &false, SOON, || waits_until(&scene, ""));
    assert_eq!(seen_from(LISTED), Some(A_PUBLIC));

    // After its definition was deleted, the other way round.
    let moved = ours();
    agent.kill();
    scene.kubectl(&["delete", "crd", "staticroutes.networking.digitalocean.com", "--timeout=30s"]);
    scene.install_definitions();
    let _agent = Agent::start(&scene);
    until("said", &true, SOON, || waits_until(&scene, "no StaticRoute is orphaned"));
    assert_eq!(ours(), moved);
    pair();
    until("moved", &true, SOON, is_at_the_old_numbers);
    until("nothing is left", &String::new(), SOON, || sh("ip -4 route show table 2157"));
    assert_eq!(seen_from(LISTED), Some(A_PUBLIC));
    packets.none_leaked(&scene.cloud);
}

/// Between the pass that decides to move and the one that does: the kernel holds nothing of ours at the new numbers then.
#[test]
fn what_comes_up_before_a_move_is_made_puts_it_off_and_no_packet_leaks() {
    let scene = Scene::new();
    scene.route("demo", &json!({"destinations": ["192.0.2.80"], "gateways": [{"address": A}]}));
    let agent = Agent::start(&scene);
    scene.until_applied("demo", 1);
    until_ready();
    let before = ours();
    let packets = Packets::start(&scene.cloud);
    agent.kill();

    loosen_definition(&scene);
    until("the API server takes anything", &true, SOON, || scene.try_apply(&unreadable()));
    let hosts = Hosts::new(&[]);
    hosts.silence_resolver();
    let own = ["--daemonset=", "--protected-names=", "--namespace=default"];
    let arguments: Vec<_> = own.into_iter().chain(ELSEWHERE).collect();
    let agent = Agent::start_with_hosts(&scene, &arguments, &hosts);
    until("said", &true, SOON, || waits_until(&scene, "every StaticRoute can be read"));
    until_ready();
    // The pass that knows of no obstacle any more waits for the kernel, and a name comes that nobody has looked up.
    let waiting = Frozen::thread(agent.id(), NETLINK);
    scene.kubectl(&["delete", "staticroute", "unreadable"]);
    scene.apply(&json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "egress-protected", "namespace": "default"},
        "data": {"names": "new.example.com"}}));
    drop(waiting);
    agent.until_says("not moving to the given numbers until it is known where the API server is");
    until("moved", &String::new(), SOON, old_ones);
    assert_ne!(ours(), before);
    packets.all_arrived(&scene.cloud);
}

fn start_elsewhere(scene: &Scene) -> Agent {
    let arguments: Vec<_> = ["--daemonset=", "--protected-names="].into_iter().chain(ELSEWHERE).collect();
    Agent::start_with(scene, &arguments)
}

fn old_ones() -> String {
    sh(
        "ip -4 route show table 1157; ip -4 rule show | grep 1157 || true; ip nexthop show proto 157 | grep 'id 241' || true",
    )
}

fn is_at_the_old_numbers() -> bool {
    !old_ones().is_empty() && sh("ip nexthop show proto 157 | grep 'id 242' || true").is_empty()
}

fn waits_until(scene: &Scene, what: &str) -> bool {
    let said = scene.condition("FormerNumbers");
    said.is_some_and(|(status, _, message)| status == "True" && message.ends_with(what))
}

/// As an API server of another age may have it: anything goes.
fn loosen_definition(scene: &Scene) {
    let anything = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let patch =
        json!([{"op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema", "value": anything}]);
    let name = "staticroutes.networking.digitalocean.com";
    scene.kubectl(&["patch", "crd", name, "--type=json", "-p", &patch.to_string()]);
}

fn unreadable() -> Value {
    json!({"apiVersion": "networking.digitalocean.com/v1", "kind": "StaticRoute",
        "metadata": {"name": "unreadable"}, "spec": {"destinations": 5}})
}
