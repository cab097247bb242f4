//! One address that moves: it goes to whom nodes have proven, within the stated time, and nobody else ever leaves with another one.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use egress_api::condition::{DEGRADED, PROGRESSING, READY, is_true};
use egress_api::{DRAINED_GATEWAYS_ANNOTATION, DeletionPolicy, GatewayRole};
use egress_controller::decision::{Effect, SEEN_WITHIN};
use egress_controller::reserved_ip::address_tag;
use proptest::prelude::*;

use crate::addresses::{degraded, done};
use crate::world::{Crash, World, private};
use crate::{CRASHES, ENOUGH, no_violation};

const GIVEN: &str = "203.0.113.190";

/// From the death of the holder until the cloud is asked to move the address (docs/addresses.md).
const ASKED_WITHIN: i64 = 10;

fn prepared() -> World {
    let world = World::floating(Vec::new(), &[]);
    assert!(world.settle(ENOUGH), "{:#?}", world.state().status());
    world
}

fn holder(world: &World) -> Option<u64> {
    let state = world.state();
    let held = state.ours().into_iter().map(|(id, _)| *id).find(|id| state.held_by(*id).is_some());
    held
}

/// A pair that is proven, with one address, which one of the two has and carries traffic with.
fn assert_whole(world: &World) -> String {
    let state = world.state();
    let status = state.status();
    assert!(is_true(&status.conditions, READY), "{status:#?}");
    assert!(
        !is_true(&status.conditions, DEGRADED) && !is_true(&status.conditions, PROGRESSING),
        "{status:#?}"
    );
    assert_eq!(status.gateways_ready.as_deref(), Some("2/2"));
    let [address] = status.public_ips.as_slice() else { panic!("{status:#?}") };
    assert_eq!(status.egress_ip.as_ref(), Some(address));
    let listed = state.route.as_ref().unwrap().spec.ordered_gateways();
    let told: Vec<_> = listed.iter().map(|entry| entry.egress_address.as_ref().unwrap().0.as_str()).collect();
    assert_eq!(told, [address.as_str(); 2]);
    let holders: Vec<u64> =
        state.ours().into_iter().map(|(id, _)| *id).filter(|id| state.held_by(*id).is_some()).collect();
    assert_eq!(holders.len(), 1, "{:#?}", state.journal);
    assert_eq!(state.uses, Some(holders[0]));
    let active = status.gateways.iter().find(|one| one.role == GatewayRole::Active).unwrap();
    assert_eq!(
        (u64::try_from(active.droplet_id), Some(&active.name)),
        (Ok(holders[0]), status.active.as_ref())
    );
    assert_eq!(active.public_address.as_ref(), Some(address));
    assert!(status.reserving_ip.is_none());
    let settled = |one: &egress_api::ReservedIpStatus| one.assigning.is_none() && one.refused.is_none();
    assert!(status.reserved_ips.len() == 1 && settled(&status.reserved_ips[0]), "{status:#?}");
    address.clone()
}

/// Steps of a second, as long as that is so, in which nodes change their gateway only for one that lets them out, or when theirs is to be
/// deleted.
fn lives(world: &World, most: usize, mut goes_on: impl FnMut(&World) -> bool) {
    let promised = world.state().status().public_ips;
    for _ in 0..most {
        if !goes_on(world) {
            return;
        }
        let before = world.state().uses;
        let Some(decision) = world.next() else { return };
        if !promised.is_empty() {
            assert_eq!(decision.status.public_ips, promised, "what partners admit changed");
        }
        let _ = world.carry_out(&decision, None);
        world.state().tick(1);
        let state = world.state();
        let Some((before, now)) = before.zip(state.uses).filter(|(before, now)| before != now) else {
            continue;
        };
        let listed = state.route.as_ref().map(|route| route.spec.ordered_gateways()).unwrap_or_default();
        let is_listed = listed.iter().any(|entry| entry.address.0 == private(before));
        assert!(
            state.carries(now) || !is_listed,
            "nodes went to {now}, which has no address: {:#?}",
            state.journal
        );
    }
    assert!(!goes_on(world), "{}", told(world));
}

fn told(world: &World) -> String {
    let state = world.state();
    format!("{:#?}\n{:#?}", state.status(), state.journal)
}

fn moves(world: &World) -> usize {
    done(world, "assign")
}

#[test]
fn a_pair_has_one_address_and_both_are_proven_before_one_needs_the_other() {
    let world = prepared();
    no_violation(&world, &"a pair");
    let address = assert_whole(&world);
    assert_eq!((done(&world, "reserve"), moves(&world)), (1, 0));
    let tag = address_tag(address.parse().unwrap());
    let state = world.state();
    for (_, machine) in state.ours() {
        assert!(machine.tags.contains(&tag), "nothing is to be done before it moves: {:?}", machine.tags);
    }
    // It was told to nobody that they leave with it before one had it.
    let routed = state.journal.iter().position(|line| line.starts_with("route")).unwrap();
    let reserved = state.journal.iter().position(|line| line.starts_with("reserve")).unwrap();
    assert!(reserved < routed, "{:#?}", state.journal);
}

#[test]
fn a_dead_holder_loses_the_address_in_time_and_nodes_stay_until_it_is_there() {
    for takes in [1, 5, 30] {
        let world = prepared();
        let address = assert_whole(&world);
        let (first, died) = (holder(&world).unwrap(), world.state().now);
        world.state().addresses_take = takes;
        world.state().machines.get_mut(&first).unwrap().dead = true;
        lives(&world, 60, |world| moves(world) == 0);
        let asked = world.state().now - died;
        assert!(asked <= ASKED_WITHIN, "asked after {asked} s");
        // On its way: nobody carries anything, and that is said.
        lives(&world, 60, |world| holder(world) == Some(first));
        let state = world.state();
        assert_eq!(state.uses, holder_of(&state), "at once when it is there");
        let listed = state.route.as_ref().unwrap().spec.ordered_gateways();
        assert_eq!(listed.len(), 2, "who is used stays listed: {listed:?}");
        let ready = state.status().conditions.iter().find(|one| one.type_ == READY).unwrap().clone();
        assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("False", "AddressMoves"), "{ready:?}");
        assert!(ready.message.contains(&address), "{ready:?}");
        drop(state);
        assert!(world.settle(ENOUGH));
        no_violation(&world, &takes);
        assert_eq!(assert_whole(&world), address);
        assert_ne!(holder(&world), Some(first));
        assert_eq!((done(&world, "reserve"), moves(&world)), (1, 1), "{:#?}", world.state().journal);
    }
}

fn holder_of(state: &crate::world::State) -> Option<u64> {
    state.ours().into_iter().map(|(id, _)| *id).find(|id| state.held_by(*id).is_some())
}

#[test]
fn a_gateway_that_comes_back_waits_and_the_address_stays_where_it_is() {
    let world = prepared();
    let first = holder(&world).unwrap();
    world.state().machines.get_mut(&first).unwrap().frozen = true;
    lives(&world, 60, |world| holder(world) == Some(first));
    assert!(world.settle(ENOUGH));
    no_violation(&world, &"frozen");
    assert_whole(&world);
    let now = holder(&world);
    assert_ne!(now, Some(first));
    assert_eq!(moves(&world), 1);
    lives(&world, 300, |world| world.state().now % 300 != 0);
    assert_eq!((holder(&world), moves(&world)), (now, 1));
}

#[test]
fn one_that_is_off_loses_the_address_before_it_is_powered_on() {
    let world = prepared();
    let first = holder(&world).unwrap();
    world.state().machines.get_mut(&first).unwrap().off = true;
    assert!(world.settle(ENOUGH));
    no_violation(&world, &"off");
    assert_whole(&world);
    let state = world.state();
    let at = |words: &str| state.journal.iter().position(|line| line.starts_with(words)).unwrap();
    assert!(at("assign") < at("power on"), "{:#?}", state.journal);
}

#[test]
fn an_address_goes_to_nobody_who_does_not_forward() {
    let world = prepared();
    let first = holder(&world).unwrap();
    let other = world.state().ours().into_iter().map(|(id, _)| *id).find(|id| *id != first).unwrap();
    world.state().machines.get_mut(&other).unwrap().gray = true;
    // It is seen by difference, and replaced, though it never had the address.
    lives(&world, 120, |world| done(world, "create") < 3);
    assert_eq!((holder(&world), moves(&world)), (Some(first), 0));
    world.state().machines.get_mut(&first).unwrap().dead = true;
    assert!(world.settle(1500), "{:#?}", world.state().status());
    no_violation(&world, &"gray and dead");
    assert_whole(&world);
    assert_ne!(holder(&world), Some(other), "{:#?}", world.state().journal);
}

#[test]
fn a_gray_holder_loses_the_address_on_the_word_of_a_quorum() {
    let world = prepared();
    let (first, began) = (holder(&world).unwrap(), world.state().now);
    world.state().machines.get_mut(&first).unwrap().gray = true;
    lives(&world, 60, |world| moves(world) == 0);
    assert!(world.state().now - began <= ASKED_WITHIN);
    assert!(world.settle(ENOUGH));
    no_violation(&world, &"gray");
    assert_whole(&world);
}

#[test]
fn where_nobody_sees_the_address_though_its_holder_forwards_it_moves_on_once_that_had_its_time() {
    let world = prepared();
    world.steps(usize::try_from(SEEN_WITHIN.as_secs()).unwrap());
    let (first, began) = (holder(&world).unwrap(), world.state().now);
    world.state().machines.get_mut(&first).unwrap().blind = true;
    lives(&world, 120, |world| moves(world) == 0);
    assert!(world.state().now - began <= ASKED_WITHIN, "it has been there for long");
    // The next one does not let it out either: it gets as much time as a machine takes to notice.
    let state = world.state();
    let other = state.ours().into_iter().map(|(id, _)| *id).find(|id| *id != first).unwrap();
    drop(state);
    world.state().machines.get_mut(&other).unwrap().blind = true;
    lives(&world, 60, |world| holder(world) == Some(first));
    let came = world.state().now;
    lives(&world, 200, |world| moves(world) == 1);
    let held = world.state().now - came;
    assert!(held >= i64::try_from(SEEN_WITHIN.as_secs()).unwrap(), "taken away after {held} s");
    for (_, machine) in world.state().machines.iter_mut() {
        machine.blind = false;
    }
    assert!(world.settle(1500));
    no_violation(&world, &"blind");
    assert_whole(&world);
}

#[test]
fn a_cloud_that_refuses_or_does_nothing_is_asked_again_and_the_holder_is_one() {
    for harm in ["refused", "fails"] {
        let world = prepared();
        let first = holder(&world).unwrap();
        match harm {
            "refused" => {
                world.state().addresses_refused = Some("The reserved IP already has a pending event.")
            }
            _ => world.state().addresses_fail = true,
        }
        world.state().machines.get_mut(&first).unwrap().dead = true;
        world.steps(90);
        let (said, message) = degraded(&world);
        assert!(said == "ReservedIPRefused", "{harm}: {said}: {message}");
        let asked = moves(&world);
        assert!(asked <= 4, "{harm}: {asked} times");
        (world.state().addresses_refused, world.state().addresses_fail) = (None, false);
        assert!(world.settle(1500), "{harm}: {:#?}", world.state().status());
        no_violation(&world, &harm);
        assert_whole(&world);
    }
}

#[test]
fn by_wish_the_address_moves_from_one_that_works() {
    let world = prepared();
    let address = assert_whole(&world);
    let (first, name) = (holder(&world), world.state().status().active.unwrap());
    let annotations = BTreeMap::from([(DRAINED_GATEWAYS_ANNOTATION.to_owned(), name)]);
    world.state().gateway.as_mut().unwrap().metadata.annotations = Some(annotations);
    lives(&world, 60, |world| holder(world) == first);
    assert!(world.settle(ENOUGH));
    no_violation(&world, &"drained");
    assert_eq!((assert_whole(&world), moves(&world)), (address, 1));
}

#[test]
fn a_roll_moves_the_address_as_often_as_its_holder_changes() {
    let world = prepared();
    let address = assert_whole(&world);
    world.state().ask_for_size("s-2vcpu-2gb");
    lives(&world, 1500, |world| done(world, "delete") < 2);
    assert!(world.settle(1500));
    no_violation(&world, &"rolled");
    assert_eq!(assert_whole(&world), address);
    assert_eq!((done(&world, "create"), done(&world, "delete"), done(&world, "reserve")), (4, 2, 1));
    assert_eq!(moves(&world), 1, "the standby goes first: {:#?}", world.state().journal);
}

#[test]
fn a_single_one_has_the_address_and_its_successor_takes_it_over() {
    let world = World::floating(Vec::new(), &[]);
    world.state().gateway.as_mut().unwrap().spec.replicas = 1;
    assert!(world.settle(ENOUGH), "{:#?}", world.state().status());
    let address = world.state().status().public_ips;
    assert!(is_true(&world.state().status().conditions, READY));
    world.state().kill_active();
    assert!(world.settle(1500), "{:#?}", world.state().status());
    no_violation(&world, &"single");
    assert!(is_true(&world.state().status().conditions, READY));
    assert_eq!(world.state().status().public_ips, address);
    assert_eq!((done(&world, "reserve"), world.state().ours().len()), (1, 1));
}

#[test]
fn the_users_own_address_is_used_and_neither_marked_nor_given_back() {
    let world = World::floating(Vec::new(), &[GIVEN]);
    world.state().foreign_address(190, None);
    assert!(world.settle(ENOUGH), "{:#?}", world.state().status());
    assert_eq!(assert_whole(&world), GIVEN);
    world.state().kill_active();
    assert!(world.settle(ENOUGH));
    assert_eq!(assert_whole(&world), GIVEN);
    assert_eq!(done(&world, "reserve"), 0);
    world.state().delete();
    assert!(world.settle(ENOUGH));
    no_violation(&world, &"given");
    assert!(world.state().addresses.contains_key(&GIVEN.parse::<Ipv4Addr>().unwrap()));
    assert_eq!(done(&world, "release"), 0);
}

#[test]
fn with_the_object_the_address_goes_or_stays_if_that_is_asked_for() {
    for policy in [DeletionPolicy::Delete, DeletionPolicy::Retain] {
        let world = prepared();
        if policy == DeletionPolicy::Retain {
            world.state().retain();
        }
        world.state().delete();
        assert!(world.settle(ENOUGH), "{:#?}", world.state().status());
        no_violation(&world, &policy);
        assert!(world.state().gateway.is_none());
        let left = world.state().our_addresses().len();
        assert_eq!(left, usize::from(policy == DeletionPolicy::Retain));
    }
}

#[test]
fn after_the_status_was_lost_the_address_is_known_by_its_holders_tag() {
    let world = prepared();
    let (address, first) = (assert_whole(&world), holder(&world));
    world.state().gateway.as_mut().unwrap().status = None;
    assert!(world.settle(ENOUGH), "{:#?}", world.state().status());
    no_violation(&world, &"status lost");
    assert_eq!((assert_whole(&world), holder(&world)), (address, first));
    assert_eq!((done(&world, "reserve"), moves(&world)), (1, 0));
}

#[test]
fn an_address_that_somebody_else_uses_is_not_taken_back_and_said() {
    let world = prepared();
    let address: Ipv4Addr = assert_whole(&world).parse().unwrap();
    world.state().addresses.get_mut(&address).unwrap().holder = Some(2);
    world.steps(300);
    let (said, message) = degraded(&world);
    assert_eq!(said, "ReservedIPInUse", "{message}");
    assert!(!is_true(&world.state().status().conditions, READY));
    let left = world.state().addresses[&address].holder;
    assert_eq!((left, moves(&world)), (Some(2), 0));
    assert_eq!((done(&world, "delete"), done(&world, "power")), (0, 0), "no machine is mended for it");
    world.state().addresses.get_mut(&address).unwrap().holder = None;
    assert!(world.settle(ENOUGH), "{:#?}", world.state().status());
    assert_whole(&world);
    no_violation(&world, &"moved by hand");
}

#[test]
fn when_all_is_well_nothing_is_done_and_who_waits_is_nothing_to_tell_of() {
    let world = prepared();
    for _ in 0..600 {
        let decision = world.next().unwrap();
        assert!(decision.effect.is_none(), "{:?}", decision.effect);
        world.state().tick(1);
    }
}

#[test]
fn the_move_is_the_first_thing_that_is_done_for_a_holder_that_failed() {
    let world = prepared();
    world.state().kill_active();
    let mut effects = Vec::new();
    lives(&world, 60, |world| {
        let effect = world.next().and_then(|decision| decision.effect);
        effects.extend(effect.clone());
        !matches!(effect, Some(Effect::AssignIp(..)))
    });
    let others = effects.iter().filter(|one| !matches!(one, Effect::WriteStatus | Effect::AssignIp(..)));
    assert_eq!(others.count(), 0, "{effects:?}");
}

#[derive(Clone, Copy, Debug)]
enum Scene {
    Create,
    Fail,
    Roll,
    Delete,
}

fn run(scene: Scene, crashes: &[(usize, Crash)]) -> (World, usize) {
    let start = if matches!(scene, Scene::Create) { 0 } else { prepared().state().calls };
    let world = World::floating(crashes.iter().map(|(at, crash)| (start + at, *crash)).collect(), &[]);
    if start > 0 {
        assert!(world.settle(ENOUGH));
    }
    match scene {
        Scene::Create => {}
        Scene::Fail => world.state().kill_active(),
        Scene::Roll => world.state().ask_for_size("s-2vcpu-2gb"),
        Scene::Delete => world.state().delete(),
    }
    assert!(world.settle(1500), "{scene:?}: {:#?}", world.state().status());
    let calls = world.state().calls - start;
    (world, calls)
}

#[test]
fn killed_at_any_call_the_end_is_the_same_with_an_address_that_moves() {
    let mut runs = 0;
    for scene in [Scene::Create, Scene::Fail, Scene::Roll, Scene::Delete] {
        let (undisturbed, calls) = run(scene, &[]);
        let left = |world: &World| {
            let state = world.state();
            (state.status().public_ips, state.our_addresses(), state.ours().len())
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

#[derive(Clone, Copy, Debug)]
enum Event {
    Dead(usize),
    Frozen(usize),
    Gray(usize),
    Off(usize),
    Blind(usize),
    Takes(i64),
    Wait(usize),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        (0..2_usize).prop_map(Event::Dead),
        (0..2_usize).prop_map(Event::Frozen),
        (0..2_usize).prop_map(Event::Gray),
        (0..2_usize).prop_map(Event::Off),
        (0..2_usize).prop_map(Event::Blind),
        (1..40_i64).prop_map(Event::Takes),
        (1..90_usize).prop_map(Event::Wait),
    ];
    proptest::collection::vec(event, 1..8)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(100), ..ProptestConfig::default() })]
    #[test]
    fn whatever_fails_nobody_leaves_with_another_address_and_all_comes_to_rest(events in events()) {
        let world = prepared();
        for event in events {
            let ids: Vec<u64> = world.state().ours().into_iter().map(|(id, _)| *id).collect();
            let harm = |which: usize, harm: fn(&mut crate::world::Machine)| {
                let mut state = world.state();
                ids.get(which).and_then(|id| state.machines.get_mut(id)).map(harm).unwrap_or_default();
            };
            match event {
                Event::Dead(which) => harm(which, |one| one.dead = true),
                Event::Frozen(which) => harm(which, |one| one.frozen = true),
                Event::Gray(which) => harm(which, |one| one.gray = true),
                Event::Off(which) => harm(which, |one| one.off = true),
                Event::Blind(which) => harm(which, |one| one.blind = true),
                Event::Takes(seconds) => world.state().addresses_take = seconds,
                Event::Wait(seconds) => {
                    let mut left = seconds;
                    lives(&world, seconds + 1, |_| { left = left.saturating_sub(1); left > 0 });
                }
            }
        }
        for machine in world.state().machines.values_mut() {
            machine.blind = false;
        }
        prop_assert!(world.settle(3000), "{}", told(&world));
        no_violation(&world, &"whatever");
        assert_whole(&world);
    }
}
