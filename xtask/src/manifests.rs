//! The manifests as `kubectl kustomize` renders them, and what each workload's security context must say.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::tree;

/// The overlays that are installed somewhere.
pub const OVERLAYS: [&str; 2] = ["lab", "doks"];

/// Every object of an overlay.
pub fn render(root: &Path, overlay: &str) -> Result<Vec<Value>> {
    render_folder(root, &root.join("deploy/overlays").join(overlay)).map(|(objects, _)| objects)
}

/// Every object of a kustomization anywhere, and its YAML.
pub fn render_folder(root: &Path, folder: &Path) -> Result<(Vec<Value>, String)> {
    let yaml = tree::output(Command::new(tree::kubectl(root)?).arg("kustomize").arg(folder))?;
    let objects =
        serde_saphyr::from_multiple(&yaml).context("kubectl kustomize wrote YAML that cannot be read")?;
    Ok((objects, yaml))
}

/// Fails when a workload could do more than it needs, whichever overlay.
pub fn check(root: &Path) -> Result<()> {
    let mut complaints = Vec::new();
    for overlay in OVERLAYS {
        for object in render(root, overlay)? {
            complaints
                .extend(workload_complaints(&object).into_iter().map(|text| format!("{overlay}: {text}")));
        }
    }
    complaints.sort();
    complaints.dedup();
    if complaints.is_empty() {
        return Ok(());
    }
    bail!("{}", complaints.join("; "))
}

// The one capability that is needed, and by whom.
const CAPABILITIES: [(&str, &str); 1] = [("egress-agent", "NET_ADMIN")];

fn workload_complaints(object: &Value) -> Vec<String> {
    let Some(pod) = object.pointer("/spec/template/spec") else { return Vec::new() };
    let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or("?");
    let mut complaints = Vec::new();
    let mut demand = |holds: bool, what: &str| {
        if !holds {
            complaints.push(format!("{name}: {what}"));
        }
    };
    let empty = Vec::new();
    let list = |value: Option<&Value>| value.and_then(Value::as_array).unwrap_or(&empty).clone();

    demand(list(pod.get("volumes")).iter().all(|volume| volume.get("hostPath").is_none()), "no host paths");
    demand(is(pod, "/securityContext/seccompProfile/type", "RuntimeDefault"), "seccomp RuntimeDefault");
    for field in ["hostPID", "hostIPC"] {
        demand(pod.get(field).is_none(), "no namespaces of the node but its network");
    }
    let containers = [list(pod.get("containers")), list(pod.get("initContainers"))].concat();
    demand(!containers.is_empty(), "a container");
    for container in &containers {
        let context = container.get("securityContext").cloned().unwrap_or_default();
        demand(
            context.get("allowPrivilegeEscalation") == Some(&false.into()),
            "allowPrivilegeEscalation: false",
        );
        demand(context.get("readOnlyRootFilesystem") == Some(&true.into()), "readOnlyRootFilesystem: true");
        demand(context.get("privileged").is_none(), "not privileged");
        demand(
            context.pointer("/capabilities/drop") == Some(&serde_json::json!(["ALL"])),
            "all capabilities dropped",
        );
        let added = list(context.pointer("/capabilities/add"));
        let allowed = added.iter().all(|capability| {
            CAPABILITIES
                .iter()
                .any(|(workload, allowed)| *workload == name && capability.as_str() == Some(allowed))
        });
        demand(allowed, "no capability but the one it needs");
        demand(
            added.is_empty() == (pod.pointer("/securityContext/runAsNonRoot") == Some(&true.into())),
            "root only for a capability",
        );
        let arguments = list(container.get("args"));
        let everywhere = |argument: &Value| argument.as_str().is_some_and(|text| text.contains("=0.0.0.0:"));
        demand(
            pod.get("hostNetwork").is_none() || !arguments.iter().any(everywhere),
            "nothing on every address of the node",
        );
        for field in ["/resources/requests/cpu", "/resources/requests/memory", "/resources/limits/memory"] {
            demand(container.pointer(field).is_some(), field);
        }
        for probe in ["livenessProbe", "readinessProbe"] {
            demand(container.get(probe).is_some(), probe);
        }
    }
    complaints
}

fn is(value: &Value, pointer: &str, text: &str) -> bool {
    value.pointer(pointer).and_then(Value::as_str) == Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent() -> Value {
        render(&tree::root().unwrap(), "lab")
            .unwrap()
            .into_iter()
            .find(|object| object["kind"] == "DaemonSet")
            .unwrap()
    }

    #[test]
    fn what_is_shipped_is_as_strict_as_it_can_be_and_every_loosening_is_named() {
        assert_eq!(workload_complaints(&agent()), [""; 0]);
        let loosen = |pointer: &str, value: Value| {
            let mut object = agent();
            *object.pointer_mut(pointer).unwrap() = value;
            workload_complaints(&object).join(";")
        };
        let container = "/spec/template/spec/containers/0";
        let context = format!("{container}/securityContext");
        assert_eq!(
            loosen(&format!("{context}/readOnlyRootFilesystem"), false.into()),
            "egress-agent: readOnlyRootFilesystem: true"
        );
        assert_eq!(
            loosen(&format!("{context}/capabilities/add/0"), "SYS_ADMIN".into()),
            "egress-agent: no capability but the one it needs"
        );
        assert_eq!(
            loosen("/spec/template/spec/securityContext/seccompProfile/type", "Unconfined".into()),
            "egress-agent: seccomp RuntimeDefault"
        );
        let everywhere = loosen(&format!("{container}/args/3"), "--admin-listen=0.0.0.0:9191".into());
        assert_eq!(everywhere, "egress-agent: nothing on every address of the node");
        assert_eq!(loosen("/metadata/name", "other".into()), "other: no capability but the one it needs");
    }
}
