//! What stays when something goes: knowledge, a reference, the link, the agent; and what a switch changes.

use super::*;

#[test]
fn while_the_api_server_is_not_known_no_range_is_opened_and_what_is_routed_stays() {
    let view = unsure(Uncertainty::NoApiServer);
    let some = route("some", 1, &["1.2.0.0/16"], &[A]);
    let kernel = holding(&planned(std::slice::from_ref(&some)).state);
    let more = route("more", 2, &["0.0.0.0/0", "5.0.0.0/8", "9.9.9.9"], &[A]);
    let later = planned_on(&view, &[some.clone(), more.clone()], &kernel);
    assert!(later.routes[0].is_applied(), "routed before");
    assert_eq!((later.routes[1].applied, later.routes[1].total), (1, 3), "an address that is written out");
    let (destination, reason, message) = &failures(&later.routes[1])[0];
    assert_eq!((*destination, *reason), ("0.0.0.0/0", "ApiServerUnknown"));
    assert_eq!(
        message,
        "the address of the API server is not known: the node's metadata names no cluster and the endpoints of Service \
         kubernetes give no address; start the agents with --api-server-name=<its host name>; until then no range is \
         routed that is not routed already"
    );
    assert_eq!(way(&later, "1.2.3.4"), through_gateway(A));
    assert_eq!(way(&later, "9.9.9.9"), through_gateway(A));
    assert_eq!(way(&later, "5.5.5.5"), Way::Default);

    // Also after the link took the routes along: their guards tell.
    let mut flapped = kernel;
    flapped.nexthops.clear();
    flapped.routes.retain(|_, route| !matches!(route.get().kind, RouteKind::Nexthop(_)));
    assert!(planned_on(&view, &[some], &flapped).routes[0].is_applied());
    // Known at last.
    assert!(planned(&[more]).routes[0].is_applied());
}

#[test]
fn while_the_agent_looks_around_the_table_stays_as_it_is() {
    let view = unsure(Uncertainty::LookingAround);
    let all = excluding("all", 1, &["0.0.0.0/0"], &["1.2.0.0/16", "8.8.8.8"], &[A]);
    let inner = route("inner", 2, &["1.2.3.0/24"], &[B]);
    let before = planned(&[all.clone(), inner.clone()]);
    let kernel = holding(&before.state);
    // What is protected is not known yet, and somebody has taken the exclusions back meanwhile.
    let view = NodeView { protected: Protected::default(), ..view };
    let opened = route("all", 1, &["0.0.0.0/0"], &[A]);
    let another = route("another", 3, &["198.51.100.10"], &[A]);
    let after = planned_on(&view, &[opened, inner, another], &kernel);
    assert_eq!(changes(&kernel, &after.state), vec![]);
    assert_eq!(failures(&after.routes[2])[0].1, "LookingAround");
    for (to, expected) in [
        ("8.8.8.8", Way::Default),
        ("1.2.2.2", Way::Default),
        ("1.2.3.4", through_gateway(B)),
        ("198.51.100.10", Way::Default),
        ("1.1.1.1", through_gateway(A)),
    ] {
        assert_eq!(way(&after, to), expected, "{to}");
    }
}

#[test]
fn a_reference_without_a_list_keeps_its_gateways_and_one_that_was_deleted_does_not() {
    let fault = |fault: ReferenceFault| WantedRoute {
        reference_fault: Some(fault),
        ..route("r", 1, &["1.2.3.4"], &[A, B])
    };
    let name = || "demo".to_owned();
    let missing = planned(&[fault(ReferenceFault::Missing { name: name() })]);
    assert!(missing.routes[0].is_applied());
    assert_eq!(missing.routes[0].caveat.as_ref().unwrap().reason(), "EgressGatewayMissing");
    assert_eq!(way(&missing, "1.2.3.4"), through_gateway(A));

    let never = WantedRoute { gateways: Vec::new(), ..fault(ReferenceFault::NotReady { name: name() }) };
    let plan = planned(&[never]);
    assert_eq!(plan.routes[0].problem.as_ref().unwrap().reason(), "EgressGatewayNotReady");
    assert_eq!(plan.state, KernelState::default());

    let deleted = planned(&[fault(ReferenceFault::Deleted { name: name() })]);
    assert_eq!(deleted.routes[0].problem.as_ref().unwrap().reason(), "EgressGatewayDeleted");
    assert_eq!(way(&deleted, "1.2.3.4"), Way::Default);
}

#[test]
fn a_link_that_goes_down_leaves_guards_that_drop() {
    let plan = planned(&[route("all", 1, &["0.0.0.0/0"], &[A, B]), route("db", 2, &["198.51.100.40"], &[B])]);
    let mut kernel = holding(&plan.state);
    // As the kernel does it: every nexthop on the link goes, and every route on those.
    kernel.nexthops.clear();
    kernel.routes.retain(|_, route| !matches!(route.get().kind, RouteKind::Nexthop(_)));
    let way = |to: &str| lookup(&kernel, &node().main_routes, packet(ip(to)));
    assert_eq!(way("198.51.100.40"), Way::Dropped);
    assert_eq!(way("1.1.1.1"), Way::Dropped);
    assert_eq!(way("169.254.169.254"), Way::Default, "protected as ever");
}

#[test]
fn while_the_vpc_link_is_down_routed_packets_are_dropped_and_others_are_not() {
    let wanted = [route("r", 1, &["1.2.3.4"], &[A])];
    let mut view = node();
    view.vpc.as_mut().unwrap().up = false;
    let up = planned(&wanted);
    let down = plan(&wanted, &view, &Selection::new(), &holding(&up.state), &Layout::default());
    assert_eq!(way(&down, "1.2.3.4"), Way::Dropped);
    assert_eq!(way(&down, "1.2.3.5"), Way::Default);
    assert_eq!(down.routes[0].problem, Some(RouteProblem::LinkDown { open: false }));
    assert!(!down.routes[0].is_applied());
    assert_eq!(down.routes[0].nexthop, up.routes[0].nexthop, "so that coming back is one replace");
}

#[test]
fn a_restart_keeps_the_gateway_that_the_kernel_has() {
    let wanted = [route("r", 1, &["1.2.3.4"], &[A, B])];
    let selection = Selection::from([("uid-r".to_owned(), ips(&[B]).into())]);
    let layout = Layout::default();
    let before = plan(&wanted, &node(), &selection, &Observed::default(), &layout);
    assert_eq!(way(&before, "1.2.3.4"), through_gateway(B));
    let kernel = holding(&before.state);
    let after = plan(&wanted, &node(), &Selection::new(), &kernel, &layout);
    assert_eq!(after, before);
    assert_eq!(changes(&kernel, &after.state), []);

    let edited = [route("r", 1, &["1.2.3.4"], &["10.116.0.102", A])];
    let edited = plan(&edited, &node(), &selection, &kernel, &layout);
    assert_eq!(way(&edited, "1.2.3.4"), through_gateway("10.116.0.102"), "B has left the list");
}

#[test]
fn a_switch_is_one_change_and_equals_a_new_plan() {
    let wanted =
        [route("r", 1, &["1.2.3.4", "0.0.0.0/0"], &[A, B]), route("other", 1, &["5.6.7.8"], &[A, B])];
    let layout = Layout::default();
    let mut plan_now = planned(&wanted);
    let mut kernel = holding(&plan_now.state);
    assert_eq!(plan_now.switch("uid-r", &ips(&[A]).into(), &node(), &kernel, &layout), None, "it is there");
    assert_eq!(
        plan_now.switch("uid-r", &ips(&["10.116.0.9"]).into(), &node(), &kernel, &layout),
        None,
        "not in the list"
    );
    let change = plan_now.switch("uid-r", &ips(&[B]).into(), &node(), &kernel, &layout).unwrap();
    let selection = Selection::from([("uid-r".to_owned(), ips(&[B]).into())]);
    assert_eq!(changes(&kernel, &plan_now.state), std::slice::from_ref(&change));
    assert_eq!(plan(&wanted, &node(), &selection, &kernel, &layout), plan_now);
    apply(&mut kernel, &change);
    assert_eq!(lookup(&kernel, &node().main_routes, packet(ip("1.2.3.4"))), through_gateway(B));
    assert_eq!(lookup(&kernel, &node().main_routes, packet(ip("5.6.7.8"))), through_gateway(A));
}
