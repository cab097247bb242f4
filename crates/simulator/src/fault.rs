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
//! has strikes left is taken.

use serde::{Deserialize, Serialize};
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    let Some((wanted, pattern)) = route.trim().split_once(char::is_whitespace) else { return false };
    if wanted != "*" && !wanted.eq_ignore_ascii_case(method) {
        return false;
    }
    let mut segments = path.trim_matches('/').split('/');
    for part in pattern.trim().trim_matches('/').split('/') {
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
mod tests {
    use super::*;

    #[test]
    fn routes_match_by_method_segment_and_rest() {
        let cases = [
            ("POST /v2/droplets", "POST", "/v2/droplets", true),
            ("POST /v2/droplets", "GET", "/v2/droplets", false),
            ("POST /v2/droplets", "POST", "/v2/droplets/1/actions", false),
            ("GET /v2/droplets/*", "GET", "/v2/droplets/1", true),
            ("GET /v2/droplets/*", "GET", "/v2/droplets", false),
            ("* /v2/**", "DELETE", "/v2/droplets/1", true),
            ("* /v2/**", "GET", "/v2", true),
        ];
        for (route, method, path, expected) in cases {
            assert_eq!(matches(route, method, path), expected, "{route} against {method} {path}");
        }
    }

    #[test]
    fn strikes_are_counted_and_skipped() {
        let text = r#"[{"route": "GET /v2/account", "times": 1, "skip": 1, "kind": {"status": 500}}]"#;
        let mut faults: Vec<Fault> = serde_json::from_str(text).unwrap();
        let struck: Vec<bool> = (0..4).map(|_| strike(&mut faults, "GET", "/v2/account").is_some()).collect();
        assert_eq!(struck, [false, true, false, false]);
    }

    #[test]
    fn every_kind_can_be_written() {
        for kind in [
            r#""reset_before_commit""#,
            r#""vanish""#,
            r#"{"status": 502, "body": "<html></html>"}"#,
            r#"{"delay_ms": 5}"#,
            r#"{"truncate": 10, "honest_length": true}"#,
            r#"{"create": {"hidden_gets": 3}}"#,
        ] {
            serde_json::from_str::<Kind>(kind).unwrap_or_else(|error| panic!("{kind}: {error}"));
        }
        assert!(serde_json::from_str::<Kind>(r#"{"delay": 5}"#).is_err());
    }
}
