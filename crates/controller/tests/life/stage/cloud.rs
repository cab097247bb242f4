//! The simulated cloud: faults, journal, and what others do in it.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::programs::{Program, simulator};
use super::{NODES, OTHER_VPC, PROJECT, VPC, until};

pub const ADDRESS: &str = "http://127.0.0.1:8080";

/// A fault by route; see the simulator's README.
pub struct Fault {
    pub route: &'static str,
    pub times: u32,
    pub kind: Value,
}

/// What the controller's token may do, as users are told.
pub const SCOPES: &str = include_str!("../../../../../deploy/token-scopes.txt");

/// What a person at the cloud's own pages has.
const OPERATOR_TOKEN: &str = "dop_v1_of_a_person";

pub struct Cloud {
    http: reqwest::Client,
    _process: Program,
    _files: TempDir,
}

impl Cloud {
    pub async fn start(token: &str, more: Vec<Value>) -> Self {
        let files = tempfile::tempdir().unwrap();
        let nodes = NODES.iter().zip(2..).map(|((name, id), host)| {
            json!({"id": id, "name": name, "vpc": VPC, "tags": ["k8s", "k8s:worker"], "private_address": format!("10.116.0.{host}"),
                   "public_address": format!("203.0.113.{}", 9 + host)})
        });
        let elsewhere = json!({"id": 601, "name": "elsewhere", "vpc": OTHER_VPC, "private_address": "10.117.0.9",
                    "public_address": "203.0.113.90", "anchor_address": "10.17.0.9"});
        let droplets: Vec<Value> = nodes.chain([elsewhere]).chain(more).collect();
        let fixtures = json!({
            "account": {"droplet_limit": 200},
            "vpcs": [{"id": VPC, "name": "cluster", "region": "nyc1", "ip_range": "10.116.0.0/20", "default": true},
                     {"id": OTHER_VPC, "name": "other", "region": "nyc1", "ip_range": "10.117.0.0/20"}],
            "droplets": droplets,
            "projects": [{"id": PROJECT, "name": "Payments"}],
            "ssh_keys": [{"id": 289_794, "name": "ops", "public_key": "ssh-ed25519 AAAA ops",
                          "fingerprint": "3b:16:e4:bf:8b:00:8b:b8:59:8c:a9:d3:f0:19:fa:45"}],
        });
        let path = files.path().join("fixtures.json");
        fs::write(&path, fixtures.to_string()).unwrap();
        let mut command = Command::new(simulator());
        command
            .args(["--listen", ADDRESS.trim_start_matches("http://"), "--token", token])
            .args(["--operator-token", OPERATOR_TOKEN, "--scopes", SCOPES, "--fixtures"])
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(fs::File::create(files.path().join("log")).unwrap());
        let process = Program::start(&mut command);
        let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
        let cloud = Self { http, _process: process, _files: files };
        until("do-simulator answers", async || {
            let asked = cloud.http.get(format!("{ADDRESS}/simulator/clock")).send().await;
            asked.map(drop).map_err(|error| error.to_string())
        })
        .await;
        cloud
    }

    pub async fn get(&self, path: &str) -> Value {
        self.http.get(format!("{ADDRESS}{path}")).send().await.unwrap().json().await.unwrap()
    }

    pub async fn break_with(&self, Fault { route, times, kind }: Fault) {
        let fault = json!({"route": route, "times": times, "kind": kind});
        let answer = self.http.post(format!("{ADDRESS}/simulator/faults")).json(&fault).send().await.unwrap();
        assert!(answer.status().is_success(), "{:?}", answer.text().await);
    }

    pub async fn mend(&self) {
        self.http.delete(format!("{ADDRESS}/simulator/faults")).send().await.unwrap();
    }

    /// Another token in place of the controller's, or other scopes for it.
    pub async fn change_token(&self, change: Value) {
        let answer = self.http.post(format!("{ADDRESS}/simulator/token")).json(&change).send().await.unwrap();
        assert!(answer.status().is_success(), "{:?}", answer.text().await);
    }

    /// Every scope that the controller's calls have needed.
    pub async fn scopes_needed(&self) -> Vec<String> {
        let told = self.get("/simulator/token").await;
        told["needed"].as_array().unwrap().iter().map(|scope| scope.as_str().unwrap().to_owned()).collect()
    }

    /// Somebody else's request.
    pub async fn by_hand(&self, method: reqwest::Method, path: &str, body: Option<Value>) -> Value {
        let mut request = self.http.request(method, format!("{ADDRESS}{path}")).bearer_auth(OPERATOR_TOKEN);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        assert!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    /// `power_off` or `power_on`.
    pub async fn act(&self, id: i64, action: &str) {
        let path = format!("/v2/droplets/{id}/actions");
        self.by_hand(reqwest::Method::POST, &path, Some(json!({"type": action}))).await;
    }

    /// Makes a Droplet that the controller did not ask for.
    pub async fn foreign(&self, name: &str, vpc: &str, tags: &[String]) -> u64 {
        let body = json!({"name": name, "region": "nyc1", "size": "s-1vcpu-1gb", "image": "debian-12-x64", "vpc_uuid": vpc, "tags": tags});
        let made = self.by_hand(reqwest::Method::POST, "/v2/droplets", Some(body)).await;
        made["droplet"]["id"].as_u64().unwrap()
    }

    pub async fn tag(&self, id: u64, tag: &str) {
        self.by_hand(reqwest::Method::POST, "/v2/tags", Some(json!({"name": tag}))).await;
        let path = format!("/v2/tags/{tag}/resources");
        let body = json!({"resources": [{"resource_id": id.to_string(), "resource_type": "droplet"}]});
        self.by_hand(reqwest::Method::POST, &path, Some(body)).await;
    }

    /// Droplets that exist, with name and id, those of the fixtures left out.
    pub async fn droplets(&self) -> Vec<(u64, String)> {
        let state = self.get("/simulator/state").await;
        let all = state["droplets"].as_object().unwrap().values();
        let there = all.filter(|droplet| {
            droplet["phase"].get("gone").is_none() && droplet["id"].as_u64().unwrap() > 1000
        });
        there
            .map(|droplet| (droplet["id"].as_u64().unwrap(), droplet["name"].as_str().unwrap().to_owned()))
            .collect()
    }

    /// Whether a Droplet carries this tag.
    pub async fn carries(&self, id: i64, tag: &str) -> bool {
        let state = self.get("/simulator/state").await;
        let tags = state["droplets"][id.to_string()]["tags"].as_array().cloned().unwrap_or_default();
        tags.iter().any(|one| one["name"] == tag)
    }

    /// Every firewall of the account.
    pub async fn firewalls(&self) -> Vec<Value> {
        let listed = self.by_hand(reqwest::Method::GET, "/v2/firewalls", None).await;
        listed["firewalls"].as_array().unwrap().clone()
    }

    /// Every reserved address of the account, with the Droplet that holds it.
    pub async fn reserved_ips(&self) -> Vec<(String, Option<u64>)> {
        let listed = self.by_hand(reqwest::Method::GET, "/v2/reserved_ips", None).await;
        let pair = |one: &Value| (one["ip"].as_str().unwrap().to_owned(), one["droplet"]["id"].as_u64());
        listed["reserved_ips"].as_array().unwrap().iter().map(pair).collect()
    }

    /// Somebody else's address.
    pub async fn reserve(&self) -> String {
        let body = json!({"region": "nyc1"});
        let made = self.by_hand(reqwest::Method::POST, "/v2/reserved_ips", Some(body)).await;
        made["reserved_ip"]["ip"].as_str().unwrap().to_owned()
    }

    /// What acts on a Droplet's packets now: what may come in, as `protocol ports address`.
    pub async fn lets_in(&self, id: i64) -> Option<BTreeSet<String>> {
        let answer =
            self.http.get(format!("{ADDRESS}/simulator/droplets/{id}/firewall")).send().await.unwrap();
        // One that is gone has none.
        let policy: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap_or_default();
        let inbound = policy["rules"]["inbound"].as_array()?;
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let each = inbound.iter().flat_map(|rule| {
            let head = format!("{} {}", text(&rule["protocol"]), text(&rule["ports"]));
            let addresses = rule["addresses"].as_array().unwrap().clone();
            addresses.into_iter().map(move |address| format!("{head} {}", text(&address)))
        });
        Some(each.collect())
    }

    pub async fn last(&self) -> u64 {
        self.get("/simulator/journal").await["last"].as_u64().unwrap()
    }

    /// Requests after that number, as `METHOD path`.
    pub async fn journal(&self, after: u64) -> Vec<String> {
        let answer = self.get(&format!("/simulator/journal?after={after}")).await;
        let entries = answer["entries"].as_array().unwrap();
        entries
            .iter()
            .map(|entry| format!("{} {}", entry["method"].as_str().unwrap(), entry["path"].as_str().unwrap()))
            .collect()
    }

    /// Those of them that change something.
    pub async fn changes(&self, after: u64) -> Vec<String> {
        self.journal(after).await.into_iter().filter(|line| !line.starts_with("GET ")).collect()
    }
}
