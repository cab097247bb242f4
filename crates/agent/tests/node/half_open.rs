//! Connections that died without a word, and an agent that stands still.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::cloud::{A, ip, sh, until};
use crate::far::{Far, connections};
use crate::scene::{AGENT, Agent, SOON, until_ready};
use crate::tracer::{Frozen, LOOP, NETLINK};

/// As kubelet probes: `deploy/base/agent.yaml`. The answer's status and words.
fn probe(agent: &Agent) -> String {
    let inside = format!("nsenter --net --target {}", agent.id());
    sh(&format!("{inside} curl -s --max-time 3 -w '%{{http_code}}' http://127.0.0.1:9191/livez || true"))
}

#[test]
fn a_silently_dead_watch_is_noticed_within_a_minute_and_a_frozen_agent_fails_its_liveness_probe() {
    let far = Far::behind_a_name();
    let agent = far.start_agent();
    until_ready();
    far.scene.route("first", &json!({"destinations": ["192.0.2.80"], "gateway": A}));
    far.scene.until_applied("first", 1);

    // Another agent on a node of its own, where nobody answers it.
    let mut program = Command::new("unshare");
    program.args(["--net", "sh", "-c", "ip link set lo up && exec \"$0\" \"$@\"", AGENT]);
    let frozen = Agent::start_at(program, &far.scene.server.kubeconfig(), &["--daemonset="]);
    until("alive", &true, SOON, || probe(&frozen).ends_with("200"));
    frozen.until_says("keeping what the kernel holds");
    let standing_still = Frozen::thread(frozen.id(), LOOP);
    assert_eq!(probe(&frozen), "000", "nobody answers");
    drop(standing_still);
    until("alive again", &true, SOON, || probe(&frozen).ends_with("200"));
    // The loop turns and can do nothing: what talks to the kernel stands still.
    let standing_still = Frozen::thread(frozen.id(), NETLINK);
    let since = Instant::now();
    sh(&format!("nsenter --net --target {} ip link add wakes0 type veth peer name wakes1", frozen.id()));

    assert!(connections().len() > 5, "{:?}", connections());
    far.silence_connections();
    let silent = Instant::now();
    far.scene.route("second", &json!({"destinations": ["192.0.2.90"], "gateway": A}));
    until("noticed", &true, Duration::from_secs(60), || {
        ip("route get 192.0.2.90").contains("via 10.116.0.5")
    });
    eprintln!("caught up {:?} after the connections died", silent.elapsed());
    far.scene.until_applied("second", 1);
    drop(agent);

    until("dead", &true, Duration::from_secs(60), || probe(&frozen).ends_with("503"));
    eprintln!("{:?} after the thread stood still: {}", since.elapsed(), probe(&frozen));
    drop(standing_still);
    until("alive at last", &true, Duration::from_secs(60), || probe(&frozen).ends_with("200"));
}
