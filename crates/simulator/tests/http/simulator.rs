//! A simulator of the test's own, and a client that checks nothing by itself.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use do_simulator::clock::Clock;
use do_simulator::cloud::{Cloud, Delays};
use do_simulator::fixtures::Fixtures;
use do_simulator::rate::Limits;
use do_simulator::scope::Scopes;
use do_simulator::{Options, Running, start};
use serde_json::{Value, json};

pub const TOKEN: &str = "dop_v1_canary_3f1e";
pub const OPERATOR_TOKEN: &str = "dop_v1_operator_7d20";
pub const VPC: &str = "0e1f0f0e-c8a5-4e4c-a8b6-5d7b9f3b7f11";

/// Everything on loopback, so that a test can be any Droplet towards the metadata service.
const FIXTURES: &str = r#"{
  "account": {"droplet_limit": 20, "floating_ip_limit": 3, "email": "a@example.com", "name": "", "uuid": "u",
              "email_verified": true, "status": "active", "status_message": "", "team": {"uuid": "t", "name": "T"}},
  "vpcs": [{"id": "0e1f0f0e-c8a5-4e4c-a8b6-5d7b9f3b7f11", "name": "lab", "region": "nyc1",
            "ip_range": "127.2.0.0/20", "default": true}],
  "ssh_keys": [{"id": 289794, "name": "ops", "public_key": "ssh-ed25519 AAAA ops",
                "fingerprint": "3b:16:e4:bf:8b:00:8b:b8:59:8c:a9:d3:f0:19:fa:45"}],
  "droplets": [{"id": 412345601, "name": "pool-a-1", "vpc": "0e1f0f0e-c8a5-4e4c-a8b6-5d7b9f3b7f11",
                "tags": ["k8s"], "public_address": "127.1.0.11", "private_address": "127.2.0.2"}],
  "pools": {
    "public": {"range": "127.1.0.0/24", "first": "127.1.0.100", "last": "127.1.0.199", "gateway": "127.1.0.1"},
    "anchor": {"range": "127.3.0.0/16", "first": "127.3.0.100", "last": "127.3.0.199", "gateway": "127.3.0.1"}
  }
}"#;

/// A client builder; reqwest wants a provider of cryptography even for plain HTTP.
pub fn client() -> reqwest::ClientBuilder {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10))
}

pub struct Simulator {
    pub running: Running,
    client: reqwest::Client,
    driven: bool,
}

pub struct Wanted {
    pub clock: Clock,
    pub journal: Option<PathBuf>,
    pub state: Option<PathBuf>,
    pub machine_command: Option<String>,
    pub limits: Limits,
    pub scopes: Scopes,
}

impl Default for Wanted {
    fn default() -> Self {
        Self {
            clock: Clock::driven(),
            journal: None,
            state: None,
            machine_command: None,
            limits: Limits::default(),
            scopes: Scopes::all(),
        }
    }
}

impl Simulator {
    pub async fn driven() -> Self {
        Self::with(Wanted::default()).await
    }

    pub async fn with(wanted: Wanted) -> Self {
        let Wanted { clock, journal, state, machine_command, limits, scopes } = wanted;
        let mut cloud = Cloud::new(Delays::quick(), machine_command.is_some());
        Fixtures::parse(FIXTURES).unwrap().furnish(&mut cloud, clock.now()).unwrap();
        let driven = matches!(clock, Clock::Driven(_));
        let free = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
        let options = Options {
            listen: free,
            metadata: Some(free),
            token: TOKEN.into(),
            operator_token: Some(OPERATOR_TOKEN.into()),
            journal,
            state,
            machine_command,
            machine_deadline: Duration::from_secs(10),
            clock,
            limits,
            scopes,
            cloud,
        };
        let client = client().build().unwrap();
        Self { running: start(options).await.unwrap(), client, driven }
    }

    pub fn address(&self, path: &str) -> String {
        format!("http://{}{path}", self.running.api)
    }

    /// One request with the token under test, whatever becomes of it.
    pub async fn send(&self, method: &str, path: &str, body: &Value) -> reqwest::Result<reqwest::Response> {
        self.send_as(TOKEN, method, path, body).await
    }

    /// The same with another token.
    pub async fn send_as(
        &self,
        token: &str,
        method: &str,
        path: &str,
        body: &Value,
    ) -> reqwest::Result<reqwest::Response> {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let mut request = self.client.request(method, self.address(path)).bearer_auth(token);
        if !body.is_null() {
            request = request.json(body);
        }
        request.send().await
    }

    /// Status and JSON body (null when there is none).
    pub async fn call(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let response = self.send(method, path, body).await.unwrap();
        let status = response.status().as_u16();
        let text = response.text().await.unwrap();
        let body = if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() };
        (status, body)
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        self.call("GET", path, &Value::Null).await
    }

    pub async fn advance(&self, milliseconds: u64) {
        assert!(self.driven, "only a driven clock can be advanced");
        let (status, body) =
            self.call("POST", "/simulator/clock", &json!({"advance_ms": milliseconds})).await;
        assert_eq!(status, 200, "{body}");
    }

    pub async fn fault(&self, route: &str, times: Option<u32>, kind: Value) {
        let fault = json!({"route": route, "times": times, "kind": kind});
        let (status, body) = self.call("POST", "/simulator/faults", &fault).await;
        assert_eq!(status, 201, "{body}");
    }

    pub async fn journal(&self) -> Vec<Value> {
        self.get("/simulator/journal").await.1["entries"].as_array().unwrap().clone()
    }

    /// Creates a Droplet and lets it become whole.
    pub async fn droplet(&self, name: &str) -> u64 {
        let (status, body) = self.call("POST", "/v2/droplets", &wish(name)).await;
        assert_eq!(status, 202, "{body}");
        let id = body["droplet"]["id"].as_u64().unwrap();
        if self.driven {
            self.advance(1_000).await;
        }
        id
    }

    /// Polls until `done`, at most ten seconds; for the real clock only.
    pub async fn until(&self, path: &str, done: impl Fn(u16, &Value) -> bool) -> Value {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        loop {
            let (status, body) = self.get(path).await;
            if done(status, &body) {
                return body;
            }
            assert!(tokio::time::Instant::now() < deadline, "{path} stays at {status} {body}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

pub fn wish(name: &str) -> Value {
    json!({
        "name": name, "region": "nyc1", "size": "s-1vcpu-1gb", "image": "debian-12-x64", "vpc_uuid": VPC,
        "tags": ["egress-gateway", "egress-slot:0"], "user_data": "#cloud-config\n", "ssh_keys": [289_794],
    })
}
