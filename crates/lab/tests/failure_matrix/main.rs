//! The failure matrix: every fault of `docs/failover.md`, with traffic on every node, judged by the packets that came out, once with
//! the control plane up and once with API server, controller and cloud API down.
//!
//! The table of that document says what must come of each; a row without a fault here, or a fault without a row there, fails the
//! test. Not part of `cargo test --workspace`: it needs the release build, the images and the control plane, which
//! `scripts/failure-matrix.sh` sees to. One lab for all rows: each leaves it whole, or the rest is not run.
//!
//! Rows below "Not shown yet" are run by name only. `FAILOVER_ROWS=kill,nat` runs those rows only, `=sample` those of
//! `make test`, `=all` every one, `FAILOVER_CONTROL_PLANE=up` or `=down` only that half. What was measured goes to `target/failover/matrix.json`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test stops at what it did not expect"
)]

mod field;
mod judge;
mod rows;
mod table;
mod watch;

use std::time::Instant;

use field::{ControlPlane, Field};
use judge::Verdict;
use rows::Row;
use table::Expected;

#[test]
fn every_failure_ends_as_documented() {
    let expected = table::read();
    let rows = chosen(&expected);
    let mut field = Field::prepare();
    let mut verdicts: Vec<Verdict> = Vec::new();
    let wanted = std::env::var("FAILOVER_CONTROL_PLANE").unwrap_or_default();
    for control_plane in [ControlPlane::Up, ControlPlane::Down] {
        if !wanted.is_empty() && wanted != control_plane.word() {
            continue;
        }
        if control_plane == ControlPlane::Down {
            field.take_control_plane_away();
        }
        for row in in_order(&rows, control_plane) {
            let begun = Instant::now();
            let verdict = judge::run(&mut field, row, &expected[row.name]);
            eprintln!("{} ({:.0} s)", verdict.line(), begun.elapsed().as_secs_f64());
            verdicts.push(verdict);
            judge::write(&field, &verdicts);
            if !field.stays_away(row) && !field.is_restored() {
                panic!("{}: the lab did not become whole again; the rows after it were not run", row.name);
            }
        }
    }
    let failed: Vec<_> = verdicts.iter().filter(|verdict| !verdict.wrong.is_empty()).collect();
    assert!(failed.is_empty(), "{} of {} rows ended otherwise than documented", failed.len(), verdicts.len());
}

/// Rows after which nodes stay with B come last: nothing that expects them at A can follow.
fn in_order(rows: &[&'static Row], control_plane: ControlPlane) -> Vec<&'static Row> {
    let mut rows = rows.to_vec();
    rows.sort_by_key(|row| control_plane == ControlPlane::Down && row.restarts_agents);
    rows
}

/// The rows to run, in the order of the code. All names must be in both places.
fn chosen(expected: &std::collections::BTreeMap<String, Expected>) -> Vec<&'static Row> {
    let documented: Vec<_> = expected.keys().map(String::as_str).collect();
    let mut known: Vec<_> = rows::ROWS.iter().map(|row| row.name).collect();
    known.sort_unstable();
    assert_eq!(documented, known, "docs/failover.md and the faults of this test differ");
    let wanted = std::env::var("FAILOVER_ROWS").unwrap_or_default();
    let wanted: Vec<_> = match wanted.as_str() {
        "sample" => rows::SAMPLE.to_vec(),
        names => names.split(',').filter(|name| !name.is_empty()).collect(),
    };
    let unknown: Vec<_> = wanted.iter().filter(|name| !known.contains(name) && **name != "all").collect();
    assert!(unknown.is_empty(), "FAILOVER_ROWS: there are no rows {unknown:?}");
    let is_wanted = |row: &&Row| {
        let by_itself = wanted.is_empty() && expected[row.name].is_shown;
        by_itself || wanted.contains(&row.name) || wanted == ["all"]
    };
    rows::ROWS.iter().filter(is_wanted).collect()
}
