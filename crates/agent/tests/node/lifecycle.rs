//! A StaticRoute's life on a node: put, kept, switched, taken away.

use std::time::Duration;

use egress_api::NodeRouteState;
use nix::sys::signal::Signal;
use serde_json::json;

use crate::cloud::{A, A_PUBLIC, B, B_PUBLIC, NODE_PUBLIC, ip, ours, seen_from, sh, until};
use crate::packets::Packets;
use crate::scene::{Agent, Hosts, LISTED, Monitor, SOON, Scene, UNLISTED, metric, settled, until_ready};

#[test]
fn routes_are_put_kept_switched_and_taken_away() {
    let scene = Scene::new();
    assert_eq!(seen_from(LISTED), Some(NODE_PUBLIC), "the scene itself");

    let agent = Agent::start(&scene);

    // The older operator's shape: one gateway, taken on trust.
    scene.route("old", &json!({"destinations": ["192.0.2.80"], "gateway": A}));
    until("through A", &Some(A_PUBLIC), SOON, || seen_from(LISTED));
    assert_eq!(seen_from(UNLISTED), Some(NODE_PUBLIC));
    until("reported", &Some((NodeRouteState::Applied, 1)), SOON, || scene.state_of("old"));

    // A gateway edit takes effect in place (the older operator never applied one).
    scene.route("old", &json!({"destinations": ["192.0.2.80"], "gateway": B}));
    until("through B", &Some(B_PUBLIC), SOON, || seen_from(LISTED));
    scene.route("old", &json!({"destinations": ["192.0.2.80"], "gateway": A}));
    until("through A again", &Some(A_PUBLIC), SOON, || seen_from(LISTED));

    // Two objects, one destination: the older wins, the younger says so.
    scene.route("younger", &json!({"destinations": ["192.0.2.80"], "gateway": B}));
    until("conflict", &Some((NodeRouteState::NotApplied, 0)), SOON, || scene.state_of("younger"));
    let status = scene.report().unwrap().status.unwrap();
    let loser = status.routes.iter().find(|route| route.name == "younger").unwrap();
    assert_eq!(loser.failures[0].reason, "Conflict");
    assert!(loser.failures[0].message.contains("old"), "{:?}", loser.failures);
    assert_eq!(seen_from(LISTED), Some(A_PUBLIC));
    scene.delete_route("old");
    until("the younger takes over", &Some(B_PUBLIC), SOON, || seen_from(LISTED));
    scene.delete_route("younger");
    until("nothing of ours is left", &String::new(), SOON, ours);

    // All egress: the API server of this node is its own loopback, the rest goes through A.
    let everything = json!({"destinations": ["0.0.0.0/0"], "gateways": [{"address": A}, {"address": B}]});
    scene.route("all", &everything);
    until("everything through A", &Some(A_PUBLIC), SOON, || seen_from(UNLISTED));
    assert_eq!(seen_from(LISTED), Some(A_PUBLIC));

    // A restart writes nothing to the kernel and changes no report (I7).
    scene.until_applied("all", 1);
    let said = || scene.report_as_stored();
    until("both gateways are judged", &2, SOON, || said().1.matches("\"reachable\": true").count());
    let before = (settled(), said());
    let monitor = Monitor::start(&["route", "rule", "nexthop"]);
    agent.kill();
    let agent = Agent::start(&scene);
    until_ready();
    agent.until_says("confirmed");
    assert_eq!((settled(), said()), before);
    assert_eq!(monitor.stop(), Vec::<String>::new(), "a restart wrote to the kernel");

    agent.kill();
    assert_eq!(seen_from(LISTED), Some(A_PUBLIC), "routes stay when the agent dies (I6)");
    // Its resolvers are silent: what protects them, and what protected names had, must not go for that.
    sh("iptables -I OUTPUT -p udp --dport 53 -j DROP");
    ip("route add throw 104.16.181.15 table 1157 proto 157");
    let before = ours();
    let monitor = Monitor::start(&["route", "rule", "nexthop"]);
    let agent = Agent::start_with(&scene, &["--daemonset=", "--protected-names=name.invalid"]);
    until_ready();
    assert_eq!(ours(), before);
    assert_eq!(monitor.stop(), Vec::<String>::new(), "a restart wrote to the kernel");

    // Drift: whatever is taken away comes back by event.
    for damage in [
        "ip route del 0.0.0.0/0 table 1157",
        "ip rule del pref 1001",
        "ip rule del pref 1000",
        "ip nexthop flush proto 157",
        "ip link set eth1 down && ip link set eth1 up",
    ] {
        sh(damage);
        let took = until(damage, &before, Duration::from_secs(5), ours);
        eprintln!("{damage}: repaired after {took:?}");
        until(damage, &Some(A_PUBLIC), Duration::from_secs(5), || seen_from(LISTED));
    }

    // A loses power: the node leaves it by itself, and comes back to the head of the list when that has healed.
    scene.cloud.power_off("a");
    let took = until("through B", &Some(B_PUBLIC), Duration::from_secs(5), || seen_from(LISTED));
    eprintln!("left the dead gateway; a new connection got through {took:?} after it lost power");
    scene.cloud.start_other_machine("a", "203.0.113.5", A);
    // Another machine has its address now: the kernel must not believe the old Ethernet address for long.
    let took = until("A answers", &true, Duration::from_secs(5), || {
        metric("egress_agent_gateway_reachable{gateway=\"10.116.0.5\"}") > 0.5
    });
    eprintln!("A answers on another machine {took:?} after that came up");
    until("back at A", &Some(A_PUBLIC), Duration::from_secs(15), || seen_from(LISTED));

    // Both dead: the routes stay (KeepLast), nothing leaves with the node's own address.
    scene.cloud.power_off("a");
    scene.cloud.power_off("b");
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(seen_from(LISTED), None);
    assert!(ours().contains("default"), "{}", ours());

    // A confirmed delete takes everything away.
    scene.delete_route("all");
    until("nothing of ours is left", &String::new(), SOON, ours);
    until("as before", &Some(NODE_PUBLIC), SOON, || seen_from(LISTED));
    drop(agent);
}

#[test]
fn an_agent_whose_resolver_is_silent_ends_as_soon_as_it_is_told_to() {
    let scene = Scene::new();
    let hosts = Hosts::new(&[]);
    hosts.silence_resolver();
    let arguments = ["--daemonset=", "--protected-names=name.invalid"];
    let mut agent = Agent::start_with_hosts(&scene, &arguments, &hosts);
    agent.until_says("egress-agent started");
    let asks = || !ip("neigh show 10.116.0.250 dev eth1").is_empty();
    until("the name is asked for", &true, SOON, asks);
    agent.signal(Signal::SIGTERM);
    let took = until("the agent ends", &true, Duration::from_secs(2), || agent.has_ended());
    eprintln!("told to end while a name was asked for in vain, the agent was gone after {took:?}");
}

#[test]
fn no_packet_leaves_with_the_nodes_address_while_the_link_flaps() {
    let scene = Scene::new();
    let _agent = Agent::start(&scene);
    scene.route(
        "demo",
        &json!({"destinations": ["192.0.2.80"], "gateways": [{"address": A}, {"address": B}]}),
    );
    scene.until_applied("demo", 1);
    until("through A", &Some(A_PUBLIC), SOON, || seen_from(LISTED));
    let packets = Packets::start(&scene.cloud);
    for _ in 0..10 {
        ip("link set eth1 down");
        ip("link set eth1 up");
        until("through a gateway", &false, SOON, || seen_from(LISTED).is_none());
    }
    packets.none_leaked(&scene.cloud);
}
