//! Objects that are older than the rules: every bad value of the table in `docs/bad-input.md`, at one node, at the same time.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::Stdio;

use egress_api::{NodeRoute, NodeRouteState};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Value, json};

use crate::cloud::{A, A_PUBLIC, NODE_PUBLIC, ours, seen_from, sh, until};
use crate::scene::{Agent, LISTED, SOON, Scene, settled, until_ready};

#[allow(dead_code, reason = "the API server's half is read by that crate's own test")]
#[path = "../../../api/tests/bad_input/cases/mod.rs"]
mod cases;

use cases::{Case, Kind, Node};

/// The definitions as they were before there was any rule.
fn loosened() -> Vec<CustomResourceDefinition> {
    let definitions = egress_api::custom_resource_definitions().into_iter();
    let loosen = |(_, definition)| {
        let mut definition = serde_json::to_value(definition).unwrap();
        let schema = &mut definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        schema["properties"]["spec"] = json!({"x-kubernetes-preserve-unknown-fields": true});
        if let Some(fields) = schema.as_object_mut() {
            fields.remove("required");
            fields.remove("x-kubernetes-validations");
        }
        serde_json::from_value(definition).unwrap()
    };
    definitions.map(loosen).collect()
}

/// A row as an object, and how it was while it was good.
struct Row {
    case: Case,
    name: String,
    destination: String,
}

impl Row {
    fn object(&self, spec: &Value) -> Value {
        let version = if self.case.kind == Kind::StaticRoute { "v1" } else { "v1alpha1" };
        json!({"apiVersion": format!("networking.digitalocean.com/{version}"), "kind": format!("{:?}", self.case.kind),
            "metadata": {"name": self.name}, "spec": spec})
    }

    fn good(&self) -> Value {
        self.object(&json!({"destinations": [self.destination], "gateway": A, "publicIP": "Ephemeral"}))
    }

    fn bad(&self) -> Value {
        let spec = self.case.spec.to_string().replace(cases::OWN, &self.destination);
        self.object(&serde_json::from_str(&spec).unwrap())
    }

    /// What the node's report is not, and should be.
    fn difference(&self, said: Option<&NodeRoute>) -> Option<String> {
        let first =
            |route: &NodeRoute| route.failures.first().map(|one| (one.reason.clone(), one.message.clone()));
        let unusable = |route: &NodeRoute| {
            route.unusable_gateways.first().map(|one| (one.reason.clone(), one.message.clone()))
        };
        let whole = |route: &NodeRoute| Some((route.reason.clone()?, route.message.clone()?));
        let (state, told, expected) = match &self.case.node {
            Node::Keeps(words) => {
                let words = format!("what this node has of it stays; {words}");
                (NodeRouteState::NotApplied, said.and_then(whole), Some(("Unreadable", words)))
            }
            Node::Nothing(reason, words) => {
                (NodeRouteState::NotApplied, said.and_then(whole), Some((*reason, words.clone())))
            }
            Node::Follows(reason, words) => {
                let words = format!("{words}; the gateways it had last stay in use");
                (NodeRouteState::Applied, said.and_then(whole), Some((*reason, words)))
            }
            Node::LeavesOut(reason, words) => {
                (NodeRouteState::Partial, said.and_then(first), Some((*reason, words.clone())))
            }
            Node::WithoutGateway(reason, words) => {
                (NodeRouteState::Applied, said.and_then(unusable), Some((*reason, words.clone())))
            }
            Node::Routes => (NodeRouteState::Applied, said.and_then(whole), None),
            Node::Passes | Node::Warns(_) | Node::Ignores => {
                return said.map(|said| format!("{}: {said:?}", self.title()));
            }
        };
        let fits = match (&told, &expected) {
            (None, None) => true,
            (Some((reason, words)), Some((expected, whole))) => {
                // A sentence of a report is cut where it is too long.
                reason == expected
                    && (words == whole
                        || words.strip_suffix('…').is_some_and(|start| whole.starts_with(start)))
            }
            _ => false,
        };
        let is_so = said.map(|said| said.state) == Some(state) && fits;
        (!is_so).then(|| format!("{}: expected {state:?} {expected:?}, said {said:?}", self.title()))
    }

    fn title(&self) -> String {
        format!("{} {}, {}", self.name, self.case.field, self.case.bad)
    }

    fn is_routed(&self) -> bool {
        match self.case.node {
            Node::Keeps(_) | Node::Follows(..) | Node::LeavesOut(..) | Node::WithoutGateway(..) => true,
            // Another destination, with one of them.
            Node::Routes => self.case.spec["destinations"][0] == cases::OWN,
            Node::Nothing(..) | Node::Passes | Node::Warns(_) | Node::Ignores => false,
        }
    }
}

fn rows() -> Vec<Row> {
    let row = |(number, case): (usize, Case)| Row {
        name: format!("row-{number:03}"),
        destination: format!("198.{}.{}.0/24", 18 + number / 256, number % 256),
        case,
    };
    cases::all().into_iter().enumerate().map(row).collect()
}

fn kubectl(scene: &Scene, arguments: &[&str], objects: &[Value]) {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    let mut command = scene.server.kubectl();
    command.args(arguments).args(["--validate=false", "-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(list.to_string().as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

fn until_said(scene: &Scene, rows: &[Row]) {
    until("every row is told as the table says", &Vec::<String>::new(), SOON, || {
        let routes = scene.status().unwrap_or_default().routes;
        let said: BTreeMap<&str, &NodeRoute> =
            routes.iter().map(|route| (route.name.as_str(), route)).collect();
        rows.iter().filter_map(|row| row.difference(said.get(row.name.as_str()).copied())).collect()
    });
}

#[test]
fn objects_older_than_the_rules_are_named_and_cost_no_other_its_routes() {
    let scene = Scene::new();
    scene.install(loosened());
    let agent = Agent::start(&scene);
    scene.route("witness", &json!({"destinations": [LISTED.to_string()], "gateway": A}));
    let rows = rows();
    let routes = || rows.iter().filter(|row| row.case.kind == Kind::StaticRoute);
    kubectl(&scene, &["create"], &routes().map(Row::good).collect::<Vec<_>>());
    let all = Some(format!("{0}/{0}", routes().count() + 1));
    until("all are good", &all, SOON, || scene.status()?.summary);

    kubectl(&scene, &["replace"], &routes().map(Row::bad).collect::<Vec<_>>());
    let gateways = rows.iter().filter(|row| row.case.kind == Kind::EgressGateway);
    kubectl(&scene, &["create"], &gateways.map(Row::bad).collect::<Vec<_>>());
    until_said(&scene, &rows);
    let condition = || {
        let conditions = scene.status().unwrap_or_default().conditions;
        conditions
            .into_iter()
            .find(|one| one.type_ == "EgressGatewayUnreadable")
            .map(|one| (one.status, one.message))
    };
    let unreadable = |row: &&Row| matches!(row.case.node, Node::Warns(_));
    let first = rows.iter().find(unreadable).unwrap();
    let Node::Warns(why) = &first.case.node else { unreachable!() };
    let told = format!(
        "EgressGateway {} and {} more can't be read: {why}; gateways of it that wait to be proven are not probed, and what is \
         routed stays",
        first.name,
        rows.iter().filter(unreadable).count() - 1
    );
    until("the EgressGateways are told of", &Some(("True".to_owned(), told)), SOON, condition);

    let check = || {
        assert_eq!(seen_from(LISTED), Some(A_PUBLIC), "the others' routes");
        let table = sh("ip -4 route show table 1157");
        let is_there =
            |row: &Row| table.lines().any(|line| line.starts_with(&format!("{} nhid", row.destination)));
        let wrong: Vec<String> =
            routes().filter(|row| is_there(row) != row.is_routed()).map(Row::title).collect();
        assert_eq!(wrong, [""; 0], "routed and should not be, or the other way round\n{table}");
    };
    check();

    // An agent that never saw them good can't tell whose routes are whose: it takes none away, and says the same.
    until_ready();
    let before = settled();
    agent.terminate();
    let agent = Agent::start(&scene);
    until_ready();
    until_said(&scene, &rows);
    assert_eq!(settled(), before);
    check();

    // They go, and theirs goes.
    let api = "/apis/networking.digitalocean.com";
    scene.kubectl(&["delete", "--raw", &format!("{api}/v1alpha1/egressgateways")]);
    let rows = "fieldSelector=metadata.name!%3Dwitness";
    scene.kubectl(&["delete", "--raw", &format!("{api}/v1/staticroutes?{rows}")]);
    until("nothing of theirs is left", &false, SOON, || ours().contains("198.18."));
    assert_eq!(seen_from(LISTED), Some(A_PUBLIC));
    until("the condition is over", &Some(("False".to_owned(), String::new())), SOON, condition);
    scene.delete_route("witness");
    until("with the node's own address", &Some(NODE_PUBLIC), SOON, || seen_from(LISTED));
    agent.terminate();
}
