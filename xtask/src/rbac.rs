//! deploy/rbac.txt: every verb on every resource for each ServiceAccount, from the rendered manifests.
//!
//! A change of rights is then a line in a diff, whichever file of deploy/ it comes from.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::Value;

use crate::{generated, manifests};

const HEADER: &str = "\
# Everything a ServiceAccount may do: account, where, group/resource[name], verb.
# Generated from deploy/ by `cargo xtask rbac`. Do not edit.
";

/// Writes the list, or compares it. Fails when overlays differ in rights, or on a wildcard.
pub fn run(root: &Path, check: bool) -> Result<()> {
    let mut lists = Vec::new();
    for overlay in manifests::OVERLAYS {
        lists.push(grants(&manifests::render(root, overlay)?).with_context(|| format!("overlay {overlay}"))?);
    }
    let [first, rest @ ..] = lists.as_slice() else { bail!("there is no overlay") };
    if rest.iter().any(|list| list != first) {
        bail!("the overlays {:?} grant different rights", manifests::OVERLAYS);
    }
    let lines = first.iter().fold(HEADER.to_owned(), |list, line| list + line + "\n");
    generated::write_or_compare(&root.join("deploy/rbac.txt"), &lines, check, "cargo xtask rbac")
}

#[derive(Deserialize)]
struct Rule {
    #[serde(rename = "apiGroups", default)]
    groups: Vec<String>,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(rename = "resourceNames", default)]
    names: Vec<String>,
    #[serde(rename = "nonResourceURLs", default)]
    paths: Vec<String>,
    verbs: Vec<String>,
}

fn grants(objects: &[Value]) -> Result<BTreeSet<String>> {
    let mut lines = BTreeSet::new();
    for binding in objects.iter().filter(|object| kind(object).ends_with("RoleBinding")) {
        let scope = match kind(binding) {
            "ClusterRoleBinding" => "cluster".to_owned(),
            _ => format!("namespace/{}", text(binding, "/metadata/namespace")?),
        };
        let rules = rules_of(binding, objects)?;
        let subjects = binding.get("subjects").and_then(Value::as_array).context("a binding has subjects")?;
        for subject in subjects {
            if text(subject, "/kind")? != "ServiceAccount" {
                bail!(
                    "{} binds {}, which is no ServiceAccount",
                    text(binding, "/metadata/name")?,
                    text(subject, "/name")?
                );
            }
            let account = text(subject, "/name")?;
            lines
                .extend(rules.iter().flat_map(right_lines).map(|right| format!("{account} {scope} {right}")));
        }
    }
    if let Some(line) = lines.iter().find(|line| line.contains('*')) {
        bail!("no wildcards: {line}");
    }
    Ok(lines)
}

fn rules_of(binding: &Value, objects: &[Value]) -> Result<Vec<Rule>> {
    let (role_kind, role_name) = (text(binding, "/roleRef/kind")?, text(binding, "/roleRef/name")?);
    let role = objects
        .iter()
        .find(|object| {
            let same_name = text(object, "/metadata/name").is_ok_and(|name| name == role_name);
            let same_place = role_kind == "ClusterRole"
                || object.pointer("/metadata/namespace") == binding.pointer("/metadata/namespace");
            kind(object) == role_kind && same_name && same_place
        })
        .with_context(|| format!("{role_kind} {role_name} is bound and not shipped"))?;
    let rules = role.get("rules").cloned().context("a role has rules")?;
    Ok(serde_json::from_value(rules)?)
}

fn right_lines(rule: &Rule) -> Vec<String> {
    let mut objects: Vec<String> = rule.paths.clone();
    for group in &rule.groups {
        for resource in &rule.resources {
            let full =
                if group.is_empty() { format!("core/{resource}") } else { format!("{group}/{resource}") };
            if rule.names.is_empty() {
                objects.push(full);
            } else {
                objects.extend(rule.names.iter().map(|name| format!("{full}[{name}]")));
            }
        }
    }
    objects.iter().flat_map(|object| rule.verbs.iter().map(move |verb| format!("{object} {verb}"))).collect()
}

fn kind(object: &Value) -> &str {
    object.get("kind").and_then(Value::as_str).unwrap_or_default()
}

fn text<'a>(object: &'a Value, pointer: &str) -> Result<&'a str> {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .with_context(|| format!("{pointer} of a {} is missing", kind(object)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn objects(rules: &Value) -> Vec<Value> {
        vec![
            json!({"kind": "Role", "metadata": {"name": "r", "namespace": "n"}, "rules": rules}),
            json!({"kind": "RoleBinding", "metadata": {"name": "b", "namespace": "n"},
                "roleRef": {"kind": "Role", "name": "r"},
                "subjects": [{"kind": "ServiceAccount", "name": "agent", "namespace": "n"}]}),
        ]
    }

    #[test]
    fn every_verb_on_every_resource_is_a_line() {
        let rules = json!([{"apiGroups": [""], "resources": ["pods", "secrets"], "resourceNames": ["x"], "verbs": ["get", "watch"]}]);
        let lines: Vec<_> = grants(&objects(&rules)).unwrap().into_iter().collect();
        assert_eq!(
            lines,
            [
                "agent namespace/n core/pods[x] get",
                "agent namespace/n core/pods[x] watch",
                "agent namespace/n core/secrets[x] get",
                "agent namespace/n core/secrets[x] watch",
            ]
        );
    }

    #[test]
    fn wildcards_and_roles_of_somebody_else_are_refused() {
        let wildcard = json!([{"apiGroups": [""], "resources": ["*"], "verbs": ["get"]}]);
        assert!(grants(&objects(&wildcard)).unwrap_err().to_string().starts_with("no wildcards"));
        let mut foreign = objects(&json!([]));
        foreign[1]["roleRef"] = json!({"kind": "ClusterRole", "name": "cluster-admin"});
        assert_eq!(
            grants(&foreign).unwrap_err().to_string(),
            "ClusterRole cluster-admin is bound and not shipped"
        );
    }
}
