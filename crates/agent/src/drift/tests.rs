use egress_netlink::monitor::Author;
use egress_routing::BuiltinRule;
use egress_routing::kernel_state::{Route, RouteKind, Rule};

use super::*;

fn at(seconds: u64) -> Tick {
    Tick(Duration::from_secs(seconds))
}

fn tally(changes: &[Change]) -> Tally {
    let mut tally = Tally::default();
    for change in changes {
        tally.add(change);
    }
    tally
}

fn put(priority: u32) -> Change {
    Change::PutRule(Rule::lookup(priority, 1157))
}

fn repair(drift: &mut Drift, second: u64, changes: &[Change]) {
    let time = Timestamp::from_second(i64::try_from(second).unwrap()).unwrap();
    drift.looked(&tally(changes), at(second), time);
}

#[test]
fn a_repair_is_told_with_what_and_who() {
    let mut drift = Drift::default();
    assert_eq!(drift.told(at(0)), &Told::default(), "nothing happened");
    drift.heard(&Event::Rule(Author(4711)));
    drift.heard(&Event::Route(Author(4712)));
    repair(&mut drift, 1, &[put(1001), put(1000), Change::RestoreRule(BuiltinRule::Main)]);
    let told = drift.told(at(1)).repairs.clone().unwrap();
    assert_eq!(told.count, 3);
    let last = told.last.unwrap();
    assert_eq!(last.what, "rules 1000, 1001, 32766");
    let cause = "the program with netlink port 4711 (as a rule its process id)";
    assert_eq!(last.cause.as_deref(), Some(cause), "who changed routes did not change the rules");

    drift.heard(&Event::Rule(Author(4711)));
    repair(&mut drift, 2, &[]);
    repair(&mut drift, 100, &[put(990)]);
    let told = drift.told(at(100)).repairs.clone().unwrap();
    assert_eq!((told.count, told.last.unwrap().cause), (4, None), "what was heard counts for one look");
}

#[test]
fn what_the_kernel_refused_at_first_is_no_repair_when_it_is_taken() {
    let mut drift = Drift::default();
    drift.ask(true);
    drift.wrote(false);
    drift.ask(false);
    assert!(!drift.is_repair(), "asked for a look ago and not in the kernel yet");
    drift.wrote(true);
    drift.ask(false);
    assert!(drift.is_repair(), "all was there");
    drift.wrote(false);
    drift.ask(false);
    assert!(drift.is_repair(), "a repair that took two tries is one");
}

#[test]
fn what_is_told_is_short_whatever_was_put_right() {
    let route = Route {
        table: 1157,
        destination: "192.0.2.80/32".parse().unwrap(),
        metric: 0,
        kind: RouteKind::Throw,
    };
    let route = Change::PutRoute { route, replaces: None };
    let mut changes: Vec<Change> = (1..=10_000).map(put).collect();
    changes.extend(std::iter::repeat_n(route, 10_000));
    let all = tally(&changes);
    assert_eq!(all.count(), 20_000);
    assert_eq!(all.to_string(), "rules 1, 2, 3, 4, 5, 6, 7, 8 and 9992 more, 10000 routes in table 1157");
}

#[test]
fn who_keeps_at_it_is_told_and_slows_the_loop_down_until_there_was_peace() {
    let mut drift = Drift::default();
    for second in 0..FIGHT as u64 {
        assert_eq!(drift.rest(at(second)), Duration::ZERO);
        drift.heard(&Event::Rule(Author(4711)));
        repair(&mut drift, second, &[put(1001)]);
    }
    assert_eq!(drift.rest(at(5)), REST);
    let concern = drift.told(at(5)).concern.clone().unwrap();
    assert!(concern.message.contains("rule 1001, by the program with netlink port 4711"), "{concern:?}");
    let last = FIGHT as u64 - 1;
    assert!(drift.told(at(last + PEACE.as_secs() - 1)).concern.is_some());
    assert_eq!(drift.told(at(last + PEACE.as_secs())).concern, None);
    assert_eq!(drift.rest(at(last + PEACE.as_secs())), Duration::ZERO);
}

#[test]
fn a_fight_ends_in_peace_also_while_nobody_asks_what_to_tell() {
    let mut drift = Drift::default();
    for second in 0..FIGHT as u64 {
        repair(&mut drift, second, &[put(1001)]);
    }
    let last = FIGHT as u64 - 1;
    assert_eq!(drift.rest(at(last + PEACE.as_secs() - 1)), REST);
    assert_eq!(drift.rest(at(last + PEACE.as_secs())), Duration::ZERO);
    repair(&mut drift, last + PEACE.as_secs(), &[put(1001)]);
    assert_eq!(drift.rest(at(last + PEACE.as_secs())), Duration::ZERO, "one blow after peace is no fight");
}

#[test]
fn repairs_now_and_then_and_a_link_that_flaps_are_no_fight() {
    let mut drift = Drift::default();
    for n in 0..50 {
        repair(&mut drift, n * 20, &[put(1001)]);
    }
    for n in 0..50 {
        drift.heard(&Event::Link);
        repair(&mut drift, 1000 + n, &[put(1001)]);
    }
    let told = drift.told(at(1050));
    assert_eq!(told.concern, None);
    let last = told.repairs.as_ref().unwrap().last.as_ref().unwrap();
    assert_eq!(last.cause.as_deref(), Some("a link went down or came up"));
}

#[test]
fn a_fight_changes_the_report_every_ten_seconds_and_not_with_every_blow() {
    let mut drift = Drift::default();
    let mut reports = Vec::new();
    for second in 0..60 {
        drift.heard(&Event::Rule(Author(5000 + u32::try_from(second).unwrap())));
        repair(&mut drift, second, &[put(1001)]);
        let told = drift.told(at(second)).clone();
        if reports.last() != Some(&told) {
            reports.push(told);
        }
    }
    // Each one until it is a fight, then every ten seconds.
    assert!(reports.len() <= FIGHT + 6, "{} reports", reports.len());
    assert!(reports.len() >= FIGHT + 4, "the report falls behind: {} reports", reports.len());
}

#[test]
fn a_restarted_agent_goes_on_counting_and_changes_nothing_before_it_repairs() {
    let repairs = |count, what: &str| Repairs {
        count,
        last: Some(Repair { time: Time(Timestamp::UNIX_EPOCH), what: what.to_owned(), cause: None }),
    };
    let nothing = Repairs::default();
    assert_eq!(continued(&nothing, None), None, "nothing ever was");
    assert_eq!(continued(&repairs(9, "a"), None), Some(repairs(9, "a")));
    assert_eq!(continued(&repairs(9, "a"), Some(&repairs(2, "b"))), Some(repairs(11, "b")));
    assert_eq!(continued(&nothing, Some(&repairs(2, "b"))), Some(repairs(2, "b")));
}
