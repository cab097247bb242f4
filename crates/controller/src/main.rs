//! The binary `egress-controller`.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use egress_controller::clock::Clock;
use egress_controller::dashboard;
use egress_controller::health::HealthClient;
use egress_controller::metrics::{ControllerMetrics, PREFIX};
use egress_controller::process::{self, Surroundings};
use egress_controller::settings::Settings;
use egress_digitalocean::{Client as CloudClient, SharedToken};
use egress_runtime::admin::{Admin, Liveness, Readiness};
use egress_runtime::core_dump;
use egress_runtime::kubernetes;
use egress_runtime::metrics::Metrics;
use egress_runtime::shutdown;
use egress_runtime::tasks::Tasks;
use egress_runtime::telemetry;

// Longer than the longest single wait of the loop that beats.
const HEART: Duration = Duration::from_secs(90);

// A step that is under way may have a changing cloud call (10 s) in it.
const GRACE: Duration = Duration::from_secs(20);

fn main() -> anyhow::Result<()> {
    egress_runtime::process::run_on_many_threads(run())?
}

async fn run() -> anyhow::Result<()> {
    core_dump::forbid().context("core dumps cannot be switched off, and one would hold the API token")?;
    kubernetes::install_crypto_provider();
    let settings = Settings::parse();
    telemetry::init(settings.log_format, &settings.log)?;
    let shutdown = shutdown::on_signal().context("signals")?;
    let mut tasks = Tasks::new(shutdown.clone(), GRACE);
    let mut metrics = Metrics::new(PREFIX, env!("CARGO_PKG_VERSION"));
    let counters = ControllerMetrics::register(&mut metrics);
    let heart = Liveness::new(HEART);
    let token_known = Readiness::not_yet("the Secret with the API token has not been looked for yet");
    let mirrors_known = Readiness::not_yet("nodes and their reports have not been read yet");
    let admin = Admin::new(metrics)
        .liveness("loop", heart.clone())
        .readiness("token", token_known.clone())
        .readiness("mirrors", mirrors_known.clone());
    let server = admin.bind(settings.admin_listen).await?;
    tasks.spawn("admin", server.serve(shutdown));

    let token = SharedToken::empty();
    let client = kubernetes::client().await?;
    let page = dashboard::bind(&settings.dashboard_listen, &client).await;
    let health = HealthClient::new().context("no HTTP client")?;
    let surroundings = Surroundings {
        client: client.clone(),
        cloud: CloudClient::new(&settings.digitalocean_api, Arc::new(token.clone()))?,
        settings,
        token,
        endpoints: Arc::new(health.clone()),
        clock: Clock::default(),
        metrics: counters,
        heart,
        token_known,
        mirrors_known,
    };
    let mirrored = process::start(surroundings, &mut tasks).context("no random number from the kernel")?;
    dashboard::start(&client, mirrored, page, health, &mut tasks);
    tasks.run().await.context("stopped")
}
