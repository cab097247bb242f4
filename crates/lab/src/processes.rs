//! Processes of the lab: started detached, recorded before they do anything, ended by what was recorded.
//!
//! The lab has no daemon. [`Launch`] starts this program again as `egress-lab launch`, which leaves the terminal's session, joins
//! the lab's cgroup, writes its own record and becomes the wanted program. So there is no moment at which a process runs
//! that a later call cannot find: by cgroup from its first step on, by record before the program begins.
//!
//! A record holds the process id and the start time: the kernel uses ids again.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, setsid};
use serde::{Deserialize, Serialize};

use crate::cgroups;
use crate::error::{Doing, LabError, Result};
use crate::netns;
use crate::state::{Lab, LabName, StateDir, read_json, write_json};

/// A process that was started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRecord {
    /// What the lab calls it.
    pub name: String,
    /// Its id.
    pub pid: u32,
    /// When it was started, in clock ticks since boot: field 22 of `/proc/PID/stat`.
    pub start_time: u64,
}

impl ProcessRecord {
    /// The record of a process that runs now.
    pub fn of(name: &str, pid: u32) -> Option<Self> {
        Some(Self { name: name.to_owned(), pid, start_time: stat(pid)?.start_time })
    }

    /// Whether that very process still runs. A zombie does not.
    pub fn is_alive(&self) -> bool {
        stat(self.pid).is_some_and(|now| now.start_time == self.start_time && !now.is_dead)
    }

    /// Sends a signal to that very process, if it is there.
    pub fn signal(&self, signal: Signal) {
        if self.is_alive()
            && let Ok(pid) = i32::try_from(self.pid)
        {
            // It may have ended in between, which is as good.
            let _gone = kill(Pid::from_raw(pid), signal);
        }
    }

    /// Kills it and waits until it is gone.
    pub fn end(&self) -> Result<()> {
        let deadline = Duration::from_secs(5);
        let started = Instant::now();
        self.signal(Signal::SIGKILL);
        while self.is_alive() {
            if started.elapsed() > deadline {
                let what = format!("process {} ({}) ends", self.pid, self.name);
                return Err(LabError::Deadline { what, deadline, last: "it is still there".into() });
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

struct Stat {
    start_time: u64,
    is_dead: bool,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    parse_stat(&text)
}

/// The command in parentheses may itself hold blanks and parentheses: fields are counted from the last one.
fn parse_stat(text: &str) -> Option<Stat> {
    let fields: Vec<_> = text.get(text.rfind(')')? + 1..)?.split_whitespace().collect();
    let is_dead = matches!(*fields.first()?, "Z" | "X");
    Some(Stat { start_time: fields.get(19)?.parse().ok()?, is_dead })
}

/// The record of the process of that name, if there is one that runs.
pub fn running(dir: &StateDir, name: &str) -> Result<Option<ProcessRecord>> {
    let record: Option<ProcessRecord> = read_json(&record_path(dir, name))?;
    Ok(record.filter(ProcessRecord::is_alive))
}

/// Every record, of processes that run and of those that do not. Records that cannot be read are left out.
pub fn recorded(dir: &StateDir) -> Vec<ProcessRecord> {
    let entries = fs::read_dir(dir.processes()).into_iter().flatten().flatten();
    let paths =
        entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "json"));
    let mut records: Vec<_> =
        paths.filter_map(|path| read_json::<ProcessRecord>(&path).ok().flatten()).collect();
    records.sort_by(|one, other| one.name.cmp(&other.name));
    records
}

fn record_path(dir: &StateDir, name: &str) -> PathBuf {
    dir.processes().join(format!("{name}.json"))
}

/// How a process is started.
#[derive(Debug)]
pub struct Launch {
    name: String,
    options: Vec<String>,
    command: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Launch {
    /// A process that the lab calls `name`.
    pub fn new(name: &str, program: &Path) -> Self {
        let command = vec![program.display().to_string()];
        Self { name: name.to_owned(), options: Vec::new(), command, environment: Vec::new() }
    }

    /// One of the lab's own processes: this program with another subcommand.
    pub fn own(name: &str, lab: &Lab) -> Result<Self> {
        let program = std::env::current_exe().doing(|| "find this program".into())?;
        let launch = Self::new(name, &program);
        Ok(launch.args([
            "--name",
            &lab.name().to_string(),
            "--state-dir",
            &lab.dir.path().display().to_string(),
        ]))
    }

    /// Arguments of the program.
    #[must_use]
    pub fn args<S: AsRef<str>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.command.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// One variable of its environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Runs it in that network namespace.
    #[must_use]
    pub fn in_namespace(mut self, name: &str) -> Self {
        self.options.push(format!("--netns={}", netns::path(name).display()));
        self
    }

    /// Runs it in the mount namespace of that process.
    #[must_use]
    pub fn with_mounts_of(mut self, process: &ProcessRecord) -> Self {
        self.options.push(format!("--mounts-of={}", process.pid));
        self
    }

    /// Runs it in a mount namespace of its own, in which /sys shows the network namespace and each source folder or file
    /// stands in for its target.
    #[must_use]
    pub fn with_own_mounts(mut self, stand_ins: &[(PathBuf, PathBuf)]) -> Self {
        self.options.push("--own-mounts".into());
        let stand_ins = stand_ins.iter();
        self.options.extend(
            stand_ins.map(|(source, target)| format!("--stand-in={}:{}", source.display(), target.display())),
        );
        self
    }

    /// Starts it and returns when it is recorded.
    pub fn start(self, lab: &Lab) -> Result<ProcessRecord> {
        let what = format!("start {}", self.name);
        let this = std::env::current_exe().doing(|| what.clone())?;
        let log_path = lab.dir.log(&self.name);
        let log = fs::OpenOptions::new().create(true).append(true).open(&log_path).doing(|| what.clone())?;
        let errors = log.try_clone().doing(|| what.clone())?;
        let mut command = Command::new(this);
        command.args(["--name", &lab.name().to_string(), "--state-dir"]).arg(lab.dir.path());
        command.arg("launch").arg(&self.name).args(&self.options).arg("--").args(&self.command);
        command.envs(self.environment).current_dir("/");
        let mut child =
            command.stdin(Stdio::null()).stdout(log).stderr(errors).spawn().doing(|| what.clone())?;
        let deadline = Duration::from_secs(20);
        let started = Instant::now();
        loop {
            let record = running(&lab.dir, &self.name)?;
            if let Some(record) = record.filter(|record| record.pid == child.id()) {
                return Ok(record);
            }
            if let Some(status) = child.try_wait().doing(|| what.clone())? {
                let said = fs::read_to_string(&log_path).unwrap_or_default();
                let detail = format!("{status}: {}", said.lines().last().unwrap_or_default());
                return Err(LabError::Program { command: what, detail });
            }
            if started.elapsed() > deadline {
                return Err(LabError::Deadline { what, deadline, last: "it has not recorded itself".into() });
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// `egress-lab launch`: the other half of [`Launch`].
#[derive(Debug, clap::Args)]
pub struct LaunchArgs {
    /// What the lab calls the process.
    process: String,
    /// Network namespace.
    #[arg(long)]
    netns: Option<PathBuf>,
    /// Process whose mount namespace is joined.
    #[arg(long)]
    mounts_of: Option<u32>,
    /// A mount namespace of its own.
    #[arg(long)]
    own_mounts: bool,
    /// SOURCE:TARGET, mounted in that namespace.
    #[arg(long)]
    stand_in: Vec<String>,
    /// The program.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// Becomes the wanted program. Returns only when that fails. The caller must have no other thread.
pub fn launch(lab: &LabName, dir: &StateDir, arguments: &LaunchArgs) -> Result<()> {
    // Fails only for the leader of a session, which has what it gives.
    let _leader_already = setsid();
    cgroups::join(lab)?;
    if let Some(namespace) = &arguments.netns {
        netns::enter(namespace)?;
    }
    if let Some(pid) = arguments.mounts_of {
        let what = || format!("enter the mounts of process {pid}");
        let namespace = fs::File::open(format!("/proc/{pid}/ns/mnt")).doing(what)?;
        setns(&namespace, CloneFlags::CLONE_NEWNS).doing(what)?;
    }
    if arguments.own_mounts {
        own_mounts(dir, &arguments.stand_in)?;
    }
    let name = &arguments.process;
    let record = ProcessRecord::of(name, std::process::id())
        .ok_or_else(|| LabError::Usage("/proc does not show this process".into()))?;
    // In a node's mounts the lab's folder is where it was: nothing stands in for it.
    write_json(&record_path(dir, name), &record)?;
    let Some((program, rest)) = arguments.command.split_first() else {
        return Err(LabError::Usage("no program to launch".into()));
    };
    Err(Command::new(program).args(rest).exec()).doing(|| format!("run {program}"))
}

/// Nothing mounted here is seen outside; what is mounted below by the node's own programs is seen by all of them.
fn own_mounts(dir: &StateDir, stand_ins: &[String]) -> Result<()> {
    let what = || "make a mount namespace".to_owned();
    let none = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS).doing(what)?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).doing(what)?;
    // A fresh /sys shows the links of the network namespace, but not the cgroups: they are put aside and back.
    let aside = dir.join("cgroup-mounts");
    fs::create_dir_all(&aside).doing(what)?;
    let cgroups = Path::new("/sys/fs/cgroup");
    mount(Some(cgroups), &aside, none, MsFlags::MS_BIND | MsFlags::MS_REC, none).doing(what)?;
    mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), none).doing(|| "mount /sys".into())?;
    mount(Some(&aside), cgroups, none, MsFlags::MS_MOVE, none).doing(|| "move the cgroups".into())?;
    let resolver = fs::canonicalize("/etc/resolv.conf").unwrap_or_else(|_| "/etc/resolv.conf".into());
    for stand_in in stand_ins {
        let Some((source, target)) = stand_in.split_once(':') else {
            return Err(LabError::Usage(format!("{stand_in:?} is not SOURCE:TARGET")));
        };
        let target = if target == "/etc/resolv.conf" { resolver.clone() } else { PathBuf::from(target) };
        let what = || format!("mount {source} on {}", target.display());
        if !target.exists() {
            if Path::new(source).is_dir() {
                fs::create_dir_all(&target).doing(what)?;
            } else {
                fs::create_dir_all(target.parent().unwrap_or(Path::new("/"))).doing(what)?;
                fs::write(&target, "").doing(what)?;
            }
        }
        mount(Some(source), &target, none, MsFlags::MS_BIND | MsFlags::MS_REC, none).doing(what)?;
    }
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SHARED, none).doing(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_another_start_time_is_another_process() {
        let own = ProcessRecord::of("test", std::process::id()).unwrap();
        assert!(own.is_alive());
        let earlier = ProcessRecord { start_time: own.start_time - 1, ..own };
        assert!(!earlier.is_alive());
    }

    #[test]
    fn a_command_with_parentheses_does_not_shift_the_fields() {
        let fields: Vec<_> = (4..=52).map(|number| number.to_string()).collect();
        let stat = parse_stat(&format!("7 (a) b (c) S {}", fields.join(" "))).unwrap();
        assert_eq!(stat.start_time, 22);
        assert!(!stat.is_dead);
        assert!(parse_stat("7 (a) Z 1").is_none());
    }
}
