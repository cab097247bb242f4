//! A node with a public side and a VPC, and two gateways in that VPC, in network namespaces that lead nowhere.
//!
//! The node is the namespace of the thread that makes it: sockets, API server and programs started from it live there.

use std::fs::File;
use std::net::Ipv4Addr;
use std::process::Command;

use anyhow::ensure;
use nix::sched::{CloneFlags, setns, unshare};

/// First gateway.
pub const A: Ipv4Addr = Ipv4Addr::new(10, 116, 0, 5);
/// Second gateway.
pub const B: Ipv4Addr = Ipv4Addr::new(10, 116, 0, 12);
/// The node in the VPC.
pub const NODE_VPC: Ipv4Addr = Ipv4Addr::new(10, 116, 0, 2);
/// The node outside.
pub const NODE_PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 11);

/// The namespaces; dropping it removes them.
pub struct Network {
    prefix: String,
}

impl Network {
    /// Makes everything, and makes the calling thread live on the node.
    pub fn new() -> anyhow::Result<Self> {
        let network = Self { prefix: format!("bench{}", std::process::id()) };
        unshare(CloneFlags::CLONE_NEWNET)?;
        ip("link set lo up")?;
        let fabrics = [("eth0", network.name("inet")), ("eth1", network.name("vpc"))];
        for (_, fabric) in &fabrics {
            ip(&format!("netns add {fabric}"))?;
            ip(&format!("-n {fabric} link add fabric0 type bridge"))?;
            ip(&format!("-n {fabric} link set fabric0 up"))?;
        }
        ip(&format!("-n {} addr add 203.0.113.1/24 dev fabric0", network.name("inet")))?;
        // Refused at once: there is no metadata service here.
        ip(&format!("-n {} link set lo up", network.name("inet")))?;
        ip(&format!("-n {} addr add 169.254.169.254/32 dev lo", network.name("inet")))?;
        let addresses = [format!("{NODE_PUBLIC}/24"), format!("{NODE_VPC}/20")];
        for ((link, fabric), address) in fabrics.iter().zip(addresses) {
            plug("", link, fabric, "node", &address)?;
        }
        ip("route add default via 203.0.113.1")?;
        for (name, address) in [("a", A), ("b", B)] {
            let machine = network.name(name);
            ip(&format!("netns add {machine}"))?;
            plug(&format!("-n {machine} "), "eth1", &network.name("vpc"), name, &format!("{address}/20"))?;
        }
        Ok(network)
    }

    fn name(&self, role: &str) -> String {
        format!("{}-{role}", self.prefix)
    }

    /// From now on gateway `a` answers nothing, though its link is up: a machine that hangs.
    pub fn silence(&self) -> anyhow::Result<()> {
        self.on_a("nft add table ip silence '{ chain every { type filter hook prerouting priority -400; drop; }; }'")
    }

    /// It answers again.
    pub fn wake(&self) -> anyhow::Result<()> {
        self.on_a("nft delete table ip silence")
    }

    fn on_a(&self, command: &str) -> anyhow::Result<()> {
        sh(&format!("ip netns exec {} {command}", self.name("a")))
    }

    /// Moves the calling thread onto gateway `a`.
    pub fn enter_a(&self) -> anyhow::Result<()> {
        Ok(setns(File::open(format!("/run/netns/{}", self.name("a")))?, CloneFlags::CLONE_NEWNET)?)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for role in ["a", "b", "vpc", "inet"] {
            // Half made, it may not be there.
            let _gone = Command::new("ip").args(["netns", "del", &self.name(role)]).output();
        }
    }
}

fn plug(machine: &str, link: &str, fabric: &str, port: &str, address: &str) -> anyhow::Result<()> {
    ip(&format!("{machine}link add {link} type veth peer name {port} netns {fabric}"))?;
    ip(&format!("-n {fabric} link set dev {port} master fabric0 up"))?;
    ip(&format!("{machine}addr add {address} dev {link}"))?;
    ip(&format!("{machine}link set {link} up"))
}

fn ip(arguments: &str) -> anyhow::Result<()> {
    sh(&format!("ip {arguments}"))
}

fn sh(command: &str) -> anyhow::Result<()> {
    let output = Command::new("sh").args(["-c", command]).output()?;
    ensure!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
