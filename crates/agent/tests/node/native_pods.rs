//! Pods that are native to the VPC: their node leaves their addresses as they are, and the gateways translate for them.
//!
//! A node may send their addresses into the VPC, and on the public side its own only.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::json;

use crate::cloud::{A, A_PUBLIC, B, B_PUBLIC, NODE_PUBLIC, sh, until};
use crate::inbound::{TRANSPORTS, drop_foreign_sources, is_answered, serve};
use crate::pod::{HOST_PORT, POD_PORT, Pod, inside};
use crate::scene::{Agent, LISTED, SOON, Scene, UNLISTED};

#[test]
fn pods_native_to_the_vpc_leave_untranslated_and_answer_where_they_were_reached() {
    let scene = Scene::new();
    drop_foreign_sources(&scene.cloud, &["10.244.0.0/24"]);
    let pod = Pod::new(&scene.cloud, 20);
    Pod::native_to_the_vpc(&scene.cloud);
    sh("iptables -t nat -A POSTROUTING -s 10.244.0.0/16 -o eth0 -j MASQUERADE");
    pod.forward_host_port(NODE_PUBLIC);
    serve(Some(&pod.namespace), pod.address, &[POD_PORT]);
    let internet = scene.cloud.name("inet");
    let answered = || {
        TRANSPORTS.map(|transport| {
            inside(Some(&internet), move || is_answered(transport, (NODE_PUBLIC, HOST_PORT).into()))
                .join()
                .unwrap()
        })
    };
    assert_eq!((pod.seen_from(LISTED), answered()), (Some(NODE_PUBLIC), [true, true]), "the scene itself");

    let agent = Agent::start(&scene);
    let mut all = json!({"destinations": ["0.0.0.0/0"], "excludedDestinations": [UNLISTED.to_string()],
        "gateways": [{"address": A}, {"address": B}]});
    scene.route("all", &all);
    scene.until_applied("all", 1);
    until("through A", &Some(A_PUBLIC), SOON, || pod.seen_from(LISTED));
    assert_eq!(answered(), [false, false], "without a rule for its port");
    pod.tell_host_port(&scene);
    until("answered", &[true, true], SOON, answered);
    for mode in [0, 1, 2] {
        for link in ["all", "eth0", "eth1", &pod.link] {
            sh(&format!("sysctl -qw net.ipv4.conf.{link}.rp_filter={mode}"));
        }
        assert_eq!((pod.seen_from(LISTED), answered()), (Some(A_PUBLIC), [true, true]), "rp_filter {mode}");
        assert_eq!(pod.seen_from(UNLISTED), Some(NODE_PUBLIC), "rp_filter {mode}");
    }
    // Whoever is in the VPC reaches the pod itself.
    let (neighbour, server) = (scene.cloud.name("b"), SocketAddr::from((pod.address, POD_PORT)));
    let reached =
        inside(Some(&neighbour), move || TcpStream::connect_timeout(&server, Duration::from_secs(1)));
    assert!(reached.join().unwrap().is_ok());

    all["mode"] = json!("ActiveActive");
    scene.route("all", &all);
    let sharing = || scene.route_report("all").map_or(0, |report| report.gateways.len());
    until("both", &2, SOON, sharing);
    assert!([Some(A_PUBLIC), Some(B_PUBLIC)].contains(&pod.seen_from(LISTED)));
    assert_eq!(answered(), [true, true]);
    scene.cloud.power_off("a");
    until("B alone", &1, SOON, sharing);
    assert_eq!((pod.seen_from(LISTED), answered()), (Some(B_PUBLIC), [true, true]));
    drop(agent);
}
