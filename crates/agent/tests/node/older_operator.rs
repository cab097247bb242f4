//! Users of the older operator: what it left in the kernel, what happens to everybody's StaticRoutes when it is deleted by its own
//! manifest, which has the definition (CRD) of StaticRoutes in it, and everything that it is known to get wrong.
//!
//! | what happens | what the older operator does | here, and the test |
//! | --- | --- | --- |
//! | it is restarted, routes intact | reports failure for all | writes and reports nothing: `lifecycle` |
//! | it is stopped | routes stay | the same: `uninstall` |
//! | the node boots, the VPC's link comes late | no route for ever | a route when the link is up: `edits_absences_and_stalls` |
//! | the link goes down and up | routes gone for ever | back at once, nothing leaks: `lifecycle` |
//! | somebody deletes a route | not noticed | put back: `lifecycle` |
//! | somebody replaces a route | not noticed | left alone, reported, ours is back after it: `edits_absences_and_stalls` |
//! | the gateway is not on the link yet | no route for ever | a route when it is: `selection` |
//! | the gateway is dead | not noticed | left for the next: `lifecycle` |
//! | the gateway is edited | nothing changes | replaced in place: `lifecycle` |
//! | the same, then the object is deleted | routes leak | nothing is left: `edits_absences_and_stalls` |
//! | gateway and destinations are edited | a mixture, and leaks | all as listed: `edits_absences_and_stalls` |
//! | two objects, one destination | the second is lost when the first goes | it takes over: `lifecycle` |
//! | a foreign route, same destination and gateway | fails, then deletes it | reported and left: `with_the_option` |
//! | a foreign route with a higher metric | works beside it | reported as shadowing ours, and left: `with_the_option` |
//! | absent while an object is deleted | routes stay for ever | removed at the next start: `edits_absences_and_stalls` |
//! | absent while a destination is removed | its route stays for ever | removed at the next start: `edits_absences_and_stalls` |
//! | stalled at a create, a delete, an update | wrong, and Ready | as listed afterwards: `edits_absences_and_stalls` |

use std::net::Ipv4Addr;
use std::time::Duration;

use egress_api::NodeRouteState;
use nix::sys::signal::Signal;
use serde_json::json;

use crate::cloud::{A, A_PUBLIC, B, B_PUBLIC, ip, ours, seen_from, until};
use crate::packets::Packets;
use crate::scene::{Agent, LISTED, Monitor, SOON, Scene, settled, until_ready};

/// Destination of a StaticRoute with two gateways.
const PAIRED: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 90);

#[test]
fn deleting_the_shared_definition_changes_no_route_and_applying_everything_again_goes_on() {
    let scene = Scene::new();
    let mut agent = Agent::start(&scene);
    apply_all(&scene);
    until_ready();
    for restarted in [false, true] {
        let before = settled();
        let packets = Packets::start(&scene.cloud);
        delete_definition(&scene);
        until("the definition is gone", &false, SOON, || definitions(&scene).contains("staticroutes"));
        if restarted {
            // It cannot read StaticRoutes at all now.
            agent.kill();
            agent = Agent::start(&scene);
            agent.until_says("keeping what the kernel holds");
        } else {
            agent.until_says("it is orphaned");
        }
        assert_eq!(settled(), before);

        // There is a definition again, and nothing of it. A list without them proves nothing.
        scene.install_definitions();
        let other = format!("other-{restarted}");
        scene.route(&other, &json!({"destinations": ["192.0.2.70"], "gateway": A}));
        scene.until_applied(&other, 1);
        scene.delete_route(&other);
        until("only what was orphaned is left", &before, SOON, ours);
        until("said", &Some(true), SOON, || is_orphaned(&scene));
        if restarted {
            agent.kill();
            let monitor = Monitor::start(&["route", "rule", "nexthop"]);
            agent = Agent::start(&scene);
            until_ready();
            assert_eq!(monitor.stop(), Vec::<String>::new(), "a restart wrote to the kernel");
        }

        apply_all(&scene);
        let now = settled();
        let kept = now.lines().filter(|line| before.contains(line) && line.starts_with("192.0.2.")).count();
        assert_eq!(kept, 0, "all have the nexthop objects of the new uids");
        until("over", &Some(false), SOON, || is_orphaned(&scene));
        packets.all_arrived(&scene.cloud);
        assert_eq!(seen_from(LISTED), Some(A_PUBLIC));
    }

    // Orphans fail over like everybody else.
    delete_definition(&scene);
    until("the definition is gone", &false, SOON, || definitions(&scene).contains("staticroutes"));
    scene.cloud.power_off("a");
    until("through B", &Some(B_PUBLIC), SOON, || seen_from(PAIRED));
    scene.cloud.start_gateway("a", "203.0.113.5", A);
    scene.install_definitions();

    // Applied again and deleted: that is a word.
    apply_all(&scene);
    for name in ALL {
        scene.delete_route(name);
    }
    until("nothing of ours is left", &String::new(), SOON, ours);
}

#[test]
fn its_own_manifest_deleted_while_its_finalizer_holds_an_object_changes_no_route() {
    let scene = Scene::new();
    delete_definition(&scene);
    let (_file, manifest) = its_manifest();
    scene.kubectl(&["apply", "-f", &manifest]);
    let finalizer = "kopf.zalando.org/KopfFinalizerMarker";
    let held = json!({"apiVersion": "networking.digitalocean.com/v1", "kind": "StaticRoute",
        "metadata": {"name": "bare", "finalizers": [finalizer]},
        "spec": {"destinations": ["192.0.2.80"], "gateway": A}});
    until("its definition is served", &true, SOON, || scene.try_apply(&held));

    // Ours over it, as whoever moves from one to the other does.
    for (_, definition) in egress_api::custom_resource_definitions() {
        scene.apply(&serde_json::to_value(definition).unwrap());
    }
    let agent = Agent::start(&scene);
    let pair = json!({"destinations": ["192.0.2.90"], "gateways": [{"address": A}, {"address": B}]});
    scene.route("pair", &pair);
    scene.until_applied("bare", 1);
    scene.until_applied("pair", 1);
    until_ready();
    let before = settled();
    let packets = Packets::start(&scene.cloud);
    scene.kubectl(&["delete", "-f", &manifest, "--wait=false"]);
    agent.until_says("it is orphaned");
    until("said", &true, SOON, || {
        let told = scene.condition("Orphaned");
        told.is_some_and(|(_, _, message)| message.contains("bare") && message.contains("pair"))
    });
    assert!(definitions(&scene).contains("staticroutes"), "the finalizer holds it");
    assert_eq!((settled(), seen_from(LISTED)), (before.clone(), Some(A_PUBLIC)), "while it is being deleted");
    // As the controller does once the older operator's DaemonSet is gone.
    let without = r#"{"metadata":{"finalizers":null}}"#;
    scene.kubectl(&["patch", "staticroute", "bare", "--type=merge", "-p", without]);
    until("the definition is gone", &false, SOON, || definitions(&scene).contains("staticroutes"));
    assert_eq!((settled(), seen_from(LISTED)), (before, Some(A_PUBLIC)), "when it is gone");
    packets.all_arrived(&scene.cloud);
    drop(agent);
}

/// The older operator's manifest: the file that `OLDER_OPERATOR_MANIFEST` names, else one with the same objects.
fn its_manifest() -> (Option<tempfile::NamedTempFile>, String) {
    const NAME: &str = "k8s-staticroute-operator";
    if let Ok(path) = std::env::var("OLDER_OPERATOR_MANIFEST") {
        return (None, path);
    }
    let place = json!({"name": NAME, "namespace": "static-routes"});
    let role = "rbac.authorization.k8s.io/v1";
    let definitions = egress_api::custom_resource_definitions().into_iter();
    let definition =
        definitions.map(|(_, one)| one).find(|one| one.spec.names.kind == "StaticRoute").unwrap();
    let pods = json!({"metadata": {"labels": {"name": NAME}}, "spec": {"serviceAccountName": NAME,
        "containers": [{"name": NAME, "image": "none.invalid/operator"}]}});
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "static-routes"}},
        definition,
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": place},
        {"apiVersion": role, "kind": "ClusterRole", "metadata": {"name": NAME}, "rules": []},
        {"apiVersion": role, "kind": "ClusterRoleBinding", "metadata": {"name": NAME},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": NAME},
            "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": "static-routes"}]},
        {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": place,
            "spec": {"selector": {"matchLabels": {"name": NAME}}, "template": pods}},
    ]});
    let file = tempfile::NamedTempFile::with_suffix(".json").unwrap();
    std::fs::write(file.path(), list.to_string()).unwrap();
    let path = file.path().display().to_string();
    (Some(file), path)
}

/// Whether the node says that StaticRoutes are orphaned: which, it must name.
fn is_orphaned(scene: &Scene) -> Option<bool> {
    let status = scene.status()?;
    let condition = status.conditions.iter().find(|condition| condition.type_ == "Orphaned")?;
    let names = ALL.iter().all(|name| condition.message.contains(name));
    Some(condition.status == "True" && names)
}

const ALL: [&str; 3] = ["bare", "pair", "shared"];

fn apply_all(scene: &Scene) {
    scene.route("bare", &json!({"destinations": ["192.0.2.80"], "gateway": A}));
    scene.route(
        "pair",
        &json!({"destinations": ["192.0.2.90"], "gateways": [{"address": A}, {"address": B}]}),
    );
    let members = json!([{"address": A, "weight": 2}, {"address": B}]);
    scene.route(
        "shared",
        &json!({"destinations": ["192.0.2.91"], "mode": "ActiveActive", "gateways": members}),
    );
    for name in ALL {
        // Of an orphan the report says that it is applied, too.
        let uid = scene.kubectl(&["get", "staticroute", name, "-o", "jsonpath={.metadata.uid}"]);
        until(name, &Some((uid, NodeRouteState::Applied)), SOON, || {
            let status = scene.status()?;
            let entry = status.routes.iter().find(|route| route.name == name)?;
            Some((entry.uid.clone(), entry.state))
        });
    }
}

fn delete_definition(scene: &Scene) {
    scene.kubectl(&["delete", "crd", "staticroutes.networking.digitalocean.com", "--timeout=30s"]);
}

fn definitions(scene: &Scene) -> String {
    scene.kubectl(&["get", "crd", "-o", "name"])
}

#[test]
fn with_the_option_exactly_what_the_older_operator_left_is_taken_out_of_the_main_table() {
    let scene = Scene::new();
    // What it leaves behind, and what others have there.
    ip(&format!("route add 192.0.2.80 via {A} proto static"));
    let others = [
        format!("192.0.2.81 via {B} proto static"),
        format!("192.0.2.82 via {A} proto 99"),
        format!("192.0.2.83 via {A} proto static metric 5"),
        format!("192.0.2.84 proto static nexthop via {A} nexthop via {B}"),
        format!("192.0.2.99 via {A} proto static"),
    ];
    for other in &others {
        ip(&format!("route add {other}"));
    }
    let main = || ip("route show table main");
    let before = main();
    let packets = Packets::start(&scene.cloud);
    let listed: Vec<String> = (80..85).map(|last| format!("192.0.2.{last}")).collect();
    let agent = Agent::start(&scene);
    scene.route("bare", &json!({"destinations": listed, "gateway": A}));
    until("ours is beside it", &true, SOON, || ours().contains("192.0.2.80 nhid"));
    until("shadowed", &Some((NodeRouteState::NotApplied, 0)), SOON, || scene.state_of("bare"));
    assert_eq!(scene.status().unwrap().routes[0].failures[0].reason, "Shadowed");
    assert_eq!(main(), before, "nobody asked for anything to be taken away");

    agent.terminate();
    let option = ["--daemonset=", "--protected-names=", "--remove-leftovers-of-older-operator"];
    let agent = Agent::start_with(&scene, &option);
    until("ours answers", &Some((NodeRouteState::Partial, 1)), SOON, || scene.state_of("bare"));
    let after = main();
    let gone: Vec<&str> = before.lines().filter(|line| !after.contains(line)).collect();
    assert_eq!(gone.len(), 1, "{gone:?}");
    assert!(gone[0].starts_with("192.0.2.80 "), "{gone:?}");
    assert_eq!(seen_from(LISTED), Some(A_PUBLIC));

    // It is back: its operator runs after all. Nobody fights, and the report says so.
    ip(&format!("route add 192.0.2.80 via {A} proto static"));
    until("shadowed again", &Some((NodeRouteState::NotApplied, 0)), SOON, || scene.state_of("bare"));
    assert!(main().contains("192.0.2.80 via"));

    // Deleting our object takes nothing of theirs (the older operator deleted routes that it had not made).
    let theirs = main();
    scene.delete_route("bare");
    until("nothing of ours is left", &String::new(), SOON, ours);
    assert_eq!(main(), theirs);
    packets.all_arrived(&scene.cloud);
    drop(agent);
}

#[test]
fn edits_absences_and_stalls_that_the_older_operator_got_wrong_come_out_right() {
    let scene = Scene::new();
    // A node that boots: the agent is there before the link to the VPC is.
    ip("link set eth1 down");
    let agent = Agent::start(&scene);
    scene.route("edited", &json!({"destinations": ["192.0.2.80", "192.0.2.81"], "gateway": A}));
    until("reported", &Some((NodeRouteState::NotApplied, 0)), SOON, || scene.state_of("edited"));
    ip("link set eth1 up");
    until("through A", &Some(A_PUBLIC), SOON, || seen_from(LISTED));

    // Somebody puts a route of his own in the place of ours: it is his, and the report says so; ours is back when that goes.
    ip("route replace 192.0.2.81 via 203.0.113.1 table 1157 proto boot");
    until("said", &Some("ForeignRoute".to_owned()), SOON, || first_failure(&scene, "edited"));
    ip("route del 192.0.2.81 via 203.0.113.1 table 1157 proto boot");
    scene.until_applied("edited", 2);

    // Gateway and destinations in one edit: all of it counts. Then the object goes, and with it every route.
    scene.route("edited", &json!({"destinations": ["192.0.2.80", "192.0.2.82"], "gateway": B}));
    until("through B", &Some(B_PUBLIC), SOON, || seen_from(LISTED));
    until("as listed", &["192.0.2.80", "192.0.2.82"].map(str::to_owned).to_vec(), SOON, routed);
    scene.route("edited", &json!({"destinations": ["192.0.2.80", "192.0.2.82"], "gateway": A}));
    scene.delete_route("edited");
    until("nothing of ours is left", &String::new(), SOON, ours);

    // The agent of this node is away while one object goes and another loses a destination.
    scene.route("gone", &json!({"destinations": ["192.0.2.80"], "gateway": A}));
    scene.route("less", &json!({"destinations": ["192.0.2.81", "192.0.2.82"], "gateway": A}));
    scene.until_applied("gone", 1);
    scene.until_applied("less", 2);
    agent.kill();
    scene.delete_route("gone");
    scene.route("less", &json!({"destinations": ["192.0.2.82"], "gateway": A}));
    let agent = Agent::start(&scene);
    until("as listed", &vec!["192.0.2.82".to_owned()], SOON, routed);

    // It is stalled at a create, an update and a delete.
    for (create, list) in [(true, vec!["192.0.2.80"]), (true, vec!["192.0.2.81"]), (false, vec![])] {
        agent.signal(Signal::SIGSTOP);
        if create {
            scene.route("stalled", &json!({"destinations": list, "gateway": A}));
        } else {
            scene.delete_route("stalled");
        }
        std::thread::sleep(Duration::from_millis(1_200));
        agent.signal(Signal::SIGCONT);
        let all = list.into_iter().chain(["192.0.2.82"]).map(str::to_owned).collect::<Vec<_>>();
        until("as listed", &all, SOON, routed);
    }
    scene.delete_route("less");
    until("nothing of ours is left", &String::new(), SOON, ours);
}

/// Destinations that our table leads to a gateway.
fn routed() -> Vec<String> {
    let ours = ours();
    let routes = ours.lines().filter(|line| line.contains(" nhid ") && line.contains("table 1157"));
    routes.filter_map(|line| line.split(' ').next().map(str::to_owned)).collect()
}

fn first_failure(scene: &Scene, name: &str) -> Option<String> {
    let status = scene.status()?;
    let entry = status.routes.iter().find(|route| route.name == name)?;
    Some(entry.failures.first()?.reason.clone())
}
