//! The whole lab, end to end: the demo, and then what an operator would do to the cluster it leaves.
//!
//! Not part of `cargo test --workspace`: it needs the release build, the images and the control plane, which `scripts/e2e.sh`
//! sees to. One scene in the order of an operator's week, because a cluster takes ten seconds to start. Commands go through
//! egress-lab, kubectl and curl only.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test stops at what it did not expect"
)]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

const SEEDS_GATEWAY: &str = "203.0.113.5";
const MINUTE: Duration = Duration::from_secs(60);
/// The demo says something every two seconds; what it says takes a moment to arrive on a busy machine.
const LONGEST_SILENCE: Duration = Duration::from_secs(3);

struct Lab {
    name: &'static str,
    root: PathBuf,
    program: PathBuf,
    assets: PathBuf,
    state: PathBuf,
}

impl Lab {
    fn new(name: &'static str) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
        let assets = std::env::var_os("KUBEBUILDER_ASSETS")
            .expect("KUBEBUILDER_ASSETS names the control plane's programs; scripts/e2e.sh sets it");
        let program = root.join("target/release/egress-lab");
        assert!(program.exists(), "{} is missing: run scripts/build.sh", program.display());
        let state = root.join("target/e2e").join(name);
        std::fs::create_dir_all(root.join("target/e2e")).unwrap();
        Self { name, root, program, assets: assets.into(), state }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .current_dir(&self.root)
            .args(["--name", self.name, "--state-dir"])
            .arg(&self.state)
            .args(arguments);
        command.stdin(Stdio::null());
        command
    }

    fn lab(&self, arguments: &[&str]) -> String {
        output(self.command(arguments)).unwrap_or_else(|error| panic!("{error}"))
    }

    fn kubectl_tried(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new(self.assets.join("kubectl"));
        command.current_dir(&self.root).env("KUBECONFIG", self.state.join("kubeconfig")).args(arguments);
        command.stdin(Stdio::null());
        output(command)
    }

    fn kubectl(&self, arguments: &[&str]) -> String {
        self.kubectl_tried(arguments).unwrap_or_else(|error| panic!("{error}"))
    }

    fn get(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.kubectl(&[&["get"], arguments, &["-o", "json"]].concat())).unwrap()
    }

    fn apply(&self, object: &Value) {
        let file = self.root.join("target/e2e/object.json");
        std::fs::write(&file, object.to_string()).unwrap();
        self.kubectl(&["apply", "-f", file.to_str().unwrap()]);
    }

    /// What the outside sees of the pod's connection to `host`; `None` when there is no answer.
    fn seen(&self, host: &str) -> Option<String> {
        let url = format!("http://{host}/ip");
        let answer = self.kubectl_tried(&["exec", "curl-test", "--", "curl", "-sS", "--max-time", "4", &url]);
        answer.ok().map(|text| text.trim().to_owned())
    }

    fn egress_ip(&self, name: &str) -> Option<String> {
        self.get(&["egressgateway", name])["status"]["egressIP"].as_str().map(str::to_owned)
    }

    fn is_ready(&self, name: &str) -> bool {
        let object = self.get(&["egressgateway", name]);
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().any(|one| one["type"] == "Ready" && one["status"] == "True")
            && object["status"]["gatewaysReady"] == "2/2"
    }

    /// Droplets of an EgressGateway, the active one first.
    fn gateway_ids(&self, name: &str) -> Vec<u64> {
        let status = self.get(&["egressgateway", name])["status"].clone();
        let mut gateways = status["gateways"].as_array().unwrap().clone();
        gateways.sort_by_key(|one| one["name"] != status["active"]);
        gateways.iter().map(|one| one["dropletID"].as_u64().unwrap()).collect()
    }

    fn droplets(&self) -> usize {
        let answer = self.lab(&["cloud", "GET", "/v2/droplets?tag_name=egress-gateway&per_page=200"]);
        serde_json::from_str::<Value>(&answer).unwrap()["droplets"].as_array().unwrap().len()
    }

    /// Everything of ours in a node's kernel.
    fn ours(&self, node: &str) -> String {
        let show = "ip -4 route show table all proto 157; ip -4 -d rule show | grep 'proto 157'; ip nexthop show proto 157; true";
        self.lab(&["exec", node, "--", "sh", "-c", show])
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::env::var_os("EGRESS_E2E_KEEP").is_none() {
            let _stopped = self.command(&["stop"]).status();
        }
    }
}

fn output(mut command: Command) -> Result<String, String> {
    let output = command.output().unwrap();
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)))
}

fn until<T: PartialEq + std::fmt::Debug>(
    what: &str,
    expected: &T,
    deadline: Duration,
    mut look: impl FnMut() -> T,
) {
    let started = Instant::now();
    loop {
        let found = look();
        if found == *expected {
            return eprintln!("ok   {what} ({:.1} s)", started.elapsed().as_secs_f64());
        }
        assert!(started.elapsed() < deadline, "{what}: {found:?} instead of {expected:?} after {deadline:?}");
        std::thread::sleep(Duration::from_millis(300));
    }
}

/// The demo once more where pods have addresses of the VPC: the gateway translates their range too.
#[test]
fn the_demo_holds_where_pods_are_native_to_the_vpc() {
    let lab = Lab::new("e2enative");
    demo(&lab, &["--variant", "vpc-native", "--api-server", "name"]);
    lab.lab(&["stop"]);
}

#[test]
fn an_operators_week() {
    let lab = Lab::new("e2e");
    demo(&lab, &[]);
    every_example_does_what_it_says(&lab);
    every_panel_of_the_dashboard_shows_what_the_lab_has(&lab);
    a_rolling_restart_of_the_agents_writes_nothing_to_any_kernel(&lab);
    all_egress_leaves_the_nodes_alive_and_heals_by_itself(&lab);
    uninstalling_takes_routes_along_and_leaves_objects(&lab);
    stopping_leaves_nothing(&lab);
}

/// Every step shows what it must, and the report says so.
fn demo(lab: &Lab, arguments: &[&str]) {
    let report = lab.root.join("target/e2e").join(format!("{}.json", lab.name));
    let mut demo = lab.command(&["demo"]);
    demo.args(arguments).arg("--assets").arg(&lab.assets).arg("--report").arg(&report).env_remove("CI");
    let mut demo = demo.stdout(Stdio::piped()).spawn().unwrap();
    let (silence, before) = longest_silence(demo.stdout.take().unwrap());
    let status = demo.wait().unwrap();
    let report: Value = serde_json::from_str(&std::fs::read_to_string(&report).unwrap()).unwrap();
    assert!(status.success(), "{report:#}");
    assert!(silence < LONGEST_SILENCE, "silent for {silence:?} before {before:?}");
    eprintln!("ok   the demo was never silent for longer than {:.1} s", silence.as_secs_f64());
    let steps = report["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 9);
    assert!(steps.iter().all(|step| step["ok"] == true && step["seconds"].is_number()), "{report:#}");
    assert!(report["egress_ip"].is_string());
    assert_eq!(report["failover"]["leaked_packets"], 0);
    assert_eq!(report["failover"]["failed_connections"], 0);
    assert_eq!(report["left_behind"], json!({"droplets": 0, "reserved_ips": 0, "routes": 0}));
}

/// Passes on what it reads; how long nothing came at most, and the line that ended it.
fn longest_silence(output: impl std::io::Read) -> (Duration, String) {
    let mut longest = (Duration::ZERO, String::new());
    let mut last = Instant::now();
    for line in BufReader::new(output).lines() {
        let line = line.unwrap();
        println!("{line}");
        let silence = last.elapsed();
        last = Instant::now();
        if silence > longest.0 {
            longest = (silence, line);
        }
    }
    longest
}

fn every_example_does_what_it_says(lab: &Lab) {
    lab.kubectl(&["apply", "-f", "examples/"]);
    for name in ["demo", "all-fields", "database", "all-egress"] {
        until(&format!("{name} is ready"), &true, 3 * MINUTE, || lab.is_ready(name));
    }
    let expectations = [
        ("192.0.2.80", lab.egress_ip("demo")),
        ("192.0.2.97", lab.egress_ip("demo")),
        // Excluded from the StaticRoute that follows demo, and still a part of everything.
        ("192.0.2.100", lab.egress_ip("all-egress")),
        ("5.6.7.8", lab.egress_ip("all-egress")),
        ("192.0.2.130", lab.egress_ip("all-fields")),
        ("198.51.100.77", lab.egress_ip("all-fields")),
        ("db.example.com", lab.egress_ip("database")),
        ("192.0.2.65", Some(SEEDS_GATEWAY.to_owned())),
        ("ifconfig.me", Some(SEEDS_GATEWAY.to_owned())),
    ];
    for (destination, expected) in expectations {
        assert!(expected.is_some());
        until(&format!("{destination} sees {expected:?}"), &expected, MINUTE, || lab.seen(destination));
    }
}

fn every_panel_of_the_dashboard_shows_what_the_lab_has(lab: &Lab) {
    let kubectl = lab.assets.join("kubectl");
    // The proxy of the test speaks to the lab by a command line of its own.
    let wrapper = lab.root.join("target/e2e/egress-lab");
    let line =
        format!("#!/bin/sh\nexec {} --state-dir {} \"$@\"\n", lab.program.display(), lab.state.display());
    std::fs::write(&wrapper, line).unwrap();
    std::fs::set_permissions(&wrapper, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut judge = Command::new("python3");
    judge.current_dir(&lab.root).arg("tests/dashboard.py").args(["--name", lab.name]);
    judge.arg("--lab").arg(wrapper).arg("--kubectl").arg(kubectl);
    judge.arg("--kubeconfig").arg(lab.state.join("kubeconfig"));
    assert!(judge.status().unwrap().success(), "a panel of the dashboard shows something else");
    lab.kubectl(&["delete", "-f", "examples/", "--timeout=120s"]);
    until("no Droplet is left", &0, MINUTE, || lab.droplets());
}

fn a_rolling_restart_of_the_agents_writes_nothing_to_any_kernel(lab: &Lab) {
    lab.kubectl(&["apply", "-f", "examples/egressgateway.yaml"]);
    until("demo is ready", &true, 3 * MINUTE, || lab.is_ready("demo"));
    let before: Vec<_> = ["node-1", "node-2"].map(|node| lab.ours(node)).into();
    let log = lab.root.join("target/e2e/monitor");
    let mut monitors: Vec<_> = ["node-1", "node-2"]
        .map(|node| {
            let file = std::fs::File::create(log.with_extension(node)).unwrap();
            let words = ["exec", node, "--", "ip", "-4", "monitor", "route", "rule", "nexthop"];
            lab.command(&words).stdout(file).spawn().unwrap()
        })
        .into();
    lab.kubectl(&["-n", "egress-gateway", "rollout", "restart", "daemonset/egress-agent"]);
    lab.kubectl(&["-n", "egress-gateway", "rollout", "status", "daemonset/egress-agent", "--timeout=120s"]);
    until("demo is still ready", &true, MINUTE, || lab.is_ready("demo"));
    for monitor in &mut monitors {
        monitor.kill().unwrap();
        monitor.wait().unwrap();
    }
    for (node, before) in ["node-1", "node-2"].iter().zip(before) {
        assert_eq!(lab.ours(node), before, "{node}");
        let heard = std::fs::read_to_string(log.with_extension(node)).unwrap();
        let of_ours: Vec<_> =
            heard.lines().filter(|line| line.contains("157") || line.contains("nhid")).collect();
        assert!(of_ours.is_empty(), "{node}: a restart wrote to the kernel: {of_ours:?}");
    }
    eprintln!("ok   a rolling restart wrote nothing");
    lab.kubectl(&["delete", "-f", "examples/egressgateway.yaml", "--timeout=120s"]);
}

fn all_egress_leaves_the_nodes_alive_and_heals_by_itself(lab: &Lab) {
    lab.apply(&json!({
        "apiVersion": "networking.digitalocean.com/v1alpha1", "kind": "EgressGateway",
        "metadata": {"name": "everything"}, "spec": {"destinations": ["0.0.0.0/0"], "publicIP": "Ephemeral"},
    }));
    until("everything is ready", &true, 3 * MINUTE, || lab.is_ready("everything"));
    let expected = lab.egress_ip("everything");
    for destination in ["5.6.7.8", "192.0.2.10", "ifconfig.me"] {
        until(&format!("{destination} sees {expected:?}"), &expected, MINUTE, || lab.seen(destination));
    }
    // What the node itself needs never goes through a gateway.
    for (what, target, via) in [
        ("API server", "198.51.100.10", "dev eth0"),
        ("cloud API", "198.51.100.20", "dev eth0"),
        ("metadata", "169.254.169.254", "dev eth0"),
        ("resolver", "67.207.67.2", "dev eth0"),
        ("other node", "10.116.0.3", "dev eth1"),
        ("multicast", "224.0.0.1", "dev eth0"),
    ] {
        let way = lab.lab(&["exec", "node-1", "--", "ip", "route", "get", target]);
        assert!(
            way.contains(via) && !way.contains("table 1157") && !way.contains("via 10.116.0.1"),
            "{what}: {way}"
        );
    }
    let id = lab.lab(&[
        "exec",
        "node-1",
        "--",
        "curl",
        "-sS",
        "--max-time",
        "4",
        "http://169.254.169.254/metadata/v1/id",
    ]);
    assert_eq!(id.trim(), "400000001");

    // Both are gone for good: one in the cloud, too, of the other the cloud goes on saying that it is active.
    let dead = lab.gateway_ids("everything");
    lab.lab(&["kill", &dead[1].to_string()]);
    lab.lab(&["cloud", "DELETE", &format!("/v2/droplets/{}", dead[0])]);
    until("the outage is seen", &false, MINUTE, || lab.is_ready("everything"));
    until("the pair is rebuilt with no hand", &true, 4 * MINUTE, || lab.is_ready("everything"));
    until("both are other Droplets", &true, MINUTE, || {
        let gateways = lab.gateway_ids("everything");
        gateways.len() == 2 && gateways.iter().all(|id| !dead.contains(id))
    });
    until("pods leave through it", &true, MINUTE, || {
        let expected = lab.egress_ip("everything");
        expected.is_some() && lab.seen("5.6.7.8") == expected
    });
    assert!(lab.droplets() <= 3, "never more than asked for and one");
    lab.kubectl(&["delete", "egressgateway", "everything", "--timeout=120s"]);
    until("no Droplet is left", &0, MINUTE, || lab.droplets());
}

fn uninstalling_takes_routes_along_and_leaves_objects(lab: &Lab) {
    lab.kubectl(&["apply", "-f", "tests/seeds/primary.yaml"]);
    until("routed", &Some(SEEDS_GATEWAY.to_owned()), MINUTE, || lab.seen("ifconfig.me"));
    lab.kubectl(&["delete", "-k", "deploy/overlays/lab", "--timeout=120s"]);
    for node in ["node-1", "node-2"] {
        until(&format!("nothing of ours is on {node}"), &String::new(), 2 * MINUTE, || lab.ours(node));
    }
    assert_eq!(lab.get(&["staticroute", "primary"])["spec"]["gateway"], "10.116.0.5", "objects stay");
}

fn stopping_leaves_nothing(lab: &Lab) {
    lab.lab(&["stop"]);
    let name = lab.name;
    let left = |command: &str| {
        let text = Command::new("sh").args(["-c", command]).output().unwrap().stdout;
        String::from_utf8_lossy(&text).into_owned()
    };
    assert_eq!(left(&format!("ip netns list | grep egl-{name}- || true")), "");
    assert_eq!(left(&format!("grep egl-{name} /proc/mounts || true")), "");
    assert_eq!(left(&format!("find /sys/fs/cgroup -maxdepth 2 -name '*-{name}'")), "");
}
