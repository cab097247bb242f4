//! Networks that are joined to this VPC: DigitalOcean's machines get routes to all private ranges through the VPC's own router.

use std::io::ErrorKind;
use std::net::TcpStream;

use egress_api::NodeRouteState;
use serde_json::json;

use crate::cloud::{A, A_PUBLIC, ip, seen_from, until};
use crate::scene::{Agent, LISTED, SOON, Scene};

/// The VPC's router, as the metadata service names it.
const ROUTER: &str = "10.116.0.1";
/// Somebody in the other network.
const PEER: &str = "10.200.0.5";

/// What `vpc-peering.service` does on a Droplet.
const JOINED: [&str; 3] = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"];

#[test]
fn networks_joined_to_the_vpc_are_never_reached_through_a_gateway() {
    let scene = Scene::new();
    let vpc = scene.cloud.name("vpc");
    ip(&format!("-n {vpc} addr add {ROUTER}/20 dev fabric0"));
    ip(&format!("-n {vpc} addr add {PEER}/32 dev lo"));
    let _agent = Agent::start(&scene);
    scene.route("all", &json!({"destinations": ["0.0.0.0/0"], "gateway": A}));
    scene.route("private", &json!({"destinations": ["172.16.0.0/12"], "gateway": A}));
    scene.until_applied("all", 1);
    scene.until_applied("private", 1);
    assert_eq!(seen_from(LISTED), Some(A_PUBLIC), "the scene itself");
    assert!(way(PEER).contains(A), "nothing is joined yet: {}", way(PEER));

    // From the moment that the routes are there, whatever the agent does.
    for range in JOINED {
        ip(&format!("route add {range} via {ROUTER} dev eth1 metric 101"));
    }
    for address in [PEER, "172.16.0.1", "192.168.255.254"] {
        assert!(way(address).contains(&format!("via {ROUTER} dev eth1")), "{address}: {}", way(address));
    }
    let answer = TcpStream::connect_timeout(&format!("{PEER}:9").parse().unwrap(), SOON);
    assert_eq!(answer.unwrap_err().kind(), ErrorKind::ConnectionRefused, "its kernel answers");
    // Nobody is told that a route works which does not.
    until("shadowed", &Some((NodeRouteState::NotApplied, "Shadowed".to_owned())), SOON, || {
        let route = scene.route_report("private")?;
        Some((route.state, route.failures.first()?.reason.clone()))
    });
    let failure = scene.route_report("private").unwrap().failures.remove(0);
    assert!(failure.message.contains("172.16.0.0/12"), "{}", failure.message);
    assert_eq!(scene.state_of("all"), Some((NodeRouteState::Applied, 1)));
    assert_eq!(seen_from(LISTED), Some(A_PUBLIC));

    // What is no longer joined is the StaticRoute's again.
    ip(&format!("route del 172.16.0.0/12 via {ROUTER} dev eth1 metric 101"));
    scene.until_applied("private", 1);
    assert!(way("172.16.0.1").contains(A) && way(PEER).contains(ROUTER));
}

fn way(to: &str) -> String {
    ip(&format!("route get {to}"))
}
