//! What can go wrong, and the one way in which it is put into words.

use std::path::PathBuf;
use std::time::Duration;

/// Every failure of the lab, with what was being done.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The operating system refused.
    #[error("cannot {what}")]
    System {
        /// What was being done, to be read after "cannot".
        what: String,
        /// Its answer.
        #[source]
        source: std::io::Error,
    },
    /// A program that the lab uses failed.
    #[error("{command} failed: {detail}")]
    Program {
        /// The command line.
        command: String,
        /// Exit status and what it said.
        detail: String,
    },
    /// A file of the state folder is not what it should be.
    #[error("{} is not readable as the lab's state", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: serde_json::Error,
    },
    /// A condition did not come true.
    #[error("{what}: not within {} s: {last}", deadline.as_secs_f64())]
    Deadline {
        /// The condition.
        what: String,
        /// How long it was waited for.
        deadline: Duration,
        /// The last obstacle.
        last: String,
    },
    /// A certificate could not be made.
    #[error("cannot make a certificate")]
    Certificate(#[from] rcgen::Error),
    /// The request makes no sense here; says what would.
    #[error("{0}")]
    Usage(String),
}

/// Result of everything in this crate.
pub type Result<T> = std::result::Result<T, LabError>;

/// Says what was being done when a call into the system failed.
pub trait Doing<T> {
    /// Wraps the error; `what` is read after "cannot".
    fn doing(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Doing<T> for std::io::Result<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| LabError::System { what: what(), source })
    }
}

impl<T> Doing<T> for nix::Result<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|errno| LabError::System { what: what(), source: errno.into() })
    }
}
