//! The part of a node's kernel that this project writes: rules, routes and nexthop objects as plain values.
//!
//! Responsibility: one vocabulary for the plan (what should be), the snapshot (what is) and the changes between
//! them. No I/O: `egress-netlink` turns these values into messages and back.
//!
//! Invariants:
//! - A value read back from the kernel equals the value that was written ([`Rule`], [`Route`] and [`Nexthop`] hold
//!   only what the kernel keeps), so "plan minus kernel" is empty when nothing is to be done.
//! - Whatever replaces or deletes takes a [`Managed`] value, and one of those comes only from the proof that the
//!   object carries our protocol number. What is not provably ours is [`Foreign`]: reported, never touched.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use ipnet::Ipv4Net;

use crate::builtin_rules::BuiltinRule;

/// Route protocol number (`rtm_protocol`, `FRA_PROTOCOL`, `nh_protocol`) of everything this project writes.
pub const PROTOCOL: u8 = 157;

/// The kernel's main routing table.
pub const MAIN_TABLE: u32 = 254;

/// Nexthop object ids of this project; ids are one number space for all programs on the node. An agent uses a million of them
/// ([`crate::Layout::nexthops`]); all of them prove an object ours, so that nothing is left behind when it is given others.
pub const NEXTHOP_IDS: RangeInclusive<u32> = 241_000_000..=249_999_999;

/// Id of a nexthop object (`NHA_ID`), 1 and up; ours lie in [`NEXTHOP_IDS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NexthopId(pub u32);

impl fmt::Display for NexthopId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A nexthop object (`ip nexthop`): routes name its id, so replacing it moves all of them with one message.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nexthop {
    /// The object's id.
    pub id: NexthopId,
    /// Where packets go.
    pub via: NexthopTarget,
}

impl Nexthop {
    /// What the kernel does to this object when another one goes: a group loses a member. False: it goes with its last one.
    fn survives(&mut self, gone: NexthopId) -> bool {
        match &mut self.via {
            NexthopTarget::Group { members, .. } => {
                members.retain(|member| member.id != gone);
                !members.is_empty()
            }
            NexthopTarget::Gateway(_) | NexthopTarget::Blackhole => true,
        }
    }
}

/// Where a nexthop object sends packets.
///
/// The kernel replaces `Gateway` by `Blackhole` and back, but refuses (EINVAL) to replace either by `Group` or a
/// `Group` by either, to change the kind or the number of buckets of a group, and a `Blackhole` as member of a group
/// of several; as the only one it is fine.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NexthopTarget {
    /// One gateway on a link.
    Gateway(Gateway),
    /// Packets are dropped without an answer.
    Blackhole,
    /// Several nexthop objects that share the packets; the members must exist before the group.
    Group {
        /// The members with their weights, 1 to 256, in ascending order of id (see [`NexthopTarget::group`]).
        members: Vec<GroupMember>,
        /// `Some`: flows keep their member when others come and go; `None`: the kernel's hash-threshold group.
        resilient: Option<Resilient>,
    },
}

impl NexthopTarget {
    /// A group with its members in the order in which snapshots return them.
    pub fn group(members: impl IntoIterator<Item = GroupMember>, resilient: Option<Resilient>) -> Self {
        let mut members: Vec<_> = members.into_iter().collect();
        members.sort_unstable();
        Self::Group { members, resilient }
    }
}

/// A gateway address and the link it is reached on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gateway {
    /// The gateway.
    pub address: Ipv4Addr,
    /// Index of the link.
    pub interface: u32,
    /// The gateway is taken to be on the link whatever the link's addresses say (`onlink`).
    pub onlink: bool,
}

/// One member of a [`NexthopTarget::Group`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupMember {
    /// The member: not itself a group.
    pub id: NexthopId,
    /// Its share, 1 to 256.
    pub weight: u16,
}

/// Parameters of a resilient group, in whole seconds since the kernel rounds finer ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Resilient {
    /// Number of hash buckets, at least the number of members. Can't be changed later.
    pub buckets: u16,
    /// A bucket without packets for that long may move to another member.
    pub idle_seconds: u32,
    /// A group out of balance for that long is balanced by force; 0 is never.
    pub unbalanced_seconds: u32,
}

/// What the kernel tells routes apart by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteKey {
    /// Routing table.
    pub table: u32,
    /// Destination, host bits zero.
    pub destination: Ipv4Net,
    /// Metric (priority); the lower one wins.
    pub metric: u32,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    /// Routing table.
    pub table: u32,
    /// Destination, host bits zero.
    pub destination: Ipv4Net,
    /// Metric (priority); the lower one wins.
    pub metric: u32,
    /// What happens to a packet.
    pub kind: RouteKind,
}

impl Route {
    /// The route's key.
    pub fn key(&self) -> RouteKey {
        RouteKey { table: self.table, destination: self.destination.trunc(), metric: self.metric }
    }

    /// Whether it keeps its destination out of a wider range. What lies below another route is no exception: it only answers when
    /// that is gone.
    pub fn is_exception(&self) -> bool {
        self.kind == RouteKind::Throw && self.metric == 0
    }
}

/// What happens to a packet that a route matches.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteKind {
    /// It goes where the nexthop object says.
    Nexthop(NexthopId),
    /// It goes to this gateway.
    Gateway(Gateway),
    /// The lookup goes on with the next rule.
    Throw,
    /// It is dropped and the sender told (EHOSTUNREACH).
    Unreachable,
    /// It is dropped silently.
    Blackhole,
}

/// A policy rule (`ip rule`); a packet must match all that is `Some`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule {
    /// Priority (`pref`); the lower one is looked at first. Several rules may have the same.
    pub priority: u32,
    /// Source prefix, host bits zero; any source is `None`, not 0.0.0.0/0.
    pub from: Option<Ipv4Net>,
    /// Destination prefix, host bits zero; any destination is `None`, not 0.0.0.0/0.
    pub to: Option<Ipv4Net>,
    /// Name of the link the packet came in on; `lo` for packets of the node itself. The link need not exist.
    pub iif: Option<String>,
    /// IP protocol number, not 0.
    pub ip_protocol: Option<u8>,
    /// Source ports, first and last, both included, 1 to 65535; needs `ip_protocol`.
    pub source_ports: Option<(u16, u16)>,
    /// Packet mark and mask.
    pub fwmark: Option<(u32, u32)>,
    /// What happens to a packet that matches.
    pub action: RuleAction,
}

impl Rule {
    /// A rule that sends every packet to `table`.
    pub fn lookup(priority: u32, table: u32) -> Self {
        Self {
            priority,
            from: None,
            to: None,
            iif: None,
            ip_protocol: None,
            source_ports: None,
            fwmark: None,
            action: RuleAction::Lookup { table, suppress_prefix_length: None },
        }
    }
}

/// What happens to a packet that a rule matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RuleAction {
    /// A lookup in `table`; where that finds nothing (or `throw`) the next rule is looked at.
    Lookup {
        /// Routing table, not 0.
        table: u32,
        /// Answers by a prefix of at most this length are ignored: 0 ignores the default route.
        suppress_prefix_length: Option<u32>,
    },
    /// It is dropped and the sender told (EHOSTUNREACH).
    Unreachable,
    /// It is dropped silently.
    Blackhole,
}

/// What the kernel should hold of ours: the result of planning.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KernelState {
    /// Rules.
    pub rules: BTreeSet<Rule>,
    /// Routes in all our tables, each under its own key.
    pub routes: BTreeMap<RouteKey, Route>,
    /// Nexthop objects, each under its own id.
    pub nexthops: BTreeMap<NexthopId, Nexthop>,
    /// Rules of the kernel's own that must not be missing.
    pub builtin_rules: BTreeSet<BuiltinRule>,
}

impl KernelState {
    /// Adds a route under its key.
    pub fn insert_route(&mut self, route: Route) {
        self.routes.insert(route.key(), route);
    }

    /// Adds a nexthop object under its id.
    pub fn insert_nexthop(&mut self, nexthop: Nexthop) {
        self.nexthops.insert(nexthop.id, nexthop);
    }

    /// Takes a nexthop object away and, as the kernel does, everything on it: routes, places in groups, empty groups.
    pub fn remove_nexthop(&mut self, id: NexthopId) {
        self.nexthops.remove(&id);
        self.nexthops.retain(|_, nexthop| nexthop.survives(id));
        let nexthops = &self.nexthops;
        self.routes.retain(|_, route| match route.kind {
            RouteKind::Nexthop(id) => nexthops.contains_key(&id),
            _ => true,
        });
    }
}

/// A kernel object that is provably ours; only such a one may be replaced or deleted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Managed<T>(T);

impl<T: Ownable> Managed<T> {
    /// Takes an object read from the kernel together with the protocol number it had there.
    ///
    /// Gives the object back when that does not prove it ours.
    pub fn prove(object: T, protocol: u8) -> Result<Self, T> {
        if protocol == PROTOCOL && object.in_our_range() { Ok(Self(object)) } else { Err(object) }
    }

    /// The object.
    pub fn get(&self) -> &T {
        &self.0
    }
}

/// What can be proven ours; implemented here only.
pub trait Ownable: sealed::Sealed {
    /// Whether the object's own number, where it has one, is ours too.
    fn in_our_range(&self) -> bool;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Rule {}
    impl Sealed for super::Route {}
    impl Sealed for super::Nexthop {}
}

impl Ownable for Rule {
    fn in_our_range(&self) -> bool {
        true
    }
}

impl Ownable for Route {
    fn in_our_range(&self) -> bool {
        true
    }
}

impl Ownable for Nexthop {
    fn in_our_range(&self) -> bool {
        NEXTHOP_IDS.contains(&self.id.0)
    }
}

/// Somebody else's object at a place of ours.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Foreign {
    /// A route in one of our tables; while it is there, a route of ours with the same key can't be added.
    Route {
        /// Its place.
        key: RouteKey,
        /// Its protocol number.
        protocol: u8,
    },
    /// A nexthop object with an id of ours.
    Nexthop {
        /// Its id.
        id: NexthopId,
        /// Its protocol number; 157 with something in the object that this project never writes.
        protocol: u8,
    },
    /// A rule with a priority of ours.
    Rule {
        /// Its priority.
        priority: u32,
        /// Its protocol number; 157 with something in the rule that this project never writes.
        protocol: u8,
        /// The rule, as far as it can be said with our words.
        rule: Option<Rule>,
    },
}

/// What the kernel was seen to hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// Rules of ours.
    pub rules: BTreeSet<Managed<Rule>>,
    /// Routes of ours, in whatever table.
    pub routes: BTreeMap<RouteKey, Managed<Route>>,
    /// Nexthop objects of ours.
    pub nexthops: BTreeMap<NexthopId, Managed<Nexthop>>,
    /// Rules of the kernel's own that are gone, and nobody's rule does their work.
    pub lost_builtin_rules: BTreeSet<BuiltinRule>,
    /// What is in our way.
    pub foreign: BTreeSet<Foreign>,
}

impl Observed {
    /// Takes note of a change that the kernel accepted, so that the next switch needs no snapshot before it.
    ///
    /// A snapshot stays the truth: the kernel drops routes and nexthop objects without a word when a link goes down.
    pub fn record(&mut self, change: &Change) {
        match change {
            Change::PutNexthop { nexthop, .. } => {
                self.nexthops.insert(nexthop.id, Managed(nexthop.clone()));
            }
            Change::PutRoute { route, .. } => {
                self.routes.insert(route.key(), Managed(route.clone()));
            }
            Change::PutRule(rule) => {
                self.rules.insert(Managed(rule.clone()));
            }
            Change::RestoreRule(rule) => {
                self.lost_builtin_rules.remove(rule);
            }
            Change::DeleteRule(rule) => {
                self.rules.remove(rule);
            }
            Change::DeleteRoute(route) => {
                self.routes.remove(&route.0.key());
            }
            Change::DeleteNexthop(nexthop) => {
                let gone = nexthop.0.id;
                self.nexthops.remove(&gone);
                self.nexthops.retain(|_, nexthop| nexthop.0.survives(gone));
                // The kernel takes the routes along.
                let nexthops = &self.nexthops;
                self.routes.retain(|_, route| match route.0.kind {
                    RouteKind::Nexthop(id) => nexthops.contains_key(&id),
                    _ => true,
                });
            }
        }
    }

    /// Routes of others at places of ours, with their protocol numbers.
    pub fn foreign_routes(&self) -> impl Iterator<Item = (RouteKey, u8)> {
        self.foreign.iter().filter_map(|foreign| match foreign {
            Foreign::Route { key, protocol } => Some((*key, *protocol)),
            Foreign::Nexthop { .. } | Foreign::Rule { .. } => None,
        })
    }

    /// Ids of ours that others have.
    pub fn foreign_nexthops(&self) -> impl Iterator<Item = NexthopId> {
        self.foreign.iter().filter_map(|foreign| match foreign {
            Foreign::Nexthop { id, .. } => Some(*id),
            Foreign::Route { .. } | Foreign::Rule { .. } => None,
        })
    }

    /// Whether somebody else's route has this key.
    pub fn is_taken(&self, key: &RouteKey) -> bool {
        self.foreign_routes().any(|(taken, _)| taken == *key)
    }
}

/// One step from what is to what should be. The kernel takes them in the order of the list: nexthop objects (members
/// before groups), rules that keep packets in the main table, routes, other rules, the kernel's own rules; then what goes, the
/// other way round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Make a nexthop object, or replace one of ours in place (one message, atomic for all routes on it).
    PutNexthop {
        /// What should be.
        nexthop: Nexthop,
        /// The one of ours with that id; `None` fails where the id is taken.
        replaces: Option<Managed<Nexthop>>,
    },
    /// Make a route, or replace one of ours in place.
    PutRoute {
        /// What should be.
        route: Route,
        /// The one of ours with that key; `None` fails where the key is taken.
        replaces: Option<Managed<Route>>,
    },
    /// Make a rule. Rules can't be replaced: put the new one before the old one is deleted.
    PutRule(Rule),
    /// Make a rule of the kernel's own again.
    RestoreRule(BuiltinRule),
    /// Take a rule away.
    DeleteRule(Managed<Rule>),
    /// Take a route away.
    DeleteRoute(Managed<Route>),
    /// Take a nexthop object away; the kernel takes the routes on it along.
    DeleteNexthop(Managed<Nexthop>),
}

impl Change {
    /// Whether all that was in the kernel is still there afterwards.
    pub fn only_adds(&self) -> bool {
        match self {
            Self::PutNexthop { replaces, .. } => replaces.is_none(),
            Self::PutRoute { replaces, .. } => replaces.is_none(),
            Self::PutRule(_) | Self::RestoreRule(_) => true,
            Self::DeleteRule(_) | Self::DeleteRoute(_) | Self::DeleteNexthop(_) => false,
        }
    }

    /// Whether what is dropped takes the place of what is let out, at the very same destination and metric.
    pub fn only_shuts(&self) -> bool {
        let Self::PutRoute { route, replaces: Some(replaced) } = self else { return false };
        (&route.kind, &replaced.get().kind) == (&RouteKind::Blackhole, &RouteKind::Throw)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nexthop(id: u32) -> Nexthop {
        Nexthop { id: NexthopId(id), via: NexthopTarget::Blackhole }
    }

    #[test]
    fn only_protocol_and_range_together_prove_a_nexthop_ours() {
        assert!(Managed::prove(nexthop(241_000_000), PROTOCOL).is_ok());
        assert!(Managed::prove(nexthop(241_000_000), 4).is_err());
        assert!(Managed::prove(nexthop(7), PROTOCOL).is_err());
    }

    #[test]
    fn a_deleted_nexthop_takes_its_routes_along() {
        let mut observed = Observed::default();
        let object = nexthop(241_000_000);
        let route = Route {
            table: 1157,
            destination: Ipv4Net::default(),
            metric: 0,
            kind: RouteKind::Nexthop(object.id),
        };
        let throw = Route { metric: 1, kind: RouteKind::Throw, ..route.clone() };
        observed.record(&Change::PutNexthop { nexthop: object.clone(), replaces: None });
        observed.record(&Change::PutRoute { route, replaces: None });
        observed.record(&Change::PutRoute { route: throw.clone(), replaces: None });
        assert_eq!(observed.routes.len(), 2);
        observed.record(&Change::DeleteNexthop(observed.nexthops[&object.id].clone()));
        assert!(observed.nexthops.is_empty());
        assert_eq!(observed.routes.keys().collect::<Vec<_>>(), [&throw.key()]);
    }
}
