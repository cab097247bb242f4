//! `kubectl egress dashboard` with a kubectl that plays its part.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on says so by ending")]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

struct Scene {
    folder: TempDir,
}

impl Scene {
    /// `kubectl` is this script, and there is no browser.
    fn with_kubectl(script: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let kubectl = folder.path().join("kubectl");
        fs::write(&kubectl, format!("#!/bin/sh\necho \"$*\" >>{}\n{script}\n", log.display())).unwrap();
        fs::set_permissions(&kubectl, fs::Permissions::from_mode(0o755)).unwrap();
        Self { folder }
    }

    fn dashboard(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-egress"));
        let path = format!("{}:/usr/bin:/bin", self.folder.path().display());
        command.arg("dashboard").args(arguments).env("PATH", path).stdin(Stdio::null());
        command
    }

    fn calls(&self) -> Vec<String> {
        let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }
}

/// Ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Already gone is as good.
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

#[test]
fn the_address_is_printed_and_stays_when_the_controller_is_replaced() {
    // The first connection is lost at once; whoever is asked next says the port that it was asked for.
    let scene = Scene::with_kubectl(
        "for last; do :; done\nport=${last%%:*}\n[ \"$port\" = 0 ] && port=40123\necho \"Forwarding from 127.0.0.1:$port -> 9192\"\nsleep 0.2",
    );
    let started = scene
        .dashboard(&["--port=0", "--no-browser", "-n", "elsewhere"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut running = Running(started.unwrap());
    let stdout = running.0.stdout.take().unwrap();
    let mut lines = BufReader::new(stdout).lines();
    let first = lines.next().unwrap().unwrap();
    assert_eq!(first, "http://127.0.0.1:40123/");
    let stderr = running.0.stderr.take().unwrap();
    let told = BufReader::new(stderr).lines().nth(1).unwrap().unwrap();
    assert!(told.contains("trying again"), "{told}");
    let calls = scene.calls();
    let call = |ports| {
        format!("port-forward --namespace=elsewhere --address=127.0.0.1 deployment/egress-controller {ports}")
    };
    assert_eq!(calls[..2], [call("0:9192"), call("40123:9192")]);
}

#[test]
fn without_a_controller_it_ends_and_says_where_to_look() {
    let scene =
        Scene::with_kubectl("echo 'error: deployments.apps \"egress-controller\" not found' >&2\nexit 1");
    let output = scene.dashboard(&["--port=0", "--no-browser"]).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(told.contains("not found") && told.contains("kubectl -n egress-gateway get pods"), "{told}");
}

#[test]
fn a_port_that_is_taken_is_named_with_the_way_out_before_kubectl_is_asked() {
    let scene = Scene::with_kubectl("exit 1");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let output = scene.dashboard(&["--port", &port, "--no-browser"]).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(told.contains(&format!("port {port} of this machine is taken; --port 0")), "{told}");
    assert_eq!(scene.calls(), [""; 0]);
}

#[test]
fn ports_that_are_none_are_refused_by_name() {
    let scene = Scene::with_kubectl("exit 1");
    for bad in [["--port", "99999"], ["--port", "http"], ["--controller-port", "0"]] {
        let output = scene.dashboard(&bad).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(told.contains(bad[0]) && told.contains(bad[1]), "{told}");
    }
}
