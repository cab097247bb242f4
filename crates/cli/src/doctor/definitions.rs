//! The definitions (CRDs): there, established, of this version.

use std::collections::BTreeSet;

use egress_runtime::kubernetes::within_deadline;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, Client, ResourceExt};
use serde_json::Value;

use super::Finding;
use crate::output::some;
use crate::view::why;

/// What installs them.
const APPLY: &str = "kubectl apply --server-side -f crds.yaml, or helm upgrade, of the version that you run";

pub(super) async fn look(client: &Client) -> Vec<Finding> {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let mut findings = Vec::new();
    for (_, ours) in egress_api::custom_resource_definitions() {
        let name = ours.name_any();
        findings.push(match within_deadline(definitions.get(&name)).await {
            Ok(theirs) => judge(&ours, &theirs),
            Err(error) if error.is_not_found() => Finding::wrong(&about(&name), "is not installed", APPLY),
            Err(error) => Finding::unknown(&about(&name), why(&error), "ask for the right to read it"),
        });
    }
    findings
}

fn about(name: &str) -> String {
    format!("definition {name}")
}

fn judge(ours: &CustomResourceDefinition, theirs: &CustomResourceDefinition) -> Finding {
    let about = about(&ours.name_any());
    if theirs.metadata.deletion_timestamp.is_some() {
        let fix = "docs/disaster-recovery.md, \"The definitions (CRDs) were deleted\"";
        return Finding::wrong(&about, "is being deleted, and takes all its objects along", fix);
    }
    let conditions = theirs.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let bad = conditions
        .into_iter()
        .find(|one| ["Established", "NamesAccepted"].contains(&one.type_.as_str()) && one.status != "True");
    if let Some(bad) = bad {
        let message = bad.message.clone().unwrap_or_default();
        return Finding::wrong(&about, format!("{} is {}: {message}", bad.type_, bad.status), APPLY);
    }
    for version in &ours.spec.versions {
        let there = theirs.spec.versions.iter().find(|one| one.name == version.name && one.served);
        let Some(there) = there else {
            return Finding::wrong(&about, format!("version {} is not served", version.name), APPLY);
        };
        let has_status = there.subresources.as_ref().is_some_and(|sub| sub.status.is_some());
        if !has_status {
            return Finding::wrong(
                &about,
                "is that of the older StaticRoute operator: without status",
                format!("{APPLY}; your objects stay"),
            );
        }
        let (wanted, found) = (fields(version), fields(there));
        let missing: Vec<String> = wanted.difference(&found).cloned().collect();
        if !missing.is_empty() {
            return Finding::wrong(
                &about,
                format!("is of an older version: it has no {}", some(&missing)),
                APPLY,
            );
        }
        let more: Vec<String> = found.difference(&wanted).cloned().collect();
        if !more.is_empty() {
            let message = format!("is of a newer version than this command line: it has {}", some(&more));
            return Finding::note(&about, message, "use the command line of the version that you run");
        }
    }
    Finding::fine(&about, "is installed and of this version")
}

fn fields(version: &impl serde::Serialize) -> BTreeSet<String> {
    let version = serde_json::to_value(version).unwrap_or_default();
    let mut found = BTreeSet::new();
    walk(&version["schema"]["openAPIV3Schema"], "", &mut found);
    found
}

fn walk(schema: &Value, path: &str, found: &mut BTreeSet<String>) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        walk(property, &path, found);
        found.insert(path);
    }
    if let Some(items) = schema.get("items") {
        walk(items, path, found);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Level;
    use super::*;

    type Change = fn(&mut Value);

    fn told(change: impl FnOnce(&mut Value)) -> (Level, String) {
        let (_, ours) = egress_api::custom_resource_definitions().swap_remove(0);
        let mut theirs = serde_json::to_value(&ours).unwrap();
        theirs["status"] =
            json!({"conditions": [{"type": "Established", "status": "True", "reason": "", "message": ""}]});
        change(&mut theirs);
        let found = judge(&ours, &serde_json::from_value(theirs).unwrap());
        (found.level, found.message)
    }

    #[test]
    fn a_definition_is_held_against_that_of_this_version() {
        let spec = |it: &mut Value| {
            it["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"].clone()
        };
        let table: [(Change, Level, &str); 6] = [
            (|_| {}, Level::Fine, "of this version"),
            (
                |it| it["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"),
                Level::Wrong,
                "being deleted",
            ),
            (
                |it| it["status"]["conditions"][0]["status"] = json!("False"),
                Level::Wrong,
                "Established is False",
            ),
            (|it| it["spec"]["versions"][0]["served"] = json!(false), Level::Wrong, "is not served"),
            (
                |it| {
                    it["spec"]["versions"][0].as_object_mut().unwrap().remove("subresources");
                },
                Level::Wrong,
                "older StaticRoute operator",
            ),
            (
                |it| {
                    let spec =
                        &mut it["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
                    spec["properties"].as_object_mut().unwrap().remove("replicas");
                },
                Level::Wrong,
                "no spec.replicas",
            ),
        ];
        for (change, level, words) in table {
            let (found, message) = told(change);
            assert!(found == level && message.contains(words), "{words}: {found:?} {message}");
        }
        let (newer, message) = told(|it| {
            let mut fields = spec(it);
            fields["later"] = json!({"type": "string"});
            it["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"] =
                fields;
        });
        assert!(newer == Level::Note && message.contains("spec.later"), "{message}");
    }
}
