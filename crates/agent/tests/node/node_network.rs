//! What a node's own network needs and does: protected ranges, reverse path filters, addresses that come late (I5).

use std::time::Duration;

use egress_api::NodeRouteState;
use serde_json::json;

use crate::cloud::{A, A_PUBLIC, B, ip, seen_from, sh, until};
use crate::scene::{Agent, LISTED, SOON, Scene, metric};

fn forwarding(outcome: &str) -> f64 {
    metric(&format!("egress_agent_probes_total{{level=\"forwarding\",outcome=\"{outcome}\"}}"))
}

#[test]
fn all_egress_leaves_a_node_what_it_lives_by_and_probes_pass_every_reverse_path_filter() {
    let scene = Scene::new();
    // .12 is not in this subnet.
    ip("addr del 10.116.0.2/20 dev eth1");
    ip("addr add 10.116.0.2/29 dev eth1");
    let agent = Agent::start(&scene);
    scene.route("late", &json!({"destinations": ["192.0.2.80"], "gateway": B}));
    until("not on-link", &Some((NodeRouteState::NotApplied, 0)), SOON, || scene.state_of("late"));
    let message = scene.status().unwrap().routes[0].message.clone().unwrap();
    assert_eq!(message, "gateway 10.116.0.12 is not in the VPC subnet 10.116.0.0/29 of this node");
    ip("addr add 10.116.0.2/20 dev eth1");
    ip("addr del 10.116.0.2/29 dev eth1");
    scene.until_applied("late", 1);
    scene.delete_route("late");

    // A gateway that is probed through to the outside.
    scene.apply(&json!({"apiVersion": "networking.digitalocean.com/v1alpha1", "kind": "EgressGateway",
        "metadata": {"name": "demo"}, "spec": {"destinations": ["0.0.0.0/0"], "publicIP": "Ephemeral"}}));
    let gateway = json!({"name": "demo-0", "slot": 0, "dropletID": 1, "privateAddress": A, "publicAddress": "203.0.113.5",
        "role": "Active", "ready": true});
    let status = json!({"status": {"gateways": [gateway]}}).to_string();
    scene.kubectl(&["patch", "egressgateway", "demo", "--subresource=status", "--type=merge", "-p", &status]);
    scene.route("all", &json!({"destinations": ["0.0.0.0/0"], "gateways": [{"address": A}]}));
    scene.until_applied("all", 1);
    until("through A", &Some(A_PUBLIC), SOON, || seen_from(LISTED));

    let resolvers = std::fs::read_to_string("/etc/resolv.conf").unwrap();
    let resolvers =
        resolvers.lines().filter_map(|line| line.strip_prefix("nameserver ")?.trim().parse().ok());
    let resolvers: Vec<String> = resolvers.map(|address: std::net::Ipv4Addr| address.to_string()).collect();
    assert!(ip("route get 198.51.100.99").contains("via 10.116.0.5"), "the scene itself");
    for own in [
        "169.254.169.254",
        "224.0.0.1",
        "255.255.255.255",
        "203.0.113.1",
        "203.0.113.5",
        "10.116.3.9",
        "10.244.7.7",
        "10.245.0.1",
    ]
    .iter()
    .copied()
    .chain(resolvers.iter().map(String::as_str))
    {
        let way = ip(&format!("route get {own}"));
        assert!(!way.contains("via 10.116.0."), "{own} would go through a gateway: {way}");
    }
    // Replies of the node's public sockets.
    let way = ip("route get 198.51.100.99 from 203.0.113.11");
    assert!(way.contains("via 203.0.113.1"), "{way}");

    until("the way through A is proven", &true, SOON, || forwarding("answered") > 0.0);
    for mode in [0, 1, 2] {
        for link in ["all", "default", "eth0", "eth1"] {
            sh(&format!("sysctl -qw net.ipv4.conf.{link}.rp_filter={mode}"));
        }
        let before = (forwarding("answered"), forwarding("missed"));
        until("three more answers", &true, Duration::from_secs(10), || {
            forwarding("answered") >= before.0 + 3.0
        });
        assert!((forwarding("missed") - before.1).abs() < 0.5, "rp_filter {mode}");
        assert_eq!(seen_from(LISTED), Some(A_PUBLIC), "rp_filter {mode}");
    }
    drop(agent);
}
