//! The table of `docs/failover.md`: what must come of each fault.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// The condition is the sum of what nodes report: it follows within that time where the table gives no other.
const CONDITION: Duration = Duration::from_secs(15);

/// What the nodes do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Every node leaves A for B.
    Switch,
    /// Every node stays with A, and no connection fails.
    Stay,
    /// Every node stays with A, and what A loses is lost.
    StayLossy,
    /// node-1 leaves A, the other one stays.
    OneSwitches,
    /// node-1 reaches nothing, the other one stays.
    OneIsolated,
    /// Nothing works on any node, until a gateway comes back.
    NothingWorks,
    /// A node changes its gateway at most so many times.
    Moves(usize),
}

/// One row.
#[derive(Debug, Clone, PartialEq)]
pub struct Expected {
    /// What the nodes do.
    pub outcome: Outcome,
    /// Seconds within which they have done it.
    pub within: Option<f64>,
    /// Whether the `EgressGateway` says `Degraded` afterwards, and within which time; `None` where either is right.
    pub degraded: Option<(bool, Duration)>,
    /// Whether it was seen to hold; what was not is run by name only.
    pub is_shown: bool,
}

/// Reads the rows by name.
pub fn read() -> BTreeMap<String, Expected> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/failover.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (shown, promised) = text.split_once("\n## Not shown yet\n").unwrap_or((&text, ""));
    let shown = shown.lines().filter_map(|line| row(line, true));
    let rows: BTreeMap<_, _> = shown.chain(promised.lines().filter_map(|line| row(line, false))).collect();
    assert!(!rows.is_empty(), "{} has no rows", path.display());
    rows
}

/// `| `name` | fault | outcome | seconds | Degraded | ...`; other lines are no rows.
fn row(line: &str, is_shown: bool) -> Option<(String, Expected)> {
    let cells: Vec<_> = line.trim().strip_prefix('|')?.split('|').map(str::trim).collect();
    let name = cells.first()?.strip_prefix('`')?.strip_suffix('`')?;
    let [_, _, outcome, within, degraded, ..] = cells[..] else { panic!("too few cells: {line}") };
    let outcome = match outcome {
        "switch" => Outcome::Switch,
        "stay" => Outcome::Stay,
        "stay, lossy" => Outcome::StayLossy,
        "node-1 switches" => Outcome::OneSwitches,
        "node-1 alone" => Outcome::OneIsolated,
        "nothing works" => Outcome::NothingWorks,
        other => match other.strip_prefix("moves ").and_then(|most| most.parse().ok()) {
            Some(most) => Outcome::Moves(most),
            None => panic!("{name}: no such outcome: {other}"),
        },
    };
    let within =
        (within != "-").then(|| within.parse().unwrap_or_else(|_| panic!("{name}: seconds: {within}")));
    let degraded = match degraded {
        "yes" => Some((true, CONDITION)),
        "no" => Some((false, CONDITION)),
        "-" => None,
        other => {
            let seconds = other.strip_prefix("yes, ").and_then(|rest| rest.strip_suffix(" s")?.parse().ok());
            let seconds = seconds.unwrap_or_else(|| panic!("{name}: Degraded: {other}"));
            Some((true, Duration::from_secs(seconds)))
        }
    };
    Some((name.to_owned(), Expected { outcome, within, degraded, is_shown }))
}
