//! Time that a process has on a processor, to the nanosecond, all threads together.
//!
//! The kernel keeps it for each thread, and a thread that ends takes its counter along (`/proc/<pid>/stat` keeps the sum, in
//! hundredths of a second). So it is looked at every now and then: what a thread had at the last look stays counted.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};

/// Counts from its beginning on.
#[derive(Debug)]
pub struct Processor {
    threads: PathBuf,
    /// Nanoseconds of each thread at the beginning and at the last look at it.
    seen: BTreeMap<OsString, (u64, u64)>,
}

impl Processor {
    /// Begins to count for the process with that id.
    pub fn of(process: u32) -> anyhow::Result<Self> {
        let mut processor =
            Self { threads: format!("/proc/{process}/task").into(), seen: BTreeMap::default() };
        processor.look()?;
        processor.seen.values_mut().for_each(|(begin, last)| *begin = *last);
        Ok(processor)
    }

    /// Takes in what the threads had until now. A thread that begins and ends between two looks is not counted.
    pub fn look(&mut self) -> anyhow::Result<()> {
        let mut any = false;
        for thread in fs::read_dir(&self.threads).context("the process has ended")? {
            let thread = thread?;
            // It may have ended since it was listed.
            let Ok(text) = fs::read_to_string(thread.path().join("schedstat")) else { continue };
            let nanoseconds = text.split_whitespace().next().context("schedstat")?.parse()?;
            // One that is new began with nothing.
            self.seen.entry(thread.file_name()).or_default().1 = nanoseconds;
            any = true;
        }
        ensure!(any, "the process has ended");
        Ok(())
    }

    /// From the beginning to the last look.
    pub fn total(&self) -> Duration {
        Duration::from_nanos(self.seen.values().map(|(begin, last)| last.saturating_sub(*begin)).sum())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Instant;

    use super::*;

    #[test]
    fn the_time_of_a_thread_that_has_ended_stays_counted() {
        const BUSY: Duration = Duration::from_millis(30);
        let mut processor = Processor::of(std::process::id()).unwrap();
        let (worked, has_worked) = mpsc::channel();
        let (go, end) = mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            let own = format!("/proc/self/task/{}/schedstat", nix::unistd::gettid());
            let had = || -> u64 {
                fs::read_to_string(&own).unwrap().split_whitespace().next().unwrap().parse().unwrap()
            };
            let began = Instant::now();
            while u128::from(had()) < BUSY.as_nanos() {
                assert!(began.elapsed() < Duration::from_secs(60));
            }
            worked.send(()).unwrap();
            // Ends when the other end is dropped.
            let _ended = end.recv();
        });
        has_worked.recv().unwrap();
        processor.look().unwrap();
        drop(go);
        thread.join().unwrap();
        processor.look().unwrap();
        assert!(processor.total() >= BUSY, "{:?}", processor.total());
    }
}
