//! The lab's cgroups: where its processes start, and where kubelets put their pods.
//!
//! A process of the lab joins `egl-<name>` in one hierarchy; that makes it findable. Kubelets work below `egl-<name>-<node>` in
//! every hierarchy (cgroup v1) or in the only one (v2). Droplets have theirs below `egress-lab-<name>`.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::error::{Doing, LabError, Result};
use crate::processes::ProcessRecord;
use crate::progress::Progress;
use crate::state::LabName;

/// Mount points of all cgroup hierarchies.
fn hierarchies() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    parse_hierarchies(&mounts)
}

fn parse_hierarchies(mountinfo: &str) -> Vec<PathBuf> {
    let points = mountinfo.lines().filter_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let kind = kind.split(' ').next()?;
        let fields: Vec<_> = mount.split(' ').collect();
        // Only whole hierarchies below /sys: a node's own mounts show parts of them elsewhere.
        let is_root = fields.get(3) == Some(&"/") && fields.get(4)?.starts_with("/sys/fs/cgroup");
        (kind.starts_with("cgroup") && is_root).then(|| PathBuf::from(fields[4]))
    });
    let mut points: Vec<_> = points.collect();
    points.sort();
    points.dedup();
    points
}

fn is_v2(hierarchy: &Path) -> bool {
    hierarchy.join("cgroup.controllers").exists()
}

/// Puts this process into the lab's cgroup: of cgroup v2 where it is mounted, alone or beside v1.
pub fn join(name: &LabName) -> Result<()> {
    let all = hierarchies();
    let hierarchy = all.iter().find(|one| is_v2(one)).or_else(|| all.first());
    let Some(hierarchy) = hierarchy else {
        return Err(LabError::Usage("no cgroup file system is mounted below /sys/fs/cgroup".into()));
    };
    let folder = hierarchy.join(name.cgroup());
    let what = || format!("join cgroup {}", folder.display());
    fs::create_dir_all(&folder).doing(what)?;
    let procs = folder.join("cgroup.procs");
    fs::write(&procs, std::process::id().to_string()).doing(what)
}

/// Makes the cgroup below which a kubelet puts its pods, in every hierarchy; its name for the kubelet's `cgroupRoot`.
pub fn create_for_node(name: &LabName, node: &str) -> Result<String> {
    let group = name.namespace(node);
    for hierarchy in hierarchies() {
        let folder = hierarchy.join(&group);
        let what = || format!("make cgroup {}", folder.display());
        if is_v2(&hierarchy) {
            // Which controllers there are differs; the kubelet says what it misses.
            for controller in ["cpuset", "cpu", "io", "memory", "pids", "hugetlb"] {
                let _missing = fs::write(hierarchy.join("cgroup.subtree_control"), format!("+{controller}"));
            }
        }
        fs::create_dir_all(&folder).doing(what)?;
        for file in ["cpuset.cpus", "cpuset.mems"] {
            // On v1 a new cpuset is empty, and nothing may join it.
            if !is_v2(&hierarchy) && folder.join(file).exists() {
                let value = fs::read_to_string(hierarchy.join(file)).doing(what)?;
                fs::write(folder.join(file), value.trim()).doing(what)?;
            }
        }
    }
    Ok(format!("/{group}"))
}

/// All cgroups of the lab that there are, outermost only.
pub fn all(name: &LabName) -> Vec<PathBuf> {
    let folders = hierarchies()
        .into_iter()
        .flat_map(|hierarchy| fs::read_dir(hierarchy).into_iter().flatten().flatten());
    let ours = folders.filter(|entry| {
        let group = entry.file_name();
        let group = group.to_string_lossy();
        group == name.cgroup().as_str()
            || group.starts_with(&name.prefix())
            || group.strip_prefix("egress-lab-") == Some(&name.to_string())
    });
    ours.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

/// All processes in those cgroups.
pub fn processes(name: &LabName) -> Vec<ProcessRecord> {
    let mut found = Vec::new();
    for folder in all(name) {
        walk(&folder, &mut |group| {
            let pids = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
            let pids = pids.lines().filter_map(|pid| pid.parse().ok());
            found.extend(pids.filter_map(|pid| ProcessRecord::of("cgroup", pid)));
        });
    }
    found
}

/// Processes of that program in the pods of a node.
pub fn processes_of_program(name: &LabName, node: &str, program: &str) -> Vec<ProcessRecord> {
    let group = name.namespace(node);
    let mut found: Vec<ProcessRecord> = Vec::new();
    for hierarchy in hierarchies() {
        walk(&hierarchy.join(&group), &mut |folder| {
            let pids = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
            for pid in pids.lines().filter_map(|pid| pid.parse().ok()) {
                let runs = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
                if runs.file_name().is_some_and(|file| file == program) {
                    found.extend(ProcessRecord::of(program, pid));
                }
            }
        });
    }
    // One process is in a cgroup of every hierarchy.
    found.sort_by_key(|process| process.pid);
    found.dedup_by_key(|process| process.pid);
    found
}

/// Ends what is left in them, and removes them.
pub fn remove(name: &LabName, progress: &Progress) -> Result<()> {
    // A killed process leaves its cgroup when the kernel has taken it apart, which takes a while on a busy machine.
    let deadline = Duration::from_secs(20);
    let started = Instant::now();
    loop {
        let mut obstacle = None;
        // One that was being started when all others ended is found only now.
        for process in processes(name) {
            process.signal(Signal::SIGKILL);
        }
        for folder in all(name) {
            walk(&folder, &mut |group| match fs::remove_dir(group) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    obstacle = Some(format!("{}: {error}", group.display()));
                }
                _ => {}
            });
        }
        let Some(last) = obstacle else { return Ok(()) };
        if started.elapsed() > deadline {
            return Err(LabError::Deadline { what: "the cgroups are removed".into(), deadline, last });
        }
        progress.waiting("the kernel to take its cgroups apart");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Visits a cgroup and all below it, innermost first.
fn walk(folder: &Path, visit: &mut impl FnMut(&Path)) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&entry.path(), visit);
        }
    }
    visit(folder);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_hierarchy_elsewhere_are_no_hierarchy() {
        let mounts = "24 1 0:5 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
                      25 1 0:6 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
                      26 1 0:5 /x /sys/fs/cgroup/part rw - cgroup cgroup rw\n\
                      27 1 0:7 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                      28 1 0:5 / /var/x rw - cgroup cgroup rw,pids\n";
        assert_eq!(
            parse_hierarchies(mounts),
            [PathBuf::from("/sys/fs/cgroup/pids"), PathBuf::from("/sys/fs/cgroup/unified")]
        );
    }
}
