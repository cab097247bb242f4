//! Gateways that answer in the VPC and do not do their work: each such failure is left for the other gateway, by the real agent, and
//! nobody is moved by what is no fault of the gateway in use.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cloud::{A, A_PUBLIC, B, B_PUBLIC, NODE_PUBLIC, ip, seen_from, sh, until};
use crate::packets::Packets;
use crate::scene::{Agent, LISTED, SOON, Scene, metric};

/// Targets off the gateways' subnet.
const TARGETS: [&str; 3] = ["198.51.100.1:443", "198.51.100.2:443", "198.51.100.3:443"];

/// A gray failure is left within that: the goal of three seconds, and what a busy machine adds.
const LEFT_WITHIN: Duration = Duration::from_secs(6);

/// Two gateways that admit each other, in use in this order, and an agent that has proven both at every level.
struct Pair {
    scene: Scene,
    agent: Agent,
}

impl Pair {
    fn new() -> Self {
        Self::with(&json!({"targets": TARGETS, "holdDownSeconds": 2}))
    }

    fn with(health_check: &Value) -> Self {
        let scene = Scene::new();
        scene.cloud.admit("a", &[B_PUBLIC]);
        scene.cloud.admit("b", &[A_PUBLIC]);
        let agent = Agent::start(&scene);
        let gateways =
            json!([{"address": A, "egressAddress": A_PUBLIC}, {"address": B, "egressAddress": B_PUBLIC}]);
        scene.route(
            "pair",
            &json!({"destinations": [LISTED], "gateways": gateways, "healthCheck": health_check}),
        );
        let pair = Self { scene, agent };
        pair.until_proven(&[A, B]);
        until("through A", &Some(A_PUBLIC), SOON, || seen_from(LISTED));
        pair
    }

    /// Waits until these gateways pass at every level.
    fn until_proven(&self, gateways: &[&str]) {
        until("proven", &true, SOON, || {
            let seen = self.scene.status().unwrap_or_default().gateways;
            let is_proven = |address: &&str| {
                seen.iter().any(|one| {
                    let levels = [one.forwards, one.expected_source, one.full_size];
                    one.address == **address && one.reachable && !one.condemned && levels == [Some(true); 3]
                })
            };
            gateways.iter().all(is_proven)
        });
    }

    /// Breaks A, sees everything leave through B in time, mends A, and sees everything return.
    fn is_left_and_returned_to(&self, what: &str, broken: &str, mended: &str) {
        self.scene.cloud.count_leaks(LISTED);
        self.in_gateway("a", broken);
        let took = until(what, &Some(B_PUBLIC), LEFT_WITHIN, || seen_from(LISTED));
        eprintln!("{what}: new connections got through B after {took:?}");
        self.until_condemned(A);
        self.in_gateway("a", mended);
        let took = until(what, &Some(A_PUBLIC), Duration::from_secs(30), || seen_from(LISTED));
        eprintln!("{what}: back through A after {took:?}");
        assert_eq!(self.scene.cloud.leaks(), 0, "left with the node's own address");
        let said = self.scene.status().unwrap().last_failover.unwrap();
        assert_eq!((said.from.as_str(), said.to.as_str(), said.static_route.as_str()), (A, B, "pair"));
        assert!(said.seconds < LEFT_WITHIN.as_secs_f64() && !said.evidence.is_empty(), "{said:?}");
        assert!(self.agent.has_said(&said.evidence), "in the log as well: {said:?}");
    }

    fn until_condemned(&self, gateway: &str) {
        until("condemned", &true, SOON, || {
            let seen = self.scene.status().unwrap().gateways;
            seen.iter().any(|one| one.address == gateway && one.condemned && one.renewed.is_some())
        });
    }

    fn in_gateway(&self, role: &str, commands: &str) {
        sh(&format!("ip netns exec {} sh -c \"{commands}\"", self.scene.cloud.name(role)));
    }
}

/// Commands that drop what passes a link of a gateway in one direction, and that let it through again.
fn drop_all(chain: &str, direction: &str, link: &str) -> [String; 2] {
    let table = if chain == "PREROUTING" { "raw" } else { "mangle" };
    ["-A", "-D"].map(|verb| format!("iptables -t {table} {verb} {chain} {direction} {link} -j DROP"))
}

#[test]
fn one_that_does_not_forward_is_left() {
    let sysctl = |on: u8| format!("sysctl -qw net.ipv4.ip_forward={on}");
    Pair::new().is_left_and_returned_to("forwarding off", &sysctl(0), &sysctl(1));
}

#[test]
fn one_that_does_not_translate_is_left() {
    let rule =
        |verb: &str| format!("iptables -t nat {verb} POSTROUTING -s 10.116.0.0/20 -o eth0 -j MASQUERADE");
    Pair::new().is_left_and_returned_to("no translation", &rule("-D"), &rule("-A"));
}

#[test]
fn one_without_a_default_route_is_left_though_it_reaches_its_peer() {
    let added = "ip route add default via 203.0.113.1";
    Pair::new().is_left_and_returned_to("no default route", "ip route del default", added);
}

#[test]
fn one_that_loses_large_packets_is_left() {
    let rule = |verb: &str| format!("iptables {verb} FORWARD -m length --length 1401:65535 -j DROP");
    Pair::new().is_left_and_returned_to("black hole", &rule("-I"), &rule("-D"));
}

#[test]
fn one_that_leaves_with_another_address_is_left() {
    let rule = |verb: &str| {
        format!("iptables -t nat {verb} POSTROUTING -s 10.116.0.0/20 -o eth0 -j SNAT --to 203.0.113.77")
    };
    let broken = format!("ip addr add 203.0.113.77/24 dev eth0 && {}", rule("-I"));
    let mended = format!("{} && ip addr del 203.0.113.77/24 dev eth0", rule("-D"));
    Pair::new().is_left_and_returned_to("wrong source", &broken, &mended);
}

#[test]
fn one_with_one_direction_dropped_outside_is_left() {
    for (what, [broken, mended]) in [
        ("nothing comes in from outside", drop_all("PREROUTING", "-i", "eth0")),
        ("nothing goes out", drop_all("POSTROUTING", "-o", "eth0")),
    ] {
        Pair::new().is_left_and_returned_to(what, &broken, &mended);
    }
}

#[test]
fn one_with_one_direction_dropped_in_the_vpc_is_left() {
    for (what, [broken, mended]) in [
        ("nothing comes in from the VPC", drop_all("PREROUTING", "-i", "eth1")),
        ("nothing goes back into the VPC", drop_all("POSTROUTING", "-o", "eth1")),
    ] {
        Pair::new().is_left_and_returned_to(what, &broken, &mended);
    }
}

#[test]
fn what_is_no_fault_of_the_gateway_in_use_moves_nobody() {
    let pair = Pair::new();
    let switches = || metric("egress_agent_failovers_total");
    let stays = |what: &str, seen: &dyn Fn() -> bool| {
        let packets = Packets::start(&pair.scene.cloud);
        until(what, &true, SOON, seen);
        // Long enough for every level to fail, and for whoever would move.
        let before = metric("egress_agent_probes_total{level=\"reachability\",outcome=\"answered\"}");
        until("probed for three seconds more", &true, SOON, || {
            metric("egress_agent_probes_total{level=\"reachability\",outcome=\"answered\"}") >= before + 30.0
        });
        assert_eq!((seen_from(LISTED), switches()), (Some(A_PUBLIC), 0.0), "{what}");
        packets.all_arrived(&pair.scene.cloud);
    };
    let observed = |gateway: &str, level: fn(&egress_api::GatewayObservation) -> bool| {
        let seen = pair.scene.status().unwrap().gateways;
        seen.iter().any(|one| one.address == gateway && level(one))
    };

    // One target, then all of them: somebody else's trouble.
    pair.scene.cloud.in_internet("iptables -I INPUT -d 198.51.100.1 -j DROP");
    stays("one target is dead", &|| missed("forwarding") >= 3.0);
    pair.scene.cloud.in_internet("iptables -I INPUT -d 198.51.100.0/24 -j DROP");
    let before = missed("forwarding");
    stays("every target is dead", &|| missed("forwarding") >= before + 8.0);
    assert!(observed(A, |one| !one.condemned) && observed(B, |one| !one.condemned));
    pair.scene.cloud.in_internet("iptables -F INPUT");
    pair.until_proven(&[A, B]);

    // What lets them probe each other goes from the firewall of both.
    let shut = |verb: &str| {
        let rule = format!("iptables {verb} INPUT -i eth0 -p tcp --dport 9181 -j DROP");
        for role in ["a", "b"] {
            pair.in_gateway(role, &rule);
        }
    };
    shut("-I");
    let is_unseen = |gateway: &str| observed(gateway, |one| one.expected_source == Some(false));
    stays("both probe ports are shut", &|| is_unseen(A) && is_unseen(B));
    assert!(observed(A, |one| !one.condemned) && observed(B, |one| !one.condemned));
    shut("-D");
    pair.until_proven(&[A, B]);

    // The partner's public side, and then the partner.
    pair.in_gateway("b", "iptables -t raw -A PREROUTING -i eth0 -j DROP");
    stays("the partner is deaf outside", &|| observed(B, |one| one.condemned));
    assert!(observed(A, |one| !one.condemned));
    pair.scene.cloud.power_off("b");
    stays("the partner is dead", &|| observed(B, |one| !one.reachable));
    assert!(observed(A, |one| !one.condemned));
}

fn missed(level: &str) -> f64 {
    metric(&format!("egress_agent_probes_total{{level=\"{level}\",outcome=\"missed\"}}"))
}

#[test]
fn a_restarted_agent_does_not_undo_what_was_decided() {
    let pair = Pair::new();
    pair.in_gateway("a", "sysctl -qw net.ipv4.ip_forward=0");
    until("through B", &Some(B_PUBLIC), LEFT_WITHIN, || seen_from(LISTED));
    pair.until_condemned(A);
    let Pair { scene, agent } = pair;
    let packets = Packets::start(&scene.cloud);
    agent.kill();
    let agent = Agent::start(&scene);
    agent.until_says("gateway");
    until("probed at every level", &true, SOON, || missed("forwarding") >= 4.0 && missed("source") >= 4.0);
    assert_eq!(seen_from(LISTED), Some(B_PUBLIC));
    packets.all_arrived(&scene.cloud);
    drop(agent);
}

#[test]
fn a_node_that_reaches_nobody_in_the_vpc_says_that_it_is_cut_off_and_holds() {
    let pair = Pair::new();
    // A neighbour that answers, and then both gateways are silent: it is they who fail.
    ip(&format!("netns exec {} ip addr add 10.116.0.77/20 dev fabric0", pair.scene.cloud.name("vpc")));
    // The kernel gets to know it.
    let refused = TcpStream::connect_timeout(&"10.116.0.77:10250".parse().unwrap(), Duration::from_secs(2));
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    for role in ["a", "b"] {
        pair.in_gateway(role, "iptables -t raw -A PREROUTING -i eth1 -j DROP");
    }
    let told = |address: &str| {
        let status = pair.scene.status().unwrap();
        let one = status.gateways.iter().find(|one| one.address == address).unwrap().clone();
        (one.reachable, status.cut_off)
    };
    until("both are silent", &[(false, false); 2], SOON, || [A, B].map(told));
    until("tested", &true, SOON, || metric("egress_agent_self_tests_total{outcome=\"connected\"}") >= 2.0);
    assert_eq!([A, B].map(told), [(false, false); 2]);
    // Now the neighbour is silent as well.
    ip(&format!("netns exec {} ip addr del 10.116.0.77/20 dev fabric0", pair.scene.cloud.name("vpc")));
    until("cut off", &[(false, true); 2], SOON, || [A, B].map(told));
    assert!(metric("egress_agent_failovers_total") < 0.5, "it holds");
    // One gateway is back.
    pair.in_gateway("a", "iptables -t raw -F");
    until("connected", &(true, false), SOON, || told(A));
    until("through A", &Some(A_PUBLIC), SOON, || seen_from(LISTED));
    assert_ne!(seen_from(LISTED), Some(NODE_PUBLIC));
}
