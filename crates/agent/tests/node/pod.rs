//! A pod on the node, attached as Cilium attaches it: a veth of its own, and a route for its one address.

use std::fs::File;
use std::net::Ipv4Addr;
use std::thread::JoinHandle;

use nix::sched::{CloneFlags, setns};
use serde_json::json;

use crate::cloud::{A_PUBLIC, B_PUBLIC, Cloud, ip, seen_from, sh};
use crate::scene::Scene;

/// Of the node, sent on to [`POD_PORT`].
pub const HOST_PORT: u16 = 8080;
/// What the pod answers at.
pub const POD_PORT: u16 = 80;

/// Runs `work` in a thread that lives in the namespace, `None` being the node's.
pub fn inside<T: Send + 'static>(
    namespace: Option<&str>,
    work: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    let namespace = namespace.map(|name| File::open(format!("/run/netns/{name}")).unwrap());
    std::thread::spawn(move || {
        if let Some(namespace) = namespace {
            setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
        }
        work()
    })
}

pub struct Pod {
    pub namespace: String,
    pub address: Ipv4Addr,
    /// The node's end of its link.
    pub link: String,
}

impl Pod {
    /// Makes the pod 10.244.0.`number`.
    pub fn new(cloud: &Cloud, number: u8) -> Self {
        let (namespace, link) = (cloud.name(&format!("pod{number}")), format!("lxc{number}"));
        let address = Ipv4Addr::new(10, 244, 0, number);
        ip(&format!("netns add {namespace}"));
        ip(&format!("-n {namespace} link set lo up"));
        ip(&format!("link add {link} type veth peer name eth0 netns {namespace}"));
        ip(&format!("addr add 10.244.0.1/32 dev {link}"));
        ip(&format!("link set {link} up"));
        ip(&format!("-n {namespace} addr add {address}/32 dev eth0"));
        ip(&format!("-n {namespace} link set eth0 up"));
        ip(&format!("-n {namespace} route add 10.244.0.1 dev eth0"));
        ip(&format!("-n {namespace} route add default via 10.244.0.1"));
        ip(&format!("route add {address}/32 dev {link}"));
        sh("sysctl -qw net.ipv4.ip_forward=1");
        Self { namespace, address, link }
    }

    /// The node translates for the pod as other CNIs have it: its connections to the outside, and [`HOST_PORT`] of the node's
    /// address `node`, over TCP and UDP, to its [`POD_PORT`].
    pub fn translate(&self, node: Ipv4Addr) {
        sh("iptables -t nat -A POSTROUTING -s 10.244.0.0/16 ! -d 10.244.0.0/16 -j MASQUERADE");
        self.forward_host_port(node);
    }

    /// Only [`HOST_PORT`] of the node's address `node`, over TCP and UDP.
    pub fn forward_host_port(&self, node: Ipv4Addr) {
        for transport in ["tcp", "udp"] {
            let to = format!("{}:{POD_PORT}", self.address);
            let what = format!("-d {node} -p {transport} --dport {HOST_PORT} -j DNAT --to {to}");
            sh(&format!("iptables -t nat -A PREROUTING {what}"));
        }
    }

    /// The VPC routes the addresses of pods to their node, and both gateways translate for them, and no longer for nodes: whatever
    /// a node translates gets no answer.
    pub fn native_to_the_vpc(cloud: &Cloud) {
        for (role, public) in [("a", A_PUBLIC), ("b", B_PUBLIC)] {
            let gateway = cloud.name(role);
            ip(&format!("-n {gateway} route add 10.244.0.0/24 via 10.116.0.2"));
            let table = format!("ip netns exec {gateway} iptables -t nat");
            sh(&format!("{table} -F POSTROUTING"));
            sh(&format!("{table} -A POSTROUTING -s 10.244.0.0/16 -o eth0 -j SNAT --to-source {public}"));
        }
    }

    /// Tells the API server of its host port.
    pub fn tell_host_port(&self, scene: &Scene) {
        let ports = ["TCP", "UDP"]
            .map(|protocol| json!({"containerPort": POD_PORT, "hostPort": HOST_PORT, "protocol": protocol}));
        scene.apply(&json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "host-port", "namespace": "default"},
            "spec": {"nodeName": "node-1", "containers": [{"name": "c", "image": "none.invalid/c", "ports": ports}]}}));
        let status = json!({"status": {"podIP": self.address, "podIPs": [{"ip": self.address}]}}).to_string();
        scene.kubectl(&["patch", "pod", "host-port", "--subresource=status", "-p", &status]);
    }

    /// The address that the outside sees when the pod connects to `target`.
    pub fn seen_from(&self, target: Ipv4Addr) -> Option<Ipv4Addr> {
        inside(Some(&self.namespace), move || seen_from(target)).join().unwrap()
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        ip(&format!("netns del {}", self.namespace));
    }
}
