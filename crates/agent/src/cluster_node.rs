//! A Node of the cluster, as much of it as the agent reads.
//!
//! A kubelet writes ten to thirty kilobytes about its node, most of them names of images; labels and field managers are most of the rest.
//! An agent reads every Node of the cluster, and its memory counts on every node. What is not read here is not even parsed
//! (`docs/benchmarks.md`, "Where the memory is").

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

use crate::partial::part_of;

/// An address in the VPC, the same on every node.
pub const INTERNAL: &str = "InternalIP";
/// A public address of the node.
pub const EXTERNAL: &str = "ExternalIP";

/// Name, labels, ranges of pods and addresses of a Node.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(from = "Stored")]
pub struct ClusterNode {
    /// Name, labels and version; nothing else is kept.
    pub metadata: ObjectMeta,
    pod_ranges: Vec<String>,
    addresses: Vec<Address>,
}

impl ClusterNode {
    /// IPv4 addresses of these types (`InternalIP`, `ExternalIP`), in the order in which the API server has them.
    pub fn addresses(&self, types: &[&str]) -> impl Iterator<Item = Ipv4Addr> {
        let listed = self.addresses.iter().filter(|address| types.contains(&address.kind.as_str()));
        listed.filter_map(|address| address.address.parse().ok())
    }

    /// IPv4 ranges of the node's pods.
    pub fn pod_ranges(&self) -> impl Iterator<Item = Ipv4Net> {
        self.pod_ranges.iter().filter_map(|text| text.parse().ok())
    }
}

#[derive(Deserialize)]
struct Stored {
    metadata: Metadata,
    spec: Option<Spec>,
    status: Option<Status>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: Option<String>,
    uid: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    // A watch goes on from it.
    resource_version: Option<String>,
}

#[derive(Deserialize)]
struct Spec {
    #[serde(rename = "podCIDRs")]
    pod_ranges: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Status {
    addresses: Option<Vec<Address>>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Address {
    #[serde(rename = "type")]
    kind: String,
    address: String,
}

impl From<Stored> for ClusterNode {
    fn from(stored: Stored) -> Self {
        let Metadata { name, uid, labels, resource_version } = stored.metadata;
        let metadata = ObjectMeta { name, uid, labels, resource_version, ..ObjectMeta::default() };
        let pod_ranges = stored.spec.and_then(|spec| spec.pod_ranges).unwrap_or_default();
        let addresses = stored.status.and_then(|status| status.addresses).unwrap_or_default();
        Self { metadata, pod_ranges, addresses }
    }
}

part_of!(ClusterNode, Node);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_read_is_kept_and_nothing_else() {
        let node: ClusterNode = serde_json::from_value(json!({
            "metadata": {"name": "node-1", "uid": "u", "resourceVersion": "7", "labels": {"pool": "web"},
                "managedFields": [{"manager": "kubelet"}], "annotations": {"a": "b"}},
            "spec": {"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24", "fd00::/64"], "providerID": "digitalocean://1"},
            "status": {"images": [{"names": ["a"]}], "addresses": [
                {"type": "Hostname", "address": "node-1"}, {"type": "InternalIP", "address": "10.116.0.2"},
                {"type": "ExternalIP", "address": "2001:db8::1"}, {"type": "ExternalIP", "address": "203.0.113.11"}]},
        }))
        .unwrap();
        let labels = BTreeMap::from([("pool".to_owned(), "web".to_owned())]);
        let kept = ObjectMeta {
            name: Some("node-1".to_owned()),
            uid: Some("u".to_owned()),
            resource_version: Some("7".to_owned()),
            labels: Some(labels),
            ..ObjectMeta::default()
        };
        assert_eq!(node.metadata, kept);
        assert_eq!(
            node.addresses(&[INTERNAL, EXTERNAL]).collect::<Vec<_>>(),
            [Ipv4Addr::new(10, 116, 0, 2), Ipv4Addr::new(203, 0, 113, 11)]
        );
        assert_eq!(node.pod_ranges().collect::<Vec<_>>(), ["10.244.1.0/24".parse::<Ipv4Net>().unwrap()]);
    }

    #[test]
    fn a_node_that_is_just_being_made_has_neither_addresses_nor_ranges() {
        for node in [
            json!({"metadata": {"name": "node-1"}}),
            json!({"metadata": {"name": "node-1"}, "spec": {}, "status": {}}),
            json!({"metadata": {"name": "node-1"}, "spec": {"podCIDRs": null}, "status": {"addresses": null}}),
        ] {
            let node: ClusterNode = serde_json::from_value(node).unwrap();
            assert!(
                node.addresses(&[INTERNAL, EXTERNAL]).next().is_none() && node.pod_ranges().next().is_none()
            );
        }
    }
}
