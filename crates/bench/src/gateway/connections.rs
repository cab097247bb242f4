//! Many connections: how fast, and how many.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

use crate::failover::namespace::Namespace;
use crate::failover::world::node_addresses;
use crate::interruption;

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
/// The lowest port that connections are held from; the highest is far below those that the kernel picks by itself.
const FIRST_PORT: u16 = 1_024;
/// A handshake takes a tenth of a millisecond; one whose first packet was dropped takes a second.
const LOST_AFTER: Duration = Duration::from_millis(500);
/// Handshakes that fail one after the other without a drop that the gateway counted: then something else is broken.
const TRIES: usize = 5;
/// The outside takes a connection at once; on a machine that does much else, some time later.
const TAKEN_WITHIN: Duration = Duration::from_secs(10);
/// The outside looks at the end this often.
const PATIENCE: Duration = Duration::from_millis(100);

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
    let listener = listen(outside, SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, SHORT_PORT))?;
    let (done, made) = (AtomicBool::new(false), AtomicU64::new(0));
    let took = std::thread::scope(|scope| {
        // One that was reset before it was taken is no error of the outside.
        let taking = scope.spawn(|| accept(&listener, &done, |_| Ok(())));
        let started = Instant::now();
        let running: Vec<_> = sources[..workers]
            .iter()
            .enumerate()
            .map(|(worker, source)| {
                let made = &made;
                let entrance = node.entrance();
                scope.spawn(move || {
                    entrance?.enter()?;
                    let mut number = 0_u8;
                    while started.elapsed() < limit {
                        interruption::check()?;
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
        let outcomes: Vec<_> = running.into_iter().map(|worker| joined(worker.join())).collect();
        let took = started.elapsed();
        done.store(true, Ordering::Relaxed);
        joined(taking.join())?;
        outcomes.into_iter().collect::<anyhow::Result<()>>().map(|()| took)
    })?;
    let made = u32::try_from(made.load(Ordering::Relaxed))?;
    ensure!(made > 0, "no connection came about");
    Ok(f64::from(made) / took.as_secs_f64())
}

/// How many connections to one destination were held when the gateway dropped the first one more; `most` when it dropped none.
///
/// No file is held for a connection: both ends forget it without a word (`TCP_REPAIR`), so that the gateway, who is measured,
/// is the only one who knows of it.
pub fn until_the_first_is_lost(
    node: &Namespace,
    outside: &Namespace,
    gateway: &Namespace,
    most: u32,
) -> anyhow::Result<u32> {
    let listener = listen(outside, TARGET)?;
    let done = AtomicBool::new(false);
    let (told, taken) = mpsc::channel();
    std::thread::scope(|scope| {
        let forgetting = scope.spawn(|| {
            accept(&listener, &done, |stream| {
                forget(&stream)?;
                // Nobody listens when the last one was held.
                let _told = told.send(());
                Ok(())
            })
        });
        let held = node.inside(move || hold(most, &taken, || dropped(gateway)));
        done.store(true, Ordering::Relaxed);
        joined(forgetting.join())?;
        held?
    })
}

/// One connection after the other: the next is begun when the outside has taken the last, or those that wait to be taken would be
/// what is measured.
fn hold(
    most: u32,
    taken: &mpsc::Receiver<()>,
    dropped: impl Fn() -> anyhow::Result<u64>,
) -> anyhow::Result<u32> {
    let before = dropped()?;
    for held in 0..most {
        interruption::check()?;
        let source = SOURCES[held as usize % SOURCES.len()];
        let port = FIRST_PORT + u16::try_from(held as usize / SOURCES.len())?;
        let mut tries = 0..TRIES;
        let stream = loop {
            if let Some(stream) = connect(source, port, TARGET)? {
                break stream;
            }
            // Busy machines lose packets as well; what is asked is what the gateway lost.
            if dropped()? > before {
                return Ok(held);
            }
            if tries.next().is_none() {
                bail!(
                    "{source} has no connection to {TARGET} and the gateway has dropped none, with {held} held"
                );
            }
        };
        forget(&stream)?;
        taken
            .recv_timeout(TAKEN_WITHIN)
            .with_context(|| format!("the outside takes no connection, with {held} held"))?;
    }
    Ok(most)
}

/// Connections that the gateway's kernel could not enter into its table so far: it found no port, or no room.
fn dropped(gateway: &Namespace) -> anyhow::Result<u64> {
    let told = gateway.run("conntrack", &["-S"], "")?;
    let counts = told.split_whitespace().filter_map(|word| word.split_once('='));
    let lost = counts.filter(|(name, _)| ["insert_failed", "drop"].contains(name));
    lost.map(|(name, count)| count.parse::<u64>().with_context(|| format!("{name} in {told}"))).sum()
}

/// A connection that is reset when it is dropped; none when it was lost.
fn connect(source: Ipv4Addr, port: u16, target: SocketAddrV4) -> anyhow::Result<Option<TcpStream>> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    // Time waits of our own would be in the way: a reset leaves none.
    socket.set_linger(Some(Duration::ZERO))?;
    socket.set_reuse_address(true)?;
    socket
        .bind(&SockAddr::from(SocketAddr::new(IpAddr::V4(source), port)))
        .with_context(|| format!("a socket at {source}:{port}"))?;
    match socket.connect_timeout(&SockAddr::from(SocketAddr::V4(target)), LOST_AFTER) {
        Ok(()) => Ok(Some(socket.into())),
        Err(error) if error.kind() == ErrorKind::TimedOut => Ok(None),
        Err(error) => Err(error).with_context(|| format!("a connection from {source}:{port} to {target}")),
    }
}

/// From now on closing it says nothing to the other side.
fn forget(stream: &TcpStream) -> anyhow::Result<()> {
    Ok(setsockopt(stream, sockopt::TcpRepair, &1)?)
}

/// Listens there; whoever accepts looks up every [`PATIENCE`].
fn listen(outside: &Namespace, at: SocketAddrV4) -> anyhow::Result<TcpListener> {
    let listener = outside.inside(|| TcpListener::bind(at))?.with_context(|| at.to_string())?;
    SockRef::from(&listener).set_read_timeout(Some(PATIENCE))?;
    Ok(listener)
}

/// Takes connections until it is done.
fn accept(
    listener: &TcpListener,
    done: &AtomicBool,
    mut then: impl FnMut(TcpStream) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    while !done.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, _)) => then(stream)?,
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::ConnectionAborted => {}
                _ => return Err(error).context("accept"),
            },
        }
    }
    Ok(())
}

fn joined<T>(outcome: std::thread::Result<anyhow::Result<T>>) -> anyhow::Result<T> {
    outcome.map_err(|_| anyhow::anyhow!("a thread died"))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failover::world::{GATEWAYS, ROUTED, World};

    /// One whose node reaches the target through the first gateway. Other tests of this program have worlds with lower numbers.
    fn world(number: usize) -> World {
        let world = World::new(900 + number, 1).unwrap();
        give_addresses(&world.nodes[0]).unwrap();
        world.nodes[0].ip(&format!("route replace {ROUTED} via {}", GATEWAYS[0].private)).unwrap();
        world
    }

    #[test]
    fn the_connection_for_which_a_gateway_has_no_port_is_counted_as_lost_by_it() {
        const PORTS: u32 = 100;
        let world = world(1);
        let gateway = world.gateway(&GATEWAYS[0]).unwrap();
        let rule = "-t nat -I POSTROUTING -p tcp -o eth0 -j MASQUERADE --to-ports 2000-2099 --random-fully";
        gateway.run("iptables", &rule.split(' ').collect::<Vec<_>>(), "").unwrap();
        let held = until_the_first_is_lost(&world.nodes[0], &world.outside, gateway, 3 * PORTS).unwrap();
        assert!((PORTS / 2..=PORTS).contains(&held), "{held} of {PORTS}");
    }

    #[test]
    fn what_gets_lost_behind_the_gateway_is_not_counted_as_lost_by_it() {
        let world = world(2);
        let lossy = "type filter hook prerouting priority -350; tcp dport 443 tcp flags & (syn | ack) == syn \
                     numgen inc mod 10 == 3 counter name lost drop;";
        world
            .outside
            .nft(&format!("table ip lossy {{ counter lost {{ }}\n chain arriving {{ {lossy} }}\n}}\n"))
            .unwrap();
        let gateway = world.gateway(&GATEWAYS[0]).unwrap();
        let held = until_the_first_is_lost(&world.nodes[0], &world.outside, gateway, 25).unwrap();
        assert_eq!(held, 25);
        assert!(world.outside.counted("lossy", "lost").unwrap() > 0);
    }
}
