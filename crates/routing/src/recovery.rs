//! What a node can go on with when its kernel is all it has: an agent that starts while the API server is away.
//!
//! The plan leaves one nexthop group for each StaticRoute whose gateways are probed (`docs/decisions/0006`): no route uses
//! it; its members are the probe nexthops of the StaticRoute's gateways and their weights the places in the list, from 1 on.
//! With that the kernel itself says between which gateways a StaticRoute may be moved, and in which order. A gateway that is
//! probed and in no list (it waits to be proven) is in no group, so nothing ever moves to it.
//!
//! Invariants: nothing is added that was not there but an exception for an address that the node lives by and was cut off
//! from (`confirm`), nothing is taken away, and the only change to a StaticRoute is its gateway, within its own list.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::builtin_rules::BuiltinRule;
use crate::gateways::gateway_in_kernel;
use crate::kernel_state::{
    Change, Gateway, GroupMember, KernelState, Nexthop, NexthopId, NexthopTarget, Observed, Route, RouteKey,
    RouteKind,
};
use crate::layout::{Layout, ProbePath};

/// What was found in the kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    state: KernelState,
    /// How to probe each gateway that is in some list, in the order of the slots.
    pub probes: Vec<ProbePath>,
    /// The StaticRoutes that can be moved.
    pub routes: Vec<RecoveredRoute>,
}

/// A StaticRoute as the kernel knows it: without its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveredRoute {
    /// The nexthop object of its routes.
    pub nexthop: NexthopId,
    /// The gateway it uses; `None` when its packets are dropped.
    pub current: Option<Ipv4Addr>,
    /// Its gateways in the order of its list.
    pub gateways: Vec<Gateway>,
}

impl Recovered {
    /// Reads what is ours.
    pub fn read(observed: &Observed, layout: &Layout) -> Self {
        let state = KernelState {
            rules: observed.rules.iter().map(|rule| rule.get().clone()).collect(),
            routes: observed.routes.iter().map(|(key, route)| (*key, route.get().clone())).collect(),
            nexthops: observed.nexthops.iter().map(|(id, nexthop)| (*id, nexthop.get().clone())).collect(),
            builtin_rules: if observed.routes.keys().any(|key| key.table == layout.table) {
                BuiltinRule::ALL.into()
            } else {
                BTreeSet::new()
            },
        };
        let routes: Vec<_> =
            state.nexthops.values().filter_map(|list| route_of(list, &state, layout)).collect();
        let listed = |address: Ipv4Addr| {
            routes.iter().any(|route| route.gateways.iter().any(|gateway| gateway.address == address))
        };
        let probes = (0..layout.probe_slots)
            .map(crate::GatewaySlot)
            .filter_map(|slot| {
                let gateway = gateway(layout.probe_nexthop(slot), &state)?.address;
                let rule = state.rules.iter().find(|rule| rule.priority == layout.probe_priority(slot))?;
                let source = rule.from?.addr();
                Some(ProbePath { slot, gateway, source, source_ports: layout.probe_port_range(slot) })
            })
            .filter(|path| listed(path.gateway))
            .collect();
        Self { state, probes, routes }
    }

    /// Moves the `index`-th StaticRoute: the change that does it, or `None` when it is there already or may not go there.
    pub fn switch(&mut self, index: usize, to: Ipv4Addr, observed: &Observed) -> Option<Change> {
        let route = self.routes.get_mut(index)?;
        let gateway = *route.gateways.iter().find(|gateway| gateway.address == to)?;
        if route.current == Some(to) {
            return None;
        }
        route.current = Some(to);
        let nexthop = Nexthop { id: route.nexthop, via: NexthopTarget::Gateway(gateway) };
        self.state.insert_nexthop(nexthop.clone());
        Some(Change::PutNexthop { replaces: observed.nexthops.get(&nexthop.id).cloned(), nexthop })
    }

    /// Keeps one address off the gateways.
    pub fn spare(&mut self, address: Ipv4Addr, layout: &Layout) {
        let destination = Ipv4Net::from(address);
        self.state.insert_route(Route {
            table: layout.table,
            destination,
            metric: 0,
            kind: RouteKind::Throw,
        });
    }

    /// Index of the link on which a gateway of some list is.
    pub fn interface_of(&self, gateway: Ipv4Addr) -> Option<u32> {
        let mut gateways = self.routes.iter().flat_map(|route| &route.gateways);
        gateways.find(|one| one.address == gateway).map(|one| one.interface)
    }

    /// What the kernel should hold. `is_up` says of a link whether it carries packets: while one does not, the kernel drops
    /// every nexthop on it and what was routed there must not leave with the node's own address.
    pub fn state(&self, layout: &Layout, is_up: impl Fn(u32) -> bool) -> KernelState {
        let mut state = self.state.clone();
        let dead: Vec<NexthopId> = state
            .nexthops
            .values()
            .filter(|nexthop| matches!(&nexthop.via, NexthopTarget::Gateway(gateway) if !is_up(gateway.interface)))
            .map(|nexthop| nexthop.id)
            .collect();
        for id in dead {
            if layout.is_object_nexthop(id) {
                state.insert_nexthop(Nexthop { id, via: NexthopTarget::Blackhole });
            } else {
                state.remove_nexthop(id);
            }
        }
        state
    }
}

/// The gateways of the StaticRoute that has most of these destinations in the kernel, in the order of its list: what it goes on
/// with when nobody can say what its list is.
pub fn gateways_of<'a>(
    destinations: impl IntoIterator<Item = &'a Ipv4Net>,
    observed: &Observed,
    layout: &Layout,
) -> Vec<Ipv4Addr> {
    let mut routes: BTreeMap<NexthopId, usize> = BTreeMap::new();
    for destination in destinations {
        let key = RouteKey { table: layout.table, destination: *destination, metric: 0 };
        if let Some(RouteKind::Nexthop(id)) = observed.routes.get(&key).map(|route| &route.get().kind) {
            *routes.entry(*id).or_default() += 1;
        }
    }
    let Some((nexthop, _)) = routes.into_iter().max_by_key(|(id, count)| (*count, Reverse(*id))) else {
        return Vec::new();
    };
    let recovered = Recovered::read(observed, layout);
    match recovered.routes.iter().find(|route| route.nexthop == nexthop) {
        Some(route) => route.gateways.iter().map(|gateway| gateway.address).collect(),
        None => gateway_in_kernel(nexthop, observed).into_iter().collect(),
    }
}

/// The group that records a list of gateways: `None` for less than two of them, since nothing could be moved.
pub(crate) fn record(
    nexthop: NexthopId,
    gateways: impl IntoIterator<Item = NexthopId>,
    layout: &Layout,
) -> Option<Nexthop> {
    let members: Vec<_> =
        gateways.into_iter().zip(1..).map(|(id, weight)| GroupMember { id, weight }).collect();
    let id = layout.list_nexthop(nexthop);
    (members.len() > 1).then(|| Nexthop { id, via: NexthopTarget::group(members, None) })
}

fn route_of(list: &Nexthop, state: &KernelState, layout: &Layout) -> Option<RecoveredRoute> {
    let NexthopTarget::Group { members, .. } = &list.via else { return None };
    let nexthop = layout.nexthop_of_list(list.id)?;
    // The kernel must have it: a list alone routes nothing.
    state.nexthops.get(&nexthop)?;
    let mut members = members.clone();
    members.sort_by_key(|member| member.weight);
    let gateways = members.iter().filter_map(|member| gateway(member.id, state)).collect();
    let current = gateway(nexthop, state).map(|gateway| gateway.address);
    Some(RecoveredRoute { nexthop, current, gateways })
}

fn gateway(id: NexthopId, state: &KernelState) -> Option<Gateway> {
    match state.nexthops.get(&id)?.via {
        NexthopTarget::Gateway(gateway) => Some(gateway),
        NexthopTarget::Blackhole | NexthopTarget::Group { .. } => None,
    }
}

#[cfg(test)]
mod tests;
