//! A status that was lost or is old, and Droplets that people have changed by hand.

use egress_api::EgressGatewayStatus;
use egress_api::condition::{DEGRADED, READY, is_true};

use crate::world::World;
use crate::{ENOUGH, Scenario, no_violation, prepared, run};

const FIRST: u64 = 103;

fn degraded(world: &World) -> (String, String) {
    let status = world.state().status();
    let found = status.conditions.iter().find(|condition| condition.type_ == DEGRADED).unwrap();
    (found.reason.clone(), found.message.clone())
}

fn done(world: &World, verb: &str) -> usize {
    world.state().journal.iter().filter(|line| line.starts_with(verb)).count()
}

/// Every status that was written on the way, and the world at the end.
fn history(scenario: Scenario) -> (Vec<EgressGatewayStatus>, World) {
    let world = match scenario {
        Scenario::Create => World::new(Vec::new()),
        _ => prepared(),
    };
    if matches!(scenario, Scenario::Replace) {
        world.state().kill_active();
    }
    let mut written = vec![world.state().status()];
    for _ in 0..ENOUGH {
        let Some(decision) = world.next() else { break };
        let _ = world.carry_out(&decision, None);
        let status = world.state().status();
        if written.last() != Some(&status) {
            written.push(status);
        }
        world.state().tick(1);
    }
    (written, world)
}

#[test]
fn any_older_status_is_brought_up_to_date_and_nothing_is_made_or_deleted_for_it() {
    for scenario in [Scenario::Create, Scenario::Replace] {
        let (written, end) = history(scenario);
        assert!(written.len() > 8, "{}", written.len());
        // Restored at once, and a day later, when every wait from then is long over.
        for (age, old) in [60, 86_400].iter().flat_map(|age| written.iter().map(move |old| (age, old))) {
            let world = end.fork();
            world.state().tick(*age);
            let names = world.state().names();
            let journal = world.state().journal.len();
            world.state().gateway.as_mut().unwrap().status = Some(old.clone());
            assert!(world.settle(ENOUGH), "{old:#?}");
            no_violation(&world, old);
            let state = world.state();
            let changes: Vec<&String> = state.journal[journal..]
                .iter()
                .filter(|line| {
                    line.starts_with("create") || line.starts_with("delete") || line.starts_with("power")
                })
                .collect();
            assert!(changes.is_empty(), "{scenario:?} {age}: {changes:?}\nrestored: {old:#?}");
            assert_eq!(state.names(), names);
            assert!(is_true(&state.status().conditions, READY), "{:#?}", state.status());
            assert_eq!(state.status().gateways_ready.as_deref(), Some("2/2"));
        }
    }
}

#[test]
fn a_new_controller_with_an_empty_status_makes_and_deletes_nothing() {
    let (world, _) = run(Scenario::Create, &[]);
    let before = world.state().names();
    world.state().gateway.as_mut().unwrap().status = None;
    world.state().gateway.as_mut().unwrap().metadata.finalizers = None;
    assert!(world.settle(ENOUGH));
    no_violation(&world, &"reinstalled");
    assert_eq!((done(&world, "create"), done(&world, "delete")), (2, 0));
    assert_eq!(world.state().names(), before);
}

#[test]
fn a_droplet_that_was_renamed_is_ours_as_before_and_goes_when_it_should() {
    let world = prepared();
    world.state().rename(FIRST, "mine");
    assert!(world.settle(ENOUGH));
    assert_eq!((degraded(&world).0.as_str(), done(&world, "create")), ("AsAskedFor", 2));
    world.state().first().dead = true;
    assert!(world.settle(ENOUGH));
    no_violation(&world, &"renamed");
    assert_eq!((done(&world, "create"), done(&world, "delete mine")), (3, 1), "{:?}", world.state().journal);
}

#[test]
fn one_that_was_renamed_and_is_not_recorded_is_nobodys_and_counts() {
    let world = prepared();
    world.state().rename(FIRST, "mine");
    world.state().gateway.as_mut().unwrap().status = None;
    assert!(world.settle(ENOUGH));
    no_violation(&world, &"renamed and lost");
    let (reason, message) = degraded(&world);
    assert_eq!(reason, "UnknownDroplet");
    assert!(message.contains("mine (103)"), "{message}");
    assert_eq!((done(&world, "delete"), world.state().ours().len()), (0, 3));
    assert_eq!(world.state().status().gateways_ready.as_deref(), Some("2/2"));
}

#[test]
fn one_that_lost_its_tags_works_on_is_told_of_and_is_not_deleted_before_it_has_them_again() {
    let world = prepared();
    let tags = world.state().untag(FIRST);
    assert!(world.settle(ENOUGH));
    let (reason, message) = degraded(&world);
    assert_eq!(reason, "NotProvablyOurs");
    assert!(message.contains("demo-0-1a2b3c4d (103)") && message.contains("restore"), "{message}");
    assert_eq!(world.state().status().gateways_ready.as_deref(), Some("2/2"));
    assert_eq!(world.state().status().active.as_deref(), Some("demo-0-1a2b3c4d"));
    world.state().first().dead = true;
    world.steps(300);
    no_violation(&world, &"untagged");
    assert_eq!((done(&world, "create"), done(&world, "delete")), (3, 0), "{:?}", world.state().journal);
    assert_eq!(degraded(&world).0, "NotProvablyOurs");
    world.state().tag(FIRST, tags);
    assert!(world.settle(ENOUGH));
    assert_eq!((degraded(&world).0.as_str(), done(&world, "delete")), ("AsAskedFor", 1));
}

#[test]
fn one_that_was_deleted_by_hand_is_made_again_once() {
    let world = prepared();
    world.state().delete_droplet(FIRST);
    world.state().tick(5);
    assert!(world.settle(ENOUGH));
    no_violation(&world, &"deleted by hand");
    assert_eq!((done(&world, "create"), done(&world, "delete"), world.state().ours().len()), (3, 0, 2));
    assert_eq!(world.state().status().gateways_ready.as_deref(), Some("2/2"));
}
