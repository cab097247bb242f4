//! What a token may do.
//!
//! Responsibility: the scopes that a call needs, and the fields of an answer that are not shown without theirs, as DigitalOcean's
//! description has them (`security` of each operation, "Requires ... scope" of each field). A call without its scope is a 403.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::str::FromStr;

use serde_json::Value;

use crate::cloud::{Refusal, Request};

/// The scopes of the token.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scopes(Option<BTreeSet<String>>);

/// Separated by commas or white space.
impl FromStr for Scopes {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let words = text.split([',', ' ', '\n']).filter(|word| !word.is_empty());
        Ok(Self(Some(words.map(ToOwned::to_owned).collect())))
    }
}

impl Scopes {
    /// Every scope that there is.
    pub fn all() -> Self {
        Self::default()
    }

    fn allow(&self, scope: &str) -> bool {
        self.0.as_ref().is_none_or(|scopes| scopes.contains(scope))
    }

    /// # Errors
    /// 403 when the call needs a scope that the token has not.
    pub(crate) fn check(&self, request: &Request) -> Result<(), Refusal> {
        let Self(Some(_)) = self else { return Ok(()) };
        if needed(request).into_iter().all(|scope| self.allow(scope)) {
            return Ok(());
        }
        Err(Refusal::Forbidden("You are not authorized to perform this operation.".into()))
    }

    /// Takes out of an answer what the token may not read.
    pub(crate) fn hide(&self, answer: &mut Value) {
        let (Self(Some(_)), Some(roots)) = (self, answer.as_object_mut()) else { return };
        for (key, value) in roots {
            let hidden: Vec<&str> = HIDDEN
                .iter()
                .filter(|(kind, _, scope)| key.trim_end_matches('s') == *kind && !self.allow(scope))
                .map(|(_, field, _)| *field)
                .collect();
            let one = |resource: &mut Value| {
                if let Some(resource) = resource.as_object_mut() {
                    resource.retain(|field, _| !hidden.contains(&field.as_str()));
                }
            };
            match value {
                Value::Array(resources) => resources.iter_mut().for_each(one),
                resource => one(resource),
            }
        }
    }
}

/// Fields of a resource, and the scope without which they are not there.
const HIDDEN: [(&str, &str, &str); 6] = [
    ("droplet", "tags", "tag:read"),
    ("droplet", "vpc_uuid", "vpc:read"),
    ("droplet", "image", "image:read"),
    ("firewall", "tags", "tag:read"),
    ("firewall", "droplet_ids", "droplet:read"),
    ("reserved_ip", "droplet", "droplet:read"),
];

/// The scopes of a call by method and path; none for one that is not there.
pub fn of_call(method: &str, path: &str) -> &'static [&'static str] {
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    let Some(("v2", path)) = segments.split_first().map(|(first, rest)| (*first, rest)) else { return &[] };
    match (method, path) {
        ("GET", ["account"]) => &["account:read"],
        ("GET", ["account", "keys", ..]) => &["ssh_key:read"],
        ("POST", ["account", "keys"]) => &["ssh_key:create"],
        ("PUT", ["account", "keys", _]) => &["ssh_key:update"],
        ("DELETE", ["account", "keys", _]) => &["ssh_key:delete"],
        ("GET", ["regions"]) => &["regions:read"],
        ("GET", ["sizes"]) => &["sizes:read", "regions:read"],
        ("GET", ["images", ..]) => &["image:read"],
        ("GET", ["vpcs", ..]) => &["vpc:read"],
        ("GET", ["actions", ..]) => &["actions:read"],
        ("GET", ["projects", ..]) => &["project:read"],
        ("POST", ["projects", _, "resources"]) => &["project:assign_resource"],
        ("POST", ["projects"]) => &["project:create"],
        ("PUT" | "PATCH", ["projects", _]) => &["project:update"],
        ("DELETE", ["projects", _]) => &["project:delete"],

        // Before the Droplets' own.
        ("GET", ["droplets", _, "firewalls"] | ["firewalls", ..]) => &["firewall:read"],
        ("POST", ["firewalls"]) => &["firewall:create"],
        ("DELETE", ["firewalls", _]) => &["firewall:delete"],
        ("PUT" | "POST" | "DELETE", ["firewalls", ..]) => &["firewall:update"],

        ("GET", ["droplets", ..]) => &["droplet:read"],
        ("POST", ["droplets"]) => &["droplet:create"],
        ("POST", ["droplets", ..]) => &["droplet:update"],
        ("DELETE", ["droplets", ..]) => &["droplet:delete"],

        ("GET", ["tags", ..]) => &["tag:read"],
        ("POST", ["tags", ..]) => &["tag:create"],
        ("DELETE", ["tags", ..]) => &["tag:delete"],

        ("GET", ["reserved_ips" | "reserved_ipv6", ..]) => &["reserved_ip:read"],
        ("POST", ["reserved_ips"]) => &["reserved_ip:create"],
        ("POST", ["reserved_ips", ..]) => &["reserved_ip:update"],
        ("DELETE", ["reserved_ips", ..]) => &["reserved_ip:delete"],
        _ => &[],
    }
}

/// Every scope that a request needs.
pub(crate) fn needed(request: &Request) -> Vec<&'static str> {
    let mut needed = of_call(&request.method, &request.path).to_vec();
    needed.extend(of_fields(request));
    needed
}

/// What the fields of a body, and the filter of a list, need beyond that.
fn of_fields(request: &Request) -> Vec<&'static str> {
    let Ok(body) = request.object() else { return Vec::new() };
    let names = |field: &str| {
        body.get(field).is_some_and(|value| match value {
            Value::Null => false,
            Value::Array(values) => !values.is_empty(),
            _ => true,
        })
    };
    let mut needed = Vec::new();
    let path = request.path.trim_matches('/');
    if path == "v2/droplets" && request.method == "POST" {
        let fields = [
            ("tags", "tag:create"),
            ("vpc_uuid", "vpc:read"),
            ("image", "image:read"),
            ("ssh_keys", "ssh_key:read"),
        ];
        needed.extend(fields.iter().filter(|(field, _)| names(field)).map(|(_, scope)| *scope));
    }
    if path.starts_with("v2/firewalls") {
        let rules =
            ["inbound_rules", "outbound_rules"].into_iter().filter_map(|field| body.get(field)?.as_array());
        let peers =
            rules.flatten().flat_map(|rule| [&rule["sources"]["tags"], &rule["destinations"]["tags"]]);
        let tags_in_rules = peers.filter_map(Value::as_array).any(|tags| !tags.is_empty());
        if names("tags") || tags_in_rules {
            needed.extend(["tag:create", "tag:read"]);
        }
        if names("droplet_ids") {
            needed.push("droplet:read");
        }
    }
    if request.parameter("tag_name").is_some() {
        needed.push("tag:read");
    }
    needed
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn request(method: &str, path: &str, body: &Value) -> Request {
        let query = Vec::new();
        Request { method: method.into(), path: path.into(), query, body: body.to_string().into_bytes() }
    }

    #[test]
    fn a_field_needs_its_scope_only_when_it_says_something() {
        let scopes: Scopes = "droplet:create, firewall:create,firewall:update".parse().unwrap();
        let check = |path: &str, body: &Value| scopes.check(&request("POST", path, body)).is_ok();
        assert!(check("/v2/droplets", &json!({"name": "a", "tags": [], "ssh_keys": null})));
        for field in ["tags", "vpc_uuid", "image", "ssh_keys"] {
            assert!(!check("/v2/droplets", &json!({"name": "a", field: ["x"]})), "{field}");
        }
        let rule = |peers: &Value| json!({"name": "a", "inbound_rules": [{"sources": peers}]});
        assert!(check("/v2/firewalls", &rule(&json!({"addresses": ["192.0.2.1"]}))));
        assert!(!check("/v2/firewalls", &rule(&json!({"tags": ["x"]}))));
        assert!(!check("/v2/firewalls/a/tags", &json!({"tags": ["x"]})));
        assert!(!check("/v2/firewalls/a/droplets", &json!({"droplet_ids": [1]})));
        assert!(Scopes::all().check(&request("DELETE", "/v2/tags/a", &Value::Null)).is_ok());
    }

    #[test]
    fn what_may_not_be_read_is_not_there() {
        let scopes: Scopes = "droplet:read".parse().unwrap();
        let droplet = json!({"id": 1, "tags": ["a"], "vpc_uuid": "v", "image": {}});
        let mut answer = json!({"droplets": [droplet], "meta": {"total": 1}});
        scopes.hide(&mut answer);
        assert_eq!(answer, json!({"droplets": [{"id": 1}], "meta": {"total": 1}}));
        let mut answer = json!({"firewall": {"id": "f", "tags": ["a"], "droplet_ids": [1]}});
        scopes.hide(&mut answer);
        assert_eq!(answer, json!({"firewall": {"id": "f", "droplet_ids": [1]}}));
    }
}
