//! Connections from the internet to a node's public address while all egress goes through a gateway: answered where they came in, through
//! the CNI's own `hostPort` and the real kube-proxy. The lab drops what leaves with a source that is not the machine's own.

use std::process::Child;
use std::time::Duration;

use egress_lab::network::addresses::{NODES, STRANGER};
use serde_json::json;

use crate::lab::{Lab, until};

const MINUTE: Duration = Duration::from_secs(60);
/// Of the server in each pod.
const PORT: u16 = 8000;
const HOST_PORT: u16 = 18_080;
/// Of a Service whose pod is on node-1, `externalTrafficPolicy: Local`.
const LOCAL: u16 = 30_080;
/// Of one whose pod is on node-2, `Cluster`.
const CLUSTER: u16 = 30_081;
/// Answered by node-1 itself, as by a `hostNetwork` pod.
const HOST_NETWORK: u16 = 7_000;

/// Answers TCP and UDP with its name and who asks.
const SERVER: &str = r#"
import socket, sys, threading
name, port = sys.argv[1], int(sys.argv[2])
def word(client): return f"{name} {client[0]}".encode()
def udp():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind((sys.argv[3], port))
    while True:
        _, client = s.recvfrom(100)
        s.sendto(word(client), client)
threading.Thread(target=udp, daemon=True).start()
s = socket.create_server((sys.argv[3], port))
while True:
    c, client = s.accept()
    c.sendall(word(client))
    c.close()
"#;

/// Prints what the server says; nothing when it says nothing for a second.
const CLIENT: &str = r#"
import socket, sys
kind = socket.SOCK_STREAM if sys.argv[3] == "TCP" else socket.SOCK_DGRAM
s = socket.socket(socket.AF_INET, kind)
s.settimeout(1)
try:
    s.connect((sys.argv[1], int(sys.argv[2])))
    if kind == socket.SOCK_DGRAM: s.send(b"?")
    print(s.recv(100).decode())
except OSError: pass
"#;

/// Servers, which end with the test.
struct Servers(Vec<Child>);

impl Servers {
    fn start(&mut self, lab: &Lab, place: &str, name: &str, port: u16, address: &str) {
        let port = port.to_string();
        let mut server = lab.command(&["exec", place, "--", "python3", "-c", SERVER, name, &port, address]);
        self.0.push(server.spawn().unwrap());
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for server in &mut self.0 {
            let _ended = server.kill();
            let _waited = server.wait();
        }
    }
}

/// All egress goes through a gateway already.
pub fn connections_are_answered_where_they_came_in(lab: &Lab) {
    let [first, second] = NODES;
    for node in NODES {
        let name = format!("server-{}", node.name);
        let ports = if node == first {
            ["TCP", "UDP"]
                .map(|protocol| json!({"containerPort": PORT, "hostPort": HOST_PORT, "protocol": protocol}))
                .to_vec()
        } else {
            Vec::new()
        };
        lab.apply(&json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"server": node.name}},
            "spec": {"nodeName": node.name, "terminationGracePeriodSeconds": 0, "containers": [
                {"name": "server", "image": "curlimages/curl:7.80.0", "command": ["sleep", "infinity"], "ports": ports},
            ]},
        }));
    }
    for (name, port, policy, node) in
        [("local", LOCAL, "Local", first), ("cluster", CLUSTER, "Cluster", second)]
    {
        let ports = ["TCP", "UDP"].map(|protocol| {
            json!({"name": protocol.to_lowercase(), "protocol": protocol, "port": 80, "targetPort": PORT,
                "nodePort": port})
        });
        lab.apply(&json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"type": "NodePort", "externalTrafficPolicy": policy, "selector": {"server": node.name}, "ports": ports},
        }));
    }
    lab.kubectl(&["wait", "--for=condition=Ready", "--timeout=60s", "pod", "-l", "server"]);
    let mut servers = Servers(Vec::new());
    for node in NODES {
        servers.start(lab, &format!("pod:default/server-{}", node.name), node.name, PORT, "0.0.0.0");
    }
    servers.start(lab, first.name, "itself", HOST_NETWORK, &first.public.to_string());

    // Who answers, and whether it sees who asked: kube-proxy translates the client where any node may answer.
    let stranger = Some(STRANGER.to_string());
    let asked = [
        ("hostPort", first, HOST_PORT, first.name, stranger.clone()),
        ("NodePort, Local", first, LOCAL, first.name, stranger.clone()),
        ("NodePort, Cluster, sent on", first, CLUSTER, second.name, None),
        ("NodePort, Cluster, answered here", second, CLUSTER, second.name, None),
        ("hostNetwork", first, HOST_NETWORK, "itself", stranger),
    ];
    for (what, node, port, name, client) in asked {
        for protocol in ["TCP", "UDP"] {
            until(&format!("{what}, {protocol}"), &true, MINUTE, || {
                let (address, port) = (node.public.to_string(), port.to_string());
                let answer =
                    lab.lab(&["exec", "internet", "--", "python3", "-c", CLIENT, &address, &port, protocol]);
                let mut words = answer.split_whitespace();
                words.next() == Some(name)
                    && words.next().is_some_and(|seen| client.as_deref().is_none_or(|client| client == seen))
            });
        }
    }
    drop(servers);
    lab.kubectl(&["delete", "pod", "-l", "server", "--timeout=60s"]);
    lab.kubectl(&["delete", "service", "local", "cluster"]);
    eprintln!("ok   hostPort, NodePort and hostNetwork are answered on the public side, TCP and UDP");
}
