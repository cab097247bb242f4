//! One TCP connect as a probe: what counts as an answer, and what says nothing.
//!
//! A probe of full size carries data in its SYN: the only way to send a large packet to somebody who refuses the connection. That
//! needs neither a cookie of the target (`TCP_FASTOPEN_NO_COOKIE`) nor a capability. A SYN that is sent again after a second
//! carries no data and would get through a black hole, so a deadline is always shorter.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream as StdStream};
use std::time::Duration;

use nix::libc;
use nix::sys::socket::setsockopt;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpSocket, TcpStream};

/// As much as Linux puts in a SYN on a path of 1,500 bytes: it keeps 40 bytes for options, of which 20 are used, so that the
/// packet has 1,480. Black holes of tunnels are seen (GRE 1,476, VXLAN 1,450, WireGuard 1,420), that of PPPoE (1,492) is not.
///
/// Source: `tcp_send_syn_data` in Linux 6.x; seen on the wire with 6.18.
const FULL_SIZE: [u8; 1420] = [0; 1420];

/// Data goes with the SYN though the target gave no cookie; nix has no name for it.
#[derive(Clone, Copy, Debug)]
struct FastOpenNoCookie;

nix::setsockopt_impl!(
    FastOpenNoCookie,
    libc::IPPROTO_TCP,
    libc::TCP_FASTOPEN_NO_COOKIE,
    bool,
    nix::sys::socket::sockopt::SetBool
);

/// What came of one probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Something answered: the connection was accepted or refused.
    Answered,
    /// Nothing answered in time, or the network said that nothing can.
    Missed(String),
    /// The probe could not be sent for a reason of our own (no socket, no source address): no evidence about the gateway.
    Inconclusive(String),
}

/// Connects from `source`, any port, and waits `deadline` for an answer.
pub async fn connect_from(source: Ipv4Addr, target: SocketAddrV4, deadline: Duration) -> Outcome {
    connect(SocketAddrV4::new(source, 0), target, deadline).await
}

/// Connects from exactly this address and port: the port decides which gateway the connection goes through.
///
/// `IP_LOCAL_PORT_RANGE` would not do: outside the system's own range it is silently without effect, and the probe would
/// go through the wrong gateway.
pub async fn connect_through(from: SocketAddrV4, target: SocketAddrV4, deadline: Duration) -> Outcome {
    connect(from, target, deadline).await
}

/// As [`connect_through`], with a packet as large as the path should carry.
pub async fn connect_full_size(from: SocketAddrV4, target: SocketAddrV4, deadline: Duration) -> Outcome {
    let stream = match begin_full_size(from, target) {
        Ok(stream) => stream,
        Err(error) => return Outcome::Inconclusive(format!("full-size probe from {from}: {error}")),
    };
    let answered = async {
        stream.writable().await?;
        stream.take_error()
    };
    match tokio::time::timeout(deadline, answered).await {
        Ok(Ok(None)) => {
            close_at_once(&stream);
            Outcome::Answered
        }
        Ok(Ok(Some(error)) | Err(error)) => judge(&error, target),
        Err(_) => Outcome::Missed(format!(
            "{target} did not answer a packet of full size within {} ms",
            deadline.as_millis()
        )),
    }
}

/// Sends the SYN with its data; the answer is still to come.
fn begin_full_size(from: SocketAddrV4, target: SocketAddrV4) -> io::Result<TcpStream> {
    let socket = bound(from)?;
    setsockopt(&socket, FastOpenNoCookie, &true)?;
    match socket.send_to_with_flags(&FULL_SIZE, &SocketAddr::V4(target).into(), libc::MSG_FASTOPEN) {
        Ok(_) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    TcpStream::from_std(StdStream::from(socket))
}

async fn connect(from: SocketAddrV4, target: SocketAddrV4, deadline: Duration) -> Outcome {
    let socket = match prepared(from) {
        Ok(socket) => socket,
        Err(error) => return Outcome::Inconclusive(format!("probe from {from}: {error}")),
    };
    match tokio::time::timeout(deadline, socket.connect(SocketAddr::V4(target))).await {
        Ok(Ok(stream)) => {
            close_at_once(&stream);
            Outcome::Answered
        }
        Ok(Err(error)) => judge(&error, target),
        Err(_) => Outcome::Missed(format!("{target} did not answer within {} ms", deadline.as_millis())),
    }
}

fn prepared(from: SocketAddrV4) -> io::Result<TcpSocket> {
    Ok(TcpSocket::from_std_stream(bound(from)?.into()))
}

fn bound(from: SocketAddrV4) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    if from.port() != 0 {
        // A probe port is used again after a minute at the latest; the kernel must not refuse it for a TIME_WAIT.
        socket.set_reuse_address(true)?;
    }
    socket.bind(&SocketAddr::V4(from).into())?;
    Ok(socket)
}

// A reset leaves no TIME_WAIT here and no half-closed connection at the target.
fn close_at_once(stream: &TcpStream) {
    let socket = socket2::SockRef::from(stream);
    if let Err(error) = socket.set_linger(Some(Duration::ZERO)) {
        tracing::debug!(%error, "probe connection closes with FIN");
    }
}

fn judge(error: &io::Error, target: SocketAddrV4) -> Outcome {
    match error.kind() {
        // Whoever it comes from: a reset, or a `port unreachable`, of a gateway that refuses to forward reads the same, for TCP does not say
        // who sent it (`docs/probes.md`).
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => Outcome::Answered,
        io::ErrorKind::TimedOut | io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            Outcome::Missed(format!("{target}: {error}"))
        }
        _ => Outcome::Inconclusive(format!("{target}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test]
    async fn accepted_and_refused_are_answers() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let SocketAddr::V4(open) = listener.local_addr().unwrap() else { unreachable!() };
        assert_eq!(connect_from(Ipv4Addr::LOCALHOST, open, SECOND).await, Outcome::Answered);
        drop(listener);
        assert_eq!(connect_from(Ipv4Addr::LOCALHOST, open, SECOND).await, Outcome::Answered);
    }

    #[tokio::test]
    async fn an_address_that_is_not_ours_is_no_evidence() {
        let target = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9);
        let outcome = connect_from(Ipv4Addr::new(192, 0, 2, 1), target, SECOND).await;
        assert!(matches!(outcome, Outcome::Inconclusive(_)), "{outcome:?}");
    }

    #[test]
    fn the_network_saying_no_is_a_miss() {
        let target = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9);
        for kind in
            [io::ErrorKind::HostUnreachable, io::ErrorKind::NetworkUnreachable, io::ErrorKind::TimedOut]
        {
            assert!(matches!(judge(&kind.into(), target), Outcome::Missed(_)));
        }
        assert!(matches!(judge(&io::ErrorKind::PermissionDenied.into(), target), Outcome::Inconclusive(_)));
    }
}
