//! The network size: who may send what, and what the oracle says of it.

use std::net::{Ipv4Addr, SocketAddrV4};

use egress_lab::netns;
use egress_lab::network::addresses::{HAND_MADE_GATEWAYS, NODES};

use crate::world::{World, eventually};

const WHOAMI: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 80);
const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

fn web(address: Ipv4Addr) -> SocketAddrV4 {
    SocketAddrV4::new(address, 80)
}

#[test]
fn every_public_address_says_who_the_caller_is() {
    let world = World::start(&["--size", "network"]);
    for node in &NODES {
        for server in [WHOAMI, Ipv4Addr::new(8, 8, 8, 8), Ipv4Addr::new(34, 160, 111, 145)] {
            assert_eq!(world.whoami(node.name, web(server)), Some(node.public), "{server}");
        }
    }
    assert_eq!(world.whoami("node-1", SocketAddrV4::new(WHOAMI, 8080)), Some(NODES[0].public));
    assert!(world.is_refused("node-1", SocketAddrV4::new(WHOAMI, 81)));
    let named = world.shell("node-2", "curl -sS --max-time 3 http://ifconfig.me/ip");
    assert_eq!(named.trim(), NODES[1].public.to_string());
    let unknown = world.output(&[
        "exec",
        "node-1",
        "--",
        "curl",
        "-sS",
        "--max-time",
        "3",
        "http://nobody.example.org/",
    ]);
    assert_eq!(unknown.status.code(), Some(6), "a name that is not known does not resolve");
}

#[test]
fn machines_reach_each_other_on_both_segments() {
    let world = World::start(&["--size", "network"]);
    for other in [NODES[1].public, NODES[1].vpc, HAND_MADE_GATEWAYS[0].public, HAND_MADE_GATEWAYS[0].vpc] {
        assert!(world.is_refused("node-1", SocketAddrV4::new(other, 9)), "{other}");
    }
    // The internet itself has no route to private addresses; the provider has one, for the metadata service alone.
    let vpc = SocketAddrV4::new(NODES[1].vpc, 9);
    assert!(!world.is_refused("provider", vpc), "the VPC is open to the outside");
    assert!(world.is_refused("internet", SocketAddrV4::new(NODES[1].public, 9)), "a public address is not");
}

#[test]
fn hand_made_gateways_forward_and_translate() {
    for variant in ["overlay", "vpc-native"] {
        let world = World::start(&["--size", "network", "--variant", variant]);
        for gateway in &HAND_MADE_GATEWAYS {
            world.shell("node-1", &format!("ip route replace {WHOAMI}/32 via {}", gateway.vpc));
            assert_eq!(world.whoami("node-1", web(WHOAMI)), Some(gateway.public), "{variant}");
        }
    }
}

#[test]
fn foreign_sources_are_dropped_on_both_sides_of_a_node() {
    let world = World::start(&["--size", "network"]);
    let (foreign, pod) = (Ipv4Addr::new(198, 51, 100, 77), Ipv4Addr::new(10, 244, 0, 9));
    // Without translation, as a node would send whose rules are wrong.
    world.shell(
        "node-1",
        &format!("nft flush ruleset; ip addr add {foreign}/32 dev lo; ip addr add {pod}/32 dev lo"),
    );
    world.send("node-1", foreign, WHOAMI, "public", &[1, 2]);
    world.send("node-1", pod, WHOAMI, "public", &[3]);
    world.shell("node-1", &format!("ip route add {WHOAMI}/32 via {}", HAND_MADE_GATEWAYS[0].vpc));
    world.send("node-1", foreign, WHOAMI, "vpc", &[1, 2]);
    world.send("node-1", pod, WHOAMI, "vpc", &[3]);
    world.send("node-1", NODES[0].vpc, WHOAMI, "vpc", &[4]);
    // What is sent in order arrives in order: nothing of the rest is still on its way.
    world.stream("vpc", 1);
    assert_eq!(world.sources("vpc"), [HAND_MADE_GATEWAYS[0].public.to_string()]);
    world.shell("node-1", &format!("ip route del {WHOAMI}/32"));
    world.send("node-1", ANY, WHOAMI, "public", &[4]);
    world.stream("public", 1);
    assert_eq!(world.sources("public"), [NODES[0].public.to_string()]);
}

#[test]
fn a_vpc_native_cluster_may_send_its_own_pods_addresses_and_they_are_routed_back() {
    let world = World::start(&["--size", "network", "--variant", "vpc-native"]);
    let (own, others) = (Ipv4Addr::new(10, 244, 0, 9), Ipv4Addr::new(10, 244, 1, 9));
    world.shell("node-1", &format!("ip addr add {own}/32 dev lo; ip addr add {others}/32 dev lo"));
    world.shell("node-1", &format!("ip route add {WHOAMI}/32 via {}", HAND_MADE_GATEWAYS[0].vpc));
    world.send("node-1", others, WHOAMI, "pods", &[1]);
    world.send("node-1", own, WHOAMI, "pods", &[2]);
    let report = world.stream("pods", 1);
    assert_eq!(report["lowest"], 2, "the other node's pod range was let through");
    let back = world.shell("node-1", &format!("curl -sS --max-time 2 --interface {own} http://{WHOAMI}/"));
    assert_eq!(back.trim(), HAND_MADE_GATEWAYS[0].public.to_string());
}

#[test]
fn a_gateway_may_send_internet_sources_to_the_vpc_and_only_its_own_to_the_public_side() {
    let world = World::start(&["--size", "network"]);
    let gateway = HAND_MADE_GATEWAYS[0];
    let (internet, private) = (Ipv4Addr::new(198, 51, 100, 77), Ipv4Addr::new(10, 200, 0, 1));
    world.shell(
        "gateway-a",
        &format!("nft flush ruleset; ip addr add {internet}/32 dev lo; ip addr add {private}/32 dev lo"),
    );
    let count = "nft add table ip seen; \
                 nft add chain ip seen input '{ type filter hook prerouting priority -300; }'; \
                 nft add counter ip seen a; nft add counter ip seen b; \
                 nft add rule ip seen input udp dport 9999 ip saddr 198.51.100.77 counter name a; \
                 nft add rule ip seen input udp dport 9999 ip saddr 10.200.0.1 counter name b";
    world.shell("node-1", count);
    world.send("gateway-a", private, NODES[0].vpc, "x", &[1]);
    world.send("gateway-a", internet, NODES[0].vpc, "x", &[2]);
    let packets = |name: &str| {
        let said = world.shell("node-1", &format!("nft list counter ip seen {name}"));
        said.split("packets ").nth(1).unwrap().split(' ').next().unwrap().parse::<u32>().unwrap()
    };
    eventually("an internet source arrives over the VPC", || (packets("a") == 1).then_some(()));
    assert_eq!(packets("b"), 0, "a private source that is not the gateway's arrived over the VPC");
    world.send("gateway-a", internet, WHOAMI, "out", &[1]);
    world.send("gateway-a", private, WHOAMI, "out", &[2]);
    world.send("gateway-a", gateway.public, WHOAMI, "out", &[3]);
    world.stream("out", 1);
    assert_eq!(world.sources("out"), [gateway.public.to_string()]);
}

#[test]
fn the_oracle_tells_gaps_and_sources_and_forgets_on_demand() {
    let world = World::start(&["--size", "network"]);
    world.send("node-1", ANY, WHOAMI, "s", &[1, 2, 3]);
    world.shell("node-1", &format!("ip route add {WHOAMI}/32 via {}", HAND_MADE_GATEWAYS[0].vpc));
    world.send("node-1", ANY, WHOAMI, "s", &[6, 7]);
    let report = world.stream("s", 5);
    assert_eq!(report["missing"], serde_json::json!([{"from": 4, "to": 5}]));
    assert_eq!(world.sources("s"), [HAND_MADE_GATEWAYS[0].public.to_string(), NODES[0].public.to_string()]);
    // A SYN to a port that refuses is a packet, too.
    let listed = Ipv4Addr::new(192, 0, 2, 10);
    assert!(world.is_refused("node-2", SocketAddrV4::new(listed, 5432)));
    let oracle = world.json(&["oracle"]);
    let packets = oracle["packets"].as_array().unwrap();
    let count = |source: Ipv4Addr, destination: Ipv4Addr, protocol: &str| {
        let matches = packets.iter().filter(|one| {
            one["source"] == source.to_string()
                && one["destination"] == destination.to_string()
                && one["protocol"] == protocol
        });
        matches.map(|one| one["packets"].as_u64().unwrap()).sum::<u64>()
    };
    assert_eq!(count(NODES[0].public, WHOAMI, "udp"), 3);
    assert_eq!(count(HAND_MADE_GATEWAYS[0].public, WHOAMI, "udp"), 2);
    assert_eq!(count(NODES[1].public, listed, "tcp"), 1);
    world.run(&["oracle", "reset"]);
    let oracle = world.json(&["oracle"]);
    assert_eq!((&oracle["packets"], &oracle["streams"]), (&serde_json::json!([]), &serde_json::json!([])));
}

#[test]
fn cut_links_carry_nothing_and_heal() {
    let world = World::start(&["--size", "network"]);
    world.shell("node-1", &format!("ip route add {WHOAMI}/32 via {}", HAND_MADE_GATEWAYS[0].vpc));
    let through = Some(HAND_MADE_GATEWAYS[0].public);
    let faults: [&[&str]; 5] = [
        &["cut", "gateway-a", "public"],
        &["cut", "gateway-a", "vpc"],
        &["drop", "gateway-a", "public", "in"],
        &["drop", "node-1", "vpc", "out"],
        &["freeze", "gateway-a"],
    ];
    for fault in faults {
        assert_eq!(world.whoami("node-1", web(WHOAMI)), through, "before {fault:?}");
        world.run(fault);
        assert!(world.hears_nothing("node-1", web(WHOAMI)), "{fault:?}");
        assert!(world.shell(fault[1], "cat /sys/class/net/*/operstate; ip -br link").contains("UP"));
        world.run(&["heal", fault[1]]);
    }
    let wrong = world.output(&["cut", "nobody", "vpc"]);
    assert!(!wrong.status.success());
}

#[test]
fn a_broken_gateway_is_up_answers_in_the_vpc_and_lets_nothing_through() {
    let world = World::start(&["--size", "network"]);
    for what in ["forwarding", "nat", "conntrack", "default-route"] {
        let gateway = HAND_MADE_GATEWAYS[0];
        world.shell("node-1", &format!("ip route replace {WHOAMI}/32 via {}", gateway.vpc));
        assert_eq!(world.whoami("node-1", web(WHOAMI)), Some(gateway.public), "before break {what}");
        world.run(&["break", what, gateway.name]);
        assert!(world.hears_nothing("node-1", web(WHOAMI)), "break {what}");
        // The kernel refuses a closed port as ever: a probe that asks no more than that sees nothing wrong. Where the table of
        // connections is full, one that is tracked gets no answer.
        let refused = world.is_refused("node-1", SocketAddrV4::new(gateway.vpc, 9));
        assert_eq!(refused, what != "conntrack", "break {what}");
        let links = world.shell(gateway.name, "ip -br link");
        let up = |link: &str| links.lines().any(|line| line.starts_with(link) && line.contains(" UP "));
        assert!(up("eth0") && up("eth1"), "break {what}: {links}");
        if ["forwarding", "nat"].contains(&what) {
            let own = world.whoami(gateway.name, web(WHOAMI));
            assert_eq!(own, Some(gateway.public), "its own way out, break {what}");
        }
        // The other one is none the worse.
        let other = HAND_MADE_GATEWAYS[1];
        world.shell("node-1", &format!("ip route replace {WHOAMI}/32 via {}", other.vpc));
        assert_eq!(world.whoami("node-1", web(WHOAMI)), Some(other.public), "break {what}");
        world.run(&["heal", gateway.name]);
    }
    // After all of it, with each undone.
    world.shell("node-1", &format!("ip route replace {WHOAMI}/32 via {}", HAND_MADE_GATEWAYS[0].vpc));
    assert_eq!(world.whoami("node-1", web(WHOAMI)), Some(HAND_MADE_GATEWAYS[0].public));
}

#[test]
fn a_gateway_with_a_wrong_source_is_answered_and_seen_as_somebody_else() {
    let world = World::start(&["--size", "network"]);
    world.shell("node-1", &format!("ip route add {WHOAMI}/32 via {}", HAND_MADE_GATEWAYS[0].vpc));
    world.run(&["break", "source", "gateway-a"]);
    assert_eq!(world.whoami("node-1", web(WHOAMI)), Some(Ipv4Addr::new(203, 0, 113, 250)));
    world.run(&["heal", "gateway-a"]);
    assert_eq!(world.whoami("node-1", web(WHOAMI)), Some(HAND_MADE_GATEWAYS[0].public));
}

#[test]
fn a_lossy_link_loses_its_share_and_a_black_hole_what_is_large() {
    let world = World::start(&["--size", "network"]);
    world.run(&["lose", "node-1", "public", "30", "out"]);
    let numbers: Vec<_> = (1..=1000).collect();
    world.send("node-1", ANY, WHOAMI, "lossy", &numbers);
    world.run(&["heal", "node-1"]);
    world.send("node-1", ANY, WHOAMI, "whole", &numbers);
    world.stream("whole", 1000);
    let arrived = world.json(&["oracle"])["streams"]
        .as_array()
        .unwrap()
        .iter()
        .find_map(|one| (one["stream"] == "lossy").then(|| one["received"].as_u64().unwrap()));
    // Six standard deviations: a thousand throws.
    assert!(arrived.is_some_and(|arrived| (610..=790).contains(&arrived)), "{arrived:?} of 1000 at 30 %");

    // A request of that many bytes, in one packet.
    let asked = |bytes: usize| {
        let line = format!("curl -sS --max-time 2 http://{WHOAMI}/{}", "x".repeat(bytes));
        world.output(&["exec", "node-1", "--", "sh", "-c", &line]).status.success()
    };
    world.shell("node-1", &format!("ip route add {WHOAMI}/32 via {}", HAND_MADE_GATEWAYS[0].vpc));
    assert!(asked(1200), "before the black hole");
    world.run(&["black-hole", "gateway-a", "1000"]);
    assert!(asked(10) && !asked(1200));
    world.run(&["heal", "gateway-a"]);
    assert!(asked(1200), "after it");
}

#[test]
fn two_machines_that_are_parted_reach_everybody_but_each_other() {
    let world = World::start(&["--size", "network"]);
    for node in ["node-1", "node-2"] {
        world.shell(node, &format!("ip route add {WHOAMI}/32 via {}", HAND_MADE_GATEWAYS[0].vpc));
    }
    let through = Some(HAND_MADE_GATEWAYS[0].public);
    world.run(&["part", "node-1", "gateway-a"]);
    assert!(world.hears_nothing("node-1", web(WHOAMI)));
    assert_eq!(world.whoami("node-2", web(WHOAMI)), through);
    assert!(world.is_refused("node-1", SocketAddrV4::new(NODES[1].vpc, 9)));
    world.run(&["heal", "node-1"]);
    assert_eq!(world.whoami("node-1", web(WHOAMI)), through);
}

#[test]
fn a_gateway_that_is_parted_from_the_providers_leads_nowhere_and_reaches_everybody_on_its_link() {
    let world = World::start(&["--size", "network"]);
    let [a, b] = [HAND_MADE_GATEWAYS[0], HAND_MADE_GATEWAYS[1]];
    world.shell("node-1", &format!("ip route add {WHOAMI}/32 via {}", a.vpc));
    assert_eq!(world.whoami("node-1", web(WHOAMI)), Some(a.public));
    world.run(&["part", a.name, "provider-gateway"]);
    assert!(world.hears_nothing("node-1", web(WHOAMI)));
    assert!(world.is_refused(a.name, SocketAddrV4::new(b.public, 9)));
    assert_eq!(world.whoami(b.name, web(WHOAMI)), Some(b.public), "the other one is none the worse");
    world.run(&["heal", a.name]);
    assert_eq!(world.whoami("node-1", web(WHOAMI)), Some(a.public));
}

#[test]
fn addresses_that_are_silent_answer_nobody_until_they_are_healed() {
    let world = World::start(&["--size", "network"]);
    world.run(&["silence", "8.8.8.8", "9.9.9.9"]);
    for silent in [Ipv4Addr::new(8, 8, 8, 8), Ipv4Addr::new(9, 9, 9, 9)] {
        assert!(world.hears_nothing("node-1", web(silent)), "{silent}");
    }
    assert_eq!(world.whoami("node-1", web(WHOAMI)), Some(NODES[0].public));
    world.run(&["heal", "internet"]);
    assert_eq!(world.whoami("node-1", web(Ipv4Addr::new(8, 8, 8, 8))), Some(NODES[0].public));
}

#[test]
fn no_namespace_has_a_link_to_the_machine() {
    let world = World::start(&["--size", "network"]);
    let status = world.json(&["status"]);
    let parts: Vec<_> =
        status["parts"].as_array().unwrap().iter().map(|part| part.as_str().unwrap()).collect();
    assert_eq!(parts.len(), 7);
    for part in parts {
        let links =
            netns::run_with_input(&world.namespace(part), "ip", &["-o", "-d", "link", "show"], "").unwrap();
        for line in links.lines() {
            let kinds = ["loopback", " veth ", " bridge ", " vxlan ", "ifb"];
            assert!(kinds.iter().any(|kind| line.contains(kind)), "{part}: {line}");
            // The other end of a veth is here, and shown by its name, or in a namespace with a name, and the machine's has none.
            let name = line.split(": ").nth(1).unwrap();
            let ends_here = name.split_once('@').is_some_and(|(_, peer)| !peer.starts_with("if"));
            if line.contains(" veth ") && !ends_here {
                assert!(line.contains(&format!("link-netns egl-{}-", world.name)), "{part}: {line}");
            }
        }
    }
}
