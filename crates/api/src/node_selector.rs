//! Which nodes: a Kubernetes label selector with bounds, and the one function that evaluates it.
//!
//! The agent asks it about its own node, the controller about all of them; because both ask the same function, `nodes` in a
//! status counts exactly the nodes that route. Why a label selector: `docs/decisions/0015-selecting-nodes-by-labels.md`.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

// The syntax of keys and values: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/. Rules and not patterns:
// the API server says a bare regular expression where a pattern does not fit.

/// Nodes by their labels: every requirement must hold. Without any, every node is selected.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeSelector {
    /// Labels that a node must have with exactly these values, at most 16.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend(
        "maxProperties" = 16,
        "x-kubernetes-validations" = [{
            "rule": "self.all(key, key.size() <= 317 && key.matches('^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$'))",
            "message": "a key is no key of a label; write it like pool or example.com/pool",
        }],
        "additionalProperties" = {
            "type": "string",
            "maxLength": 63,
            "x-kubernetes-validations": [{
                "rule": "self.matches('^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$')",
                "message": "is no value of a label; write at most 63 letters, digits, '-', '_' and '.', a letter or digit first and last",
            }],
        }
    ))]
    pub match_labels: BTreeMap<String, String>,

    /// Requirements beyond equality, at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub match_expressions: Vec<NodeRequirement>,
}

/// One requirement of a label.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(self.operator in ['In', 'NotIn']) == (has(self.values) && self.values.size() > 0)").message("operators In and NotIn need values, Exists and DoesNotExist take none")
)]
pub struct NodeRequirement {
    /// Key of the label, such as `doks.digitalocean.com/node-pool`.
    #[schemars(length(min = 1, max = 317))]
    #[x_kube(
        validation = Rule::new("self.matches('^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$')").message("is no key of a label; write it like pool or example.com/pool")
    )]
    pub key: String,

    /// How the label relates to `values`.
    pub operator: NodeOperator,

    /// The values of `In` and `NotIn`, 1 to 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 63)))]
    #[x_kube(
        validation = Rule::new("self.all(value, value.matches('^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$'))").message("a value is no value of a label; write at most 63 letters, digits, '-', '_' and '.', a letter or digit first and last")
    )]
    pub values: Vec<String>,
}

/// How a label relates to values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum NodeOperator {
    /// The node has the label with one of the values.
    In,
    /// The node has the label with none of the values, or does not have it.
    NotIn,
    /// The node has the label.
    Exists,
    /// The node does not have it.
    DoesNotExist,
}

/// A selector that no node can meet, or that says nothing; the API server refuses it, but the object may be older than that rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSelector {
    /// An operator without the values that it needs, or with values that it does not take.
    #[error("spec.nodeSelector.matchExpressions[{index}]: {operator:?} on '{key}' {}", if *.needs_values { "needs values" } else { "takes no values" })]
    Requirement {
        /// Its place in the list.
        index: usize,
        /// Its key.
        key: String,
        /// Its operator.
        operator: NodeOperator,
        /// Whether the operator needs values and has none, or takes none and has some.
        needs_values: bool,
    },
    /// No label has such a key.
    #[error("{field}: '{key}' is no key of a label; write it like pool or example.com/pool")]
    Key {
        /// Path of the field.
        field: String,
        /// What stands there.
        key: String,
    },
    /// No label has such a value.
    #[error("{field}: '{value}' is no value of a label; it has at most 63 letters, digits, '-', '_' and '.'")]
    Value {
        /// Path of the field.
        field: String,
        /// What stands there.
        value: String,
    },
}

impl NodeSelector {
    /// Whether a node with these labels is selected.
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> Result<bool, InvalidSelector> {
        for (key, value) in &self.match_labels {
            check_label("spec.nodeSelector.matchLabels", key, [value])?;
        }
        let mut holds = self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value));
        for (index, requirement) in self.match_expressions.iter().enumerate() {
            holds &= requirement.check(index)?.holds(labels);
        }
        Ok(holds)
    }
}

impl NodeRequirement {
    fn check(&self, index: usize) -> Result<&Self, InvalidSelector> {
        let needs_values = matches!(self.operator, NodeOperator::In | NodeOperator::NotIn);
        if needs_values == self.values.is_empty() {
            let (key, operator) = (self.key.clone(), self.operator);
            return Err(InvalidSelector::Requirement { index, key, operator, needs_values });
        }
        check_label(&format!("spec.nodeSelector.matchExpressions[{index}]"), &self.key, &self.values)?;
        Ok(self)
    }

    fn holds(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        match self.operator {
            NodeOperator::In => value.is_some_and(|value| self.values.contains(value)),
            NodeOperator::NotIn => !value.is_some_and(|value| self.values.contains(value)),
            NodeOperator::Exists => value.is_some(),
            NodeOperator::DoesNotExist => value.is_none(),
        }
    }
}

fn check_label<'a>(
    field: &str,
    key: &str,
    values: impl IntoIterator<Item = &'a String>,
) -> Result<(), InvalidSelector> {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let is_domain = |prefix: &str| {
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
        prefix.len() <= 253 && prefix.bytes().all(fits)
    };
    if !is_name(name) || prefix.is_some_and(|prefix| prefix.is_empty() || !is_domain(prefix)) {
        return Err(InvalidSelector::Key { field: field.to_owned(), key: key.to_owned() });
    }
    match values.into_iter().find(|value| !value.is_empty() && !is_name(value)) {
        Some(value) => Err(InvalidSelector::Value { field: field.to_owned(), value: value.clone() }),
        None => Ok(()),
    }
}

/// 1 to 63 letters, digits, `-`, `_` and `.`, with a letter or digit at both ends.
fn is_name(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let is_edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= 63
        && is_edge(bytes.first())
        && is_edge(bytes.last())
        && bytes.iter().all(|byte| fits(*byte))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn selects(selector: serde_json::Value, labels: &[(&str, &str)]) -> Result<bool, InvalidSelector> {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        serde_json::from_value::<NodeSelector>(selector).unwrap().selects(&labels)
    }

    #[test]
    fn every_requirement_must_hold_as_in_kubernetes() {
        let gpu = [("pool", "gpu"), ("zone", "a")];
        let one = |key: &str, operator: &str, values: &[&str]| json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]});
        for (selector, labels, expected) in [
            (json!({}), &gpu[..], true),
            (json!({}), &[], true),
            (json!({"matchLabels": {"pool": "gpu"}}), &gpu, true),
            (json!({"matchLabels": {"pool": "gpu", "zone": "b"}}), &gpu, false),
            (json!({"matchLabels": {"pool": ""}}), &[], false),
            (one("pool", "In", &["cpu", "gpu"]), &gpu, true),
            (one("pool", "In", &["cpu"]), &gpu, false),
            (one("pool", "In", &["gpu"]), &[], false),
            (one("pool", "NotIn", &["gpu"]), &gpu, false),
            (one("pool", "NotIn", &["cpu"]), &gpu, true),
            (one("pool", "NotIn", &["gpu"]), &[], true),
            (one("pool", "Exists", &[]), &gpu, true),
            (one("pool", "Exists", &[]), &[], false),
            (one("pool", "DoesNotExist", &[]), &gpu, false),
            (one("pool", "DoesNotExist", &[]), &[], true),
        ] {
            assert_eq!(selects(selector.clone(), labels), Ok(expected), "{selector} on {labels:?}");
        }
    }

    #[test]
    fn a_requirement_that_says_nothing_is_named() {
        let values = json!({"matchExpressions": [{"key": "pool", "operator": "In"}]});
        assert_eq!(
            selects(values, &[]).unwrap_err().to_string(),
            "spec.nodeSelector.matchExpressions[0]: In on 'pool' needs values"
        );
        let none = json!({"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "x", "operator": "Exists", "values": ["y"]}]});
        assert_eq!(
            selects(none, &[]).unwrap_err().to_string(),
            "spec.nodeSelector.matchExpressions[0]: Exists on 'x' takes no values"
        );
    }

    #[test]
    fn what_no_label_can_be_is_named() {
        for (selector, words) in [
            (
                json!({"matchLabels": {"pool": "not a label"}}),
                "spec.nodeSelector.matchLabels: 'not a label' is no value of a label; it has at most 63 letters, digits, '-', '_' and '.'",
            ),
            (
                json!({"matchLabels": {"po ol": "web"}}),
                "spec.nodeSelector.matchLabels: 'po ol' is no key of a label; write it like pool or example.com/pool",
            ),
            (
                json!({"matchExpressions": [{"key": "/pool", "operator": "Exists"}]}),
                "spec.nodeSelector.matchExpressions[0]: '/pool' is no key of a label; write it like pool or example.com/pool",
            ),
        ] {
            assert_eq!(selects(selector, &[]).unwrap_err().to_string(), words);
        }
        let real = json!({"matchLabels": {"doks.digitalocean.com/node-pool": "web", "A_b.c": ""}});
        assert_eq!(selects(real, &[]), Ok(false));
    }
}
