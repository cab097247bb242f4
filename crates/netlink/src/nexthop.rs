//! Nexthop objects as netlink messages, and back: `struct nhmsg`, `NHA_*` (`linux/nexthop.h`). No crate has them.
//!
//! Invariant: decoding is total; see [`crate::wire`].

use std::net::Ipv4Addr;

use egress_routing::kernel_state::{
    Gateway, GroupMember, Nexthop, NexthopId, NexthopTarget, PROTOCOL, Resilient,
};

use crate::wire::{Request, attributes, flag, kind, put_attribute, u16_at, u32_at};

/// Length of `struct nhmsg`: family, scope, protocol, a reserved byte, flags (four bytes).
pub(crate) const HEADER: usize = 8;
const FAMILY_UNSPECIFIED: u8 = 0;
const FAMILY_IPV4: u8 = 2;
/// `RTNH_F_ONLINK`.
const ONLINK: u32 = 4;

const ID: u16 = 1;
const GROUP: u16 = 2;
const GROUP_TYPE: u16 = 3;
const BLACKHOLE: u16 = 4;
const INTERFACE: u16 = 5;
const GATEWAY: u16 = 6;
const RESILIENT: u16 = 12;
const OPERATION_FLAGS: u16 = 14;
const HARDWARE_STATISTICS: u16 = 16;
const NESTED: u16 = 0x8000;

const GROUP_HASH_THRESHOLD: u16 = 0;
const GROUP_RESILIENT: u16 = 1;

const RESILIENT_BUCKETS: u16 = 1;
const RESILIENT_IDLE: u16 = 2;
const RESILIENT_UNBALANCED: u16 = 3;
/// Timers travel in hundredths of a second (`clock_t`).
const TICKS: u32 = 100;

/// `struct nexthop_grp`: id (four bytes), weight minus one (low byte, high byte), two reserved bytes.
const MEMBER: usize = 8;

/// A nexthop object as the kernel shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenNexthop {
    /// Its id.
    pub id: NexthopId,
    /// Its protocol number; an object that was replaced without one has 0.
    pub protocol: u8,
    /// What it does; `None` where that is nothing this project ever writes.
    pub via: Option<NexthopTarget>,
}

/// Why an object can't be said in a message.
pub fn check(nexthop: &Nexthop) -> Result<(), &'static str> {
    match &nexthop.via {
        _ if nexthop.id.0 == 0 => Err("a nexthop id is not 0"),
        NexthopTarget::Group { members, .. } if members.is_empty() || members.len() > 1024 => {
            Err("a group has 1 to 1,024 members")
        }
        NexthopTarget::Group { members, .. } if members.iter().any(|member| member.weight == 0) => {
            Err("a weight is at least 1")
        }
        NexthopTarget::Group { resilient: Some(resilient), .. }
            if resilient.buckets == 0
                || resilient.idle_seconds > u32::MAX / TICKS
                || resilient.unbalanced_seconds > u32::MAX / TICKS =>
        {
            Err("a resilient group has buckets and timers of at most 42,949,672 s")
        }
        _ => Ok(()),
    }
}

/// The request that makes an object; with `over` it replaces the one with the same id, in place. It always names our
/// protocol: a replace without one would leave 0 there and the object would no longer be provably ours.
pub fn put(nexthop: &Nexthop, over: bool) -> Request {
    let existing = if over { flag::REPLACE } else { flag::EXCLUSIVE };
    Request {
        kind: kind::NEW_NEXTHOP,
        flags: flag::ACK | flag::CREATE | existing,
        body: body(nexthop, PROTOCOL),
    }
}

/// The request that deletes an object. The kernel looks at the id alone: ask [`get`] first whose it is.
pub fn delete(id: NexthopId) -> Request {
    Request { kind: kind::DEL_NEXTHOP, flags: flag::ACK, body: only_id(id) }
}

/// The request for one object.
pub fn get(id: NexthopId) -> Request {
    Request { kind: kind::GET_NEXTHOP, flags: flag::ACK, body: only_id(id) }
}

/// The request for all objects; the kernel has no filter by protocol.
pub fn dump() -> Request {
    Request { kind: kind::GET_NEXTHOP, flags: flag::DUMP, body: header(FAMILY_UNSPECIFIED, 0, 0) }
}

fn header(family: u8, protocol: u8, flags: u32) -> Vec<u8> {
    let mut body = vec![family, 0, protocol, 0];
    body.extend_from_slice(&flags.to_ne_bytes());
    body
}

/// A message about the object of that id.
pub(crate) fn only_id(id: NexthopId) -> Vec<u8> {
    let mut body = header(FAMILY_UNSPECIFIED, 0, 0);
    put_attribute(&mut body, ID, &id.0.to_ne_bytes());
    body
}

/// The body of a message that describes an object.
pub fn body(nexthop: &Nexthop, protocol: u8) -> Vec<u8> {
    let mut body = match &nexthop.via {
        NexthopTarget::Gateway(gateway) => {
            header(FAMILY_IPV4, protocol, if gateway.onlink { ONLINK } else { 0 })
        }
        NexthopTarget::Blackhole => header(FAMILY_IPV4, protocol, 0),
        NexthopTarget::Group { .. } => header(FAMILY_UNSPECIFIED, protocol, 0),
    };
    put_attribute(&mut body, ID, &nexthop.id.0.to_ne_bytes());
    match &nexthop.via {
        NexthopTarget::Gateway(gateway) => {
            put_attribute(&mut body, INTERFACE, &gateway.interface.to_ne_bytes());
            put_attribute(&mut body, GATEWAY, &gateway.address.octets());
        }
        NexthopTarget::Blackhole => put_attribute(&mut body, BLACKHOLE, &[]),
        NexthopTarget::Group { members, resilient } => {
            let mut group = Vec::with_capacity(members.len() * MEMBER);
            for member in members {
                let [low, high] = member.weight.saturating_sub(1).to_le_bytes();
                group.extend_from_slice(&member.id.0.to_ne_bytes());
                group.extend_from_slice(&[low, high, 0, 0]);
            }
            put_attribute(&mut body, GROUP, &group);
            let kind = if resilient.is_some() { GROUP_RESILIENT } else { GROUP_HASH_THRESHOLD };
            put_attribute(&mut body, GROUP_TYPE, &kind.to_ne_bytes());
            if let Some(resilient) = resilient {
                let ticks = |seconds: u32| seconds.saturating_mul(TICKS).to_ne_bytes();
                let mut nested = Vec::new();
                put_attribute(&mut nested, RESILIENT_BUCKETS, &resilient.buckets.to_ne_bytes());
                put_attribute(&mut nested, RESILIENT_IDLE, &ticks(resilient.idle_seconds));
                put_attribute(&mut nested, RESILIENT_UNBALANCED, &ticks(resilient.unbalanced_seconds));
                put_attribute(&mut body, RESILIENT | NESTED, &nested);
            }
        }
    }
    body
}

/// Reads the body of a nexthop message; `None` where it has no id or is cut short.
pub fn parse(body: &[u8]) -> Option<SeenNexthop> {
    let protocol = *body.get(2)?;
    let flags = u32_at(body, 4)?;
    let mut id = None;
    let (mut interface, mut gateway) = (None, None);
    let (mut group, mut kind, mut resilient) = (None, GROUP_HASH_THRESHOLD, None);
    let mut blackhole = false;
    let mut plain = true;
    for (attribute, value) in attributes(body.get(HEADER..)?) {
        match attribute {
            ID => id = u32_at(value, 0),
            GROUP => group = Some(members(value)),
            GROUP_TYPE => kind = u16_at(value, 0)?,
            BLACKHOLE => blackhole = true,
            INTERFACE => interface = u32_at(value, 0),
            GATEWAY => gateway = <[u8; 4]>::try_from(value).ok().map(Ipv4Addr::from),
            RESILIENT => resilient = parse_resilient(value),
            OPERATION_FLAGS | HARDWARE_STATISTICS => {}
            // Encapsulation, bridge fdb and whatever is to come.
            _ => plain = false,
        }
    }
    let onlink = flags & ONLINK != 0;
    let via = match (group, blackhole, gateway, interface) {
        _ if !plain => None,
        (Some(members), false, None, None) => match (kind, resilient) {
            (GROUP_HASH_THRESHOLD, None) => Some(NexthopTarget::group(members, None)),
            (GROUP_RESILIENT, Some(resilient)) => Some(NexthopTarget::group(members, Some(resilient))),
            _ => None,
        },
        (None, true, None, _) => Some(NexthopTarget::Blackhole),
        (None, false, Some(address), Some(interface)) => {
            Some(NexthopTarget::Gateway(Gateway { address, interface, onlink }))
        }
        _ => None,
    };
    Some(SeenNexthop { id: NexthopId(id?), protocol, via })
}

fn members(value: &[u8]) -> Vec<GroupMember> {
    value
        .chunks_exact(MEMBER)
        .filter_map(|member| {
            let id = NexthopId(u32_at(member, 0)?);
            let weight = u16::from_le_bytes([*member.get(4)?, *member.get(5)?]).saturating_add(1);
            Some(GroupMember { id, weight })
        })
        .collect()
}

fn parse_resilient(value: &[u8]) -> Option<Resilient> {
    let (mut buckets, mut idle, mut unbalanced) = (None, None, None);
    for (attribute, value) in attributes(value) {
        match attribute {
            RESILIENT_BUCKETS => buckets = u16_at(value, 0),
            RESILIENT_IDLE => idle = u32_at(value, 0),
            RESILIENT_UNBALANCED => unbalanced = u32_at(value, 0),
            _ => {}
        }
    }
    // We write whole seconds only: a group with others is not as we wrote it.
    let seconds = |ticks: u32| ticks.is_multiple_of(TICKS).then_some(ticks / TICKS);
    Some(Resilient {
        buckets: buckets?,
        idle_seconds: seconds(idle?)?,
        unbalanced_seconds: seconds(unbalanced?)?,
    })
}
