//! EgressGateways out of manifests, and what `kubectl apply` makes of one that is there already.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use egress_api::GROUP;
use serde_json::Value;

/// An EgressGateway as somebody wrote it.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// Its name.
    pub name: String,
    /// All of it; what is wrong with it the API server says.
    pub object: Value,
}

/// Where `kubectl apply` keeps what it applied last.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The EgressGateways of all files, in their order. Fails where there is none, and where one has no name.
pub fn read(files: &[PathBuf]) -> anyhow::Result<Vec<Manifest>> {
    let mut manifests = Vec::new();
    for file in files {
        let shown = file.display();
        let text = text(file).with_context(|| format!("{shown} cannot be read"))?;
        manifests.extend(parse(&text).with_context(|| shown.to_string())?);
    }
    anyhow::ensure!(!manifests.is_empty(), "no EgressGateway in what was given; other kinds are passed over");
    Ok(manifests)
}

fn text(file: &Path) -> std::io::Result<String> {
    if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        return Ok(text);
    }
    std::fs::read_to_string(file)
}

fn parse(text: &str) -> anyhow::Result<Vec<Manifest>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).context("is no YAML")?;
    let mut manifests = Vec::new();
    for object in documents.into_iter().flat_map(objects) {
        let group = object["apiVersion"].as_str().and_then(|version| version.split_once('/'));
        if group.is_none_or(|(group, _)| group != GROUP) || object["kind"] != "EgressGateway" {
            continue;
        }
        let name = object["metadata"]["name"].as_str().context("an EgressGateway has no metadata.name")?;
        manifests.push(Manifest { name: name.to_owned(), object });
    }
    Ok(manifests)
}

// A list holds objects.
fn objects(document: Value) -> Vec<Value> {
    match document.get("items").and_then(Value::as_array) {
        Some(items) => items.clone(),
        None => vec![document],
    }
}

/// What comes of the stored object when this manifest is applied: its fields are put in, and those go that were applied last and are
/// not in it any more. What others have added stays.
pub fn applied(stored: &Value, manifest: &Value) -> Value {
    let last = stored["metadata"]["annotations"][LAST_APPLIED].as_str();
    let last: Option<Value> = last.and_then(|text| serde_json::from_str(text).ok());
    let mut object = stored.clone();
    merge(&mut object, manifest, last.as_ref());
    object
}

fn merge(into: &mut Value, wanted: &Value, last: Option<&Value>) {
    let (Some(fields), Some(wanted)) = (into.as_object_mut(), wanted.as_object()) else {
        *into = wanted.clone();
        return;
    };
    for name in last.and_then(Value::as_object).into_iter().flat_map(|last| last.keys()) {
        if !wanted.contains_key(name) {
            fields.remove(name);
        }
    }
    for (name, value) in wanted {
        if value.is_null() {
            fields.remove(name);
        } else {
            let last = last.and_then(|last| last.get(name));
            merge(fields.entry(name.as_str()).or_insert(Value::Null), value, last);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const GATEWAY: &str = "apiVersion: networking.digitalocean.com/v1alpha1\nkind: EgressGateway\nmetadata: {name: demo}\n\
        spec: {destinations: [0.0.0.0/0], publicIP: Ephemeral}\n";

    fn names(text: &str) -> Vec<String> {
        parse(text).unwrap().into_iter().map(|one| one.name).collect()
    }

    #[test]
    fn egress_gateways_are_found_among_others_and_in_lists() {
        let other = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: other}\n";
        let second = GATEWAY.replace("demo", "second");
        assert_eq!(names(&format!("{other}---\n{GATEWAY}---\n{second}")), ["demo", "second"]);
        let indented = GATEWAY.replace('\n', "\n  ");
        assert_eq!(names(&format!("apiVersion: v1\nkind: List\nitems:\n- {indented}")), ["demo"]);
        assert_eq!(names(other), [""; 0]);
    }

    #[test]
    fn one_without_a_name_is_refused() {
        let nameless = GATEWAY.replace("{name: demo}", "{}");
        assert!(parse(&nameless).unwrap_err().to_string().contains("metadata.name"));
    }

    #[test]
    fn an_apply_puts_in_what_is_written_takes_out_what_was_and_leaves_what_others_have() {
        let last = json!({"spec": {"replicas": 3, "droplet": {"size": "a", "maxAgeDays": 7}}}).to_string();
        let stored = json!({"metadata": {"annotations": {LAST_APPLIED: last, "paused": "true"}, "finalizers": ["f"]},
            "spec": {"replicas": 3, "drainSeconds": 300, "destinations": ["a", "b"],
                     "droplet": {"size": "a", "maxAgeDays": 7, "monitoring": false}}});
        let manifest = json!({"spec": {"destinations": ["c"], "droplet": {"size": "b"}}});
        let applied = applied(&stored, &manifest);
        assert_eq!(
            applied["spec"],
            json!({"drainSeconds": 300, "destinations": ["c"], "droplet": {"size": "b", "monitoring": false}})
        );
        assert_eq!(applied["metadata"], stored["metadata"]);
    }
}
