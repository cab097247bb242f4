//! Everything around the controller, in memory and in virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use do_simulator::cloud::{Answer, Cloud, Delays, Droplet, Request};
use do_simulator::fixtures::Fixtures;
use egress_api::{EgressGateway, EgressGatewayStatus, StaticRoute};
use hyper::body::Bytes;
use jiff::Timestamp;
use serde_json::{Value, json};
use testkit::memory_api::{Change, Delivery, Lens, MemoryApi, Reply};

use crate::gate::Moment;
use crate::machines::Machine;

pub const VPC: &str = "0e1f0f0e-c8a5-4e4c-a8b6-5d7b9f3b7f11";
pub const OTHER_VPC: &str = "1e1f0f0e-c8a5-4e4c-a8b6-5d7b9f3b7f22";
pub const NODES: [(&str, u64); 2] = [("pool-1", 501), ("pool-2", 502)];
/// Of namespace kube-system.
const START: i64 = 1_800_000_000_000;
const NAMESPACE: &str = "egress-gateway";

/// Clones are the same world.
#[derive(Clone)]
pub struct World(Arc<Inner>);

struct Inner {
    now: Arc<AtomicI64>,
    api: MemoryApi,
    state: Mutex<State>,
    /// How watches see the world.
    lens: Arc<Mutex<Lens>>,
}

#[derive(Clone)]
pub struct State {
    pub now: Timestamp,
    pub cloud: Cloud,
    pub machines: BTreeMap<u64, Machine>,
    /// Droplets that a controller made.
    pub ours: BTreeSet<u64>,
    /// Firewalls that a controller made.
    pub walls: BTreeSet<String>,
    /// Addresses that a controller reserved.
    pub addresses: BTreeSet<Ipv4Addr>,
    /// Changing calls of controllers that the cloud took, in words.
    pub journal: Vec<String>,
    /// Changing calls of controllers, of every kind; what they are crashed at.
    pub calls: Vec<String>,
    pub last_call: Timestamp,
    plan: BTreeMap<usize, Moment>,
    pub reported: BTreeMap<&'static str, Value>,
    /// The gateway that nodes send new connections through, by its private address.
    pub uses: Option<Ipv4Addr>,
    /// The one that they have left and still send old connections through, and until when.
    pub drains: Option<(Ipv4Addr, Timestamp)>,
    pub violations: Vec<String>,
}

fn at(milliseconds: i64) -> Timestamp {
    Timestamp::from_millisecond(milliseconds).unwrap()
}

impl World {
    /// A cluster of two nodes in an account that has things of others in it.
    pub fn new() -> Self {
        let now = Arc::new(AtomicI64::new(START));
        let definitions =
            egress_api::custom_resource_definitions().into_iter().map(|(_, definition)| definition);
        let api = MemoryApi::new(definitions.collect(), clock(&now));
        let world =
            Self(Arc::new(Inner { now, api, state: Mutex::new(State::new(furnished())), lens: clear() }));
        world.install();
        world
    }

    /// The same world, to be led another way.
    pub fn fork(&self) -> Self {
        let now = Arc::new(AtomicI64::new(self.0.now.load(Ordering::SeqCst)));
        let api = self.0.api.fork(clock(&now));
        let mut state = self.state().clone();
        (state.calls, state.plan) = (Vec::new(), BTreeMap::new());
        Self(Arc::new(Inner { now, api, state: Mutex::new(state), lens: clear() }))
    }

    fn install(&self) {
        for (_, definition) in egress_api::custom_resource_definitions() {
            self.create(DEFINITIONS, &serde_json::to_value(definition).unwrap());
        }
        for name in ["kube-system", "default", NAMESPACE] {
            self.create("/api/v1/namespaces", &json!({"metadata": {"name": name}}));
        }
        // base64 of a token
        let secret =
            json!({"metadata": {"name": "digitalocean-token"}, "data": {"token": "ZG9wX3YxX3Rlc3Q="}});
        self.create(&format!("/api/v1/namespaces/{NAMESPACE}/secrets"), &secret);
        for (index, (name, droplet)) in NODES.iter().enumerate() {
            let range = format!("10.244.{index}.0/24");
            let node = json!({"metadata": {"name": name}, "spec": {"providerID": format!("digitalocean://{droplet}"),
                "podCIDR": range, "podCIDRs": [range]}});
            self.create("/api/v1/nodes", &node);
            let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
            self.patch(&format!("/api/v1/nodes/{name}/status"), MERGE, &ready);
            let pods = format!("/api/v1/namespaces/{NAMESPACE}/pods");
            let owner = json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "egress-agent", "uid": "played", "controller": true});
            let labels = json!({"app.kubernetes.io/name": "egress-agent"});
            let pod = json!({"metadata": {"name": format!("egress-agent-{name}"), "labels": labels, "ownerReferences": [owner]},
                "spec": {"nodeName": name, "containers": [{"name": "agent", "image": "played"}]}});
            self.create(&pods, &pod);
            self.patch(&format!("{pods}/egress-agent-{name}/status"), MERGE, &ready);
        }
    }

    pub fn now(&self) -> Timestamp {
        at(self.0.now.load(Ordering::SeqCst))
    }

    /// Somebody's clock says that it is this late.
    pub fn reached(&self, time: Timestamp) -> Timestamp {
        self.0.now.fetch_max(time.as_millisecond(), Ordering::SeqCst);
        time
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.0.state.lock().unwrap();
        state.now = self.now();
        state
    }

    /// Changing calls are counted from now on, with what happens at them; and this is how watches see the world.
    pub fn begin(&self, plan: &[(usize, Moment)], lens: Option<Lens>) {
        let mut state = self.state();
        state.calls.clear();
        state.plan = plan.iter().copied().collect();
        if let Some(lens) = lens {
            *self.0.lens.lock().unwrap() = lens;
        }
    }

    /// Counts a changing call and says what happens at it.
    pub fn count(&self, change: &str) -> Option<Moment> {
        let mut state = self.state();
        let call = state.calls.len();
        state.calls.push(change.to_owned());
        state.last_call = state.now;
        state.plan.get(&call).copied()
    }

    /// Whose lease it is, by name, if it has not run out.
    pub fn leader(&self) -> Option<String> {
        let lease = self.0.api.object("leases", Some(NAMESPACE), "egress-controller")?;
        let holder = lease["spec"]["holderIdentity"].as_str()?;
        Some(holder.split_once('_').map_or(holder, |(name, _)| name).to_owned())
    }

    /// Uid of namespace kube-system.
    pub fn cluster(&self) -> String {
        let namespace = self.0.api.object("namespaces", None, "kube-system").unwrap();
        namespace["metadata"]["uid"].as_str().unwrap().to_owned()
    }

    /// A request to the cloud, by a controller or by somebody else.
    pub fn ask_cloud(&self, request: &Request, by_controller: bool) -> Answer {
        let gateway = self.gateway();
        let route = self.route();
        let mut state = self.state();
        let now = state.now;
        if by_controller && request.method != "GET" {
            state.check_before(request, gateway.as_ref(), route.as_ref());
        }
        let answer = state.cloud.apply(request, None, now);
        if by_controller && request.method != "GET" {
            state.note(request, &answer);
            state.check_bill(gateway.as_ref());
        }
        answer
    }

    /// The same, of somebody else, which must succeed.
    pub fn by_hand(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let request = Request { method: method.into(), path: path.into(), query: Vec::new(), body };
        let answer = self.ask_cloud(&request, false);
        assert!(answer.status < 300, "{method} {path}: {answer:?}");
        answer.body.unwrap_or_default()
    }

    pub fn ask_kubernetes(&self, request: &http::Request<Bytes>) -> http::Response<Reply> {
        // Watches outlast the view that they began with.
        let lens = self.0.lens.clone();
        let lens: Lens = Arc::new(move |change: &Change| {
            let lens = lens.lock().unwrap().clone();
            lens(change)
        });
        let answer = self.0.api.answer(request, &lens);
        if request.method() != http::Method::GET {
            self.check_list();
        }
        answer
    }

    // I6: once there is a list it is never empty while the object is to stay.
    fn check_list(&self) {
        let Some(route) = self.route() else { return };
        if route.spec.ordered_gateways().is_empty() {
            self.state().violations.push("I6: an empty list of gateways".into());
        }
    }

    fn create(&self, path: &str, object: &Value) {
        self.write(http::Method::POST, path, "application/json", object);
    }

    pub fn patch(&self, path: &str, kind: &'static str, patch: &Value) {
        self.write(http::Method::PATCH, path, kind, patch);
    }

    pub fn write(&self, method: http::Method, path: &str, kind: &'static str, body: &Value) {
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::CONTENT_TYPE, kind)
            .body(Bytes::from(body.to_string()))
            .unwrap();
        let answer = self.ask_kubernetes(&request);
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
    }

    pub fn gateway(&self) -> Option<EgressGateway> {
        let object = self.0.api.object("egressgateways", None, "demo")?;
        Some(serde_json::from_value(object).unwrap())
    }

    pub fn status(&self) -> EgressGatewayStatus {
        self.gateway().and_then(|gateway| gateway.status).unwrap_or_default()
    }

    pub fn route(&self) -> Option<StaticRoute> {
        let object = self.0.api.object("staticroutes", None, "demo")?;
        Some(serde_json::from_value(object).unwrap())
    }

    /// Lets machines boot and nodes look and report.
    pub fn pass(&self, until: Timestamp) {
        self.reached(until);
        let gateways = self.status().gateways;
        let addresses: BTreeSet<Ipv4Addr> =
            gateways.iter().filter_map(|gateway| gateway.private_address.as_ref()?.parse().ok()).collect();
        let routes = self.0.api.objects("staticroutes");
        let listed = self.route().map(|route| route.spec.ordered_gateways()).unwrap_or_default();
        let listed: Vec<Ipv4Addr> = listed.iter().filter_map(|entry| entry.address.0.parse().ok()).collect();
        let reports = {
            let mut state = self.state();
            let now = state.now;
            state.cloud.advance(now);
            state.follow_power();
            state.follow_list(&listed);
            state.reports(&routes, &addresses)
        };
        for (node, report) in reports {
            let object = |status: Option<&Value>| {
                let mut object = json!({"apiVersion": "networking.digitalocean.com/v1alpha1", "kind": "NodeEgress", "metadata": {"name": node}});
                if let Some(status) = status {
                    object["status"] = status.clone();
                }
                object
            };
            let path = format!("/apis/networking.digitalocean.com/v1alpha1/nodeegresses/{node}");
            self.patch(&format!("{path}?fieldManager=agent&force=true"), APPLY, &object(None));
            self.patch(
                &format!("{path}/status?fieldManager=agent&force=true"),
                APPLY,
                &object(Some(&report)),
            );
        }
    }
}

/// Nobody watches Leases and Events.
pub fn is_watched(change: &Change) -> bool {
    change.kind != "leases" && change.kind != "events"
}

pub const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

pub const MERGE: &str = "application/merge-patch+json";
pub const APPLY: &str = "application/apply-patch+yaml";

fn clear() -> Arc<Mutex<Lens>> {
    Arc::new(Mutex::new(Arc::new(|_: &Change| Delivery::Now)))
}

fn clock(now: &Arc<AtomicI64>) -> testkit::memory_api::Clock {
    let now = now.clone();
    Arc::new(move || at(now.load(Ordering::SeqCst)))
}

fn furnished() -> Cloud {
    let nodes = NODES.iter().zip(2..).map(|((name, id), host)| {
        json!({"id": id, "name": name, "vpc": VPC, "tags": ["k8s", "k8s:worker"], "private_address": format!("10.116.0.{host}"),
               "public_address": format!("203.0.113.{}", 9 + host)})
    });
    let elsewhere =
        json!({"id": 601, "name": "elsewhere", "vpc": OTHER_VPC, "private_address": "10.117.0.9"});
    let droplets: Vec<Value> = nodes.chain([elsewhere]).collect();
    let fixtures = json!({
        "account": {"droplet_limit": 200, "floating_ip_limit": 20},
        "vpcs": [{"id": VPC, "name": "cluster", "region": "nyc1", "ip_range": "10.116.0.0/20", "default": true},
                 {"id": OTHER_VPC, "name": "other", "region": "nyc1", "ip_range": "10.117.0.0/20"}],
        "droplets": droplets,
    });
    let mut cloud = Cloud::new(Delays::real(), false);
    Fixtures::parse(&fixtures.to_string()).unwrap().furnish(&mut cloud, at(START)).unwrap();
    cloud
}

impl State {
    fn new(cloud: Cloud) -> Self {
        Self {
            now: at(START),
            cloud,
            machines: BTreeMap::new(),
            ours: BTreeSet::new(),
            walls: BTreeSet::new(),
            addresses: BTreeSet::new(),
            journal: Vec::new(),
            calls: Vec::new(),
            last_call: at(START),
            plan: BTreeMap::new(),
            reported: BTreeMap::new(),
            uses: None,
            drains: None,
            violations: Vec::new(),
        }
    }

    /// Droplets of controllers that are on the bill.
    pub fn billed(&self) -> impl Iterator<Item = &Droplet> {
        self.ours.iter().filter_map(|id| self.cloud.droplets.get(id)).filter(|droplet| droplet.exists())
    }

    pub fn name_of(&self, id: u64) -> String {
        self.cloud.droplets.get(&id).map_or_else(|| id.to_string(), |droplet| droplet.name.clone())
    }
}
