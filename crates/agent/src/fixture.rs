//! What several tests of this crate take for given: links of a node, and a report of a StaticRoute.

use std::net::Ipv4Addr;

use egress_netlink::reading::Interface;
use egress_routing::kernel_state::NexthopId;
use egress_routing::{OnNoGateway, RouteReport};

/// A link that is up.
pub fn link(index: u32, name: &str, address: &str) -> Interface {
    Interface {
        index,
        name: name.to_owned(),
        mac: None,
        mtu: 1500,
        up: true,
        running: true,
        loopback: false,
        addresses: vec![address.parse().unwrap()],
    }
}

/// Of a StaticRoute called demo, through one gateway.
pub fn report(applied: usize, total: usize) -> RouteReport {
    RouteReport {
        name: "demo".to_owned(),
        uid: "u".to_owned(),
        applied,
        total,
        in_use: vec![Ipv4Addr::new(10, 116, 0, 5)],
        shared: false,
        nexthop: Some(NexthopId(241_000_007)),
        usable_gateways: Vec::new(),
        gateway_issues: Vec::new(),
        invalid_gateways: Vec::new(),
        problem: None,
        caveat: None,
        object: None,
        draining: None,
        on_no_gateway: OnNoGateway::KeepLast,
        no_gateway: false,
        guarded: true,
        failures: Vec::new(),
    }
}
