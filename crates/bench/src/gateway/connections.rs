//! Many connections: how fast, and how many.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::failover::namespace::Namespace;
use crate::failover::world::node_addresses;

/// The node's further addresses in the VPC: one address has not the ports for what is measured here.
const SOURCES: [Ipv4Addr; 4] = [
    Ipv4Addr::new(10, 116, 4, 1),
    Ipv4Addr::new(10, 116, 4, 2),
    Ipv4Addr::new(10, 116, 4, 3),
    Ipv4Addr::new(10, 116, 4, 4),
];
/// The one destination.
const TARGET: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 443);
/// Where short connections go: to many addresses, so that none of them is short of ports.
const SHORT_PORT: u16 = 444;
const FIRST_PORT: u16 = 1_024;
/// A handshake takes a tenth of a millisecond; one whose first packet was dropped takes a second.
const LOST_AFTER: Duration = Duration::from_millis(500);

/// Gives the node what it connects from.
pub fn give_addresses(node: &Namespace) -> anyhow::Result<()> {
    for source in SOURCES {
        node.ip(&format!("addr add {source}/20 dev eth1"))?;
    }
    Ok(())
}

/// Connections a second that are made, and reset at once, by as many threads as there are cores; with `direct` from the node's
/// own public address, to which answers come back without a gateway.
pub fn a_second(node: &Namespace, outside: &Namespace, limit: Duration, direct: bool) -> anyhow::Result<f64> {
    let workers = std::thread::available_parallelism().map_or(2, std::num::NonZero::get).min(SOURCES.len());
    let sources = if direct { [node_addresses(0).1; SOURCES.len()] } else { SOURCES };
    let listener = outside.inside(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, SHORT_PORT)))??;
    listener.set_nonblocking(true)?;
    let (done, made) = (AtomicBool::new(false), AtomicU64::new(0));
    let took = std::thread::scope(|scope| {
        scope.spawn(|| accept_and_drop(&listener, &done));
        let started = Instant::now();
        let running: Vec<_> = sources[..workers]
            .iter()
            .enumerate()
            .map(|(worker, source)| {
                let (done, made) = (&done, &made);
                let entrance = node.entrance();
                scope.spawn(move || {
                    entrance?.enter()?;
                    let mut number = 0_u8;
                    while started.elapsed() < limit && !done.load(Ordering::Relaxed) {
                        number = number.wrapping_add(1);
                        // Each worker has its own part of the destinations.
                        let last = (number % 60) + 1 + 60 * u8::try_from(worker)?;
                        let target = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, last), SHORT_PORT);
                        if connect(*source, 0, target)?.is_some() {
                            made.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    Ok::<_, anyhow::Error>(())
                })
            })
            .collect();
        let outcomes: Vec<_> = running.into_iter().map(|worker| worker.join()).collect();
        done.store(true, Ordering::Relaxed);
        for outcome in outcomes {
            outcome.map_err(|_| anyhow::anyhow!("a thread died"))??;
        }
        Ok::<_, anyhow::Error>(started.elapsed())
    })?;
    let made = u32::try_from(made.load(Ordering::Relaxed))?;
    ensure!(made > 0, "no connection came about");
    Ok(f64::from(made) / took.as_secs_f64())
}

/// How many connections to one destination were held when the first one more was lost.
///
/// No file is held for a connection: both ends forget it without a word (`TCP_REPAIR`), so that the gateway, who is measured,
/// is the only one who knows of it.
pub fn until_the_first_is_lost(node: &Namespace, outside: &Namespace, most: u32) -> anyhow::Result<u32> {
    let listener = outside.inside(|| TcpListener::bind(TARGET))??;
    listener.set_nonblocking(true)?;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let forgetting = scope.spawn(|| accept_and_forget(&listener, &done));
        let held = node.inside(|| hold(most));
        done.store(true, Ordering::Relaxed);
        forgetting.join().map_err(|_| anyhow::anyhow!("a thread died"))??;
        held?
    })
}

fn hold(most: u32) -> anyhow::Result<u32> {
    for held in 0..most {
        let source = SOURCES[held as usize % SOURCES.len()];
        let port = FIRST_PORT + u16::try_from(held as usize / SOURCES.len())?;
        match connect(source, port, TARGET)? {
            Some(stream) => forget(&stream)?,
            None => return Ok(held),
        }
    }
    Ok(most)
}

/// A connection that is reset when it is dropped; none when it was lost.
fn connect(source: Ipv4Addr, port: u16, target: SocketAddrV4) -> anyhow::Result<Option<TcpStream>> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    // Time waits of our own would be in the way: a reset leaves none.
    socket.set_linger(Some(Duration::ZERO))?;
    socket.set_reuse_address(true)?;
    socket.bind(&SockAddr::from(SocketAddr::new(IpAddr::V4(source), port)))?;
    match socket.connect_timeout(&SockAddr::from(SocketAddr::V4(target)), LOST_AFTER) {
        Ok(()) => Ok(Some(socket.into())),
        Err(error) if error.kind() == std::io::ErrorKind::TimedOut => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// From now on closing it says nothing to the other side.
fn forget(stream: &TcpStream) -> anyhow::Result<()> {
    Ok(setsockopt(stream, sockopt::TcpRepair, &1)?)
}

fn accept_and_forget(listener: &TcpListener, done: &AtomicBool) -> anyhow::Result<()> {
    accept(listener, done, |stream| forget(&stream))
}

fn accept_and_drop(listener: &TcpListener, done: &AtomicBool) {
    // One that was reset before it was taken is no error of the outside.
    let _infallible: anyhow::Result<()> = accept(listener, done, |_| Ok(()));
}

fn accept(
    listener: &TcpListener,
    done: &AtomicBool,
    mut then: impl FnMut(TcpStream) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    while !done.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, _)) => then(stream)?,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_micros(50));
            }
            Err(_) => {}
        }
    }
    Ok(())
}
