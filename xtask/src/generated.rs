//! Files that are generated and committed: written, or compared.

use std::path::Path;

use anyhow::{Context, Result, bail};

/// Writes `content`, or with `check` fails when the file holds something else. `command` is what makes it right.
pub fn write_or_compare(path: &Path, content: &str, check: bool, command: &str) -> Result<()> {
    let name = path.file_name().unwrap_or_default().display();
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    if committed == content {
        return Ok(());
    }
    if check {
        bail!(
            "{name} is out of date{}; run `{command}` and commit it",
            first_difference(&committed, content)
        );
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(path, content).with_context(|| format!("cannot write {name}"))
}

fn first_difference(committed: &str, content: &str) -> String {
    let mut committed = committed.lines();
    for (number, wanted) in content.lines().enumerate() {
        match committed.next() {
            Some(line) if line == wanted => {}
            Some(line) => {
                return format!(" (line {}: {:?} should be {:?})", number + 1, line.trim(), wanted.trim());
            }
            None => return format!(" (line {} is missing: {:?})", number + 1, wanted.trim()),
        }
    }
    committed.next().map(|line| format!(" (too much: {:?})", line.trim())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_fails_the_check_and_is_written_without_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/list.txt");
        let error = write_or_compare(&path, "a\nb\n", true, "cargo xtask x").unwrap_err().to_string();
        assert_eq!(
            error,
            "list.txt is out of date (line 1 is missing: \"a\"); run `cargo xtask x` and commit it"
        );
        assert!(!path.exists());
        write_or_compare(&path, "a\nb\n", false, "").unwrap();
        write_or_compare(&path, "a\nb\n", true, "").unwrap();
        let error = write_or_compare(&path, "a\nc\n", true, "").unwrap_err().to_string();
        assert!(error.contains("line 2: \"b\" should be \"c\""), "{error}");
        assert!(
            write_or_compare(&path, "a\n", true, "").unwrap_err().to_string().contains("too much: \"b\"")
        );
    }
}
