//! Runs the machine command (docs/architecture.md, the machine hook).
//!
//! Responsibility: `CMD <verb> <droplet id>` with JSON on standard input, one verb after the other, exit code 0 is
//! done. The core allows one event a Droplet, so commands for one machine never overlap; what firewalls do, and
//! which reserved addresses are translated, is told by commands of their own beside them.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::cloud::{Effect, Enforcement, Translation};
use crate::server::Shell;

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
            match self.once(verb.word(), effect.droplet, &effect.machine).await {
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

    /// Tells what acts on a Droplet; true when it does.
    async fn enforce(&self, enforcement: &Enforcement) -> bool {
        let droplet = enforcement.droplet;
        let told = self.once("firewall", droplet, &enforcement.policy).await;
        if let Err(error) = &told {
            tracing::error!(droplet, %error, "the machine command did not take a firewall");
        }
        told.is_ok()
    }

    /// Tells which reserved addresses are translated to which anchor addresses; true when they are.
    async fn translate(&self, translations: &[Translation]) -> bool {
        let told = self.command(&["reserved-ips"], &json!({"addresses": translations})).await;
        if let Err(error) = &told {
            tracing::error!(%error, "the machine command did not take the reserved addresses");
        }
        told.is_ok()
    }

    async fn once(&self, verb: &str, droplet: u64, input: &Value) -> Result<(), Failure> {
        self.command(&[verb, &droplet.to_string()], input).await
    }

    async fn command(&self, more: &[&str], input: &Value) -> Result<(), Failure> {
        let (program, arguments) = self.words.split_first().ok_or(Failure::Empty)?;
        let mut child = Command::new(program)
            .args(arguments)
            .args(more)
            .stdin(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let input = input.to_string();
        // With the writing: a pipe holds less than the largest user data, and not every command reads.
        let work = async {
            if let Some(mut stdin) = child.stdin.take() {
                match stdin.write_all(input.as_bytes()).await {
                    // It needs no input, and is judged by its exit code like any other.
                    Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
                    written => written?,
                }
            }
            child.wait().await
        };
        let deadline = |_| Failure::Deadline(self.deadline);
        let status = tokio::time::timeout(self.deadline, work).await.map_err(deadline)??;
        if status.success() { Ok(()) } else { Err(Failure::Exit(status)) }
    }
}

impl Shell {
    pub(crate) async fn carry_out(self: Arc<Self>, effect: Effect) {
        let succeeded = match &self.machine {
            Some(machine) => machine.run(&effect).await,
            // A snapshot made with a machine command, continued without one.
            None => true,
        };
        let now = self.clock.now();
        self.lock().cloud.machine_finished(effect.action, succeeded, now);
        self.wake();
    }

    /// Tells the machine room which reserved addresses are whose, until it has taken it.
    pub(crate) async fn translate_addresses(self: Arc<Self>) {
        loop {
            let untold = self.lock().cloud.untold_translations();
            if let Some(translations) = untold {
                let taken = match &self.machine {
                    Some(machine) => machine.translate(&translations).await,
                    None => true,
                };
                if taken {
                    self.lock().cloud.translates(translations);
                    self.after_change();
                }
            }
            let _ = tokio::time::timeout(Duration::from_secs(1), self.addresses.notified()).await;
        }
    }

    /// Tells the machine room what acts on each Droplet, until it has taken it.
    pub(crate) async fn enforce_firewalls(self: Arc<Self>) {
        loop {
            let wanted = self.lock().cloud.enforcements();
            for enforcement in &wanted {
                let taken = match &self.machine {
                    Some(machine) => machine.enforce(enforcement).await,
                    None => true,
                };
                if taken {
                    self.lock().cloud.enforced(enforcement);
                    self.after_change();
                }
            }
            // What was not taken, or changed meanwhile, is told again after a moment at the latest: woken or not, it looks.
            let _ = tokio::time::timeout(Duration::from_secs(1), self.policies.notified()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// More than a pipe holds.
    fn large() -> Value {
        "x".repeat(200_000).into()
    }

    #[tokio::test]
    async fn a_command_that_neither_reads_its_input_nor_ends_is_ended_at_its_deadline() {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("machine.sh");
        std::fs::write(&script, "exec sleep 600").unwrap();
        let command = MachineCommand::new(&format!("sh {}", script.display()), Duration::from_millis(200));
        let ended = tokio::time::timeout(Duration::from_secs(20), command.once("boot", 1, &large())).await;
        assert!(matches!(ended, Ok(Err(Failure::Deadline(_)))), "{ended:?}");
    }

    #[tokio::test]
    async fn a_command_that_needs_no_input_is_judged_by_its_exit_code() {
        let once =
            async |line| MachineCommand::new(line, Duration::from_secs(20)).once("boot", 1, &large()).await;
        assert!(once("true").await.is_ok());
        assert!(matches!(once("false").await, Err(Failure::Exit(_))));
    }
}
