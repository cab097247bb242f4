//! Bad input of every field against a real API server: exact words, and no field and no rule left out.

#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod cases;
mod schema;

use std::fmt::Write;

use cases::{Case, Kind, Node};
use futures::StreamExt;
use kube::Client;
use schema::SchemaRule;
use serde_json::{Value, json};
use testkit::ApiServer;

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::StaticRoute => "StaticRoute",
            Self::EgressGateway => "EgressGateway",
        }
    }

    fn version(self) -> &'static str {
        match self {
            Self::StaticRoute => "v1",
            Self::EgressGateway => "v1alpha1",
        }
    }
}

/// What the API server says to an object, without storing it; `None` when it takes it. As strict as kubectl asks it to be.
async fn refusal(client: &Client, kind: Kind, spec: &Value) -> Option<String> {
    let (name, version) = (kind.name(), kind.version());
    let object = json!({"apiVersion": format!("networking.digitalocean.com/{version}"), "kind": name,
        "metadata": {"name": "bad"}, "spec": spec});
    let plural = name.to_lowercase() + "s";
    let path =
        format!("/apis/networking.digitalocean.com/{version}/{plural}?dryRun=All&fieldValidation=Strict");
    let request = http::Request::post(path).header("content-type", "application/json");
    match client.request_text(request.body(object.to_string().into_bytes()).unwrap()).await {
        Ok(_) => None,
        Err(kube::Error::Api(status)) => Some(status.message.clone()),
        Err(error) => Some(format!("no refusal: {error}")),
    }
}

async fn server() -> ApiServer {
    let server = ApiServer::start().await.unwrap();
    let definitions = egress_api::custom_resource_definitions();
    server.install(definitions.into_iter().map(|(_, definition)| definition).collect()).await.unwrap();
    server
}

fn rules_of(kind: Kind) -> Vec<SchemaRule> {
    let definitions = egress_api::custom_resource_definitions();
    let definition = definitions.into_iter().find(|(_, one)| one.spec.names.kind == kind.name()).unwrap().1;
    let definition = serde_json::to_value(definition).unwrap();
    let spec = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let mut rules = Vec::new();
    schema::rules("spec", spec, &mut rules);
    rules
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bad_value_of_every_field_is_refused_with_field_and_fix() {
    let server = server().await;
    let client = server.admin().unwrap();
    let wrong = futures::stream::iter(cases::all()).map(|case| {
        let client = client.clone();
        async move {
            let said = refusal(&client, case.kind, &case.spec).await;
            let fits = said.as_ref().is_some_and(|said| said.contains(&case.refused));
            (!fits).then(|| {
                format!(
                    "{:?} {}, {}\n  expected: {}\n  said: {said:?}",
                    case.kind, case.field, case.bad, case.refused
                )
            })
        }
    });
    let wrong: Vec<Option<String>> = wrong.buffered(8).collect().await;
    let wrong: Vec<String> = wrong.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    // What is odd and right.
    let route = |changes: &Value| {
        let mut spec = json!({"destinations": ["198.18.0.0/24"], "gateway": "10.116.0.5"});
        spec.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        spec
    };
    for spec in [
        route(&json!({"destinations": ["1.1.1.1", "1.1.1.1", "1.1.1.1/32"]})),
        route(&json!({"destinations": ["0.0.0.0/0"]})),
        route(&json!({"destinations": ["0.0.0.0/1", "128.0.0.0/1", "255.255.255.255"]})),
        route(&json!({"excludedDestinations": []})),
        // As templates leave what is not set.
        route(&json!({"gateways": null, "gatewayRef": null, "nodeSelector": null})),
        route(&json!({"nodeSelector": {}})),
        route(&json!({"nodeSelector": {"matchLabels": {"doks.digitalocean.com/node-pool": ""}}})),
    ] {
        assert_eq!(refusal(&client, Kind::StaticRoute, &spec).await, None, "{spec}");
    }
}

#[test]
fn no_field_and_no_rule_of_a_schema_is_without_a_bad_value() {
    let cases = cases::all();
    for kind in [Kind::StaticRoute, Kind::EgressGateway] {
        let shows = |case: &Case, rule: &SchemaRule| {
            case.kind == kind && case.field == rule.field && case.refused.contains(&rule.words)
        };
        let rules = rules_of(kind);
        let missing: Vec<_> =
            rules.iter().filter(|rule| !cases.iter().any(|case| shows(case, rule))).collect();
        assert!(missing.is_empty(), "{kind:?}: rows are missing for {missing:#?}");
        let unknown = |case: &&Case| case.kind == kind && !rules.iter().any(|rule| rule.field == case.field);
        assert_eq!(cases.iter().find(unknown).map(|case| case.field), None, "there is no such field");
    }
}

/// `docs/bad-input.md`, whole.
fn document() -> String {
    let mut text = include_str!("document.md").to_owned();
    for kind in [Kind::StaticRoute, Kind::EgressGateway] {
        writeln!(text, "\n## {}\n", kind.name()).unwrap();
        writeln!(
            text,
            "| field | bad value | the API server says | a node says |\n| --- | --- | --- | --- |"
        )
        .unwrap();
        for case in cases::all().iter().filter(|case| case.kind == kind) {
            let node = match &case.node {
                Node::Keeps(words) => format!("`Unreadable`: {words}"),
                Node::Nothing(reason, words) => format!("nothing, `{reason}`: {words}"),
                Node::Follows(reason, words) => format!("what it had last, `{reason}`: {words}"),
                Node::LeavesOut(reason, words) => format!("the others, `{reason}`: {words}"),
                Node::WithoutGateway(reason, words) => format!("without that gateway, `{reason}`: {words}"),
                Node::Warns(words) => format!("`EgressGatewayUnreadable`: {words}"),
                Node::Routes => "routes it".to_owned(),
                Node::Passes => "is not selected".to_owned(),
                Node::Ignores => "(the controller's)".to_owned(),
            };
            let cells = [&format!("`{}`", case.field), &case.bad, &case.refused, &node].map(|cell| cut(cell));
            writeln!(text, "| {} |", cells.join(" | ")).unwrap();
        }
    }
    text
}

/// A cell of the table.
fn cut(text: &str) -> String {
    let text = text.replace('|', "\\|");
    if text.len() > 300 { format!("{}…", &text[..120]) } else { text }
}

#[test]
fn the_document_shows_every_row() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/bad-input.md");
    if std::env::var_os("WRITE_BAD_INPUT").is_some() {
        std::fs::write(path, document()).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(written == document(), "docs/bad-input.md is old: run this test with WRITE_BAD_INPUT=1");
}
