//! docs/guarantees.md names, for every promise, the tests that hold it. A name that does not exist is a promise nobody keeps.
//!
//! In backticks: `crate::path::test_name`, where the crate is a folder of crates/ or xtask and the last part a test function
//! in it; or `tests/...`, a file, with `::name` behind it for a function or case in it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::tree;

/// Fails when a named test is not in the tree, or none is named at all.
pub fn check(root: &Path) -> Result<()> {
    let document = std::fs::read_to_string(root.join("docs/guarantees.md")).context("docs/guarantees.md")?;
    let named = named(&document);
    if named.is_empty() {
        bail!("docs/guarantees.md names no test in backticks");
    }
    let mut missing = Vec::new();
    for name in &named {
        if !exists(root, name)? {
            missing.push(format!("`{name}`"));
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    bail!("no such test: {}", missing.join(", "))
}

fn named(document: &str) -> Vec<String> {
    let prose = document.split("```").step_by(2);
    let quoted = prose.flat_map(|text| text.split('`').skip(1).step_by(2));
    quoted.filter(|text| is_test_name(text)).map(str::to_owned).collect()
}

fn is_test_name(text: &str) -> bool {
    let plain = !text.contains(char::is_whitespace);
    plain && (text.starts_with("tests/") || text.contains("::"))
}

fn exists(root: &Path, name: &str) -> Result<bool> {
    if name.starts_with("tests/") {
        let (file, case) = name.split_once("::").unwrap_or((name, ""));
        let path = root.join(file);
        if case.is_empty() {
            return Ok(path.exists());
        }
        return Ok(std::fs::read_to_string(path).is_ok_and(|text| text.contains(case)));
    }
    let (Some(first), Some(test)) = (name.split("::").next(), name.rsplit("::").next()) else {
        return Ok(false);
    };
    let Some(folder) = crate_folder(root, first) else { return Ok(false) };
    for file in tree::files(&folder, ".rs")? {
        if has_test(&std::fs::read_to_string(&file)?, test) {
            return Ok(true);
        }
    }
    Ok(false)
}

// `agent`, `egress_agent` and `egress-agent` are the same crate.
fn crate_folder(root: &Path, name: &str) -> Option<PathBuf> {
    let short = name.strip_prefix("egress_").or_else(|| name.strip_prefix("egress-")).unwrap_or(name);
    let candidates = [root.join("crates").join(short), root.join(short)];
    candidates.into_iter().find(|folder| folder.join("Cargo.toml").is_file())
}

// A function with a test attribute above it; inside `proptest!` every function is one.
fn has_test(source: &str, name: &str) -> bool {
    let lines: Vec<&str> = source.lines().map(str::trim_start).collect();
    let head = format!("fn {name}(");
    lines.iter().enumerate().filter(|(_, line)| is_function(line, &head)).any(|(at, _)| {
        let above =
            lines[..at].iter().rev().take_while(|line| line.starts_with("#[") || line.starts_with("//"));
        let attribute = above.clone().any(|line| line.starts_with("#[") && line.contains("test"));
        attribute || lines[..at].iter().any(|line| line.starts_with("proptest!"))
    })
}

fn is_function(line: &str, head: &str) -> bool {
    ["", "async ", "pub ", "pub async "]
        .iter()
        .any(|prefix| line.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(head)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_backticks_are_found_and_prose_is_not() {
        let document = "Holds by `runtime::lease::tests::a` and `tests/e2e/failover.sh`; see `make test`, `Ready`.\n\
            ```\n`agent::not_this`\n```\n`agent::b`";
        assert_eq!(named(document), ["runtime::lease::tests::a", "tests/e2e/failover.sh", "agent::b"]);
    }

    #[test]
    fn only_functions_with_a_test_attribute_count() {
        let source = "#[test]\n/// Why.\n#[ignore]\nfn real() {}\n\nfn helper() {}\n\n#[tokio::test(start_paused = true)]\n\
            async fn waits() {}\n";
        assert!(has_test(source, "real"));
        assert!(has_test(source, "waits"));
        assert!(!has_test(source, "helper"));
        assert!(!has_test(source, "rea"));
        assert!(has_test("proptest! {\n    fn holds(a in 0..1) {}\n}", "holds"));
    }

    #[test]
    fn tests_of_this_tree_are_found() {
        let root = tree::root().unwrap();
        for (name, there) in [
            ("runtime::lease::tests::never_two_current_claims", true),
            ("xtask::guarantees::tests::tests_of_this_tree_are_found", true),
            ("egress_runtime::lease::tests::decision_table", true),
            ("runtime::lease::tests::no_such_test", false),
            ("nothing::never_two_current_claims", false),
            ("tests/control-plane/build.sh", true),
            ("tests/none.sh", false),
        ] {
            assert_eq!(exists(&root, name).unwrap(), there, "{name}");
        }
    }
}
