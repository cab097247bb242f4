//! Kernel state over netlink: rules, routes, nexthop objects, monitor, snapshot; no Kubernetes.
//!
//! - [`command`]: asks and changes the kernel, with a deadline on everything; [`command::Commands`] is what async
//!   code uses.
//! - [`snapshot`]: what the kernel holds of ours and what is in our way.
//! - [`reading`]: links, addresses, the main table, the kernel's own route lookup.
//! - [`bucket`]: who of a resilient group is used.
//! - [`neighbour`]: makes the kernel ask anew for a neighbour's Ethernet address.
//! - [`leftover`]: what the older StaticRoute operator left in the main table.
//! - [`monitor`]: wake-ups when something changes.
//! - [`exchange`], [`wire`] and the modules named after what they hold: the codec, without a socket.
//! - [`ownership`]: what makes a kernel object ours.
//!
//! Events only wake: the kernel drops routes and nexthop objects without a word when a link goes down, and loses
//! notifications when a receiver is slow, so the truth is always read back with a snapshot.

pub mod apply;
pub mod bucket;
pub mod command;
mod connection;
pub mod error;
pub mod exchange;
pub mod leftover;
pub mod monitor;
pub mod neighbour;
pub mod nexthop;
pub mod ownership;
pub mod reading;
pub mod route;
pub mod rule;
pub mod snapshot;
#[cfg(test)]
mod tests;
pub mod wire;

pub use command::{CommandSocket, Commands};
pub use error::{ChangeError, Error, KernelError, Refusal};
