//! A machine whose processes stand still while its kernel goes on: it forwards and translates, and no program answers.
//!
//! Not by the freezer of cgroups: which hierarchy has one differs from machine to machine, and signals stop process 1 of a
//! namespace, too, when they come from outside.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::process::{Record, is_stopped};
use super::{MachineError, Place, cgroup};

const LIMIT: Duration = Duration::from_secs(10);

/// Stops every process of the Droplet, process 1 included. Returns when none runs any more.
pub fn suspend(place: &Place, id: u64) -> Result<(), MachineError> {
    let nspawn = place.running(id).ok_or(MachineError::Unknown(id))?.nspawn;
    let ends = Instant::now() + LIMIT;
    loop {
        // One that was being started when the others were stopped is found only now.
        let running: Vec<Record> = cgroup::processes(place, id)
            .into_iter()
            .filter(|process| *process != nspawn && !is_stopped(process))
            .collect();
        if running.is_empty() {
            return Ok(());
        }
        if Instant::now() >= ends {
            return Err(MachineError::TooLate {
                what: "the stop of all processes",
                seconds: LIMIT.as_secs(),
                log: place.droplet(id).join("console.log"),
            });
        }
        for process in running {
            process.signal(Signal::SIGSTOP);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// They go on. One that was not stopped takes no notice.
pub fn resume(place: &Place, id: u64) {
    for process in cgroup::processes(place, id) {
        process.signal(Signal::SIGCONT);
    }
}
