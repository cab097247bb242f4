//! What the plan must know of the node it is for.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::inbound::ServedPort;
use crate::kernel_state::Gateway;
use crate::origin::RouteOrigin;
use crate::protected::Protected;

/// A node as seen by its agent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeView {
    /// The interface in the VPC; `None` when the node has none, and then nothing is routed and only what fails closed is shut.
    pub vpc: Option<VpcInterface>,
    /// Addresses of the public interface with their on-link prefix length, such as 203.0.113.11/24. Empty on a node
    /// without one.
    pub public_addresses: Vec<Ipv4Net>,
    /// Destinations of the main table's routes but the default route. These win over ours.
    pub main_routes: BTreeSet<Ipv4Net>,
    /// Where they come from, for reports.
    pub main_origins: BTreeMap<Ipv4Net, RouteOrigin>,
    /// What must never leave through a gateway. The public on-link subnet as a whole does not belong in here (a
    /// destination in it can be routed); the provider's gateway and other nodes in it do.
    pub protected: Protected,
    /// What nobody knows yet that should be in `protected`. While there is something, what the kernel routes stays, and
    /// nothing is opened that is not open already.
    pub uncertain: Option<Uncertainty>,
    /// Gateways that are to be probed though no StaticRoute names them yet: those that wait to be proven.
    pub candidates: BTreeSet<Ipv4Addr>,
    /// The gateway of the main table's default route: where `FailOpen` lets traffic out. `None`: there is no such route, or it
    /// has no gateway, or several.
    pub default_way: Option<Gateway>,
    /// Ports that answer connections which came in on a public side.
    pub served: BTreeSet<ServedPort>,
}

/// What the node lives by and nobody knows yet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Uncertainty {
    /// The first look around has not ended.
    #[error("the agent is still finding out what this node needs to live")]
    LookingAround,
    /// Neither a name nor the endpoints of Service `kubernetes` give an address.
    #[error(
        "the address of the API server is not known: the node's metadata names no cluster and the endpoints of Service \
         kubernetes give no address; start the agents with --api-server-name=<its host name>"
    )]
    NoApiServer,
    /// The node's metadata, which tells its name, was never to be had.
    #[error(
        "the name of the API server is not known: the node's metadata service, which tells it, gives no answer and is asked again; \
         where there is no such service, start the agents with --api-server-name=<its host name>"
    )]
    MetadataSilent,
    /// Its name is known and never had an address.
    #[error(
        "the name of the API server, {name}, has no address on this node; mend its resolvers, or start the agents with \
         --api-server-name=<another host name>"
    )]
    ApiServerName {
        /// The name.
        name: String,
    },
    /// A name that is protected has no address, and may get one yet.
    #[error(
        "the protected name {name} has no address on this node; an agent waits for one in its first minute"
    )]
    ProtectedName {
        /// The name.
        name: String,
    },
}

impl Uncertainty {
    /// In one word, for `reason` fields.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::LookingAround | Self::ProtectedName { .. } => "LookingAround",
            Self::NoApiServer | Self::MetadataSilent | Self::ApiServerName { .. } => "ApiServerUnknown",
        }
    }

    /// Whether `destination` may hold what is not known. An API server behind an address that somebody wrote out in full is
    /// theirs to know.
    pub(crate) fn forbids(&self, destination: Ipv4Net) -> bool {
        matches!(self, Self::LookingAround) || destination.prefix_len() < 32
    }
}

impl NodeView {
    /// Whether a plan for `other` would differ by what became of the node's own links and addresses only: such a difference is
    /// damage, and nobody's wish. `links_changed` says whether something is known to have happened to them. Nothing did: then what
    /// the main table says otherwise is another program's wish, which our rules follow.
    pub fn asks_for_the_same(&self, other: &Self, links_changed: bool) -> bool {
        let Self {
            vpc,
            public_addresses,
            main_routes,
            main_origins: _,
            protected,
            uncertain,
            candidates,
            default_way,
            served,
        } = self;
        let others = (&other.protected, &other.uncertain, &other.candidates, &other.served);
        let is_main_alike = (public_addresses, main_routes, default_way)
            == (&other.public_addresses, &other.main_routes, &other.default_way);
        (protected, uncertain, candidates, served) == others
            && (is_main_alike || links_changed || *vpc != other.vpc)
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{ip, net, node};

    #[test]
    fn what_other_programs_change_in_the_main_table_is_asked_for_and_what_links_take_along_is_not() {
        let before = node();
        let mut routed = before.clone();
        routed.main_routes.insert(net("192.0.2.0/24"));
        let mut moved = before.clone();
        moved.default_way = Some(Gateway { address: ip("203.0.113.9"), interface: 2, onlink: true });
        let mut public = before.clone();
        public.public_addresses.push(net("203.0.113.77/24"));
        for after in [routed, moved, public] {
            assert!(!before.asks_for_the_same(&after, false), "{after:?}");
            assert!(before.asks_for_the_same(&after, true), "a link or an address took it along: {after:?}");
            let mut down = after;
            down.vpc.as_mut().unwrap().up = false;
            assert!(before.asks_for_the_same(&down, false), "the VPC link did: {down:?}");
        }
        assert!(before.asks_for_the_same(&before.clone(), false));
        let mut candidate = before.clone();
        candidate.candidates.insert(ip("10.116.0.77"));
        assert!(!before.asks_for_the_same(&candidate, true));
    }
}
