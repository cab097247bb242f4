//! The client over real HTTP on loopback: against scripted answers, DigitalOcean's description, and the simulator.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod contract;
mod fake;
mod faults;
mod paging;
mod rate;
mod secrets;
mod simulator;
