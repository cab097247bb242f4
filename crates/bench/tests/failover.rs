//! The failover benchmark in short: one kill of each kind, with what holds on any machine, and no word about speed.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at what it did not expect")]

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Runs the benchmark with these options and returns its report.
fn bench(folder: &Path, options: &[&str], report: &str) -> Value {
    // Beside this program: the agent of the same build.
    let agent = PathBuf::from(env!("CARGO_BIN_EXE_egress-bench")).with_file_name("egress-agent");
    assert!(agent.exists(), "{} is missing: cargo build -p egress-agent", agent.display());
    let output = Command::new(env!("CARGO_BIN_EXE_egress-bench"))
        .args(["failover", "--seed", "5", "--commit", "short"])
        .args(options)
        .arg("--agent")
        .arg(agent)
        .arg("--out")
        .arg(folder.join("failover.json"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&std::fs::read(folder.join(report)).unwrap()).unwrap()
}

fn count(report: &Value, pointer: &str) -> u64 {
    report.pointer(pointer).and_then(Value::as_u64).expect(pointer)
}

/// Of every fault once: each node has a new connection through the other gateway, returns, and lets nothing out.
fn keeps_what_is_promised(report: &Value, kills: u64) {
    assert_eq!(count(report, "/kills"), kills);
    for none in ["/not_restored", "/leaked_packets"] {
        assert_eq!(count(report, none), 0, "{none} in {report:#}");
    }
    for measured in
        ["/dead/p50_ms", "/dead/p90_ms", "/dead/p99_ms", "/dead/max_ms", "/stalled/p50_ms", "/stalled/max_ms"]
    {
        let value = report.pointer(measured).and_then(Value::as_f64);
        assert!(value.is_some_and(|value| value > 0.0), "{measured} in {report:#}");
    }
    assert_eq!(report["raw"].as_array().map(Vec::len).map(u64::try_from), Some(Ok(kills)));
}

#[test]
fn after_every_kind_of_kill_every_node_has_new_connections_and_nothing_leaks() {
    let folder = tempfile::tempdir().unwrap();
    let options = ["--kills", "12", "--pairs", "2", "--nodes", "2", "--faults", "all"];
    let report = bench(folder.path(), &options, "failover.json");
    keeps_what_is_promised(&report, 12);
    assert_eq!(report["control_plane"], "up");
    assert_eq!(report["faults"].as_object().unwrap().len(), 12);
    let picture = std::fs::read_to_string(folder.path().join("failover.svg")).unwrap();
    assert!(picture.starts_with("<svg") && picture.contains("class=\"bar\""));

    // What is there counts: nothing is left to do.
    let again = bench(folder.path(), &options, "failover.json");
    assert_eq!(again["raw"], report["raw"]);
}

#[test]
fn without_the_control_plane_every_node_leaves_a_dead_gateway_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let options =
        ["--kills", "3", "--pairs", "1", "--nodes", "2", "--control-plane", "down", "--profile", "fast"];
    let report = bench(
        folder.path(),
        &[&options[..], &["--faults", "power-off,frozen,links-silent"]].concat(),
        "failover.json",
    );
    keeps_what_is_promised(&report, 3);
    assert_eq!((&report["control_plane"], &report["profile"]), (&"down".into(), &"fast".into()));
}

#[test]
fn a_planned_switch_loses_and_leaks_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let report =
        bench(folder.path(), &["--planned", "6", "--pairs", "1", "--nodes", "2"], "failover/planned.json");
    assert_eq!(count(&report, "/switches"), 6);
    assert!(count(&report, "/datagrams") > 1_000, "{report:#}");
    for none in ["/lost", "/leaked_packets"] {
        assert_eq!(count(&report, none), 0, "{none} in {report:#}");
    }
}
