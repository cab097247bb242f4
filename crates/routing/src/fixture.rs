//! The node and the StaticRoutes of the tests, with the addresses of the lab.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::kernel_state::Gateway;
use crate::node::{NodeView, VpcInterface};
use crate::protected::{Protected, ProtectedReason};
use crate::wanted::{OnNoGateway, StaticRouteFields, WantedRoute};

pub(crate) fn net(text: &str) -> Ipv4Net {
    text.parse().unwrap()
}

pub(crate) fn ip(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

/// Several addresses.
pub(crate) fn ips(texts: &[&str]) -> BTreeSet<Ipv4Addr> {
    texts.iter().map(|text| ip(text)).collect()
}

/// A DOKS node: public 203.0.113.11/24, VPC 10.116.0.2/20.
pub(crate) fn node() -> NodeView {
    let mut protected = Protected::default();
    protected.insert_address(ip("198.51.100.10"), ProtectedReason::ApiServer);
    protected.insert_address(ip("67.207.67.2"), ProtectedReason::Resolver);
    protected.insert(net("10.116.0.0/20"), ProtectedReason::Vpc);
    protected.insert(net("10.244.0.0/16"), ProtectedReason::Pods);
    protected.insert(net("10.245.0.0/16"), ProtectedReason::Services);
    protected.insert_address(ip("203.0.113.1"), ProtectedReason::OnLink);
    protected.insert_address(ip("203.0.113.12"), ProtectedReason::Node);
    protected.insert_address(ip("10.116.0.3"), ProtectedReason::Node);
    NodeView {
        vpc: Some(VpcInterface {
            index: 3,
            up: true,
            address: ip("10.116.0.2"),
            subnet: net("10.116.0.0/20"),
        }),
        public_addresses: vec![net("203.0.113.11/24")],
        main_routes: ["203.0.113.0/24", "10.116.0.0/20", "10.244.0.0/24", "10.244.1.0/24"]
            .map(net)
            .into_iter()
            .collect(),
        main_origins: std::collections::BTreeMap::new(),
        protected,
        uncertain: None,
        candidates: BTreeSet::new(),
        default_way: Some(Gateway { address: ip("203.0.113.1"), interface: 2, onlink: true }),
        served: BTreeSet::new(),
    }
}

/// A health-checked StaticRoute named like its uid.
pub(crate) fn route(name: &str, created: i64, destinations: &[&str], gateways: &[&str]) -> WantedRoute {
    excluding(name, created, destinations, &[], gateways)
}

pub(crate) fn excluding(
    name: &str,
    created: i64,
    destinations: &[&str],
    excluded: &[&str],
    gateways: &[&str],
) -> WantedRoute {
    WantedRoute::parse(StaticRouteFields {
        name,
        uid: &format!("uid-{name}"),
        created,
        destinations,
        excluded,
        gateways,
        health_checked: true,
        reference_fault: None,
        weights: None,
        on_no_gateway: OnNoGateway::KeepLast,
        drain_seconds: 0,
    })
}

/// The same with another word for when no gateway works.
pub(crate) fn failing(route: WantedRoute, on_no_gateway: OnNoGateway) -> WantedRoute {
    WantedRoute { on_no_gateway, ..route }
}

/// The same with gateways that share the traffic in equal parts.
pub(crate) fn shared(route: WantedRoute) -> WantedRoute {
    WantedRoute { weights: Some(route.gateways.iter().map(|gateway| (*gateway, 1)).collect()), ..route }
}
