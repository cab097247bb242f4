//! Requests and answers without HTTP around them.
//!
//! Responsibility: the values that go in and out of the core, and the error bodies of the API.

use serde_json::{Map, Value, json};

/// One call of the API, authenticated already.
#[derive(Debug, Clone)]
pub struct Request {
    /// HTTP method in capitals.
    pub method: String,
    /// Path as sent, still percent-encoded, without the query.
    pub path: String,
    /// Query parameters in order, decoded.
    pub query: Vec<(String, String)>,
    /// Body as sent; empty when there was none.
    pub body: Vec<u8>,
}

impl Request {
    /// First value of a query parameter.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The body as a JSON object; an empty body is an empty object, so that the message names the missing field.
    ///
    /// # Errors
    /// 400 when it is not JSON or not an object.
    pub fn object(&self) -> Result<Map<String, Value>, Refusal> {
        if self.body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Map::new());
        }
        match serde_json::from_slice(&self.body) {
            Ok(Value::Object(object)) => Ok(object),
            _ => Err(Refusal::BadRequest("Request payload could not be parsed.".into())),
        }
    }
}

/// The text in a field of a body, if the field is there.
///
/// # Errors
/// 422 for another type, null too: a client that sends one has a bug which must not be hidden.
pub(super) fn text<'a>(body: &'a Map<String, Value>, field: &str) -> Result<Option<&'a str>, Refusal> {
    typed(body, field, "a string", Value::as_str)
}

/// The same for a truth value.
///
/// # Errors
/// As [`text`].
pub(super) fn flag(body: &Map<String, Value>, field: &str) -> Result<Option<bool>, Refusal> {
    typed(body, field, "true or false", Value::as_bool)
}

/// The same for a number that is an identity.
///
/// # Errors
/// As [`text`].
pub(super) fn number(body: &Map<String, Value>, field: &str) -> Result<Option<u64>, Refusal> {
    typed(body, field, "an integer", Value::as_u64)
}

/// The same for an object.
///
/// # Errors
/// As [`text`].
pub(super) fn object<'a>(
    body: &'a Map<String, Value>,
    field: &str,
) -> Result<Option<&'a Map<String, Value>>, Refusal> {
    typed(body, field, "an object", Value::as_object)
}

fn typed<'a, T>(
    body: &'a Map<String, Value>,
    field: &str,
    kind: &str,
    read: impl Fn(&'a Value) -> Option<T>,
) -> Result<Option<T>, Refusal> {
    let Some(value) = body.get(field) else { return Ok(None) };
    read(value).map(Some).ok_or_else(|| Refusal::unprocessable(format!("{field} must be {kind}.")))
}

/// What the API says to one request.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// HTTP status code.
    pub status: u16,
    /// JSON body; `None` for 204.
    pub body: Option<Value>,
}

impl Answer {
    /// An answer with a JSON body.
    pub fn json(status: u16, body: Value) -> Self {
        Self { status, body: Some(body) }
    }

    /// 204.
    pub fn no_content() -> Self {
        Self { status: 204, body: None }
    }
}

/// Why the API does not do what it was asked. The texts are those seen in the real API's answers where one was seen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such resource, or not visible yet.
    #[error("The resource you were accessing could not be found.")]
    NotFound,
    /// The path exists, not with this method.
    #[error("The requested method is not allowed for this resource.")]
    MethodNotAllowed,
    /// The body cannot be read.
    #[error("{0}")]
    BadRequest(String),
    /// Validation, limits and transient locks alike.
    #[error("{0}")]
    Unprocessable(String),
    /// Not allowed in the resource's state.
    #[error("{0}")]
    Forbidden(String),
    /// Somebody else has what was asked for.
    #[error("{0}")]
    Conflict(String),
    /// What must be so before is not.
    #[error("{0}")]
    Precondition(String),
    /// The tag endpoints' own error shape.
    #[error("{0}")]
    BadTag(String),
}

impl Refusal {
    /// 422 with this message.
    pub fn unprocessable(message: impl Into<String>) -> Self {
        Self::Unprocessable(message.into())
    }

    /// The answer that carries this refusal.
    pub fn answer(&self) -> Answer {
        let (status, id) = match self {
            Self::NotFound => (404, "not_found"),
            Self::MethodNotAllowed => (405, "method_not_allowed"),
            Self::BadRequest(_) => (400, "bad_request"),
            Self::Unprocessable(_) => (422, "unprocessable_entity"),
            Self::Forbidden(_) => (403, "forbidden"),
            Self::Conflict(_) => (409, "conflict"),
            Self::Precondition(_) => (412, "precondition_failed"),
            Self::BadTag(_) => {
                let body =
                    json!({"error": self.to_string(), "messages": null, "root_causes": [self.to_string()]});
                return Answer::json(400, body);
            }
        };
        Answer::json(status, json!({"id": id, "message": self.to_string()}))
    }
}
