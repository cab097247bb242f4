//! The base root file systems that Droplets share: Debian as in the cloud's images, each made once.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest, Sha256};

use super::MachineError;

/// The release of Debian that stands for an image of the cloud. Others than Debian's cannot be made from Debian's archive:
/// a Droplet of such an image boots Debian 12, which has the older of all the tools that a gateway uses.
fn suite_of(image: &str) -> &'static str {
    if image.starts_with("debian-13") { "trixie" } else { "bookworm" }
}

/// What the cloud's image has and a gateway or the lab uses, or must be shown to be rid of: the SSH server. python3 comes
/// with cloud-init.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,cloud-init,iptables,nftables,iproute2,curl,ca-certificates,udev,netbase,\
                        iputils-ping,procps,locales,openssh-server,sudo,unattended-upgrades";

/// Run in the new root. networkd is what configures the network in the cloud's images; the rest would only cost time
/// at each boot. The host's resolver is of no use in the lab.
const CUSTOMIZE: &str = "chroot \"$1\" systemctl enable systemd-networkd.service && \
    chroot \"$1\" systemctl disable e2scrub_reap.service apt-daily.timer apt-daily-upgrade.timer && \
    chroot \"$1\" systemctl mask console-getty.service && rm -f \"$1\"/etc/ssh/ssh_host_* \"$1/etc/resolv.conf\" \"$1/etc/hostname\" && \
    : > \"$1/etc/machine-id\"";

/// Beginning of the names of file systems that are being made.
const UNFINISHED: &str = "droplet-rootfs.new.";

/// A line of progress at least this often.
const PROGRESS: Duration = Duration::from_secs(2);

/// Where built things are kept: `$EGRESS_LAB_CACHE`, or `~/.cache/egress-gateway`.
pub fn cache_folder() -> PathBuf {
    if let Some(folder) = std::env::var_os("EGRESS_LAB_CACHE") {
        return PathBuf::from(folder);
    }
    let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from);
    home.join(".cache/egress-gateway")
}

/// The root file system for an image of the cloud (`debian-12-x64`), built if it is not in the cache. Takes some 30 s and 350 MB the first time; `progress` is
/// given a line at least every two seconds meanwhile. Several processes may ask at once: one builds, the others wait.
pub fn prepare(image: &str, progress: &mut dyn FnMut(&str)) -> Result<PathBuf, MachineError> {
    let suite = suite_of(image);
    let cache = cache_folder();
    let root = cache.join(format!("droplet-rootfs-{}", fingerprint(suite)));
    if root.is_dir() {
        return Ok(root);
    }
    fs::create_dir_all(&cache).map_err(MachineError::file("can't make", &cache))?;
    let _lock = lock(&cache.join("droplet-rootfs.lock"), progress)?;
    if root.is_dir() {
        return Ok(root);
    }
    remove_unfinished(&cache);
    // A name of its own: what a killed process started may still be writing into another.
    let unfinished = cache.join(format!("{UNFINISHED}{}", std::process::id()));
    build(suite, &unfinished, progress)?;
    fs::rename(&unfinished, &root).map_err(MachineError::file("can't put into place", &root))?;
    Ok(root)
}

/// Best effort: what can't be removed is in nobody's way.
fn remove_unfinished(cache: &Path) {
    let Ok(entries) = fs::read_dir(cache) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(UNFINISHED))
    {
        let _ = fs::remove_dir_all(entry.path());
    }
}

fn fingerprint(suite: &str) -> String {
    let digest = Sha256::digest(format!("{suite}\n{PACKAGES}\n{CUSTOMIZE}"));
    format!("{:02x}{:02x}{:02x}{:02x}", digest[0], digest[1], digest[2], digest[3])
}

fn lock(path: &Path, progress: &mut dyn FnMut(&str)) -> Result<Flock<File>, MachineError> {
    let file = File::create(path).map_err(MachineError::file("can't open", path))?;
    let file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(locked) => return Ok(locked),
        Err((file, _)) => file,
    };
    progress("another process is making the Droplets' root file system; waiting for it");
    Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, errno)| MachineError::file("can't lock", path)(errno.into()))
}

fn build(suite: &str, target: &Path, progress: &mut dyn FnMut(&str)) -> Result<(), MachineError> {
    let started = Instant::now();
    progress(&format!("making the Droplets' root file system (Debian {suite}, once)"));
    let mut child = Command::new("mmdebstrap")
        .args([
            "--variant=minbase",
            &format!("--include={PACKAGES}"),
            &format!("--customize-hook={CUSTOMIZE}"),
        ])
        .arg(suite)
        .arg(target)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| MachineError::Program(format!("mmdebstrap (Debian package mmdebstrap): {error}")))?;
    let (sender, lines) = mpsc::channel();
    let reader = child.stderr.take().map(|stderr| {
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        })
    });
    let (mut last, mut tail) = (String::new(), Vec::new());
    loop {
        match lines.recv_timeout(PROGRESS) {
            Ok(line) => {
                tail.push(line.clone());
                if let Some(step) = line.strip_prefix("I: ") {
                    step.clone_into(&mut last);
                    progress(&format!("{:>3} s  {last}", started.elapsed().as_secs()));
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                progress(&format!("{:>3} s  {last}", started.elapsed().as_secs()));
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    if let Some(reader) = reader {
        let _ = reader.join();
    }
    let status = child.wait().map_err(MachineError::file("can't wait for mmdebstrap in", target))?;
    if !status.success() {
        let told = tail[tail.len().saturating_sub(8)..].join("\n");
        return Err(MachineError::Program(format!("mmdebstrap: {status}\n{told}")));
    }
    Ok(())
}
