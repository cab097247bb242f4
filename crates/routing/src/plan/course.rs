//! Where a StaticRoute's traffic goes: through gateways of its list, nowhere, or the node's own way (`docs/decisions/0018`).
//!
//! All three are values of one nexthop object or group, so each way from one to another is one message. A group that shares traffic
//! can't become a blackhole, but it may have one as its only member.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use super::draining::{self, Draining};
use super::gateways::{in_order, kept_gateways, through};
use super::{Chosen, Selection};
use crate::kernel_state::{
    Gateway, GroupMember, KernelState, Managed, Nexthop, NexthopId, NexthopTarget, Observed,
};
use crate::layout::Layout;
use crate::node::{NodeView, VpcInterface};
use crate::report::{RouteProblem, RouteReport};
use crate::sharing::{self, Sharer};
use crate::wanted::{OnNoGateway, WantedRoute};

/// Where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Course {
    /// To these gateways: one, or with `ActiveActive` several.
    Through(Vec<Ipv4Addr>),
    /// From one gateway to this one, connection by connection.
    Draining(Draining, Vec<Ipv4Addr>),
    /// Nowhere.
    Closed,
    /// By the node's own default route.
    Open(Gateway),
}

impl Course {
    /// While no gateway works. `last` are those that did.
    pub fn without_gateway(mode: OnNoGateway, last: Vec<Ipv4Addr>, default_way: Option<Gateway>) -> Self {
        match (mode, default_way) {
            (OnNoGateway::FailClosed, _) => Self::Closed,
            (OnNoGateway::FailOpen, Some(way)) => Self::Open(way),
            // A node without a way of its own has none to open.
            (OnNoGateway::KeepLast | OnNoGateway::FailOpen, _) => Self::Through(last),
        }
    }

    /// The nexthop object that makes it so; `sharers` for a group of those. `None`: there is no gateway.
    pub fn nexthop(
        &self,
        id: NexthopId,
        sharers: Option<&[Sharer]>,
        interface: u32,
        layout: &Layout,
    ) -> Option<Nexthop> {
        let alone =
            |member| NexthopTarget::group([GroupMember { id: member, weight: 1 }], Some(layout.group));
        let via = match (self, sharers) {
            (Self::Through(gateways), Some(sharers)) => {
                return sharing::group(id, sharers, &gateways.iter().copied().collect(), layout);
            }
            (Self::Through(gateways), None) => return Some(through(id, *gateways.first()?, interface)),
            (Self::Draining(drain, to), sharers) => {
                return draining::group(id, *drain, to.first().copied(), sharers.unwrap_or_default(), layout);
            }
            (Self::Closed, Some(_)) => alone(layout.hole_nexthop()),
            (Self::Closed, None) => NexthopTarget::Blackhole,
            (Self::Open(_), Some(_)) => alone(layout.exit_nexthop()),
            (Self::Open(way), None) => NexthopTarget::Gateway(*way),
        };
        Some(Nexthop { id, via })
    }

    /// The gateways.
    pub fn gateways(self) -> Vec<Ipv4Addr> {
        match self {
            Self::Through(gateways) => gateways,
            Self::Draining(drain, to) => {
                if drain.moving {
                    to
                } else {
                    vec![drain.from]
                }
            }
            Self::Closed | Self::Open(_) => Vec::new(),
        }
    }
}

/// The nexthop object or group of a StaticRoute that has routes.
pub(super) fn choose_nexthop(
    route: &WantedRoute,
    sharers: &[Sharer],
    vpc: &VpcInterface,
    node: &NodeView,
    (selection, observed): (&Selection, &Observed),
    layout: &Layout,
    report: &mut RouteReport,
) -> Option<Nexthop> {
    let id = report.nexthop?;
    if !vpc.up {
        return link_down(id, route, node, report);
    }
    if let Some(drain) = report.draining {
        let course = Course::Draining(drain, report.in_use.clone());
        return course.nexthop(id, Some(sharers), vpc.index, layout);
    }
    let able =
        |gateway: &Ipv4Addr| !route.is_shared() || sharers.iter().any(|sharer| sharer.gateway == *gateway);
    let those = |wanted: &BTreeSet<Ipv4Addr>| {
        in_order(&report.usable_gateways, |gateway| wanted.contains(gateway) && able(gateway))
    };
    let chosen = selection.get(&route.uid);
    let kept = || those(&kept_gateways(id, observed, layout));
    // A bare gateway is what the object says, whatever was in the kernel: its list has one entry.
    let all = || in_order(&report.usable_gateways, able);
    let mut last = chosen.map(|chosen| those(&chosen.gateways)).unwrap_or_default();
    if last.is_empty() {
        last = kept();
    }
    let none_works = match chosen {
        Some(Chosen { none_works, .. }) => *none_works,
        None => last.is_empty() && is_diverted(id, route.on_no_gateway, (vpc, node), observed, layout),
    };
    if last.is_empty() {
        last = all();
    }
    report.no_gateway = none_works || last.is_empty();
    let mut course = if report.no_gateway {
        Course::without_gateway(route.on_no_gateway, last, node.default_way)
    } else {
        Course::Through(last)
    };
    if let Course::Through(gateways) = &mut course
        && !route.is_shared()
    {
        gateways.truncate(1);
    }
    let nexthop = course.nexthop(id, route.is_shared().then_some(sharers), vpc.index, layout);
    report.in_use = course.gateways();
    nexthop
}

/// Blackhole and gateway replace one another in place, so the routes stay.
fn link_down(
    id: NexthopId,
    route: &WantedRoute,
    node: &NodeView,
    report: &mut RouteReport,
) -> Option<Nexthop> {
    let open = route.on_no_gateway == OnNoGateway::FailOpen;
    report.problem.get_or_insert(RouteProblem::LinkDown { open });
    report.applied = 0;
    report.no_gateway = route.on_no_gateway != OnNoGateway::KeepLast;
    let via = match node.default_way.filter(|_| open) {
        Some(way) => NexthopTarget::Gateway(way),
        None => NexthopTarget::Blackhole,
    };
    // Nothing can stand in for a group: what lies below its routes answers.
    (!route.is_shared()).then_some(Nexthop { id, via })
}

/// Whether the kernel has what `mode` says for when no gateway works: an agent that starts leaves it so until it knows better.
fn is_diverted(
    id: NexthopId,
    mode: OnNoGateway,
    (vpc, node): (&VpcInterface, &NodeView),
    observed: &Observed,
    layout: &Layout,
) -> bool {
    let object = layout.nexthop_of_routes(id).unwrap_or(id);
    let present = [object, layout.group_nexthop(object)];
    let mut present = present.iter().filter_map(|id| observed.nexthops.get(id)).map(Managed::get);
    let alone = |members: &[GroupMember], id| members.iter().all(|member| member.id == id);
    present.any(|nexthop| match (&nexthop.via, mode) {
        (NexthopTarget::Blackhole, OnNoGateway::FailClosed) => true,
        // Without a public interface the node's own way out is in the VPC too.
        (NexthopTarget::Gateway(gateway), OnNoGateway::FailOpen) => {
            gateway.interface != vpc.index || Some(*gateway) == node.default_way
        }
        (NexthopTarget::Group { members, .. }, OnNoGateway::FailClosed) => {
            alone(members, layout.hole_nexthop())
        }
        (NexthopTarget::Group { members, .. }, OnNoGateway::FailOpen) => {
            alone(members, layout.exit_nexthop())
        }
        _ => false,
    })
}

/// What the courses of these StaticRoutes need beside their own nexthop objects, and a record of each one's mode for an agent that
/// starts while the API server is away.
pub(super) fn add_diversions<'a>(
    routed: impl Iterator<Item = (&'a WantedRoute, NexthopId)>,
    node: &NodeView,
    layout: &Layout,
    state: &mut KernelState,
) {
    let blackhole = |id| Nexthop { id, via: NexthopTarget::Blackhole };
    for (route, id) in routed {
        let object = layout.nexthop_of_routes(id).unwrap_or(id);
        match route.on_no_gateway {
            OnNoGateway::KeepLast => {}
            OnNoGateway::FailClosed => {
                state.insert_nexthop(blackhole(layout.closed_nexthop(object)));
                if route.is_shared() || layout.is_drain(id) {
                    state.insert_nexthop(blackhole(layout.hole_nexthop()));
                }
            }
            OnNoGateway::FailOpen => {
                state.insert_nexthop(blackhole(layout.open_nexthop(object)));
                if let Some(way) = node.default_way {
                    let id = layout.exit_nexthop();
                    state.insert_nexthop(Nexthop { id, via: NexthopTarget::Gateway(way) });
                }
            }
        }
    }
}
