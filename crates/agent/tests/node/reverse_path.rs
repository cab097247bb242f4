//! The kernel's reverse path filter in every mode and every combination of links, and an agent that can write no sysctl.
//!
//! What comes in by a link is dropped in mode 1 unless the way back leaves by it too, so a filter can cut what the rules of the
//! agent sent out by another link than before. A link's mode is the larger of its own number and that of `all`; `default` is what
//! a link starts with that is made later, such as each pod's. As in DigitalOcean's network, packets with a source that is not
//! their machine's are dropped: an answer that takes the wrong way is lost, whatever the filter says.

use std::net::{Ipv4Addr, UdpSocket};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::cloud::{A, A_PUBLIC, B, B_PUBLIC, NODE_PUBLIC, ip, ours, seen_from, sh, until};
use crate::inbound::{CLIENT, TRANSPORTS, drop_foreign_sources, is_answered, serve};
use crate::pod::{HOST_PORT, POD_PORT, Pod, inside};
use crate::scene::{AGENT, Agent, LISTED, SOON, Scene, UNLISTED, metric};

/// Answered by the node itself, from its public address.
const HOST_NETWORK: u16 = 7000;

/// An agent to which `/proc/sys` is read-only, as in its container.
fn start_without_sysctls(scene: &Scene) -> Agent {
    let mut command = Command::new("unshare");
    let script = "mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && ! sysctl -qw \
                  net.ipv4.conf.all.rp_filter=2 2>/dev/null && exec \"$0\" \"$@\"";
    command.args(["--mount", "sh", "-c", script, AGENT]);
    Agent::start_at(command, &scene.server.kubeconfig(), &["--daemonset=", "--protected-names="])
}

fn set_filter(link: &str, mode: u8) {
    sh(&format!("sysctl -qw net.ipv4.conf.{link}.rp_filter={mode}"));
}

/// Of all links and all that routing looks at.
fn sysctls() -> String {
    sh("sysctl -a --pattern '^net\\.ipv4\\.(conf|fib_|route|ip_forward)'")
}

fn probes(level: &str, outcome: &str) -> f64 {
    metric(&format!("egress_agent_probes_total{{level=\"{level}\",outcome=\"{outcome}\"}}"))
}

/// Waits for answers to probes that were sent from now on.
fn until_probed(level: &str) {
    let before = probes(level, "answered");
    // One may be under way.
    until("probes are answered", &true, SOON, || probes(level, "answered") >= before + 2.0);
}

fn missed() -> f64 {
    probes("reachability", "missed") + probes("forwarding", "missed")
}

/// Whether a client on the internet is answered, over TCP and over UDP.
fn answered(scene: &Scene, port: u16) -> [bool; 2] {
    let internet = scene.cloud.name("inet");
    TRANSPORTS.map(|transport| {
        inside(Some(&internet), move || is_answered(transport, (NODE_PUBLIC, port).into())).join().unwrap()
    })
}

#[test]
fn routes_probes_and_replies_pass_the_filter_in_every_mode_on_every_link() {
    let scene = Scene::new();
    drop_foreign_sources(&scene.cloud, &[]);
    let pod = Pod::new(&scene.cloud, 20);
    pod.translate(NODE_PUBLIC);
    serve(None, NODE_PUBLIC, &[HOST_NETWORK]);
    serve(Some(&pod.namespace), pod.address, &[POD_PORT]);
    let agent = start_without_sysctls(&scene);
    pod.tell_host_port(&scene);
    // A gateway that is probed through to the outside.
    scene.apply(&json!({"apiVersion": "networking.digitalocean.com/v1alpha1", "kind": "EgressGateway",
        "metadata": {"name": "demo"}, "spec": {"destinations": ["198.18.0.0/15"], "publicIP": "Ephemeral"}}));
    let gateway = json!({"name": "demo-0", "slot": 0, "dropletID": 1, "privateAddress": A, "publicAddress": "203.0.113.5",
        "role": "Active", "ready": true});
    let status = json!({"status": {"gateways": [gateway]}}).to_string();
    scene.kubectl(&["patch", "egressgateway", "demo", "--subresource=status", "--type=merge", "-p", &status]);
    let listed = json!({"destinations": ["192.0.2.0/24", "198.51.100.77"], "gateways": [{"address": A}, {"address": B}]});
    scene.route("listed", &listed);
    scene.until_applied("listed", 2);
    until("the way through A is proven", &true, SOON, || probes("forwarding", "answered") > 0.0);
    until("the client behind a routed destination is answered", &[true, true], SOON, || {
        answered(&scene, HOST_PORT)
    });

    let before = missed();
    for (all, eth0, eth1) in combinations() {
        for (link, mode) in [("all", all), ("eth0", eth0), ("eth1", eth1)] {
            set_filter(link, mode);
        }
        let modes = format!("rp_filter of all {all}, eth0 {eth0}, eth1 {eth1}");
        assert_eq!([seen_from(LISTED), pod.seen_from(LISTED)], [Some(A_PUBLIC); 2], "{modes}");
        assert_eq!([seen_from(UNLISTED), pod.seen_from(UNLISTED)], [Some(NODE_PUBLIC); 2], "{modes}");
        for port in [HOST_NETWORK, HOST_PORT] {
            assert_eq!(answered(&scene, port), [true, true], "port {port}, {modes}");
        }
        until_probed("reachability");
    }
    until_probed("forwarding");
    assert!((missed() - before).abs() < 0.5, "{} probes without an answer", missed() - before);

    // What is made later starts with the default: a pod, and a VPC link that is made anew.
    for (link, mode) in [("all", 0), ("eth0", 1), ("default", 1)] {
        set_filter(link, mode);
    }
    let later = Pod::new(&scene.cloud, 21);
    assert_eq!(sh(&format!("sysctl -n net.ipv4.conf.{}.rp_filter", later.link)).trim(), "1");
    assert_eq!(later.seen_from(LISTED), Some(A_PUBLIC));
    assert_eq!(later.seen_from(UNLISTED), Some(NODE_PUBLIC));
    ip("link del eth1");
    scene.cloud.attach_private(None, "10.116.0.2", 0);
    assert_eq!(sh("sysctl -n net.ipv4.conf.eth1.rp_filter").trim(), "1");
    scene.until_applied("listed", 2);
    until("through A again", &[Some(A_PUBLIC); 2], SOON, || [seen_from(LISTED), later.seen_from(LISTED)]);

    // A switch, with every link strict.
    let before = sysctls();
    scene.cloud.power_off("a");
    until("through B", &[Some(B_PUBLIC); 2], SOON, || [seen_from(LISTED), later.seen_from(LISTED)]);
    assert_eq!(answered(&scene, HOST_PORT), [true, true]);
    assert_eq!(sysctls(), before, "the agent wrote a sysctl");
    drop(agent);
}

/// Of the modes of `all`, `eth0` and `eth1`.
fn combinations() -> impl Iterator<Item = (u8, u8, u8)> {
    (0..27).map(|number| (number / 9, number / 3 % 3, number % 3))
}

/// What the node says of the filter: the condition's status and message.
fn told(scene: &Scene) -> Option<(String, String)> {
    let condition = scene.status()?.conditions.into_iter().find(|one| one.type_ == "ReversePathFilter")?;
    Some((condition.status, condition.message))
}

/// Whether a datagram from `source` on the internet that wants no answer gets through to the pod.
fn arrives(scene: &Scene, receiver: &UdpSocket, source: Ipv4Addr) -> bool {
    let (internet, number) = (scene.cloud.name("inet"), SENT.fetch_add(1, Ordering::Relaxed));
    let send = move || {
        let socket = UdpSocket::bind((source, 0)).unwrap();
        socket.send_to(&number.to_be_bytes(), (NODE_PUBLIC, ONE_WAY)).unwrap();
    };
    inside(Some(&internet), send).join().unwrap();
    let mut buffer = [0; 4];
    // What came late for the last question is not this one.
    while receiver.recv(&mut buffer).is_ok() {
        if buffer == number.to_be_bytes() {
            return true;
        }
    }
    false
}

static SENT: AtomicU32 = AtomicU32::new(0);
/// A port of the node that something sends on to the pod, and the API server knows nothing of.
const ONE_WAY: u16 = 9514;

#[test]
fn a_strict_filter_is_told_before_anything_is_routed_and_until_it_is_lifted() {
    let scene = Scene::new();
    let pod = Pod::new(&scene.cloud, 20);
    let to = format!("{}:{ONE_WAY}", pod.address);
    sh(&format!("iptables -t nat -A PREROUTING -d {NODE_PUBLIC} -p udp --dport {ONE_WAY} -j DNAT --to {to}"));
    let receiver =
        inside(Some(&pod.namespace), || UdpSocket::bind(("0.0.0.0", ONE_WAY)).unwrap()).join().unwrap();
    receiver.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    for (link, mode) in [("all", 0), ("eth0", 1)] {
        set_filter(link, mode);
    }
    assert!(arrives(&scene, &receiver, CLIENT), "the scene itself");

    let agent = start_without_sysctls(&scene);
    until("told", &Some("True".to_owned()), SOON, || told(&scene).map(|(status, _)| status));
    assert_eq!((ours(), scene.status().unwrap().routes), (String::new(), Vec::new()), "nothing is routed");
    let (_, message) = told(&scene).unwrap();
    assert!(message.starts_with("net.ipv4.conf.eth0.rp_filter is 1"), "{message}");
    assert!(arrives(&scene, &receiver, CLIENT));

    // That is what it forbids, and nothing else.
    scene.route("clients", &json!({"destinations": [CLIENT.to_string()], "gateways": [{"address": A}]}));
    scene.until_applied("clients", 1);
    assert!(!arrives(&scene, &receiver, CLIENT));
    assert!(arrives(&scene, &receiver, UNLISTED));

    // The larger number counts, whoever has it.
    for (all, eth0, strict) in [(0, 2, false), (1, 0, true), (1, 2, false), (0, 0, false), (0, 1, true)] {
        set_filter("all", all);
        set_filter("eth0", eth0);
        assert_eq!(arrives(&scene, &receiver, CLIENT), !strict, "all {all}, eth0 {eth0}");
        // A sysctl tells nobody when it changes: the agent sees it when it looks for another reason, or at its next round.
        scene.route(
            "clients",
            &json!({"destinations": [CLIENT.to_string(), format!("192.0.2.{}", 10 * all + eth0)],
            "gateways": [{"address": A}]}),
        );
        let expected = Some(if strict { "True" } else { "False" }.to_owned());
        until("told as it is", &expected, SOON, || told(&scene).map(|(status, _)| status));
    }
    drop(agent);
}
