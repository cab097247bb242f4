//! The record of every request.
//!
//! Responsibility: one JSON line a request, in the order in which they were decided. Invariant: no token ever gets
//! in: headers are not recorded, and its text is blacked out wherever else a client may have put it.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

/// One request.
#[derive(Debug, Clone, Serialize)]
pub struct Entry {
    /// Counts from 1.
    pub seq: u64,
    /// The cloud's time.
    pub time: Timestamp,
    /// HTTP method.
    pub method: String,
    /// Path as sent.
    pub path: String,
    /// Query as sent.
    pub query: String,
    /// Body: JSON where it is JSON, text otherwise, null when empty.
    pub body: Value,
    /// Status that was sent, or that would have been had the reply not been lost; null when nothing was decided.
    pub status: Option<u16>,
    /// Whether the request was handed to the cloud; false for refused authentication, rate limit and faults before.
    pub committed: bool,
    /// Header `x-request-id` of the answer.
    pub request_id: String,
    /// The fault that struck.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<crate::fault::Kind>,
}

/// All requests: the file has every one, memory the latest [`KEPT`].
#[derive(Debug)]
pub struct Journal {
    entries: VecDeque<Entry>,
    last: u64,
    file: Option<File>,
    tokens: Vec<String>,
}

/// Entries kept in memory for the control route: some hours of a busy lab.
const KEPT: usize = 50_000;

impl Journal {
    /// Opens the journal; the file is appended to, and the numbers go on where it ends.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(file: Option<&Path>, tokens: Vec<String>) -> std::io::Result<Self> {
        let mut last = 0;
        let file = match file {
            None => None,
            Some(path) => {
                let mut file = File::options().create(true).read(true).append(true).open(path)?;
                last = lines(&mut file)?;
                Some(file)
            }
        };
        Ok(Self { entries: VecDeque::new(), last, file, tokens })
    }

    /// Number of the entry to be written next.
    pub fn next_seq(&self) -> u64 {
        self.last + 1
    }

    /// Keeps one more token out from now on.
    pub fn keep_out(&mut self, token: String) {
        self.tokens.push(token);
    }

    /// Records a request. A full disk must not stop the cloud: failure to write is logged.
    pub fn record(&mut self, mut entry: Entry) {
        self.last = entry.seq;
        entry.path = self.without_tokens(&entry.path);
        entry.query = self.without_tokens(&entry.query);
        if let Ok(text) = serde_json::to_string(&entry.body)
            && let clean = self.without_tokens(&text)
            && clean != text
        {
            entry.body = serde_json::from_str(&clean).unwrap_or(Value::Null);
        }
        if let Some(file) = &mut self.file {
            let written = serde_json::to_string(&entry)
                .map_err(std::io::Error::from)
                .and_then(|line| file.write_all(format!("{line}\n").as_bytes()));
            if let Err(error) = written {
                tracing::error!(%error, "journal not written");
            }
        }
        if self.entries.len() == KEPT {
            self.entries.pop_front();
        }
        self.entries.push_back(entry);
    }

    /// The entries after number `seq`.
    pub fn after(&self, seq: u64) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(move |entry| entry.seq > seq)
    }

    fn without_tokens(&self, text: &str) -> String {
        let tokens = self.tokens.iter().filter(|token| !token.is_empty());
        tokens.fold(text.to_owned(), |text, token| text.replace(token, "[token]"))
    }
}

fn lines(file: &mut File) -> std::io::Result<u64> {
    BufReader::new(file).split(b'\n').try_fold(0, |count, line| line.map(|_| count + 1))
}
