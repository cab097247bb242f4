//! The API server as the harness uses it: raw requests, so that no decoding of ours is in the time of the server.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::Context;
use ipnet::Ipv4Net;
use kube::Client;
use serde_json::{Value, json};
use testkit::ApiServer;
use tokio::runtime::Runtime;

use crate::interruption;
use crate::network::{A, B};

/// Where nodes are.
pub const NODES: &str = "/api/v1/nodes";
/// Where StaticRoutes are.
pub const STATIC_ROUTES: &str = "/apis/networking.digitalocean.com/v1/staticroutes";
/// Where EgressGateways are.
pub const EGRESS_GATEWAYS: &str = "/apis/networking.digitalocean.com/v1alpha1/egressgateways";
/// Where the agents' reports are.
pub const NODE_EGRESSES: &str = "/apis/networking.digitalocean.com/v1alpha1/nodeegresses";
/// New kinds are served after a second or two.
const START: Duration = Duration::from_secs(60);
/// The answer is then a few hundred bytes, whatever the object's size.
const ANSWER: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

/// A connection with all rights.
pub struct Api<'a> {
    runtime: &'a Runtime,
    client: Client,
    server: &'a ApiServer,
}

/// A write: when its answer was there, and how long the server took for it.
#[derive(Clone, Copy, Debug)]
pub struct Answered {
    /// When the clock starts.
    pub at: Instant,
    /// From the request to the answer.
    pub took: Duration,
}

/// Which gateways a StaticRoute names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One, taken on trust: the older operator's shape, which every program understands.
    Bare,
    /// Two, probed.
    Pair,
}

impl<'a> Api<'a> {
    /// Connects and installs the definitions.
    pub fn new(runtime: &'a Runtime, server: &'a ApiServer) -> anyhow::Result<Self> {
        let api = Self { runtime, client: server.admin()?, server };
        let definitions = concat!(env!("CARGO_MANIFEST_DIR"), "/../../crds");
        api.kubectl(&["apply", "--server-side", "-k", definitions], "")?;
        api.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"], "")?;
        api.until_served()?;
        Ok(api)
    }

    /// Makes a node, as the cloud would.
    pub fn add_node(&self, name: &str, private: Ipv4Addr, public: Ipv4Addr) -> anyhow::Result<()> {
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": {}});
        self.send(http::Method::POST, NODES, &node)?;
        let status = json!({"status": {"addresses": [
            {"type": "InternalIP", "address": private}, {"type": "ExternalIP", "address": public}]}});
        self.send(http::Method::PATCH, &format!("{NODES}/{name}/status"), &status)?;
        Ok(())
    }

    /// Makes a StaticRoute with this spec.
    pub fn create_with(&self, name: &str, spec: &Value) -> anyhow::Result<Answered> {
        self.send(http::Method::POST, STATIC_ROUTES, &object(name, spec))
    }

    /// Gives a StaticRoute these fields of a spec.
    pub fn edit_with(&self, name: &str, spec: &Value) -> anyhow::Result<Answered> {
        self.send(http::Method::PATCH, &format!("{STATIC_ROUTES}/{name}"), &json!({"spec": spec}))
    }

    /// Waits until the server's caches of the new kinds are filled. Until then it tells watchers to come back in a second.
    fn until_served(&self) -> anyhow::Result<()> {
        let started = Instant::now();
        for path in [STATIC_ROUTES, EGRESS_GATEWAYS, NODE_EGRESSES] {
            let list = || http::Request::get(format!("{path}?resourceVersion=0")).body(Vec::new());
            while self.runtime.block_on(self.client.request_text(list()?)).is_err() {
                interruption::check()?;
                anyhow::ensure!(started.elapsed() < START, "{path} is not served after {START:?}");
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        Ok(())
    }

    /// Makes a StaticRoute.
    pub fn create(&self, name: &str, destinations: &[Ipv4Net], shape: Shape) -> anyhow::Result<Answered> {
        self.send(http::Method::POST, STATIC_ROUTES, &static_route(name, destinations, shape))
    }

    /// Gives a StaticRoute other destinations.
    pub fn edit(&self, name: &str, destinations: &[Ipv4Net], shape: Shape) -> anyhow::Result<Answered> {
        let change = json!({"spec": static_route(name, destinations, shape)["spec"]});
        self.send(http::Method::PATCH, &format!("{STATIC_ROUTES}/{name}"), &change)
    }

    /// Deletes a StaticRoute.
    pub fn delete(&self, name: &str) -> anyhow::Result<Answered> {
        self.send(http::Method::DELETE, &format!("{STATIC_ROUTES}/{name}"), &json!({}))
    }

    /// How long a user's `kubectl create` takes for the same, its own start included.
    pub fn kubectl_create(&self, name: &str, destinations: &[Ipv4Net]) -> anyhow::Result<Duration> {
        let object = static_route(name, destinations, Shape::Bare).to_string();
        let started = Instant::now();
        self.kubectl(&["create", "-f", "-"], &object)?;
        Ok(started.elapsed())
    }

    /// Takes away whatever is left, finalizers too.
    pub fn clear(&self) -> anyhow::Result<()> {
        let names = self.kubectl(&["get", "staticroutes", "-o", "name"], "")?;
        for name in names.lines() {
            self.kubectl(&["delete", "--wait=false", name], "")?;
            // Without finalizers it is gone already.
            let _gone = self
                .kubectl(&["patch", name, "--type=merge", "-p", r#"{"metadata":{"finalizers":null}}"#], "");
        }
        Ok(())
    }

    /// Writes that the API server has accepted so far, by resource.
    pub fn writes(&self) -> anyhow::Result<BTreeMap<String, f64>> {
        let request = http::Request::get("/metrics").body(Vec::new())?;
        let text = self.runtime.block_on(self.client.request_text(request))?;
        let mut counts = BTreeMap::new();
        for line in text.lines().filter(|line| line.starts_with("apiserver_request_total{")) {
            let label = |name: &str| {
                line.split_once(&format!("{name}=\"")).and_then(|(_, rest)| rest.split('"').next())
            };
            let is_write = matches!(label("verb"), Some("POST" | "PUT" | "PATCH" | "APPLY" | "DELETE"));
            let accepted = label("code").is_some_and(|code| code.starts_with('2'));
            let resource = label("resource").unwrap_or_default();
            if is_write && accepted && ["staticroutes", "nodeegresses", "events"].contains(&resource) {
                let count: f64 = line.rsplit(' ').next().and_then(|text| text.parse().ok()).unwrap_or(0.0);
                *counts.entry(resource.to_owned()).or_default() += count;
            }
        }
        Ok(counts)
    }

    /// Reads an object; `None` where there is none.
    pub fn get(&self, path: &str) -> anyhow::Result<Option<Value>> {
        let request = http::Request::get(path).body(Vec::new())?;
        match self.runtime.block_on(self.client.request::<Value>(request)) {
            Ok(object) => Ok(Some(object)),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(error).with_context(|| path.to_owned()),
        }
    }

    /// Applies a file of manifests as a user would.
    pub fn apply_file(&self, path: &str) -> anyhow::Result<()> {
        self.kubectl(&["apply", "--server-side", "-f", path], "").map(drop)
    }

    /// Any write.
    pub fn send(&self, method: http::Method, path: &str, body: &Value) -> anyhow::Result<Answered> {
        let content =
            if method == http::Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("Content-Type", content)
            .header("Accept", ANSWER)
            .body(body.to_string().into_bytes())?;
        let started = Instant::now();
        self.runtime.block_on(self.client.request_text(request)).with_context(|| path.to_owned())?;
        let at = Instant::now();
        Ok(Answered { at, took: at - started })
    }

    fn kubectl(&self, arguments: &[&str], input: &str) -> anyhow::Result<String> {
        use std::io::Write;
        use std::process::Stdio;
        let mut child = self
            .server
            .kubectl()
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        // Dropped at once: kubectl reads to the end.
        child.stdin.take().context("a pipe")?.write_all(input.as_bytes())?;
        let output = child.wait_with_output()?;
        anyhow::ensure!(
            output.status.success(),
            "kubectl {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?)
    }
}

fn static_route(name: &str, destinations: &[Ipv4Net], shape: Shape) -> Value {
    let destinations: Vec<String> = destinations.iter().map(ToString::to_string).collect();
    let spec = match shape {
        Shape::Bare => json!({"destinations": destinations, "gateway": A.to_string()}),
        Shape::Pair => json!({"destinations": destinations,
            "gateways": [{"address": A.to_string()}, {"address": B.to_string()}]}),
    };
    object(name, &spec)
}

fn object(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "networking.digitalocean.com/v1", "kind": "StaticRoute", "metadata": {"name": name}, "spec": spec})
}
