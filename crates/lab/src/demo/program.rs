//! The programs that the demo runs. Each ends by itself before its deadline, or is ended; none outlives the step that started it.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// Between two looks at whether it has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Lines that may be on their way from a program to whoever watches: it waits when they are not read.
const LINES: usize = 64;

/// A program that was started. Ended when this goes, whatever the reason.
#[derive(Debug)]
pub struct Program {
    child: Child,
    /// As a person would type it.
    line: String,
}

enum Said {
    Output(String),
    Complaint(String),
}

impl Program {
    /// Starts it and writes `input`, which must fit into a pipe, to its standard input if that is piped.
    pub fn start(line: &str, command: &mut Command, input: &str) -> anyhow::Result<Self> {
        let child = command.spawn().with_context(|| format!("cannot run {line}"))?;
        let mut program = Self { child, line: line.to_owned() };
        if let Some(mut stdin) = program.child.stdin.take() {
            // One that ends early shows in its status.
            let _closed_early = stdin.write_all(input.as_bytes());
        }
        Ok(program)
    }

    /// Hears it to its end, which must be a good one and come within `deadline`. `hear` gets every line as it comes. Gives its
    /// standard output, if that is piped.
    pub fn finish(mut self, deadline: Duration, mut hear: impl FnMut(&str)) -> anyhow::Result<String> {
        let end = Instant::now() + deadline;
        let (lines, said) = mpsc::sync_channel(LINES);
        if let Some(pipe) = self.child.stdout.take() {
            listen(pipe, lines.clone(), Said::Output);
        }
        if let Some(pipe) = self.child.stderr.take() {
            listen(pipe, lines.clone(), Said::Complaint);
        }
        drop(lines);
        let (mut output, mut complaint) = (String::new(), String::new());
        let ended = loop {
            let (all, line) = match said.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(Said::Output(line)) => (&mut output, line),
                Ok(Said::Complaint(line)) => (&mut complaint, line),
                Err(RecvTimeoutError::Timeout) => break None,
                Err(RecvTimeoutError::Disconnected) => break self.wait(end)?,
            };
            hear(&line);
            all.push_str(&line);
            all.push('\n');
        };
        let (line, complaint) = (&self.line, complaint.trim());
        match ended {
            Some(status) if status.success() => Ok(output),
            Some(status) => bail!("{line} failed: {status}: {complaint}"),
            None => bail!("{line} did not end within {} s and was ended: {complaint}", deadline.as_secs()),
        }
    }

    fn wait(&mut self, end: Instant) -> io::Result<Option<ExitStatus>> {
        loop {
            let status = self.child.try_wait()?;
            if status.is_some() || Instant::now() >= end {
                return Ok(status);
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Neither does anything to one that has ended and was waited for.
        let _ended_before = self.child.kill();
        let _waited_for_before = self.child.wait();
    }
}

/// Passes on its lines until it ends or nobody hears them any more.
fn listen(pipe: impl Read + Send + 'static, lines: SyncSender<Said>, kind: fn(String) -> Said) {
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            if lines.send(kind(line)).is_err() {
                return;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Stdio;

    use super::*;

    const SOON: Duration = Duration::from_secs(1);
    const LATE: Duration = Duration::from_secs(60);

    fn shell(script: &str) -> Program {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Program::start("a command", &mut command, "input").unwrap()
    }

    fn is_there(id: u32) -> bool {
        Path::new(&format!("/proc/{id}")).exists()
    }

    #[test]
    fn it_is_heard_to_its_end() {
        let mut heard = Vec::new();
        let output =
            shell("cat; echo; echo why >&2").finish(LATE, |line| heard.push(line.to_owned())).unwrap();
        heard.sort();
        assert_eq!((output.as_str(), heard.join(" ")), ("input\n", "input why".to_owned()));
        let error = shell("echo no such thing >&2; exit 3").finish(LATE, |_| {}).unwrap_err();
        assert_eq!(error.to_string(), "a command failed: exit status: 3: no such thing");
    }

    #[test]
    fn one_that_does_not_end_is_ended_and_what_it_said_is_told() {
        for script in ["echo waiting >&2; exec sleep 600", "echo waiting >&2; exec sleep 600 >&- 2>&-"] {
            let program = shell(script);
            let id = program.child.id();
            let error = program.finish(SOON, |_| {}).unwrap_err();
            assert_eq!(error.to_string(), "a command did not end within 1 s and was ended: waiting");
            assert!(!is_there(id), "{script}");
        }
    }

    #[test]
    fn what_runs_in_the_background_ends_with_the_step_that_started_it() {
        let program = shell("exec sleep 600");
        let id = program.child.id();
        assert!(is_there(id));
        drop(program);
        assert!(!is_there(id));
    }
}
