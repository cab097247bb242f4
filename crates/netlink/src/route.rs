//! Routes as netlink messages, and back.

use std::net::Ipv4Addr;

use egress_routing::kernel_state::{Gateway, NexthopId, PROTOCOL, Route, RouteKey, RouteKind};
use ipnet::Ipv4Net;

use crate::wire::{Request, attributes, flag, kind, put_attribute, u32_at};

/// Length of `struct rtmsg`: family, lengths of destination and source, TOS, table, protocol, scope, type, flags (four bytes).
const HEADER: usize = 12;
const FAMILY_IPV4: u8 = 2;
/// `RTNH_F_ONLINK`.
const ONLINK: u32 = 4;

/// `RT_SCOPE_*`: where the destination is. A delete that says nowhere fits any.
const UNIVERSE: u8 = 0;
const NOWHERE: u8 = 255;

/// `RTN_*`.
const UNICAST: u8 = 1;
const BLACKHOLE: u8 = 6;
const UNREACHABLE: u8 = 7;
const THROW: u8 = 9;

/// `RTA_*`.
const DESTINATION: u16 = 1;
const INTERFACE: u16 = 4;
const GATEWAY: u16 = 5;
const METRIC: u16 = 6;
const SEVERAL: u16 = 9;
const TABLE: u16 = 15;
const NEXTHOP: u16 = 30;

/// A route as the kernel shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenRoute {
    /// Its place.
    pub key: RouteKey,
    /// Its protocol number.
    pub protocol: u8,
    /// What it does; `None` where that is nothing this project ever writes.
    pub kind: Option<RouteKind>,
}

/// The request that makes a route; with `over` it replaces the one with the same key.
pub fn put(route: &Route, over: bool) -> Request {
    let existing = if over { flag::REPLACE } else { flag::EXCLUSIVE };
    Request { kind: kind::NEW_ROUTE, flags: flag::ACK | flag::CREATE | existing, body: body(route, UNIVERSE) }
}

/// The request that deletes a route. It names protocol and target too, so that it fits no route but that one.
pub fn delete(route: &Route) -> Request {
    Request { kind: kind::DEL_ROUTE, flags: flag::ACK, body: body(route, NOWHERE) }
}

/// The request for all routes with this table and protocol; `None` is any. Needs a strictly checking socket.
pub fn dump(table: Option<u32>, protocol: Option<u8>) -> Request {
    let mut body = vec![0; HEADER];
    body[0] = FAMILY_IPV4;
    body[5] = protocol.unwrap_or(0);
    if let Some(table) = table {
        put_attribute(&mut body, TABLE, &table.to_ne_bytes());
    }
    Request { kind: kind::GET_ROUTE, flags: flag::DUMP, body }
}

// Written by hand: of ten thousand routes at once, the general types of the netlink crates would take longer than the kernel.
fn body(route: &Route, scope: u8) -> Vec<u8> {
    let destination = route.destination.trunc();
    let (what, onlink) = match &route.kind {
        RouteKind::Nexthop(_) => (UNICAST, false),
        RouteKind::Gateway(gateway) => (UNICAST, gateway.onlink),
        RouteKind::Throw => (THROW, false),
        RouteKind::Unreachable => (UNREACHABLE, false),
        RouteKind::Blackhole => (BLACKHOLE, false),
    };
    let mut body = Vec::with_capacity(HEADER + 5 * 8);
    body.extend_from_slice(&[FAMILY_IPV4, destination.prefix_len(), 0, 0, 0, PROTOCOL, scope, what]);
    body.extend_from_slice(&if onlink { ONLINK } else { 0 }.to_ne_bytes());
    put_attribute(&mut body, TABLE, &route.table.to_ne_bytes());
    put_attribute(&mut body, DESTINATION, &destination.addr().octets());
    put_attribute(&mut body, METRIC, &route.metric.to_ne_bytes());
    match &route.kind {
        RouteKind::Nexthop(id) => put_attribute(&mut body, NEXTHOP, &id.0.to_ne_bytes()),
        RouteKind::Gateway(gateway) => {
            put_attribute(&mut body, GATEWAY, &gateway.address.octets());
            put_attribute(&mut body, INTERFACE, &gateway.interface.to_ne_bytes());
        }
        RouteKind::Throw | RouteKind::Unreachable | RouteKind::Blackhole => {}
    }
    body
}

/// Reads the body of a route message; `None` where it is no IPv4 route or can't be read.
pub fn parse(body: &[u8]) -> Option<SeenRoute> {
    let header = body.get(..HEADER)?;
    let (family, length, tos, protocol, what) = (header[0], header[1], header[3], header[5], header[7]);
    if family != FAMILY_IPV4 {
        return None;
    }
    let mut address = Ipv4Addr::UNSPECIFIED;
    let mut table = u32::from(header[4]);
    let mut metric = 0;
    let (mut nexthop, mut gateway, mut interface, mut several) = (None, None, None, false);
    let mut plain = tos == 0;
    for (attribute, value) in attributes(&body[HEADER..]) {
        match attribute {
            DESTINATION => address = address_of(value)?,
            TABLE => table = u32_at(value, 0)?,
            METRIC => metric = u32_at(value, 0)?,
            NEXTHOP => nexthop = Some(NexthopId(u32_at(value, 0)?)),
            GATEWAY => gateway = Some(address_of(value)?),
            INTERFACE => interface = Some(u32_at(value, 0)?),
            SEVERAL => several = true,
            _ => plain = false,
        }
    }
    let destination = Ipv4Net::new(address, length).ok()?;
    let onlink = u32_at(header, 8)? & ONLINK != 0;
    let kind = match (what, nexthop, gateway, interface) {
        _ if !plain => None,
        // The kernel adds what the object stands for, and shows the route as a blackhole when the object is one.
        (UNICAST | BLACKHOLE, Some(id), _, _) => Some(RouteKind::Nexthop(id)),
        (UNICAST, None, Some(address), Some(interface)) if !several => {
            Some(RouteKind::Gateway(Gateway { address, interface, onlink }))
        }
        (THROW, None, None, None) => Some(RouteKind::Throw),
        (UNREACHABLE, None, None, None) => Some(RouteKind::Unreachable),
        (BLACKHOLE, None, None, None) => Some(RouteKind::Blackhole),
        _ => None,
    };
    Some(SeenRoute { key: RouteKey { table, destination, metric }, protocol, kind })
}

fn address_of(value: &[u8]) -> Option<Ipv4Addr> {
    <[u8; 4]>::try_from(value).ok().map(Ipv4Addr::from)
}
