use super::*;
use crate::diff::changes;
use crate::fib_model::{Packet, Way, holding, lookup};
use crate::fixture::{ip, net, node, route};
use crate::{NodePlan, NodeView, Selection, WantedRoute, plan};

const A: &str = "10.116.0.100";

fn pods(protocol: Transport, port: u16) -> ServedPort {
    ServedPort { from: net("10.244.0.0/16"), protocol, port }
}

fn planned(wanted: &[WantedRoute], served: &BTreeSet<ServedPort>, observed: &Observed) -> NodePlan {
    let view = NodeView { served: served.clone(), ..node() };
    plan(wanted, &view, &Selection::new(), observed, &Layout::default())
}

fn way(plan: &NodePlan, from: &str, protocol: Transport, source_port: u16) -> Way {
    let packet =
        Packet { source: ip(from), protocol: protocol.number(), source_port, to: ip("198.51.100.77") };
    lookup(&holding(&plan.state), &node().main_routes, packet)
}

#[test]
fn who_was_reached_from_outside_answers_the_same_way_and_nobody_else() {
    let nodes = ServedPort { from: net("10.116.0.0/20"), protocol: Transport::Tcp, port: 9100 };
    let served = BTreeSet::from([pods(Transport::Tcp, 8080), pods(Transport::Udp, 53), nodes]);
    let plan = planned(&[route("all", 1, &["0.0.0.0/0"], &[A])], &served, &Observed::default());
    let gateway = Way::Gateway(ip(A));
    for (from, protocol, port, expected) in [
        ("10.244.0.9", Transport::Tcp, 8080, Way::Default),
        ("10.244.7.9", Transport::Tcp, 8080, Way::Default),
        ("10.244.0.9", Transport::Udp, 53, Way::Default),
        ("10.116.0.3", Transport::Tcp, 9100, Way::Default),
        ("10.244.0.9", Transport::Udp, 8080, gateway),
        ("10.244.0.9", Transport::Tcp, 53, gateway),
        ("10.244.0.9", Transport::Tcp, 8081, gateway),
        ("10.244.0.9", Transport::Tcp, 9100, gateway),
        ("10.116.0.3", Transport::Tcp, 8080, gateway),
    ] {
        assert_eq!(way(&plan, from, protocol, port), expected, "{from} {protocol:?} {port}");
    }
}

#[test]
fn there_are_no_such_rules_while_no_route_could_answer_for_a_client() {
    let served = BTreeSet::from([pods(Transport::Tcp, 8080)]);
    let at_inbound = |plan: &NodePlan| {
        let priority = Layout::default().inbound_priority;
        plan.state.rules.iter().filter(|rule| rule.priority == priority).count()
    };
    let nothing = Observed::default();
    assert_eq!(at_inbound(&planned(&[], &served, &nothing)), 0);
    let private = route("peer", 1, &["172.20.0.0/16", "10.9.0.0/16"], &[A]);
    assert_eq!(at_inbound(&planned(&[private], &served, &nothing)), 0, "behind no public address");
    let partner = route("partner", 1, &["198.51.100.0/24"], &[A]);
    assert_eq!(at_inbound(&planned(&[partner], &served, &nothing)), 1);
    let wide = route("wide", 1, &["100.0.0.0/8"], &[A]);
    assert_eq!(at_inbound(&planned(&[wide], &served, &nothing)), 1, "in part private only");
}

#[test]
fn beyond_the_bound_ports_that_work_go_on_working_and_the_others_are_named() {
    let all = [route("all", 1, &["0.0.0.0/0"], &[A])];
    let high: BTreeSet<_> = (0..128).map(|n| pods(Transport::Tcp, 9000 + n)).collect();
    let first = planned(&all, &high, &Observed::default());
    assert_eq!(first.unserved, []);
    let kernel = holding(&first.state);
    let more: BTreeSet<_> = high.iter().copied().chain([pods(Transport::Tcp, 80)]).collect();
    let second = planned(&all, &more, &kernel);
    assert_eq!(second.unserved, [pods(Transport::Tcp, 80)]);
    assert_eq!(changes(&kernel, &second.state), []);
}
