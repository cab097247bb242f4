//! Every event is lost: the full comparison alone puts everything right.
//!
//! The loop itself, with nothing played: its monitor listens in an empty network namespace, where it hears nothing of the node,
//! while its command socket is on the node.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use egress_agent::api_server::ApiServer;
use egress_agent::definition::Definitions;
use egress_agent::metrics::{AgentMetrics, PREFIX};
use egress_agent::reconcile::{Connections, Reconciler};
use egress_agent::report::Report;
use egress_agent::surroundings::{Names, Surroundings, look_around};
use egress_agent::watches::Watches;
use egress_api::NodeRouteState;
use egress_netlink::Commands;
use egress_routing::Layout;
use egress_runtime::admin::{Liveness, Readiness};
use egress_runtime::metrics::Metrics;
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use nix::sched::{CloneFlags, unshare};
use serde_json::json;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cloud::{A, A_PUBLIC, ip, ours, seen_from, sh, until};
use crate::drift::builtin_rules;
use crate::scene::{LISTED, SOON, Scene, settled};

/// Of the thirty seconds, which [`egress_agent::reconcile`] asserts, these are not waited for: the loop's clock is moved on.
const SKIPPED: Duration = Duration::from_secs(27);
/// What is left, and five seconds for a busy machine.
const REST: Duration = Duration::from_secs(3 + 5);

#[test]
fn with_every_event_lost_all_is_put_right_within_thirty_seconds() {
    let scene = Scene::new();
    let agent = DeafAgent::start(&scene);
    // A bare gateway is not probed: probes would start in the empty namespace.
    scene.route("demo", &json!({"destinations": ["192.0.2.80", "192.0.2.81"], "gateway": A}));
    until("applied", &true, SOON, || agent.has_applied("demo"));
    let before = (settled(), builtin_rules());

    let flushed = [
        "ip rule flush",
        "ip rule add pref 1000 lookup 99 protocol static",
        "ip route del 192.0.2.80 table 1157",
        "ip route flush table 1157 || true",
        "ip nexthop flush",
    ];
    let flapped = [
        "ip link set eth1 down",
        "ip link set eth1 up",
        "ip addr del 10.116.0.2/20 dev eth1",
        "ip addr add 10.116.0.2/20 dev eth1",
    ];
    for (damages, left) in [(&flushed[..], 0), (&flapped[..], 1)] {
        let repairs = agent.repairs();
        for damage in damages {
            sh(damage);
        }
        let damaged = settled();
        assert_eq!((damaged.matches("1001:").count(), damaged.contains("nhid")), (left, false), "{damaged}");
        assert_eq!(agent.repairs(), repairs, "somebody told the loop");
        agent.skip();
        let took = until("repaired", &before, REST, || (ours(), builtin_rules()));
        eprintln!("deaf: repaired {took:?} after {SKIPPED:?}");
        assert!(agent.repairs() > repairs);
        assert_eq!(seen_from(LISTED), Some(A_PUBLIC));
    }
}

#[test]
fn what_the_kernel_refused_is_tried_again_though_nobody_tells_that_it_would_be_taken_now() {
    let scene = Scene::new();
    // To the kernel the rule is there already: no more than that is said in ours.
    let narrower = "pref 1001 lookup 1157 realms 7 protocol 157";
    ip(&format!("rule add {narrower}"));
    let agent = DeafAgent::start(&scene);
    scene.route("demo", &json!({"destinations": ["192.0.2.80"], "gateway": A}));
    until("refused", &true, SOON, || agent.is_refused("demo"));
    ip(&format!("rule del {narrower}"));
    // Pauses of half a second, one, two, four, eight: long before the full comparison.
    let took = until("applied", &true, Duration::from_secs(20), || agent.has_applied("demo"));
    eprintln!("deaf: taken {took:?} after it would be");
    assert_eq!(seen_from(LISTED), Some(A_PUBLIC));
}

/// The loop with a monitor that hears nothing.
struct DeafAgent {
    stop: CancellationToken,
    skip: Arc<Notify>,
    threads: Vec<JoinHandle<()>>,
    published: watch::Receiver<Report>,
    metrics: AgentMetrics,
}

impl DeafAgent {
    fn start(scene: &Scene) -> Self {
        let stop = CancellationToken::new();
        let changed = Arc::new(Notify::new());
        // On this thread: the command socket is the node's.
        let kernel = Commands::start().unwrap();
        let (names, wanted) = watch::channel(Names::default());
        let (found, surroundings) = watch::channel(Surroundings::at_start());
        let (followed, follower) = follow(scene, &changed, wanted, found, stop.clone());
        let (reports, published) = watch::channel(Report::default());
        let metrics = AgentMetrics::register(&mut Metrics::new(PREFIX, "0.0.0"));
        let connections = Connections {
            node_name: "node-1".to_owned(),
            layout: Layout::default(),
            configured: Vec::new(),
            remove_leftovers: false,
            kernel,
            watches: followed.watches,
            server: None,
            definitions: followed.definitions,
            changed,
            api_server: ApiServer::new(Some(&("127.0.0.1".to_owned(), 6443)), None),
            names,
            surroundings,
            reports,
            metrics: metrics.clone(),
            liveness: Liveness::new(Duration::from_secs(60)),
            readiness: Readiness::not_yet("no plan has been written to the kernel yet"),
        };
        let (stopped, skip) = (stop.clone(), Arc::new(Notify::new()));
        let skipping = Arc::clone(&skip);
        let deaf = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            runtime().block_on(async {
                let mut reconciler = Reconciler::new(connections);
                let skip = async {
                    loop {
                        skipping.notified().await;
                        tokio::time::pause();
                        tokio::time::advance(SKIPPED).await;
                        tokio::time::resume();
                    }
                };
                tokio::select! {
                    ended = reconciler.run(stopped) => ended.unwrap(),
                    () = skip => {}
                }
            });
        });
        Self { stop, skip, threads: vec![follower, deaf], published, metrics }
    }

    fn has_applied(&self, name: &str) -> bool {
        let report = self.published.borrow();
        report.status.routes.iter().any(|route| route.name == name && route.state == NodeRouteState::Applied)
    }

    fn is_refused(&self, name: &str) -> bool {
        let refused = Some("KernelRefused");
        let report = self.published.borrow();
        report.status.routes.iter().any(|route| route.name == name && route.reason.as_deref() == refused)
    }

    /// Moves the loop's clock on.
    fn skip(&self) {
        self.skip.notify_one();
    }

    fn repairs(&self) -> u64 {
        self.metrics.repairs.get()
    }
}

impl Drop for DeafAgent {
    fn drop(&mut self) {
        self.stop.cancel();
        for thread in self.threads.drain(..) {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "a thread of the agent died");
        }
    }
}

/// What is followed in the API server.
struct Followed {
    watches: Watches,
    definitions: Definitions,
}

/// Follows and looks around on a thread of the node: the API server is on its loopback.
fn follow(
    scene: &Scene,
    changed: &Arc<Notify>,
    names: watch::Receiver<Names>,
    found: watch::Sender<Surroundings>,
    stop: CancellationToken,
) -> (Followed, JoinHandle<()>) {
    let kubeconfig = Kubeconfig::read_from(scene.server.kubeconfig()).unwrap();
    let changed = Arc::clone(changed);
    let (sender, followed) = std::sync::mpsc::channel();
    let follower = std::thread::spawn(move || {
        runtime().block_on(async {
            let options = KubeConfigOptions::default();
            let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap();
            let client = Client::try_from(config).unwrap();
            let mut tasks = JoinSet::new();
            let watches = Watches::start(&client, "node-1", None, &changed, &mut tasks);
            let definitions = Definitions::follow(&client, "node-1", &changed, &mut tasks);
            // Once is enough: a second look would wake the loop.
            tasks.spawn(look_around(Duration::from_secs(3600), names, found, changed));
            sender.send(Followed { watches, definitions }).unwrap();
            stop.cancelled().await;
        });
    });
    (followed.recv().unwrap(), follower)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}
