//! Switches of the real agent under full traffic: 10,000 destinations move by one message, and every packet is accounted for.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};

use serde_json::{Value, json};
use testkit::{Traffic, Verdict};

use crate::cloud::{A, A_PUBLIC, B, B_PUBLIC, seen_from, until};
use crate::scene::{Agent, Monitor, SOON, Scene, until_ready};

const DESTINATIONS: u32 = 10_000;

/// Of datagrams that overtake each other: as many as are under way at a time.
const OUT_OF_ORDER: u64 = 128;

#[test]
fn ten_thousand_destinations_switch_under_full_traffic_and_no_packet_is_lost_or_leaks() {
    let scene = Scene::new();
    let _agent = Agent::start(&scene);
    let first = u32::from(Ipv4Addr::new(20, 7, 0, 1));
    let addresses: Vec<Ipv4Addr> = (first..first + DESTINATIONS).map(Ipv4Addr::from).collect();
    let spec = |gateways: &[&str]| -> Value {
        let gateways: Vec<Value> = gateways.iter().map(|one| json!({"address": one})).collect();
        json!({"destinations": addresses, "gateways": gateways})
    };
    scene.route("many", &spec(&[A]));
    scene.until_applied("many", DESTINATIONS);
    until_ready();

    // By an edit: both work, so nothing may be missing.
    let verdict = switched(&scene, &addresses, (B, B_PUBLIC), || scene.route("many", &spec(&[B])));
    assert!(verdict.is_whole(&[A_PUBLIC, B_PUBLIC]), "{}", told(&verdict));
    let (_, last_through_a) = verdict.range[&A_PUBLIC];
    let (first_through_b, _) = verdict.range[&B_PUBLIC];
    assert!(last_through_a < first_through_b + OUT_OF_ORDER, "one cut: {}", told(&verdict));

    scene.route("many", &spec(&[B, A]));
    until("both are probed", &true, SOON, || {
        let gateways = scene.status().unwrap().gateways;
        gateways.len() == 2 && gateways.iter().all(|gateway| gateway.reachable)
    });
    // By the agent: only what went to the dead gateway may be missing.
    let verdict = switched(&scene, &addresses, (A, A_PUBLIC), || scene.cloud.power_off("b"));
    let (_, last_through_b) = verdict.range[&B_PUBLIC];
    let (first_through_a, _) = verdict.range[&A_PUBLIC];
    let to_the_dead = last_through_b.saturating_sub(OUT_OF_ORDER)..first_through_a + OUT_OF_ORDER;
    assert!(verdict.lost.iter().all(|number| to_the_dead.contains(number)), "{}", told(&verdict));
    let rest = Verdict { lost: Vec::new(), ..verdict };
    assert!(rest.is_whole(&[A_PUBLIC, B_PUBLIC]), "{}", told(&rest));
}

/// Sends to every address in turn while `cause` makes the agent move all of them to that gateway by one message.
fn switched(
    scene: &Scene,
    addresses: &[Ipv4Addr],
    (gateway, public): (&str, Ipv4Addr),
    cause: impl FnOnce(),
) -> Verdict {
    let targets = addresses.iter().map(|address| SocketAddrV4::new(*address, 9999)).collect();
    let monitor = Monitor::start(&["nexthop"]);
    let sender = UdpSocket::bind("0.0.0.0:0").unwrap();
    let traffic = Traffic::start(sender, scene.cloud.listen(9999), targets);
    assert!(traffic.goes_on(u64::from(DESTINATIONS)), "to every destination before");
    cause();
    until("switched", &Some(public), SOON, || seen_from(addresses[0]));
    assert!(traffic.goes_on(u64::from(DESTINATIONS)), "to every destination after");
    let verdict = traffic.stop().unwrap();
    // Ids of StaticRoutes: with a new gateway comes the object that it is probed through.
    let is_move = |line: &String| line.contains("id 2410") && line.contains(gateway);
    let moves: Vec<String> = monitor.stop().into_iter().filter(is_move).collect();
    assert_eq!(moves.len(), 1, "one message for all destinations: {moves:#?}");
    assert!(verdict.from(public) >= u64::from(DESTINATIONS), "{}", told(&verdict));
    eprintln!("to {gateway}: {}", told(&verdict));
    verdict
}

fn told(verdict: &Verdict) -> String {
    format!(
        "{} packets in {:?}, {} lost, {} refused, {} repeated, {:?}",
        verdict.sent,
        verdict.took,
        verdict.lost.len(),
        verdict.refused.len(),
        verdict.repeated,
        verdict.range
    )
}
