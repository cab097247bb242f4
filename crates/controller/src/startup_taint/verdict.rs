//! Whether a node may take pods: pure.

use egress_api::{EgressGateway, NodeEgressStatus, NodeRoute, NodeSelector, OnNoGateway, StaticRoute};
use egress_runtime::guarded::Guarded;
use k8s_openapi::api::core::v1::Node;
use kube::{Resource, ResourceExt};

/// What a node's pods have to wait for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Waiting {
    /// There is no report, or none of this boot.
    #[error("its agent has not reported since the node booted")]
    NoReport,
    /// A StaticRoute that fails closed is not guarded, or not in its present version.
    #[error("StaticRoute {name} fails closed and its guard is not in this node's kernel yet")]
    NotGuarded {
        /// Its name.
        name: String,
    },
    /// An EgressGateway fails closed and what guards it is not made yet.
    #[error("EgressGateway {name} fails closed and has no StaticRoute yet")]
    NoStaticRoute {
        /// Its name.
        name: String,
    },
    /// Nobody knows what an object asks for.
    #[error("{kind} {name} can't be read, so that it may fail closed: {why}")]
    Unreadable {
        /// StaticRoute or EgressGateway.
        kind: &'static str,
        /// Its name.
        name: String,
        /// What is wrong with it.
        why: String,
    },
}

/// Every object that may ask for a guard.
pub(super) struct Asked<'a> {
    pub(super) routes: Vec<&'a Guarded<StaticRoute>>,
    pub(super) gateways: Vec<&'a Guarded<EgressGateway>>,
}

/// Whether everything that fails closed on this node is guarded there, by its own report of this boot.
///
/// A report of another boot says what another kernel held. One entry is believed in its present generation only: the guards of an
/// older one may be for other destinations.
pub(super) fn guarded(
    node: &Node,
    report: Option<&NodeEgressStatus>,
    asked: &Asked<'_>,
) -> Result<(), Waiting> {
    let boot = node.status.as_ref().and_then(|status| status.node_info.as_ref()).map(|info| &info.boot_id);
    let boot = boot.filter(|boot| !boot.is_empty()).ok_or(Waiting::NoReport)?;
    let report = report.filter(|report| report.boot_id.as_ref() == Some(boot)).ok_or(Waiting::NoReport)?;
    for route in &asked.routes {
        is_guarded(node, report, route)?;
    }
    for gateway in &asked.gateways {
        has_its_route(node, gateway, &asked.routes)?;
    }
    Ok(())
}

fn is_guarded(node: &Node, report: &NodeEgressStatus, route: &Guarded<StaticRoute>) -> Result<(), Waiting> {
    let metadata = route.meta();
    if metadata.deletion_timestamp.is_some() {
        return Ok(());
    }
    let name = route.name_any();
    let route = route.0.as_ref().map_err(|invalid| Waiting::Unreadable {
        kind: "StaticRoute",
        name: name.clone(),
        why: invalid.error.clone(),
    })?;
    let spec = &route.spec;
    if spec.on_no_gateway != OnNoGateway::FailClosed || !may_select(spec.node_selector.as_ref(), node) {
        return Ok(());
    }
    let is_it = |entry: &NodeRoute| {
        entry.guarded
            && Some(&entry.uid) == metadata.uid.as_ref()
            && Some(entry.observed_generation) == metadata.generation
    };
    if report.routes.iter().any(is_it) { Ok(()) } else { Err(Waiting::NotGuarded { name }) }
}

/// What an EgressGateway asks for is guarded by the StaticRoute that the controller writes for it.
fn has_its_route(
    node: &Node,
    gateway: &Guarded<EgressGateway>,
    routes: &[&Guarded<StaticRoute>],
) -> Result<(), Waiting> {
    let metadata = gateway.meta();
    if metadata.deletion_timestamp.is_some() {
        return Ok(());
    }
    let name = gateway.name_any();
    let gateway = gateway.0.as_ref().map_err(|invalid| Waiting::Unreadable {
        kind: "EgressGateway",
        name: name.clone(),
        why: invalid.error.clone(),
    })?;
    let spec = &gateway.spec;
    if spec.on_no_gateway != OnNoGateway::FailClosed || !may_select(spec.node_selector.as_ref(), node) {
        return Ok(());
    }
    let is_its = |route: &&Guarded<StaticRoute>| {
        let fails_closed =
            route.0.as_ref().is_ok_and(|route| route.spec.on_no_gateway == OnNoGateway::FailClosed);
        let owners = route.meta().owner_references.iter().flatten();
        fails_closed && owners.into_iter().any(|owner| Some(&owner.uid) == metadata.uid.as_ref())
    };
    if routes.iter().any(is_its) { Ok(()) } else { Err(Waiting::NoStaticRoute { name }) }
}

/// A selector that can't be read may mean any node.
fn may_select(selector: Option<&NodeSelector>, node: &Node) -> bool {
    selector.is_none_or(|selector| selector.selects(node.labels()).unwrap_or(true))
}

#[cfg(test)]
mod tests;
