//! `kubectl egress dashboard`: the controller's health page in a browser, through `kubectl port-forward`.
//!
//! kubectl is there, for it started this program, and knows every way into a cluster. What may be seen is decided by Kubernetes: who
//! may forward a port of the controller's pod sees the page.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

// A controller that is being replaced is back within seconds.
const AGAIN: Duration = Duration::from_secs(1);

/// Where the page is, and where it is to be here.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kubectl egress dashboard
  kubectl egress dashboard --port 0 --no-browser")]
pub struct Arguments {
    /// Namespace of the controller.
    #[arg(short = 'n', long, default_value = "egress-gateway")]
    namespace: String,

    /// Port of this machine on which the page is; 0 takes a free one.
    #[arg(long, default_value_t = 9192)]
    port: u16,

    /// Prints the address and opens no browser.
    #[arg(long)]
    no_browser: bool,

    /// Port of the page in the controller's pod, where its flag --dashboard-listen says another.
    #[arg(long, default_value_t = 9192, value_parser = clap::value_parser!(u16).range(1..))]
    controller_port: u16,
}

/// Keeps the page reachable until it is interrupted, over restarts of the controller too.
pub async fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    check_free(arguments.port)?;
    let interrupted = tokio::signal::ctrl_c();
    tokio::select! {
        ended = keep(arguments) => ended,
        signal = interrupted => {
            signal.context("signals")?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

// kubectl's own words about it name no way out.
fn check_free(port: u16) -> anyhow::Result<()> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            bail!("port {port} of this machine is taken; --port 0 takes a free one")
        }
        // Whatever else is wrong, kubectl says.
        Err(_) | Ok(_) => Ok(()),
    }
}

async fn keep(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut port = arguments.port;
    let mut shown = false;
    loop {
        let mut kubectl = forward(arguments, port)?;
        if let Some(own) = forwarded(&mut kubectl).await {
            // The browser knows this one: it stays.
            port = own;
            if !shown {
                shown = true;
                show(port, arguments.no_browser);
            }
            drain(&mut kubectl).await;
        }
        let status = kubectl.wait().await.context("kubectl port-forward")?;
        if !shown {
            bail!(
                "the controller cannot be reached: kubectl port-forward ended with {status}. Does it run? kubectl -n {} get pods",
                arguments.namespace
            );
        }
        eprintln!("the connection to the controller was lost; trying again");
        tokio::time::sleep(AGAIN).await;
    }
}

fn forward(arguments: &Arguments, port: u16) -> anyhow::Result<Child> {
    let namespace = format!("--namespace={}", arguments.namespace);
    let ports = format!("{port}:{}", arguments.controller_port);
    Command::new("kubectl")
        .args(["port-forward", &namespace, "--address=127.0.0.1", "deployment/egress-controller", &ports])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("kubectl cannot be started; it must be in PATH")
}

// `Forwarding from 127.0.0.1:9192 -> 9192` is what kubectl says first.
async fn forwarded(kubectl: &mut Child) -> Option<u16> {
    let stdout = kubectl.stdout.as_mut()?;
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let here = line.strip_prefix("Forwarding from 127.0.0.1:").and_then(|rest| rest.split_once(' '));
        if let Some(port) = here.and_then(|(port, _)| port.parse().ok()) {
            return Some(port);
        }
    }
    None
}

// It says a line for each connection; a pipe that nobody reads would stop it.
async fn drain(kubectl: &mut Child) {
    if let Some(stdout) = kubectl.stdout.as_mut() {
        // That it ended is seen by who waits for it.
        let _ended = tokio::io::copy(stdout, &mut tokio::io::sink()).await;
    }
}

fn show(port: u16, no_browser: bool) {
    let address = format!("http://127.0.0.1:{port}/");
    println!("{address}\nCtrl-C ends it.");
    let opener = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    if !no_browser {
        // On a machine without a browser the address is enough.
        let _opened = Command::new(opener)
            .arg(&address)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
    }
}
