//! A scene whose API server is in the internet: behind a name that gets other addresses, or behind a Service whose address is
//! translated to one that stands in no list.

use std::net::{Ipv4Addr, SocketAddr};

use tempfile::TempDir;

use crate::cloud::{Relay, ip, sh};
use crate::scene::{Agent, Hosts, Scene};

const NAME: &str = "api.cluster.test";
const PORT: u16 = 6443;
/// The API server's address at first.
pub const FIRST: &str = "198.51.100.10";
/// Its next one.
pub const SECOND: &str = "198.51.100.20";

pub struct Far {
    pub scene: Scene,
    /// Connections of agents to the API server.
    pub relay: Relay,
    hosts: Hosts,
    /// The kubeconfig of agents.
    files: TempDir,
}

impl Far {
    pub fn behind_a_name() -> Self {
        let scene = Scene::new();
        let to = SocketAddr::from((Ipv4Addr::LOCALHOST, scene.api_server_port()));
        let relay = scene.cloud.publish(PORT, to);
        let far =
            Self { relay, scene, hosts: Hosts::new(&[(FIRST, NAME)]), files: tempfile::tempdir().unwrap() };
        far.write_kubeconfig(|text| text);
        far
    }

    /// At [`SECOND`], which only the translation knows. The Service's range is routed as some CNIs do it: from the node's
    /// address in the VPC, so that no rule for the public address helps.
    pub fn behind_a_service() -> Self {
        let far = Self::behind_a_name();
        far.write_kubeconfig(|text| text.replace(&format!("{NAME}:{PORT}"), "10.245.0.1:443"));
        ip("route add 10.245.0.0/16 dev eth1 src 10.116.0.2");
        sh(&format!(
            "iptables -t nat -A OUTPUT -p tcp -d 10.245.0.1 --dport 443 -j DNAT --to {SECOND}:{PORT}"
        ));
        sh("iptables -t nat -A POSTROUTING -o eth0 -s 10.116.0.2 -j MASQUERADE");
        far
    }

    /// The resolver is behind a Service too, where the cluster has one of its own: translated to `address` in the internet, which lets
    /// nobody in through that gateway.
    pub fn resolve_behind_a_service(&self, service: &str, address: &str, gateway: Ipv4Addr) {
        let anything = SocketAddr::from((Ipv4Addr::LOCALHOST, self.scene.api_server_port()));
        // To accept a connection is an answer.
        self.scene.cloud.publish(53, anything);
        sh(&format!("iptables -t nat -A OUTPUT -p tcp -d {service} --dport 53 -j DNAT --to {address}:53"));
        self.scene.cloud.in_internet(&format!("iptables -I INPUT -p tcp --dport 53 -s {gateway} -j DROP"));
        self.hosts.ask_resolver(service);
    }

    /// Gives agents another kubeconfig, made from the one with all rights.
    pub fn write_kubeconfig(&self, change: impl FnOnce(String) -> String) {
        let near = std::fs::read_to_string(self.scene.server.kubeconfig()).unwrap();
        let from = format!("127.0.0.1:{}", self.scene.api_server_port());
        let far = change(near.replace(&from, &format!("{NAME}:{PORT}")));
        std::fs::write(self.files.path().join("kubeconfig"), far).unwrap();
    }

    /// The name has another address from now on.
    pub fn move_api_server(&self, address: &str) {
        self.hosts.write(&[(address, NAME)]);
    }

    pub fn start_agent(&self) -> Agent {
        self.start_agent_with(&["--daemonset="])
    }

    pub fn start_agent_with(&self, arguments: &[&str]) -> Agent {
        let mut program = self.hosts.program();
        // The name moves between two look-ups.
        program.args(["--protected-names=", "--names-interval=3600"]);
        Agent::start_at(program, &self.files.path().join("kubeconfig"), arguments)
    }

    /// The API server's firewall lets nobody in but the cluster's nodes: who comes through that gateway is dropped.
    pub fn let_nobody_in_through(&self, gateway: Ipv4Addr) {
        self.scene
            .cloud
            .in_internet(&format!("iptables -I INPUT -p tcp --dport {PORT} -s {gateway} -j DROP"));
    }

    pub fn silence_api_server(&self, connections: &str) {
        self.scene
            .cloud
            .in_internet(&format!("iptables -I INPUT -p tcp --dport {PORT} {connections} -j DROP"));
    }

    pub fn end_silence(&self, connections: &str) {
        self.scene
            .cloud
            .in_internet(&format!("iptables -D INPUT -p tcp --dport {PORT} {connections} -j DROP"));
    }

    /// Nothing of what is said over today's connections to the API server gets through any more, in either direction, and nobody
    /// is told; new ones are welcome.
    pub fn silence_connections(&self) {
        let ports = connections().join(", ");
        let chain = |hook: &str, theirs: &str, ours: &str| {
            format!(
                "chain {hook} {{ type filter hook {hook} priority 0; tcp {ours} {PORT} tcp {theirs} {{ {ports} }} drop; }};"
            )
        };
        let chains = format!("{} {}", chain("input", "sport", "dport"), chain("output", "dport", "sport"));
        self.scene.cloud.in_internet(&format!("nft 'table ip silence {{ {chains} }}'"));
    }
}

/// Whether packets of the node to `address` go through gateway A.
pub fn goes_through_a(address: &str) -> bool {
    ip(&format!("route get {address}")).contains("via 10.116.0.5")
}

/// The node's ports of its connections to the API server.
pub fn connections() -> Vec<String> {
    let shown = sh(&format!("ss -Htn state established dport = :{PORT}"));
    let local = shown.lines().map(|line| line.split_whitespace().nth(2).unwrap());
    local.map(|address| address.rsplit(':').next().unwrap().to_owned()).collect()
}
