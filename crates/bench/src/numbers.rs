//! Samples and what is said of them.

use std::time::Duration;

use serde_json::{Value, json};

/// Measured values of one thing.
#[derive(Clone, Debug, Default)]
pub struct Samples(pub Vec<f64>);

impl Samples {
    /// Takes one more.
    pub fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// Takes a time, in milliseconds.
    pub fn push_time(&mut self, time: Duration) {
        self.0.push(time.as_secs_f64() * 1000.0);
    }

    /// The middle one, or between the two middle ones; nothing of nothing.
    pub fn median(&self) -> Option<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let upper = *sorted.get(middle)?;
        Some(if sorted.len().is_multiple_of(2) { f64::midpoint(sorted[middle - 1], upper) } else { upper })
    }

    /// Median for the report; `null` where nothing was measured.
    pub fn summary(&self) -> Value {
        self.median().map_or(json!(null), |median| json!(rounded(median)))
    }

    /// Every sample for the report.
    pub fn raw(&self) -> Value {
        self.0.iter().map(|value| rounded(*value)).collect()
    }
}

/// Three digits after the point are more than any of this means.
pub fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// A count, to divide by or to multiply with.
pub fn count(items: impl TryInto<u32>) -> f64 {
    f64::from(items.try_into().unwrap_or(u32::MAX))
}

/// What the numbers were taken on.
pub fn machine() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let after = |text: &str, key: &str| {
        let line = text.lines().find(|line| line.starts_with(key));
        line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
    };
    let load = read("/proc/loadavg");
    json!({
        "cpu": after(&read("/proc/cpuinfo"), "model name"),
        "cores": std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        "memory": after(&read("/proc/meminfo"), "MemTotal"),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "load_at_the_end": load.split_whitespace().next(),
    })
}

/// The same as a sentence.
pub fn machine_in_words(machine: &Value) -> String {
    let text = |key: &str| machine[key].as_str().map_or_else(|| machine[key].to_string(), str::to_owned);
    format!(
        "{}, {} cores, {} memory, Linux {}; load at the end {}.",
        text("cpu"),
        text("cores"),
        text("memory"),
        text("kernel"),
        text("load_at_the_end"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        assert_eq!(Samples(vec![4.0, 1.0, 2.0, 9.0]).median(), Some(3.0));
        assert_eq!(Samples(vec![9.0, 1.0, 2.0]).median(), Some(2.0));
        assert_eq!(Samples::default().summary(), json!(null));
    }
}
