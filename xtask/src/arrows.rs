//! Crate arrows: what may use what stands in the table of docs/architecture.md, and nothing else is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::tree;

/// Crate (folder name) to the crates of ours that it uses or may use.
type Arrows = BTreeMap<String, BTreeSet<String>>;

/// Fails when a crate uses one that the table does not grant it, or does not stand in the table.
pub fn check(root: &Path) -> Result<()> {
    let document =
        std::fs::read_to_string(root.join("docs/architecture.md")).context("docs/architecture.md")?;
    let allowed = allowed(&document)?;
    let metadata = tree::output(
        Command::new(env!("CARGO"))
            .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
            .current_dir(root),
    )?;
    let complaints = complaints(&used(&metadata)?, &allowed);
    if complaints.is_empty() {
        return Ok(());
    }
    bail!("{}", complaints.join("; "))
}

fn complaints(used: &Arrows, allowed: &Arrows) -> Vec<String> {
    let mut complaints = Vec::new();
    for (name, uses) in used {
        let Some(granted) = allowed.get(name) else {
            complaints.push(format!("crate {name} is not in the table of docs/architecture.md"));
            continue;
        };
        for arrow in uses.difference(granted) {
            complaints.push(format!("{name} uses {arrow}, which docs/architecture.md does not grant"));
        }
    }
    let gone = allowed.keys().filter(|name| !used.contains_key(*name));
    complaints
        .extend(gone.map(|name| format!("docs/architecture.md knows a crate {name} that is not there")));
    complaints
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    manifest_path: std::path::PathBuf,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    /// Absent for crates of the workspace.
    source: Option<String>,
    /// Absent for ordinary dependencies.
    kind: Option<String>,
}

// An arrow is what a binary is made of: what only tests use is none.
fn used(metadata: &str) -> Result<Arrows> {
    let metadata: Metadata = serde_json::from_str(metadata).context("cargo metadata")?;
    let mut folders = BTreeMap::new();
    for package in &metadata.packages {
        let folder =
            package.manifest_path.parent().and_then(Path::file_name).context("a crate lies in a folder")?;
        folders.insert(package.name.as_str(), folder.to_string_lossy().into_owned());
    }
    let mut arrows = Arrows::new();
    for package in &metadata.packages {
        let ours = package.dependencies.iter().filter(|dependency| dependency.source.is_none());
        let uses = ours
            .filter(|dependency| dependency.kind.as_deref() != Some("dev"))
            .filter_map(|dependency| folders.get(dependency.name.as_str()).cloned());
        arrows.insert(folders[package.name.as_str()].clone(), uses.collect());
    }
    Ok(arrows)
}

// Rows of the first table whose head begins with `crate`: first cell the crates, third what they may use, both in backticks.
fn allowed(document: &str) -> Result<Arrows> {
    let rows = document.lines().skip_while(|line| !line.starts_with("| crate |")).skip(2);
    let mut arrows = Arrows::new();
    for row in rows.take_while(|line| line.starts_with('|')) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').collect();
        let [crates, _, uses] = cells.as_slice() else { bail!("row {row:?} should have three cells") };
        for name in backticked(crates) {
            arrows.insert(name, backticked(uses).collect());
        }
    }
    if arrows.is_empty() {
        bail!("docs/architecture.md has no table that begins with `| crate |`");
    }
    Ok(arrows)
}

fn backticked(text: &str) -> impl Iterator<Item = String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\n| crate | kind | may use of ours |\n| --- | --- | --- |\n| `api`, `health` | libraries | nothing |\n\
        | `agent` | library + `egress-agent` | `api`, `health` |\n\nprose\n| `x` | y | z |\n";

    fn arrows(list: &[(&str, &[&str])]) -> Arrows {
        list.iter()
            .map(|(name, uses)| ((*name).to_owned(), uses.iter().map(|used| (*used).to_owned()).collect()))
            .collect()
    }

    #[test]
    fn the_table_is_read_and_kinds_are_no_crates() {
        assert_eq!(
            allowed(TABLE).unwrap(),
            arrows(&[("api", &[]), ("health", &[]), ("agent", &["api", "health"])])
        );
        assert!(allowed("no table").is_err());
    }

    #[test]
    fn an_arrow_that_is_not_granted_is_named() {
        let allowed = allowed(TABLE).unwrap();
        assert_eq!(
            complaints(&arrows(&[("api", &[]), ("health", &[]), ("agent", &["api"])]), &allowed),
            [""; 0]
        );
        let used = arrows(&[("api", &["agent"]), ("agent", &["api"]), ("new", &[])]);
        assert_eq!(
            complaints(&used, &allowed),
            [
                "api uses agent, which docs/architecture.md does not grant",
                "crate new is not in the table of docs/architecture.md",
                "docs/architecture.md knows a crate health that is not there",
            ]
        );
    }

    #[test]
    fn what_only_tests_use_is_no_arrow() {
        let metadata = r#"{"packages": [
            {"name": "egress-api", "manifest_path": "/r/crates/api/Cargo.toml", "dependencies": []},
            {"name": "egress-agent", "manifest_path": "/r/crates/agent/Cargo.toml", "dependencies": [
                {"name": "egress-api", "source": null, "kind": null},
                {"name": "egress-agent", "source": null, "kind": "dev"},
                {"name": "serde", "source": "registry+https://example.invalid", "kind": null}]}]}"#;
        assert_eq!(used(metadata).unwrap(), arrows(&[("api", &[]), ("agent", &["api"])]));
    }
}
