//! The API server, the program, and the means to write what controller and agents would.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kube::Client;
use serde_json::{Value, json};
use testkit::ApiServer;
use tokio::sync::{Mutex, MutexGuard};

use crate::objects;

/// Nothing takes longer on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A server takes 300 MB: one at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

pub struct Stage {
    pub server: ApiServer,
    pub client: Client,
    _turn: MutexGuard<'static, ()>,
}

/// What came of a command.
#[derive(Debug)]
pub struct Told {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Told {
    /// What it printed, as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }

    /// Fails unless it ended so and said all of this.
    #[track_caller]
    pub fn expect(&self, code: i32, words: &[&str]) -> &Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        for word in words {
            assert!(self.out.contains(word) || self.err.contains(word), "{word}: {self:#?}");
        }
        self
    }
}

impl Stage {
    pub async fn set() -> Self {
        let turn = ONE_AT_A_TIME.lock().await;
        let server = ApiServer::start().await.unwrap();
        let client = server.admin().unwrap();
        Self { server, client, _turn: turn }
    }

    /// One with definitions and objects.
    pub async fn furnished() -> Self {
        let stage = Self::set().await;
        stage.define().await;
        stage.furnish().await;
        stage
    }

    /// Applies files of `deploy/base/`.
    #[track_caller]
    pub fn install(&self, files: &[&str]) {
        for file in files {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/base").join(file);
            let apply = ["apply", "--server-side", "--force-conflicts", "-f"];
            let applied = self.server.kubectl().args(apply).arg(&path).output().unwrap();
            assert!(applied.status.success(), "{file}: {}", String::from_utf8_lossy(&applied.stderr));
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-egress"));
        command.env("KUBECONFIG", self.server.kubeconfig()).args(arguments).stdin(Stdio::null());
        command
    }

    /// Runs the program.
    pub fn run(&self, arguments: &[&str]) -> Told {
        let ended = self.command(arguments).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Told { code: ended.status.code(), out: text(ended.stdout), err: text(ended.stderr) }
    }

    /// Starts the program and leaves it running.
    pub fn start(&self, arguments: &[&str]) -> Running {
        Running(self.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    /// Installs the definitions.
    pub async fn define(&self) {
        let all = egress_api::custom_resource_definitions().into_iter().map(|(_, definition)| definition);
        self.server.install(all.collect()).await.unwrap();
    }

    /// A request with JSON.
    pub async fn send(&self, method: &str, path: &str, body: &Value) -> Result<Value, kube::Error> {
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let request =
            http::Request::builder().method(method).uri(path).header(http::header::CONTENT_TYPE, kind);
        self.client.request(request.body(serde_json::to_vec(body).unwrap()).unwrap()).await
    }

    pub async fn get(&self, path: &str) -> Option<Value> {
        let request = http::Request::get(path).body(Vec::new()).unwrap();
        match self.client.request(request).await {
            Ok(object) => Some(object),
            Err(kube::Error::Api(status)) if status.code == 404 => None,
            Err(error) => panic!("{path}: {error}"),
        }
    }

    /// Creates an object under this path, and its status if it has one. Gives it as it is stored.
    pub async fn make(&self, path: &str, object: &Value) -> Value {
        let made = self.send("POST", path, object).await.unwrap_or_else(|error| panic!("{object}: {error}"));
        let name = made["metadata"]["name"].as_str().unwrap();
        if object["status"].is_object() {
            self.change(&format!("{path}/{name}/status"), &json!({"status": object["status"]})).await;
        }
        made
    }

    pub async fn change(&self, path: &str, patch: &Value) -> Value {
        self.send("PATCH", path, patch).await.unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Two nodes, EgressGateway `demo` with its StaticRoute and a pair of proven gateways, StaticRoute `mine`, and the nodes' reports.
    async fn furnish(&self) {
        for node in objects::nodes() {
            self.make("/api/v1/nodes", &node).await;
        }
        self.make(objects::GATEWAYS, &objects::egress_gateway()).await;
        for route in [objects::owned(), objects::mine()] {
            self.make(objects::ROUTES, &route).await;
        }
        for number in [1, 2] {
            self.make(
                objects::REPORTS,
                &json!({"apiVersion": "networking.digitalocean.com/v1alpha1", "kind": "NodeEgress",
                "metadata": {"name": format!("node-{number}")}}),
            )
            .await;
        }
        self.report(&[("demo", "10.116.0.100"), ("mine", "10.116.0.5")]).await;
        let renewed = jiff::Timestamp::now();
        self.make("/api/v1/namespaces", &json!({"metadata": {"name": "egress-gateway"}})).await;
        self.make(
            "/apis/coordination.k8s.io/v1/namespaces/egress-gateway/leases",
            &json!({"metadata": {"name": "egress-controller"}, "spec": {"holderIdentity": "a", "leaseDurationSeconds": 3600,
                "renewTime": format!("{renewed:.6}")}}),
        )
        .await;
    }

    /// Lets both nodes report that these StaticRoutes are applied, through these gateways.
    pub async fn report(&self, routes: &[(&str, &str)]) {
        let mut entries = Vec::new();
        for (name, gateway) in routes {
            let stored = self.get(&format!("{}/{name}", objects::ROUTES)).await.unwrap();
            entries.push(json!({"name": name, "uid": stored["metadata"]["uid"], "observedGeneration": stored["metadata"]["generation"],
                "state": "Applied", "applied": 1, "total": 1, "gateway": gateway, "guarded": true}));
        }
        let status = json!({"status": {"agentVersion": env!("CARGO_PKG_VERSION"), "routes": entries}});
        for number in [1, 2] {
            self.change(&format!("{}/node-{number}/status", objects::REPORTS), &status).await;
        }
    }
}

/// A program that runs.
pub struct Running(Child);

impl Running {
    /// Waits until it has ended.
    pub fn ended(mut self) -> Told {
        let end = Instant::now() + PATIENCE;
        while self.0.try_wait().unwrap().is_none() {
            if Instant::now() > end {
                // It may just have ended.
                let _gone = self.0.kill();
                panic!("still running");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let output = self.0.wait_with_output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Told { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

/// Waits until `look` gives something.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < end, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
