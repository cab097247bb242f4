//! The agent on a node: real kernel, real API server, real gateways; nothing is played. Each scene has all of it to itself.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at what it did not expect")]

mod bad_input;
mod boot;
mod clash;
mod cloud;
mod confirm;
mod connections;
mod deaf;
mod draining;
mod drift;
mod ebpf;
mod ecmp;
// Registers and numbers of system calls are those of x86-64, as DigitalOcean's nodes have them.
#[cfg(target_arch = "x86_64")]
mod fail_static;
mod far;
mod floating;
mod gray;
#[cfg(target_arch = "x86_64")]
mod half_open;
mod inbound;
mod large;
mod lifecycle;
mod native_pods;
mod no_gateway;
mod node_network;
mod numbers;
mod older_operator;
mod packets;
mod peered;
mod pod;
mod private_node;
mod protected;
mod recovery;
mod references;
mod reverse_path;
#[cfg(target_arch = "x86_64")]
mod rights;
mod scene;
mod selection;
mod switch;
#[cfg(target_arch = "x86_64")]
mod tracer;
mod uninstall;
