use NodeRouteState::{Applied, Partial};
use serde_json::json;

use super::*;

fn route() -> StaticRoute {
    serde_json::from_value(json!({
        "apiVersion": "networking.digitalocean.com/v1", "kind": "StaticRoute",
        "metadata": {"name": "sr", "uid": "u", "generation": 3},
        "spec": {"destinations": ["192.0.2.1"], "gateway": "10.0.0.1"},
    }))
    .unwrap()
}

struct Node {
    name: String,
    is_ready: Option<bool>,
    labels: BTreeMap<String, String>,
    report: Option<NodeEgressStatus>,
}

fn node(name: &str, uid: &str, generation: i64, state: NodeRouteState) -> Node {
    let entry = NodeRoute {
        name: "sr".into(),
        uid: uid.into(),
        observed_generation: generation,
        state,
        applied: 1,
        total: 1,
        gateway: None,
        gateways: Vec::new(),
        reason: None,
        message: Some("words".into()).filter(|_| state != Applied),
        guarded: true,
        no_gateway: false,
        draining: None,
        unusable_gateways: Vec::new(),
        failures: Vec::new(),
    };
    let report = Some(NodeEgressStatus { routes: vec![entry], ..NodeEgressStatus::default() });
    let labels = BTreeMap::from([("pool".to_owned(), name.to_owned())]);
    Node { name: name.into(), is_ready: Some(true), labels, report }
}

fn sum(route: &StaticRoute, nodes: &[Node]) -> StaticRouteStatus {
    let seen: Vec<NodeReport<'_>> = nodes
        .iter()
        .map(|node| NodeReport {
            name: &node.name,
            is_ready: node.is_ready,
            labels: Some(&node.labels),
            report: node.report.as_ref(),
        })
        .collect();
    status(route, &tallies(&[route], &seen)[0], Timestamp::from_second(100).unwrap())
}

fn short(route: &StaticRoute, nodes: &[Node]) -> (String, String) {
    let status = sum(route, nodes);
    (status.nodes.unwrap(), status.conditions[0].reason.clone())
}

#[test]
fn only_live_selected_nodes_with_this_object_in_this_version_count() {
    let is = |nodes: &str, reason: &str| (nodes.to_owned(), reason.to_owned());
    let sr = route();
    assert_eq!(short(&sr, &[]), is("0/0", NO_NODES));
    assert_eq!(sum(&sr, &[]).conditions[0].message, "The cluster has no Ready node");
    assert_eq!(short(&sr, &[node("a", "u", 3, Applied)]), is("1/1", APPLIED));
    assert_eq!(short(&sr, &[node("a", "u", 2, Applied)]), is("0/1", PENDING));
    assert_eq!(short(&sr, &[node("a", "old", 3, Applied)]), is("0/1", PENDING));
    assert_eq!(short(&sr, &[node("a", "u", 3, Applied), node("b", "u", 3, Partial)]), is("1/2", FAILED));
    let silent = Node { report: None, ..node("b", "u", 3, Applied) };
    assert_eq!(short(&sr, &[node("a", "u", 3, Applied), silent]), is("1/2", PENDING));

    let mut selecting = route();
    selecting.spec.node_selector = serde_json::from_value(json!({"matchLabels": {"pool": "a"}})).unwrap();
    assert_eq!(
        short(&selecting, &[node("a", "u", 3, Applied), node("b", "u", 1, Partial)]),
        is("1/1", APPLIED)
    );
    assert_eq!(short(&selecting, &[node("b", "u", 3, Applied)]), is("0/0", NO_NODES));
    let message = &sum(&selecting, &[]).conditions[0].message;
    assert_eq!(message, "The cluster has no Ready node that spec.nodeSelector selects");
    // One that says nothing, stored before that was refused: nobody knows who is meant, so everybody is.
    let void = json!({"matchExpressions": [{"key": "pool", "operator": "In"}]});
    selecting.spec.node_selector = serde_json::from_value(void).unwrap();
    assert_eq!(short(&selecting, &[node("b", "x", 3, Applied)]), is("0/1", PENDING));
}

#[test]
fn a_node_that_fails_is_named_before_those_that_are_late() {
    let nodes = [node("a", "u", 2, Applied), node("b", "u", 3, Partial), node("c", "u", 3, Partial)];
    let status = sum(&route(), &nodes);
    assert_eq!(status.conditions[0].message, "0 of 3 nodes have every route; b (and 1 more): words");
}

#[test]
fn what_dead_nodes_said_is_marked_and_does_not_count() {
    let dead = Node { is_ready: Some(false), ..node("b", "u", 3, Partial) };
    let gone = |name: &str| Node { is_ready: None, ..node(name, "u", 1, Applied) };
    let bystander = Node { is_ready: None, ..node("z", "another", 1, Applied) };
    let status = sum(&route(), &[node("a", "u", 3, Applied), dead, gone("c"), bystander]);
    assert_eq!(status.nodes.as_deref(), Some("1/1"));
    assert_eq!(status.nodes_stale, Some(2));
    let marked: Vec<_> =
        status.stale_nodes.iter().map(|stale| format!("{} {}", stale.name, stale.reason)).collect();
    assert_eq!(marked, ["b NotReady", "c NodeGone"]);
    assert_eq!(
        status.conditions[0].message,
        "All 1 nodes have every route; not counted: b (NotReady) and 1 more"
    );

    let many: Vec<Node> = (0..1000).map(|number| gone(&format!("gone-{number}"))).collect();
    let status = sum(&route(), &many);
    assert_eq!((status.nodes_stale, status.stale_nodes.len()), (Some(1000), MOST_STALE));
    let none = sum(&route(), &[node("a", "u", 3, Applied)]);
    assert_eq!((none.nodes_stale, none.stale_nodes), (None, Vec::new()), "removed with them");
}

#[test]
fn a_second_look_changes_nothing() {
    let nodes = [node("a", "u", 3, Applied)];
    let mut sr = route();
    sr.status = Some(sum(&sr, &nodes));
    assert_eq!(Some(sum(&sr, &nodes)), sr.status);
    let tally = tallies(&[&sr], &[]).remove(0);
    let later = status(&sr, &tally, Timestamp::from_second(900).unwrap());
    assert_ne!(Some(later), sr.status, "the look itself sees changes");
}

/// One thousand nodes with one thousand objects each: a round must not take the controller's whole time.
#[test]
fn a_million_entries_are_one_look() {
    let routes: Vec<StaticRoute> = (0..1000)
        .map(|number| {
            let mut one = route();
            one.metadata.uid = Some(format!("u{number}"));
            one
        })
        .collect();
    let mut report = NodeEgressStatus::default();
    for one in &routes {
        let uid = one.metadata.uid.as_deref().unwrap();
        report.routes.extend(node("a", uid, 3, Applied).report.unwrap().routes);
    }
    let labels = BTreeMap::new();
    let name = |number: usize| format!("node-{number}");
    let names: Vec<String> = (0..1000).map(name).collect();
    let nodes: Vec<NodeReport<'_>> = names
        .iter()
        .map(|name| NodeReport { name, is_ready: Some(true), labels: Some(&labels), report: Some(&report) })
        .collect();
    let borrowed: Vec<&StaticRoute> = routes.iter().collect();
    let started = std::time::Instant::now();
    let tallies = tallies(&borrowed, &nodes);
    eprintln!("a million entries: {:?}", started.elapsed());
    assert!(tallies.iter().all(|tally| (tally.applied, tally.total) == (1000, 1000)));
}

#[test]
fn what_nodes_say_that_have_every_route_reaches_the_conditions() {
    let mut route = route();
    let mut nodes = ["a", "b", "c"].map(|name| node(name, "u", 3, Applied));
    let told = |status: &StaticRouteStatus| {
        let words = |one: &Condition| format!("{}={} {}: {}", one.type_, one.status, one.reason, one.message);
        status.conditions.iter().map(words).collect::<Vec<_>>()
    };
    assert_eq!(told(&sum(&route, &nodes)), ["Ready=True Applied: All 3 nodes have every route"]);
    for node in &mut nodes[1..] {
        let entry = &mut node.report.as_mut().unwrap().routes[0];
        entry.reason = Some("EgressGatewayMissing".to_owned());
        entry.message = Some("EgressGateway dmeo does not exist".to_owned());
    }
    let missing = sum(&route, &nodes);
    let words = "b (and 1 more): EgressGateway dmeo does not exist";
    assert_eq!(
        told(&missing),
        [
            format!("Ready=True Applied: All 3 nodes have every route; {words}"),
            format!("Degraded=True EgressGatewayMissing: {words}")
        ]
    );
    route.status = Some(missing);
    let mended = ["a", "b", "c"].map(|name| node(name, "u", 3, Applied));
    let mended = sum(&route, &mended);
    assert_eq!(told(&mended)[1], "Degraded=False AsAsked: ");
}

#[test]
fn a_report_without_room_for_a_static_route_is_said_to_be_so() {
    let mut full = node("a", "u", 3, Applied);
    let entry = full.report.as_ref().unwrap().routes[0].clone();
    let others =
        (0..NodeEgressStatus::MOST_ROUTES).map(|n| NodeRoute { uid: format!("other-{n}"), ..entry.clone() });
    full.report.as_mut().unwrap().routes = others.collect();
    let message = &sum(&route(), &[full]).conditions[0].message;
    assert_eq!(
        message,
        "0 of 1 nodes have every route; the report of a has room for 1000 StaticRoutes, and this one is not among them"
    );
}
