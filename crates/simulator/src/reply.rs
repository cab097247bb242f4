//! Answers on the wire: headers of every response, and the ways in which one can go wrong.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, Response, StatusCode, header};
use serde_json::Value;

use crate::cloud::Answer;
use crate::connection::Peer;
use crate::fault::{Kind, Word};
use crate::metadata::Metadata;
use crate::rate::Rate;

/// What is to be sent, and how badly.
pub(crate) struct Decision {
    /// `None` when nothing was decided.
    pub(crate) answer: Option<Answer>,
    /// Sent instead of a JSON body, as HTML.
    pub(crate) text: Option<String>,
    pub(crate) rate: Rate,
    pub(crate) request_id: String,
    pub(crate) fault: Option<Kind>,
}

impl Decision {
    /// Error bodies carry the request id now and then; here those of validation and server errors do.
    pub(crate) fn name_request(&mut self) {
        if let Some(Answer { status: 400 | 404 | 422 | 500.., body: Some(Value::Object(body)) }) =
            &mut self.answer
            && body.contains_key("id")
            && body.contains_key("message")
        {
            body.insert("request_id".into(), Value::String(self.request_id.clone()));
        }
    }
}

/// Sends what was decided, as badly as the fault wants it.
pub(crate) async fn send(peer: &Peer, decision: Decision) -> Response<Body> {
    let Decision { answer, text, rate, request_id, fault } = decision;
    match fault {
        Some(Kind::Word(Word::ResetBeforeCommit | Word::ResetAfterCommit)) => peer.reset(),
        Some(Kind::Delay(delay)) if !delay.before_commit => {
            tokio::time::sleep(Duration::from_millis(delay.delay_ms)).await;
        }
        _ => {}
    }
    let Answer { status, body } = answer.unwrap_or(Answer { status: 500, body: None });
    let is_text = text.is_some();
    let body = text.or_else(|| body.map(|body| body.to_string())).unwrap_or_default();
    let mut response = match &fault {
        Some(Kind::Word(Word::Truncate)) => truncated(&body, body.len() / 2, false),
        Some(Kind::Truncate(cut)) => truncated(&body, cut.truncate, cut.honest_length),
        _ => Response::new(Body::from(body)),
    };
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    // A 204 has the type too, without a body, as the real API.
    let kind = if is_text { "text/html" } else { "application/json; charset=utf-8" };
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert("ratelimit-limit", HeaderValue::from(rate.limit));
    headers.insert("ratelimit-remaining", HeaderValue::from(rate.remaining));
    headers.insert("ratelimit-reset", HeaderValue::from(rate.reset));
    if let Some(seconds) = rate.retry_after {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if let Ok(id) = HeaderValue::from_str(&request_id) {
        headers.insert("x-request-id", id);
    }
    response
}

/// The first `bytes` of a body: under its full length and followed by the end of the connection, or under its own.
fn truncated(body: &str, bytes: usize, honest: bool) -> Response<Body> {
    let head = Bytes::copy_from_slice(&body.as_bytes()[..bytes.min(body.len())]);
    if honest {
        return Response::new(Body::from(head));
    }
    let stream = futures::stream::unfold(Some(head), |head| async move {
        let Some(head) = head else {
            // The first part must have left before the connection breaks.
            tokio::time::sleep(Duration::from_millis(30)).await;
            return Some((Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset)), None));
        };
        Some((Ok(head), None))
    });
    let mut response = Response::new(Body::from_stream(stream));
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    response
}

/// A body that is not the API's.
pub(crate) fn plain(status: StatusCode, body: &str, kind: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_owned()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// What the metadata service says.
pub(crate) fn say(said: Metadata) -> Response<Body> {
    match said {
        Metadata::Text(text) => plain(StatusCode::OK, &text, "text/plain; charset=utf-8"),
        Metadata::Json(value) => plain(StatusCode::OK, &value.to_string(), "application/json"),
        Metadata::NotFound => plain(StatusCode::NOT_FOUND, "not found", "text/plain; charset=utf-8"),
        Metadata::MovedTo(path) => {
            let mut response = plain(StatusCode::MOVED_PERMANENTLY, "", "text/plain; charset=utf-8");
            if let Ok(path) = HeaderValue::from_str(&path) {
                response.headers_mut().insert(header::LOCATION, path);
            }
            response
        }
    }
}
