//! The control routes under `/simulator/`: not the cloud's API, open to everyone who can reach the listener, and
//! neither journalled nor rate limited.
//!
//! | route | body | answer |
//! | --- | --- | --- |
//! | `GET /simulator/journal?after=N` | | `{"entries": [...], "last": seq}`, entries numbered above N |
//! | `GET /simulator/state` | | the whole cloud as the snapshot file has it |
//! | `GET /simulator/clock` | | `{"now": time, "driven": bool}` |
//! | `POST /simulator/clock` | `{"advance_ms": N}` | the same, after N ms have passed; 409 on the real clock |
//! | `GET /simulator/faults` | | `{"faults": [...]}` with the strikes left |
//! | `POST /simulator/faults` | one fault or a list ([`crate::fault`]) | 201, the same as GET; they are appended. 422 `{"error"}` names the field of one that can't be read or could never strike; none is taken then |
//! | `DELETE /simulator/faults` | | 204; none left |
//! | `GET /simulator/held` | | `{"held": ["POST /v2/droplets"]}`: what a delay holds back before anything is done |
//! | `GET /simulator/delays` | | how long the cloud takes for what ([`crate::cloud::Delays`]) |
//! | `POST /simulator/delays` | `{"reserved_ip": ms, ...}` | the same, with these for whatever begins from now on; 422 `{"error"}` for one that there is not |
//! | `GET /simulator/token` | | `{"needed": [...]}`: every scope that calls with the token under test have needed so far |
//! | `POST /simulator/token` | `{"token"?, "scopes"?}` | 204: another token in its place, or other scopes (`"a:read b:read"`) for it |
//! | `GET /simulator/droplets/{id}/machine` | | what the machine command gets on standard input |
//! | `POST /simulator/droplets/{id}/machine` | `{"running": bool}` | 204: the machine went down or came up without an action; 409 while an event is pending |
//! | `GET /simulator/droplets/{id}/firewall` | | what acts on its packets now: `{"id", "rules"}`, as the machine command gets it with the verb `firewall` |

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use jiff::SignedDuration;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::clock::Clock;
use crate::fault::Fault;
use crate::scope::Scopes;
use crate::server::Shell;

/// The routes; the API is their fallback.
pub(crate) fn routes() -> Router<Arc<Shell>> {
    Router::new()
        .route("/simulator/journal", get(journal))
        .route("/simulator/state", get(state))
        .route("/simulator/clock", get(clock).post(advance_clock))
        .route("/simulator/faults", get(faults).post(add_faults).delete(clear_faults))
        .route("/simulator/held", get(held))
        .route("/simulator/delays", get(delays).post(change_delays))
        .route("/simulator/token", get(token).post(change_token))
        .route("/simulator/droplets/{id}/machine", get(machine).post(machine_changed))
        .route("/simulator/droplets/{id}/firewall", get(firewall))
}

#[derive(Deserialize)]
struct After {
    #[serde(default)]
    after: u64,
}

async fn journal(State(shell): State<Arc<Shell>>, Query(After { after }): Query<After>) -> Json<Value> {
    let inner = shell.lock();
    let entries: Vec<_> = inner.journal.after(after).collect();
    Json(json!({"entries": entries, "last": inner.journal.next_seq() - 1}))
}

async fn state(State(shell): State<Arc<Shell>>) -> Json<Value> {
    let mut inner = shell.lock();
    inner.cloud.advance(shell.clock.now());
    Json(json!(inner.cloud))
}

async fn clock(State(shell): State<Arc<Shell>>) -> Json<Value> {
    Json(json!({"now": shell.clock.now(), "driven": matches!(shell.clock, Clock::Driven(_))}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Advance {
    advance_ms: u32,
}

async fn advance_clock(
    State(shell): State<Arc<Shell>>,
    Json(Advance { advance_ms }): Json<Advance>,
) -> Response {
    match shell.clock.advance(SignedDuration::from_millis(i64::from(advance_ms))) {
        Some(now) => {
            shell.lock().cloud.advance(now);
            shell.after_change();
            Json(json!({"now": now, "driven": true})).into_response()
        }
        None => (StatusCode::CONFLICT, Json(json!({"error": "the clock is the real one"}))).into_response(),
    }
}

async fn faults(State(shell): State<Arc<Shell>>) -> Json<Value> {
    Json(json!({"faults": shell.lock().faults}))
}

async fn add_faults(State(shell): State<Arc<Shell>>, body: Bytes) -> Response {
    match Fault::read_all(&body) {
        Ok(new) => {
            let mut inner = shell.lock();
            inner.faults.extend(new);
            (StatusCode::CREATED, Json(json!({"faults": inner.faults}))).into_response()
        }
        Err(error) => (StatusCode::UNPROCESSABLE_ENTITY, Json(json!({"error": error}))).into_response(),
    }
}

async fn clear_faults(State(shell): State<Arc<Shell>>) -> StatusCode {
    shell.lock().faults.clear();
    StatusCode::NO_CONTENT
}

async fn held(State(shell): State<Arc<Shell>>) -> Json<Value> {
    Json(json!({"held": *shell.held.lock().unwrap_or_else(std::sync::PoisonError::into_inner)}))
}

async fn delays(State(shell): State<Arc<Shell>>) -> Json<Value> {
    Json(json!(shell.lock().cloud.delays))
}

async fn change_delays(State(shell): State<Arc<Shell>>, Json(changes): Json<Map<String, Value>>) -> Response {
    let mut inner = shell.lock();
    let mut delays = json!(inner.cloud.delays);
    for (name, milliseconds) in changes {
        delays[name] = milliseconds;
    }
    match serde_json::from_value(delays) {
        Ok(delays) => {
            inner.cloud.delays = delays;
            Json(json!(delays)).into_response()
        }
        Err(error) => {
            (StatusCode::UNPROCESSABLE_ENTITY, Json(json!({"error": error.to_string()}))).into_response()
        }
    }
}

async fn token(State(shell): State<Arc<Shell>>) -> Json<Value> {
    Json(json!({"needed": shell.lock().callers.needed()}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    token: Option<String>,
    scopes: Option<String>,
}

async fn change_token(
    State(shell): State<Arc<Shell>>,
    Json(Change { token, scopes }): Json<Change>,
) -> StatusCode {
    let Ok(scopes) = scopes.map(|scopes| scopes.parse::<Scopes>()).transpose();
    let mut inner = shell.lock();
    if let Some(token) = &token {
        inner.journal.keep_out(token.clone());
    }
    inner.callers.change(token, scopes);
    StatusCode::NO_CONTENT
}

async fn machine(State(shell): State<Arc<Shell>>, Path(id): Path<u64>) -> Response {
    let inner = shell.lock();
    match inner.cloud.droplets.get(&id) {
        Some(droplet) => Json(inner.cloud.machine_json(droplet)).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn firewall(State(shell): State<Arc<Shell>>, Path(id): Path<u64>) -> Response {
    let mut inner = shell.lock();
    inner.cloud.advance(shell.clock.now());
    if inner.cloud.droplets.contains_key(&id) {
        Json(inner.cloud.policy_json(id)).into_response()
    } else {
        StatusCode::NOT_FOUND.into_response()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Running {
    running: bool,
}

async fn machine_changed(
    State(shell): State<Arc<Shell>>,
    Path(id): Path<u64>,
    Json(Running { running }): Json<Running>,
) -> StatusCode {
    let taken = shell.lock().cloud.machine_changed(id, running, shell.clock.now());
    shell.after_change();
    if taken { StatusCode::NO_CONTENT } else { StatusCode::CONFLICT }
}
