//! SIGTERM and SIGINT become a cancellation that every task can wait for.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that is cancelled at the first SIGTERM or SIGINT.
///
/// Needs a running Tokio runtime. A second signal ends the process at once: a person who presses Ctrl-C twice means it.
pub fn on_signal() -> std::io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        for round in 0.. {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            if round > 0 {
                tracing::warn!(signal = name, "second signal: stopping at once");
                std::process::exit(EXIT_BY_SECOND_SIGNAL);
            }
            tracing::info!(signal = name, "stopping");
            cancelled.cancel();
        }
    });
    Ok(token)
}

// 128 + SIGINT, as a shell reports it.
const EXIT_BY_SECOND_SIGNAL: i32 = 130;
