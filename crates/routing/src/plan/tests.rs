use super::*;
use crate::diff::changes;
use crate::fib_model::{Packet, Way, apply, holding, lookup, packet};
use crate::fixture::{excluding, ip, ips, net, node, route};
use crate::kernel_state::{Foreign, Managed, RouteKey};
use crate::node::Uncertainty;
use crate::protected::Protected;
use crate::wanted::ReferenceFault;

mod draining;
mod no_gateway;
mod properties;

const A: &str = "10.116.0.100";
const B: &str = "10.116.0.101";

fn planned(wanted: &[WantedRoute]) -> NodePlan {
    plan(wanted, &node(), &Selection::new(), &Observed::default(), &Layout::default())
}

fn way(plan: &NodePlan, to: &str) -> Way {
    lookup(&holding(&plan.state), &node().main_routes, packet(ip(to)))
}

fn through_gateway(address: &str) -> Way {
    Way::Gateway(ip(address))
}

fn failures(report: &RouteReport) -> Vec<(&str, &'static str, String)> {
    report
        .failures
        .iter()
        .map(|failure| (failure.destination.as_str(), failure.cause.reason(), failure.cause.to_string()))
        .collect()
}

#[test]
fn nothing_wanted_is_nothing_in_the_kernel() {
    assert_eq!(planned(&[]), NodePlan::default());
}

#[test]
fn one_destination_takes_one_route_and_the_rules_in_their_order() {
    let plan = planned(&[route("db", 1, &["198.51.100.40"], &[A, B])]);
    let rules: Vec<_> = plan.state.rules.iter().map(|rule| rule.priority).collect();
    assert_eq!(rules, [900, 901, 990, 1000, 1001]);
    let sources: Vec<_> = plan.state.rules.iter().filter_map(|rule| rule.from).collect();
    assert_eq!(sources, ["10.116.0.2/32", "10.116.0.2/32", "203.0.113.11/32"].map(net));
    let table: Vec<_> =
        plan.state.routes.keys().map(|key| (key.table, key.destination, key.metric)).collect();
    let (destination, everything) = (net("198.51.100.40/32"), net("0.0.0.0/0"));
    let guard = Layout::default().guard_metric;
    assert_eq!(
        table,
        [(1157, destination, 0), (1157, destination, guard), (1160, everything, 0), (1161, everything, 0)]
    );
    assert_eq!(way(&plan, "198.51.100.40"), through_gateway(A));
    assert_eq!(way(&plan, "198.51.100.41"), Way::Default);
    let report = &plan.routes[0];
    assert!(report.is_applied());
    assert_eq!((report.applied, report.total, report.in_use.clone()), (1, 1, vec![ip(A)]));
    assert_eq!(report.usable_gateways, [ip(A), ip(B)]);
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
fn all_egress_leaves_the_node_what_it_lives_by() {
    for everything in [&["0.0.0.0/0"][..], &["0.0.0.0/1", "128.0.0.0/1"]] {
        let plan = planned(&[route("all", 1, everything, &[A])]);
        assert!(plan.routes[0].is_applied());
        for routed in ["1.1.1.1", "203.1.0.1", "198.51.100.11", "223.255.255.255"] {
            assert_eq!(way(&plan, routed), through_gateway(A), "{routed}");
        }
        for (own, expected) in [
            ("198.51.100.10", Way::Default),
            ("169.254.169.254", Way::Default),
            ("67.207.67.2", Way::Default),
            ("224.0.0.251", Way::Default),
            ("255.255.255.255", Way::Default),
            ("10.245.0.10", Way::Default),
            ("10.116.0.3", Way::Main),
            ("10.244.1.7", Way::Main),
            ("203.0.113.12", Way::Main),
        ] {
            assert_eq!(way(&plan, own), expected, "{own}");
        }
        let kernel = holding(&plan.state);
        let reply = Packet { source: ip("203.0.113.11"), protocol: 6, source_port: 443, to: ip("1.1.1.1") };
        assert_eq!(lookup(&kernel, &node().main_routes, reply), Way::Default);
    }
}

#[test]
fn probes_go_through_their_gateway_whatever_the_routes_are() {
    let plan = planned(&[route("all", 1, &["0.0.0.0/0"], &[A, B])]);
    let kernel = holding(&plan.state);
    assert_eq!(plan.probes.len(), 2);
    for probe in &plan.probes {
        for to in ["1.1.1.1", "198.51.100.10", A] {
            for port in [*probe.source_ports.start(), *probe.source_ports.end()] {
                let probe_packet =
                    Packet { source: probe.source, protocol: 6, source_port: port, to: ip(to) };
                assert_eq!(
                    lookup(&kernel, &node().main_routes, probe_packet),
                    Way::Gateway(probe.gateway),
                    "{to} from port {port}"
                );
            }
        }
    }
    let bare = WantedRoute { health_checked: false, ..route("old", 1, &["1.2.3.4"], &[A]) };
    assert!(planned(&[bare]).probes.is_empty(), "a bare gateway is taken on trust");
}

#[test]
fn a_destination_inside_a_protected_range_is_refused_and_says_why() {
    let plan =
        planned(&[route("r", 1, &["10.244.3.0/24", "169.254.169.254", "10.0.0.0/8", "198.51.100.10"], &[A])]);
    assert_eq!(
        failures(&plan.routes[0]),
        [
            ("10.244.3.0/24", "Protected", "it lies in 10.244.0.0/16, which is protected: pods".to_owned()),
            (
                "169.254.169.254",
                "Protected",
                "it lies in 169.254.0.0/16, which is protected: link-local and metadata".to_owned()
            ),
            (
                "198.51.100.10",
                "Protected",
                "it lies in 198.51.100.10/32, which is protected: the API server".to_owned()
            ),
        ]
    );
    assert_eq!((plan.routes[0].applied, plan.routes[0].total), (1, 4));
    assert_eq!(way(&plan, "10.1.0.1"), through_gateway(A));
    assert_eq!(way(&plan, "10.245.0.1"), Way::Default);
    assert_eq!(way(&plan, "10.244.3.1"), Way::Default);
}

#[test]
fn every_routed_destination_has_a_route_of_its_own_to_look_at() {
    let plan = planned(&[route("r", 1, &["0.0.0.0/0", "1.0.0.0/8", "1.2.3.4"], &[A])]);
    for destination in ["0.0.0.0/0", "1.0.0.0/8", "1.2.3.4/32"] {
        let key = RouteKey { table: 1157, destination: net(destination), metric: 0 };
        assert!(plan.state.routes.contains_key(&key), "{destination}");
    }
}

#[test]
fn candidates_are_probed_though_nothing_is_routed() {
    let mut view = node();
    view.candidates = [ip(A), ip("192.0.2.9")].into();
    let plan = plan(&[], &view, &Selection::new(), &Observed::default(), &Layout::default());
    assert_eq!(plan.probes.len(), 1);
    let rules: Vec<_> = plan.state.rules.iter().map(|rule| rule.priority).collect();
    assert_eq!(rules, [900]);
}

#[test]
fn spellings_and_repeats_of_one_destination_count_once() {
    let plan = planned(&[route("r", 1, &["1.2.3.4", "1.2.3.4/32", "1.2.3.4"], &[A])]);
    assert_eq!((plan.routes[0].applied, plan.routes[0].total), (1, 1));
}

#[test]
fn the_older_object_wins_and_the_other_takes_over_when_it_goes() {
    let old = route("zeta", 1, &["1.2.3.4", "5.6.7.8"], &[A]);
    let young = route("alpha", 2, &["1.2.3.4/32", "9.9.9.9"], &[B]);
    let same_age = route("beta", 1, &["5.6.7.8"], &[B]);
    let plan = planned(&[young.clone(), old.clone(), same_age]);
    assert_eq!(
        failures(&plan.routes[0]),
        [(
            "1.2.3.4/32",
            "Conflict",
            "StaticRoute zeta is older and has the same destination; this one takes over when that goes"
                .to_owned()
        )]
    );
    assert_eq!(failures(&plan.routes[1])[0].0, "5.6.7.8", "of the same age, the name decides");
    assert!(plan.routes[2].is_applied());
    assert_eq!(way(&plan, "1.2.3.4"), through_gateway(A));
    let alone = planned(&[young]);
    assert!(alone.routes[0].is_applied());
    assert_eq!(way(&alone, "1.2.3.4"), through_gateway(B));
}

#[test]
fn an_object_that_this_node_cannot_route_stands_in_nobodys_way() {
    let broken = route("old", 1, &["1.2.3.4"], &["192.0.2.1"]);
    let plan = planned(&[broken, route("young", 2, &["1.2.3.4"], &[B])]);
    assert_eq!(plan.routes[0].problem.as_ref().unwrap().reason(), "GatewayNotOnLink");
    assert!(plan.routes[1].is_applied());
}

#[test]
fn an_exclusion_takes_a_prefix_out_of_its_own_object_only() {
    let all = excluding("all", 1, &["0.0.0.0/0"], &["1.2.0.0/16", "8.8.8.8"], &[A]);
    let plan = planned(std::slice::from_ref(&all));
    assert_eq!(way(&plan, "1.2.3.4"), Way::Default);
    assert_eq!(way(&plan, "1.3.0.0"), through_gateway(A));

    let some = route("some", 2, &["1.0.0.0/8"], &[B]);
    let plan = planned(&[all.clone(), some]);
    assert_eq!(way(&plan, "1.2.3.4"), through_gateway(B));
    assert_eq!(way(&plan, "8.8.8.8"), Way::Default);

    // The junior of a conflict serves what its senior excludes.
    let junior = route("junior", 3, &["0.0.0.0/0"], &[B]);
    let plan = planned(&[all, junior]);
    assert_eq!(plan.routes[1].failures[0].cause.reason(), "Conflict");
    assert_eq!(way(&plan, "8.8.8.8"), through_gateway(B));
    assert_eq!(way(&plan, "8.8.8.9"), through_gateway(A));

    let void = excluding("void", 1, &["1.2.3.0/24"], &["1.2.0.0/16"], &[A]);
    let plan = planned(&[void]);
    assert_eq!(
        failures(&plan.routes[0]),
        [("1.2.3.0/24", "Excluded", "the object's own excludedDestinations has 1.2.0.0/16".to_owned())]
    );
}

#[test]
fn an_exclusion_that_cannot_be_read_keeps_the_whole_object_out() {
    let plan = planned(&[excluding("all", 1, &["0.0.0.0/0"], &["10.0.0.1/8"], &[A])]);
    assert_eq!(plan.state, KernelState::default());
    assert_eq!(
        plan.routes[0].problem.as_ref().unwrap().to_string(),
        "spec.excludedDestinations[0]: '10.0.0.1/8' has bits set behind its prefix length; write 10.0.0.0/8 or, for one \
         host, leave the length out"
    );
}

fn unsure(uncertainty: Uncertainty) -> NodeView {
    NodeView { uncertain: Some(uncertainty), ..node() }
}

fn planned_on(view: &NodeView, wanted: &[WantedRoute], observed: &Observed) -> NodePlan {
    plan(wanted, view, &Selection::new(), observed, &Layout::default())
}

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
fn a_bad_destination_leaves_the_others_alone() {
    let plan = planned(&[route("r", 1, &["999.1.1.1", "1.2.3.4"], &[A])]);
    assert_eq!((plan.routes[0].applied, plan.routes[0].total), (1, 2));
    assert_eq!(failures(&plan.routes[0])[0].1, "Invalid");
    assert_eq!(way(&plan, "1.2.3.4"), through_gateway(A));
}

#[test]
fn what_main_answers_is_shadowed_and_never_called_applied() {
    let mut view = node();
    view.main_routes.extend(["192.0.2.0/24", "4.0.0.0/7", "6.0.0.0/7"].map(net));
    let wanted = [route("r", 1, &["192.0.2.7", "192.0.2.0/24", "4.0.0.0/6", "192.0.0.0/16"], &[A])];
    let plan = plan(&wanted, &view, &Selection::new(), &Observed::default(), &Layout::default());
    assert_eq!(
        failures(&plan.routes[0]),
        [
            (
                "4.0.0.0/6",
                "Shadowed",
                "the node's main table has a route to 4.0.0.0/7, which wins".to_owned()
            ),
            (
                "192.0.2.0/24",
                "Shadowed",
                "the node's main table has a route to 192.0.2.0/24, which wins".to_owned()
            ),
            (
                "192.0.2.7",
                "Shadowed",
                "the node's main table has a route to 192.0.2.0/24, which wins".to_owned()
            ),
        ]
    );
    assert_eq!(plan.routes[0].applied, 1);
    let kernel = holding(&plan.state);
    assert_eq!(lookup(&kernel, &view.main_routes, packet(ip("192.0.2.7"))), Way::Main);
    // Ready to take over the moment the other route goes.
    assert_eq!(lookup(&kernel, &node().main_routes, packet(ip("192.0.2.7"))), through_gateway(A));
}

#[test]
fn a_destination_in_the_public_subnet_gets_a_rule_ahead_of_main() {
    let plan = planned(&[route("r", 1, &["203.0.113.77", "203.0.113.12"], &[A])]);
    assert_eq!(way(&plan, "203.0.113.77"), through_gateway(A));
    assert_eq!(way(&plan, "203.0.113.78"), Way::Main);
    assert_eq!(failures(&plan.routes[0])[0].1, "Protected", "another node");
    // The whole subnet: the provider's gateway and the nodes in it stay where they are.
    let plan = planned(&[route("r", 1, &["203.0.113.0/24"], &[A])]);
    assert!(plan.routes[0].is_applied());
    assert_eq!(way(&plan, "203.0.113.77"), through_gateway(A));
    assert_eq!(way(&plan, "203.0.113.1"), Way::Main);
    assert_eq!(way(&plan, "203.0.113.12"), Way::Main);
}

#[test]
fn the_rules_for_the_public_subnet_are_bounded_and_those_that_work_keep_theirs() {
    let many: Vec<String> = (0..300).map(|host| format!("198.18.{}.{}", host / 256, host % 256)).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let mut view = node();
    view.public_addresses = vec![net("198.18.8.1/16")];
    view.main_routes.insert(net("198.18.0.0/16"));
    let planned = |wanted: &[WantedRoute], observed: &Observed| {
        plan(wanted, &view, &Selection::new(), observed, &Layout::default())
    };
    let first = planned(&[route("r", 1, &many[1..], &[A])], &Observed::default());
    assert_eq!(first.routes[0].applied, claims::MOST_ON_LINK_RULES);
    assert_eq!(first.routes[0].failures.len(), 299 - claims::MOST_ON_LINK_RULES);

    // One more, also of an older object and with a lower address, takes the rule of none that works.
    let more = [route("r", 1, &many[1..], &[A]), route("older", 0, &many[..1], &[A])];
    let second = planned(&more, &holding(&first.state));
    assert_eq!(second.state.rules, first.state.rules);
    assert_eq!(failures(&second.routes[1])[0].1, "Shadowed");
    assert_eq!(second.routes[0], first.routes[0]);
}

#[test]
fn gateways_that_cannot_work_are_named_and_passed_over() {
    let list =
        ["192.0.2.1", "10.116.0.2", "10.116.0.3", "10.116.0.0", "10.116.15.255", "203.0.113.11", A, "gw"];
    let plan = planned(&[route("r", 1, &["1.2.3.4"], &list)]);
    let report = &plan.routes[0];
    assert_eq!(report.usable_gateways, [ip(A)]);
    let issues: Vec<String> = report.gateway_issues.iter().map(ToString::to_string).collect();
    assert_eq!(
        issues,
        [
            "gateway 192.0.2.1 is not in the VPC subnet 10.116.0.0/20 of this node",
            "gateway 10.116.0.2 is this node's own address",
            "gateway 10.116.0.3 is a node of the cluster",
            "gateway 10.116.0.0 is the network address of the VPC subnet",
            "gateway 10.116.15.255 is the broadcast address of the VPC subnet",
            "gateway 203.0.113.11 is this node's own address",
        ]
    );
    assert_eq!(way(&plan, "1.2.3.4"), through_gateway(A));

    let plan = planned(&[route("r", 1, &["1.2.3.4"], &["192.0.2.1", "10.116.0.2"])]);
    assert_eq!(plan.state, KernelState::default());
    assert_eq!(
        plan.routes[0].problem.as_ref().unwrap().to_string(),
        "gateway 192.0.2.1 is not in the VPC subnet 10.116.0.0/20 of this node, and 1 more can't be used either"
    );
    let plan = planned(&[route("r", 1, &["1.2.3.4"], &["::1"])]);
    assert!(plan.routes[0].problem.as_ref().unwrap().to_string().contains("IPv6"));
}

#[test]
fn a_node_outside_any_vpc_routes_nothing_and_says_so() {
    let view = NodeView { vpc: None, ..node() };
    let plan = plan(
        &[route("r", 1, &["1.2.3.4"], &[A])],
        &view,
        &Selection::new(),
        &Observed::default(),
        &Layout::default(),
    );
    assert_eq!(plan.state, KernelState::default());
    assert_eq!(plan.routes[0].problem, Some(RouteProblem::NoVpcInterface));
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

#[test]
fn a_foreign_route_in_our_table_is_reported_and_left_alone() {
    let mut observed = Observed::default();
    let key = RouteKey { table: 1157, destination: net("1.2.3.4/32"), metric: 0 };
    observed.foreign.insert(Foreign::Route { key, protocol: 4 });
    let wanted = [route("r", 1, &["1.2.3.4", "1.2.3.5"], &[A])];
    let plan = plan(&wanted, &node(), &Selection::new(), &observed, &Layout::default());
    assert_eq!(
        failures(&plan.routes[0]),
        [(
            "1.2.3.4",
            "ForeignRoute",
            "another program (protocol 4, static) has a route to it in table 1157, which is not touched"
                .to_owned()
        )]
    );
    assert!(!plan.state.routes.contains_key(&key));
    assert_eq!(plan.routes[0].applied, 1);
}

#[test]
fn without_protected_ranges_only_the_constant_ones_are_thrown() {
    let view = NodeView { protected: Protected::default(), ..node() };
    let wanted = [route("all", 1, &["0.0.0.0/0"], &[A])];
    let plan = plan(&wanted, &view, &Selection::new(), &Observed::default(), &Layout::default());
    let thrown: Vec<String> = plan
        .state
        .routes
        .values()
        .filter(|route| route.kind == RouteKind::Throw)
        .map(|route| route.destination.to_string())
        .collect();
    assert_eq!(thrown, ["10.116.0.100/32", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4"]);
}

#[test]
fn ten_thousand_destinations_take_a_route_and_a_guard_each_and_one_nexthop() {
    let many: Vec<String> = (0..10_000u32).map(|n| format!("100.{}.{}.0/24", n / 250, n % 250)).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let plan = planned(&[WantedRoute { health_checked: false, ..route("r", 1, &many, &[A]) }]);
    assert_eq!(plan.state.routes.len(), 20_000);
    assert_eq!(plan.state.nexthops.len(), 1);
    let kernel = holding(&plan.state);
    assert!(kernel.routes.values().map(Managed::get).all(|route| route.table == 1157));
}
