//! An address that moves between gateways: the agent follows it when it is seen, connections that send go on, and nothing ever leaves with
//! another one. The gateways have the rules of real ones as far as the address goes; that those are so is shown where they boot (`lab`).

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::cloud::{A, A_PUBLIC, B, B_PUBLIC, sh, until};
use crate::ecmp::{PORT, serve};
use crate::scene::{Agent, SOON, Scene};

/// The address.
const SHARED: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 200);
/// Where connections lead.
const PARTNER: Ipv4Addr = Ipv4Addr::new(198, 18, 7, 1);
/// In the order of their relay ports.
const TARGETS: [&str; 3] = ["198.51.100.1:443", "198.51.100.2:443", "198.51.100.3:443"];
const CONNECTIONS: usize = 200;
/// From when the address is there until an agent has followed: a probe a second, and what a busy machine adds.
const FOLLOWED_WITHIN: Duration = Duration::from_secs(6);

struct Pair {
    scene: Scene,
    _agent: Agent,
}

impl Pair {
    /// A has the address, and the agent has proven both.
    fn new() -> Self {
        let scene = Scene::new();
        for (role, private, public) in [("a", A, A_PUBLIC), ("b", B, B_PUBLIC)] {
            prepare(&scene, role, private, public);
        }
        let agent = Agent::start(&scene);
        let pair = Self { scene, _agent: agent };
        pair.comes("a");
        let health = json!({"targets": TARGETS, "holdDownSeconds": 2});
        pair.scene.apply(&json!({
            "apiVersion": "networking.digitalocean.com/v1alpha1", "kind": "EgressGateway", "metadata": {"name": "pair"},
            "spec": {"destinations": [PARTNER], "publicIP": "Floating", "healthCheck": health},
        }));
        let gateway = |slot: usize, private: &str| json!({"name": format!("pair-{slot}"), "slot": slot, "dropletID": slot + 1, "privateAddress": private, "role": "Standby", "ready": true});
        let status = json!({"status": {"publicIPs": [SHARED], "gateways": [gateway(0, A), gateway(1, B)]}});
        pair.scene.kubectl(&[
            "patch",
            "egressgateway",
            "pair",
            "--subresource=status",
            "--type=merge",
            "-p",
            &status.to_string(),
        ]);
        let gateways =
            json!([{"address": A, "egressAddress": SHARED}, {"address": B, "egressAddress": SHARED}]);
        pair.scene
            .route("pair", &json!({"destinations": [PARTNER], "gateways": gateways, "healthCheck": health}));
        until("both forward, and the address is at A", &true, SOON, || {
            pair.sees(A) == Some((true, Some(true))) && pair.sees(B) == Some((true, None))
        });
        until("through A", &Some(A.to_owned()), SOON, || pair.uses());
        pair
    }

    /// Whether the agent gets through a gateway past the address, and sees the address there.
    fn sees(&self, gateway: &str) -> Option<(bool, Option<bool>)> {
        let said = self.scene.status()?.gateways;
        let view = said.into_iter().find(|one| one.address == gateway)?;
        Some((view.reachable && view.forwards == Some(true), view.expected_source))
    }

    fn uses(&self) -> Option<String> {
        self.scene.route_report("pair")?.gateway
    }

    fn inside(&self, role: &str, command: &str) {
        sh(&format!("ip netns exec {} sh -c '{command}'", self.scene.cloud.name(role)));
    }

    fn comes(&self, role: &str) {
        // Whoever sends to it learns where it is.
        self.scene
            .cloud
            .in_internet(&format!("sh -c 'ip neigh del {SHARED} dev fabric0 2>/dev/null || true'"));
        self.inside(role, &format!("ip addr add {SHARED}/32 dev eth0 && ip route replace default via 203.0.113.1 dev eth0 table 157"));
    }

    fn goes(&self, role: &str) {
        self.inside(
            role,
            &format!(
                "ip route del default via 203.0.113.1 dev eth0 table 157 && ip addr del {SHARED}/32 dev eth0"
            ),
        );
    }

    /// Counts from now on what comes to the partner with another address.
    fn count_strangers(&self) {
        let rules = format!(
            "table ip strangers {{ chain every {{ type filter hook prerouting priority -300; ip daddr {PARTNER} ip saddr != {SHARED} counter; }}; }}"
        );
        self.scene.cloud.in_internet(&format!("nft '{rules}'"));
    }

    fn strangers(&self) -> u64 {
        let listed = self.scene.cloud.in_internet("nft list table ip strangers");
        let count = listed.split("counter packets ").nth(1).unwrap();
        count.split_whitespace().next().unwrap().parse().unwrap()
    }
}

/// Gives a gateway what one with an address that moves has.
fn prepare(scene: &Scene, role: &str, private: &str, public: Ipv4Addr) {
    let name = scene.cloud.name(role);
    let run = |command: &str| sh(&format!("ip netns exec {name} {command}"));
    run("iptables -t nat -F POSTROUTING");
    run(&format!(
        "iptables -t raw -A PREROUTING -i eth1 -d {private} -p tcp --dport 9182:9184 -j MARK --set-mark 0x9d"
    ));
    for (port, target) in (9182..).zip(TARGETS) {
        run(&format!(
            "iptables -t nat -A PREROUTING -i eth1 -d {private} -p tcp --dport {port} -j DNAT --to-destination {target}"
        ));
    }
    run(&format!("iptables -t nat -A POSTROUTING -o eth0 -m mark --mark 0x9d -j SNAT --to-source {public}"));
    run(&format!("iptables -t nat -A POSTROUTING -s 10.116.0.0/20 -o eth0 -j SNAT --to-source {SHARED}"));
    // What is of no connection yet waits for its client: it is not answered with a reset.
    run(&format!(
        "iptables -A INPUT -i eth0 -d {SHARED} -m conntrack ! --ctstate ESTABLISHED,RELATED -j DROP"
    ));
    run("ip route add blackhole default metric 4000000 table 157");
    run("ip rule add priority 156 fwmark 0x9d iif eth1 lookup main");
    run("ip rule add priority 157 iif eth1 lookup 157");
}

/// Connections that send a byte twice a second.
struct Connections {
    over: Arc<AtomicBool>,
    all: Vec<JoinHandle<Result<(), String>>>,
}

impl Connections {
    fn begin() -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let streams: Vec<_> =
            (0..CONNECTIONS).map(|_| TcpStream::connect((PARTNER, PORT)).unwrap()).collect();
        let all = streams.into_iter().map(|stream| {
            let over = Arc::clone(&over);
            std::thread::spawn(move || live(stream, &over))
        });
        let all = all.collect();
        Self { over, all }
    }

    /// Waits until all that was sent is answered; what became of those of which it is not.
    fn end(self) -> Vec<String> {
        self.over.store(true, Ordering::Relaxed);
        self.all.into_iter().filter_map(|one| one.join().unwrap().err()).collect()
    }
}

fn live(mut stream: TcpStream, over: &AtomicBool) -> Result<(), String> {
    stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let (mut sent, mut answers) = (0_usize, Vec::new());
    let mut ended: Option<Instant> = None;
    let mut bytes = [0; 1024];
    loop {
        let is_over = over.load(Ordering::Relaxed);
        if is_over && answers.len() == 4 * sent {
            let strange = answers.chunks(4).find(|seen| *seen != SHARED.octets());
            return strange.map_or(Ok(()), |seen| Err(format!("seen as {seen:?}")));
        }
        // A retransmission may be half a minute away by then.
        let since = is_over.then(|| *ended.get_or_insert_with(Instant::now));
        if since.is_some_and(|since| since.elapsed() > Duration::from_secs(90)) {
            return Err(format!("{} of {sent} bytes were answered", answers.len() / 4));
        }
        if !is_over {
            stream.write_all(b"?").map_err(|error| format!("after {sent} bytes: {error}"))?;
            sent += 1;
        }
        match stream.read(&mut bytes) {
            Ok(0) => return Err(format!("ended after {sent} bytes")),
            Ok(length) => answers.extend_from_slice(&bytes[..length]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(format!("after {sent} bytes: {error}")),
        }
    }
}

#[test]
fn the_agent_follows_the_address_and_connections_that_send_survive_moves_of_five_and_thirty_seconds() {
    let pair = Pair::new();
    serve(&pair.scene.cloud);
    pair.scene.cloud.count_leaks(PARTNER);
    pair.count_strangers();
    let connections = Connections::begin();
    std::thread::sleep(Duration::from_secs(2));
    for (takes, from, to, holder, next) in [(5, "a", "b", A, B), (30, "b", "a", B, A)] {
        match takes {
            5 => pair.goes(from),
            _ => pair.scene.cloud.power_off(from),
        }
        let gone = Instant::now();
        while gone.elapsed() < Duration::from_secs(takes) {
            assert_eq!(pair.uses().as_deref(), Some(holder), "it went where the address is not");
            std::thread::sleep(Duration::from_millis(200));
        }
        pair.comes(to);
        let took = until("the agent follows", &Some(next.to_owned()), FOLLOWED_WITHIN, || pair.uses());
        eprintln!("a move of {takes} s: followed after {took:?}");
        until("the node says so", &Some((true, Some(true))), SOON, || pair.sees(next));
        std::thread::sleep(Duration::from_secs(2));
    }
    let lost = connections.end();
    eprintln!("{} of {CONNECTIONS} connections survived both moves: {lost:?}", CONNECTIONS - lost.len());
    assert!(lost.len() * 100 <= CONNECTIONS, "{lost:?}");
    assert_eq!((pair.scene.cloud.leaks(), pair.strangers()), (0, 0), "left with another address");
}
