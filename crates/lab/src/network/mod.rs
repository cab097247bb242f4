//! The provider's network: two segments, the way out, and the packet rules at every machine's ports.
//!
//! ```text
//!  internet (every address that is not below)        provider (API server, cloud API, resolvers, metadata)
//!      └──────────────── cloud: routes, counts, drops private addresses ────────────────┘
//!         bridge pub 203.0.113.0/24 (.1)      bridge vpc 10.116.0.0/20 (.1)
//!             │ port rules │                       │ port rules │
//!            eth0         eth0                    eth1         eth1       of nodes, gateways, Droplets
//! ```
//!
//! Invariants: no link leads from any of these namespaces to the machine's own network; a machine's ports exist only with
//! their rules; everything is found again by name.

pub mod addresses;
mod fabric;
mod machines;
pub mod port_faults;
pub mod ports;
pub mod reserved;
#[cfg(test)]
mod tests;
pub mod walls;

pub use fabric::{announce, end_silence, silence, withdraw};
pub use machines::{DropletLinks, Segment, attach_droplet, detach_droplet};

use crate::error::Result;
use crate::netns;
use crate::state::{LabName, Variant};

/// Namespace of the provider's fabric.
pub const CLOUD: &str = "cloud";
/// Namespace of every public address that is not the provider's.
pub const INTERNET: &str = "internet";
/// Namespace of the provider's own services.
pub const PROVIDER: &str = "provider";

/// Builds all of it but Droplets: a fifth of a second.
pub fn build(name: &LabName, variant: Variant) -> Result<()> {
    let machines = addresses::NODES.iter().map(|node| node.name);
    let machines = machines.chain(addresses::HAND_MADE_GATEWAYS.iter().map(|gateway| gateway.name));
    for part in [CLOUD, INTERNET, PROVIDER].into_iter().chain(machines) {
        netns::create(&name.namespace(part))?;
    }
    fabric::build(name, variant)?;
    for node in &addresses::NODES {
        machines::attach_node(name, node, variant)?;
    }
    for gateway in &addresses::HAND_MADE_GATEWAYS {
        machines::attach_hand_made_gateway(name, gateway, variant)?;
    }
    Ok(())
}
