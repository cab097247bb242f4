//! A cgroup of its own for each Droplet.
//!
//! nspawn makes the machine's cgroup below the one it is started in. Two machines started in one would share theirs,
//! and the systemd of one would end the other's services.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::process::Record;
use super::{MachineError, Place};

/// Where the supervisors are, so that whoever ends the lab finds them.
const SUPERVISORS: &str = "supervisors";

/// The lab's folder for Droplets in the hierarchies that systemd uses: cgroup2, `name=systemd`, or both on a hybrid
/// machine. [`crate::cgroups`] knows it by this name.
fn lab_folders(place: &Place) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    roots(&mounts).into_iter().map(|root| root.join(format!("egress-lab-{}", place.lab))).collect()
}

fn folders(place: &Place, id: u64) -> Vec<PathBuf> {
    lab_folders(place).into_iter().map(|folder| folder.join(format!("droplet-{id}"))).collect()
}

/// Mount points of those hierarchies. Parts of them, shown elsewhere, are not meant.
fn roots(mountinfo: &str) -> Vec<PathBuf> {
    let mut roots = Vec::new();
    for line in mountinfo.lines() {
        let Some((mount, kind)) = line.split_once(" - ") else { continue };
        let mount: Vec<&str> = mount.split(' ').collect();
        let kind: Vec<&str> = kind.split(' ').collect();
        let (Some(&"/"), Some(point)) = (mount.get(3), mount.get(4)) else { continue };
        let named =
            kind.get(2).is_some_and(|options| options.split(',').any(|option| option == "name=systemd"));
        let systemd = kind.first() == Some(&"cgroup2") || (kind.first() == Some(&"cgroup") && named);
        if systemd && point.starts_with("/sys/fs/cgroup") && !roots.contains(&PathBuf::from(point)) {
            roots.push(PathBuf::from(point));
        }
    }
    roots
}

/// Puts this process, a supervisor, where it is found.
pub(super) fn join_supervisors(place: &Place) -> Result<(), MachineError> {
    for folder in lab_folders(place) {
        let folder = folder.join(SUPERVISORS);
        make(&folder)?;
        fs::write(folder.join("cgroup.procs"), std::process::id().to_string())
            .map_err(MachineError::file("can't join the cgroup", &folder))?;
    }
    Ok(())
}

/// Makes them.
pub(super) fn create(place: &Place, id: u64) -> Result<Vec<PathBuf>, MachineError> {
    let folders = folders(place, id);
    for folder in &folders {
        make(folder)?;
    }
    Ok(folders)
}

/// The end of another Droplet may take away the empty folder above in the moment in which this one is made.
fn make(folder: &Path) -> Result<(), MachineError> {
    let mut tries = 0;
    loop {
        match fs::create_dir_all(folder) {
            Err(error) if error.kind() == ErrorKind::NotFound && tries < 10 => tries += 1,
            other => return other.map_err(MachineError::file("can't make the cgroup", folder)),
        }
    }
}

/// Ends every process in them: nobody else puts any there.
pub(super) fn kill(place: &Place, id: u64, limit: Duration) -> Result<(), MachineError> {
    let ends = Instant::now() + limit;
    for folder in folders(place, id) {
        loop {
            let mut processes = Vec::new();
            collect_processes(&folder, &mut processes);
            if processes.is_empty() {
                break;
            }
            if Instant::now() >= ends {
                return Err(MachineError::TooLate {
                    what: "the end of the machine's processes",
                    seconds: limit.as_secs(),
                    log: folder,
                });
            }
            for process in processes {
                process.signal(Signal::SIGKILL);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    Ok(())
}

/// Every process in them that runs.
pub(super) fn processes(place: &Place, id: u64) -> Vec<Record> {
    let mut processes = Vec::new();
    for folder in folders(place, id) {
        collect_processes(&folder, &mut processes);
    }
    processes
}

fn collect_processes(folder: &Path, into: &mut Vec<Record>) {
    let listed = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    let records = listed.lines().filter_map(|pid| pid.parse().ok()).filter_map(Record::of);
    into.extend(records.filter(Record::is_alive));
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        collect_processes(&entry.path(), into);
    }
}

/// Removes them with what is below, when their processes are gone; and the lab's own when it was the last Droplet.
pub(super) fn remove(place: &Place, id: u64) -> Result<(), MachineError> {
    for folder in folders(place, id) {
        // The kernel lets go of a dead process's cgroup a little later than of the process.
        let ends = Instant::now() + Duration::from_secs(5);
        while let Err(error) = remove_tree(&folder) {
            if Instant::now() >= ends {
                return Err(MachineError::file("can't remove the cgroup", &folder)(error));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    for folder in lab_folders(place) {
        // Not empty while there are other Droplets.
        let _ = fs::remove_dir(folder.join(SUPERVISORS));
        let _ = fs::remove_dir(folder);
    }
    Ok(())
}

fn remove_tree(folder: &Path) -> std::io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries.flatten() {
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_hierarchies_of_systemd() {
        let hybrid = "40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate\n\
                      42 31 0:39 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids\n";
        assert_eq!(
            roots(hybrid),
            [PathBuf::from("/sys/fs/cgroup/systemd"), PathBuf::from("/sys/fs/cgroup/unified")]
        );
        let unified =
            "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n";
        assert_eq!(roots(unified), [PathBuf::from("/sys/fs/cgroup")]);
    }
}
