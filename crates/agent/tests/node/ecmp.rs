//! Gateways that share the traffic: who leaves takes nobody along, and who comes back takes nobody's connection.
//!
//! The kernel's own hash spreads by address pair, as on a node where nobody set `fib_multipath_hash_policy`: each flow of these
//! tests has a destination of its own, all of which the internet of the scene answers for.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use egress_api::NodeRouteState;
use nix::sched::{CloneFlags, setns};
use serde_json::json;

use crate::cloud::{A, A_PUBLIC, B, B_PUBLIC, Cloud, ip, ours, seen_from, sh, until};
use crate::pod::inside;
use crate::scene::{Agent, LISTED, Monitor, SOON, Scene, until_ready};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/staticroute-active-active.yaml");
pub const PORT: u16 = 7007;
const PATIENCE: Duration = Duration::from_secs(2);
/// Longer than a gateway must be up before it is used again.
const HOLD_DOWN: Duration = Duration::from_secs(30);

/// A connection to the outside, and the address that it has there.
pub struct Flow {
    stream: TcpStream,
    seen: Ipv4Addr,
}

impl Flow {
    fn open(number: u8) -> Self {
        let to = (Ipv4Addr::new(198, 18, 7, number), PORT);
        let stream = TcpStream::connect_timeout(&to.into(), PATIENCE).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut flow = Self { stream, seen: Ipv4Addr::UNSPECIFIED };
        flow.seen = flow.ask().unwrap();
        flow
    }

    /// Sends a byte, and gets the address that the other end sees.
    fn ask(&mut self) -> std::io::Result<Ipv4Addr> {
        let mut answer = [0; 4];
        self.stream.write_all(b"?")?;
        self.stream.read_exact(&mut answer)?;
        Ok(answer.into())
    }
}

/// Connections through the node that live on.
pub struct Flows(Vec<Flow>);

impl Flows {
    pub fn open(count: u8) -> Self {
        Self((0..count).map(Flow::open).collect())
    }

    /// From a namespace, such as a pod's.
    pub fn open_in(namespace: &str, count: u8) -> Self {
        inside(Some(namespace), move || Self::open(count)).join().unwrap()
    }

    pub fn through(&self, gateway: Ipv4Addr) -> usize {
        self.0.iter().filter(|flow| flow.seen == gateway).count()
    }

    /// Uses every connection; those that broke are taken out, and the address that each had is returned.
    pub fn broken(&mut self) -> Vec<Ipv4Addr> {
        let mut broken = Vec::new();
        self.0.retain_mut(|flow| {
            let lives = flow.ask().is_ok_and(|seen| {
                assert_eq!(seen, flow.seen, "no connection changes its address");
                true
            });
            if !lives {
                broken.push(flow.seen);
            }
            lives
        });
        broken
    }
}

/// Tells each connection its own address for every byte.
pub fn serve(cloud: &Cloud) {
    let namespace = std::fs::File::open(format!("/run/netns/{}", cloud.name("inet"))).unwrap();
    let (ready, is_ready) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
        let listener = TcpListener::bind(("0.0.0.0", PORT)).unwrap();
        ready.send(()).unwrap();
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let Ok(std::net::SocketAddr::V4(caller)) = stream.peer_addr() else { continue };
            std::thread::spawn(move || {
                let mut byte = [0];
                // Until the other end is gone, or what is between says so.
                while stream.read_exact(&mut byte).is_ok() && stream.write_all(&caller.ip().octets()).is_ok()
                {
                }
            });
        }
    });
    is_ready.recv().unwrap();
}

/// Who shares the traffic, as the node says.
fn sharing(scene: &Scene) -> Vec<String> {
    scene.route_report("all").map(|report| report.gateways).unwrap_or_default()
}

fn both() -> Vec<String> {
    vec![A.to_owned(), B.to_owned()]
}

fn only(gateway: &str) -> Vec<String> {
    vec![gateway.to_owned()]
}

/// The addresses that the outside sees for many destinations.
fn seen() -> BTreeSet<Option<Ipv4Addr>> {
    (0..24).map(|number| seen_from(Ipv4Addr::new(198, 18, 9, number))).collect()
}

/// How many nexthop objects share the traffic.
fn members() -> usize {
    let shown = ip("nexthop show proto 157");
    let group = shown.lines().find(|line| line.contains("type resilient"));
    let members = group.and_then(|line| line.split("group ").nth(1)?.split_whitespace().next());
    members.map_or(0, |members| members.split('/').count())
}

#[test]
fn a_dead_gateway_takes_only_its_own_connections_along_and_comes_back_without_any() {
    let scene = Scene::new();
    serve(&scene.cloud);
    let agent = Agent::start(&scene);
    let active = json!({"destinations": ["0.0.0.0/0"], "mode": "ActiveActive",
        "gateways": [{"address": A}, {"address": B}]});
    scene.route("all", &active);
    scene.until_applied("all", 1);
    until("both", &both(), SOON, || sharing(&scene));
    let mut flows = Flows::open(100);
    let (through_a, through_b) = (flows.through(A_PUBLIC), flows.through(B_PUBLIC));
    assert!(through_a >= 25 && through_b >= 25, "{through_a} and {through_b} of 100");

    // A loses power: with one gateway left the group must stay one that the kernel hashes into.
    scene.cloud.power_off("a");
    until("B alone", &only(B), SOON, || sharing(&scene));
    let broken = flows.broken();
    assert_eq!((broken.len(), flows.0.len()), (through_a, through_b));
    assert!(broken.iter().all(|seen| *seen == A_PUBLIC), "only A's: {broken:?}");
    assert_eq!(seen(), [Some(B_PUBLIC)].into());

    // A comes back, and nobody else's connection moves, used or not while it was away.
    scene.cloud.start_gateway("a", "203.0.113.5", A);
    until("both again", &both(), HOLD_DOWN, || sharing(&scene));
    assert_eq!(flows.broken(), [] as [Ipv4Addr; 0], "of {through_b} live connections");

    // A restart reads all of it back.
    until("settled", &true, SOON, || scene.state_of("all") == Some((NodeRouteState::Applied, 1)));
    let before = ours();
    agent.kill();
    assert_eq!(flows.broken(), [] as [Ipv4Addr; 0]);
    let monitor = Monitor::start(&["route", "rule", "nexthop"]);
    let agent = Agent::start(&scene);
    until_ready();
    assert_eq!(monitor.stop(), Vec::<String>::new(), "a restart wrote to the kernel");
    assert_eq!(ours(), before);
    assert_eq!(flows.broken(), [] as [Ipv4Addr; 0]);

    // One at a time, and back: the routes are replaced in place, and who is used stays in use.
    scene.cloud.count_leaks(LISTED);
    let mut standby = active.clone();
    standby["mode"] = json!("ActiveStandby");
    scene.route("all", &standby);
    until("A alone", &true, SOON, || {
        scene.route_report("all").is_some_and(|report| report.gateway.as_deref() == Some(A))
    });
    assert_eq!(seen(), [Some(A_PUBLIC)].into());
    scene.route("all", &active);
    until("both", &both(), SOON, || sharing(&scene));
    for damage in ["ip nexthop flush proto 157", "ip link set eth1 down && ip link set eth1 up"] {
        sh(damage);
        until(damage, &true, SOON, || ip("nexthop show proto 157").contains("type resilient"));
        until(damage, &true, SOON, || seen_from(LISTED).is_some());
    }
    assert_eq!(scene.cloud.leaks(), 0);

    // Both dead: the group stays as it is, and nothing leaves with the node's own address.
    scene.cloud.power_off("b");
    until("A alone", &only(A), SOON, || sharing(&scene));
    scene.cloud.power_off("a");
    until("nothing gets through", &None, SOON, || seen_from(LISTED));
    assert!(ip("nexthop show proto 157").contains("type resilient"));
    assert_eq!(scene.cloud.leaks(), 0);
    drop(agent);
}

#[test]
fn weights_share_out_the_connections_and_an_agent_without_its_api_server_keeps_sharing() {
    let scene = Scene::new();
    serve(&scene.cloud);
    let agent = Agent::start(&scene);
    // As it is in `examples/`; its gateways are those of this scene.
    scene.kubectl(&["apply", "--server-side", "-f", EXAMPLE]);
    scene.until_applied("shared-by-two", 1);
    let shown = ip("nexthop show proto 157");
    let group = shown.lines().find(|line| line.contains("type resilient")).unwrap();
    assert_eq!((group.matches(",3").count(), group.matches('/').count()), (2, 3), "{group}");
    for host in 16..32 {
        let seen = seen_from(Ipv4Addr::new(192, 0, 2, host));
        assert!([Some(A_PUBLIC), Some(B_PUBLIC)].contains(&seen), "{host}: {seen:?}");
    }
    scene.delete_route("shared-by-two");

    scene.route(
        "all",
        &json!({"destinations": ["0.0.0.0/0"], "mode": "ActiveActive",
        "gateways": [{"address": A, "weight": 3}, {"address": B}]}),
    );
    scene.until_applied("all", 1);
    until("both", &both(), SOON, || sharing(&scene));
    let mut flows = Flows::open(200);
    let through_a = flows.through(A_PUBLIC);
    // 150 are expected; the hash throws dice: six standard deviations.
    assert!((113..=187).contains(&through_a), "{through_a} of 200 with weights 3 and 1");

    // The API server is gone, and the agent that starts now never saw it.
    scene.cut_off_api_server();
    agent.kill();
    let agent = Agent::start(&scene);
    agent.until_says("keeping what the kernel holds");
    assert_eq!(flows.broken(), [] as [Ipv4Addr; 0]);
    scene.cloud.power_off("b");
    until("through A alone", &[Some(A_PUBLIC)].into(), SOON, seen);
    let broken = flows.broken();
    assert_eq!(broken.len(), 200 - through_a);
    assert!(broken.iter().all(|seen| *seen == B_PUBLIC), "only B's: {broken:?}");
    scene.cloud.start_gateway("b", "203.0.113.6", B);
    until("B is back", &4, HOLD_DOWN, members);
    assert_eq!(flows.broken(), [] as [Ipv4Addr; 0], "of {through_a} live connections");

    let before = ours();
    scene.reconnect_api_server();
    until_ready();
    assert_eq!(ours(), before);
    drop(agent);
}
