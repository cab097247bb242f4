//! The agent on a node: real kernel, real API server, real gateways; nothing is played.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at what it did not expect")]

mod support;

use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use egress_api::{NodeEgress, NodeRouteState};
use kube::Api;
use serde_json::{Value, json};
use support::{A, A_PUBLIC, B, B_PUBLIC, Cloud, NODE_PUBLIC, ip, ours, seen_from, sh, until};
use testkit::ApiServer;
use tokio::runtime::Runtime;

const LISTED: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 80);
const UNLISTED: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 99);
const SOON: Duration = Duration::from_secs(20);

struct Agent(Child);

impl Agent {
    fn start(server: &ApiServer) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_egress-agent"))
            .args([
                "--node-name=node-1",
                "--daemonset=",
                "--protected-names=",
                "--admin-listen=127.0.0.1:9191",
            ])
            .env("KUBECONFIG", server.kubeconfig())
            .env("LOG", std::env::var("LOG").unwrap_or_else(|_| "warn".to_owned()))
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

fn apply(server: &ApiServer, object: &Value) {
    let mut child = server
        .kubectl()
        .args(["apply", "--server-side", "--force-conflicts", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    serde_json::to_writer(child.stdin.take().unwrap(), object).unwrap();
    assert!(child.wait().unwrap().success());
}

fn static_route(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "networking.digitalocean.com/v1", "kind": "StaticRoute", "metadata": {"name": name}, "spec": spec})
}

fn make_node(server: &ApiServer) {
    apply(server, &json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1"}, "spec": {}}));
    let status = json!({"status": {"addresses": [
        {"type": "InternalIP", "address": "10.116.0.2"}, {"type": "ExternalIP", "address": "203.0.113.11"}]}});
    let patched = server
        .kubectl()
        .args(["patch", "node", "node-1", "--subresource=status", "-p", &status.to_string()])
        .output()
        .unwrap();
    assert!(patched.status.success(), "{}", String::from_utf8_lossy(&patched.stderr));
}

fn report(runtime: &Runtime, server: &ApiServer) -> Option<NodeEgress> {
    let reports: Api<NodeEgress> = Api::all(server.admin().unwrap());
    runtime.block_on(reports.get_opt("node-1")).unwrap()
}

fn state_of(runtime: &Runtime, server: &ApiServer, name: &str) -> Option<(NodeRouteState, u32)> {
    let status = report(runtime, server)?.status?;
    status.routes.iter().find(|route| route.name == name).map(|route| (route.state, route.applied))
}

/// One scene, because a node with an API server takes seconds to build; each part says what it shows.
#[test]
fn routes_are_put_kept_switched_and_taken_away() {
    let cloud = Cloud::new();
    // Current-thread: every socket is made on this thread, hence in the node's namespace.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _entered = runtime.enter();
    let server = runtime.block_on(ApiServer::start()).unwrap();
    let definitions = egress_api::custom_resource_definitions();
    runtime.block_on(server.install(definitions.into_iter().map(|(_, one)| one).collect())).unwrap();
    make_node(&server);
    assert_eq!(seen_from(LISTED), Some(NODE_PUBLIC), "the scene itself");

    let agent = Agent::start(&server);

    // The older operator's shape: one gateway, taken on trust.
    apply(&server, &static_route("old", &json!({"destinations": ["192.0.2.80"], "gateway": A})));
    until("through A", &Some(A_PUBLIC), SOON, || seen_from(LISTED));
    assert_eq!(seen_from(UNLISTED), Some(NODE_PUBLIC));
    until("reported", &Some((NodeRouteState::Applied, 1)), SOON, || state_of(&runtime, &server, "old"));

    // A gateway edit takes effect in place (the older operator never applied one).
    apply(&server, &static_route("old", &json!({"destinations": ["192.0.2.80"], "gateway": B})));
    until("through B", &Some(B_PUBLIC), SOON, || seen_from(LISTED));
    apply(&server, &static_route("old", &json!({"destinations": ["192.0.2.80"], "gateway": A})));
    until("through A again", &Some(A_PUBLIC), SOON, || seen_from(LISTED));

    // Two objects, one destination: the older wins, the younger says so.
    apply(&server, &static_route("younger", &json!({"destinations": ["192.0.2.80"], "gateway": B})));
    until("conflict", &Some((NodeRouteState::NotApplied, 0)), SOON, || {
        state_of(&runtime, &server, "younger")
    });
    let status = report(&runtime, &server).unwrap().status.unwrap();
    let loser = status.routes.iter().find(|route| route.name == "younger").unwrap();
    assert_eq!(loser.failures[0].reason, "Conflict");
    assert!(loser.failures[0].message.contains("old"), "{:?}", loser.failures);
    assert_eq!(seen_from(LISTED), Some(A_PUBLIC));
    kubectl_delete(&server, "old");
    until("the younger takes over", &Some(B_PUBLIC), SOON, || seen_from(LISTED));
    kubectl_delete(&server, "younger");
    until("nothing of ours is left", &String::new(), SOON, ours);

    // All egress: the API server of this node is its own loopback, the rest goes through A.
    let everything = json!({"destinations": ["0.0.0.0/0"], "gateways": [{"address": A}, {"address": B}]});
    apply(&server, &static_route("all", &everything));
    until("everything through A", &Some(A_PUBLIC), SOON, || seen_from(UNLISTED));
    assert_eq!(seen_from(LISTED), Some(A_PUBLIC));

    // A restart writes nothing to the kernel and changes no report (I7).
    until("applied", &Some((NodeRouteState::Applied, 1)), SOON, || state_of(&runtime, &server, "all"));
    let before = (ours(), report(&runtime, &server).unwrap().metadata.generation);
    agent.kill();
    assert_eq!(seen_from(LISTED), Some(A_PUBLIC), "routes stay when the agent dies (I6)");
    let monitor = Monitor::start();
    let agent = Agent::start(&server);
    until("ready", &true, SOON, || {
        sh("curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:9191/readyz || true") == "200"
    });
    assert_eq!(ours(), before.0);
    assert_eq!(monitor.stop(), "", "a restart wrote to the kernel");

    // Drift: whatever is taken away comes back by event.
    for damage in [
        "ip route del 0.0.0.0/0 table 1157",
        "ip rule del pref 1001",
        "ip rule del pref 1000",
        "ip nexthop flush proto 157",
        "ip link set eth1 down && ip link set eth1 up",
    ] {
        sh(damage);
        let took = until(damage, &before.0, Duration::from_secs(5), ours);
        eprintln!("{damage}: repaired after {took:?}");
        until(damage, &Some(A_PUBLIC), Duration::from_secs(5), || seen_from(LISTED));
    }

    // A loses power: the node leaves it by itself, and comes back to the head of the list when that has healed.
    cloud.power_off("a");
    let took = until("through B", &Some(B_PUBLIC), Duration::from_secs(5), || seen_from(LISTED));
    eprintln!("left the dead gateway; a new connection got through {took:?} after it lost power");
    cloud.start_gateway("a", "203.0.113.5", A);
    until("back at A", &Some(A_PUBLIC), Duration::from_secs(40), || seen_from(LISTED));

    // Both dead: the routes stay (KeepLast), nothing leaves with the node's own address.
    cloud.power_off("a");
    cloud.power_off("b");
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(seen_from(LISTED), None);
    assert!(ours().contains("default"), "{}", ours());

    // A confirmed delete takes everything away.
    kubectl_delete(&server, "all");
    until("nothing of ours is left", &String::new(), SOON, ours);
    until("as before", &Some(NODE_PUBLIC), SOON, || seen_from(LISTED));
    drop(agent);
}

fn kubectl_delete(server: &ApiServer, name: &str) {
    let deleted = server.kubectl().args(["delete", "staticroute", name, "--timeout=10s"]).output().unwrap();
    assert!(deleted.status.success(), "{}", String::from_utf8_lossy(&deleted.stderr));
}

/// Writes down every change of routes, rules and nexthop objects.
struct Monitor {
    child: Child,
    file: tempfile::NamedTempFile,
}

impl Monitor {
    fn start() -> Self {
        let file = tempfile::NamedTempFile::new().unwrap();
        let child = Command::new("ip")
            .args(["-4", "monitor", "route", "rule", "nexthop"])
            .stdout(file.reopen().unwrap())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        // It hears only from now on; a change of our own tells when that is.
        until("the monitor listens", &true, SOON, || {
            ip("route add 192.0.2.254/32 dev lo table 77");
            ip("route del 192.0.2.254/32 dev lo table 77");
            !std::fs::read_to_string(file.path()).unwrap().is_empty()
        });
        Self { child, file }
    }

    fn stop(mut self) -> String {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let text = std::fs::read_to_string(self.file.path()).unwrap();
        text.lines().filter(|line| !line.contains("table 77")).collect::<Vec<_>>().join("\n")
    }
}
