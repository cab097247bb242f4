//! deploy/chart: what is generated in the Helm chart, so that nothing of it is written twice.
//!
//! | generated | from |
//! | --- | --- |
//! | `templates/manifests/` | `deploy/base/`, whose comments `# chart:` say where both differ ([`template`]) |
//! | `templates/crds/` | `crds/` |
//! | `monitoring/` | the dashboards and rules of `deploy/monitoring/` |
//! | `settings` of both programs in `values.schema.json` | the programs' flags ([`flags`]) |
//! | `values.yaml`, the tables of docs/install.md | `values.schema.json` ([`values`]) |
//! | the versions in `Chart.yaml` | the workspace's |
//!
//! That the chart renders the same objects as kustomize does is tested with Helm itself: `chart::tests`.

mod flags;
mod template;
mod values;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{generated, tree};

const COMMAND: &str = "cargo xtask chart";

/// Folders of the chart in which everything is generated.
const GENERATED: [&str; 3] = ["templates/manifests", "templates/crds", "monitoring"];

/// Writes what is generated, or compares it.
pub fn run(root: &Path, check: bool) -> Result<()> {
    let chart = root.join("deploy/chart");
    let schema = values::with_settings(&read(&chart.join("values.schema.json"))?, root)?;
    let mut files = copies(root)?;
    let (manifests, marked) = manifests(root)?;
    values::compare_defaults(&schema, &marked)?;
    files.extend(manifests);
    let stale = stale(&chart, &files)?;
    if check && let Some(path) = stale.first() {
        bail!("{} has no source any more; run `{COMMAND}` and commit it", path.display());
    }
    for path in stale {
        std::fs::remove_file(path)?;
    }
    files.insert("values.schema.json".into(), format!("{}\n", serde_json::to_string_pretty(&schema)?));
    files.insert("values.yaml".into(), values::yaml(&schema)?);
    files.insert("Chart.yaml".into(), versions(&read(&chart.join("Chart.yaml"))?));
    for (path, content) in files {
        generated::write_or_compare(&chart.join(&path), &content, check, COMMAND)
            .with_context(|| path.display().to_string())?;
    }
    let document = root.join("docs/install.md");
    let content = values::with_tables(&read(&document)?, &schema)?;
    generated::write_or_compare(&document, &content, check, COMMAND)
}

type Files = BTreeMap<PathBuf, String>;

/// Where a value stands in the values, and what the manifests have there.
type Marked = Vec<(String, Value)>;

fn manifests(root: &Path) -> Result<(Files, Marked)> {
    let (mut files, mut marked) = (Files::new(), Marked::new());
    for path in tree::files(&root.join("deploy/base"), ".yaml")? {
        let name = name(&path);
        if name == "kustomization.yaml" {
            continue;
        }
        let template = template::of_manifest(&read(&path)?).with_context(|| format!("deploy/base/{name}"))?;
        let header = format!("# Written from deploy/base/{name} by `{COMMAND}`. Do not edit.\n");
        files.insert(Path::new(GENERATED[0]).join(name), header + &template.text);
        marked.extend(template.marked);
    }
    Ok((files, marked))
}

fn copies(root: &Path) -> Result<Files> {
    let mut files = Files::new();
    for path in tree::files(&root.join("crds"), ".yaml")? {
        let name = name(&path);
        if name != "kustomization.yaml" {
            let text = template::of_definition(&read(&path)?).with_context(|| format!("crds/{name}"))?;
            let header = format!("# Written from crds/{name} by `{COMMAND}`. Do not edit.\n");
            files.insert(Path::new(GENERATED[1]).join(name), header + &text);
        }
    }
    let monitoring = root.join("deploy/monitoring");
    for path in tree::files(&monitoring, ".json")? {
        files.insert(Path::new(GENERATED[2]).join("dashboards").join(name(&path)), read(&path)?);
    }
    for path in tree::files(&monitoring, ".yaml")? {
        let text = read(&path)?;
        if is_rules(&text) {
            files.insert(Path::new(GENERATED[2]).join("rules").join(name(&path)), text);
        }
    }
    Ok(files)
}

// As Prometheus reads them; tests of rules have `rule_files` beside groups of their own.
fn is_rules(text: &str) -> bool {
    let has = |key: &str| text.lines().any(|line| line.starts_with(key));
    has("groups:") && !has("rule_files:")
}

fn stale(chart: &Path, files: &Files) -> Result<Vec<PathBuf>> {
    let mut stale = Vec::new();
    for folder in GENERATED {
        let folder = chart.join(folder);
        if folder.is_dir() {
            let there = tree::files(&folder, "")?;
            stale.extend(
                there.into_iter().filter(|path| {
                    path.strip_prefix(chart).is_ok_and(|relative| !files.contains_key(relative))
                }),
            );
        }
    }
    Ok(stale)
}

fn versions(chart: &str) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let line = |line: &str| match line.split_once(':') {
        Some(("version", _)) => format!("version: {version}"),
        Some(("appVersion", _)) => format!("appVersion: \"{version}\""),
        _ => line.to_owned(),
    };
    let lines: Vec<_> = chart.lines().map(line).collect();
    lines.join("\n") + "\n"
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}
