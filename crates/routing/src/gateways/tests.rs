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

#[test]
fn an_address_that_cannot_be_a_gateway_is_refused_with_what_it_is() {
    let node = node();
    let vpc = node.vpc.clone().unwrap();
    for (address, reason, words) in [
        ("10.116.0.2", "GatewayIsThisNode", "is this node's own address"),
        ("203.0.113.11", "GatewayIsThisNode", "is this node's own address"),
        ("10.116.0.3", "GatewayIsNode", "is a node of the cluster"),
        ("10.116.0.0", "GatewayIsNetworkAddress", "is the network address of the VPC subnet"),
        ("10.116.15.255", "GatewayIsBroadcastAddress", "is the broadcast address of the VPC subnet"),
        (
            "255.255.255.255",
            "GatewayIsBroadcastAddress",
            "lies in 255.255.255.255/32, the range of broadcast",
        ),
        ("10.244.1.7", "GatewayIsPod", "lies in 10.244.0.0/16, the range of pods"),
        ("10.245.0.1", "GatewayIsService", "lies in 10.245.0.0/16, the range of services"),
        (
            "169.254.169.254",
            "GatewayIsLinkLocal",
            "lies in 169.254.0.0/16, the range of link-local and metadata",
        ),
        ("127.0.0.1", "GatewayIsLoopback", "lies in 127.0.0.0/8, the range of loopback"),
        ("224.0.0.5", "GatewayIsMulticast", "lies in 224.0.0.0/4, the range of multicast"),
        ("10.99.0.5", "GatewayNotOnLink", "is not in the VPC subnet 10.116.0.0/20 of this node"),
        ("203.0.113.1", "GatewayNotOnLink", "is not in the VPC subnet 10.116.0.0/20 of this node"),
    ] {
        let (usable, issues) = usable_gateways(&[address.parse().unwrap()], &vpc, &node);
        assert!(usable.is_empty(), "{address} is taken for a gateway");
        assert_eq!((issues[0].fault.reason(), issues[0].fault.to_string()), (reason, words.to_owned()));
    }
    let (usable, issues) = usable_gateways(&["10.116.0.5".parse().unwrap()], &vpc, &node);
    assert_eq!((usable.len(), issues.len()), (1, 0));
}
