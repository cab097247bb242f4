//! The controller's binary at work: a real API server with the shipped CRDs and rights, the cloud of `do-simulator`, and one or
//! two controllers. Gateways' health endpoints and the nodes' reports are played by the test.
//!
//! ```text
//!  network namespace of the test's thread, no way out
//!  ├─ etcd, kube-apiserver          127.0.0.1
//!  ├─ do-simulator                  127.0.0.1:8080
//!  ├─ egress-controller (a, b)      with the token of its ServiceAccount
//!  └─ stage: endpoints on 10.116.0.0/20:9180, NodeEgress of pool-1 and pool-2
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on says so by ending"
)]

mod births;
mod crash_points;
mod deletion;
mod discovery;
mod firewalls;
mod idle;
mod lives;
mod manners;
mod older_operator;
mod plan;
mod repair;
mod reserved_ips;
mod rolls;
mod scale;
mod secrets;
mod stage;
mod startup_taint;
mod troubles;
mod unreadable;
