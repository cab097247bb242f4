//! A row: break, look, compare with what is documented, mend, look again.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use egress_lab::traffic::now_ms;
use serde::Serialize;

use crate::field::{ControlPlane, Field, NODES};
use crate::rows::Row;
use crate::table::{Expected, Outcome};
use crate::watch::Policy;

/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// After the time that the table gives, nodes are watched a little longer, to see how late they are.
const PATIENCE: Duration = Duration::from_secs(5);
/// So long nodes are watched after a switch: connections through the gateway they left for must all succeed.
const AFTER_A_SWITCH: Duration = Duration::from_millis(1500);
/// A healed gateway is back within that time.
const BACK: Duration = Duration::from_secs(30);
/// One that has to boot for it, without the metadata service.
const BACK_AFTER_BOOT: Duration = Duration::from_secs(75);
/// How long the last answers take, on a busy machine, after the packets of the fault stop.
const LAST_ANSWERS_MS: f64 = 200.0;
/// A client gives a connection up after that time; until then nothing is written about it.
const GIVEN_UP_MS: f64 = 3000.0;
/// A gateway that comes back to nodes that have none is used within that time.
const RETURN: Duration = Duration::from_secs(5);
/// The controller has summed up within that time which gateway nodes went to.
const RECORDED: Duration = Duration::from_secs(15);

/// What came of a row.
#[derive(Debug, Clone, Serialize)]
pub struct Verdict {
    pub row: &'static str,
    pub control_plane: &'static str,
    /// From the fault to the first new connection that succeeded, on the node where it took longest.
    pub seconds: Option<f64>,
    /// The most changes of gateway on one node, until the end of the fault.
    pub moves: usize,
    /// Connections to the `KeepLast` destination that got no answer within three seconds.
    pub failed: usize,
    /// Packets that left with a node's own address though they must not.
    pub leaked: u64,
    /// Packets to a `FailOpen` destination that left with a node's own address.
    pub opened: u64,
    /// Packets that left with an address that is neither a gateway's nor a node's.
    pub other_source: u64,
    /// From the end of the fault until every node used the head of the list.
    pub back_seconds: Option<f64>,
    /// Datagrams lost since the end of the fault.
    pub lost_on_return: u64,
    /// Reason and message of the condition.
    pub degraded: Option<String>,
    /// Clients of which no connection may fail any more, and since when.
    #[serde(skip)]
    settled: Vec<Settled>,
    /// What is otherwise than documented.
    pub wrong: Vec<String>,
}

/// From then until the fault is mended every connection of this client must succeed.
#[derive(Debug, Clone, Copy)]
struct Settled {
    node: &'static str,
    policy: Policy,
    since_ms: f64,
}

impl Verdict {
    /// For a person, in one line.
    pub fn line(&self) -> String {
        let seconds = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.2} s"));
        let word = if self.wrong.is_empty() { "ok  " } else { "FAIL" };
        let mut line = format!(
            "{word} {} (control plane {}): {}, {} moves, {} failed, {} leaked, back after {} with {} lost",
            self.row,
            self.control_plane,
            seconds(self.seconds),
            self.moves,
            self.failed,
            self.leaked,
            seconds(self.back_seconds),
            self.lost_on_return,
        );
        for wrong in &self.wrong {
            line += &format!("\n       {wrong}");
        }
        line
    }
}

/// Every verdict so far, for whoever reads them by machine.
pub fn write(field: &Field, verdicts: &[Verdict]) {
    let path = field.lab.root.join("target/failover/matrix.json");
    std::fs::write(path, serde_json::to_string_pretty(verdicts).unwrap()).unwrap();
}

/// Runs a row. The field is healed afterwards, and not looked at whether it is whole.
pub fn run(field: &mut Field, row: &'static Row, expected: &Expected) -> Verdict {
    let mut verdict = Verdict {
        row: row.name,
        control_plane: field.control_plane.word(),
        seconds: None,
        moves: 0,
        failed: 0,
        leaked: 0,
        opened: 0,
        other_source: 0,
        back_seconds: None,
        lost_on_return: 0,
        degraded: None,
        settled: Vec::new(),
        wrong: Vec::new(),
    };
    field.watch.mark();
    field.reset_oracle();
    let failover_before = field.last_failover();
    let broken_ms = now_ms();
    field.perform(row.fault);
    look(field, row, expected, broken_ms, &mut verdict);
    verdict.moves = moves(field, broken_ms);
    tally(field, expected, &mut verdict);
    field.reset_oracle();
    condition(field, expected, &mut verdict);
    recorded(field, expected, &failover_before, &mut verdict);
    if row.has_other_source {
        none_from_a_stranger(field, &mut verdict);
    }
    let mended_ms = now_ms();
    field.perform(row.mend);
    if row.b_returns {
        returned(field, &mut verdict);
    }
    field.heal();
    back(field, row, expected, mended_ms, &mut verdict);
    none_hung(field, mended_ms, &mut verdict);
    tally(field, expected, &mut verdict);
    count(field, row, broken_ms, &mut verdict);
    verdict
}

/// Addresses of A and B as the outside sees them.
fn addresses(field: &Field) -> [Ipv4Addr; 2] {
    [0, 1].map(|index| field.gateways[index].public)
}

/// The most changes of gateway on one node.
fn moves(field: &Field, broken_ms: f64) -> usize {
    let [a, _] = addresses(field);
    let moves = NODES.map(|node| field.watch.moves(node, Policy::Keep, broken_ms, a));
    moves.into_iter().max().unwrap_or_default()
}

/// What the nodes do, against what they must.
fn look(field: &mut Field, row: &Row, expected: &Expected, broken_ms: f64, verdict: &mut Verdict) {
    match expected.outcome {
        Outcome::Switch => switch(field, row, expected, &NODES, broken_ms, verdict),
        Outcome::OneSwitches => {
            switch(field, row, expected, &NODES[..1], broken_ms, verdict);
            stay(field, &NODES[1..], broken_ms, false, verdict);
        }
        Outcome::Stay | Outcome::StayLossy => {
            wait(field, row.look);
            stay(field, &NODES, broken_ms, expected.outcome == Outcome::StayLossy, verdict);
        }
        Outcome::OneIsolated => {
            wait(field, row.look);
            silent(field, &NODES[..1], &Policy::ALL, broken_ms, verdict);
            stay(field, &NODES[1..], broken_ms, false, verdict);
        }
        Outcome::NothingWorks => {
            wait(field, row.look);
            silent(field, &NODES, &[Policy::Keep, Policy::Closed], broken_ms, verdict);
            opened(field, expected, broken_ms, verdict);
        }
        Outcome::Moves(most) => {
            field.watch.read();
            let moves = moves(field, broken_ms);
            if moves > most {
                verdict.wrong.push(format!("a node changed its gateway {moves} times"));
            }
            if moves == 0 {
                verdict.wrong.push("no node left A".to_owned());
            }
        }
    }
}

fn wait(field: &mut Field, seconds: u64) {
    std::thread::sleep(Duration::from_secs(seconds));
    field.watch.read();
}

/// Every one of these nodes leaves A for B in time, for every destination, and stays there.
fn switch(
    field: &mut Field,
    row: &Row,
    expected: &Expected,
    nodes: &[&'static str],
    broken_ms: f64,
    verdict: &mut Verdict,
) {
    let [a, b] = addresses(field);
    let within = expected.within.expect("a row with a switch says within which time");
    let ends = Instant::now() + Duration::from_secs_f64(within) + PATIENCE;
    loop {
        field.watch.read();
        let all = nodes.iter().all(|node| {
            Policy::ALL.iter().all(|policy| field.watch.first_as(node, *policy, broken_ms, b).is_some())
        });
        if all || Instant::now() >= ends {
            break;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
    std::thread::sleep(AFTER_A_SWITCH);
    field.watch.read();
    for (node, policy) in nodes.iter().flat_map(|node| Policy::ALL.map(|policy| (*node, policy))) {
        let Some(switched_ms) = field.watch.first_as(node, policy, broken_ms, b) else {
            verdict.wrong.push(format!("{node} {}: did not switch", policy.word()));
            continue;
        };
        let last = field.watch.last_as(node, policy, a).unwrap_or(broken_ms);
        let since = if row.is_slow { last.max(broken_ms) } else { broken_ms };
        let seconds = (switched_ms - since) / 1000.0;
        if policy == Policy::Keep {
            verdict.seconds = Some(verdict.seconds.map_or(seconds, |most: f64| most.max(seconds)));
        }
        if seconds > within {
            verdict
                .wrong
                .push(format!("{node} {}: switched after {seconds:.2} s, not {within} s", policy.word()));
        }
        let since_ms = switched_ms + LAST_ANSWERS_MS;
        verdict.settled.push(Settled { node, policy, since_ms });
        let afterwards: Vec<_> = field.watch.of(node, policy, since_ms).collect();
        let stray = afterwards.iter().filter(|one| one.seen_as != Some(b)).count();
        if stray > 0 || afterwards.is_empty() {
            let words = format!(
                "{stray} of {} connections after the switch failed or left otherwise",
                afterwards.len()
            );
            verdict.wrong.push(format!("{node} {}: {words}", policy.word()));
        }
    }
}

/// Every one of these nodes leaves through A; unless what is broken is lossy, without a failure.
fn stay(field: &mut Field, nodes: &[&'static str], broken_ms: f64, is_lossy: bool, verdict: &mut Verdict) {
    let [a, _] = addresses(field);
    for (node, policy) in nodes.iter().flat_map(|node| Policy::ALL.map(|policy| (*node, policy))) {
        let all: Vec<_> = field.watch.of(node, policy, broken_ms).collect();
        let elsewhere = all.iter().filter(|one| one.seen_as.is_some_and(|address| address != a)).count();
        let failed = all.iter().filter(|one| one.seen_as.is_none()).count();
        if !is_lossy {
            verdict.settled.push(Settled { node, policy, since_ms: broken_ms });
        }
        if elsewhere > 0 {
            verdict.wrong.push(format!("{node} {}: {elsewhere} connections left A", policy.word()));
        }
        if (failed > 0 && !is_lossy) || all.len() == failed {
            verdict.wrong.push(format!(
                "{node} {}: {failed} of {} connections failed",
                policy.word(),
                all.len()
            ));
        }
    }
}

/// These nodes reach nothing with these policies.
fn silent(field: &mut Field, nodes: &[&str], policies: &[Policy], broken_ms: f64, verdict: &mut Verdict) {
    for (node, policy) in nodes.iter().flat_map(|node| policies.iter().map(move |policy| (*node, *policy))) {
        let begun = broken_ms + 2.0 * LAST_ANSWERS_MS;
        let answered = field.watch.of(node, policy, begun).filter(|one| one.seen_as.is_some()).count();
        if answered > 0 {
            verdict.wrong.push(format!("{node} {}: {answered} connections were answered", policy.word()));
        }
    }
}

/// What is to fail open does so in time, on every node.
fn opened(field: &mut Field, expected: &Expected, broken_ms: f64, verdict: &mut Verdict) {
    let gateways = addresses(field);
    let within = expected.within.expect("the row says when FailOpen opens");
    for node in NODES {
        let answers = field.watch.of(node, Policy::Open, broken_ms + 2.0 * LAST_ANSWERS_MS);
        let first = answers
            .filter(|one| one.seen_as.is_some_and(|address| !gateways.contains(&address)))
            .map(|one| (one.ended_ms - broken_ms) / 1000.0)
            .reduce(f64::min);
        match first {
            Some(seconds) if seconds <= within => {
                verdict.seconds = Some(verdict.seconds.map_or(seconds, |most: f64| most.max(seconds)));
            }
            first => verdict.wrong.push(format!("{node} FailOpen: with its own address after {first:?} s")),
        }
    }
}

/// The condition says it, with its words.
fn condition(field: &Field, expected: &Expected, verdict: &mut Verdict) {
    let Some((wanted, within)) = expected.degraded else {
        verdict.degraded = field.degraded().map(|(_, words)| words);
        return;
    };
    let ends = Instant::now() + within;
    while let Some((is, words)) = field.degraded() {
        verdict.degraded = Some(words);
        if is == wanted {
            return;
        }
        if Instant::now() >= ends {
            verdict
                .wrong
                .push(format!("Degraded is {is}: {}", verdict.degraded.as_deref().unwrap_or_default()));
            return;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// The object says from where to where nodes went.
fn recorded(field: &Field, expected: &Expected, before: &serde_json::Value, verdict: &mut Verdict) {
    let is_told = expected.outcome == Outcome::Switch && matches!(expected.degraded, Some((true, _)));
    if !is_told || field.control_plane == ControlPlane::Down {
        return;
    }
    let wanted = Some(addresses(field));
    let ends = Instant::now() + RECORDED;
    while field.failover_since(before) != wanted {
        if Instant::now() >= ends {
            verdict.wrong.push(format!("status.lastFailover is not from A to B: {}", field.last_failover()));
            return;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Since nodes left A, nothing leaves with an address that is no gateway's.
fn none_from_a_stranger(field: &Field, verdict: &mut Verdict) {
    let packets: u64 = Policy::ALL.iter().map(|policy| field.packets(*policy).other).sum();
    if packets > 0 {
        verdict.wrong.push(format!("{packets} packets left with a stranger's address after the switch"));
    }
}

/// Every node uses B, which is back, for every destination.
fn returned(field: &mut Field, verdict: &mut Verdict) {
    let [_, b] = addresses(field);
    let ends = Instant::now() + RETURN;
    while !field.all_leave_through(b) {
        if Instant::now() >= ends {
            verdict.wrong.push(format!("B was back and not used within {} s", RETURN.as_secs()));
            return;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Every node uses the head of the list again, and lost nothing on its way there if it had a gateway that worked.
fn back(field: &mut Field, row: &Row, expected: &Expected, mended_ms: f64, verdict: &mut Verdict) {
    if field.stays_away(row) {
        let [_, b] = addresses(field);
        wait(field, row.look);
        verdict.lost_on_return = field.lost_since(mended_ms);
        if verdict.lost_on_return > 0 || !field.all_leave_through(b) {
            verdict.wrong.push("nodes did not stay with B without a loss".to_owned());
        }
        return;
    }
    let boots_alone = row.boots && field.control_plane == ControlPlane::Down;
    let limit = if boots_alone { BACK_AFTER_BOOT } else { BACK };
    let ends = Instant::now() + limit;
    loop {
        let head = field.listed().and_then(|gateways| Some(gateways.first()?.public));
        if head.is_some_and(|head| field.all_leave_through(head)) {
            break;
        }
        if Instant::now() >= ends {
            verdict.wrong.push(format!("not at the head of the list {} s after the fault", limit.as_secs()));
            return;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
    verdict.back_seconds = Some((now_ms() - mended_ms) / 1000.0);
    verdict.lost_on_return = field.lost_since(mended_ms);
    if expected.outcome == Outcome::Switch && verdict.lost_on_return > 0 {
        verdict.wrong.push(format!("{} datagrams were lost after the fault", verdict.lost_on_return));
    }
}

/// No client that had settled had a connection that failed until the fault was mended, those included that hung.
fn none_hung(field: &mut Field, mended_ms: f64, verdict: &mut Verdict) {
    let left_ms = mended_ms + GIVEN_UP_MS + LAST_ANSWERS_MS - now_ms();
    std::thread::sleep(Duration::from_secs_f64(left_ms.max(0.0) / 1000.0));
    field.watch.read();
    for Settled { node, policy, since_ms } in verdict.settled.clone() {
        let begun = field.watch.of(node, policy, since_ms).filter(|one| one.begun_ms < mended_ms);
        let failed = begun.filter(|one| one.seen_as.is_none()).count();
        if failed > 0 {
            verdict.wrong.push(format!("{node} {}: {failed} connections failed later", policy.word()));
        }
    }
}

/// What failed, and whether strangers' addresses are to be expected.
fn count(field: &Field, row: &Row, broken_ms: f64, verdict: &mut Verdict) {
    let kept = NODES.iter().flat_map(|node| field.watch.of(node, Policy::Keep, broken_ms));
    verdict.failed = kept.filter(|one| one.seen_as.is_none()).count();
    if verdict.other_source > 0 && !row.has_other_source {
        verdict.wrong.push(format!("{} packets left with a stranger's address", verdict.other_source));
    }
}

/// Adds what left with which address since the oracle was last reset.
fn tally(field: &Field, expected: &Expected, verdict: &mut Verdict) {
    for policy in Policy::ALL {
        let packets = field.packets(policy);
        verdict.other_source += packets.other;
        let nothing_works = matches!(expected.outcome, Outcome::NothingWorks | Outcome::OneIsolated);
        let may_open = policy == Policy::Open && nothing_works;
        if may_open {
            verdict.opened += packets.node;
        } else if packets.node > 0 {
            verdict.leaked += packets.node;
            verdict.wrong.push(format!(
                "{}: {} packets left with a node's address",
                policy.word(),
                packets.node
            ));
        }
    }
}
