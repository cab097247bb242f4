//! Power, power cycle, replacement: in which order, how often, and what is told of it.

use std::time::Duration;

use egress_api::GatewayRole;
use egress_api::condition::{DEGRADED, READY, is_true};
use egress_controller::decision::Effect;
use egress_controller::observation::HealthSeen;
use egress_digitalocean::{DropletId, DropletStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::situations::{FIRST, SECOND, at, calm, effect_at, reports};
use crate::world::{World, private, timestamp};
use crate::{ENOUGH, Scenario, no_violation, prepared, run};

fn done(world: &World, verb: &str) -> usize {
    world.state().journal.iter().filter(|line| line.starts_with(verb)).count()
}

#[test]
fn a_frozen_gateway_is_power_cycled_keeps_its_address_and_is_not_replaced() {
    let (world, _) = run(Scenario::Freeze, &[]);
    no_violation(&world, &"frozen");
    assert_eq!((done(&world, "power cycle"), done(&world, "create"), done(&world, "delete")), (1, 2, 0));
    let status = world.state().status();
    assert_eq!(status.gateways_ready.as_deref(), Some("2/2"));
    assert_eq!(status.last_replacement, None);
}

#[test]
fn a_power_cycle_that_does_not_help_is_not_repeated_and_the_replacement_names_both_addresses() {
    let world = prepared();
    world.state().first().dead = true;
    let mut told = Vec::new();
    for _ in 0..ENOUGH {
        let Some(decision) = world.next() else { break };
        let _ = world.carry_out(&decision, None);
        told.extend(decision.events);
        world.state().tick(1);
    }
    no_violation(&world, &"dead");
    assert_eq!((done(&world, "power cycle"), done(&world, "create"), done(&world, "delete")), (1, 3, 1));
    let replaced: Vec<_> = told.iter().filter(|one| one.reason == "Replaced").collect();
    assert_eq!(replaced.len(), 1, "{told:?}");
    for part in ["demo-0-1a2b3c4d", "203.0.113.103", "demo-2-1a2b3c4d", "203.0.113.105"] {
        assert!(replaced[0].note.contains(part), "{part}: {}", replaced[0].note);
    }
    assert_eq!(told.iter().filter(|one| one.reason == "PowerCycled").count(), 1, "{told:?}");
    let last = world.state().status().last_replacement.unwrap();
    assert!(last.reason.starts_with("a power cycle did not help"), "{}", last.reason);
}

#[test]
fn what_answers_and_does_not_forward_is_power_cycled_once_and_then_replaced() {
    let (world, _) = run(Scenario::Gray, &[]);
    no_violation(&world, &"gray");
    assert_eq!((done(&world, "power cycle"), done(&world, "create"), done(&world, "delete")), (1, 3, 1));
    assert!(is_true(&world.state().status().conditions, READY));
    let last = world.state().status().last_replacement.unwrap();
    assert!(last.reason.starts_with("a power cycle did not help"), "{}", last.reason);
}

#[test]
fn what_a_boot_mends_keeps_its_address() {
    let world = prepared();
    world.state().first().unruled = true;
    assert!(world.settle(ENOUGH));
    no_violation(&world, &"its rules are gone");
    assert_eq!((done(&world, "power cycle"), done(&world, "create"), done(&world, "delete")), (1, 2, 0));
    let status = world.state().status();
    assert_eq!((status.gateways_ready.as_deref(), status.last_replacement), (Some("2/2"), None));
}

#[test]
fn of_two_that_forward_no_more_one_after_the_other_both_are_replaced() {
    let world = prepared();
    world.state().first().gray = true;
    for _ in 0..ENOUGH {
        let Some(decision) = world.next().filter(|_| done(&world, "power cycle") == 0) else { break };
        let _ = world.carry_out(&decision, None);
        world.state().tick(1);
    }
    assert_eq!(done(&world, "power cycle"), 1);
    let second = *world.state().ours()[1].0;
    world.state().machines.get_mut(&second).unwrap().gray = true;
    // A bring-up's time for the first, and ten minutes between the replacements.
    assert!(world.settle(3_000), "{:#?}", world.state().status());
    no_violation(&world, &"both gray");
    let status = world.state().status();
    assert_eq!(status.gateways_ready.as_deref(), Some("2/2"), "{status:#?}");
    assert_eq!((done(&world, "create"), done(&world, "delete")), (4, 2));
}

/// Its own endpoint says that it is ready. Of what each of two nodes sees.
#[test]
fn whatever_nodes_complain_of_a_power_cycle_comes_before_another_address() {
    type Sees = fn(&mut egress_api::GatewayObservation);
    let (silent, gray): (Sees, Sees) =
        (|view| (view.reachable, view.forwards) = (false, None), |view| view.forwards = Some(false));
    let large: Sees = |view| view.full_size = Some(false);
    for (what, sees, most) in [
        ("one hears nothing", [silent, gray], 5),
        ("each says something else", [large, gray], 5),
        ("all say the same", [gray, gray], 5),
        // It may just have come back: what they say is renewed first.
        ("nobody hears anything", [silent, silent], 20),
    ] {
        let (world, mut seen, now) = calm();
        for (report, sees) in reports(&mut seen).zip(sees) {
            report.gateways.iter_mut().filter(|view| view.address == private(FIRST.0)).for_each(|view| {
                view.condemned = true;
                sees(view);
            });
        }
        let mut cycled = None;
        for second in 0..60 {
            seen.nodes.iter_mut().for_each(|node| node.heard = Some(timestamp(now + second)));
            let (effect, decision) = effect_at(&world, &mut seen, now + second);
            match effect {
                Some(Effect::ApplyStaticRoute(spec)) => seen.route.as_mut().unwrap().spec = spec,
                Some(Effect::PowerCycle(_)) => cycled = cycled.or(Some(second)),
                _ => {}
            }
            if cycled.is_some() {
                break;
            }
            assert_eq!(decision.status.last_replacement, None, "{what}, after {second} s");
        }
        // Looked at each second, and condemned at the first look.
        assert!(cycled.is_some_and(|cycled| (most..=most + 1).contains(&cycled)), "{what}: {cycled:?}");
    }
}

#[test]
fn where_the_address_moves_along_what_answers_and_does_not_forward_is_replaced_without_a_power_cycle() {
    let world = World::reserved(Vec::new(), &[]);
    assert!(world.settle(ENOUGH));
    world.state().first().gray = true;
    assert!(world.settle(ENOUGH));
    no_violation(&world, &"gray");
    assert_eq!((done(&world, "power cycle"), done(&world, "create"), done(&world, "delete")), (0, 3, 1));
}

#[test]
fn a_power_cycle_is_decided_before_it_is_sent_and_sent_once() {
    let (world, mut seen, now) = calm();
    seen.health.insert(FIRST, HealthSeen::Silent("no answer within 2 s".into()));
    for report in reports(&mut seen) {
        for view in report.gateways.iter_mut().filter(|view| view.address == private(FIRST.0)) {
            view.reachable = false;
            view.forwards = None;
            view.condemned = true;
        }
    }
    let step = |seen: &mut egress_controller::observation::Observation, now: i64| {
        seen.nodes.iter_mut().for_each(|node| node.heard = Some(timestamp(now)));
        let (effect, decision) = effect_at(&world, seen, now);
        if let Some(Effect::ApplyStaticRoute(spec)) = &effect {
            seen.route.as_mut().unwrap().spec = spec.clone();
        }
        (effect, decision)
    };
    step(&mut seen, now);
    step(&mut seen, now + 4);
    assert_eq!(seen.gateway.status.as_ref().unwrap().gateways[0].role, GatewayRole::Failed);
    assert_eq!(
        seen.gateway.status.as_ref().unwrap().gateways[0].power_cycled,
        None,
        "not condemned for long"
    );
    let before = at(&world, &seen, now + 6);
    assert_eq!(before.effect, Some(Effect::WriteStatus));
    assert_eq!(before.status.gateways[0].power_cycled, Some(Time(timestamp(now + 6))));
    let (effect, _) = step(&mut seen, now + 6);
    assert!(matches!(effect, Some(Effect::PowerCycle(droplet)) if droplet.id() == FIRST));
    // Accepted: not again. As long as that is not on record it is asked for again, while that does no harm.
    let accepted = |seen: &mut egress_controller::observation::Observation, when: Option<Time>| {
        seen.gateway.status.as_mut().unwrap().gateways[0].power_cycle_accepted = when;
    };
    accepted(&mut seen, Some(Time(timestamp(now + 6))));
    assert_eq!(step(&mut seen, now + 8).0, None);
    accepted(&mut seen, None);
    assert!(matches!(step(&mut seen, now + 9).0, Some(Effect::PowerCycle(_))));
    assert_eq!(step(&mut seen, now + 6 + 29).0.map(|effect| effect.label()), Some("power_cycle"));
    // One that the cloud refuses leads on all the same, and nothing is said of it that is not so.
    let last = step(&mut seen, now + 6 + 30).1.status.last_replacement.unwrap();
    assert_eq!(last.from_droplet_id, 103);
    assert!(!last.reason.contains("power cycle"), "{}", last.reason);
}

/// It heals between the decision and the call, and the nodes have not seen it yet.
#[test]
fn what_answers_again_before_its_power_cycle_is_sent_is_spared() {
    let world = prepared();
    world.state().first().frozen = true;
    while world.state().status().gateways[0].power_cycled.is_none() {
        let _ = world.carry_out(&world.next().unwrap(), None);
        world.state().tick(1);
    }
    let mut seen = world.state().observe().unwrap();
    let now = world.state().now;
    assert!(
        matches!(at(&world, &seen, now).effect, Some(Effect::PowerCycle(droplet)) if droplet.id() == FIRST)
    );
    world.state().first().frozen = false;
    seen.health = world.state().observe().unwrap().health;
    assert_ne!(at(&world, &seen, now).effect.map(|effect| effect.label()), Some("power_cycle"));
}

#[test]
fn a_power_cycle_that_was_spared_is_no_try_and_the_next_freeze_gets_one() {
    let world = prepared();
    world.state().first().frozen = true;
    while world.state().status().gateways[0].power_cycled.is_none() {
        let _ = world.carry_out(&world.next().unwrap(), None);
        world.state().tick(1);
    }
    world.state().first().frozen = false;
    assert!(world.settle(ENOUGH));
    assert_eq!(done(&world, "power cycle"), 0);
    assert_eq!(world.state().status().gateways_ready.as_deref(), Some("2/2"));
    world.state().first().frozen = true;
    assert!(world.settle(ENOUGH));
    no_violation(&world, &"frozen again");
    assert_eq!((done(&world, "power cycle"), done(&world, "create"), done(&world, "delete")), (1, 2, 0));
    assert_eq!(world.state().status().last_replacement, None, "it keeps its address");
}

#[test]
fn a_droplet_that_its_token_may_not_touch_is_not_power_cycled() {
    let (world, mut seen, now) = calm();
    let gateway = &mut seen.gateway.status.as_mut().unwrap().gateways[0];
    gateway.role = GatewayRole::Failed;
    gateway.ready = false;
    gateway.suspect_since = Some(Time(timestamp(now - 60)));
    gateway.power_cycled = Some(Time(timestamp(now)));
    seen.health.insert(FIRST, HealthSeen::Silent("no connection".into()));
    for report in reports(&mut seen) {
        report.gateways.iter_mut().filter(|view| view.address == private(FIRST.0)).for_each(|view| {
            view.reachable = false;
            view.condemned = true;
        });
    }
    seen.route.as_mut().unwrap().spec.gateways.as_mut().unwrap().remove(0);
    assert!(matches!(effect_at(&world, &mut seen, now).0, Some(Effect::PowerCycle(_))));
    let droplet = seen.cloud.as_mut().unwrap().droplets.get_mut(&FIRST).unwrap();
    droplet.tags.as_mut().unwrap().retain(|tag| !tag.starts_with("egress-owner:"));
    assert_eq!(effect_at(&world, &mut seen, now).0, None);
}

#[test]
fn one_that_fails_again_and_again_is_powered_on_once_and_then_replaced() {
    let world = prepared();
    world.state().first().off = true;
    assert!(world.settle(ENOUGH));
    assert_eq!((done(&world, "power on"), done(&world, "create")), (1, 2));
    world.state().tick(60);
    world.state().first().off = true;
    assert!(world.settle(ENOUGH));
    assert_eq!((done(&world, "power on"), done(&world, "create"), done(&world, "delete")), (1, 3, 1));
    no_violation(&world, &"off again");
    // After it has worked for long, what was tried is forgotten.
    let world = prepared();
    world.state().first().off = true;
    assert!(world.settle(ENOUGH));
    world.state().tick(700);
    assert!(world.settle(ENOUGH));
    world.state().first().off = true;
    assert!(world.settle(ENOUGH));
    assert_eq!((done(&world, "power on"), done(&world, "create")), (2, 2));
}

#[test]
fn of_two_gateways_that_are_condemned_in_turn_the_second_is_replaced_ten_minutes_after_the_first() {
    let world = prepared();
    world.state().first().gray = true;
    assert!(world.settle(ENOUGH));
    assert_eq!(done(&world, "create"), 3);
    let first = world.state().status().last_replacement.unwrap();
    world.state().first().gray = true;
    world.settle(120);
    let held = world.state().status();
    assert_eq!(done(&world, "create"), 3, "the pause is not over");
    let failed = held.gateways.iter().find(|gateway| gateway.role == GatewayRole::Failed).unwrap();
    assert!(failed.message.as_ref().unwrap().contains("ten minutes"), "{failed:?}");
    assert!(world.settle(1500));
    let second = world.state().status().last_replacement.unwrap();
    assert!(second.time.0.as_second() - first.time.0.as_second() >= 600);
    assert_eq!(done(&world, "create"), 4);
    no_violation(&world, &"in turn");
}

/// The clock of a leader was an hour ahead, for so many seconds; it is put right, or another one leads.
#[test]
fn what_a_clock_wrote_that_ran_ahead_holds_nothing_up() {
    type Harms = fn(&mut crate::world::Machine);
    let cases: [(&str, Harms); 4] = [
        ("off", |machine| machine.off = true),
        ("frozen", |machine| machine.frozen = true),
        ("dead", |machine| machine.dead = true),
        ("gray", |machine| machine.gray = true),
    ];
    for (what, harms) in cases {
        for ahead_for in [1, 3, 8, 20, 60] {
            let world = prepared();
            harms(world.state().first());
            let ahead = |second: jiff::Timestamp| second + Duration::from_secs(3_600);
            for _ in 0..ahead_for {
                let mut seen = world.state().observe().unwrap();
                for node in &mut seen.nodes {
                    node.heard = node.heard.map(ahead);
                }
                let now = world.state().now;
                let decision = at(&world, &seen, now + 3_600);
                let _ = world.carry_out(&decision, None);
                world.state().tick(1);
            }
            assert!(world.settle(ENOUGH), "{what}, {ahead_for} s: {:#?}", world.state().status());
            no_violation(&world, &(what, ahead_for));
            let status = world.state().status();
            assert_eq!(status.gateways_ready.as_deref(), Some("2/2"), "{what}, {ahead_for} s: {status:#?}");
        }
    }
}

#[test]
fn however_far_ahead_the_time_of_a_replacement_is_the_next_one_waits_ten_minutes_and_no_longer() {
    let (world, mut seen, now) = calm();
    let status = seen.gateway.status.as_mut().unwrap();
    status.last_replacement = Some(egress_api::Replacement {
        time: Time(timestamp(now + 3_600)),
        held_since: None,
        from: "demo-9-1a2b3c4d".into(),
        from_droplet_id: 99,
        from_public_address: None,
        to: Some("demo-0-1a2b3c4d".into()),
        to_public_address: None,
        reason: "it was dead".into(),
    });
    let gateway = &mut status.gateways[0];
    (gateway.role, gateway.ready) = (GatewayRole::Failed, false);
    let tried = Some(Time(timestamp(now - 300)));
    (gateway.suspect_since, gateway.power_cycled) = (tried.clone(), tried.clone());
    gateway.power_cycle_accepted = tried;
    for report in reports(&mut seen) {
        for view in report.gateways.iter_mut().filter(|view| view.address == private(FIRST.0)) {
            (view.forwards, view.condemned) = (Some(false), true);
        }
    }
    let replaced = |seen: &mut egress_controller::observation::Observation, now: i64| {
        seen.nodes.iter_mut().for_each(|node| node.heard = Some(timestamp(now)));
        let status = at(&world, seen, now).status;
        seen.gateway.status = Some(status.clone());
        status.last_replacement.unwrap().from_droplet_id == 103
    };
    assert!(!replaced(&mut seen, now));
    // It was ours that was behind, and is put right: the ten minutes are those since the last replacement.
    let mut right = seen.clone();
    assert!(!replaced(&mut right, now + 3_600 + 300));
    assert!(replaced(&mut right, now + 3_600 + 600));
    assert!(!replaced(&mut seen, now + 599));
    assert!(replaced(&mut seen, now + 600));
}

#[test]
fn the_only_gateway_gets_power_or_a_successor_when_it_is_silent_and_is_told_of_when_nothing_gets_through_it()
{
    type Harms = fn(&mut crate::world::Machine);
    let cases: [(&str, Harms, [usize; 4]); 4] = [
        ("off", |machine| machine.off = true, [1, 0, 1, 0]),
        ("frozen", |machine| machine.frozen = true, [0, 1, 1, 0]),
        ("dead", |machine| machine.dead = true, [0, 1, 2, 1]),
        // An outage of the internet looks the same, and a new one would not help.
        ("gray", |machine| machine.gray = true, [0, 0, 1, 0]),
    ];
    for (what, harms, expected) in cases {
        let world = World::new(Vec::new());
        world.state().gateway.as_mut().unwrap().spec.replicas = 1;
        assert!(world.settle(ENOUGH));
        harms(world.state().first());
        world.settle(ENOUGH);
        no_violation(&world, &what);
        let tried = ["power on", "power cycle", "create", "delete"].map(|verb| done(&world, verb));
        assert_eq!(tried, expected, "{what}: {:#?}", world.state().journal);
        let status = world.state().status();
        let degraded = status.conditions.iter().find(|one| one.type_ == DEGRADED).unwrap();
        let told = if what == "gray" { "OutsideUnreachable" } else { "AsAskedFor" };
        assert_eq!(degraded.reason, told, "{what}: {}", degraded.message);
    }
}

#[test]
fn what_the_cloud_says_is_gone_needs_no_quorum_and_its_successor_is_told_by_address() {
    let (world, mut seen, now) = calm();
    let cloud = seen.cloud.as_mut().unwrap();
    cloud.droplets.remove(&FIRST);
    cloud.gone.insert(FIRST);
    let decision = at(&world, &seen, now);
    assert_eq!(decision.status.creating.len(), 1);
    let last = decision.status.last_replacement.unwrap();
    assert_eq!((last.from_droplet_id, last.from_public_address.as_deref()), (103, Some("203.0.113.103")));
    let gone = decision.events.iter().find(|one| one.reason == "DropletGone").unwrap();
    assert!(gone.note.contains("203.0.113.103"), "{}", gone.note);
}

#[test]
fn what_is_off_needs_no_quorum_either() {
    let (world, mut seen, now) = calm();
    seen.nodes.iter_mut().for_each(|node| node.agent_ready = None);
    seen.cloud.as_mut().unwrap().droplets.get_mut(&SECOND).unwrap().status = DropletStatus::Off;
    let (effect, decision) = effect_at(&world, &mut seen, now);
    assert_eq!(decision.status.gateways[1].role, GatewayRole::Failed);
    assert!(matches!(effect, Some(Effect::ApplyStaticRoute(_))), "{effect:?}");
}

/// A pair whose second gateway has just come up, and what nodes say of the address that the outside saw.
fn coming_up(
    admitted: bool,
    source: Option<bool>,
) -> (World, egress_controller::observation::Observation, i64) {
    let (world, mut seen, now) = calm();
    let status = seen.gateway.status.as_mut().unwrap();
    if admitted {
        status.gateways[0].admits = vec!["203.0.113.104".into()];
    }
    let second = &mut status.gateways[1];
    second.ready = false;
    second.role = GatewayRole::Starting;
    second.since = Some(Time(timestamp(now)));
    for report in reports(&mut seen) {
        for view in report.gateways.iter_mut().filter(|view| view.address == private(SECOND.0)) {
            view.expected_source = source;
        }
    }
    (world, seen, now)
}

#[test]
fn a_gateway_is_promoted_when_packets_of_full_size_got_through_if_anybody_can_tell() {
    let said = |seen: &mut egress_controller::observation::Observation, id: DropletId, said: Option<bool>| {
        for report in reports(seen) {
            let views = report.gateways.iter_mut().filter(|view| view.address == private(id.0));
            views.for_each(|view| view.full_size = said);
        }
    };
    for (new, other, at_once, later) in [
        (Some(true), Some(true), true, true),
        (Some(true), None, true, true),
        (Some(false), Some(true), false, false),
        // It may be the targets.
        (Some(false), Some(false), false, true),
        (Some(false), None, false, true),
        // Nobody asks, or nobody has yet.
        (None, Some(true), false, true),
        (None, None, false, true),
    ] {
        let (world, mut seen, now) = coming_up(false, None);
        said(&mut seen, FIRST, other);
        said(&mut seen, SECOND, new);
        let ready = |after: i64| at(&world, &seen, now + after).status.gateways[1].ready;
        assert_eq!((ready(0), ready(45)), (at_once, later), "{new:?} beside {other:?}");
    }
    // One node that gets them through is enough, and one that is proven is not asked again.
    let (world, mut seen, now) = coming_up(false, None);
    said(&mut seen, SECOND, Some(false));
    seen.nodes[0].report.as_mut().unwrap().gateways[1].full_size = Some(true);
    assert!(at(&world, &seen, now).status.gateways[1].ready);
    let (world, mut seen, now) = calm();
    said(&mut seen, SECOND, Some(false));
    assert!(at(&world, &seen, now).status.gateways[1].ready);
}

#[test]
fn a_newcomer_that_swallows_large_packets_is_never_listed_and_made_anew() {
    let world = prepared();
    world.state().first().dead = true;
    let newcomer =
        |world: &World| world.state().ours().into_iter().map(|(id, _)| *id).find(|id| *id > SECOND.0);
    let mut swallows = None;
    for _ in 0..ENOUGH {
        let Some(decision) = world.next() else { break };
        let _ = world.carry_out(&decision, None);
        world.state().tick(1);
        swallows = swallows.or_else(|| newcomer(&world));
        let mut state = world.state();
        if let Some(id) = swallows
            && let Some(machine) = state.machines.get_mut(&id)
        {
            machine.swallows = true;
        }
        let is_it = |id: i64| swallows.is_some_and(|swallows| i64::try_from(swallows) == Ok(id));
        assert!(!state.status().gateways.iter().any(|gateway| is_it(gateway.droplet_id) && gateway.ready));
    }
    no_violation(&world, &"a black hole");
    let status = world.state().status();
    assert_eq!(status.gateways_ready.as_deref(), Some("2/2"), "{status:#?}");
}

#[test]
fn a_gateway_is_promoted_when_the_outside_saw_its_address_if_a_proven_one_can_tell() {
    for (admitted, source, promoted) in [
        (true, Some(true), true),
        (true, None, false),
        (true, Some(false), false),
        // Nobody can tell.
        (false, None, true),
        (false, Some(false), true),
    ] {
        let (world, seen, now) = coming_up(admitted, source);
        let ready = at(&world, &seen, now).status.gateways[1].ready;
        assert_eq!(ready, promoted, "{admitted} {source:?}");
    }
    // What nobody can tell keeps nobody out for ever; the wrong address does.
    let (world, seen, now) = coming_up(true, None);
    assert!(at(&world, &seen, now + 45).status.gateways[1].ready);
    let (world, seen, now) = coming_up(true, Some(false));
    assert!(!at(&world, &seen, now + 45).status.gateways[1].ready);
    // A peer that is not proven is no witness, and one that was proven before is not asked again.
    let (world, mut seen, now) = coming_up(true, None);
    seen.gateway.status.as_mut().unwrap().gateways[0].ready = false;
    assert!(at(&world, &seen, now).status.gateways[1].ready);
}
