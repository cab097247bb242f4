//! EgressGateway controller: observe, decide, act.

fn main() {}
