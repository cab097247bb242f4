//! Which other gateways reach the probe port on the public side: the gateway's own half of the admit list.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::packets::{Answer, ping, scan};
use crate::topology::{GATEWAY_PUBLIC, INTERNET, NODE, Topology, connect_from};

const PEER: Ipv4Addr = Ipv4Addr::new(10, 116, 0, 101);
const PEER_PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 101);
const OTHER: Ipv4Addr = Ipv4Addr::new(10, 116, 0, 102);
const OTHER_PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 102);

/// What a probe of the public side from this address comes to.
fn probe(source: Ipv4Addr) -> ErrorKind {
    connect_from(source, SocketAddrV4::new(GATEWAY_PUBLIC, 9181))
        .map_or_else(|error| error.kind(), |_| ErrorKind::Other)
}

fn with_peers() -> Topology {
    let cloud = Topology::new();
    for (private, public) in [(PEER, PEER_PUBLIC), (OTHER, OTHER_PUBLIC)] {
        cloud.add_peer(private, public, &json!({"privateAddress": private, "publicAddress": public}));
    }
    cloud.boot_until_ready();
    cloud
}

fn admit(cloud: &Topology, private: &[Ipv4Addr], public: &[Ipv4Addr]) {
    let (status, body) = cloud.put_peers(&json!(private));
    assert_eq!(status, 200, "{body}");
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body, json!({"peers": public, "unanswered": []}));
    let (status, health) = cloud.health().expect("health");
    assert_eq!((status, &health["peers"]), (200, &json!(public)));
}

fn assert_probe(cloud: &Topology, source: Ipv4Addr, expected: ErrorKind) {
    assert_eq!(cloud.inside("outside", move || probe(source)), expected, "probe from {source}");
}

#[test]
fn the_public_probe_port_answers_admitted_peers_and_nobody_else() {
    let cloud = with_peers();
    for source in [PEER_PUBLIC, OTHER_PUBLIC] {
        assert_probe(&cloud, source, ErrorKind::TimedOut);
    }
    admit(&cloud, &[PEER], &[PEER_PUBLIC]);
    assert_probe(&cloud, PEER_PUBLIC, ErrorKind::ConnectionRefused);
    assert_probe(&cloud, OTHER_PUBLIC, ErrorKind::TimedOut);
    assert_eq!(
        cloud.inside("outside", || scan(GATEWAY_PUBLIC, 1..=u16::MAX)),
        [],
        "a scan from any other address"
    );
    assert!(!cloud.inside("outside", || ping(GATEWAY_PUBLIC)), "ping on the public side");

    // The peer itself finds that one port, refused.
    cloud.ip("outside", "address flush dev eth0");
    cloud.ip("outside", &format!("address add {PEER_PUBLIC}/24 dev eth0"));
    let seen = cloud.inside("outside", || scan(GATEWAY_PUBLIC, (1..=1024).chain(9170..=9190)));
    assert_eq!(seen, [(9181, Answer::Refused)]);
}

#[test]
fn probes_of_peers_need_no_place_in_the_conntrack_table() {
    let cloud = with_peers();
    admit(&cloud, &[PEER], &[PEER_PUBLIC]);
    // A full table has no place for what is new and is dropped for it: here whatever has or would need one.
    cloud.exec("iptables -t mangle -A PREROUTING -m conntrack ! --ctstate UNTRACKED -j DROP");
    cloud.exec("iptables -t mangle -A OUTPUT -m conntrack --ctstate NEW,ESTABLISHED,RELATED -j DROP");
    assert_eq!(cloud.who_am_i(NODE, INTERNET), None, "what is tracked gets through: the test shows nothing");
    for _ in 0..20 {
        assert_probe(&cloud, PEER_PUBLIC, ErrorKind::ConnectionRefused);
    }
}

#[test]
fn admitted_peers_outlive_a_restart_a_new_run_a_reboot_and_a_flush() {
    let cloud = with_peers();
    admit(&cloud, &[PEER], &[PEER_PUBLIC]);
    let still_there = |what: &str| {
        let body = cloud.wait_for_health(what, |status, _| status == 200);
        assert_eq!(body["peers"], json!([PEER_PUBLIC]), "{what}");
        assert_eq!(body["errors"], json!([]), "{what}");
        assert!(!body["warnings"].to_string().contains("not ours"), "{what}: {body}");
        assert_probe(&cloud, PEER_PUBLIC, ErrorKind::ConnectionRefused);
    };
    cloud.exec("systemctl restart egress-gateway-health.service");
    still_there("a restart of the health endpoint");
    cloud.exec("systemctl stop egress-gateway-health.service; systemctl restart egress-gateway.service");
    assert_probe(&cloud, PEER_PUBLIC, ErrorKind::ConnectionRefused);
    cloud.exec("systemctl start egress-gateway-health.service");
    still_there("a new run of the rules while nobody watched");
    cloud.machine("power-off");
    cloud.boot();
    still_there("a boot");

    cloud.exec("iptables -F EGRESS-PEERS; iptables -t raw -F EGRESS-PEERS");
    let started = std::time::Instant::now();
    while cloud.inside("outside", || probe(PEER_PUBLIC)) != ErrorKind::ConnectionRefused {
        assert!(started.elapsed().as_secs() < 10, "a flushed chain is not put back");
    }
    still_there("a flush");

    admit(&cloud, &[], &[]);
    assert_probe(&cloud, PEER_PUBLIC, ErrorKind::TimedOut);
    cloud.machine("power-off");
    cloud.boot_until_ready();
    assert_probe(&cloud, PEER_PUBLIC, ErrorKind::TimedOut);
}

#[test]
fn a_peer_that_stays_is_admitted_at_every_moment_of_a_change() {
    let cloud = with_peers();
    admit(&cloud, &[PEER], &[PEER_PUBLIC]);
    let done = Arc::new(AtomicBool::new(false));
    let probing = std::thread::scope(|scope| {
        let prober = scope.spawn(|| {
            let done = done.clone();
            cloud.inside("outside", move || {
                let mut answers = Vec::new();
                while !done.load(Ordering::Relaxed) {
                    answers.push(probe(PEER_PUBLIC));
                }
                answers
            })
        });
        for _ in 0..30 {
            admit(&cloud, &[PEER, OTHER], &[PEER_PUBLIC, OTHER_PUBLIC]);
            admit(&cloud, &[PEER], &[PEER_PUBLIC]);
        }
        done.store(true, Ordering::Relaxed);
        prober.join().expect("prober")
    });
    println!("{} probes during 60 changes", probing.len());
    assert!(probing.len() > 1000, "{}", probing.len());
    let other: Vec<_> = probing.iter().filter(|answer| **answer != ErrorKind::ConnectionRefused).collect();
    assert!(other.is_empty(), "{} of {}: {:?}", other.len(), probing.len(), other[0]);
    assert_probe(&cloud, OTHER_PUBLIC, ErrorKind::TimedOut);
}

#[test]
fn nobody_is_admitted_on_the_callers_word() {
    let cloud = with_peers();
    let liars = [
        (103, json!({"privateAddress": PEER, "publicAddress": PEER_PUBLIC})),
        (104, json!({"privateAddress": "10.116.0.104", "publicAddress": "10.116.0.2"})),
        (105, json!({"privateAddress": "10.116.0.105", "publicAddress": "203.0.113.0/24"})),
        (106, json!(["203.0.113.106"])),
    ];
    let mut named = vec!["10.116.0.107".to_owned()];
    for (number, says) in liars {
        let private = Ipv4Addr::new(10, 116, 0, number);
        cloud.add_peer(private, Ipv4Addr::new(203, 0, 113, number), &says);
        named.push(private.to_string());
    }
    let (status, body) = cloud.put_peers(&json!(named));
    assert_eq!(status, 200, "{body}");
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["peers"], json!([]));
    assert_eq!(body["unanswered"].as_array().map(Vec::len), Some(5), "{body}");

    admit(&cloud, &[PEER], &[PEER_PUBLIC]);
    let nine: Vec<String> = (1..=9).map(|number| format!("10.116.1.{number}")).collect();
    for refused in [
        json!(["203.0.113.101"]),
        json!(["10.116.0.101", "10.116.0.101"]),
        json!(["10.116.0.101/32"]),
        json!([1]),
        json!("10.116.0.101"),
        json!({"10.116.0.101": true, "a": 1}),
        json!(nine),
        Value::Null,
    ] {
        let (status, body) = cloud.put_peers(&refused);
        assert_eq!(status, 400, "{refused}: {body}");
    }
    assert_eq!(
        cloud.health().expect("health").1["peers"],
        json!([PEER_PUBLIC]),
        "a refused request changed something"
    );
    assert_probe(&cloud, PEER_PUBLIC, ErrorKind::ConnectionRefused);
    // The gateway does not name itself.
    admit(&cloud, &["10.116.0.100".parse().unwrap()], &[]);
}
