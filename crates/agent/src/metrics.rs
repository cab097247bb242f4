//! What the agent counts. Labels come from closed sets: levels, outcomes, states, types of conditions, and the at most 32 gateways of
//! a node.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicU64;

use egress_api::{NodeEgressStatus, NodeRouteState};
use egress_routing::RouteReport;
use egress_runtime::metrics::Metrics;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use crate::concerns::Concern;
use crate::probe::{Level, Outcome, ProbeResult};

/// Prefix of every metric of the agent.
pub const PREFIX: &str = "egress_agent";

/// The agent's metrics. Clones share the values.
#[derive(Clone, Debug)]
pub struct AgentMetrics {
    /// StaticRoutes on this node by state.
    pub static_routes: Family<StateLabels, Gauge>,
    /// StaticRoutes for which no gateway works.
    pub static_routes_without_gateway: Gauge,
    /// What is wrong with the node as a whole, by the type of the condition.
    pub conditions: Family<ConditionLabels, Gauge>,
    /// Destinations in the kernel.
    pub destinations: Gauge,
    /// Whether a gateway's kernel answers.
    pub gateway_reachable: Family<GatewayLabels, Gauge>,
    /// Whether a connection through a gateway reached the outside. Like the two that follow: none of a gateway that was not asked yet.
    pub gateway_forwards: Family<GatewayLabels, Gauge>,
    /// Whether the outside saw a gateway's address.
    pub gateway_expected_source: Family<GatewayLabels, Gauge>,
    /// Whether packets of full size get through a gateway.
    pub gateway_full_size: Family<GatewayLabels, Gauge>,
    /// Whether this node condemns a gateway: it is not used while another works.
    pub gateway_condemned: Family<GatewayLabels, Gauge>,
    /// Whether a gateway is one that a StaticRoute of this node uses now.
    pub gateway_in_use: Family<GatewayLabels, Gauge>,
    /// Probes by level and outcome.
    pub probes: Family<ProbeLabels, Counter>,
    /// Time to the answer of a reachability probe.
    pub probe_seconds: Family<LevelLabels, Histogram, fn() -> Histogram>,
    /// Switches to other gateways that this node decided by itself.
    pub failovers: Counter,
    /// How long the last switch away from a gateway that did not work took, from its first unanswered probe.
    pub last_failover: Gauge<f64, AtomicU64>,
    /// The node's tests of itself, while no gateway answered.
    pub self_tests: Family<TestLabels, Counter>,
    /// Changes of StaticRoutes that were taken back because they cut the node off.
    pub rollbacks: Counter,
    /// Kernel objects that were missing or wrong and were put right though nothing had been asked anew.
    pub repairs: Counter,
    /// How long the node routed in this boot before the kernel held its first plan.
    pub unguarded: Gauge<f64, AtomicU64>,
    /// Changes that the kernel accepted.
    pub kernel_changes: Counter,
    /// Changes that the kernel refused, and requests without answer.
    pub netlink_errors: Counter,
    /// Gateways that are shown; one clone exports.
    exported: BTreeSet<GatewayLabels>,
    /// Conditions that are shown, be it as over.
    exported_conditions: BTreeSet<ConditionLabels>,
}

/// Label `state`.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct StateLabels {
    /// Applied, Partial or NotApplied.
    pub state: &'static str,
}

/// Label `condition`.
#[derive(Clone, Debug, Hash, PartialEq, Eq, PartialOrd, Ord, EncodeLabelSet)]
pub struct ConditionLabels {
    /// Its type, as in the node's `NodeEgress`.
    pub condition: &'static str,
}

/// Label `gateway`.
#[derive(Clone, Debug, Hash, PartialEq, Eq, PartialOrd, Ord, EncodeLabelSet)]
pub struct GatewayLabels {
    /// Private address.
    pub gateway: String,
}

/// Label `level`.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct LevelLabels {
    /// What was probed.
    pub level: LevelLabel,
}

/// Labels of a probe.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ProbeLabels {
    /// What was probed.
    pub level: LevelLabel,
    /// What came of it.
    pub outcome: OutcomeLabel,
}

/// Label of a test of the node itself.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct TestLabels {
    /// What came of it.
    pub outcome: TestLabel,
}

/// Value of label `outcome` of such a test.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "label values are lower case by the naming rules of Prometheus")]
pub enum TestLabel {
    /// A neighbour answered.
    connected,
    /// None of those that were asked did.
    cut_off,
    /// The node knows no neighbour.
    nobody_asked,
}

/// Value of label `level`.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "label values are lower case by the naming rules of Prometheus")]
pub enum LevelLabel {
    /// The gateway's kernel in the VPC.
    reachability,
    /// The way through it to a target outside.
    forwarding,
    /// The way through it to another gateway, which answers the expected address only.
    source,
    /// Packets of full size through it.
    full_size,
}

/// Value of label `outcome`.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "label values are lower case by the naming rules of Prometheus")]
pub enum OutcomeLabel {
    /// Something answered.
    answered,
    /// Nothing did.
    missed,
    /// The probe could not be sent.
    inconclusive,
}

// From a tenth of a millisecond, a healthy answer within a VPC, to the deadline.
fn latency_buckets() -> Histogram {
    Histogram::new([0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0])
}

impl AgentMetrics {
    /// Registers everything.
    pub fn register(metrics: &mut Metrics) -> Self {
        Self {
            static_routes: metrics.register(
                "static_routes",
                "StaticRoutes on this node by state",
                Family::default(),
            ),
            static_routes_without_gateway: metrics.register(
                "static_routes_without_gateway",
                "StaticRoutes on this node for which no gateway works",
                Gauge::default(),
            ),
            conditions: metrics.register(
                "condition",
                "1 while the node has the condition of that type, which is trouble; 0 when it is over",
                Family::default(),
            ),
            destinations: metrics.register("destinations", "Destinations in the kernel", Gauge::default()),
            gateway_reachable: metrics.register(
                "gateway_reachable",
                "1 when the gateway's kernel answers in the VPC",
                Family::default(),
            ),
            gateway_forwards: metrics.register(
                "gateway_forwards",
                "1 when a connection through the gateway reached the outside, 0 when it did not; none before one was tried",
                Family::default(),
            ),
            gateway_expected_source: metrics.register(
                "gateway_expected_source",
                "1 when another gateway saw the address that connections through the gateway should have, 0 when it saw none such; none before",
                Family::default(),
            ),
            gateway_full_size: metrics.register(
                "gateway_full_size",
                "1 when packets of full size get through the gateway, 0 when they do not; none before",
                Family::default(),
            ),
            gateway_condemned: metrics.register(
                "gateway_condemned",
                "1 when this node finds that the gateway does not work, and does not use it while another does",
                Family::default(),
            ),
            gateway_in_use: metrics.register(
                "gateway_in_use",
                "1 when a StaticRoute of this node uses the gateway",
                Family::default(),
            ),
            probes: metrics.register("probes", "Probes by level and outcome", Family::default()),
            probe_seconds: metrics.register_seconds(
                "probe_duration",
                "Time to the answer of a probe",
                Family::new_with_constructor(latency_buckets as fn() -> Histogram),
            ),
            failovers: metrics.register(
                "failovers",
                "Switches of a StaticRoute to another gateway that this node decided",
                Counter::default(),
            ),
            last_failover: metrics.register_seconds(
                "last_failover",
                "From the first unanswered probe of a gateway that did not work to the last switch away from it",
                Gauge::default(),
            ),
            self_tests: metrics.register(
                "self_tests",
                "Tests whether it is this node that is cut off, made while no gateway answers",
                Family::default(),
            ),
            rollbacks: metrics.register(
                "rollbacks",
                "Changes of StaticRoutes taken back because they cut the node off from what it lives by",
                Counter::default(),
            ),
            repairs: metrics.register(
                "repairs",
                "Kernel objects put right though nothing had been asked anew",
                Counter::default(),
            ),
            unguarded: metrics.register_seconds(
                "unguarded",
                "How long the node routed in this boot before the kernel held its first plan; 0 when an earlier agent left one",
                Gauge::default(),
            ),
            kernel_changes: metrics.register(
                "kernel_changes",
                "Changes that the kernel accepted",
                Counter::default(),
            ),
            netlink_errors: metrics.register(
                "netlink_errors",
                "Changes that the kernel refused, and requests without answer",
                Counter::default(),
            ),
            exported: BTreeSet::new(),
            exported_conditions: BTreeSet::new(),
        }
    }

    /// Shows what is reported.
    pub fn export(&mut self, status: &NodeEgressStatus, routes: &[RouteReport], concerns: &[Concern]) {
        for (state, label) in [
            (NodeRouteState::Applied, "Applied"),
            (NodeRouteState::Partial, "Partial"),
            (NodeRouteState::NotApplied, "NotApplied"),
        ] {
            let count = status.routes.iter().filter(|route| route.state == state).count();
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.static_routes.get_or_create(&StateLabels { state: label }).set(count);
        }
        let without = status.routes.iter().filter(|route| route.no_gateway).count();
        self.static_routes_without_gateway.set(i64::try_from(without).unwrap_or(i64::MAX));
        self.export_conditions(concerns);
        self.destinations.set(status.routes.iter().map(|route| i64::from(route.applied)).sum());
        let used: BTreeSet<String> =
            routes.iter().flat_map(|route| &route.in_use).map(ToString::to_string).collect();
        let mut gone = std::mem::take(&mut self.exported);
        for said in &status.gateways {
            let label = GatewayLabels { gateway: said.address.clone() };
            for (family, holds) in self.of_gateways().into_iter().zip([
                Some(said.reachable),
                said.forwards,
                said.expected_source,
                said.full_size,
                Some(said.condemned),
                Some(used.contains(&said.address)),
            ]) {
                // What is not known is not said: 0 would be an accusation.
                match holds {
                    Some(holds) => _ = family.get_or_create(&label).set(i64::from(holds)),
                    None => _ = family.remove(&label),
                }
            }
            gone.remove(&label);
            self.exported.insert(label);
        }
        // Not all first and then the rest anew: who reads in between would miss gateways that are there.
        for label in gone {
            for family in self.of_gateways() {
                family.remove(&label);
            }
        }
    }

    fn export_conditions(&mut self, concerns: &[Concern]) {
        let labels = |concern: &Concern| ConditionLabels { condition: concern.type_ };
        let now: BTreeSet<_> = concerns.iter().map(labels).collect();
        self.exported_conditions.extend(now.iter().cloned());
        for shown in &self.exported_conditions {
            self.conditions.get_or_create(shown).set(i64::from(now.contains(shown)));
        }
    }

    /// What is shown of each gateway.
    fn of_gateways(&self) -> [&Family<GatewayLabels, Gauge>; 6] {
        [
            &self.gateway_reachable,
            &self.gateway_forwards,
            &self.gateway_expected_source,
            &self.gateway_full_size,
            &self.gateway_condemned,
            &self.gateway_in_use,
        ]
    }

    /// Counts one test of the node itself.
    pub fn count_test(&self, neighbours: &[egress_health::Outcome]) {
        let outcome = match neighbours {
            [] => TestLabel::nobody_asked,
            asked if asked.contains(&egress_health::Outcome::Answered) => TestLabel::connected,
            _ => TestLabel::cut_off,
        };
        self.self_tests.get_or_create(&TestLabels { outcome }).inc();
    }

    /// Counts one probe.
    pub fn count_probe(&self, result: &ProbeResult) {
        let level = match result.level {
            Level::Reachability => LevelLabel::reachability,
            Level::Forwarding => LevelLabel::forwarding,
            Level::Source => LevelLabel::source,
            Level::FullSize => LevelLabel::full_size,
        };
        let outcome = match result.outcome {
            Outcome::Answered => OutcomeLabel::answered,
            Outcome::Missed(_) => OutcomeLabel::missed,
            Outcome::Inconclusive(_) => OutcomeLabel::inconclusive,
        };
        self.probes.get_or_create(&ProbeLabels { level, outcome }).inc();
        if result.outcome == Outcome::Answered {
            self.probe_seconds.get_or_create(&LevelLabels { level }).observe(result.took.as_secs_f64());
        }
    }
}

#[cfg(test)]
mod tests;
