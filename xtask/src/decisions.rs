//! docs/decisions/README.md lists every decision record by number and title, as the records themselves say them.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use crate::{generated, tree};

const HEAD: &str = "# Decision records

One page each: context, decision, consequences. A record is never rewritten; a later one may replace it and says so. Written by
`cargo xtask decisions` from the titles.

";

/// Writes the list, or with `check` fails when a record is missing in it.
pub fn run(root: &Path, check: bool) -> Result<()> {
    let folder = root.join("docs/decisions");
    let list = list(&folder)?;
    generated::write_or_compare(&folder.join("README.md"), &list, check, "cargo xtask decisions")
}

fn list(folder: &Path) -> Result<String> {
    let mut list = HEAD.to_owned();
    let mut last = 0;
    for path in tree::files(folder, ".md")? {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        if file == "README.md" {
            continue;
        }
        let (number, title) = heading(&path).with_context(|| file.to_string())?;
        ensure!(number > last, "{file} has a number that is taken: {number}");
        last = number;
        writeln!(list, "{number}. [{title}]({file})")?;
    }
    Ok(list)
}

// The number in the file's name and in its first line, and the title behind it.
fn heading(path: &Path) -> Result<(u32, String)> {
    let text = std::fs::read_to_string(path)?;
    let first = text.lines().next().unwrap_or_default();
    let named = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.split('-').next());
    let named: u32 = named.unwrap_or_default().parse().context("a record's name begins with its number")?;
    match first.strip_prefix("# ").and_then(|rest| rest.split_once(". ")) {
        Some((number, title)) if number == named.to_string() => Ok((named, title.to_owned())),
        _ => bail!("its first line should be '# {named}. <title>', not {first:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(records: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in records {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    #[test]
    fn records_are_listed_by_number_and_title() {
        let folder = folder(&[
            ("README.md", "old"),
            ("0010-b.md", "# 10. Bees\n"),
            ("0002-a.md", "# 2. Ants\n\nText"),
        ]);
        let list = list(folder.path()).unwrap();
        assert_eq!(list.strip_prefix(HEAD).unwrap(), "2. [Ants](0002-a.md)\n10. [Bees](0010-b.md)\n");
    }

    #[test]
    fn a_record_that_the_list_lacks_fails_the_check() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("docs/decisions");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("0001-a.md"), "# 1. Ants\n").unwrap();
        run(root.path(), false).unwrap();
        run(root.path(), true).unwrap();
        std::fs::write(folder.join("0002-b.md"), "# 2. Bees\n").unwrap();
        let error = run(root.path(), true).unwrap_err().to_string();
        assert!(error.contains("2. [Bees](0002-b.md)") && error.contains("cargo xtask decisions"), "{error}");
    }

    #[test]
    fn a_number_stands_in_name_and_title_and_is_taken_once() {
        let differing = folder(&[("0001-a.md", "# 2. Ants\n")]);
        assert!(format!("{:#}", list(differing.path()).unwrap_err()).contains("0001-a.md: its first line"));
        let twice = folder(&[("0001-a.md", "# 1. Ants\n"), ("0001-b.md", "# 1. Bees\n")]);
        assert!(
            list(twice.path()).unwrap_err().to_string().contains("0001-b.md has a number that is taken: 1")
        );
    }
}
