//! StaticRoutes whose objects are gone, read back from the kernel.
//!
//! Objects that were deleted one by one are not wanted any more, also when that happened while no agent ran. Objects that went
//! with their definition (CRD) are: whoever deletes the older operator by its own manifest deletes the definition that it shares
//! with us. An agent that starts after that must tell the two apart, and the API server cannot help it: both look like an
//! empty list. So the plan leaves a nexthop object in the kernel whose id follows from the uid of the definition
//! ([`Layout::definition_nexthop`]); when the definition has another uid now, what the kernel routes for nobody is orphaned.
//!
//! Where a link was down the kernel may not say any more to which gateway an orphan led: the last agent put a blackhole in its place. Such
//! an orphan has no gateway, and its destinations stay dropped, unless it is one of `FailOpen`.
//!
//! Invariant: planning an orphan gives the routes that it was read from.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::gateways::{gateway_in_kernel, gateways_in_kernel};
use crate::kernel_state::{Managed, NexthopId, Observed, RouteKind};
use crate::layout::Layout;
use crate::nexthop_ids::{may_have, uid_of_unknown};
use crate::plan::NodePlan;
use crate::recovery::Recovered;
use crate::wanted::{OnNoGateway, Spelling, WantedRoute};

/// What the kernel routes for objects that are not in the plan. `reported` are uids and names of StaticRoutes that the node
/// once had; an orphan that is not among them is called by the id of its nexthop object. One without gateways is one of which the kernel
/// does not say them.
pub fn orphans(
    observed: &Observed,
    plan: &NodePlan,
    reported: &[(String, String)],
    layout: &Layout,
) -> Vec<WantedRoute> {
    // Of one StaticRoute the kernel may have routes on both, in the midst of a change of its mode.
    let object = |id| layout.nexthop_of_routes(id).unwrap_or(id);
    let planned: BTreeSet<NexthopId> =
        plan.routes.iter().filter_map(|report| Some(object(report.nexthop?))).collect();
    let mut routed: BTreeMap<NexthopId, BTreeMap<Ipv4Net, Spelling>> = BTreeMap::new();
    let mut passed_over = BTreeSet::new();
    let ours = observed.routes.values().map(Managed::get).filter(|route| route.table == layout.table);
    for route in ours {
        match route.kind {
            RouteKind::Nexthop(id) if !planned.contains(&object(id)) => {
                let is_address = route.destination.prefix_len() == 32;
                let spelling = if is_address { Spelling::Address } else { Spelling::Prefix };
                routed.entry(id).or_default().insert(route.destination, spelling);
            }
            RouteKind::Throw => {
                passed_over.insert(route.destination);
            }
            _ => {}
        }
    }
    let recovered = Recovered::read(observed, layout);
    let exit = gateway_in_kernel(layout.exit_nexthop(), observed);
    routed
        .into_iter()
        .map(|(id, destinations)| {
            let list = recovered.routes.iter().find(|list| list.nexthop == id);
            let mode = recovered.on_no_gateway(object(id), layout);
            let mut gateways: Vec<Ipv4Addr> = match list {
                Some(list) => list.gateways.iter().map(|gateway| gateway.address).collect(),
                None => gateways_in_kernel(id, observed).into_iter().collect(),
            };
            // The node's own way out is none of its gateways.
            gateways.retain(|gateway| mode != OnNoGateway::FailOpen || Some(*gateway) != exit);
            let is_unknown = gateways.is_empty();
            let known = reported.iter().find(|(uid, _)| may_have(uid, object(id), layout)).cloned();
            let (uid, name) =
                known.unwrap_or_else(|| (uid_of_unknown(object(id)), format!("nexthop-{}", object(id))));
            // Who shares traffic is probed, also where it is alone in its list and there is nothing to record.
            let shared = layout.group_nexthop(object(id)) == id;
            let inside = |prefix: &&Ipv4Net| destinations.keys().any(|one| one.contains(*prefix));
            let excluded = passed_over.iter().filter(inside).copied().collect();
            WantedRoute {
                name,
                uid,
                created: 0,
                destinations,
                excluded,
                gateways,
                health_checked: list.is_some() || shared,
                weights: shared.then(|| recovered.weights(id, layout)),
                invalid_destinations: Vec::new(),
                invalid_gateways: Vec::new(),
                refused: None,
                reference_fault: None,
                drain_seconds: 0,
                on_no_gateway: if is_unknown && mode == OnNoGateway::KeepLast {
                    OnNoGateway::FailClosed
                } else {
                    mode
                },
                guard: None,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diff::changes;
    use crate::fixture::{excluding, ip, net, node, route, shared};
    use crate::kernel_state::{Change, Gateway, KernelState, Nexthop, NexthopTarget};
    use crate::node::NodeView;
    use crate::plan::{Selection, plan};

    fn taken(state: &KernelState) -> Observed {
        let mut observed = Observed::default();
        for change in changes(&observed, state) {
            observed.record(&change);
        }
        observed
    }

    #[test]
    fn orphans_read_from_the_kernel_plan_what_is_there() {
        let layout = Layout::default();
        let mut bare = route("bare", 3, &["192.0.2.7", "198.51.100.0/24"], &["10.116.0.12"]);
        bare.health_checked = false;
        let wanted = [
            excluding("all", 1, &["0.0.0.0/0"], &["100.64.0.0/10"], &["10.116.0.5", "10.116.0.12"]),
            WantedRoute {
                weights: Some([(ip("10.116.0.5"), 3), (ip("10.116.0.12"), 1)].into()),
                ..route("shared", 4, &["192.0.2.64/26"], &["10.116.0.5", "10.116.0.12"])
            },
            shared(route("alone", 5, &["192.0.2.128/26"], &["10.116.0.5"])),
            route("some", 2, &["192.0.2.0/24"], &["10.116.0.12", "10.116.0.5"]),
            bare,
        ];
        let before = plan(&wanted, &node(), &Selection::new(), &Observed::default(), &layout);
        let observed = taken(&before.state);
        let reported =
            ["all", "shared", "alone", "other"].map(|name| (format!("uid-{name}"), name.to_owned()));

        let found = orphans(&observed, &NodePlan::default(), &reported, &layout);
        let names: BTreeSet<&str> = found.iter().map(|orphan| orphan.name.as_str()).collect();
        assert!(["all", "shared", "alone"].iter().all(|name| names.contains(name)), "{names:?}");
        assert_eq!(names.len(), 5);
        let after = plan(&found, &node(), &Selection::new(), &observed, &layout);
        assert_eq!(changes(&observed, &after.state), Vec::<Change>::new());

        // What a live object has is nobody's orphan.
        let live = plan(&wanted[..4], &node(), &Selection::new(), &observed, &layout);
        let found = orphans(&observed, &live, &reported, &layout);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].gateways, ["10.116.0.12".parse::<Ipv4Addr>().unwrap()]);
    }

    #[test]
    fn an_orphan_whose_gateway_nobody_knows_stays_dropped_and_holds_up_no_other() {
        let layout = Layout::default();
        let mut bare = route("bare", 3, &["192.0.2.7"], &["10.116.0.12"]);
        bare.health_checked = false;
        let known = route("known", 2, &["198.51.100.0/24"], &["10.116.0.5", "10.116.0.12"]);
        let before = plan(&[bare, known], &node(), &Selection::new(), &Observed::default(), &layout);
        let mut observed = taken(&before.state);
        // As an agent leaves it that dies while the link is down.
        let id = before.routes[0].nexthop.unwrap();
        observed.record(&Change::PutNexthop {
            nexthop: Nexthop { id, via: NexthopTarget::Blackhole },
            replaces: None,
        });
        for restarted in [false, true] {
            let found = orphans(&observed, &NodePlan::default(), &[], &layout);
            let gateways: Vec<usize> = found.iter().map(|orphan| orphan.gateways.len()).collect();
            assert_eq!(gateways.iter().sum::<usize>(), 2, "{found:?}");
            assert!(gateways.contains(&0) && found.len() == 2, "{found:?}");
            let after = plan(&found, &node(), &Selection::new(), &observed, &layout);
            let record = Nexthop { id: layout.closed_nexthop(id), via: NexthopTarget::Blackhole };
            let record = Change::PutNexthop { nexthop: record, replaces: None };
            let list = changes(&observed, &after.state);
            assert_eq!(list, if restarted { vec![] } else { vec![record] }, "it is dropped, and kept so");
            for change in &list {
                observed.record(change);
            }
        }
    }

    #[test]
    fn one_that_fails_open_and_whose_gateway_nobody_knows_is_open() {
        let layout = Layout::default();
        let open = WantedRoute {
            on_no_gateway: OnNoGateway::FailOpen,
            health_checked: false,
            ..route("open", 3, &["192.0.2.7"], &["10.116.0.12"])
        };
        for default_way in [None, Some(Gateway { address: ip("203.0.113.1"), interface: 2, onlink: true })] {
            let mut down = NodeView { default_way, ..node() };
            down.vpc.as_mut().unwrap().up = false;
            let before =
                plan(std::slice::from_ref(&open), &down, &Selection::new(), &Observed::default(), &layout);
            let observed = taken(&before.state);
            let found = orphans(&observed, &NodePlan::default(), &[], &layout);
            assert!(found[0].gateways.is_empty(), "{default_way:?}");
            let after = plan(&found, &node(), &Selection::new(), &observed, &layout);
            assert!(!after.state.routes.values().any(|route| route.destination == net("192.0.2.7/32")));
        }
    }
}
