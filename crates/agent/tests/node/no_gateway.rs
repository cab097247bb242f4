//! No gateway works: what `onNoGateway` says is what happens to every packet, whatever becomes of the agent, the API server and the
//! link meanwhile. The judge is a stream of datagrams, with a count of those that reach the internet with the node's own address.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cloud::{A, A_PUBLIC, B, B_PUBLIC, Cloud, NODE_PUBLIC, ip, ours, seen_from, sh, until};
use crate::packets::Packets;
use crate::pod::Pod;
use crate::scene::{Agent, LISTED, Monitor, SOON, Scene, UNLISTED, settled, until_ready};

/// Silence of three probes, and then some for a busy machine.
const FAILOVER: Duration = Duration::from_secs(5);

fn spec(mode: &str) -> Value {
    json!({"destinations": ["192.0.2.0/24"], "gateways": [{"address": A}, {"address": B}], "onNoGateway": mode})
}

/// Nobody knows what is listed beyond a gateway.
fn until_told(scene: &Scene, no_gateway: bool) {
    until("noGateway", &Some(no_gateway), SOON, || Some(scene.route_report("all")?.no_gateway));
}

fn until_shut() {
    until("shut", &true, FAILOVER, || route_leads_to("blackhole"));
}

/// Whether the nexthop object of the StaticRoute says so.
fn route_leads_to(what: &str) -> bool {
    let route = ip("-4 route show table 1157 192.0.2.0/24");
    let id = route.split("nhid ").nth(1).and_then(|rest| rest.split_whitespace().next().map(str::to_owned));
    id.is_some_and(|id| sh(&format!("ip nexthop show id {id} || true")).contains(what))
}

fn flap_vpc_link() {
    for _ in 0..2 {
        sh("ip link set eth1 down && ip link set eth1 up");
    }
}

/// What the kernel dropped with the link is there again; the agent spaces what it repairs.
fn until_repaired() {
    until("repaired", &true, SOON, || ip("-4 route show table all").matches("table 116").count() == 2);
}

fn start_a(cloud: &Cloud) {
    cloud.start_gateway("a", "203.0.113.5", A);
}

#[test]
fn no_packet_leaves_with_the_nodes_address_in_keep_last_and_fail_closed_whatever_happens_while_no_gateway_works()
 {
    for mode in ["KeepLast", "FailClosed"] {
        let scene = Scene::new();
        let mut agent = Agent::start(&scene);
        scene.route("all", &spec(mode));
        scene.until_applied("all", 1);
        until("through A", &Some(A_PUBLIC), SOON, || seen_from(LISTED));
        assert!(scene.route_report("all").unwrap().guarded);
        until_ready();
        let packets = Packets::start(&scene.cloud);

        scene.cloud.power_off("a");
        until("through B", &Some(B_PUBLIC), FAILOVER, || seen_from(LISTED));
        scene.cloud.power_off("b");
        until_told(&scene, true);
        if mode == "FailClosed" {
            until_shut();
        }
        assert_eq!(seen_from(LISTED), None);
        assert_eq!(seen_from(UNLISTED), Some(NODE_PUBLIC), "what nobody lists goes on");

        // The link flaps with an agent; one that starts decides nothing anew; the link flaps without one.
        flap_vpc_link();
        until_repaired();
        let before = settled();
        agent.kill();
        let monitor = Monitor::start(&["route", "rule", "nexthop"]);
        agent = Agent::start(&scene);
        until_ready();
        assert_eq!((settled(), monitor.stop()), (before, Vec::new()), "a restart wrote to the kernel");
        agent.kill();
        flap_vpc_link();
        agent = Agent::start(&scene);
        until_told(&scene, true);

        start_a(&scene.cloud);
        until("through A again", &Some(A_PUBLIC), FAILOVER, || seen_from(LISTED));
        until_told(&scene, false);
        packets.none_leaked(&scene.cloud);
        scene.delete_route("all");
        until("nothing of ours is left", &String::new(), SOON, ours);
        assert_eq!(seen_from(LISTED), Some(NODE_PUBLIC));
        drop(agent);
    }
}

#[test]
fn fail_open_lets_traffic_out_while_no_gateway_works_and_takes_it_back_when_one_does() {
    let scene = Scene::new();
    let mut agent = Agent::start(&scene);
    scene.route("all", &spec("FailOpen"));
    scene.until_applied("all", 1);
    until("through A", &Some(A_PUBLIC), SOON, || seen_from(LISTED));
    until_ready();
    scene.cloud.power_off("a");
    until("through B", &Some(B_PUBLIC), FAILOVER, || seen_from(LISTED));

    let packets = Packets::start(&scene.cloud);
    let monitor = Monitor::start(&["nexthop"]);
    let died = Instant::now();
    scene.cloud.power_off("b");
    until("open", &Some(NODE_PUBLIC), FAILOVER, || seen_from(LISTED));
    eprintln!("open {:?} after the last gateway lost power", died.elapsed());
    let ours_now: Vec<String> =
        monitor.stop().into_iter().filter(|line| line.contains("proto 157")).collect();
    assert_eq!(ours_now.len(), 1, "by one message: {ours_now:#?}");
    until_told(&scene, true);
    let report = scene.route_report("all").unwrap();
    assert_eq!((report.reason.as_deref(), report.guarded), (Some("NoGateway"), false));
    assert!(report.message.unwrap().contains("with the node's own address"));
    let lost = packets.end() - scene.cloud.arrivals();
    eprintln!("{lost} datagrams, half a millisecond apart, were lost in {:?}", died.elapsed());
    assert!(lost < 6_000, "{lost}");
    // From now on every one gets out.
    scene.cloud.stop_counting();
    let packets = Packets::start(&scene.cloud);
    std::thread::sleep(Duration::from_secs(1));
    let sent = packets.end();
    until("all arrived", &(sent, sent), Duration::from_secs(2), || {
        (scene.cloud.arrivals(), scene.cloud.leaks())
    });
    scene.cloud.stop_counting();

    // A flap, a restart and a flap without an agent leave it open.
    flap_vpc_link();
    until("open", &Some(NODE_PUBLIC), FAILOVER, || seen_from(LISTED));
    until_repaired();
    let before = settled();
    agent.kill();
    let monitor = Monitor::start(&["route", "rule", "nexthop"]);
    agent = Agent::start(&scene);
    until_ready();
    assert_eq!((settled(), seen_from(LISTED)), (before, Some(NODE_PUBLIC)));
    assert_eq!(monitor.stop(), Vec::<String>::new(), "a restart wrote to the kernel");
    sh("ip link set eth1 down");
    until("open without the link", &Some(NODE_PUBLIC), FAILOVER, || seen_from(LISTED));
    sh("ip link set eth1 up");

    start_a(&scene.cloud);
    until("through A again", &Some(A_PUBLIC), FAILOVER, || seen_from(LISTED));
    until_told(&scene, false);
    sh("ip link set eth1 down");
    until("open without the link", &Some(NODE_PUBLIC), FAILOVER, || seen_from(LISTED));
    sh("ip link set eth1 up");
    until("through A again", &Some(A_PUBLIC), FAILOVER, || seen_from(LISTED));
    drop(agent);
}

#[test]
fn fail_open_works_for_translated_pods_under_every_reverse_path_filter() {
    let scene = Scene::new();
    let pod = Pod::new(&scene.cloud, 7);
    pod.translate(NODE_PUBLIC);
    let agent = Agent::start(&scene);
    scene.route("all", &spec("FailOpen"));
    scene.until_applied("all", 1);
    until("through A", &Some(A_PUBLIC), SOON, || pod.seen_from(LISTED));
    scene.cloud.power_off("a");
    scene.cloud.power_off("b");
    for mode in 0..3 {
        for link in ["all", "eth0", "eth1"] {
            sh(&format!("sysctl -qw net.ipv4.conf.{link}.rp_filter={mode}"));
        }
        until("open", &Some(NODE_PUBLIC), FAILOVER, || pod.seen_from(LISTED));
        assert_eq!(seen_from(LISTED), Some(NODE_PUBLIC), "rp_filter {mode}");
    }
    start_a(&scene.cloud);
    until("through A again", &Some(A_PUBLIC), FAILOVER, || pod.seen_from(LISTED));
    drop(agent);
}

#[test]
fn an_agent_started_without_its_api_server_closes_and_opens_as_the_last_one_would_have() {
    for (mode, while_none) in [("FailClosed", None), ("FailOpen", Some(NODE_PUBLIC))] {
        let scene = Scene::new();
        let agent = Agent::start(&scene);
        scene.route("all", &spec(mode));
        scene.until_applied("all", 1);
        until("through A", &Some(A_PUBLIC), SOON, || seen_from(LISTED));
        until_ready();
        scene.cloud.count_leaks(LISTED);
        scene.cut_off_api_server();
        agent.kill();
        let agent = Agent::start(&scene);
        agent.until_says("keeping what the kernel holds");
        scene.cloud.power_off("a");
        until("through B", &Some(B_PUBLIC), FAILOVER, || seen_from(LISTED));
        scene.cloud.power_off("b");
        until(mode, &true, FAILOVER, || {
            route_leads_to(if mode == "FailOpen" { "203.0.113.1" } else { "blackhole" })
        });
        assert_eq!(seen_from(LISTED), while_none);

        // Killed in that state, and another one that never saw the API server.
        agent.kill();
        assert_eq!(seen_from(LISTED), while_none);
        let agent = Agent::start(&scene);
        agent.until_says("keeping what the kernel holds");
        assert_eq!(seen_from(LISTED), while_none);
        scene.cloud.start_gateway("b", "203.0.113.6", B);
        until("through B again", &Some(B_PUBLIC), FAILOVER, || seen_from(LISTED));
        if mode == "FailClosed" {
            assert_eq!(scene.cloud.leaks(), 0);
        }
        scene.reconnect_api_server();
        until_ready();
        assert_eq!(seen_from(LISTED), Some(B_PUBLIC));
        drop(agent);
    }
}

#[test]
fn a_fail_closed_guard_stands_before_there_is_any_gateway_and_goes_with_the_object_only() {
    let scene = Scene::new();
    let agent = Agent::start(&scene);
    let empty = json!({"destinations": ["192.0.2.0/25", "192.0.2.128/25"], "gateways": [], "onNoGateway": "FailClosed"});
    scene.route("all", &empty);
    until("guarded", &Some(true), SOON, || Some(scene.route_report("all")?.guarded));
    let packets = Packets::start(&scene.cloud);
    assert_eq!(seen_from(LISTED), None);
    until_told(&scene, true);

    // Also while nothing runs that could renew it, with the link away and back.
    agent.kill();
    flap_vpc_link();
    assert_eq!(seen_from(LISTED), None);
    let before = settled();
    let monitor = Monitor::start(&["route", "rule", "nexthop"]);
    let agent = Agent::start(&scene);
    until_ready();
    assert_eq!(settled(), before);
    assert_eq!(monitor.stop(), Vec::<String>::new(), "a restart wrote to the kernel");

    // A reference to an EgressGateway that is not there yet is no reason to let anything out.
    scene.edit_route("all", &json!({"gateways": null, "gatewayRef": {"name": "not-made-yet"}}));
    until("told", &Some(Some("EgressGatewayMissing".to_owned())), SOON, || {
        Some(scene.route_report("all")?.reason)
    });
    assert_eq!(seen_from(LISTED), None);

    // The list comes, and goes again.
    scene.edit_route("all", &json!({"gatewayRef": null, "gateways": [{"address": A}]}));
    until("through A", &Some(A_PUBLIC), SOON, || seen_from(LISTED));
    scene.edit_route("all", &json!({"gateways": []}));
    until("shut", &None, SOON, || seen_from(LISTED));
    packets.none_leaked(&scene.cloud);

    // What is no longer listed is no longer shut.
    scene.edit_route("all", &json!({"destinations": ["192.0.2.128/25"]}));
    until("its own way", &Some(NODE_PUBLIC), SOON, || seen_from(LISTED));
    assert_eq!(seen_from([192, 0, 2, 200].into()), None);
    scene.delete_route("all");
    until("nothing of ours is left", &String::new(), SOON, ours);
    drop(agent);
}

#[test]
fn gateways_that_share_the_traffic_close_and_open_together() {
    for (mode, while_none) in [("FailClosed", None), ("FailOpen", Some(NODE_PUBLIC))] {
        let scene = Scene::new();
        let agent = Agent::start(&scene);
        let mut shared = spec(mode);
        shared["mode"] = json!("ActiveActive");
        scene.route("all", &shared);
        scene.until_applied("all", 1);
        until("both", &2, SOON, || scene.route_report("all").unwrap().gateways.len());
        scene.cloud.count_leaks(LISTED);
        scene.cloud.power_off("a");
        scene.cloud.power_off("b");
        until_told(&scene, true);
        until("diverted", &while_none, FAILOVER, || seen_from(LISTED));
        let before = settled();
        agent.kill();
        let monitor = Monitor::start(&["route", "rule", "nexthop"]);
        let agent = Agent::start(&scene);
        until_ready();
        assert_eq!((settled(), seen_from(LISTED)), (before, while_none));
        assert_eq!(monitor.stop(), Vec::<String>::new(), "a restart wrote to the kernel");
        scene.cloud.start_gateway("b", "203.0.113.6", B);
        until("through B", &Some(B_PUBLIC), FAILOVER, || seen_from(LISTED));
        assert!(mode == "FailOpen" || scene.cloud.leaks() == 0);
        drop(agent);
    }
}
