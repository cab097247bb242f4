//! What our table answers for an address, without the rest of the plan: 16 bytes for each route.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::kernel_state::{KernelState, NexthopId, RouteKind};
use crate::layout::Layout;

/// The routes of our table by destination. The guards below them do not count: they answer for the same destinations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ways(Vec<(Ipv4Net, Option<NexthopId>)>);

impl Ways {
    /// Those of a plan.
    pub fn of(state: &KernelState, layout: &Layout) -> Self {
        let ours = state.routes.values().filter(|route| route.table == layout.table);
        let ways = ours.filter_map(|route| match route.kind {
            RouteKind::Nexthop(id) => Some((route.destination, Some(id))),
            RouteKind::Throw => Some((route.destination, None)),
            RouteKind::Gateway(_) | RouteKind::Unreachable | RouteKind::Blackhole => None,
        });
        // In ascending order, as the keys of the map are.
        Self(ways.collect())
    }

    /// The nexthop object that packets to `address` go to; `None` when they take the node's own way.
    pub fn to(&self, address: Ipv4Addr) -> Option<NexthopId> {
        let covering = (0..=32).rev().filter_map(|length| Some(Ipv4Net::new(address, length).ok()?.trunc()));
        let found = covering
            .filter_map(|prefix| self.0.binary_search_by_key(&prefix, |(destination, _)| *destination).ok())
            .next()?;
        self.0[found].1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{excluding, ip, node};
    use crate::kernel_state::Observed;
    use crate::{Selection, plan};

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
}
