//! Faults at the bridge ports of the machines: the machine's own link stays up, and it learns nothing.
//!
//! A port's share of lost packets and its largest packet are rules of a chain of its own, one for each direction, which a map
//! leads to while there is one.

use std::net::Ipv4Addr;

use serde_json::Value;

use super::CLOUD;
use super::addresses::PUBLIC_GATEWAY_MAC;
use super::ports::{Direction, Side, port};
use crate::error::{LabError, Result};
use crate::netns;
use crate::state::LabName;

impl Direction {
    const BOTH: [Self; 2] = [Self::In, Self::Out];

    const fn cut_set(self) -> &'static str {
        match self {
            Self::In => "to_machine_cut",
            Self::Out => "from_machine_cut",
        }
    }

    const fn fault_map(self) -> &'static str {
        match self {
            Self::In => "to_machine_faults",
            Self::Out => "from_machine_faults",
        }
    }

    fn fault_chain(self, port: &str) -> String {
        match self {
            Self::In => format!("{port}-to"),
            Self::Out => format!("{port}-from"),
        }
    }
}

/// Drops everything in those directions at those sides of a machine, ARP included, until [`heal`].
pub fn cut(name: &LabName, machine: &str, sides: &[Side], directions: &[Direction]) -> Result<()> {
    let ports =
        sides.iter().flat_map(|side| directions.iter().map(|direction| (port(machine, *side), *direction)));
    let lines = ports.map(|(port, direction)| {
        format!("add element bridge ports {} {{ \"{port}\" }}\n", direction.cut_set())
    });
    apply(name, machine, &lines.collect::<Vec<_>>().concat())
}

/// Loses that share of IPv4 packets, in percent, each by a throw of its own, until [`heal`].
pub fn lose(name: &LabName, machine: &str, side: Side, directions: &[Direction], percent: u8) -> Result<()> {
    let port = port(machine, side);
    let rule = format!("ether type ip numgen random mod 100 < {percent} counter drop");
    let script = directions.iter().map(|direction| fault_script(&port, *direction, &rule));
    apply(name, machine, &script.collect::<Vec<_>>().concat())
}

/// Drops IPv4 packets of more than that many bytes on the public side, without a word to anybody, until [`heal`].
pub fn drop_large(name: &LabName, machine: &str, bytes: u16) -> Result<()> {
    let port = port(machine, Side::Public);
    let rule = format!("ip length > {bytes} counter drop");
    let script = Direction::BOTH.map(|direction| fault_script(&port, direction, &rule));
    apply(name, machine, &script.concat())
}

/// Drops what two machines send each other directly on one segment, forwarded packets included, until one is healed.
pub fn part(name: &LabName, machine: &str, other: &str, side: Side) -> Result<()> {
    let one_way = |from, to| -> Result<String> {
        let (from, mac) = (port(from, side), hardware_address(name, &port(to, side))?);
        Ok(format!("add element bridge ports parted {{ \"{from}\" . {mac} }}\n"))
    };
    apply(name, machine, &[one_way(machine, other)?, one_way(other, machine)?].concat())
}

/// Drops what a machine sends the provider's gateway, which goes on answering for its address, until [`heal`]: to this machine it is dead.
pub fn part_from_provider(name: &LabName, machine: &str) -> Result<()> {
    let port = port(machine, Side::Public);
    apply(
        name,
        machine,
        &format!("add element bridge ports parted {{ \"{port}\" . {PUBLIC_GATEWAY_MAC} }}\n"),
    )
}

/// Lets a machine send from an address that is not its own, until [`heal`].
pub fn admit_source(name: &LabName, machine: &str, side: Side, address: Ipv4Addr) -> Result<()> {
    let port = port(machine, side);
    apply(name, machine, &format!("add element bridge ports also_from {{ \"{port}\" . {address} }}\n"))
}

/// Ends every fault at the ports of a machine.
pub fn heal(name: &LabName, machine: &str) -> Result<()> {
    let (parted, also_from) = (pairs(name, "parted")?, pairs(name, "also_from")?);
    let mut script = Vec::new();
    for side in Side::ALL {
        let port = port(machine, side);
        script.push(end_script(&port));
        let mac = hardware_address(name, &port)?;
        for [from, to] in parted.iter().filter(|[from, to]| *from == port || *to == mac) {
            script.push(format!("delete element bridge ports parted {{ \"{from}\" . {to} }}\n"));
        }
        for [from, address] in also_from.iter().filter(|[from, _]| *from == port) {
            script.push(format!("delete element bridge ports also_from {{ \"{from}\" . {address} }}\n"));
        }
    }
    apply(name, machine, &script.concat())
}

/// The transaction that ends cuts, losses and size limits of a port, whether or not there are any: what is added first is there
/// to be deleted.
pub(super) fn end_script(port: &str) -> String {
    let end = |direction: Direction| {
        let (set, map, chain) = (direction.cut_set(), direction.fault_map(), direction.fault_chain(port));
        format!(
            "add element bridge ports {set} {{ \"{port}\" }}\n\
             delete element bridge ports {set} {{ \"{port}\" }}\n\
             add chain bridge ports {chain}\n\
             add element bridge ports {map} {{ \"{port}\" : jump {chain} }}\n\
             delete element bridge ports {map} {{ \"{port}\" }}\n\
             flush chain bridge ports {chain}\n\
             delete chain bridge ports {chain}\n"
        )
    };
    Direction::BOTH.map(end).concat()
}

fn fault_script(port: &str, direction: Direction, rule: &str) -> String {
    let (map, chain) = (direction.fault_map(), direction.fault_chain(port));
    format!(
        "add chain bridge ports {chain}\n\
         add rule bridge ports {chain} {rule}\n\
         add element bridge ports {map} {{ \"{port}\" : jump {chain} }}\n"
    )
}

/// The hardware address that a port lets its machine use.
fn hardware_address(name: &LabName, port: &str) -> Result<String> {
    let rules = netns::run(&name.namespace(CLOUD), "nft", &["list", "chain", "bridge", "ports", port])
        .map_err(|_| no_ports(port))?;
    let mac = rules.split("ether saddr != ").nth(1).and_then(|rest| rest.split(' ').next());
    mac.map(str::to_owned).ok_or_else(|| no_ports(port))
}

/// Elements of a set of pairs.
fn pairs(name: &LabName, set: &str) -> Result<Vec<[String; 2]>> {
    let listed = netns::run(&name.namespace(CLOUD), "nft", &["-j", "list", "set", "bridge", "ports", set])?;
    let listed: Value =
        serde_json::from_str(&listed).map_err(|source| LabError::State { path: set.into(), source })?;
    Ok(parse_pairs(&listed))
}

fn parse_pairs(listed: &Value) -> Vec<[String; 2]> {
    let objects = listed["nftables"].as_array().into_iter().flatten();
    let elements = objects.filter_map(|object| object["set"]["elem"].as_array()).flatten();
    let pairs = elements.filter_map(|element| {
        let words: Vec<_> =
            element["concat"].as_array()?.iter().map(|word| word.as_str().map(str::to_owned)).collect();
        <[Option<String>; 2]>::try_from(words).ok().and_then(|[one, other]| Some([one?, other?]))
    });
    pairs.collect()
}

fn no_ports(machine: &str) -> LabError {
    LabError::Usage(format!("{machine} has no ports: it is no machine of this lab, or it is off"))
}

fn apply(name: &LabName, machine: &str, script: &str) -> Result<()> {
    let cloud = name.namespace(CLOUD);
    let known = netns::run(&cloud, "nft", &["list", "map", "bridge", "ports", "machines"])?;
    if !known.contains(&format!("\"{}\"", port(machine, Side::Public))) {
        return Err(no_ports(machine));
    }
    netns::nft(&cloud, script)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_pairs_of_a_set() {
        let listed = serde_json::json!({"nftables": [{"metainfo": {}}, {"set": {"elem": [
            {"concat": ["d5-vpc", "02:01:0a:74:00:02"]},
            {"concat": ["node-1-vpc", "02:01:0a:74:00:05"]},
        ]}}]});
        assert_eq!(parse_pairs(&listed)[1], ["node-1-vpc", "02:01:0a:74:00:05"]);
        assert_eq!(parse_pairs(&serde_json::json!({"nftables": [{"set": {}}]})), Vec::<[String; 2]>::new());
    }
}
