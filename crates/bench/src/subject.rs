//! A program under test: its process, its size and the time it takes.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::interruption;
use crate::processor::Processor;

/// Time that a program has to say that it is ready, and to end.
const DEADLINE: Duration = Duration::from_secs(30);

/// Time after which a program that can't be asked is taken to be ready.
const PATIENCE: Duration = Duration::from_secs(8);

/// Port at which the agent says whether the kernel holds its plan.
const ADMIN_PORT: u16 = 9191;

/// Becomes a program that has a file of its own as `/etc/resolv.conf`: the file, the program, its arguments.
const WITH_RESOLVERS: &str = "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"";

/// Routing table of the agent.
const TABLE: u32 = 1157;

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
    /// Where it says so.
    admin: SocketAddr,
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
    /// Our agent, on the node of that name, reduced to its routes and probes: without a DaemonSet to follow, and without names to
    /// look up.
    pub fn agent(program: &Path, node: &str, kubeconfig: &Path) -> Self {
        let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, ADMIN_PORT));
        let command = [
            &program.display().to_string(),
            &format!("--node-name={node}"),
            &format!("--admin-listen={admin}"),
            "--daemonset=",
            "--protected-names=",
        ];
        Self {
            name: "egress-agent",
            table: TABLE,
            is_agent: true,
            admin,
            command: command.map(str::to_owned).to_vec(),
            node: node.to_owned(),
            kubeconfig: kubeconfig.to_owned(),
        }
    }

    /// Our agent with the arguments of the DaemonSet, on the node of that name and address in the VPC; `resolvers` stands in for the
    /// node's `/etc/resolv.conf`.
    pub fn shipped(
        program: &Path,
        node: &str,
        address: Ipv4Addr,
        kubeconfig: &Path,
        resolvers: &Path,
    ) -> anyhow::Result<Self> {
        let with_resolvers = ["unshare", "--mount", "sh", "-c", WITH_RESOLVERS].map(str::to_owned);
        let files = [resolvers, program].map(|file| file.display().to_string());
        let arguments = arguments_of_the_daemonset(node, address)?;
        Ok(Self {
            name: "egress-agent, as it is shipped",
            table: TABLE,
            is_agent: true,
            admin: SocketAddr::from((address, ADMIN_PORT)),
            command: with_resolvers.into_iter().chain(files).chain(arguments).collect(),
            node: node.to_owned(),
            kubeconfig: kubeconfig.to_owned(),
        })
    }

    /// Any other program.
    pub fn peer(command: &str, table: u32, kubeconfig: &Path) -> Self {
        // `exec`: signals and numbers are the program's, not the shell's.
        let command = ["sh", "-c", &format!("exec {command}")];
        Self {
            name: "peer",
            table,
            is_agent: false,
            admin: SocketAddr::from((Ipv4Addr::LOCALHOST, ADMIN_PORT)),
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
            running.until_ready(self.admin, started)?;
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
    let container = container_of_the_daemonset()?;
    let variables = container["env"].as_array();
    let fixed = variables.context("the DaemonSet has an environment")?.iter().filter_map(|variable| {
        Some((variable["name"].as_str()?.to_owned(), variable["value"].as_str()?.to_owned()))
    });
    Ok(fixed.collect())
}

/// Its arguments for that node.
pub fn arguments_of_the_daemonset(node: &str, address: Ipv4Addr) -> anyhow::Result<Vec<String>> {
    let container = container_of_the_daemonset()?;
    let written = container["args"].as_array().context("the DaemonSet has arguments")?;
    let mut arguments = Vec::new();
    for argument in written.iter().filter_map(Value::as_str) {
        let argument = argument.replace("$(NODE_NAME)", node).replace("$(HOST_IP)", &address.to_string());
        ensure!(!argument.contains("$("), "the benchmark does not know what {argument} stands for");
        arguments.push(argument);
    }
    Ok(arguments)
}

fn container_of_the_daemonset() -> anyhow::Result<Value> {
    let mut manifest: Value = serde_saphyr::from_str(include_str!("../../../deploy/base/agent.yaml"))?;
    Ok(manifest["spec"]["template"]["spec"]["containers"][0].take())
}

impl Running {
    fn until_ready(&mut self, admin: SocketAddr, started: Instant) -> anyhow::Result<()> {
        while !is_ready(admin) {
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

    /// Begins to count its time on a processor.
    pub fn processor(&self) -> anyhow::Result<Processor> {
        Processor::of(self.child.id())
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

fn is_ready(admin: SocketAddr) -> bool {
    use std::io::{Read, Write};
    let ask = || -> std::io::Result<String> {
        let mut stream = std::net::TcpStream::connect_timeout(&admin, Duration::from_millis(200))?;
        stream.set_read_timeout(Some(Duration::from_millis(500)))?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_agent_has_the_arguments_of_the_daemonset() {
        let arguments = arguments_of_the_daemonset("node-7", Ipv4Addr::new(10, 116, 0, 9)).unwrap();
        for argument in ["--node-name=node-7", "--daemonset=egress-agent", "--admin-listen=10.116.0.9:9191"] {
            assert!(arguments.iter().any(|one| one == argument), "{argument} in {arguments:?}");
        }
        assert!(
            !arguments.iter().any(|one| one.starts_with("--protected-names")),
            "the default: {arguments:?}"
        );
    }
}
