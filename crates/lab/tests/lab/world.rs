//! A lab of one's own for a test, gone when the test is.

use std::net::{Ipv4Addr, SocketAddrV4, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use egress_lab::netns;
use serde_json::Value;

static NUMBER: AtomicU32 = AtomicU32::new(0);

pub struct World {
    pub name: String,
    folder: tempfile::TempDir,
}

impl World {
    /// A name and a folder; nothing runs yet.
    pub fn new() -> Self {
        assert!(nix::unistd::geteuid().is_root(), "tests of the lab make namespaces: run them as root");
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = tempfile::Builder::new().prefix("egl").tempdir().unwrap();
        Self { name: format!("t{}x{number}", std::process::id()), folder }
    }

    /// A lab that runs.
    pub fn start(arguments: &[&str]) -> Self {
        let world = Self::new();
        world.run(&[&["start"], arguments].concat());
        world
    }

    pub fn state_dir(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_egress-lab"));
        command.arg("--name").arg(&self.name).arg("--state-dir").arg(self.state_dir());
        command.args(arguments).stdin(Stdio::null());
        command
    }

    pub fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// A command that must succeed; what it prints.
    pub fn run(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "egress-lab {arguments:?}: {}: {errors}", output.status);
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.run(&[arguments, &["-o", "json"]].concat())).unwrap()
    }

    pub fn spawn(&self, arguments: &[&str]) -> Child {
        self.command(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    pub fn namespace(&self, part: &str) -> PathBuf {
        netns::path(&format!("egl-{}-{part}", self.name))
    }

    /// A shell command inside a part, which must succeed; what it prints.
    pub fn shell(&self, part: &str, command: &str) -> String {
        self.run(&["exec", part, "--", "sh", "-c", command])
    }

    /// What the who-am-I server says to a part.
    pub fn whoami(&self, part: &str, server: SocketAddrV4) -> Option<Ipv4Addr> {
        // Long: the machine may be busy.
        self.whoami_within("10", part, server)
    }

    /// Whether the who-am-I server gives a part no answer for a second.
    pub fn hears_nothing(&self, part: &str, server: SocketAddrV4) -> bool {
        self.whoami_within("1", part, server).is_none()
    }

    fn whoami_within(&self, seconds: &str, part: &str, server: SocketAddrV4) -> Option<Ipv4Addr> {
        let url = format!("http://{server}/");
        let output = self.output(&["exec", part, "--", "curl", "-sS", "--max-time", seconds, &url]);
        let said = String::from_utf8(output.stdout).unwrap();
        output.status.success().then(|| said.trim().parse().unwrap())
    }

    /// Whether a connection is refused at once.
    pub fn is_refused(&self, part: &str, server: SocketAddrV4) -> bool {
        let outcome = netns::inside(&self.namespace(part), || {
            Ok(TcpStream::connect_timeout(&server.into(), Duration::from_secs(1))
                .map_err(|error| error.kind()))
        });
        matches!(outcome.unwrap(), Err(std::io::ErrorKind::ConnectionRefused))
    }

    /// Sends datagrams of a stream from a part, from that source address if one is given (the part must have it).
    pub fn send(&self, part: &str, source: Ipv4Addr, to: Ipv4Addr, stream: &str, numbers: &[u64]) {
        netns::inside(&self.namespace(part), || {
            let socket = UdpSocket::bind((source, 0)).unwrap();
            for number in numbers {
                socket.send_to(format!("{stream} {number}").as_bytes(), (to, 9999)).unwrap();
            }
            Ok(())
        })
        .unwrap();
    }

    /// The oracle's report of a stream, once it has that many different numbers.
    pub fn stream(&self, stream: &str, received: u64) -> Value {
        eventually(&format!("{received} datagrams of {stream} have arrived"), || {
            let oracle = self.json(&["oracle"]);
            let found =
                oracle["streams"].as_array().unwrap().iter().find(|one| one["stream"] == stream).cloned();
            found.filter(|one| one["received"] == received)
        })
    }

    /// Sources with which datagrams of a stream have arrived so far.
    pub fn sources(&self, stream: &str) -> Vec<String> {
        let oracle = self.json(&["oracle"]);
        let streams = oracle["streams"].as_array().unwrap();
        let sources = streams.iter().filter(|one| one["stream"] == stream);
        let sources = sources.flat_map(|one| one["sources"].as_array().unwrap().clone());
        sources.map(|one| one["source"].as_str().unwrap().to_owned()).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let output = self.output(&["stop"]);
        if !std::thread::panicking() {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

/// Asks again and again until there is a value.
pub fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(started.elapsed() < Duration::from_secs(30), "not within 30 s: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Everything on the machine that bears a lab's name, found without the lab's own code.
pub fn traces(name: &str) -> Vec<String> {
    let mut found = Vec::new();
    let marks = [format!("egl-{name}"), format!("egress-lab-{name}")];
    let is_ours = |text: &str| marks.iter().any(|mark| text.contains(mark.as_str()));
    let listed = |folder: &str| std::fs::read_dir(folder).into_iter().flatten().flatten();
    let name_of = |entry: &std::fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
    found.extend(listed("/run/netns").map(|entry| name_of(&entry)).filter(|one| is_ours(one)));
    for hierarchy in listed("/sys/fs/cgroup") {
        let groups = std::fs::read_dir(hierarchy.path()).into_iter().flatten().flatten();
        found.extend(groups.map(|entry| name_of(&entry)).filter(|one| is_ours(one)));
    }
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
    found.extend(mounts.lines().filter(|line| is_ours(line)).map(str::to_owned));
    for process in listed("/proc").filter(|entry| name_of(entry).bytes().all(|byte| byte.is_ascii_digit())) {
        let read = |file: &str| {
            let bytes = std::fs::read(process.path().join(file)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).replace('\0', " ")
        };
        let (command, groups) = (read("cmdline"), read("cgroup"));
        let is_named = command.contains(&format!("--name {name} "));
        // A dead process that nobody has waited for yet has no command line any more.
        if !command.is_empty() && (is_named || is_ours(&groups) || is_ours(&command)) {
            found.push(format!("process {}: {command}", name_of(&process)));
        }
    }
    found
}
