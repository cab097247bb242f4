use egress_api::{EgressGatewayStatus, GatewayRole, GatewayStatus};
use serde_json::json;

use super::*;

fn static_route(object: serde_json::Value) -> Guarded<StaticRoute> {
    serde_json::from_value(object).unwrap()
}

fn old_shape(name: &str) -> serde_json::Value {
    json!({
        "apiVersion": "networking.digitalocean.com/v1", "kind": "StaticRoute",
        "metadata": {"name": name, "uid": format!("uid-{name}"), "generation": 3},
        "spec": {"destinations": ["34.160.111.145"], "gateway": "10.116.0.5"},
    })
}

#[test]
fn a_bare_gateway_is_taken_on_trust_and_a_list_is_probed() {
    let mut listed = old_shape("listed");
    listed["spec"] = json!({"destinations": ["192.0.2.0/24"],
        "gateways": [{"address": "10.116.0.7", "egressAddress": "203.0.113.7"}]});
    let stores = [static_route(old_shape("old")), static_route(listed)];
    let objects = read(&stores, [], None, &Objects::default());
    assert_eq!(objects.routes.len(), 2);
    assert_eq!(objects.probed.keys().collect::<Vec<_>>(), [&Ipv4Addr::new(10, 116, 0, 7)]);
    assert!(objects.gateway_addresses.contains(&Ipv4Addr::new(203, 0, 113, 7)));
    assert_eq!(objects.generations["uid-old"], 3);
}

#[test]
fn only_active_active_shares_and_a_weight_left_out_is_one() {
    let gateways = json!([{"address": "10.116.0.7", "weight": 3}, {"address": "10.116.0.8"}]);
    let mut active = old_shape("active");
    active["spec"] = json!({"destinations": ["192.0.2.0/24"], "gateways": gateways, "mode": "ActiveActive"});
    let mut standby = old_shape("standby");
    standby["spec"] = json!({"destinations": ["192.0.2.0/24"], "gateways": gateways});
    let objects = read(&[static_route(active), static_route(standby)], [], None, &Objects::default());
    let (a, b) = (Ipv4Addr::new(10, 116, 0, 7), Ipv4Addr::new(10, 116, 0, 8));
    assert_eq!(objects.routes[0].weights, Some([(a, 3), (b, 1)].into()));
    assert_eq!(objects.routes[1].weights, None);
}

#[test]
fn an_unreadable_object_keeps_its_last_good_version() {
    let good = read(&[static_route(old_shape("old"))], [], None, &Objects::default());
    let mut broken = old_shape("old");
    broken["spec"]["destinations"] = json!("not a list");
    broken["metadata"]["generation"] = json!(4);
    let after = read(&[static_route(broken.clone())], [], None, &good);
    assert_eq!(after.routes, good.routes);
    assert_eq!(after.generations["uid-old"], 3, "the one whose routes are there");
    let unreadable = &after.unreadable["uid-old"];
    assert_eq!((unreadable.generation, unreadable.is_known), (4, true));
    assert_eq!(unreadable.why, "spec.destinations: invalid type: string \"not a list\", expected a sequence");
    assert!(!after.may_hold_unknown_routes());

    // An agent that starts with it knows no good version: whose routes are in the kernel can't be told.
    let fresh = read(&[static_route(broken.clone())], [], None, &Objects::default());
    assert!(fresh.routes.is_empty() && fresh.may_hold_unknown_routes());

    broken["metadata"]["deletionTimestamp"] = json!("2026-11-21T00:00:00Z");
    let deleted = read(&[static_route(broken)], [], None, &good);
    assert!(deleted.routes.is_empty() && deleted.unreadable.is_empty());
}

#[test]
fn only_objects_that_select_this_node_are_wanted() {
    let selecting = |name: &str, selector: serde_json::Value| {
        let mut object = old_shape(name);
        object["spec"]["nodeSelector"] = selector;
        static_route(object)
    };
    let stores = [
        selecting("all", json!({})),
        selecting("ours", json!({"matchLabels": {"pool": "web"}})),
        selecting(
            "theirs",
            json!({"matchExpressions": [{"key": "pool", "operator": "NotIn", "values": ["web"]}]}),
        ),
        selecting("void", json!({"matchExpressions": [{"key": "pool", "operator": "In"}]})),
    ];
    let names = |labels: Option<&Labels>| {
        let objects = read(&stores, [], labels, &Objects::default());
        let names = objects.routes.iter().map(|route| route.name.clone()).collect::<Vec<_>>();
        (names.join(" "), objects.unreadable.into_values().map(|one| one.why).collect::<Vec<_>>().join(" "))
    };
    let void = "spec.nodeSelector.matchExpressions[0]: In on 'pool' needs values";
    let web = Labels::from([("pool".to_owned(), "web".to_owned())]);
    assert_eq!(names(Some(&web)), ("all ours".to_owned(), void.to_owned()));
    assert_eq!(names(Some(&Labels::new())), ("all theirs".to_owned(), void.to_owned()));
    // Without a Node there is no address either, so nothing of this reaches the kernel.
    assert_eq!(names(None), ("all ours theirs void".to_owned(), String::new()));
}

#[test]
fn a_deleted_object_is_not_wanted_whoever_holds_it() {
    let mut held = old_shape("old");
    held["metadata"]["deletionTimestamp"] = json!("2026-11-21T00:00:00Z");
    assert!(read(&[static_route(held)], [], None, &Objects::default()).routes.is_empty());
}

fn following(name: &str) -> serde_json::Value {
    json!({
        "apiVersion": "networking.digitalocean.com/v1", "kind": "StaticRoute",
        "metadata": {"name": "follower", "uid": "uid-follower", "generation": 1},
        "spec": {"destinations": ["192.0.2.0/24"], "gatewayRef": {"name": name}},
    })
}

fn egress_gateway(name: &str, deleted: bool) -> Guarded<EgressGateway> {
    let mut object = json!({
        "apiVersion": "networking.digitalocean.com/v1alpha1", "kind": "EgressGateway",
        "metadata": {"name": name, "uid": format!("uid-{name}")},
        "spec": {"destinations": ["192.0.2.80"], "publicIP": "Ephemeral"},
    });
    if deleted {
        object["metadata"]["deletionTimestamp"] = json!("2026-11-21T00:00:00Z");
    }
    serde_json::from_value(object).unwrap()
}

fn list_of(name: &str, addresses: &[&str]) -> Guarded<StaticRoute> {
    let gateways: Vec<_> = addresses.iter().map(|address| json!({"address": address})).collect();
    let mut object = old_shape(name);
    object["metadata"]["ownerReferences"] = json!([{"apiVersion": "networking.digitalocean.com/v1alpha1",
        "kind": "EgressGateway", "name": name, "uid": format!("uid-{name}"), "controller": true}]);
    object["spec"] = json!({"destinations": ["192.0.2.80"], "gateways": gateways});
    static_route(object)
}

fn follower(objects: &Objects) -> &WantedRoute {
    objects.routes.iter().find(|route| route.name == "follower").unwrap()
}

#[test]
fn a_reference_follows_the_list_of_its_egress_gateway_as_it_changes() {
    let demo = [egress_gateway("demo", false)];
    let stores = |list: &[&str]| [static_route(following("demo")), list_of("demo", list)];
    let first = read(&stores(&["10.116.0.7", "10.116.0.5"]), &demo, None, &Objects::default());
    let list = ["10.116.0.7", "10.116.0.5"].map(|text| text.parse::<Ipv4Addr>().unwrap());
    assert_eq!(follower(&first).gateways, list);
    assert!(follower(&first).health_checked && follower(&first).reference_fault.is_none());
    let second = read(&stores(&["10.116.0.5"]), &demo, None, &first);
    assert_eq!(follower(&second).gateways, list[1..]);
    // Somebody else's StaticRoute of that name is no list of it.
    let foreign = [static_route(following("demo")), static_route(old_shape("demo"))];
    let third = read(&foreign, &demo, None, &second);
    assert_eq!(follower(&third).gateways, list[1..], "the last list stays");
    assert_eq!(follower(&third).reference_fault.as_ref().unwrap().reason(), "EgressGatewayNotReady");
}

#[test]
fn a_reference_to_nothing_keeps_what_there_was_unless_it_was_seen_to_be_deleted() {
    let stores = [static_route(following("demo")), list_of("demo", &["10.116.0.7"])];
    let before = read(&stores, &[egress_gateway("demo", false)], None, &Objects::default());
    // A slip of the pen.
    let slip = read(&[static_route(following("dmeo"))], &[egress_gateway("demo", false)], None, &before);
    assert_eq!(follower(&slip).gateways, follower(&before).gateways);
    assert_eq!(
        follower(&slip).reference_fault.as_ref().unwrap().to_string(),
        "EgressGateway dmeo does not exist; make it, or correct spec.gatewayRef.name"
    );
    // Gone from the store without a word, as when its definition was deleted: no confirmed delete.
    let gone = read(&stores[..1], [], None, &before);
    assert_eq!(follower(&gone).reference_fault.as_ref().unwrap().reason(), "EgressGatewayMissing");
    // Being deleted, and gone afterwards.
    let leaving = read(&stores[..1], &[egress_gateway("demo", true)], None, &before);
    assert_eq!(follower(&leaving).reference_fault.as_ref().unwrap().reason(), "EgressGatewayDeleted");
    let left = read(&stores[..1], [], None, &leaving);
    assert_eq!(follower(&left).reference_fault.as_ref().unwrap().reason(), "EgressGatewayDeleted");
    assert!(follower(&left).gateways.is_empty());
    // Made again.
    let again = read(&stores, &[egress_gateway("demo", false)], None, &left);
    assert_eq!(follower(&again).reference_fault, None);
}

#[test]
fn gateways_that_wait_to_be_proven_are_probed_through_to_the_targets() {
    let mut gateway: EgressGateway = serde_json::from_value(json!({
        "apiVersion": "networking.digitalocean.com/v1alpha1", "kind": "EgressGateway",
        "metadata": {"name": "demo"},
        "spec": {"destinations": ["192.0.2.80"], "publicIP": "Ephemeral"},
    }))
    .unwrap();
    gateway.status = Some(EgressGatewayStatus {
        gateways: vec![GatewayStatus {
            private_address: Some("10.116.0.100".to_owned()),
            public_address: Some("203.0.113.100".to_owned()),
            ..GatewayStatus::new("demo-0".to_owned(), 0, 1, GatewayRole::Starting)
        }],
        ..EgressGatewayStatus::default()
    });
    let objects = read([], &[Guarded(Ok(gateway))], None, &Objects::default());
    let probed = &objects.probed[&Ipv4Addr::new(10, 116, 0, 100)];
    assert_eq!((probed.targets.len(), probed.is_ours), (3, true));
    assert!(objects.routes.is_empty());
}
