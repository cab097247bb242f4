//! A token that may make Droplets and delete none: what it leaves is said, and a person deletes it.

use egress_api::condition::{DEGRADED, READY, is_true};

use crate::world::World;
use crate::{ENOUGH, no_violation, prepared};

fn degraded(world: &World) -> (String, String) {
    let status = world.state().status();
    let found = status.conditions.iter().find(|condition| condition.type_ == DEGRADED).unwrap();
    (found.reason.clone(), found.message.clone())
}

#[test]
fn a_dead_gateway_is_replaced_and_who_must_delete_it_is_told() {
    let world = prepared();
    world.state().deletes_refused = true;
    world.state().kill_active();
    assert!(world.settle(ENOUGH));
    no_violation(&world, &"no delete");
    let (reason, message) = degraded(&world);
    assert_eq!(reason, "DeleteForbidden", "{message}");
    for words in ["Delete by hand: Droplet demo-0-1a2b3c4d (103)", "not authorized", "they are billed"] {
        assert!(message.contains(words), "{words}: {message}");
    }
    let state = world.state();
    assert_eq!((state.ours().len(), state.status().gateways_ready.as_deref()), (3, Some("2/2")));
    assert!(is_true(&state.status().conditions, READY));
    // What comes after a delete in a step came all the same.
    let (_, wall) = &state.our_walls()[0];
    assert_eq!(wall.droplets.len(), 3, "{:?}", wall.droplets);
    let admitted = state.status().gateways.iter().filter(|gateway| !gateway.admits.is_empty()).count();
    assert!(admitted >= 2, "{:#?}", state.status());
    let journal = state.journal.len();
    drop(state);

    // Asked for again in five minutes, not in every step.
    let calls = world.state().calls;
    world.steps(250);
    assert!(world.state().calls - calls <= 10, "{} calls", world.state().calls - calls);
    assert_eq!(world.state().journal.len(), journal);

    world.state().delete_by_hand();
    world.state().tick(10);
    assert!(world.settle(ENOUGH));
    assert_eq!(degraded(&world).0, "AsAskedFor");
    assert_eq!(world.state().ours().len(), 2);
}

#[test]
fn a_deletion_says_what_is_left_and_ends_when_a_person_has_deleted_it() {
    let world = prepared();
    world.state().deletes_refused = true;
    world.state().delete();
    world.steps(100);
    let (reason, message) = degraded(&world);
    assert_eq!(reason, "DeleteForbidden");
    assert!(message.contains("demo-0-1a2b3c4d (103), Droplet demo-1-1a2b3c4d (104)"), "{message}");
    assert!(world.state().route.is_none(), "routes went first");
    world.state().delete_by_hand();
    world.state().tick(10);
    assert!(world.settle(ENOUGH));
    assert!(world.state().gateway.is_none());
    no_violation(&world, &"deleted by hand");
}

#[test]
fn with_the_scope_it_goes_on_by_itself() {
    let world = prepared();
    world.state().deletes_refused = true;
    world.state().kill_active();
    assert!(world.settle(ENOUGH));
    world.state().deletes_refused = false;
    world.state().tick(300);
    assert!(world.settle(ENOUGH));
    assert_eq!((degraded(&world).0.as_str(), world.state().ours().len()), ("AsAskedFor", 2));
    // A change of the spec does not wait.
    let world = prepared();
    world.state().deletes_refused = true;
    world.state().kill_active();
    assert!(world.settle(ENOUGH));
    let mut state = world.state();
    state.deletes_refused = false;
    state.gateway.as_mut().unwrap().metadata.generation = Some(2);
    drop(state);
    let before = world.state().now;
    assert!(world.settle(ENOUGH));
    assert_eq!(world.state().ours().len(), 2);
    assert!(world.state().now - before < 60, "{} s", world.state().now - before);
}
