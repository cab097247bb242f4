//! A node without a public interface: the VPC is on eth0, and whatever is not routed leaves through another machine in it.
//!
//! ```text
//!  node eth0 10.116.0.2 ──┬── C 10.116.0.20, 203.0.113.20: the default route
//!                         ├── A, B: gateways of StaticRoutes
//! ```

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::json;

use crate::cloud::{A, A_PUBLIC, B, B_PUBLIC, ip, seen_from, sh, until};
use crate::far::{Far, SECOND, goes_through_a};
use crate::inbound::{TRANSPORTS, drop_foreign_sources, is_answered, serve};
use crate::packets::Packets;
use crate::pod::{HOST_PORT, POD_PORT, Pod, inside};
use crate::scene::{Agent, LISTED, Monitor, SOON, Scene, UNLISTED, settled, until_ready};

const C: &str = "10.116.0.20";
const C_PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 20);
const NODE: Ipv4Addr = Ipv4Addr::new(10, 116, 0, 2);
/// Answered by the node itself.
const HOST_NETWORK: u16 = 7000;

/// Takes the node's public interface away.
fn make_private(scene: &Scene) {
    ip("link del eth0");
    ip("link set eth1 down");
    ip("link set eth1 name eth0");
    ip("link set eth0 up");
    scene.cloud.start_gateway("c", &C_PUBLIC.to_string(), C);
    ip(&format!("route add default via {C}"));
    let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": NODE}]}}).to_string();
    scene.kubectl(&["patch", "node", "node-1", "--subresource=status", "--type=merge", "-p", &status]);
}

/// Whether a client on the internet is answered whose packets C sends on as they are, as a balancer does that keeps addresses.
fn answered(scene: &Scene, port: u16) -> [bool; 2] {
    let internet = scene.cloud.name("inet");
    TRANSPORTS.map(|transport| {
        inside(Some(&internet), move || is_answered(transport, (C_PUBLIC, port).into())).join().unwrap()
    })
}

fn condition(scene: &Scene) -> Option<(String, String)> {
    let condition = scene.status()?.conditions.into_iter().find(|one| one.type_ == "NoPublicAddress")?;
    Some((condition.status, condition.message))
}

#[test]
fn a_node_without_a_public_interface_routes_fails_over_and_says_whom_it_cannot_answer() {
    let scene = Scene::new();
    make_private(&scene);
    drop_foreign_sources(&scene.cloud, &[]);
    let pod = Pod::new(&scene.cloud, 20);
    pod.translate(NODE);
    for transport in ["tcp", "udp"] {
        for port in [HOST_NETWORK, HOST_PORT] {
            let what = format!("-d {C_PUBLIC} -p {transport} --dport {port} -j DNAT --to {NODE}:{port}");
            let gateway = scene.cloud.name("c");
            sh(&format!("ip netns exec {gateway} iptables -t nat -A PREROUTING {what}"));
        }
    }
    serve(None, NODE, &[HOST_NETWORK]);
    serve(Some(&pod.namespace), pod.address, &[POD_PORT]);
    assert_eq!([seen_from(LISTED), pod.seen_from(LISTED)], [Some(C_PUBLIC); 2], "the scene itself");
    for port in [HOST_NETWORK, HOST_PORT] {
        assert_eq!(answered(&scene, port), [true, true], "the scene itself, port {port}");
    }
    let leak = format!("ip saddr {C_PUBLIC} ip daddr {LISTED} counter");
    let agent = Agent::start(&scene);
    pod.tell_host_port(&scene);
    let all = json!({"destinations": ["0.0.0.0/0"], "excludedDestinations": [UNLISTED.to_string()],
        "gateways": [{"address": A}, {"address": B}]});
    scene.route("all", &all);
    scene.until_applied("all", 1);
    until("through A", &[Some(A_PUBLIC); 2], SOON, || [seen_from(LISTED), pod.seen_from(LISTED)]);
    let rules = format!(
        "table ip oracle {{ chain leaks {{ type filter hook prerouting priority -300; {leak}; }}; }}"
    );
    scene.cloud.in_internet(&format!("nft '{rules}'"));
    for own in ["169.254.169.254", "10.116.3.9", "10.244.7.7", "10.245.0.1"] {
        let way = ip(&format!("route get {own}"));
        assert!(!way.contains(&format!("via {A} ")), "{own} would go through a gateway: {way}");
    }
    for mode in [0, 1, 2] {
        sh(&format!("sysctl -qw net.ipv4.conf.all.rp_filter={mode} net.ipv4.conf.eth0.rp_filter={mode}"));
        assert_eq!([seen_from(LISTED), pod.seen_from(LISTED)], [Some(A_PUBLIC); 2], "rp_filter {mode}");
        assert_eq!([seen_from(UNLISTED), pod.seen_from(UNLISTED)], [Some(C_PUBLIC); 2], "rp_filter {mode}");
    }

    // Who is in the VPC is answered, and so are host ports to anybody. A socket of the node has no address that tells an answer
    // from a connection of its own.
    let neighbour = scene.cloud.name("b");
    let reached = inside(Some(&neighbour), || {
        [HOST_NETWORK, HOST_PORT].map(|port| {
            TcpStream::connect_timeout(&SocketAddr::from((NODE, port)), Duration::from_secs(1)).is_ok()
        })
    });
    assert_eq!(reached.join().unwrap(), [true, true]);
    until("its rule", &[true, true], SOON, || answered(&scene, HOST_PORT));
    assert_eq!(answered(&scene, HOST_NETWORK), [false, false]);
    until("told", &Some("True".to_owned()), SOON, || condition(&scene).map(|(status, _)| status));
    let (_, message) = condition(&scene).unwrap();
    assert!(message.contains("excludedDestinations"), "{message}");

    // The only link goes down, and with it the default route, which comes back as soon as the link does.
    let packets = Packets::uncounted(None);
    for _ in 0..3 {
        ip("link set eth0 down");
        ip("link set eth0 up");
        ip(&format!("route add default via {C}"));
        until("through a gateway", &false, SOON, || seen_from(LISTED).is_none());
    }
    scene.cloud.power_off("a");
    until("through B", &[Some(B_PUBLIC); 2], SOON, || [seen_from(LISTED), pod.seen_from(LISTED)]);
    let sent = packets.end();
    assert_eq!(scene.cloud.leaks(), 0, "of {sent} packets");

    // With such clients excluded there is nobody to tell of.
    scene.route("all", &json!({"destinations": ["172.20.0.0/16"], "gateways": [{"address": B}]}));
    until("over", &Some("False".to_owned()), SOON, || condition(&scene).map(|(status, _)| status));
    assert_eq!(answered(&scene, HOST_NETWORK), [true, true]);
    drop(agent);
}

#[test]
fn a_change_that_cuts_a_node_without_a_public_interface_off_is_taken_back() {
    let far = Far::behind_a_service();
    make_private(&far.scene);
    far.let_nobody_in_through(A_PUBLIC);
    // Before the agent: what it confirms first is this, and not a node without any route.
    far.scene.route("edited", &json!({"destinations": ["192.0.2.80"], "gateway": A}));
    let agent = far.start_agent();
    far.scene.until_applied("edited", 1);
    agent.until_says("confirmed");
    // A busy machine may look only when it is over.
    let monitor = Monitor::start(&["route"]);
    far.scene.route("edited", &json!({"destinations": ["192.0.2.80", "198.51.100.0/24"], "gateway": A}));
    agent.until_says("rolled back: the change cut the node off");
    until("taken back", &false, SOON, || goes_through_a(SECOND));
    let heard = monitor.stop();
    assert!(heard.iter().any(|line| line.starts_with("198.51.100.0/24 nhid")), "{heard:#?}");
    let reason = || Some(far.scene.route_report("edited")?.failures.first()?.reason.clone());
    until("told", &Some("RolledBack".to_owned()), SOON, reason);
    until("through A", &Some(A_PUBLIC), SOON, || seen_from(LISTED));
    drop(agent);
}

fn no_gateway(scene: &Scene) -> Option<(bool, Option<String>)> {
    scene.route_report("all").map(|report| (report.no_gateway, report.message))
}

#[test]
fn fail_open_without_a_public_interface_is_open_by_the_nodes_default_route_and_keeps_the_last_without_one() {
    let scene = Scene::new();
    make_private(&scene);
    let agent = Agent::start(&scene);
    scene.route(
        "all",
        &json!({"destinations": ["192.0.2.0/24"], "gateways": [{"address": A}, {"address": B}], "onNoGateway": "FailOpen"}),
    );
    scene.until_applied("all", 1);
    until("through A", &Some(A_PUBLIC), SOON, || seen_from(LISTED));
    until_ready();
    scene.cloud.power_off("a");
    scene.cloud.power_off("b");
    until("open", &Some(C_PUBLIC), SOON, || seen_from(LISTED));
    until("told", &Some(true), SOON, || Some(no_gateway(&scene)?.0));

    // One that starts finds it open on the very link on which its gateways are, and leaves it so.
    let before = settled();
    agent.kill();
    let monitor = Monitor::start(&["route", "rule", "nexthop"]);
    let agent = Agent::start(&scene);
    until_ready();
    assert_eq!((settled(), seen_from(LISTED)), (before, Some(C_PUBLIC)));
    assert_eq!(monitor.stop(), Vec::<String>::new(), "a restart wrote to the kernel");
    scene.cloud.start_gateway("a", &A_PUBLIC.to_string(), A);
    until("through A again", &Some(A_PUBLIC), SOON, || seen_from(LISTED));

    // Nowhere to let it out to: it goes on to the last gateway, which may be back first.
    ip("route del default");
    scene.cloud.power_off("a");
    until("told", &Some(true), SOON, || Some(no_gateway(&scene)?.0));
    let (_, message) = no_gateway(&scene).unwrap();
    eprintln!("{message:?}");
    until("towards A", &true, SOON, || ip("route get 192.0.2.80").contains(&format!("via {A} ")));
    // Also without its API server, and that is said once.
    scene.cut_off_api_server();
    agent.kill();
    let agent = Agent::start(&scene);
    agent.until_says("keeping what the kernel holds");
    std::thread::sleep(Duration::from_secs(4));
    assert!(agent.count_said("switching to other gateways") <= 1);
    scene.cloud.start_gateway("a", &A_PUBLIC.to_string(), A);
    until("through A again", &Some(A_PUBLIC), SOON, || seen_from(LISTED));
    drop(agent);
}
