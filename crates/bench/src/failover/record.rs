//! What was measured, one line each in a file that outlives the run: kills add up until there are as many as asked for.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::kill::Kill;

/// What must be the same for kills to add up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Commit of the code, with `-dirty` where it was changed since.
    pub commit: String,
    /// `up` or `down`.
    pub control_plane: &'static str,
    /// Name of the profile.
    pub profile: &'static str,
}

impl Key {
    /// Name of the files of this key, without an ending.
    pub fn stem(&self) -> String {
        format!("{}-{}-{}", self.commit, self.control_plane, self.profile)
    }

    /// Nobody knows what a changed tree has in it: its kills add to none.
    fn adds_up(&self) -> bool {
        !self.commit.ends_with("-dirty") && !self.commit.is_empty()
    }
}

/// The kills of one key.
#[derive(Debug)]
pub struct Record {
    file: File,
    /// All of them, the oldest first.
    pub kills: Vec<Kill>,
}

impl Record {
    /// Goes on with the record of this key in `folder`, or begins one.
    pub fn open(folder: &Path, key: &Key) -> anyhow::Result<Self> {
        fs::create_dir_all(folder)?;
        let path = file_of(folder, key);
        let text = if key.adds_up() { fs::read_to_string(&path).unwrap_or_default() } else { String::new() };
        // A run that was killed may have left half a line.
        let kills: Vec<Kill> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let whole: Vec<String> = kills.iter().map(line).collect::<Result<_, _>>()?;
        fs::write(&path, whole.concat()).with_context(|| path.display().to_string())?;
        Ok(Self { file: OpenOptions::new().append(true).open(&path)?, kills })
    }

    /// Adds one; it is in the file when this returns.
    pub fn add(&mut self, kill: Kill) -> anyhow::Result<()> {
        self.file.write_all(line(&kill)?.as_bytes())?;
        self.kills.push(kill);
        Ok(())
    }
}

fn file_of(folder: &Path, key: &Key) -> PathBuf {
    folder.join(key.stem() + ".jsonl")
}

fn line(kill: &Kill) -> serde_json::Result<String> {
    Ok(serde_json::to_string(kill)? + "\n")
}

#[cfg(test)]
mod tests {
    use super::super::kill::tests::kill;
    use super::*;

    fn key(commit: &str) -> Key {
        Key { commit: commit.to_owned(), control_plane: "up", profile: "default" }
    }

    #[test]
    fn kills_of_one_commit_add_up_over_runs_that_are_killed_and_those_of_a_changed_tree_do_not() {
        let folder = tempfile::tempdir().unwrap();
        for (commit, kept) in [("abc", 2), ("abc-dirty", 0)] {
            let mut record = Record::open(folder.path(), &key(commit)).unwrap();
            record.add(kill("frozen", &[Some(310.0)])).unwrap();
            record.add(kill("frozen", &[None])).unwrap();
            record.file.write_all(b"{\"seed\": 3, ").unwrap();
            drop(record);
            let record = Record::open(folder.path(), &key(commit)).unwrap();
            assert_eq!(record.kills.len(), kept, "{commit}");
        }
        let mut record = Record::open(folder.path(), &key("abc")).unwrap();
        record.add(kill("frozen", &[Some(1.0)])).unwrap();
        assert_eq!(Record::open(folder.path(), &key("abc")).unwrap().kills.len(), 3);
        assert!(Record::open(folder.path(), &key("def")).unwrap().kills.is_empty());
    }
}
