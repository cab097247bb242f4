//! What is served to the outside wakes the agent when it changes, and not when something else of its objects does.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use egress_agent::inbound::follow::Stores;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::stage::{apply, server, until};

fn slice(address: &str, ready: bool) -> Value {
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "web-1", "namespace": "default", "labels": {"kubernetes.io/service-name": "web"}},
        "endpoints": [{"addresses": [address], "conditions": {"ready": ready}}],
        "ports": [{"port": 8080, "protocol": "TCP"}]})
}

fn service(label: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web", "namespace": "default", "labels": {"said-by": label}},
        "spec": {"type": "NodePort", "ports": [{"port": 80}]}})
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_of_endpoints_and_labels_of_services_wake_nobody() {
    let server = server().await;
    apply(&server, &service("a"));
    apply(&server, &slice("10.244.1.7", true));
    let (changed, mut tasks) = (Arc::new(Notify::new()), JoinSet::new());
    let stores = Stores::start(&server.admin().unwrap(), "node-1", &changed, &mut tasks);
    stores.clone().ready().await.unwrap();
    let addresses = || -> BTreeSet<String> {
        let slices = stores.slices.state();
        slices.iter().flat_map(|slice| &slice.endpoints).flat_map(|one| one.addresses.clone()).collect()
    };
    let are = async |address: &str| (addresses() == [address.to_owned()].into()).then_some(());
    until("the first address", || are("10.244.1.7")).await;
    let woken = Arc::new(AtomicU32::new(0));
    let (counted, heard) = (Arc::clone(&woken), Arc::clone(&changed));
    tasks.spawn(async move {
        loop {
            heard.notified().await;
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    // Of one that is told last it is known that all before it were heard.
    let tell = async |address: &str| {
        let before = woken.load(Ordering::Relaxed);
        apply(&server, &slice(address, true));
        until("another address", || are(address)).await;
        until("woken for it", async || (woken.load(Ordering::Relaxed) > before).then_some(())).await;
    };
    tell("10.244.1.8").await;

    let before = woken.load(Ordering::Relaxed);
    for (ready, label) in [(false, "b"), (true, "c"), (false, "d")] {
        apply(&server, &slice("10.244.1.8", ready));
        apply(&server, &service(label));
    }
    tell("10.244.1.9").await;
    assert_eq!(woken.load(Ordering::Relaxed), before + 1);
}
