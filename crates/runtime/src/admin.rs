//! The admin server: `/livez`, `/readyz`, `/metrics`.
//!
//! Liveness is a heart that the main loop must keep beating, not the mere fact that this server answers; readiness is what
//! the process says of itself. Both name what is missing.
//!
//! Whoever reaches the port can hold nothing up: a request that does not come within [`HEADER_TIMEOUT`] ends its connection, and
//! when there are [`MOST_CONNECTIONS`], the oldest makes room for the next.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::metrics::{self, Metrics};

/// How long a client may take for the head of its request; a kept connection ends when none comes for that long.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// Connections at a time: the kubelet's two probes, a few scrapers, and room.
pub const MOST_CONNECTIONS: usize = 32;

// What the kernel refuses an accept for (file descriptors, memory) is not over at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A heart: alive while the last beat is younger than `max_age`. Clones share it.
#[derive(Clone, Debug)]
pub struct Liveness {
    born: Instant,
    max_age: Duration,
    last_beat_ms: Arc<AtomicU64>,
}

impl Liveness {
    /// A heart that has just beaten. `max_age` must be above the longest time that one round of the loop may take.
    pub fn new(max_age: Duration) -> Self {
        Self { born: Instant::now(), max_age, last_beat_ms: Arc::default() }
    }

    /// The loop is at work.
    pub fn beat(&self) {
        let age = self.born.elapsed().as_millis();
        self.last_beat_ms.store(u64::try_from(age).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn silent_for(&self, now: Instant) -> Duration {
        let last = self.born + Duration::from_millis(self.last_beat_ms.load(Ordering::Relaxed));
        now.saturating_duration_since(last)
    }

    fn verdict(&self, now: Instant) -> Result<(), String> {
        let silent = self.silent_for(now);
        if silent <= self.max_age {
            return Ok(());
        }
        Err(format!(
            "no beat for {:.1} s, allowed are {:.1} s",
            silent.as_secs_f64(),
            self.max_age.as_secs_f64()
        ))
    }
}

/// Whether one precondition of being ready holds, and why not. Clones share it.
#[derive(Clone, Debug)]
pub struct Readiness {
    obstacle: Arc<Mutex<Option<String>>>,
}

impl Readiness {
    /// Not ready yet, for this reason.
    pub fn not_yet(reason: &str) -> Self {
        Self { obstacle: Arc::new(Mutex::new(Some(reason.to_owned()))) }
    }

    /// From now on it holds.
    pub fn set_ready(&self) {
        self.replace(None);
    }

    /// From now on it does not.
    pub fn set_not_ready(&self, reason: &str) {
        self.replace(Some(reason.to_owned()));
    }

    fn replace(&self, obstacle: Option<String>) {
        *self.obstacle.lock().unwrap_or_else(PoisonError::into_inner) = obstacle;
    }

    fn verdict(&self) -> Result<(), String> {
        self.obstacle.lock().unwrap_or_else(PoisonError::into_inner).clone().map_or(Ok(()), Err)
    }
}

type Check = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

#[derive(Default)]
struct Checks(Vec<(&'static str, Check)>);

impl Checks {
    // Every line names its check, so that `kubectl describe pod` shows which one failed.
    fn answer(&self) -> Response {
        let verdicts: Vec<_> = self.0.iter().map(|(name, check)| (name, check())).collect();
        let status = if verdicts.iter().all(|(_, verdict)| verdict.is_ok()) {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        let lines = verdicts.into_iter().map(|(name, verdict)| match verdict {
            Ok(()) => format!("ok   {name}\n"),
            Err(reason) => format!("FAIL {name}: {reason}\n"),
        });
        (status, lines.collect::<String>()).into_response()
    }
}

/// What the server answers with, before it is bound.
pub struct Admin {
    alive: Checks,
    ready: Checks,
    metrics: Metrics,
}

/// The address cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}")]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// What the kernel said.
    pub source: std::io::Error,
}

impl Admin {
    /// Serves these metrics; alive and ready as long as no check says otherwise.
    pub fn new(metrics: Metrics) -> Self {
        Self { alive: Checks::default(), ready: Checks::default(), metrics }
    }

    /// Alive only while this heart beats.
    #[must_use]
    pub fn liveness(mut self, name: &'static str, heart: Liveness) -> Self {
        self.alive.0.push((name, Box::new(move || heart.verdict(Instant::now()))));
        self
    }

    /// Ready only while this holds.
    #[must_use]
    pub fn readiness(self, name: &'static str, readiness: Readiness) -> Self {
        self.ready_when(name, move || readiness.verdict())
    }

    /// Ready only while the check is `Ok`; its error is the reason shown. It must not block.
    #[must_use]
    pub fn ready_when(
        mut self,
        name: &'static str,
        check: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        self.ready.0.push((name, Box::new(check)));
        self
    }

    /// Takes the address; requests wait until [`Bound::serve`].
    pub async fn bind(self, address: SocketAddr) -> Result<Bound, BindError> {
        let listener = TcpListener::bind(address).await.map_err(|source| BindError { address, source })?;
        Ok(Bound { listener, router: self.router() })
    }

    fn router(self) -> Router {
        Router::new()
            .route("/livez", get(async |State(admin): State<Arc<Self>>| admin.alive.answer()))
            .route("/readyz", get(async |State(admin): State<Arc<Self>>| admin.ready.answer()))
            .route("/metrics", get(async |State(admin): State<Arc<Self>>| exposition(&admin.metrics)))
            .with_state(Arc::new(self))
    }
}

fn exposition(metrics: &Metrics) -> Response {
    match metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// An admin server that has its address.
#[derive(Debug)]
pub struct Bound {
    listener: TcpListener,
    router: Router,
}

impl Bound {
    /// Where it listens; tells the port when 0 was asked for.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until the token is cancelled. Connections that are open then are dropped: a probe is nothing to wait for.
    pub async fn serve(self, shutdown: CancellationToken) -> Result<(), Infallible> {
        let mut open: VecDeque<AbortOnDropHandle<()>> = VecDeque::new();
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                accepted = self.listener.accept() => accepted,
            };
            let Ok((stream, _)) = accepted else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            open.retain(|connection| !connection.is_finished());
            if open.len() >= MOST_CONNECTIONS {
                open.pop_front();
            }
            open.push_back(AbortOnDropHandle::new(tokio::spawn(converse(stream, self.router.clone()))));
        }
    }
}

async fn converse(stream: TcpStream, router: Router) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    // A client that breaks off is its own business.
    let _ended = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)).await;
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    async fn ask(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn the_three_paths_answer_over_tcp_until_shutdown() {
        let ready = Readiness::not_yet("caches are not filled");
        let admin = Admin::new(Metrics::new("egress_test", "0"))
            .liveness("loop", Liveness::new(Duration::from_secs(60)))
            .readiness("caches", ready.clone());
        let server = admin.bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = server.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(server.serve(shutdown.clone()));

        assert!(ask(address, "/livez").await.starts_with("HTTP/1.1 200"));
        let refused = ask(address, "/readyz").await;
        assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
        assert!(refused.ends_with("FAIL caches: caches are not filled\n"), "{refused}");
        ready.set_ready();
        assert!(ask(address, "/readyz").await.ends_with("ok   caches\n"));
        ready.set_not_ready("the API server is gone");
        assert!(ask(address, "/readyz").await.starts_with("HTTP/1.1 503"));
        let metrics = ask(address, "/metrics").await;
        assert!(metrics.contains("egress_test_build_info"), "{metrics}");
        assert!(metrics.to_lowercase().contains("content-type: application/openmetrics-text"), "{metrics}");
        assert!(ask(address, "/").await.starts_with("HTTP/1.1 404"));

        shutdown.cancel();
        running.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn clients_that_say_nothing_keep_nobody_from_an_answer_and_are_cut_off() {
        let admin = Admin::new(Metrics::new("egress_test", "0"));
        let server = admin.bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = server.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(server.serve(shutdown.clone()));
        let mut mute = Vec::new();
        for _ in 0..3 * MOST_CONNECTIONS {
            mute.push(TcpStream::connect(address).await.unwrap());
        }
        mute.last_mut().unwrap().write_all(b"GET /livez HT").await.unwrap();
        assert!(ask(address, "/livez").await.starts_with("HTTP/1.1 200"));
        // Most made room; the last of them run into the time for a request.
        for mut stream in mute {
            let mut answer = Vec::new();
            let ended = tokio::time::timeout(6 * HEADER_TIMEOUT, stream.read_to_end(&mut answer)).await;
            assert!(ended.is_ok(), "a connection without a request was kept");
        }
        shutdown.cancel();
        running.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_heart_is_alive_as_long_as_its_last_beat_is_young() {
        let heart = Liveness::new(Duration::from_secs(10));
        tokio::time::advance(Duration::from_secs(8)).await;
        heart.beat();
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(heart.verdict(Instant::now()), Ok(()));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(heart.verdict(Instant::now()), Err("no beat for 11.0 s, allowed are 10.0 s".to_owned()));
        heart.beat();
        assert_eq!(heart.verdict(Instant::now()), Ok(()));
    }
}
