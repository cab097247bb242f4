//! One controller process: a runtime of its own, driven step by step.

use std::sync::Arc;
use std::time::Duration;

use clap::Parser as _;
use egress_controller::clock::Clock;
use egress_controller::metrics::{ControllerMetrics, PREFIX};
use egress_controller::process::{self, Surroundings};
use egress_controller::settings::Settings;
use egress_digitalocean::{Client as CloudClient, SharedToken};
use egress_runtime::admin::{Liveness, Readiness};
use egress_runtime::metrics::Metrics;
use egress_runtime::tasks::Tasks;
use jiff::Timestamp;
use kube::client::Body;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::cloud::{Driven, Way};
use crate::gate::Gate;
use crate::machines::Doors;
use crate::world::World;

// As in the binary.
const GRACE: Duration = Duration::from_secs(20);

pub struct Process {
    runtime: Runtime,
    pub gate: Arc<Gate>,
    start: Instant,
    began: Timestamp,
    body: JoinHandle<()>,
}

impl Process {
    pub fn start(world: &World, name: &str) -> Self {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let shutdown = CancellationToken::new();
        let gate = Arc::new(Gate::new(world.clone(), name, shutdown.clone()));
        let began = world.now();
        let (start, body) = runtime.block_on(async {
            let start = Instant::now();
            let clock = {
                let world = world.clone();
                Clock::new(move || world.reached(began + start.elapsed()))
            };
            let mut tasks = Tasks::new(shutdown, GRACE);
            process::start(surroundings(world, name, &gate, clock), &mut tasks).unwrap();
            // How it ends is for its log.
            let body = tokio::spawn(async move { drop(tasks.run().await) });
            (start, body)
        });
        Self { runtime, gate, start, began, body }
    }

    /// Lets it live until this time, unless it dies or is stopped before.
    pub fn drive(&self, until: Timestamp) {
        let span = Duration::try_from(until.duration_since(self.began)).unwrap();
        self.runtime.block_on(async {
            tokio::select! {
                biased;
                () = self.gate.halted() => {}
                () = tokio::time::sleep_until(self.start + span) => {}
            }
        });
    }

    /// Goes on after a stop that lasted until now, by its own clock too.
    pub fn wake(&self, now: Timestamp) {
        let span = Duration::try_from(now.duration_since(self.began)).unwrap();
        self.runtime.block_on(async {
            tokio::time::advance((self.start + span).saturating_duration_since(Instant::now())).await;
        });
        self.gate.wake();
    }

    pub fn terminate(&self) {
        self.gate.shutdown.cancel();
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&self) -> bool {
        self.body.is_finished()
    }
}

fn surroundings(world: &World, name: &str, gate: &Arc<Gate>, clock: Clock) -> Surroundings {
    let token = SharedToken::empty();
    let way = Way { world: world.clone(), gate: gate.clone() };
    let cloud = CloudClient::with_exchange(
        "http://cloud.invalid",
        Arc::new(token.clone()),
        Arc::new(Driven::new(world.now())),
        Arc::new(way),
    );
    Surroundings {
        settings: Settings::try_parse_from(["egress-controller", "--pod-name", name]).unwrap(),
        client: kubernetes(world, gate),
        cloud: cloud.unwrap(),
        token,
        endpoints: Arc::new(Doors { world: world.clone(), gate: gate.clone() }),
        clock,
        metrics: ControllerMetrics::register(&mut Metrics::new(PREFIX, "test")),
        heart: Liveness::new(Duration::from_secs(90)),
        token_known: Readiness::not_yet("not yet"),
        mirrors_known: Readiness::not_yet("not yet"),
    }
}

fn kubernetes(world: &World, gate: &Arc<Gate>) -> kube::Client {
    let (world, gate) = (world.clone(), gate.clone());
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let (world, gate) = (world.clone(), gate.clone());
        async move {
            let (parts, body) = request.into_parts();
            let request = http::Request::from_parts(parts, body.collect_bytes().await?);
            let pass = gate.enter(change(&request)).await;
            gate.sends(&pass);
            let answer = world.ask_kubernetes(&request);
            gate.leave(pass).await;
            Ok::<_, kube::Error>(answer)
        }
    });
    kube::Client::new(service, "default")
}

/// The name of a call that changes something. Renewals of a Lease go on for ever, whatever becomes of gateways.
fn change<B>(request: &http::Request<B>) -> Option<String> {
    let path = request.uri().path();
    if request.method() == http::Method::GET || path.contains("/leases") {
        return None;
    }
    let place =
        path.rsplit_once("/v1alpha1/").or_else(|| path.rsplit_once("/v1/")).map_or(path, |(_, place)| place);
    Some(format!("{} {place}", request.method()))
}
