//! Ending a lab, however it was left.
//!
//! Works without trusting any state: processes are those of the lab's cgroups, of its network namespaces and of its records;
//! namespaces, cgroups and mounts are found by name. Nothing else is touched. Safe to repeat.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::Signal;

use crate::error::{Doing, LabError, Result};
use crate::processes::{self, ProcessRecord};
use crate::progress::Progress;
use crate::state::{LabName, StateDir};
use crate::{cgroups, netns};

/// Ends all processes of the lab, removes its namespaces, cgroups, mounts and folder. Says what there was. Does nothing at all when
/// the folder is not a lab's.
pub fn stop(name: &LabName, dir: &StateDir, progress: &Progress) -> Result<Remains> {
    dir.check_own()?;
    let found = remains(name, dir);
    end_processes(name, dir, progress)?;
    // Looked for again: one may have been in the making.
    for namespace in netns::list(&name.prefix()) {
        progress.waiting("the kernel to remove its namespaces");
        netns::delete(&namespace)?;
    }
    cgroups::remove(name, progress)?;
    remove_folder(dir)?;
    Ok(found)
}

/// What of a lab is on the machine; all empty after [`stop`].
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Remains {
    /// Ids of its processes.
    pub processes: Vec<u32>,
    /// Names of its network namespaces.
    pub namespaces: Vec<String>,
    /// Its cgroups, outermost only.
    pub cgroups: Vec<PathBuf>,
    /// Mount points below its folder.
    pub mounts: Vec<PathBuf>,
}

/// What [`stop`] did, for a person.
impl fmt::Display for Remains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = [
            (self.processes.len(), "process", "processes"),
            (self.namespaces.len(), "network namespace", "network namespaces"),
            (self.cgroups.len(), "cgroup", "cgroups"),
            (self.mounts.len(), "mount", "mounts"),
        ];
        let words: Vec<_> = counts
            .iter()
            .filter(|(count, ..)| *count > 0)
            .map(|(count, one, many)| format!("{count} {}", if *count == 1 { one } else { many }))
            .collect();
        if words.is_empty() {
            f.write_str("nothing was there")
        } else {
            write!(f, "stopped, {} removed", words.join(", "))
        }
    }
}

/// Looks for everything that [`stop`] removes.
pub fn remains(name: &LabName, dir: &StateDir) -> Remains {
    Remains {
        processes: members(name, dir).iter().map(|process| process.pid).collect(),
        namespaces: netns::list(&name.prefix()),
        cgroups: cgroups::all(name),
        mounts: mounts_below(dir),
    }
}

fn end_processes(name: &LabName, dir: &StateDir, progress: &Progress) -> Result<()> {
    let deadline = Duration::from_secs(20);
    let started = Instant::now();
    loop {
        // Again and again: one that was starting another may have been missed.
        let left = members(name, dir);
        if left.is_empty() {
            return Ok(());
        }
        for process in &left {
            process.signal(Signal::SIGKILL);
        }
        if started.elapsed() > deadline {
            let last =
                left.iter().map(|process| format!("{} ({})", process.pid, process.name)).collect::<Vec<_>>();
            return Err(LabError::Deadline {
                what: "its processes end".into(),
                deadline,
                last: last.join(", "),
            });
        }
        progress.waiting(&format!("{} processes to end", left.len()));
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Processes of the lab that are alive: in its cgroups, in its network namespaces, or recorded. Never the caller.
fn members(name: &LabName, dir: &StateDir) -> Vec<ProcessRecord> {
    let mut found = cgroups::processes(name);
    found.extend(processes::recorded(dir));
    let ours: Vec<_> =
        netns::list(&name.prefix()).iter().filter_map(|one| netns::inode(&netns::path(one))).collect();
    // A namespace that is only half made is a plain file, whose number is no namespace's.
    let host = netns::inode(&netns::of_process(std::process::id()));
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|pid| pid.parse().ok()) else { continue };
        let inode = fs::read_link(netns::of_process(pid))
            .ok()
            .and_then(|link| parse_namespace(&link.to_string_lossy()));
        if inode.is_some_and(|inode| ours.contains(&inode) && Some(inode) != host) {
            found.extend(ProcessRecord::of("namespace", pid));
        }
    }
    found.retain(|process| process.pid != std::process::id() && process.is_alive());
    found.sort_by_key(|process| process.pid);
    found.dedup_by_key(|process| process.pid);
    found
}

/// `net:[4026531840]`
fn parse_namespace(link: &str) -> Option<u64> {
    link.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
}

fn mounts_below(dir: &StateDir) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape);
    // Not the folder itself: what is mounted there was there before the lab.
    points.filter(|point| point.starts_with(dir.path()) && point != dir.path()).collect()
}

/// The kernel writes blanks in paths as octal numbers.
fn unescape(point: &str) -> PathBuf {
    PathBuf::from(point.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\"))
}

fn remove_folder(dir: &StateDir) -> Result<()> {
    for point in mounts_below(dir).iter().rev() {
        umount2(point, MntFlags::MNT_DETACH).doing(|| format!("unmount {}", point.display()))?;
    }
    // A mount left here would have its content deleted with the folder.
    if let Some(left) = mounts_below(dir).first() {
        return Err(LabError::Usage(format!("{} is still mounted", left.display())));
    }
    dir.remove()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_what_there_was() {
        let nothing = Remains { processes: vec![], namespaces: vec![], cgroups: vec![], mounts: vec![] };
        assert_eq!(nothing.to_string(), "nothing was there");
        let some = Remains { processes: vec![7, 8], namespaces: vec!["egl-demo-cloud".into()], ..nothing };
        assert_eq!(some.to_string(), "stopped, 2 processes, 1 network namespace removed");
    }
}
