use egress_routing::kernel_state::{Nexthop, NexthopTarget, Rule};
use egress_routing::prefix::{Fault, InvalidValue};
use egress_routing::report::{Failure, FailureCause, GatewayFault, GatewayIssue, RouteProblem};

use super::*;
use crate::fixture::report;

fn only(report: RouteReport, refused: &Refused) -> NodeRoute {
    status(&[report], &Objects::default(), refused, Vec::new()).routes.remove(0)
}

#[test]
fn a_plan_counts_as_applied_only_when_the_kernel_took_it() {
    assert_eq!(only(report(2, 2), &Refused::default()).state, NodeRouteState::Applied);

    let mut refused = Refused::default();
    let kind = RouteKind::Nexthop(NexthopId(241_000_007));
    let route = Route { table: 1157, destination: "192.0.2.0/24".parse().unwrap(), metric: 0, kind };
    refused.note(&Change::PutRoute { route, replaces: None }, &KernelState::default(), &"no memory");
    let partial = only(report(2, 2), &refused);
    assert_eq!((partial.state, partial.applied), (NodeRouteState::Partial, 1));
    assert_eq!(partial.failures[0].message, "no memory");

    let mut refused = Refused::default();
    let nexthop = Nexthop { id: NexthopId(241_000_007), via: NexthopTarget::Blackhole };
    refused.note(
        &Change::PutNexthop { nexthop, replaces: None },
        &KernelState::default(),
        &"not on the link",
    );
    let none = only(report(2, 2), &refused);
    assert_eq!((none.state, none.applied), (NodeRouteState::NotApplied, 0));
    assert!(none.message.unwrap().contains("not on the link"));
}

#[test]
fn what_the_kernel_refused_is_told_of_the_static_routes_that_it_concerns_and_of_no_other() {
    let ids = [NexthopId(241_000_007), NexthopId(241_000_008)];
    let put = |destination: &str, metric, kind| Change::PutRoute {
        route: Route { table: 1157, destination: destination.parse().unwrap(), metric, kind },
        replaces: None,
    };
    let mut planned = KernelState::default();
    for (id, destination) in [(ids[0], "0.0.0.0/0"), (ids[0], "198.51.100.0/24"), (ids[1], "192.0.2.1/32")] {
        let destination = destination.parse().unwrap();
        let kind = RouteKind::Nexthop(id);
        planned.insert_route(Route { table: 1157, destination, metric: 0, kind });
    }
    let guard = put("192.0.2.1/32", 4_000_000, RouteKind::Blackhole);
    let throw = put("203.0.113.9/32", 0, RouteKind::Throw);
    let range = put("0.0.0.0/0", 0, RouteKind::Nexthop(ids[0]));
    let states = |refused: &Refused| {
        let reports = ids.map(|id| RouteReport {
            name: id.to_string(),
            uid: id.to_string(),
            nexthop: Some(id),
            ..report(2, 2)
        });
        let said = status(&reports, &Objects::default(), refused, Vec::new()).routes;
        <[NodeRoute; 2]>::try_from(said).unwrap()
    };

    let mut refused = Refused::default();
    refused.note(&guard, &planned, &"no memory");
    let [other, guarded] = states(&refused);
    assert_eq!((other.state, guarded.state), (NodeRouteState::Applied, NodeRouteState::Partial));
    assert_eq!(guarded.failures[0].destination, "192.0.2.1/32");
    assert_eq!(guarded.failures[0].message, "its guard: no memory");

    let mut refused = Refused::default();
    refused.note(&throw, &planned, &"no memory");
    refused.note(&range, &planned, &"withheld");
    let [around, other] = states(&refused);
    assert_eq!(
        (around.state, around.applied, other.state),
        (NodeRouteState::Partial, 1, NodeRouteState::Applied)
    );
    assert_eq!(around.failures[0].destination, "0.0.0.0/0");
    assert_eq!(around.failures[0].message, "203.0.113.9/32 must stay out of it: no memory", "the cause");

    let mut refused = Refused::default();
    refused.note(&Change::PutRule(Rule::lookup(990, 254)), &planned, &"no memory");
    refused.note(&Change::PutRule(Rule::lookup(1001, 1157)), &planned, &"withheld");
    for one in states(&refused) {
        assert_eq!(one.state, NodeRouteState::NotApplied);
        assert!(one.message.unwrap().ends_with("rule 990: no memory"), "the cause");
    }
}

#[test]
fn a_switch_that_the_kernel_took_settles_its_own_nexthop_and_nothing_else() {
    let put = |id| Change::PutNexthop {
        nexthop: Nexthop { id: NexthopId(id), via: NexthopTarget::Blackhole },
        replaces: None,
    };
    let mut refused = Refused::default();
    refused.note(&put(241_000_007), &KernelState::default(), &"not on the link");
    refused.note(&put(241_000_008), &KernelState::default(), &"not on the link");
    refused.settle(&put(241_000_008));
    assert_eq!(only(report(2, 2), &refused).state, NodeRouteState::NotApplied, "another one's success");
    refused.settle(&put(241_000_007));
    assert!(refused.is_empty());
}

#[test]
fn a_report_names_a_few_failures_however_many_there_are() {
    let mut many = report(0, 10_000);
    many.failures = (0..10_000)
        .map(|n| Failure {
            destination: format!("10.0.{}.{}", n / 256, n % 256),
            cause: FailureCause::Conflict { winner: "older".to_owned() },
        })
        .collect();
    let reported = only(many, &Refused::default());
    assert_eq!(reported.failures.len(), super::size::MOST_OF_ONE);
    assert_eq!(reported.failures[0].reason, "Conflict");
}

#[test]
fn an_object_that_cannot_be_read_says_why_and_what_stays() {
    let mut objects = Objects::default();
    let unreadable = Unreadable {
        name: "demo".to_owned(),
        generation: 7,
        why: "spec.gateway: invalid type: integer `5`, expected a string".to_owned(),
        is_known: true,
    };
    objects.unreadable.insert("u".to_owned(), unreadable);
    let said = status(&[report(2, 2)], &objects, &Refused::default(), Vec::new());
    assert_eq!(said.summary.as_deref(), Some("0/1"));
    let [one] = said.routes.as_slice() else { panic!("{said:?}") };
    assert_eq!((one.state, one.observed_generation), (NodeRouteState::NotApplied, 7));
    assert_eq!(one.reason.as_deref(), Some("Unreadable"));
    assert_eq!(
        one.message.as_deref(),
        Some("what this node has of it stays; spec.gateway: invalid type: integer `5`, expected a string")
    );
}

#[test]
fn a_gateway_that_cannot_be_used_is_named_also_where_another_one_can() {
    let mut some = report(2, 2);
    let subnet = "10.116.0.0/20".parse().unwrap();
    let fault = GatewayFault::NotOnLink { subnet };
    some.gateway_issues = vec![GatewayIssue { gateway: Ipv4Addr::new(10, 99, 0, 5), fault }];
    let said = only(some, &Refused::default());
    assert_eq!(said.state, NodeRouteState::Applied);
    assert_eq!(said.unusable_gateways[0].reason, "GatewayNotOnLink");
    let words = "gateway 10.99.0.5 is not in the VPC subnet 10.116.0.0/20 of this node";
    assert_eq!(said.unusable_gateways[0].message, words);
}

/// With everything at its worst at once: etcd takes objects of 1.5 MiB, and metadata wants its share.
#[test]
fn a_report_has_less_than_a_mebibyte_whatever_is_wrong() {
    let ugly = "\u{1}\u{2}\"\\\u{1f980}".repeat(200);
    let invalid = |at: usize| InvalidValue {
        field: format!("spec.destinations[{at}]"),
        value: ugly.clone(),
        fault: Fault::NotAPrefix,
    };
    let route = |at: usize| {
        let mut worst = report(0, 10_000);
        worst.name = format!("{at:0>253}");
        worst.uid = format!("{at:0>36}");
        worst.failures = (0..10)
            .map(|at| Failure { destination: ugly.clone(), cause: FailureCause::Invalid(invalid(at)) })
            .collect();
        worst.problem = Some(RouteProblem::InvalidExclusion(invalid(at)));
        worst
    };
    let gateway = |at: u32| GatewayObservation {
        address: Ipv4Addr::from(at).to_string(),
        reachable: false,
        forwards: Some(false),
        message: Some(ugly.clone()),
        ..GatewayObservation::default()
    };
    let routes: Vec<RouteReport> = (0..1100).map(route).collect();
    let said = status(&routes, &Objects::default(), &Refused::default(), (0..32).map(gateway).collect());
    assert_eq!(said.routes.len(), 1000);
    assert_eq!(said.summary.as_deref(), Some("0/1100"));
    let size = serde_json::to_vec(&said).unwrap().len();
    assert!(size < 1 << 20, "{size} bytes");
    eprintln!("at its worst: {size} bytes");

    let fine: Vec<RouteReport> = (0..1000)
        .map(|at| RouteReport { name: format!("route-{at}"), uid: format!("{at:0>36}"), ..report(2, 2) })
        .collect();
    let said = status(&fine, &Objects::default(), &Refused::default(), Vec::new());
    let size = serde_json::to_vec(&said).unwrap().len();
    assert!(size < 300 << 10, "{size} bytes");
    eprintln!("1,000 StaticRoutes and nothing wrong: {size} bytes");
}
