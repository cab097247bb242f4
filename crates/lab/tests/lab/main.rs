//! The lab as it is used: by its program, from outside. Needs root.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test fails by panicking"
)]

mod api;
mod cleanup;
mod cluster;
mod demo;
mod droplets;
mod firewalls;
mod floating;
mod network;
mod reserved_ips;
mod world;
