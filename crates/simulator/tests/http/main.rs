//! The simulator over HTTP, as its clients meet it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests: a failure is a panic with its reason"
)]

mod bodies;
mod contract;
mod control;
mod faults;
mod machine;
mod metadata;
mod scopes;
mod simulator;
