//! What the node has beside us: links, addresses, the main table, and the kernel's own route lookup.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use netlink_packet_core::Parseable;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteNextHop, RouteType,
};
use nix::errno::Errno;

use crate::command::CommandSocket;
use crate::error::Error;
use crate::exchange::Reply;
use crate::route;
use crate::wire::{Request, attributes, flag, kind, text, u32_at};

/// `RT_TABLE_MAIN`.
pub const MAIN_TABLE: u32 = 254;

const FAMILY_IPV4: u8 = 2;

/// A link of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its index, which a link that is made anew under the same name does not keep.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its Ethernet address, where it has one.
    pub mac: Option<[u8; 6]>,
    /// Largest packet, bytes.
    pub mtu: u32,
    /// It is switched on (`IFF_UP`).
    pub up: bool,
    /// It has a carrier (`IFF_RUNNING`).
    pub running: bool,
    /// It is the loopback link.
    pub loopback: bool,
    /// Its IPv4 addresses with the prefix of their subnet, host bits kept, in the kernel's order.
    pub addresses: Vec<Ipv4Net>,
}

/// A route of the main table. One with several nexthops appears once for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MainRoute {
    /// Destination.
    pub destination: Ipv4Net,
    /// Gateway; `None` is on-link.
    pub gateway: Option<Ipv4Addr>,
    /// Index of the link; `None` for routes that drop or throw, and those of several nexthops' object.
    pub interface: Option<u32>,
    /// Source address that packets of the node itself get.
    pub source: Option<Ipv4Addr>,
    /// Metric; the lower one wins.
    pub metric: u32,
    /// Protocol number of who wrote it: 2 kernel, 4 static, 16 DHCP.
    pub protocol: u8,
    /// `RTN_*`: 1 unicast, 6 blackhole, 7 unreachable, 8 prohibit, 9 throw.
    pub kind: u8,
}

/// What to ask the kernel's lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Query {
    /// Where the packet goes.
    pub destination: Ipv4Addr,
    /// Where it comes from.
    pub source: Option<Ipv4Addr>,
    /// Index of the link it came in on, for a packet that is forwarded.
    pub input: Option<u32>,
    /// IP protocol number: 1 ICMP, 6 TCP, 17 UDP; the kernel takes no others here.
    pub ip_protocol: Option<u8>,
    /// Source port, with `ip_protocol`.
    pub source_port: Option<u16>,
    /// Packet mark.
    pub mark: Option<u32>,
}

impl Query {
    /// A packet of the node itself to `destination`.
    pub fn to(destination: Ipv4Addr) -> Self {
        Self { destination, source: None, input: None, ip_protocol: None, source_port: None, mark: None }
    }
}

/// The kernel's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookup {
    /// The packet has a way.
    Found {
        /// Table of the route; 255 is local.
        table: u32,
        /// `RTN_*`: 1 unicast, 2 local, 3 broadcast, 5 multicast.
        kind: u8,
        /// Index of the link it leaves by.
        interface: Option<u32>,
        /// Gateway; `None` is on-link or local.
        gateway: Option<Ipv4Addr>,
        /// Source address that the packet gets or has.
        source: Option<Ipv4Addr>,
    },
    /// The packet has none: ENETUNREACH no route, EHOSTUNREACH unreachable (or not forwarded), EINVAL blackhole,
    /// EACCES prohibit, EXDEV the reverse path filter.
    None(Errno),
}

impl CommandSocket {
    /// The node's links, in ascending order of index, with their IPv4 addresses.
    pub fn interfaces(&mut self) -> Result<Vec<Interface>, Error> {
        // struct ifinfomsg, struct ifaddrmsg: zero means any.
        let links = Request { kind: kind::GET_LINK, flags: flag::DUMP, body: vec![0; 16] };
        let mut interfaces: BTreeMap<u32, Interface> =
            self.dump(&links, link)?.into_iter().map(|link| (link.index, link)).collect();
        let mut body = vec![0; 8];
        body[0] = FAMILY_IPV4;
        let addresses = Request { kind: kind::GET_ADDRESS, flags: flag::DUMP, body };
        for (index, address) in self.dump(&addresses, address)? {
            if let Some(interface) = interfaces.get_mut(&index) {
                interface.addresses.push(address);
            }
        }
        Ok(interfaces.into_values().collect())
    }

    /// The main routing table.
    pub fn main_routes(&mut self) -> Result<Vec<MainRoute>, Error> {
        let routes = self.dump(&route::dump(Some(MAIN_TABLE), None), main_routes)?;
        Ok(routes.into_iter().flatten().collect())
    }

    /// The way the kernel would send a packet now, with all rules and tables.
    pub fn route_get(&mut self, query: &Query) -> Result<Lookup, Error> {
        self.route_get_all(std::slice::from_ref(query))?
            .pop()
            .ok_or(Error::OutOfStep("a lookup without an answer"))
    }

    /// The same for many packets in one exchange, in their order.
    pub fn route_get_all(&mut self, queries: &[Query]) -> Result<Vec<Lookup>, Error> {
        let request = |query| Request::new(kind::GET_ROUTE, flag::ACK, &lookup_message(query));
        let requests: Vec<Request> = queries.iter().map(request).collect();
        let mut found = Vec::with_capacity(queries.len());
        let replies = self.exchange(&requests, |frame| found.push(lookup(frame.payload)))?;
        // The kernel answers in order; what it refuses has no route before the refusal.
        let mut found = found.into_iter();
        replies
            .into_iter()
            .map(|reply| match reply {
                Reply::Refused(error) => Ok(Lookup::None(error.errno)),
                _ => found.next().flatten().ok_or(Error::OutOfStep("a lookup without a route")),
            })
            .collect()
    }
}

/// Reads the body of a link message (`struct ifinfomsg`, `IFLA_*`).
pub fn link(body: &[u8]) -> Option<Interface> {
    const UP: u32 = 0x1;
    const LOOPBACK: u32 = 0x8;
    const RUNNING: u32 = 0x40;
    const MAC: u16 = 1;
    const NAME: u16 = 3;
    const MTU: u16 = 4;

    let flags = u32_at(body, 8)?;
    let mut interface = Interface {
        index: u32_at(body, 4)?,
        name: String::new(),
        mac: None,
        mtu: 0,
        up: flags & UP != 0,
        running: flags & RUNNING != 0,
        loopback: flags & LOOPBACK != 0,
        addresses: Vec::new(),
    };
    for (attribute, value) in attributes(body.get(16..)?) {
        match attribute {
            MAC => interface.mac = value.try_into().ok(),
            NAME => interface.name = text(value),
            MTU => interface.mtu = u32_at(value, 0)?,
            _ => {}
        }
    }
    Some(interface)
}

/// Reads the body of an address message (`struct ifaddrmsg`, `IFA_*`): index of the link and address.
pub fn address(body: &[u8]) -> Option<(u32, Ipv4Net)> {
    const LOCAL: u16 = 2;

    let (family, length) = (*body.first()?, *body.get(1)?);
    let index = u32_at(body, 4)?;
    let local = attributes(body.get(8..)?).find(|(kind, _)| *kind == LOCAL)?.1;
    let address: [u8; 4] = local.try_into().ok().filter(|_| family == FAMILY_IPV4)?;
    Some((index, Ipv4Net::new(address.into(), length).ok()?))
}

/// Reads the body of a route message of the main table: a route to several nexthops is one for each.
pub fn main_routes(body: &[u8]) -> Option<Vec<MainRoute>> {
    let message = RouteMessage::parse(body).ok()?;
    let mut route = MainRoute {
        destination: Ipv4Net::default(),
        gateway: None,
        interface: None,
        source: None,
        metric: 0,
        protocol: message.header.protocol.into(),
        kind: message.header.kind.into(),
    };
    let mut destination = Ipv4Addr::UNSPECIFIED;
    let mut several: &[RouteNextHop] = &[];
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(value)) => destination = *value,
            RouteAttribute::Priority(value) => route.metric = *value,
            RouteAttribute::PrefSource(RouteAddress::Inet(value)) => route.source = Some(*value),
            RouteAttribute::Gateway(RouteAddress::Inet(value)) => route.gateway = Some(*value),
            RouteAttribute::Oif(value) => route.interface = Some(*value),
            RouteAttribute::MultiPath(nexthops) => several = nexthops,
            _ => {}
        }
    }
    route.destination = Ipv4Net::new(destination, message.header.destination_prefix_length).ok()?;
    if several.is_empty() {
        return Some(vec![route]);
    }
    let one = |nexthop: &RouteNextHop| MainRoute {
        interface: Some(nexthop.interface_index),
        gateway: nexthop.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Gateway(RouteAddress::Inet(value)) => Some(*value),
            _ => None,
        }),
        ..route.clone()
    };
    Some(several.iter().map(one).collect())
}

fn lookup_message(query: &Query) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.destination_prefix_length = 32;
    message.header.flags = RouteFlags::LookupTable;
    let attributes = &mut message.attributes;
    attributes.push(RouteAttribute::Destination(RouteAddress::Inet(query.destination)));
    if let Some(source) = query.source {
        message.header.source_prefix_length = 32;
        attributes.push(RouteAttribute::Source(RouteAddress::Inet(source)));
    }
    attributes.extend(query.input.map(RouteAttribute::Iif));
    attributes.extend(query.ip_protocol.map(RouteAttribute::IpProto));
    attributes.extend(query.source_port.map(RouteAttribute::Sport));
    attributes.extend(query.mark.map(RouteAttribute::Mark));
    message
}

/// Reads the body of a route message that answers a lookup.
pub fn lookup(body: &[u8]) -> Option<Lookup> {
    let message = RouteMessage::parse(body).ok()?;
    let mut table = u32::from(message.header.table);
    let (mut interface, mut gateway, mut source) = (None, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(value) => table = *value,
            RouteAttribute::Oif(value) => interface = Some(*value),
            RouteAttribute::Gateway(RouteAddress::Inet(value)) => gateway = Some(*value),
            RouteAttribute::PrefSource(RouteAddress::Inet(value)) => source = Some(*value),
            _ => {}
        }
    }
    (message.header.kind != RouteType::Unspec).then(|| Lookup::Found {
        table,
        kind: message.header.kind.into(),
        interface,
        gateway,
        source,
    })
}
