//! Whoever reached the node from outside is answered the same way, whatever goes through gateways (I5).
//!
//! ```text
//!  client 198.51.100.77 ── internet ── eth0 node eth1 ══ VXLAN ══ eth1 node-2
//!                                        │ cni0                     │ cni0
//!                                      pod 10.244.0.10            pod 10.244.1.10
//! ```
//! Packets are sent on by iptables as the CNI's portmap and kube-proxy do it. As in DigitalOcean's network, a machine's packets
//! with another source than its own address are dropped, on both sides: an answer that leaves by the wrong one is lost.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use serde_json::{Value, json};
use socket2::{Domain, Protocol, Socket, Type};

use crate::cloud::{A, A_PUBLIC, B, B_PUBLIC, Cloud, NODE_PUBLIC, ip, ours, sh, until};
use crate::pod::inside;
use crate::scene::{Agent, Monitor, SOON, Scene, UNLISTED, until_ready};

pub const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 77);
const POD: &str = "10.244.0.10";
const POD_ON_OTHER_NODE: &str = "10.244.1.10";
const NODE: &str = "10.116.0.2";
const OTHER_NODE: &str = "10.116.0.3";

/// A port of the node's public address, and who answers behind it.
struct Port {
    public: u16,
    target: (&'static str, u16),
    /// kube-proxy masquerades what it may send to another node (`externalTrafficPolicy: Cluster`).
    masqueraded: bool,
}

const HOST_PORT: Port = Port { public: 8080, target: (POD, 80), masqueraded: false };
const NODE_PORTS: [Port; 5] = [
    Port { public: 30001, target: (POD, 8001), masqueraded: false },
    Port { public: 30002, target: (POD, 8002), masqueraded: true },
    Port { public: 30003, target: (POD_ON_OTHER_NODE, 8003), masqueraded: true },
    Port { public: 30004, target: (OTHER_NODE, 8004), masqueraded: true },
    Port { public: 30005, target: (NODE, 8005), masqueraded: false },
];
/// Answered by the node itself, from its public address.
const HOST_NETWORK: u16 = 7000;

#[derive(Clone, Copy, Debug)]
pub enum Transport {
    Tcp,
    Udp,
}

pub const TRANSPORTS: [Transport; 2] = [Transport::Tcp, Transport::Udp];

#[test]
fn connections_that_came_in_on_the_public_side_are_answered_there() {
    let scene = Scene::new();
    let net = Network::new(&scene.cloud);
    for port in forwarded() {
        assert_eq!(net.answered(port.public), [true, true], "the scene itself: {}", port.public);
    }
    let agent = Agent::start(&scene);
    scene.route("all", &json!({"destinations": ["0.0.0.0/0"], "gateways": [{"address": A}, {"address": B}]}));
    scene.until_applied("all", 1);
    until("through A", &Some(A_PUBLIC), SOON, || net.seen_from_pod(0));

    // The API server says nothing of ports yet, so the answers leave through the gateway, where they are dropped.
    assert_eq!(net.answered(HOST_NETWORK), [true, true]);
    for port in forwarded() {
        assert_eq!(net.answered(port.public), [false, false], "without its rule: {}", port.public);
    }

    scene.apply(&json!({"apiVersion": "v1", "kind": "List", "items": objects()}));
    let status = json!({"status": {"podIP": POD, "podIPs": [{"ip": POD}]}});
    scene.kubectl(&["patch", "pod", "host-port", "--subresource=status", "-p", &status.to_string()]);
    for port in forwarded() {
        until("answered", &[true, true], SOON, || net.answered(port.public));
    }
    for mode in ["0", "1", "2"] {
        for link in ["all", "eth0", "eth1", "cni0", "vxlan0"] {
            sh(&format!("sysctl -qw net.ipv4.conf.{link}.rp_filter={mode}"));
        }
        assert_eq!(net.answered(HOST_NETWORK), [true, true], "rp_filter {mode}");
        for port in forwarded() {
            assert_eq!(net.answered(port.public), [true, true], "{} at rp_filter {mode}", port.public);
        }
        assert_eq!(net.seen_from_pod(0), Some(A_PUBLIC), "a pod's own connections, rp_filter {mode}");
    }
    // The documented price.
    assert_eq!(net.seen_from_pod(8003), Some(NODE_PUBLIC), "a client that asks for a port of servers");

    let before = ours();
    agent.kill();
    let monitor = Monitor::start(&["route", "rule", "nexthop"]);
    let agent = Agent::start(&scene);
    until_ready();
    assert_eq!(monitor.stop(), Vec::<String>::new(), "a restart wrote to the kernel");
    assert_eq!(ours(), before);

    // In every mode.
    let list = json!([{"address": A}, {"address": B}]);
    for spec in [
        json!({"destinations": ["0.0.0.0/0"], "gateways": list, "mode": "ActiveActive"}),
        json!({"destinations": ["0.0.0.0/1", "128.0.0.0/1"], "gateway": A}),
    ] {
        scene.kubectl(&["delete", "staticroute", "all"]);
        until("nothing is routed", &Some(NODE_PUBLIC), SOON, || net.seen_from_pod(0));
        scene.route("all", &spec);
        until("routed", &true, SOON, || [Some(A_PUBLIC), Some(B_PUBLIC)].contains(&net.seen_from_pod(0)));
        for port in forwarded() {
            assert_eq!(net.answered(port.public), [true, true], "{} with {spec}", port.public);
        }
        assert_eq!(net.answered(HOST_NETWORK), [true, true], "with {spec}");
    }

    // A Service that goes takes its rules along, one that changes its port is followed.
    scene.kubectl(&["delete", "service", "sent-on-30002", "--wait=false"]);
    until("its rules go", &false, SOON, || ip("rule show").contains("sport 8002"));
    assert_eq!(net.answered(30001), [true, true]);
    // Only where clients may be does a rule stand.
    scene.kubectl(&["delete", "staticroute", "all"]);
    scene.route("all", &json!({"destinations": ["172.20.0.0/16"], "gateways": [{"address": A}]}));
    until("no rules", &false, SOON, || ip("rule show").contains("991:"));
    drop(agent);
}

#[test]
fn a_served_port_that_connections_of_pods_get_is_told() {
    let scene = Scene::new();
    let agent = Agent::start(&scene);
    scene.route(
        "all",
        &json!({"destinations": ["0.0.0.0/0"], "gateways": [{"address": A}], "onNoGateway": "FailClosed"}),
    );
    scene.until_applied("all", 1);
    assert_eq!(scene.condition("ServedPortsEphemeral"), None);
    let metadata =
        json!({"name": "grpc", "namespace": "default", "labels": {"kubernetes.io/service-name": "grpc"}});
    scene.apply(&json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata,
        "spec": {"type": "NodePort", "ports": [{"port": 50051, "nodePort": 30051}]}}));
    scene.apply(&json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata,
        "addressType": "IPv4", "endpoints": [{"addresses": [POD]}], "ports": [{"port": 50051}]}));
    let told = || scene.condition("ServedPortsEphemeral").map(|(status, _, _)| status);
    until("told", &Some("True".to_owned()), SOON, told);
    let message = scene.condition("ServedPortsEphemeral").unwrap().2;
    assert!(message.contains("TCP 50051 of 10.244.0.0/16") && message.contains("below 32768"), "{message}");
    scene.kubectl(&["delete", "service", "grpc", "--wait=false"]);
    until("over", &Some("False".to_owned()), SOON, told);
    drop(agent);
}

fn forwarded() -> impl Iterator<Item = &'static Port> {
    std::iter::once(&HOST_PORT).chain(&NODE_PORTS)
}

fn objects() -> Vec<Value> {
    let both = |name: &str, port: u16, more: &dyn Fn(&str) -> Value| -> Vec<Value> {
        ["TCP", "UDP"]
            .iter()
            .map(|protocol| {
                let mut entry = more(protocol);
                entry["name"] = json!(format!("{name}-{}", protocol.to_lowercase()));
                entry["protocol"] = json!(protocol);
                entry["port"] = json!(port);
                entry
            })
            .collect()
    };
    let ports: Vec<Value> = ["TCP", "UDP"]
        .iter()
        .map(|protocol| {
            json!({"containerPort": HOST_PORT.target.1, "hostPort": HOST_PORT.public, "protocol": protocol})
        })
        .collect();
    let mut objects = vec![json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "host-port", "namespace": "default"},
        "spec": {"nodeName": "node-1", "containers": [{"name": "c", "image": "none.invalid/c", "ports": ports}]}})];
    for port in &NODE_PORTS {
        let name = format!("sent-on-{}", port.public);
        let (address, target) = port.target;
        let metadata = json!({"name": name, "namespace": "default"});
        let policy = if port.masqueraded { "Cluster" } else { "Local" };
        let services = both("p", 1000, &|_| json!({"targetPort": "by-name", "nodePort": port.public}));
        objects.push(json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata,
            "spec": {"type": "NodePort", "externalTrafficPolicy": policy, "ports": services}}));
        let mut metadata = metadata;
        metadata["labels"] = json!({"kubernetes.io/service-name": name});
        objects.push(
            json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata,
            "addressType": "IPv4", "endpoints": [{"addresses": [address]}],
            "ports": both("p", target, &|_| json!({}))}),
        );
    }
    objects
}

/// Pods, a second node, who answers, and the rules that send packets on.
struct Network {
    internet: String,
    pod: String,
    others: Vec<String>,
}

impl Network {
    fn new(cloud: &Cloud) -> Self {
        let (pod, other_pod, other_node) = (cloud.name("pod"), cloud.name("pod2"), cloud.name("node2"));
        for name in [&pod, &other_pod, &other_node] {
            ip(&format!("netns add {name}"));
            ip(&format!("-n {name} link set lo up"));
        }
        let network = Self {
            internet: cloud.name("inet"),
            pod: pod.clone(),
            others: vec![other_pod.clone(), other_node.clone()],
        };
        cloud.attach(Some(&other_node), "203.0.113.12", OTHER_NODE, 0);
        drop_foreign_sources(cloud, &[]);
        for (node, inside, prefix, remote) in
            [(None, &pod, "10.244.0", OTHER_NODE), (Some(&other_node), &other_pod, "10.244.1", NODE)]
        {
            let on = node.map(|name| format!("-n {name} ")).unwrap_or_default();
            let run = node.map(|name| format!("ip netns exec {name} ")).unwrap_or_default();
            sh(&format!("{run}sysctl -qw net.ipv4.ip_forward=1"));
            ip(&format!("{on}link add cni0 address 02:00:00:00:0a:01 type bridge"));
            ip(&format!("{on}link set cni0 up"));
            ip(&format!("{on}addr add {prefix}.1/24 dev cni0"));
            ip(&format!("{on}link add pod0 type veth peer name eth0 netns {inside}"));
            ip(&format!("{on}link set pod0 master cni0 up"));
            ip(&format!("-n {inside} link set eth0 up"));
            ip(&format!("-n {inside} addr add {prefix}.10/24 dev eth0"));
            ip(&format!("-n {inside} route add default via {prefix}.1"));
            ip(&format!("{on}link add vxlan0 type vxlan id 1 dev eth1 remote {remote} dstport 8472"));
            ip(&format!("{on}link set vxlan0 up"));
            let other = if prefix == "10.244.0" { "10.244.1.0" } else { "10.244.0.0" };
            ip(&format!("{on}addr add {prefix}.0/32 dev vxlan0"));
            ip(&format!("{on}route add {other}/24 via {other} dev vxlan0 onlink"));
        }
        send_on();
        serve(Some(&pod), Ipv4Addr::UNSPECIFIED, &[HOST_PORT.target.1, 8001, 8002]);
        serve(Some(&other_pod), Ipv4Addr::UNSPECIFIED, &[8003]);
        serve(Some(&other_node), Ipv4Addr::UNSPECIFIED, &[8004]);
        serve(None, NODE.parse().unwrap(), &[8005]);
        // Bound: from an unbound UDP socket that does not ask for PKTINFO the kernel answers as if it had asked by itself.
        serve(None, NODE_PUBLIC, &[HOST_NETWORK]);
        network
    }

    /// Whether a client on the internet is answered, over TCP and over UDP.
    fn answered(&self, port: u16) -> [bool; 2] {
        TRANSPORTS.map(|transport| {
            inside(Some(&self.internet), move || is_answered(transport, (NODE_PUBLIC, port).into()))
                .join()
                .unwrap()
        })
    }

    /// What the outside sees of a pod that connects from `source_port`; 0 is any.
    fn seen_from_pod(&self, source_port: u16) -> Option<Ipv4Addr> {
        inside(Some(&self.pod), move || {
            let mut stream = connect((Ipv4Addr::UNSPECIFIED, source_port).into(), (UNLISTED, 80).into())?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).ok()?;
            answer.parse().ok()
        })
        .join()
        .unwrap()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in self.others.iter().chain([&self.pod]) {
            ip(&format!("netns del {name}"));
        }
    }
}

/// What DigitalOcean does with a machine's packets. `pods` are ranges that nodes may send from into the VPC all the same.
pub fn drop_foreign_sources(cloud: &Cloud, pods: &[&str]) {
    let in_vpc = [NODE, OTHER_NODE];
    for (fabric, machines, pods) in
        [("inet", ["203.0.113.11", "203.0.113.12"], &[][..]), ("vpc", in_vpc, pods)]
    {
        let own = machines.map(|address| {
            let [a, b, c, d] = address.parse::<Ipv4Addr>().unwrap().octets();
            let allowed = [&[address], pods].concat().join(", ");
            format!("ether saddr 02:00:{a:02x}:{b:02x}:{c:02x}:{d:02x} ip saddr != {{ {allowed} }} drop")
        });
        let table = format!(
            "table bridge own {{ chain sources {{ type filter hook prerouting priority -300; {}; }}; }}",
            own.join("; ")
        );
        sh(&format!("ip netns exec {} nft '{table}'", cloud.name(fabric)));
    }
}

/// As portmap (host port) and kube-proxy (node ports) have it, and the node's masquerading of pods.
fn send_on() {
    let mut rules = vec!["*nat".to_owned(), ":MARK-MASQ - [0:0]".to_owned()];
    rules.push("-A MARK-MASQ -j MARK --or-mark 0x4000".to_owned());
    for port in forwarded() {
        for protocol in ["tcp", "udp"] {
            let what =
                format!("-A PREROUTING -m addrtype --dst-type LOCAL -p {protocol} --dport {}", port.public);
            if port.masqueraded {
                rules.push(format!("{what} -j MARK-MASQ"));
            }
            rules.push(format!("{what} -j DNAT --to-destination {}:{}", port.target.0, port.target.1));
        }
    }
    rules.push("-A POSTROUTING -m mark --mark 0x4000/0x4000 -j MASQUERADE".to_owned());
    rules.push("-A POSTROUTING -s 10.244.0.0/16 ! -d 10.244.0.0/16 -j MASQUERADE".to_owned());
    rules.push("COMMIT\\n".to_owned());
    sh(&format!("printf '{}' | iptables-restore", rules.join("\\n")));
}

/// Sends back what it gets, over TCP and UDP.
pub fn serve(namespace: Option<&str>, address: Ipv4Addr, ports: &'static [u16]) {
    let (ready, is_ready) = std::sync::mpsc::channel();
    for port in ports {
        let told = ready.clone();
        inside(namespace, move || {
            let listener = TcpListener::bind((address, *port)).unwrap();
            told.send(()).unwrap();
            for stream in listener.incoming() {
                let mut buffer = [0; 4];
                let mut stream = stream.unwrap();
                // A client that went away needs no answer.
                let _gone = stream.read_exact(&mut buffer).and_then(|()| stream.write_all(&buffer));
            }
        });
        let told = ready.clone();
        inside(namespace, move || {
            let socket = UdpSocket::bind((address, *port)).unwrap();
            told.send(()).unwrap();
            let mut buffer = [0; 4096];
            loop {
                let (length, from) = socket.recv_from(&mut buffer).unwrap();
                // No way back is for the client to notice.
                let _lost = socket.send_to(&buffer[..length], from);
            }
        });
    }
    for _ in 0..2 * ports.len() {
        is_ready.recv().unwrap();
    }
}

/// Whether a client on the internet, where the calling thread lives, is answered.
pub fn is_answered(transport: Transport, server: SocketAddr) -> bool {
    match transport {
        Transport::Tcp => connect((CLIENT, 0).into(), server).is_some_and(|mut stream| {
            let mut answer = [0; 4];
            stream.write_all(b"ping").is_ok() && stream.read_exact(&mut answer).is_ok()
        }),
        Transport::Udp => {
            let socket = UdpSocket::bind((CLIENT, 0)).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            // In fragments: only the first has a port in it.
            let (asked, mut answer) = ([7; 3000], [0; 4096]);
            socket.connect(server).unwrap();
            socket.send(&asked).is_ok() && socket.recv(&mut answer).is_ok_and(|length| length == asked.len())
        }
    }
}

const PATIENCE: Duration = Duration::from_millis(500);

fn connect(from: SocketAddr, to: SocketAddr) -> Option<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&from.into()).unwrap();
    socket.connect_timeout(&to.into(), PATIENCE).ok()?;
    let stream: TcpStream = socket.into();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    Some(stream)
}
