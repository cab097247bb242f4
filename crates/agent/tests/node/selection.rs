//! Which nodes route, and what a node says that can't: labels, interfaces, addresses. Each cause that goes takes its reason along.

use std::time::Duration;

use egress_api::{NodeRoute, NodeRouteState};
use serde_json::json;

use crate::cloud::{A, A_PUBLIC, B, NODE_PUBLIC, ip, ours, seen_from, until};
use crate::scene::{Agent, LISTED, SOON, Scene, UNLISTED, until_ready};

fn said(scene: &Scene, name: &str) -> Option<NodeRoute> {
    scene.status()?.routes.into_iter().find(|route| route.name == name)
}

fn until_says(scene: &Scene, name: &str, reason: &str, message: &str) {
    let expected = (NodeRouteState::NotApplied, Some(reason.to_owned()), Some(message.to_owned()));
    until(reason, &Some(expected), SOON, || {
        said(scene, name).map(|route| (route.state, route.reason, route.message))
    });
}

#[test]
fn a_node_routes_while_its_labels_are_selected() {
    let scene = Scene::new();
    let agent = Agent::start(&scene);
    scene.route(
        "web",
        &json!({"destinations": ["192.0.2.80"], "gateway": A, "nodeSelector": {"matchLabels": {"pool": "web"}}}),
    );
    scene.route(
        "others",
        &json!({"destinations": ["192.0.2.81"], "gateway": B, "nodeSelector": {"matchExpressions": [
            {"key": "pool", "operator": "NotIn", "values": ["web"]}]}}),
    );
    scene.until_applied("others", 1);
    assert_eq!(said(&scene, "web"), None, "a node that is not selected has nothing to say");
    assert_eq!(seen_from(LISTED), Some(NODE_PUBLIC));

    for _ in 0..2 {
        scene.kubectl(&["label", "node", "node-1", "pool=web"]);
        scene.until_applied("web", 1);
        until("through A", &Some(A_PUBLIC), SOON, || seen_from(LISTED));
        until("no longer selected", &None, SOON, || said(&scene, "others"));
        assert!(!ours().contains("192.0.2.81"), "{}", ours());

        scene.kubectl(&["label", "node", "node-1", "pool-"]);
        scene.until_applied("others", 1);
        until("no longer selected", &None, SOON, || said(&scene, "web"));
        until("as before", &Some(NODE_PUBLIC), SOON, || seen_from(LISTED));
        assert!(!ours().contains("192.0.2.80"), "{}", ours());
    }

    // Its Node is made anew, by a kubelet that is slow to put the labels back: what was known of it counts on.
    scene.kubectl(&["label", "node", "node-1", "pool=web"]);
    scene.until_applied("web", 1);
    scene.kubectl(&["delete", "node", "node-1"]);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(seen_from(LISTED), Some(A_PUBLIC));
    drop(agent);
}

#[test]
fn a_gateway_that_cannot_be_one_is_told_and_the_others_go_on() {
    let scene = Scene::new();
    let agent = Agent::start(&scene);
    scene.route("good", &json!({"destinations": ["192.0.2.80"], "gateway": A}));
    scene.until_applied("good", 1);
    let before = ours();
    // What no machine can have is refused by the API server already; see `bad_input`.
    for (address, reason, words) in [
        ("10.116.0.2", "GatewayIsThisNode", "is this node's own address"),
        ("203.0.113.11", "GatewayIsThisNode", "is this node's own address"),
        ("10.116.0.0", "GatewayIsNetworkAddress", "is the network address of the VPC subnet"),
        ("10.116.15.255", "GatewayIsBroadcastAddress", "is the broadcast address of the VPC subnet"),
        ("10.244.3.7", "GatewayIsPod", "lies in 10.244.0.0/16, the range of pods"),
        ("10.99.0.5", "GatewayNotOnLink", "is not in the VPC subnet 10.116.0.0/20 of this node"),
    ] {
        scene.route("bad", &json!({"destinations": ["192.0.2.81"], "gateway": address}));
        until_says(&scene, "bad", reason, &format!("gateway {address} {words}"));
        assert_eq!(ours(), before, "{address}");
    }
    // Beside one that can be used it is named, and costs nothing.
    scene.route(
        "bad",
        &json!({"destinations": ["192.0.2.81"], "gateways": [{"address": "10.99.0.5"}, {"address": B}]}),
    );
    scene.until_applied("bad", 1);
    let unusable = said(&scene, "bad").unwrap().unusable_gateways;
    assert_eq!(unusable.len(), 1);
    assert_eq!(
        (unusable[0].address.as_str(), unusable[0].reason.as_str()),
        ("10.99.0.5", "GatewayNotOnLink")
    );

    // B becomes a node of the cluster, and is none again.
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "b"}});
    scene.apply(&node);
    let addresses = json!({"status": {"addresses": [{"type": "InternalIP", "address": B}]}}).to_string();
    scene.kubectl(&["patch", "node", "b", "--subresource=status", "--type=merge", "-p", &addresses]);
    until_says(
        &scene,
        "bad",
        "GatewayNotOnLink",
        "gateway 10.99.0.5 is not in the VPC subnet 10.116.0.0/20 of this node, and 1 more can't be used either",
    );
    scene.kubectl(&["delete", "node", "b"]);
    scene.until_applied("bad", 1);
    assert_eq!(seen_from(LISTED), Some(A_PUBLIC));
    drop(agent);
}

#[test]
fn without_a_vpc_interface_nothing_is_routed_until_there_is_one() {
    let scene = Scene::new();
    ip("addr del 10.116.0.2/20 dev eth1");
    let agent = Agent::start(&scene);
    scene.route("demo", &json!({"destinations": ["192.0.2.80"], "gateway": A}));
    until_says(&scene, "demo", "NoVpcInterface", "this node has no interface in a VPC");
    assert_eq!(ours(), "");
    until_ready();
    // Events wake the loop: no waiting for the back-off, which may have grown to half a minute.
    std::thread::sleep(Duration::from_secs(2));
    ip("addr add 10.116.0.2/20 dev eth1");
    let took = until("through A", &Some(A_PUBLIC), SOON, || seen_from(LISTED));
    eprintln!("routed {took:?} after the interface had its address");
    assert!(took < Duration::from_secs(5), "{took:?}");
    scene.until_applied("demo", 1);
    drop(agent);
}

#[test]
fn without_a_vpc_interface_what_fails_closed_is_shut_and_what_is_there_stays() {
    let scene = Scene::new();
    let agent = Agent::start(&scene);
    let gateways = json!([{"address": A}]);
    scene.route("kept", &json!({"destinations": ["192.0.2.90"], "gateways": gateways}));
    scene.until_applied("kept", 1);
    agent.kill();
    let before = ours();
    // Only the address goes: the link keeps its nexthops.
    ip("addr del 10.116.0.2/20 dev eth1");
    let agent = Agent::start(&scene);
    scene.route(
        "closed",
        &json!({"destinations": ["192.0.2.0/24", "198.51.100.0/24"], "excludedDestinations": [UNLISTED.to_string()],
            "gateways": gateways, "onNoGateway": "FailClosed"}),
    );
    until_says(&scene, "closed", "NoVpcInterface", "this node has no interface in a VPC");
    until("guarded", &Some(true), SOON, || Some(scene.route_report("closed")?.guarded));
    assert_eq!(seen_from(LISTED), None);
    assert_eq!(seen_from(UNLISTED), Some(NODE_PUBLIC), "what is excluded goes on");
    let now = ours();
    let missing: Vec<&str> = before.lines().filter(|line| !now.contains(line.trim())).collect();
    assert!(missing.is_empty(), "{missing:#?}");
    ip("addr add 10.116.0.2/20 dev eth1");
    until("through A", &Some(A_PUBLIC), SOON, || seen_from(LISTED));
    scene.until_applied("closed", 2);
    drop(agent);
}

#[test]
fn without_a_vpc_interface_what_the_kernel_refused_once_is_guarded_when_it_has_taken_it() {
    let scene = Scene::new();
    ip("addr del 10.116.0.2/20 dev eth1");
    // To the kernel the rule is there already: no more than that is said in ours.
    let narrower = "pref 1001 lookup 1157 realms 7 protocol 157";
    ip(&format!("rule add {narrower}"));
    let agent = Agent::start(&scene);
    scene.route(
        "closed",
        &json!({"destinations": ["192.0.2.80"], "gateways": [{"address": A}], "onNoGateway": "FailClosed"}),
    );
    until_says(&scene, "closed", "NoVpcInterface", "this node has no interface in a VPC");
    agent.until_says("the kernel did not take a change");
    until("not guarded", &Some(false), SOON, || Some(said(&scene, "closed")?.guarded));
    ip(&format!("rule del {narrower}"));
    until("guarded", &Some(true), SOON, || Some(said(&scene, "closed")?.guarded));
    assert_eq!(seen_from(LISTED), None);
    drop(agent);
}

#[test]
fn a_rule_that_the_kernel_refuses_keeps_no_agent_from_being_ready() {
    let scene = Scene::new();
    ip("rule add pref 1001 lookup 1157 realms 7 protocol 157");
    let agent = Agent::start(&scene);
    scene.route("demo", &json!({"destinations": ["192.0.2.80"], "gateway": A}));
    agent.until_says("the kernel did not take a change");
    until_ready();
    until("told", &Some("KernelRefused".to_owned()), SOON, || said(&scene, "demo")?.reason);
    drop(agent);
}

#[test]
fn of_two_interfaces_the_one_with_the_internal_ip_counts() {
    let scene = Scene::new();
    // Another private network on the same node, as a second VPC interface or a bridge of a CNI would be.
    ip("link add eth2 type veth peer name eth2-peer");
    ip("addr add 10.120.0.2/20 dev eth2");
    ip("link set eth2 up");
    ip("link set eth2-peer up");
    let agent = Agent::start(&scene);
    scene.route("there", &json!({"destinations": ["192.0.2.81"], "gateway": "10.120.0.5"}));
    scene.route("here", &json!({"destinations": ["192.0.2.80"], "gateway": A}));
    scene.until_applied("here", 1);
    until_says(
        &scene,
        "there",
        "GatewayNotOnLink",
        "gateway 10.120.0.5 is not in the VPC subnet 10.116.0.0/20 of this node",
    );
    until("through A", &Some(A_PUBLIC), SOON, || seen_from(LISTED));

    // The API server says that the node's address is the other one: the routes move there, and back.
    let internal = |address: &str| {
        let status =
            json!({"status": {"addresses": [{"type": "InternalIP", "address": address}]}}).to_string();
        scene.kubectl(&["patch", "node", "node-1", "--subresource=status", "--type=merge", "-p", &status]);
    };
    internal("10.120.0.2");
    scene.until_applied("there", 1);
    until_says(
        &scene,
        "here",
        "GatewayNotOnLink",
        "gateway 10.116.0.5 is not in the VPC subnet 10.120.0.0/20 of this node",
    );
    internal("10.116.0.2");
    scene.until_applied("here", 1);
    until("through A", &Some(A_PUBLIC), SOON, || seen_from(LISTED));
    drop(agent);
}

#[test]
fn a_vpc_interface_that_takes_smaller_or_larger_packets_is_told_of_until_it_does_not() {
    let scene = Scene::new();
    let agent = Agent::start(&scene);
    scene.route("demo", &json!({"destinations": ["192.0.2.80"], "gateway": A}));
    scene.until_applied("demo", 1);
    let condition = || {
        let conditions = scene.status()?.conditions;
        conditions.into_iter().find(|one| one.type_ == "PacketSize").map(|one| (one.status, one.reason))
    };
    let said = |status: &str, reason: &str| Some((status.to_owned(), reason.to_owned()));
    assert_eq!(condition(), None);
    for (mtu, reason) in [("1400", "SmallerThanOthers"), ("9000", "LargerThanVpc")] {
        ip(&format!("link set eth1 mtu {mtu}"));
        until("told", &said("True", reason), SOON, condition);
        assert_eq!(seen_from(LISTED), Some(A_PUBLIC), "and routed as before");
        ip("link set eth1 mtu 1500");
        until("over", &said("False", "Resolved"), SOON, condition);
    }
    drop(agent);
}
