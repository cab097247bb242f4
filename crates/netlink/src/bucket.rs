//! Which gateway each bucket of a resilient group is with, and since when nobody asked it for a way (`RTM_GETNEXTHOPBUCKET`).
//!
//! A bucket is used by the lookup of a route, not by a packet: what is forwarded is looked up packet by packet, a socket of the
//! node itself looks up once and remembers until routes change. Replacing a group that routes use, also by itself, is such a change:
//! every socket asks again with the next packet that it sends. Of two moments after such a change the buckets tell who sent in between.

use std::time::Duration;

use egress_routing::kernel_state::NexthopId;

use crate::command::{CommandSocket, Commands};
use crate::error::Error;
use crate::nexthop::{HEADER, only_id};
use crate::wire::{Request, attributes, flag, kind, u32_at, u64_at};

/// `NHA_RES_BUCKET`.
const BUCKET: u16 = 13;
/// `NHA_RES_BUCKET_IDLE_TIME`, in hundredths of a second (`clock_t`).
const IDLE_TIME: u16 = 2;
/// `NHA_RES_BUCKET_NH_ID`.
const NEXTHOP: u16 = 3;
const TICK: Duration = Duration::from_millis(10);

/// A bucket of a resilient group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    /// The member of the group that it is with.
    pub nexthop: NexthopId,
    /// Time since a lookup fell into it, or since it moved to this member where none did; in steps of 10 ms.
    pub idle: Duration,
}

impl CommandSocket {
    /// The buckets of a resilient group, which must be there.
    pub fn buckets(&mut self, group: NexthopId) -> Result<Vec<Bucket>, Error> {
        let request = Request { kind: kind::GET_BUCKET, flags: flag::DUMP, body: only_id(group) };
        self.dump(&request, parse)
    }
}

impl Commands {
    /// The buckets of a resilient group; see [`CommandSocket::buckets`].
    pub async fn buckets(&self, group: NexthopId) -> Result<Vec<Bucket>, Error> {
        self.run(move |socket| socket.buckets(group)).await?
    }
}

/// Reads the body of a bucket message; `None` where something of it is missing.
pub fn parse(body: &[u8]) -> Option<Bucket> {
    let (_, bucket) = attributes(body.get(HEADER..)?).find(|(attribute, _)| *attribute == BUCKET)?;
    let (mut nexthop, mut idle) = (None, None);
    for (attribute, value) in attributes(bucket) {
        match attribute {
            IDLE_TIME => idle = u64_at(value, 0),
            NEXTHOP => nexthop = u32_at(value, 0),
            _ => {}
        }
    }
    let idle = TICK.saturating_mul(u32::try_from(idle?).unwrap_or(u32::MAX));
    Some(Bucket { nexthop: NexthopId(nexthop?), idle })
}
