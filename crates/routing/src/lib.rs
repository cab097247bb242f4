//! What a node's kernel should hold: prefix sets, protected ranges, conflicts, the plan; pure.
//!
//! ```text
//!  StaticRoutes ─► WantedRoute::parse ─┐
//!  the node     ─► NodeView ───────────┼─► plan() ─► NodePlan { state, reports, probes }
//!  gateways chosen by health ──────────┤                │
//!  the kernel   ─► Observed ───────────┘                ▼
//!                      └──────────────────────► changes() ─► Vec<Change>, written by egress-netlink
//! ```
//!
//! Nothing in here reads a clock, a file or a socket, and the same input gives the same output, byte for byte.

pub mod builtin_rules;
pub mod clash;
pub mod confirm;
pub mod diff;
#[cfg(test)]
mod fib_model;
#[cfg(test)]
mod fixture;
pub mod gateways;
pub mod inbound;
pub mod kernel_state;
pub mod layout;
mod nexthop_ids;
pub mod node;
pub mod origin;
pub mod orphans;
pub mod plan;
pub mod prefix;
pub mod protected;
pub mod recovery;
pub mod report;
mod resolve;
pub mod sequence;
mod sharing;
pub mod wanted;
pub mod ways;

pub use builtin_rules::BuiltinRule;
pub use clash::{Clash, clashes};
pub use confirm::Confirmation;
pub use diff::changes;
pub use inbound::{ServedPort, Transport};
pub use layout::{GatewaySlot, Layout, LayoutError, Numbers, ProbePath};
pub use node::{NodeView, Uncertainty, VpcInterface};
pub use plan::{Chosen, Draining, NodePlan, Selection, plan, quiet_seconds, watch_seconds};
pub use protected::{Protected, ProtectedReason};
pub use recovery::Recovered;
pub use report::RouteReport;
pub use sequence::Sequence;
pub use wanted::{OnNoGateway, ReferenceFault, StaticRouteFields, WantedRoute};
pub use ways::{Around, Ways};
