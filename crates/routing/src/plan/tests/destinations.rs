//! Which destinations an object gets, and what is said of those that it does not.

use super::*;

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
fn spellings_and_repeats_of_one_destination_count_once() {
    let plan = planned(&[route("r", 1, &["1.2.3.4", "1.2.3.4/32", "1.2.3.4"], &[A])]);
    assert_eq!((plan.routes[0].applied, plan.routes[0].total), (1, 1));
}

#[test]
fn a_bad_destination_leaves_the_others_alone() {
    let plan = planned(&[route("r", 1, &["999.1.1.1", "1.2.3.4"], &[A])]);
    assert_eq!((plan.routes[0].applied, plan.routes[0].total), (1, 2));
    assert_eq!(failures(&plan.routes[0])[0].1, "Invalid");
    assert_eq!(way(&plan, "1.2.3.4"), through_gateway(A));
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

/// Somebody's own route inside a listed range is his there as everywhere else.
#[test]
fn a_narrower_route_of_main_wins_over_a_wider_destination_in_the_public_subnet() {
    let mut view = node();
    view.main_routes.extend(["203.0.113.80/32", "203.0.113.96/28", "203.0.113.112/28"].map(net));
    let wanted = [
        route("half", 1, &["203.0.113.0/25"], &[A]),
        // Inside what main answers, and one that is answered in two halves.
        route("inside", 2, &["203.0.113.80", "203.0.113.100", "203.0.113.96/27"], &[B]),
    ];
    let plan = plan(&wanted, &view, &Selection::new(), &Observed::default(), &Layout::default());
    let kernel = holding(&plan.state);
    let way = |to: &str| lookup(&kernel, &view.main_routes, packet(ip(to)));
    for theirs in ["203.0.113.80", "203.0.113.100", "203.0.113.115", "203.0.113.200", "203.0.113.1"] {
        assert_eq!(way(theirs), Way::Main, "{theirs}");
    }
    assert_eq!([way("203.0.113.79"), way("203.0.113.81")], [through_gateway(A); 2]);
    assert!(plan.routes[0].is_applied());
    assert_eq!(plan.routes[1].applied, 0);
    let shadows: Vec<String> = failures(&plan.routes[1]).into_iter().map(|failure| failure.2).collect();
    assert_eq!(
        shadows,
        ["203.0.113.80/32", "203.0.113.96/28", "203.0.113.96/28"]
            .map(|theirs| format!("the node's main table has a route to {theirs}, which wins"))
    );
    // Where theirs goes ours takes over at that moment.
    assert_eq!(lookup(&kernel, &node().main_routes, packet(ip("203.0.113.100"))), through_gateway(B));
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
