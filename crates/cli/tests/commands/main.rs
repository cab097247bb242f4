//! The commands, as programs, at a real API server, and at a simulated cloud where they ask it.
//!
//! Controller and agents are played: what they would write is written here.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on says so by ending")]

mod cloud;
mod migrate;
mod objects;
mod order;
mod stage;
mod state;
