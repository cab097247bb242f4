//! Serves the page over HTTP/1.1.
//!
//! Read-only: GET and HEAD, and no request changes anything. No cookie is set. The Content-Security-Policy lets a page use its own
//! script and style and nothing else, from here only. All links are relative, so that an ingress may serve it below any path.
//!
//! Whoever reaches the port can hold nobody else up for long: connections and open pages are counted, and each ends.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::sse::Sse;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde::Deserialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::access::Access;
use crate::board::{Board, Place};
use crate::{page, stream};

/// Pages that are told of changes at a time; further ones show what was when they were loaded, and say so.
pub const MOST_STREAMS: usize = 32;

/// Connections at a time; who comes then waits until one ends.
pub const MOST_CONNECTIONS: usize = 128;

/// How long a client may take for the head of its request; a kept connection ends when none comes for that long.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection ends after this time whatever it is used for, so that one whose other end is gone is not kept.
pub const LONGEST_CONNECTION: Duration = Duration::from_secs(900);

// What the kernel refuses an accept for (file descriptors, memory) is not over at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

// The longest name that an object can have.
const LONGEST_NAME: usize = 253;

const STYLE: &str = include_str!("assets/style.css");
const SCRIPT: &str = include_str!("assets/live.js");
const ICON: &str = include_str!("assets/icon.svg");

const HEADERS: [(&str, &str); 7] = [
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cache-control", "no-store"),
];

/// What a page refers to, by its content: one that was kept by a browser is never that of another version.
#[derive(Clone, Debug)]
pub(crate) struct Assets {
    pub(crate) style_version: String,
    pub(crate) script_version: String,
}

impl Assets {
    pub(crate) fn embedded() -> Self {
        Self { style_version: page::version(&[STYLE]), script_version: page::version(&[SCRIPT]) }
    }
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

/// A server that has its address.
pub struct Bound {
    listener: TcpListener,
    access: Access,
}

/// Takes an address. On the loopback nobody needs a token; everywhere else `by_token` says who may come in.
pub async fn bind(address: SocketAddr, by_token: impl FnOnce() -> Access) -> Result<Bound, BindError> {
    let listener = TcpListener::bind(address).await.map_err(|source| BindError { address, source })?;
    let access = if address.ip().is_loopback() { Access::Loopback } else { by_token() };
    Ok(Bound { listener, access })
}

#[derive(Clone)]
struct Site {
    board: Board,
    access: Access,
    streams: Arc<Semaphore>,
    assets: Assets,
    shutdown: CancellationToken,
}

impl Bound {
    /// Where it listens; tells the port when 0 was asked for.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until the token is cancelled; connections that are open then are dropped.
    pub async fn serve(self, board: Board, shutdown: CancellationToken) -> Result<(), Infallible> {
        let site = Site {
            board,
            access: self.access,
            streams: Arc::new(Semaphore::new(MOST_STREAMS)),
            assets: Assets::embedded(),
            shutdown: shutdown.clone(),
        };
        let router = router(site);
        let connections = Arc::new(Semaphore::new(MOST_CONNECTIONS));
        let mut open = JoinSet::new();
        loop {
            let accepted = async {
                let room = connections.clone().acquire_owned().await.ok()?;
                Some((self.listener.accept().await, room))
            };
            let accepted = tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                accepted = accepted => accepted,
            };
            while open.try_join_next().is_some() {}
            let Some((Ok((stream, _)), room)) = accepted else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let router = router.clone();
            open.spawn(async move {
                converse(stream, router).await;
                drop(room);
            });
        }
    }
}

async fn converse(stream: TcpStream, router: Router) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    let conversation = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    // A client that breaks off is its own business.
    let _ended = tokio::time::timeout(LONGEST_CONNECTION, conversation).await;
}

fn router(site: Site) -> Router {
    Router::new()
        .route("/", get(document))
        .route("/events", get(events))
        .route("/style.css", get(async || asset("text/css; charset=utf-8", STYLE)))
        .route("/live.js", get(async || asset("text/javascript; charset=utf-8", SCRIPT)))
        .route("/icon.svg", get(async || asset("image/svg+xml", ICON)))
        .layer(middleware::from_fn_with_state(site.clone(), guard))
        .with_state(site)
}

async fn guard(State(site): State<Site>, request: Request, next: Next) -> Response {
    let mut response = match site.access.check(request.headers()).await {
        Ok(()) => next.run(request).await,
        Err(denied) => denied.into_response(),
    };
    for (name, value) in HEADERS {
        let name = HeaderName::from_static(name);
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

#[derive(Debug, Default, Deserialize)]
struct Asked {
    gateway: Option<String>,
    page: Option<String>,
}

impl Asked {
    // A page that is no number is the first: who mistypes a link should see something.
    fn place(self) -> Result<Place, NoName> {
        let page = self.page.and_then(|page| page.parse().ok()).unwrap_or(1);
        if self.gateway.as_deref().is_some_and(|name| !is_name(name)) {
            return Err(NoName);
        }
        Ok(Place { gateway: self.gateway, page })
    }
}

// What is asked for is no name that an EgressGateway can have.
struct NoName;

impl IntoResponse for NoName {
    fn into_response(self) -> Response {
        (StatusCode::BAD_REQUEST, "gateway: that is no name of an EgressGateway.\n").into_response()
    }
}

fn is_name(name: &str) -> bool {
    let allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.';
    !name.is_empty() && name.len() <= LONGEST_NAME && name.bytes().all(allowed)
}

async fn document(State(site): State<Site>, Query(asked): Query<Asked>) -> Response {
    let place = match asked.place() {
        Ok(place) => place,
        Err(refused) => return refused.into_response(),
    };
    site.board.look_at();
    match (site.board.blocks(&place), &place.gateway) {
        (Some(blocks), _) => Html(page::document(&place, &blocks, &site.assets)).into_response(),
        (None, name) => {
            let blocks = page::gone(name.as_deref().unwrap_or_default());
            (StatusCode::NOT_FOUND, Html(page::document(&place, &blocks, &site.assets))).into_response()
        }
    }
}

async fn events(State(site): State<Site>, Query(asked): Query<Asked>, request: Request) -> Response {
    let place = match asked.place() {
        Ok(place) => place,
        Err(refused) => return refused.into_response(),
    };
    let Ok(room) = site.streams.clone().try_acquire_owned() else {
        let headers = [(header::RETRY_AFTER, "10")];
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            headers,
            "Too many pages are open; this one is not told of changes.\n",
        )
            .into_response();
    };
    let viewer = stream::Viewer { access: site.access, headers: request.headers().clone() };
    Sse::new(stream::follow(site.board, place, viewer, room, site.shutdown)).into_response()
}

// Their addresses change with their content.
fn asset(content_type: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, "private, max-age=31536000, immutable"),
    ];
    (headers, text).into_response()
}
