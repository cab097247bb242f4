//! From kills to the numbers that are published.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::fault::Class;
use super::kill::Kill;
use super::record::Key;
use crate::numbers::rounded;

/// Numbers of a run, as in `target/bench/failover.json`.
pub fn summary(kills: &[Kill], key: &Key) -> Value {
    let of = |class: Class| kills.iter().filter(|kill| kill.class() == class).collect::<Vec<_>>();
    let (dead, gray) = (of(Class::Dead), of(Class::Gray));
    let total = |count: fn(&Kill) -> u64| kills.iter().map(count).sum::<u64>();
    let watched_hours = kills.iter().map(|kill| kill.watched_ms).sum::<f64>() / 3_600_000.0;
    json!({
        "kills": kills.len(),
        "control_plane": key.control_plane,
        "profile": key.profile,
        "commit": key.commit,
        "nodes": kills.iter().map(|kill| kill.nodes_ms.len()).max(),
        "pairs_at_a_time": kills.iter().map(|kill| kill.pairs).collect::<BTreeSet<_>>(),
        "seeds": kills.iter().map(|kill| kill.seed).collect::<BTreeSet<_>>(),
        "dead": times(&dead),
        "gray": times(&gray),
        "stalled": stalled(&dead),
        "stalled_gray": stalled(&gray),
        "leaked_packets": total(|kill| kill.leaked_packets),
        "false_failovers": total(|kill| kill.false_failovers.into()),
        "watched_node_hours": rounded(watched_hours),
        "not_restored": kills.iter().filter(|kill| !kill.is_restored()).count(),
        "failed_otherwise": total(|kill| kill.failed_otherwise.into()),
        "return_ms": percentiles(kills.iter().map(|kill| kill.return_ms).collect()),
        "strike_ms": percentiles(kills.iter().map(|kill| kill.strike_ms).collect()),
        "faults": by_fault(kills),
        "by_pairs_at_a_time": by_pairs(kills),
    })
}

/// Whether several pairs at a time disturb each other.
fn by_pairs(kills: &[Kill]) -> Value {
    let pairs: BTreeSet<usize> = kills.iter().map(|kill| kill.pairs).collect();
    let of = |pairs: usize, class| {
        times(&kills.iter().filter(|kill| kill.pairs == pairs && kill.class() == class).collect::<Vec<_>>())
    };
    let both = |pairs: usize| json!({"dead": of(pairs, Class::Dead), "gray": of(pairs, Class::Gray)});
    pairs.into_iter().map(|pairs| (pairs.to_string(), both(pairs))).collect::<serde_json::Map<_, _>>().into()
}

/// Time until every node had a new connection, and beside it of the nodes each for itself.
fn times(kills: &[&Kill]) -> Value {
    if kills.is_empty() {
        return Value::Null;
    }
    let mut times = percentiles(kills.iter().map(|kill| kill.every_node_ms()).collect());
    times["kills"] = json!(kills.len());
    times["not_restored"] = json!(kills.iter().filter(|kill| !kill.is_restored()).count());
    times["each_node"] =
        percentiles(kills.iter().flat_map(|kill| kill.nodes_ms.iter().flatten()).copied().collect());
    times
}

/// What connections begun meanwhile took.
fn stalled(kills: &[&Kill]) -> Value {
    if kills.is_empty() {
        return Value::Null;
    }
    let mut stalled = percentiles(kills.iter().flat_map(|kill| &kill.stalled_ms).copied().collect());
    stalled["connections"] = json!(kills.iter().map(|kill| kill.stalled_ms.len()).sum::<usize>());
    stalled["failed"] = json!(kills.iter().map(|kill| kill.failed).sum::<u32>());
    stalled["after_the_kill"] = percentiles(kills.iter().map(|kill| kill.stalled_until_ms).collect());
    stalled
}

fn by_fault(kills: &[Kill]) -> Value {
    let mut faults: BTreeMap<&str, Vec<&Kill>> = BTreeMap::new();
    for kill in kills {
        faults.entry(&kill.fault).or_default().push(kill);
    }
    let of_one = |kills: &[&Kill]| {
        let mut one = times(kills);
        one["leaked_packets"] = json!(kills.iter().map(|kill| kill.leaked_packets).sum::<u64>());
        one["stalled"] = stalled(kills);
        one
    };
    faults
        .into_iter()
        .map(|(fault, kills)| (fault.to_owned(), of_one(&kills)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// p50, p90, p99 and the most; `null` of nothing. A percentile is a value that was measured: the smallest that so many of a
/// hundred do not exceed.
pub fn percentiles(mut samples: Vec<f64>) -> Value {
    samples.sort_by(f64::total_cmp);
    let at = |percent: usize| {
        let rank = (samples.len() * percent).div_ceil(100).max(1);
        samples.get(rank - 1).map(|value| rounded(*value))
    };
    json!({"p50_ms": at(50), "p90_ms": at(90), "p99_ms": at(99), "max_ms": at(100)})
}

/// The report as text: the numbers for a reader, each kill on one line.
pub fn text(summary: &Value, kills: &[Kill]) -> serde_json::Result<String> {
    let head = serde_json::to_string_pretty(summary)?;
    let lines: Vec<String> = kills.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
    let head = head.trim_end_matches('}').trim_end();
    Ok(format!("{head},\n  \"raw\": [\n    {}\n  ]\n}}\n", lines.join(",\n    ")))
}

#[cfg(test)]
mod tests {
    use super::super::kill::tests::kill;
    use super::*;

    fn key() -> Key {
        Key { commit: "abc".to_owned(), control_plane: "down", profile: "default" }
    }

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let hundred = percentiles((1..=100).rev().map(f64::from).collect());
        assert_eq!(hundred, json!({"p50_ms": 50.0, "p90_ms": 90.0, "p99_ms": 99.0, "max_ms": 100.0}));
        let three = percentiles(vec![3.0, 1.0, 2.0]);
        assert_eq!(three, json!({"p50_ms": 2.0, "p90_ms": 3.0, "p99_ms": 3.0, "max_ms": 3.0}));
        assert_eq!(percentiles(Vec::new())["p50_ms"], Value::Null);
    }

    #[test]
    fn dead_and_gray_are_told_apart_and_who_stays_out_is_in_the_percentiles() {
        let kills = [
            kill("frozen", &[Some(310.0), Some(350.0)]),
            kill("power-off", &[Some(330.0), None]),
            kill("nat-gone", &[Some(1_500.0), Some(1_200.0)]),
        ];
        let summary = summary(&kills, &key());
        assert_eq!(summary["kills"], 3);
        assert_eq!(summary["control_plane"], "down");
        assert_eq!(summary["dead"]["p50_ms"], 350.0);
        assert_eq!(summary["dead"]["max_ms"], 15_000.0);
        assert_eq!(summary["dead"]["not_restored"], 1);
        assert_eq!(summary["dead"]["each_node"]["max_ms"], 350.0);
        assert_eq!(summary["gray"]["p99_ms"], 1_500.0);
        assert_eq!(summary["stalled"]["max_ms"], 1_020.0);
        assert_eq!(summary["faults"]["nat-gone"]["kills"], 1);
        assert_eq!(summary["by_pairs_at_a_time"]["1"]["dead"]["kills"], 2);
    }

    #[test]
    fn the_report_is_json_with_every_kill_in_it() {
        let kills = [kill("frozen", &[Some(310.0)]), kill("nat-gone", &[None])];
        let summary = summary(&kills, &key());
        let text = text(&summary, &kills).unwrap();
        let read: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(read["dead"], summary["dead"]);
        assert_eq!(read["raw"][1]["fault"], "nat-gone");
    }
}
