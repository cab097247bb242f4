//! Plugging a Droplet into the lab's network.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use super::process::write_json;
use super::{DropletSpec, MachineError, Port};
use crate::network::{DropletLinks, Segment, attach_droplet, detach_droplet};
use crate::state::Lab;

const FILE: &str = "wiring.json";

/// The network a Droplet is plugged into. Called by its supervisor at each start of the machine.
pub trait Wiring {
    /// Gives the machine its two interfaces, eth0 (public) and eth1 (VPC), with the MAC addresses of `spec`. `leader`
    /// is its process 1, whose network namespace has nothing but a loopback interface. Addresses are the machine's
    /// own matter.
    fn attach(&self, spec: &DropletSpec, leader: i32) -> Result<(), MachineError>;

    /// Takes away what `attach` left outside of the machine. Called when the machine is off, and before each start;
    /// nothing being there is no error.
    fn detach(&self, spec: &DropletSpec) -> Result<(), MachineError>;
}

/// The lab's own network: DigitalOcean's packet rules at the Droplet's ports.
impl Wiring for Lab {
    fn attach(&self, spec: &DropletSpec, leader: i32) -> Result<(), MachineError> {
        let anchor = spec.anchor.as_ref().map(|anchor| Segment {
            address: anchor.address,
            prefix: anchor.prefix,
            gateway: anchor.gateway,
            mac: Some(spec.public.mac.clone()),
        });
        let links = DropletLinks { public: segment(&spec.public), private: segment(&spec.private), anchor };
        Ok(attach_droplet(self, spec.id, &links, leader.unsigned_abs())?)
    }

    fn detach(&self, spec: &DropletSpec) -> Result<(), MachineError> {
        Ok(detach_droplet(self, spec.id)?)
    }
}

fn segment(port: &Port) -> Segment {
    Segment { address: port.address, prefix: port.prefix, gateway: port.gateway, mac: Some(port.mac.clone()) }
}

/// Two bridges in one network namespace, without packet rules: for tests of machines alone. The ports of Droplet n are `p<n>` (public) and `v<n>` (VPC).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bridges {
    /// Path of the network namespace that holds the bridges, for example `/run/netns/lab-switch`.
    pub namespace: PathBuf,
    /// Name of the public bridge.
    pub public: String,
    /// Name of the VPC's bridge.
    pub private: String,
}

impl Bridges {
    /// What the lab's network wrote when it came up.
    pub fn read(state: &Path) -> Result<Self, MachineError> {
        let path = state.join(FILE);
        let text = std::fs::read(&path).map_err(MachineError::file("the lab has no network yet:", &path))?;
        serde_json::from_slice(&text).map_err(MachineError::Spec)
    }

    /// Says to later starts of Droplets what they are plugged into.
    pub fn write(&self, state: &Path) -> Result<(), MachineError> {
        write_json(&state.join(FILE), self)
    }

    /// Runs `ip` commands in the namespace of the bridges; with `force`, all of them whatever becomes of each.
    fn ip(&self, lines: &str, force: bool) -> Result<(), MachineError> {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.namespace.display())).arg("ip");
        if force {
            command.arg("-force");
        }
        let failed =
            |error: std::io::Error| MachineError::Program(format!("ip in the lab's network: {error}"));
        let mut child = command
            .args(["-batch", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(lines.as_bytes()).map_err(failed)?;
        }
        let done = child.wait_with_output().map_err(failed)?;
        if !force && !done.status.success() {
            let told = String::from_utf8_lossy(&done.stderr);
            return Err(MachineError::Program(format!("ip in the lab's network: {}", told.trim())));
        }
        Ok(())
    }
}

impl Wiring for Bridges {
    fn attach(&self, spec: &DropletSpec, leader: i32) -> Result<(), MachineError> {
        let lines = [
            (format!("p{}", spec.id), "eth0", &spec.public.mac, &self.public),
            (format!("v{}", spec.id), "eth1", &spec.private.mac, &self.private),
        ]
        .map(|(port, name, mac, bridge)| {
            format!(
                "link add {port} type veth peer name {name} address {mac} netns {leader}\n\
                 link set {port} master {bridge} up\n"
            )
        })
        .concat();
        self.ip(&lines, false)
    }

    fn detach(&self, spec: &DropletSpec) -> Result<(), MachineError> {
        self.ip(&format!("link delete p{0}\nlink delete v{0}\n", spec.id), true)
    }
}
