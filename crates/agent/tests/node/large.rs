//! Thousands of destinations, and an agent that is held up.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::cloud::{A, A_PUBLIC, B, B_PUBLIC, ours, seen_from, sh, until};
use crate::scene::{Agent, LISTED, Monitor, SOON, Scene, metric, until_ready};

fn destinations(second: u8, count: u32) -> Vec<Value> {
    let list = (0..count).map(|n| json!(format!("20.{second}.{}.{}", n / 250, n % 250 + 1)));
    std::iter::once(json!(format!("192.0.2.{}", 80 + second))).chain(list.skip(1)).collect()
}

#[test]
fn thousands_of_destinations_move_by_one_message_and_a_held_up_agent_goes_on() {
    let scene = Scene::new();
    let agent = Agent::start(&scene);
    let gateways = json!([{"address": A}, {"address": B}]);
    for (name, second) in [("first", 0), ("second", 1)] {
        scene.route(name, &json!({"destinations": destinations(second, 2_000), "gateways": gateways}));
    }
    for name in ["first", "second"] {
        scene.until_applied(name, 2_000);
    }
    assert_eq!(sh("ip -4 route show table 1157 | wc -l").trim(), "8000", "a route and its guard each");
    until_ready();

    let monitor = Monitor::start(&["nexthop"]);
    scene.cloud.power_off("a");
    let took = until("through B", &Some(B_PUBLIC), Duration::from_secs(5), || seen_from(LISTED));
    eprintln!("4,000 routes through B {took:?} after A lost power");
    let heard = monitor.stop();
    assert_eq!(heard.len(), 2, "one message for each StaticRoute: {heard:#?}");
    assert!(heard.iter().all(|line| line.contains("via 10.116.0.12")), "{heard:#?}");

    // Frozen for three seconds, in which a rule and a route go away, and the gateway is back.
    let before = ours();
    agent.signal(Signal::SIGSTOP);
    sh("ip rule del pref 1001");
    sh("ip route del 192.0.2.81 table 1157");
    scene.cloud.start_gateway("a", "203.0.113.5", A);
    std::thread::sleep(Duration::from_secs(3));
    agent.signal(Signal::SIGCONT);
    let took = until("repaired", &before, Duration::from_secs(5), ours);
    eprintln!("a frozen agent repaired {took:?} after it went on");

    // A dead gateway is left while the agent is busy with 10,000 destinations.
    until("back at A", &Some(A_PUBLIC), Duration::from_secs(40), || seen_from(LISTED));
    scene.route("many", &json!({"destinations": destinations(2, 10_000), "gateways": gateways}));
    until("busy", &true, SOON, || {
        metric("egress_agent_kernel_changes_total") > 0.0
            && sh("ip -4 route show table 1157 | wc -l").trim().parse::<u32>().unwrap() > 8_000
    });
    scene.cloud.power_off("a");
    let died = Instant::now();
    until("through B", &Some(B_PUBLIC), Duration::from_secs(5), || seen_from(LISTED));
    eprintln!("during an apply of 10,000 routes: through B {:?} after A lost power", died.elapsed());
    scene.until_applied("many", 10_000);
}
