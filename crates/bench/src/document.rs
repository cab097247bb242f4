//! The tables of `docs/benchmarks.md`.

use std::fmt::Write;
use std::path::Path;

use anyhow::Context;
use serde_json::Value;

use crate::numbers;

/// A table: where it stands, and what is in it.
pub struct Table {
    begin: &'static str,
    end: &'static str,
    /// What is measured, where it stands in the report, and what was aimed at.
    rows: &'static [(&'static str, &'static str, &'static str)],
}

/// What the agent does when something changes.
pub const SPEED: Table = Table {
    begin: "<!-- numbers: written by make bench-agent -->",
    end: "<!-- end of numbers -->",
    rows: &[
        ("1 destination: last route in the kernel, ms", "/apply_ms/1", ""),
        ("100 destinations, ms", "/apply_ms/100", ""),
        ("2,000 destinations, ms", "/apply_ms/2000", "100"),
        ("10,000 destinations, ms", "/apply_ms/10000", "200"),
        ("10,000 destinations deleted, ms", "/delete_ms/10000", ""),
        ("switch of 10,000 routes after the verdict, ms", "/switch_ms", "10"),
        ("the same with one route, ms", "/switch_ms_of_one", "10"),
        ("first unanswered probe to the switch, ms", "/first_miss_to_switch_ms", ""),
        ("restart with 10,000 routes until converged, ms", "/restart_ms", ""),
        ("API writes and events per change of 2,000 destinations", "/api_writes_per_change", ""),
        ("(the API server's own time for a create of 10,000, ms)", "/server_ms/10000", ""),
        ("(`kubectl create` of 10,000 from start to end, ms)", "/kubectl_ms", ""),
    ],
};

/// What it takes while nothing does.
pub const AT_REST: Table = Table {
    begin: "<!-- at rest: written by make bench-agent -->",
    end: "<!-- end of at rest -->",
    rows: &[
        ("as shipped, 300 nodes, 1 destination: memory, MiB", "/shipped/rss_mib/idle", "15"),
        ("as shipped, 300 nodes, 10,000 destinations: memory, MiB", "/shipped/rss_mib/10000", "25"),
        ("as shipped, 300 nodes, 1 destination: processor, % of a core", "/shipped/cpu_percent/1", "0.5"),
        (
            "as shipped, 300 nodes, 10,000 destinations: processor, % of a core",
            "/shipped/cpu_percent/10000",
            "0.5",
        ),
        (
            "as shipped, 3 nodes, 1 destination: processor, % of a core",
            "/shipped/few_nodes/cpu_percent/1",
            "0.5",
        ),
        ("reduced, no destination: memory, MiB", "/rss_mib/idle", "15"),
        ("reduced, 10,000 destinations: memory, MiB", "/rss_mib/10000", "25"),
        ("reduced, 1 destination: processor, % of a core", "/cpu_percent/1", "0.5"),
        ("reduced, 10,000 destinations: processor, % of a core", "/cpu_percent/10000", "0.5"),
    ],
};

impl Table {
    /// The report as that table: median, and from the least to the most where there are several samples.
    pub fn of(&self, report: &Value) -> String {
        let mut table = numbers::machine_in_words(&report["machine"]) + "\n\n";
        let peer = &report["peer"];
        let has_peer = !peer.is_null();
        table += if has_peer {
            "| | egress-agent | goal | peer |\n| --- | --- | --- | --- |\n"
        } else {
            "| | egress-agent | goal |\n| --- | --- | --- |\n"
        };
        for (what, pointer, goal) in self.rows {
            let ours = cell(report, pointer);
            // Writing to a String does not fail.
            let _infallible = if has_peer {
                writeln!(table, "| {what} | {ours} | {goal} | {} |", cell(peer, pointer))
            } else {
                writeln!(table, "| {what} | {ours} | {goal} |")
            };
        }
        table
    }

    /// Puts it where the last one is.
    pub fn write(&self, path: &Path, table: &str) -> anyhow::Result<()> {
        write(path, self.begin, self.end, table)
    }
}

fn cell(report: &Value, pointer: &str) -> String {
    let Some(median) = report.pointer(pointer).and_then(Value::as_f64) else { return "-".to_owned() };
    let samples: Vec<f64> = report["raw"]
        .pointer(pointer)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_f64)
        .collect();
    if samples.len() < 2 {
        return shown(median);
    }
    let least = samples.iter().copied().fold(f64::INFINITY, f64::min);
    let most = samples.iter().copied().fold(0.0, f64::max);
    format!("{} ({} to {}, {} samples)", shown(median), shown(least), shown(most), samples.len())
}

fn shown(value: f64) -> String {
    let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.digits$}")
}

/// Puts what was measured where the last run's is, between the lines `begin` and `end`.
pub fn write(path: &Path, begin: &str, end: &str, measured: &str) -> anyhow::Result<()> {
    let document = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let written = replaced(&document, begin, end, measured)
        .with_context(|| format!("{} has no place for it: '{begin}' is missing", path.display()))?;
    Ok(std::fs::write(path, written)?)
}

fn replaced(document: &str, begin: &str, end: &str, measured: &str) -> Option<String> {
    let (before, rest) = document.split_once(begin)?;
    let (_, after) = rest.split_once(end)?;
    Some(format!("{before}{begin}\n\n{measured}\n{end}{after}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_cell_shows_the_median_and_the_spread() {
        let report = json!({"apply_ms": {"1": 5.0}, "raw": {"apply_ms": {"1": [4.0, 5.0, 30.2]}}});
        assert_eq!(cell(&report, "/apply_ms/1"), "5.00 (4.00 to 30.2, 3 samples)");
        assert_eq!(cell(&report, "/apply_ms/100"), "-");
    }

    #[test]
    fn each_row_stands_under_its_own_pointer_and_what_a_peer_has_not_is_left_open() {
        let report = json!({"machine": {}, "shipped": {"few_nodes": {"cpu_percent": {"1": 0.5}}}, "rss_mib": {"idle": 14.25},
            "raw": {"shipped": {"few_nodes": {"cpu_percent": {"1": [0.4, 0.5, 0.6]}}}}, "peer": {"rss_mib": {"idle": 93.0}}});
        let table = AT_REST.of(&report);
        for row in [
            "| as shipped, 3 nodes, 1 destination: processor, % of a core | 0.50 (0.40 to 0.60, 3 samples) | 0.5 | - |",
            "| as shipped, 300 nodes, 1 destination: memory, MiB | - | 15 | - |",
            "| reduced, no destination: memory, MiB | 14.2 | 15 | 93.0 |",
        ] {
            assert!(table.contains(row), "{row} in {table}");
        }
    }

    #[test]
    fn only_what_is_between_the_marks_is_written_anew() {
        const BEGIN: &str = SPEED.begin;
        const END: &str = SPEED.end;
        let document = format!("head\n{BEGIN}\nold\n{END}\ntail\n");
        let written = replaced(&document, BEGIN, END, "| new |\n").unwrap();
        assert_eq!(written, format!("head\n{BEGIN}\n\n| new |\n\n{END}\ntail\n"));
        assert_eq!(replaced("no marks", BEGIN, END, ""), None);
    }
}
