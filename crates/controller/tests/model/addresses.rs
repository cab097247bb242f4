//! Reserved addresses: every gateway has one before it is listed, its successor takes it over, and nobody else's is touched.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use egress_api::condition::{DEGRADED, PROGRESSING, READY, is_true};
use egress_api::{DeletionPolicy, GatewayRole};
use egress_controller::decision::Effect;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::world::{Crash, World, timestamp};
use crate::{CRASHES, ENOUGH, no_violation};

const GIVEN: [&str; 2] = ["203.0.113.190", "203.0.113.191"];

fn ip(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

pub fn prepared() -> World {
    let world = World::reserved(Vec::new(), &[]);
    assert!(world.settle(ENOUGH), "{:#?}", world.state().status());
    world
}

fn given(world: &World) {
    for last in [190, 191] {
        world.state().foreign_address(last, None);
    }
}

/// A pair, each with an address of its own, all of them promised and no other.
pub fn assert_whole(world: &World) -> Vec<String> {
    let state = world.state();
    let status = state.status();
    assert!(is_true(&status.conditions, READY), "{status:#?}");
    assert!(
        !is_true(&status.conditions, DEGRADED) && !is_true(&status.conditions, PROGRESSING),
        "{status:#?}"
    );
    let held: BTreeSet<String> =
        state.ours().iter().map(|(id, _)| state.held_by(**id).unwrap().to_string()).collect();
    let listed: BTreeSet<String> = state
        .route
        .as_ref()
        .unwrap()
        .spec
        .ordered_gateways()
        .into_iter()
        .map(|gateway| gateway.egress_address.unwrap().0)
        .collect();
    let promised: BTreeSet<String> = status.public_ips.iter().cloned().collect();
    assert_eq!((held.len(), &held, &held), (2, &listed, &promised), "{:#?}", state.journal);
    assert!(status.reserving_ip.is_none());
    assert!(
        status.reserved_ips.iter().all(|one| one.assigning.is_none() && one.refused.is_none()),
        "{status:#?}"
    );
    status.public_ips
}

pub fn done(world: &World, words: &str) -> usize {
    world.state().journal.iter().filter(|line| line.starts_with(words)).count()
}

pub fn degraded(world: &World) -> (String, String) {
    let status = world.state().status();
    let found = status.conditions.iter().find(|one| one.type_ == DEGRADED).unwrap();
    assert_eq!(found.status, "True", "{status:#?}");
    (found.reason.clone(), found.message.clone())
}

#[test]
fn each_of_a_pair_has_an_address_of_its_own_before_it_is_listed() {
    let world = prepared();
    no_violation(&world, &"a pair");
    assert_eq!(assert_whole(&world), ["203.0.113.202", "203.0.113.203"]);
    assert_eq!((done(&world, "reserve"), done(&world, "assign")), (2, 0));
}

#[test]
fn a_successor_has_the_address_of_the_dead_one_and_what_is_promised_never_changes() {
    let world = prepared();
    let promised = assert_whole(&world);
    world.state().kill_active();
    for _ in 0..ENOUGH {
        let Some(decision) = world.next() else { break };
        assert_eq!(decision.status.public_ips, promised);
        let _ = world.carry_out(&decision, None);
        world.state().tick(1);
    }
    assert!(world.settle(ENOUGH));
    no_violation(&world, &"replaced");
    assert_eq!(assert_whole(&world), promised);
    assert_eq!((done(&world, "reserve"), done(&world, "assign")), (2, 1), "{:#?}", world.state().journal);
    assert_eq!(world.state().names().len(), 2);
}

#[test]
fn a_droplet_that_somebody_deleted_leaves_its_address_to_its_successor() {
    let world = prepared();
    let promised = assert_whole(&world);
    let now = world.state().now;
    world.state().first().deleted = Some(now - 10);
    world.state().tick(1);
    assert!(world.settle(ENOUGH));
    no_violation(&world, &"deleted by hand");
    assert_eq!(assert_whole(&world), promised);
    assert_eq!((done(&world, "reserve"), done(&world, "assign")), (2, 1));
}

#[test]
fn with_the_object_addresses_go_too_or_stay_if_that_is_asked_for() {
    for policy in [DeletionPolicy::Delete, DeletionPolicy::Retain] {
        let world = prepared();
        let ours = world.state().our_addresses();
        if policy == DeletionPolicy::Retain {
            world.state().retain();
        }
        world.state().delete();
        assert!(world.settle(ENOUGH), "{:#?}", world.state().status());
        no_violation(&world, &policy);
        assert!(world.state().gateway.is_none());
        assert_eq!(world.state().ours().is_empty(), policy == DeletionPolicy::Delete);
        let left = world.state().our_addresses();
        assert_eq!(left, if policy == DeletionPolicy::Retain { ours } else { Vec::new() });
        assert_eq!(done(&world, "release"), 2 - left.len());
    }
}

#[test]
fn what_the_user_gives_is_assigned_and_never_given_back() {
    let world = World::reserved(Vec::new(), &GIVEN);
    given(&world);
    assert!(world.settle(ENOUGH), "{:#?}", world.state().status());
    assert_eq!(assert_whole(&world), GIVEN);
    assert_eq!((done(&world, "reserve"), done(&world, "assign")), (0, 2));
    world.state().kill_active();
    assert!(world.settle(ENOUGH));
    assert_eq!(assert_whole(&world), GIVEN);
    world.state().delete();
    assert!(world.settle(ENOUGH));
    no_violation(&world, &"given");
    assert!(world.state().gateway.is_none());
    for address in GIVEN {
        assert!(world.state().addresses.contains_key(&ip(address)));
    }
    assert_eq!(done(&world, "release"), 0);
}

#[test]
fn the_rest_is_made_where_the_user_gives_fewer_than_there_are_gateways() {
    let world = World::reserved(Vec::new(), &GIVEN[..1]);
    given(&world);
    assert!(world.settle(ENOUGH), "{:#?}", world.state().status());
    let promised = assert_whole(&world);
    assert!(promised.contains(&GIVEN[0].to_owned()));
    assert_eq!((done(&world, "reserve"), done(&world, "assign")), (1, 1));
    world.state().delete();
    assert!(world.settle(ENOUGH));
    no_violation(&world, &"one given");
    assert!(world.state().our_addresses().is_empty() && world.state().addresses.contains_key(&ip(GIVEN[0])));
}

/// What befalls an address in the cloud.
type Harm = fn(&World);

#[test]
fn given_addresses_that_are_unknown_elsewhere_or_in_use_are_left_alone_and_said_and_no_droplet_pays_for_it() {
    let harms: [(&str, Harm); 3] = [
        ("ReservedIPUnknown", |world| {
            world.state().addresses.remove(&ip(GIVEN[1])).unwrap();
        }),
        ("ReservedIPElsewhere", |world| {
            world.state().addresses.get_mut(&ip(GIVEN[1])).unwrap().region = "ams3";
        }),
        ("ReservedIPInUse", |world| world.state().addresses.get_mut(&ip(GIVEN[1])).unwrap().holder = Some(2)),
    ];
    for (reason, harm) in harms {
        let world = World::reserved(Vec::new(), &GIVEN);
        given(&world);
        harm(&world);
        // Far longer than a bring-up may take.
        for _ in 0..400 {
            let decision = world.next().unwrap();
            let _ = world.carry_out(&decision, None);
            world.state().tick(1);
        }
        let (said, message) = degraded(&world);
        assert_eq!(said, reason, "{message}");
        assert!(message.contains(GIVEN[1]), "{message}");
        let status = world.state().status();
        assert!(
            is_true(&status.conditions, READY) && status.gateways_ready.as_deref() == Some("1/2"),
            "{status:#?}"
        );
        assert_eq!((done(&world, "create"), done(&world, "delete"), done(&world, "reserve")), (2, 0, 0));
        // It is mended, and taken.
        world.state().addresses.remove(&ip(GIVEN[1]));
        world.state().foreign_address(191, None);
        assert!(world.settle(ENOUGH));
        assert_whole(&world);
        no_violation(&world, &reason);
    }
}

#[test]
fn an_address_that_was_moved_by_hand_is_not_taken_back_and_its_gateway_carries_nothing() {
    let world = prepared();
    let promised = assert_whole(&world);
    let active = world.state().status().active.unwrap();
    let moved = ip(&world.state().status().egress_ip.unwrap());
    world.state().addresses.get_mut(&moved).unwrap().holder = Some(2);
    for _ in 0..300 {
        let decision = world.next().unwrap();
        let _ = world.carry_out(&decision, None);
        world.state().tick(1);
    }
    let (said, message) = degraded(&world);
    assert_eq!(said, "ReservedIPInUse", "{message}");
    let status = world.state().status();
    assert_ne!(status.active, Some(active));
    assert_eq!(world.state().route.as_ref().unwrap().spec.ordered_gateways().len(), 1);
    assert_eq!(status.public_ips, promised);
    assert_eq!(
        (done(&world, "create"), done(&world, "delete"), done(&world, "power")),
        (2, 0, 0),
        "no machine is mended for it"
    );
    assert_eq!(world.state().addresses[&moved].holder, Some(2));
    // Whoever took it lets it go.
    world.state().addresses.get_mut(&moved).unwrap().holder = None;
    assert!(world.settle(ENOUGH), "{:#?}", world.state().status());
    assert_eq!(assert_whole(&world), promised);
    no_violation(&world, &"moved by hand");
}

#[test]
fn somebody_elses_address_on_a_gateway_is_left_there_and_said() {
    let world = World::reserved(Vec::new(), &[]);
    while world.state().ours().is_empty() {
        let decision = world.next().unwrap();
        let _ = world.carry_out(&decision, None);
        world.state().tick(1);
    }
    let first = *world.state().ours()[0].0;
    world.state().addresses.get_mut(&ip("203.0.113.180")).unwrap().holder = Some(first);
    for _ in 0..300 {
        let decision = world.next().unwrap();
        let _ = world.carry_out(&decision, None);
        world.state().tick(1);
    }
    let (said, message) = degraded(&world);
    assert_eq!(said, "ReservedIPNotOurs", "{message}");
    assert!(message.contains("203.0.113.180") && message.contains("unassign it"), "{message}");
    world.state().addresses.get_mut(&ip("203.0.113.180")).unwrap().holder = None;
    assert!(world.settle(ENOUGH));
    assert_whole(&world);
    no_violation(&world, &"foreign");
}

#[test]
fn after_the_status_was_lost_addresses_are_known_by_their_gateways_tags() {
    let world = prepared();
    let promised = assert_whole(&world);
    world.state().gateway.as_mut().unwrap().status = None;
    assert!(world.settle(ENOUGH));
    assert_eq!(assert_whole(&world), promised);
    assert_eq!((done(&world, "reserve"), done(&world, "assign")), (2, 0));
    // And given back in the end.
    world.state().gateway.as_mut().unwrap().status = None;
    world.state().delete();
    assert!(world.settle(ENOUGH));
    no_violation(&world, &"status lost");
    assert!(world.state().gateway.is_none() && world.state().our_addresses().is_empty());
}

#[test]
fn a_quota_is_said_and_costs_no_droplet() {
    let world = World::reserved(Vec::new(), &[]);
    world.state().addresses_refused = Some("You have reached your limit of reserved IPs.");
    for _ in 0..400 {
        let decision = world.next().unwrap();
        let _ = world.carry_out(&decision, None);
        world.state().tick(1);
    }
    let (said, message) = degraded(&world);
    assert_eq!(said, "ReservedIPRefused", "{message}");
    assert!(message.contains("You have reached your limit of reserved IPs."), "{message}");
    assert!(!is_true(&world.state().status().conditions, READY));
    assert!(world.state().route.is_none(), "a gateway without an address is listed");
    assert_eq!((done(&world, "create"), done(&world, "delete")), (2, 0));
    world.state().addresses_refused = None;
    // A change of the spec does not wait for the pause to be over.
    world.state().gateway.as_mut().unwrap().metadata.generation = Some(2);
    assert!(world.settle(ENOUGH));
    assert_whole(&world);
    no_violation(&world, &"quota");
}

#[test]
fn an_assignment_that_the_cloud_takes_and_does_not_carry_out_is_asked_for_again_ever_more_seldom() {
    let world = prepared();
    world.state().addresses_fail = true;
    world.state().kill_active();
    for _ in 0..1000 {
        let decision = world.next().unwrap();
        let _ = world.carry_out(&decision, None);
        world.state().tick(1);
    }
    let asked = done(&world, "assign");
    assert!((3..=12).contains(&asked), "{asked} times");
    let (said, message) = degraded(&world);
    assert!(said == "ReservedIPRefused" && message.contains("has not carried it out"), "{said}: {message}");
    world.state().addresses_fail = false;
    world.state().tick(310);
    assert!(world.settle(ENOUGH));
    assert_whole(&world);
    no_violation(&world, &"failed actions");
}

#[test]
fn fewer_gateways_need_fewer_addresses_and_the_surplus_is_given_back() {
    let world = prepared();
    let mut state = world.state();
    let gateway = state.gateway.as_mut().unwrap();
    gateway.spec.replicas = 1;
    gateway.metadata.generation = Some(2);
    drop(state);
    assert!(world.settle(ENOUGH));
    no_violation(&world, &"one");
    assert_eq!(world.state().our_addresses().len(), 1);
    assert_eq!(done(&world, "release"), 1);
    assert_eq!(world.state().status().public_ips.len(), 1);
    assert!(is_true(&world.state().status().conditions, READY));
}

#[test]
fn deletion_says_which_address_stays_and_how_to_get_out() {
    let world = prepared();
    world.state().addresses_refused = Some("You are not authorized");
    world.state().delete();
    let _ = world.settle(ENOUGH);
    let (said, message) = degraded(&world);
    assert_eq!(said, "ReservedIPRefused");
    for words in ["203.0.113.202", "You are not authorized", "deletionPolicy: Retain", "remove the finalizer"]
    {
        assert!(message.contains(words), "{words}: {message}");
    }
    world.state().addresses_refused = None;
    world.state().tick(310);
    assert!(world.settle(ENOUGH));
    assert!(world.state().gateway.is_none());
    no_violation(&world, &"refused release");
}

#[test]
fn a_gateway_whose_address_is_not_seen_at_it_is_not_proven_by_its_own_word() {
    let world = prepared();
    let state = world.state();
    let mut seen = state.observe().unwrap();
    let now = state.now;
    drop(state);
    for one in &mut seen.gateway.status.as_mut().unwrap().gateways {
        (one.ready, one.role) = (false, GatewayRole::Starting);
    }
    let addresses = &mut seen.reserved_ips.as_mut().unwrap().addresses;
    for shown in addresses {
        shown.droplet = None;
    }
    let decision = crate::situations::at(&world, &seen, now);
    assert!(decision.status.gateways.iter().all(|one| !one.ready && one.public_address.is_none()));
    // Free, and ours: they are assigned again.
    seen.gateway.status = Some(decision.status);
    let effect = crate::situations::at(&world, &seen, now).effect;
    assert!(matches!(effect, Some(Effect::AssignIp(..))), "{effect:?}");
}

#[derive(Clone, Copy, Debug)]
enum Scene {
    Create,
    Replace,
    Delete,
    Given,
}

fn run(scene: Scene, crashes: &[(usize, Crash)]) -> (World, usize) {
    let names: &[&str] = if matches!(scene, Scene::Given) { &GIVEN } else { &[] };
    let start = match scene {
        Scene::Create | Scene::Given => 0,
        Scene::Replace | Scene::Delete => prepared().state().calls,
    };
    let world = World::reserved(crashes.iter().map(|(at, crash)| (start + at, *crash)).collect(), names);
    given(&world);
    if start > 0 {
        assert!(world.settle(ENOUGH));
    }
    match scene {
        Scene::Create | Scene::Given => {}
        Scene::Replace => world.state().kill_active(),
        Scene::Delete => world.state().delete(),
    }
    assert!(world.settle(ENOUGH), "{scene:?}: {:#?}", world.state().status());
    let calls = world.state().calls - start;
    (world, calls)
}

#[test]
fn killed_at_any_call_the_end_is_the_same_with_reserved_addresses() {
    let mut runs = 0;
    for scene in [Scene::Create, Scene::Replace, Scene::Delete, Scene::Given] {
        let (undisturbed, calls) = run(scene, &[]);
        let left = |world: &World| {
            let state = world.state();
            (state.status().public_ips, state.our_addresses())
        };
        let expected = left(&undisturbed);
        for at in 0..calls {
            for crash in CRASHES.into_iter().chain([Crash::LateSuccess]) {
                let (world, _) = run(scene, &[(at, crash)]);
                let told = (scene, at, crash);
                no_violation(&world, &told);
                assert_eq!(left(&world), expected, "{told:?}\n{:#?}", world.state().journal);
                if !matches!(scene, Scene::Delete) {
                    assert_whole(&world);
                }
                runs += 1;
            }
        }
    }
    assert!(runs > 100, "{runs}");
}

#[test]
fn a_droplet_is_not_deleted_while_it_is_open_whether_an_address_was_reserved_for_it() {
    let world = prepared();
    let mut seen = world.state().observe().unwrap();
    let now = world.state().now;
    let status = seen.gateway.status.as_mut().unwrap();
    let first = status.gateways[0].droplet_id;
    status.reserving_ip = Some(egress_api::ReservingIpStatus {
        droplet_id: first,
        since: Time(timestamp(now)),
        sent: Some(Time(timestamp(now))),
        refused: None,
    });
    seen.gateway.metadata.deletion_timestamp = Some(Time(timestamp(now)));
    seen.route = None;
    crate::situations::reports(&mut seen).for_each(|report| report.routes.clear());
    let (effect, _) = crate::situations::effect_at(&world, &mut seen, now + 1);
    let Some(Effect::DeleteDroplet(droplet)) = effect else { panic!("{effect:?}") };
    assert_ne!(i64::try_from(droplet.id().0), Ok(first));
}

#[test]
fn who_goes_with_the_definition_keeps_the_addresses_and_is_told_which_are_left_to_release() {
    let world = World::reserved(Vec::new(), &GIVEN[..1]);
    given(&world);
    assert!(world.settle(ENOUGH), "{:#?}", world.state().status());
    let addresses = assert_whole(&world);
    let (mut seen, now) = {
        let state = world.state();
        (state.observe().unwrap(), timestamp(state.now))
    };
    seen.gateway.metadata.deletion_timestamp = Some(Time(now));
    seen.definition = Some(egress_api::Definition::Gone);
    let decision = egress_controller::decide::decide(&seen, &world.limits, now);
    assert!(matches!(decision.effect, None | Some(Effect::WriteStatus)), "{:?}", decision.effect);
    let degraded = decision.status.conditions.iter().find(|condition| condition.type_ == DEGRADED).unwrap();
    assert_eq!(degraded.reason, "DefinitionGone");
    let made: Vec<&String> = addresses.iter().filter(|ip| *ip != GIVEN[0]).collect();
    assert_eq!(made.len(), 1);
    assert!(degraded.message.contains(made[0]), "{}", degraded.message);
    assert!(!degraded.message.contains(GIVEN[0]), "what was given is not ours to name: {}", degraded.message);
}
