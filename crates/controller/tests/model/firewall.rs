//! The cloud firewall around the gateways: one, ours, right, and nobody else's touched, whatever happens.

use std::collections::BTreeSet;

use egress_api::condition::{DEGRADED, READY, is_true};
use egress_controller::act::Outcome;
use egress_controller::decision::Effect;
use egress_controller::firewall::lets_in;
use egress_controller::observation::{Observation, Trouble};
use egress_digitalocean::{DropletId, FirewallSpec, FirewallStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::situations::{FIRST, SECOND, at, calm, effect_at, reason, reports, yes};
use crate::walls::Wall;
use crate::world::{Crash, World, firewall_name, timestamp};
use crate::{ENOUGH, no_violation, prepared};

/// One firewall around exactly the gateways there are, in force, which lets each address probe and no other.
fn assert_around(world: &World) {
    let state = world.state();
    let ids: BTreeSet<u64> = state.ours().into_iter().map(|(id, _)| *id).collect();
    let walls = state.our_walls();
    assert_eq!(walls.len(), 1, "{:#?}", state.journal);
    let (id, wall) = walls[0];
    assert_eq!(wall.droplets.iter().copied().collect::<BTreeSet<u64>>(), ids, "{:#?}", state.journal);
    let recorded = state.status().firewall.unwrap();
    assert_eq!((recorded.id.as_ref(), recorded.doubles.len()), (Some(id), 0));
    assert_eq!((&recorded.sent, &recorded.message, &recorded.not_before), (&None, &None, &None));
    let shown = state.shown_walls().into_iter().find(|shown| shown.id.as_str() == id).unwrap();
    for last in 100..120 {
        let address = format!("203.0.113.{last}").parse().unwrap();
        assert_eq!(lets_in(&shown, address), ids.contains(&last), "{address}");
    }
}

fn done(world: &World, words: &str) -> usize {
    world.state().journal.iter().filter(|line| line.starts_with(words)).count()
}

#[test]
fn a_pair_gets_one_firewall_and_a_replacement_takes_the_place_of_the_dead_one_in_it() {
    let world = prepared();
    assert_around(&world);
    assert_eq!(done(&world, "wall made"), 1);
    world.state().kill_active();
    assert!(world.settle(ENOUGH));
    no_violation(&world, &"replaced");
    assert_around(&world);
    assert_eq!(done(&world, "wall made"), 1);
}

#[test]
fn every_drift_is_put_right_and_a_firewall_that_is_gone_is_made_again() {
    let world = prepared();
    let id = world.state().our_walls()[0].0.clone();
    let harms: [fn(&mut Wall); 5] = [
        |wall| wall.inbound.truncate(1),
        |wall| wall.outbound.clear(),
        |wall| wall.droplets.truncate(1),
        |wall| wall.droplets.push(2),
        |wall| wall.tags.push("web".into()),
    ];
    for harm in harms {
        harm(world.state().walls.get_mut(&id).unwrap());
        assert!(world.settle(ENOUGH));
        assert_around(&world);
    }
    assert_eq!(done(&world, "wall made"), 1);
    world.state().walls.remove(&id);
    world.state().walls_gone += 1;
    let told: Vec<_> = world.next().unwrap().events;
    assert!(told.iter().any(|one| one.reason == "FirewallGone" && one.warning), "{told:?}");
    assert!(world.settle(ENOUGH));
    assert_around(&world);
    assert_eq!(done(&world, "wall made"), 2);
    no_violation(&world, &"drift");
}

#[test]
fn after_the_status_was_lost_the_firewall_is_taken_over_and_doubles_go() {
    let world = prepared();
    world.state().gateway.as_mut().unwrap().status = None;
    assert!(world.settle(ENOUGH));
    assert_around(&world);
    assert_eq!(done(&world, "wall made"), 1);

    // A second one of our name, as a create leaves whose success came after the settle time.
    let mut state = world.state();
    let double = state.our_walls()[0].1.clone();
    state.walls.insert("wall-double".into(), double);
    drop(state);
    assert!(world.settle(ENOUGH));
    assert_around(&world);
    assert_eq!((done(&world, "wall made"), done(&world, "wall gone")), (1, 1));
    no_violation(&world, &"doubles");
}

#[test]
fn somebody_elses_firewall_of_our_name_is_left_alone_said_and_costs_no_egress() {
    for deleted in [false, true] {
        let world = World::new(Vec::new());
        world.state().foreign_wall("wall-foreign", &firewall_name(), &[2]);
        assert!(world.settle(ENOUGH), "{:#?}", world.state().status());
        let status = world.state().status();
        assert!(is_true(&status.conditions, READY), "{status:#?}");
        let degraded = status.conditions.iter().find(|one| one.type_ == DEGRADED).unwrap();
        assert_eq!(degraded.reason, "FirewallNotProvablyOurs", "{}", degraded.message);
        assert!(degraded.message.contains("wall-foreign"), "{}", degraded.message);
        if deleted {
            world.state().delete();
        } else {
            world.state().walls.remove("wall-foreign");
            world.state().walls_gone += 1;
        }
        assert!(world.settle(ENOUGH));
        no_violation(&world, &"foreign");
        assert_eq!(world.state().walls.contains_key("wall-foreign"), deleted);
        if !deleted {
            assert_around(&world);
        }
    }
}

#[test]
fn one_that_was_renamed_is_left_alone_until_it_has_its_name_again() {
    let world = prepared();
    let id = world.state().our_walls()[0].0.clone();
    world.state().walls.get_mut(&id).unwrap().name = "mine".into();
    assert!(world.settle(ENOUGH));
    let status = world.state().status();
    let degraded = status.conditions.iter().find(|one| one.type_ == DEGRADED).unwrap().clone();
    assert_eq!(degraded.reason, "FirewallNotProvablyOurs");
    assert_eq!(done(&world, "wall"), 1, "{:?}", world.state().journal);
    world.state().delete();
    let _waits = world.settle(ENOUGH);
    assert!(world.state().gateway.is_some() && world.state().ours().is_empty());
    world.state().walls.get_mut(&id).unwrap().name = firewall_name();
    assert!(world.settle(ENOUGH));
    assert!(world.state().gateway.is_none() && world.state().our_walls().is_empty());
    no_violation(&world, &"renamed");
}

#[test]
fn a_droplet_that_only_carries_our_tags_is_not_put_in_and_one_that_lost_a_tag_stays_in() {
    let (world, mut seen, now) = calm();
    let droplets = &mut seen.cloud.as_mut().unwrap().droplets;
    droplets.get_mut(&SECOND).unwrap().tags = Some(Vec::new());
    assert!(change_at(&world, &mut seen, now).is_none(), "it would be open");
    assert_eq!(at(&world, &seen, now).effect, None, "it is told, and that is all");
    seen.firewalls.as_mut().unwrap().firewalls[0].droplet_ids = vec![FIRST];
    assert_eq!(at(&world, &seen, now).effect, None, "nothing proves that it is ours");
    seen.firewalls.as_mut().unwrap().firewalls[0].droplet_ids = vec![FIRST, SECOND];
    // Tags and VPC of ours, and not recorded.
    let mut twin = seen.cloud.as_ref().unwrap().droplets[&FIRST].clone();
    (twin.id, twin.name) = (DropletId(950), "mine".into());
    seen.cloud.as_mut().unwrap().droplets.insert(twin.id, twin);
    assert!(change_at(&world, &mut seen, now).is_none());
    // A worker of the cluster that somebody wrote into the status.
    let (world, mut seen, now) = calm();
    seen.nodes[0].droplet = Some(SECOND);
    assert_eq!(change_at(&world, &mut seen, now).unwrap().droplets, [FIRST]);
}

// What the firewall is changed to, once the status is written.
fn change_at(world: &World, seen: &mut Observation, now: i64) -> Option<FirewallSpec> {
    for _ in 0..5 {
        let decision = at(world, seen, now);
        seen.gateway.status = Some(decision.status);
        match decision.effect {
            Some(Effect::WriteStatus) => {}
            Some(Effect::UpdateFirewall(_, spec)) => return Some(spec),
            _ => return None,
        }
    }
    panic!("the status never comes to rest");
}

#[test]
fn without_the_right_to_have_one_gateways_work_and_the_condition_names_the_scope() {
    let (world, mut seen, now) = calm();
    let words = "the API token needs the scopes firewall:read";
    seen.firewalls = Err(Trouble { reason: "FirewallsForbidden", message: words.into() });
    let (effect, decision) = effect_at(&world, &mut seen, now);
    assert_eq!((effect, reason(&decision, DEGRADED)), (None, yes("FirewallsForbidden")));
    assert_eq!(reason(&decision, READY), yes("EgressWorks"));

    // It may read, and not make.
    let world = World::new(Vec::new());
    world.state().walls_refused =
        Some("You are not authorized: the API token needs the scope firewall:create");
    for _ in 0..200 {
        let decision = world.next().unwrap();
        let _ = world.carry_out(&decision, None);
        world.state().tick(1);
    }
    let status = world.state().status();
    assert!(is_true(&status.conditions, READY), "{status:#?}");
    assert_eq!(status.gateways_ready.as_deref(), Some("2/2"));
    let degraded = status.conditions.iter().find(|one| one.type_ == DEGRADED).unwrap();
    assert_eq!(degraded.reason, "FirewallRefused");
    assert!(degraded.message.contains("firewall:create"), "{}", degraded.message);
    world.state().walls_refused = None;
    // A change of the spec does not wait for the pause to be over.
    world.state().gateway.as_mut().unwrap().metadata.generation = Some(2);
    assert!(world.settle(ENOUGH));
    assert_around(&world);
    no_violation(&world, &"refused");
}

#[test]
fn deletion_says_which_firewall_stays_and_how_to_get_out() {
    let world = prepared();
    world.state().walls_refused = Some("the API token needs the scope firewall:delete");
    world.state().delete();
    let _ = world.settle(ENOUGH);
    let status = world.state().status();
    assert!(world.state().ours().is_empty() && world.state().gateway.is_some());
    let degraded = status.conditions.iter().find(|one| one.type_ == DEGRADED).unwrap().clone();
    assert_eq!((degraded.status.as_str(), degraded.reason.as_str()), ("True", "FirewallRefused"));
    for words in ["firewall:delete", &firewall_name(), "remove the finalizer"] {
        assert!(degraded.message.contains(words), "{words}: {}", degraded.message);
    }
    world.state().walls_refused = None;
    world.state().tick(60);
    assert!(world.settle(ENOUGH));
    assert!(world.state().gateway.is_none());
    no_violation(&world, &"refused delete");
}

/// Somebody takes rules away, and the cloud refuses to have them put back.
fn refused_to_be_put_right() -> World {
    let world = prepared();
    let id = world.state().our_walls()[0].0.clone();
    world.state().walls.get_mut(&id).unwrap().inbound.truncate(1);
    world.state().walls_refused = Some("not now");
    for _ in 0..5 {
        let _ = world.carry_out(&world.next().unwrap(), None);
        world.state().tick(1);
    }
    assert!(world.state().status().firewall.unwrap().not_before.is_some());
    world.state().walls_refused = None;
    world
}

#[test]
fn a_refusal_is_told_no_more_when_the_firewall_is_as_it_should_be_whoever_saw_to_it() {
    let degraded = |world: &World| is_true(&world.state().status().conditions, DEGRADED);
    let world = refused_to_be_put_right();
    assert!(degraded(&world));
    // It is put right at last, and nobody hears of it.
    let update = loop {
        let decision = world.next().unwrap();
        if matches!(decision.effect, Some(Effect::UpdateFirewall(..))) {
            break decision;
        }
        let _ = world.carry_out(&decision, None);
        world.state().tick(1);
    };
    world.state().crash_next(Crash::ReplyLost);
    assert!(world.carry_out(&update, None).is_err());
    assert_eq!(done(&world, "wall changed"), 1);
    assert!(world.settle(ENOUGH));
    assert_around(&world);
    assert!(!degraded(&world));
    assert_eq!(done(&world, "wall changed"), 1);
    // Somebody puts it right by hand.
    let world = refused_to_be_put_right();
    let right = prepared().state().our_walls()[0].1.clone();
    let id = world.state().our_walls()[0].0.clone();
    world.state().walls.insert(id, right);
    assert!(world.settle(ENOUGH));
    assert_around(&world);
    assert!(!degraded(&world));
    assert_eq!(done(&world, "wall changed"), 0);
    no_violation(&world, &"refused once");
}

#[test]
fn a_change_that_was_refused_is_none_to_tell_of() {
    let world = refused_to_be_put_right();
    let update = || {
        loop {
            let decision = world.next().unwrap();
            let ended = world.carry_out(&decision, None);
            world.state().tick(1);
            if matches!(decision.effect, Some(Effect::UpdateFirewall(..))) {
                return ended;
            }
        }
    };
    world.state().walls_refused = Some("not now");
    assert_eq!(update(), Ok(Outcome::Refused));
    world.state().walls_refused = None;
    assert_eq!(update(), Ok(Outcome::Done));
}

#[test]
fn what_is_refused_for_long_is_asked_for_ever_more_seldom() {
    let world = refused_to_be_put_right();
    world.state().walls_refused = Some("not now");
    let mut asked = Vec::new();
    for _ in 0..1500 {
        let decision = world.next().unwrap();
        if world.carry_out(&decision, None) == Ok(Outcome::Refused) {
            asked.push(world.state().now);
        }
        world.state().tick(1);
    }
    let pauses: Vec<i64> = asked.windows(2).map(|two| two[1] - two[0]).collect();
    // The first one is the cloud's.
    assert!(pauses.len() >= 5 && pauses.is_sorted() && pauses[0] <= 70, "{pauses:?}");
    assert!(pauses.iter().all(|pause| *pause <= 310) && pauses.last() >= Some(&300), "{pauses:?}");
    world.state().walls_refused = None;
    world.state().tick(301);
    assert!(world.settle(ENOUGH));
    assert_around(&world);
    assert_eq!(world.state().status().firewall.unwrap().refused_since, None);
}

#[test]
fn deletion_does_not_wait_for_what_was_refused_before() {
    let world = refused_to_be_put_right();
    let now = world.state().now;
    let firewall = |state: &mut crate::world::State| {
        state.gateway.as_mut().unwrap().status.as_mut().unwrap().firewall.clone().unwrap()
    };
    let mut rests = firewall(&mut world.state());
    rests.not_before = Some(Time(timestamp(now + 300)));
    world.state().gateway.as_mut().unwrap().status.as_mut().unwrap().firewall = Some(rests);
    world.state().delete();
    assert!(world.settle(ENOUGH));
    assert!(world.state().gateway.is_none());
    let took = world.state().now - now;
    assert!(took < 60, "{took} s");
    no_violation(&world, &"deleted");
}

#[test]
fn what_the_cloud_failed_at_is_asked_for_again_and_not_without_end() {
    let world = prepared();
    let id = world.state().our_walls()[0].0.clone();
    world.state().walls.get_mut(&id).unwrap().fails = true;
    world.state().walls_fail = true;
    let before = done(&world, "wall changed");
    for _ in 0..200 {
        let _ = world.carry_out(&world.next().unwrap(), None);
        world.state().tick(1);
    }
    assert_eq!(done(&world, "wall changed") - before, 1);
    let status = world.state().status();
    let degraded = status.conditions.iter().find(|one| one.type_ == DEGRADED).unwrap();
    assert_eq!((degraded.status.as_str(), degraded.reason.as_str()), ("True", "FirewallFailed"));
    world.state().walls_fail = false;
    world.state().tick(110);
    assert!(world.settle(ENOUGH));
    assert_eq!(done(&world, "wall changed") - before, 2);
    world.state().tick(5);
    assert!(world.settle(ENOUGH));
    assert_around(&world);
    assert!(!is_true(&world.state().status().conditions, DEGRADED));
}

#[test]
fn whom_the_firewall_does_not_let_in_yet_is_not_admitted() {
    let world = prepared();
    let mut seen = world.state().observe().unwrap();
    let now = world.state().now;
    let admits = |seen: &Observation| -> Vec<usize> {
        at(&world, seen, now).status.gateways.iter().map(|gateway| gateway.admits.len()).collect()
    };
    assert_eq!(admits(&seen), [1, 1]);
    let set = |seen: &mut Observation, status| {
        seen.firewalls.as_mut().unwrap().firewalls[0].status = status;
    };
    // Whom it admitted before, it admits while a change is on its way, and while nothing can be read.
    set(&mut seen, FirewallStatus::Waiting);
    assert_eq!(admits(&seen), [1, 1]);
    let mut blind = seen.clone();
    blind.firewalls = Err(Trouble { reason: "FirewallsUnknown", message: String::new() });
    assert_eq!(admits(&blind), [1, 1]);
    // A new one only when the change is in force.
    for gateway in &mut seen.gateway.status.as_mut().unwrap().gateways {
        gateway.admits.clear();
    }
    assert_eq!(admits(&seen), [0, 0]);
    blind.gateway.status.clone_from(&seen.gateway.status);
    assert_eq!(admits(&blind), [0, 0]);
    set(&mut seen, FirewallStatus::Succeeded);
    assert_eq!(admits(&seen), [1, 1]);
    // And only around gateways that it is for: the others have their own filter.
    seen.firewalls.as_mut().unwrap().firewalls[0].inbound.clear();
    assert_eq!(admits(&seen), [0, 0]);
    seen.firewalls.as_mut().unwrap().firewalls[0].droplet_ids = vec![FIRST];
    assert_eq!(admits(&seen), [0, 1]);
}

#[test]
fn a_change_that_is_not_in_force_yet_is_looked_after_every_five_seconds() {
    let (world, mut seen, now) = calm();
    for (status, seconds) in
        [(FirewallStatus::Waiting, 5), (FirewallStatus::Succeeded, 12), (FirewallStatus::Waiting, 5)]
    {
        seen.firewalls.as_mut().unwrap().firewalls[0].status = status;
        let decision = at(&world, &seen, now);
        assert_eq!(decision.effect, None);
        assert_eq!(decision.requeue_after.as_secs(), seconds);
    }
}

#[test]
fn before_the_settle_time_is_over_no_second_one_is_made_and_deletion_waits_for_it() {
    let (world, mut seen, now) = calm();
    seen.firewalls.as_mut().unwrap().firewalls.clear();
    let (effect, _) = effect_at(&world, &mut seen, now);
    assert!(matches!(effect, Some(Effect::CreateFirewall(_))), "{effect:?}");
    seen.gateway.status.as_mut().unwrap().firewall.as_mut().unwrap().sent = Some(Time(timestamp(now)));
    let taken = |seen: &mut Observation, at: i64| {
        seen.firewalls.as_mut().unwrap().taken = timestamp(at);
    };
    taken(&mut seen, now + 39);
    assert_eq!(effect_at(&world, &mut seen, now + 39).0, None);
    assert_eq!(effect_at(&world, &mut seen, now + 41).0, None, "what was read before proves nothing");

    let mut deleted = seen.clone();
    deleted.gateway.metadata.deletion_timestamp = Some(Time(timestamp(now)));
    deleted.route = None;
    reports(&mut deleted).for_each(|report| report.routes.clear());
    let cloud = deleted.cloud.as_mut().unwrap();
    cloud.gone = [FIRST, SECOND].into();
    cloud.droplets.clear();
    assert_eq!(effect_at(&world, &mut deleted, now + 39).0, None, "it may still come");
    taken(&mut deleted, now + 41);
    assert_eq!(effect_at(&world, &mut deleted, now + 41).0, Some(Effect::RemoveFinalizer));

    taken(&mut seen, now + 41);
    assert!(matches!(effect_at(&world, &mut seen, now + 41).0, Some(Effect::CreateFirewall(_))));
}

#[test]
fn a_create_whose_success_comes_late_leaves_one_firewall() {
    let create = prepared_calls_until("wall made");
    let world = World::new(vec![(create, Crash::LateSuccess)]);
    assert!(world.settle(ENOUGH));
    no_violation(&world, &"late");
    assert_around(&world);
    assert_eq!(done(&world, "wall made"), 1);
    // Deleted while it is on its way.
    let world = World::new(vec![(create, Crash::LateSuccess)]);
    while done(&world, "wall made") == 0 {
        let decision = world.next().unwrap();
        let _ = world.carry_out(&decision, None);
        world.state().tick(1);
    }
    world.state().delete();
    assert!(world.settle(ENOUGH));
    no_violation(&world, &"deleted meanwhile");
    assert!(world.state().gateway.is_none());
}

// How many calls an undisturbed run makes before the first that the journal tells of in these words.
fn prepared_calls_until(words: &str) -> usize {
    let world = World::new(Vec::new());
    loop {
        let before = world.state().calls;
        let decision = world.next().unwrap();
        let _ = world.carry_out(&decision, None);
        if done(&world, words) > 0 {
            // Marked as sent, sent, recorded.
            return before + 1;
        }
        world.state().tick(1);
    }
}
