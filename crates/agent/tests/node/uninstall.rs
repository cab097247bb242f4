//! What takes routes away, and what does not (I6).

use nix::sys::signal::Signal;
use serde_json::json;

use crate::cloud::{A, A_PUBLIC, B, NODE_PUBLIC, ip, ours, seen_from, until};
use crate::scene::{Agent, LISTED, SOON, Scene, metric, settled, until_ready};

const FOLLOWED: &[&str] = &["--daemonset=egress-agent", "--namespace=default", "--protected-names="];

#[test]
fn only_the_deletion_of_its_daemonset_makes_the_agent_take_its_routes_along() {
    let scene = Scene::new();
    let agent = Agent::start_with(&scene, FOLLOWED);
    scene.route("all", &json!({"destinations": ["0.0.0.0/0"], "gateways": [{"address": A}, {"address": B}]}));
    scene.until_applied("all", 1);
    until_ready();
    let before = settled();

    // There never was such a DaemonSet: nothing was uninstalled.
    agent.terminate();
    assert_eq!(ours(), before, "an agent without a DaemonSet was told to end");

    // Its node is not in the API server while it starts: nobody knows where to route, and nothing is taken away.
    scene.kubectl(&["delete", "node", "node-1"]);
    let agent = Agent::start_with(&scene, FOLLOWED);
    agent.until_says("what the kernel holds stays");
    assert_eq!(ours(), before, "a node that the API server does not know");
    scene.make_node();
    until_ready();
    // And now while it runs.
    scene.kubectl(&["delete", "node", "node-1"]);
    assert_eq!(settled(), before, "the API server forgot the node");
    assert_eq!(seen_from(LISTED), Some(A_PUBLIC));
    scene.make_node();

    // Told to end while the DaemonSet is there: a restart.
    scene.apply(&json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "egress-agent", "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": "agent"}}, "template": {"metadata": {"labels": {"app": "agent"}},
            "spec": {"containers": [{"name": "agent", "image": "none.invalid/agent"}]}}}}));
    agent.terminate();
    assert_eq!(ours(), before, "a restart");

    let agent = Agent::start_with(&scene, FOLLOWED);
    until_ready();
    ip("rule add pref 1500 from 192.0.2.9 lookup 77");
    ip("rule add pref 1001 from 192.0.2.10 lookup 77");
    ip("route add 192.0.2.99/32 via 203.0.113.1 table 1157 proto static");
    ip("nexthop add id 241900000 blackhole");
    until("the agent saw its DaemonSet", &true, SOON, || {
        metric("egress_agent_static_routes{state=\"Applied\"}") > 0.0
    });
    scene.kubectl(&["delete", "daemonset", "egress-agent", "-n", "default", "--timeout=10s"]);
    assert_eq!(ours(), before, "the agent was not told to end yet");
    agent.signal(Signal::SIGTERM);
    until("nothing of ours is left", &String::new(), SOON, ours);
    assert_eq!(seen_from(LISTED), Some(NODE_PUBLIC));
    assert!(
        ip("rule show").contains("from 192.0.2.9 lookup 77")
            && ip("rule show").contains("from 192.0.2.10 lookup 77")
    );
    assert!(ip("route show table 1157").contains("192.0.2.99 via 203.0.113.1"));
    assert!(ip("nexthop show").contains("id 241900000 blackhole"));
}

#[test]
fn the_deletion_of_its_namespace_makes_the_agent_take_its_routes_along() {
    const FOLLOWED: &[&str] = &["--daemonset=egress-agent", "--namespace=egress", "--protected-names="];
    let scene = Scene::new();
    scene.kubectl(&["create", "namespace", "egress"]);
    scene.apply(&json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "egress-agent", "namespace": "egress"},
        "spec": {"selector": {"matchLabels": {"app": "agent"}}, "template": {"metadata": {"labels": {"app": "agent"}},
            "spec": {"containers": [{"name": "agent", "image": "none.invalid/agent"}]}}}}));
    let agent = Agent::start_with(&scene, FOLLOWED);
    scene.route("all", &json!({"destinations": ["0.0.0.0/0"], "gateways": [{"address": A}, {"address": B}]}));
    scene.until_applied("all", 1);
    until_ready();
    let before = settled();
    agent.terminate();
    assert_eq!(ours(), before, "a restart");

    // No controller runs here, so it stays as it is while its pods are ended: on its way out, with a DaemonSet that nobody deleted.
    let agent = Agent::start_with(&scene, FOLLOWED);
    until_ready();
    until("the agent saw its DaemonSet", &true, SOON, || {
        metric("egress_agent_static_routes{state=\"Applied\"}") > 0.0
    });
    scene.kubectl(&["delete", "namespace", "egress", "--wait=false"]);
    assert_eq!(settled(), before, "the agent was not told to end yet");
    agent.signal(Signal::SIGTERM);
    until("nothing of ours is left", &String::new(), SOON, ours);
    assert_eq!(seen_from(LISTED), Some(NODE_PUBLIC));
}
