//! What a gateway's connection table and ports are sized to, and what it tells of their use.

use std::io::Write;
use std::net::{SocketAddrV4, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::topology::{INTERNET, NODE, Topology, connect_from};

/// One public address can have so many connections to one destination.
const PORTS: f64 = 64_512.0;

/// What one of the machine's own programs answers, without a machine.
fn program_says(program: &str, expression: &str) -> Value {
    const ASK: &str = "
import importlib.machinery, importlib.util, json, sys
sys.dont_write_bytecode = True
loader = importlib.machinery.SourceFileLoader('gateway', sys.argv[1])
gateway = importlib.util.module_from_spec(importlib.util.spec_from_loader('gateway', loader))
loader.exec_module(gateway)
print(json.dumps(eval(sys.argv[2], vars(gateway))))
";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../cloud-init/files").join(program);
    let done = Command::new("python3").args(["-c", ASK]).arg(path).arg(expression).output().expect("python3");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    serde_json::from_slice(&done.stdout).unwrap()
}

#[test]
fn the_connection_table_is_sized_by_memory() {
    let sizes = program_says(
        "egress-gateway-apply",
        "[conntrack_entries(mib) for mib in (458, 961, 1972, 3915, 7940, 64000)]",
    );
    assert_eq!(sizes, json!([131_072, 246_016, 504_832, 1_002_240, 1_048_576, 1_048_576]));
    // On the smallest Droplet, too, there is room for two destinations with every port in use.
    assert!(sizes[0].as_f64().unwrap() >= 2.0 * PORTS);
}

#[test]
fn a_destination_is_warned_of_while_there_are_ports_left_for_it() {
    let warnings = |connections: u32| {
        let counted = format!(
            "(lambda counter, warnings: (setattr(counter, 'busiest', [(('tcp', '192.0.2.1', 443), {connections})]), \
             counter.report(warnings), warnings)[2])(Counter(), [])"
        );
        program_says("egress-gateway-health", &counted)
    };
    assert_eq!(warnings(45_000), json!([]));
    let told = warnings(45_200);
    assert!(
        told[0]
            .as_str()
            .is_some_and(|one| one.starts_with("tcp 192.0.2.1:443 has 45200 of the 64512 connections")),
        "{told}"
    );
}

#[test]
fn a_connection_table_is_warned_of_before_it_is_full() {
    // A machine on which nothing but the table can be read.
    let warnings = |entries: u32| {
        let read = format!(
            "lambda path: {entries} if path.endswith('count') else 1000 if path.endswith('max') else None"
        );
        let machine = format!(
            "globals().update(output_of=lambda *command: None, read_json=lambda path: None, read_number={read})"
        );
        let settings = "{'version': 'v', 'vpc_range': '10.116.0.0/20', 'source_ranges': '10.116.0.0/20'}";
        let sample = format!(
            "({machine}, Sampler({settings}, '10.116.0.5', Peers({settings}, '10.116.0.5')).sample())[1]"
        );
        let told = program_says("egress-gateway-health", &sample);
        assert_eq!(told["conntrack"], json!({"count": entries, "max": 1000}));
        told["warnings"].to_string()
    };
    assert!(!warnings(899).contains("conntrack"), "{}", warnings(899));
    assert!(warnings(900).contains("the conntrack table is nearly full: 900 of 1000"), "{}", warnings(900));
}

#[test]
fn the_timeouts_and_the_range_of_ports_are_in_force() {
    let cloud = Topology::new();
    cloud.boot_until_ready();
    for (name, value) in [
        ("netfilter.nf_conntrack_tcp_timeout_established", "7440"),
        ("netfilter.nf_conntrack_tcp_timeout_time_wait", "60"),
        ("netfilter.nf_conntrack_tcp_timeout_syn_sent", "10"),
        ("netfilter.nf_conntrack_tcp_timeout_fin_wait", "60"),
        ("netfilter.nf_conntrack_tcp_timeout_close_wait", "60"),
        ("netfilter.nf_conntrack_udp_timeout", "30"),
        ("netfilter.nf_conntrack_udp_timeout_stream", "180"),
        ("netfilter.nf_conntrack_tcp_loose", "1"),
        ("ipv4.ip_local_port_range", "1024 65535"),
        ("ipv4.ip_local_reserved_ports", "9180-9181"),
    ] {
        let path = format!("/proc/sys/net/{}", name.replace('.', "/"));
        let there = cloud.exec(&format!("cat {path}")).split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(there, value, "{name}");
    }
    // What a network namespace can't set, and nothing else, is told; what was wanted is what this memory asks for.
    let entries = program_says("egress-gateway-apply", "conntrack_entries(memory_mib())");
    let warnings = cloud.health().unwrap().1["warnings"].clone();
    for warning in warnings.as_array().unwrap().iter().map(|warning| warning.as_str().unwrap()) {
        let of_the_table = ["buckets", "max"]
            .map(|name| format!("net.netfilter.nf_conntrack_{name}: wanted {entries}, effective "));
        assert!(of_the_table.iter().any(|start| warning.starts_with(start)), "{warning}");
    }
}

#[test]
fn the_busiest_destinations_are_told_with_their_part_of_the_ports() {
    const DATAGRAMS: usize = 700;
    let cloud = Topology::new();
    cloud.boot_until_ready();
    let held: Vec<_> = cloud.inside("node", || {
        (0..20).map(|_| connect_from(NODE, SocketAddrV4::new(INTERNET, 80)).unwrap()).collect()
    });
    let sockets: Vec<UdpSocket> =
        cloud.inside("node", || (0..DATAGRAMS).map(|_| UdpSocket::bind((NODE, 0)).unwrap()).collect());
    let body = cloud.wait_for_health("the busiest destination", |_, body| {
        // An entry without an answer lasts for half a minute.
        for socket in &sockets {
            socket.send_to(b"x", (INTERNET, 5353)).unwrap();
        }
        body["destinations"][0]["connections"] == DATAGRAMS
    });
    let part = |connections: f64| (connections / PORTS * 10_000.0).round() / 10_000.0;
    // After them comes what the machine itself asked lately.
    assert_eq!(
        body["destinations"].as_array().unwrap()[..2],
        json!([
            {"protocol": "udp", "address": INTERNET, "port": 5353, "connections": DATAGRAMS, "portsUsed": part(700.0)},
            {"protocol": "tcp", "address": INTERNET, "port": 80, "connections": 20, "portsUsed": part(20.0)},
        ])
        .as_array()
        .unwrap()[..]
    );
    drop(held);
    let metrics = cloud.get("/metrics").unwrap().1;
    for line in [
        format!("egress_gateway_machine_busiest_destination_ports_used_ratio {}", part(700.0)),
        format!(
            "egress_gateway_machine_destination_connections{{protocol=\"udp\",destination=\"{INTERNET}:5353\"}} {DATAGRAMS}"
        ),
        "egress_gateway_machine_conntrack_insert_failed_total 0".to_owned(),
    ] {
        assert!(metrics.contains(&format!("\n{line}\n")), "{line} is missing in\n{metrics}");
    }
    assert!(!metrics.contains(":80\""), "a series for a destination with hardly any connections\n{metrics}");
    assert_eq!(judged(&metrics), "", "{metrics}");
}

/// What Prometheus' own checker says of metrics.
fn judged(metrics: &str) -> String {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool (Debian package prometheus)");
    promtool.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
    let done = promtool.wait_with_output().unwrap();
    let said = [done.stdout, done.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    if done.status.success() { said } else { format!("{}: {said}", done.status) }
}

#[test]
fn the_time_to_ready_is_measured_once_a_boot() {
    let cloud = Topology::new();
    cloud.boot_until_ready();
    let told = || cloud.health().unwrap().1["secondsToReady"].as_f64().expect("secondsToReady");
    let first = told();
    assert!(first > 0.0 && first < crate::READY_LIMIT.as_secs_f64(), "{first}");
    let metrics = cloud.get("/metrics").unwrap().1;
    let line =
        metrics.lines().find_map(|line| line.strip_prefix("egress_gateway_machine_time_to_ready_seconds "));
    assert_eq!(line.and_then(|value| value.parse().ok()), Some(first), "{metrics}");
    cloud.exec("systemctl restart egress-gateway-health.service");
    cloud.wait_for_health("ready again", |status, _| status == 200);
    assert_eq!(told().to_bits(), first.to_bits(), "measured anew by a restart");
    cloud.machine("power-off");
    cloud.boot_until_ready();
    println!("time to ready: first boot {first} s, second {} s", told());
}
