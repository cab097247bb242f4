//! Wake-ups when rules, routes, links, addresses or nexthop objects change.
//!
//! An event says "look again", never "this is how it is now": the kernel drops nexthop objects and routes of a link
//! that goes down without a word (only the link's event comes), and drops notifications when the buffer is full
//! ([`Event::Overrun`]). Subscribe first, then take the first snapshot. Coalescing is the caller's.
//!
//! With `net.ipv4.nexthop_compat_mode` 1 (the kernel's default) replacing a nexthop object gives one route event for
//! each route on it; they carry the port of who did it, so the caller can tell its own.

use std::collections::VecDeque;

use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};
use socket2::{SockFilter, SockRef};

use crate::connection::{RECEIVE_BUFFER, set_receive_buffer};
use crate::error::Error;
use crate::wire::{self, Frame, kind};

/// Multicast groups (`RTNLGRP_*`): links, IPv4 addresses, IPv4 routes, IPv4 rules, nexthop objects.
const GROUPS: [u32; 5] = [1, 5, 7, 8, 32];

/// Longest datagram taken; notifications hold one message, the largest is a link's.
const LONGEST: usize = 64 << 10;

/// Where `nlmsg_pid` stands in `struct nlmsghdr`.
const AUTHOR_OFFSET: u32 = 12;
/// Instructions of the classic packet filter (`linux/bpf_common.h`): `BPF_LD | BPF_W | BPF_ABS`, `BPF_JMP | BPF_JEQ | BPF_K`,
/// `BPF_RET | BPF_K`.
const LOAD_WORD: u16 = 0x20;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;

/// Who made a change: the port number of its netlink socket, 0 for the kernel itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Author(pub u32);

/// Something changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Event {
    /// A link came, went, or changed. Routes and nexthop objects on it may be gone.
    Link,
    /// An address came or went.
    Address,
    /// A route came, changed or went.
    Route(Author),
    /// A rule came or went.
    Rule(Author),
    /// A nexthop object came, changed or went; its routes may be gone.
    Nexthop(Author),
    /// Notifications were lost: anything may have changed.
    Overrun,
}

impl Event {
    /// Whether the change was made through the socket with that port, for instance [`crate::Commands::port`].
    pub fn is_by(&self, port: u32) -> bool {
        match self {
            Self::Route(author) | Self::Rule(author) | Self::Nexthop(author) => author.0 == port,
            Self::Link | Self::Address | Self::Overrun => false,
        }
    }
}

/// A subscription to the kernel's notifications.
pub struct Monitor {
    socket: TokioSocket,
    ignored: Option<u32>,
    buffer: Vec<u8>,
    events: VecDeque<Event>,
}

impl Monitor {
    /// Subscribes, in the network namespace of the calling thread. Needs a tokio runtime.
    pub fn subscribe() -> Result<Self, Error> {
        Self::with_receive_buffer(RECEIVE_BUFFER)
    }

    pub(crate) fn with_receive_buffer(bytes: usize) -> Result<Self, Error> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE).map_err(Error::Open)?;
        socket.socket_mut().bind(&SocketAddr::new(0, 0)).map_err(Error::Open)?;
        set_receive_buffer(socket.socket_ref(), bytes).map_err(Error::Open)?;
        for group in GROUPS {
            socket.socket_ref().add_membership(group).map_err(Error::Open)?;
        }
        Ok(Self { socket, ignored: None, buffer: Vec::with_capacity(LONGEST), events: VecDeque::new() })
    }

    /// Has the kernel leave out what the socket with that port changes, and from now on only that: ten thousand routes of our
    /// own are as many notifications, which nobody waits for and which would overrun the buffer.
    pub fn ignore(&mut self, port: u32) -> Result<(), Error> {
        if self.ignored == Some(port) {
            return Ok(());
        }
        // The filter's machine reads in network byte order, `nlmsg_pid` stands there in the machine's own.
        let wanted = u32::from_be_bytes(port.to_ne_bytes());
        let program = [
            SockFilter::new(LOAD_WORD, 0, 0, AUTHOR_OFFSET),
            SockFilter::new(JUMP_IF_EQUAL, 0, 1, wanted),
            SockFilter::new(RETURN, 0, 0, 0),
            SockFilter::new(RETURN, 0, 0, u32::MAX),
        ];
        SockRef::from(self.socket.socket_ref()).attach_filter(&program).map_err(Error::Open)?;
        self.ignored = Some(port);
        Ok(())
    }

    /// Waits for the next event. An error means that the socket is of no more use: subscribe anew and take a snapshot.
    ///
    /// Cancel safe: no event is lost when the future is dropped.
    pub async fn next(&mut self) -> Result<Event, Error> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            self.buffer.clear();
            match self.socket.recv_from(&mut self.buffer).await {
                Ok(sender) if sender.port_number() == 0 => {
                    self.events.extend(wire::frames(&self.buffer).filter_map(|frame| event(&frame.ok()?)));
                }
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(nix::libc::ENOBUFS) => return Ok(Event::Overrun),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::Receive(error)),
            }
        }
    }
}

/// What a notification says; the body is not looked at, so one that can't be decoded wakes all the same.
pub fn event(frame: &Frame<'_>) -> Option<Event> {
    let author = Author(frame.port);
    match frame.kind {
        kind::NEW_LINK | kind::DEL_LINK => Some(Event::Link),
        kind::NEW_ADDRESS | kind::DEL_ADDRESS => Some(Event::Address),
        kind::NEW_ROUTE | kind::DEL_ROUTE => Some(Event::Route(author)),
        kind::NEW_RULE | kind::DEL_RULE => Some(Event::Rule(author)),
        kind::NEW_NEXTHOP | kind::DEL_NEXTHOP => Some(Event::Nexthop(author)),
        _ => None,
    }
}
