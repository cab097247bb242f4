//! Routes that the older StaticRoute operator left in the main table.
//!
//! It wrote `destination via gateway`, protocol static, metric 0, into main, and no mark that says whose they are. What
//! proves a route to be one of these is a StaticRoute with that destination and that gateway; anything more (a source, a metric,
//! several nexthops) is somebody else's. They are never replaced, only deleted, by a message that names all of that.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};

use crate::apply::{Applied, Outcome};
use crate::command::CommandSocket;
use crate::connection::BATCH;
use crate::error::{ChangeError, Refusal};
use crate::exchange::Reply;
use crate::reading::{MAIN_TABLE, MainRoute};
use crate::wire::{Request, flag, kind};

/// `RTPROT_STATIC`.
const STATIC: u8 = 4;
/// `RTN_UNICAST`.
const UNICAST: u8 = 1;

/// A route that the older operator provably wrote; [`leftovers`] makes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Leftover {
    destination: Ipv4Net,
    gateway: Ipv4Addr,
    interface: u32,
}

impl Leftover {
    /// Where the route leads.
    pub fn destination(&self) -> Ipv4Net {
        self.destination
    }

    /// Through which gateway.
    pub fn gateway(&self) -> Ipv4Addr {
        self.gateway
    }
}

/// The older operator's routes among those of the main table: `is_listed` says whether a StaticRoute has that destination and that
/// gateway.
pub fn leftovers(main_routes: &[MainRoute], is_listed: impl Fn(Ipv4Net, Ipv4Addr) -> bool) -> Vec<Leftover> {
    // One of several nexthops appears once for each.
    let is_alone = |route: &MainRoute| {
        let same =
            |other: &&MainRoute| (other.destination, other.metric) == (route.destination, route.metric);
        main_routes.iter().filter(same).count() == 1
    };
    main_routes
        .iter()
        .filter(|route| {
            route.protocol == STATIC
                && route.kind == UNICAST
                && route.metric == 0
                && route.source.is_none()
                && route.destination.prefix_len() > 0
        })
        .filter_map(|route| {
            let (gateway, interface) = (route.gateway?, route.interface?);
            let leftover = Leftover { destination: route.destination, gateway, interface };
            is_listed(route.destination, gateway).then_some(leftover).filter(|_| is_alone(route))
        })
        .collect()
}

impl CommandSocket {
    /// Deletes them, and says what came of each.
    pub fn remove_leftovers(&mut self, leftovers: &[Leftover]) -> Vec<Applied> {
        let mut outcomes = Vec::with_capacity(leftovers.len());
        for batch in leftovers.chunks(BATCH) {
            let requests: Vec<Request> = batch.iter().map(delete).collect();
            match self.exchange(&requests, |_| {}) {
                Ok(replies) => outcomes.extend(replies.into_iter().map(outcome)),
                Err(error) => {
                    tracing::warn!(%error, "removing the older operator's routes broke off");
                    let unknown = ChangeError::Unknown { category: error.category() };
                    outcomes.resize(leftovers.len(), Err(unknown));
                    break;
                }
            }
        }
        outcomes
    }
}

fn delete(leftover: &Leftover) -> Request {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.destination_prefix_length = leftover.destination.prefix_len();
    message.header.protocol = RouteProtocol::Static;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    message.attributes = vec![
        RouteAttribute::Table(MAIN_TABLE),
        RouteAttribute::Destination(RouteAddress::Inet(leftover.destination.addr())),
        RouteAttribute::Gateway(RouteAddress::Inet(leftover.gateway)),
        RouteAttribute::Oif(leftover.interface),
    ];
    Request::new(kind::DEL_ROUTE, flag::ACK, &message)
}

fn outcome(reply: Reply) -> Applied {
    match reply {
        Reply::Done => Ok(Outcome::Changed),
        Reply::Refused(error) if error.refusal == Refusal::Missing => Ok(Outcome::Unchanged),
        Reply::Refused(error) => Err(ChangeError::Refused(error)),
        Reply::Interrupted => Ok(Outcome::Unchanged),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 116, 0, 5);

    fn older(destination: &str) -> MainRoute {
        MainRoute {
            destination: destination.parse().unwrap(),
            gateway: Some(GATEWAY),
            interface: Some(3),
            source: None,
            metric: 0,
            protocol: STATIC,
            kind: UNICAST,
        }
    }

    #[test]
    fn only_what_the_older_operator_wrote_for_a_staticroute_is_a_leftover() {
        let own = older("192.0.2.80/32");
        let others = [
            MainRoute { gateway: Some(Ipv4Addr::new(10, 116, 0, 12)), ..older("192.0.2.81/32") },
            MainRoute { protocol: 16, ..older("192.0.2.82/32") },
            MainRoute { metric: 5, ..older("192.0.2.83/32") },
            MainRoute { source: Some(GATEWAY), ..older("192.0.2.84/32") },
            MainRoute { kind: 6, ..older("192.0.2.85/32") },
            older("192.0.2.86/32"),
            older("192.0.2.86/32"),
            older("203.0.113.0/24"),
            older("0.0.0.0/0"),
        ];
        let listed = |destination: Ipv4Net, gateway| {
            "192.0.2.0/24".parse::<Ipv4Net>().unwrap().contains(&destination) && gateway == GATEWAY
        };
        let mut all = others.to_vec();
        assert_eq!(leftovers(&all, listed), []);
        all.push(own);
        let found = leftovers(&all, listed);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].destination(), "192.0.2.80/32".parse().unwrap());
    }
}
