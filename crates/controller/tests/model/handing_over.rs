//! Rolls with reserved addresses: the address moves to the new Droplet when nothing uses the old one any more, and back if the new one is
//! none.

use egress_api::condition::{DEGRADED, PROGRESSING, READY, is_true};
use egress_controller::decision::Happening;

use crate::addresses::{assert_whole, degraded, done, prepared};
use crate::world::{Crash, World};
use crate::{CRASHES, ENOUGH, no_violation};

const BIGGER: &str = "s-2vcpu-2gb";

fn sizes(world: &World) -> Vec<String> {
    world.state().status().gateways.into_iter().filter_map(|gateway| gateway.size).collect()
}

/// Steps until that is so, and says what was told; addresses are promised all the time.
fn until(world: &World, what: &str, mut is_so: impl FnMut(&World) -> bool) -> Vec<Happening> {
    let promised = world.state().status().public_ips;
    let mut told = Vec::new();
    for _ in 0..ENOUGH {
        if is_so(world) {
            return told;
        }
        let decision = world.next().unwrap();
        assert_eq!(decision.status.public_ips, promised);
        let _ = world.carry_out(&decision, None);
        told.extend(decision.events);
        world.state().tick(1);
    }
    let state = world.state();
    panic!("never {what}: {:#?}\n{:#?}", state.status(), state.journal);
}

/// The Droplet of the successor, once it is made.
fn successor(world: &World) -> Option<u64> {
    let to = world.state().status().roll?.to_droplet_id?;
    u64::try_from(to).ok()
}

/// A roll whose successor has just got the address.
fn handed_over() -> World {
    let world = prepared();
    world.state().ask_for_size(BIGGER);
    until(&world, "the address has moved", |world| {
        successor(world).is_some_and(|to| world.state().held_by(to).is_some())
    });
    world
}

#[test]
fn a_changed_size_replaces_both_and_each_successor_takes_over_the_address_of_the_one_it_replaces() {
    let world = prepared();
    let promised = assert_whole(&world);
    let before = world.state().status().gateways;
    world.state().ask_for_size(BIGGER);
    let told = until(&world, "both are replaced", |world| done(world, "delete") == 2);
    assert!(world.settle(ENOUGH), "{:#?}", world.state().status());
    no_violation(&world, &"rolled");
    assert_eq!(assert_whole(&world), promised);
    assert_eq!(sizes(&world), [BIGGER, BIGGER]);
    assert_eq!((done(&world, "reserve"), done(&world, "assign"), done(&world, "release")), (2, 2, 0));
    let state = world.state();
    let after_the_pair = state.journal.iter().skip_while(|line| *line != "route 2").skip(1);
    let verbs = ["create", "assign", "delete", "route"];
    let mut order: Vec<&str> = after_the_pair
        .map(String::as_str)
        .filter(|line| verbs.iter().any(|verb| line.starts_with(verb)))
        .collect();
    order.dedup();
    let of = |slot: usize| before[slot].public_address.as_deref().unwrap();
    let (first, second) =
        (format!("assign {} to demo-1-1a2b3c4d", of(0)), format!("assign {} to demo-2-1a2b3c4d", of(1)));
    // Off the list before its address moves, listed again with it, and then the old one goes.
    let expected = [
        "create demo-2-1a2b3c4d",
        "route 1",
        &second,
        "route 2",
        "delete demo-1-1a2b3c4d",
        "create demo-1-1a2b3c4d",
        "route 2",
        "route 1",
        &first,
        "route 2",
        "delete demo-0-1a2b3c4d",
    ];
    let mut expected = expected.to_vec();
    expected.dedup();
    assert_eq!(order, expected);
    let rolling = told.iter().find(|one| one.reason == "Rolling").unwrap();
    for words in ["No gap is expected", "moves to the new one", "one gateway less"] {
        assert!(rolling.note.contains(words), "{words}: {}", rolling.note);
    }
    let rolled = told.iter().find(|one| one.reason == "Rolled").unwrap();
    assert!(rolled.note.contains("the addresses to admit are the same"), "{}", rolled.note);
}

#[test]
fn with_one_replica_the_gap_is_said_beforehand_and_the_list_is_never_empty() {
    let world = World::reserved(Vec::new(), &[]);
    world.state().gateway.as_mut().unwrap().spec.replicas = 1;
    assert!(world.settle(ENOUGH));
    let promised = world.state().status().public_ips;
    world.state().ask_for_size(BIGGER);
    let told = until(&world, "it is replaced", |world| {
        let state = world.state();
        assert_eq!(state.route.as_ref().unwrap().spec.ordered_gateways().len(), 1);
        state.journal.iter().any(|line| line.starts_with("delete"))
    });
    let rolling = told.iter().find(|one| one.reason == "Rolling").unwrap();
    for words in
        ["A gap of some ten seconds is expected", "connections that are open then break", "replicas: 2"]
    {
        assert!(rolling.note.contains(words), "{words}: {}", rolling.note);
    }
    assert!(world.settle(ENOUGH));
    no_violation(&world, &"one replica");
    let status = world.state().status();
    assert!(is_true(&status.conditions, READY) && !is_true(&status.conditions, PROGRESSING), "{status:#?}");
    assert_eq!((sizes(&world).as_slice(), &status.public_ips), ([BIGGER.to_owned()].as_slice(), &promised));
    assert_eq!((done(&world, "create"), done(&world, "assign"), done(&world, "delete")), (2, 1, 1));
}

#[test]
fn a_successor_that_never_answers_stops_the_roll_before_anything_moves() {
    let world = prepared();
    let promised = assert_whole(&world);
    world.state().stillborn = true;
    world.state().ask_for_size(BIGGER);
    assert!(world.settle(1500), "{:#?}", world.state().status());
    no_violation(&world, &"stillborn");
    assert_eq!((done(&world, "create"), done(&world, "assign"), done(&world, "delete")), (3, 0, 1));
    let status = world.state().status();
    assert_eq!((status.gateways_ready.as_deref(), status.public_ips), (Some("2/2"), promised));
    let (reason, message) = degraded(&world);
    assert_eq!(reason, "RollStopped");
    assert!(message.contains("demo-1-1a2b3c4d works on"), "{message}");
}

#[test]
fn a_successor_that_dies_with_the_address_gives_it_back_to_the_one_that_it_was_to_replace() {
    let world = handed_over();
    let promised = world.state().status().public_ips;
    let to = successor(&world).unwrap();
    world.state().machines.get_mut(&to).unwrap().dead = true;
    until(&world, "the roll is stopped", |world| {
        world.state().status().roll.is_some_and(|roll| roll.failure.is_some())
    });
    assert!(world.settle(ENOUGH), "{:#?}", world.state().status());
    no_violation(&world, &"dead successor");
    let state = world.state();
    let status = state.status();
    assert_eq!(status.gateways_ready.as_deref(), Some("2/2"), "{status:#?}");
    assert_eq!(status.public_ips, promised);
    let names: Vec<&str> = status.gateways.iter().map(|gateway| gateway.name.as_str()).collect();
    assert_eq!(names, ["demo-0-1a2b3c4d", "demo-1-1a2b3c4d"], "the old one works on");
    assert_eq!(state.route.as_ref().unwrap().spec.ordered_gateways().len(), 2);
}

#[test]
fn an_address_that_the_cloud_does_not_move_stops_the_roll_and_the_old_one_works_on() {
    for refuses in [true, false] {
        let world = prepared();
        let promised = assert_whole(&world);
        if refuses {
            world.state().addresses_refused = Some("Droplet already has a pending event.");
        } else {
            world.state().addresses_fail = true;
        }
        world.state().ask_for_size(BIGGER);
        until(&world, "the roll is stopped", |world| {
            let state = world.state();
            assert!(state.uses.is_some_and(|id| state.answers_and_forwards(id) == (true, true)));
            state.status().roll.is_some_and(|roll| roll.failure.is_some())
        });
        assert!(world.settle(1500), "{:#?}", world.state().status());
        no_violation(&world, &refuses);
        let status = world.state().status();
        assert_eq!((status.gateways_ready.as_deref(), status.public_ips), (Some("2/2"), promised.clone()));
        let (reason, message) = degraded(&world);
        let words = if refuses { "pending event" } else { "has not carried it out" };
        assert!(reason == "RollStopped" && message.contains(words), "{reason}: {message}");
        // Mended, and asked for again.
        world.state().addresses_refused = None;
        world.state().addresses_fail = false;
        world.state().ask_for_size("s-4vcpu-8gb");
        assert!(world.settle(ENOUGH), "{:#?}", world.state().status());
        assert_eq!(assert_whole(&world), promised);
        assert_eq!(sizes(&world), ["s-4vcpu-8gb", "s-4vcpu-8gb"]);
        no_violation(&world, &"mended");
    }
}

#[test]
fn a_partner_that_fails_before_the_address_moves_gets_the_old_one_back_on_the_list() {
    let world = prepared();
    // The cloud does not move it, so that there is time.
    world.state().addresses_refused = Some("Droplet already has a pending event.");
    world.state().ask_for_size(BIGGER);
    until(&world, "the old one leaves", |world| {
        let state = world.state();
        state.status().gateways.iter().any(|one| one.role == egress_api::GatewayRole::Leaving)
            && state.route.as_ref().unwrap().spec.ordered_gateways().len() == 1
    });
    world.state().kill_active();
    until(&world, "another carries the traffic", |world| {
        let state = world.state();
        state.uses.is_some_and(|id| state.answers_and_forwards(id) == (true, true))
    });
    world.state().addresses_refused = None;
    world.state().tick(310);
    assert!(world.settle(3000), "{:#?}", world.state().status());
    no_violation(&world, &"a dead partner");
    assert!(!is_true(&world.state().status().conditions, DEGRADED), "{:#?}", world.state().status());
    assert_eq!(world.state().ours().len(), 2);
}

#[test]
fn killed_at_any_call_of_a_roll_the_end_is_the_same_with_reserved_addresses() {
    let start = prepared().state().calls;
    let run = |crashes: &[(usize, Crash)]| {
        let world = World::reserved(crashes.iter().map(|(at, crash)| (start + at, *crash)).collect(), &[]);
        assert!(world.settle(ENOUGH));
        world.state().ask_for_size(BIGGER);
        assert!(world.settle(ENOUGH), "{crashes:?}: {:#?}", world.state().status());
        let calls = world.state().calls - start;
        (world, calls)
    };
    let (undisturbed, calls) = run(&[]);
    let expected = assert_whole(&undisturbed);
    assert!(calls > 20, "{calls}");
    for at in 0..calls {
        for crash in CRASHES.into_iter().chain([Crash::LateSuccess]) {
            let (world, _) = run(&[(at, crash)]);
            no_violation(&world, &(at, crash));
            assert_eq!(assert_whole(&world), expected, "{at} {crash:?}");
            assert_eq!(world.state().ours().len(), 2);
        }
    }
}
