//! A node with its API server and the agent on it, and what tests do to them.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use egress_api::{NodeEgress, NodeEgressStatus, NodeRoute, NodeRouteState};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use testkit::ApiServer;
use tokio::runtime::{EnterGuard, Runtime};

use crate::cloud::{Cloud, ip, ours, sh, until};

/// A destination that the examples list.
pub const LISTED: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 80);
/// One that nobody lists.
pub const UNLISTED: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 99);
/// Long enough for a busy machine; what must be quick is measured by itself.
pub const SOON: Duration = Duration::from_secs(40);

pub struct Scene {
    pub cloud: Cloud,
    pub server: ApiServer,
    runtime: &'static Runtime,
    _entered: EnterGuard<'static>,
}

impl Scene {
    pub fn new() -> Self {
        let cloud = Cloud::new();
        // Current-thread: every socket is made on this thread, hence in the node's namespace.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        // One for each test; the process ends with them.
        let runtime: &'static Runtime = Box::leak(Box::new(runtime));
        let entered = runtime.enter();
        let server = runtime.block_on(ApiServer::start()).unwrap();
        let scene = Self { cloud, server, runtime, _entered: entered };
        scene.install_definitions();
        scene.make_node();
        scene
    }

    pub fn install_definitions(&self) {
        let definitions = egress_api::custom_resource_definitions();
        self.install(definitions.into_iter().map(|(_, one)| one).collect());
    }

    pub fn install(&self, definitions: Vec<CustomResourceDefinition>) {
        self.runtime.block_on(self.server.install(definitions)).unwrap();
    }

    pub fn make_node(&self) {
        self.apply(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1"}, "spec": {}}));
        let status = json!({"status": {"addresses": [
            {"type": "InternalIP", "address": "10.116.0.2"}, {"type": "ExternalIP", "address": "203.0.113.11"}]}});
        self.kubectl(&["patch", "node", "node-1", "--subresource=status", "-p", &status.to_string()]);
    }

    pub fn kubectl(&self, arguments: &[&str]) -> String {
        let output = self.server.kubectl().args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn apply(&self, object: &Value) {
        assert!(self.try_apply(object));
    }

    /// Whether the API server took it.
    pub fn try_apply(&self, object: &Value) -> bool {
        self.server.apply(object).unwrap()
    }

    /// A StaticRoute. Planned moves are made at once where `spec` says nothing of drains.
    pub fn route(&self, name: &str, spec: &Value) {
        let mut spec = spec.clone();
        spec.as_object_mut().unwrap().entry("drainSeconds").or_insert_with(|| json!(0));
        self.apply(&json!({"apiVersion": "networking.digitalocean.com/v1", "kind": "StaticRoute",
            "metadata": {"name": name}, "spec": spec}));
    }

    /// Changes these fields of a StaticRoute's spec; `null` takes one away (RFC 7386).
    pub fn edit_route(&self, name: &str, changes: &Value) {
        let patch = json!({"spec": changes}).to_string();
        self.kubectl(&["patch", "staticroute", name, "--type=merge", "-p", &patch]);
    }

    pub fn delete_route(&self, name: &str) {
        self.kubectl(&["delete", "staticroute", name, "--timeout=10s"]);
    }

    pub fn report(&self) -> Option<NodeEgress> {
        let reports: Api<NodeEgress> = Api::all(self.server.admin().unwrap());
        self.runtime.block_on(reports.get_opt("node-1")).unwrap()
    }

    pub fn status(&self) -> Option<NodeEgressStatus> {
        self.report()?.status
    }

    /// The report as the API server holds it: its version, which every write changes, and its text.
    pub fn report_as_stored(&self) -> (Option<String>, String) {
        let report = self.report().unwrap();
        (report.metadata.resource_version, serde_json::to_string_pretty(&report.status).unwrap())
    }

    /// What the node says of one StaticRoute.
    pub fn route_report(&self, name: &str) -> Option<NodeRoute> {
        self.status()?.routes.into_iter().find(|route| route.name == name)
    }

    /// Status, reason and message of a condition of the node.
    pub fn condition(&self, type_: &str) -> Option<(String, String, String)> {
        let found = self.status()?.conditions.into_iter().find(|condition| condition.type_ == type_)?;
        Some((found.status, found.reason, found.message))
    }

    pub fn state_of(&self, name: &str) -> Option<(NodeRouteState, u32)> {
        let status = self.status()?;
        status.routes.iter().find(|route| route.name == name).map(|route| (route.state, route.applied))
    }

    pub fn until_applied(&self, name: &str, destinations: u32) -> Duration {
        until(name, &Some((NodeRouteState::Applied, destinations)), SOON, || self.state_of(name))
    }

    /// Nobody reaches the API server any more: every packet to it is answered with a reset.
    pub fn cut_off_api_server(&self) {
        sh(&format!("iptables -I OUTPUT {} -j REJECT --reject-with tcp-reset", self.to_api_server()));
    }

    pub fn reconnect_api_server(&self) {
        sh(&format!("iptables -D OUTPUT {} -j REJECT --reject-with tcp-reset", self.to_api_server()));
    }

    fn to_api_server(&self) -> String {
        format!("-o lo -p tcp --dport {}", self.api_server_port())
    }

    /// The port on the node's loopback at which the API server listens.
    pub fn api_server_port(&self) -> u16 {
        let config = std::fs::read_to_string(self.server.kubeconfig()).unwrap();
        config.split("https://127.0.0.1:").nth(1).unwrap().split('"').next().unwrap().parse().unwrap()
    }
}

/// The program under test.
pub const AGENT: &str = env!("CARGO_BIN_EXE_egress-agent");

/// `/etc/hosts` and `/etc/resolv.conf` of one agent.
pub struct Hosts {
    folder: tempfile::TempDir,
}

impl Hosts {
    /// Files for an agent that is to know these names and no others.
    pub fn new(names: &[(&str, &str)]) -> Self {
        let hosts = Self { folder: tempfile::tempdir().unwrap() };
        // Nobody listens there: an unknown name is unknown at once.
        std::fs::write(hosts.folder.path().join("resolv.conf"), "nameserver 127.0.0.1\n").unwrap();
        hosts.write(names);
        hosts
    }

    /// From now on an unknown name is asked for until the agent gives up: nobody is at that address of the VPC.
    pub fn silence_resolver(&self) {
        self.ask_resolver("10.116.0.250");
    }

    /// From now on this is the resolver.
    pub fn ask_resolver(&self, address: &str) {
        std::fs::write(self.folder.path().join("resolv.conf"), format!("nameserver {address}\n")).unwrap();
    }

    /// From now on these are the names: address and name.
    pub fn write(&self, names: &[(&str, &str)]) {
        let lines = names.iter().map(|(address, name)| format!("{address} {name}\n"));
        let text: String = std::iter::once("127.0.0.1 localhost\n".to_owned()).chain(lines).collect();
        std::fs::write(self.folder.path().join("hosts"), text).unwrap();
    }

    /// An agent that has these files; for [`Agent::start_at`].
    pub fn program(&self) -> Command {
        let folder = self.folder.path().display();
        let mounts = ["hosts", "resolv.conf"].map(|file| format!("mount --bind {folder}/{file} /etc/{file}"));
        let script = format!("{} && exec \"$0\" \"$@\"", mounts.join(" && "));
        let mut program = Command::new("unshare");
        program.args(["--mount", "sh", "-c", &script, AGENT]);
        program
    }
}

pub struct Agent {
    child: Child,
    log: tempfile::NamedTempFile,
}

impl Agent {
    /// Without a DaemonSet to follow.
    pub fn start(scene: &Scene) -> Self {
        Self::start_with(scene, &["--daemonset=", "--protected-names="])
    }

    pub fn start_with(scene: &Scene, arguments: &[&str]) -> Self {
        Self::start_at(Command::new(AGENT), &scene.server.kubeconfig(), arguments)
    }

    /// With files of its own to look names up in.
    pub fn start_with_hosts(scene: &Scene, arguments: &[&str], hosts: &Hosts) -> Self {
        Self::start_at(hosts.program(), &scene.server.kubeconfig(), arguments)
    }

    /// `program` becomes the agent when it gets these arguments and environment.
    pub fn start_at(mut program: Command, kubeconfig: &Path, arguments: &[&str]) -> Self {
        let log = tempfile::NamedTempFile::new().unwrap();
        let child = program
            .args(["--node-name=node-1", "--admin-listen=127.0.0.1:9191"])
            .args(arguments)
            .env("KUBECONFIG", kubeconfig)
            .env("EGRESS_LOG", std::env::var("EGRESS_LOG").unwrap_or_else(|_| "info".to_owned()))
            .stdin(Stdio::null())
            .stdout(log.reopen().unwrap())
            .stderr(log.reopen().unwrap())
            .spawn()
            .unwrap();
        Self { child, log }
    }

    pub fn until_says(&self, words: &str) {
        until(words, &true, SOON, || self.has_said(words));
    }

    pub fn has_said(&self, words: &str) -> bool {
        self.count_said(words) > 0
    }

    /// How often it has said so.
    pub fn count_said(&self, words: &str) -> usize {
        std::fs::read_to_string(self.log.path()).unwrap().matches(words).count()
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Whether it is held up by a signal.
    pub fn is_stopped(&self) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        status.contains("\nState:\tT ")
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and waits for the end.
    pub fn terminate(mut self) {
        self.signal(Signal::SIGTERM);
        until("the agent ends", &true, SOON, || self.child.try_wait().unwrap().is_some());
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
        if std::thread::panicking() {
            eprintln!("{}", std::fs::read_to_string(self.log.path()).unwrap_or_default());
        }
    }
}

/// Waits until the agent says that its plan was written to the kernel.
pub fn until_ready() {
    until("ready", &true, SOON, || {
        sh("curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:9191/readyz || true") == "200"
    });
}

/// The value of a metric of the agent, 0 where it has none.
pub fn metric(name: &str) -> f64 {
    let text = sh("curl -s http://127.0.0.1:9191/metrics || true");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0.0, |value| value.trim().parse().unwrap())
}

/// Writes down changes of the kernel.
pub struct Monitor {
    child: Child,
    file: tempfile::NamedTempFile,
}

impl Monitor {
    /// `what`: `route`, `rule`, `nexthop`.
    pub fn start(what: &[&str]) -> Self {
        let file = tempfile::NamedTempFile::new().unwrap();
        let child = Command::new("ip")
            .args(["-4", "monitor"])
            .args(what)
            .stdout(file.reopen().unwrap())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        // It hears only from now on; changes of our own tell when that is.
        until("the monitor listens", &true, SOON, || {
            ip("route add 192.0.2.254/32 dev lo table 77");
            ip("route del 192.0.2.254/32 dev lo table 77");
            ip("nexthop add id 77 blackhole");
            ip("nexthop del id 77");
            !std::fs::read_to_string(file.path()).unwrap().is_empty()
        });
        Self { child, file }
    }

    /// What was heard.
    pub fn stop(mut self) -> Vec<String> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let text = std::fs::read_to_string(self.file.path()).unwrap();
        let is_own = |line: &&str| !line.contains("table 77") && !line.contains("id 77 ");
        text.lines().filter(is_own).map(str::to_owned).collect()
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// What is ours in the kernel, once it has not changed for half a second.
pub fn settled() -> String {
    let mut last = ours();
    loop {
        std::thread::sleep(Duration::from_millis(500));
        let now = ours();
        if now == last {
            return now;
        }
        last = now;
    }
}
