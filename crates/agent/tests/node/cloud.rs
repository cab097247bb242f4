//! A node, two gateways and an internet in network namespaces of their own, without a way out of them.
//!
//! ```text
//!  node  eth0 203.0.113.11 ──┐
//!  A     eth0 203.0.113.5  ──┼── internet: owns every public address, who-am-I on port 80
//!  B     eth0 203.0.113.6  ──┘
//!  node  eth1 10.116.0.2   ──┐
//!  A     eth1 10.116.0.5   ──┼── VPC
//!  B     eth1 10.116.0.12  ──┘
//! ```
//! The node is the namespace of the calling thread: API server and agent started from it live there, on its loopback.

use std::collections::HashSet;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns, unshare};

/// Gateway A in the VPC.
pub const A: &str = "10.116.0.5";
/// Its public address.
pub const A_PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);
/// Gateway B in the VPC.
pub const B: &str = "10.116.0.12";
/// Its public address.
pub const B_PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 6);
/// Where a machine asks for its metadata.
const METADATA: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(169, 254, 169, 254), 80);
/// The node's public address.
pub const NODE_PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 11);

static MADE: AtomicU32 = AtomicU32::new(0);

pub struct Cloud {
    prefix: String,
}

impl Cloud {
    /// Makes everything, and makes the calling thread live on the node.
    pub fn new() -> Self {
        assert!(nix::unistd::geteuid().is_root(), "this test makes network namespaces and needs root");
        let cloud =
            Self { prefix: format!("agt{}n{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed)) };
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
        let (internet, vpc) = (cloud.name("inet"), cloud.name("vpc"));
        for name in [&internet, &vpc] {
            ip(&format!("netns add {name}"));
            ip(&format!("-n {name} link set lo up"));
            // An address of its own: otherwise the bridge takes one of its ports', and another when that port goes.
            ip(&format!("-n {name} link add fabric0 address 02:00:00:00:00:01 type bridge"));
            ip(&format!("-n {name} link set fabric0 up"));
        }
        ip(&format!("-n {internet} addr add 203.0.113.1/24 dev fabric0"));
        ip(&format!("-n {internet} route add local 0.0.0.0/0 dev lo"));
        cloud.boot_node();
        cloud.start_gateway("a", "203.0.113.5", A);
        cloud.start_gateway("b", "203.0.113.6", B);
        cloud.serve_who_am_i();
        cloud
    }

    /// Name of a namespace of this scene.
    pub fn name(&self, role: &str) -> String {
        format!("{}-{role}", self.prefix)
    }

    /// Gives a machine, `None` being the node, its link to the internet and its link to the VPC.
    pub fn attach(&self, machine: Option<&str>, public: &str, private: &str, hardware: u8) {
        self.link(machine, "eth0", "inet", &format!("{public}/24"), hardware);
        self.attach_private(machine, private, hardware);
        let inside = machine.map(|name| format!("-n {name} ")).unwrap_or_default();
        ip(&format!("{inside}route add default via 203.0.113.1"));
    }

    /// Makes the namespace of the calling thread the node: its links come up anew.
    pub fn boot_node(&self) {
        ip("link set lo up");
        self.attach(None, "203.0.113.11", "10.116.0.2", 0);
    }

    /// Gives it its link to the VPC.
    pub fn attach_private(&self, machine: Option<&str>, private: &str, hardware: u8) {
        self.link(machine, "eth1", "vpc", &format!("{private}/20"), hardware);
    }

    fn link(&self, machine: Option<&str>, link: &str, fabric: &str, address: &str, hardware: u8) {
        let inside = machine.map(|name| format!("-n {name} ")).unwrap_or_default();
        let fabric = self.name(fabric);
        let port = format!("{link}-{}", address.replace(['.', '/'], ""));
        let port = &port[..port.len().min(15)];
        // A machine keeps its hardware address over a reboot.
        let [a, b, c, d] = address.split('/').next().unwrap().parse::<Ipv4Addr>().unwrap().octets();
        let mac = format!("02:{hardware:02x}:{a:02x}:{b:02x}:{c:02x}:{d:02x}");
        ip(&format!("{inside}link add {link} address {mac} type veth peer name {port} netns {fabric}"));
        ip(&format!("-n {fabric} link set {port} master fabric0 up"));
        ip(&format!("{inside}addr add {address} dev {link}"));
        ip(&format!("{inside}link set {link} up"));
    }

    /// A NAT gateway as the guides make it by hand.
    pub fn start_gateway(&self, role: &str, public: &str, private: &str) {
        self.boot(role, public, private, 0);
    }

    /// The same on another machine: its hardware addresses are other ones.
    pub fn start_other_machine(&self, role: &str, public: &str, private: &str) {
        self.boot(role, public, private, 1);
    }

    fn boot(&self, role: &str, public: &str, private: &str, hardware: u8) {
        let name = self.name(role);
        ip(&format!("netns add {name}"));
        ip(&format!("-n {name} link set lo up"));
        self.attach(Some(&name), public, private, hardware);
        sh(&format!("ip netns exec {name} sysctl -qw net.ipv4.ip_forward=1"));
        sh(&format!(
            "ip netns exec {name} iptables -t nat -A POSTROUTING -s 10.116.0.0/20 -o eth0 -j MASQUERADE"
        ));
    }

    /// As an EgressGateway's machine does: its probe port on the public side is refused to these, and nothing is answered there to
    /// anybody else. The one in the VPC is refused untracked.
    pub fn admit(&self, role: &str, peers: &[Ipv4Addr]) {
        let name = self.name(role);
        let run = |rule: &str| sh(&format!("ip netns exec {name} iptables {rule}"));
        for peer in peers {
            run(&format!("-A INPUT -i eth0 -s {peer} -p tcp --dport 9181 -j REJECT --reject-with tcp-reset"));
        }
        run("-A INPUT -i eth0 -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT");
        run("-A INPUT -i eth0 -j DROP");
        // Its own only: what it forwards to another gateway's must be translated.
        let own = if role == "a" { A } else { B };
        for rule in [
            format!("PREROUTING -i eth1 -d {own} -p tcp --dport 9181"),
            format!("OUTPUT -o eth1 -s {own} -p tcp --sport 9181"),
        ] {
            run(&format!("-t raw -A {rule} -j NOTRACK"));
        }
    }

    /// A gateway loses power: its network stack is gone.
    pub fn power_off(&self, role: &str) {
        let name = self.name(role);
        // A namespace goes some time after its name; its links, with both ends, at once.
        for link in ["eth0", "eth1"] {
            ip(&format!("-n {name} link del {link}"));
        }
        ip(&format!("netns del {name}"));
    }

    /// Counts from now on what reaches the internet with the node's own public address on its way to `target`, and to those
    /// that were named before.
    pub fn count_leaks(&self, target: Ipv4Addr) {
        let leak = format!("ip saddr {NODE_PUBLIC} ip daddr {target} counter");
        let rules = format!(
            "table ip oracle {{ chain leaks {{ type filter hook prerouting priority -300; {leak}; }}; }}"
        );
        sh(&format!("ip netns exec {} nft '{rules}'", self.name("inet")));
    }

    /// How many there were.
    pub fn leaks(&self) -> u64 {
        self.counted("oracle")
    }

    /// Counts from now on the datagrams that reach the internet on their way to `target`, whatever their source.
    pub fn count_arrivals(&self, target: Ipv4Addr) {
        let rules = format!(
            "table ip arrivals {{ chain every {{ type filter hook prerouting priority -300; ip daddr {target} udp dport 9999 \
             counter; }}; }}"
        );
        sh(&format!("ip netns exec {} nft '{rules}'", self.name("inet")));
    }

    /// How many there were.
    pub fn arrivals(&self) -> u64 {
        self.counted("arrivals")
    }

    /// Forgets both counts.
    pub fn stop_counting(&self) {
        for table in ["oracle", "arrivals"] {
            let gone = format!("add table ip {table}; delete table ip {table}");
            sh(&format!("ip netns exec {} nft '{gone}'", self.name("inet")));
        }
    }

    fn counted(&self, table: &str) -> u64 {
        let listed = sh(&format!("ip netns exec {} nft list table ip {table}", self.name("inet")));
        let counts = listed.split("counter packets ").skip(1);
        counts.map(|count| count.split_whitespace().next().unwrap().parse::<u64>().unwrap()).sum()
    }

    /// Runs a command in the internet.
    pub fn in_internet(&self, command: &str) -> String {
        sh(&format!("ip netns exec {} {command}", self.name("inet")))
    }

    /// A listener in the internet, at every address; who connects to what it accepts is somewhere else all the same.
    fn listen_in_internet(&self, port: u16) -> TcpListener {
        let namespace = File::open(format!("/run/netns/{}", self.name("inet"))).unwrap();
        let listening = std::thread::spawn(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap()
        });
        listening.join().unwrap()
    }

    /// What is at `to` on the node answers at every address of the internet, on `port`.
    pub fn publish(&self, port: u16, to: SocketAddr) -> Relay {
        let listener = self.listen_in_internet(port);
        let relay = Relay::default();
        let open = Arc::clone(&relay.open);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (Ok(outer), Ok(inner)) = (stream, TcpStream::connect(to)) else { continue };
                open.lock().unwrap().push(outer.try_clone().unwrap());
                for (mut from, mut to) in [(outer.try_clone(), inner.try_clone()), (Ok(inner), Ok(outer))]
                    .map(|(a, b)| (a.unwrap(), b.unwrap()))
                {
                    std::thread::spawn(move || {
                        let _broken = std::io::copy(&mut from, &mut to);
                        let _gone = to.shutdown(Shutdown::Write);
                    });
                }
            }
        });
        relay
    }

    /// A socket on the internet that takes datagrams for every public address.
    pub fn listen(&self, port: u16) -> UdpSocket {
        let namespace = File::open(format!("/run/netns/{}", self.name("inet"))).unwrap();
        // A socket stays where it was made; the thread that made it need not.
        let made = std::thread::spawn(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            UdpSocket::bind(("0.0.0.0", port)).unwrap()
        });
        made.join().unwrap()
    }

    fn serve_who_am_i(&self) {
        let listener = self.listen_in_internet(80);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let Ok(SocketAddr::V4(caller)) = stream.peer_addr() else { continue };
                if stream.local_addr().is_ok_and(|asked| asked == METADATA.into()) {
                    // Nobody's metadata is here. Who only wants to know whether somebody answers asks nothing.
                    stream.set_read_timeout(Some(Duration::from_millis(800))).unwrap();
                    let _gone = stream.read(&mut [0; 1024]);
                    let _gone = stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
                    continue;
                }
                // A client that went away needs no answer.
                let _gone = stream.write_all(caller.ip().to_string().as_bytes());
            }
        });
    }
}

/// Connections from the internet to something on the node.
#[derive(Default)]
pub struct Relay {
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Relay {
    /// Ends all of them; new ones are welcome.
    pub fn end_connections(&self) {
        for stream in self.open.lock().unwrap().drain(..) {
            // It may have ended by itself.
            let _ended = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        for role in ["a", "b", "c", "vpc", "inet"] {
            // A gateway may have lost power before, and only some scenes have a third machine.
            let _gone = Command::new("ip").args(["netns", "del", &self.name(role)]).output();
        }
    }
}

/// The address that the outside sees when the node connects to `target`.
pub fn seen_from(target: Ipv4Addr) -> Option<Ipv4Addr> {
    let mut stream = TcpStream::connect_timeout(&(target, 80).into(), Duration::from_millis(800)).ok()?;
    stream.set_read_timeout(Some(Duration::from_millis(800))).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.parse().ok()
}

/// Waits until the value is what it should be, at most for `deadline`; returns how long that took.
pub fn until<T: PartialEq + std::fmt::Debug>(
    what: &str,
    expected: &T,
    deadline: Duration,
    mut look: impl FnMut() -> T,
) -> Duration {
    let started = Instant::now();
    loop {
        let seen = look();
        if seen == *expected {
            return started.elapsed();
        }
        assert!(started.elapsed() < deadline, "{what}: {} after {deadline:?}", difference(&seen, expected));
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Of thousands of routes only those that differ.
fn difference(seen: &impl std::fmt::Debug, expected: &impl std::fmt::Debug) -> String {
    let (seen, expected) = (format!("{seen:?}"), format!("{expected:?}"));
    let only_in = |text: &str, other: &str| {
        let others: HashSet<&str> = other.split("\\n").collect();
        text.split("\\n").filter(|line| !others.contains(line)).collect::<Vec<_>>().join("\n")
    };
    format!("{} instead of {}", only_in(&seen, &expected), only_in(&expected, &seen))
}

/// Everything of ours in the kernel of the node, as `ip` shows it.
pub fn ours() -> String {
    let routes = sh("ip -4 route show table all proto 157");
    // `ip rule show` takes a protocol and does not filter by it.
    let rules = sh("ip -4 -details rule show | grep 'proto 157' || true");
    // Without the time for which a group has been out of balance, which goes on.
    let nexthops = sh("ip nexthop show proto 157 | sed 's/ unbalanced_time [0-9.]*//'");
    format!("{routes}{rules}{nexthops}")
}

pub fn ip(arguments: &str) -> String {
    sh(&format!("ip {arguments}"))
}

pub fn sh(command: &str) -> String {
    let output: Output = Command::new("sh").args(["-c", command]).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
