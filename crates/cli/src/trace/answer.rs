//! Which way a packet leaves a node: pure.
//!
//! The plan is the agent's own (`egress_routing::plan`), made for what matters to one address; the node's report then says what of it
//! is in force, and has the last word.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::Node;
use serde::Serialize;

use super::asking::answer;
use super::surroundings::{Surroundings, of};
use crate::view::{View, name};

/// Which way packets to one address leave.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// To this address.
    pub address: Ipv4Addr,
    /// That way.
    pub way: Way,
    /// Whether a StaticRoute asks for another way, and it is not in force.
    pub amiss: bool,
    /// Whether only the node knows.
    pub uncertain: bool,
    /// Why, in sentences.
    pub why: Vec<String>,
    /// What else is to be known.
    pub notes: Vec<String>,
}

/// The way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "leaves", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Way {
    /// Through gateways; with several they share the traffic.
    ThroughGateway {
        /// The StaticRoute that says so.
        static_route: String,
        /// The destination of it that decides.
        destination: Ipv4Net,
        /// The gateways.
        gateways: Vec<Through>,
    },
    /// By the node's own ways, as without this project.
    AsWithoutGateways,
    /// It is dropped.
    Dropped {
        /// The StaticRoute that says so.
        static_route: String,
    },
    /// Nobody here can tell.
    Unknown,
}

/// A gateway on the way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Through {
    /// In the VPC.
    pub private_address: Ipv4Addr,
    /// Its name, if it is one of an EgressGateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// That EgressGateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress_gateway: Option<String>,
    /// What the outside sees, if it is written anywhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_address: Option<String>,
}

/// The same answer for several nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Traced {
    /// From these nodes.
    pub nodes: Vec<String>,
    /// The node's own public address, where one node is asked about and it is seen outside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub own_address: Option<Ipv4Addr>,
    /// That way.
    #[serde(flatten)]
    pub answer: Answer,
}

/// The answers for all of these nodes, alike ones together, those of most nodes first.
pub fn trace(
    addresses: &BTreeSet<Ipv4Addr>,
    nodes: &[&Node],
    view: &View,
    surroundings: &Surroundings,
) -> Vec<Traced> {
    let reported = view.reported();
    let mut traced = Vec::new();
    for address in addresses {
        let mut alike: BTreeMap<Answer, Vec<&Node>> = BTreeMap::new();
        for node in nodes {
            alike
                .entry(answer(*address, node, view, surroundings, reported.get(name(*node)).copied()))
                .or_default()
                .push(node);
        }
        let mut groups: Vec<_> = alike.into_iter().collect();
        groups.sort_by_key(|(_, nodes)| usize::MAX - nodes.len());
        traced.extend(groups.into_iter().map(|(answer, nodes)| {
            let is_own =
                answer.way == Way::AsWithoutGateways && nodes.len() == 1 && !answer.address.is_private();
            let own = || of(nodes[0], &["ExternalIP"]).first().copied();
            Traced {
                own_address: if is_own { own() } else { None },
                nodes: nodes.iter().map(|one| name(*one).to_owned()).collect(),
                answer,
            }
        }));
    }
    traced
}

#[cfg(test)]
mod tests;
