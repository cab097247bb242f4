//! A pod of this node, as much of it as tells which ports it has on the node.

use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

use crate::partial::part_of;

/// Name, address and host ports of a Pod.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(from = "Stored")]
pub struct OwnPod {
    /// Name, namespace and version; nothing else is kept.
    pub metadata: ObjectMeta,
    /// None while it has none, or has one of IPv6 only.
    pub(super) address: Option<Ipv4Addr>,
    /// Ports with a port on the node. A pod in the node's network has none: the node's own rule is enough there.
    pub(super) host_ports: Vec<PortOfPod>,
}

/// A port of a container, and that of the node which leads to it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PortOfPod {
    pub container_port: i32,
    pub host_port: Option<i32>,
    #[serde(rename = "hostIP")]
    pub host_ip: Option<String>,
    /// None is TCP.
    pub protocol: Option<String>,
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
    namespace: Option<String>,
    // A watch goes on from it.
    resource_version: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    host_network: Option<bool>,
    containers: Option<Vec<Container>>,
    init_containers: Option<Vec<Container>>,
}

#[derive(Deserialize)]
struct Container {
    ports: Option<Vec<PortOfPod>>,
}

#[derive(Deserialize)]
struct Status {
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
}

impl From<Stored> for OwnPod {
    fn from(stored: Stored) -> Self {
        let Metadata { name, namespace, resource_version } = stored.metadata;
        let metadata = ObjectMeta { name, namespace, resource_version, ..ObjectMeta::default() };
        let spec = stored.spec.filter(|spec| spec.host_network != Some(true));
        let containers = spec.map(|spec| spec.containers.into_iter().chain(spec.init_containers).flatten());
        let ports =
            containers.into_iter().flatten().flat_map(|container| container.ports.unwrap_or_default());
        let address = stored.status.and_then(|status| status.pod_ip?.parse().ok());
        Self { metadata, address, host_ports: ports.filter(|port| port.host_port.is_some()).collect() }
    }
}

part_of!(OwnPod, Pod);
