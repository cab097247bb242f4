//! The benchmark of a gateway still works: one short sample of everything, and no word about speed.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at what it did not expect")]

use std::process::Command;

#[test]
fn a_short_run_measures_everything_that_the_long_one_does() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("gateway.json");
    let document = folder.path().join("benchmarks.md");
    std::fs::write(&document, "<!-- gateway: written by make bench-gateway -->\n<!-- end of gateway -->\n")
        .unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_egress-bench"))
        .args(["gateway", "--samples", "1", "--milliseconds", "100", "--most", "500", "--out"])
        .arg(&out)
        .arg("--document")
        .arg(&document)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(out).unwrap()).unwrap();
    for number in [
        "upload_bits_per_second",
        "download_bits_per_second",
        "datagrams_per_second",
        "connections_per_second",
        "direct_upload_bits_per_second",
        "direct_connections_per_second",
    ] {
        assert!(report[number].as_f64().is_some_and(|value| value > 0.0), "{number} in {report:#}");
        assert!(report["raw"][number][0].is_number(), "{number} in {report:#}");
    }
    // Far from the limit none is lost.
    assert_eq!(report["first_lost"], 500.0);
    let table = std::fs::read_to_string(document).unwrap();
    assert_eq!(table.lines().filter(|line| line.starts_with("| ")).count(), 2 + 7, "{table}");
}
