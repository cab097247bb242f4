use egress_routing::ProtectedReason;
use serde_json::{Value, json};

use super::*;
use crate::trace::words::Trace;
use crate::view::fixture::{condition, egress_gateway, entry, nodes, report, static_route, view};

/// `demo` sends everything but 198.51.100.0/24 through 10.116.0.100; `mine`, younger, 192.0.2.0/24 through a machine of somebody's own.
fn cluster(change: impl FnOnce(&mut Vec<Value>)) -> View {
    let mut demo = static_route("demo", 1, &["0.0.0.0/0"], &["10.116.0.100", "10.116.0.101"]);
    demo["spec"]["excludedDestinations"] = json!(["198.51.100.0/24"]);
    let mut mine = static_route("mine", 2, &["192.0.2.0/24", "192.0.2.9"], &["10.116.0.5"]);
    mine["spec"]["gateways"][0]["egressAddress"] = json!("203.0.113.55");
    let has = [entry("demo", "10.116.0.100"), entry("mine", "10.116.0.5")];
    let mut objects = nodes();
    objects.extend([egress_gateway("demo"), demo, mine, report(1, &has), report(2, &has)]);
    change(&mut objects);
    view(&objects)
}

fn surroundings(view: &View) -> Surroundings {
    let mut found = Surroundings::default();
    found.take_nodes(view);
    found.take_gateways(view.gateways());
    found.protected.insert_address("198.51.100.10".parse().unwrap(), ProtectedReason::ApiServer);
    found.protected.insert("203.0.113.192/26".parse().unwrap(), ProtectedReason::UserList);
    found
}

fn ask(view: &View, node: usize, address: &str) -> Answer {
    let reported = view.reported();
    let node = &view.nodes[node];
    answer(address.parse().unwrap(), node, view, &surroundings(view), reported.get(name(node)).copied())
}

/// StaticRoute and public address, or the way in one word.
fn short(answer: &Answer) -> String {
    let way = match &answer.way {
        Way::ThroughGateway { static_route, gateways, .. } => {
            let seen: Vec<&str> =
                gateways.iter().map(|one| one.public_address.as_deref().unwrap_or("?")).collect();
            format!("{static_route} {}", seen.join("+"))
        }
        Way::AsWithoutGateways => "own".to_owned(),
        Way::Dropped { static_route } => format!("dropped {static_route}"),
        Way::Unknown => "unknown".to_owned(),
    };
    format!(
        "{way}{}{}",
        if answer.amiss { " amiss" } else { "" },
        if answer.uncertain { " uncertain" } else { "" }
    )
}

fn of_node(objects: &mut [Value], node: u8, route: usize) -> &mut Value {
    let report = objects
        .iter_mut()
        .find(|one| one["kind"] == "NodeEgress" && one["metadata"]["name"] == format!("node-{node}"));
    &mut report.unwrap()["status"]["routes"][route]
}

#[test]
fn the_longest_destination_decides_and_what_is_left_out_or_protected_goes_its_own_way() {
    let view = cluster(|_| {});
    let table = [
        ("8.8.8.8", "demo 203.0.113.100", "StaticRoute demo lists 0.0.0.0/0"),
        ("192.0.2.7", "mine 203.0.113.55", "StaticRoute demo lists 0.0.0.0/0, which is wider"),
        ("192.0.2.9", "mine 203.0.113.55", "StaticRoute mine lists 192.0.2.9/32"),
        ("198.51.100.7", "own", "StaticRoute demo lists 0.0.0.0/0 and leaves out 198.51.100.0/24"),
        ("198.51.100.10", "own", "protected: the API server"),
        ("203.0.113.200", "own", "protected: the list of protected ranges and names"),
        ("203.0.113.12", "own", "protected: a node"),
        ("203.0.113.101", "own", "protected: a gateway itself"),
        ("10.116.0.9", "own", "protected: the VPC"),
        ("10.244.2.9", "own", "protected: pods"),
        ("169.254.169.254", "own", "protected: link-local and metadata"),
        ("127.0.0.1", "own", "protected: loopback"),
        ("10.200.0.1", "demo 203.0.113.100 uncertain", "StaticRoute demo lists 0.0.0.0/0"),
    ];
    for (address, expected, because) in table {
        let answer = ask(&view, 0, address);
        assert_eq!(short(&answer), expected, "{address}: {answer:#?}");
        assert!(answer.why.iter().any(|why| why.contains(because)), "{address}: {:?}", answer.why);
    }
}

#[test]
fn what_the_node_reports_has_the_last_word() {
    type Change = fn(&mut Vec<Value>);
    let table: [(&str, &str, Change, &str, &str); 12] = [
        (
            "192.0.2.7",
            "it uses the second gateway",
            |all| of_node(all, 1, 0)["gateway"] = json!("10.116.0.101"),
            "mine 203.0.113.55",
            "",
        ),
        (
            "8.8.8.8",
            "it has failed over",
            |all| of_node(all, 1, 0)["gateway"] = json!("10.116.0.101"),
            "demo 203.0.113.101",
            "gateway demo-1-uid of EgressGateway demo, Standby",
        ),
        (
            "8.8.8.8",
            "both share",
            |all| {
                all.iter_mut().find(|one| one["kind"] == "StaticRoute").unwrap()["spec"]["mode"] =
                    json!("ActiveActive");
                let entry = of_node(all, 1, 0);
                entry["gateway"] = Value::Null;
                entry["gateways"] = json!(["10.116.0.100", "10.116.0.101"]);
            },
            "demo 203.0.113.100+203.0.113.101",
            "",
        ),
        (
            "192.0.2.7",
            "the main table answers first",
            |all| {
                let entry = of_node(all, 1, 1);
                entry["state"] = json!("Partial");
                entry["total"] = json!(2);
                entry["failures"] =
                    json!([{"destination": "192.0.2.0/24", "reason": "Shadowed", "message": "by the CNI"}]);
            },
            "own amiss",
            "says Shadowed: by the CNI",
        ),
        (
            "192.0.2.7",
            "the node protects more than is known here: what is wider does not get it either",
            |all| {
                let entry = of_node(all, 1, 1);
                entry["state"] = json!("NotApplied");
                entry["applied"] = json!(0);
                entry["failures"] =
                    json!([{"destination": "192.0.2.0/24", "reason": "Protected", "message": "a resolver"}]);
            },
            "own",
            "says Protected: a resolver",
        ),
        (
            "192.0.2.7",
            "no gateway of it can be used: the wider one takes over",
            |all| {
                let entry = of_node(all, 1, 1);
                entry["state"] = json!("NotApplied");
                entry["reason"] = json!("GatewayNotOnLink");
                entry["message"] = json!("gateway 10.116.0.5 is not on the link");
                entry["guarded"] = json!(false);
            },
            "demo 203.0.113.100 amiss",
            "gateway 10.116.0.5 is not on the link",
        ),
        (
            "8.8.8.8",
            "none works, and it fails closed",
            |all| {
                all.iter_mut().find(|one| one["kind"] == "StaticRoute").unwrap()["spec"]["onNoGateway"] =
                    json!("FailClosed");
                let entry = of_node(all, 1, 0);
                entry["noGateway"] = json!(true);
                entry["gateway"] = Value::Null;
                entry["state"] = json!("NotApplied");
                entry["message"] = json!("no gateway works");
            },
            "dropped demo amiss",
            "no gateway works",
        ),
        (
            "8.8.8.8",
            "none works, and the last one is kept",
            |all| of_node(all, 1, 0)["noGateway"] = json!(true),
            "demo 203.0.113.100 amiss",
            "",
        ),
        (
            "8.8.8.8",
            "it has another version",
            |all| of_node(all, 1, 0)["observedGeneration"] = json!(7),
            "demo 203.0.113.100 uncertain",
            "",
        ),
        (
            "8.8.8.8",
            "it does not know it yet",
            |all| {
                let report = all.iter_mut().find(|one| one["kind"] == "NodeEgress").unwrap();
                report["status"]["routes"] = json!([]);
            },
            "demo 203.0.113.100 uncertain",
            "",
        ),
        (
            "8.8.8.8",
            "no report",
            |all| all.retain(|one| one["kind"] != "NodeEgress"),
            "demo 203.0.113.100 uncertain",
            "",
        ),
        (
            "192.0.2.7",
            "the younger one of two equals takes nothing",
            |all| {
                let mut younger = static_route("younger", 9, &["192.0.2.0/24"], &["10.116.0.6"]);
                younger["metadata"]["uid"] = json!("uid-younger");
                all.push(younger);
            },
            "mine 203.0.113.55",
            "StaticRoute younger lists 192.0.2.0/24 too, and mine is older (Conflict)",
        ),
    ];
    for (address, what, change, expected, because) in table {
        let answer = ask(&cluster(change), 0, address);
        assert_eq!(short(&answer), expected, "{what}: {answer:#?}");
        let said = [answer.why.join("\n"), answer.notes.join("\n")].join("\n");
        assert!(said.contains(because), "{what}: {said}");
    }
}

#[test]
fn objects_that_do_not_apply_are_named() {
    let view = cluster(|all| {
        let mine = all.iter_mut().find(|one| one["metadata"]["name"] == "mine").unwrap();
        mine["spec"]["nodeSelector"] = json!({"matchLabels": {"pool": "p2"}});
        let mut going = static_route("going", 3, &["192.0.2.7"], &["10.116.0.6"]);
        going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:10:00Z");
        all.push(going);
    });
    let first = ask(&view, 0, "192.0.2.7");
    assert_eq!(short(&first), "demo 203.0.113.100");
    assert_eq!(
        first.notes,
        [
            "StaticRoute mine lists it; its nodeSelector leaves this node out",
            "StaticRoute going lists it and is being deleted"
        ]
    );
    assert_eq!(short(&ask(&view, 1, "192.0.2.7")), "mine 203.0.113.55");
}

#[test]
fn what_the_node_finds_of_itself_and_of_the_gateway_is_told() {
    let view = cluster(|all| {
        let report = all.iter_mut().find(|one| one["kind"] == "NodeEgress").unwrap();
        report["status"]["conditions"] =
            json!([condition("EbpfForwarding", "True", "Cilium", "a program forwards past the kernel")]);
        report["status"]["gateways"] = json!([{"address": "10.116.0.100", "reachable": true, "forwards": false, "message": "no answer"}]);
        of_node(all, 1, 0)["draining"] = json!("10.116.0.101");
    });
    let notes = ask(&view, 0, "8.8.8.8").notes.join("\n");
    for word in [
        "says EbpfForwarding",
        "10.116.0.100 does not lead outside: no answer",
        "may still leave through 10.116.0.101",
    ] {
        assert!(notes.contains(word), "{word}: {notes}");
    }
}

#[test]
fn nodes_that_answer_alike_are_one_answer_and_the_others_stand_below() {
    let view = cluster(|all| {
        let mut third = nodes()[0].clone();
        third["metadata"]["name"] = json!("node-3");
        third["status"]["addresses"] = json!([{"type": "InternalIP", "address": "10.116.0.4"}, {"type": "ExternalIP", "address": "203.0.113.13"}]);
        all.push(third);
        let mut report = report(3, &[entry("demo", "10.116.0.101"), entry("mine", "10.116.0.5")]);
        report["status"]["bootID"] = json!("boot-1");
        all.push(report);
    });
    let nodes: Vec<&Node> = view.nodes.iter().collect();
    let to = BTreeSet::from(["8.8.8.8".parse().unwrap()]);
    let traced = trace(&to, &nodes, &view, &surroundings(&view));
    let told: Vec<&[String]> = traced.iter().map(|one| one.nodes.as_slice()).collect();
    assert_eq!(told, [&["node-1".to_owned(), "node-2".to_owned()][..], &["node-3".to_owned()]]);
    let text = Trace::new("8.8.8.8", Vec::new(), traced).to_string();
    assert!(
        text.starts_with("8.8.8.8 from nodes node-1, node-2: leaves through gateway demo-0-uid, by StaticRoute demo\n  seen as  203.0.113.100, gateway 10.116.0.100\n"),
        "{text}"
    );
    let own =
        trace(&BTreeSet::from(["198.51.100.7".parse().unwrap()]), &nodes[..1], &view, &surroundings(&view));
    assert_eq!(own[0].own_address, Some("203.0.113.11".parse().unwrap()));
}

#[test]
fn without_any_object_everything_goes_its_own_way() {
    let answer = ask(&view(&[nodes(), vec![report(1, &[])]].concat()), 0, "8.8.8.8");
    assert_eq!((short(&answer), answer.why), ("own".to_owned(), vec!["no StaticRoute lists it".to_owned()]));
}
