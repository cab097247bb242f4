//! Network namespaces: make, enter, list, remove.
//!
//! A namespace is held by a bind mount in `/run/netns`, where `ip -n` finds it. It is entered by a thread of its own, so that
//! the process itself never leaves the machine's namespace.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use crate::error::{Doing, LabError, Result};

const FOLDER: &str = "/run/netns";

/// Where the namespace of that name is held.
pub fn path(name: &str) -> PathBuf {
    Path::new(FOLDER).join(name)
}

/// Where the network namespace of a process is to be seen.
pub fn of_process(pid: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/ns/net"))
}

/// Makes a namespace with a loopback interface that is down.
pub fn create(name: &str) -> Result<()> {
    let path = path(name);
    let what = || format!("make network namespace {name}");
    fs::create_dir_all(FOLDER).doing(what)?;
    share_folder().doing(what)?;
    fs::OpenOptions::new().write(true).create_new(true).open(&path).doing(what)?;
    in_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET).doing(what)?;
        let itself = Path::new("/proc/thread-self/ns/net");
        mount(Some(itself), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>).doing(what)
    })
}

/// Makes the folder a shared mount of its own, as the first `ip netns add` does: that of somebody else, later, would hide our mounts in
/// it, and nothing could remove them any more.
fn share_folder() -> nix::Result<()> {
    let share =
        || mount(None::<&str>, FOLDER, None::<&str>, MsFlags::MS_SHARED | MsFlags::MS_REC, None::<&str>);
    match share() {
        // It is no mount yet.
        Err(Errno::EINVAL) => {
            mount(Some(FOLDER), FOLDER, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)?;
            share()
        }
        shared => shared,
    }
}

/// Removes a namespace, whole or half made; one that is not there is no error.
pub fn delete(name: &str) -> Result<()> {
    let path = path(name);
    while umount2(&path, MntFlags::MNT_DETACH).is_ok() {}
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).doing(|| format!("remove network namespace {name}"))
        }
        _ => Ok(()),
    }
}

/// Names of all namespaces that begin with `prefix`, sorted.
pub fn list(prefix: &str) -> Vec<String> {
    let entries = fs::read_dir(FOLDER).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<_> = names.filter(|name| name.starts_with(prefix)).collect();
    names.sort();
    names
}

/// Runs `body` on a thread inside the namespace held at `path`. Processes that it starts are inside, too.
pub fn inside<T: Send>(path: &Path, body: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    in_thread(|| {
        enter(path)?;
        body()
    })
}

/// Moves the calling thread into the namespace held at `path`, for good.
pub fn enter(path: &Path) -> Result<()> {
    let what = || format!("enter network namespace {}", path.display());
    let namespace = fs::File::open(path).doing(what)?;
    setns(&namespace, CloneFlags::CLONE_NEWNET).doing(what)
}

fn in_thread<T: Send>(body: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let ended = std::thread::scope(|scope| scope.spawn(body).join());
    ended.unwrap_or_else(|_| Err(LabError::Usage("a thread of the lab died".into())))
}

/// Runs a program inside the namespace of that name; what it prints.
pub fn run(name: &str, program: &str, arguments: &[&str]) -> Result<String> {
    run_with_input(&path(name), program, arguments, "")
}

/// Runs a program inside the namespace held at `path` with that standard input; what it prints.
pub fn run_with_input(path: &Path, program: &str, arguments: &[&str], input: &str) -> Result<String> {
    inside(path, || {
        let mut command = Command::new(program);
        command.args(arguments);
        output_of(command, input)
    })
}

/// Runs a command to its end; what it prints.
pub fn output_of(mut command: Command, input: &str) -> Result<String> {
    let words = || {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    };
    let words = words();
    let what = || format!("run {words}");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().doing(what)?;
    if let Some(mut stdin) = child.stdin.take() {
        // Inputs are a few kilobytes: they fit into the pipe. A program that ends early shows in its status.
        let _closed_early = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().doing(what)?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        let said = [output.stdout, output.stderr].concat();
        let detail = format!("{}: {}", output.status, String::from_utf8_lossy(&said).trim());
        Err(LabError::Program { command: words, detail })
    }
}

/// Several `ip` commands at once (`ip -batch`), inside the namespace of that name.
pub fn ip_batch(name: &str, lines: &[String]) -> Result<()> {
    run_with_input(&path(name), "ip", &["-batch", "-"], &(lines.join("\n") + "\n")).map(drop)
}

/// One nftables transaction inside the namespace of that name.
pub fn nft(name: &str, script: &str) -> Result<()> {
    run_with_input(&path(name), "nft", &["-f", "-"], script).map(drop)
}

/// Sets kernel parameters below `/proc/sys/net` inside the namespace of that name.
pub fn sysctl(name: &str, values: &[(&str, &str)]) -> Result<()> {
    inside(&path(name), || {
        for (key, value) in values {
            let file = Path::new("/proc/sys/net").join(key);
            fs::write(&file, value).doing(|| format!("set {} to {value}", file.display()))?;
        }
        Ok(())
    })
}

/// Number by which the kernel knows the namespace held at `path`.
pub fn inode(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|data| data.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Alone with an empty `/run`, as on a machine on which nobody has made a namespace yet.
    #[test]
    fn namespaces_can_be_removed_though_somebody_else_made_one_later() {
        assert!(nix::unistd::geteuid().is_root(), "namespaces are made by root");
        in_thread(|| {
            unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).unwrap();
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_PRIVATE | MsFlags::MS_REC, None::<&str>)
                .unwrap();
            mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
            create("ours")?;
            let mut ip = Command::new("ip");
            ip.args(["netns", "add", "theirs"]);
            output_of(ip, "")?;
            assert_eq!(list(""), ["ours", "theirs"]);
            delete("ours")?;
            assert_eq!(list(""), ["theirs"]);
            delete("theirs")
        })
        .unwrap();
    }
}
