//! One address that moves between two gateways (`publicIP: Floating`), in a whole cluster: each failure of its holder, with moves that
//! take the cloud 5 s and 30 s, under traffic of pods on both nodes. Judged by when new connections come out again, and by every source
//! that ever came out.
//!
//! Not part of `cargo test --workspace`: it needs the release build, the images and the control plane, which `scripts/moves.sh` sees to.
//! `MOVES=kill,nat` runs these failures only.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test stops at what it did not expect"
)]

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use clients::Clients;
use lab::{Lab, until};

#[path = "../rolls/clients.rs"]
#[allow(dead_code, reason = "shared with the test of rolls, which uses other parts of it")]
mod clients;
#[path = "../end_to_end/lab.rs"]
#[allow(dead_code, reason = "shared with the end-to-end test, which uses other parts of it")]
mod lab;

const NODES: [&str; 2] = ["node-1", "node-2"];
const TARGET: &str = "192.0.2.80";
const MINUTE: Duration = Duration::from_secs(60);
/// From the failure until the cloud is asked, and from its answer until nodes have followed (docs/addresses.md).
const ASKED_WITHIN: u64 = 10;
const FOLLOWED_WITHIN: u64 = 3;
/// To be seen to work again a client needs a second, and a busy machine some more.
const SLACK: u64 = 7;

/// What breaks at the holder, and what mends it.
struct Failure {
    name: &'static str,
    breaks: &'static [&'static str],
    mends: &'static [&'static str],
}

const FAILURES: [Failure; 8] = [
    Failure { name: "kill", breaks: &["kill", "{a}"], mends: &["revive", "{a}"] },
    Failure { name: "power-off", breaks: &["power-off", "{a}"], mends: &[] },
    Failure { name: "kernel-freeze", breaks: &["freeze", "{a}"], mends: &["heal", "{a}"] },
    Failure { name: "vpc-cut", breaks: &["cut", "{a}", "vpc"], mends: &["heal", "{a}"] },
    Failure { name: "public-cut", breaks: &["cut", "{a}", "public"], mends: &["heal", "{a}"] },
    Failure { name: "forwarding", breaks: &["break", "forwarding", "{a}"], mends: &["heal", "{a}"] },
    Failure { name: "nat", breaks: &["break", "nat", "{a}"], mends: &["heal", "{a}"] },
    Failure { name: "default-route", breaks: &["break", "default-route", "{a}"], mends: &["heal", "{a}"] },
];

#[test]
fn whatever_fails_at_the_holder_the_address_moves_in_time_and_nobody_is_seen_with_another_one() {
    let lab = Lab::new("moves");
    lab.lab(&["start", "--assets", lab.assets.to_str().unwrap()]);
    lab.install();
    lab.wait_for_rollout();
    apply(&lab);
    until("the pair is ready", &true, 3 * MINUTE, || lab.is_ready("moves"));
    let address: Ipv4Addr = lab.egress_ip("moves").unwrap().parse().unwrap();
    let promised = BTreeSet::from([address]);
    let mut clients = Clients::start(&lab, TARGET);
    until("every node leaves with it", &true, MINUTE, || clients.all_leave_through(&promised));
    lab.lab(&["oracle", "reset"]);

    let wanted = std::env::var("MOVES").unwrap_or_default();
    for failure in
        FAILURES.iter().filter(|one| wanted.is_empty() || wanted.split(',').any(|name| name == one.name))
    {
        for takes in [5, 30] {
            let delays = json!({"reserved_ip": takes * 1000}).to_string();
            lab.lab(&["cloud", "POST", "/simulator/delays", &delays]);
            let holder = lab.gateway_ids("moves")[0];
            let words = |words: &[&str]| {
                words.iter().map(|word| word.replace("{a}", &holder.to_string())).collect::<Vec<_>>()
            };
            command(&lab, &words(failure.breaks));
            let broken = Instant::now();
            // What is on its way still arrives.
            std::thread::sleep(Duration::from_secs(2));
            let most = Duration::from_secs(ASKED_WITHIN + takes + FOLLOWED_WITHIN + SLACK);
            until(&format!("{} with a move of {takes} s", failure.name), &true, most, || {
                clients.all_leave_through(&promised)
            });
            eprintln!("     works again {:.1} s after the failure", broken.elapsed().as_secs_f64());
            assert_ne!(
                lab.gateway_ids("moves")[0],
                holder,
                "{}: the other one carries the traffic",
                failure.name
            );
            assert_eq!(sources(&lab), promised, "{}: sources of all packets", failure.name);
            command(&lab, &words(failure.mends));
            until("it is whole again", &true, 8 * MINUTE, || lab.is_ready("moves"));
            assert_eq!(lab.egress_ip("moves"), Some(address.to_string()));
        }
    }
    clients.stop();
    lab.kubectl(&["delete", "egressgateway", "moves", "--timeout=180s"]);
    lab.lab(&["stop"]);
}

fn command(lab: &Lab, words: &[String]) {
    if !words.is_empty() {
        lab.lab(&words.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

/// Sources of all packets to the target.
fn sources(lab: &Lab) -> BTreeSet<Ipv4Addr> {
    let oracle: Value = serde_json::from_str(&lab.lab(&["oracle"])).unwrap();
    let packets = oracle["packets"].as_array().unwrap().iter();
    packets
        .filter(|entry| entry["destination"] == TARGET && entry["packets"].as_u64() > Some(0))
        .map(|entry| entry["source"].as_str().unwrap().parse().unwrap())
        .collect()
}

fn apply(lab: &Lab) {
    lab.apply(&json!({
        "apiVersion": "networking.digitalocean.com/v1alpha1", "kind": "EgressGateway", "metadata": {"name": "moves"},
        "spec": {"destinations": [TARGET], "publicIP": "Floating"},
    }));
    for node in NODES {
        lab.apply(&json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("traffic-{node}")},
            "spec": {"nodeName": node, "containers": [
                {"name": "curl", "image": "curlimages/curl:7.80.0", "command": ["sleep", "infinity"]},
            ]},
        }));
    }
    lab.kubectl(&["wait", "--for=condition=Ready", "--timeout=60s", "pod", "--all"]);
}
