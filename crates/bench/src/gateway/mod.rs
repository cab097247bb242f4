//! What one gateway can bear: throughput, new connections a second, and how many connections to one destination it holds before
//! the first is lost.
//!
//! ```text
//!  node ── VPC ── gateway with the packet rules of a real one ── outside, which answers
//! ```
//!
//! Harness and gateway share the cores of one machine, and packets are copied, not sent: the numbers compare versions and show
//! where limits are; a Droplet has a network in front of it.

mod bulk;
mod connections;

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;
use serde_json::{Value, json};

use crate::failover::world::{GATEWAYS, ROUTED, World};
use crate::numbers::Samples;
use crate::{document, numbers};

/// What stands between these two lines is written by `make bench-gateway`.
const BEGIN: &str = "<!-- gateway: written by make bench-gateway -->";
const END: &str = "<!-- end of gateway -->";

/// Whatever else this program measures has worlds with lower numbers.
const WORLD: usize = 900;

/// Measures what one gateway can bear.
#[derive(Debug, Parser)]
pub struct Settings {
    /// Where the numbers go, with every sample.
    #[arg(long, default_value = "target/bench/gateway.json")]
    out: PathBuf,

    /// Document whose table is written anew.
    #[arg(long)]
    document: Option<PathBuf>,

    /// Samples of each number.
    #[arg(long, default_value_t = 9)]
    samples: usize,

    /// Milliseconds of each sample of throughput and of new connections.
    #[arg(long, default_value_t = 3_000)]
    milliseconds: u64,

    /// Connections to one destination at most.
    #[arg(long, default_value_t = 64_512)]
    most: u32,
}

/// A row of the table: its words, where its samples stand, and what makes a number readable.
const ROWS: [(&str, &str, f64); 7] = [
    ("TCP upload, 4 streams, Gbit/s", "upload_bits_per_second", 1e9),
    ("TCP download, 4 streams, Gbit/s", "download_bits_per_second", 1e9),
    ("UDP datagrams of 100 bytes, arrived a second, thousands", "datagrams_per_second", 1e3),
    ("new TCP connections a second, thousands", "connections_per_second", 1e3),
    ("(the same upload without a gateway, Gbit/s)", "direct_upload_bits_per_second", 1e9),
    ("(new connections without a gateway, thousands a second)", "direct_connections_per_second", 1e3),
    ("connections to one destination when the first was lost", "first_lost", 1.0),
];

/// Measures everything and writes it down.
pub fn run(settings: &Settings) -> anyhow::Result<()> {
    let world = World::new(WORLD, 1)?;
    let node = &world.nodes[0];
    connections::give_addresses(node)?;
    let mut samples: std::collections::BTreeMap<&str, Samples> = std::collections::BTreeMap::new();
    let limit = std::time::Duration::from_millis(settings.milliseconds);
    for number in 1..=settings.samples {
        eprintln!("sample {number} of {}", settings.samples);
        for (way, prefix) in [("203.0.113.1", "direct_"), (&GATEWAYS[0].private.to_string(), "")] {
            node.ip(&format!("route replace {ROUTED} via {way}"))?;
            forget(&world)?;
            let mut take = |name: &str, value: f64| {
                let row = ROWS.iter().find(|(_, row, _)| row.strip_prefix(prefix) == Some(name));
                if let Some((_, row, _)) = row {
                    samples.entry(row).or_default().push(value);
                }
            };
            take("upload_bits_per_second", bulk::upload(node, &world.outside, limit)?);
            if prefix.is_empty() {
                take("download_bits_per_second", bulk::download(node, &world.outside, limit)?);
                take("datagrams_per_second", bulk::datagrams(node, &world.outside, limit)?);
            }
            forget(&world)?;
            take(
                "connections_per_second",
                connections::a_second(node, &world.outside, limit, !prefix.is_empty())?,
            );
            if prefix.is_empty() {
                forget(&world)?;
                let gateway = world.gateway(&GATEWAYS[0])?;
                let held =
                    connections::until_the_first_is_lost(node, &world.outside, gateway, settings.most)?;
                take("first_lost", f64::from(held));
            }
        }
    }
    let report = report(&samples);
    if let Some(folder) = settings.out.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(&settings.out, serde_json::to_string_pretty(&report)? + "\n")
        .with_context(|| settings.out.display().to_string())?;
    let table = table(&report);
    println!("{table}");
    match &settings.document {
        Some(path) => document::write(path, BEGIN, END, &table),
        None => Ok(()),
    }
}

/// What the gateway's connection table has of earlier samples would be in the way of this one.
fn forget(world: &World) -> anyhow::Result<()> {
    world.gateway(&GATEWAYS[0])?.run("conntrack", &["-F"], "").map(drop)
}

fn report(samples: &std::collections::BTreeMap<&str, Samples>) -> Value {
    let mut report = json!({"machine": numbers::machine(), "raw": {}});
    for (name, samples) in samples {
        report[*name] = samples.summary();
        report["raw"][*name] = samples.raw();
    }
    report
}

fn table(report: &Value) -> String {
    let mut table = numbers::machine_in_words(&report["machine"])
        + "\n\n| | median (least to most, samples) |\n| --- | --- |\n";
    for (words, name, unit) in ROWS {
        let raw: Vec<f64> =
            report["raw"][name].as_array().into_iter().flatten().filter_map(Value::as_f64).collect();
        let shown = |value: f64| {
            let value = value / unit;
            if value < 100.0 { format!("{value:.1}") } else { thousands(value) }
        };
        let Some(median) = report[name].as_f64() else { continue };
        let (least, most) = raw
            .iter()
            .fold((f64::INFINITY, 0.0_f64), |(least, most), value| (least.min(*value), most.max(*value)));
        let (least, most) = (shown(least), shown(most));
        // Writing to a String does not fail.
        let _infallible =
            writeln!(table, "| {words} | {} ({least} to {most}, {}) |", shown(median), raw.len());
    }
    table
}

/// `51234.4` is `51,234`.
fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_shows_median_and_spread_of_what_was_measured() {
        let report = json!({
            "machine": {"cpu": "x", "cores": 2, "memory": "1 kB", "kernel": "6", "load_at_the_end": "0.1"},
            "first_lost": 52_340.0, "upload_bits_per_second": 9.53e9,
            "raw": {"first_lost": [51_000.0, 52_340.0, 56_886.0], "upload_bits_per_second": [9.53e9]},
        });
        let table = table(&report);
        assert!(table.contains("| TCP upload, 4 streams, Gbit/s | 9.5 (9.5 to 9.5, 1) |\n"), "{table}");
        assert!(table.ends_with("was lost | 52,340 (51,000 to 56,886, 3) |\n"), "{table}");
        assert_eq!(thousands(999.6), "1,000");
    }
}
