//! The CRDs against a real API server: what it takes, what it refuses, and the exact words.

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

const EXACTLY_ONE: &str = "give exactly one of gateway (one address), gateways (an ordered list) and gatewayRef (an EgressGateway, whose list is followed)";

struct Refusal {
    object: String,
    words: &'static str,
}

fn static_route(spec: &str) -> String {
    format!(
        "apiVersion: networking.digitalocean.com/v1\nkind: StaticRoute\nmetadata: {{name: bad}}\nspec: {spec}\n"
    )
}

fn egress_gateway(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.digitalocean.com/v1alpha1\nkind: EgressGateway\nmetadata: {{name: {name}}}\nspec: {spec}\n"
    )
}

fn refusals() -> Vec<Refusal> {
    let route = |spec: &str, words| Refusal { object: static_route(spec), words };
    let gateway = |spec: &str, words| Refusal { object: egress_gateway("bad", spec), words };
    vec![
        route(
            "{destinations: [1.1.1.1, 999.1.1.1], gateway: 10.116.0.5}",
            "spec.destinations[1]: Invalid value: \"999.1.1.1\": '999.1.1.1' is neither an IPv4 address nor a prefix; write it like 203.0.113.7 or 203.0.113.0/24",
        ),
        route(
            "{destinations: [10.9.0.1/24], gateway: 10.116.0.5}",
            "spec.destinations[0]: Invalid value: \"10.9.0.1/24\": '10.9.0.1/24' has bits set behind its prefix length; clear them (10.9.0.0/24, not 10.9.0.1/24) or, for one host, leave the length out",
        ),
        route(
            "{destinations: [\"2001:db8::/32\"], gateway: 10.116.0.5}",
            "spec.destinations[0]: Invalid value: \"2001:db8::/32\": '2001:db8::/32' is IPv6, which DigitalOcean Kubernetes nodes do not have; remove it",
        ),
        route(
            "{destinations: [0.0.0.0], gateway: 10.116.0.5}",
            "spec.destinations[0]: Invalid value: \"0.0.0.0\": 0.0.0.0 is no destination; write 0.0.0.0/0 for all egress",
        ),
        route(
            "{destinations: [1.1.1.1], gateway: 10.116.0.5, gateways: [{address: 10.116.0.5}]}",
            EXACTLY_ONE,
        ),
        route(
            "{destinations: [1.1.1.1], gateways: [{address: 10.116.0.5}], gatewayRef: {name: demo}}",
            EXACTLY_ONE,
        ),
        route("{destinations: [1.1.1.1], gateway: 10.116.0.5, gatewayRef: {name: demo}}", EXACTLY_ONE),
        route("{destinations: [1.1.1.1]}", EXACTLY_ONE),
        route("{destinations: [1.1.1.1], gatewayRef: {}}", "spec.gatewayRef.name: Required value"),
        route(
            "{destinations: [1.1.1.1], gatewayRef: {name: Demo}}",
            "spec.gatewayRef.name in body should match '^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$'",
        ),
        route(
            "{destinations: [0.0.0.0/0], excludedDestinations: [10.0.0.1/8], gateway: 10.116.0.5}",
            "spec.excludedDestinations[0]: Invalid value: \"10.0.0.1/8\": '10.0.0.1/8' has bits set behind its prefix length; clear them (10.9.0.0/24, not 10.9.0.1/24) or, for one host, leave the length out",
        ),
        route(
            "{destinations: [0.0.0.0/0], excludedDestinations: [\"2001:db8::/32\"], gateway: 10.116.0.5}",
            "spec.excludedDestinations[0]: Invalid value: \"2001:db8::/32\": '2001:db8::/32' is IPv6, which DigitalOcean Kubernetes nodes do not have; remove it",
        ),
        gateway(
            "{destinations: [0.0.0.0/0], excludedDestinations: [10.0.0.0/8, private], publicIP: Ephemeral}",
            "spec.excludedDestinations[1]: Invalid value: \"private\": 'private' is neither an IPv4 address nor a prefix; write it like 203.0.113.7 or 203.0.113.0/24",
        ),
        Refusal {
            object: static_route(&format!(
                "{{destinations: [0.0.0.0/0], gateway: 10.116.0.5, excludedDestinations: {:?}}}",
                (0..1_001).map(|n| format!("1.{}.{}.0/24", n / 250, n % 250)).collect::<Vec<_>>()
            )),
            words: "spec.excludedDestinations: Too many: 1001: must have at most 1000 items",
        },
        route(
            "{destinations: [], gateway: 10.116.0.5}",
            "spec.destinations in body should have at least 1 items",
        ),
        route("{gateway: 10.116.0.5}", "spec.destinations: Required value"),
        route(
            "{destinations: [1.1.1.1], gateway: 10.116.0.0/20}",
            "spec.gateway: Invalid value: \"10.116.0.0/20\": '10.116.0.0/20' is not an IPv4 address; write the gateway's private address, like 10.116.0.5",
        ),
        route(
            "{destinations: [1.1.1.1], gateways: [{address: \"fe80::1\"}]}",
            "spec.gateways[0].address: Invalid value: \"fe80::1\": 'fe80::1' is IPv6, which DigitalOcean Kubernetes nodes do not have; write the gateway's private IPv4 address",
        ),
        route(
            "{destinations: [1.1.1.1], gateway: 10.116.0.5, nodeSelector: {matchExpressions: [{key: pool, operator: Has}]}}",
            "spec.nodeSelector.matchExpressions[0].operator: Unsupported value: \"Has\": supported values: \"In\", \"NotIn\", \"Exists\", \"DoesNotExist\"",
        ),
        route(
            "{destinations: [1.1.1.1], gateway: 10.116.0.5, nodeSelector: {matchExpressions: [{key: pool, operator: In}]}}",
            "operators In and NotIn need values, Exists and DoesNotExist take none",
        ),
        route(
            "{destinations: [1.1.1.1], gateway: 10.116.0.5, nodeSelector: {matchLabels: {pool: \"not a label\"}}}",
            "spec.nodeSelector.matchLabels.pool: Invalid value: \"not a label\"",
        ),
        route(
            "{destinations: [1.1.1.1], gateway: 10.116.0.5, mode: ActiveActive}",
            "mode ActiveActive shares the traffic among several gateways; write gateways (a list) or gatewayRef instead of gateway, or leave mode out",
        ),
        route(
            "{destinations: [1.1.1.1], gateways: [{address: 10.116.0.5}], mode: Balanced}",
            "spec.mode: Unsupported value: \"Balanced\": supported values: \"ActiveStandby\", \"ActiveActive\"",
        ),
        route(
            "{destinations: [1.1.1.1], gateways: [{address: 10.116.0.5, weight: 0}]}",
            "spec.gateways[0].weight in body should be greater than or equal to 1",
        ),
        route(
            "{destinations: [1.1.1.1], gateways: [{address: 10.116.0.5, weight: 257}]}",
            "spec.gateways[0].weight in body should be less than or equal to 256",
        ),
        gateway(
            "{destinations: [1.1.1.1], publicIP: Ephemeral, mode: Both}",
            "spec.mode: Unsupported value: \"Both\": supported values: \"ActiveStandby\", \"ActiveActive\"",
        ),
        gateway(
            "{destinations: [], publicIP: Ephemeral}",
            "spec.destinations in body should have at least 1 items",
        ),
        gateway("{publicIP: Ephemeral}", "spec.destinations: Required value"),
        gateway("{destinations: [1.1.1.1]}", "spec.publicIP: Required value"),
        gateway(
            "{destinations: [1.1.1.1], publicIP: Fixed}",
            "spec.publicIP: Unsupported value: \"Fixed\": supported values: \"Ephemeral\"",
        ),
        gateway(
            "{destinations: [1.1.1.1], publicIP: Ephemeral, replicas: 9}",
            "spec.replicas in body should be less than or equal to 5",
        ),
        gateway(
            "{destinations: [1.1.1.1], publicIP: Ephemeral, droplet: {tags: [\"k8s:x\"]}}",
            "tags that begin with egress- are the controller's own, those that begin with k8s DigitalOcean's; choose others",
        ),
        gateway(
            "{destinations: [1.1.1.1], publicIP: Ephemeral, healthCheck: {targets: [\"1.1.1.1.1:90\"]}}",
            "'1.1.1.1.1:90' is not an IPv4 address and a port; write it like 1.1.1.1:443",
        ),
        gateway(
            "{destinations: [\"::/0\"], publicIP: Ephemeral}",
            "'::/0' is IPv6, which DigitalOcean Kubernetes nodes do not have; remove it",
        ),
        Refusal {
            object: egress_gateway(
                "a-name-that-is-much-too-long-for-the-host-name-of-a-droplet",
                "{destinations: [1.1.1.1], publicIP: Ephemeral}",
            ),
            words: "metadata.name must be at most 50 characters: it becomes part of the Droplets' host names; choose a shorter name",
        },
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_takes_what_is_right_and_refuses_the_rest_with_field_and_fix() {
    let server = ApiServer::start().await.unwrap();
    let definitions = egress_api::custom_resource_definitions();
    server.install(definitions.into_iter().map(|(_, definition)| definition).collect()).await.unwrap();

    for refusal in refusals() {
        let output = kubectl(&server, &["apply", "-f", "-"], &refusal.object);
        let said = text(&output.stderr);
        assert!(!output.status.success(), "was taken: {}", refusal.object);
        assert!(said.contains(refusal.words), "expected {:?} in:\n{said}", refusal.words);
    }

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
