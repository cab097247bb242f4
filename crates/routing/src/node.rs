//! What the plan must know of the node it is for.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::protected::Protected;

/// A node as seen by its agent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeView {
    /// The interface in the VPC; `None` when the node has none, and then nothing is routed.
    pub vpc: Option<VpcInterface>,
    /// Addresses of the public interface with their on-link prefix length, such as 203.0.113.11/24. Empty on a node
    /// without one.
    pub public_addresses: Vec<Ipv4Net>,
    /// Destinations of the main table's routes but the default route. These win over ours.
    pub main_routes: BTreeSet<Ipv4Net>,
    /// What must never leave through a gateway. The public on-link subnet as a whole does not belong in here (a
    /// destination in it can be routed); the provider's gateway and other nodes in it do.
    pub protected: Protected,
    /// Gateways that are to be probed though no StaticRoute names them yet: those that wait to be proven.
    pub candidates: BTreeSet<Ipv4Addr>,
}

/// The node's interface in the VPC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VpcInterface {
    /// Index of the link.
    pub index: u32,
    /// The link has its carrier and its address. While it has not, the kernel has dropped all nexthops on it without a
    /// word: pass what was last seen with `up: false`, and routed destinations are dropped instead of leaving with the
    /// node's own address.
    pub up: bool,
    /// The node's address in the VPC.
    pub address: Ipv4Addr,
    /// The subnet on the link.
    pub subnet: Ipv4Net,
}
