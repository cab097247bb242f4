//! The benchmark itself still works: a few samples of everything, and no word about speed. And it ends when it is told to.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at what it did not expect")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// A short run that writes to `out`.
fn bench(out: &Path) -> Command {
    // Beside this program: the agent of the same build.
    let agent = PathBuf::from(env!("CARGO_BIN_EXE_egress-bench")).with_file_name("egress-agent");
    assert!(agent.exists(), "{} is missing: cargo build -p egress-agent", agent.display());
    let mut command = Command::new(env!("CARGO_BIN_EXE_egress-bench"));
    command.args(["agent", "--short"]).arg("--agent").arg(agent).arg("--out").arg(out);
    command
}

fn until<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(started.elapsed() < Duration::from_secs(90), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Every process that this one started, and its name.
fn children(process: u32) -> Vec<(u32, String)> {
    let threads = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let listed = threads.map(|thread| fs::read_to_string(thread.path().join("children")).unwrap_or_default());
    let named = |child: &str| {
        let name = fs::read_to_string(format!("/proc/{child}/comm")).ok()?;
        Some((child.parse().ok()?, name.trim().to_owned()))
    };
    listed.flat_map(|line| line.split_whitespace().filter_map(named).collect::<Vec<_>>()).collect()
}

#[test]
fn ctrl_c_leaves_no_program_and_no_namespace_behind() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = bench(&folder.path().join("agent.json")).stderr(Stdio::null()).spawn().unwrap();
    let started = until("the agent runs", || {
        let children = children(bench.id());
        children.iter().any(|(_, name)| name == "egress-agent").then_some(children)
    });
    for program in ["etcd", "kube-apiserver"] {
        assert!(started.iter().any(|(_, name)| name == program), "{program} in {started:?}");
    }
    kill(Pid::from_raw(bench.id().cast_signed()), Signal::SIGINT).unwrap();
    let status = bench.wait().unwrap();
    assert!(!status.success() && status.code().is_some(), "an error and no death: {status}");
    let is_there = |process: &u32| fs::exists(format!("/proc/{process}")).unwrap();
    let left: Vec<_> = started.iter().filter(|(process, _)| is_there(process)).collect();
    assert!(left.is_empty(), "{left:?}");
    let ours = |name: &str| name.starts_with(&format!("bench{}-", bench.id()));
    let namespaces = fs::read_dir("/run/netns").unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(namespaces.filter(|name| ours(&name.to_string_lossy())).count(), 0);
}

/// Runs it to its end and returns its report.
fn report(options: &[&str]) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("agent.json");
    let output = bench(&out).args(options).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&fs::read(out).unwrap()).unwrap()
}

/// What is measured of the agent as it is shipped, with one sample at least.
fn has_what_is_shipped(report: &Value) {
    for number in [
        "/shipped/rss_mib/idle",
        "/shipped/rss_mib/100",
        "/shipped/cpu_percent/1",
        "/shipped/cpu_percent/100",
        "/shipped/few_nodes/cpu_percent/1",
        "/raw/shipped/rss_mib/100/0",
        "/raw/shipped/few_nodes/cpu_percent/1/0",
    ] {
        assert!(report.pointer(number).is_some_and(Value::is_number), "{number} in {report:#}");
    }
    assert_eq!(
        (&report["shipped"]["nodes"], &report["shipped"]["few_nodes"]["nodes"]),
        (&5.into(), &3.into())
    );
    let arguments = report["shipped"]["arguments"].to_string();
    assert!(arguments.contains("--daemonset=egress-agent"), "{arguments}");
}

#[test]
fn a_short_run_measures_everything_that_the_long_one_does() {
    let report = report(&[]);
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
        "/cpu_percent/100",
        "/api_writes_per_change",
        "/kubectl_ms",
        "/raw/apply_ms/100/0",
        "/raw/switch_ms/0",
        "/raw/rss_mib/idle/0",
        "/raw/cpu_idle_percent/0",
    ] {
        assert!(report.pointer(number).is_some_and(Value::is_number), "{number} in {report:#}");
    }
    assert_eq!(report["not_applied_in_time"], 0);
    has_what_is_shipped(&report);
}

/// The least that can be measured beside the agent: it lists StaticRoutes again and again, and gives the main table what it lacks.
const PEER: &str = r#"#!/bin/sh
cd "$(dirname "$0")" || exit
while sleep 0.1; do
  "$KUBECTL" get staticroutes -o 'jsonpath={.items[*].spec.destinations[*]}' > listed || continue
  tr ' ' '\n' < listed | sed 's,/32$,,' | sort -u > wanted
  ip -4 route show proto 77 | cut -d ' ' -f 1 | sort -u > there
  comm -23 wanted there | sed 's/.*/route add & via 10.116.0.5 proto 77/' > batch
  comm -13 wanted there | sed 's/.*/route del & proto 77/' >> batch
  ip -batch batch
done
"#;

#[test]
fn another_program_can_be_measured_beside_the_agent() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("peer");
    fs::write(&script, PEER).unwrap();
    let build = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/control-plane/build.sh");
    let programs = Command::new(build).arg("api").stderr(Stdio::inherit()).output().unwrap();
    let kubectl = format!("{}/kubectl", String::from_utf8(programs.stdout).unwrap().trim());
    let command = format!("env KUBECTL={kubectl} sh {}", script.display());
    let report = report(&["--only", "100", "--peer-command", &command]);
    for program in ["", "/peer"] {
        for number in ["apply_ms/100", "delete_ms/100", "raw/apply_ms/100/0"] {
            let number = format!("{program}/{number}");
            assert!(report.pointer(&number).is_some_and(Value::is_number), "{number} in {report:#}");
        }
    }
}

#[test]
fn what_the_shipped_agent_takes_at_rest_can_be_measured_alone() {
    let report = report(&["--only", "shipped"]);
    has_what_is_shipped(&report);
    for other in ["apply_ms", "rss_mib", "cpu_idle_percent"] {
        assert!(report[other].is_null(), "{other} in {report:#}");
    }
}
