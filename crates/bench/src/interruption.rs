//! Ctrl-C and SIGTERM: whoever waits asks here and gives up with an error, so that programs, namespaces and files go with their
//! owners. Without it the process would end where it is, and leave all of them behind.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// Signals are the process's, hence so is this.
static WANTED: AtomicBool = AtomicBool::new(false);

/// Time between two looks: a person waits no longer.
const LOOK: Duration = Duration::from_millis(50);

/// From now on these signals end nothing by themselves.
pub fn catch() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut signals = {
        let _entered = runtime.enter();
        [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?]
    };
    // It ends with the process.
    let thread = std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            let [interrupt, terminate] = &mut signals;
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        });
        WANTED.store(true, Ordering::Relaxed);
        eprintln!("stopping");
    });
    thread.map(drop).context("no thread for signals")
}

/// Whether somebody wants this to end.
pub fn is_wanted() -> bool {
    WANTED.load(Ordering::Relaxed)
}

/// An error when somebody wants this to end: for every loop that waits.
pub fn check() -> anyhow::Result<()> {
    if is_wanted() {
        bail!("stopped by a signal");
    }
    Ok(())
}

/// Waits for so long, or gives up.
pub fn sleep(time: Duration) -> anyhow::Result<()> {
    let started = Instant::now();
    loop {
        check()?;
        let left = time.saturating_sub(started.elapsed());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(LOOK));
    }
}

/// Waits for `what`, or gives up on it.
pub async fn or<T>(what: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let wanted = async {
        while !is_wanted() {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::select! {
        () = wanted => bail!("stopped by a signal"),
        outcome = what => outcome,
    }
}
