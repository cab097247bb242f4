use egress_api::GatewayObservation;

use super::*;

#[test]
fn what_was_not_asked_of_a_gateway_is_not_shown_and_a_no_is_0() {
    let mut metrics = AgentMetrics::register(&mut Metrics::new(PREFIX, "test"));
    let label = GatewayLabels { gateway: "10.116.0.5".to_owned() };
    for (said, shown) in [(None, None), (Some(false), Some(0)), (Some(true), Some(1)), (None, None)] {
        let gateway = GatewayObservation {
            address: label.gateway.clone(),
            reachable: true,
            expected_source: said,
            ..GatewayObservation::default()
        };
        metrics.export(
            &NodeEgressStatus { gateways: vec![gateway], ..NodeEgressStatus::default() },
            &[],
            &[],
        );
        assert_eq!(metrics.gateway_expected_source.get(&label).map(|gauge| gauge.get()), shown);
        assert_eq!(metrics.gateway_reachable.get(&label).map(|gauge| gauge.get()), Some(1));
    }
}

#[test]
fn a_condition_is_1_while_it_lasts_and_0_when_it_is_over() {
    let mut metrics = AgentMetrics::register(&mut Metrics::new(PREFIX, "test"));
    let label = ConditionLabels { condition: "Contested" };
    let contested =
        Concern { type_: "Contested", reason: "ChangedAgainAndAgain", message: "by process 7".to_owned() };
    let status = NodeEgressStatus::default();
    for (concerns, shown) in [(vec![], None), (vec![contested], Some(1)), (vec![], Some(0))] {
        metrics.export(&status, &[], &concerns);
        assert_eq!(metrics.conditions.get(&label).map(|gauge| gauge.get()), shown);
    }
}

#[test]
fn static_routes_without_a_gateway_that_works_are_counted() {
    let mut metrics = AgentMetrics::register(&mut Metrics::new(PREFIX, "test"));
    let route = |name: &str, no_gateway: bool| {
        serde_json::from_value(serde_json::json!({
            "name": name, "uid": name, "observedGeneration": 1, "state": "Applied", "applied": 1, "total": 1, "noGateway": no_gateway,
        }))
        .unwrap()
    };
    for (routes, shown) in
        [(vec![route("a", true), route("b", false), route("c", true)], 2), (vec![route("a", false)], 0)]
    {
        metrics.export(&NodeEgressStatus { routes, ..NodeEgressStatus::default() }, &[], &[]);
        assert_eq!(metrics.static_routes_without_gateway.get(), shown);
    }
}

#[test]
fn a_gateway_that_stays_is_shown_all_the_time_and_one_that_went_no_longer() {
    let mut metrics = AgentMetrics::register(&mut Metrics::new(PREFIX, "test"));
    let label = |address: &str| GatewayLabels { gateway: address.to_owned() };
    let status = |gateways: &[(&str, bool)]| NodeEgressStatus {
        gateways: gateways
            .iter()
            .map(|(address, reachable)| GatewayObservation {
                address: (*address).to_owned(),
                reachable: *reachable,
                forwards: None,
                since: None,
                ..GatewayObservation::default()
            })
            .collect(),
        ..NodeEgressStatus::default()
    };

    metrics.export(&status(&[("10.116.0.5", true), ("10.116.0.12", true)]), &[], &[]);
    let series = metrics.gateway_reachable.get_or_create_owned(&label("10.116.0.5"));
    metrics.export(&status(&[("10.116.0.5", false), ("10.116.0.13", true)]), &[], &[]);
    // A series that had gone in between would be another one now.
    assert_eq!(series.get(), 0);
    assert!(metrics.gateway_reachable.get(&label("10.116.0.13")).is_some());
    for family in metrics.of_gateways() {
        assert!(family.get(&label("10.116.0.12")).is_none());
    }
}
