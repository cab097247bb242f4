//! One blocking netlink socket that asks the kernel and waits for the answers.
//!
//! Invariants:
//! - Every wait has an end: each exchange has a deadline, and a batch is small enough that its answers fit the receive
//!   buffer (a batch of 2,000 lost acks with the default buffer; 128 with 4 MiB never did).
//! - Answers are matched by sequence number and come from the kernel (port 0), or the socket is of no more use:
//!   [`Error::spoils_socket`].
//! - One exchange at a time: the kernel serves one dump per socket.

use std::io;
use std::time::{Duration, Instant};

use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::socket::{setsockopt, sockopt};

use crate::error::{Error, KernelError};
use crate::wire::{self, Frame, Request, flag, kind};
use std::os::fd::AsFd;

/// Most messages in one send.
pub(crate) const BATCH: usize = 128;

/// Receive buffer of command and monitor sockets, bytes.
pub(crate) const RECEIVE_BUFFER: usize = 4 << 20;

/// Longest datagram taken; the kernel's dumps come in pieces of at most 32 KiB.
const LONGEST: usize = 64 << 10;

/// How one request of an exchange ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    /// It was done.
    Done,
    /// It was a dump, and the tables changed while it was written: ask again.
    Interrupted,
    /// The kernel said no.
    Refused(KernelError),
}

pub(crate) struct Connection {
    socket: Socket,
    port: u32,
    sequence: u32,
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
        Ok(Self { socket, port, sequence: 0, buffer: vec![0; LONGEST] })
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
        let start = Instant::now();
        // Sequence number 0 is that of notifications.
        let first = self.sequence.checked_add(1).filter(|n| u32::MAX - n > BATCH as u32).unwrap_or(1);
        let mut bytes = Vec::new();
        for (sequence, request) in (first..).zip(requests) {
            request.write(sequence, self.port, &mut bytes);
            self.sequence = sequence;
        }
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        // The kernel works the requests off inside this call; it can't be interrupted by a deadline of ours, which is
        // why the async side has one of its own.
        self.socket.send_to(&bytes, &SocketAddr::new(0, 0), 0).map_err(Error::Send)?;

        let mut replies: Vec<Option<Reply>> = vec![None; requests.len()];
        let mut open = requests.len();
        let mut interrupted = vec![false; requests.len()];
        while open > 0 {
            let length = self.receive(start, deadline)?;
            for frame in wire::frames(&self.buffer[..length]) {
                let frame = frame?;
                if frame.port != self.port {
                    return Err(Error::OutOfStep("an answer for another port"));
                }
                let index = frame.sequence.wrapping_sub(first) as usize;
                let Some(slot @ None) = replies.get_mut(index) else {
                    return Err(Error::OutOfStep("an answer nobody asked for"));
                };
                interrupted[index] |= frame.flags & flag::DUMP_INTERRUPTED != 0;
                let (code, text) = match frame.kind {
                    kind::ERROR => wire::error_message(&frame)?,
                    kind::DONE => wire::done_message(&frame),
                    _ => {
                        on_data(&frame);
                        continue;
                    }
                };
                *slot = Some(match code {
                    0 if interrupted[index] => Reply::Interrupted,
                    0 => Reply::Done,
                    code => Reply::Refused(KernelError::new(code, text)),
                });
                open -= 1;
            }
        }
        Ok(replies.into_iter().flatten().collect())
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
