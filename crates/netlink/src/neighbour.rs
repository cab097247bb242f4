//! Makes the kernel ask anew which Ethernet address a neighbour has.
//!
//! An entry that is REACHABLE is believed for 15 to 45 s (`base_reachable_time`), and refused connections do not refresh it
//! either way: a gateway whose address came back on another machine stays unreachable for as long. Taking the entry away
//! makes the next packet ask the whole link, which costs one broadcast when nothing had changed.

use std::net::Ipv4Addr;

use crate::command::CommandSocket;
use crate::error::{Error, Refusal};
use crate::exchange::Reply;
use crate::wire::{Request, flag, kind, put_attribute, u16_at};

/// Offset of `ndm_state` in `struct ndmsg`: family, three bytes of padding, link index (four bytes).
const STATE: usize = 8;
const FAMILY_IPV4: u8 = 2;
/// `NDA_DST`.
const DESTINATION: u16 = 1;
/// `NUD_NOARP`, `NUD_PERMANENT`: entries that somebody set, or that need no asking.
const FIXED: u16 = 0x40 | 0x80;

impl CommandSocket {
    /// Forgets what the kernel has learned of the Ethernet address of `address` on the link `interface`. True: there was
    /// something to forget. An entry that somebody set by hand stays.
    pub fn forget_neighbour(&mut self, interface: u32, address: Ipv4Addr) -> Result<bool, Error> {
        let mut state = None;
        let asked = self.exchange(&[request(kind::GET_NEIGHBOUR, interface, address)], |frame| {
            state = parse_state(frame.payload);
        })?;
        if !is_done(asked)? || state.is_some_and(|state| state & FIXED != 0) {
            return Ok(false);
        }
        is_done(self.exchange(&[request(kind::DEL_NEIGHBOUR, interface, address)], |_| {})?)
    }
}

/// Reads `ndm_state` from the body of a neighbour message; `None` where it is cut off.
pub fn parse_state(body: &[u8]) -> Option<u16> {
    u16_at(body, STATE)
}

fn is_done(replies: Vec<Reply>) -> Result<bool, Error> {
    match replies.into_iter().next() {
        Some(Reply::Done) => Ok(true),
        Some(Reply::Refused(error)) if error.refusal == Refusal::Missing => Ok(false),
        Some(Reply::Refused(error)) => Err(error.into()),
        Some(Reply::Interrupted) | None => Ok(false),
    }
}

fn request(kind: u16, interface: u32, address: Ipv4Addr) -> Request {
    let mut body = vec![FAMILY_IPV4, 0, 0, 0];
    body.extend_from_slice(&interface.to_ne_bytes());
    // State, flags and type: nothing is asked of them.
    body.extend_from_slice(&[0; 4]);
    put_attribute(&mut body, DESTINATION, &address.octets());
    Request { kind, flags: flag::ACK, body }
}
