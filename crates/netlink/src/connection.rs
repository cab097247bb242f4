//! One blocking netlink socket that asks the kernel and waits for the answers.
//!
//! Invariants:
//! - Every wait has an end: each exchange has a deadline, and a batch is small enough that its answers fit the receive
//!   buffer (a batch of 2,000 lost acks with the default buffer; 128 with 4 MiB never did).
//! - Answers are matched by sequence number and come from the kernel (port 0), or the socket is of no more use:
//!   [`Error::spoils_socket`].
//! - One exchange at a time: the kernel serves one dump per socket.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::socket::{setsockopt, sockopt};

use crate::error::Error;
use crate::exchange::{Exchange, Reply};
use crate::wire::{Frame, Request};

/// Most messages in one send.
pub(crate) const BATCH: usize = 128;

/// Receive buffer of command and monitor sockets, bytes.
pub(crate) const RECEIVE_BUFFER: usize = 4 << 20;

/// A datagram sent is closed when it reaches this; a message has at most 8 KiB (a group of 1,024), and the kernel's
/// send buffer 208 KiB.
const LONGEST_SENT: usize = 32 << 10;

/// Longest datagram taken; the kernel's dumps come in pieces of at most 32 KiB.
const LONGEST: usize = 64 << 10;

pub(crate) struct Connection {
    socket: Socket,
    port: u32,
    next_sequence: u32,
    buffer: Vec<u8>,
}

impl Connection {
    /// Opens a socket in the network namespace of the calling thread.
    pub(crate) fn open(receive_buffer: usize) -> Result<Self, Error> {
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(Error::Open)?;
        let port = socket.bind_auto().map_err(Error::Open)?.port_number();
        set_receive_buffer(&socket, receive_buffer).map_err(Error::Open)?;
        socket.set_netlink_get_strict_chk(true).map_err(Error::Open)?;
        socket.set_ext_ack(true).map_err(Error::Open)?;
        // Errors don't repeat the request, so that a full batch of them is as small as a batch of acks.
        socket.set_cap_ack(true).map_err(Error::Open)?;
        socket.set_non_blocking(true).map_err(Error::Open)?;
        Ok(Self { socket, port, next_sequence: 1, buffer: vec![0; LONGEST] })
    }

    /// The socket's port number: notifications about its changes carry it.
    pub(crate) fn port(&self) -> u32 {
        self.port
    }

    /// Sends the requests (at most [`BATCH`]) at once and collects how each ended; what they return goes to `on_data`.
    pub(crate) fn exchange(
        &mut self,
        requests: &[Request],
        deadline: Duration,
        mut on_data: impl FnMut(&Frame<'_>),
    ) -> Result<Vec<Reply>, Error> {
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        let start = Instant::now();
        // Sequence number 0 is that of notifications.
        let first = self.next_sequence.checked_add(BATCH as u32).map_or(1, |_| self.next_sequence);
        self.next_sequence = first + requests.len() as u32;
        let mut exchange = Exchange::new(self.port, first, requests.len());
        // The kernel works the requests off inside the send; no deadline of ours can interrupt that, which is why the
        // async side has one of its own.
        for datagram in exchange.datagrams(requests, LONGEST_SENT) {
            self.socket.send_to(&datagram, &SocketAddr::new(0, 0), 0).map_err(Error::Send)?;
        }
        while !exchange.is_complete() {
            let length = self.receive(start, deadline)?;
            exchange.take(&self.buffer[..length], &mut on_data)?;
        }
        Ok(exchange.into_replies())
    }

    /// Waits for one datagram of the kernel's and returns its length.
    fn receive(&mut self, start: Instant, deadline: Duration) -> Result<usize, Error> {
        loop {
            match self.socket.recv_from(&mut &mut self.buffer[..], nix::libc::MSG_TRUNC) {
                Ok((_, sender)) if sender.port_number() != 0 => {}
                Ok((length, _)) if length > self.buffer.len() => {
                    return Err(Error::OutOfStep("a datagram longer than 64 KiB"));
                }
                Ok((length, _)) => return Ok(length),
                Err(error) if error.raw_os_error() == Some(nix::libc::ENOBUFS) => return Err(Error::Overrun),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let Some(left) = deadline.checked_sub(start.elapsed()).filter(|left| !left.is_zero())
                    else {
                        return Err(Error::Deadline(deadline));
                    };
                    let timeout =
                        PollTimeout::try_from(left.as_millis().saturating_add(1)).unwrap_or(PollTimeout::MAX);
                    let mut polled = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
                    match nix::poll::poll(&mut polled, timeout) {
                        Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                        Err(errno) => return Err(Error::Receive(errno.into())),
                    }
                }
                Err(error) => return Err(Error::Receive(error)),
            }
        }
    }
}

/// Sets the receive buffer beyond the system's limit where the capability for that is there, else up to the limit.
pub(crate) fn set_receive_buffer(socket: &Socket, bytes: usize) -> io::Result<()> {
    if setsockopt(socket, sockopt::RcvBufForce, &bytes).is_err() {
        setsockopt(socket, sockopt::RcvBuf, &bytes)?;
    }
    Ok(())
}
