//! A node that boots with pods on it: what leaves before its agent runs, and that the agent says for how long.

use std::fs::File;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns, unshare};
use serde_json::json;

use crate::cloud::{A_PUBLIC, ip, ours, until};
use crate::fail_static::pair;
use crate::far::Far;
use crate::packets::Packets;
use crate::pod::Pod;
use crate::scene::{LISTED, SOON, metric, until_ready};

const UNGUARDED: &str = "egress_agent_unguarded_seconds";

#[test]
fn what_leaves_before_the_agent_runs_ends_with_its_first_plan_and_is_told() {
    let far = Far::behind_a_name();
    let (scene, cloud) = (&far.scene, &far.scene.cloud);
    let agent = far.start_agent();
    let made = Instant::now();
    scene.route("steady", &json!({"destinations": ["192.0.2.80"], "gateways": pair()}));
    scene.until_applied("steady", 1);
    until_ready();
    agent.kill();

    // The node boots: another network stack, with nothing of ours in it. Its pod sends from the first instant.
    let home = File::open("/proc/thread-self/ns/net").unwrap();
    ip("link del eth0");
    ip("link del eth1");
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    cloud.boot_node();
    let pod = Pod::new(cloud, 7);
    pod.translate(Ipv4Addr::new(10, 116, 0, 2));
    cloud.count_leaks(LISTED);
    cloud.count_arrivals(LISTED);
    let booted = Instant::now();
    let packets = Packets::uncounted(Some(&pod.namespace));
    until("the pod's packets leave with the node's address", &true, SOON, || cloud.leaks() > 100);
    assert_eq!(ours(), "");

    let started = Instant::now();
    let agent = far.start_agent();
    until("through A", &Some(A_PUBLIC), SOON, || pod.seen_from(LISTED));
    let (took, window) = (started.elapsed(), booted.elapsed());
    until_ready();
    let goes_on = || {
        let arrived = cloud.arrivals();
        until("the pod goes on sending", &true, SOON, || cloud.arrivals() > arrived + 200);
    };
    // What was under way when the plan came has arrived by then.
    goes_on();
    let leaked = cloud.leaks();
    goes_on();
    assert_eq!(cloud.leaks(), leaked, "after the first plan");
    let told = metric(UNGUARDED);
    eprintln!(
        "{leaked} packets left with the node's address in {window:?}; routed {took:?} after the agent's start; told: {told} s"
    );
    // The machine of this test has been up for longer than its object is old. Creation times are whole seconds.
    let longest = (made.elapsed() + Duration::from_secs(1)).as_secs_f64();
    assert!(window.as_secs_f64() - 0.5 < told && told < longest, "{window:?}, {told} s, {longest} s");

    // In the same boot a restart leaves nothing open.
    agent.kill();
    let agent = far.start_agent();
    until_ready();
    assert!(metric(UNGUARDED).abs() < f64::EPSILON);
    assert_eq!(cloud.leaks(), leaked, "over a restart");
    packets.end();
    cloud.stop_counting();
    drop((agent, pod));
    setns(home, CloneFlags::CLONE_NEWNET).unwrap();
}
