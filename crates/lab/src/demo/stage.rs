//! What every step of the demo needs: commands with an end, waiting for a condition, and a voice.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::Value;

/// A line of progress at least that often while something takes longer.
const PROGRESS: Duration = Duration::from_secs(2);

/// Between two looks. The cloud's API allows 250 calls a minute, and the controller needs its share.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// The obstacle is told in so many characters; `kubectl describe` has all of it.
const TERSE: usize = 110;

/// The programs the demo speaks to and where it is.
#[derive(Debug, Clone)]
pub struct Stage {
    /// This program: the lab is used by its commands, as a person would.
    pub lab: PathBuf,
    /// Name of the lab.
    pub name: String,
    /// Folder of its state.
    pub state_dir: PathBuf,
    /// kubectl.
    pub kubectl: PathBuf,
    /// Its configuration.
    pub kubeconfig: PathBuf,
    /// The checkout.
    pub repository: PathBuf,
}

impl Stage {
    /// A kubectl command that must succeed; its output.
    pub fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        run(self.kubectl_command(arguments))
    }

    /// The same, parsed. `-o json` is appended.
    pub fn kubectl_json(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let text = self.kubectl(&[arguments, &["-o", "json"]].concat())?;
        serde_json::from_str(&text).context("kubectl did not print JSON")
    }

    fn kubectl_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.kubectl);
        command.current_dir(&self.repository).env("KUBECONFIG", &self.kubeconfig).args(arguments);
        command
    }

    /// A command of the lab that must succeed; its output.
    pub fn lab(&self, arguments: &[&str]) -> anyhow::Result<String> {
        run(self.lab_command(arguments))
    }

    /// The same, not started yet.
    pub fn lab_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.lab);
        command.current_dir(&self.repository).arg("--name").arg(&self.name);
        command.arg("--state-dir").arg(&self.state_dir).args(arguments);
        command
    }

    /// A command of the lab whose progress the person sees as it comes.
    pub fn lab_aloud(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let mut command = self.lab_command(arguments);
        let status =
            command.stdin(Stdio::null()).status().with_context(|| format!("cannot run {command:?}"))?;
        if !status.success() {
            bail!("egress-lab {} failed: {status}", arguments.join(" "));
        }
        Ok(())
    }

    /// Shows a kubectl command and what it prints.
    pub fn show(&self, arguments: &[&str]) -> anyhow::Result<()> {
        say(&format!("$ kubectl {}", arguments.join(" ")));
        for line in self.kubectl(arguments)?.lines() {
            say(&format!("  {line}"));
        }
        Ok(())
    }
}

fn run(mut command: Command) -> anyhow::Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// One indented line.
pub fn say(line: &str) {
    println!("    {line}");
}

/// A line that explains, set apart where the terminal can.
pub fn explain(line: &str) {
    if std::io::stdout().is_terminal() {
        println!("    \x1b[2m{line}\x1b[0m");
    } else {
        println!("    {line}");
    }
}

/// Asks `condition` again and again until it has a value; its last word of why not is the error after `deadline`.
pub fn eventually<T>(
    what: &str,
    deadline: Duration,
    mut condition: impl FnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let started = Instant::now();
    let mut told = started;
    loop {
        let obstacle = match condition() {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        if started.elapsed() > deadline {
            return Err(obstacle.context(format!("{what}: not within {} s", deadline.as_secs())));
        }
        if told.elapsed() >= PROGRESS {
            told = Instant::now();
            let words: String = format!("{obstacle:#}").chars().take(TERSE).collect();
            say(&format!("... {:3.0} s, not yet: {words}", started.elapsed().as_secs_f64()));
            std::io::stdout().flush()?;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}
