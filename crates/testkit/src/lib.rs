//! Real parts for tests: a Kubernetes API server of one's own ([`ApiServer`]), traffic whose every packet is accounted for
//! ([`Traffic`]), forwarding in eBPF as some CNIs do it ([`HostRouting`]), and a browser ([`browser`]). And one imitation, for thousands of lives in virtual
//! time, that is held against the real part: [`memory_api`].
//!
//! [`ApiServer`]: start etcd and kube-apiserver on free loopback ports, hand out clients, and end both by the process ids that
//! were recorded. The programs come from `tests/control-plane/build.sh`, pinned; where they are missing the test fails and
//! says how to get them. About three seconds and 300 MB per server, so tests of one file share one.

mod api_server;
pub mod browser;
mod ebpf;
mod host_routing;
pub mod memory_api;
mod traffic;

pub use api_server::ApiServer;
pub use host_routing::HostRouting;
pub use traffic::{Traffic, Verdict};
