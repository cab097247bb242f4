//! Netlink framing: message headers, attributes, the kernel's error messages.
//!
//! Invariant: decoding is total. Any bytes give a value or an error, never a panic, and never run past the buffer.

use netlink_packet_core::{Emitable, NlaBuffer, NlasIterator};

/// Length of `struct nlmsghdr`.
pub const HEADER: usize = 16;

/// Message types of rtnetlink (`linux/rtnetlink.h`) and of netlink itself (`linux/netlink.h`).
#[allow(missing_docs, reason = "the kernel's own names")]
pub mod kind {
    pub const ERROR: u16 = 2;
    pub const DONE: u16 = 3;
    pub const NEW_LINK: u16 = 16;
    pub const DEL_LINK: u16 = 17;
    pub const GET_LINK: u16 = 18;
    pub const NEW_ADDRESS: u16 = 20;
    pub const DEL_ADDRESS: u16 = 21;
    pub const GET_ADDRESS: u16 = 22;
    pub const NEW_ROUTE: u16 = 24;
    pub const DEL_ROUTE: u16 = 25;
    pub const GET_ROUTE: u16 = 26;
    pub const NEW_NEIGHBOUR: u16 = 28;
    pub const DEL_NEIGHBOUR: u16 = 29;
    pub const GET_NEIGHBOUR: u16 = 30;
    pub const NEW_RULE: u16 = 32;
    pub const DEL_RULE: u16 = 33;
    pub const GET_RULE: u16 = 34;
    pub const NEW_NEXTHOP: u16 = 104;
    pub const DEL_NEXTHOP: u16 = 105;
    pub const GET_NEXTHOP: u16 = 106;
    pub const NEW_BUCKET: u16 = 116;
    pub const GET_BUCKET: u16 = 118;
}

/// Header flags (`linux/netlink.h`).
#[allow(missing_docs, reason = "the kernel's own names")]
pub mod flag {
    pub const REQUEST: u16 = 0x1;
    pub const ACK: u16 = 0x4;
    pub const DUMP_INTERRUPTED: u16 = 0x10;
    pub const DUMP: u16 = 0x300;
    pub const REPLACE: u16 = 0x100;
    pub const EXCLUSIVE: u16 = 0x200;
    pub const CREATE: u16 = 0x400;
    /// In an error message: the request's payload is left out.
    pub const CAPPED: u16 = 0x100;
    /// In an error message: attributes follow (extended ack).
    pub const ACK_ATTRIBUTES: u16 = 0x200;
}

/// `NLMSGERR_ATTR_MSG`: the kernel's explanation.
const ERROR_TEXT: u16 = 1;

/// A request: everything but the sequence number, which the connection gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Message type, one of [`kind`].
    pub kind: u16,
    /// Header flags beside REQUEST.
    pub flags: u16,
    /// Family header and attributes.
    pub body: Vec<u8>,
}

impl Request {
    /// A request whose body a stock or own message type writes.
    pub fn new(kind: u16, flags: u16, body: &impl Emitable) -> Self {
        let mut bytes = vec![0; body.buffer_len()];
        body.emit(&mut bytes);
        Self { kind, flags, body: bytes }
    }

    /// Appends the framed message to `buffer`; messages in one buffer are aligned to four bytes.
    pub fn write(&self, sequence: u32, port: u32, buffer: &mut Vec<u8>) {
        let length = HEADER + self.body.len();
        buffer.extend_from_slice(&(length as u32).to_ne_bytes());
        buffer.extend_from_slice(&self.kind.to_ne_bytes());
        buffer.extend_from_slice(&(self.flags | flag::REQUEST).to_ne_bytes());
        buffer.extend_from_slice(&sequence.to_ne_bytes());
        buffer.extend_from_slice(&port.to_ne_bytes());
        buffer.extend_from_slice(&self.body);
        buffer.resize(buffer.len().next_multiple_of(4), 0);
    }
}

/// One received message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Message type.
    pub kind: u16,
    /// Header flags.
    pub flags: u16,
    /// Sequence number of the request this answers; 0 in most notifications.
    pub sequence: u32,
    /// Port of the socket that asked; in a notification, of the one that made the change, 0 for the kernel itself.
    pub port: u32,
    /// What follows the header.
    pub payload: &'a [u8],
}

/// The bytes don't hold what their lengths say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a netlink message is cut short or contradicts its own lengths")]
pub struct Malformed;

/// The messages of one datagram; after the first malformed one it ends.
pub fn frames(mut rest: &[u8]) -> impl Iterator<Item = Result<Frame<'_>, Malformed>> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let Some((frame, length)) = frame(rest) else {
            rest = &[];
            return Some(Err(Malformed));
        };
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some(Ok(frame))
    })
}

fn frame(bytes: &[u8]) -> Option<(Frame<'_>, usize)> {
    let length = u32_at(bytes, 0)? as usize;
    let payload = bytes.get(HEADER..length)?;
    let frame = Frame {
        kind: u16_at(bytes, 4)?,
        flags: u16_at(bytes, 6)?,
        sequence: u32_at(bytes, 8)?,
        port: u32_at(bytes, 12)?,
        payload,
    };
    Some((frame, length))
}

/// The error number (0 or negative) and explanation in the payload of an ERROR message.
pub fn error_message(frame: &Frame<'_>) -> Result<(i32, Option<String>), Malformed> {
    let code = i32_at(frame.payload, 0).ok_or(Malformed)?;
    if frame.flags & flag::ACK_ATTRIBUTES == 0 {
        return Ok((code, None));
    }
    // The request's header follows the number, then its payload unless that was left out (it is on success).
    let request = u32_at(frame.payload, 4).ok_or(Malformed)? as usize;
    let skipped =
        if frame.flags & flag::CAPPED != 0 || code == 0 { HEADER } else { request.next_multiple_of(4) };
    Ok((code, explanation(frame.payload.get(4 + skipped..).unwrap_or(&[]))))
}

/// The error number (0 or negative) and explanation in the payload of a DONE message, which ends a dump.
pub fn done_message(frame: &Frame<'_>) -> (i32, Option<String>) {
    let code = i32_at(frame.payload, 0).unwrap_or(0);
    if frame.flags & flag::ACK_ATTRIBUTES == 0 {
        return (code, None);
    }
    (code, explanation(frame.payload.get(4..).unwrap_or(&[])))
}

fn explanation(attributes: &[u8]) -> Option<String> {
    self::attributes(attributes).find(|(kind, _)| *kind == ERROR_TEXT).map(|(_, value)| text(value))
}

/// The attributes in `bytes` as (type without its flag bits, value); ends at the first malformed one.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes).map_while(Result::ok).map(|attribute| {
        let length = usize::from(attribute.length());
        let bytes: &[u8] = NlaBuffer::into_inner(attribute);
        let kind = u16_at(bytes, 2).unwrap_or(0) & netlink_packet_core::NLA_TYPE_MASK;
        (kind, bytes.get(4..length).unwrap_or(&[]))
    })
}

/// Appends an attribute.
pub fn put_attribute(buffer: &mut Vec<u8>, kind: u16, value: &[u8]) {
    buffer.extend_from_slice(&((4 + value.len()) as u16).to_ne_bytes());
    buffer.extend_from_slice(&kind.to_ne_bytes());
    buffer.extend_from_slice(value);
    buffer.resize(buffer.len().next_multiple_of(4), 0);
}

/// A string attribute without its terminating zero byte.
pub fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

/// A number in the machine's byte order at an offset; `None` where the bytes end before.
pub fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes.get(offset..)?.first_chunk().copied().map(u16::from_ne_bytes)
}

/// A number in the machine's byte order at an offset; `None` where the bytes end before.
pub fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().copied().map(u32::from_ne_bytes)
}

/// A number in the machine's byte order at an offset; `None` where the bytes end before.
pub fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    bytes.get(offset..)?.first_chunk().copied().map(u64::from_ne_bytes)
}

fn i32_at(bytes: &[u8], offset: usize) -> Option<i32> {
    bytes.get(offset..)?.first_chunk().copied().map(i32::from_ne_bytes)
}
