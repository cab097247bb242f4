//! Breaking things by command, and mending them.

mod inside;

use std::net::Ipv4Addr;

use nix::sys::signal::Signal;
use serde_json::Value;

pub use inside::{Inside, break_inside};

use crate::error::{LabError, Result};
use crate::network::addresses::{self, HAND_MADE_GATEWAYS, NODES};
use crate::network::ports::{Direction, Side};
use crate::network::{INTERNET, port_faults};
use crate::progress::Progress;
use crate::state::{Lab, Size};
use crate::{cgroups, cloud, cluster, machine, netns, network};

/// What happens to a Droplet through the cloud's API: the cloud knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PowerAction {
    /// The power goes.
    Off,
    /// The power comes back.
    On,
    /// The machine restarts in good order.
    Reboot,
}

/// A part that is stopped and started while the rest runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// etcd, kube-apiserver, kube-controller-manager, kube-scheduler.
    ControlPlane,
    /// DigitalOcean's API and metadata service.
    CloudApi,
}

/// Asks the cloud for a power action and waits until it says that it is done and the machine agrees.
pub fn power(lab: &Lab, droplet: &str, action: PowerAction) -> Result<()> {
    let progress = Progress::begin();
    let id = cloud::find_droplet(lab, droplet)?;
    let kind = match action {
        PowerAction::Off => "power_off",
        PowerAction::On => "power_on",
        PowerAction::Reboot => "reboot",
    };
    let before = leader(lab, id);
    let body = serde_json::json!({"type": kind}).to_string();
    let answer = cloud::request(lab, "POST", &format!("/v2/droplets/{id}/actions"), Some(&body))?;
    let mut answered = parse(&answer)?["action"].clone();
    let started = std::time::Instant::now();
    let deadline = std::time::Duration::from_secs(120);
    let what = || format!("{kind} of {droplet} is done");
    while answered["status"] == "in-progress" {
        if started.elapsed() > deadline {
            return Err(LabError::Deadline { what: what(), deadline, last: answered.to_string() });
        }
        progress.waiting(&format!("{kind} of {droplet}"));
        std::thread::sleep(std::time::Duration::from_millis(50));
        let answer = cloud::request(lab, "GET", &format!("/v2/actions/{}", answered["id"]), None)?;
        answered = parse(&answer)?["action"].clone();
    }
    if answered["status"] != "completed" {
        return Err(LabError::Program { command: what(), detail: answered.to_string() });
    }
    // A Droplet of the fixtures has no machine.
    while lab.machines().droplets().contains(&id) && !has_happened(action, before, leader(lab, id)) {
        if started.elapsed() > deadline {
            return Err(LabError::Deadline {
                what: what(),
                deadline,
                last: "its machine has not done it".into(),
            });
        }
        progress.waiting(&format!("the machine of {droplet}"));
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    Ok(())
}

/// Process 1 of the Droplet's machine, if it runs.
fn leader(lab: &Lab, id: u64) -> Option<machine::Record> {
    lab.machines().running(id).map(|running| running.leader)
}

fn has_happened(action: PowerAction, before: Option<machine::Record>, now: Option<machine::Record>) -> bool {
    match action {
        PowerAction::Off => now.is_none(),
        PowerAction::On => now.is_some(),
        PowerAction::Reboot => now.is_some() && now != before,
    }
}

fn parse(answer: &str) -> Result<Value> {
    serde_json::from_str(answer)
        .map_err(|source| LabError::State { path: "the cloud's answer".into(), source })
}

/// The machine dies; the cloud goes on believing that it is active.
pub fn kill(lab: &Lab, droplet: &str) -> Result<()> {
    let id = cloud::find_droplet(lab, droplet)?;
    if lab.machines().running(id).is_none() {
        return Err(LabError::Usage(format!("Droplet {droplet} has no machine that runs")));
    }
    machine::power_off(&lab.machines(), id, lab).map_err(of_machine(droplet))
}

/// What the ports of a machine are called after: a node's or hand-made gateway's name, or a Droplet's id.
fn port_owner(lab: &Lab, machine: &str) -> Result<String> {
    let is_ours = NODES.iter().any(|node| node.name == machine)
        || HAND_MADE_GATEWAYS.iter().any(|gateway| gateway.name == machine);
    if is_ours {
        return Ok(machine.to_owned());
    }
    Ok(addresses::port_owner(cloud::find_droplet(lab, machine)?))
}

/// Drops everything in those directions on those sides of a machine. The links stay up.
pub fn cut(lab: &Lab, machine: &str, sides: &[Side], directions: &[Direction]) -> Result<()> {
    port_faults::cut(lab.name(), &port_owner(lab, machine)?, sides, directions)
}

/// Loses that share of a machine's packets, in percent, 1 to 99.
pub fn lose(lab: &Lab, machine: &str, side: Side, directions: &[Direction], percent: u8) -> Result<()> {
    port_faults::lose(lab.name(), &port_owner(lab, machine)?, side, directions, percent)
}

/// Makes a machine's public side swallow packets of more than that many bytes.
pub fn black_hole(lab: &Lab, machine: &str, bytes: u16) -> Result<()> {
    port_faults::drop_large(lab.name(), &port_owner(lab, machine)?, bytes)
}

/// What the provider's gateway is called where it is no machine of the lab.
const PROVIDER_GATEWAY: &str = "provider-gateway";

/// Cuts two machines off from each other on one segment, and from nobody else; or one from the provider's gateway.
pub fn part(lab: &Lab, machine: &str, other: &str, side: Side) -> Result<()> {
    if other == PROVIDER_GATEWAY {
        return port_faults::part_from_provider(lab.name(), &port_owner(lab, machine)?);
    }
    port_faults::part(lab.name(), &port_owner(lab, machine)?, &port_owner(lab, other)?, side)
}

/// Makes a hand-made gateway answer for the VPC address of a Droplet, whose own VPC side is cut: as when the Droplet was
/// deleted and its address given to another one.
pub fn take_over(lab: &Lab, droplet: &str, by: &str) -> Result<()> {
    let id = cloud::find_droplet(lab, droplet)?;
    if !HAND_MADE_GATEWAYS.iter().any(|gateway| gateway.name == by) {
        return Err(LabError::Usage(format!("{by} is no hand-made gateway: gateway-a or gateway-b")));
    }
    let address = vpc_address(lab, id)?;
    port_faults::cut(lab.name(), &format!("d{id}"), &[Side::Vpc], &[Direction::In, Direction::Out])?;
    port_faults::admit_source(lab.name(), by, Side::Vpc, address)?;
    let line = format!("addr replace {address}/32 dev eth1");
    netns::ip_batch(&lab.namespace(by), &[line])
}

/// Ends [`take_over`] of a Droplet's address by whoever has it.
fn give_back(lab: &Lab, id: u64) -> Result<()> {
    let address = vpc_address(lab, id)?;
    for gateway in &HAND_MADE_GATEWAYS {
        let namespace = lab.namespace(gateway.name);
        let addresses = netns::run(&namespace, "ip", &["-o", "addr", "show", "dev", "eth1"])?;
        if addresses.contains(&format!(" {address}/32 ")) {
            netns::ip_batch(&namespace, &[format!("addr del {address}/32 dev eth1")])?;
            port_faults::heal(lab.name(), gateway.name)?;
        }
    }
    Ok(())
}

fn vpc_address(lab: &Lab, id: u64) -> Result<Ipv4Addr> {
    let spec = lab.machines().spec(id);
    spec.map(|spec| spec.private.address).map_err(|error| LabError::Usage(error.to_string()))
}

/// Starts the machine of a Droplet that [`kill`] ended, the cloud none the wiser.
pub fn revive(lab: &Lab, droplet: &str) -> Result<()> {
    machine::revive(&lab.machines(), cloud::find_droplet(lab, droplet)?).map_err(of_machine(droplet))
}

/// Stops all programs of a Droplet; its kernel goes on.
pub fn suspend(lab: &Lab, droplet: &str) -> Result<()> {
    machine::suspend(&lab.machines(), cloud::find_droplet(lab, droplet)?).map_err(of_machine(droplet))
}

fn of_machine(droplet: &str) -> impl FnOnce(machine::MachineError) -> LabError {
    let command = format!("the machine of {droplet}");
    move |error| LabError::Program { command, detail: error.to_string() }
}

/// Kills a program in the pods of a node, wherever it runs there; how many there were. Its kubelet starts it again.
pub fn crash(lab: &Lab, node: &str, program: &str) -> Result<usize> {
    let processes = cgroups::processes_of_program(lab.name(), node, program);
    if processes.is_empty() {
        return Err(LabError::Usage(format!("no pod of {node} runs {program}")));
    }
    for process in &processes {
        process.signal(Signal::SIGKILL);
    }
    Ok(processes.len())
}

/// Ends whatever was done to a machine but taking its power; of the internet, its silence.
pub fn heal(lab: &Lab, machine: &str) -> Result<()> {
    if machine == INTERNET {
        return network::end_silence(lab.name());
    }
    let owner = port_owner(lab, machine)?;
    port_faults::heal(lab.name(), &owner)?;
    if let Some(id) = owner.strip_prefix('d').and_then(|id| id.parse().ok()) {
        give_back(lab, id)?;
        machine::resume(&lab.machines(), id);
    }
    inside::mend(lab, &owner)
}

/// Kills a part; its data is kept.
pub fn stop_part(lab: &Lab, part: Part) -> Result<()> {
    match part {
        Part::ControlPlane => {
            let names = ["kube-scheduler", "kube-controller-manager", "kube-apiserver", "etcd"];
            cluster::stop_processes(lab, &names)
        }
        Part::CloudApi => cluster::stop_processes(lab, &[cloud::PROCESS]),
    }
}

/// Starts a stopped part again and waits until it answers.
pub fn start_part(lab: &Lab, part: Part) -> Result<()> {
    let progress = Progress::begin();
    match part {
        Part::ControlPlane => {
            cluster::start_api_server(lab)?;
            cluster::wait_until_ready(lab, &progress)?;
            if lab.settings.size == Size::All {
                cluster::start_controllers(lab)?;
            }
            Ok(())
        }
        Part::CloudApi => {
            cloud::start(lab)?;
            cloud::wait_until_ready(lab, &progress)
        }
    }
}
