//! The custom resources of `networking.digitalocean.com`: types, schema, conditions and the names every part shares.
//!
//! Responsibility: what an object may say. The CRDs in `crds/` are generated from these types (`cargo xtask crdgen`), so
//! the structural schema and CEL rules here are what the API server enforces. No I/O.
//!
//! A field appears when it works, not before.

#![allow(clippy::duplicated_attributes, reason = "kube's printcolumn lists repeat keys such as type_")]

pub mod condition;
mod definition;
mod deletion_policy;
mod egress_gateway;
mod egress_gateway_status;
mod health_check;
mod names;
mod node_egress;
mod node_selector;
mod prefix;
mod public_ip;
mod renewal;
mod roll;
mod static_route;

pub use definition::Definition;
pub use deletion_policy::DeletionPolicy;
pub use egress_gateway::{DropletTemplate, EgressGateway, EgressGatewaySpec};
pub use egress_gateway_status::{
    CreationIntent, EgressGatewayStatus, Failover, FirewallStatus, GatewayRole, GatewayStatus, Refused,
    Replacement,
};
pub use health_check::{HealthCheck, ProbeTarget};
pub use names::*;
pub use node_egress::{
    GatewayObservation, NodeEgress, NodeEgressFields, NodeEgressStatus, NodeFailover, NodeRoute,
    NodeRouteState, Repair, Repairs, RouteFailure, UnusableGateway,
};
pub use node_selector::{InvalidSelector, NodeOperator, NodeRequirement, NodeSelector};
pub use prefix::{Destination, EgressAddress, GatewayAddress};
pub use public_ip::{Assigning, PublicIp, ReservedIpStatus, ReservingIpStatus};
pub use renewal::{RENEWALS_PER_SECOND, SHORTEST_RENEWAL, fresh_for, renewal_interval};
pub use roll::{NextRoll, Roll};
pub use static_route::{
    Contradiction, Gateway, GatewayRef, OnNoGateway, RouteMode, StaleNode, StaleReason, StaticRoute,
    StaticRouteSpec, StaticRouteStatus,
};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

/// Every CRD of the project with the name of its file in `crds/`.
pub fn custom_resource_definitions() -> Vec<(&'static str, CustomResourceDefinition)> {
    vec![
        ("egressgateways.yaml", EgressGateway::crd()),
        ("staticroutes.yaml", StaticRoute::crd()),
        ("nodeegresses.yaml", NodeEgress::crd()),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use kube::CustomResourceExt;
    use serde_json::Value;

    use super::EgressGateway;

    fn properties(schema: &Value, found: &mut BTreeSet<String>) {
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            found.insert(name.clone());
            properties(property, found);
        }
        if let Some(items) = schema.get("items") {
            properties(items, found);
        }
    }

    #[test]
    fn the_example_with_every_field_has_every_field() {
        let definition = serde_json::to_value(EgressGateway::crd()).unwrap();
        let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        let mut missing = BTreeSet::new();
        properties(schema, &mut missing);
        assert!(missing.contains("vpcUUID") && missing.contains("operator"), "{missing:?}");
        // What differs from cluster to cluster stands there as a comment.
        for line in include_str!("../../../examples/egressgateway-all-fields.yaml").lines() {
            let field = line.trim_start().trim_start_matches(['#', '-', ' ']).split(':').next();
            missing.remove(field.unwrap_or_default());
        }
        assert_eq!(missing, BTreeSet::new());
    }
}
