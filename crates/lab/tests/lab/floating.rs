//! One address that moves between two gateways: connections that send go on, the one that loses it is silent whatever is wrong with it,
//! and probes show who forwards without it.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use egress_controller::user_data::LeavesWith;
use egress_lab::netns;
use egress_lab::network::addresses::NODES;
use serde_json::{Value, json};

use crate::reserved_ips::{Gateway, act, cloud, gateway_with};
use crate::world::{World, eventually};

const WHOAMI: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 80), 80);
/// Where connections lead that are to survive.
const PARTNER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 77), 7777);
const EACH: usize = 100;
/// First of the ports that lead to health targets (`cloud-init/README.md`).
const RELAY_PORT: u16 = 9182;

/// Two gateways and an address that the first has.
fn pair(world: &World) -> ([Gateway; 2], Ipv4Addr) {
    let targets = BTreeSet::from([WHOAMI]);
    let leaves_with = LeavesWith::Floating { targets };
    let gateways = ["gw-a", "gw-b"].map(|name| gateway_with(world, name, leaves_with.clone()));
    let reserved = cloud(world, "POST", "/v2/reserved_ips", &json!({"region": "nyc1"}));
    let ip: Ipv4Addr = reserved["reserved_ip"]["ip"].as_str().unwrap().parse().unwrap();
    assign(world, ip, &gateways[0]);
    (gateways, ip)
}

fn assign(world: &World, ip: Ipv4Addr, to: &Gateway) {
    act(world, ip, &json!({"type": "assign", "droplet_id": to.id}));
    eventually("the holder has noticed", || (to.leaves_with(world) == Some(ip)).then_some(()));
}

/// Both nodes send to these through that gateway from now on.
fn route(world: &World, gateway: &Gateway) {
    for node in NODES {
        for to in [PARTNER.ip(), WHOAMI.ip()] {
            world.shell(node.name, &format!("ip route replace {to}/32 via {}", gateway.private));
        }
    }
}

/// With which addresses packets came to a destination.
fn sources(world: &World, to: &Ipv4Addr) -> BTreeSet<String> {
    let oracle = world.json(&["oracle"]);
    let packets = oracle["packets"].as_array().unwrap();
    let to = json!(to);
    let of_these = packets.iter().filter(|one| one["destination"] == to && one["packets"].as_u64() > Some(0));
    of_these.map(|one| one["source"].as_str().unwrap().to_owned()).collect()
}

/// Sends back what comes.
fn serve(world: &World) {
    let listen = || Ok(TcpListener::bind((Ipv4Addr::UNSPECIFIED, PARTNER.port())).unwrap());
    let listener = netns::inside(&world.namespace("internet"), listen).unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut bytes = [0; 256];
                while let Ok(length @ 1..) = stream.read(&mut bytes) {
                    if stream.write_all(&bytes[..length]).is_err() {
                        return;
                    }
                }
            });
        }
    });
}

/// Connections that send a byte now and then, and read what comes back.
struct Connections {
    over: Arc<AtomicBool>,
    all: Vec<JoinHandle<Result<(), String>>>,
}

impl Connections {
    fn begin(world: &World) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let begin = |node: &str| {
            let connect = || Ok((0..EACH).map(|_| TcpStream::connect(PARTNER).unwrap()).collect::<Vec<_>>());
            netns::inside(&world.namespace(node), connect).unwrap()
        };
        let streams = NODES.iter().flat_map(|node| begin(node.name)).collect::<Vec<_>>();
        let all = streams.into_iter().map(|stream| {
            let over = Arc::clone(&over);
            std::thread::spawn(move || live(stream, &over))
        });
        let all = all.collect();
        Self { over, all }
    }

    /// Waits until everything that was sent has come back; what became of those of which it has not.
    fn end(self) -> Vec<String> {
        self.over.store(true, Ordering::Relaxed);
        self.all.into_iter().filter_map(|one| one.join().unwrap().err()).collect()
    }
}

fn live(mut stream: TcpStream, over: &AtomicBool) -> Result<(), String> {
    stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let (mut sent, mut came) = (0_usize, 0);
    let mut ended: Option<Instant> = None;
    let mut bytes = [0; 256];
    loop {
        let is_over = over.load(Ordering::Relaxed);
        if is_over && sent == came {
            return Ok(());
        }
        let since = is_over.then(|| *ended.get_or_insert_with(Instant::now));
        // A retransmission may be half a minute away by then.
        if since.is_some_and(|since| since.elapsed() > Duration::from_secs(90)) {
            return Err(format!("{came} of {sent} bytes came back"));
        }
        if !is_over {
            stream.write_all(b"x").map_err(|error| format!("after {sent} bytes: {error}"))?;
            sent += 1;
        }
        match stream.read(&mut bytes) {
            Ok(0) => return Err(format!("ended after {came} of {sent} bytes")),
            Ok(length) => came += length,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(format!("after {came} of {sent} bytes: {error}")),
        }
    }
}

#[test]
fn connections_that_send_survive_moves_of_five_and_thirty_seconds_and_are_seen_with_one_address() {
    let world = World::start(&["--size", "network"]);
    let ([a, b], ip) = pair(&world);
    serve(&world);
    route(&world, &a);
    assert_eq!(world.whoami("node-1", WHOAMI), Some(ip));
    world.run(&["oracle", "reset"]);

    let connections = Connections::begin(&world);
    std::thread::sleep(Duration::from_secs(2));
    // From one that lives to the other, and from one that is dead.
    for (takes, from, to) in [(5, &a, &b), (30, &b, &a)] {
        if takes == 30 {
            world.run(&["kill", &from.id.to_string()]);
        }
        act(&world, ip, &json!({"type": "unassign"}));
        std::thread::sleep(Duration::from_secs(takes));
        assign(&world, ip, to);
        // As an agent does it: the address is seen there.
        route(&world, to);
        std::thread::sleep(Duration::from_secs(2));
        assert_eq!(world.whoami("node-1", WHOAMI), Some(ip));
    }
    let lost = connections.end();
    eprintln!("{} of {} connections survived both moves: {lost:?}", 2 * EACH - lost.len(), 2 * EACH);
    assert!(lost.len() * 100 <= 2 * EACH, "{lost:?}");
    assert_eq!(sources(&world, PARTNER.ip()), BTreeSet::from([ip.to_string()]));
}

#[test]
fn whoever_lost_the_address_sends_nothing_whatever_is_wrong_with_it() {
    let world = World::start(&["--size", "network"]);
    let ([a, b], ip) = pair(&world);
    route(&world, &a);
    assert_eq!(world.whoami("node-1", WHOAMI), Some(ip));
    world.run(&["oracle", "reset"]);
    // It does not notice that it lost the address, and then less and less of it is as it should be.
    world.shell("gw-a", "systemctl stop egress-gateway-follow egress-gateway-health");
    assign(&world, ip, &b);
    let numbers: Vec<u64> = (0..50).collect();
    for (what, harm) in [
        ("it has not noticed", "true"),
        (
            "no rule leads to the table of the address",
            "while ip rule del priority 157 2>/dev/null; do :; done",
        ),
        ("it does not translate", "iptables -t nat -F"),
        ("it filters nothing", "iptables -P FORWARD ACCEPT; iptables -F"),
        ("nothing stands behind the translation", "nft delete table ip egress-last-line"),
    ] {
        world.shell("gw-a", harm);
        assert!(world.hears_nothing("node-1", WHOAMI), "{what}");
        world.send("node-1", NODES[0].vpc, *PARTNER.ip(), "to-the-loser", &numbers);
        let seen = sources(&world, PARTNER.ip());
        assert!(seen.is_empty(), "{what}: left with {seen:?}");
    }
    // What is sent through the holder arrives meanwhile, with the address.
    route(&world, &b);
    assert_eq!(world.whoami("node-1", WHOAMI), Some(ip));
    world.run(&["reboot", &a.id.to_string()]);
    let started = Instant::now();
    while a.says(&world)["awaitsAddress"] != true {
        assert!(started.elapsed() < Duration::from_secs(90), "{}", a.says(&world));
    }
}

#[test]
fn probes_show_who_forwards_whoever_has_the_address_and_nothing_else_goes_their_way() {
    let world = World::start(&["--size", "network"]);
    let ([a, b], ip) = pair(&world);
    for gateway in [&a, &b] {
        let relay = SocketAddrV4::new(gateway.private, RELAY_PORT);
        assert_eq!(world.whoami("node-1", relay), Some(gateway.own), "to the target and back");
        let none = SocketAddrV4::new(gateway.private, RELAY_PORT + 1);
        assert!(world.hears_nothing("node-1", none), "there is one target");
    }
    // What goes to the target itself is traffic: with the address, or not at all.
    route(&world, &a);
    assert_eq!(world.whoami("node-1", WHOAMI), Some(ip));
    route(&world, &b);
    assert!(world.hears_nothing("node-1", WHOAMI));
    let says: Value = b.says(&world);
    assert_eq!((&says["awaitsAddress"], &says["ready"]), (&json!(true), &json!(false)), "{says}");
    // A probe port is no way to anybody else, from the node itself or for what it forwards.
    world.shell("gw-b", "sysctl -qw net.ipv4.ip_forward=0");
    let relay = SocketAddrV4::new(b.private, RELAY_PORT);
    assert!(world.hears_nothing("node-1", relay), "it does not forward, and that shows");
}
