//! Runs the machine command (docs/architecture.md, the machine hook).
//!
//! Responsibility: `CMD <verb> <droplet id>` with JSON on standard input, one verb after the other, exit code 0 is
//! done. The core allows one event a Droplet, so commands for one machine never overlap.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::cloud::Effect;

/// The command line before verb and id, already split.
#[derive(Debug, Clone)]
pub(crate) struct MachineCommand {
    words: Vec<String>,
    deadline: Duration,
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("the machine command is empty")]
    Empty,
    #[error("the machine command could not be run: {0}")]
    Io(#[from] std::io::Error),
    #[error("the machine command ended with {0}")]
    Exit(std::process::ExitStatus),
    #[error("the machine command took longer than {0:?}")]
    Deadline(Duration),
}

impl MachineCommand {
    /// Splits `line` at white space.
    pub(crate) fn new(line: &str, deadline: Duration) -> Self {
        Self { words: line.split_whitespace().map(ToOwned::to_owned).collect(), deadline }
    }

    /// Runs all verbs of an effect; true when every one succeeded.
    pub(crate) async fn run(&self, effect: &Effect) -> bool {
        for verb in &effect.verbs {
            let started = std::time::Instant::now();
            match self.once(verb.word(), effect).await {
                Ok(()) => tracing::info!(
                    droplet = effect.droplet,
                    verb = verb.word(),
                    seconds = started.elapsed().as_secs_f32(),
                    "machine command done"
                ),
                Err(error) => {
                    tracing::error!(droplet = effect.droplet, verb = verb.word(), %error, "machine command failed");
                    return false;
                }
            }
        }
        true
    }

    async fn once(&self, verb: &str, effect: &Effect) -> Result<(), Failure> {
        let (program, arguments) = self.words.split_first().ok_or(Failure::Empty)?;
        let mut child = Command::new(program)
            .args(arguments)
            .arg(verb)
            .arg(effect.droplet.to_string())
            .stdin(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // A command that does not read its input is not an error (EPIPE).
            let _ = stdin.write_all(effect.machine.to_string().as_bytes()).await;
        }
        let status = tokio::time::timeout(self.deadline, child.wait())
            .await
            .map_err(|_| Failure::Deadline(self.deadline))??;
        if status.success() { Ok(()) } else { Err(Failure::Exit(status)) }
    }
}
