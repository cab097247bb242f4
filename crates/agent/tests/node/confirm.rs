//! Changes that cut the node off from what it lives by (I5), and those that only seem to.
//!
//! The API server is in the internet here, behind a name that gets another address: one that nobody could have protected.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::{Duration, Instant};

use egress_api::NodeRouteState;
use serde_json::json;

use crate::cloud::{A, A_PUBLIC, B, B_PUBLIC, NODE_PUBLIC, ip, ours, seen_from, sh, until};
use crate::scene::{AGENT, Agent, LISTED, Monitor, SOON, Scene, metric, settled, until_ready};

const PORT: u16 = 6443;
const FIRST: &str = "198.51.100.10";
const SECOND: &str = "198.51.100.20";

/// A scene whose API server is at a name in the internet.
struct Far {
    scene: Scene,
    files: tempfile::TempDir,
}

impl Far {
    fn new() -> Self {
        let scene = Scene::new();
        scene.cloud.publish(PORT, SocketAddr::from((Ipv4Addr::LOCALHOST, scene.api_server_port())));
        let files = tempfile::tempdir().unwrap();
        let near = std::fs::read_to_string(scene.server.kubeconfig()).unwrap();
        let far = near
            .replace(&format!("127.0.0.1:{}", scene.api_server_port()), &format!("api.cluster.test:{PORT}"));
        std::fs::write(files.path().join("kubeconfig"), far).unwrap();
        let far = Self { scene, files };
        far.move_api_server(FIRST);
        far
    }

    /// The name has another address from now on.
    fn move_api_server(&self, address: &str) {
        // In place: the file is mounted.
        let mut hosts = std::fs::File::create(self.files.path().join("hosts")).unwrap();
        writeln!(hosts, "127.0.0.1 localhost\n{address} api.cluster.test").unwrap();
    }

    fn start_agent(&self) -> Agent {
        let mut program = Command::new("unshare");
        let mount = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
        program.args(["--mount", "sh", "-c", mount]).arg(self.files.path().join("hosts")).arg(AGENT);
        // The name moves between two look-ups.
        let arguments = ["--daemonset=", "--protected-names=", "--names-interval=3600"];
        Agent::start_at(program, &self.files.path().join("kubeconfig"), &arguments)
    }

    /// The API server's firewall lets nobody in but the cluster's nodes: who comes through that gateway is dropped.
    fn let_nobody_in_through(&self, gateway: Ipv4Addr) {
        self.scene
            .cloud
            .in_internet(&format!("iptables -I INPUT -p tcp --dport {PORT} -s {gateway} -j DROP"));
    }

    fn silence_api_server(&self, connections: &str) {
        self.scene
            .cloud
            .in_internet(&format!("iptables -I INPUT -p tcp --dport {PORT} {connections} -j DROP"));
    }

    fn end_silence(&self, connections: &str) {
        self.scene
            .cloud
            .in_internet(&format!("iptables -D INPUT -p tcp --dport {PORT} {connections} -j DROP"));
    }
}

fn goes_through_a(address: &str) -> bool {
    ip(&format!("route get {address}")).contains("via 10.116.0.5")
}

fn rollbacks() -> f64 {
    metric("egress_agent_rollbacks_total")
}

#[test]
fn a_change_that_cuts_the_api_server_off_is_taken_back_and_an_agent_killed_meanwhile_mends_it() {
    let far = Far::new();
    let scene = &far.scene;
    far.let_nobody_in_through(A_PUBLIC);
    let agent = far.start_agent();
    scene.route("edited", &json!({"destinations": ["192.0.2.80"], "gateway": A}));
    scene.until_applied("edited", 1);
    until("through A", &Some(A_PUBLIC), SOON, || seen_from(LISTED));
    agent.until_says("confirmed");
    let before = settled();
    scene.cloud.count_leaks(LISTED);

    // The name has another address now, and an edit routes that to a gateway that the API server does not let in.
    far.move_api_server(SECOND);
    scene.route("edited", &json!({"destinations": ["192.0.2.80", "198.51.100.0/24"], "gateway": A}));
    until("cut", &true, SOON, || goes_through_a(SECOND));
    let cut = Instant::now();
    // What comes meanwhile is not lost.
    scene.route("meanwhile", &json!({"destinations": ["192.0.2.90"], "gateway": A}));
    until("taken back", &false, Duration::from_secs(5), || goes_through_a(SECOND));
    eprintln!("rolled back {:?} after the route was in the kernel", cut.elapsed());
    scene.until_applied("meanwhile", 1);
    until("reported", &Some(NodeRouteState::NotApplied), SOON, || Some(scene.route_report("edited")?.state));
    let report = scene.route_report("edited").unwrap();
    assert_eq!(
        (report.failures[0].reason.as_str(), report.failures[0].destination.as_str()),
        ("RolledBack", "198.51.100.0/24")
    );
    for words in [report.message.as_deref().unwrap(), &report.failures[0].message] {
        assert!(words.contains("the API server (198.51.100.20:6443)"), "{words}");
    }
    assert_eq!(seen_from(LISTED), Some(A_PUBLIC), "the last confirmed version is in force");
    scene.delete_route("meanwhile");
    until("as before", &before, SOON, ours);

    // It is not tried again for other objects' sake, and is when the network changes.
    let monitor = Monitor::start(&["route"]);
    scene.route("another", &json!({"destinations": ["192.0.2.90"], "gateway": A}));
    scene.until_applied("another", 1);
    scene.delete_route("another");
    until("as before", &before, SOON, ours);
    let heard = monitor.stop();
    assert!(!heard.iter().any(|line| line.contains("198.51.100.0/24")), "{heard:#?}");
    let rolled_back = rollbacks();
    ip("route add 10.99.0.0/16 via 203.0.113.1");
    until("tried again", &true, SOON, || goes_through_a(SECOND));
    until("taken back", &true, SOON, || rollbacks() > rolled_back && !goes_through_a(SECOND));
    // And when its owner mends it.
    scene.route("edited", &json!({"destinations": ["192.0.2.80", "192.0.2.90"], "gateway": A}));
    scene.until_applied("edited", 2);
    assert_eq!(scene.cloud.leaks(), 0, "of what was routed all the time");
    agent.until_says("confirmed");

    // Killed while it tries: nobody is there to take it back, and the next agent can't reach the API server.
    scene.route("new", &json!({"destinations": ["198.51.100.0/24"], "gateway": A}));
    until("cut", &true, SOON, || goes_through_a(SECOND));
    agent.kill();
    assert!(goes_through_a(SECOND));
    let started = Instant::now();
    let agent = far.start_agent();
    until_ready();
    eprintln!("reached the API server again {:?} after the start", started.elapsed());
    assert!(!goes_through_a(SECOND) && goes_through_a("198.51.100.99"));
    until("applied", &Some(NodeRouteState::Applied), SOON, || Some(scene.route_report("new")?.state));
    assert_eq!(seen_from(LISTED), Some(A_PUBLIC));
    assert_eq!(seen_from(Ipv4Addr::new(198, 51, 100, 99)), Some(A_PUBLIC));
    assert_ne!(seen_from(SECOND.parse().unwrap()), Some(A_PUBLIC));

    // A restart leaves even that as it is.
    let before = settled();
    agent.kill();
    let monitor = Monitor::start(&["route", "rule", "nexthop"]);
    let agent = far.start_agent();
    until_ready();
    agent.until_says("confirmed");
    assert_eq!(settled(), before);
    assert_eq!(monitor.stop(), Vec::<String>::new(), "a restart wrote to the kernel");
    assert_eq!(seen_from(Ipv4Addr::new(192, 0, 2, 77)), Some(NODE_PUBLIC), "the scene itself");
}

#[test]
fn an_api_server_that_stops_in_the_same_second_as_an_edit_or_a_failover_brings_no_rollback() {
    let far = Far::new();
    let scene = &far.scene;
    let agent = far.start_agent();
    let wide = json!(["192.0.2.80", "198.51.100.0/24"]);
    scene.route("wide", &json!({"destinations": wide, "gateway": A}));
    scene.until_applied("wide", 2);
    agent.until_says("confirmed");

    // No new connection is answered any more when the edit comes; the one over which it comes goes silent right after.
    far.silence_api_server("--syn");
    scene.route("wide", &json!({"destinations": wide, "gateway": B}));
    until("through B", &Some(B_PUBLIC), SOON, || seen_from(LISTED));
    far.silence_api_server("");
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!((seen_from(LISTED), rollbacks()), (Some(B_PUBLIC), 0.0));
    far.end_silence("");
    far.end_silence("--syn");
    until("reported", &Some(Some(B.to_owned())), SOON, || Some(scene.route_report("wide")?.gateway));

    // A list of two, confirmed. Then its head dies, the API server goes silent, and would not let B in anyway.
    scene.route("wide", &json!({"destinations": wide, "gateways": [{"address": A}, {"address": B}]}));
    until("through A", &Some(A_PUBLIC), SOON, || seen_from(LISTED));
    scene.until_applied("wide", 2);
    assert_eq!(settled(), ours());
    far.silence_api_server("");
    scene.cloud.power_off("a");
    until("through B", &Some(B_PUBLIC), Duration::from_secs(5), || seen_from(LISTED));
    far.let_nobody_in_through(B_PUBLIC);
    far.end_silence("");
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!((seen_from(LISTED), rollbacks()), (Some(B_PUBLIC), 0.0));
    assert!(sh("ip -4 route show table 1157").contains("198.51.100.0/24"));
    drop(agent);
}
