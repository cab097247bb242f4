//! Which ports answer connections that came in on a node's public side: pure.
//!
//! Host ports of this node's own pods, and whatever stands behind Services with node ports, wherever it runs: the node that
//! took a connection passes it on and is passed the answer. Readiness does not count: who is leaving still answers.
//! [`follow`] keeps the objects.

pub mod follow;
mod own_pod;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use egress_routing::inbound::MOST_RULES;
use egress_routing::kernel_state::KernelState;
use egress_routing::{Layout, NodeView, ProtectedReason, ServedPort, Transport};
use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::concerns::Concern;
use crate::neighbours::EphemeralPorts;
pub use own_pod::OwnPod;
use own_pod::PortOfPod;

/// Label of an EndpointSlice that names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// More ports are served to the outside than there are rules for.
pub const NOT_ANSWERED: &str = "PortsNotAnswered";

/// Connections of pods get ports that are served to the outside.
pub const SERVED_PORTS_EPHEMERAL: &str = "ServedPortsEphemeral";

/// Ports that connections of a pod get, whatever the node's range is: each network namespace begins with the kernel's own.
const PORTS_OF_PODS: RangeInclusive<u16> = 32_768..=60_999;

/// What answers, seen from the node of `view`: `pods` are its own, `services` those with node ports.
pub fn served_ports<'a>(
    pods: impl IntoIterator<Item = &'a OwnPod>,
    services: impl IntoIterator<Item = &'a Service>,
    slices: impl IntoIterator<Item = &'a EndpointSlice>,
    view: &NodeView,
) -> BTreeSet<ServedPort> {
    let exposed: BTreeSet<_> =
        services.into_iter().map(|service| (&service.metadata.namespace, &service.metadata.name)).collect();
    let from_pods = pods.into_iter().flat_map(host_ports);
    let is_exposed = |slice: &&EndpointSlice| {
        let service = slice.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME)).cloned();
        exposed.contains(&(&slice.metadata.namespace, &service))
    };
    let from_slices = slices.into_iter().filter(is_exposed).flat_map(endpoint_ports);
    from_pods
        .chain(from_slices)
        .map(|(address, protocol, port)| ServedPort { from: home(address, view), protocol, port })
        .collect()
}

/// The ports for which there was no rule left.
pub fn not_answered(ports: &[ServedPort]) -> Option<Concern> {
    let ServedPort { from, protocol, port } = ports.first()?;
    let message = format!(
        "{} ports, the first being {protocol} {port} of {from}, answer clients on the internet through a gateway, where the answers \
         are lost: a node keeps {MOST_RULES} on its public side; use fewer ports behind host ports and node ports",
        ports.len()
    );
    Some(Concern { type_: NOT_ANSWERED, reason: "TooManyPorts", message })
}

/// The ports whose rules take connections along that are no answers: whatever `onNoGateway` says, these leave with the node's address.
/// `of_the_node` are the ports that its own connections get.
pub fn ephemeral(
    planned: &KernelState,
    layout: &Layout,
    of_the_node: Option<&EphemeralPorts>,
) -> Option<Concern> {
    let is_given =
        |port: u16| PORTS_OF_PODS.contains(&port) || of_the_node.is_some_and(|ports| ports.gives(port));
    let by_port = planned.rules.iter().filter(|rule| rule.priority == layout.inbound_priority);
    let served = by_port.filter_map(|rule| Some((rule.from?, rule.ip_protocol?, rule.source_ports?.0)));
    let mut given = served.filter(|(_, _, port)| is_given(*port)).peekable();
    let (from, protocol, port) = *given.peek()?;
    let protocol = if protocol == Transport::Udp.number() { Transport::Udp } else { Transport::Tcp };
    let message = format!(
        "{} ports that are served to the outside, the first being {protocol} {port} of {from}, are among those that new connections get \
         ({} to {}, and the node's ip_local_port_range): about one in {} connections from there to a routed destination gets such a \
         port and leaves with the node's address, also where nothing may (onNoGateway); serve from a targetPort or containerPort \
         below {}",
        given.count(),
        PORTS_OF_PODS.start(),
        PORTS_OF_PODS.end(),
        PORTS_OF_PODS.len(),
        PORTS_OF_PODS.start()
    );
    Some(Concern { type_: SERVED_PORTS_EPHEMERAL, reason: "PortsOfClients", message })
}

/// The pod's own ports behind its host ports.
fn host_ports(pod: &OwnPod) -> Vec<(Ipv4Addr, Transport, u16)> {
    // Without an address nothing answers yet.
    let Some(address) = pod.address else { return Vec::new() };
    let public = pod.host_ports.iter().filter(|port| is_public(port));
    public
        .filter_map(|port| {
            Some((address, transport(port.protocol.as_deref())?, number(port.container_port)?))
        })
        .collect()
}

fn is_public(port: &PortOfPod) -> bool {
    let address = port.host_ip.as_ref().and_then(|text| text.parse::<Ipv4Addr>().ok());
    port.host_port.is_some_and(|number| number > 0) && !address.is_some_and(|address| address.is_loopback())
}

/// Every port of a slice at every address; the port's name was resolved by whoever wrote the slice.
fn endpoint_ports(slice: &EndpointSlice) -> Vec<(Ipv4Addr, Transport, u16)> {
    let ports: Vec<_> = slice
        .ports
        .iter()
        .flatten()
        .filter_map(|port| Some((transport(port.protocol.as_deref())?, number(port.port?)?)))
        .collect();
    let addresses = slice.endpoints.iter().flat_map(|endpoint| &endpoint.addresses);
    addresses
        .filter_map(|text| text.parse().ok())
        .flat_map(|address| ports.iter().map(move |(protocol, port)| (address, *protocol, *port)))
        .collect()
}

/// The range that stands for an address in a rule, as wide as it may be, so that there are few: the range of pods it is in, or
/// for a node the VPC.
fn home(address: Ipv4Addr, view: &NodeView) -> Ipv4Net {
    let pods = view
        .protected
        .iter()
        .filter(|(range, reason)| *reason == ProtectedReason::Pods && range.contains(&address))
        .map(|(range, _)| range)
        .min_by_key(Ipv4Net::prefix_len);
    let vpc = || view.vpc.as_ref().map(|vpc| vpc.subnet).filter(|subnet| subnet.contains(&address));
    pods.or_else(vpc).map_or_else(|| Ipv4Net::from(address), |range| range.trunc())
}

fn transport(name: Option<&str>) -> Option<Transport> {
    match name {
        None | Some("TCP") => Some(Transport::Tcp),
        Some("UDP") => Some(Transport::Udp),
        Some(_) => None,
    }
}

fn number(port: i32) -> Option<u16> {
    u16::try_from(port).ok().filter(|port| *port > 0)
}

#[cfg(test)]
mod tests;
