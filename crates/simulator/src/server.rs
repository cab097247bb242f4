//! The shell: HTTP around the core.
//!
//! Responsibility: listeners, authentication, rate limit, faults, journal, snapshot; carries out effects and lets time
//! pass. Every decision about one request is taken under one lock, so the journal's order is the cloud's order.
//! Tasks live as long as the process (or the [`Running`] handle, which stops them).

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, State};
use axum::http::{Response, StatusCode, Uri};
use jiff::Timestamp;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::caller::{Caller, Callers};
use crate::clock::Clock;
use crate::cloud::{Answer, Cloud, Request};
use crate::connection::{Acceptor, Peer};
use crate::fault::{self, Fault, Kind};
use crate::journal::{Entry, Journal};
use crate::machine::MachineCommand;
use crate::metadata;
use crate::rate::Limits;
use crate::reply::{Decision, plain, say, send};
use crate::scope::Scopes;

/// How a simulator is started.
#[derive(Debug)]
pub struct Options {
    /// Address of the API and the control routes; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Address of the metadata service, if it is wanted.
    pub metadata: Option<SocketAddr>,
    /// The token under test.
    pub token: String,
    /// Another one that may do everything: what a person would do at the cloud's own pages.
    pub operator_token: Option<String>,
    /// File for the journal.
    pub journal: Option<PathBuf>,
    /// File for the snapshot after each change; read at the start when it is there.
    pub state: Option<PathBuf>,
    /// The machine command, split at white space.
    pub machine_command: Option<String>,
    /// How long one machine command may take.
    pub machine_deadline: Duration,
    /// The cloud's clock.
    pub clock: Clock,
    /// Rate limits of each token.
    pub limits: Limits,
    /// What the token under test may do.
    pub scopes: Scopes,
    /// The cloud at the start. A snapshot replaces it.
    pub cloud: Cloud,
}

/// Why a simulator does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener's address is not to be had.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The reason.
        source: std::io::Error,
    },
    /// The journal cannot be opened.
    #[error("journal {path}: {source}")]
    Journal {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// The snapshot is there and cannot be used.
    #[error("state {path}: {source}")]
    State {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
}

/// A running simulator; dropping it stops it.
#[derive(Debug)]
pub struct Running {
    /// Where the API listens.
    pub api: SocketAddr,
    /// Where the metadata service listens.
    pub metadata: Option<SocketAddr>,
    tasks: JoinSet<()>,
}

impl Running {
    /// Waits until a part of the simulator ends, which none should.
    pub async fn ended(&mut self) {
        self.tasks.join_next().await;
    }
}

/// Everything that requests share.
pub(crate) struct Shell {
    pub(crate) inner: Mutex<Inner>,
    pub(crate) clock: Clock,
    state: Option<PathBuf>,
    pub(crate) machine: Option<MachineCommand>,
    /// Requests that a delay holds back before anything is done, as `METHOD path`.
    pub(crate) held: Mutex<Vec<String>>,
    changed: Notify,
    /// Wakes the task that tells the machine room what firewalls do.
    pub(crate) policies: Notify,
    /// Wakes the task that tells it which reserved addresses are whose.
    pub(crate) addresses: Notify,
}

pub(crate) struct Inner {
    pub(crate) cloud: Cloud,
    pub(crate) faults: Vec<Fault>,
    pub(crate) journal: Journal,
    pub(crate) callers: Callers,
    snapshot: Vec<u8>,
}

/// Bodies above this are refused; the largest legal one is a create with 64 KiB of user data, escaped.
const BODY_BYTES: usize = 1024 * 1024;

/// Starts a simulator.
///
/// # Errors
/// When an address or a file is not to be had.
pub async fn start(options: Options) -> Result<Running, StartError> {
    let Options {
        listen,
        metadata,
        token,
        operator_token,
        journal,
        state,
        machine_command,
        machine_deadline,
        clock,
        limits,
        scopes,
        cloud,
    } = options;
    let api = bind(listen).await?;
    let metadata = match metadata {
        Some(address) => Some(bind(address).await?),
        None => None,
    };
    let secrets = std::iter::once(&token).chain(&operator_token).cloned().collect();
    let journal = Journal::open(journal.as_deref(), secrets)
        .map_err(|source| StartError::Journal { path: journal.unwrap_or_default(), source })?;
    let mut cloud = match &state {
        Some(path) => read_state(path)?.unwrap_or(cloud),
        None => cloud,
    };
    cloud.resume();
    let shell = Arc::new(Shell {
        inner: Mutex::new(Inner {
            cloud,
            faults: Vec::new(),
            journal,
            callers: Callers::new(token, scopes, operator_token, limits),
            snapshot: Vec::new(),
        }),
        clock,
        state,
        machine: machine_command.map(|line| MachineCommand::new(&line, machine_deadline)),
        held: Mutex::default(),
        changed: Notify::new(),
        policies: Notify::new(),
        addresses: Notify::new(),
    });

    let address = |listener: &TcpListener, asked: SocketAddr| listener.local_addr().unwrap_or(asked);
    let mut running = Running { api: address(&api, listen), metadata: None, tasks: JoinSet::new() };
    let routes = crate::control::routes().fallback(api_request).with_state(Arc::clone(&shell));
    running.tasks.spawn(serve(api, routes));
    if let Some(listener) = metadata {
        running.metadata = listener.local_addr().ok();
        let routes = Router::new().fallback(metadata_request).with_state(Arc::clone(&shell));
        running.tasks.spawn(serve(listener, routes));
    }
    running.tasks.spawn(pass_time(Arc::clone(&shell)));
    running.tasks.spawn(Arc::clone(&shell).enforce_firewalls());
    running.tasks.spawn(Arc::clone(&shell).translate_addresses());
    shell.after_change();
    Ok(running)
}

async fn bind(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Listen { address, source })
}

async fn serve(listener: TcpListener, routes: Router) {
    let service = routes.into_make_service_with_connect_info::<Peer>();
    if let Err(error) = axum::serve(Acceptor(listener), service).await {
        tracing::error!(%error, "listener ended");
    }
}

fn read_state(path: &PathBuf) -> Result<Option<Cloud>, StartError> {
    let failed = |source| StartError::State { path: path.clone(), source };
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| failed(error.into())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

/// Lets due events happen; wakes at the next deadline, at the latest after a second.
async fn pass_time(shell: Arc<Shell>) {
    loop {
        let now = shell.clock.now();
        let next = {
            let mut inner = shell.lock();
            inner.cloud.advance(now);
            inner.cloud.next_deadline()
        };
        shell.after_change();
        let wait = match (&shell.clock, next) {
            (Clock::Real, Some(next)) => Duration::try_from(next.duration_since(now)).unwrap_or_default(),
            _ => Duration::from_secs(1),
        };
        let wait = wait.clamp(Duration::from_millis(1), Duration::from_secs(1));
        // Woken or not: the state says what is due.
        let _ = tokio::time::timeout(wait, shell.changed.notified()).await;
    }
}

impl Shell {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic while locked is a bug of ours; the state itself stays usable.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the snapshot and starts what machines are asked to do.
    pub(crate) fn after_change(self: &Arc<Self>) {
        let (effects, policies, addresses) = {
            let mut inner = self.lock();
            if let Some(path) = &self.state {
                inner.write_state(path);
            }
            let cloud = &mut inner.cloud;
            (cloud.take_effects(), cloud.has_enforcements(), cloud.untold_translations().is_some())
        };
        if addresses {
            self.addresses.notify_one();
        }
        if policies {
            self.policies.notify_one();
        }
        for effect in effects {
            tokio::spawn(Arc::clone(self).carry_out(effect));
        }
    }

    /// Wakes the task that lets time pass.
    pub(crate) fn wake(&self) {
        self.changed.notify_one();
    }
}

impl Inner {
    /// Write, then rename: a reader never sees half of it.
    fn write_state(&mut self, path: &PathBuf) {
        let Ok(snapshot) = serde_json::to_vec(&self.cloud) else { return };
        if snapshot == self.snapshot {
            return;
        }
        let fresh = path.with_extension("new");
        match std::fs::write(&fresh, &snapshot).and_then(|()| std::fs::rename(&fresh, path)) {
            Ok(()) => self.snapshot = snapshot,
            Err(error) => tracing::error!(%error, path = %path.display(), "state not written"),
        }
    }

    /// Takes the decision about one request and records it.
    fn decide(&mut self, request: &Request, uri: &Uri, caller: Option<Caller>, now: Timestamp) -> Decision {
        let seq = self.journal.next_seq();
        let request_id = format!("9f2c1d3e-7a64-4c1b-8f00-{seq:012x}");
        let fault = fault::strike(&mut self.faults, &request.method, &request.path);
        let mut committed = false;
        let (answer, rate) = if fault.as_ref().is_some_and(|fault| !fault.commits()) {
            (None, self.callers.peek(now))
        } else if let Some(caller) = caller {
            let rate = self.callers.admit(caller, now);
            if rate.retry_after.is_some() {
                (Some(Answer::json(429, fault::usual_body(429))), rate)
            } else {
                let answer = match self.callers.check(caller, request) {
                    Ok(()) => {
                        committed = true;
                        let variant = fault.as_ref().and_then(Kind::variant);
                        let mut answer = self.cloud.apply(request, variant.as_ref(), now);
                        answer.body.iter_mut().for_each(|body| self.callers.hide(caller, body));
                        answer
                    }
                    Err(refusal) => refusal.answer(),
                };
                (Some(answer), rate)
            }
        } else {
            (Some(Answer::json(401, fault::usual_body(401))), self.callers.peek(now))
        };
        let mut decision = Decision { answer, text: None, rate, request_id, fault };
        if let Some(Kind::Status(status)) = &decision.fault {
            decision.rate.retry_after = status.retry_after.map(i64::from);
            decision.answer = Some(match &status.body {
                Some(Value::String(text)) => {
                    decision.text = Some(text.clone());
                    Answer { status: status.status, body: None }
                }
                Some(body) => Answer::json(status.status, body.clone()),
                None => Answer::json(status.status, fault::usual_body(status.status)),
            });
        }
        decision.name_request();
        self.journal.record(Entry {
            seq,
            time: now,
            method: request.method.clone(),
            path: request.path.clone(),
            query: uri.query().unwrap_or_default().to_owned(),
            body: match request.body.as_slice() {
                [] => Value::Null,
                bytes => serde_json::from_slice(bytes)
                    .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(bytes).into_owned())),
            },
            status: decision.answer.as_ref().map(|answer| answer.status),
            committed,
            request_id: decision.request_id.clone(),
            fault: decision.fault.clone(),
        });
        decision
    }
}

async fn api_request(
    State(shell): State<Arc<Shell>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: axum::extract::Request,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, BODY_BYTES).await else {
        return plain(StatusCode::PAYLOAD_TOO_LARGE, "<html><body>413</body></html>", "text/html");
    };
    let request = Request {
        method: parts.method.as_str().to_owned(),
        path: parts.uri.path().to_owned(),
        query: axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&parts.uri)
            .map(|query| query.0)
            .unwrap_or_default(),
        body: body.to_vec(),
    };
    if let Some(wait) = shell.delay_before(&request) {
        let _held = Held::new(&shell.held, &request);
        tokio::time::sleep(wait).await;
    }
    let decision = {
        let mut inner = shell.lock();
        let caller = inner.callers.of(&parts.headers);
        inner.decide(&request, &parts.uri, caller, shell.clock.now())
    };
    shell.after_change();
    shell.wake();
    send(&peer, decision).await
}

/// A request that waits; whoever hangs up meanwhile takes it along.
struct Held<'a>(&'a Mutex<Vec<String>>, String);

impl<'a> Held<'a> {
    fn new(all: &'a Mutex<Vec<String>>, request: &Request) -> Self {
        let name = format!("{} {}", request.method, request.path);
        all.lock().unwrap_or_else(PoisonError::into_inner).push(name.clone());
        Self(all, name)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = all.iter().position(|name| *name == self.1) {
            all.remove(at);
        }
    }
}

impl Shell {
    /// A delay before the commit must be slept outside the lock: it is looked up here and counted in `decide`.
    fn delay_before(&self, request: &Request) -> Option<Duration> {
        let inner = self.lock();
        let mut faults = inner.faults.clone();
        match fault::strike(&mut faults, &request.method, &request.path) {
            Some(Kind::Delay(delay)) if delay.before_commit => Some(Duration::from_millis(delay.delay_ms)),
            _ => None,
        }
    }
}

async fn metadata_request(
    State(shell): State<Arc<Shell>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    uri: Uri,
) -> Response<Body> {
    let source = match peer.address.ip() {
        IpAddr::V4(source) => source,
        IpAddr::V6(source) => match source.to_ipv4_mapped() {
            Some(source) => source,
            None => return plain(StatusCode::NOT_FOUND, "not found", "text/plain"),
        },
    };
    say(metadata::answer(&shell.lock().cloud, source, uri.path()))
}
