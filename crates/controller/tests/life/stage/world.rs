//! Gateways and nodes as the controller sees them: health endpoints and NodeEgress reports, both following the cloud's state.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use egress_api::{EgressGateway, NodeEgress, StaticRoute};
use kube::api::{ListParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::{Value, json};

use super::NODES;
use super::cloud::{ADDRESS, Cloud};

#[derive(Default)]
struct State {
    /// What runs, by private address.
    running: BTreeMap<String, Running>,
    /// Nodes that follow no change any more.
    deaf: Vec<&'static str>,
    /// Private addresses of what the cloud calls active and what does nothing any more.
    frozen: BTreeSet<String>,
}

/// A gateway that runs.
#[derive(Clone)]
struct Running {
    /// The address that it leaves with; of one that waits for its reserved address none.
    public: Option<String>,
    /// Version of the user data that it was made with.
    version: String,
}

/// The outside world. It ends with the scene.
pub struct World {
    state: Arc<Mutex<State>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl World {
    pub fn begin(_client: Client, kubeconfig: PathBuf, _cloud: &Cloud, reports: bool) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let over = Arc::new(AtomicBool::new(false));
        let listener = TcpListener::bind("0.0.0.0:9180").unwrap();
        let shown = state.clone();
        // Ends with the process; its namespace has nothing else in it by then.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (Ok(local), shown) = (stream.local_addr(), shown.clone()) else { continue };
                let IpAddr::V4(address) = local.ip() else { continue };
                let running = shown.lock().unwrap().running.get(&address.to_string()).cloned();
                answer(stream, running);
            }
        });
        let (shared, stop) = (state.clone(), over.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            if reports {
                runtime.block_on(report(kubeconfig, shared, stop));
            }
        });
        Self { state, over, thread: Some(thread) }
    }

    /// A node whose agent does not follow changes.
    pub fn deafen(&self, node: &'static str) {
        self.state.lock().unwrap().deaf.push(node);
    }

    /// The gateway of this private address does nothing any more; the cloud does not know.
    pub fn freeze(&self, address: &str) {
        self.state.lock().unwrap().frozen.insert(address.to_owned());
    }

    /// It was booted anew.
    pub fn thaw(&self, address: &str) {
        self.state.lock().unwrap().frozen.remove(address);
    }

    pub fn all_follow(&self) {
        self.state.lock().unwrap().deaf.clear();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Its own failure was printed.
            let _ended = thread.join();
        }
    }
}

fn answer(mut stream: std::net::TcpStream, running: Option<Running>) {
    let Some(Running { public, version }) = running else { return };
    let mut request = [0; 1024];
    // A controller that was killed needs no answer.
    let _read = stream.read(&mut request);
    let errors: Vec<&str> = if public.is_some() { Vec::new() } else { vec!["no reserved address"] };
    let body = json!({
        "ready": public.is_some(), "awaitsAddress": public.is_none(), "userDataVersion": version, "publicAddress": public,
        "errors": errors
    })
    .to_string();
    let _written = write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
}

async fn report(kubeconfig: PathBuf, state: Arc<Mutex<State>>, over: Arc<AtomicBool>) {
    let config = Kubeconfig::read_from(kubeconfig).unwrap();
    let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await.unwrap();
    let client = Client::try_from(config).unwrap();
    let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
    let mut written: BTreeMap<&str, Value> = BTreeMap::new();
    while !over.load(Ordering::Relaxed) {
        // Whatever is not up yet or any more is asked again.
        if let Some(mut running) = running(&http).await {
            let mut state = state.lock().unwrap();
            running.retain(|address, _| !state.frozen.contains(address));
            state.running = running;
        }
        for (node, _) in NODES {
            if state.lock().unwrap().deaf.contains(&node) {
                continue;
            }
            let Some(status) = seen_by_a_node(&client, &state).await else { continue };
            if written.get(node) != Some(&status) && write_report(&client, node, &status).await {
                written.insert(node, status);
            }
        }
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
}

async fn running(http: &reqwest::Client) -> Option<BTreeMap<String, Running>> {
    let state: Value = http.get(format!("{ADDRESS}/simulator/state")).send().await.ok()?.json().await.ok()?;
    let droplets = state["droplets"].as_object()?.values();
    let up = droplets.filter(|droplet| droplet["status"] == "active" && droplet["phase"] == "live");
    let reserved = state["reserved_ips"].as_object()?;
    let pair = |droplet: &Value| {
        let address = |side: &str| droplet[side]["address"].as_str().map(str::to_owned);
        let is_reserved = droplet["user_data"].as_str()?.contains(r#""egress_address": "reserved""#);
        let held =
            || reserved.iter().find(|(_, one)| one["droplet"] == droplet["id"]).map(|(ip, _)| ip.clone());
        let public = if is_reserved { held() } else { address("public") };
        Some((address("private")?, Running { public, version: version(droplet) }))
    };
    Some(up.filter_map(pair).collect())
}

// As the machine reads it from its user data.
fn version(droplet: &Value) -> String {
    const KEY: &str = "\"version\": \"";
    let text = droplet["user_data"].as_str().unwrap_or_default();
    let value = text.split_once(KEY).and_then(|(_, rest)| rest.split_once('"'));
    value.map_or_else(|| "played".to_owned(), |(version, _)| version.to_owned())
}

async fn seen_by_a_node(client: &Client, state: &Mutex<State>) -> Option<Value> {
    let routes = Api::<StaticRoute>::all(client.clone()).list(&ListParams::default()).await.ok()?;
    let gateways = Api::<EgressGateway>::all(client.clone()).list(&ListParams::default()).await.ok()?;
    let state = state.lock().unwrap();
    let routes = routes.items.iter().map(|route| {
        let many = route.spec.destinations.len();
        json!({"name": route.metadata.name, "uid": route.metadata.uid, "observedGeneration": route.metadata.generation,
               "state": "Applied", "applied": many, "total": many})
    });
    let listed = gateways
        .items
        .iter()
        .filter_map(|gateway| gateway.status.as_ref())
        .flat_map(|status| &status.gateways);
    let mut addresses: Vec<&String> = listed.filter_map(|gateway| gateway.private_address.as_ref()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    let reachable = |address: &String| state.running.contains_key(address);
    let up = |address: &String| state.running.get(address).is_some_and(|running| running.public.is_some());
    let views = addresses.iter().map(|address| {
        let condemned = !up(address) && addresses.iter().any(|other| up(other));
        let mut view = json!({"address": address, "reachable": reachable(address), "forwards": up(address), "fullSize": up(address), "condemned": condemned});
        if condemned || !reachable(address) {
            view["renewed"] = renewal();
        }
        view
    });
    Some(json!({
        "agentVersion": "played", "bootID": "played", "routes": routes.collect::<Vec<_>>(), "gateways": views.collect::<Vec<_>>()
    }))
}

// The time of the last renewal, which comes every other second.
fn renewal() -> Value {
    let now = jiff::Timestamp::now().as_second();
    json!(jiff::Timestamp::from_second(now - now % 2).unwrap().to_string())
}

async fn write_report(client: &Client, node: &str, status: &Value) -> bool {
    let api: Api<NodeEgress> = Api::all(client.clone());
    let object = |status: Option<&Value>| {
        let mut object = json!({"apiVersion": "networking.digitalocean.com/v1alpha1", "kind": "NodeEgress", "metadata": {"name": node}});
        if let Some(status) = status {
            object["status"] = status.clone();
        }
        object
    };
    let manager = PatchParams::apply("played-agent").force();
    api.patch(node, &manager, &Patch::Apply(object(None))).await.is_ok()
        && api.patch_status(node, &manager, &Patch::Apply(object(Some(status)))).await.is_ok()
}
