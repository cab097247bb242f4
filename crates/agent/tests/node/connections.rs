//! What becomes of a TCP connection when its gateway loses power and the next one has another address (`docs/connections.md`). The
//! gateways have the forwarding rules of real ones, and the far server either resets what it does not know or drops it.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::cloud::{A, A_PUBLIC, B, B_PUBLIC, Cloud, NODE_PUBLIC, seen_from, sh, until};
use crate::ecmp::{PORT, serve};
use crate::pod::{Pod, inside};
use crate::scene::{Agent, LISTED, SOON, Scene, until_ready};

/// What forwards on a real gateway.
const APPLY: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../cloud-init/files/egress-gateway-apply"));
const FORWARDING: [&str; 5] = [
    "-A FORWARD -m conntrack --ctstate INVALID -j DROP",
    "-A FORWARD -i {private} -o {public} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    "-A FORWARD -i {public} -o {private} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    "-A FORWARD -i {private} -m conntrack --ctstate NEW -j EGRESS-NEW",
    "-A EGRESS-NEW -p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -j REJECT --reject-with tcp-reset",
];

/// Gives a gateway the rules of a real one.
fn filter(cloud: &Cloud, role: &str) {
    let iptables = format!("ip netns exec {} iptables", cloud.name(role));
    sh(&format!("{iptables} -P FORWARD DROP && {iptables} -N EGRESS-NEW"));
    for rule in FORWARDING {
        assert!(APPLY.contains(rule), "a real gateway has no such rule any more: {rule}");
        let rule = rule.replace("{private}", "eth1").replace("{public}", "eth0");
        sh(&format!("{iptables} {rule}"));
    }
    sh(&format!("{iptables} -A EGRESS-NEW -j ACCEPT"));
}

/// Segments of connections that the far server does not know vanish there.
fn drop_strays(cloud: &Cloud) {
    let far = format!("ip netns exec {}", cloud.name("inet"));
    sh(&format!("{far} iptables -A INPUT -p tcp --dport {PORT} -m conntrack --ctstate INVALID -j DROP"));
    sh(&format!("{far} sysctl -qw net.netfilter.nf_conntrack_tcp_loose=0"));
}

fn connect(number: u8) -> TcpStream {
    let stream = TcpStream::connect_timeout(
        &(Ipv4Addr::new(198, 18, 7, number), PORT).into(),
        Duration::from_secs(20),
    )
    .unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
    stream
}

/// Sends a byte and reads the answer.
fn ask(stream: &mut TcpStream) -> Result<Ipv4Addr, ErrorKind> {
    let mut answer = [0; 4];
    let asked = stream.write_all(b"?").and_then(|()| stream.read_exact(&mut answer));
    asked.map(|()| answer.into()).map_err(|error| error.kind())
}

/// What a client saw of one death.
#[derive(Debug)]
struct Fate {
    /// From the gateway's death to the reset of a connection that sent all the time.
    busy: Duration,
    /// From the first byte after the switch to the reset.
    sends_later: Duration,
    /// A connection that only reads noticed nothing for so long, and was reset when it sent.
    only_reads: Duration,
    /// How long a connection took that was begun right after the death.
    begun_meanwhile: Duration,
}

/// Lives through the death of A in a namespace, `None` being the node's. `dies` is called when all is ready.
fn live_through(namespace: Option<&str>, dies: impl FnOnce() + Send + 'static) -> Fate {
    let live = move || {
        let [mut busy, mut later, mut reader] = [1, 2, 3].map(connect);
        for stream in [&mut busy, &mut later, &mut reader] {
            assert_eq!(ask(stream), Ok(A_PUBLIC));
        }
        dies();
        let died = Instant::now();
        let begun = std::thread::spawn(|| {
            let started = Instant::now();
            let mut stream = connect(4);
            let took = started.elapsed();
            assert_eq!(ask(&mut stream), Ok(B_PUBLIC));
            took
        });
        let error = ask(&mut busy).unwrap_err();
        let busy = died.elapsed();
        assert_eq!(error, ErrorKind::ConnectionReset);
        let begun_meanwhile = begun.join().unwrap();

        // Everything goes through B now.
        reader.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let started = Instant::now();
        let error = reader.read_exact(&mut [0]).unwrap_err();
        let only_reads = started.elapsed();
        assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
        assert_eq!(ask(&mut reader), Err(ErrorKind::ConnectionReset));
        let started = Instant::now();
        assert_eq!(ask(&mut later), Err(ErrorKind::ConnectionReset));
        Fate { busy, sends_later: started.elapsed(), only_reads, begun_meanwhile }
    };
    inside(namespace, live).join().unwrap()
}

#[test]
fn after_an_unplanned_switch_connections_that_send_are_reset_whatever_the_far_server_does() {
    for drops in [false, true] {
        for from_pod in [false, true] {
            let scene = Scene::new();
            serve(&scene.cloud);
            filter(&scene.cloud, "a");
            filter(&scene.cloud, "b");
            if drops {
                drop_strays(&scene.cloud);
            }
            let pod = from_pod.then(|| Pod::new(&scene.cloud, 7));
            if let Some(pod) = &pod {
                pod.translate(NODE_PUBLIC);
            }
            let agent = Agent::start(&scene);
            scene.route(
                "all",
                &json!({"destinations": ["0.0.0.0/0"], "gateways": [{"address": A}, {"address": B}]}),
            );
            scene.until_applied("all", 1);
            until("through A", &Some(A_PUBLIC), SOON, || seen_from(LISTED));
            until_ready();
            let a = scene.cloud.name("a");
            let fate = live_through(pod.as_ref().map(|pod| pod.namespace.as_str()), move || {
                // At once: a namespace that is deleted lives on for a moment.
                sh(&format!(
                    "ip -n {a} link set eth1 down && ip -n {a} link set eth0 down && ip netns del {a}"
                ));
            });
            eprintln!("far server drops strays: {drops}, from a pod: {from_pod}: {fate:?}");
            assert!(fate.busy < Duration::from_secs(10), "{fate:?}");
            assert!(fate.sends_later < Duration::from_secs(1), "{fate:?}");
            assert!(fate.only_reads >= Duration::from_secs(2), "{fate:?}");
            assert!(fate.begun_meanwhile < Duration::from_secs(5), "{fate:?}");
            drop((agent, pod));
        }
    }
}
