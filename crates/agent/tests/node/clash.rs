//! Other programs on the node: what they have in the way is named and never touched.

use std::process::{Child, Command};

use egress_api::{NodeRoute, NodeRouteState};
use serde_json::json;
use tempfile::NamedTempFile;

use crate::cloud::{A, A_PUBLIC, B, B_PUBLIC, NODE_PUBLIC, ip, ours, seen_from, sh, until};
use crate::packets::Packets;
use crate::scene::{Agent, LISTED, Monitor, SOON, Scene, settled, until_ready};

fn clash(scene: &Scene) -> (String, String) {
    scene.condition("Clash").map(|(status, reason, _)| (status, reason)).unwrap_or_default()
}

fn pair(status: &str, reason: &str) -> (String, String) {
    (status.to_owned(), reason.to_owned())
}

fn entry(scene: &Scene, name: &str) -> NodeRoute {
    scene.status().unwrap().routes.into_iter().find(|route| route.name == name).unwrap()
}

#[test]
fn what_others_have_at_our_places_is_named_and_left_and_the_rest_is_applied() {
    let scene = Scene::new();
    for made in [
        "route add 192.0.2.80 via 203.0.113.1 table 1157 proto static",
        "route add default via 203.0.113.1 table 1160 proto boot",
        "nexthop add id 241100001 via 10.116.0.5 dev eth1",
        "rule add pref 995 from 10.99.0.0/16 lookup 77",
    ] {
        ip(made);
    }
    let theirs = || {
        sh(
            "ip -4 route show table 1157 proto static; ip -4 route show table 1160 proto boot; ip nexthop show id 241100001; \
            ip -4 rule show pref 995",
        )
    };
    let before = theirs();
    let _agent = Agent::start(&scene);
    let gateways = json!([{"address": A}, {"address": B}]);
    scene.route("demo", &json!({"destinations": ["192.0.2.80", "192.0.2.81"], "gateways": gateways}));
    until("the rest is applied", &Some((NodeRouteState::Partial, 1)), SOON, || scene.state_of("demo"));
    let failure = entry(&scene, "demo").failures.remove(0);
    assert_eq!((failure.destination.as_str(), failure.reason.as_str()), ("192.0.2.80", "ForeignRoute"));
    assert!(
        failure.message.contains("protocol 4, static") && failure.message.contains("table 1157"),
        "{failure:?}"
    );
    assert_eq!(seen_from("192.0.2.81".parse().unwrap()), Some(A_PUBLIC));
    let (status, reason, message) = scene.condition("Clash").unwrap();
    assert_eq!((status.as_str(), reason.as_str()), ("True", "ForeignRule"));
    for named in
        ["priority 995", "192.0.2.80/32", "table 1160", "nexthop object 241100001", "--rule-priorities"]
    {
        assert!(message.contains(named), "{named} in: {message}");
    }
    // Slots 0 and 1 are not ours to use; the gateways are probed through others.
    assert!(sh("ip -4 route show table 1162 proto 157").contains("via 10.116.0.5"));
    assert_eq!(theirs(), before);

    for gone in [
        "route del 192.0.2.80 table 1157 proto static",
        "route del default table 1160 proto boot",
        "nexthop del id 241100001",
        "rule del pref 995 from 10.99.0.0/16",
    ] {
        ip(gone);
    }
    scene.until_applied("demo", 2);
    until("over", &pair("False", "Resolved"), SOON, || clash(&scene));
    assert_eq!(seen_from(LISTED), Some(A_PUBLIC));

    // Ahead of ours, where every packet takes it.
    ip("rule add pref 5 lookup main");
    until("named", &pair("True", "RuleAhead"), SOON, || clash(&scene));
    assert_eq!(seen_from(LISTED), Some(NODE_PUBLIC), "it is left alone");
    ip("rule del pref 5");
    until("over", &pair("False", "Resolved"), SOON, || clash(&scene));
    assert_eq!(seen_from(LISTED), Some(A_PUBLIC));
}

#[test]
fn whoever_has_the_destination_in_the_main_table_is_named_and_ours_is_there_when_it_goes() {
    let scene = Scene::new();
    // As the older operator writes: main table, static, through the gateway alone.
    ip("route add 192.0.2.80/32 via 10.116.0.12 proto static");
    let theirs = ip("route show 192.0.2.80/32");
    let _agent = Agent::start(&scene);
    scene.route("demo", &json!({"destinations": ["192.0.2.80"], "gateways": [{"address": A}]}));
    until("shadowed", &Some((NodeRouteState::NotApplied, 0)), SOON, || scene.state_of("demo"));
    until("named", &pair("True", "OlderOperator"), SOON, || clash(&scene));
    let failure = entry(&scene, "demo").failures.remove(0);
    assert_eq!(failure.reason, "Shadowed");
    assert_eq!(
        failure.message,
        "the node's main table has a route to 192.0.2.80/32, which wins (table main, protocol 4, static, via 10.116.0.12: the \
         older StaticRoute operator, it seems)"
    );
    until_ready();
    assert_eq!(ip("route show 192.0.2.80/32"), theirs);
    assert_eq!(seen_from(LISTED), Some(B_PUBLIC), "theirs is in use");

    // One that drops answers too.
    ip("route add blackhole 192.0.2.81/32");
    scene.route("dropped", &json!({"destinations": ["192.0.2.81"], "gateways": [{"address": A}]}));
    until("shadowed", &Some((NodeRouteState::NotApplied, 0)), SOON, || scene.state_of("dropped"));
    until("named", &true, SOON, || scene.condition("Clash").unwrap().2.contains("192.0.2.81/32"));
    ip("route del blackhole 192.0.2.81/32");

    // When theirs goes ours is there already.
    let packets = Packets::start(&scene.cloud);
    ip("route del 192.0.2.80/32 via 10.116.0.12 proto static");
    assert_eq!(seen_from(LISTED), Some(A_PUBLIC));
    scene.until_applied("demo", 1);
    packets.all_arrived(&scene.cloud);
    until("over", &pair("False", "Resolved"), SOON, || clash(&scene));
}

#[test]
fn a_program_that_still_runs_for_the_same_destinations_is_named_and_not_fought() {
    let scene = Scene::new();
    let _agent = Agent::start(&scene);
    let gateways = json!([{"address": A}, {"address": B}]);
    scene.route("demo", &json!({"destinations": ["192.0.2.80", "192.0.2.81"], "gateways": gateways}));
    scene.until_applied("demo", 2);
    until_ready();
    // The older operator, and the managed routing agent with several gateways: neither lets go.
    for (author, set_up, put, take_away) in [
        ("OlderOperator", "true", "route replace 192.0.2.80 via 10.116.0.12 proto static", "true"),
        (
            "RoutingAgent",
            "ip route add default via 203.0.113.1 table 135 && ip rule add pref 15135 from 203.0.113.11 lookup 135",
            "route replace 192.0.2.80 nexthop via 10.116.0.12 nexthop via 10.116.0.12",
            "ip rule del pref 15135 && ip route flush table 135",
        ),
    ] {
        sh(set_up);
        let stubborn = Stubborn::start(put);
        until("named", &pair("True", author), SOON, || clash(&scene));
        until("the rest is applied", &Some((NodeRouteState::Partial, 1)), SOON, || scene.state_of("demo"));
        assert_eq!(entry(&scene, "demo").failures[0].reason, "Shadowed");
        let said = || scene.report().unwrap().metadata.resource_version;
        let (ours_before, said_before) = (settled(), said());
        let monitor = Monitor::start(&["route", "rule", "nexthop"]);
        stubborn.rounds(20);
        let of_ours: Vec<_> = monitor
            .stop()
            .into_iter()
            .filter(|line| line.contains("157") || line.contains("id 241"))
            .collect();
        assert_eq!(of_ours, Vec::<String>::new(), "somebody fights");
        assert_eq!((ours(), said()), (ours_before, said_before), "and says nothing new");
        assert_eq!(seen_from(LISTED), Some(B_PUBLIC), "theirs is in use");
        assert_eq!(seen_from("192.0.2.81".parse().unwrap()), Some(A_PUBLIC));

        // It ends, and what it put there goes: ours is there already.
        drop(stubborn);
        sh(take_away);
        let packets = Packets::start(&scene.cloud);
        ip("route del 192.0.2.80");
        scene.until_applied("demo", 2);
        packets.all_arrived(&scene.cloud);
        until("over", &pair("False", "Resolved"), SOON, || clash(&scene));
        assert_eq!(seen_from(LISTED), Some(A_PUBLIC));
    }
    assert_eq!(scene.condition("Contested"), None);
}

/// A program that puts its route back all the time.
struct Stubborn {
    child: Child,
    rounds: NamedTempFile,
}

impl Stubborn {
    fn start(put: &str) -> Self {
        let rounds = NamedTempFile::new().unwrap();
        let script = format!("while ip {put}; do echo; sleep 0.05; done");
        let child =
            Command::new("sh").args(["-c", &script]).stdout(rounds.reopen().unwrap()).spawn().unwrap();
        Self { child, rounds }
    }

    /// Waits until it has put its route there so many times more.
    fn rounds(&self, more: u64) {
        let done = || self.rounds.as_file().metadata().unwrap().len();
        let last = done() + more;
        until("its route is put there", &true, SOON, || done() >= last);
    }
}

impl Drop for Stubborn {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
fn of_objects_for_one_destination_the_next_takes_over_when_others_go_together() {
    let scene = Scene::new();
    let _agent = Agent::start(&scene);
    // Of one second, the name decides: these are in its order.
    for (name, gateway) in [("first", A), ("second", B), ("third", A)] {
        scene.route(name, &json!({"destinations": ["192.0.2.80"], "gateway": gateway}));
    }
    let conflict = |name: &str| {
        let failure = entry(&scene, name).failures.into_iter().next();
        failure.map(|failure| (failure.reason, failure.message)).unwrap_or_default()
    };
    scene.until_applied("first", 1);
    for name in ["second", "third"] {
        until(name, &Some((NodeRouteState::NotApplied, 0)), SOON, || scene.state_of(name));
        let (reason, message) = conflict(name);
        assert_eq!(reason, "Conflict");
        assert!(message.starts_with("StaticRoute first is older and has the same destination"), "{message}");
    }
    assert_eq!(seen_from(LISTED), Some(A_PUBLIC));

    // The winner and the next in one request; and then the last two of all.
    let packets = Packets::start(&scene.cloud);
    scene.kubectl(&["delete", "staticroute", "first", "--wait=false"]);
    until("second", &Some((NodeRouteState::Applied, 1)), SOON, || scene.state_of("second"));
    assert_eq!(seen_from(LISTED), Some(B_PUBLIC));
    assert!(conflict("third").1.starts_with("StaticRoute second is older"));
    scene.route("younger", &json!({"destinations": ["192.0.2.80"], "gateway": B}));
    until("younger", &Some((NodeRouteState::NotApplied, 0)), SOON, || scene.state_of("younger"));
    scene.kubectl(&["delete", "staticroute", "second", "third", "--wait=false"]);
    until("younger", &Some((NodeRouteState::Applied, 1)), SOON, || scene.state_of("younger"));
    packets.all_arrived(&scene.cloud);

    scene.route("youngest", &json!({"destinations": ["192.0.2.80"], "gateway": A}));
    until("youngest", &Some((NodeRouteState::NotApplied, 0)), SOON, || scene.state_of("youngest"));
    scene.kubectl(&["delete", "staticroute", "younger", "youngest", "--wait=false"]);
    until("nothing of ours is left", &String::new(), SOON, ours);
    assert_eq!(seen_from(LISTED), Some(NODE_PUBLIC));
}
