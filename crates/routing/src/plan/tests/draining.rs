//! Planned moves: what the kernel holds in each step, and what a restart reads back.

use super::*;
use crate::Recovered;
use crate::fixture::{failing, shared};
use crate::kernel_state::NexthopTarget;
use crate::plan::Draining;
use crate::wanted::OnNoGateway::FailClosed;

fn object() -> WantedRoute {
    WantedRoute { drain_seconds: 300, ..route("r", 1, &["1.2.3.4", "5.0.0.0/8"], &[A, B]) }
}

/// From B, which a node had to itself while A was dead, to A.
fn returning(moving: bool) -> Chosen {
    let draining = Draining { from: ip(B), moving, seconds: 300 };
    Chosen { draining: Some(draining), ..ips(&[A]).into() }
}

fn plan_with(route: &WantedRoute, chosen: Option<Chosen>, kernel: &Observed) -> NodePlan {
    let selection = chosen.map(|chosen| ("uid-r".to_owned(), chosen)).into_iter().collect();
    plan(std::slice::from_ref(route), &node(), &selection, kernel, &Layout::default())
}

/// Brings the kernel there; at every step each packet goes through A or B.
fn bring(kernel: &mut Observed, plan: &NodePlan) {
    for change in changes(kernel, &plan.state) {
        apply(kernel, &change);
        for to in ["1.2.3.4", "5.6.7.8", "5.6.7.9"] {
            let way = lookup(kernel, &node().main_routes, packet(ip(to)));
            assert!([A, B].map(through_gateway).contains(&way), "{way:?} after {change:?}");
        }
    }
}

/// The weights of both gateways in the group.
fn weights(kernel: &Observed) -> Vec<(Ipv4Addr, u16)> {
    let layout = Layout::default();
    let group =
        kernel.nexthops.iter().find(|(id, _)| layout.is_drain(**id)).map(|(_, one)| one.get().clone());
    let Some(NexthopTarget::Group { members, .. }) = group.map(|group| group.via) else { return Vec::new() };
    let gateway = |id| crate::gateways::gateway_in_kernel(id, kernel).unwrap();
    members.iter().map(|member| (gateway(member.id), member.weight)).collect()
}

#[test]
fn a_drain_watches_moves_and_ends_and_a_restart_in_each_step_writes_nothing() {
    let layout = Layout::default();
    for wanted in [object(), failing(object(), FailClosed)] {
        let before = plan_with(&wanted, Some(ips(&[B]).into()), &Observed::default());
        let mut kernel = holding(&before.state);
        let mut now = before.clone();
        assert_eq!(now.switch("uid-r", &returning(false), &node(), &kernel, &layout), None);
        assert!(now.is_behind("uid-r", &returning(false), &layout), "its routes move one by one");

        let watching = plan_with(&wanted, Some(returning(false)), &kernel);
        bring(&mut kernel, &watching);
        assert_eq!(weights(&kernel), [(ip(B), 1), (ip(B), 1)]);
        assert_eq!(watching.routes[0].in_use, [ip(B)]);
        assert!(watching.routes[0].is_applied());

        let mut moving = watching.clone();
        let change = moving.switch("uid-r", &returning(true), &node(), &kernel, &layout).unwrap();
        assert_eq!(plan_with(&wanted, Some(returning(true)), &kernel), moving, "as a new plan says");
        assert_eq!(changes(&kernel, &moving.state), std::slice::from_ref(&change), "one message");
        for plan in [&watching, &moving] {
            bring(&mut kernel, plan);
            let restarted = plan_with(&wanted, None, &kernel);
            assert_eq!(changes(&kernel, &restarted.state), []);
            assert_eq!(restarted.routes[0].draining, plan.routes[0].draining);
            assert_eq!(restarted.routes[0].in_use, plan.routes[0].in_use);
        }
        let members = weights(&kernel);
        assert_eq!(members.iter().filter(|member| **member == (ip(A), 255)).count(), 2, "{members:?}");
        assert_eq!(members.iter().filter(|member| **member == (ip(B), 1)).count(), 2, "{members:?}");
        assert_eq!(moving.routes[0].in_use, [ip(A)]);

        // Over: everything is as if it had always been there.
        let over = plan_with(&wanted, Some(ips(&[A]).into()), &kernel);
        bring(&mut kernel, &over);
        assert_eq!(over, plan_with(&wanted, Some(ips(&[A]).into()), &Observed::default()));
        assert_eq!(weights(&kernel), []);
    }
}

#[test]
fn a_gateway_that_dies_in_a_drain_is_left_by_one_message_also_without_an_api_server() {
    let layout = Layout::default();
    let wanted = failing(object(), FailClosed);
    let mut kernel = holding(&plan_with(&wanted, Some(ips(&[B]).into()), &Observed::default()).state);
    for moving in [false, true] {
        let mut draining = plan_with(&wanted, Some(returning(moving)), &kernel);
        bring(&mut kernel, &draining);
        for left in [A, B] {
            let mut then = kernel.clone();
            let change = draining.clone().switch("uid-r", &ips(&[left]).into(), &node(), &kernel, &layout);
            if let Some(change) = &change {
                apply(&mut then, change);
            }
            let way = |to: &str| lookup(&then, &node().main_routes, packet(ip(to)));
            assert_eq!(["1.2.3.4", "5.6.7.8", "5.6.7.9"].map(way), [through_gateway(left); 3]);
        }
        let mut recovered = Recovered::read(&kernel, &layout);
        let index = recovered.routes.iter().position(|route| route.draining).unwrap();
        let change = recovered.switch(index, &ips(&[A]).into(), &kernel, &layout).unwrap();
        let mut then = kernel.clone();
        apply(&mut then, &change);
        assert_eq!(lookup(&then, &node().main_routes, packet(ip("5.6.7.9"))), through_gateway(A));
        // Both.
        let none = Chosen { none_works: true, ..ips(&[A]).into() };
        let change = draining.switch("uid-r", &none, &node(), &kernel, &layout).unwrap();
        let mut then = kernel.clone();
        apply(&mut then, &change);
        assert_eq!(lookup(&then, &node().main_routes, packet(ip("5.6.7.9"))), Way::Dropped);
    }
}

#[test]
fn who_shares_the_traffic_or_is_to_move_at_once_drains_nothing() {
    let kernel = Observed::default();
    let at_once = plan_with(&WantedRoute { drain_seconds: 0, ..object() }, Some(ips(&[A]).into()), &kernel);
    assert_eq!(at_once.routes[0].draining, None);
    assert_eq!(plan_with(&shared(object()), Some(returning(true)), &kernel).routes[0].draining, None);
    let gone = WantedRoute { gateways: vec![ip(A)], ..object() };
    let plan = plan_with(&gone, Some(returning(true)), &kernel);
    assert_eq!((plan.routes[0].draining, way(&plan, "1.2.3.4")), (None, through_gateway(A)));
}
