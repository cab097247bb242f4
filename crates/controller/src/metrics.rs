//! What the controller counts. Labels come from closed sets, among them the reasons of conditions, and from the names of
//! EgressGateways.

use std::collections::{BTreeMap, BTreeSet};
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
    nodes_without_agent: Family<NameLabels, Gauge>,
    user_data_outdated: Family<NameLabels, Gauge>,
    last_failover: Family<NameLabels, Gauge>,
    conditions: Family<ConditionLabels, Gauge>,
    egress_gateway: Family<InfoLabels, Gauge>,
    shown: Arc<Mutex<BTreeMap<String, Shown>>>,
}

/// What is shown of one EgressGateway under labels that change.
#[derive(Debug)]
struct Shown {
    info: InfoLabels,
    conditions: BTreeSet<ConditionLabels>,
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

#[derive(Clone, Debug, Hash, PartialEq, Eq, PartialOrd, Ord, EncodeLabelSet)]
struct ConditionLabels {
    name: String,
    condition: String,
    reason: String,
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
            nodes_without_agent: metrics.register(
                "nodes_without_agent",
                "Nodes that should have the routes of the EgressGateway, and whose agent is not there or not Ready",
                Family::default(),
            ),
            user_data_outdated: metrics.register(
                "user_data_outdated",
                "1 while a gateway runs other user data than this controller makes",
                Family::default(),
            ),
            last_failover: metrics.register_seconds(
                "last_failover_timestamp",
                "When another gateway became the active one last, in Unix time; none if that never happened",
                Family::default(),
            ),
            conditions: metrics.register(
                "condition",
                "1 when the condition of the EgressGateway is True, with its reason",
                Family::default(),
            ),
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
        self.user_data_outdated.get_or_create(&named).set(status.user_data_outdated_since.is_some().into());
        if let Some(failover) = &status.last_failover {
            self.last_failover.get_or_create(&named).set(failover.time.0.as_second());
        }
        let info = InfoLabels {
            name: name.to_owned(),
            active: status.active.clone().unwrap_or_default(),
            egress_ip: status.egress_ip.clone().unwrap_or_default(),
        };
        self.egress_gateway.get_or_create(&info).set(1);
        let conditions = self.show_conditions(name, status);
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Shown { info, conditions };
        let before = shown.remove(name);
        if let Some(before) = &before {
            self.hide(before, Some(&now));
        }
        shown.insert(name.to_owned(), now);
    }

    fn show_conditions(&self, name: &str, status: &EgressGatewayStatus) -> BTreeSet<ConditionLabels> {
        let mut shown = BTreeSet::new();
        for one in &status.conditions {
            let labels = ConditionLabels {
                name: name.to_owned(),
                condition: one.type_.clone(),
                reason: one.reason.clone(),
            };
            self.conditions.get_or_create(&labels).set((one.status == "True").into());
            shown.insert(labels);
        }
        shown
    }

    // Takes away what is shown no longer, and nothing else: who reads in between would miss what is there.
    fn hide(&self, before: &Shown, now: Option<&Shown>) {
        if now.is_none_or(|now| now.info != before.info) {
            self.egress_gateway.remove(&before.info);
        }
        for old in &before.conditions {
            if now.is_none_or(|now| !now.conditions.contains(old)) {
                self.conditions.remove(old);
            }
        }
    }

    /// How many nodes should have the routes of an EgressGateway and have no Ready agent.
    pub fn without_agent(&self, name: &str, nodes: usize) {
        let labels = NameLabels { name: name.to_owned() };
        self.nodes_without_agent.get_or_create(&labels).set(i64::try_from(nodes).unwrap_or(i64::MAX));
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
        self.nodes_without_agent.remove(&named);
        self.user_data_outdated.remove(&named);
        self.last_failover.remove(&named);
        if let Some(shown) = self.shown.lock().unwrap_or_else(PoisonError::into_inner).remove(name) {
            self.hide(&shown, None);
        }
    }
}

fn fraction(text: &str) -> Option<(i64, i64)> {
    let (applied, total) = text.split_once('/')?;
    Some((applied.parse().ok()?, total.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use egress_api::Failover;
    use egress_api::condition::{DEGRADED, Verdict, set};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

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
        counters.without_agent("demo", 1);
        let text = metrics.encode().unwrap();
        assert!(text.contains(r#"egress_controller_nodes_without_agent{name="demo"} 1"#), "{text}");
        counters.forget("demo");
        assert!(!metrics.encode().unwrap().contains("demo"));
    }

    #[test]
    fn a_condition_is_shown_with_its_reason_of_now_only() {
        let mut metrics = Metrics::new(PREFIX, "0");
        let counters = ControllerMetrics::register(&mut metrics);
        let conditions = |metrics: &Metrics| -> Vec<String> {
            let text = metrics.encode().unwrap();
            let lines = text.lines().filter(|line| line.starts_with("egress_controller_condition{"));
            lines.map(|line| line["egress_controller_condition".len()..].to_owned()).collect()
        };
        let mut status = EgressGatewayStatus::default();
        for (holds, reason, value) in
            [(Some(true), "FewerGateways", 1), (Some(false), "AsAskedFor", 0), (None, "AsAskedFor", 0)]
        {
            let verdict = Verdict { type_: DEGRADED, status: holds, reason, message: String::new() };
            set(&mut status.conditions, verdict, None, jiff::Timestamp::UNIX_EPOCH);
            counters.show("demo", 2, &status);
            let shown = format!(r#"{{name="demo",condition="Degraded",reason="{reason}"}} {value}"#);
            assert_eq!(conditions(&metrics), [shown]);
        }
        counters.forget("demo");
        assert_eq!(conditions(&metrics), Vec::<String>::new());
    }

    #[test]
    fn a_failover_and_outdated_user_data_are_shown() {
        let mut metrics = Metrics::new(PREFIX, "0");
        let counters = ControllerMetrics::register(&mut metrics);
        let mut status = EgressGatewayStatus::default();
        counters.show("demo", 2, &status);
        assert!(!metrics.encode().unwrap().contains("last_failover_timestamp_seconds{"));
        status.user_data_outdated_since = Some(Time(jiff::Timestamp::UNIX_EPOCH));
        status.last_failover = Some(Failover {
            time: Time(jiff::Timestamp::from_second(1_700_000_000).unwrap()),
            from: "demo-0".into(),
            to: "demo-1".into(),
            reason: "it is off".into(),
            seconds: None,
        });
        counters.show("demo", 2, &status);
        let text = metrics.encode().unwrap();
        for line in [
            r#"egress_controller_last_failover_timestamp_seconds{name="demo"} 1700000000"#,
            r#"egress_controller_user_data_outdated{name="demo"} 1"#,
        ] {
            assert!(text.lines().any(|one| one == line), "{line} in {text}");
        }
    }
}
