//! Clients in a pod on every node, and what people were told meanwhile: which addresses to expect.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use egress_lab::traffic::{Connection, Record, now_ms};
use serde_json::Value;

use crate::NODES;
use crate::lab::Lab;

/// Between two looks at what is told.
const LOOK: Duration = Duration::from_millis(200);
/// What is told is read so much later than it was written, at most, on a busy machine.
const READ_LATE_MS: f64 = 3_000.0;
/// So long a node must be seen to use the same addresses.
const STEADY_MS: f64 = 1_000.0;

/// `status.publicIPs` over time.
pub struct Told {
    seen: Arc<Mutex<Vec<(f64, BTreeSet<Ipv4Addr>)>>>,
    over: Arc<Mutex<bool>>,
    thread: Option<JoinHandle<()>>,
}

impl Told {
    /// Looks until the end of the test.
    pub fn begin(lab: &Lab, name: &'static str) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let over = Arc::new(Mutex::new(false));
        let (shown, stop) = (Arc::clone(&seen), Arc::clone(&over));
        let mut get = std::process::Command::new(lab.assets.join("kubectl"));
        get.env("KUBECONFIG", lab.state.join("kubeconfig"));
        get.args(["get", "egressgateway", name, "-o", "jsonpath={.status.publicIPs}"]);
        let thread = std::thread::spawn(move || {
            while !*stop.lock().unwrap() {
                let asked = now_ms();
                let answer = get.output().unwrap().stdout;
                // It may be gone.
                let addresses = serde_json::from_slice::<BTreeSet<Ipv4Addr>>(&answer).unwrap_or_default();
                shown.lock().unwrap().push((asked, addresses));
                std::thread::sleep(LOOK);
            }
        });
        Self { seen, over, thread: Some(thread) }
    }

    /// Every address that was ever told.
    pub fn all(&self) -> BTreeSet<Ipv4Addr> {
        self.seen.lock().unwrap().iter().flat_map(|(_, addresses)| addresses.iter().copied()).collect()
    }

    /// Those that were told at some time in this span.
    fn between(&self, from: f64, to: f64) -> BTreeSet<Ipv4Addr> {
        let seen = self.seen.lock().unwrap();
        // The look before it counts too: it held until the next one.
        let first = seen.iter().rposition(|(at, _)| *at <= from).unwrap_or(0);
        let span = seen.iter().skip(first).take_while(|(at, _)| *at <= to);
        span.flat_map(|(_, addresses)| addresses.iter().copied()).collect()
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        *self.over.lock().unwrap() = true;
        if let Some(thread) = self.thread.take() {
            // Its own failure was printed.
            let _ended = thread.join();
        }
    }
}

struct Client {
    stream: String,
    process: Child,
    record: Record,
    connections: Vec<Connection>,
}

/// One client on each node. They end with the test.
pub struct Clients {
    clients: Vec<Client>,
    until: PathBuf,
}

impl Clients {
    pub fn start(lab: &Lab, target: &str) -> Self {
        let folder = lab.root.join("target/rolls");
        std::fs::create_dir_all(&folder).unwrap();
        let until = folder.join("traffic.stop");
        let _not_there = std::fs::remove_file(&until);
        let start = |node: &&str| {
            let stream = format!("rolls-{node}");
            let record = Record::begin(folder.join(format!("{stream}.jsonl"))).unwrap();
            let mut command = lab.command(&["exec", &format!("pod:default/traffic-{node}"), "--"]);
            command.arg(&lab.program).args([
                "traffic",
                "--target",
                &format!("{target}:80"),
                "--stream",
                &stream,
            ]);
            command.args(["--interval-ms", "20", "--seconds", "36000", "--out"]).arg(record.file());
            let process = command.arg("--until").arg(&until).stdout(Stdio::null()).spawn().unwrap();
            Client { stream, process, record, connections: Vec::new() }
        };
        Self { clients: NODES.iter().map(start).collect(), until }
    }

    /// Reads what ended since the last time.
    pub fn read(&mut self) {
        for client in &mut self.clients {
            client.connections.extend(client.record.more().unwrap());
        }
    }

    fn all(&self) -> impl Iterator<Item = &Connection> {
        self.clients.iter().flat_map(|client| &client.connections)
    }

    /// Whether every client has for a while been seen with these addresses and no others.
    pub fn all_leave_through(&mut self, addresses: &BTreeSet<Ipv4Addr>) -> bool {
        self.read();
        let since = now_ms() - STEADY_MS;
        self.clients.iter().all(|client| {
            let recent: Vec<_> = client.connections.iter().filter(|one| one.begun_ms >= since).collect();
            recent.len() > 4
                && recent.iter().all(|one| one.seen_as.is_some_and(|address| addresses.contains(&address)))
        })
    }

    /// Connections that were begun since then and not answered.
    pub fn failed_since(&self, since_ms: f64) -> Vec<&Connection> {
        self.all().filter(|one| one.begun_ms >= since_ms && one.seen_as.is_none()).collect()
    }

    /// Connections since then that came with an address which was not told while they lasted.
    pub fn seen_with_other_addresses(&self, since_ms: f64, told: &Told) -> Vec<(Ipv4Addr, f64)> {
        let since = self.all().filter(|one| one.begun_ms >= since_ms);
        let seen = since.filter_map(|one| Some((one.seen_as?, one)));
        let untold = seen.filter(|(address, one)| {
            !told.between(one.begun_ms, one.ended_ms + READ_LATE_MS).contains(address)
        });
        untold.map(|(address, one)| (address, one.begun_ms)).collect()
    }

    /// When the last connection through one of these ended.
    pub fn last_through(&self, addresses: &BTreeSet<Ipv4Addr>) -> Option<f64> {
        let through =
            self.all().filter(|one| one.seen_as.is_some_and(|address| addresses.contains(&address)));
        through.map(|one| one.ended_ms).reduce(f64::max)
    }

    /// Datagrams since then that did not come out.
    pub fn lost(&self, lab: &Lab, since_ms: f64) -> u64 {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "milliseconds since 1970")]
        let since = (since_ms as u64).to_string();
        let oracle: Value = serde_json::from_str(&lab.lab(&["oracle", "--since", &since])).unwrap();
        let streams = oracle["streams"].as_array().unwrap().iter();
        let ours =
            streams.filter(|stream| self.clients.iter().any(|client| stream["stream"] == client.stream));
        let gaps: Vec<&Value> = ours.flat_map(|stream| stream["missing"].as_array().unwrap()).collect();
        gaps.iter().map(|gap| gap["to"].as_u64().unwrap() - gap["from"].as_u64().unwrap() + 1).sum()
    }

    /// Lets them end.
    pub fn stop(&mut self) {
        std::fs::File::create(&self.until).unwrap();
        for client in &mut self.clients {
            client.process.wait().unwrap();
        }
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        for client in &mut self.clients {
            // It may have ended.
            let _ended = client.process.kill();
            let _reaped = client.process.wait();
        }
    }
}
