//! Node agent: StaticRoutes to kernel routes, probes, NodeEgress.

fn main() {}
