use super::*;
use crate::builtin_rules::BuiltinRule;
use crate::fib_model::holding;
use crate::fixture::net;
use crate::kernel_state::{Foreign, Gateway, GroupMember, Nexthop, NexthopId, Route, RouteKey, RouteKind};

const FIRST: NexthopId = NexthopId(241_000_001);
const SECOND: NexthopId = NexthopId(241_000_002);

fn gateway(id: NexthopId, last: u8) -> Nexthop {
    let address = std::net::Ipv4Addr::new(10, 116, 0, last);
    Nexthop { id, via: NexthopTarget::Gateway(Gateway { address, interface: 3, onlink: false }) }
}

fn route(destination: &str, kind: RouteKind) -> Route {
    Route { table: 1157, destination: net(destination), metric: 0, kind }
}

fn state(nexthops: &[Nexthop], routes: &[Route], rules: &[u32]) -> KernelState {
    let mut state = KernelState::default();
    nexthops.iter().cloned().for_each(|nexthop| state.insert_nexthop(nexthop));
    routes.iter().cloned().for_each(|route| state.insert_route(route));
    state.rules.extend(rules.iter().map(|priority| Rule::lookup(*priority, 1157)));
    state
}

/// Changes in short.
fn short(list: &[Change]) -> Vec<String> {
    list.iter()
        .map(|change| match change {
            Change::PutNexthop { nexthop, replaces } => {
                format!("{} nexthop {}", if replaces.is_some() { "replace" } else { "add" }, nexthop.id)
            }
            Change::PutRoute { route, replaces } => {
                format!("{} route {}", if replaces.is_some() { "replace" } else { "add" }, route.destination)
            }
            Change::PutRule(rule) => format!("add rule {}", rule.priority),
            Change::RestoreRule(rule) => format!("restore rule {}", rule.rule().priority),
            Change::DeleteRule(rule) => format!("delete rule {}", rule.get().priority),
            Change::DeleteRoute(route) => format!("delete route {}", route.get().destination),
            Change::DeleteNexthop(nexthop) => format!("delete nexthop {}", nexthop.get().id),
        })
        .collect()
}

fn some() -> KernelState {
    let routes = [
        route("0.0.0.0/0", RouteKind::Nexthop(FIRST)),
        route("169.254.0.0/16", RouteKind::Throw),
        route("1.2.3.4/32", RouteKind::Nexthop(FIRST)),
    ];
    state(&[gateway(FIRST, 5)], &routes, &[990, 1000, 1001])
}

#[test]
fn what_is_there_needs_no_change() {
    assert_eq!(changes(&Observed::default(), &KernelState::default()), []);
    assert_eq!(changes(&holding(&some()), &some()), []);
}

#[test]
fn the_kernels_own_rules_come_back_after_ours_and_are_never_taken_away() {
    let mut want = some();
    want.builtin_rules = BuiltinRule::ALL.into();
    let mut kernel = holding(&want);
    kernel.rules.clear();
    kernel.lost_builtin_rules = BuiltinRule::ALL.into();
    let list = short(&changes(&kernel, &want));
    assert_eq!(
        list,
        ["add rule 990", "add rule 1000", "add rule 1001", "restore rule 32766", "restore rule 32767"]
    );
    let gone = short(&changes(&holding(&want), &KernelState::default()));
    assert!(!gone.iter().any(|change| change.contains("3276")), "{gone:?}");
}

#[test]
fn the_first_apply_puts_the_exceptions_before_the_rule_and_the_rules_from_the_lowest_up() {
    assert_eq!(
        short(&changes(&Observed::default(), &some())),
        [
            "add nexthop 241000001",
            "add route 1.2.3.4/32",
            "add route 169.254.0.0/16",
            "add route 0.0.0.0/0",
            "add rule 990",
            "add rule 1000",
            "add rule 1001",
        ]
    );
}

#[test]
fn the_last_delete_goes_the_other_way() {
    assert_eq!(
        short(&changes(&holding(&some()), &KernelState::default())),
        [
            "delete rule 1001",
            "delete rule 1000",
            "delete rule 990",
            "delete route 0.0.0.0/0",
            "delete route 169.254.0.0/16",
            "delete route 1.2.3.4/32",
            "delete nexthop 241000001",
        ]
    );
}

#[test]
fn a_route_that_becomes_another_is_replaced_in_place() {
    let want = state(
        &[gateway(FIRST, 6), gateway(SECOND, 7)],
        &[
            route("0.0.0.0/0", RouteKind::Nexthop(SECOND)),
            route("169.254.0.0/16", RouteKind::Throw),
            route("1.2.3.4/32", RouteKind::Throw),
        ],
        &[990, 1000, 1001],
    );
    assert_eq!(
        short(&changes(&holding(&some()), &want)),
        [
            "replace nexthop 241000001",
            "add nexthop 241000002",
            "replace route 1.2.3.4/32",
            "replace route 0.0.0.0/0"
        ]
    );
}

#[test]
fn members_come_before_their_group_and_go_after_it() {
    let group = Nexthop {
        id: NexthopId(241_000_000),
        via: NexthopTarget::group([GroupMember { id: FIRST, weight: 1 }], None),
    };
    let grouped = state(&[group, gateway(FIRST, 5)], &[], &[]);
    let put = changes(&Observed::default(), &grouped);
    assert_eq!(short(&put), ["add nexthop 241000001", "add nexthop 241000000"]);
    let gone = changes(&holding(&grouped), &KernelState::default());
    assert_eq!(short(&gone), ["delete nexthop 241000000", "delete nexthop 241000001"]);
}

#[test]
fn what_others_have_at_our_places_is_left_alone() {
    let mut kernel = Observed::default();
    let key = RouteKey { table: 1157, destination: net("1.2.3.4/32"), metric: 0 };
    kernel.foreign.insert(Foreign::Route { key, protocol: 4 });
    kernel.foreign.insert(Foreign::Nexthop { id: SECOND, protocol: 4 });
    let mut want = some();
    want.insert_nexthop(gateway(SECOND, 7));
    let list = short(&changes(&kernel, &want));
    assert!(
        !list.iter().any(|change| change.contains("1.2.3.4") || change.contains("241000002")),
        "{list:?}"
    );
    assert_eq!(list.len(), 6);
}

#[test]
fn what_keeps_packets_in_main_is_there_before_the_routes_and_leaves_after_them() {
    let mut more =
        state(&[gateway(FIRST, 5)], &[route("0.0.0.0/0", RouteKind::Nexthop(FIRST))], &[995, 1001]);
    more.rules.insert(Rule::lookup(991, MAIN_TABLE));
    let less = state(&[gateway(FIRST, 5)], &[], &[1001]);
    assert_eq!(
        short(&changes(&holding(&less), &more)),
        ["add rule 991", "add route 0.0.0.0/0", "add rule 995"]
    );
    assert_eq!(
        short(&changes(&holding(&more), &less)),
        ["delete rule 995", "delete route 0.0.0.0/0", "delete rule 991"]
    );
}
