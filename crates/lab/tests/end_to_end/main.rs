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

mod health_page;
mod inbound;
mod lab;
mod new_node;
mod reserved_ips;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use lab::{Lab, until};

const SEEDS_GATEWAY: &str = "203.0.113.5";
const SEEDS_STANDBY: &str = "203.0.113.6";
const MINUTE: Duration = Duration::from_secs(60);
/// The demo says something every two seconds; what it says takes a moment to arrive on a busy machine.
const LONGEST_SILENCE: Duration = Duration::from_secs(4);

/// The demo once more where pods have addresses of the VPC: the gateway translates their range too.
#[test]
fn the_demo_holds_where_pods_are_native_to_the_vpc() {
    let lab = Lab::new("e2enative");
    demo(&lab, &["--variant", "vpc-native", "--api-server", "name"]);
    nodes_stay_ready_when_the_api_servers_name_moves_and_all_egress_is_captured(&lab);
    lab.lab(&["stop"]);
}

/// The gateway is dead: what goes through it is lost, so what a node lives by must not.
fn nodes_stay_ready_when_the_api_servers_name_moves_and_all_egress_is_captured(lab: &Lab) {
    lab.apply(&json!({
        "apiVersion": "networking.digitalocean.com/v1", "kind": "StaticRoute", "metadata": {"name": "everything"},
        "spec": {"destinations": ["0.0.0.0/0"], "gateway": "10.116.0.5"},
    }));
    until("all egress is captured", &Some(SEEDS_GATEWAY.to_owned()), MINUTE, || lab.seen("5.6.7.8"));
    lab.lab(&["freeze", "gateway-a"]);
    until("nothing leaves through the dead gateway", &None, MINUTE, || lab.seen("5.6.7.8"));
    for moved in [["198.51.100.13", "198.51.100.14"], ["198.51.100.15", "198.51.100.16"]] {
        lab.lab(&["api-addresses", moved[0], moved[1]]);
        let since = lab.lab(&["exec", "node-1", "--", "date", "-u", "+%Y-%m-%dT%H:%M:%SZ"]).trim().to_owned();
        for node in ["node-1", "node-2"] {
            let renewed = || {
                let lease = lab.get(&["-n", "kube-node-lease", "lease", node]);
                lease["spec"]["renewTime"].as_str().is_some_and(|time| *time > *since)
            };
            until(&format!("{node} has renewed its lease since the name moved"), &true, MINUTE, renewed);
            for address in moved {
                let way = lab.lab(&["exec", node, "--", "ip", "route", "get", address]);
                assert!(way.contains("dev eth0"), "{node} reaches the API server through a gateway: {way}");
            }
        }
    }
    let ready = "jsonpath={.items[*].status.conditions[?(@.type=='Ready')].status}";
    assert_eq!(lab.kubectl(&["get", "nodes", "-o", ready]), "True True");
    lab.lab(&["heal", "gateway-a"]);
    lab.kubectl(&["delete", "staticroute", "everything"]);
}

#[test]
fn an_operators_week() {
    let lab = Lab::new("e2e");
    demo(&lab, &[]);
    every_example_does_what_it_says(&lab);
    every_panel_of_the_dashboard_shows_what_the_lab_has(&lab);
    an_agents_token_writes_the_report_of_its_own_node_only(&lab);
    health_page::a_gateway_that_is_killed_goes_red_and_the_standby_takes_over_without_a_reload(&lab);
    a_rolling_restart_of_the_agents_writes_nothing_to_any_kernel(&lab);
    all_egress_leaves_the_nodes_alive_and_heals_by_itself(&lab);
    reserved_ips::partners_see_the_same_two_addresses_over_two_replacements(&lab);
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
        ("registry.digitalocean.com", lab.node_address()),
        ("192.0.2.65", Some(SEEDS_GATEWAY.to_owned())),
        ("ifconfig.me", Some(SEEDS_GATEWAY.to_owned())),
    ];
    for (destination, expected) in expectations {
        assert!(expected.is_some());
        until(&format!("{destination} sees {expected:?}"), &expected, MINUTE, || lab.seen(destination));
    }
    // Shared by two, three to one, by a hash of both addresses: of 48 pairs not all fall to the same.
    let both = [SEEDS_GATEWAY, SEEDS_STANDBY].map(str::to_owned).into();
    until("two gateways share the traffic", &both, MINUTE, || lab.seen_of_all("192.0.2.[16-31]"));
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

/// Tried with tokens as kubelets give them to the agents' Pods, and nothing is written.
fn an_agents_token_writes_the_report_of_its_own_node_only(lab: &Lab) {
    let server = lab.kubectl(&["config", "view", "-o", "jsonpath={.clusters[0].cluster.server}"]);
    let authority = lab.state.join("pki/ca.pem").display().to_string();
    let agents = "app.kubernetes.io/name=egress-agent";
    let pod =
        ["-n", "egress-gateway", "get", "pods", "-l", agents, "--field-selector", "spec.nodeName=node-1"];
    let pod = lab.kubectl(&[pod.as_slice(), &["-o", "jsonpath={.items[0].metadata.name}"]].concat());
    let create = ["-n", "egress-gateway", "create", "token", "egress-agent"];
    let bound =
        lab.kubectl(&[create.as_slice(), &["--bound-object-kind=Pod", "--bound-object-name", &pod]].concat());
    let unbound = lab.kubectl(&create);
    // Not kubectl, which reads what it patches: agents have no right to read it there.
    let write = |token: &str, node: &str| {
        let url = format!(
            "{server}/apis/networking.digitalocean.com/v1alpha1/nodeegresses/{node}/status?dryRun=All"
        );
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--fail-with-body", "--max-time", "10", "-X", "PATCH", "--cacert", &authority]);
        curl.args(["-H", &format!("Authorization: Bearer {}", token.trim())]);
        curl.args(["-H", "Content-Type: application/merge-patch+json", "--data"]);
        curl.arg(r#"{"status":{"summary":"written by somebody else"}}"#).arg(url);
        let answer = curl.output().unwrap();
        let text = String::from_utf8_lossy(&answer.stdout).into_owned();
        if answer.status.success() { Ok(text) } else { Err(text) }
    };
    write(&bound, "node-1").expect("an agent may write the report of its own node");
    let refused = write(&bound, "node-2").expect_err("an agent wrote the report of another node");
    assert!(refused.contains("the agent of node node-1 may write NodeEgress node-1 only"), "{refused}");
    let refused = write(&unbound, "node-1").expect_err("a token without a node wrote a report");
    assert!(refused.contains("the token names no node"), "{refused}");
    eprintln!("ok   an agent's token writes the report of its own node only");
}

fn a_rolling_restart_of_the_agents_writes_nothing_to_any_kernel(lab: &Lab) {
    lab.kubectl(&["apply", "-f", "examples/egressgateway.yaml"]);
    until("demo is ready", &true, 3 * MINUTE, || lab.is_ready("demo"));
    let before: Vec<_> = ["node-1", "node-2"].map(|node| lab.ours(node)).into();
    // What nodes say, and what is said of it; not what they say of gateways, which a lost probe may move.
    let told = || {
        let fields = "{.metadata.name}{.status.conditions}{.status.routes}{.status.repairs}{.status.nodes}{.status.nodesApplied}";
        let template = format!("{{range .items[*]}}{fields}{{end}}");
        lab.kubectl(&["get", "nodeegresses,staticroutes", "-o", &format!("jsonpath={template}")])
    };
    let told_before = told();
    assert!(told_before.contains("node-2") && told_before.contains("demo"), "{told_before}");
    let log = lab.root.join("target/e2e/monitor");
    let mut monitors: Vec<_> = ["node-1", "node-2"]
        .map(|node| {
            let file = std::fs::File::create(log.with_extension(node)).unwrap();
            let words = ["exec", node, "--", "ip", "-4", "monitor", "route", "rule", "nexthop"];
            let monitor = lab.command(&words).stdout(file).spawn().unwrap();
            // Who hears nothing proves nothing: it goes on when a change of our own was heard.
            until(&format!("the monitor on {node} hears"), &true, MINUTE, || {
                for verb in ["add", "del"] {
                    let route = ["ip", "route", verb, "192.0.2.254/32", "dev", "lo", "table", "77"];
                    lab.lab(&[["exec", node, "--"].as_slice(), &route].concat());
                }
                std::fs::metadata(log.with_extension(node)).unwrap().len() > 0
            });
            monitor
        })
        .into();
    lab.kubectl(&["-n", "egress-gateway", "rollout", "restart", "daemonset/egress-agent"]);
    lab.kubectl(&["-n", "egress-gateway", "rollout", "status", "daemonset/egress-agent", "--timeout=120s"]);
    until("demo is still ready", &true, MINUTE, || lab.is_ready("demo"));
    until("every report is as it was", &told_before, MINUTE, told);
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
    inbound::connections_are_answered_where_they_came_in(lab);

    // Both are gone: one in the cloud, too, of the other the cloud goes on saying that it is active.
    let dead = lab.gateway_ids("everything");
    lab.lab(&["kill", &dead[1].to_string()]);
    lab.lab(&["cloud", "DELETE", &format!("/v2/droplets/{}", dead[0])]);
    until("the outage is seen", &false, MINUTE, || lab.is_ready("everything"));
    until("the pair is rebuilt with no hand", &true, 4 * MINUTE, || lab.is_ready("everything"));
    // The one that is only dead has its power cycled, and keeps its address; the deleted one can't come back.
    until("a new Droplet stands for the one that was deleted", &true, MINUTE, || {
        let gateways = lab.gateway_ids("everything");
        gateways.len() == 2 && !gateways.contains(&dead[0])
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
