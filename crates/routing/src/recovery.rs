//! What a node can go on with when its kernel is all it has: an agent that starts while the API server is away.
//!
//! The plan leaves one nexthop group for each StaticRoute whose gateways are probed (`docs/decisions/0006`): no route uses
//! it; its members are the probe nexthops of the StaticRoute's gateways and their weights the places in the list, from 1 on.
//! With that the kernel itself says between which gateways a StaticRoute may be moved, and in which order. Gateways that share
//! the traffic have no order, and the weights are their own. A gateway that is probed and in no list (it waits to be proven) is
//! in no group, so nothing ever moves to it.
//!
//! Invariants: nothing is added that was not there but an exception for an address that the node lives by and was cut off
//! from (`confirm`), nothing is taken away, and the only change to a StaticRoute are its gateways, within its own list.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::builtin_rules::BuiltinRule;
use crate::gateways::gateways_in_kernel;
use crate::kernel_state::{
    Change, Gateway, GroupMember, KernelState, Nexthop, NexthopId, NexthopTarget, Observed, Route, RouteKey,
    RouteKind,
};
use crate::layout::{GatewaySlot, Layout, ProbePath};
use crate::plan::{Chosen, Course};
use crate::sharing::Sharer;
use crate::wanted::OnNoGateway;

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
    /// The nexthop object or group of its routes.
    pub nexthop: NexthopId,
    /// Whether its gateways share the traffic, or two do for the time of a planned move.
    pub shared: bool,
    /// The latter: no other gateway may join.
    pub draining: bool,
    /// What happens while none works.
    pub on_no_gateway: OnNoGateway,
    /// The gateways it uses; empty when its packets are dropped.
    pub current: BTreeSet<Ipv4Addr>,
    /// Its gateways, in the order of its list unless they share the traffic.
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
            state.nexthops.values().flat_map(|list| routes_of(list, &state, layout)).collect();
        let listed = |address: Ipv4Addr| {
            routes.iter().any(|route| route.gateways.iter().any(|gateway| gateway.address == address))
        };
        let probes = (0..layout.probe_slots)
            .map(GatewaySlot)
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

    /// Moves the `index`-th StaticRoute to `to`, one gateway or those that share the traffic, or to what is done while none works:
    /// the change that does it, or `None` when it is there already or may not go there.
    pub fn switch(
        &mut self,
        index: usize,
        to: &Chosen,
        observed: &Observed,
        layout: &Layout,
    ) -> Option<Change> {
        let route = self.routes.get_mut(index)?;
        let gateways: Vec<Ipv4Addr> = route.gateways.iter().map(|gateway| gateway.address).collect();
        let gateways: Vec<Ipv4Addr> =
            gateways.into_iter().filter(|gateway| to.gateways.contains(gateway)).collect();
        let course = if to.none_works {
            Course::without_gateway(
                route.on_no_gateway,
                gateways,
                gateway(layout.exit_nexthop(), &self.state),
            )
        } else {
            Course::Through(gateways)
        };
        let sharers = route.shared.then(|| sharers(route.nexthop, &self.state, layout));
        let interface = route.gateways.first()?.interface;
        let nexthop = course.nexthop(route.nexthop, sharers.as_deref(), interface, layout)?;
        if self.state.nexthops.get(&nexthop.id) == Some(&nexthop) {
            return None;
        }
        route.current = match course {
            Course::Through(gateways) if !route.shared => gateways.into_iter().take(1).collect(),
            other => other.gateways().into_iter().collect(),
        };
        self.state.insert_nexthop(nexthop.clone());
        Some(Change::PutNexthop { replaces: observed.nexthops.get(&nexthop.id).cloned(), nexthop })
    }

    /// The weights of the gateways that share the traffic of the StaticRoute whose routes use `group`.
    pub(crate) fn weights(&self, group: NexthopId, layout: &Layout) -> BTreeMap<Ipv4Addr, u16> {
        let sharers = sharers(group, &self.state, layout);
        sharers.iter().map(|sharer| (sharer.gateway, sharer.weight)).collect()
    }

    /// What happens to the traffic of the StaticRoute known by `object` while no gateway works.
    pub(crate) fn on_no_gateway(&self, object: NexthopId, layout: &Layout) -> OnNoGateway {
        mode_of(object, &self.state, layout)
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
                let open = mode_of(id, &self.state, layout) == OnNoGateway::FailOpen;
                let exit =
                    gateway(layout.exit_nexthop(), &self.state).filter(|exit| open && is_up(exit.interface));
                let via = exit.map_or(NexthopTarget::Blackhole, NexthopTarget::Gateway);
                state.insert_nexthop(Nexthop { id, via });
            } else {
                state.remove_nexthop(id);
            }
        }
        state
    }
}

/// The gateways of the StaticRoute that has most of these destinations in the kernel, in the order of its list: what it goes on
/// with when nobody can say what its list is. They are looked for at the kernel's own numbers ([`Layout::in_kernel`]).
pub fn gateways_of<'a>(
    destinations: impl IntoIterator<Item = &'a Ipv4Net>,
    observed: &Observed,
    layout: &Layout,
) -> Vec<Ipv4Addr> {
    let layout = &Layout::in_kernel(observed, layout);
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
        None => gateways_in_kernel(nexthop, observed).into_iter().collect(),
    }
}

/// The group that records a list of gateways, each with its place or its weight: `None` for less than `least` of them.
pub(crate) fn record(
    nexthop: NexthopId,
    least: usize,
    gateways: impl IntoIterator<Item = (GatewaySlot, u16)>,
    layout: &Layout,
) -> Option<Nexthop> {
    let members: Vec<_> = gateways
        .into_iter()
        .map(|(slot, weight)| GroupMember { id: layout.probe_nexthop(slot), weight })
        .collect();
    let id = layout.list_nexthop(nexthop);
    (members.len() >= least).then(|| Nexthop { id, via: NexthopTarget::group(members, None) })
}

/// The gateways that can share the traffic of the StaticRoute whose routes use `group`, as its list records them.
pub(crate) fn sharers(group: NexthopId, state: &KernelState, layout: &Layout) -> Vec<Sharer> {
    let list = layout.nexthop_of_routes(group).map(|nexthop| layout.list_nexthop(nexthop));
    let members = match list.and_then(|list| state.nexthops.get(&list)).map(|list| &list.via) {
        Some(NexthopTarget::Group { members, .. }) => members.as_slice(),
        _ => &[],
    };
    members
        .iter()
        .filter_map(|member| {
            let slot = layout.slot_of_nexthop(member.id)?;
            Some(Sharer { gateway: gateway(member.id, state)?.address, slot, weight: member.weight })
        })
        .collect()
}

/// The StaticRoute that a list is of. The kernel must have its nexthop object or its group: a list alone routes nothing. Where it
/// has both, somebody was about to change the mode, and both are kept up.
fn routes_of(list: &Nexthop, state: &KernelState, layout: &Layout) -> Vec<RecoveredRoute> {
    let (NexthopTarget::Group { members, .. }, Some(object)) = (&list.via, layout.nexthop_of_list(list.id))
    else {
        return Vec::new();
    };
    let mut members = members.clone();
    members.sort_by_key(|member| member.weight);
    let gateways: Vec<Gateway> = members.iter().filter_map(|member| gateway(member.id, state)).collect();
    [object, layout.group_nexthop(object), layout.drain_nexthop(object)]
        .into_iter()
        .filter_map(|nexthop| {
            let via = &state.nexthops.get(&nexthop)?.via;
            let on_no_gateway = mode_of(object, state, layout);
            let listed = |address: &Ipv4Addr| gateways.iter().any(|gateway| gateway.address == *address);
            let (shared, current): (_, BTreeSet<Ipv4Addr>) = match via {
                NexthopTarget::Gateway(gateway) => (false, BTreeSet::from([gateway.address])),
                NexthopTarget::Blackhole => (false, BTreeSet::new()),
                NexthopTarget::Group { members, .. } => {
                    let addresses = members.iter().filter_map(|member| gateway(member.id, state));
                    (true, addresses.map(|gateway| gateway.address).collect())
                }
            };
            // What is let out goes to a gateway of no list.
            let current = current.into_iter().filter(listed).collect();
            let draining = layout.is_drain(nexthop);
            Some(RecoveredRoute {
                nexthop,
                shared,
                draining,
                on_no_gateway,
                current,
                gateways: gateways.clone(),
            })
        })
        .collect()
}

/// What a StaticRoute's record says.
fn mode_of(object: NexthopId, state: &KernelState, layout: &Layout) -> OnNoGateway {
    if state.nexthops.contains_key(&layout.closed_nexthop(object)) {
        OnNoGateway::FailClosed
    } else if state.nexthops.contains_key(&layout.open_nexthop(object)) {
        OnNoGateway::FailOpen
    } else {
        OnNoGateway::KeepLast
    }
}

fn gateway(id: NexthopId, state: &KernelState) -> Option<Gateway> {
    match state.nexthops.get(&id)?.via {
        NexthopTarget::Gateway(gateway) => Some(gateway),
        NexthopTarget::Blackhole | NexthopTarget::Group { .. } => None,
    }
}

#[cfg(test)]
mod tests;
