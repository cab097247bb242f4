//! The nodes' network, as their Node objects and reports have it: pure.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use egress_controller::identity::node_droplet;
use k8s_openapi::api::core::v1::Node;

use super::Finding;
use crate::output::some;
use crate::view::{View, name};

pub(super) fn findings(view: &View) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut tell = |which: &dyn Fn(&Node) -> bool, message: &str, fix: &str| {
        let nodes: Vec<String> =
            view.nodes.iter().filter(|node| which(node)).map(|node| name(node).to_owned()).collect();
        if !nodes.is_empty() {
            findings.push(Finding::wrong("nodes", format!("{}: {message}", some(&nodes)), fix));
        }
    };
    let internal = |node: &Node| -> Option<Ipv4Addr> {
        let listed = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
        listed
            .into_iter()
            .find(|address| address.type_ == "InternalIP")
            .and_then(|address| address.address.parse().ok())
    };
    tell(
        &|node| internal(node).is_none(),
        "no InternalIP (IPv4), by which agents know the interface in the VPC: nothing is routed there",
        "docs/node-networks.md",
    );
    tell(
        &|node| internal(node).is_some_and(|address| !address.is_private()),
        "the InternalIP is no private address: the node is in no VPC, and gateways are reached in the VPC",
        "make the node pool in a VPC",
    );
    tell(
        &|node| {
            node.spec.as_ref().and_then(|spec| spec.provider_id.as_deref()).and_then(node_droplet).is_none()
        },
        "no provider id of a Droplet (digitalocean://<id>), by which the nodes' region and VPC are found",
        "run on DOKS, or set spec.providerID of these nodes",
    );
    let mut troubles: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
    for (node, report) in view.reported() {
        for one in report.conditions.iter().filter(|one| one.status == "True") {
            troubles.entry((&one.type_, &one.message)).or_default().push(node.to_owned());
        }
    }
    for ((type_, message), nodes) in troubles {
        let found = format!("{} says {type_}: {message}", some(&nodes));
        findings.push(Finding::wrong("nodes", found, fix(type_)));
    }
    if findings.is_empty() {
        findings.push(Finding::fine(
            "nodes",
            format!("all {} are in a VPC, and none says that something is wrong", view.nodes.len()),
        ));
    }
    findings
}

/// Where the way out is described.
fn fix(type_: &str) -> String {
    let document = match type_ {
        "ReversePathFilter" | "NoPublicAddress" | "EbpfForwarding" | "PacketSize" => "docs/node-networks.md",
        "Clash" | "Contested" | "FormerNumbers" => "docs/other-programs.md",
        "ProtectedListInvalid" | "ProtectedNamesUnknown" | "ApiServerUnknown" => "docs/protected-ranges.md",
        "PortsNotAnswered" => "docs/inbound.md",
        "Orphaned" => "docs/older-operator.md, \"If you delete it by its own manifest\"",
        _ => "docs/troubleshooting.md, \"A node has TROUBLE\"",
    };
    format!("what the message says; {document}")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::Level;
    use super::*;
    use crate::view::fixture::{condition, nodes, report, view};

    #[test]
    fn nodes_are_judged_by_their_addresses_their_droplets_and_what_they_say() {
        type Change = fn(&mut Vec<Value>);
        let table: [(Change, Level, &str); 5] = [
            (|_| {}, Level::Fine, "all 2 are in a VPC"),
            (|all| all[0]["status"]["addresses"] = json!([]), Level::Wrong, "node-1: no InternalIP"),
            (
                |all| all[1]["status"]["addresses"][0]["address"] = json!("203.0.113.9"),
                Level::Wrong,
                "node-2: the InternalIP is no private",
            ),
            (
                |all| all[1]["spec"]["providerID"] = json!("aws:///i-1"),
                Level::Wrong,
                "node-2: no provider id",
            ),
            (
                |all| {
                    for number in [1, 2] {
                        let mut report = report(number, &[]);
                        report["status"]["conditions"] =
                            json!([condition("Clash", "True", "ForeignRule", "a rule")]);
                        all.push(report);
                    }
                },
                Level::Wrong,
                "node-1, node-2 says Clash: a rule",
            ),
        ];
        for (change, level, words) in table {
            let mut objects = nodes();
            change(&mut objects);
            let found = findings(&view(&objects));
            assert!(
                found.len() == 1 && found[0].level == level && found[0].message.contains(words),
                "{words}: {found:?}"
            );
        }
    }
}
