//! What must never leave through a gateway, and why.
//!
//! Responsibility: the set of protected prefixes of one node. What is in it comes from whoever looks at the node; here
//! stand only the ranges that are protected on every machine.
//!
//! Semantics (invariant I5, `docs/guarantees.md`): a destination that lies inside a protected prefix is not routed and says so;
//! inside a destination that covers a protected prefix, such as 0.0.0.0/0, the protected prefix is a `throw` route, so
//! that the lookup goes on to the main table.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// Why a prefix is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProtectedReason {
    /// 169.254.0.0/16: metadata, link-local.
    LinkLocal,
    /// 127.0.0.0/8.
    Loopback,
    /// 224.0.0.0/4.
    Multicast,
    /// 255.255.255.255.
    Broadcast,
    /// 240.0.0.0/4, which no network routes.
    Reserved,
    /// An address of the API server.
    ApiServer,
    /// A resolver of the node, or the cluster's.
    Resolver,
    /// The VPC's range, or a peered one.
    Vpc,
    /// On the node's own link: an anchor range, the provider's gateway.
    OnLink,
    /// A range of pods.
    Pods,
    /// The range of Services.
    Services,
    /// An address of a node.
    Node,
    /// A gateway's own address.
    Gateway,
    /// An address of DigitalOcean's API.
    CloudApi,
    /// A range, or an address of a name, of the user's list.
    UserList,
    /// Protected in the kernel by an earlier agent, for a reason that is not known now.
    Inherited,
}

impl fmt::Display for ProtectedReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LinkLocal => "link-local and metadata",
            Self::Loopback => "loopback",
            Self::Multicast => "multicast",
            Self::Broadcast => "broadcast",
            Self::Reserved => "reserved",
            Self::ApiServer => "the API server",
            Self::Resolver => "a DNS resolver",
            Self::Vpc => "the VPC",
            Self::OnLink => "the node's own link",
            Self::Pods => "pods",
            Self::Services => "services",
            Self::Node => "a node",
            Self::Gateway => "a gateway itself",
            Self::CloudApi => "the cloud's API",
            Self::UserList => "the list of protected ranges and names",
            Self::Inherited => "it was protected when the agent started",
        })
    }
}

/// The protected prefixes of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protected {
    prefixes: BTreeMap<Ipv4Net, ProtectedReason>,
}

impl Default for Protected {
    /// What is protected on every machine: 169.254.0.0/16, 127.0.0.0/8, 224.0.0.0/4, 240.0.0.0/4 and 255.255.255.255.
    /// (Measured on Linux 6.18: `ip route get` sends all but loopback through our table unless they are thrown.)
    fn default() -> Self {
        let always = [
            (Ipv4Addr::new(169, 254, 0, 0), 16, ProtectedReason::LinkLocal),
            (Ipv4Addr::new(127, 0, 0, 0), 8, ProtectedReason::Loopback),
            (Ipv4Addr::new(224, 0, 0, 0), 4, ProtectedReason::Multicast),
            (Ipv4Addr::new(240, 0, 0, 0), 4, ProtectedReason::Reserved),
            (Ipv4Addr::BROADCAST, 32, ProtectedReason::Broadcast),
        ];
        let prefixes = always
            .into_iter()
            .filter_map(|(a, length, why)| Some((Ipv4Net::new(a, length).ok()?, why)))
            .collect();
        Self { prefixes }
    }
}

impl Protected {
    /// Protects a prefix; host bits are cleared. A prefix that is there already keeps its first reason.
    pub fn insert(&mut self, prefix: Ipv4Net, reason: ProtectedReason) {
        self.prefixes.entry(prefix.trunc()).or_insert(reason);
    }

    /// Protects one address.
    pub fn insert_address(&mut self, address: Ipv4Addr, reason: ProtectedReason) {
        self.insert(Ipv4Net::from(address), reason);
    }

    /// Protects a prefix no longer, if it is protected for this reason.
    pub fn remove(&mut self, prefix: Ipv4Net, reason: ProtectedReason) {
        if self.prefixes.get(&prefix) == Some(&reason) {
            self.prefixes.remove(&prefix);
        }
    }

    /// Why this one address is protected by an entry of its own.
    pub fn reason_of_address(&self, address: Ipv4Addr) -> Option<ProtectedReason> {
        self.prefixes.get(&Ipv4Net::from(address)).copied()
    }

    /// All prefixes with their reasons, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = (Ipv4Net, ProtectedReason)> {
        self.prefixes.iter().map(|(prefix, reason)| (*prefix, *reason))
    }
}
