//! Breaking things by command, and mending them.

use serde_json::Value;

use crate::cluster;
use crate::error::{LabError, Result};
use crate::network::addresses::{HAND_MADE_GATEWAYS, NODES};
use crate::network::ports::{self, Direction, Side};
use crate::progress::Progress;
use crate::state::{Lab, Size};
use crate::{cloud, machine, netns};

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

/// Something inside a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Inside {
    /// net.ipv4.ip_forward.
    Forwarding,
    /// The rules that translate.
    Nat,
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
    machine::power_off(&lab.machines(), id, lab)
        .map_err(|error| LabError::Program { command: format!("kill {droplet}"), detail: error.to_string() })
}

/// What the ports of a machine are called after: a node's or hand-made gateway's name, or a Droplet's id.
fn port_owner(lab: &Lab, machine: &str) -> Result<String> {
    let is_ours = NODES.iter().any(|node| node.name == machine)
        || HAND_MADE_GATEWAYS.iter().any(|gateway| gateway.name == machine);
    if is_ours {
        return Ok(machine.to_owned());
    }
    let id = cloud::find_droplet(lab, machine)?;
    let node = NODES.iter().find(|node| node.droplet == id);
    Ok(node.map_or_else(|| format!("d{id}"), |node| node.name.to_owned()))
}

/// Drops everything in those directions on those sides of a machine. The links stay up.
pub fn cut(lab: &Lab, machine: &str, sides: &[Side], directions: &[Direction]) -> Result<()> {
    ports::cut(lab.name(), &port_owner(lab, machine)?, sides, directions)
}

/// Ends every [`cut`] of a machine.
pub fn heal(lab: &Lab, machine: &str) -> Result<()> {
    ports::heal(lab.name(), &port_owner(lab, machine)?)
}

/// Breaks something inside a gateway, as a careless hand would; a reboot mends it.
pub fn break_inside(lab: &Lab, machine: &str, what: Inside) -> Result<()> {
    let namespace = if HAND_MADE_GATEWAYS.iter().any(|gateway| gateway.name == machine) {
        netns::path(&lab.namespace(machine))
    } else {
        let id = cloud::find_droplet(lab, machine)?;
        let running = lab.machines().running(id);
        let running = running.ok_or_else(|| LabError::Usage(format!("Droplet {machine} is not running")))?;
        netns::of_process(running.leader.pid.unsigned_abs())
    };
    match what {
        Inside::Forwarding => {
            let arguments = ["-c", "echo 0 > /proc/sys/net/ipv4/ip_forward"];
            netns::run_with_input(&namespace, "sh", &arguments, "").map(drop)
        }
        // Both kinds of rules are nftables'; a base chain that is flushed translates nothing.
        Inside::Nat => {
            let chains = netns::run_with_input(&namespace, "nft", &["-j", "list", "chains"], "")?;
            let script = flush_translation(&parse(&chains)?);
            if script.is_empty() {
                return Err(LabError::Usage(format!("{machine} translates nothing")));
            }
            netns::run_with_input(&namespace, "nft", &["-f", "-"], &script).map(drop)
        }
    }
}

/// Empties every chain that translates sources.
fn flush_translation(chains: &Value) -> String {
    let all = chains["nftables"].as_array().into_iter().flatten();
    let wanted = all
        .map(|object| &object["chain"])
        .filter(|chain| chain["type"] == "nat" && chain["hook"] == "postrouting");
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let lines = wanted.map(|chain| {
        let [family, table, name] = ["family", "table", "name"].map(|key| word(&chain[key]));
        format!("flush chain {family} {table} {name}\n")
    });
    lines.collect::<Vec<_>>().concat()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_chains_that_translate_sources_are_emptied() {
        let chains = serde_json::json!({"nftables": [
            {"metainfo": {}},
            {"chain": {"family": "ip", "table": "nat", "name": "POSTROUTING", "type": "nat", "hook": "postrouting"}},
            {"chain": {"family": "ip", "table": "nat", "name": "PREROUTING", "type": "nat", "hook": "prerouting"}},
            {"chain": {"family": "ip", "table": "mangle", "name": "POSTROUTING", "type": "filter", "hook": "postrouting"}},
            {"chain": {"family": "ip", "table": "nat", "name": "OWN"}},
        ]});
        assert_eq!(flush_translation(&chains), "flush chain ip nat POSTROUTING\n");
    }
}
