//! Node agent: StaticRoutes to kernel routes, probes, NodeEgress.
//!
//! ```text
//!  watches ──► objects ─┐
//!  netlink ──► node ────┼─► plan (egress-routing) ─► changes ─► netlink
//!  probes ───► gateways ┘          │
//!                                  └─► report ─► publish (this node's NodeEgress)
//! ```
//!
//! One loop ([`reconcile`]) over the node's whole route set; everything around it only wakes it or carries its words away.

pub mod api_server;
pub mod boot;
pub mod cluster_node;
pub mod concerns;
pub mod definition;
pub mod departed;
pub mod drift;
#[cfg(test)]
mod fixture;
pub mod gateways;
pub mod inbound;
pub mod leaving;
pub mod lifelines;
pub mod metadata;
pub mod metrics;
pub mod neighbours;
pub mod node;
pub mod objects;
pub mod pacing;
pub mod packet_size;
mod partial;
pub mod probe;
pub mod protected_list;
pub mod publish;
pub mod reconcile;
pub mod report;
pub mod reverse_path;
pub mod self_test;
pub mod settings;
pub mod surroundings;
pub mod uninstall;
pub mod watches;
