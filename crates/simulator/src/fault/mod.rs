//! Faults on demand.
//!
//! Responsibility: which fault a request meets. A fault names a route, how often it strikes and what it does:
//!
//! ```json
//! [{"route": "POST /v2/droplets", "times": 1, "kind": "reset_after_commit"},
//!  {"route": "GET /v2/droplets/*", "times": null, "kind": {"status": 503, "body": "<html>bad gateway</html>"}},
//!  {"route": "* /v2/**", "skip": 3, "kind": {"delay_ms": 2000}}]
//! ```
//!
//! In a route `*` stands for any method or one segment, `**` at the end for any rest. The first fault that matches and
//! has strikes left is taken. One that could never strike is refused: whoever waits for it would wait for ever.

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};

use crate::cloud::Variant;

/// One fault.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Method and path, see the module.
    pub route: String,
    /// Strikes left; `null` or absent for any number.
    #[serde(default)]
    pub times: Option<u32>,
    /// Matching requests that pass unharmed first.
    #[serde(default)]
    pub skip: u32,
    /// What it does.
    pub kind: Kind,
}

/// What a fault does.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Kind {
    /// One of the words.
    Word(Word),
    /// Another answer.
    Status(StatusFault),
    /// The right answer, late.
    Delay(DelayFault),
    /// The answer's beginning only.
    Truncate(TruncateFault),
    /// The Droplet that is created takes another course; see [`Variant`].
    Create(CreateFault),
}

/// Faults without a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Word {
    /// The connection is reset, nothing was done.
    ResetBeforeCommit,
    /// It was done, then the connection is reset: the reply is lost.
    ResetAfterCommit,
    /// The answer is cut in the middle of its body.
    Truncate,
    /// The created Droplet vanishes at once.
    Vanish,
    /// The created Droplet stays `new`.
    StuckNew,
    /// The create action errors.
    ActionErrored,
}

/// An answer of another status.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatusFault {
    /// HTTP status.
    pub status: u16,
    /// Body: a string is sent as HTML, anything else as JSON; absent means the API's usual one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Value>,
    /// Seconds for a `retry-after` header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u32>,
    /// Whether the request is carried out all the same.
    #[serde(default)]
    pub after_commit: bool,
}

/// A late answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DelayFault {
    /// Wall-clock milliseconds between doing it and answering, with a driven clock too.
    pub delay_ms: u64,
    /// Wait before doing it instead.
    #[serde(default)]
    pub before_commit: bool,
}

/// A cut answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TruncateFault {
    /// Bytes of the body that are sent.
    pub truncate: usize,
    /// Whether `content-length` claims no more than that: well-formed HTTP around broken JSON.
    #[serde(default)]
    pub honest_length: bool,
}

/// Another course for a created Droplet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateFault {
    /// Which.
    pub create: Variant,
}

/// Told apart by their first word, so that an error names what is wrong with the one that was meant.
impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        fn read<T: DeserializeOwned, E: serde::de::Error>(value: Value) -> Result<T, E> {
            serde_json::from_value(value).map_err(E::custom)
        }
        let value = Value::deserialize(deserializer)?;
        if value.is_string() {
            read(value).map(Self::Word)
        } else if value.get("status").is_some() {
            read(value).map(Self::Status)
        } else if value.get("delay_ms").is_some() {
            read(value).map(Self::Delay)
        } else if value.get("truncate").is_some() {
            read(value).map(Self::Truncate)
        } else if value.get("create").is_some() {
            read(value).map(Self::Create)
        } else {
            Err(D::Error::custom(
                "a word, or an object with status, delay_ms, truncate or create, is expected",
            ))
        }
    }
}

impl Fault {
    /// Reads one fault or a list of them.
    ///
    /// # Errors
    /// Names the field that can't be read, or for which a fault could never strike.
    pub fn read_all(text: &[u8]) -> Result<Vec<Self>, String> {
        let value: Value = serde_json::from_slice(text).map_err(|error| format!("no JSON: {error}"))?;
        let Value::Array(list) = value else { return Self::read(value).map(|fault| vec![fault]) };
        let numbered = list.into_iter().enumerate();
        numbered.map(|(n, value)| Self::read(value).map_err(|error| format!("[{n}].{error}"))).collect()
    }

    fn read(value: Value) -> Result<Self, String> {
        let fault: Self = serde_path_to_error::deserialize(value).map_err(|error| error.to_string())?;
        fault.check_route().map_err(|wrong| format!("route: {:?}: {wrong}", fault.route))?;
        if fault.times == Some(0) {
            return Err("times: 0: it would never strike; absent means always".into());
        }
        if let Kind::Status(StatusFault { status, .. }) = &fault.kind
            && !(200..=599).contains(status)
        {
            return Err(format!("kind.status: {status}: an answer has one from 200 to 599"));
        }
        if fault.kind.variant().is_some() && !matches(&fault.route, "POST", "/v2/droplets") {
            return Err(format!(
                "kind: only POST /v2/droplets creates a Droplet, and {:?} is not it",
                fault.route
            ));
        }
        Ok(fault)
    }

    /// Whether any request can match.
    fn check_route(&self) -> Result<(), &'static str> {
        const METHODS: [&str; 6] = ["*", "GET", "POST", "PUT", "PATCH", "DELETE"];
        let Some((method, path)) = self.route.split_once(' ') else {
            return Err("write a method and a path, like \"POST /v2/droplets\"");
        };
        if !METHODS.contains(&method) {
            return Err("the method is GET, POST, PUT, PATCH, DELETE or * for any");
        }
        let Some(path) = path.strip_prefix('/') else { return Err("the path begins with /") };
        let segments: Vec<_> = path.split('/').collect();
        if path.contains(['?', ' ']) || segments.contains(&"") {
            return Err("a path is segments between single slashes, without a query");
        }
        if segments.iter().rev().skip(1).any(|segment| *segment == "**") {
            return Err("** stands for any rest, so nothing can follow it");
        }
        if !["v2", "*", "**"].contains(&segments[0]) {
            return Err("requests that faults can meet are below /v2");
        }
        Ok(())
    }
}

impl Kind {
    /// The bent course of a create, if this is one.
    pub fn variant(&self) -> Option<Variant> {
        match self {
            Self::Word(Word::Vanish) => Some(Variant::Vanish(0)),
            Self::Word(Word::StuckNew) => Some(Variant::StuckNew),
            Self::Word(Word::ActionErrored) => Some(Variant::ActionErrored),
            Self::Create(fault) => Some(fault.create.clone()),
            _ => None,
        }
    }

    /// Whether the request is carried out under this fault.
    pub fn commits(&self) -> bool {
        match self {
            Self::Word(word) => *word != Word::ResetBeforeCommit,
            Self::Status(fault) => fault.after_commit,
            _ => true,
        }
    }
}

/// The API's usual body for a status.
pub fn usual_body(status: u16) -> Value {
    let (id, message) = match status {
        400 => ("bad_request", "Request payload could not be parsed."),
        401 => ("unauthorized", "Unable to authenticate you."),
        403 => ("forbidden", "You do not have access for the attempted action."),
        404 => ("not_found", "The resource you were accessing could not be found."),
        409 => ("conflict", "The request could not be completed due to a conflict."),
        412 => ("precondition_failed", "The resource is in use."),
        422 => ("unprocessable_entity", "Droplet already has a pending event."),
        429 => ("too_many_requests", "API Rate limit exceeded."),
        503 => ("service_unavailable", "Service Unavailable"),
        _ => ("server_error", "Unexpected server-side error"),
    };
    json!({"id": id, "message": message})
}

/// Takes the first fault that strikes this request, counting it.
pub fn strike(faults: &mut [Fault], method: &str, path: &str) -> Option<Kind> {
    for fault in faults.iter_mut().filter(|fault| matches(&fault.route, method, path)) {
        if fault.times == Some(0) {
            continue;
        }
        if fault.skip > 0 {
            fault.skip -= 1;
            continue;
        }
        if let Some(times) = &mut fault.times {
            *times -= 1;
        }
        return Some(fault.kind.clone());
    }
    None
}

fn matches(route: &str, method: &str, path: &str) -> bool {
    let Some((wanted, pattern)) = route.split_once(' ') else { return false };
    if wanted != "*" && wanted != method {
        return false;
    }
    let mut segments = path.trim_matches('/').split('/');
    for part in pattern.trim_matches('/').split('/') {
        let segment = segments.next();
        match (part, segment) {
            ("**", _) => return true,
            ("*", Some(_)) => {}
            (part, Some(segment)) if part == segment => {}
            _ => return false,
        }
    }
    segments.next().is_none()
}

#[cfg(test)]
mod tests;
