//! Processes of a Droplet, known by id and start time: an id alone may have become another process.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::MachineError;

const FILE: &str = "processes.json";

/// One process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Process id.
    pub pid: i32,
    /// Start time in clock ticks since boot (field 22 of /proc/PID/stat).
    pub started: u64,
}

impl Record {
    /// The process that has this id now.
    pub fn of(pid: i32) -> Option<Self> {
        Some(Self { pid, started: stat(pid)?.started })
    }

    /// Whether it still runs; a zombie does not.
    pub fn is_alive(&self) -> bool {
        stat(self.pid).is_some_and(|now| now.started == self.started && !now.dead)
    }

    /// Sends a signal, if it is still the same process.
    pub fn signal(&self, signal: Signal) {
        if self.is_alive() {
            // It may end in this moment; that is what the caller wants.
            let _ = kill(Pid::from_raw(self.pid), signal);
        }
    }

    /// Waits until it is gone.
    pub fn wait_gone(&self, limit: Duration) -> bool {
        let ends = Instant::now() + limit;
        while self.is_alive() {
            if Instant::now() >= ends {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    }
}

/// The processes of one Droplet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// `egress-lab machine run`.
    pub supervisor: Record,
    /// systemd-nspawn.
    pub nspawn: Record,
    /// Process 1 of the machine: its namespaces are the machine's.
    pub leader: Record,
    /// How many times it has been started by this supervisor: 1, and one more for each reboot.
    pub boots: u32,
}

impl Recorded {
    pub(super) fn read(folder: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(folder.join(FILE)).ok()?).ok()
    }

    pub(super) fn write(&self, folder: &Path) -> Result<(), MachineError> {
        write_json(&folder.join(FILE), self)
    }

    pub(super) fn forget(folder: &Path) {
        // Absent is what is wanted.
        let _ = fs::remove_file(folder.join(FILE));
    }

    /// Whether the machine runs. Its supervisor may be in between: a reboot.
    pub fn is_running(&self) -> bool {
        self.leader.is_alive() || self.supervisor.is_alive()
    }
}

/// Writes a value as JSON, whole or not at all.
pub(super) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), MachineError> {
    let text = serde_json::to_vec_pretty(value).map_err(MachineError::Spec)?;
    let unfinished = path.with_extension("new");
    fs::write(&unfinished, text).map_err(MachineError::file("can't write", &unfinished))?;
    fs::rename(&unfinished, path).map_err(MachineError::file("can't write", path))
}

struct Stat {
    started: u64,
    dead: bool,
    stopped: bool,
}

/// Whether a process stands still, or is gone. One that waits in the kernel, say for a child that was stopped before it became
/// another program, stops when it comes out.
pub(super) fn is_stopped(process: &Record) -> bool {
    stat(process.pid).is_none_or(|now| now.started != process.started || now.dead || now.stopped)
}

fn stat(pid: i32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, spaces and parentheses too.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let state = *fields.first()?;
    let started = fields.get(19)?.parse().ok()?;
    Some(Stat { started, dead: matches!(state, "Z" | "X"), stopped: matches!(state, "T" | "t" | "D") })
}

/// The child of nspawn that is process 1 of the machine, once it has namespaces of its own.
pub(super) fn leader_of(nspawn: i32) -> Option<Record> {
    let children = fs::read_to_string(format!("/proc/{nspawn}/task/{nspawn}/children")).ok()?;
    let own = fs::read_link(format!("/proc/{nspawn}/ns/net")).ok()?;
    children.split_whitespace().filter_map(|pid| pid.parse().ok()).find_map(|pid: i32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
        let is_first = ids.split_whitespace().last() == Some("1") && ids.split_whitespace().count() > 1;
        let separate = fs::read_link(format!("/proc/{pid}/ns/net")).ok()? != own;
        (is_first && separate).then(|| Record::of(pid)).flatten()
    })
}
