//! The CRDs against a real API server: what it takes and how it shows it. What it refuses: `bad_input`.

#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use std::io::Write;
use std::process::{Output, Stdio};

use serde_json::json;
use testkit::ApiServer;

fn kubectl(server: &ApiServer, arguments: &[&str], input: &str) -> Output {
    let mut command = server.kubectl();
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

fn static_route(spec: &str) -> String {
    format!(
        "apiVersion: networking.digitalocean.com/v1\nkind: StaticRoute\nmetadata: {{name: bad}}\nspec: {spec}\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_takes_what_is_right_and_refuses_the_rest_with_field_and_fix() {
    let server = ApiServer::start().await.unwrap();
    let definitions = egress_api::custom_resource_definitions();
    server.install(definitions.into_iter().map(|(_, definition)| definition).collect()).await.unwrap();

    let name = "a-name-that-is-much-too-long-for-the-host-name-of-a-droplet";
    let object = json!({"apiVersion": "networking.digitalocean.com/v1alpha1", "kind": "EgressGateway",
        "metadata": {"name": name}, "spec": {"destinations": ["1.1.1.1"], "publicIP": "Ephemeral"}});
    let said = text(&kubectl(&server, &["apply", "-f", "-"], &object.to_string()).stderr);
    let words = "metadata.name must be at most 50 characters: it becomes part of the Droplets' host names; choose a shorter name";
    assert!(said.contains(words), "{said}");

    // The older operator's manifests and every example, unchanged.
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    for folder in ["examples", "tests/seeds"] {
        let output = kubectl(&server, &["apply", "--validate=strict", "-f", &format!("{root}/{folder}")], "");
        assert!(output.status.success(), "{folder}: {}", text(&output.stderr));
    }

    let many: Vec<_> = (0..10_000).map(|n| format!("1.{}.{}.0/24", n / 250, n % 250)).collect();
    let object = static_route(&format!("{{gateway: 10.116.0.5, destinations: {many:?}}}"));
    let output = kubectl(&server, &["apply", "--server-side", "-f", "-"], &object);
    assert!(output.status.success(), "10,000 destinations: {}", text(&output.stderr));

    let columns =
        |arguments: &[&str]| text(&kubectl(&server, arguments, "").stdout).lines().next().unwrap().to_owned();
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(words(&columns(&["get", "sr"])), ["NAME", "READY", "NODES", "AGE"]);
    assert_eq!(
        words(&columns(&["get", "sr", "-o", "wide"])),
        ["NAME", "READY", "NODES", "DESTINATIONS", "GATEWAY", "AGE"]
    );
    assert_eq!(
        words(&columns(&["get", "egw"])),
        ["NAME", "ACTIVE", "EGRESS-IP", "GATEWAYS", "NODES", "READY", "AGE"]
    );
    let wide = text(&kubectl(&server, &["get", "sr", "primary", "-o", "wide", "--no-headers"], "").stdout);
    assert!(wide.contains("[\"34.160.111.145\"]") && wide.contains("10.116.0.5"), "{wide}");

    // A node says what is wrong with it as a whole, and nothing while all is well.
    for (name, conditions) in
        [("quiet", ""), ("over", "Clash=False"), ("two", "Early=False Clash=True Late=True")]
    {
        let report = json!({"apiVersion": "networking.digitalocean.com/v1alpha1", "kind": "NodeEgress",
            "metadata": {"name": name}});
        kubectl(&server, &["apply", "-f", "-"], &report.to_string());
        let conditions: Vec<_> =
            conditions.split_whitespace().map(|one| one.split_once('=').unwrap()).collect();
        let conditions: Vec<_> = conditions
            .iter()
            .map(|(type_, status)| {
                json!({"type": type_, "status": status, "reason": "Test", "message": "", "lastTransitionTime": "2026-11-21T00:00:00Z"})
            })
            .collect();
        let patch = json!({"status": {"summary": "1/1", "conditions": conditions}}).to_string();
        let patched = kubectl(
            &server,
            &["patch", "ne", name, "--subresource=status", "--type=merge", "-p", &patch],
            "",
        );
        assert!(patched.status.success(), "{}", text(&patched.stderr));
    }
    let shown = text(&kubectl(&server, &["get", "ne"], "").stdout);
    // Without the age.
    let rows: Vec<_> = shown.lines().map(|line| line[..24].trim_end()).collect();
    let expected = ["NAME    ROUTES   TROUBLE", "over    1/1", "quiet   1/1", "two     1/1      Clash"];
    assert_eq!(rows, expected, "{shown}");

    // `kubectl explain` reads like documentation: every field says something.
    for kind in ["egressgateway", "staticroute", "nodeegress"] {
        let explained = text(&kubectl(&server, &["explain", kind, "--recursive=false"], "").stdout);
        assert!(explained.contains("DESCRIPTION"), "{explained}");
    }
    let explained = text(&kubectl(&server, &["explain", "egressgateway.spec"], "").stdout);
    assert!(!explained.contains("<no description>"), "{explained}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_refuses_changes_that_would_take_addresses_away() {
    let server = ApiServer::start().await.unwrap();
    let definitions = egress_api::custom_resource_definitions();
    server.install(definitions.into_iter().map(|(_, definition)| definition).collect()).await.unwrap();
    let gateway = |name: &str, spec: &str| {
        let head = "apiVersion: networking.digitalocean.com/v1alpha1\nkind: EgressGateway\n";
        format!("{head}metadata: {{name: {name}}}\nspec: {{destinations: [192.0.2.1], {spec}}}\n")
    };
    let apply_as = |name: &str, spec: &str| {
        let output = kubectl(&server, &["apply", "-f", "-"], &gateway(name, spec));
        if output.status.success() { Ok(()) } else { Err(text(&output.stderr)) }
    };
    let apply = |spec: &str| apply_as("demo", spec);
    let one = "publicIP: ReservedPerGateway, reservedIPs: [203.0.113.40]";
    assert_eq!(apply(one), Ok(()));
    for (change, words) in [
        ("publicIP: Ephemeral", "spec.publicIP: Invalid value"),
        (
            "publicIP: Ephemeral",
            "cannot be changed, because the addresses that partners admit would change with it",
        ),
        ("publicIP: ReservedPerGateway", "an address that is in use cannot be taken out"),
        ("publicIP: ReservedPerGateway, reservedIPs: [203.0.113.41]", "make another EgressGateway"),
    ] {
        let refused = apply(change).unwrap_err();
        assert!(refused.contains(words), "{change}: {refused}");
    }
    assert_eq!(apply("publicIP: ReservedPerGateway, reservedIPs: [203.0.113.40, 203.0.113.41]"), Ok(()));
    assert_eq!(
        apply(
            "publicIP: ReservedPerGateway, reservedIPs: [203.0.113.41, 203.0.113.40], deletionPolicy: Retain"
        ),
        Ok(())
    );

    // Of one address that moves nothing can be added either: it would be another one.
    assert_eq!(apply_as("moves", "publicIP: Floating"), Ok(()));
    let refused = apply_as("moves", "publicIP: Floating, reservedIPs: [203.0.113.42]").unwrap_err();
    assert!(refused.contains("the address is chosen when the EgressGateway is made"), "{refused}");
    assert_eq!(apply_as("moves", "publicIP: Floating, replicas: 3"), Ok(()));
    assert_eq!(apply_as("given", "publicIP: Floating, reservedIPs: [203.0.113.42]"), Ok(()));
    assert_eq!(apply_as("given", "publicIP: Floating, reservedIPs: [203.0.113.42], replicas: 3"), Ok(()));
}
