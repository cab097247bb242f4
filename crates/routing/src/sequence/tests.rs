use super::*;
use crate::fib_model::holding;
use crate::fixture::{excluding, net, node};
use crate::kernel_state::{KernelState, Nexthop, NexthopTarget, Observed};
use crate::layout::Layout;
use crate::wanted::WantedRoute;
use crate::{Selection, changes, plan};

const TABLE: u32 = 1157;

fn planned(routes: &[WantedRoute]) -> KernelState {
    plan(routes, &node(), &Selection::new(), &Observed::default(), &Layout::default()).state
}

/// A change in short, without deletions.
fn name(change: &Change) -> String {
    match change {
        Change::PutNexthop { nexthop, .. } => format!("nexthop {}", nexthop.id),
        Change::PutRoute { route, .. } if route.table != TABLE => format!("probe {}", route.table),
        Change::PutRoute { route, .. } => match route.kind {
            RouteKind::Throw => format!("throw {}", route.destination),
            RouteKind::Nexthop(_) => format!("route {}", route.destination),
            _ => format!("guard {}", route.destination),
        },
        Change::PutRule(rule) => format!("rule {}", rule.priority),
        Change::RestoreRule(rule) => format!("rule {}", rule.rule().priority),
        Change::DeleteRule(_) | Change::DeleteRoute(_) | Change::DeleteNexthop(_) => "delete".to_owned(),
    }
}

struct Played {
    batches: Vec<Vec<String>>,
    withheld: Vec<String>,
}

impl Played {
    fn is_sent(&self, name: &str) -> bool {
        self.batches.iter().flatten().any(|sent| sent == name)
    }

    /// Batch in which it is.
    fn batch_of(&self, name: &str) -> usize {
        self.batches.iter().position(|batch| batch.iter().any(|sent| sent == name)).unwrap()
    }
}

/// All batches of a list in front of a kernel that refuses the changes named.
fn play(list: &[Change], refused: &[&str]) -> Played {
    let mut sequence = Sequence::new(list.to_vec(), TABLE);
    let mut batches = Vec::new();
    while let Some(batch) = sequence.next_batch() {
        for change in batch.iter().filter(|change| refused.contains(&name(change).as_str())) {
            sequence.miss(change);
        }
        batches.push(batch.iter().map(name).collect());
    }
    let withheld: Vec<String> = sequence.withheld().iter().map(name).collect();
    let sent: usize = batches.iter().map(Vec::len).sum();
    assert_eq!(sent + withheld.len(), list.len(), "every change is sent once or withheld");
    Played { batches, withheld }
}

/// Everything, with a range in it that has an exception of its own: two ranges are opened, one after the other.
fn two_ranges() -> Vec<Change> {
    let all = excluding("all", 1, &["0.0.0.0/0", "1.2.3.0/24"], &["1.2.3.4/32"], &["10.116.0.100"]);
    changes(&Observed::default(), &planned(&[all]))
}

#[test]
fn what_must_stay_out_of_a_range_is_sent_before_the_range_is_opened() {
    let played = play(&two_ranges(), &[]);
    let batch = |name: &str| played.batch_of(name);
    assert!(batch("throw 1.2.3.4/32") < batch("route 1.2.3.0/24"));
    assert!(batch("throw 224.0.0.0/4") < batch("route 0.0.0.0/0"));
    assert!(batch("throw 224.0.0.0/4") < batch("guard 0.0.0.0/0"));
    assert!(batch("rule 990") < batch("route 1.2.3.0/24"));
    assert!(batch("rule 1000") < batch("rule 1001"));
    assert_eq!(played.withheld, [""; 0]);
}

#[test]
fn a_range_waits_for_each_exception_also_for_those_written_after_a_narrower_range() {
    for (refused, waiting) in [
        (
            "throw 1.2.3.4/32",
            ["guard 0.0.0.0/0", "guard 1.2.3.0/24", "route 0.0.0.0/0", "route 1.2.3.0/24"].as_slice(),
        ),
        ("throw 198.51.100.10/32", &["guard 0.0.0.0/0", "route 0.0.0.0/0"]),
        ("throw 10.244.0.0/16", &["guard 0.0.0.0/0", "route 0.0.0.0/0"]),
        ("throw 224.0.0.0/4", &["guard 0.0.0.0/0", "route 0.0.0.0/0"]),
    ] {
        let mut played = play(&two_ranges(), &[refused]);
        assert!(played.is_sent(refused), "{refused} is in the plan");
        played.withheld.sort();
        assert_eq!(played.withheld, waiting, "{refused} is refused");
        assert!(played.is_sent("rule 1001"), "the rest goes on");
    }
}

#[test]
fn without_a_rule_that_keeps_packets_in_main_nothing_is_opened() {
    let list = two_ranges();
    let played = play(&list, &["rule 990"]);
    assert!(!played.is_sent("route 0.0.0.0/0") && !played.is_sent("route 1.2.3.0/24"));
    assert!(!played.is_sent("rule 1001"));
    assert!(played.is_sent("throw 224.0.0.0/4") && played.is_sent("rule 1000"));
    let probes = list.iter().map(name).filter(|name| name.starts_with("probe") || name == "rule 900");
    let unsent: Vec<String> = probes.filter(|probe| !played.is_sent(probe)).collect();
    assert_eq!(unsent, [""; 0], "gateways are probed all the same");

    let played = play(&list, &["rule 1000"]);
    assert_eq!(played.withheld, ["rule 1001"], "our table would answer for what only main's routes keep");
}

#[test]
fn a_rule_goes_only_when_the_new_ones_are_there() {
    let mut have = holding(&planned(&[excluding("one", 1, &["192.0.2.1"], &[], &["10.116.0.100"])]));
    let before = std::mem::take(&mut have.rules);
    have.rules = before.iter().filter(|rule| rule.get().priority != 990).cloned().collect();
    let elsewhere = KernelState {
        rules: [Rule { from: Some(net("203.0.113.99/32")), ..Rule::lookup(990, MAIN_TABLE) }].into(),
        ..KernelState::default()
    };
    have.rules.extend(holding(&elsewhere).rules);
    let list = changes(&have, &planned(&[excluding("one", 1, &["192.0.2.1"], &[], &["10.116.0.100"])]));
    assert_eq!(play(&list, &[]).batches, [["rule 990"], ["delete"]]);
    assert_eq!(play(&list, &["rule 990"]).withheld, ["delete"]);
}

#[test]
fn a_nexthop_object_stays_while_a_route_that_should_have_left_it_is_on_it() {
    let state = |id: u32| {
        let id = NexthopId(id);
        let mut state = KernelState::default();
        state.insert_nexthop(Nexthop { id, via: NexthopTarget::Blackhole });
        let destination = net("192.0.2.1/32");
        state.insert_route(Route { table: TABLE, destination, metric: 0, kind: RouteKind::Nexthop(id) });
        state
    };
    let list = changes(&holding(&state(241_000_001)), &state(241_000_002));
    let played = play(&list, &[]);
    assert_eq!(played.batches, [vec!["nexthop 241000002", "route 192.0.2.1/32"], vec!["delete"]]);
    assert_eq!(play(&list, &["route 192.0.2.1/32"]).withheld, ["delete"], "it would take the route along");
}

#[test]
fn what_relies_on_nothing_fills_its_batches_and_refusals_hold_up_no_neighbour() {
    let hosts: Vec<String> = (0..1000).map(|n| format!("192.0.{}.{}", n / 250, n % 250 + 1)).collect();
    let all: Vec<&str> = hosts.iter().map(String::as_str).collect();
    let have = holding(&planned(&[excluding("many", 1, &all[..1], &[], &["10.116.0.100"])]));
    let list = changes(&have, &planned(&[excluding("many", 1, &all, &[], &["10.116.0.100"])]));
    assert_eq!(list.len(), 2 * 999, "routes and their guards");
    let played = play(&list, &["route 192.0.1.9/32"]);
    assert_eq!(played.batches.iter().map(Vec::len).collect::<Vec<_>>(), [LONGEST, list.len() - LONGEST]);
    assert_eq!(played.withheld, [""; 0]);
}
