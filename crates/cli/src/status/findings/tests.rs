use serde_json::{Value, json};

use super::*;
use crate::status::screen::Status;
use crate::view::Unread;
use crate::view::fixture::{condition, egress_gateway, entry, nodes, report, static_route, view};

/// Level, object and reason.
type Said = (Level, String, String);
type Change = fn(&mut Vec<Value>);

fn now() -> Timestamp {
    "2026-01-01T01:00:00Z".parse().unwrap()
}

fn leads() -> Leader {
    Leader::Renewed { at: Some(now()), holder: "a".to_owned(), counts: LEASE_COUNTS }
}

/// A whole cluster, after `change` was made to its objects.
fn cluster(change: impl FnOnce(&mut Vec<Value>)) -> View {
    let mut owned = static_route("demo", 1, &["0.0.0.0/0"], &["10.116.0.100", "10.116.0.101"]);
    owned["metadata"]["labels"] = json!({OWNED_BY_LABEL: "demo"});
    let has = [entry("demo", "10.116.0.100")];
    let mut objects = nodes();
    objects.extend([egress_gateway("demo"), owned, report(1, &has), report(2, &has)]);
    change(&mut objects);
    view(&objects)
}

fn of_kind<'a>(objects: &'a mut [Value], kind: &str) -> &'a mut Value {
    objects.iter_mut().find(|object| object["kind"] == kind).unwrap()
}

fn said(view: &View, leader: &Leader) -> Vec<Said> {
    let all = findings(view, leader, now());
    all.into_iter().map(|one| (one.level, one.object, one.reason)).collect()
}

fn one(level: Level, object: &str, reason: &str) -> Vec<Said> {
    vec![(level, object.to_owned(), reason.to_owned())]
}

#[test]
fn nothing_is_said_of_a_cluster_that_is_well() {
    let view = cluster(|_| {});
    assert_eq!(said(&view, &leads()), []);
    let status = Status::of(&view, &leads(), now());
    assert_eq!(status.level, None);
    let text = status.to_string();
    assert!(text.starts_with("All is well.\n\nEGRESSGATEWAY"), "{text}");
    for word in [
        "203.0.113.100,203.0.113.101",
        "demo-1-uid",
        "Standby",
        "10.116.0.101",
        "2 nodes: 2 Ready, 2 of them report",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
}

#[test]
fn each_trouble_is_told_once_on_the_object_that_has_it() {
    let table: [(&str, Change, Vec<Said>); 9] = [
        (
            "no gateway works: its StaticRoute says nothing beside it",
            |objects| {
                let failed = [condition("Ready", "False", "NoGatewayProven", "No gateway is proven")];
                of_kind(objects, "EgressGateway")["status"]["conditions"] = json!(failed);
                of_kind(objects, "StaticRoute")["status"]["conditions"] =
                    json!([condition("Ready", "False", "NodesFailed", "x")]);
            },
            one(Level::Wrong, "EgressGateway demo", "NoGatewayProven"),
        ),
        (
            "redundancy lost",
            |objects| {
                let status = &mut of_kind(objects, "EgressGateway")["status"]["conditions"];
                status[2] = condition("Degraded", "True", "FewerGateways", "1 of 2");
            },
            one(Level::Wrong, "EgressGateway demo", "FewerGateways"),
        ),
        (
            "something is being made",
            |objects| {
                let status = &mut of_kind(objects, "EgressGateway")["status"]["conditions"];
                status[1] = condition("Progressing", "True", "Starting", "demo-2 starts");
            },
            one(Level::Note, "EgressGateway demo", "Starting"),
        ),
        (
            "paused by a person, and changed since",
            |objects| {
                let object = of_kind(objects, "EgressGateway");
                object["status"]["conditions"][1] = condition("Progressing", "False", "Paused", "until");
                object["metadata"]["generation"] = json!(2);
            },
            one(Level::Note, "EgressGateway demo", "Paused"),
        ),
        (
            "nobody has looked at it",
            |objects| of_kind(objects, "EgressGateway")["metadata"]["generation"] = json!(2),
            one(Level::Unknown, "EgressGateway demo", "NotObserved"),
        ),
        (
            "a user's StaticRoute",
            |objects| {
                let mut mine = static_route("mine", 2, &["192.0.2.1"], &["10.116.0.5"]);
                mine["status"]["conditions"] =
                    json!([condition("Ready", "False", "NodesFailed", "node-1: Conflict")]);
                objects.push(mine);
            },
            one(Level::Wrong, "StaticRoute mine", "NodesFailed"),
        ),
        (
            "an agent that does not run",
            |objects| {
                objects.retain(|object| object["metadata"]["name"] != "node-2" || object["kind"] == "Node");
            },
            one(Level::Wrong, "node node-2", "NoReport"),
        ),
        (
            "two nodes with the same trouble",
            |objects| {
                for object in objects.iter_mut().filter(|object| object["kind"] == "NodeEgress") {
                    object["status"]["conditions"] =
                        json!([condition("Contested", "True", "Fight", "somebody")]);
                }
            },
            one(Level::Wrong, "nodes node-1, node-2", "Contested"),
        ),
        (
            "an agent that has not spoken since the node booted",
            |objects| {
                let last = objects.iter_mut().rfind(|object| object["kind"] == "NodeEgress").unwrap();
                last["status"]["bootID"] = json!("before");
            },
            one(Level::Unknown, "node node-2", "OldReport"),
        ),
    ];
    for (what, change, expected) in table {
        assert_eq!(said(&cluster(change), &leads()), expected, "{what}");
    }
}

#[test]
fn a_controller_that_is_away_is_told_where_it_is_needed() {
    let away = "controller";
    let renewed = |ago: i64, holder: &str| Leader::Renewed {
        at: Some(Timestamp::from_second(now().as_second() - ago).unwrap()),
        holder: holder.to_owned(),
        counts: LEASE_COUNTS,
    };
    let missing = Leader::Missing { namespace: "egress-gateway".to_owned() };
    let view = cluster(|_| {});
    assert_eq!(said(&view, &renewed(29, "a")), []);
    assert_eq!(said(&view, &Leader::NotTold), []);
    for leader in [renewed(31, "a"), renewed(1, ""), missing.clone()] {
        assert_eq!(said(&view, &leader), one(Level::Wrong, away, "ControllerAway"), "{leader:?}");
    }
    assert_eq!(said(&View { nodes: view.nodes, reports: view.reports, ..View::default() }, &missing), []);
}

#[test]
fn what_cannot_be_read_is_unknown_and_outweighed_by_what_is_wrong() {
    let unread = Unread { kind: "NodeEgresses", why: "you may not".to_owned() };
    let mut view = cluster(|_| {});
    view.reports.clear();
    view.unread.push(unread);
    assert_eq!(said(&view, &leads()), one(Level::Unknown, "NodeEgresses", "CannotRead"));
    assert_eq!(Status::of(&view, &leads(), now()).level, Some(Level::Unknown));
    let mut wrong = cluster(|objects| {
        let mut mine = static_route("mine", 2, &["192.0.2.1"], &["10.116.0.5"]);
        mine["status"]["conditions"] = json!([condition("Ready", "False", "NodesFailed", "x")]);
        objects.push(mine);
    });
    wrong.unread = view.unread;
    let mut status = Status::of(&wrong, &leads(), now());
    assert_eq!(status.level, Some(Level::Wrong));
    assert!(
        status
            .to_string()
            .starts_with("1 thing is wrong, and 1 thing can't be told.\n  WRONG   StaticRoute mine"),
        "{status}"
    );
    assert!(status.restrict_to("demo"));
    assert_eq!(status.level, Some(Level::Unknown), "what concerns mine is left out");
    assert!(!status.restrict_to("nobody"));
}

#[test]
fn two_hundred_gateways_fit_on_a_screen_and_what_is_wrong_is_on_it() {
    let view = cluster(|objects| {
        for number in 0..200 {
            let mut one = egress_gateway(&format!("g{number:03}"));
            if number == 199 {
                one["status"]["conditions"] = json!([condition("Ready", "False", "NoGatewayProven", "x")]);
            }
            objects.push(one);
        }
    });
    let mut status = Status::of(&view, &leads(), now());
    status.show_at_most(20);
    let text = status.to_string();
    assert!(text.lines().count() < 75, "{}", text.lines().count());
    assert!(
        text.contains("\ng199 ") && text.contains("… and 181 more EgressGateways (--all shows them)"),
        "{text}"
    );
}

#[test]
fn ages_are_told_as_kubectl_tells_them() {
    let told = |seconds| in_words(Duration::from_secs(seconds));
    assert_eq!([told(5), told(130), told(7300), told(200_000)], ["5s", "2m", "2h", "2d"]);
}
