//! A program from `main` to the end of its process.

use std::io;

use tokio::runtime::{Builder, Runtime};

/// Runs `program` on one thread, and ends with it.
pub fn run_on_one_thread<T>(program: impl Future<Output = T>) -> io::Result<T> {
    Ok(end_with(Builder::new_current_thread().enable_all().build()?, program))
}

/// Runs `program` on a thread for each processor, and ends with it.
pub fn run_on_many_threads<T>(program: impl Future<Output = T>) -> io::Result<T> {
    Ok(end_with(Builder::new_multi_thread().enable_all().build()?, program))
}

/// The C library asks for a name on a thread that nothing can call back, for as long as resolvers are silent. A runtime that is dropped waits
/// for that thread, and whoever is to take over waits for this process.
fn end_with<T>(runtime: Runtime, program: impl Future<Output = T>) -> T {
    let result = runtime.block_on(program);
    runtime.shutdown_background();
    result
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_thread_that_waits_for_a_silent_resolver_holds_up_no_end() {
        let (answer, silence) = mpsc::channel::<()>();
        let (asks, asked) = tokio::sync::oneshot::channel();
        let started = Instant::now();
        run_on_one_thread(async move {
            let lookup = tokio::task::spawn_blocking(move || {
                asks.send(()).unwrap();
                silence.recv_timeout(Duration::from_secs(60))
            });
            asked.await.unwrap();
            drop(lookup);
        })
        .unwrap();
        assert!(started.elapsed() < Duration::from_secs(10));
        drop(answer);
    }
}
