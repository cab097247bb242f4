//! The numbers of `docs/benchmarks.md`, section "Failover".

use std::fmt::Write;
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::fault::Class;
use super::histogram::{Panel, svg};
use super::kill::Kill;

/// What stands between these two lines is written by `make bench-failover`.
pub const BEGIN: &str = "<!-- failover: written by make bench-failover -->";
/// The end of it.
pub const END: &str = "<!-- end of failover -->";

/// What is shown of each run, where it stands in its report, and the goal: with the default profile, and with the fast one.
const ROWS: &[(&str, &str, &str, &str)] = &[
    ("kills, dead gateway", "/dead/kills", "", ""),
    ("dead: until every node had a new connection, p50, ms", "/dead/p50_ms", "400", "200"),
    ("p90", "/dead/p90_ms", "", ""),
    ("p99", "/dead/p99_ms", "600", ""),
    ("most", "/dead/max_ms", "1000", ""),
    ("the same of each node for itself, p50", "/dead/each_node/p50_ms", "", ""),
    ("p99", "/dead/each_node/p99_ms", "", ""),
    ("connections begun meanwhile took, p50, ms", "/stalled/p50_ms", "", ""),
    ("most", "/stalled/max_ms", "", ""),
    ("the last of them was done after the kill, most", "/stalled/after_the_kill/max_ms", "1600", "1600"),
    ("connections begun meanwhile that failed", "/stalled/failed", "", ""),
    ("kills, gray gateway", "/gray/kills", "", ""),
    ("gray: until every node had a new connection, p50, ms", "/gray/p50_ms", "", ""),
    ("p90", "/gray/p90_ms", "", ""),
    ("p99", "/gray/p99_ms", "3000", "3000"),
    ("most", "/gray/max_ms", "", ""),
    ("connections begun meanwhile took, p50, ms", "/stalled_gray/p50_ms", "", ""),
    ("most", "/stalled_gray/max_ms", "", ""),
    ("connections begun meanwhile that failed", "/stalled_gray/failed", "", ""),
    ("from healing until all nodes were back, p50, ms", "/return_ms/p50_ms", "", ""),
    ("kills after which a node had no new connection in 15 s", "/not_restored", "0", "0"),
    ("leaked packets", "/leaked_packets", "0", "0"),
    ("false failovers between the kills", "/false_failovers", "0", "0"),
];

/// Runs as columns.
pub fn table(machine: &str, runs: &[Value]) -> String {
    let column = |run: &Value| match (run["control_plane"].as_str(), run["profile"].as_str()) {
        (Some(plane), Some("default")) => format!("control plane {plane}"),
        (Some(plane), Some(profile)) => format!("{profile} profile, control plane {plane}"),
        _ => "?".to_owned(),
    };
    let mut table = format!("{machine}\n\n| | goal |");
    // Writing to a String does not fail.
    let _infallible = writeln!(table, " {} |", runs.iter().map(column).collect::<Vec<_>>().join(" | "));
    let _infallible = writeln!(table, "| --- | --- |{}", " --- |".repeat(runs.len()));
    for (what, pointer, goal, fast) in ROWS {
        let goal =
            if goal == fast || fast.is_empty() { (*goal).to_owned() } else { format!("{goal}; fast {fast}") };
        let cells: Vec<String> = runs.iter().map(|run| shown(run.pointer(pointer))).collect();
        let _infallible = writeln!(table, "| {what} | {goal} | {} |", cells.join(" | "));
    }
    table
}

/// The table of the faults, one by one.
pub fn faults(run: &Value) -> String {
    let mut table =
        "| fault | kills | p50, ms | p99 | most | leaked |\n| --- | --- | --- | --- | --- | --- |\n"
            .to_owned();
    for (fault, of) in run["faults"].as_object().into_iter().flatten() {
        let cells =
            ["/kills", "/p50_ms", "/p99_ms", "/max_ms", "/leaked_packets"].map(|at| shown(of.pointer(at)));
        let _infallible = writeln!(table, "| {} | {} |", fault.replace('-', " "), cells.join(" | "));
    }
    table
}

/// How the numbers of runs with one pair at a time and with several differ.
pub fn pairs(run: &Value) -> String {
    let mut table = "| pairs at a time | kills, dead | p50, ms | p99 | kills, gray | p50 | p99 |\n\
                     | --- | --- | --- | --- | --- | --- | --- |\n"
        .to_owned();
    for (pairs, of) in run["by_pairs_at_a_time"].as_object().into_iter().flatten() {
        let cells =
            ["/dead/kills", "/dead/p50_ms", "/dead/p99_ms", "/gray/kills", "/gray/p50_ms", "/gray/p99_ms"];
        let cells = cells.map(|at| shown(of.pointer(at)));
        let _infallible = writeln!(table, "| {pairs} | {} |", cells.join(" | "));
    }
    table
}

/// What planned switches lost, and what probing costs.
pub fn price(planned: Option<&Value>, soak: Option<&Value>) -> String {
    let mut text = String::new();
    if let Some(planned) = planned {
        let at = |key: &str| shown(planned.pointer(key));
        let _infallible = writeln!(
            text,
            "Planned switches: {}, with {} datagrams under way; lost {} (goal 0), leaked {} (goal 0), connections failed {}. Every \
             node's new connections went through the other gateway {} ms after the API server's answer (p50; p99 {}), twenty of \
             them, a fifth of a second, included.\n",
            at("/switches"),
            at("/datagrams"),
            at("/lost"),
            at("/leaked_packets"),
            at("/connections_failed"),
            at("/took/p50_ms"),
            at("/took/p99_ms"),
        );
    }
    if let Some(soak) = soak {
        let at = |key: &str| shown(soak.pointer(key));
        let _infallible = writeln!(
            text,
            "Soak: {} node-hours with {} % of the packets lost each way on each link of both gateways and every core taken twice \
             over by other work: {} false failovers (goal 0), {} leaked packets.\n\n| the price, {} nodes | quiet | under loss and load |\n| --- | --- | --- |",
            at("/node_hours"),
            at("/lost_percent_each_way_on_each_link_of_a_gateway"),
            at("/false_failovers"),
            at("/leaked_packets"),
            at("/nodes"),
        );
        for (what, key) in [
            ("probes a second of a gateway in the VPC", "probes_per_second_of_a_gateway_in_the_vpc"),
            ("probes a second of its port outside, by its peer", "probes_per_second_of_a_gateway_outside"),
            ("probes a second of all targets outside together", "probes_per_second_of_all_targets"),
            ("processor of an agent, % of a core", "agent_processor_percent"),
        ] {
            let [quiet, loaded] = ["quiet", "loaded"].map(|when| at(&format!("/{when}/{key}")));
            let _infallible = writeln!(text, "| {what} | {quiet} | {loaded} |");
        }
    }
    text
}

fn shown(value: Option<&Value>) -> String {
    match value.and_then(Value::as_f64) {
        None => "-".to_owned(),
        Some(number) if number.fract() == 0.0 || number >= 10.0 => format!("{number:.0}"),
        Some(number) => format!("{number:.2}"),
    }
}

/// Histograms of a run: dead gateways, and gray ones where there were any.
pub fn picture(kills: &[Kill], run: &Value) -> String {
    let panel = |class, what: &str, key: &str, bin, bars| {
        let samples: Vec<f64> =
            kills.iter().filter(|kill| kill.class() == class).map(Kill::every_node_ms).collect();
        let mark = |percentile: &str| {
            let at = run[key][format!("{percentile}_ms")].as_f64()?;
            Some((at, format!("{percentile} {at:.0}")))
        };
        Panel {
            title: format!("{what}: {} kills", samples.len()),
            samples,
            bin,
            bars,
            marks: ["p50", "p99"].into_iter().filter_map(mark).collect(),
        }
    };
    let panels: Vec<Panel> = [
        panel(Class::Dead, "Dead gateway", "dead", 10.0, 100),
        panel(Class::Gray, "Gray gateway", "gray", 50.0, 100),
    ]
    .into_iter()
    .filter(|panel| !panel.samples.is_empty())
    .collect();
    let said = |key: &str| {
        let at = |percentile: &str| shown(run[key].get(format!("{percentile}_ms")));
        let any = run[key]["p50_ms"].is_number();
        any.then(|| {
            format!(
                " {key}: half within {} ms, 99 of 100 within {} ms, all within {} ms.",
                at("p50"),
                at("p99"),
                at("max")
            )
        })
    };
    let said: String = ["dead", "gray"].into_iter().filter_map(said).collect();
    svg(
        "Time from the kill of a gateway until every node had a new connection",
        &format!("Histograms of {} kills.{said}", kills.len()),
        &panels,
    )
}

/// Reads a report of an earlier run with the same code; none where there is none.
pub fn earlier(path: &Path, commit: &str) -> Option<Value> {
    let report: Value = serde_json::from_str(&fs::read_to_string(path).ok()?).ok()?;
    (report["commit"] == commit).then_some(report)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::kill::tests::kill;
    use super::*;

    #[test]
    fn runs_stand_side_by_side_with_their_goals() {
        let run = |plane: &str, p50: f64| json!({"control_plane": plane, "profile": "default", "dead": {"kills": 1000, "p50_ms": p50}, "leaked_packets": 0});
        let table = table("A machine.", &[run("up", 371.4), run("down", 372.0)]);
        assert!(
            table.starts_with("A machine.\n\n| | goal | control plane up | control plane down |\n"),
            "{table}"
        );
        assert!(table.contains("a new connection, p50, ms | 400; fast 200 | 371 | 372 |"), "{table}");
        assert!(table.contains("| leaked packets | 0 | 0 | 0 |"), "{table}");
        assert!(table.contains("| kills, gray gateway |  | - | - |"), "{table}");
    }

    #[test]
    fn runs_with_other_numbers_of_pairs_are_told_apart() {
        let dead = |p50: f64| json!({"dead": {"kills": 7, "p50_ms": p50, "p99_ms": 400.0}, "gray": null});
        let run = json!({"by_pairs_at_a_time": {"1": dead(371.0), "8": dead(372.0)}});
        let table = pairs(&run);
        assert!(
            table.ends_with("| 1 | 7 | 371 | 400 | - | - | - |\n| 8 | 7 | 372 | 400 | - | - | - |\n"),
            "{table}"
        );
    }

    #[test]
    fn the_picture_shows_only_what_was_measured() {
        let run = json!({"dead": {"p50_ms": 310.0, "p99_ms": 320.0, "max_ms": 320.0}});
        let picture = picture(&[kill("frozen", &[Some(310.0)]), kill("frozen", &[Some(320.0)])], &run);
        assert!(picture.contains("Dead gateway: 2 kills") && !picture.contains("Gray gateway"), "{picture}");
        assert!(picture.contains("p50 310"));
    }

    #[test]
    fn what_other_code_measured_is_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("planned.json");
        fs::write(&path, json!({"commit": "abc", "lost": 0}).to_string()).unwrap();
        assert_eq!(earlier(&path, "abc").unwrap()["lost"], 0);
        assert_eq!(earlier(&path, "def"), None);
    }
}
