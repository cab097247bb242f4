//! `egress-lab machine run`: one Droplet from power-on to power-off, reboots included.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::process::{Record, Recorded, leader_of};
use super::{Disk, DropletSpec, MachineError, Place, Wiring, cgroup, rootfs};

/// systemd-nspawn's exit code when the machine asked for a reboot and nspawn runs without a unit of its own.
const REBOOT: i32 = 133;

const LEADER_LIMIT: Duration = Duration::from_secs(20);

/// Puts itself into the cgroups named before `--`, then becomes the command after it.
const ENTER_CGROUPS: &str =
    "while [ \"$1\" != -- ]; do echo $$ > \"$1/cgroup.procs\" || exit 70; shift; done; shift; exec \"$@\"";

/// Runs the machine and returns when it is off. The caller gives up its session and mount namespace.
pub(super) fn run(place: &Place, id: u64, wiring: &dyn Wiring) -> Result<(), MachineError> {
    let folder = place.droplet(id);
    let spec = read_spec(&folder, id)?;
    // Fails when the caller leads a session already, which is as good.
    let _ = nix::unistd::setsid();
    cgroup::join_supervisors(place)?;
    // A slave: unmounts outside (of a network namespace, say) arrive here, the overlay is seen nowhere else.
    unshare(CloneFlags::CLONE_NEWNS)
        .and_then(|()| {
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>)
        })
        .map_err(|errno| MachineError::Program(format!("a mount namespace for Droplet {id}: {errno}")))?;
    let disk = Disk::of(place, id);
    disk.mount(&rootfs::prepare(&spec.image, &mut |_| {})?)?;
    let outcome = run_until_off(place, &spec, &disk, &folder, wiring);
    Recorded::forget(&folder);
    wiring.detach(&spec)?;
    outcome
}

fn run_until_off(
    place: &Place,
    spec: &DropletSpec,
    disk: &Disk,
    folder: &Path,
    wiring: &dyn Wiring,
) -> Result<(), MachineError> {
    let own = i32::try_from(std::process::id()).ok().and_then(Record::of);
    let supervisor =
        own.ok_or_else(|| MachineError::Program("/proc does not know this process".to_owned()))?;
    for boots in 1.. {
        let cgroups = cgroup::create(place, spec.id)?;
        wiring.detach(spec)?;
        let mut nspawn = start(place, spec.id, disk, folder, &cgroups)?;
        let (record, leader) = wait_for_leader(&mut nspawn, folder)?;
        let attached = wiring.attach(spec, leader.pid);
        if attached.is_err() {
            // Without a network it is not the machine that was asked for.
            let _ = nspawn.kill();
            leader.signal(nix::sys::signal::Signal::SIGKILL);
        }
        attached?;
        Recorded { supervisor, nspawn: record, leader, boots }.write(folder)?;
        let status = nspawn.wait().map_err(MachineError::file("can't wait for the machine of", folder))?;
        if status.code() != Some(REBOOT) {
            break;
        }
    }
    Ok(())
}

fn start(
    place: &Place,
    id: u64,
    disk: &Disk,
    folder: &Path,
    cgroups: &[PathBuf],
) -> Result<Child, MachineError> {
    let console = folder.join("console.log");
    let log = File::options().create(true).append(true).open(&console);
    let log = log.map_err(MachineError::file("can't open", &console))?;
    let errors = log.try_clone().map_err(MachineError::file("can't open", &console))?;
    Command::new("sh")
        .args(["-c", ENTER_CGROUPS, "egress-lab"])
        .args(cgroups)
        .args([
            "--",
            "systemd-nspawn",
            "--quiet",
            "--boot",
            "--register=no",
            "--keep-unit",
            "--private-network",
        ])
        .args([
            "--capability=all",
            "--console=read-only",
            "--resolv-conf=off",
            "--timezone=off",
            "--link-journal=no",
        ])
        .arg(format!("--machine={}", place.machine_name(id)))
        .arg("--directory")
        .arg(disk.merged())
        // Its own network's sysctls must be writable, as on a Droplet; the rest of /proc and /sys is the host's.
        .env("SYSTEMD_NSPAWN_API_VFS_WRITABLE", "network")
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .spawn()
        .map_err(|error| {
            MachineError::Program(format!("systemd-nspawn (Debian package systemd-container): {error}"))
        })
}

fn wait_for_leader(nspawn: &mut Child, folder: &Path) -> Result<(Record, Record), MachineError> {
    let log = folder.join("console.log");
    let ends = Instant::now() + LEADER_LIMIT;
    loop {
        let pid = i32::try_from(nspawn.id()).unwrap_or_default();
        if let (Some(record), Some(leader)) = (Record::of(pid), leader_of(pid)) {
            return Ok((record, leader));
        }
        if let Ok(Some(status)) = nspawn.try_wait() {
            return Err(MachineError::Program(format!("systemd-nspawn: {status}; see {}", log.display())));
        }
        if Instant::now() >= ends {
            let _ = nspawn.kill();
            return Err(MachineError::TooLate {
                what: "the start of the machine",
                seconds: LEADER_LIMIT.as_secs(),
                log,
            });
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The description the Droplet was last booted with.
pub(super) fn read_spec(folder: &Path, id: u64) -> Result<DropletSpec, MachineError> {
    let text = std::fs::read(folder.join("spec.json")).map_err(|_| MachineError::Unknown(id))?;
    serde_json::from_slice(&text).map_err(MachineError::Spec)
}
