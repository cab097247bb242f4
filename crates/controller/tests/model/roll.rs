//! Rolling replacement: why, when, in which order, and what stops it.

use egress_api::condition::{DEGRADED, PROGRESSING, READY, is_true};
use egress_api::{GatewayRole, RouteMode};
use egress_controller::decision::{Effect, Happening};
use egress_controller::observation::Observation;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::situations::{FIRST, SECOND, at, calm, effect_at, reason, reports, yes};
use crate::world::{Crash, World, private, public, timestamp};
use crate::{ENOUGH, Scenario, no_violation, prepared, run};

const BIGGER: &str = "s-2vcpu-2gb";
const DAY: i64 = 86_400;

fn done(world: &World, verb: &str) -> usize {
    world.state().journal.iter().filter(|line| line.starts_with(verb)).count()
}

/// Steps until that is so; what was told meanwhile.
fn until(world: &World, what: &str, mut is_so: impl FnMut(&World) -> bool) -> Vec<Happening> {
    let mut told = Vec::new();
    for _ in 0..ENOUGH {
        if is_so(world) {
            return told;
        }
        let decision = world.next().unwrap();
        let _ = world.carry_out(&decision, None);
        told.extend(decision.events);
        world.state().tick(1);
    }
    let state = world.state();
    panic!("never {what}: {:#?}\n{:#?}", state.status(), state.journal);
}

fn sizes(world: &World) -> Vec<String> {
    world.state().status().gateways.into_iter().filter_map(|gateway| gateway.size).collect()
}

#[test]
fn a_changed_size_replaces_the_standby_and_then_the_active_one_each_after_its_successor_is_proven() {
    let (world, _) = run(Scenario::Roll, &[]);
    no_violation(&world, &"undisturbed");
    assert_eq!(sizes(&world), [BIGGER, BIGGER]);
    let state = world.state();
    let status = state.status();
    assert!(is_true(&status.conditions, READY) && !is_true(&status.conditions, DEGRADED), "{status:#?}");
    assert!(!is_true(&status.conditions, PROGRESSING));
    let after_the_pair = state.journal.iter().skip_while(|line| *line != "route 2").skip(1);
    let order: Vec<&str> = after_the_pair
        .map(String::as_str)
        .filter(|line| ["create", "delete", "route"].iter().any(|verb| line.starts_with(verb)))
        .collect();
    // Nobody uses the standby: the list takes the new one for it at once. The active one drains beside its successor.
    let expected = [
        "create demo-2-1a2b3c4d",
        "route 2",
        "delete demo-1-1a2b3c4d",
        "create demo-1-1a2b3c4d",
        "route 3",
        "route 2",
        "delete demo-0-1a2b3c4d",
    ];
    // The list is written once more where its order changes only.
    let mut order_without_repeats = order.clone();
    order_without_repeats.dedup();
    assert_eq!(order_without_repeats, expected, "{order:?}");
    assert!(status.roll.unwrap().ended.is_some());
}

#[test]
fn with_one_replica_the_new_one_comes_first_too_and_what_it_costs_is_said_beforehand() {
    let world = World::new(Vec::new());
    world.state().gateway.as_mut().unwrap().spec.replicas = 1;
    assert!(world.settle(ENOUGH));
    world.state().ask_for_size(BIGGER);
    let told = until(&world, "a Droplet more", |world| done(world, "create") == 2);
    let rolling = told.iter().find(|one| one.reason == "Rolling").unwrap();
    for words in [
        "demo-0-1a2b3c4d",
        "203.0.113.",
        "spec.droplet.size says s-2vcpu-2gb",
        "No gap is expected, with one replica too",
    ] {
        assert!(rolling.note.contains(words), "{words}: {}", rolling.note);
    }
    assert!(world.settle(ENOUGH));
    no_violation(&world, &"one replica");
    assert_eq!(sizes(&world), [BIGGER]);
    assert_eq!((done(&world, "create"), done(&world, "delete")), (2, 1));
}

#[test]
fn the_old_one_goes_when_nobody_uses_it_any_more_and_the_status_counts_down() {
    let world = prepared();
    world.state().ask_for_size(BIGGER);
    // The first to go is the standby, which nobody uses.
    until(&world, "one gone", |world| done(world, "delete") == 1);
    let told = until(&world, "the active one drains", |world| world.state().drains.is_some());
    assert!(told.iter().any(|one| one.reason == "Rolled"), "{told:?}");
    let status = world.state().status();
    let roll = status.roll.clone().unwrap();
    assert_eq!(roll.from, "demo-0-1a2b3c4d");
    assert!(status.public_ips.contains(roll.from_public_address.as_ref().unwrap()));
    let (since, until_then) = (roll.drain_since.unwrap().0, roll.drain_until.unwrap().0);
    assert_eq!(until_then.duration_since(since).as_secs(), 300 + 60);
    let left = roll.drain_seconds_left.unwrap();
    assert!(left % 10 == 0 && (340..=360).contains(&left), "{left}");
    until(&world, "the second one gone", |world| {
        let state = world.state();
        let progressing = state.status().conditions.into_iter().find(|one| one.type_ == PROGRESSING).unwrap();
        if state.drains.is_some() {
            assert_eq!(progressing.reason, "Rolling", "{}", progressing.message);
            assert!(state.ours().iter().any(|(id, _)| **id == FIRST.0), "it still has connections");
        }
        state.journal.iter().filter(|line| line.starts_with("delete")).count() == 2
    });
    let took = world.state().now - since.as_second();
    assert!(took < 120, "idle long before the deadline: {took}");
    no_violation(&world, &"drain");
}

/// A pair whose first gateway drains for its successor, seen at the deadline or a second before.
fn draining() -> (World, Observation, i64) {
    let world = prepared();
    world.state().ask_for_size(BIGGER);
    until(&world, "one gone", |world| done(world, "delete") == 1);
    until(&world, "the active one drains", |world| world.state().drains.is_some());
    let (seen, now) = {
        let state = world.state();
        (state.observe().unwrap(), state.now)
    };
    (world, seen, now)
}

fn drain_until(seen: &Observation) -> i64 {
    seen.gateway.status.as_ref().unwrap().roll.as_ref().unwrap().drain_until.as_ref().unwrap().0.as_second()
}

fn role_of_first(seen: &Observation) -> GatewayRole {
    let gateways = &seen.gateway.status.as_ref().unwrap().gateways;
    gateways.iter().find(|gateway| gateway.droplet_id == 103).unwrap().role
}

#[test]
fn connections_that_never_end_keep_the_old_one_until_the_deadline_and_no_longer() {
    let (world, mut seen, _) = draining();
    let deadline = drain_until(&seen);
    effect_at(&world, &mut seen, deadline - 1);
    assert_ne!(role_of_first(&seen), GatewayRole::Leaving);
    effect_at(&world, &mut seen, deadline);
    assert_eq!(role_of_first(&seen), GatewayRole::Leaving);
}

#[test]
fn a_node_that_needs_the_old_one_or_has_not_heard_keeps_it_and_is_named() {
    let (world, mut seen, _) = draining();
    let deadline = drain_until(&seen);
    seen.nodes[1].report.as_mut().unwrap().routes[0].gateway = Some(private(FIRST.0));
    let (_, decision) = effect_at(&world, &mut seen, deadline + DAY);
    assert_ne!(role_of_first(&seen), GatewayRole::Leaving);
    assert_eq!(reason(&decision, DEGRADED), yes("RollHeld"));
    let words = |decision: &egress_controller::decision::Decision| {
        decision.status.conditions.iter().find(|one| one.type_ == DEGRADED).unwrap().message.clone()
    };
    assert!(words(&decision).contains("pool-2 uses"), "{}", words(&decision));

    let (world, mut seen, _) = draining();
    seen.nodes[1].report.as_mut().unwrap().routes[0].observed_generation -= 1;
    let (_, decision) = effect_at(&world, &mut seen, deadline + DAY);
    assert_ne!(role_of_first(&seen), GatewayRole::Leaving);
    assert!(words(&decision).contains("pool-2 has not heard"), "{}", words(&decision));
    // A dead node blocks nothing.
    seen.nodes[1].live = false;
    effect_at(&world, &mut seen, deadline + DAY);
    assert_eq!(role_of_first(&seen), GatewayRole::Leaving);
}

#[test]
fn a_successor_that_never_comes_up_stops_the_roll_and_the_pair_works_on() {
    let world = prepared();
    world.state().stillborn = true;
    world.state().ask_for_size("s-too-small");
    assert!(world.settle(1500));
    no_violation(&world, &"stillborn");
    assert_eq!((done(&world, "create"), done(&world, "delete")), (3, 1), "one try");
    let status = world.state().status();
    assert_eq!(status.gateways_ready.as_deref(), Some("2/2"));
    assert!(is_true(&status.conditions, READY));
    let degraded = status.conditions.iter().find(|one| one.type_ == DEGRADED).unwrap();
    assert_eq!(degraded.reason, "RollStopped");
    for words in ["demo-2-1a2b3c4d", "demo-1-1a2b3c4d works on", "any change of the spec begins anew"] {
        assert!(degraded.message.contains(words), "{words}: {}", degraded.message);
    }
    world.state().tick(DAY);
    assert!(world.settle(ENOUGH));
    assert_eq!(done(&world, "create"), 3, "it stays stopped");
    // Taken back, there is nothing to do; another try begins anew.
    world.state().stillborn = false;
    world.state().ask_for_size("s-1vcpu-1gb");
    assert!(world.settle(ENOUGH));
    assert!(!is_true(&world.state().status().conditions, DEGRADED));
    assert_eq!(done(&world, "create"), 3);
    world.state().ask_for_size(BIGGER);
    assert!(world.settle(ENOUGH));
    assert_eq!(sizes(&world), [BIGGER, BIGGER]);
    no_violation(&world, &"mended");
}

#[test]
fn a_successor_that_fails_after_it_was_proven_stops_the_roll_too() {
    let world = prepared();
    world.state().ask_for_size(BIGGER);
    until(&world, "one gone", |world| done(world, "delete") == 1);
    until(&world, "the active one drains", |world| world.state().drains.is_some());
    let to = world.state().status().roll.unwrap().to_droplet_id.unwrap();
    world.state().machines.get_mut(&u64::try_from(to).unwrap()).unwrap().dead = true;
    assert!(world.settle(ENOUGH));
    no_violation(&world, &"failed successor");
    let state = world.state();
    let status = state.status();
    assert!(status.roll.clone().unwrap().failure.unwrap().contains("failed after it was proven"));
    assert_eq!(status.gateways_ready.as_deref(), Some("2/2"), "{status:#?}");
    assert!(state.ours().iter().any(|(id, _)| **id == FIRST.0), "the old one works on");
}

#[test]
fn while_another_gateway_fails_nothing_is_rolled_and_repair_comes_first() {
    for when in ["before", "made", "draining"] {
        let world = prepared();
        let survivor = |world: &World| {
            let state = world.state();
            let status = state.status();
            let from = status.roll.as_ref().map(|roll| roll.from_droplet_id);
            let other = status.gateways.iter().find(|one| one.ready && Some(one.droplet_id) != from).unwrap();
            u64::try_from(other.droplet_id).unwrap()
        };
        if when == "before" {
            world.state().first().gray = true;
        }
        world.state().ask_for_size(BIGGER);
        if when == "made" {
            until(&world, "made", |world| done(world, "create") == 3);
            let id = survivor(&world);
            world.state().machines.get_mut(&id).unwrap().gray = true;
        }
        if when == "draining" {
            let drains =
                |world: &World| world.state().status().roll.is_some_and(|roll| roll.drain_since.is_some());
            until(&world, "draining", drains);
            let id = survivor(&world);
            world.state().machines.get_mut(&id).unwrap().gray = true;
        }
        assert!(world.settle(3000), "{when}: {:#?}", world.state().status());
        no_violation(&world, &when);
        assert_eq!(sizes(&world), [BIGGER, BIGGER], "{when}");
        assert_eq!(world.state().ours().len(), 2);
    }
}

#[test]
fn taken_back_before_the_new_one_is_made_nothing_is_replaced() {
    let (world, mut seen, now) = calm();
    let later = now + 60;
    seen.gateway.spec.droplet.size = BIGGER.into();
    let begun = at(&world, &seen, later).status;
    assert_eq!((begun.roll.as_ref().unwrap().from.as_str(), begun.creating.len()), ("demo-1-1a2b3c4d", 1));
    seen.gateway.status = Some(begun);
    seen.gateway.spec.droplet.size = "s-1vcpu-1gb".into();
    let (effect, decision) = effect_at(&world, &mut seen, later + 1);
    assert_eq!((effect, decision.status.roll, decision.status.creating.len()), (None, None, 0));
}

#[test]
fn an_image_and_a_version_of_the_user_data_are_reasons_and_what_is_not_known_is_none() {
    let begins = |seen: &Observation, world: &World, now: i64| {
        at(world, seen, now).status.roll.map(|roll| roll.reason)
    };
    let (world, mut seen, now) = calm();
    seen.gateway.spec.droplet.image = "debian-13-x64".into();
    assert!(begins(&seen, &world, now + 60).unwrap().contains("spec.droplet.image says debian-13-x64"));
    for gateway in &mut seen.gateway.status.as_mut().unwrap().gateways {
        gateway.image = None;
    }
    assert_eq!(begins(&seen, &world, now + 60), None);
    let status = seen.gateway.status.as_mut().unwrap();
    status.gateways.iter_mut().for_each(|gateway| gateway.user_data_version = None);
    seen.site.as_mut().unwrap().user_data.version = "v2".into();
    assert_eq!(begins(&seen, &world, now + DAY), None);
}

#[test]
fn other_user_data_is_followed_at_a_time_of_its_own_that_is_told_before() {
    let (world, mut seen, now) = calm();
    seen.site.as_mut().unwrap().user_data.version = "v2".into();
    let first = at(&world, &seen, now + 60);
    assert_eq!(first.effect, Some(Effect::WriteStatus));
    assert_eq!(first.status.roll, None);
    let next = first.status.next_roll.clone().unwrap();
    let wait = next.not_before.0.as_second() - (now + 60);
    assert!((20..=480).contains(&wait), "none in the first twenty-fourth of 480 s: {wait}");
    assert!(next.reason.contains("v1") && next.reason.contains("v2"), "{}", next.reason);
    assert!(next.impact.contains("No gap is expected"), "{}", next.impact);
    seen.gateway.status = Some(first.status);
    assert_eq!(at(&world, &seen, now + 60 + wait - 1).status.roll, None);
    let begun = at(&world, &seen, now + 60 + wait).status;
    assert_eq!(begun.roll.unwrap().user_data_version, "v2");
    // Taken back in time, nothing comes of it.
    seen.site.as_mut().unwrap().user_data.version = "v1".into();
    let back = at(&world, &seen, now + 60 + wait).status;
    assert_eq!((back.roll, back.next_roll, back.user_data_outdated_since), (None, None, None));
}

#[test]
fn a_greatest_age_replaces_one_after_another_and_not_all_that_were_made_together() {
    let (world, mut seen, now) = calm();
    seen.gateway.spec.droplet.max_age_days = Some(10);
    let made = now - 10;
    for gateway in &mut seen.gateway.status.as_mut().unwrap().gateways {
        gateway.created = Some(Time(timestamp(made)));
    }
    let times: Vec<i64> = [0, 1]
        .map(|only| {
            let mut seen = seen.clone();
            let gateways = &mut seen.gateway.status.as_mut().unwrap().gateways;
            gateways[1 - only].created = Some(Time(timestamp(now + 100 * DAY)));
            at(&world, &seen, now + 60).status.next_roll.unwrap().not_before.0.as_second() - made
        })
        .to_vec();
    assert!(times.iter().all(|age| (9 * DAY..=10 * DAY).contains(age)), "{times:?}");
    assert_ne!(times[0], times[1]);
    let earliest = made + times.iter().min().unwrap();
    assert_eq!(at(&world, &seen, earliest - 1).status.roll, None);
    assert!(at(&world, &seen, earliest).status.roll.unwrap().reason.contains("maxAgeDays"));
}

#[test]
fn gateways_that_share_traffic_drain_by_weight() {
    let (world, mut seen, now) = calm();
    seen.gateway.spec.mode = RouteMode::ActiveActive;
    seen.gateway.spec.replicas = 1;
    seen.gateway.spec.droplet.size = BIGGER.into();
    let status = seen.gateway.status.as_mut().unwrap();
    status.gateways[1].size = Some(BIGGER.into());
    status.roll = serde_json::from_value(serde_json::json!({
        "since": "2027-01-15T08:00:00Z", "reason": "size", "impact": "none", "userDataVersion": "v1",
        "from": status.gateways[0].name, "fromDropletID": FIRST.0, "to": status.gateways[1].name, "toDropletID": SECOND.0
    }))
    .unwrap();
    let (effect, _) = effect_at(&world, &mut seen, now);
    let Some(Effect::ApplyStaticRoute(spec)) = effect else { panic!("{effect:?}") };
    let weights: Vec<_> =
        spec.ordered_gateways().into_iter().map(|gateway| (gateway.address.0, gateway.weight)).collect();
    assert_eq!(weights, [(private(SECOND.0), Some(256)), (private(FIRST.0), Some(1))]);
    // Nobody can say when it is idle: until the deadline.
    let route = seen.route.as_mut().unwrap();
    route.spec = spec;
    let deadline = drain_until(&seen);
    effect_at(&world, &mut seen, deadline - 1);
    assert_ne!(role_of_first(&seen), GatewayRole::Leaving);
    effect_at(&world, &mut seen, deadline);
    assert_eq!(role_of_first(&seen), GatewayRole::Leaving);
}

#[test]
fn nothing_is_rolled_while_a_node_has_not_all_routes_or_the_cloud_is_out_of_reach() {
    let (world, mut seen, now) = calm();
    seen.gateway.spec.droplet.size = BIGGER.into();
    let begins = |seen: &Observation| at(&world, seen, now + 60).status.roll.is_some();
    assert!(begins(&seen));
    let cloud = seen.cloud.clone();
    seen.cloud =
        Err(egress_controller::observation::Trouble { reason: "TokenMissing", message: "no token".into() });
    assert!(!begins(&seen));
    seen.cloud = cloud;
    reports(&mut seen).for_each(|report| report.routes[0].observed_generation -= 1);
    assert!(!begins(&seen));
}

#[test]
fn an_old_one_that_is_let_go_of_is_taken_back_when_its_successor_dies_before_it_is_deleted() {
    let (world, mut seen, _) = draining();
    let deadline = drain_until(&seen);
    effect_at(&world, &mut seen, deadline);
    assert_eq!(role_of_first(&seen), GatewayRole::Leaving);
    let status = seen.gateway.status.as_mut().unwrap();
    let to = status.roll.as_ref().unwrap().to_droplet_id.unwrap();
    for gateway in status.gateways.iter_mut().filter(|gateway| gateway.droplet_id == to) {
        gateway.ready = false;
        gateway.role = GatewayRole::Failed;
    }
    for report in reports(&mut seen) {
        let address = private(u64::try_from(to).unwrap());
        report.gateways.iter_mut().filter(|view| view.address == address).for_each(|view| {
            view.condemned = true;
            view.reachable = false;
        });
    }
    let (effect, decision) = effect_at(&world, &mut seen, deadline + 1);
    assert_eq!(role_of_first(&seen), GatewayRole::Standby, "{:#?}", decision.status);
    assert!(!matches!(effect, Some(Effect::DeleteDroplet(_))), "{effect:?}");
}

/// A hundred times another size, with failures in between, and the process killed now and then.
#[test]
fn over_a_hundred_rolls_and_repairs_nothing_leaves_with_an_address_that_was_not_told() {
    let world = prepared();
    let mut seed = 1_u32;
    let mut random = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        seed >> 16
    };
    let mut rolls = 0;
    for round in 0..50 {
        world.state().ask_for_size(&format!("s-{round}"));
        // A repair in between takes the place of a roll.
        let before = done(&world, "delete");
        let steps = random() % 80;
        for _ in 0..steps {
            if let Some(decision) = world.next() {
                let _ = world.carry_out(&decision, None);
            }
            world.state().tick(1);
        }
        match random() % 4 {
            0 => world.state().kill_first_that_works(),
            1 => world.state().crash_next(Crash::ReplyLost),
            2 => world.state().crash_next(Crash::AfterReply),
            _ => {}
        }
        assert!(world.settle(4000), "{round}: {:#?}", world.state().status());
        no_violation(&world, &round);
        assert_eq!(sizes(&world), [format!("s-{round}"), format!("s-{round}")]);
        rolls += done(&world, "delete") - before;
    }
    assert!(rolls >= 100, "{rolls}");
    assert!(is_true(&world.state().status().conditions, READY));
    let state = world.state();
    assert!(state.uses.is_some_and(|id| state.status().public_ips.contains(&public(id))));
}
