//! Gateways that work are replaced one by one, one is lost and repaired, and at last all are taken away, while pods on both nodes begin
//! connections and send numbered datagrams all the time. What comes out is judged by its source.
//!
//! Not part of `cargo test --workspace`: it needs the release build, the images and the control plane, which `scripts/rolls.sh` sees to.
//! `ROLLS=4` is how many gateways are replaced, `PUBLIC_IP=Ephemeral` where their addresses come from.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test stops at what it did not expect"
)]

mod clients;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use egress_lab::traffic::now_ms;
use serde_json::{Value, json};

use clients::{Clients, Told};

#[path = "../end_to_end/lab.rs"]
#[allow(dead_code, reason = "shared with the end-to-end test, which uses other parts of it")]
mod lab;

use lab::{Lab, until};

const NODES: [&str; 2] = ["node-1", "node-2"];
const NODE_ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(203, 0, 113, 11), Ipv4Addr::new(203, 0, 113, 12)];
const TARGET: &str = "192.0.2.80";
const SIZES: [&str; 2] = ["s-2vcpu-2gb", "s-1vcpu-1gb"];
const MINUTE: Duration = Duration::from_secs(60);
/// The clients' datagrams never pause, so that each drain lasts that long.
const DRAIN_SECONDS: u64 = 8;

#[test]
fn rolls_lose_nothing_and_show_only_addresses_that_were_told_and_a_delete_takes_routes_before_gateways() {
    let lab = Lab::new("rolls");
    lab.lab(&["start", "--assets", lab.assets.to_str().unwrap()]);
    lab.install();
    lab.wait_for_rollout();
    apply(&lab);
    until("the pair is ready", &true, 3 * MINUTE, || lab.is_ready("rolls"));
    let promised = addresses(&lab);
    let told = Told::begin(&lab, "rolls");
    let mut clients = Clients::start(&lab, TARGET);
    until("every node leaves through a gateway", &true, MINUTE, || clients.all_leave_through(&told.all()));
    lab.lab(&["oracle", "reset"]);

    let rolls: usize = std::env::var("ROLLS").map_or(4, |many| many.parse().expect("ROLLS is a number"));
    let begun = now_ms();
    for round in 0..rolls.div_ceil(2) {
        let size = SIZES[round % 2];
        let before = lab.gateway_ids("rolls");
        let patch = json!({"spec": {"droplet": {"size": size}}}).to_string();
        lab.kubectl(&["patch", "egressgateway", "rolls", "--type=merge", "-p", &patch]);
        until(&format!("both are {size}"), &true, 6 * MINUTE, || {
            sizes(&lab) == [size, size] && lab.is_ready("rolls")
        });
        assert!(lab.gateway_ids("rolls").iter().all(|id| !before.contains(id)));
        clients.read();
        let failed = clients.failed_since(begun);
        assert!(failed.is_empty(), "connections failed while gateways that work were replaced: {failed:?}");
    }
    assert_eq!(clients.lost(&lab, begun), 0, "datagrams were lost while gateways that work were replaced");
    assert_eq!(addresses(&lab) == promised, public_ip() == "ReservedPerGateway", "{promised}");

    let dead = lab.gateway_ids("rolls")[0].to_string();
    lab.lab(&["kill", &dead]);
    // With power again, or with a successor.
    until("its death is seen", &true, MINUTE, || !lab.is_ready("rolls"));
    until("it is repaired", &true, 6 * MINUTE, || lab.is_ready("rolls"));
    clients.read();
    let strangers = clients.seen_with_other_addresses(begun, &told);
    assert!(strangers.is_empty(), "seen with addresses that were not told then: {strangers:?}");
    assert_eq!(sources(&lab).difference(&told.all()).collect::<Vec<_>>(), Vec::<&Ipv4Addr>::new());

    deleted_under_traffic(&lab, &mut clients, &told);
    clients.stop();
    lab.lab(&["stop"]);
}

/// Nobody is sent to a gateway that is gone: the last that came through one came before it was deleted.
fn deleted_under_traffic(lab: &Lab, clients: &mut Clients, told: &Told) {
    let begun = now_ms();
    lab.kubectl(&["delete", "egressgateway", "rolls", "--wait=true", "--timeout=180s"]);
    let nodes: BTreeSet<Ipv4Addr> = NODE_ADDRESSES.into();
    until("every node leaves with its own address", &true, MINUTE, || clients.all_leave_through(&nodes));
    clients.read();
    let failed = clients.failed_since(begun);
    assert!(failed.is_empty(), "connections failed while the gateways were taken away: {failed:?}");
    let last = clients.last_through(&told.all()).unwrap();
    let deleted = first_delete(lab).expect("Droplets were deleted");
    assert!(last < deleted, "a connection went through a gateway {} ms after its delete", last - deleted);
    eprintln!(
        "ok   the last connection through a gateway ended {:.0} ms before the first delete",
        deleted - last
    );
    assert_eq!(lab.droplets(), 0);
}

/// When the cloud was asked for the first delete of a Droplet since there was a pair to delete, ms since 1970.
fn first_delete(lab: &Lab) -> Option<f64> {
    let journal = std::fs::read_to_string(lab.state.join("cloud-journal.jsonl")).unwrap();
    let entries = journal.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let deletes = entries.filter(|entry| {
        entry["method"] == "DELETE"
            && entry["path"].as_str().is_some_and(|path| path.starts_with("/v2/droplets/"))
    });
    #[allow(clippy::cast_precision_loss, reason = "milliseconds since 1970")]
    let time = |entry: Value| {
        let time: jiff::Timestamp = entry["time"].as_str().unwrap().parse().unwrap();
        time.as_millisecond() as f64
    };
    let times: Vec<f64> = deletes.map(time).collect();
    // The pair's are the last two.
    times.len().checked_sub(2).map(|first| times[first])
}

fn sizes(lab: &Lab) -> Vec<String> {
    let status = lab.get(&["egressgateway", "rolls"])["status"].clone();
    let gateways = status["gateways"].as_array().cloned().unwrap_or_default();
    gateways.iter().filter_map(|gateway| gateway["size"].as_str().map(str::to_owned)).collect()
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

fn public_ip() -> String {
    std::env::var("PUBLIC_IP").unwrap_or_else(|_| "Ephemeral".to_owned())
}

fn addresses(lab: &Lab) -> Value {
    lab.get(&["egressgateway", "rolls"])["status"]["publicIPs"].clone()
}

fn apply(lab: &Lab) {
    lab.apply(&json!({
        "apiVersion": "networking.digitalocean.com/v1alpha1", "kind": "EgressGateway", "metadata": {"name": "rolls"},
        "spec": {"destinations": [TARGET], "publicIP": public_ip(), "drainSeconds": DRAIN_SECONDS},
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
