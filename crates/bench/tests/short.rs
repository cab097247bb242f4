//! The benchmark itself still works: a few samples of everything, and no word about speed.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at what it did not expect")]

use std::path::PathBuf;
use std::process::Command;

#[test]
fn a_short_run_measures_everything_that_the_long_one_does() {
    // Beside this program: the agent of the same build.
    let agent = PathBuf::from(env!("CARGO_BIN_EXE_egress-bench")).with_file_name("egress-agent");
    assert!(agent.exists(), "{} is missing: cargo build -p egress-agent", agent.display());
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("agent.json");
    let output = Command::new(env!("CARGO_BIN_EXE_egress-bench"))
        .args(["agent", "--short"])
        .arg("--agent")
        .arg(agent)
        .arg("--out")
        .arg(&out)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(out).unwrap()).unwrap();
    for number in [
        "/apply_ms/1",
        "/apply_ms/100",
        "/delete_ms/100",
        "/server_ms/100",
        "/switch_ms",
        "/restart_ms",
        "/rss_mib/idle",
        "/rss_mib/100",
        "/cpu_idle_percent",
        "/api_writes_per_change",
        "/kubectl_ms",
        "/raw/apply_ms/100/0",
        "/raw/switch_ms/0",
    ] {
        assert!(report.pointer(number).is_some_and(serde_json::Value::is_number), "{number} in {report:#}");
    }
    assert_eq!(report["not_applied_in_time"], 0);
}
