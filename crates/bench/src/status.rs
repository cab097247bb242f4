//! The table of `docs/benchmarks.md`, section "A thousand nodes", from what `make bench-status` measured.
//!
//! The measuring itself is a test of the agent (`crates/agent/tests/api_server/many_nodes.rs`), which has its code in it a thousand
//! times.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;
use serde_json::Value;

use crate::document;
use crate::numbers::{Samples, machine, machine_in_words};

/// What stands between these two lines is written by `make bench-status`.
const BEGIN: &str = "<!-- status: written by make bench-status -->";
/// The end of it.
const END: &str = "<!-- end of status -->";

/// So many nodes are what the goals are for: fewer do not go into the documentation.
const FULL: u64 = 1_000;

/// Writes down how a thousand nodes report.
#[derive(Debug, Parser)]
pub struct Settings {
    /// What was measured.
    #[arg(long, default_value = "target/bench/status.json")]
    report: PathBuf,

    /// Document whose table is written anew.
    #[arg(long)]
    document: Option<PathBuf>,
}

/// Shows the table, and puts it into the document.
pub fn run(settings: &Settings) -> anyhow::Result<()> {
    let path = &settings.report;
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let mut report: Value = serde_json::from_str(&text)?;
    report["machine"] = machine();
    std::fs::write(path, serde_json::to_string_pretty(&report)? + "\n")?;
    let table = table(&report);
    println!("{table}");
    match &settings.document {
        Some(path) if report["nodes"].as_u64() >= Some(FULL) => document::write(path, BEGIN, END, &table),
        Some(path) => {
            eprintln!("fewer than {FULL} nodes: {} stays as it is", path.display());
            Ok(())
        }
        None => Ok(()),
    }
}

/// What is measured of each StaticRoute, where it stands, and the goal.
const TIMES: &[(&str, &str, &str)] = &[
    ("reported by half of the nodes, s", "/reported_s/p50", ""),
    ("reported by 99 of 100 nodes, s", "/reported_s/p99", "1"),
    ("reported by all, s", "/reported_s/max", ""),
    ("`Ready` of the StaticRoute, s", "/ready_s", ""),
];

fn table(report: &Value) -> String {
    let changes: Vec<&Value> = report["changes"].as_array().into_iter().flatten().collect();
    let of_each = |pointer: &str| {
        let value = |change: &&Value| change.pointer(pointer).and_then(Value::as_f64);
        spread(&Samples(changes.iter().filter_map(value).collect()))
    };
    let mut table = format!(
        "{} {} nodes, {} StaticRoutes.\n\n| | goal | measured |\n| --- | --- | --- |\n",
        machine_in_words(&report["machine"]),
        report["nodes"],
        changes.len()
    );
    // Writing to a String does not fail.
    let mut row = |what: &str, goal: &str, measured: String| {
        let _infallible = writeln!(table, "| {what} | {goal} | {measured} |");
    };
    for (what, pointer, goal) in TIMES {
        row(what, goal, of_each(pointer));
    }
    let plain = report["plain_writes_s"].as_array().into_iter().flatten();
    row(
        "(99 of 100 such writes at once, plain, to this API server when it has nothing else to do, s)",
        "",
        spread(&Samples(plain.filter_map(|round| round["p99"].as_f64()).collect())),
    );
    let written: BTreeSet<&String> =
        changes.iter().filter_map(|change| change["writes"].as_object()).flat_map(|all| all.keys()).collect();
    for resource in written {
        row(&format!("writes for it: {resource}"), "", of_each(&format!("/writes/{resource}")));
    }
    row("memory of the controller, MiB", "128, its limit", spread(&one(&report["controller_rss_mib"])));
    let flapping: Vec<f64> = report["flapping_writes_per_s"]["each"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_f64)
        .collect();
    row(
        "writes in the first 3 s in which all verdicts flap",
        "",
        format!("{:.0}", flapping.iter().take(3).sum::<f64>()),
    );
    let later = Samples(flapping.into_iter().rev().take(30).collect());
    row("writes a second after a minute of it", "20", spread(&later));
    table
}

fn one(value: &Value) -> Samples {
    Samples(value.as_f64().into_iter().collect())
}

/// The median, and between what it lies.
fn spread(samples: &Samples) -> String {
    let Some(median) = samples.median() else { return "-".to_owned() };
    let shown = |value: f64| {
        if value < 10.0 && value.fract() != 0.0 { format!("{value:.2}") } else { format!("{value:.0}") }
    };
    if samples.0.len() < 2 {
        return shown(median);
    }
    let least = samples.0.iter().copied().fold(f64::INFINITY, f64::min);
    let most = samples.0.iter().copied().fold(0.0, f64::max);
    format!("{} ({} to {})", shown(median), shown(least), shown(most))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_number_has_its_median_its_spread_and_its_goal() {
        let change = |p99: f64, writes: u32| {
            json!({"reported_s": {"p50": 0.3, "p99": p99, "max": 0.9}, "ready_s": 1.0,
                "writes": {"nodeegresses": 1000, "staticroutes": writes}})
        };
        let flapping: Vec<u32> =
            (0..90).map(|second| if second < 3 { 700 } else { 18 + second % 2 }).collect();
        let report = json!({"nodes": 1000, "changes": [change(0.5, 3), change(0.75, 4), change(0.6, 3)],
            "controller_rss_mib": 37.2, "plain_writes_s": [{"p99": 0.5}, {"p99": 0.25}, {"p99": 0.3}], "flapping_writes_per_s": {"each": flapping},
            "machine": {"cpu": "a", "cores": 2, "memory": "m", "kernel": "k", "load_at_the_end": "1"}});
        let table = table(&report);
        for row in [
            "1000 nodes, 3 StaticRoutes.",
            "| reported by 99 of 100 nodes, s | 1 | 0.60 (0.50 to 0.75) |",
            "when it has nothing else to do, s) |  | 0.30 (0.25 to 0.50) |",
            "| writes for it: nodeegresses |  | 1000 (1000 to 1000) |",
            "| writes for it: staticroutes |  | 3 (3 to 4) |",
            "| memory of the controller, MiB | 128, its limit | 37 |",
            "| writes in the first 3 s in which all verdicts flap |  | 2100 |",
            "| writes a second after a minute of it | 20 | 18 (18 to 19) |",
        ] {
            assert!(table.contains(row), "{row} in {table}");
        }
    }
}
