//! A simulated cloud with many gateways, a hundred EgressGateways that look at it, and the clock of both.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use egress_controller::clock::Clock;
use egress_controller::cloud::Cloud;
use egress_controller::metrics::{ControllerMetrics, PREFIX};
use egress_controller::site::of_cloud;
use egress_digitalocean::{Client, SharedToken};
use egress_runtime::metrics::Metrics;
use jiff::Timestamp;
use serde_json::{Value, json};

const CLUSTER: &str = "c0ffee";
const TOKEN: &str = "dop_v1_of_this_fleet";
const SCOPES: &str = include_str!("../../../../deploy/token-scopes.txt");
const START: u64 = 1_800_000_000;

/// How often the controller looks at an EgressGateway with which all is well.
pub const LOOK: u64 = 12;

/// Seconds since the start; shared by client, controller and simulator.
#[derive(Clone, Default)]
struct HandClock(Arc<AtomicU64>);

impl egress_digitalocean::Clock for HandClock {
    fn elapsed(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::Relaxed))
    }
    fn unix_seconds(&self) -> u64 {
        START + self.0.load(Ordering::Relaxed)
    }
}

pub struct Fleet {
    pub cloud: Cloud,
    clock: HandClock,
    http: reqwest::Client,
    address: String,
    process: Child,
    _fixtures: tempfile::NamedTempFile,
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let _gone = self.process.kill();
        let _reaped = self.process.wait();
    }
}

fn fixtures(droplets: u64) -> Value {
    let vpc = "0e1f0f0e-c8a5-4e4c-a8b6-5d7b9f3b7f11";
    let droplet = |number: u64| {
        let address = std::net::Ipv4Addr::from(0x0a74_0000 + 1000 + u32::try_from(number).unwrap());
        json!({"id": 10_000 + number, "name": format!("gw-{number}-0-1a2b3c4d"), "vpc": vpc, "private_address": address,
               "tags": ["egress-gateway", format!("egress-cluster:{CLUSTER}")]})
    };
    json!({
        "vpcs": [{"id": vpc, "name": "cluster", "region": "nyc1", "ip_range": "10.116.0.0/16", "default": true}],
        "droplets": (0..droplets).map(droplet).collect::<Vec<_>>(),
    })
}

impl Fleet {
    pub async fn of(droplets: u64) -> Self {
        egress_runtime::kubernetes::install_crypto_provider();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), fixtures(droplets).to_string()).unwrap();
        let program =
            std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().join("do-simulator");
        let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("http://127.0.0.1:{port}");
        let process = Command::new(&program)
            .args(["--clock", "driven", "--token", TOKEN, "--scopes", SCOPES])
            .args(["--listen", &format!("127.0.0.1:{port}"), "--fixtures"])
            .arg(file.path())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}; cargo build -p do-simulator", program.display()));
        let clock = HandClock::default();
        let token = Arc::new(SharedToken::new(TOKEN.to_owned().into()));
        let client = Client::with_clock(&address, token, Arc::new(clock.clone())).unwrap();
        let metrics = ControllerMetrics::register(&mut Metrics::new(PREFIX, "0"));
        let ticks = clock.clone();
        let now = move || {
            let seconds = START + ticks.0.load(Ordering::Relaxed);
            Timestamp::from_second(i64::try_from(seconds).unwrap()).unwrap()
        };
        let cloud = Cloud::new(client, CLUSTER, metrics, Clock::new(now));
        let fleet = Self { cloud, clock, http, address, process, _fixtures: file };
        let until = Instant::now() + Duration::from_secs(20);
        while fleet.http.get(format!("{}/simulator/clock", fleet.address)).send().await.is_err() {
            assert!(Instant::now() < until, "the simulator does not answer");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        fleet
    }

    pub fn now(&self) -> u64 {
        self.clock.0.load(Ordering::Relaxed)
    }

    /// Lets time pass for all.
    pub async fn pass(&self, seconds: u64) {
        self.clock.0.fetch_add(seconds, Ordering::Relaxed);
        let body = json!({"advance_ms": seconds * 1000});
        let advanced = self.http.post(format!("{}/simulator/clock", self.address)).json(&body).send().await;
        assert!(advanced.unwrap().status().is_success());
    }

    /// From now on every call goes wrong in this way.
    pub async fn break_all(&self, kind: &Value) {
        let fault = json!({"route": "* /v2/**", "kind": kind});
        let told = self.http.post(format!("{}/simulator/faults", self.address)).json(&fault).send().await;
        assert!(told.unwrap().status().is_success(), "{fault}");
    }

    pub async fn mend(&self) {
        self.http.delete(format!("{}/simulator/faults", self.address)).send().await.unwrap();
    }

    /// Number and method of every request after that number.
    pub async fn requests(&self, after: u64) -> Vec<(u64, String)> {
        let url = format!("{}/simulator/journal?after={after}", self.address);
        let answer: Value = self.http.get(url).send().await.unwrap().json().await.unwrap();
        let entries = answer["entries"].as_array().unwrap();
        entries
            .iter()
            .map(|entry| (entry["seq"].as_u64().unwrap(), entry["method"].as_str().unwrap().to_owned()))
            .collect()
    }

    /// One look of an EgressGateway: the two lists that all share, as old as they may be. What comes of the first.
    pub async fn look(&self) -> Result<usize, (&'static str, String)> {
        let quiet = Duration::from_secs(30);
        let droplets = self.cloud.droplets(quiet).await;
        let oldest = i64::try_from(START + self.now()).unwrap() - 300;
        let wanted = Timestamp::from_second(oldest).unwrap();
        if droplets.is_ok() {
            // Gateways do without; it is asked for all the same.
            let _firewalls = self.cloud.firewalls(wanted, Timestamp::MIN).await;
        }
        droplets.map(|snapshot| snapshot.droplets.len()).map_err(|error| {
            let trouble = of_cloud(&error);
            (trouble.reason, trouble.message)
        })
    }
}
