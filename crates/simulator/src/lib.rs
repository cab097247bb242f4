//! The DigitalOcean v2 API and metadata service with state machines and faults on demand.
//!
//! ```text
//!  client ──► connection ──► server: faults, authentication, rate limit ──► cloud::Cloud (pure) ──► journal
//!                               ▲ clock, control routes                         │ effects
//!  machine ─► metadata          └────────────── machine: runs the hook ◄────────┘
//! ```
//!
//! Invariants: the token is in no journal, state or log; a request is journalled in the order in which it changed the
//! cloud; no I/O and no machine command runs while the cloud is locked, the journal's and snapshot's writes excepted.

pub mod clock;
pub mod cloud;
pub mod fault;
pub mod fixtures;
pub mod journal;
pub mod rate;
pub mod scope;
pub mod server;

mod caller;
mod connection;
mod control;
mod machine;
mod metadata;
mod reply;

pub use server::{Options, Running, start};
