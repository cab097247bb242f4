//! Clients in a pod on every node, one for each policy: a new connection and a numbered datagram all the time, and what became
//! of each connection.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use egress_lab::traffic::{Connection, Record};

use crate::field::{NODES, lab::Lab};

/// What happens to a destination while no gateway works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    Keep,
    Closed,
    Open,
}

impl Policy {
    pub const ALL: [Self; 3] = [Self::Keep, Self::Closed, Self::Open];

    /// As `onNoGateway` has it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Keep => "KeepLast",
            Self::Closed => "FailClosed",
            Self::Open => "FailOpen",
        }
    }

    /// The destination of which it is said.
    pub const fn destination(self) -> Ipv4Addr {
        match self {
            Self::Keep => Ipv4Addr::new(192, 0, 2, 80),
            Self::Closed => Ipv4Addr::new(192, 0, 2, 81),
            Self::Open => Ipv4Addr::new(192, 0, 2, 82),
        }
    }

    /// Milliseconds between two connections.
    const fn interval(self) -> &'static str {
        match self {
            Self::Keep => "20",
            Self::Closed | Self::Open => "50",
        }
    }
}

/// One client.
struct Client {
    node: &'static str,
    policy: Policy,
    process: Child,
    record: Record,
    /// Since the last mark, in the order in which they ended.
    connections: Vec<Connection>,
}

/// All clients. They end with the test.
pub struct Watch {
    clients: Vec<Client>,
    stop: PathBuf,
}

impl Watch {
    /// Starts them in the pods `traffic-<node>`.
    pub fn start(lab: &Lab) -> Self {
        let folder = lab.root.join("target/failover");
        std::fs::create_dir_all(&folder).unwrap();
        let stop = folder.join("traffic.stop");
        let _not_there = std::fs::remove_file(&stop);
        let mut clients = Vec::new();
        for node in NODES {
            for policy in Policy::ALL {
                let stream = format!("{}-{node}", policy.word());
                let record = Record::begin(folder.join(format!("{stream}.jsonl"))).unwrap();
                let target = format!("{}:80", policy.destination());
                let place = format!("pod:default/traffic-{node}");
                let mut command = lab.command(&["exec", &place, "--"]);
                command.arg(&lab.program).args(["traffic", "--target", &target, "--stream", &stream]);
                command
                    .args(["--interval-ms", policy.interval(), "--seconds", "36000", "--out"])
                    .arg(record.file());
                command.arg("--until").arg(&stop).stdout(Stdio::null());
                let process = command.spawn().unwrap();
                clients.push(Client { node, policy, process, record, connections: Vec::new() });
            }
        }
        Self { clients, stop }
    }

    /// Forgets what ended until now.
    pub fn mark(&mut self) {
        self.read();
        for client in &mut self.clients {
            client.connections.clear();
        }
    }

    /// Reads what ended since the last time.
    pub fn read(&mut self) {
        for client in &mut self.clients {
            client.connections.extend(client.record.more().unwrap());
        }
    }

    /// Those of one client that began at that time or later.
    pub fn of(&self, node: &str, policy: Policy, since_ms: f64) -> impl Iterator<Item = &Connection> {
        let clients =
            self.clients.iter().filter(move |client| client.node == node && client.policy == policy);
        clients.flat_map(|client| &client.connections).filter(move |one| one.begun_ms >= since_ms)
    }

    /// When the first of them was answered that was seen as `address`.
    pub fn first_as(&self, node: &str, policy: Policy, since_ms: f64, address: Ipv4Addr) -> Option<f64> {
        let seen = self.of(node, policy, since_ms).filter(|one| one.seen_as == Some(address));
        seen.map(|one| one.ended_ms).reduce(f64::min)
    }

    /// When the last one was answered that was seen as `address`.
    pub fn last_as(&self, node: &str, policy: Policy, address: Ipv4Addr) -> Option<f64> {
        let seen = self.of(node, policy, 0.0).filter(|one| one.seen_as == Some(address));
        seen.map(|one| one.ended_ms).reduce(f64::max)
    }

    /// How often a node that left through `from` changed from one address to another.
    pub fn moves(&self, node: &str, policy: Policy, since_ms: f64, from: Ipv4Addr) -> usize {
        let seen = self.of(node, policy, since_ms).filter_map(|one| Some((one.ended_ms, one.seen_as?)));
        let mut seen: Vec<_> = std::iter::once((since_ms, from)).chain(seen).collect();
        seen.sort_by(|one, other| one.0.total_cmp(&other.0));
        seen.windows(2).filter(|two| two[0].1 != two[1].1).count()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ended_anyway = std::fs::write(&self.stop, "");
        for client in &mut self.clients {
            let _ended = client.process.kill();
            let _waited = client.process.wait();
        }
    }
}
