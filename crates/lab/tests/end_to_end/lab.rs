//! The lab and its cluster as a person uses them: egress-lab, kubectl and curl.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A lab by its commands; stopped in the end, unless `EGRESS_E2E_KEEP` is set.
pub struct Lab {
    pub name: &'static str,
    pub root: PathBuf,
    pub program: PathBuf,
    pub assets: PathBuf,
    pub state: PathBuf,
}

impl Lab {
    pub fn new(name: &'static str) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
        let assets = std::env::var_os("KUBEBUILDER_ASSETS")
            .expect("KUBEBUILDER_ASSETS names the control plane's programs; scripts/e2e.sh sets it");
        let program = root.join("target/release/egress-lab");
        assert!(program.exists(), "{} is missing: run scripts/build.sh", program.display());
        let state = root.join("target/e2e").join(name);
        std::fs::create_dir_all(root.join("target/e2e")).unwrap();
        Self { name, root, program, assets: assets.into(), state }
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .current_dir(&self.root)
            .args(["--name", self.name, "--state-dir"])
            .arg(&self.state)
            .args(arguments);
        command.stdin(Stdio::null());
        command
    }

    pub fn lab(&self, arguments: &[&str]) -> String {
        output(self.command(arguments)).unwrap_or_else(|error| panic!("{error}"))
    }

    pub fn kubectl_tried(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new(self.assets.join("kubectl"));
        command.current_dir(&self.root).env("KUBECONFIG", self.state.join("kubeconfig")).args(arguments);
        command.stdin(Stdio::null());
        output(command)
    }

    pub fn kubectl(&self, arguments: &[&str]) -> String {
        self.kubectl_tried(arguments).unwrap_or_else(|error| panic!("{error}"))
    }

    pub fn get(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.kubectl(&[&["get"], arguments, &["-o", "json"]].concat())).unwrap()
    }

    pub fn apply(&self, object: &Value) {
        let file = self.root.join("target/e2e/object.json");
        std::fs::write(&file, object.to_string()).unwrap();
        self.kubectl(&["apply", "-f", file.to_str().unwrap()]);
    }

    /// What a user installs, from images built from this tree.
    pub fn install(&self) {
        for image in ["egress-controller.tar", "egress-agent.tar"] {
            self.lab(&["load-image", &format!("target/images/{image}")]);
        }
        self.kubectl(&["apply", "--server-side", "-k", "deploy/crds"]);
        self.kubectl(&["wait", "--for=condition=Established", "--timeout=30s", "crd", "--all"]);
        self.kubectl(&["apply", "-k", "deploy/overlays/lab"]);
        let token = format!("--from-literal=token={}", self.lab(&["token"]).trim());
        self.kubectl(&["-n", "egress-gateway", "create", "secret", "generic", "digitalocean-token", &token]);
    }

    /// Waits until all of it is ready by its own probes.
    pub fn wait_for_rollout(&self) {
        for workload in ["deployment/egress-controller", "daemonset/egress-agent"] {
            self.kubectl(&["-n", "egress-gateway", "rollout", "status", workload, "--timeout=120s"]);
        }
    }

    /// What the outside sees of the pod's connection to `host`; `None` when there is no answer.
    pub fn seen(&self, host: &str) -> Option<String> {
        let url = format!("http://{host}/ip");
        let answer = self.kubectl_tried(&["exec", "curl-test", "--", "curl", "-sS", "--max-time", "4", &url]);
        answer.ok().map(|text| text.trim().to_owned())
    }

    /// What the outside sees of connections of the pod and of both nodes to several hosts, `192.0.2.[16-31]`.
    pub fn seen_of_all(&self, hosts: &str) -> BTreeSet<String> {
        let url = format!("http://{hosts}/ip");
        let curl = ["curl", "-sS", "--max-time", "4", "-w", "\\n", &url];
        let on = |node| output(self.command(&[["exec", node, "--"].as_slice(), &curl].concat()));
        let in_pod = self.kubectl_tried(&[["exec", "curl-test", "--"].as_slice(), &curl].concat());
        let answers: String =
            [in_pod, on("node-1"), on("node-2")].map(|answer| answer.unwrap_or_else(|error| error)).concat();
        answers.split_whitespace().map(str::to_owned).collect()
    }

    /// The public address of the pod's node.
    pub fn node_address(&self) -> Option<String> {
        let node = self.get(&["pod", "curl-test"])["spec"]["nodeName"].as_str()?.to_owned();
        let addresses = self.get(&["node", &node])["status"]["addresses"].as_array()?.clone();
        let external = addresses.iter().find(|address| address["type"] == "ExternalIP")?;
        external["address"].as_str().map(str::to_owned)
    }

    pub fn egress_ip(&self, name: &str) -> Option<String> {
        self.get(&["egressgateway", name])["status"]["egressIP"].as_str().map(str::to_owned)
    }

    pub fn is_ready(&self, name: &str) -> bool {
        let object = self.get(&["egressgateway", name]);
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().any(|one| one["type"] == "Ready" && one["status"] == "True")
            && object["status"]["gatewaysReady"] == "2/2"
    }

    /// Droplets of an EgressGateway, the active one first.
    pub fn gateway_ids(&self, name: &str) -> Vec<u64> {
        let status = self.get(&["egressgateway", name])["status"].clone();
        let mut gateways = status["gateways"].as_array().unwrap().clone();
        gateways.sort_by_key(|one| one["name"] != status["active"]);
        gateways.iter().map(|one| one["dropletID"].as_u64().unwrap()).collect()
    }

    pub fn droplets(&self) -> usize {
        let answer = self.lab(&["cloud", "GET", "/v2/droplets?tag_name=egress-gateway&per_page=200"]);
        serde_json::from_str::<Value>(&answer).unwrap()["droplets"].as_array().unwrap().len()
    }

    /// Everything of ours in a node's kernel.
    pub fn ours(&self, node: &str) -> String {
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

/// Looks again and again until it finds what is expected.
pub fn until<T: PartialEq + std::fmt::Debug>(
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
