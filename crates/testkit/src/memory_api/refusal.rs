//! What the API server says when it does not do what it was asked.

use serde_json::{Value, json};

use super::store::Kind;

/// A `Status` of failure.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) code: u16,
    reason: &'static str,
    message: String,
}

impl Refusal {
    pub(super) fn not_found(kind: &Kind, name: &str) -> Self {
        Self { code: 404, reason: "NotFound", message: format!("{} {name:?} not found", resource(kind)) }
    }

    pub(super) fn unknown_path() -> Self {
        let message = "the server could not find the requested resource".to_owned();
        Self { code: 404, reason: "NotFound", message }
    }

    pub(super) fn already_exists(kind: &Kind, name: &str) -> Self {
        let message = format!("{} {name:?} already exists", resource(kind));
        Self { code: 409, reason: "AlreadyExists", message }
    }

    pub(super) fn conflict(kind: &Kind, name: &str) -> Self {
        let words =
            "the object has been modified; please apply your changes to the latest version and try again";
        let message = format!("Operation cannot be fulfilled on {} {name:?}: {words}", resource(kind));
        Self { code: 409, reason: "Conflict", message }
    }

    pub(super) fn invalid(kind: &Kind, name: &str) -> Self {
        let message = format!("{} {name:?} is invalid: metadata.uid: field is immutable", resource(kind));
        Self { code: 422, reason: "Invalid", message }
    }

    pub(super) fn gone_under(kind: &Kind, name: &str, uid: &str) -> Self {
        let words = format!(
            "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
        );
        let message = format!("Operation cannot be fulfilled on {} {name:?}: {words}", resource(kind));
        Self { code: 409, reason: "Conflict", message }
    }

    pub(super) fn apply_conflict(owner: &str, fields: usize) -> Self {
        let message = format!("Apply failed with {fields} conflict: conflict with {owner:?}");
        Self { code: 409, reason: "Conflict", message }
    }

    pub(super) fn internal(words: &str) -> Self {
        Self { code: 500, reason: "", message: words.to_owned() }
    }

    pub(super) fn bad_request(words: impl Into<String>) -> Self {
        Self { code: 400, reason: "BadRequest", message: words.into() }
    }

    pub(super) fn status(&self) -> Value {
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
               "message": self.message, "reason": self.reason, "code": self.code})
    }
}

fn resource(kind: &Kind) -> String {
    if kind.group.is_empty() { kind.plural.clone() } else { format!("{}.{}", kind.plural, kind.group) }
}
