//! The process's own registry of metrics and its text form. No global: what is not handed to it is not exported.

use std::fmt;

use prometheus_client::encoding::text;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry, Unit};

/// Content type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Every metric of one process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
}

impl Metrics {
    /// A registry whose metrics all begin with `prefix` and an underscore, holding `<prefix>_build_info` and
    /// `<prefix>_start_time_seconds`.
    pub fn new(prefix: &str, version: &'static str) -> Self {
        let mut registry = Registry::with_prefix(prefix);
        registry.register("build", "What this process was built from", Info::new([("version", version)]));
        registry.register_with_unit(
            "start_time",
            "When this process started, in Unix time",
            Unit::Seconds,
            ConstGauge::new(jiff::Timestamp::now().as_second()),
        );
        Self { registry }
    }

    /// Takes a metric in, while the process starts; clones share its values.
    pub fn register<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: M) -> M {
        self.registry.register(name, help, metric.clone());
        metric
    }

    /// The same, of seconds: its name ends with `_seconds`.
    pub fn register_seconds<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: M) -> M {
        self.registry.register_with_unit(name, help, Unit::Seconds, metric.clone());
        metric
    }

    /// All metrics in OpenMetrics text form.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::gauge::Gauge;

    use super::*;

    #[test]
    fn text_holds_what_was_registered_under_the_prefix() {
        let mut metrics = Metrics::new("egress_test", "1.2.3");
        let switches = metrics.register("switches", "Switches", Counter::<u64>::default());
        switches.inc_by(3);
        metrics.register_seconds("last_switch", "How long it took", Gauge::<i64>::default()).set(7);
        let text = metrics.encode().unwrap();
        assert!(text.contains("egress_test_build_info{version=\"1.2.3\"} 1\n"), "{text}");
        assert!(text.contains("egress_test_switches_total 3\n"), "{text}");
        assert!(text.contains("egress_test_last_switch_seconds 7\n"), "{text}");
        assert!(text.contains("# TYPE egress_test_start_time_seconds gauge\n"), "{text}");
        assert!(text.ends_with("# EOF\n"));
    }
}
