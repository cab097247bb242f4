//! What nobody should write, one row for each field and each kind of bad value: what the API server says of it, and what a node
//! says that meets it in an object which is older than the rule.
//!
//! The rows stand side by side in `docs/bad-input.md`. This crate shows the API server's words, and that no field and no rule of
//! the schema is left out; the agent's kernel tests show the nodes' words.

mod destinations;
mod egress_gateways;
mod health_check;
mod public_ip;
mod selectors;
mod static_routes;

use serde_json::{Value, json};

/// Which object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    StaticRoute,
    EgressGateway,
}

/// What a node does with an object that has the bad value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// Keeps what it has of it, and says why.
    Keeps(String),
    /// Routes nothing of it: reason and message.
    Nothing(&'static str, String),
    /// Stays with the gateways that it had last: reason and message.
    Follows(&'static str, String),
    /// Leaves the second destination out: reason and message.
    LeavesOut(&'static str, String),
    /// Leaves the second gateway out: reason and message.
    WithoutGateway(&'static str, String),
    /// Routes all of it: only a bound is broken, or what it does not know is not there for it.
    Routes,
    /// Is not selected, as the object says.
    Passes,
    /// Goes on with what it knows of that EgressGateway, and says why in a condition.
    Warns(String),
    /// Does not read it: it is the controller's.
    Ignores,
}

/// One row.
#[derive(Clone, Debug)]
pub struct Case {
    pub kind: Kind,
    /// Path of the field in the schema; `[]` is any entry of a list, `{}` any of a map.
    pub field: &'static str,
    /// The bad value, for people.
    pub bad: String,
    /// The whole spec.
    pub spec: Value,
    /// Words of the API server.
    pub refused: String,
    pub node: Node,
}

/// Stands for a destination that no other row has.
pub const OWN: &str = "198.18.0.0/24";

/// Gateways that there are on the stage of the agent's tests.
pub const GATEWAYS: [&str; 2] = ["10.116.0.5", "10.116.0.12"];

/// Every row.
pub fn all() -> Vec<Case> {
    let mut all = Vec::new();
    destinations::rows(Kind::StaticRoute, &mut all);
    static_routes::rows(&mut all);
    health_check::rows(Kind::StaticRoute, &mut all);
    selectors::rows(Kind::StaticRoute, &mut all);
    destinations::rows(Kind::EgressGateway, &mut all);
    egress_gateways::rows(&mut all);
    public_ip::rows(&mut all);
    health_check::rows(Kind::EgressGateway, &mut all);
    selectors::rows(Kind::EgressGateway, &mut all);
    all
}

/// The least that an object of this kind needs.
fn base(kind: Kind) -> Value {
    match kind {
        Kind::StaticRoute => json!({"destinations": [OWN], "gateway": GATEWAYS[0]}),
        Kind::EgressGateway => json!({"destinations": [OWN], "publicIP": "Ephemeral"}),
    }
}

/// A row whose spec is [`base`] changed as by a merge patch (RFC 7386): null takes away.
fn row(
    kind: Kind,
    field: &'static str,
    bad: impl Into<String>,
    patch: &Value,
    refused: impl Into<String>,
    node: Node,
) -> Case {
    let mut spec = base(kind);
    merge(&mut spec, patch);
    Case { kind, field, bad: bad.into(), spec, refused: refused.into(), node }
}

fn merge(value: &mut Value, patch: &Value) {
    let Some(changes) = patch.as_object() else {
        *value = patch.clone();
        return;
    };
    if !value.is_object() {
        *value = json!({});
    }
    for (name, change) in changes {
        if change.is_null() {
            value.as_object_mut().unwrap().remove(name);
        } else {
            merge(&mut value[name], change);
        }
    }
}

/// What a node does that can't read the object.
fn unread(kind: Kind, words: impl Into<String>) -> Node {
    match kind {
        Kind::StaticRoute => Node::Keeps(words.into()),
        Kind::EgressGateway => Node::Warns(words.into()),
    }
}

/// What a node does with what only a StaticRoute means to it.
fn of_route(kind: Kind, node: Node) -> Node {
    if kind == Kind::StaticRoute { node } else { Node::Ignores }
}
