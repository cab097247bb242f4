//! Routes as netlink messages, and back.

use std::net::Ipv4Addr;

use egress_routing::kernel_state::{Gateway, NexthopId, PROTOCOL, Route, RouteKey, RouteKind};
use ipnet::Ipv4Net;
use netlink_packet_core::Parseable;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteProtocol, RouteScope, RouteType,
};

use crate::wire::{Request, flag, kind};

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
    Request::new(kind::NEW_ROUTE, flag::ACK | flag::CREATE | existing, &message(route, RouteScope::Universe))
}

/// The request that deletes a route. It names protocol and target too, so that it fits no route but that one.
pub fn delete(route: &Route) -> Request {
    Request::new(kind::DEL_ROUTE, flag::ACK, &message(route, RouteScope::NoWhere))
}

/// The request for all routes with this table and protocol; `None` is any. Needs a strictly checking socket.
pub fn dump(table: Option<u32>, protocol: Option<u8>) -> Request {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.protocol = protocol.unwrap_or(0).into();
    message.attributes.extend(table.map(RouteAttribute::Table));
    Request::new(kind::GET_ROUTE, flag::DUMP, &message)
}

fn message(route: &Route, scope: RouteScope) -> RouteMessage {
    let mut message = RouteMessage::default();
    let destination = route.destination.trunc();
    message.header.address_family = AddressFamily::Inet;
    message.header.destination_prefix_length = destination.prefix_len();
    message.header.protocol = RouteProtocol::from(PROTOCOL);
    message.header.scope = scope;
    message.header.kind = RouteType::Unicast;
    message.attributes.push(RouteAttribute::Table(route.table));
    message.attributes.push(RouteAttribute::Destination(RouteAddress::Inet(destination.addr())));
    message.attributes.push(RouteAttribute::Priority(route.metric));
    match route.kind {
        RouteKind::Nexthop(id) => message.attributes.push(RouteAttribute::NhId(id.0)),
        RouteKind::Gateway(gateway) => {
            if gateway.onlink {
                message.header.flags |= RouteFlags::Onlink;
            }
            message.attributes.push(RouteAttribute::Gateway(RouteAddress::Inet(gateway.address)));
            message.attributes.push(RouteAttribute::Oif(gateway.interface));
        }
        RouteKind::Throw => message.header.kind = RouteType::Throw,
        RouteKind::Unreachable => message.header.kind = RouteType::Unreachable,
        RouteKind::Blackhole => message.header.kind = RouteType::BlackHole,
    }
    message
}

/// Reads the body of a route message; `None` where it is no IPv4 route or can't be read.
pub fn parse(body: &[u8]) -> Option<SeenRoute> {
    let message = RouteMessage::parse(body).ok()?;
    let header = &message.header;
    if header.address_family != AddressFamily::Inet {
        return None;
    }
    let mut address = Ipv4Addr::UNSPECIFIED;
    let mut table = u32::from(header.table);
    let mut metric = 0;
    let (mut nexthop, mut gateway, mut interface, mut several) = (None, None, None, false);
    let mut plain = header.tos == 0;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(value)) => address = *value,
            RouteAttribute::Table(value) => table = *value,
            RouteAttribute::Priority(value) => metric = *value,
            RouteAttribute::NhId(value) => nexthop = Some(NexthopId(*value)),
            RouteAttribute::Gateway(RouteAddress::Inet(value)) => gateway = Some(*value),
            RouteAttribute::Oif(value) => interface = Some(*value),
            RouteAttribute::MultiPath(_) => several = true,
            _ => plain = false,
        }
    }
    let destination = Ipv4Net::new(address, header.destination_prefix_length).ok()?;
    let via = |address, interface| Gateway {
        address,
        interface,
        onlink: header.flags.contains(RouteFlags::Onlink),
    };
    let kind = match (header.kind, nexthop, gateway, interface) {
        _ if !plain => None,
        // The kernel adds what the object stands for, and shows the route as a blackhole when the object is one.
        (RouteType::Unicast | RouteType::BlackHole, Some(id), _, _) => Some(RouteKind::Nexthop(id)),
        (RouteType::Unicast, None, Some(address), Some(interface)) if !several => {
            Some(RouteKind::Gateway(via(address, interface)))
        }
        (RouteType::Throw, None, None, None) => Some(RouteKind::Throw),
        (RouteType::Unreachable, None, None, None) => Some(RouteKind::Unreachable),
        (RouteType::BlackHole, None, None, None) => Some(RouteKind::Blackhole),
        _ => None,
    };
    Some(SeenRoute {
        key: RouteKey { table, destination, metric },
        protocol: u8::from(header.protocol),
        kind,
    })
}
