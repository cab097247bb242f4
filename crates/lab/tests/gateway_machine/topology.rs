//! The smallest cloud that a gateway can show everything in, in network namespaces of its own:
//!
//! ```text
//!  node 10.116.0.2, pod 10.244.0.5 ──┐              ┌── provider's gateway 203.0.113.1, internet 198.51.100.7,
//!  VPC gateway 10.116.0.1,           ├─ br-vpc ─ Droplet ─ br-pub ─┤  metadata 169.254.169.254
//!  peered 192.168.77.7             ──┘              └── (packets with a private source are counted)
//! ```
//!
//! Nothing leads out of it. Everything is gone when it is dropped.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use egress_controller::user_data::{LeavesWith, UserData, UserDataInput, render};
use nix::sched::{CloneFlags, setns};
use serde_json::{Value, json};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 116, 0, 100);
pub const GATEWAY_PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 100);
pub const NODE: Ipv4Addr = Ipv4Addr::new(10, 116, 0, 2);
pub const POD: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 5);
pub const INTERNET: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
pub const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// In a peered VPC: the Droplet itself reaches it through the VPC's gateway.
pub const PEERED: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 7);
/// Private addresses that exist behind the public side.
pub const PRIVATE_OUTSIDE: [Ipv4Addr; 2] = [Ipv4Addr::new(100, 64, 0, 9), Ipv4Addr::new(240, 0, 0, 9)];

const DROPLET: u64 = 3_164_494;
const PUBLIC_MAC: &str = "02:00:00:00:01:64";
const PRIVATE_MAC: &str = "02:00:00:00:02:64";

static NUMBER: AtomicU32 = AtomicU32::new(0);

pub struct Topology {
    name: String,
    pub state: PathBuf,
}

impl Topology {
    pub fn new() -> Self {
        assert!(nix::unistd::geteuid().is_root(), "real machines in network namespaces need root");
        let name = format!("gm{}n{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let state = Path::new(env!("CARGO_TARGET_TMPDIR")).join(&name);
        std::fs::create_dir_all(&state).expect("state folder");
        let topology = Self { name, state };
        topology.build();
        topology
    }

    fn build(&self) {
        for side in ["switch", "outside", "vpc", "node"] {
            run("ip", &["netns", "add", &self.namespace(side)]);
            self.ip(side, "link set lo up");
        }
        for (bridge, ends) in [("br-pub", &["outside"][..]), ("br-vpc", &["vpc", "node"])] {
            self.ip("switch", &format!("link add {bridge} type bridge"));
            self.ip("switch", &format!("link set {bridge} up"));
            for end in ends {
                let peer = self.namespace(end);
                self.ip("switch", &format!("link add to-{end} type veth peer name eth0 netns {peer}"));
                self.ip("switch", &format!("link set to-{end} master {bridge} up"));
                self.ip(end, "link set eth0 up");
            }
        }
        self.ip("outside", "address add 203.0.113.1/24 dev eth0");
        self.ip("outside", "address add 10.17.0.1/16 dev eth0");
        for address in [INTERNET, METADATA].iter().chain(&PRIVATE_OUTSIDE[..1]) {
            self.ip("outside", &format!("address add {address}/32 dev lo"));
        }
        self.ip("vpc", "address add 10.116.0.1/20 dev eth0");
        self.ip("vpc", &format!("address add {PEERED}/32 dev lo"));
        self.ip("vpc", "route add 10.244.0.0/16 via 10.116.0.2");
        self.shell(
            "vpc",
            "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 0 > /proc/sys/net/ipv4/conf/all/send_redirects; \
                           echo 0 > /proc/sys/net/ipv4/conf/eth0/send_redirects",
        );
        self.ip("node", &format!("address add {NODE}/20 dev eth0"));
        self.ip("node", &format!("address add {POD}/32 dev lo"));
        self.ip("node", &format!("route add default via {GATEWAY}"));
        for range in ["10.116.0.0/20", "10.244.0.0/16"] {
            self.shell("outside", &format!("iptables -t raw -A PREROUTING -i eth0 -s {range} -j DROP"));
        }
        self.serve_addresses("outside");
        self.serve_addresses("vpc");
        let wiring = json!({
            "namespace": format!("/run/netns/{}", self.namespace("switch")), "public": "br-pub", "private": "br-vpc",
        });
        std::fs::write(self.state.join("wiring.json"), wiring.to_string()).expect("wiring");
    }

    fn namespace(&self, side: &str) -> String {
        format!("{}-{side}", self.name)
    }

    pub fn ip(&self, side: &str, arguments: &str) {
        let namespace = self.namespace(side);
        let arguments: Vec<&str> = ["-n", &namespace].into_iter().chain(arguments.split(' ')).collect();
        run("ip", &arguments);
    }

    /// Runs a shell command in a namespace; its output, whatever its exit code.
    pub fn shell(&self, side: &str, command: &str) -> Output {
        let path = format!("--net=/run/netns/{}", self.namespace(side));
        Command::new("nsenter").args([&path, "sh", "-c", command]).output().expect("nsenter")
    }

    /// Runs a function in a thread in a namespace: sockets it makes stay there.
    pub fn inside<T: Send + 'static>(&self, side: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
        let path = format!("/run/netns/{}", self.namespace(side));
        std::thread::spawn(move || {
            setns(File::open(path).expect("namespace"), CloneFlags::CLONE_NEWNET).expect("setns");
            work()
        })
        .join()
        .expect("thread")
    }

    /// Port 80 at every address of the namespace: the metadata service for its paths, who-am-I otherwise.
    fn serve_addresses(&self, side: &str) {
        let listener = self.inside(side, || TcpListener::bind("0.0.0.0:80").expect("port 80"));
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                std::thread::spawn(move || answer(&mut stream));
            }
        });
    }

    /// Gives the Droplet, before its first boot, a disk that is no larger than this. What the lab writes has its own room.
    pub fn limit_disk(&self, mib: u32) {
        let (small, machine) = (self.small_disk(), self.disk().with_file_name(""));
        for folder in [&small, &machine] {
            std::fs::create_dir_all(folder).expect("folder");
        }
        run(
            "mount",
            &["-t", "tmpfs", "-o", &format!("size={mib}m"), "small-disk", small.to_str().expect("path")],
        );
        for layer in ["upper", "work"] {
            std::fs::create_dir(small.join(layer)).expect("layer");
            std::os::unix::fs::symlink(small.join(layer), machine.join(layer)).expect("layer");
        }
    }

    fn small_disk(&self) -> PathBuf {
        self.state.join("small-disk")
    }

    // ---- the Droplet -----------------------------------------------------------------------------------------

    fn lab(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_egress-lab"));
        command.arg("--name").arg(&self.name).arg("--state-dir").arg(&self.state).arg("machine");
        command
    }

    pub fn boot(&self) {
        self.boot_as("debian-12-x64", &[]);
    }

    /// With these public keys, as the cloud puts those that the Droplet was made with on it.
    pub fn boot_as(&self, image: &str, public_keys: &[&str]) {
        let description = json!({
            "id": DROPLET, "name": "egress-demo-0-1a2b3c4d", "image": image, "size": "s-1vcpu-1gb",
            "user_data": user_data(!public_keys.is_empty()).text, "ssh_keys": public_keys,
            "region": "nyc1", "vpc_uuid": "5a4981aa-9653-4bd1-bef5-d6bff52042e4",
            "public": {"address": GATEWAY_PUBLIC, "prefix": 24, "gateway": "203.0.113.1", "mac": PUBLIC_MAC},
            "private": {"address": GATEWAY, "prefix": 20, "gateway": "10.116.0.1", "mac": PRIVATE_MAC},
            "anchor": {"address": "10.17.0.100", "prefix": 16, "gateway": "10.17.0.1"},
        });
        let mut command = self.lab();
        let mut child =
            command.args(["boot", &DROPLET.to_string()]).stdin(Stdio::piped()).spawn().expect("egress-lab");
        child.stdin.take().expect("stdin").write_all(description.to_string().as_bytes()).expect("stdin");
        assert!(child.wait().expect("boot").success(), "boot");
    }

    pub fn machine(&self, verb: &str) {
        let done = self.lab().args([verb, &DROPLET.to_string()]).output().expect("egress-lab");
        assert!(done.status.success(), "{verb}: {}", String::from_utf8_lossy(&done.stderr));
    }

    /// Runs a shell command in the Droplet; standard output.
    pub fn exec(&self, command: &str) -> String {
        let done = self
            .lab()
            .args(["exec", &DROPLET.to_string(), "sh", "-c", command])
            .output()
            .expect("egress-lab");
        String::from_utf8_lossy(&done.stdout).into_owned()
    }

    /// What differs on the Droplet's disk from the shared root file system.
    pub fn disk(&self) -> PathBuf {
        self.state.join(format!("machines/{DROPLET}/upper"))
    }

    /// The lab's record of the machine's processes.
    pub fn processes(&self) -> Option<Value> {
        let text = std::fs::read(self.state.join(format!("machines/{DROPLET}/processes.json"))).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// The cgroups of this lab's machines.
    pub fn cgroups(&self) -> Vec<PathBuf> {
        let hierarchies =
            ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"].map(Path::new);
        let folders = hierarchies.map(|hierarchy| hierarchy.join(format!("egress-lab-{}", self.name)));
        folders.into_iter().filter(|folder| folder.exists()).collect()
    }

    /// Boots and waits until the machine says that it is ready; how long that took from power-on.
    pub fn boot_until_ready(&self) -> Duration {
        self.boot_until_ready_as("debian-12-x64")
    }

    /// The same with this image, which counts at the first boot.
    pub fn boot_until_ready_as(&self, image: &str) -> Duration {
        let started = Instant::now();
        self.boot_as(image, &[]);
        self.wait_for_health("ready", |status, _| status == 200);
        started.elapsed()
    }

    /// Status code and body of a path of the health endpoint, asked by the node.
    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        let path = path.to_owned();
        self.inside("node", move || http_get(NODE, SocketAddrV4::new(GATEWAY, 9180), &path))
    }

    pub fn health(&self) -> Option<(u16, Value)> {
        let (status, body) = self.get("/healthz")?;
        Some((status, serde_json::from_str(&body).expect("JSON")))
    }

    /// Waits until the health endpoint says what is expected; that answer.
    pub fn wait_for_health(&self, what: &str, expected: impl Fn(u16, &Value) -> bool) -> Value {
        let ends = Instant::now() + Duration::from_secs(60);
        loop {
            let health = self.health();
            if let Some((status, body)) = &health
                && expected(*status, body)
            {
                return body.clone();
            }
            assert!(
                Instant::now() < ends,
                "{what}: not within 60 s: {health:?}\n{}",
                self.exec("journalctl -n 60 --no-pager")
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Names the gateway's peers as the controller does; status code and body.
    pub fn put_peers(&self, peers: &Value) -> (u16, String) {
        let body = json!({ "peers": peers }).to_string();
        let request = format!("PUT /peers HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        self.inside("node", move || ask(NODE, SocketAddrV4::new(GATEWAY, 9180), &request)).expect("an answer")
    }

    /// Another gateway with nothing but a health endpoint, which says this of itself, and the address it leaves with.
    pub fn add_peer(&self, private: Ipv4Addr, public: Ipv4Addr, says: &Value) {
        self.ip("node", &format!("address add {private}/20 dev eth0"));
        self.ip("outside", &format!("address add {public}/24 dev eth0"));
        let listener = self.inside("node", move || TcpListener::bind((private, 9180)).expect("port 9180"));
        let body = says.to_string();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let _ = stream.read(&mut [0; 2048]);
                let _ = write!(stream, "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\n\r\n{body}");
            }
        });
    }

    // ---- what clients see ------------------------------------------------------------------------------------

    /// The address that the outside sees of a connection from `source`; `None` when it does not come about.
    pub fn who_am_i(&self, source: Ipv4Addr, target: Ipv4Addr) -> Option<String> {
        let (status, body) =
            self.inside("node", move || http_get(source, SocketAddrV4::new(target, 80), "/"))?;
        (status == 200).then_some(body)
    }

    /// Packets with a private source that came out on the public side.
    pub fn leaked(&self) -> u64 {
        let listed = self.shell("outside", "iptables -t raw -nvxL PREROUTING").stdout;
        let listed = String::from_utf8_lossy(&listed).into_owned();
        let counts: Vec<u64> = listed
            .lines()
            .filter(|line| line.contains("DROP"))
            .filter_map(|line| line.split_whitespace().next()?.parse().ok())
            .collect();
        assert_eq!(counts.len(), 2, "{listed}");
        counts.iter().sum()
    }
}

impl Drop for Topology {
    fn drop(&mut self) {
        let _ = self.lab().args(["destroy", &DROPLET.to_string()]).status();
        for side in ["switch", "outside", "vpc", "node"] {
            let _ = Command::new("ip").args(["netns", "delete", &self.namespace(side)]).status();
        }
        let _ = nix::mount::umount(&self.small_disk());
        let _ = std::fs::remove_dir_all(&self.state);
    }
}

/// As the controller renders it.
pub fn user_data(ssh: bool) -> UserData {
    let range = |text: &str| text.parse().expect("range");
    let input = UserDataInput {
        vpc_range: range("10.116.0.0/20"),
        pod_ranges: vec![range("10.244.0.0/16")],
        ssh,
        leaves_with: LeavesWith::Own,
    };
    render(&input).expect("user data")
}

fn run(program: &str, arguments: &[&str]) {
    let done = Command::new(program).args(arguments).output().expect(program);
    assert!(done.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
}

fn answer(stream: &mut TcpStream) {
    let mut request = Vec::new();
    let mut part = [0; 2048];
    // A close with something unread would reset the connection.
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read(&mut part) {
            Ok(length) if length > 0 => request.extend(&part[..length]),
            _ => return,
        }
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    let path = request.split(' ').nth(1).unwrap_or("/");
    let body = match path.strip_prefix("/metadata/v1/interfaces/") {
        Some("public/0/mac") => Some(PUBLIC_MAC.to_owned()),
        Some("public/0/ipv4/address") => Some(GATEWAY_PUBLIC.to_string()),
        Some("public/0/ipv4/gateway") => Some("203.0.113.1".to_owned()),
        Some("public/0/anchor_ipv4/address") => Some("10.17.0.100".to_owned()),
        Some("private/0/mac") => Some(PRIVATE_MAC.to_owned()),
        Some("private/0/ipv4/address") => Some(GATEWAY.to_string()),
        Some("private/0/ipv4/gateway") => Some("10.116.0.1".to_owned()),
        Some(_) => None,
        None => stream.peer_addr().ok().map(|peer| peer.ip().to_string()),
    };
    let status = if body.is_some() { "200 OK" } else { "404 Not Found" };
    let body = body.unwrap_or_default();
    let _ = write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
}

/// A connection from a given source address, in the namespace of the calling thread.
pub fn connect_from(source: Ipv4Addr, target: SocketAddrV4) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.bind(&SockAddr::from(SocketAddr::new(IpAddr::V4(source), 0)))?;
    socket.connect_timeout(&SockAddr::from(SocketAddr::V4(target)), Duration::from_millis(1500))?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    Ok(stream)
}

fn http_get(source: Ipv4Addr, target: SocketAddrV4, path: &str) -> Option<(u16, String)> {
    ask(source, target, &format!("GET {path} HTTP/1.1\r\nHost: {target}\r\n\r\n"))
}

fn ask(source: Ipv4Addr, target: SocketAddrV4, request: &str) -> Option<(u16, String)> {
    let mut stream = connect_from(source, target).ok()?;
    stream.write_all(request.as_bytes()).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}
