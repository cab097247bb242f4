//! The lab in which it all happens: a cluster, an `EgressGateway` with two gateways, and clients on every node.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use egress_lab::network::addresses;
use egress_lab::traffic::now_ms;
use serde_json::{Value, json};

use crate::rows::{Row, Step};
use crate::watch::{Policy, Watch};

#[path = "../end_to_end/lab.rs"]
#[allow(dead_code, reason = "shared with the end-to-end test, which uses other parts of it")]
pub mod lab;

use lab::{Lab, until};

pub const NODES: [&str; 2] = ["node-1", "node-2"];
const NODE_ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(203, 0, 113, 11), Ipv4Addr::new(203, 0, 113, 12)];
const MINUTE: Duration = Duration::from_secs(60);
/// So long a node must be seen to use one gateway.
const STEADY_MS: f64 = 500.0;
/// What every agent must say of every gateway.
const PROVEN: [(&str, &str); 5] =
    [("reachable", "1"), ("forwards", "1"), ("expected_source", "1"), ("full_size", "1"), ("condemned", "0")];

/// Whether API server, controller and cloud API are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlPlane {
    Up,
    Down,
}

impl ControlPlane {
    pub const fn word(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// A gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway {
    /// Of its Droplet.
    pub id: u64,
    pub private: String,
    pub public: Ipv4Addr,
}

/// Packets to the destinations of a policy that came out, by what they came from.
#[derive(Debug, Clone, Copy, Default)]
pub struct Packets {
    /// A node's own address.
    pub node: u64,
    /// Neither a node's nor a gateway's.
    pub other: u64,
}

pub struct Field {
    pub lab: Lab,
    pub watch: Watch,
    pub control_plane: ControlPlane,
    /// In the order of the list: A, B.
    pub gateways: Vec<Gateway>,
}

impl Field {
    /// Starts everything, and waits until every node leaves through A.
    pub fn prepare() -> Self {
        let lab = Lab::new("mx");
        lab.lab(&["start", "--assets", lab.assets.to_str().unwrap()]);
        install(&lab);
        apply_objects(&lab);
        until("the EgressGateway is ready", &true, 3 * MINUTE, || lab.is_ready("matrix"));
        let watch = Watch::start(&lab);
        let mut field = Self { lab, watch, control_plane: ControlPlane::Up, gateways: Vec::new() };
        assert!(field.is_restored(), "every node leaves through A, whatever happens without a gateway");
        field
    }

    /// Ends the controller, then the API server with etcd, then the cloud's API.
    pub fn take_control_plane_away(&mut self) {
        self.lab.kubectl(&["-n", "egress-gateway", "scale", "deployment/egress-controller", "--replicas=0"]);
        let controllers = [
            "-n",
            "egress-gateway",
            "get",
            "pods",
            "-l",
            "app.kubernetes.io/name=egress-controller",
            "-o",
            "name",
        ];
        until("no controller runs", &String::new(), MINUTE, || self.lab.kubectl(&controllers));
        self.gateways = self.listed().expect("the list of gateways");
        self.lab.lab(&["stop", "control-plane"]);
        self.lab.lab(&["stop", "cloud-api"]);
        self.control_plane = ControlPlane::Down;
    }

    /// Does steps of a fault.
    pub fn perform(&self, steps: &[Step]) {
        for step in steps {
            match *step {
                Step::Lab(words) => self.command(words),
                Step::Cloud(words, _) if self.control_plane == ControlPlane::Up => self.command(words),
                Step::Cloud(_, words) => self.command(words),
                Step::Flap { period_ms, seconds } => {
                    let ends = Instant::now() + Duration::from_secs(seconds);
                    while Instant::now() < ends {
                        for words in [["freeze", "{a}"], ["heal", "{a}"]] {
                            let half = Instant::now() + Duration::from_millis(period_ms / 2);
                            self.command(&words);
                            std::thread::sleep(half.saturating_duration_since(Instant::now()));
                        }
                    }
                }
            }
        }
    }

    fn command(&self, words: &[&str]) {
        if words.is_empty() {
            return;
        }
        let [a, b] = [0, 1].map(|index| self.gateways[index].id.to_string());
        let words: Vec<_> = words.iter().map(|word| word.replace("{a}", &a).replace("{b}", &b)).collect();
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        self.lab.lab(&words);
    }

    /// Ends everything that is broken at A, B, the nodes and the internet.
    pub fn heal(&self) {
        let ids: Vec<_> = self.gateways.iter().map(|gateway| gateway.id.to_string()).collect();
        let parts = ids.iter().map(String::as_str).chain(["gateway-b", "node-1", "internet"]);
        for part in parts {
            // A machine that is off has nothing to be healed.
            let _off = self.lab.command(&["heal", part]).output().unwrap();
        }
    }

    /// Whether nodes stay with B when the row is over, until the API server answers.
    pub fn stays_away(&self, row: &Row) -> bool {
        row.restarts_agents && self.control_plane == ControlPlane::Down
    }

    /// Waits until both gateways are listed and proven at every level, and every node leaves through the head of the list.
    pub fn is_restored(&mut self) -> bool {
        let ends = Instant::now() + 3 * MINUTE;
        while Instant::now() < ends {
            if let Some(gateways) = self.listed().filter(|gateways| gateways.len() == 2) {
                self.gateways = gateways;
                if self.is_whole() && self.all_leave_through(self.gateways[0].public) {
                    return true;
                }
            }
            std::thread::sleep(Duration::from_millis(300));
        }
        eprintln!("not whole: {:?}; {}", self.listed(), self.last_word());
        false
    }

    fn is_whole(&self) -> bool {
        let is_ready = self.control_plane == ControlPlane::Down || self.lab.is_ready("matrix");
        // Else the word of one row would count for the next.
        let is_degraded = self.degraded().is_some_and(|(is, _)| is);
        is_ready && !is_degraded && self.unproven().is_empty()
    }

    /// What agents do not say of gateways as they do when all is well. They tell it by their metrics, with an API server or without.
    fn unproven(&self) -> Vec<String> {
        let mut missing = Vec::new();
        for node in &addresses::NODES {
            let url = format!("http://{}:9191/metrics", node.vpc);
            let metrics = self.lab.command(&["exec", node.name, "--", "curl", "-s", &url]).output().unwrap();
            let metrics = String::from_utf8_lossy(&metrics.stdout);
            for gateway in &self.gateways {
                for (what, value) in PROVEN {
                    let private = &gateway.private;
                    let line = format!("egress_agent_gateway_{what}{{gateway=\"{private}\"}} {value}");
                    if !metrics.lines().any(|one| one == line) {
                        missing.push(format!("{}: {line}", node.name));
                    }
                }
            }
        }
        missing
    }

    /// What the nodes' last connections saw, and what the object says.
    fn last_word(&self) -> String {
        let mut words = self.unproven();
        for node in NODES {
            for policy in Policy::ALL {
                let last = self.watch.of(node, policy, 0.0).last();
                words.push(format!(
                    "{node} {}: {:?}",
                    policy.word(),
                    last.map(|one| (one.seen_as, &one.error))
                ));
            }
        }
        if self.control_plane == ControlPlane::Up {
            words.push(self.lab.get(&["egressgateway", "matrix"])["status"].to_string());
        }
        words.join("; ")
    }

    /// Whether every client on every node has for a while seen this address and nothing else.
    pub fn all_leave_through(&mut self, address: Ipv4Addr) -> bool {
        self.watch.read();
        NODES.iter().all(|node| Policy::ALL.iter().all(|policy| self.leaves_through(node, *policy, address)))
    }

    fn leaves_through(&self, node: &str, policy: Policy, address: Ipv4Addr) -> bool {
        let recent: Vec<_> = self.watch.of(node, policy, now_ms() - STEADY_MS).collect();
        recent.len() >= 4 && recent.iter().all(|one| one.seen_as == Some(address))
    }

    /// The gateways in the order of the nodes' list: as the API server has it, or last had it.
    pub fn listed(&self) -> Option<Vec<Gateway>> {
        if self.control_plane == ControlPlane::Down {
            return Some(self.gateways.clone());
        }
        let route = self.lab.get(&["staticroute", "matrix"]);
        let status = self.lab.get(&["egressgateway", "matrix"])["status"].clone();
        let known: Vec<_> = status["gateways"].as_array()?.iter().filter_map(gateway).collect();
        let listed = route["spec"]["gateways"].as_array()?.iter().map(|one| {
            let address = one["address"].as_str()?;
            known.iter().find(|gateway| gateway.private == address).cloned()
        });
        listed.collect()
    }

    /// Whether the `EgressGateway` says `Degraded`, and its words; `None` where nobody can be asked.
    pub fn degraded(&self) -> Option<(bool, String)> {
        if self.control_plane == ControlPlane::Down {
            return None;
        }
        let object = self.lab.get(&["egressgateway", "matrix"]);
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let degraded = conditions.iter().find(|one| one["type"] == "Degraded")?.clone();
        let word = |field: &str| degraded[field].as_str().unwrap_or_default().to_owned();
        Some((word("status") == "True", format!("{}: {}", word("reason"), word("message"))))
    }

    /// Public addresses that the last failover in the status of the `EgressGateway` went from and to, if that is not the one that was
    /// there before; `None` where nobody can be asked, too.
    pub fn failover_since(&self, before: &Value) -> Option<[Ipv4Addr; 2]> {
        let last = self.last_failover();
        if last == *before || last.is_null() {
            return None;
        }
        let status = self.lab.get(&["egressgateway", "matrix"])["status"].clone();
        let address = |name: &Value| {
            let gateways = status["gateways"].as_array()?;
            let gateway = gateways.iter().find(|one| one["name"] == *name)?;
            gateway["publicAddress"].as_str()?.parse().ok()
        };
        Some([address(&last["from"])?, address(&last["to"])?])
    }

    /// The last failover in the status of the `EgressGateway`; null where nobody can be asked.
    pub fn last_failover(&self) -> Value {
        if self.control_plane == ControlPlane::Down {
            return Value::Null;
        }
        self.lab.get(&["egressgateway", "matrix"])["status"]["lastFailover"].clone()
    }

    /// Forgets what came out.
    pub fn reset_oracle(&self) {
        self.lab.lab(&["oracle", "reset"]);
    }

    /// Packets to the destination of a policy that came from no gateway.
    pub fn packets(&self, policy: Policy) -> Packets {
        let oracle: Value =
            serde_json::from_str(&self.lab.lab(&["oracle", "--since", &u64::MAX.to_string()])).unwrap();
        let mut packets = Packets::default();
        for entry in oracle["packets"].as_array().unwrap() {
            if entry["destination"] != policy.destination().to_string() {
                continue;
            }
            let source: Ipv4Addr = entry["source"].as_str().unwrap().parse().unwrap();
            let count = entry["packets"].as_u64().unwrap();
            if NODE_ADDRESSES.contains(&source) {
                packets.node += count;
            } else if self.gateways.iter().all(|gateway| gateway.public != source) {
                packets.other += count;
            }
        }
        packets
    }

    /// Datagrams that were sent since then and did not come out, of all clients.
    pub fn lost_since(&self, since_ms: f64) -> u64 {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "milliseconds since 1970")]
        let since = (since_ms as u64).to_string();
        let oracle: Value = serde_json::from_str(&self.lab.lab(&["oracle", "--since", &since])).unwrap();
        let streams = oracle["streams"].as_array().unwrap();
        let gaps = streams.iter().flat_map(|stream| stream["missing"].as_array().unwrap());
        gaps.map(|gap| gap["to"].as_u64().unwrap() - gap["from"].as_u64().unwrap() + 1).sum()
    }
}

fn gateway(status: &Value) -> Option<Gateway> {
    Some(Gateway {
        id: status["dropletID"].as_u64()?,
        private: status["privateAddress"].as_str()?.to_owned(),
        public: status["publicAddress"].as_str()?.parse().ok()?,
    })
}

fn install(lab: &Lab) {
    lab.install();
    let controller = ["-n", "egress-gateway", "get", "deployment", "egress-controller", "-o", "json"];
    let controller: Value = serde_json::from_str(&lab.kubectl(&controller)).unwrap();
    let arguments = controller["spec"]["template"]["spec"]["containers"][0]["args"].as_array().unwrap();
    // A row is over before that: what is replaced is a matter of other tests.
    let arguments: Vec<_> = arguments
        .iter()
        .map(|one| one.as_str().unwrap())
        .map(
            |one| {
                if one.starts_with("--replace-after-seconds=") { "--replace-after-seconds=60" } else { one }
            },
        )
        .collect();
    let patch =
        json!([{"op": "replace", "path": "/spec/template/spec/containers/0/args", "value": arguments}]);
    let patch = ["patch", "deployment", "egress-controller", "--type=json", "-p", &patch.to_string()];
    lab.kubectl(&[["-n", "egress-gateway"].as_slice(), &patch].concat());
    lab.wait_for_rollout();
}

/// A gateway that is well again is used again after a second, and by all connections at once; for the rest the defaults hold.
fn apply_objects(lab: &Lab) {
    let health_check = json!({"holdDownSeconds": 1, "longestHoldDownSeconds": 3});
    lab.apply(&json!({
        "apiVersion": "networking.digitalocean.com/v1alpha1", "kind": "EgressGateway", "metadata": {"name": "matrix"},
        "spec": {
            "destinations": [Policy::Keep.destination().to_string()], "publicIP": "Ephemeral", "healthCheck": health_check,
            "drainSeconds": 0,
        },
    }));
    for policy in [Policy::Closed, Policy::Open] {
        lab.apply(&json!({
            "apiVersion": "networking.digitalocean.com/v1", "kind": "StaticRoute",
            "metadata": {"name": policy.word().to_lowercase()},
            "spec": {
                "destinations": [policy.destination().to_string()], "gatewayRef": {"name": "matrix"},
                "onNoGateway": policy.word(), "healthCheck": health_check,
                "drainSeconds": 0,
            },
        }));
    }
    for node in NODES {
        lab.apply(&json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("traffic-{node}")},
            "spec": {"nodeName": node, "containers": [
                {"name": "curl", "image": "curlimages/curl:7.80.0", "command": ["sleep", "infinity"]},
            ]},
        }));
    }
    lab.kubectl(&["wait", "--for=condition=Ready", "--timeout=60s", "pod", "--all"]);
}
