//! A program under test: its process, its size and the time it takes.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::interruption;

/// Time that a program has to say that it is ready, and to end.
const DEADLINE: Duration = Duration::from_secs(30);

/// Time after which a program that can't be asked is taken to be ready.
const PATIENCE: Duration = Duration::from_secs(8);

/// Where the agent says whether the kernel holds its plan.
const ADMIN: &str = "127.0.0.1:9191";

/// Name of the node, where there is one.
pub const NODE: &str = "node-1";

/// How to run a program under test.
pub struct Subject {
    /// What the report calls it.
    pub name: &'static str,
    /// Table in which its routes are.
    pub table: u32,
    /// Whether it is our agent: it probes gateways, and says when it is ready.
    pub is_agent: bool,
    command: Vec<String>,
    node: String,
    kubeconfig: PathBuf,
}

/// A program that runs. Dropping it kills it.
pub struct Running {
    child: Child,
    log: tempfile::NamedTempFile,
    /// From its start until it was ready.
    pub ready_after: Duration,
}

impl Subject {
    /// Our agent, on the node of that name.
    pub fn agent(program: &Path, node: &str, kubeconfig: &Path) -> Self {
        let command = [
            &program.display().to_string(),
            &format!("--node-name={node}"),
            &format!("--admin-listen={ADMIN}"),
            "--daemonset=",
            "--protected-names=",
        ];
        Self {
            name: "egress-agent",
            table: 1157,
            is_agent: true,
            command: command.map(str::to_owned).to_vec(),
            node: node.to_owned(),
            kubeconfig: kubeconfig.to_owned(),
        }
    }

    /// Any other program.
    pub fn peer(command: &str, table: u32, kubeconfig: &Path) -> Self {
        // `exec`: signals and numbers are the program's, not the shell's.
        let command = ["sh", "-c", &format!("exec {command}")];
        Self {
            name: "peer",
            table,
            is_agent: false,
            command: command.map(str::to_owned).to_vec(),
            node: NODE.to_owned(),
            kubeconfig: kubeconfig.to_owned(),
        }
    }

    /// Starts it and waits until it is ready.
    pub fn start(&self) -> anyhow::Result<Running> {
        let log = tempfile::NamedTempFile::new()?;
        let started = Instant::now();
        let mut command = Command::new(&self.command[0]);
        if self.is_agent {
            command.envs(environment_of_the_daemonset()?);
        }
        let child = command
            .args(&self.command[1..])
            .env("KUBECONFIG", &self.kubeconfig)
            .env("NODE_NAME", &self.node)
            .env("NODE_HOSTNAME", &self.node)
            .env("EGRESS_LOG", std::env::var("EGRESS_LOG").unwrap_or_else(|_| "info".to_owned()))
            .stdin(Stdio::null())
            // Ctrl-C is for the harness, which ends the measurement first and then this.
            .process_group(0)
            .stdout(log.reopen()?)
            .stderr(log.reopen()?)
            .spawn()
            .with_context(|| self.command.join(" "))?;
        let mut running = Running { child, log, ready_after: Duration::ZERO };
        if self.is_agent {
            running.until_ready(started)?;
        } else {
            interruption::sleep(PATIENCE)?;
            running.is_alive()?;
        }
        running.ready_after = started.elapsed();
        Ok(running)
    }
}

/// What the shipped DaemonSet sets in the agent's environment, as far as it does not depend on the Pod: how memory is kept.
fn environment_of_the_daemonset() -> anyhow::Result<Vec<(String, String)>> {
    let manifest: Value = serde_saphyr::from_str(include_str!("../../../deploy/base/agent.yaml"))?;
    let variables = manifest["spec"]["template"]["spec"]["containers"][0]["env"].as_array();
    let fixed = variables.context("the DaemonSet has an environment")?.iter().filter_map(|variable| {
        Some((variable["name"].as_str()?.to_owned(), variable["value"].as_str()?.to_owned()))
    });
    Ok(fixed.collect())
}

impl Running {
    fn until_ready(&mut self, started: Instant) -> anyhow::Result<()> {
        while !is_ready() {
            self.is_alive()?;
            if started.elapsed() > DEADLINE {
                bail!("not ready after {DEADLINE:?}\n{}", self.last_words());
            }
            interruption::sleep(Duration::from_millis(2))?;
        }
        Ok(())
    }

    /// An error with its last words when it has ended by itself.
    pub fn is_alive(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("the program under test ended: {status}\n{}", self.last_words()),
            None => Ok(()),
        }
    }

    /// All of its log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log.path()).unwrap_or_default()
    }

    /// The end of its log.
    pub fn last_words(&self) -> String {
        let text = self.log();
        let lines: Vec<_> = text.lines().rev().take(20).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Memory that it has, in MiB: all of it, the part that is no file's, and the most it ever had.
    pub fn memory(&self) -> anyhow::Result<[f64; 3]> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let field = |name: &str| -> anyhow::Result<f64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).context("a field of /proc")?;
            let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
            Ok(kib / 1024.0)
        };
        Ok([field("VmRSS:")?, field("RssAnon:")?, field("VmHWM:")?])
    }

    /// Time it has had on a processor, all threads together.
    pub fn processor_time(&self) -> anyhow::Result<Duration> {
        let mut nanoseconds = 0;
        for thread in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let text = fs::read_to_string(thread?.path().join("schedstat"))?;
            nanoseconds += text.split_whitespace().next().context("schedstat")?.parse::<u64>()?;
        }
        Ok(Duration::from_nanos(nanoseconds))
    }

    /// SIGKILL: what a crash is.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM, and waits for the end.
    pub fn terminate(mut self) -> anyhow::Result<()> {
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM)?;
        let told = Instant::now();
        while self.child.try_wait()?.is_none() {
            if told.elapsed() > DEADLINE {
                bail!("told to end, and alive {DEADLINE:?} later");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Already gone is as good.
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn is_ready() -> bool {
    use std::io::{Read, Write};
    let Ok(address) = ADMIN.parse() else { return false };
    let ask = || -> std::io::Result<String> {
        let mut stream = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200))?;
        stream.set_read_timeout(Some(Duration::from_millis(500)))?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}
