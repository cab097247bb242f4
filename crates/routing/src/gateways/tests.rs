use std::collections::BTreeSet;

use super::*;
use crate::fib_model::holding;
use crate::fixture::{node, route};
use crate::plan::{NodePlan, Selection, plan};

fn gateways(numbers: std::ops::Range<u8>) -> Vec<String> {
    numbers.map(|number| format!("10.116.0.{}", 100 + number)).collect()
}

fn planned(gateways: &[String], observed: &Observed) -> NodePlan {
    let gateways: Vec<&str> = gateways.iter().map(String::as_str).collect();
    let wanted = [route("r", 1, &["1.2.3.4"], &gateways)];
    plan(&wanted, &node(), &Selection::new(), observed, &Layout::default())
}

fn slots(plan: &NodePlan) -> BTreeMap<Ipv4Addr, u8> {
    plan.probes.iter().map(|probe| (probe.gateway, probe.slot.0)).collect()
}

#[test]
fn a_gateway_keeps_its_slot_when_others_come_and_go() {
    let first = planned(&gateways(1..4), &Observed::default());
    assert_eq!(slots(&first).values().copied().collect::<Vec<_>>(), [0, 1, 2]);
    let kernel = holding(&first.state);
    let second = planned(&gateways(0..3), &kernel);
    let (before, after) = (slots(&first), slots(&second));
    let stayed: BTreeSet<_> = before.keys().filter(|gateway| after.contains_key(gateway)).collect();
    assert_eq!(stayed.len(), 2);
    for gateway in stayed {
        assert_eq!(after[gateway], before[gateway]);
    }
    assert_eq!(after[&"10.116.0.100".parse().unwrap()], 3, "the slot of one that goes rests for a step");
}

#[test]
fn a_gateway_without_a_slot_is_named_and_gets_one_when_it_is_free() {
    let full = planned(&gateways(0..33), &Observed::default());
    assert_eq!(full.probes.len(), 32);
    assert_eq!(full.unprobed, ["10.116.0.132".parse::<Ipv4Addr>().unwrap()]);
    // One goes: its slot is the only one left, so it is given away at once.
    let after = planned(&gateways(1..33), &holding(&full.state));
    assert_eq!(after.unprobed, [] as [Ipv4Addr; 0]);
    assert_eq!(
        slots(&after)[&"10.116.0.132".parse().unwrap()],
        slots(&full)[&"10.116.0.100".parse().unwrap()]
    );
}
