//! What every step of the demo needs: commands that are shown, and waiting for a condition.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::Value;

use super::program::Program;
use super::voice::Voice;

/// Between two looks. The cloud's API allows 250 calls a minute, and the controller needs its share.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// No command takes longer on a slow machine: one that does, hangs.
const LONGEST: Duration = Duration::from_secs(300);

/// The programs the demo speaks to and where it is.
#[derive(Debug)]
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
    /// Everything is said through it.
    pub voice: Voice,
}

/// What becomes of what a command prints.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Output {
    /// Said line by line as it comes.
    Said,
    /// Only handed back.
    Kept,
}

impl Stage {
    /// One line.
    pub fn say(&self, line: &str) {
        self.voice.say(line);
    }

    /// A kubectl command that must succeed; its output.
    pub fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.run(&shown("kubectl", arguments), self.kubectl_command(arguments), "", Output::Kept)
    }

    /// The same, and the person sees what it prints.
    pub fn show(&self, arguments: &[&str]) -> anyhow::Result<()> {
        self.run(&shown("kubectl", arguments), self.kubectl_command(arguments), "", Output::Said).map(drop)
    }

    /// The output of a command of the lab goes into a kubectl command.
    pub fn pipe(&self, from: &[&str], arguments: &[&str]) -> anyhow::Result<()> {
        let line = format!("{} | {}", shown("egress-lab", from), shown("kubectl", arguments));
        let input = self.run(&line, self.lab_command(from), "", Output::Kept)?;
        self.run(&line, self.kubectl_command(arguments), input.trim_end(), Output::Said).map(drop)
    }

    /// A kubectl command's output, parsed. `-o json` is appended.
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
        self.run(&shown("egress-lab", arguments), self.lab_command(arguments), "", Output::Kept)
    }

    fn lab_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.lab);
        command.current_dir(&self.repository).arg("--name").arg(&self.name);
        command.arg("--state-dir").arg(&self.state_dir).args(arguments);
        command
    }

    /// A command of the lab whose progress the person sees as it comes.
    pub fn lab_aloud(&self, arguments: &[&str]) -> anyhow::Result<()> {
        self.run(&shown("egress-lab", arguments), self.lab_command(arguments), "", Output::Said).map(drop)
    }

    /// Runs it to its end. Whoever watches has seen the command before it runs, and hears of it while it does.
    fn run(&self, line: &str, mut command: Command, input: &str, output: Output) -> anyhow::Result<String> {
        self.voice.command(line);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Program::start(line, &mut command, input)?.finish(LONGEST, |said| {
            if output == Output::Said {
                self.say(&format!("  {said}"));
            }
        })
    }

    /// A command of the lab that runs beside what comes next. Shown, and ended at the latest when what it gives goes.
    pub fn lab_beside(&self, arguments: &[&str]) -> anyhow::Result<Program> {
        let line = shown("egress-lab", arguments);
        self.voice.command(&line);
        Program::start(&line, &mut self.lab_command(arguments), "")
    }

    /// Asks `condition` again and again until it has a value; its last word of why not is the error after `deadline`.
    pub fn eventually<T>(
        &self,
        what: &str,
        deadline: Duration,
        mut condition: impl FnMut() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let started = Instant::now();
        self.voice.wait(what);
        let outcome = loop {
            let obstacle = match condition() {
                Ok(value) => break Ok(value),
                Err(error) => error,
            };
            self.voice.obstacle(&format!("{obstacle:#}"));
            if started.elapsed() > deadline {
                break Err(obstacle.context(format!("{what}: not within {} s", deadline.as_secs())));
            }
            std::thread::sleep(LOOK_AGAIN);
        };
        self.voice.waited();
        outcome
    }
}

/// A command as a person would type it. The lab's folder and name are the demo's own, and kubectl's configuration is exported.
fn shown(program: &str, arguments: &[&str]) -> String {
    let quoted = arguments.iter().map(|argument| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./=:,@%+".contains(&byte);
        if !argument.is_empty() && argument.bytes().all(plain) {
            (*argument).to_owned()
        } else {
            format!("'{}'", argument.replace('\'', r"'\''"))
        }
    });
    std::iter::once(program.to_owned()).chain(quoted).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_so_that_it_can_be_typed() {
        assert_eq!(shown("kubectl", &["get", "egw,sr", "-o", "wide"]), "kubectl get egw,sr -o wide");
        let query = "/v2/droplets?tag_name=egress-gateway&per_page=200";
        assert_eq!(shown("egress-lab", &["cloud", "GET", query]), format!("egress-lab cloud GET '{query}'"));
        assert_eq!(shown("sh", &["-c", "echo 'a'"]), r"sh -c 'echo '\''a'\'''");
    }
}
