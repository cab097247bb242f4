//! What our table answers for an address, without the rest of the plan: 16 bytes for each route.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use ipnet::Ipv4Net;

use crate::kernel_state::{KernelState, NexthopId, RouteKind, Rule};
use crate::layout::Layout;

/// What a guard alone answers with: no id of anybody's.
pub const DROPPED: NexthopId = NexthopId(0);

/// The routes of our table by destination. What lies below them does not count: it answers for the same destinations. A guard
/// that has no route above it does: it drops.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ways(Vec<(Ipv4Net, Option<NexthopId>)>);

impl Ways {
    /// Those of a plan.
    pub fn of(state: &KernelState, layout: &Layout) -> Self {
        let ours = state.routes.values().filter(|route| route.table == layout.table);
        let mut ways: Vec<(Ipv4Net, Option<NexthopId>)> = Vec::new();
        // In ascending order, as the keys of the map are, and of one destination the best metric first.
        for route in ours {
            if ways.last().is_some_and(|(destination, _)| *destination == route.destination) {
                continue;
            }
            match route.kind {
                // A drain is no other way: it ends by itself, and is among gateways of the list.
                RouteKind::Nexthop(id) if layout.is_drain(id) => {
                    ways.push((route.destination, layout.nexthop_of_routes(id)));
                }
                RouteKind::Nexthop(id) => ways.push((route.destination, Some(id))),
                RouteKind::Blackhole => ways.push((route.destination, Some(DROPPED))),
                RouteKind::Throw => ways.push((route.destination, None)),
                RouteKind::Gateway(_) | RouteKind::Unreachable => {}
            }
        }
        Self(ways)
    }

    /// The nexthop object that packets to `address` go to, [`DROPPED`] where a guard alone answers; `None` when they take the node's own way.
    pub fn to(&self, address: Ipv4Addr) -> Option<NexthopId> {
        let mut covering =
            (0..=32).rev().filter_map(|length| Some(Ipv4Net::new(address, length).ok()?.trunc()));
        let found = covering
            .find_map(|prefix| self.0.binary_search_by_key(&prefix, |(destination, _)| *destination).ok())?;
        self.0[found].1
    }
}

/// What a socket binds so that our table is not asked where its packets go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Around {
    /// Source address; unspecified while nothing of ours is asked anyway.
    pub source: Ipv4Addr,
    /// Source ports; `None` is any.
    pub ports: Option<RangeInclusive<u16>>,
}

impl Around {
    /// As these rules have it: from the public address, else from the ports of [`Layout::around_priority`].
    pub fn by(rules: &BTreeSet<Rule>, layout: &Layout) -> Self {
        let source = |rule: &Rule| Some(rule.from?.addr());
        let reply = |rule: &&Rule| rule.priority == layout.reply_priority && rule.source_ports.is_none();
        if let Some(source) = rules.iter().filter(reply).find_map(source) {
            return Self { source, ports: None };
        }
        let around = rules.iter().find(|rule| rule.priority == layout.around_priority);
        let ports = around.and_then(|rule| rule.source_ports).map(|(first, last)| first..=last);
        Self { source: around.and_then(source).unwrap_or(Ipv4Addr::UNSPECIFIED), ports }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fib_model::{Packet, Way, holding, lookup};
    use crate::fixture::{excluding, ip, node};
    use crate::kernel_state::Observed;
    use crate::{NodeView, Selection, plan};

    #[test]
    fn the_longest_prefix_answers_and_a_throw_answers_with_the_nodes_own_way() {
        let all = excluding("all", 1, &["0.0.0.0/0"], &["9.9.9.0/24"], &["10.116.0.100"]);
        let one = excluding("one", 2, &["9.9.9.9"], &[], &["10.116.0.101"]);
        let layout = Layout::default();
        let plan = plan(&[all, one], &node(), &Selection::new(), &Observed::default(), &layout);
        let ways = Ways::of(&plan.state, &layout);
        let nexthop = |index: usize| plan.routes[index].nexthop;
        assert_eq!(ways.to(ip("1.1.1.1")), nexthop(0));
        assert_eq!(ways.to(ip("9.9.9.9")), nexthop(1));
        assert_eq!(ways.to(ip("9.9.9.8")), None, "excluded");
        assert_eq!(ways.to(ip("198.51.100.10")), None, "protected");
        assert_eq!(Ways::default().to(ip("1.1.1.1")), None);
    }

    #[test]
    fn the_way_around_is_the_public_address_or_where_there_is_none_a_source_port_of_its_own() {
        let layout = Layout::default();
        let all = excluding("all", 1, &["0.0.0.0/0"], &[], &["10.116.0.100"]);
        let around = |node: &NodeView| {
            let plan =
                plan(std::slice::from_ref(&all), node, &Selection::new(), &Observed::default(), &layout);
            (Around::by(&plan.state.rules, &layout), holding(&plan.state))
        };
        let to = ip("1.1.1.1");
        let (public, kernel) = around(&node());
        assert_eq!(public, Around { source: ip("203.0.113.11"), ports: None });
        let packet = Packet { source: public.source, protocol: 6, source_port: 40_000, to };
        assert_eq!(lookup(&kernel, &node().main_routes, packet), Way::Default);

        let private = NodeView { public_addresses: Vec::new(), ..node() };
        let (private, kernel) = around(&private);
        assert_eq!(private, Around { source: ip("10.116.0.2"), ports: Some(63_048..=63_111) });
        for (source_port, way) in [(63_048, Way::Default), (40_000, Way::Gateway(ip("10.116.0.100")))] {
            let packet = Packet { source: private.source, protocol: 6, source_port, to };
            assert_eq!(lookup(&kernel, &node().main_routes, packet), way);
        }
        assert_eq!(Around::by(&BTreeSet::new(), &layout).source, Ipv4Addr::UNSPECIFIED);
    }
}
