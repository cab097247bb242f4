//! What lies in a layer: files sorted by name, all folders above them, times and owners zero.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};

/// A file of a layer; its path has no leading slash.
pub struct Entry {
    path: String,
    mode: u32,
    bytes: Vec<u8>,
}

impl Entry {
    /// Text that everybody may read.
    pub fn file(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), mode: 0o644, bytes: text.as_bytes().to_vec() }
    }

    /// A program or library.
    pub fn program(path: &str, bytes: Vec<u8>) -> Self {
        Self { path: path.to_owned(), mode: 0o755, bytes }
    }
}

/// The files of a layer.
#[derive(Default)]
pub struct Content {
    entries: BTreeMap<String, Entry>,
}

impl Content {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// With this file; a second one of the same path replaces the first.
    pub fn with(mut self, entry: Entry) -> Self {
        self.entries.insert(entry.path.clone(), entry);
        self
    }

    /// An uncompressed tar archive. Registries are given a compressed one by the program that pushes.
    pub fn into_layer(self) -> Result<Vec<u8>> {
        let mut builder = tar::Builder::new(Vec::new());
        for folder in self.folders() {
            append(&mut builder, &format!("{folder}/"), tar::EntryType::Directory, 0o755, &[])?;
        }
        for (path, entry) in &self.entries {
            append(&mut builder, path, tar::EntryType::Regular, entry.mode, &entry.bytes)?;
        }
        Ok(builder.into_inner()?)
    }

    fn folders(&self) -> BTreeSet<String> {
        let above = self.entries.keys().flat_map(|path| Path::new(path).ancestors().skip(1));
        above
            .map(|folder| folder.to_string_lossy().into_owned())
            .filter(|folder| !folder.is_empty())
            .collect()
    }
}

/// Appends one entry without time, owner or anything else of this machine.
pub fn append(
    builder: &mut tar::Builder<Vec<u8>>,
    path: &str,
    kind: tar::EntryType,
    mode: u32,
    bytes: &[u8],
) -> Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(bytes.len() as u64);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    builder.append_data(&mut header, path, bytes).with_context(|| format!("cannot archive {path}"))
}
