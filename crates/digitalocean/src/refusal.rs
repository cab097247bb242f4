//! A refusal by the API: its three shapes of error body, and what each means for us.
//!
//! 422 is documented on almost no call and is the most frequent answer. It stands for lasting mistakes as well as for
//! passing locks, so it is told apart by its message. What is not recognised is repeated slowly and never taken as a
//! reason to make something anew.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;

use crate::budget::RateHeaders;
use crate::error::Retry;

/// Longest message kept; the rest of a proxy's error page helps nobody, and messages end up in conditions.
const MESSAGE_CHARS: usize = 300;

/// A passing lock: the API works off one event per Droplet, users report 10 to 60 s.
const BUSY: Duration = Duration::from_secs(10);
/// A quota is raised by people.
const QUOTA: Duration = Duration::from_secs(600);
/// Credentials are mended by people. A rotated token may be tried at once.
const CREDENTIALS: Duration = Duration::from_secs(300);
/// Not understood: slowly.
const SLOW: Duration = Duration::from_secs(120);

/// What a refusal means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RefusalKind {
    /// 400: malformed.
    BadRequest,
    /// 401: the token is wrong or was taken back.
    Unauthorized,
    /// 403: the token lacks a scope, or the thing may not be done.
    Forbidden,
    /// 404 with the API's own body: gone, or not visible yet.
    NotFound,
    /// 409 and 412: read again.
    Conflict,
    /// 422: another event of the Droplet is not finished, or "please try again".
    Busy,
    /// 422: the account's limit is reached.
    Quota,
    /// 422: size, image, region or key can not be had as asked.
    InvalidSpec,
    /// 422: the thing exists already.
    AlreadyExists,
    /// 422 with a text this version does not know.
    Unprocessable,
    /// 429.
    RateLimited,
    /// 5xx.
    Server,
    /// A status or body that is not the API's, a proxy's 404 page or a redirect for example.
    Unexpected,
}

impl RefusalKind {
    /// A word for metrics and event reasons.
    pub fn category(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::Busy => "busy",
            Self::Quota => "quota",
            Self::InvalidSpec => "invalid_spec",
            Self::AlreadyExists => "already_exists",
            Self::Unprocessable => "unprocessable",
            Self::RateLimited => "rate_limited",
            Self::Server => "server_error",
            Self::Unexpected => "unexpected_answer",
        }
    }
}

/// The API said no, or something between us and it did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// What it means.
    pub kind: RefusalKind,
    /// The API's word for it (`unprocessable_entity`), when the body had one.
    pub id: Option<String>,
    /// The API's own sentence, at most 300 characters, without the token should it be echoed.
    pub message: String,
    /// `x-request-id`, for DigitalOcean's support.
    pub request_id: Option<String>,
    /// For 429 and 503: how long the API wants to be left alone.
    pub pause: Option<Duration>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (HTTP {}", self.message, self.status)?;
        if let Some(id) = &self.id {
            write!(f, " {id}")?;
        }
        if let Some(request_id) = &self.request_id {
            write!(f, ", request {request_id}")?;
        }
        f.write_str(")")
    }
}

impl Refusal {
    /// Reads an answer that is no success. `redact` strikes secrets out of text from outside.
    pub(crate) fn read(
        status: u16,
        body: &[u8],
        request_id: Option<String>,
        rate: &RateHeaders,
        now_unix: u64,
        redact: &dyn Fn(&str) -> String,
    ) -> Self {
        let body = ErrorBody::read(body);
        let kind = kind_of(status, &body);
        let pause = match status {
            429 => Some(rate.pause(now_unix)),
            503 => rate.retry_after.map(|_| rate.pause(now_unix)),
            _ => None,
        };
        Self {
            status,
            kind,
            id: body.id.map(|id| shorten(&redact(&id))),
            message: shorten(&redact(&body.message)),
            request_id: request_id.or(body.request_id).map(|id| shorten(&redact(&id))),
            pause,
        }
    }

    /// What to do about it, taking for granted that nothing happened.
    pub fn retry(&self) -> Retry {
        match self.kind {
            RefusalKind::BadRequest | RefusalKind::InvalidSpec => Retry::AfterSpecChange,
            RefusalKind::Unauthorized | RefusalKind::Forbidden => Retry::After(CREDENTIALS),
            RefusalKind::NotFound | RefusalKind::Conflict | RefusalKind::AlreadyExists => Retry::Soon,
            RefusalKind::Busy => Retry::After(BUSY),
            RefusalKind::Quota => Retry::After(QUOTA),
            RefusalKind::Unprocessable | RefusalKind::Unexpected => Retry::After(SLOW),
            RefusalKind::RateLimited => Retry::After(self.pause.unwrap_or(BUSY)),
            RefusalKind::Server => self.pause.map_or(Retry::Soon, Retry::After),
        }
    }
}

fn kind_of(status: u16, body: &ErrorBody) -> RefusalKind {
    match status {
        400 => RefusalKind::BadRequest,
        401 => RefusalKind::Unauthorized,
        403 => RefusalKind::Forbidden,
        // Only the API itself may say that something is gone: after a proxy's 404 page we would make it anew.
        404 if body.id.as_deref() == Some("not_found") => RefusalKind::NotFound,
        409 | 412 => RefusalKind::Conflict,
        422 => kind_of_422(body),
        429 => RefusalKind::RateLimited,
        500..=599 => RefusalKind::Server,
        _ => RefusalKind::Unexpected,
    }
}

/// By substring of the lower-cased message; all of them were seen in the API's answers (bug reports of its
/// clients quote them), none is promised.
fn kind_of_422(body: &ErrorBody) -> RefusalKind {
    const TEXTS: [(&str, RefusalKind); 17] = [
        ("pending event", RefusalKind::Busy),
        ("pending action", RefusalKind::Busy),
        ("try again", RefusalKind::Busy),
        ("is locked", RefusalKind::Busy),
        ("currently locked", RefusalKind::Busy),
        ("exceed your", RefusalKind::Quota),
        ("droplet limit", RefusalKind::Quota),
        ("limit exceeded", RefusalKind::Quota),
        ("limit reached", RefusalKind::Quota),
        ("reached your limit", RefusalKind::Quota),
        ("already exists", RefusalKind::AlreadyExists),
        ("already been taken", RefusalKind::AlreadyExists),
        ("invalid size", RefusalKind::InvalidSpec),
        ("invalid image", RefusalKind::InvalidSpec),
        ("invalid region", RefusalKind::InvalidSpec),
        ("invalid key", RefusalKind::InvalidSpec),
        ("not available in", RefusalKind::InvalidSpec),
    ];
    if body.id.as_deref() == Some("droplet_limit_exceeded") {
        return RefusalKind::Quota;
    }
    let message = body.message.to_lowercase();
    let hit = TEXTS.iter().find(|(text, _)| message.contains(text));
    hit.map_or(RefusalKind::Unprocessable, |(_, kind)| *kind)
}

/// An error body in any of its shapes.
struct ErrorBody {
    id: Option<String>,
    message: String,
    request_id: Option<String>,
}

#[derive(Deserialize)]
struct Usual {
    id: Option<String>,
    message: String,
    request_id: Option<String>,
}

/// The tags API's own shape.
#[derive(Deserialize)]
struct RootCauses {
    error: String,
    #[serde(default)]
    root_causes: Option<Vec<String>>,
}

impl ErrorBody {
    fn read(body: &[u8]) -> Self {
        if let Ok(Usual { id, message, request_id }) = serde_json::from_slice(body) {
            return Self { id, message, request_id };
        }
        if let Ok(RootCauses { error, root_causes }) = serde_json::from_slice(body) {
            let causes = root_causes.unwrap_or_default();
            let message = if causes.is_empty() { error } else { format!("{error}: {}", causes.join("; ")) };
            return Self { id: None, message, request_id: None };
        }
        let text = without_markup(&String::from_utf8_lossy(body));
        let message = if text.is_empty() { "no error message".to_owned() } else { text };
        Self { id: None, message, request_id: None }
    }
}

/// The words of an HTML page on one line.
fn without_markup(page: &str) -> String {
    let mut text = String::new();
    let mut in_tag = false;
    for character in page.chars() {
        match character {
            '<' => in_tag = true,
            '>' if in_tag => {
                in_tag = false;
                text.push(' ');
            }
            _ if in_tag => {}
            other if other.is_control() => text.push(' '),
            other => text.push(other),
        }
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(MESSAGE_CHARS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;
