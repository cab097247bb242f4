//! A network namespace that stands for a machine or a network, and what is done in it.

use std::fs::File;
use std::io::Write;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use nix::sched::{CloneFlags, setns};

/// Dropping it removes it, with all links of it.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes it, with its loopback up.
    pub fn new(name: String) -> anyhow::Result<Self> {
        run(Command::new("ip").args(["netns", "add", &name]), "")?;
        let namespace = Self { name };
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// A network: one bridge, to which machines are plugged.
    pub fn fabric(name: String) -> anyhow::Result<Self> {
        let fabric = Self::new(name)?;
        // An address of its own: otherwise it takes one of a port, and another when that port goes.
        fabric.ip("link add fabric0 address 02:00:00:00:00:01 type bridge")?;
        fabric.ip("link set fabric0 up")?;
        // What a bridge passes on is nobody's to filter, and would be counted twice.
        fabric.sysctl("net.bridge.bridge-nf-call-iptables", "0")?;
        Ok(fabric)
    }

    /// Plugs the link `link` of this machine into `fabric`, where the port is called as given.
    pub fn plug(
        &self,
        link: &str,
        fabric: &Self,
        port: &str,
        address: Ipv4Addr,
        length: u8,
    ) -> anyhow::Result<()> {
        // A machine keeps its hardware address over a reboot.
        let [a, b, c, d] = address.octets();
        let mac = format!("02:00:{a:02x}:{b:02x}:{c:02x}:{d:02x}");
        self.ip(&format!("link add {link} address {mac} type veth peer name {port} netns {}", fabric.name))?;
        fabric.ip(&format!("link set dev {port} master fabric0 up"))?;
        self.ip(&format!("addr add {address}/{length} dev {link}"))?;
        self.ip(&format!("link set {link} up"))
    }

    /// What `ip netns` calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `ip` in it.
    pub fn ip(&self, arguments: &str) -> anyhow::Result<()> {
        run(Command::new("ip").args(["-n", &self.name]).args(arguments.split_whitespace()), "").map(drop)
    }

    /// One transaction of `nft` in it.
    pub fn nft(&self, rules: &str) -> anyhow::Result<()> {
        self.inside(|| run(Command::new("nft").args(["-f", "-"]), rules))?.map(drop)
    }

    /// What a counter of `nft` in it has counted: packets.
    pub fn counted(&self, table: &str, counter: &str) -> anyhow::Result<u64> {
        let listed = self.run("nft", &["list", "counter", "ip", table, counter], "")?;
        let count = listed.split("packets ").nth(1).and_then(|rest| rest.split_whitespace().next());
        count.and_then(|count| count.parse().ok()).with_context(|| format!("no counter {counter}: {listed}"))
    }

    /// Any program in it, with something to read; returns what it wrote.
    pub fn run(&self, program: &str, arguments: &[&str], input: &str) -> anyhow::Result<String> {
        self.inside(|| run(Command::new(program).args(arguments), input))?
    }

    /// Sets a kernel parameter of it. They are those of the namespace of the thread that opens the file.
    pub fn sysctl(&self, name: &str, value: &str) -> anyhow::Result<()> {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        self.inside(|| std::fs::write(&path, value))?.with_context(|| path.clone())
    }

    /// Does something on a thread that lives in it.
    pub fn inside<T: Send>(&self, what: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
        let entrance = self.entrance()?;
        std::thread::scope(|scope| {
            let living = scope.spawn(move || entrance.enter().map(|()| what()));
            living.join().map_err(|_| anyhow::anyhow!("a thread in {} died", self.name))?
        })
    }

    /// Moves the calling thread there for good.
    pub fn enter(&self) -> anyhow::Result<()> {
        self.entrance()?.enter()
    }

    /// A way in for a thread that outlives this borrow.
    pub fn entrance(&self) -> anyhow::Result<Entrance> {
        let path = format!("/run/netns/{}", self.name);
        Ok(Entrance(File::open(&path).context(path)?))
    }
}

/// A way into a namespace.
#[derive(Debug)]
pub struct Entrance(File);

impl Entrance {
    /// Moves the calling thread there for good.
    pub fn enter(self) -> anyhow::Result<()> {
        Ok(setns(self.0, CloneFlags::CLONE_NEWNET)?)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // One that somebody removed by hand is as good.
        let _gone = Command::new("ip").args(["netns", "del", &self.name]).output();
    }
}

fn run(command: &mut Command, input: &str) -> anyhow::Result<String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{command:?}"))?;
    // Dropped at once: the program reads to the end.
    child.stdin.take().context("a pipe")?.write_all(input.as_bytes()).or_else(unread)?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A program that reads nothing may have ended by now.
fn unread(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error) }
}
