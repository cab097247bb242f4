//! What never goes through a gateway, found on the node itself and kept current (I5).

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use egress_api::NodeRouteState;
use serde_json::json;

use crate::cloud::{A, B, ip, ours, until};
use crate::scene::{Agent, Hosts, Monitor, SOON, Scene, settled, until_ready};

const CLUSTER: &str = "b2f1d0c4-7a3e-4b52-8c56-0d1e2f3a4b5c";

/// The node's metadata service, with the tags of a DOKS worker.
struct MetadataService {
    said: Arc<Mutex<Said>>,
}

/// What it says.
#[derive(Clone, Copy)]
enum Said {
    /// Nothing at all.
    Nothing,
    /// That it can't answer now.
    Unavailable,
    /// All that it knows, and these resolvers.
    Resolvers(&'static str),
}

impl MetadataService {
    fn start(said: Said) -> Self {
        ip("addr add 169.254.169.254/32 dev lo");
        let listener = TcpListener::bind("169.254.169.254:80").unwrap();
        let service = Self { said: Arc::new(Mutex::new(said)) };
        let said = Arc::clone(&service.said);
        std::thread::spawn(move || {
            let mut unanswered = Vec::new();
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut request = [0; 1024];
                let Ok(length) = stream.read(&mut request) else { continue };
                let request = String::from_utf8_lossy(&request[..length]);
                let (status, body) = match (*said.lock().unwrap(), request.split(' ').nth(1)) {
                    (Said::Nothing, _) => {
                        unanswered.push(stream);
                        continue;
                    }
                    (Said::Unavailable, _) => ("503 Service Unavailable", String::new()),
                    (_, Some("/metadata/v1/tags/")) => ("200 OK", format!("k8s\nk8s:{CLUSTER}\nk8s:worker")),
                    (Said::Resolvers(resolvers), Some("/metadata/v1/dns/nameservers")) => {
                        ("200 OK", resolvers.to_owned())
                    }
                    // Nothing else is the agent's business, the user data least of all.
                    _ => ("200 OK", String::new()),
                };
                let head = format!(
                    "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    body.len()
                );
                // A client that went away needs no answer.
                let _gone = stream.write_all(format!("{head}{body}").as_bytes());
            }
        });
        service
    }

    fn says(&self, said: Said) {
        *self.said.lock().unwrap() = said;
    }
}

fn way(to: &str) -> String {
    ip(&format!("route get {to}"))
}

fn is_routed(to: &str) -> bool {
    way(to).contains("via 10.116.0.")
}

fn reason(scene: &Scene, name: &str) -> Option<String> {
    let status = scene.status()?;
    let route = status.routes.iter().find(|route| route.name == name)?;
    Some(route.failures.first()?.reason.clone())
}

#[test]
fn every_address_of_the_api_servers_name_is_protected_as_it_changes() {
    let scene = Scene::new();
    let metadata = MetadataService::start(Said::Unavailable);
    let name = format!("{CLUSTER}.k8s.ondigitalocean.com");
    let hosts = Hosts::new(&[("198.51.100.10", &name)]);
    let named = ["--daemonset=", "--protected-names=api.digitalocean.com"];
    let agent = Agent::start_with_hosts(&scene, &named, &hosts);
    // The endpoints of Service `kubernetes` are others: a real API server keeps its own there.
    scene.route("all", &json!({"destinations": ["0.0.0.0/0"], "gateways": [{"address": A}, {"address": B}]}));
    until("refused", &Some("ApiServerUnknown".to_owned()), SOON, || reason(&scene, "all"));
    metadata.says(Said::Resolvers("67.207.67.2\n67.207.67.3"));
    // The cloud's API is waited for while the agent is new.
    until("not yet", &Some("LookingAround".to_owned()), SOON, || reason(&scene, "all"));
    hosts.write(&[("198.51.100.10", &name), ("198.51.100.210", "api.digitalocean.com")]);
    scene.until_applied("all", 1);
    assert!(!is_routed("198.51.100.210"));
    assert!(is_routed("198.51.100.11"), "the scene itself");
    for own in ["198.51.100.10", "67.207.67.2", "67.207.67.3", "169.254.169.254"] {
        assert!(!is_routed(own), "{own}: {}", way(own));
    }
    let endpoints =
        scene.kubectl(&["get", "endpointslices", "-n", "default", "-o", "jsonpath={..addresses[*]}"]);
    assert!(!endpoints.contains("198.51.100.1"), "{endpoints}");

    // A second address, then only that one: what connections still use stays off the gateways.
    hosts.write(&[
        ("198.51.100.10", &name),
        ("198.51.100.11", &name),
        // Where no other route than the default one answers.
        ("198.51.100.200", "api.digitalocean.com"),
    ]);
    assert!(is_routed("198.51.100.201"), "the scene itself");
    until("the new address is protected", &false, SOON, || is_routed("198.51.100.11"));
    until("the cloud's new address is protected", &false, SOON, || is_routed("198.51.100.200"));
    assert!(!is_routed("198.51.100.10"));
    hosts.write(&[("198.51.100.12", &name)]);
    until("the next one is protected", &false, SOON, || is_routed("198.51.100.12"));
    assert!(!is_routed("198.51.100.10") && !is_routed("198.51.100.11"), "connections live there");
    assert!(!is_routed("198.51.100.200"), "connections live there");
    assert!(is_routed("198.51.100.13"));

    // The cloud gives the node another resolver.
    assert!(is_routed("67.207.67.4"), "the scene itself");
    metadata.says(Said::Resolvers("67.207.67.2\n67.207.67.4"));
    until("the new resolver is protected", &false, SOON, || is_routed("67.207.67.4"));
    until("the old one is not", &true, SOON, || is_routed("67.207.67.3"));

    // A restart remembers them too, and writes nothing.
    until_ready();
    let before = settled();
    agent.terminate();
    let monitor = Monitor::start(&["route", "rule", "nexthop"]);
    let agent = Agent::start_with_hosts(&scene, &named, &hosts);
    until_ready();
    assert_eq!(settled(), before);
    assert_eq!(monitor.stop(), Vec::<String>::new());
    assert!(!is_routed("198.51.100.10") && !is_routed("198.51.100.11"), "connections live there");
    drop(agent);
}

#[test]
fn without_the_api_servers_address_no_range_is_opened_and_what_is_routed_stays() {
    let scene = Scene::new();
    let hosts = Hosts::new(&[]);
    let unknown = ["--daemonset=", "--protected-names=", "--api-server-name=api.no-such-name.invalid"];
    let agent = Agent::start_with_hosts(&scene, &unknown, &hosts);
    let all = json!({"destinations": ["0.0.0.0/0", "192.0.2.80"], "gateways": [{"address": A}]});
    scene.route("all", &all);
    until("refused", &Some("ApiServerUnknown".to_owned()), SOON, || reason(&scene, "all"));
    assert_eq!(
        scene.state_of("all"),
        Some((NodeRouteState::Partial, 1)),
        "an address that is written out is routed"
    );
    let status = scene.status().unwrap();
    let failure = &status.routes[0].failures[0];
    assert_eq!(failure.destination, "0.0.0.0/0");
    assert!(failure.message.contains("--api-server-name="), "{}", failure.message);
    assert!(!is_routed("198.51.100.10") && is_routed("192.0.2.80"));
    let told = condition(&scene, "ApiServerUnknown").unwrap();
    assert!(told.0 == "True" && told.1.contains("api.no-such-name.invalid"), "{told:?}");

    // It is found: the range is opened, and its address is not in it.
    hosts.write(&[("198.51.100.10", "api.no-such-name.invalid")]);
    scene.until_applied("all", 2);
    assert!(!is_routed("198.51.100.10") && is_routed("198.51.100.11"));

    // An agent that is started while the name has no address leaves what is there, and opens nothing.
    agent.terminate();
    hosts.write(&[]);
    let before = ip("route show table 1157");
    let agent = Agent::start_with_hosts(&scene, &unknown, &hosts);
    scene.route(
        "more",
        &json!({"destinations": ["198.51.0.0/16", "20.0.0.0/8"], "gateways": [{"address": B}]}),
    );
    until("refused", &Some("ApiServerUnknown".to_owned()), SOON, || reason(&scene, "more"));
    assert_eq!(ip("route show table 1157"), before);
    drop(agent);
}

#[test]
fn while_the_metadata_service_is_silent_no_range_is_opened() {
    let scene = Scene::new();
    let metadata = MetadataService::start(Said::Nothing);
    let name = format!("{CLUSTER}.k8s.ondigitalocean.com");
    let hosts = Hosts::new(&[("198.51.100.10", &name), ("198.51.100.20", "api.example.com")]);
    let agent = Agent::start_with_hosts(&scene, &["--daemonset=", "--protected-names="], &hosts);
    let all = json!({"destinations": ["0.0.0.0/0", "192.0.2.80"], "gateways": [{"address": A}]});
    scene.route("all", &all);
    until("refused", &Some("ApiServerUnknown".to_owned()), SOON, || reason(&scene, "all"));
    assert_eq!(
        scene.state_of("all"),
        Some((NodeRouteState::Partial, 1)),
        "an address that is written out is routed"
    );
    let told = condition(&scene, "ApiServerUnknown").unwrap();
    let way_out = told.1.contains("metadata service") && told.1.contains("--api-server-name=");
    assert!(told.0 == "True" && way_out, "{told:?}");

    // It answers: the name's address is shut before the range around it is opened.
    let monitor = Monitor::start(&["route"]);
    metadata.says(Said::Resolvers(""));
    scene.until_applied("all", 2);
    let heard = monitor.stop();
    let place =
        |words: &str| heard.iter().position(|line| line.starts_with(words) && line.contains("table 1157"));
    assert!(place("throw 198.51.100.10").unwrap() < place("default ").unwrap(), "{heard:#?}");

    // Where there is no such service and nobody says so, the setting is enough.
    scene.delete_route("all");
    until("taken away", &String::new(), SOON, ours);
    agent.terminate();
    metadata.says(Said::Nothing);
    let named = ["--daemonset=", "--protected-names=", "--api-server-name=api.example.com"];
    let agent = Agent::start_with_hosts(&scene, &named, &hosts);
    scene.route("all", &all);
    scene.until_applied("all", 2);
    assert!(!is_routed("198.51.100.20") && is_routed("198.51.100.21"));
    drop(agent);
}

fn list(scene: &Scene, ranges: &str, names: &str) {
    scene.apply(&json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "egress-protected", "namespace": "default"},
        "data": {"ranges": ranges, "names": names}}));
}

fn condition(scene: &Scene, type_: &str) -> Option<(String, String)> {
    let status = scene.status()?;
    let condition = status.conditions.into_iter().find(|condition| condition.type_ == type_)?;
    Some((condition.status, condition.message))
}

#[test]
fn the_users_list_counts_as_it_changes_and_what_could_not_be_read_anew_stays() {
    let scene = Scene::new();
    let hosts = Hosts::new(&[("198.51.100.33", "vault.example.com")]);
    let listed =
        ["--daemonset=", "--protected-names=", "--namespace=default", "--service-range=10.99.0.0/16"];

    // Both at once: the exceptions are in the kernel before the range around them.
    let monitor = Monitor::start(&["route"]);
    scene.route("all", &json!({"destinations": ["0.0.0.0/0"], "gateways": [{"address": A}]}));
    list(&scene, "20.1.0.0/16 # partner\n192.0.2.99\n20.3.0.1/16\n", "vault.example.com");
    let agent = Agent::start_with_hosts(&scene, &listed, &hosts);
    scene.until_applied("all", 1);
    let heard = monitor.stop();
    let place =
        |words: &str| heard.iter().position(|line| line.starts_with(words) && line.contains("table 1157"));
    let opened = place("default ").unwrap();
    for shut in ["throw 20.1.0.0/16", "throw 192.0.2.99", "throw 198.51.100.33"] {
        assert!(place(shut).is_some_and(|place| place < opened), "{shut}: {heard:#?}");
    }
    for (to, routed) in
        [("20.1.2.3", false), ("192.0.2.99", false), ("198.51.100.33", false), ("20.2.2.3", true)]
    {
        assert_eq!(is_routed(to), routed, "{to}: {}", way(to));
    }
    assert!(!is_routed("10.245.0.1"), "the API server's own objects have the range of Services");
    // A bad line is named, and the others count.
    let told = "data.ranges, line 3: '20.3.0.1/16' has bits set behind its prefix length; write 20.3.0.0/16 or, for one host, leave \
                the length out";
    let bad = Some(("True".to_owned(), told.to_owned()));
    until("the bad line is told", &bad, SOON, || condition(&scene, "ProtectedListInvalid"));

    // Changed and mended.
    list(&scene, "20.2.0.0/16", "");
    until("another range", &(true, false), SOON, || (is_routed("20.1.2.3"), is_routed("20.2.2.3")));
    let mended = Some(("False".to_owned(), String::new()));
    until("mended", &mended, SOON, || condition(&scene, "ProtectedListInvalid"));

    // Without the API server it stays, also for an agent that never read it.
    scene.cut_off_api_server();
    agent.kill();
    let agent = Agent::start_with_hosts(&scene, &listed, &hosts);
    agent.until_says("keeping what the kernel holds");
    assert!(!is_routed("20.2.2.3") && is_routed("20.1.2.3"));
    scene.reconnect_api_server();
    until_ready();
    assert!(!is_routed("20.2.2.3") && is_routed("20.1.2.3"));

    // Deleted: what the agent protects by itself is left.
    scene.kubectl(&["delete", "configmap", "egress-protected", "-n", "default"]);
    until("opened", &true, SOON, || is_routed("20.2.2.3"));
    assert!(!is_routed("169.254.169.254"));
    drop(agent);
}

#[test]
fn what_the_main_table_answers_is_shadowed_until_that_route_goes() {
    let scene = Scene::new();
    let agent = Agent::start(&scene);
    scene.route("some", &json!({"destinations": ["192.0.2.80", "203.0.113.77"], "gateway": A}));
    scene.until_applied("some", 2);
    assert!(is_routed("203.0.113.77"), "in the public on-link subnet: {}", way("203.0.113.77"));
    assert!(!is_routed("203.0.113.78"));
    ip("route add 192.0.2.0/24 via 203.0.113.1");
    until("shadowed", &Some("Shadowed".to_owned()), SOON, || reason(&scene, "some"));
    let status = scene.status().unwrap();
    assert!(status.routes[0].failures[0].message.contains("192.0.2.0/24"), "{:?}", status.routes[0].failures);
    assert_eq!(scene.state_of("some"), Some((NodeRouteState::Partial, 1)));
    assert!(!is_routed("192.0.2.80"));
    // No packet in between: our route is there all the time.
    ip("route del 192.0.2.0/24 via 203.0.113.1");
    assert!(is_routed("192.0.2.80"));
    scene.until_applied("some", 2);
    // A route for all of the public subnet's part is narrower than the link's.
    ip("route add 203.0.113.64/26 via 203.0.113.1");
    until("shadowed", &Some("Shadowed".to_owned()), SOON, || reason(&scene, "some"));
    ip("route del 203.0.113.64/26 via 203.0.113.1");
    scene.until_applied("some", 2);
    assert!(is_routed("203.0.113.77"));
    drop(agent);
}
