//! Wherever an agent is killed or held up, the next one, or the same one afterwards, finds its way; and a node that reboots gets
//! its routes again (I6, I7).
//!
//! Seeds pick the moment: each case kills the agent after another message of every operation, and holds it up for another time.
//! `make test` takes one case, `make test-exhaustive SUITE=agent-killed` all.

use std::collections::BTreeSet;
use std::fs::File;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::cloud::{A, A_PUBLIC, B, NODE_PUBLIC, ip, ours, seen_from, sh, until};
use crate::far::{FIRST, Far, SECOND, goes_through_a};
use crate::scene::{Agent, LISTED, Monitor, SOON, until_ready};
use crate::tracer::{Fate, Steps};

/// Destination of the object that is there all the time.
const STEADY: Ipv4Addr = LISTED;
/// One of an object that comes, changes and goes.
const KEPT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 90);

const FEW: [&str; 3] = ["192.0.2.90", "192.0.2.91", "192.0.2.96/28"];
const MANY: [&str; 5] = ["192.0.2.90", "192.0.2.91", "192.0.2.92", "192.0.2.96/28", "198.18.0.0/15"];

/// No operation has more messages.
const MOST: u32 = 14;

/// Numbers of this run's cases, from 0: as many as `PROPTEST_CASES` says, beginning where `PROPTEST_RNG_SEED` says.
fn cases() -> std::ops::Range<u32> {
    let from = |name| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(1_u32);
    let count = from("PROPTEST_CASES");
    let first = (from("PROPTEST_RNG_SEED") - 1) * count;
    first..first + count
}

pub fn pair() -> Value {
    json!([{"address": A}, {"address": B}])
}

/// Destinations of an object, and the gateway they go through.
pub type Expected<'a> = (&'a [&'a str], &'a str);

/// The object that is there all the time.
pub const THERE_ALL_THE_TIME: Expected<'_> = (&["192.0.2.80"], A);

/// All of our table: destinations with their gateway, guards and exceptions.
fn table() -> BTreeSet<String> {
    // There is no table before its first route.
    let shown = sh("ip -4 route show table 1157 2>/dev/null || true");
    let short = |line: &str| {
        let (way, _) = line.split_once(" proto").unwrap_or((line, ""));
        match way.split_once(" nhid ") {
            Some((destination, rest)) => {
                let via = rest.split_once(" via ").map_or("?", |(_, via)| via.split(' ').next().unwrap());
                format!("{destination} {via}")
            }
            None => way.trim().to_owned(),
        }
    };
    shown.lines().map(short).collect()
}

/// What it should be: each destination with its gateway and its guard, and nothing else.
fn expected(objects: &[Expected<'_>]) -> BTreeSet<String> {
    let all = objects.iter().flat_map(|(destinations, gateway)| {
        destinations.iter().flat_map(move |one| [format!("{one} {gateway}"), format!("blackhole {one}")])
    });
    all.collect()
}

pub fn until_holds(what: &str, objects: &[Expected<'_>]) {
    until(what, &expected(objects), SOON, table);
}

/// Packets of the node to two destinations, all the time.
struct Traffic {
    over: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
}

impl Traffic {
    fn start() -> Self {
        let traffic = Self { over: Arc::default(), sent: Arc::default() };
        let (over, sent) = (Arc::clone(&traffic.over), Arc::clone(&traffic.sent));
        // A thread lives in the network namespace of the one that starts it: on the node.
        std::thread::spawn(move || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            while !over.load(Ordering::Relaxed) {
                for target in [STEADY, KEPT] {
                    // Refused while a guard answers: that is what is wanted.
                    let is_sent = socket.send_to(b"x", (target, 9999)).is_ok();
                    sent.fetch_add(u64::from(is_sent), Ordering::Relaxed);
                }
                std::thread::sleep(Duration::from_micros(500));
            }
        });
        traffic
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

/// A node whose agent is killed after `most` messages of each operation, or at the end of it where it has no more.
struct Killing<'a> {
    far: &'a Far,
    agent: Option<Agent>,
    most: u32,
}

impl Killing<'_> {
    /// `begin` begins the operation, `is_over` tells when the agent has nothing more to write. The next agent must bring it to
    /// its end, which `until_right` waits for, and the one after that must have nothing to write.
    fn during(
        &mut self,
        what: &str,
        begin: impl FnOnce(),
        is_over: impl Fn(&Agent) -> bool,
        until_right: impl FnOnce(),
    ) {
        let mut agent = self.agent.take().unwrap();
        // In one case after a different number in each operation; over all cases after every number in each.
        self.most = (self.most + 11) % (MOST + 1);
        let steps = Steps::watch(agent.id(), self.most, Fate::Killed);
        begin();
        let mut over_since = None;
        until(what, &true, SOON, || {
            let since = is_over(&agent).then(|| *over_since.get_or_insert_with(Instant::now));
            agent.has_ended() || since.is_some_and(|since| since.elapsed() > Duration::from_millis(300))
        });
        let is_whole = !agent.has_ended();
        agent.kill();
        let taken = steps.taken();
        eprintln!("{what}: killed after {taken} messages{}", if is_whole { ", which are all" } else { "" });
        assert!(taken == self.most || is_whole, "{what}: {taken} of {}", self.most);
        assert!(self.most < MOST || is_whole, "{what} has more than {MOST} messages");

        let (next, started) = (self.far.start_agent(), Instant::now());
        until_right();
        eprintln!("{what}: right {:?} after the start of the next agent", started.elapsed());
        until_ready();
        next.kill();
        let (before, monitor) = (ours(), Monitor::start(&["route", "rule", "nexthop"]));
        let last = self.far.start_agent();
        until_ready();
        last.until_says("confirmed");
        assert_eq!(ours(), before, "{what}");
        assert_eq!(monitor.stop(), Vec::<String>::new(), "{what}: a further restart wrote to the kernel");
        self.agent = Some(last);
    }

    /// An operation that ends with exactly these objects in the kernel.
    fn until_holds(&mut self, what: &str, objects: &[Expected<'_>], begin: impl FnOnce()) {
        let right = expected(objects);
        self.during(what, begin, |_| table() == right, || until_holds(what, objects));
    }
}

#[test]
fn an_agent_killed_after_any_message_to_the_kernel_leaves_nothing_that_leaks_or_stays() {
    let far = Far::behind_a_name();
    let (scene, cloud) = (&far.scene, &far.scene.cloud);
    far.let_nobody_in_through(A_PUBLIC);
    let put = |name: &str, destinations: &[&str], gateways: (&str, Value)| {
        let mut spec = json!({"destinations": destinations});
        spec[gateways.0] = gateways.1;
        scene.route(name, &spec);
    };
    let (steady, few, many) = (THERE_ALL_THE_TIME, &FEW[..], &MANY[..]);
    let mut node = Killing { far: &far, agent: Some(far.start_agent()), most: 0 };
    until_ready();
    for case in cases() {
        node.most = case;
        node.until_holds("first apply", &[steady], || put("steady", steady.0, ("gateways", pair())));
        let traffic = Traffic::start();
        cloud.count_leaks(STEADY);
        node.until_holds("add", &[steady, (few, A)], || put("other", few, ("gateways", pair())));
        cloud.count_leaks(KEPT);
        node.until_holds("grow", &[steady, (many, A)], || put("other", many, ("gateways", pair())));
        node.until_holds("gateway change", &[steady, (many, B)], || {
            put("other", many, ("gateway", json!(B)));
        });
        node.until_holds("shrink", &[steady, (few, B)], || put("other", few, ("gateway", json!(B))));
        assert_eq!(cloud.leaks(), 0, "of what stayed routed");
        cloud.stop_counting();
        cloud.count_leaks(STEADY);
        node.until_holds("delete", &[steady], || scene.delete_route("other"));

        // A change that cuts the API server off, and its being taken back. The name gets an address that the running agent has
        // not asked for yet; the next one asks when it starts, and keeps that address out of the range.
        far.move_api_server(SECOND);
        node.during(
            "commit-confirm",
            || put("cutting", &["198.51.100.0/24"], ("gateway", json!(A))),
            |agent| agent.has_said("rolled back") && table() == expected(&[steady]),
            || {
                until("around", &(true, false), SOON, || {
                    (goes_through_a("198.51.100.99"), goes_through_a(SECOND))
                });
            },
        );
        scene.delete_route("cutting");
        until_holds("commit-confirm", &[steady]);
        far.move_api_server(FIRST);

        assert_eq!(seen_from(STEADY), Some(A_PUBLIC));
        let sent = traffic.sent.load(Ordering::Relaxed);
        assert!(sent > 1000, "only {sent} packets were sent");
        assert_eq!(cloud.leaks(), 0, "of {sent} packets");
        cloud.stop_counting();
        drop(traffic);
        scene.delete_route("steady");
        until("nothing of ours is left", &String::new(), SOON, ours);
    }
}

#[test]
fn an_agent_held_up_before_or_in_the_middle_of_an_operation_goes_on_as_if_nothing_had_been() {
    let far = Far::behind_a_name();
    let (scene, cloud) = (&far.scene, &far.scene.cloud);
    let agent = far.start_agent();
    let steady = THERE_ALL_THE_TIME;
    scene.route("steady", &json!({"destinations": steady.0, "gateways": pair()}));
    until_holds("applied", &[steady]);
    until_ready();
    let _traffic = Traffic::start();
    cloud.count_leaks(STEADY);
    for case in cases() {
        // Over sixty cases every second of a minute.
        let held_up = Duration::from_secs(u64::from(1 + case * 7 % 60));
        let stopped_during = |what: &str, begin: &dyn Fn(), objects: &[Expected<'_>]| {
            // After no message: before the operation; else after the datagram with that message.
            let steps = (case % 3 < 2).then(|| Steps::watch(agent.id(), 1 + case % 3, Fate::Stopped));
            if steps.is_none() {
                agent.signal(Signal::SIGSTOP);
            }
            begin();
            until(what, &true, SOON, || agent.is_stopped());
            std::thread::sleep(held_up);
            assert_eq!(seen_from(STEADY), Some(A_PUBLIC), "{what}");
            agent.signal(Signal::SIGCONT);
            let took = until(what, &expected(objects), SOON, table);
            let taken = steps.map_or(0, Steps::taken);
            eprintln!("{what}: held up for {held_up:?} after {taken} messages, right {took:?} after that");
        };
        let put = |destinations: &[&str]| {
            scene.route("other", &json!({"destinations": destinations, "gateways": pair()}));
        };
        stopped_during("create", &|| put(&FEW), &[steady, (&FEW, A)]);
        stopped_during("update", &|| put(&MANY), &[steady, (&MANY, A)]);
        stopped_during("delete", &|| scene.delete_route("other"), &[steady]);
    }
    assert_eq!(cloud.leaks(), 0);
}

#[test]
fn a_node_that_reboots_gets_its_routes_again() {
    let far = Far::behind_a_name();
    let scene = &far.scene;
    let agent = far.start_agent();
    let steady = THERE_ALL_THE_TIME;
    scene.route("steady", &json!({"destinations": steady.0, "gateways": pair()}));
    until_holds("applied", &[steady]);

    // Its network stack is another one, with nothing of ours in it. The API server of this test stays where it was.
    agent.kill();
    let home = File::open("/proc/thread-self/ns/net").unwrap();
    ip("link del eth0");
    ip("link del eth1");
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    scene.cloud.boot_node();
    assert_eq!((ours(), seen_from(STEADY)), (String::new(), Some(NODE_PUBLIC)));
    let agent = far.start_agent();
    until_holds("after the reboot", &[steady]);
    until("through A", &Some(A_PUBLIC), SOON, || seen_from(STEADY));
    drop(agent);
    setns(home, CloneFlags::CLONE_NEWNET).unwrap();
}
