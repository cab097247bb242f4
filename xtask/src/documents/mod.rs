//! What documents say, held against the tree: every link leads to a file and a heading that are there, every picture has a text
//! alternative and suits a dark background, every document of docs/ stands in its index, and every object of ours that is shown is one
//! that the API server takes.
//!
//! Nothing is asked of the network: whether a page of somebody else is still there is not checked.

mod markdown;
mod objects;

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};

use markdown::{Document, Link};

pub use objects::print;

/// Documents by their paths from the root.
type Documents = BTreeMap<PathBuf, Document>;

/// Fails on a link that leads nowhere, a picture without words, or a document that the index lacks.
pub fn check_links(root: &Path) -> Result<()> {
    let documents = read(root)?;
    let mut complaints = Vec::new();
    for (path, document) in &documents {
        for link in &document.links {
            if let Some(complaint) = complaint(root, &documents, path, link) {
                complaints.push(format!("{}:{}: {complaint}", path.display(), link.line));
            }
        }
    }
    complaints.extend(not_in_the_index(&documents));
    finish(&complaints)
}

/// Fails on an object of ours, in a document or in a file that documents point to, that no API server would take.
pub fn check_objects(root: &Path) -> Result<()> {
    let shown = objects::shown(root, &read(root)?)?;
    if shown.is_empty() {
        bail!("no document shows an object of ours");
    }
    let mut complaints = Vec::new();
    for object in &shown {
        complaints.extend(objects::complaints(object)?);
    }
    finish(&complaints)
}

fn finish(complaints: &[String]) -> Result<()> {
    if complaints.is_empty() {
        return Ok(());
    }
    bail!("{}", complaints.join("; "))
}

/// Every Markdown file of the tree that is ours: not what builds leave in it.
fn read(root: &Path) -> Result<Documents> {
    let mut documents = Documents::new();
    let mut open = vec![PathBuf::new()];
    while let Some(folder) = open.pop() {
        let full = root.join(&folder);
        for entry in std::fs::read_dir(&full).with_context(|| format!("cannot read {}", full.display()))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let path = folder.join(&name);
            let generated = matches!(name.as_str(), ".git" | "target" | "node_modules");
            if root.join(&path).is_dir() {
                open.extend((!generated).then_some(path));
            } else if name.to_lowercase().ends_with(".md") {
                let text = std::fs::read_to_string(root.join(&path))?;
                documents.insert(path, Document::read(&text));
            }
        }
    }
    Ok(documents)
}

fn complaint(root: &Path, documents: &Documents, from: &Path, link: &Link) -> Option<String> {
    let target = link.target.as_str();
    if link.alternative.as_deref().is_some_and(|words| words.trim().is_empty()) {
        return Some(format!("the picture {target} has no text alternative"));
    }
    if let Some((scheme, rest)) = target.split_once(':') {
        let fits = matches!(scheme, "https" | "http") && rest.starts_with("//") && rest.len() > 2;
        return (!fits && scheme != "mailto").then(|| format!("{target} is no address"));
    }
    let (file, anchor) = target.split_once('#').map_or((target, None), |(file, anchor)| (file, Some(anchor)));
    let path = if file.is_empty() { from.to_path_buf() } else { resolved(from, file) };
    if !root.join(&path).exists() || file.starts_with('/') {
        return Some(format!("{target} leads to no file"));
    }
    if link.alternative.is_some()
        && let Some(complaint) = picture_complaint(&root.join(&path))
    {
        return Some(format!("{target} {complaint}"));
    }
    let anchor = anchor?;
    let there = documents.get(&path).is_some_and(|document| document.anchors.contains(anchor));
    (!there).then(|| format!("{target}: {} has no heading of that name", path.display()))
}

// A picture of ours is read by people with a dark background, and by those who do not see it.
fn picture_complaint(path: &Path) -> Option<String> {
    let text =
        std::fs::read_to_string(path).ok().filter(|_| path.extension().is_some_and(|end| end == "svg"))?;
    let wanted = ["<title", "<desc", "prefers-color-scheme: dark"];
    let missing = wanted.into_iter().find(|part| !text.contains(part))?;
    Some(format!("has no `{missing}`"))
}

// The path from the root; one that leads out of the tree leads nowhere.
fn resolved(from: &Path, file: &str) -> PathBuf {
    let mut path = from.parent().unwrap_or(Path::new("")).to_path_buf();
    for part in Path::new(file).components() {
        match part {
            Component::ParentDir if !path.pop() => return PathBuf::from("outside of the tree"),
            Component::Normal(name) => path.push(name),
            _ => {}
        }
    }
    path
}

// Whoever writes a document and forgets the index has written it for nobody.
fn not_in_the_index(documents: &Documents) -> Vec<String> {
    let folder = Path::new("docs");
    let index = folder.join("README.md");
    let Some(listed) = documents.get(&index) else { return vec!["docs/README.md is not there".to_owned()] };
    let listed: Vec<_> = listed.links.iter().map(|link| resolved(&index, &link.target)).collect();
    let of_docs = documents.keys().filter(|path| path.parent() == Some(folder) && **path != index);
    of_docs
        .filter(|path| !listed.contains(path))
        .map(|path| format!("docs/README.md does not list {}", path.display()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        folder
    }

    const INDEX: (&str, &str) = ("docs/README.md", "[a](a.md)\n");

    #[test]
    fn what_leads_somewhere_is_taken() {
        let tree = tree(&[
            INDEX,
            (
                "README.md",
                "[a](docs/a.md#two), [folder](docs/), [page](https://example.com/x), [me](#top)\n# Top\n",
            ),
            ("docs/a.md", "# One\n## Two\n[up](../README.md) ![A line](a.svg)\n"),
            ("docs/a.svg", "<svg><title/><desc/><style>@media (prefers-color-scheme: dark) {}</style></svg>"),
            ("target/doc/x.md", "[nowhere](y.md)\n"),
        ]);
        check_links(tree.path()).unwrap();
    }

    #[test]
    fn what_leads_nowhere_is_named_with_its_line() {
        for (text, complaint) in [
            ("[a](b.md)", "docs/a.md:2: b.md leads to no file"),
            ("[a](../../x.md)", "docs/a.md:2: ../../x.md leads to no file"),
            ("[a](/docs/a.md)", "docs/a.md:2: /docs/a.md leads to no file"),
            ("[a](README.md#x)", "docs/a.md:2: README.md#x: docs/README.md has no heading of that name"),
            ("[a](#x)", "docs/a.md:2: #x: docs/a.md has no heading of that name"),
            ("[a](https:/x)", "docs/a.md:2: https:/x is no address"),
            ("![](a.md)", "docs/a.md:2: the picture a.md has no text alternative"),
            ("![A line](a.svg)", "docs/a.md:2: a.svg has no `<desc`"),
        ] {
            let picture = ("docs/a.svg", "<svg><title/></svg>");
            let tree = tree(&[INDEX, picture, ("docs/a.md", &format!("# A\n{text}\n"))]);
            assert_eq!(check_links(tree.path()).unwrap_err().to_string(), complaint);
        }
    }

    #[test]
    fn a_document_that_the_index_lacks_is_named() {
        let tree = tree(&[INDEX, ("docs/a.md", ""), ("docs/b.md", ""), ("docs/deep/c.md", "")]);
        let error = check_links(tree.path()).unwrap_err().to_string();
        assert_eq!(error, "docs/README.md does not list docs/b.md");
    }

    #[test]
    fn an_object_that_no_api_server_would_take_is_named_with_its_line() {
        let shown = |spec: &str| {
            let kind = "apiVersion: networking.digitalocean.com/v1\nkind: StaticRoute\nmetadata: {name: a}\n";
            tree(&[INDEX, ("docs/a.md", &format!("# A\n```yaml\n{kind}spec:\n{spec}```\n"))])
        };
        let good = "  destinations: [192.0.2.1]\n  gateway: 10.0.0.5\n";
        check_objects(shown(good).path()).unwrap();
        for (spec, complaint) in [
            (
                format!("{good}  weight: 1\n"),
                "docs/a.md:3: StaticRoute a: spec.weight: there is no such field",
            ),
            (
                format!("{good}  mode: ActiveActive\n"),
                "docs/a.md:3: StaticRoute a: spec.mode: ActiveActive shares",
            ),
            ("  gateway: 10.0.0.5\n".to_owned(), "docs/a.md:3: StaticRoute a: spec.destinations: is missing"),
        ] {
            let error = check_objects(shown(&spec).path()).unwrap_err().to_string();
            assert!(error.starts_with(complaint), "{error}");
        }
    }

    #[test]
    fn a_kind_of_ours_in_a_version_that_is_not_there_is_named() {
        let text = "```yaml\napiVersion: networking.digitalocean.com/v1\nkind: EgressPolicy\n---\napiVersion: v1\nkind: Secret\n```\n";
        let tree = tree(&[INDEX, ("docs/a.md", text)]);
        let error = check_objects(tree.path()).unwrap_err().to_string();
        assert_eq!(error, "docs/a.md:2: networking.digitalocean.com/v1 has no kind EgressPolicy");
    }
}
