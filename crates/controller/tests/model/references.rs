//! StaticRoutes that follow an EgressGateway's list: a gateway goes only when they have let go of it too.

use egress_api::condition::{DEGRADED, PROGRESSING};
use egress_api::{GatewayRole, RouteMode};
use egress_controller::decision::Effect;
use egress_controller::observation::{Follower, Observation};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::situations::{SECOND, calm, effect_at, reason, reports, yes};
use crate::world::{Crash, SlowFollower, World, follower_entry, private, timestamp};
use crate::{CRASHES, ENOUGH};

fn follower() -> Follower {
    Follower { name: "payments".into(), uid: "uid-payments".into() }
}

fn followed(seen: &mut Observation, gateway: Option<&str>) {
    seen.followers = vec![follower()];
    for report in reports(seen) {
        report.routes.retain(|entry| entry.name != "payments");
        report.routes.push(follower_entry(gateway.map(str::to_owned)));
    }
}

#[test]
fn deletion_waits_until_followers_route_nothing_and_names_them() {
    let (world, mut seen, now) = calm();
    let deleted = |seen: &mut Observation| {
        seen.gateway.metadata.deletion_timestamp = Some(Time(timestamp(now)));
        seen.route = None;
        reports(seen).for_each(|report| report.routes.clear());
    };
    deleted(&mut seen);
    followed(&mut seen, Some("10.116.0.103"));
    let (effect, decision) = effect_at(&world, &mut seen, now);
    assert_eq!(effect, None, "its nodes still route through the gateways");
    assert_eq!(reason(&decision, DEGRADED), yes("NodesHoldRoutes"));
    let condition = decision.status.conditions.iter().find(|one| one.type_ == PROGRESSING).unwrap();
    assert!(
        condition.message.ends_with(
            ". StaticRoute payments names this EgressGateway and routes nothing until it names another"
        ),
        "{}",
        condition.message
    );

    // The agents took it off, and say so in the entry that stays: the object is there still.
    followed(&mut seen, None);
    let (effect, _) = effect_at(&world, &mut seen, now);
    assert!(matches!(effect, Some(Effect::DeleteDroplet(_))), "{effect:?}");

    // A dead node blocks nothing; another object's routes are nobody's business.
    let (world, mut seen, now) = calm();
    deleted(&mut seen);
    followed(&mut seen, Some("10.116.0.103"));
    seen.followers.clear();
    assert!(matches!(effect_at(&world, &mut seen, now).0, Some(Effect::DeleteDroplet(_))));
    seen.followers = vec![follower()];
    seen.nodes.iter_mut().for_each(|node| node.live = false);
    assert!(matches!(effect_at(&world, &mut seen, now).0, Some(Effect::DeleteDroplet(_))));
}

#[test]
fn a_droplet_that_a_follower_still_uses_stays() {
    let (world, mut seen, now) = calm();
    seen.gateway.spec.replicas = 1;
    let gateway = &mut seen.gateway.status.as_mut().unwrap().gateways[1];
    gateway.role = GatewayRole::Leaving;
    gateway.since = Some(Time(timestamp(now)));
    seen.route.as_mut().unwrap().spec.gateways.as_mut().unwrap().pop();
    followed(&mut seen, Some(&private(SECOND.0)));
    assert_eq!(effect_at(&world, &mut seen, now + 1).0, None);
    followed(&mut seen, None);
    for report in reports(&mut seen) {
        // Among others, as with `ActiveActive`.
        let entry = report.routes.iter_mut().find(|entry| entry.name == "payments").unwrap();
        entry.gateways = vec!["10.116.0.103".into(), private(SECOND.0)];
    }
    assert_eq!(effect_at(&world, &mut seen, now + 1).0, None);
    followed(&mut seen, Some("10.116.0.103"));
    assert!(matches!(effect_at(&world, &mut seen, now + 1).0, Some(Effect::DeleteDroplet(_))));
}

#[test]
fn exclusions_go_into_the_static_route() {
    let (world, mut seen, now) = calm();
    seen.gateway.spec.excluded_destinations.push("10.0.0.0/8".into());
    let (effect, _) = effect_at(&world, &mut seen, now);
    let Some(Effect::ApplyStaticRoute(spec)) = effect else { panic!("{effect:?}") };
    assert_eq!(spec.excluded_destinations, ["10.0.0.0/8".into()]);
    assert!(spec.gateways.is_some() && spec.gateway_ref.is_none(), "its own StaticRoute has the list itself");
}

/// A pair with a slow follower, deleted; `crash` kills the controller at a call of the deletion.
fn deleted_while_followed(crash: Option<(usize, Crash)>) -> (World, usize) {
    let before = crate::prepared().state().calls;
    let world = World::new(crash.iter().map(|(at, crash)| (before + at, *crash)).collect());
    world.state().follower = Some(SlowFollower::default());
    assert!(world.settle(ENOUGH));
    world.state().tick(20);
    assert!(world.state().follower.as_ref().unwrap().uses.is_some());
    world.state().delete();
    assert!(world.settle(ENOUGH), "{:#?}", world.state().status());
    let calls = world.state().calls - before;
    (world, calls)
}

#[test]
fn wherever_the_controller_is_killed_no_droplet_goes_that_a_follower_uses() {
    let (_, calls) = deleted_while_followed(None);
    assert!(calls > 5, "{calls}");
    let crashes = (0..calls).flat_map(|at| CRASHES.map(|crash| Some((at, crash))));
    for crash in std::iter::once(None).chain(crashes) {
        let (world, _) = deleted_while_followed(crash);
        let state = world.state();
        assert!(state.violations.is_empty(), "{crash:?}: {:?}\n{:#?}", state.violations, state.journal);
        assert!(state.gateway.is_none() && state.ours().is_empty(), "{crash:?}: {:#?}", state.journal);
    }
}

#[test]
fn the_mode_goes_into_the_static_route_and_makes_every_proven_gateway_active() {
    let (world, mut seen, now) = calm();
    seen.gateway.spec.mode = RouteMode::ActiveActive;
    let (effect, decision) = effect_at(&world, &mut seen, now);
    let Some(Effect::ApplyStaticRoute(spec)) = effect else { panic!("{effect:?}") };
    assert_eq!((spec.mode, spec.gateways.unwrap().len()), (RouteMode::ActiveActive, 2));
    let roles: Vec<_> = decision.status.gateways.iter().map(|gateway| gateway.role).collect();
    assert_eq!(roles, [GatewayRole::Active; 2]);
    let names = decision.status.gateways.iter().map(|gateway| gateway.name.as_str()).collect::<Vec<_>>();
    assert_eq!(decision.status.active, Some(names.join(", ")));
    assert_eq!(decision.status.egress_ip, Some(decision.status.public_ips.join(", ")));
}
