use ipnet::Ipv4Net;

use super::*;
use crate::diff::changes;
use crate::fib_model::{Packet, Way, apply, holding, lookup, packet};
use crate::fixture::{ip, node, route, shared};
use crate::kernel_state::Route;
use crate::orphans::orphans;
use crate::plan::{NodePlan, Selection, plan};
use crate::recovery::{Recovered, gateways_of};
use crate::wanted::WantedRoute;

const A: &str = "10.116.0.100";
const B: &str = "10.116.0.101";

fn wanted() -> [WantedRoute; 3] {
    [
        route("all", 1, &["0.0.0.0/0"], &[A, B]),
        route("one", 2, &["198.51.100.40", "203.0.113.77"], &[A, B]),
        shared(route("many", 3, &["192.0.2.0/24"], &[B, A])),
    ]
}

/// Ahead of the old rules, among them, behind them; with other nexthop ids and with the same; some numbers only.
fn moves() -> impl Iterator<Item = Layout> {
    let all = [(500, 242_000_000), (901, 249_000_000), (850, 241_000_000), (1_500, 241_000_000)].map(
        |(first, ids)| Numbers {
            table: 2157,
            probe_tables: 2160,
            rule_priorities: first,
            probe_ports: 63_424,
            nexthop_ids: ids,
        },
    );
    let default = Numbers::default();
    let some = [
        Numbers { table: 2157, ..default },
        Numbers { probe_tables: 2160, ..default },
        Numbers { rule_priorities: 800, ..default },
        Numbers { probe_ports: 63_424, ..default },
        Numbers { nexthop_ids: 243_000_000, ..default },
    ];
    all.into_iter().chain(some).map(|numbers| Layout::new(numbers).unwrap())
}

fn selection(plan: &NodePlan) -> Selection {
    plan.routes.iter().map(|report| (report.uid.clone(), report.in_use.iter().copied().collect())).collect()
}

fn ways(kernel: &Observed) -> Vec<Way> {
    let to = ["1.2.3.4", "198.51.100.40", "203.0.113.77", "203.0.113.12", "198.51.100.10", "10.116.0.3"];
    let packets = to.into_iter().chain(["192.0.2.6", "192.0.2.7"]).map(|to| packet(ip(to)));
    let reply = Packet { source: ip("203.0.113.11"), ..packet(ip("1.2.3.4")) };
    packets.chain([reply]).map(|one| lookup(kernel, &node().main_routes, one)).collect()
}

/// Every kernel on the way to `want`.
fn towards(kernel: &mut Observed, want: &NodePlan, expected: &[Way]) -> Vec<Observed> {
    let list = changes(kernel, &want.state);
    let mut step = |change| {
        apply(kernel, change);
        assert_eq!(ways(kernel), expected, "after {change:?}");
        kernel.clone()
    };
    list.iter().map(&mut step).collect()
}

/// What an agent does that starts: it goes on with the kernel's numbers, and then moves to those that it was given.
fn start(kernel: &mut Observed, given: &Layout, expected: &[Way]) -> Vec<Observed> {
    let found = Layout::in_kernel(kernel, given);
    let first = plan(&wanted(), &node(), &Selection::new(), kernel, &found);
    towards(kernel, &first, expected);
    let moved = plan(&wanted(), &node(), &selection(&first), kernel, given);
    towards(kernel, &moved, expected)
}

fn failed_over() -> Observed {
    let failed_over = [("uid-one".to_owned(), [ip(B)].into()), ("uid-many".to_owned(), [ip(A)].into())];
    let before =
        plan(&wanted(), &node(), &Selection::from(failed_over), &Observed::default(), &Layout::default());
    holding(&before.state)
}

#[test]
fn an_agent_with_other_numbers_moves_everything_over_without_a_gap_and_keeps_failovers() {
    for layout in moves() {
        let mut kernel = failed_over();
        let expected = ways(&kernel);
        assert_eq!(expected[..3], [ip(A), ip(B), ip(B)].map(Way::Gateway));
        assert_eq!(expected[6..8], [ip(A), ip(A)].map(Way::Gateway));
        let steps = start(&mut kernel, &layout, &expected);
        assert!(kernel.routes.keys().all(|key| layout.has_table(key.table)));
        assert!(kernel.rules.iter().all(|rule| layout.priorities().contains(&rule.get().priority)));
        assert!(kernel.nexthops.keys().all(|id| layout.nexthops().contains(&id.0)));
        assert_eq!(Layout::in_kernel(&kernel, &Layout::default()), layout);
        let again = plan(&wanted(), &node(), &Selection::new(), &kernel, &layout);
        assert_eq!(changes(&kernel, &again.state), [], "a restart writes nothing");

        // Killed anywhere on the way, with the same numbers the next time and with the first ones.
        for killed in steps {
            let mut forth = killed.clone();
            start(&mut forth, &layout, &expected);
            assert_eq!(forth.routes.len(), kernel.routes.len());
            let mut back = killed;
            start(&mut back, &Layout::default(), &expected);
            assert!(back.routes.keys().all(|key| Layout::default().has_table(key.table)));
        }
    }
}

#[test]
fn gateways_that_share_traffic_keep_their_places_in_the_group() {
    let before = plan(&wanted(), &node(), &Selection::new(), &Observed::default(), &Layout::default());
    let kernel = holding(&before.state);
    for layout in moves() {
        let slots = |plan: &NodePlan| {
            plan.probes.iter().map(|path| (path.gateway, path.slot)).collect::<BTreeSet<_>>()
        };
        let moved = plan(&wanted(), &node(), &selection(&before), &kernel, &layout);
        assert_eq!(slots(&moved), slots(&before));
    }
}

#[test]
fn an_agent_with_other_numbers_finds_what_was_left_at_the_old_ones() {
    let kernel = failed_over();
    let old = Layout::default();
    for layout in moves() {
        assert_eq!(Layout::in_kernel(&kernel, &layout), old);
        let found = Layout::in_kernel(&kernel, &layout);
        let first = plan(&wanted(), &node(), &Selection::new(), &kernel, &found);
        assert_eq!(changes(&kernel, &first.state), []);
        assert_eq!(Recovered::read(&kernel, &found), Recovered::read(&kernel, &old));
        assert_eq!(Recovered::read(&kernel, &found).routes.len(), 3);
        assert_eq!(orphans(&kernel, &NodePlan::default(), &[], &found).len(), 3);
        let one: Ipv4Net = "198.51.100.40/32".parse().unwrap();
        assert_eq!(gateways_of([&one], &kernel, &layout), [ip(A), ip(B)]);
    }
}

#[test]
fn where_nothing_is_routed_the_given_numbers_count_and_where_rules_are_gone_the_table_tells() {
    let given = moves().next().unwrap();
    assert_eq!(Layout::in_kernel(&Observed::default(), &given), given);
    let mut flushed = failed_over();
    flushed.rules.clear();
    let found = Layout::in_kernel(&flushed, &given);
    assert_eq!((found.table, found.first_nexthop), (1157, 241_000_000));
    assert_eq!(found.first_probe_priority, given.first_probe_priority);

    // With its link down a table has guards alone.
    let mut down = node();
    down.vpc.as_mut().unwrap().up = false;
    let plan = plan(&wanted(), &down, &Selection::new(), &Observed::default(), &Layout::default());
    let found = Layout::in_kernel(&holding(&plan.state), &given);
    assert_eq!(found.table, 1157);
    assert_eq!(found.priorities(), Layout::default().priorities());
    let is_guard = |route: &Route| route.metric == given.guard_metric;
    assert!(plan.state.routes.values().any(is_guard));
}
