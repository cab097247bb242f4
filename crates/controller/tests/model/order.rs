//! The list's order by wish, what is copied into the StaticRoute, who uses what, and the last failover.

use egress_api::condition::DEGRADED;
use egress_api::{
    DRAINED_GATEWAYS_ANNOTATION, NodeFailover, OnNoGateway, PREFERRED_GATEWAY_ANNOTATION, StaticRouteSpec,
};
use egress_controller::decision::Effect;
use egress_controller::observation::Observation;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::situations::{FIRST, SECOND, at, calm, effect_at, no, reason, reports, yes};
use crate::world::{World, private, timestamp};

const NAMES: [&str; 2] = ["demo-0-1a2b3c4d", "demo-1-1a2b3c4d"];

fn wish(seen: &mut Observation, annotation: &str, value: &str) {
    let annotations = seen.gateway.metadata.annotations.get_or_insert_default();
    annotations.insert(annotation.to_owned(), value.to_owned());
}

fn applied(effect: Option<Effect>) -> StaticRouteSpec {
    match effect {
        Some(Effect::ApplyStaticRoute(spec)) => spec,
        other => panic!("{other:?}"),
    }
}

fn addresses(spec: &StaticRouteSpec) -> Vec<String> {
    spec.ordered_gateways().into_iter().map(|gateway| gateway.address.0).collect()
}

#[test]
fn who_is_preferred_is_first_and_who_is_drained_is_last_while_another_is_proven() {
    for (annotation, name) in
        [(PREFERRED_GATEWAY_ANNOTATION, NAMES[1]), (DRAINED_GATEWAYS_ANNOTATION, NAMES[0])]
    {
        let (world, mut seen, now) = calm();
        wish(&mut seen, annotation, name);
        let (effect, decision) = effect_at(&world, &mut seen, now);
        assert_eq!(addresses(&applied(effect)), [private(SECOND.0), private(FIRST.0)], "{annotation}");
        assert_eq!(decision.status.active.as_deref(), Some(NAMES[1]));
        let last = decision.status.last_failover.clone().unwrap();
        assert!(last.reason.contains(annotation), "{}", last.reason);
        assert_eq!(reason(&decision, DEGRADED), no("AsAskedFor"));
    }
    // All drained: the order stays. Preferred and drained: drained.
    let (world, mut seen, now) = calm();
    wish(&mut seen, DRAINED_GATEWAYS_ANNOTATION, &NAMES.join(", "));
    wish(&mut seen, PREFERRED_GATEWAY_ANNOTATION, "");
    assert_eq!(effect_at(&world, &mut seen, now).0, None);
    wish(&mut seen, DRAINED_GATEWAYS_ANNOTATION, NAMES[1]);
    wish(&mut seen, PREFERRED_GATEWAY_ANNOTATION, NAMES[1]);
    assert_eq!(effect_at(&world, &mut seen, now).0, None);
}

#[test]
fn a_name_that_no_gateway_has_is_told_with_the_names_that_there_are() {
    for annotation in [PREFERRED_GATEWAY_ANNOTATION, DRAINED_GATEWAYS_ANNOTATION] {
        let (world, mut seen, now) = calm();
        wish(&mut seen, annotation, "demo-7");
        let (effect, decision) = effect_at(&world, &mut seen, now);
        assert_eq!(effect, None);
        assert_eq!(reason(&decision, DEGRADED), yes("UnknownGatewayName"));
        let degraded = decision.status.conditions.iter().find(|one| one.type_ == DEGRADED).unwrap();
        for part in [annotation, "demo-7", NAMES[0], NAMES[1]] {
            assert!(degraded.message.contains(part), "{}", degraded.message);
        }
    }
}

#[test]
fn with_fail_closed_the_guard_is_there_before_the_first_gateway_and_otherwise_no_list_is_empty() {
    for mode in [OnNoGateway::FailClosed, OnNoGateway::KeepLast, OnNoGateway::FailOpen] {
        let world = World::new(Vec::new());
        let mut seen = world.state().observe().unwrap();
        seen.gateway.metadata.finalizers = Some(vec![egress_api::EGRESS_GATEWAY_FINALIZER.into()]);
        seen.gateway.spec.on_no_gateway = mode;
        let (effect, _) = effect_at(&world, &mut seen, 1_800_000_000);
        if mode == OnNoGateway::FailClosed {
            let spec = applied(effect);
            assert_eq!((spec.gateways.as_deref(), spec.on_no_gateway), (Some(&[][..]), mode));
        } else {
            assert!(!matches!(effect, Some(Effect::ApplyStaticRoute(_))), "{mode:?}");
        }
    }
}

#[test]
fn mode_drain_time_and_health_check_go_into_the_static_route() {
    let (world, mut seen, now) = calm();
    seen.gateway.spec.on_no_gateway = OnNoGateway::FailOpen;
    seen.gateway.spec.drain_seconds = 77;
    seen.gateway.spec.health_check.fall = 5;
    let spec = applied(effect_at(&world, &mut seen, now).0);
    assert_eq!((spec.on_no_gateway, spec.drain_seconds), (OnNoGateway::FailOpen, 77));
    assert_eq!(spec.health_check, Some(seen.gateway.spec.health_check.clone()));
}

#[test]
fn the_status_counts_the_nodes_that_use_each_gateway_now() {
    let (world, mut seen, now) = calm();
    let used = [private(SECOND.0), private(FIRST.0)];
    for (report, gateway) in reports(&mut seen).zip(used) {
        report.routes[0].gateway = Some(gateway);
    }
    let nodes = |seen: &Observation| {
        let status = at(&world, seen, now).status;
        status.gateways.iter().map(|gateway| gateway.nodes).collect::<Vec<_>>()
    };
    assert_eq!(nodes(&seen), [1, 1]);
    reports(&mut seen).for_each(|report| report.routes[0].gateway = Some(private(SECOND.0)));
    assert_eq!(nodes(&seen), [0, 2]);
    assert_eq!(
        at(&world, &seen, now).status.active.as_deref(),
        Some(NAMES[0]),
        "the list's head, whoever is used"
    );
    seen.nodes[0].live = false;
    assert_eq!(nodes(&seen), [0, 1]);
}

fn moved(time: i64, seconds: f64) -> NodeFailover {
    NodeFailover {
        time: Time(timestamp(time)),
        // Of several that moved together, whichever came first.
        static_route: "another".into(),
        from: private(FIRST.0),
        to: private(SECOND.0),
        reason: "Unreachable".into(),
        seconds,
        evidence: "3 of 3 probes missed".into(),
    }
}

#[test]
fn the_last_failover_is_the_word_of_the_node_that_moved_first_with_what_it_saw() {
    let (world, mut seen, now) = calm();
    for (report, (time, seconds)) in reports(&mut seen).zip([(now - 1, 0.4), (now - 2, 0.3)]) {
        report.last_failover = Some(moved(time, seconds));
    }
    let decision = at(&world, &seen, now);
    let last = decision.status.last_failover.clone().unwrap();
    assert_eq!((last.time.0, last.seconds), (timestamp(now - 2), Some(0.3)));
    assert_eq!([last.from.as_str(), &last.to], NAMES);
    let told: Vec<_> = decision.events.iter().filter(|one| one.reason == "FailedOver").collect();
    assert_eq!(told.len(), 1);
    assert_eq!(last.reason, "Unreachable, says pool-2: 3 of 3 probes missed");
    for part in ["0.30 s", &last.reason, "203.0.113.104"] {
        assert!(told[0].note.contains(part), "{part}: {}", told[0].note);
    }
    // The list follows: that is the same failover, and nobody is told again.
    seen.gateway.status = Some(decision.status);
    seen.cloud.as_mut().unwrap().droplets.get_mut(&FIRST).unwrap().status =
        egress_digitalocean::DropletStatus::Off;
    let (_, decision) = effect_at(&world, &mut seen, now + 3);
    assert_eq!(decision.status.active.as_deref(), Some(NAMES[1]));
    assert_eq!(decision.status.last_failover, Some(last));
}

#[test]
fn one_node_that_moves_alone_is_no_failover_of_the_gateways() {
    let (world, mut seen, now) = calm();
    seen.nodes[0].report.as_mut().unwrap().last_failover = Some(moved(now - 1, 0.4));
    assert_eq!(at(&world, &seen, now).status.last_failover, None);
}
