use std::collections::BTreeSet;

use super::*;
use crate::diff::changes;
use crate::fib_model::{Way, apply, holding, lookup, packet};
use crate::fixture::{ip, ips, node, route};
use crate::kernel_state::NEXTHOP_IDS;
use crate::{NodePlan, NodeView, Selection, WantedRoute, plan};

const A: &str = "10.116.0.101";
const B: &str = "10.116.0.100";
const WAITING: &str = "10.116.0.102";

fn scene() -> (NodeView, WantedRoute, NodePlan, Observed) {
    let node = NodeView { candidates: BTreeSet::from([ip(WAITING)]), ..node() };
    let wanted = route("all", 1, &["0.0.0.0/0"], &[A, B]);
    let plan = planned(std::slice::from_ref(&wanted), &node, &Observed::default());
    let kernel = holding(&plan.state);
    (node, wanted, plan, kernel)
}

fn planned(wanted: &[WantedRoute], node: &NodeView, kernel: &Observed) -> NodePlan {
    plan(wanted, node, &Selection::new(), kernel, &Layout::default())
}

fn way(kernel: &Observed) -> Way {
    lookup(kernel, &node().main_routes, packet(ip("1.1.1.1")))
}

#[test]
fn the_kernel_alone_says_which_gateways_a_static_route_has_and_in_which_order() {
    let (_, _, plan, kernel) = scene();
    let recovered = Recovered::read(&kernel, &Layout::default());
    assert_eq!(recovered.routes.len(), 1);
    let route = &recovered.routes[0];
    assert_eq!(Some(route.nexthop), plan.routes[0].nexthop);
    assert_eq!((route.shared, &route.current), (false, &ips(&[A])));
    let listed: Vec<_> = route.gateways.iter().map(|gateway| gateway.address).collect();
    assert_eq!(listed, [ip(A), ip(B)], "in the order of the list, which is not that of the slots");
    let probed: Vec<_> = recovered.probes.iter().map(|path| path.gateway).collect();
    assert_eq!(probed, [ip(B), ip(A)], "the gateway that waits to be proven is in no list");
    assert!(plan.probes.iter().any(|path| path.gateway == ip(WAITING)));
    assert!(recovered.probes.iter().all(|path| plan.probes.contains(path)));
}

#[test]
fn a_move_is_one_change_within_the_list_and_the_next_plan_keeps_it() {
    let (node, wanted, _, mut kernel) = scene();
    let layout = Layout::default();
    let mut recovered = Recovered::read(&kernel, &layout);
    assert_eq!(recovered.switch(0, &ips(&[WAITING]).into(), &kernel, &layout), None, "unproven");
    assert_eq!(recovered.switch(0, &ips(&[A]).into(), &kernel, &layout), None, "there already");
    let change = recovered.switch(0, &ips(&[B]).into(), &kernel, &layout).unwrap();
    apply(&mut kernel, &change);
    assert_eq!(way(&kernel), Way::Gateway(ip(B)));
    assert_eq!(changes(&kernel, &recovered.state(&layout, |_| true)), []);
    let back = planned(&[wanted], &node, &kernel);
    assert_eq!(changes(&kernel, &back.state), [], "the API server is back: nothing is written");
}

/// The kernel drops all nexthops on the link, their routes and groups; the guard answers until it is back.
fn link_goes_and_comes_back(recovered: &Recovered, kernel: &mut Observed) {
    let layout = Layout::default();
    kernel.nexthops.clear();
    kernel.routes.retain(|_, route| !matches!(route.get().kind, crate::kernel_state::RouteKind::Nexthop(_)));
    for change in changes(kernel, &recovered.state(&layout, |_| false)) {
        apply(kernel, &change);
    }
    assert_eq!(way(kernel), Way::Dropped);
    for change in changes(kernel, &recovered.state(&layout, |_| true)) {
        apply(kernel, &change);
    }
}

#[test]
fn what_is_lost_comes_back_and_while_the_link_is_down_packets_are_dropped() {
    let (_, _, plan, mut kernel) = scene();
    let layout = Layout::default();
    let recovered = Recovered::read(&kernel, &layout);
    link_goes_and_comes_back(&recovered, &mut kernel);
    assert_eq!(way(&kernel), Way::Gateway(ip(A)));
    assert_eq!(changes(&kernel, &plan.state), []);
}

#[test]
fn nothing_is_recovered_where_there_is_nothing_to_choose() {
    let layout = Layout::default();
    let single = route("single", 1, &["1.2.3.4"], &[A]);
    let bare = WantedRoute { health_checked: false, ..route("bare", 2, &["1.2.3.5"], &[A]) };
    let kernel = holding(&planned(&[single, bare], &node(), &Observed::default()).state);
    let recovered = Recovered::read(&kernel, &layout);
    assert_eq!((recovered.routes.len(), recovered.probes.len()), (0, 0));
    assert_eq!(changes(&kernel, &recovered.state(&layout, |_| true)), []);
}

#[test]
fn lists_have_ids_of_their_own() {
    let layout = Layout::default();
    for index in [0, 65_535] {
        let nexthop = layout.object_nexthop(index);
        let list = layout.list_nexthop(nexthop);
        assert!(NEXTHOP_IDS.contains(&list.0));
        assert!(!layout.is_object_nexthop(list));
        assert_eq!(layout.nexthop_of_list(list), Some(nexthop));
        assert_eq!(layout.nexthop_of_list(nexthop), None);
    }
    assert_eq!(layout.nexthop_of_list(layout.probe_nexthop(crate::GatewaySlot(31))), None);
}

#[test]
fn the_kernel_says_with_which_gateways_destinations_are_routed() {
    let layout = Layout::default();
    let (_, wanted, _, kernel) = scene();
    assert_eq!(gateways_of(wanted.destinations.keys(), &kernel, &layout), [ip(A), ip(B)]);
    let single = route("single", 1, &["1.2.3.4"], &[B]);
    let kernel = holding(&planned(std::slice::from_ref(&single), &node(), &Observed::default()).state);
    assert_eq!(gateways_of(single.destinations.keys(), &kernel, &layout), [ip(B)]);
    assert!(gateways_of(wanted.destinations.keys(), &kernel, &layout).is_empty());
}

#[test]
fn gateways_that_share_the_traffic_leave_and_come_back_with_their_weights() {
    let layout = Layout::default();
    let wanted = WantedRoute {
        weights: Some([(ip(A), 3), (ip(B), 1)].into()),
        ..route("all", 1, &["0.0.0.0/0"], &[A, B])
    };
    let before = planned(std::slice::from_ref(&wanted), &node(), &Observed::default());
    let mut kernel = holding(&before.state);
    let whole = kernel.clone();
    let mut recovered = Recovered::read(&kernel, &layout);
    assert_eq!((recovered.routes.len(), recovered.probes.len()), (1, 2));
    assert!(recovered.routes[0].shared);
    assert_eq!(recovered.routes[0].current, ips(&[A, B]));
    assert_eq!(Some(recovered.routes[0].nexthop), before.routes[0].nexthop);

    let change = recovered.switch(0, &ips(&[B]).into(), &kernel, &layout).unwrap();
    apply(&mut kernel, &change);
    assert_eq!(recovered.switch(0, &ips(&[B]).into(), &kernel, &layout), None, "there already");
    assert_eq!(recovered.switch(0, &ips(&[WAITING]).into(), &kernel, &layout), None, "not in its list");
    assert_eq!(way(&kernel), Way::Gateway(ip(B)));
    assert_eq!(changes(&kernel, &recovered.state(&layout, |_| true)), []);
    let back = planned(std::slice::from_ref(&wanted), &node(), &kernel);
    assert_eq!(changes(&kernel, &back.state), [], "the API server is back: nothing is written");
    assert_eq!(back.routes[0].in_use, [ip(B)]);

    let change = recovered.switch(0, &ips(&[A, B]).into(), &kernel, &layout).unwrap();
    apply(&mut kernel, &change);
    assert_eq!(kernel, whole);

    link_goes_and_comes_back(&recovered, &mut kernel);
    assert_eq!(kernel, whole);
}
