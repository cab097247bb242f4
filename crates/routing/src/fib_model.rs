//! A kernel's lookup in forty lines: the judge of the tests.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::diff::changes;
use crate::kernel_state::{
    Change, KernelState, MAIN_TABLE, Managed, Nexthop, NexthopId, NexthopTarget, Observed, Route, RouteKind,
    Rule, RuleAction,
};

/// Where a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    Gateway(Ipv4Addr),
    Dropped,
    /// A route of the main table that is not the default one.
    Main,
    /// The node's own way out.
    Default,
}

/// A packet of the node or a pod.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Packet {
    pub source: Ipv4Addr,
    /// IP protocol number.
    pub protocol: u8,
    pub source_port: u16,
    pub to: Ipv4Addr,
}

pub(crate) fn packet(to: Ipv4Addr) -> Packet {
    Packet { source: Ipv4Addr::new(10, 244, 0, 9), protocol: 6, source_port: 40_000, to }
}

pub(crate) fn lookup(kernel: &Observed, main: &BTreeSet<Ipv4Net>, packet: Packet) -> Way {
    for rule in kernel.rules.iter().map(Managed::get).filter(|rule| matches(rule, packet)) {
        let RuleAction::Lookup { table, suppress_prefix_length } = rule.action else { return Way::Dropped };
        let found = if table == MAIN_TABLE {
            Some(main_lookup(main, packet.to))
        } else {
            table_lookup(kernel, table, packet.to)
        };
        let ignored = |length: u32| suppress_prefix_length.is_some_and(|most| length <= most);
        if let Some((_, way)) = found.filter(|(length, _)| !ignored(*length)) {
            return way;
        }
    }
    main_lookup(main, packet.to).1
}

fn matches(rule: &Rule, packet: Packet) -> bool {
    assert_eq!((&rule.iif, rule.fwmark), (&None, None), "not modelled");
    rule.from.is_none_or(|from| from.contains(&packet.source))
        && rule.to.is_none_or(|to| to.contains(&packet.to))
        && rule.ip_protocol.is_none_or(|protocol| protocol == packet.protocol)
        && rule.source_ports.is_none_or(|(first, last)| (first..=last).contains(&packet.source_port))
}

fn main_lookup(main: &BTreeSet<Ipv4Net>, to: Ipv4Addr) -> (u32, Way) {
    let length =
        main.iter().filter(|route| route.contains(&to)).map(|route| u32::from(route.prefix_len())).max();
    length.map_or((0, Way::Default), |length| (length, Way::Main))
}

fn table_lookup(kernel: &Observed, table: u32, to: Ipv4Addr) -> Option<(u32, Way)> {
    let routes = kernel.routes.values().map(Managed::get);
    let matching = routes.filter(|route| route.table == table && route.destination.contains(&to));
    let best: &Route =
        matching.max_by_key(|route| (route.destination.prefix_len(), Reverse(route.metric)))?;
    let length = u32::from(best.destination.prefix_len());
    match &best.kind {
        RouteKind::Throw => None,
        RouteKind::Nexthop(id) => Some((length, through(kernel, *id, to))),
        RouteKind::Blackhole => Some((length, Way::Dropped)),
        RouteKind::Gateway(_) | RouteKind::Unreachable => panic!("not modelled"),
    }
}

/// A flow's member depends on its hash. Here that is its destination, and weights don't count.
fn through(kernel: &Observed, id: NexthopId, to: Ipv4Addr) -> Way {
    match &kernel.nexthops[&id].get().via {
        NexthopTarget::Gateway(gateway) => Way::Gateway(gateway.address),
        NexthopTarget::Blackhole => Way::Dropped,
        NexthopTarget::Group { members, .. } => {
            through(kernel, members[u32::from(to) as usize % members.len()].id, to)
        }
    }
}

/// What the kernel does with one change; panics where it would refuse.
pub(crate) fn apply(kernel: &mut Observed, change: &Change) {
    if let Change::PutRoute { route: Route { kind: RouteKind::Nexthop(id), .. }, .. } = change {
        assert!(kernel.nexthops.contains_key(id), "route on a nexthop that is not there");
    }
    match change {
        Change::PutRoute { route, replaces } => {
            assert_eq!(kernel.routes.get(&route.key()), replaces.as_ref());
        }
        Change::PutNexthop { nexthop, replaces } => {
            assert_eq!(kernel.nexthops.get(&nexthop.id), replaces.as_ref());
            assert_eq!(refusal(kernel, nexthop), None, "{nexthop:?}");
        }
        Change::DeleteNexthop(nexthop) => {
            let gone = nexthop.get().id;
            let used = kernel.routes.values().any(|route| route.get().kind == RouteKind::Nexthop(gone))
                || kernel.nexthops.values().any(|other| is_member(gone, other.get()));
            assert!(!used, "the kernel would take routes or members along");
        }
        Change::PutRule(_) | Change::RestoreRule(_) | Change::DeleteRule(_) | Change::DeleteRoute(_) => {}
    }
    kernel.record(change);
}

fn is_member(id: NexthopId, group: &Nexthop) -> bool {
    matches!(&group.via, NexthopTarget::Group { members, .. } if members.iter().any(|member| member.id == id))
}

/// Why the kernel would refuse a nexthop object.
fn refusal(kernel: &Observed, nexthop: &Nexthop) -> Option<&'static str> {
    let present = kernel.nexthops.get(&nexthop.id).map(|present| &present.get().via);
    let member_of_some = kernel.nexthops.values().any(|other| is_member(nexthop.id, other.get()));
    match (&nexthop.via, present) {
        (NexthopTarget::Group { .. }, Some(NexthopTarget::Gateway(_) | NexthopTarget::Blackhole)) => {
            Some("a group replaces no gateway")
        }
        (NexthopTarget::Gateway(_) | NexthopTarget::Blackhole, Some(NexthopTarget::Group { .. })) => {
            Some("no gateway replaces a group")
        }
        (NexthopTarget::Group { resilient, .. }, Some(NexthopTarget::Group { resilient: present, .. }))
            if resilient.map(|one| one.buckets) != present.map(|one| one.buckets) =>
        {
            Some("a group keeps its kind and its buckets")
        }
        (NexthopTarget::Group { members, .. }, _) if members.len() > 1 => members
            .iter()
            .any(|member| {
                !matches!(
                    kernel.nexthops.get(&member.id).map(|one| &one.get().via),
                    Some(NexthopTarget::Gateway(_))
                )
            })
            .then_some("members are gateways that are there"),
        (NexthopTarget::Blackhole, _) if member_of_some => Some("a blackhole is no member"),
        _ => None,
    }
}

/// A kernel that holds a plan.
pub(crate) fn holding(state: &KernelState) -> Observed {
    let mut kernel = Observed::default();
    for change in changes(&Observed::default(), state) {
        apply(&mut kernel, &change);
    }
    kernel
}
