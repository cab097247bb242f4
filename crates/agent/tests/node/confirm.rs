//! Changes that cut the node off from what it lives by (I5), and those that only seem to.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use egress_api::NodeRouteState;
use serde_json::json;

use crate::cloud::{A, A_PUBLIC, B, B_PUBLIC, NODE_PUBLIC, ip, ours, seen_from, sh, until};
use crate::far::{Far, SECOND, goes_through_a};
use crate::scene::{LISTED, Monitor, SOON, UNLISTED, metric, settled, until_ready};

fn rollbacks() -> f64 {
    metric("egress_agent_rollbacks_total")
}

#[test]
fn a_change_that_cuts_the_api_server_off_is_taken_back_and_says_so() {
    let far = Far::behind_a_service();
    let scene = &far.scene;
    far.let_nobody_in_through(A_PUBLIC);
    // Before the agent: what it confirms first is this, and not a node without any route.
    scene.route("edited", &json!({"destinations": ["192.0.2.80"], "gateway": A}));
    let agent = far.start_agent();
    scene.until_applied("edited", 1);
    until("through A", &Some(A_PUBLIC), SOON, || seen_from(LISTED));
    agent.until_says("confirmed");
    let before = settled();
    scene.cloud.count_leaks(LISTED);

    // An edit routes where the API server really is to a gateway that it does not let in.
    scene.route("edited", &json!({"destinations": ["192.0.2.80", "198.51.100.0/24"], "gateway": A}));
    until("cut", &true, SOON, || goes_through_a(SECOND));
    let cut = Instant::now();
    // What comes meanwhile is not lost.
    scene.route("meanwhile", &json!({"destinations": ["192.0.2.90"], "gateway": A}));
    until("taken back", &false, Duration::from_secs(5), || goes_through_a(SECOND));
    eprintln!("rolled back {:?} after the route was in the kernel", cut.elapsed());
    scene.until_applied("meanwhile", 1);
    until("reported", &Some(NodeRouteState::NotApplied), SOON, || Some(scene.route_report("edited")?.state));
    let report = scene.route_report("edited").unwrap();
    let message = report.message.unwrap();
    assert!(
        message.contains("rolled back") && message.contains("the API server (10.245.0.1:443)"),
        "{message}"
    );
    let failure = &report.failures[0];
    assert_eq!((failure.destination.as_str(), failure.reason.as_str()), ("198.51.100.0/24", "RolledBack"));
    assert_eq!(seen_from(LISTED), Some(A_PUBLIC), "the last confirmed version is in force");
    scene.delete_route("meanwhile");
    until("as before", &before, SOON, ours);

    // It is not tried again for other objects' sake, nor for a network that changes elsewhere.
    let monitor = Monitor::start(&["route"]);
    scene.route("another", &json!({"destinations": ["192.0.2.90"], "gateway": A}));
    scene.until_applied("another", 1);
    scene.delete_route("another");
    ip("route add 10.99.0.0/16 via 203.0.113.1");
    until("as before", &before, SOON, ours);
    std::thread::sleep(Duration::from_secs(1));
    let heard = monitor.stop();
    assert!(!heard.iter().any(|line| line.contains("198.51.100.0/24")), "{heard:#?}");
    let rolled_back = rollbacks();
    // Where it changes in what the edit lists, which may be where the API server really is, it is, but in its own time.
    ip("route add 198.51.100.128/25 via 203.0.113.1");
    until("tried again", &true, Duration::from_secs(120), || goes_through_a(SECOND));
    until("taken back", &true, SOON, || rollbacks() > rolled_back && !goes_through_a(SECOND));
    // And when its owner mends it.
    scene.route("edited", &json!({"destinations": ["192.0.2.80", "192.0.2.90"], "gateway": A}));
    scene.until_applied("edited", 2);
    assert_eq!(scene.cloud.leaks(), 0, "of what was routed all the time");
    drop(agent);
}

#[test]
fn a_fail_closed_edit_that_cuts_the_api_server_off_stays_shut_but_for_that_address() {
    let far = Far::behind_a_name();
    let scene = &far.scene;
    far.let_nobody_in_through(A_PUBLIC);
    let edit = |destinations: &[&str]| {
        let spec =
            json!({"destinations": destinations, "gateways": [{"address": A}], "onNoGateway": "FailClosed"});
        scene.route("edited", &spec);
    };
    edit(&["192.0.2.80"]);
    let agent = far.start_agent();
    scene.until_applied("edited", 1);
    until("through A", &Some(A_PUBLIC), SOON, || seen_from(LISTED));
    agent.until_says("confirmed");
    scene.cloud.count_leaks(LISTED);

    // The name moves to an address that nobody protects yet, and the edit lists what is around it.
    far.move_api_server(SECOND);
    edit(&["192.0.2.80", "198.51.100.0/24"]);
    until("cut", &true, SOON, || goes_through_a(SECOND));
    scene.cloud.count_leaks(UNLISTED);
    let mut seen = Vec::new();
    until("taken back", &false, Duration::from_secs(5), || {
        seen.push(seen_from(UNLISTED));
        goes_through_a(SECOND)
    });
    assert!(seen.iter().all(|seen| seen.is_none() || *seen == Some(A_PUBLIC)), "{seen:?}");
    until("reported", &Some(NodeRouteState::NotApplied), SOON, || Some(scene.route_report("edited")?.state));
    let report = scene.route_report("edited").unwrap();
    let message = report.message.unwrap();
    assert!(message.contains("what else it lists is dropped (FailClosed)"), "{message}");
    assert!(report.guarded, "{message}");
    for _ in 0..5 {
        assert_eq!((seen_from(LISTED), seen_from(UNLISTED)), (Some(A_PUBLIC), None));
    }
    assert_eq!(seen_from(SECOND.parse().unwrap()), Some(NODE_PUBLIC), "only that address is let out");
    assert_eq!(scene.cloud.leaks(), 0);
    drop(agent);
}

#[test]
fn a_change_that_cuts_the_resolver_off_is_taken_back_and_says_so() {
    const SERVICE: &str = "10.245.0.53";
    const RESOLVER: &str = "198.18.5.53";
    let far = Far::behind_a_service();
    let scene = &far.scene;
    far.resolve_behind_a_service(SERVICE, RESOLVER, A_PUBLIC);
    scene.route("edited", &json!({"destinations": ["192.0.2.80"], "gateway": A}));
    let agent = far.start_agent();
    scene.until_applied("edited", 1);
    agent.until_says("confirmed");
    let before = settled();
    scene.route("edited", &json!({"destinations": ["192.0.2.80", "198.18.5.0/24"], "gateway": A}));
    until("cut", &true, SOON, || goes_through_a(RESOLVER));
    until("taken back", &false, Duration::from_secs(5), || goes_through_a(RESOLVER));
    until("reported", &Some(NodeRouteState::NotApplied), SOON, || Some(scene.route_report("edited")?.state));
    let report = scene.route_report("edited").unwrap();
    let message = report.message.unwrap();
    assert!(
        message.contains("rolled back") && message.contains(&format!("the resolver ({SERVICE}:53)")),
        "{message}"
    );
    assert_eq!(report.failures[0].reason, "RolledBack");
    assert_eq!((settled(), seen_from(LISTED)), (before, Some(A_PUBLIC)));
    drop(agent);
}

#[test]
fn an_agent_that_starts_cut_off_mends_what_it_finds_in_the_kernel() {
    let far = Far::behind_a_name();
    let scene = &far.scene;
    far.let_nobody_in_through(A_PUBLIC);
    let agent = far.start_agent();
    scene.route("wide", &json!({"destinations": ["192.0.2.80", "198.51.100.0/24"], "gateway": A}));
    scene.until_applied("wide", 2);
    until("through A", &true, SOON, || goes_through_a(SECOND));

    // While no agent runs the name gets another address: what the kernel holds cuts the node off from it.
    agent.kill();
    far.move_api_server(SECOND);
    let started = Instant::now();
    let agent = far.start_agent();
    until_ready();
    eprintln!("reached the API server again {:?} after the start", started.elapsed());
    assert!(!goes_through_a(SECOND) && goes_through_a("198.51.100.99"));
    scene.until_applied("wide", 2);
    assert_eq!(seen_from(LISTED), Some(A_PUBLIC));
    assert_eq!(seen_from(Ipv4Addr::new(198, 51, 100, 99)), Some(A_PUBLIC));
    assert_ne!(seen_from(SECOND.parse().unwrap()), Some(A_PUBLIC));

    // A restart leaves even that as it is.
    let before = settled();
    agent.kill();
    let monitor = Monitor::start(&["route", "rule", "nexthop"]);
    let agent = far.start_agent();
    until_ready();
    agent.until_says("confirmed");
    assert_eq!(settled(), before);
    assert_eq!(monitor.stop(), Vec::<String>::new(), "a restart wrote to the kernel");
    assert_eq!(seen_from(Ipv4Addr::new(192, 0, 2, 77)), Some(NODE_PUBLIC), "the scene itself");
}

#[test]
fn an_api_server_that_stops_in_the_same_second_as_an_edit_or_a_failover_brings_no_rollback() {
    let far = Far::behind_a_service();
    let scene = &far.scene;
    let agent = far.start_agent();
    let wide = json!(["192.0.2.80", "198.51.100.0/24"]);
    scene.route("wide", &json!({"destinations": wide, "gateway": A}));
    until("through A", &true, SOON, || goes_through_a(SECOND));
    // Another one, whose connections to the API server begin on this way.
    agent.kill();
    let agent = far.start_agent();
    until_ready();
    scene.until_applied("wide", 2);
    agent.until_says("confirmed");

    // No new connection is answered any more when the edit comes; the one over which it comes goes silent right after.
    far.silence_api_server("--syn");
    scene.route("wide", &json!({"destinations": wide, "gateway": B}));
    until("through B", &Some(B_PUBLIC), SOON, || seen_from(LISTED));
    far.silence_api_server("");
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!((seen_from(LISTED), rollbacks()), (Some(B_PUBLIC), 0.0));
    far.end_silence("");
    far.end_silence("--syn");
    until("reported", &Some(Some(B.to_owned())), SOON, || Some(scene.route_report("wide")?.gateway));

    // A list of two, confirmed. Then its head dies, the API server goes silent, and would not let B in anyway.
    scene.route("wide", &json!({"destinations": wide, "gateways": [{"address": A}, {"address": B}]}));
    until("through A", &Some(A_PUBLIC), SOON, || seen_from(LISTED));
    scene.until_applied("wide", 2);
    assert_eq!(settled(), ours());
    far.silence_api_server("");
    scene.cloud.power_off("a");
    until("through B", &Some(B_PUBLIC), Duration::from_secs(5), || seen_from(LISTED));
    far.let_nobody_in_through(B_PUBLIC);
    far.end_silence("");
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!((seen_from(LISTED), rollbacks()), (Some(B_PUBLIC), 0.0));
    assert!(sh("ip -4 route show table 1157").contains("198.51.100.0/24"));
    drop(agent);
}
