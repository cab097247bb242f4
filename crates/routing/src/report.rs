//! What became of each StaticRoute in a plan, in types and in sentences.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::confirm::Target;
use crate::kernel_state::NexthopId;
use crate::node::Uncertainty;
use crate::origin::{Protocol, RouteOrigin};
use crate::plan::Draining;
use crate::prefix::InvalidValue;
use crate::protected::ProtectedReason;
use crate::wanted::{Destination, OnNoGateway, ReferenceFault};

/// What the plan does with one StaticRoute. It says what is planned: it is true once the changes are in the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteReport {
    /// Name of the object.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Destinations that go through the gateway.
    pub applied: usize,
    /// Destinations that should, each counted once, the refused ones too.
    pub total: usize,
    /// The gateways that are used, in the order of the list: one, or all that share the traffic (`ActiveActive`). Empty when
    /// nothing is routed or [`RouteProblem::LinkDown`].
    pub in_use: Vec<Ipv4Addr>,
    /// Whether the gateways share the traffic (`ActiveActive`).
    pub shared: bool,
    /// The nexthop object or group of this StaticRoute's routes: one replace of it switches them all. `None` when it has none.
    pub nexthop: Option<NexthopId>,
    /// What it is known by in the kernel, whichever nexthop object or group its routes use.
    pub object: Option<NexthopId>,
    /// A planned move that goes on.
    pub draining: Option<Draining>,
    /// Gateways that this node can use, in the order of the list.
    pub usable_gateways: Vec<Ipv4Addr>,
    /// Gateways that it can't.
    pub gateway_issues: Vec<GatewayIssue>,
    /// Entries of the list that can't be read.
    pub invalid_gateways: Vec<InvalidValue>,
    /// Why nothing of the object is applied.
    pub problem: Option<RouteProblem>,
    /// What is wrong though its routes are kept as they are.
    pub caveat: Option<ReferenceFault>,
    /// What happens while no gateway works.
    pub on_no_gateway: OnNoGateway,
    /// That is in force: none works, or there is none to use.
    pub no_gateway: bool,
    /// What lies below its routes drops whatever it lists, whichever of its routes is missing.
    pub guarded: bool,
    /// Destinations that are not applied, in ascending order, the refused ones last. Empty when `problem` says it all.
    pub failures: Vec<Failure>,
}

impl RouteReport {
    /// Whether every destination goes through a gateway.
    pub fn is_applied(&self) -> bool {
        self.problem.is_none() && !self.is_diverted() && self.applied == self.total
    }

    /// Whether its traffic goes to no gateway at all for now: it is dropped, or leaves with the node's own address.
    pub fn is_diverted(&self) -> bool {
        self.no_gateway && self.in_use.is_empty()
    }
}

/// A destination that is not applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The destination as it was written.
    pub destination: String,
    /// Why.
    pub cause: FailureCause,
}

impl Failure {
    pub(crate) fn new(destination: Destination, cause: FailureCause) -> Self {
        Self { destination: destination.to_string(), cause }
    }
}

/// Why a destination is not applied; the text is a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FailureCause {
    /// An older StaticRoute has the same destination.
    #[error("StaticRoute {winner} is older and has the same destination; this one takes over when that goes")]
    Conflict {
        /// Name of the older one.
        winner: String,
    },
    /// The node needs it.
    #[error("it lies in {prefix}, which is protected: {reason}")]
    Protected {
        /// The protected prefix.
        prefix: Ipv4Net,
        /// Why that is protected.
        reason: ProtectedReason,
    },
    /// The main table answers before our table is asked.
    #[error("the node's main table has a route to {route}, which wins{}", .origin.map(|origin| format!(" ({origin})")).unwrap_or_default())]
    Shadowed {
        /// The destination.
        destination: Ipv4Net,
        /// That route's destination.
        route: Ipv4Net,
        /// Where it comes from, if that is known.
        origin: Option<RouteOrigin>,
    },
    /// The object excludes it itself.
    #[error("the object's own excludedDestinations has {exclusion}")]
    Excluded {
        /// The exclusion.
        exclusion: Ipv4Net,
    },
    /// Another program has a route at this place in our table.
    #[error("another program ({}) has a route to it in table {table}, which is not touched", Protocol(*.protocol))]
    Foreign {
        /// Its protocol number.
        protocol: u8,
        /// The table.
        table: u32,
    },
    /// With it the node could not reach something that it lives by.
    #[error("with it {cut} did not answer any more, and around this table it did")]
    RolledBack {
        /// What was cut off.
        cut: Target,
    },
    /// It may hold what the node lives by.
    #[error("{0}; until then no range is routed that is not routed already")]
    Uncertain(Uncertainty),
    /// The text is no destination.
    #[error(transparent)]
    Invalid(#[from] InvalidValue),
}

impl FailureCause {
    /// Whether the destination is neither routed nor guarded for now.
    pub(crate) fn leaves_a_gap(&self) -> bool {
        matches!(self, Self::Foreign { .. } | Self::Uncertain(_))
    }

    /// The cause in one word, for `reason` fields.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Conflict { .. } => "Conflict",
            Self::Protected { .. } => "Protected",
            Self::Shadowed { .. } => "Shadowed",
            Self::Excluded { .. } => "Excluded",
            Self::Foreign { .. } => "ForeignRoute",
            Self::RolledBack { .. } => "RolledBack",
            Self::Uncertain(uncertainty) => uncertainty.reason(),
            Self::Invalid(_) => "Invalid",
        }
    }
}

/// Why nothing of a StaticRoute goes through a gateway on this node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteProblem {
    /// An exclusion can't be read.
    #[error(transparent)]
    InvalidExclusion(InvalidValue),
    /// The node is not in a VPC.
    #[error("this node has no interface in a VPC")]
    NoVpcInterface,
    /// None of the gateways can be used from here.
    #[error("{}", no_usable_gateway(.issues))]
    NoUsableGateway {
        /// What is wrong with each.
        issues: Vec<GatewayIssue>,
    },
    /// The EgressGateway that it follows has no list of gateways for it.
    #[error(transparent)]
    Reference(ReferenceFault),
    /// The only gateways in the list can't be read.
    #[error(transparent)]
    InvalidGateway(InvalidValue),
    /// The VPC interface is down: what is routed is dropped until it is back.
    #[error(
        "the node's VPC interface is down; routed traffic {} until it is back",
        if *.open { "leaves with the node's own address (FailOpen)" } else { "is dropped" }
    )]
    LinkDown {
        /// It is not dropped (`FailOpen`).
        open: bool,
    },
    /// Its latest version cut the node off from something that it lives by.
    #[error(
        "rolled back: with this version {cut} was cut off from this node; {}{}; it is tried again when its spec or the \
         node's network changes (where some of its gateways stay: after a while)", if *.restored { "the last confirmed version is in force" } else { "nothing of it is routed" },
        if *.guarded { ", and what else it lists is dropped (FailClosed)" } else { "" }
    )]
    RolledBack {
        /// What was cut off.
        cut: Target,
        /// An earlier version was confirmed and is in force.
        restored: bool,
        /// What the refused version lists stays shut (`FailClosed`).
        guarded: bool,
    },
    /// The node probes as many gateways as it can, and none of this StaticRoute's, which would have to share its traffic.
    #[error(
        "this node probes as many gateways as it can and none of these; who is not probed can't share traffic"
    )]
    NotProbed,
    /// All nexthop ids are taken.
    #[error("no nexthop id is free on this node")]
    NoNexthopId,
}

impl RouteProblem {
    /// The problem in one word, for `reason` fields.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::InvalidExclusion(_) | Self::InvalidGateway(_) => "Invalid",
            Self::NoVpcInterface => "NoVpcInterface",
            Self::Reference(fault) => fault.reason(),
            Self::NoUsableGateway { issues } => {
                issues.first().map_or("NoGateway", |issue| issue.fault.reason())
            }
            Self::LinkDown { .. } => "LinkDown",
            Self::RolledBack { .. } => "RolledBack",
            Self::NotProbed => "NotProbed",
            Self::NoNexthopId => "NoNexthopId",
        }
    }
}

/// A gateway that this node can't use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("gateway {gateway} {fault}")]
pub struct GatewayIssue {
    /// The gateway.
    pub gateway: Ipv4Addr,
    /// Why not.
    pub fault: GatewayFault,
}

/// Why a node can't use a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GatewayFault {
    /// In a range where no gateway can be.
    #[error("lies in {prefix}, the range of {reason}")]
    Reserved {
        /// That range.
        prefix: Ipv4Net,
        /// Whose it is.
        reason: ProtectedReason,
    },
    /// Not in the subnet of the VPC interface.
    #[error("is not in the VPC subnet {subnet} of this node")]
    NotOnLink {
        /// That subnet.
        subnet: Ipv4Net,
    },
    /// The node's own address.
    #[error("is this node's own address")]
    OwnAddress,
    /// Another node of the cluster.
    #[error("is a node of the cluster")]
    Node,
    /// The subnet's network address.
    #[error("is the network address of the VPC subnet")]
    NetworkAddress,
    /// The subnet's broadcast address.
    #[error("is the broadcast address of the VPC subnet")]
    BroadcastAddress,
}

impl GatewayFault {
    /// The fault in one word, for `reason` fields.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Reserved { reason, .. } => match reason {
                ProtectedReason::Pods => "GatewayIsPod",
                ProtectedReason::Services => "GatewayIsService",
                ProtectedReason::Loopback => "GatewayIsLoopback",
                ProtectedReason::Multicast => "GatewayIsMulticast",
                ProtectedReason::Broadcast => "GatewayIsBroadcastAddress",
                _ => "GatewayIsLinkLocal",
            },
            Self::NotOnLink { .. } => "GatewayNotOnLink",
            Self::OwnAddress => "GatewayIsThisNode",
            Self::Node => "GatewayIsNode",
            Self::NetworkAddress => "GatewayIsNetworkAddress",
            Self::BroadcastAddress => "GatewayIsBroadcastAddress",
        }
    }
}

fn no_usable_gateway(issues: &[GatewayIssue]) -> String {
    match issues {
        [] => "there is no gateway in the list".to_owned(),
        [first] => first.to_string(),
        [first, rest @ ..] => format!("{first}, and {} more can't be used either", rest.len()),
    }
}
