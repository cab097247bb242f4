//! What `onNoGateway` says, in every mode: closing, opening and coming back are one change each, and a restart reads them back.

use super::*;
use crate::Recovered;
use crate::fixture::{failing, shared};
use crate::kernel_state::{Gateway, NexthopTarget};
use crate::wanted::OnNoGateway::{FailClosed, FailOpen, KeepLast};

const MODES: [OnNoGateway; 3] = [KeepLast, FailClosed, FailOpen];

/// The node's own default gateway.
const EXIT: &str = "203.0.113.1";

fn object(mode: OnNoGateway, is_shared: bool) -> WantedRoute {
    let route = route("r", 1, &["1.2.3.4", "5.0.0.0/8"], &[A, B]);
    failing(if is_shared { shared(route) } else { route }, mode)
}

fn none_works(last: &str) -> Chosen {
    Chosen { gateways: ips(&[last]), none_works: true, draining: None }
}

fn selecting(chosen: Chosen) -> Selection {
    Selection::from([("uid-r".to_owned(), chosen)])
}

fn plan_with(wanted: &[WantedRoute], selection: &Selection, kernel: &Observed) -> NodePlan {
    plan(wanted, &node(), selection, kernel, &Layout::default())
}

/// Where a listed address goes while no gateway works, B having been the last.
fn course(mode: OnNoGateway) -> Way {
    match mode {
        KeepLast => through_gateway(B),
        FailClosed => Way::Dropped,
        FailOpen => through_gateway(EXIT),
    }
}

#[test]
fn in_each_mode_the_last_gateways_death_and_the_first_ones_return_are_at_most_one_change_and_survive_a_restart()
 {
    let layout = Layout::default();
    for (mode, is_shared) in MODES.into_iter().flat_map(|mode| [(mode, false), (mode, true)]) {
        let case = format!("{mode:?}, shared: {is_shared}");
        let wanted = [object(mode, is_shared)];
        let mut now = plan_with(&wanted, &selecting(ips(&[B]).into()), &Observed::default());
        let mut kernel = holding(&now.state);
        assert!(now.routes[0].is_applied() && !now.routes[0].no_gateway, "{case}");
        assert_eq!(now.routes[0].guarded, mode != FailOpen, "{case}");

        let change = now.switch("uid-r", &none_works(B), &node(), &kernel, &layout);
        assert_eq!(change.is_some(), mode != KeepLast, "{case}");
        assert_eq!(changes(&kernel, &now.state), Vec::from_iter(change.clone()), "{case}");
        if let Some(change) = &change {
            apply(&mut kernel, change);
        }
        let report = &now.routes[0];
        assert!(report.no_gateway, "{case}");
        assert_eq!(report.is_diverted(), mode != KeepLast, "{case}");
        for to in ["1.2.3.4", "5.6.7.8"] {
            assert_eq!(lookup(&kernel, &node().main_routes, packet(ip(to))), course(mode), "{case}");
        }
        let selected = plan_with(&wanted, &selecting(none_works(B)), &kernel);
        assert_eq!(selected, now, "{case}: as a new plan says");

        // An agent that starts now writes nothing; one without its API server moves on when a gateway works.
        let restarted = plan_with(&wanted, &Selection::new(), &kernel);
        assert_eq!(changes(&kernel, &restarted.state), [], "{case}");
        assert_eq!(restarted.routes[0].is_diverted(), mode != KeepLast, "{case}");
        let mut recovered = Recovered::read(&kernel, &layout);
        let index =
            recovered.routes.iter().position(|route| Some(route.nexthop) == now.routes[0].nexthop).unwrap();
        assert_eq!(recovered.routes[index].on_no_gateway, mode, "{case}");
        assert_eq!(recovered.routes[index].current.is_empty(), mode != KeepLast, "{case}");

        let change = now.switch("uid-r", &ips(&[A]).into(), &node(), &kernel, &layout).unwrap();
        assert_eq!(recovered.switch(index, &ips(&[A]).into(), &kernel, &layout).unwrap(), change, "{case}");
        let mut back = kernel.clone();
        apply(&mut back, &change);
        assert_eq!(lookup(&back, &node().main_routes, packet(ip("1.2.3.4"))), through_gateway(A), "{case}");
        assert!(now.routes[0].is_applied() && !now.routes[0].no_gateway, "{case}");

        // And that agent closes and opens as this one does.
        let mut recovered = Recovered::read(&back, &layout);
        let change = recovered.switch(index, &none_works(A), &back, &layout);
        assert_eq!(change.is_some(), mode != KeepLast, "{case}");
        if let Some(change) = &change {
            apply(&mut back, change);
        }
        let way = lookup(&back, &node().main_routes, packet(ip("1.2.3.4")));
        assert_eq!(way, if mode == KeepLast { through_gateway(A) } else { course(mode) }, "{case}");
    }
}

#[test]
fn an_agent_that_starts_on_a_node_without_a_public_interface_leaves_open_what_is_open() {
    let layout = Layout::default();
    let interface = node().vpc.unwrap().index;
    // The default route leads through another machine in the VPC.
    let exit = Gateway { address: ip("10.116.0.20"), interface, onlink: false };
    let private = NodeView { default_way: Some(exit), ..node() };
    let wanted = [object(FailOpen, false)];
    let open = plan(&wanted, &private, &selecting(none_works(B)), &Observed::default(), &layout);
    let kernel = holding(&open.state);
    let restarted = plan(&wanted, &private, &Selection::new(), &kernel, &layout);
    assert_eq!(changes(&kernel, &restarted.state), []);
    assert!(restarted.routes[0].is_diverted());
}

#[test]
fn what_fails_closed_is_shut_on_a_node_whose_vpc_interface_is_not_known_and_nothing_else_is_planned() {
    let lost = NodeView { vpc: None, ..node() };
    let closed = WantedRoute { excluded: [net("5.6.7.0/24")].into(), ..object(FailClosed, false) };
    let kept = route("kept", 2, &["9.9.9.9"], &[A]);
    let open = failing(route("open", 3, &["5.9.0.0/16"], &[A]), FailOpen);
    let plan =
        plan(&[closed, kept, open], &lost, &Selection::new(), &Observed::default(), &Layout::default());
    for (to, then) in [
        ("1.2.3.4", Way::Dropped),
        ("5.1.1.1", Way::Dropped),
        ("5.6.7.8", Way::Default),
        ("5.9.1.1", Way::Default),
        ("9.9.9.9", Way::Default),
    ] {
        assert_eq!(way(&plan, to), then, "{to}");
    }
    let told: Vec<_> = plan.routes.iter().map(|report| (report.guarded, report.is_applied())).collect();
    assert_eq!(told, [(true, false), (false, false), (false, false)]);
    assert!(plan.state.nexthops.is_empty());
}

/// As an agent does whose VPC interface is not known: who is guarded, and the kernel afterwards.
fn while_lost(wanted: &[WantedRoute], mut kernel: Observed) -> (Vec<bool>, Observed) {
    let lost = NodeView { vpc: None, ..node() };
    let plan = plan(wanted, &lost, &Selection::new(), &kernel, &Layout::default());
    for change in changes(&kernel, &plan.state) {
        if change.only_adds() || change.only_shuts() {
            apply(&mut kernel, &change);
        }
    }
    (plan.routes.iter().map(|report| report.guarded).collect(), kernel)
}

#[test]
fn without_a_vpc_interface_nothing_is_called_guarded_that_the_kernel_still_lets_out() {
    let way = |kernel: &Observed, to| lookup(kernel, &node().main_routes, packet(ip(to)));
    for is_shared in [false, true] {
        let before = [object(FailOpen, is_shared)];
        let after = [object(FailClosed, is_shared)];
        let through = plan_with(&before, &selecting(ips(&[B]).into()), &Observed::default());
        let (guarded, kernel) = while_lost(&after, holding(&through.state));
        assert_eq!((guarded, way(&kernel, "1.2.3.4")), (vec![true], through_gateway(B)), "{is_shared}");
        let open = plan_with(&before, &selecting(none_works(B)), &Observed::default());
        let (guarded, kernel) = while_lost(&after, holding(&open.state));
        assert_eq!((guarded, way(&kernel, "1.2.3.4")), (vec![false], through_gateway(EXIT)), "{is_shared}");
    }

    let all = [object(FailClosed, false)];
    let but_some = [WantedRoute { excluded: [net("5.6.7.0/24")].into(), ..object(FailClosed, false) }];
    let kernel = holding(&planned(&but_some).state);
    let (guarded, kernel) = while_lost(&all, kernel);
    assert_eq!((guarded, way(&kernel, "5.6.7.8")), (vec![false], Way::Default), "no longer excluded");
    assert_eq!(while_lost(&but_some, kernel).0, [true]);
}

#[test]
fn without_a_vpc_interface_a_guard_takes_the_place_of_what_was_open_below_a_route() {
    let wide = object(FailClosed, false);
    let inside = |mode| failing(route("inside", 2, &["5.9.0.0/16"], &[A]), mode);
    let kernel = holding(&planned(&[wide.clone(), inside(FailOpen)]).state);
    let without_link = |mut kernel: Observed| {
        kernel.routes.retain(|_, route| !matches!(route.get().kind, RouteKind::Nexthop(_)));
        lookup(&kernel, &node().main_routes, packet(ip("5.9.1.1")))
    };
    let (guarded, same) = while_lost(&[wide.clone(), inside(FailOpen)], kernel.clone());
    assert_eq!((guarded, without_link(same)), (vec![true, false], Way::Default));
    let (guarded, shut) = while_lost(&[wide.clone(), inside(FailClosed)], kernel);
    assert_eq!((guarded, without_link(shut.clone())), (vec![true, true], Way::Dropped));
    let (guarded, kept) = while_lost(&[wide, inside(FailOpen)], shut);
    assert_eq!((guarded, without_link(kept)), (vec![true, false], Way::Dropped), "nothing is opened");
}

#[test]
fn what_is_fail_closed_is_shut_from_the_first_moment_whatever_its_list_is() {
    let reference = |fault| WantedRoute {
        gateways: Vec::new(),
        reference_fault: Some(fault),
        ..object(FailClosed, false)
    };
    let name = || "demo".to_owned();
    for (case, wanted) in [
        ("an empty list", WantedRoute { gateways: Vec::new(), ..object(FailClosed, false) }),
        (
            "an empty list to share",
            WantedRoute { gateways: Vec::new(), weights: Some([].into()), ..object(FailClosed, true) },
        ),
        ("none on the link", WantedRoute { gateways: vec![ip("192.0.2.1")], ..object(FailClosed, false) }),
        ("nothing proven", reference(ReferenceFault::NotReady { name: name() })),
        ("nothing of that name", reference(ReferenceFault::Missing { name: name() })),
        ("deleted", reference(ReferenceFault::Deleted { name: name() })),
    ] {
        let plan = planned(std::slice::from_ref(&wanted));
        assert_eq!((way(&plan, "1.2.3.4"), way(&plan, "5.6.7.8")), (Way::Dropped, Way::Dropped), "{case}");
        assert_eq!(way(&plan, "1.2.3.5"), Way::Default, "{case}");
        let report = &plan.routes[0];
        assert!(report.guarded && report.no_gateway && !report.is_applied(), "{case}");
        assert_eq!((report.applied, report.failures.len()), (0, 0), "{case}");
        // The list comes: one replace, and the routes stay.
        let kernel = holding(&plan.state);
        let listed = object(FailClosed, wanted.is_shared());
        let opened = plan_with(&[listed], &selecting(ips(&[A]).into()), &kernel);
        let list = changes(&kernel, &opened.state);
        assert!(
            !list
                .iter()
                .any(|change| matches!(change, Change::PutRoute { route, .. } if route.table == 1157)),
            "{case}: {list:?}"
        );
        assert_eq!(way(&opened, "1.2.3.4"), through_gateway(A), "{case}");
    }
    let kept = WantedRoute { gateways: Vec::new(), ..object(KeepLast, false) };
    assert_eq!(planned(&[kept]).state, KernelState::default(), "in other modes nothing is there to route");
}

#[test]
fn a_link_that_goes_leaves_closed_what_is_closed_and_open_what_is_open() {
    for (mode, is_shared) in MODES.into_iter().flat_map(|mode| [(mode, false), (mode, true)]) {
        let wanted = [object(mode, is_shared)];
        let mut kernel = holding(&planned(&wanted).state);
        // As the kernel does it, before the agent has noticed.
        let on_link: Vec<_> = kernel.nexthops.iter().filter(|(_, one)| {
            matches!(&one.get().via, NexthopTarget::Gateway(gateway) if gateway.interface == 3)
        }).map(|(id, _)| *id).collect();
        for id in on_link {
            let gone = kernel.nexthops[&id].clone();
            kernel.record(&Change::DeleteNexthop(gone));
        }
        let expected = if mode == FailOpen { Way::Default } else { Way::Dropped };
        let case = format!("{mode:?}, shared: {is_shared}");
        assert_eq!(lookup(&kernel, &node().main_routes, packet(ip("1.2.3.4"))), expected, "{case}");
        // And after it has.
        let mut view = node();
        view.vpc.as_mut().unwrap().up = false;
        let down = plan(&wanted, &view, &Selection::new(), &kernel, &Layout::default());
        let expected = match (mode, is_shared) {
            (FailOpen, false) => through_gateway(EXIT),
            (FailOpen, true) => Way::Default,
            _ => Way::Dropped,
        };
        assert_eq!(way(&down, "1.2.3.4"), expected, "{case}");
        assert_eq!(down.routes[0].problem, Some(RouteProblem::LinkDown { open: mode == FailOpen }), "{case}");
    }
}

#[test]
fn the_longest_prefix_and_the_elder_object_decide_whose_mode_counts() {
    let mut view = node();
    view.vpc.as_mut().unwrap().up = false;
    let down = |wanted: &[WantedRoute]| {
        let up = holding(&planned(wanted).state);
        let plan = plan(wanted, &view, &Selection::new(), &up, &Layout::default());
        let mut flapped = up;
        flapped.nexthops.clear();
        flapped.routes.retain(|_, route| !matches!(route.get().kind, RouteKind::Nexthop(_)));
        // What the kernel does by itself, and what the agent makes of it.
        let by_itself = |to: &str| lookup(&flapped, &node().main_routes, packet(ip(to)));
        ["5.6.7.8", "1.2.3.4"].map(|to| (by_itself(to), way(&plan, to)))
    };
    let all = |mode| failing(route("all", 1, &["0.0.0.0/0"], &[A]), mode);
    let some = |created, mode| failing(route("some", created, &["5.0.0.0/8"], &[A]), mode);
    let (open, shut) = ((Way::Default, through_gateway(EXIT)), (Way::Dropped, Way::Dropped));
    assert_eq!(down(&[all(FailClosed), some(2, FailOpen)]), [open, shut]);
    assert_eq!(down(&[all(FailOpen), some(2, FailClosed)]), [shut, open]);
    let rival = |mode| failing(route("rival", 1, &["5.0.0.0/8"], &[B]), mode);
    assert_eq!(down(&[rival(FailOpen), some(2, FailClosed)])[0], open, "the elder one's");
    assert_eq!(down(&[rival(FailClosed), some(2, FailOpen)])[0], shut, "the elder one's");

    // Shut for want of a gateway it keeps its place before a younger one that has one.
    let empty = WantedRoute { gateways: Vec::new(), ..rival(FailClosed) };
    let plan = planned(&[empty, some(2, KeepLast)]);
    assert_eq!(way(&plan, "5.6.7.8"), Way::Dropped);
    assert_eq!(plan.routes[1].failures[0].cause.reason(), "Conflict");
}

#[test]
fn protected_ranges_and_exclusions_are_never_shut() {
    let all = excluding("all", 1, &["0.0.0.0/0"], &["8.8.8.8"], &[]);
    let plan = planned(&[failing(all, FailClosed)]);
    assert_eq!(way(&plan, "1.1.1.1"), Way::Dropped);
    for own in ["198.51.100.10", "169.254.169.254", "67.207.67.2", "10.245.0.10", "8.8.8.8"] {
        assert_eq!(way(&plan, own), Way::Default, "{own}");
    }
    let unsure =
        planned_on(&unsure(Uncertainty::NoApiServer), &[object(FailClosed, false)], &Observed::default());
    assert_eq!((way(&unsure, "1.2.3.4"), way(&unsure, "5.6.7.8")), (through_gateway(A), Way::Default));
    assert!(!unsure.routes[0].guarded, "a range that may hold the API server is not shut either");
}

#[test]
fn a_node_without_a_default_gateway_of_its_own_stays_with_the_last_one() {
    let view = NodeView { default_way: None, ..node() };
    let selection = selecting(none_works(B));
    let plan = plan(&[object(FailOpen, false)], &view, &selection, &Observed::default(), &Layout::default());
    assert_eq!(way(&plan, "1.2.3.4"), through_gateway(B));
    assert!(plan.routes[0].no_gateway && !plan.routes[0].is_diverted());
}
