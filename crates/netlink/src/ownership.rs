//! What makes a kernel object ours: the protocol number, and for nexthop objects the id range too.
//!
//! Leaking an object of ours is bounded and visible; touching somebody else's is neither. So the proof is a type
//! ([`Managed`]), snapshots are the only place it comes from, and what lacks it is reported as [`Foreign`].
//!
//! The proof is as old as its snapshot. What could hit another program's object meanwhile is looked at again right before: nexthop
//! objects that are replaced or deleted, rules that are deleted. A route's deletion names protocol and target, and fits no other. A
//! route's replacement names its place only, and nothing is asked before it: what another program put there in the milliseconds
//! since the snapshot, with the very same table, destination and metric, is overwritten.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

pub use egress_routing::kernel_state::{Foreign, Managed, NEXTHOP_IDS, PROTOCOL};

/// The places on the node that we lay claim to; what others have there is reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Routing tables.
    pub tables: BTreeSet<u32>,
    /// Rule priorities.
    pub priorities: Vec<RangeInclusive<u32>>,
    /// Nexthop ids, a part of [`NEXTHOP_IDS`].
    pub nexthops: RangeInclusive<u32>,
}

impl Claim {
    /// Whether a rule with that priority would be in our way.
    pub fn has_priority(&self, priority: u32) -> bool {
        self.priorities.iter().any(|range| range.contains(&priority))
    }
}
