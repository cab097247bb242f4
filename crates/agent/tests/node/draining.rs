//! Planned moves: a node goes back to the head of its list, and connections through the gateway that it leaves live on.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cloud::{A, A_PUBLIC, B, B_PUBLIC, NODE_PUBLIC, ip, ours, seen_from, until};
use crate::ecmp::{Flows, PORT, serve};
use crate::packets::Packets;
use crate::pod::{Pod, inside};
use crate::scene::{Agent, LISTED, Monitor, SOON, Scene, settled, until_ready};

fn spec(gateways: [&str; 2], seconds: u32) -> Value {
    let gateways = gateways.map(|address| json!({"address": address}));
    json!({"destinations": ["0.0.0.0/0"], "gateways": gateways, "drainSeconds": seconds})
}

/// The gateway that the node says new connections use, and the one that old ones still do.
fn told(scene: &Scene) -> (Option<String>, Option<String>) {
    scene.route_report("all").map(|report| (report.gateway, report.draining)).unwrap_or_default()
}

fn said(gateway: &str, draining: Option<&str>) -> (Option<String>, Option<String>) {
    (Some(gateway.to_owned()), draining.map(str::to_owned))
}

/// What the agent says when the end comes before the deadline.
const IDLE: &str = "nothing used the gateway that was left";

/// An address that nobody has connected to.
fn fresh(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 18, 9, number)
}

/// Uses all connections while `over` is not yet; none may break or change its address.
fn use_until(flows: &mut Flows, deadline: Duration, mut over: impl FnMut() -> bool) {
    until("goes on", &true, deadline, || {
        assert_eq!(flows.broken(), [] as [Ipv4Addr; 0], "a planned move broke connections");
        over()
    });
}

#[test]
fn a_planned_move_keeps_every_connection_that_is_used_and_no_packet_is_lost_or_leaks() {
    let scene = Scene::new();
    serve(&scene.cloud);
    let agent = Agent::start(&scene);
    scene.route("all", &spec([A, B], 300));
    scene.until_applied("all", 1);
    until("through A", &said(A, None), SOON, || told(&scene));
    until_ready();
    let mut flows = Flows::open(60);
    assert_eq!(flows.through(A_PUBLIC), 60);
    let packets = Packets::start(&scene.cloud);

    // The other order: both work.
    scene.route("all", &spec([B, A], 300));
    use_until(&mut flows, SOON, || told(&scene) == said(B, Some(A)));
    let through_b = (0..32).filter(|number| seen_from(fresh(*number)) == Some(B_PUBLIC)).count();
    assert!(through_b >= 26, "of 32 new pairs {through_b} go through the new head of the list");
    use_until(&mut flows, Duration::from_secs(2), || true);

    // An agent that starts in the middle goes on, and writes nothing.
    let before = settled();
    agent.kill();
    let monitor = Monitor::start(&["route", "rule", "nexthop"]);
    let agent = Agent::start(&scene);
    until_ready();
    assert_eq!((settled(), monitor.stop()), (before, Vec::new()), "a restart wrote to the kernel");
    assert_eq!(flows.broken(), [] as [Ipv4Addr; 0]);
    assert_eq!(told(&scene), said(B, Some(A)));

    // Ended by hand: what still uses A is reset, and nothing is left of the drain.
    scene.route("all", &spec([B, A], 0));
    until("over", &said(B, None), SOON, || told(&scene));
    until("plain", &false, SOON, || ip("nexthop show proto 157").contains("resilient"));
    packets.all_arrived(&scene.cloud);
    let broken = flows.broken();
    assert!(broken.len() == 60 && broken.iter().all(|seen| *seen == A_PUBLIC), "{broken:?}");
    assert_eq!(seen_from(LISTED), Some(B_PUBLIC));
    drop(agent);
}

#[test]
fn a_gateway_that_dies_in_a_planned_move_is_left_at_once_and_0_seconds_move_at_once() {
    let scene = Scene::new();
    let agent = Agent::start(&scene);
    scene.route("all", &spec([A, B], 300));
    scene.until_applied("all", 1);
    until("through A", &said(A, None), SOON, || told(&scene));
    until_ready();
    scene.cloud.count_leaks(LISTED);
    scene.route("all", &spec([B, A], 300));
    until("draining", &said(B, Some(A)), SOON, || told(&scene));
    // An agent that never saw the API server in the middle of it; the one that is left dies, then the other one too.
    scene.cut_off_api_server();
    agent.kill();
    let agent = Agent::start(&scene);
    agent.until_says("keeping what the kernel holds");
    scene.cloud.power_off("a");
    until("all through B", &true, Duration::from_secs(5), || {
        (0..24).all(|number| seen_from(fresh(number)) == Some(B_PUBLIC))
    });
    scene.cloud.start_gateway("a", "203.0.113.5", A);
    std::thread::sleep(Duration::from_secs(1));
    scene.cloud.power_off("b");
    until("all through A", &true, Duration::from_secs(5), || {
        (0..24).all(|number| seen_from(fresh(number)) == Some(A_PUBLIC))
    });
    scene.reconnect_api_server();
    until_ready();
    until("through A", &said(A, None), SOON, || told(&scene));

    // The deadline, also for who sends all the time; and at once, where nobody waits.
    scene.cloud.start_gateway("b", "203.0.113.6", B);
    scene.route("all", &spec([B, A], 8));
    until("draining", &said(B, Some(A)), SOON, || told(&scene));
    until("over", &said(B, None), SOON, || told(&scene));
    until("plain", &(false, Some(B_PUBLIC)), SOON, || (ours().contains("resilient"), seen_from(LISTED)));
    scene.route("all", &spec([A, B], 0));
    until("through A", &Some(A_PUBLIC), SOON, || seen_from(LISTED));
    assert!(!ours().contains("resilient"));
    assert_eq!(scene.cloud.leaks(), 0);
    drop(agent);
}

#[test]
fn a_planned_move_that_is_turned_round_before_anything_moves_is_over_and_breaks_nothing() {
    let scene = Scene::new();
    serve(&scene.cloud);
    let agent = Agent::start(&scene);
    scene.route("all", &spec([A, B], 300));
    scene.until_applied("all", 1);
    until("through A", &said(A, None), SOON, || told(&scene));
    until_ready();
    let mut through_a = Flows::open(20);
    scene.route("all", &spec([B, A], 300));
    use_until(&mut through_a, SOON, || ours().contains("resilient"));
    assert_eq!(told(&scene).1, None, "nothing moves before it was watched who sends");
    scene.route("all", &spec([A, B], 300));
    use_until(&mut through_a, SOON, || !ours().contains("resilient"));
    assert_eq!((through_a.broken().len(), told(&scene)), (0, said(A, None)));
    assert_eq!(seen_from(LISTED), Some(A_PUBLIC));
    drop(agent);
}

#[test]
fn a_planned_move_that_is_turned_round_leaves_the_other_gateway_its_whole_time_and_breaks_nothing() {
    let scene = Scene::new();
    serve(&scene.cloud);
    let agent = Agent::start(&scene);
    scene.route("all", &spec([A, B], 16));
    scene.until_applied("all", 1);
    until("through A", &said(A, None), SOON, || told(&scene));
    until_ready();
    let mut through_a = Flows::open(20);
    assert_eq!(through_a.through(A_PUBLIC), 20);
    scene.route("all", &spec([B, A], 16));
    let begun = Instant::now();
    use_until(&mut through_a, SOON, || ours().contains(",255"));
    // To the same addresses they go through A, as the others do.
    let mut meanwhile = Flows::open(60);
    assert!(meanwhile.through(B_PUBLIC) >= 10, "{}", meanwhile.through(B_PUBLIC));
    let both_until = |flows: [&mut Flows; 2], over: &mut dyn FnMut() -> bool| {
        until("goes on", &true, SOON, || {
            for broken in [flows[0].broken(), flows[1].broken()] {
                assert_eq!(broken, [] as [Ipv4Addr; 0], "turned round, it broke connections");
            }
            over()
        });
    };
    both_until([&mut through_a, &mut meanwhile], &mut || begun.elapsed() > Duration::from_secs(11));

    scene.route("all", &spec([A, B], 16));
    let turned = Instant::now();
    both_until([&mut through_a, &mut meanwhile], &mut || told(&scene) == said(A, Some(B)));
    both_until([&mut through_a, &mut meanwhile], &mut || turned.elapsed() > Duration::from_secs(14));
    // Those through B, at its deadline.
    until("the deadline", &Some(B_PUBLIC), SOON, || meanwhile.broken().first().copied());
    eprintln!("over {:?} after it was turned round", turned.elapsed());
    until("over", &said(A, None), SOON, || told(&scene));
    assert_eq!(through_a.broken(), [] as [Ipv4Addr; 0]);
    drop(agent);
}

/// Connections that a pod begins all the time, each to an address of its own, and how each ended.
struct Begun {
    over: Arc<AtomicBool>,
    pod: JoinHandle<(usize, Vec<std::io::Error>)>,
}

impl Begun {
    fn start(pod: &Pod) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&over);
        let pod = inside(Some(&pod.namespace), move || {
            let (mut whole, mut lost) = (0, Vec::new());
            for number in (0..=u16::MAX).cycle() {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let [high, low] = number.to_be_bytes();
                match ask_once(Ipv4Addr::new(198, 19, high, low)) {
                    Ok(()) => whole += 1,
                    Err(error) => lost.push(error),
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            (whole, lost)
        });
        Self { over, pod }
    }

    /// How many came to a good end, all of them.
    fn end(self) -> usize {
        self.over.store(true, Ordering::Relaxed);
        let (whole, lost) = self.pod.join().unwrap();
        assert!(lost.is_empty(), "of {whole} connections of a pod were lost: {lost:?}");
        whole
    }
}

/// A whole connection: a byte, its answer, the end.
fn ask_once(to: Ipv4Addr) -> std::io::Result<()> {
    let patience = Duration::from_secs(10);
    let mut stream = TcpStream::connect_timeout(&(to, PORT).into(), patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(b"?")?;
    stream.read_exact(&mut [0; 4])
}

/// Both kinds of connection: what is forwarded is looked up packet by packet, a socket of the node only when it is made to.
#[test]
fn a_planned_move_lasts_to_its_deadline_for_who_sends_all_the_time() {
    for from_pod in [false, true] {
        let scene = Scene::new();
        serve(&scene.cloud);
        let pod = from_pod.then(|| Pod::new(&scene.cloud, 7));
        if let Some(pod) = &pod {
            pod.translate(NODE_PUBLIC);
        }
        let agent = Agent::start(&scene);
        scene.route("all", &spec([A, B], 16));
        scene.until_applied("all", 1);
        until("through A", &said(A, None), SOON, || told(&scene));
        until_ready();
        let mut flows =
            pod.as_ref().map_or_else(|| Flows::open(20), |pod| Flows::open_in(&pod.namespace, 20));
        assert_eq!(flows.through(A_PUBLIC), 20);
        scene.route("all", &spec([B, A], 16));
        // New connections go to B with a weight of 255.
        use_until(&mut flows, SOON, || ours().contains(",255"));
        let moving = Instant::now();
        until("the deadline", &true, SOON, || !flows.broken().is_empty());
        // After 4 s of watching.
        let lasted = moving.elapsed();
        eprintln!("from a pod: {from_pod}: over {lasted:?} after the move");
        assert!(lasted >= Duration::from_secs(9), "it ended after {lasted:?} under the hands of who used it");
        until("over", &said(B, None), SOON, || told(&scene));
        assert!(!agent.has_said(IDLE));
        drop((agent, pod));
    }
}

/// Of connections that come to their end within the move none is lost.
#[test]
fn a_planned_move_is_over_when_nothing_uses_the_old_gateway_and_no_connection_of_a_pod_is_lost() {
    let scene = Scene::new();
    serve(&scene.cloud);
    let pod = Pod::new(&scene.cloud, 7);
    pod.translate(NODE_PUBLIC);
    let agent = Agent::start(&scene);
    scene.route("all", &spec([A, B], 48));
    scene.until_applied("all", 1);
    until("through A", &said(A, None), SOON, || told(&scene));
    until_ready();
    let mut flows = Flows::open_in(&pod.namespace, 60);
    assert_eq!(flows.through(A_PUBLIC), 60);
    let others = Begun::start(&pod);
    scene.route("all", &spec([B, A], 48));
    use_until(&mut flows, SOON, || told(&scene) == said(B, Some(A)));
    let moved = Instant::now();
    use_until(&mut flows, SOON, || moved.elapsed() > Duration::from_secs(3));
    let whole = others.end();
    drop(flows);
    let closed = Instant::now();
    until("over", &said(B, None), SOON, || told(&scene));
    eprintln!(
        "60 connections of a pod kept, {whole} begun meanwhile, none lost; over {:?} after the last byte",
        closed.elapsed()
    );
    assert!(agent.has_said(IDLE), "it took its whole time");
    until("plain", &false, SOON, || ours().contains("resilient"));
    assert_eq!([seen_from(LISTED), pod.seen_from(LISTED)], [Some(B_PUBLIC); 2]);
    drop((agent, pod));
}
