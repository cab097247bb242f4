//! Faults inside a gateway, as a careless hand or a full table makes them. A reboot ends them; so does [`mend`], which undoes what
//! was recorded and nothing else.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{parse, port_owner};
use crate::error::{Doing, LabError, Result};
use crate::network::addresses::{HAND_MADE_GATEWAYS, PODS, PUBLIC_GATEWAY, VPC};
use crate::network::port_faults;
use crate::network::ports::Side;
use crate::state::{Lab, create_private_dir, read_json, write_json};
use crate::{machine, netns};

/// Something inside a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub enum Inside {
    /// net.ipv4.ip_forward.
    Forwarding,
    /// The rules that translate.
    Nat,
    /// The table of connections takes no new one, as when it is full: its size can't be set in a namespace, so a rule where it
    /// is asked drops what it calls new. What is not tracked passes, and so do the connections that it has.
    Conntrack,
    /// The default route.
    DefaultRoute,
    /// The source address: it translates to one that nobody expects and whose answers come back, as a Droplet that has lost its
    /// reserved address does.
    Source,
}

/// What [`Inside::Source`] translates to: an address of the public segment that nobody has.
pub const UNEXPECTED_SOURCE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 250);

/// Table of the rules that break something.
const TABLE: &str = "egress_lab_fault";

/// What of a machine is broken, in `broken/` of the lab's state.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Broken {
    /// Process 1 of the Droplet whose network it is: after a reboot it is another one, and nothing is broken.
    leader: Option<machine::Record>,
    what: Vec<Inside>,
    /// The rules that translated, in the words of `iptables-save`.
    iptables: String,
    /// Or, where iptables knows of none, of `nft`.
    nft: String,
}

/// A gateway's network namespace, and its process 1 if it has one.
fn network_of(lab: &Lab, owner: &str) -> Option<(PathBuf, Option<machine::Record>)> {
    if HAND_MADE_GATEWAYS.iter().any(|gateway| gateway.name == owner) {
        return Some((netns::path(&lab.namespace(owner)), None));
    }
    let id = owner.strip_prefix('d')?.parse().ok()?;
    let running = lab.machines().running(id)?;
    Some((netns::of_process(running.leader.pid.unsigned_abs()), Some(running.leader)))
}

fn record_path(lab: &Lab, owner: &str) -> PathBuf {
    lab.dir.join("broken").join(format!("{owner}.json"))
}

/// Breaks something inside a gateway.
pub fn break_inside(lab: &Lab, machine: &str, what: Inside) -> Result<()> {
    let owner = port_owner(lab, machine)?;
    let Some((network, leader)) = network_of(lab, &owner) else {
        return Err(LabError::Usage(format!("{machine} is no gateway that runs")));
    };
    let path = record_path(lab, &owner);
    let recorded: Option<Broken> = read_json(&path)?;
    let mut broken = recorded.filter(|broken| broken.leader == leader).unwrap_or_default();
    broken.leader = leader;
    broken.what.push(what);
    match what {
        Inside::Forwarding => shell(&network, "echo 0 > /proc/sys/net/ipv4/ip_forward")?,
        Inside::Nat => flush_translation(machine, &network, &mut broken)?,
        Inside::Conntrack => nft(&network, &full_table())?,
        Inside::DefaultRoute => shell(&network, "ip route del default")?,
        Inside::Source => {
            port_faults::admit_source(lab.name(), &owner, Side::Public, UNEXPECTED_SOURCE)?;
            shell(&network, &format!("ip addr replace {UNEXPECTED_SOURCE}/32 dev eth0"))?;
            nft(&network, &wrong_source())?;
        }
    }
    create_private_dir(&lab.dir.join("broken"))?;
    write_json(&path, &broken)
}

/// Undoes every [`break_inside`] of a machine. One that is off, or has been rebooted, has nothing broken.
pub(super) fn mend(lab: &Lab, owner: &str) -> Result<()> {
    let path = record_path(lab, owner);
    let Some(broken) = read_json::<Broken>(&path)? else { return Ok(()) };
    if let Some((network, leader)) = network_of(lab, owner)
        && leader == broken.leader
    {
        nft(&network, &format!("add table ip {TABLE}\ndelete table ip {TABLE}\n"))?;
        for what in &broken.what {
            match what {
                Inside::Forwarding => shell(&network, "echo 1 > /proc/sys/net/ipv4/ip_forward")?,
                Inside::Nat if broken.nft.is_empty() => {
                    let restore = ["--table", "nat"];
                    netns::run_with_input(&network, "iptables-restore", &restore, &broken.iptables)?;
                }
                Inside::Nat => nft(&network, &broken.nft)?,
                Inside::Conntrack => {}
                Inside::DefaultRoute => {
                    shell(&network, &format!("ip route replace default via {PUBLIC_GATEWAY} dev eth0"))?;
                }
                Inside::Source => {
                    // Connections that were translated to it would go on being so.
                    shell(&network, &format!("ip addr del {UNEXPECTED_SOURCE}/32 dev eth0"))?;
                }
            }
        }
    }
    fs::remove_file(&path).doing(|| format!("remove {}", path.display()))
}

fn shell(network: &Path, line: &str) -> Result<()> {
    netns::run_with_input(network, "sh", &["-c", line], "").map(drop)
}

fn nft(network: &Path, script: &str) -> Result<()> {
    netns::run_with_input(network, "nft", &["-f", "-"], script).map(drop)
}

/// Behind the place where the kernel looks a packet up in its table of connections (priority -200), before anything else.
fn full_table() -> String {
    let chain = |hook: &str| {
        format!(
            " chain {hook} {{\n type filter hook {hook} priority -199;\n ct state new counter drop\n }}\n"
        )
    };
    format!("table ip {TABLE} {{\n{}{}}}\n", chain("prerouting"), chain("output"))
}

/// Before the gateway's own rule, which then finds the connection translated.
fn wrong_source() -> String {
    format!(
        "table ip {TABLE} {{\n chain postrouting {{\n type nat hook postrouting priority 99;\n \
         oifname \"eth0\" ip saddr {{ {VPC}, {PODS} }} snat to {UNEXPECTED_SOURCE}\n }}\n}}\n"
    )
}

/// Empties every chain that translates sources. Both kinds of rules are nftables'; a base chain that is flushed translates nothing.
fn flush_translation(machine: &str, network: &Path, broken: &mut Broken) -> Result<()> {
    let chains = netns::run_with_input(network, "nft", &["-j", "list", "chains"], "")?;
    let chains = translating(&parse(&chains)?);
    if chains.is_empty() {
        return Err(LabError::Usage(format!("{machine} translates nothing")));
    }
    let saved = netns::run_with_input(network, "iptables-save", &["--table", "nat"], "")?;
    if saved.contains("-A POSTROUTING") {
        broken.iptables = saved;
    } else {
        for chain in &chains {
            let words: Vec<_> = ["list", "chain"].into_iter().chain(chain.split(' ')).collect();
            broken.nft += &netns::run_with_input(network, "nft", &words, "")?;
        }
    }
    let script: Vec<_> = chains.iter().map(|chain| format!("flush chain {chain}\n")).collect();
    nft(network, &script.concat())
}

/// Family, table and name of every chain that translates sources, but for those of a fault.
fn translating(chains: &Value) -> Vec<String> {
    let all = chains["nftables"].as_array().into_iter().flatten();
    let wanted = all
        .map(|object| &object["chain"])
        .filter(|chain| chain["type"] == "nat" && chain["hook"] == "postrouting" && chain["table"] != TABLE);
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    wanted.map(|chain| ["family", "table", "name"].map(|key| word(&chain[key])).join(" ")).collect()
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
        assert_eq!(translating(&chains), ["ip nat POSTROUTING"]);
    }
}
