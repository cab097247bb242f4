//! What the simulator asks of a machine: boot, power-off, shutdown, destroy. Each is safe to repeat.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::Signal;

use super::process::{Recorded, write_json};
use super::supervisor::read_spec;
use super::{Disk, DropletSpec, MachineError, Place, Wiring, cgroup, rootfs};

/// From the call to a machine whose process 1 runs and whose interfaces are there; what it does then takes longer.
const BOOT_LIMIT: Duration = Duration::from_secs(30);
/// An orderly shutdown that takes longer is a power-off, as in the cloud.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(30);
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// Switches the Droplet on, with the disk it has or a new one. `supervise` is the command that runs
/// `machine run <id>` for this lab. Returns when process 1 runs and the interfaces are in place: power is on, as when
/// the cloud says `active`; the system still boots.
pub fn boot(place: &Place, spec: &DropletSpec, supervise: Command) -> Result<(), MachineError> {
    let folder = place.droplet(spec.id);
    fs::create_dir_all(&folder).map_err(MachineError::file("can't make", &folder))?;
    let _lock = lock(&folder)?;
    if place.running(spec.id).is_some() {
        return Ok(());
    }
    rootfs::prepare(&spec.image, &mut |line| eprintln!("{line}"))?;
    Disk::of(place, spec.id).prepare(spec)?;
    write_json(&folder.join("spec.json"), spec)?;
    Recorded::forget(&folder);
    start_supervisor(&folder, supervise)
}

fn start_supervisor(folder: &Path, mut supervise: Command) -> Result<(), MachineError> {
    let log = folder.join("supervisor.log");
    let output = File::create(&log).map_err(MachineError::file("can't open", &log))?;
    let errors = output.try_clone().map_err(MachineError::file("can't open", &log))?;
    let mut child =
        supervise.stdin(Stdio::null()).stdout(output).stderr(errors).spawn().map_err(|error| {
            MachineError::Program(format!("{}: {error}", supervise.get_program().display()))
        })?;
    let ends = Instant::now() + BOOT_LIMIT;
    loop {
        if Recorded::read(folder).is_some() {
            return Ok(());
        }
        if let Ok(Some(status)) = child.try_wait() {
            let told = fs::read_to_string(&log).unwrap_or_default();
            return Err(MachineError::Program(format!(
                "the machine's supervisor: {status}: {}",
                told.trim()
            )));
        }
        if Instant::now() >= ends {
            return Err(MachineError::TooLate { what: "power-on", seconds: BOOT_LIMIT.as_secs(), log });
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Takes the power away, as a pulled plug does. The disk is kept. A Droplet that is off, or unknown, is off.
pub fn power_off(place: &Place, id: u64, wiring: &dyn Wiring) -> Result<(), MachineError> {
    let folder = place.droplet(id);
    if !folder.is_dir() {
        return Ok(());
    }
    let _lock = lock(&folder)?;
    cut_power(place, id, &folder, wiring)
}

/// Asks the machine to shut down, and takes the power away when it is off or does not obey.
pub fn shutdown(place: &Place, id: u64, wiring: &dyn Wiring) -> Result<(), MachineError> {
    let folder = place.droplet(id);
    if !folder.is_dir() {
        return Ok(());
    }
    let _lock = lock(&folder)?;
    if let Some(recorded) = place.running(id) {
        // nspawn passes it on as the signal that makes systemd power off.
        recorded.nspawn.signal(Signal::SIGTERM);
        recorded.supervisor.wait_gone(SHUTDOWN_LIMIT);
    }
    cut_power(place, id, &folder, wiring)
}

/// Power-off, and the disk with it.
pub fn destroy(place: &Place, id: u64, wiring: &dyn Wiring) -> Result<(), MachineError> {
    power_off(place, id, wiring)?;
    Disk::of(place, id).remove()
}

fn cut_power(place: &Place, id: u64, folder: &Path, wiring: &dyn Wiring) -> Result<(), MachineError> {
    if let Some(recorded) = Recorded::read(folder) {
        // The supervisor first, or it would take the end of the machine for a reboot.
        for process in [recorded.supervisor, recorded.leader, recorded.nspawn] {
            process.signal(Signal::SIGKILL);
            if !process.wait_gone(KILL_LIMIT) {
                return Err(MachineError::TooLate {
                    what: "the end of a process of the machine",
                    seconds: KILL_LIMIT.as_secs(),
                    log: folder.join("console.log"),
                });
            }
        }
    }
    // What was started in the moment before the supervisor ended, or is left of one that was killed.
    cgroup::kill(place, id, KILL_LIMIT)?;
    Recorded::forget(folder);
    if let Ok(spec) = read_spec(folder, id) {
        wiring.detach(&spec)?;
    }
    cgroup::remove(place, id)
}

fn lock(folder: &Path) -> Result<Flock<File>, MachineError> {
    let path = folder.join("lock");
    let file = File::create(&path).map_err(MachineError::file("can't open", &path))?;
    Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, errno)| MachineError::file("can't lock", &path)(errno.into()))
}
