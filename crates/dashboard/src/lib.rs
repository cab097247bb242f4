//! The health page: what the objects say of every gateway, for a person who was woken at night.
//!
//! Responsibility: [`view`] is a pure model of what is in the watches, [`page`] its HTML, [`server`] serves that and tells open pages
//! what changes. It reads what others keep up to date and asks for nothing but the right to see it.
//!
//! Invariants: read-only, no cookie, nothing from elsewhere ([`server`]); whoever is not on the loopback shows a token of Kubernetes
//! ([`access`]); the size of a page, the number of pages that are open and what is remembered are bounded, whatever the cluster's size.

// What is made up for tests is written as the tests outside see this crate.
#[cfg(test)]
extern crate self as egress_dashboard;
#[cfg(test)]
#[path = "../tests/made_up/mod.rs"]
mod made_up;

pub mod access;
pub mod board;
pub mod headroom;
pub mod listen;
pub mod page;
pub mod server;
mod stream;
pub mod timeline;
pub mod view;

pub use board::{Board, Source};
pub use headroom::{Busiest, Headroom};
pub use listen::Listen;
