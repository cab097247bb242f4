//! Pods that a program in the kernel forwards, past the kernel's own forwarding: what a CNI with host routing in eBPF does.
//!
//! The program asks for the way with `bpf_fib_lookup` and sends the packet there with `bpf_redirect_neigh`, on the pod's link and on
//! both of the node's. The kernel's own forwarding drops whatever comes its way, so what arrives was forwarded by the program.
//! It translates no addresses: pods keep theirs, as in a VPC-native cluster, and the gateways translate for them. An
//! unlisted destination therefore sees the pod's own address.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use serde_json::json;
use testkit::HostRouting;

use crate::cloud::{A, A_PUBLIC, B, B_PUBLIC, NODE_PUBLIC, ip, sh, until};
use crate::inbound::{CLIENT, TRANSPORTS, is_answered, serve};
use crate::packets::Packets;
use crate::pod::{POD_PORT, Pod, inside};
use crate::scene::{Agent, LISTED, SOON, Scene, UNLISTED};

/// Routed by an object of its own, through one gateway at a time.
const ONE_AT_A_TIME: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);

/// A scene with a pod that the program forwards.
fn scene(how: HostRouting) -> (Scene, Pod) {
    let scene = Scene::new();
    let pod = Pod::new(&scene.cloud, 20);
    sh("iptables -P FORWARD DROP");
    Pod::native_to_the_vpc(&scene.cloud);
    let (internet, pods) = (scene.cloud.name("inet"), "10.244.0.0/24");
    ip(&format!("-n {internet} route add {pods} via {NODE_PUBLIC}"));
    attach(&pod, how);
    assert_eq!(pod.seen_from(LISTED), Some(pod.address), "the scene itself");
    // By its own link to the internet; what a dying gateway lets through untranslated is no leak of the node's.
    let leak = format!("ether saddr 02:00:cb:00:71:0b ip saddr {pods} ip daddr {LISTED} counter");
    let rules = format!(
        "table ip oracle {{ chain leaks {{ type filter hook prerouting priority -300; {leak}; }}; }}"
    );
    scene.cloud.in_internet(&format!("nft '{rules}'"));
    (scene, pod)
}

fn attach(pod: &Pod, how: HostRouting) {
    how.attach(&pod.link).unwrap();
    for link in ["eth0", "eth1"] {
        HostRouting::ByAddresses.attach(link).unwrap();
    }
}

/// The addresses that the outside sees of the pod for many destinations.
fn seen(pod: &Pod) -> BTreeSet<Option<Ipv4Addr>> {
    (0..24).map(|number| pod.seen_from(Ipv4Addr::new(192, 0, 2, 100 + number))).collect()
}

#[test]
fn pods_forwarded_in_ebpf_take_the_ways_of_the_plan_and_none_leaks() {
    let (scene, pod) = scene(HostRouting::ByAddresses);
    let before = scene.cloud.leaks();
    let agent = Agent::start(&scene);
    let gateways = json!([{"address": A}, {"address": B}]);
    let mut listed = json!({"destinations": ["0.0.0.0/0"], "excludedDestinations": [UNLISTED.to_string()],
        "gateways": gateways});
    scene.route("listed", &listed);
    scene.route("one-at-a-time", &json!({"destinations": [ONE_AT_A_TIME.to_string()], "gateways": gateways}));
    scene.until_applied("listed", 1);
    scene.until_applied("one-at-a-time", 1);
    until("through A", &Some(A_PUBLIC), SOON, || pod.seen_from(LISTED));
    assert_eq!(pod.seen_from(UNLISTED), Some(pod.address), "what is excluded keeps its way");

    // The link flaps while the pod sends.
    let packets = Packets::uncounted(Some(&pod.namespace));
    for _ in 0..3 {
        ip("link set eth1 down");
        ip("link set eth1 up");
        until("through a gateway", &false, SOON, || pod.seen_from(LISTED).is_none());
    }
    // Two share the traffic, then one dies, then the other.
    listed["mode"] = json!("ActiveActive");
    scene.route("listed", &listed);
    let sharing = || scene.route_report("listed").map_or(0, |report| report.gateways.len());
    until("both", &2, SOON, sharing);
    assert_eq!(seen(&pod), [Some(A_PUBLIC), Some(B_PUBLIC)].into());
    assert_eq!(pod.seen_from(ONE_AT_A_TIME), Some(A_PUBLIC));
    scene.cloud.power_off("a");
    until("B alone", &1, SOON, sharing);
    assert_eq!(seen(&pod), [Some(B_PUBLIC)].into());
    until("through B", &Some(B_PUBLIC), SOON, || pod.seen_from(ONE_AT_A_TIME));
    scene.cloud.power_off("b");
    until("through nobody", &None, SOON, || pod.seen_from(LISTED));
    let sent = packets.end();
    assert_eq!(scene.cloud.leaks(), before, "of {sent} packets");
    assert_eq!(pod.seen_from(UNLISTED), Some(pod.address), "what is excluded keeps its way");
    drop(agent);
}

/// Whether a client on the internet that connects to the pod's own address is answered.
fn answered(scene: &Scene, pod: &Pod) -> [bool; 2] {
    let (internet, server) = (scene.cloud.name("inet"), (pod.address, POD_PORT));
    TRANSPORTS.map(|transport| {
        inside(Some(&internet), move || is_answered(transport, server.into())).join().unwrap()
    })
}

#[test]
fn what_a_program_leaves_out_of_its_lookup_does_not_hold() {
    let (scene, pod) = scene(HostRouting::ByAddresses);
    serve(Some(&pod.namespace), pod.address, &[POD_PORT]);
    assert_eq!(answered(&scene, &pod), [true, true], "the scene itself");
    let agent = Agent::start(&scene);
    pod.tell_host_port(&scene);
    let listed = json!({"destinations": [LISTED.to_string(), CLIENT.to_string()],
        "gateways": [{"address": A}, {"address": B}]});
    scene.route("listed", &listed);
    scene.until_applied("listed", 2);
    until("the port's rule", &true, SOON, || ip("rule show").contains("sport 80"));
    let table = |how| {
        attach(&pod, how);
        (pod.seen_from(LISTED), pod.seen_from(UNLISTED), answered(&scene, &pod))
    };
    let own = Some(pod.address);

    // The answer of a served port is told from a connection of the pod's by its port only. UDP answers in fragments, of which
    // only the first has ports.
    assert_eq!(table(HostRouting::ByAddresses), (Some(A_PUBLIC), own, [false, false]));
    assert_eq!(table(HostRouting::ByAddressesAndPorts), (Some(A_PUBLIC), own, [true, false]));
    // An answer whose source is the public address again when the program asks needs no port.
    assert_eq!(table(HostRouting::From(NODE_PUBLIC)), (own, own, [true, true]));
    // A program that asks the main table only sees no route of ours.
    assert_eq!(table(HostRouting::InMainTableOnly), (own, own, [true, true]));
    // One that asks nothing gets the best route on that link: behind a nexthop object on another one the kernel passes the guard
    // by, and goes on to the main table.
    let eth0 = nix::net::if_::if_nametoindex("eth0").unwrap();
    assert_eq!(table(HostRouting::StraightTo(eth0)), (own, own, [true, true]));

    // Which of them a node has can't be seen from it; that it has Cilium can.
    let told = || {
        let conditions = scene.status()?.conditions;
        conditions.into_iter().find(|one| one.type_ == "EbpfForwarding").map(|one| one.status)
    };
    assert_eq!(told(), None);
    ip("link add cilium_host type bridge");
    until("told", &Some("True".to_owned()), SOON, told);
    drop(agent);
}
