//! IPv4 addresses and prefixes as users write them, with the rules the API server checks them by.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A host address (`203.0.113.7`, the same as `/32`) or a prefix (`203.0.113.0/24`), IPv4 only.
///
/// Kept as it was written; `egress-routing` parses it, because the agent trusts nobody.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Destination(pub String);

/// Private IPv4 address of a gateway.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GatewayAddress(pub String);

/// Public IPv4 address behind a gateway.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EgressAddress(pub String);

impl From<&str> for Destination {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl From<&str> for GatewayAddress {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

// The rules are exclusive: whatever is wrong, exactly one of them speaks. `isIP`, `isCIDR`, `ip` and `cidr` are the API
// server's CEL library for networking (Kubernetes 1.31 and later).
impl JsonSchema for Destination {
    fn schema_name() -> Cow<'static, str> {
        "Destination".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "minLength": 1,
            "maxLength": 43,
            "description": "An IPv4 address (203.0.113.7) or prefix (203.0.113.0/24). Everything is written 0.0.0.0/0.",
            "x-kubernetes-validations": [
                {
                    "rule": "isIP(self) || isCIDR(self)",
                    "messageExpression": "\"'\" + self + \"' is neither an IPv4 address nor a prefix; write it like 203.0.113.7 or 203.0.113.0/24\"",
                    "message": "must be an IPv4 address or prefix; write it like 203.0.113.7 or 203.0.113.0/24"
                },
                {
                    "rule": "!(isIP(self) && ip(self).family() == 6) && !(isCIDR(self) && cidr(self).ip().family() == 6)",
                    "messageExpression": "\"'\" + self + \"' is IPv6, which DigitalOcean Kubernetes nodes do not have; remove it\"",
                    "message": "IPv6 is not supported: DigitalOcean Kubernetes nodes have none; remove it"
                },
                {
                    "rule": "!isCIDR(self) || cidr(self).ip().family() == 6 || cidr(self) == cidr(self).masked()",
                    "messageExpression": "\"'\" + self + \"' has bits set behind its prefix length; clear them (10.9.0.0/24, not 10.9.0.1/24) or, for one host, leave the length out\"",
                    "message": "has bits set behind its prefix length; clear them or, for one host, leave the length out"
                },
                {
                    "rule": "self != '0.0.0.0' && self != '0.0.0.0/32'",
                    "message": "0.0.0.0 is no destination; write 0.0.0.0/0 for all egress"
                }
            ]
        })
    }
}

impl JsonSchema for GatewayAddress {
    fn schema_name() -> Cow<'static, str> {
        "GatewayAddress".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        one_host(
            "An IPv4 address in the nodes' VPC, such as 10.116.0.5.",
            "the gateway's private",
            "10.116.0.5",
        )
    }
}

impl JsonSchema for EgressAddress {
    fn schema_name() -> Cow<'static, str> {
        "EgressAddress".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        one_host("A public IPv4 address, such as 203.0.113.7.", "the gateway's public", "203.0.113.7")
    }
}

/// The schema of an address that one machine can have. `whose` goes before "IPv4 address" in what the API server says.
fn one_host(description: &str, whose: &str, example: &str) -> Schema {
    json_schema!({
        "type": "string",
        "minLength": 1,
        "maxLength": 43,
        "description": description,
        "x-kubernetes-validations": [
            {
                "rule": "isIP(self)",
                "messageExpression": format!("\"'\" + self + \"' is not an IPv4 address; write {whose} address, like {example}\""),
                "message": format!("must be {whose} IPv4 address, like {example}")
            },
            {
                "rule": "!isIP(self) || ip(self).family() == 4",
                "messageExpression": format!("\"'\" + self + \"' is IPv6, which DigitalOcean Kubernetes nodes do not have; write {whose} IPv4 address\""),
                "message": format!("IPv6 is not supported; write {whose} IPv4 address")
            },
            {
                "rule": "!isIP(self) || ip(self).family() == 6 || ip(self).isGlobalUnicast()",
                "messageExpression": format!("\"'\" + self + \"' is no address of a machine in a network (unspecified, loopback, link-local, multicast or broadcast); write {whose} address, like {example}\""),
                "message": format!("must be {whose} address, like {example}, and not unspecified, loopback, link-local, multicast or broadcast")
            }
        ]
    })
}
