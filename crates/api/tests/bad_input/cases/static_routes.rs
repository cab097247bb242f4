//! What only a StaticRoute has: its gateways.

use serde_json::{Value, json};

use super::{Case, GATEWAYS, Kind, Node, row};

const NOT_ONE: &str = "give exactly one of gateway (one address), gateways (an ordered list) and gatewayRef (an EgressGateway, whose list is followed)";
pub fn rows(all: &mut Vec<Case>) {
    let mut add = |field, bad: &str, patch: &Value, refused: &str, node| {
        all.push(row(Kind::StaticRoute, field, bad, patch, refused, node));
    };
    let keeps = |words: &str| Node::Keeps(words.to_owned());
    add(
        "spec",
        "a field that there is not",
        &json!({"destination": "1.1.1.1"}),
        "strict decoding error: unknown field \"spec.destination\"",
        Node::Routes,
    );
    let list = json!([{"address": GATEWAYS[0]}]);
    let reference = json!({"name": "demo"});
    for (given, patch) in [
        (0, json!({"gateway": null})),
        (2, json!({"gateways": list})),
        (2, json!({"gatewayRef": reference})),
        (2, json!({"gateway": null, "gateways": list, "gatewayRef": reference})),
        (3, json!({"gateways": list, "gatewayRef": reference})),
    ] {
        let words = format!("spec: give exactly one of gateway, gateways and gatewayRef; there are {given}");
        add("spec", &format!("{given} ways to give gateways"), &patch, NOT_ONE, Node::Keeps(words));
    }
    add(
        "spec",
        "onNoGateway for a gateway that nobody watches",
        &json!({"onNoGateway": "FailClosed"}),
        "onNoGateway needs to know whether the gateway works; add healthCheck, or write gateways (a list) instead of gateway",
        keeps("spec.onNoGateway: nobody knows whether the gateway works; add healthCheck, or write gateways"),
    );
    add(
        "spec",
        "ActiveActive with one gateway",
        &json!({"mode": "ActiveActive"}),
        "mode ActiveActive shares the traffic among several gateways; write gateways (a list) or gatewayRef instead of gateway, or leave mode out",
        keeps(
            "spec.mode: ActiveActive shares the traffic among several gateways; write gateways or gatewayRef instead of gateway",
        ),
    );
    let no_object = json!("everything");
    let words = "spec in body must be of type object: \"string\"";
    let node = keeps("spec: invalid type: string \"everything\", expected struct StaticRouteSpec");
    add("spec", "no object", &no_object, words, node);
    add(
        "spec.mode",
        "unknown",
        &json!({"gateway": null, "gateways": list, "mode": "Balanced"}),
        "spec.mode: Unsupported value: \"Balanced\": supported values: \"ActiveStandby\", \"ActiveActive\"",
        keeps("spec.mode: unknown variant `Balanced`, expected `ActiveStandby` or `ActiveActive`"),
    );
    add(
        "spec.mode",
        "wrong case",
        &json!({"mode": "activestandby"}),
        "spec.mode: Unsupported value: \"activestandby\": supported values: \"ActiveStandby\", \"ActiveActive\"",
        keeps("spec.mode: unknown variant `activestandby`, expected `ActiveStandby` or `ActiveActive`"),
    );
    add(
        "spec.mode",
        "a number",
        &json!({"mode": 2}),
        "spec.mode in body must be of type string: \"integer\"",
        keeps("spec.mode: invalid type: integer `2`, expected string or map"),
    );
    references(all);
    one_gateway(all);
    list_of_gateways(all);
}

fn references(all: &mut Vec<Case>) {
    let mut add = |field, bad: &str, reference: Value, refused: &str, node| {
        let patch = json!({"gateway": null, "gatewayRef": reference});
        all.push(row(Kind::StaticRoute, field, bad, &patch, refused, node));
    };
    let field = "spec.gatewayRef";
    add(
        field,
        "a word",
        json!("demo"),
        "spec.gatewayRef in body must be of type object: \"string\"",
        Node::Keeps("spec.gatewayRef: invalid type: string \"demo\", expected struct GatewayRef".to_owned()),
    );
    let field = "spec.gatewayRef.name";
    add(
        field,
        "missing",
        json!({}),
        "spec.gatewayRef.name: Required value",
        Node::Keeps("spec.gatewayRef: missing field `name`".to_owned()),
    );
    add(
        field,
        "a number",
        json!({"name": 7}),
        "spec.gatewayRef.name in body must be of type string: \"integer\"",
        Node::Keeps("spec.gatewayRef.name: invalid type: integer `7`, expected a string".to_owned()),
    );
    let no_name = "spec.gatewayRef.name: Invalid value: \"Demo\": is no name of an EgressGateway; write its metadata.name: lower-case letters, digits, '-' and '.'";
    let missing = |name: &str| {
        let words = format!("EgressGateway {name} does not exist; make it, or correct spec.gatewayRef.name");
        Node::Follows("EgressGatewayMissing", words)
    };
    add(field, "wrong case", json!({"name": "Demo"}), no_name, missing("Demo"));
    add(
        field,
        "empty",
        json!({"name": ""}),
        "spec.gatewayRef.name in body should be at least 1 chars long",
        missing(""),
    );
    let long = "g".repeat(51);
    add(
        field,
        "51 letters",
        json!({"name": long}),
        "spec.gatewayRef.name: Too long: may not be more than 50 bytes",
        missing(&long),
    );
}

/// A bad address of a gateway.
struct Address {
    bad: &'static str,
    value: Value,
    refused: String,
    at_node: AtNode,
}

/// What the node finds.
#[derive(Clone, Copy)]
enum AtNode {
    NoText,
    NoAddress,
    Ipv6,
    /// No gateway can be there: reason and words.
    NoGateway(&'static str, &'static str),
}

fn addresses(whose: &str, example: &str) -> Vec<Address> {
    let no_address = format!("is not an IPv4 address; write the gateway's {whose} address, like {example}");
    let ipv6 = format!(
        "is IPv6, which DigitalOcean Kubernetes nodes do not have; write the gateway's {whose} IPv4 address"
    );
    let no_host = format!(
        "is no address of a machine in a network (unspecified, loopback, link-local, multicast or broadcast); write the \
         gateway's {whose} address, like {example}"
    );
    let one = |bad, value: Value, refused: &str, at_node| {
        let quoted = value.as_str().filter(|_| refused.starts_with("is ")).map(|text| format!("'{text}' "));
        Address { bad, refused: format!("{}{refused}", quoted.unwrap_or_default()), value, at_node }
    };
    let text = |bad, value: &str, refused: &str, at_node| one(bad, json!(value), refused, at_node);
    let link_local = "lies in 169.254.0.0/16, the range of link-local and metadata";
    vec![
        one("a number", json!(5), "in body must be of type string: \"integer\"", AtNode::NoText),
        text("empty", "", "in body should be at least 1 chars long", AtNode::NoAddress),
        text("44 letters", &"1".repeat(44), "Too long: may not be more than 43 bytes", AtNode::NoAddress),
        text("a name", "gateway-1", &no_address, AtNode::NoAddress),
        text("a prefix", "10.116.0.0/20", &no_address, AtNode::NoAddress),
        text("a port", "10.116.0.5:443", &no_address, AtNode::NoAddress),
        text("out of range", "10.116.0.256", &no_address, AtNode::NoAddress),
        text("IPv6", "fe80::1", &ipv6, AtNode::Ipv6),
        text(
            "unspecified",
            "0.0.0.0",
            &no_host,
            AtNode::NoGateway("GatewayNotOnLink", "is not in the VPC subnet 10.116.0.0/20 of this node"),
        ),
        text(
            "loopback",
            "127.0.0.1",
            &no_host,
            AtNode::NoGateway("GatewayIsLoopback", "lies in 127.0.0.0/8, the range of loopback"),
        ),
        text("metadata", "169.254.169.254", &no_host, AtNode::NoGateway("GatewayIsLinkLocal", link_local)),
        text(
            "multicast",
            "224.0.0.5",
            &no_host,
            AtNode::NoGateway("GatewayIsMulticast", "lies in 224.0.0.0/4, the range of multicast"),
        ),
        text(
            "broadcast",
            "255.255.255.255",
            &no_host,
            AtNode::NoGateway(
                "GatewayIsBroadcastAddress",
                "lies in 255.255.255.255/32, the range of broadcast",
            ),
        ),
    ]
}

impl Address {
    fn shown(&self) -> String {
        let text = self.value.as_str().map_or_else(|| self.value.to_string(), str::to_owned);
        let short = if text.len() > 40 { format!("{}…", &text[..8]) } else { text };
        format!("{}: `{short}`", self.bad)
    }

    fn refused_at(&self, path: &str) -> String {
        match &self.refused {
            words if words.starts_with("in body") => format!("{path} {words}"),
            words if words.starts_with('\'') => format!("{path}: Invalid value: {}: {words}", self.value),
            words => format!("{path}: {words}"),
        }
    }

    /// Reason and words of a node about the private address; `None` where it can't read the object.
    fn of_node(&self, path: &str) -> Option<(&'static str, String)> {
        let text = self.value.as_str().unwrap_or_default();
        match self.at_node {
            AtNode::NoText => None,
            AtNode::NoAddress => {
                let fix = "is not an IPv4 address; write the gateway's private address, like 10.116.0.5";
                Some(("Invalid", format!("{path}: '{text}' {fix}")))
            }
            AtNode::Ipv6 => {
                let fix = "is IPv6, which DigitalOcean Kubernetes nodes do not have; remove it";
                Some(("Invalid", format!("{path}: '{text}' {fix}")))
            }
            AtNode::NoGateway(reason, words) => Some((reason, format!("gateway {text} {words}"))),
        }
    }
}

fn no_text(path: &str) -> Node {
    Node::Keeps(format!("{path}: invalid type: integer `5`, expected a string"))
}

fn one_gateway(all: &mut Vec<Case>) {
    let field = "spec.gateway";
    for address in addresses("private", "10.116.0.5") {
        let patch = json!({"gateway": address.value});
        let node = address.of_node(field);
        let node = node.map_or_else(|| no_text(field), |(reason, words)| Node::Nothing(reason, words));
        all.push(row(Kind::StaticRoute, field, address.shown(), &patch, address.refused_at(field), node));
    }
    // The API server can't know what is where in a VPC; see the agent's tests of gateways for that half.
}

fn list_of_gateways(all: &mut Vec<Case>) {
    let [first, second] = GATEWAYS;
    let mut add = |field, bad: &str, gateways: Value, refused: &str, node| {
        let patch = json!({"gateway": null, "gateways": gateways});
        all.push(row(Kind::StaticRoute, field, bad, &patch, refused, node));
    };
    let field = "spec.gateways";
    let keeps = |words: &str| Node::Keeps(words.to_owned());
    add(
        field,
        "no list",
        json!("10.116.0.5"),
        "spec.gateways in body must be of type array: \"string\"",
        keeps("spec.gateways: invalid type: string \"10.116.0.5\", expected a sequence"),
    );
    add(
        "spec",
        "no gateway in the list",
        json!([]),
        "gateways is empty; list the gateways, or write onNoGateway: FailClosed to drop what is sent to destinations until there is one",
        keeps(
            "spec.gateways: is empty; list the gateways, write onNoGateway: FailClosed, or delete the StaticRoute",
        ),
    );
    let many: Vec<Value> = (0..17).map(|n| json!({"address": format!("10.116.0.{}", 5 + n)})).collect();
    let too_many = "spec.gateways: Too many: 17: must have at most 16 items";
    add(field, "17 gateways", json!(many), too_many, Node::Routes);
    let twice = "spec.gateways: Invalid value: an address is listed twice; list every gateway once";
    let same = json!([{"address": first, "weight": 2}, {"address": first, "weight": 3}]);
    add(
        field,
        "one of them twice",
        same,
        twice.trim_start_matches("spec.gateways: Invalid value: "),
        Node::Routes,
    );
    add(
        "spec.gateways[]",
        "an address alone",
        json!([first]),
        "spec.gateways[0] in body must be of type object: \"string\"",
        keeps("spec.gateways[0]: invalid type: string \"10.116.0.5\", expected struct Gateway"),
    );
    let field = "spec.gateways[].address";
    let missing = "spec.gateways[0].address: Required value";
    add(
        field,
        "missing",
        json!([{"weight": 1}]),
        missing,
        keeps("spec.gateways[0]: missing field `address`"),
    );
    let path = "spec.gateways[1].address";
    for address in addresses("private", "10.116.0.5") {
        let list = json!([{"address": first}, {"address": address.value}]);
        let node = address.of_node(path);
        let node = node.map_or_else(|| no_text(path), |(reason, words)| Node::WithoutGateway(reason, words));
        add(field, &address.shown(), list, &address.refused_at(path), node);
    }
    let field = "spec.gateways[].egressAddress";
    let path = "spec.gateways[1].egressAddress";
    for address in addresses("public", "203.0.113.7") {
        let list = json!([{"address": first}, {"address": second, "egressAddress": address.value}]);
        let text = address.value.as_str().unwrap_or_default();
        let node = match address.at_node {
            AtNode::NoText => no_text(path),
            AtNode::NoAddress => {
                let fix = "is not an IPv4 address; write the gateway's public address, like 203.0.113.7, or leave it out";
                Node::WithoutGateway("Invalid", format!("{path}: '{text}' {fix}"))
            }
            AtNode::Ipv6 => {
                let fix = "is IPv6, which DigitalOcean Kubernetes nodes do not have; remove it";
                Node::WithoutGateway("Invalid", format!("{path}: '{text}' {fix}"))
            }
            AtNode::NoGateway(..) => Node::Routes,
        };
        add(field, &address.shown(), list, &address.refused_at(path), node);
    }
    weights(all);
}

fn weights(all: &mut Vec<Case>) {
    let [first, second] = GATEWAYS;
    let path = "spec.gateways[1].weight";
    let no_weight = |value: i64| {
        let words = format!("{path}: '{value}' is no weight; write a number from 1 to 256");
        Node::WithoutGateway("Invalid", words)
    };
    for (bad, value, refused, node) in [
        ("zero", json!(0), "in body should be greater than or equal to 1", no_weight(0)),
        ("negative", json!(-1), "in body should be greater than or equal to 1", no_weight(-1)),
        ("too large", json!(257), "in body should be less than or equal to 256", no_weight(257)),
        (
            "far too large",
            json!(5_000_000_000_u64),
            "in body should be less than or equal to 256",
            Node::Keeps(format!("{path}: invalid value: integer `5000000000`, expected i32")),
        ),
        (
            "half",
            json!(0.5),
            "in body must be of type integer: \"number\"",
            Node::Keeps(format!("{path}: invalid type: floating point `0.5`, expected i32")),
        ),
        (
            "a text",
            json!("3"),
            "in body must be of type integer: \"string\"",
            Node::Keeps(format!("{path}: invalid type: string \"3\", expected i32")),
        ),
    ] {
        let list = json!([{"address": first}, {"address": second, "weight": value}]);
        let patch = json!({"gateway": null, "gateways": list, "mode": "ActiveActive"});
        let bad = format!("{bad}: `{value}`");
        let refused = format!("{path} {refused}");
        all.push(row(Kind::StaticRoute, "spec.gateways[].weight", bad, &patch, refused, node));
    }
}
