//! Objects of any JSON whatever: they are read, planned and told of, and the good one beside them is routed as if it were alone.

use std::collections::BTreeMap;

use egress_api::{EgressGateway, StaticRoute};
use egress_routing::kernel_state::{NexthopTarget, Observed, RouteKind};
use egress_routing::{Layout, NodeView, Selection, VpcInterface, plan};
use egress_runtime::guarded::Guarded;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{Labels, Objects, read};
use crate::report::{self, Refused};

/// What stands in specs, near enough to right to get past the first check.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("0.0.0.0/0".to_owned()),
        Just("10.116.0.5".to_owned()),
        Just("10.116.0.12".to_owned()),
        Just("ActiveActive".to_owned()),
        Just("In".to_owned()),
        Just("Exists".to_owned()),
        "[0-9]{1,3}(\\.[0-9]{1,3}){3}(/[0-9]{1,3})?",
        "(25[0-5]|10)\\.[01]\\.0\\.0/([0-9]|1[0-6])",
        "[a-z0-9./:-]{0,20}",
        ".{0,60}",
    ]
}

fn name_of_field() -> impl Strategy<Value = String> {
    let known = [
        "destinations",
        "excludedDestinations",
        "gateway",
        "gateways",
        "gatewayRef",
        "mode",
        "nodeSelector",
        "address",
        "egressAddress",
        "weight",
        "name",
        "matchLabels",
        "matchExpressions",
        "key",
        "operator",
        "values",
        "publicIP",
        "healthCheck",
        "targets",
        "droplet",
    ];
    prop_oneof![9 => prop::sample::select(known.to_vec()).prop_map(str::to_owned), 1 => "[a-zA-Z]{0,8}"]
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        1 => Just(Value::Null),
        1 => any::<bool>().prop_map(Value::from),
        1 => any::<i64>().prop_map(Value::from),
        1 => (0..300_i64).prop_map(Value::from),
        1 => any::<f64>().prop_map(Value::from),
        4 => text().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((name_of_field(), inner), 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// A spec that was right before some of its fields became anything.
fn spec() -> impl Strategy<Value = Value> {
    let gateways = json!([{"address": "10.116.0.5", "weight": 3}, {"address": "10.116.0.12"}]);
    let good = prop_oneof![
        Just(json!({"destinations": ["198.18.0.0/24", "198.18.7.7"], "gateway": "10.116.0.5"})),
        Just(
            json!({"destinations": ["0.0.0.0/0"], "excludedDestinations": ["198.18.0.0/15"], "gateways": gateways})
        ),
        Just(
            json!({"destinations": ["198.18.0.0/24"], "gatewayRef": {"name": "demo"}, "mode": "ActiveActive"})
        ),
        Just(json!({"destinations": ["198.18.0.0/24"], "gateways": gateways, "mode": "ActiveActive",
            "nodeSelector": {"matchLabels": {"pool": "web"}}, "publicIP": "Ephemeral"})),
    ];
    let broken = prop::collection::vec((name_of_field(), any_json()), 0..3);
    let mended = (good, broken).prop_map(|(mut spec, fields)| {
        for (name, value) in fields {
            spec[name] = value;
        }
        spec
    });
    prop_oneof![3 => mended, 1 => any_json()]
}

fn object(kind: &str, number: usize, spec: &Value) -> Value {
    json!({"apiVersion": "networking.digitalocean.com/v1", "kind": kind, "metadata": {"name": format!("any-{number}"),
        "uid": format!("uid-{number}"), "generation": 1, "creationTimestamp": "2026-11-21T00:00:00Z"}, "spec": spec})
}

fn witness() -> Guarded<StaticRoute> {
    let object = json!({"apiVersion": "networking.digitalocean.com/v1", "kind": "StaticRoute",
        "metadata": {"name": "witness", "uid": "witness", "generation": 1, "creationTimestamp": "2020-01-01T00:00:00Z"},
        "spec": {"destinations": ["192.0.2.80"], "gateway": "10.116.0.5"}});
    serde_json::from_value(object).unwrap()
}

fn node() -> NodeView {
    let vpc = VpcInterface {
        index: 3,
        up: true,
        address: [10, 116, 0, 2].into(),
        subnet: "10.116.0.0/20".parse().unwrap(),
    };
    NodeView { vpc: Some(vpc), ..NodeView::default() }
}

/// Plans and reports, and checks what became of the good one.
fn check(objects: &Objects) -> Result<(), TestCaseError> {
    let layout = Layout::default();
    let planned = plan(&objects.routes, &node(), &Selection::new(), &Observed::default(), &layout);
    let route = planned.state.routes.iter().find(|(key, route)| {
        key.table == layout.table && route.destination.to_string() == "192.0.2.80/32" && key.metric == 0
    });
    let Some((_, route)) = route else { return Err(TestCaseError::fail("the good one is not routed")) };
    let RouteKind::Nexthop(id) = route.kind else { return Err(TestCaseError::fail("it leads nowhere")) };
    let via = &planned.state.nexthops[&id].via;
    let is_its =
        matches!(via, NexthopTarget::Gateway(gateway) if gateway.address.octets() == [10, 116, 0, 5]);
    prop_assert!(is_its, "it goes {via:?}");
    let status = report::status(&planned.routes, objects, &Refused::default(), Vec::new());
    prop_assert!(serde_json::to_vec(&status).unwrap().len() < 1 << 20);
    let told = status.routes.iter().filter(|route| route.name != "witness");
    for route in told {
        let is_whole = route.applied == route.total && route.total > 0;
        let says_why = route.message.is_some() || !route.failures.is_empty();
        prop_assert!(is_whole || says_why, "not applied, and it does not say why: {route:?}");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(512), ..ProptestConfig::default() })]

    #[test]
    fn any_json_in_a_spec_is_named_and_leaves_the_others_alone(
        routes in prop::collection::vec(spec(), 1..6),
        gateways in prop::collection::vec(spec(), 0..3),
        good_before in any::<bool>(),
    ) {
        let read_route = |(number, spec): (usize, &Value)| -> Guarded<StaticRoute> {
            serde_json::from_value(object("StaticRoute", number, spec)).unwrap()
        };
        let good = json!({"destinations": ["198.18.0.0/24"], "gateway": "10.116.0.12"});
        let labels = Labels::from([("pool".to_owned(), "web".to_owned())]);
        let before = if good_before {
            let all: Vec<_> = (0..routes.len()).map(|number| read_route((number, &good))).chain([witness()]).collect();
            read(&all, [], Some(&labels), &Objects::default())
        } else {
            Objects::default()
        };
        let all: Vec<_> = routes.iter().enumerate().map(read_route).chain([witness()]).collect();
        let gateways: Vec<Guarded<EgressGateway>> = gateways
            .iter()
            .enumerate()
            .map(|(number, spec)| serde_json::from_value(object("EgressGateway", number, spec)).unwrap())
            .collect();
        let objects = read(&all, &gateways, Some(&labels), &before);
        for uid in objects.unreadable.keys().filter(|_| good_before) {
            prop_assert!(objects.routes.iter().any(|route| route.uid == *uid), "{uid} lost what it had");
        }
        let unread = gateways.iter().filter(|gateway| gateway.0.is_err()).count();
        prop_assert_eq!(objects.unreadable_gateways.len(), unread);
        let names: BTreeMap<_, _> = objects.routes.iter().map(|route| (&route.uid, &route.name)).collect();
        prop_assert_eq!(names.len(), objects.routes.len(), "nobody is planned twice");
        check(&objects)?;
    }
}
