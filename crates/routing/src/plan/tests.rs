//! What one plan holds. Which destinations an object gets, and what stays from one plan to the next, have files of their own.

use super::*;
use crate::diff::changes;
use crate::fib_model::{Packet, Way, apply, holding, lookup, packet};
use crate::fixture::{excluding, ip, ips, net, node, route};
use crate::kernel_state::{Foreign, Managed, RouteKey};
use crate::node::Uncertainty;
use crate::protected::Protected;
use crate::wanted::ReferenceFault;

mod destinations;
mod draining;
mod no_gateway;
mod over_time;
mod properties;

const A: &str = "10.116.0.100";
const B: &str = "10.116.0.101";

fn planned(wanted: &[WantedRoute]) -> NodePlan {
    plan(wanted, &node(), &Selection::new(), &Observed::default(), &Layout::default())
}

fn planned_on(view: &NodeView, wanted: &[WantedRoute], observed: &Observed) -> NodePlan {
    plan(wanted, view, &Selection::new(), observed, &Layout::default())
}

fn unsure(uncertainty: Uncertainty) -> NodeView {
    NodeView { uncertain: Some(uncertainty), ..node() }
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
