//! An agent with exactly the rights that it is deployed with, and one that loses them (I6).

use std::path::Path;

use serde_json::json;

use crate::cloud::{A, A_PUBLIC, ours, seen_from, until};
use crate::fail_static::{Expected, THERE_ALL_THE_TIME, pair, until_holds};
use crate::far::Far;
use crate::scene::{Agent, LISTED, Monitor, SOON, settled, until_ready};

#[test]
fn an_agent_without_its_rights_changes_nothing_and_goes_on_when_it_has_them_again() {
    let far = Far::behind_a_name();
    let scene = &far.scene;
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/base/agent-rbac.yaml");
    let manifest = manifest.to_str().unwrap();
    scene.kubectl(&["create", "namespace", "egress-gateway"]);
    scene.kubectl(&["apply", "-f", manifest]);
    let token = scene.kubectl(&["create", "token", "egress-agent", "-n", "egress-gateway"]);
    far.write_kubeconfig(|text| text.replace("admin-of-this-test", token.trim()));
    scene.apply(&json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "egress-agent", "namespace": "egress-gateway"},
        "spec": {"selector": {"matchLabels": {"app": "agent"}}, "template": {"metadata": {"labels": {"app": "agent"}},
            "spec": {"containers": [{"name": "agent", "image": "none.invalid/agent"}]}}}}));
    let start = || far.start_agent_with(&["--daemonset=egress-agent", "--namespace=egress-gateway"]);
    let steady = THERE_ALL_THE_TIME;
    let other: Expected<'_> = (&["192.0.2.90"], A);
    let agent = start();
    scene.route("steady", &json!({"destinations": steady.0, "gateways": pair()}));
    until_holds("applied", &[steady]);
    scene.until_applied("steady", 1);

    // A rolling update: nothing is written to the kernel, and nothing to the API server.
    let written = || scene.report_as_stored();
    until("both gateways are judged", &2, SOON, || written().1.matches("\"reachable\": true").count());
    let before = (settled(), written());
    let monitor = Monitor::start(&["route", "rule", "nexthop"]);
    agent.terminate();
    let agent = start();
    until_ready();
    agent.until_says("confirmed");
    assert_eq!((settled(), written()), before);
    assert_eq!(monitor.stop(), Vec::<String>::new(), "a restart wrote to the kernel");

    // It loses its rights while it runs, and gets them back.
    let lose_rights = || {
        let of_agents = ["--all-namespaces", "-l", "app.kubernetes.io/name=egress-agent"];
        scene.kubectl(&[&["delete", "clusterrolebindings,rolebindings"], &of_agents[..]].concat());
        // A watch that was allowed goes on until it ends.
        far.relay.end_connections();
    };
    let before = before.0;
    lose_rights();
    scene.route("other", &json!({"destinations": other.0, "gateway": A}));
    until_forbidden(&agent);
    assert_eq!((settled(), seen_from(LISTED)), (before.clone(), Some(A_PUBLIC)), "without rights");
    scene.kubectl(&["apply", "-f", manifest]);
    let took = until("all that changed meanwhile", &true, 2 * SOON, || ours() != before);
    eprintln!("went on {took:?} after it had its rights again");
    until_holds("with rights again", &[steady, other]);

    // Told to end without them, and started without them: a refusal is no word about what is wanted, nor an uninstall.
    let before = settled();
    lose_rights();
    until_forbidden(&agent);
    agent.terminate();
    assert_eq!(ours(), before, "told to end without rights");
    let agent = start();
    agent.until_says("keeping what the kernel holds");
    agent.terminate();
    assert_eq!(ours(), before, "started and told to end without rights");
    let agent = start();
    agent.until_says("keeping what the kernel holds");
    scene.delete_route("other");
    assert_eq!(ours(), before, "deleted, and the agent may not know");
    scene.kubectl(&["apply", "-f", manifest]);
    until("deleted", &false, 2 * SOON, || ours().contains("192.0.2.90"));
    until_holds("as wanted", &[steady]);
    drop(agent);
}

fn until_forbidden(agent: &Agent) {
    let before = agent.count_said("forbidden");
    until("forbidden", &true, SOON, || agent.count_said("forbidden") > before);
}
