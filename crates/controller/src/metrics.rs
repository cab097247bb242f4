//! What the controller counts. Labels come from closed sets, and from the names of EgressGateways.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use egress_api::{EgressGatewayStatus, GatewayRole};
use egress_runtime::metrics::Metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

/// Prefix of every metric of the controller.
pub const PREFIX: &str = "egress_controller";

/// The controller's metrics. Clones share the values.
#[derive(Clone, Debug)]
pub struct ControllerMetrics {
    reconciles: Family<OutcomeLabels, Counter>,
    effects: Family<EffectLabels, Counter>,
    cloud_requests: Family<CloudLabels, Counter>,
    created: Counter,
    deleted: Counter,
    quota_remaining: Gauge,
    leader: Gauge,
    gateways: Family<RoleLabels, Gauge>,
    gateways_wanted: Family<NameLabels, Gauge>,
    nodes_applied: Family<NameLabels, Gauge>,
    nodes_total: Family<NameLabels, Gauge>,
    egress_gateway: Family<InfoLabels, Gauge>,
    shown: Arc<Mutex<BTreeMap<String, InfoLabels>>>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct EffectLabels {
    effect: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CloudLabels {
    route: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct NameLabels {
    name: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RoleLabels {
    name: String,
    role: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct InfoLabels {
    name: String,
    active: String,
    egress_ip: String,
}

const ROLES: [(GatewayRole, &str); 5] = [
    (GatewayRole::Active, "active"),
    (GatewayRole::Standby, "standby"),
    (GatewayRole::Starting, "starting"),
    (GatewayRole::Failed, "failed"),
    (GatewayRole::Leaving, "leaving"),
];

impl ControllerMetrics {
    /// Registers all of them.
    pub fn register(metrics: &mut Metrics) -> Self {
        Self {
            reconciles: metrics.register("reconciles", "Steps taken for EgressGateways", Family::default()),
            effects: metrics.register("effects", "Effects carried out", Family::default()),
            cloud_requests: metrics.register(
                "cloud_requests",
                "Calls of DigitalOcean's API",
                Family::default(),
            ),
            created: metrics.register(
                "droplets_created",
                "Droplets that the cloud agreed to make",
                Counter::default(),
            ),
            deleted: metrics.register(
                "droplets_deleted",
                "Droplets that the cloud agreed to delete",
                Counter::default(),
            ),
            quota_remaining: metrics.register(
                "cloud_quota_remaining",
                "Calls that DigitalOcean's API still allows this hour",
                Gauge::default(),
            ),
            leader: metrics.register("leader", "Whether this process leads", Gauge::default()),
            gateways: metrics.register("gateways", "Gateways by role", Family::default()),
            gateways_wanted: metrics.register("gateways_wanted", "Gateways asked for", Family::default()),
            nodes_applied: metrics.register(
                "nodes_applied",
                "Nodes that have every route of the EgressGateway",
                Family::default(),
            ),
            nodes_total: metrics.register("nodes_total", "Nodes that should have them", Family::default()),
            egress_gateway: metrics.register(
                "egress_gateway_info",
                "Active gateway and egress address of each EgressGateway",
                Family::default(),
            ),
            shown: Arc::default(),
        }
    }

    /// One step has ended.
    pub fn reconciled(&self, outcome: &'static str) {
        self.reconciles.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    /// One effect has ended.
    pub fn effect(&self, effect: &'static str, outcome: &'static str) {
        self.effects.get_or_create(&EffectLabels { effect, outcome }).inc();
    }

    /// One call of the cloud's API has ended.
    pub fn cloud_request(&self, route: &'static str, result: &'static str) {
        self.cloud_requests.get_or_create(&CloudLabels { route, result }).inc();
    }

    /// A create was accepted.
    pub fn droplet_created(&self) {
        self.created.inc();
    }

    /// A delete was accepted.
    pub fn droplet_deleted(&self) {
        self.deleted.inc();
    }

    /// What the API says is left.
    pub fn quota(&self, remaining: Option<u64>) {
        if let Some(remaining) = remaining.and_then(|remaining| i64::try_from(remaining).ok()) {
            self.quota_remaining.set(remaining);
        }
    }

    /// This process leads.
    pub fn leads(&self) {
        self.leader.set(1);
    }

    /// Shows the status of one EgressGateway.
    pub fn show(&self, name: &str, replicas: i32, status: &EgressGatewayStatus) {
        let named = NameLabels { name: name.to_owned() };
        for (role, label) in ROLES {
            let count = status.gateways.iter().filter(|gateway| gateway.role == role).count();
            let labels = RoleLabels { name: name.to_owned(), role: label };
            self.gateways.get_or_create(&labels).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        self.gateways_wanted.get_or_create(&named).set(replicas.into());
        let (applied, total) = status.nodes.as_deref().and_then(fraction).unwrap_or_default();
        self.nodes_applied.get_or_create(&named).set(applied);
        self.nodes_total.get_or_create(&named).set(total);
        let info = InfoLabels {
            name: name.to_owned(),
            active: status.active.clone().unwrap_or_default(),
            egress_ip: status.egress_ip.clone().unwrap_or_default(),
        };
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = shown.insert(name.to_owned(), info.clone()).filter(|old| *old != info) {
            self.egress_gateway.remove(&old);
        }
        self.egress_gateway.get_or_create(&info).set(1);
    }

    /// Forgets an EgressGateway that is gone.
    pub fn forget(&self, name: &str) {
        let named = NameLabels { name: name.to_owned() };
        for (_, role) in ROLES {
            self.gateways.remove(&RoleLabels { name: name.to_owned(), role });
        }
        self.gateways_wanted.remove(&named);
        self.nodes_applied.remove(&named);
        self.nodes_total.remove(&named);
        if let Some(info) = self.shown.lock().unwrap_or_else(PoisonError::into_inner).remove(name) {
            self.egress_gateway.remove(&info);
        }
    }
}

fn fraction(text: &str) -> Option<(i64, i64)> {
    let (applied, total) = text.split_once('/')?;
    Some((applied.parse().ok()?, total.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_egress_gateway_has_one_info_line_and_leaves_none_behind() {
        let mut metrics = Metrics::new(PREFIX, "0");
        let counters = ControllerMetrics::register(&mut metrics);
        let mut status = EgressGatewayStatus { nodes: Some("1/2".into()), ..Default::default() };
        counters.show("demo", 2, &status);
        status.active = Some("demo-0".into());
        status.egress_ip = Some("203.0.113.100".into());
        counters.show("demo", 2, &status);
        let text = metrics.encode().unwrap();
        let info: Vec<_> =
            text.lines().filter(|line| line.starts_with("egress_controller_egress_gateway_info{")).collect();
        assert_eq!(
            info,
            [
                r#"egress_controller_egress_gateway_info{name="demo",active="demo-0",egress_ip="203.0.113.100"} 1"#
            ]
        );
        assert!(text.contains(r#"egress_controller_nodes_applied{name="demo"} 1"#), "{text}");
        counters.forget("demo");
        assert!(!metrics.encode().unwrap().contains("demo"));
    }
}
