//! One exchange with the kernel: requests out, answers matched to them. Without a socket, so that what a kernel rarely
//! does can be tested.
//!
//! ```text
//! each request:  open ── data ──► open ── ERROR 0 or DONE 0 ──► done, or interrupted (a dump with that flag)
//!                  └──────────────────── ERROR n or DONE n ──► refused
//! ```
//!
//! Invariant: an answer that is not for an open request of this exchange is an error, never a guess.

use crate::error::{Error, KernelError};
use crate::wire::{self, Frame, Request, flag, kind};

/// How one request of an exchange ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// It was done.
    Done,
    /// It was a dump, and the tables changed while it was written: ask again.
    Interrupted,
    /// The kernel said no.
    Refused(KernelError),
}

/// Requests, and what is known of how each ended.
pub struct Exchange {
    port: u32,
    first: u32,
    slots: Vec<Slot>,
    open: usize,
}

enum Slot {
    Open { interrupted: bool },
    Ended(Reply),
}

impl Exchange {
    /// For `count` requests numbered from `first` on, sent by the socket with that port.
    pub fn new(port: u32, first: u32, count: usize) -> Self {
        let slots = (0..count).map(|_| Slot::Open { interrupted: false }).collect();
        Self { port, first, slots, open: count }
    }

    /// The requests as datagrams of about `longest` bytes, each message whole.
    pub fn datagrams(&self, requests: &[Request], longest: usize) -> Vec<Vec<u8>> {
        let mut datagrams = vec![Vec::new()];
        for (sequence, request) in (self.first..).zip(requests) {
            if datagrams.last().is_some_and(|last| last.len() >= longest) {
                datagrams.push(Vec::new());
            }
            if let Some(last) = datagrams.last_mut() {
                request.write(sequence, self.port, last);
            }
        }
        datagrams
    }

    /// Whether every request has ended.
    pub fn is_complete(&self) -> bool {
        self.open == 0
    }

    /// Takes one datagram of the kernel's; what requests return goes to `on_data`.
    pub fn take(&mut self, datagram: &[u8], mut on_data: impl FnMut(&Frame<'_>)) -> Result<(), Error> {
        for frame in wire::frames(datagram) {
            let frame = frame?;
            if frame.port != self.port {
                return Err(Error::OutOfStep("an answer for another port"));
            }
            let index = frame.sequence.wrapping_sub(self.first) as usize;
            let Some(slot) = self.slots.get_mut(index) else {
                return Err(Error::OutOfStep("an answer nobody asked for"));
            };
            let Slot::Open { interrupted } = slot else {
                return Err(Error::OutOfStep("a second answer"));
            };
            *interrupted |= frame.flags & flag::DUMP_INTERRUPTED != 0;
            let (code, text) = match frame.kind {
                kind::ERROR => wire::error_message(&frame)?,
                kind::DONE => wire::done_message(&frame),
                _ => {
                    on_data(&frame);
                    continue;
                }
            };
            let reply = match code {
                0 if *interrupted => Reply::Interrupted,
                0 => Reply::Done,
                code => Reply::Refused(KernelError::new(code, text)),
            };
            *slot = Slot::Ended(reply);
            self.open -= 1;
        }
        Ok(())
    }

    /// How the requests ended, in their order.
    pub fn into_replies(self) -> Vec<Reply> {
        self.slots
            .into_iter()
            .filter_map(|slot| match slot {
                Slot::Ended(reply) => Some(reply),
                Slot::Open { .. } => None,
            })
            .collect()
    }
}
