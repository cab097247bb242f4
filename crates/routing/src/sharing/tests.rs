use super::*;
use crate::diff::changes;
use crate::fib_model::{Way, apply, holding, lookup, packet};
use crate::fixture::{ip, ips, node, route, shared};
use crate::kernel_state::{Change, Foreign, Observed, RouteKind};
use crate::report::RouteProblem;
use crate::{NodePlan, NodeView, Selection, WantedRoute, plan};

const A: &str = "10.116.0.100";
const B: &str = "10.116.0.101";
const C: &str = "10.116.0.102";

fn all(gateways: &[&str]) -> WantedRoute {
    shared(route("all", 1, &["0.0.0.0/0", "198.18.5.0/24"], gateways))
}

fn planned(wanted: &[WantedRoute], in_use: &[&str], observed: &Observed) -> NodePlan {
    let selection = match in_use {
        [] => Selection::new(),
        some => Selection::from([("uid-all".to_owned(), ips(some).into())]),
    };
    plan(wanted, &node(), &selection, observed, &Layout::default())
}

/// Whoever gets packets for some of many destinations.
fn used(kernel: &Observed) -> BTreeSet<Way> {
    let ways = (0..64).map(|n| lookup(kernel, &node().main_routes, packet(Ipv4Addr::new(198, 18, 5, n))));
    ways.collect()
}

fn through(gateways: &[&str]) -> BTreeSet<Way> {
    ips(gateways).into_iter().map(Way::Gateway).collect()
}

#[test]
fn every_gateway_has_two_objects_in_the_group_with_its_weight() {
    let layout = Layout::default();
    let wanted = WantedRoute {
        weights: Some([(ip(A), 3), (ip(B), 1)].into()),
        ..route("all", 1, &["0.0.0.0/0"], &[A, B])
    };
    let plan = planned(&[wanted], &[], &Observed::default());
    let group = &plan.state.nexthops[&plan.routes[0].nexthop.unwrap()];
    let NexthopTarget::Group { members, resilient } = &group.via else { panic!("{group:?}") };
    assert_eq!(*resilient, Some(layout.group));
    let seen: Vec<_> = members.iter().map(|member| (member.id.0 % 1_000_000, member.weight)).collect();
    assert_eq!(seen, [(100_000, 3), (100_001, 1), (110_000, 3), (110_001, 1)]);
    assert_eq!(used(&holding(&plan.state)), through(&[A, B]));
    assert_eq!(plan.routes[0].in_use, [ip(A), ip(B)]);
    assert!(plan.routes[0].is_applied());
}

#[test]
fn a_gateway_that_leaves_or_comes_back_is_one_change_and_equals_a_new_plan() {
    let layout = Layout::default();
    let wanted = [all(&[A, B, C])];
    let mut now = planned(&wanted, &[], &Observed::default());
    let mut kernel = holding(&now.state);
    for in_use in [&[A, C][..], &[C], &[A, C], &[A, B, C]] {
        let change = now.switch("uid-all", &ips(in_use).into(), &node(), &kernel, &layout).unwrap();
        assert!(matches!(change, Change::PutNexthop { replaces: Some(_), .. }));
        apply(&mut kernel, &change);
        assert_eq!(
            now.switch("uid-all", &ips(in_use).into(), &node(), &kernel, &layout),
            None,
            "it is there"
        );
        assert_eq!(used(&kernel), through(in_use));
        assert_eq!(planned(&wanted, in_use, &kernel), now);
        assert_eq!(planned(&wanted, &[], &kernel), now, "a restart reads it back");
        assert_eq!(changes(&kernel, &now.state), []);
    }
    assert_eq!(
        now.switch("uid-all", &ips(&["10.116.0.9"]).into(), &node(), &kernel, &layout),
        None,
        "not in the list"
    );
}

#[test]
fn a_change_of_the_mode_replaces_the_routes_in_place_and_moves_nobody_to_another_gateway() {
    let standby = [route("all", 1, &["0.0.0.0/0", "198.18.5.0/24"], &[A, B])];
    let active = [all(&[A, B])];
    let mut kernel = holding(&planned(&standby, &[B], &Observed::default()).state);
    for (wanted, in_use) in [(&active, &[][..]), (&standby, &[])] {
        let next = planned(wanted, in_use, &kernel);
        for change in changes(&kernel, &next.state) {
            assert!(!matches!(change, Change::DeleteRoute(_)), "{change:?}");
            apply(&mut kernel, &change);
            assert_eq!(used(&kernel), through(&[B]), "after {change:?}");
        }
        assert_eq!(next.routes[0].in_use, [ip(B)]);
        assert_eq!(changes(&kernel, &planned(wanted, &[], &kernel).state), []);
    }
    let before = planned(&standby, &[], &kernel).routes[0].nexthop.unwrap();
    let after = planned(&active, &[], &kernel).routes[0].nexthop.unwrap();
    assert_eq!(after, Layout::default().group_nexthop(before));
}

#[test]
fn while_the_link_is_down_the_guards_answer() {
    let mut view = node();
    let up = planned(&[all(&[A, B])], &[], &Observed::default());
    view.vpc.as_mut().unwrap().up = false;
    let kernel = holding(&up.state);
    let down = plan(&[all(&[A, B])], &view, &Selection::new(), &kernel, &Layout::default());
    assert_eq!(down.routes[0].problem, Some(RouteProblem::LinkDown { open: false }));
    assert_eq!(used(&holding(&down.state)), BTreeSet::from([Way::Dropped]));
    // The kernel has dropped everything on the link, or it has not (only the address is gone).
    let mut bare = kernel.clone();
    bare.nexthops.clear();
    bare.routes.retain(|_, route| !matches!(route.get().kind, RouteKind::Nexthop(_)));
    for mut kernel in [bare, kernel] {
        for change in changes(&kernel, &down.state) {
            apply(&mut kernel, &change);
            assert!(!used(&kernel).contains(&Way::Default), "after {change:?}");
        }
        for change in changes(&kernel, &up.state) {
            apply(&mut kernel, &change);
            assert!(!used(&kernel).contains(&Way::Default), "after {change:?}");
        }
        assert_eq!(used(&kernel), through(&[A, B]));
    }
}

#[test]
fn what_others_have_at_an_id_of_a_slot_is_no_member() {
    let layout = Layout::default();
    let mut observed = Observed::default();
    observed.foreign.insert(Foreign::Nexthop { id: layout.twin_nexthop(GatewaySlot(0)), protocol: 4 });
    let plan = planned(&[all(&[A, B])], &[], &observed);
    let slots: Vec<_> = plan.probes.iter().map(|path| path.slot.0).collect();
    assert_eq!(slots, [1, 2]);
}

#[test]
fn a_slot_that_a_group_sends_packets_to_is_not_given_to_another_gateway_in_the_same_step() {
    let numbers = |range: std::ops::Range<u8>| range.map(|n| format!("10.116.0.{n}")).collect::<Vec<_>>();
    let first: Vec<String> = numbers(100..132);
    let many: Vec<&str> = first.iter().map(String::as_str).collect();
    let kernel = holding(&planned(&[all(&many)], &[], &Observed::default()).state);
    let mut moved = many.clone();
    moved[0] = "10.116.0.90";
    let next = planned(&[all(&moved)], &[], &kernel);
    assert_eq!(next.unprobed, [ip("10.116.0.90")]);
    let mut kernel = kernel;
    for change in changes(&kernel, &next.state) {
        apply(&mut kernel, &change);
        assert!(!used(&kernel).contains(&Way::Gateway(ip("10.116.0.90"))), "after {change:?}");
    }
    let later = planned(&[all(&moved)], &[], &kernel);
    assert_eq!(later.unprobed, [] as [Ipv4Addr; 0]);
}

#[test]
fn without_a_slot_for_any_of_its_gateways_a_static_route_says_so() {
    let others: Vec<String> = (100..132).map(|n| format!("10.116.0.{n}")).collect();
    let view = NodeView { candidates: others.iter().map(|text| ip(text)).collect(), ..node() };
    let kernel =
        holding(&plan(&[], &view, &Selection::new(), &Observed::default(), &Layout::default()).state);
    let plan = plan(&[all(&["10.116.0.9"])], &view, &Selection::new(), &kernel, &Layout::default());
    assert_eq!(plan.routes[0].problem, Some(RouteProblem::NotProbed));
    assert_eq!(plan.routes[0].in_use, [] as [Ipv4Addr; 0]);
    assert_eq!(used(&holding(&plan.state)), BTreeSet::from([Way::Default]));
}
