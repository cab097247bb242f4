//! A way from the machine's loopback to one address inside a lab, for kubectl and cloud clients on the machine.
//!
//! The listener is made outside, the connections are opened by a thread inside; no packet passes between the two networks.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use crate::error::{Doing, Result};
use crate::netns;

/// One relay.
#[derive(Debug, Clone, clap::Args)]
pub struct RelayArgs {
    /// Port on 127.0.0.1.
    #[arg(long)]
    port: u16,
    /// Network namespace that the other end is in.
    #[arg(long)]
    netns: PathBuf,
    /// The other end.
    #[arg(long)]
    to: SocketAddr,
}

/// Relays until it is killed.
pub fn run(arguments: &RelayArgs) -> Result<()> {
    let local = SocketAddr::from((Ipv4Addr::LOCALHOST, arguments.port));
    let listener = TcpListener::bind(local).doing(|| format!("listen on {local}"))?;
    let (requests, wanted) = mpsc::channel::<TcpStream>();
    let (namespace, to) = (arguments.netns.clone(), arguments.to);
    let inside = std::thread::spawn(move || -> Result<()> {
        netns::enter(&namespace)?;
        for client in wanted {
            // Each connection on its own thread, which is born inside.
            std::thread::spawn(move || {
                if let Ok(server) = TcpStream::connect_timeout(&to, Duration::from_secs(5)) {
                    join(&client, &server);
                }
            });
        }
        Ok(())
    });
    for client in listener.incoming().flatten() {
        if requests.send(client).is_err() {
            break;
        }
    }
    inside.join().unwrap_or(Ok(()))
}

/// Copies both ways until both ends are done.
fn join(client: &TcpStream, server: &TcpStream) {
    let _delay_only = (client.set_nodelay(true), server.set_nodelay(true));
    std::thread::scope(|scope| {
        scope.spawn(|| copy(client, server));
        copy(server, client);
    });
}

/// A broken connection ends both directions: there is nobody to tell.
fn copy(mut from: &TcpStream, mut to: &TcpStream) {
    let outcome = io::copy(&mut from, &mut to);
    let how = if outcome.is_ok() { Shutdown::Write } else { Shutdown::Both };
    let _closed_already = to.shutdown(how);
    if outcome.is_err() {
        let _closed_already = from.shutdown(Shutdown::Both);
    }
}
