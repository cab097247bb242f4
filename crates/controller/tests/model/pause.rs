//! What people hold still, and how many Droplets there may be.

use std::collections::BTreeMap;

use egress_api::PAUSED_ANNOTATION;
use egress_api::condition::{DEGRADED, PROGRESSING, READY, is_true};

use crate::world::World;
use crate::{ENOUGH, no_violation, prepared};

fn pause(world: &World, value: &str) {
    let annotations = BTreeMap::from([(PAUSED_ANNOTATION.to_owned(), value.to_owned())]);
    world.state().gateway.as_mut().unwrap().metadata.annotations = Some(annotations);
}

fn condition(world: &World, type_: &str) -> (String, String, String) {
    let status = world.state().status();
    let found = status.conditions.into_iter().find(|condition| condition.type_ == type_).unwrap();
    (found.status, found.reason, found.message)
}

#[test]
fn while_it_is_paused_nothing_is_made_mended_or_deleted_and_the_status_goes_on() {
    let world = prepared();
    pause(&world, "true");
    let journal = world.state().journal.clone();
    world.state().kill_active();
    world.state().gateway.as_mut().unwrap().spec.destinations.push("192.0.2.1".into());
    world.state().gateway.as_mut().unwrap().metadata.generation = Some(2);
    world.steps(200);
    assert_eq!(world.state().journal, journal);
    let (status, reason, message) = condition(&world, PROGRESSING);
    assert_eq!((status.as_str(), reason.as_str()), ("False", "Paused"));
    assert!(message.contains(PAUSED_ANNOTATION) && message.contains("until it is removed"), "{message}");
    let seen = world.state().status();
    assert_eq!(
        (seen.gateways_ready.as_deref(), seen.observed_generation),
        (Some("1/2"), Some(1)),
        "{seen:#?}"
    );

    world.state().delete();
    world.steps(200);
    assert_eq!(world.state().journal, journal);
    assert_eq!(condition(&world, DEGRADED).1, "Paused");
    assert!(world.state().route.is_some(), "routes stay");

    pause(&world, "false");
    assert!(world.settle(ENOUGH));
    assert!(world.state().gateway.is_none());
    assert!(world.state().ours().is_empty());
    no_violation(&world, &"paused");
}

#[test]
fn what_was_paused_from_the_start_is_not_begun_and_goes_on_where_it_was() {
    let world = World::new(Vec::new());
    pause(&world, "true");
    world.steps(50);
    assert!(world.state().journal.is_empty());
    assert!(world.state().gateway.as_ref().unwrap().metadata.finalizers.is_none());
    // Paused in the middle of a bring-up: what was asked for is recorded when it comes.
    pause(&world, "false");
    for _ in 0..100 {
        world.steps(1);
        if world.state().journal.iter().any(|line| line.starts_with("create")) {
            break;
        }
    }
    pause(&world, "true");
    let journal = world.state().journal.len();
    world.steps(100);
    let made = world.state().ours().len();
    assert_eq!(world.state().journal.len(), journal);
    assert_eq!(world.state().status().gateways.len(), made);
    pause(&world, "false");
    assert!(world.settle(ENOUGH));
    assert!(is_true(&world.state().status().conditions, READY));
    no_violation(&world, &"paused in the middle");
}

#[test]
fn a_value_that_means_nothing_is_told_and_pauses_nothing() {
    let world = prepared();
    pause(&world, "yes");
    world.state().kill_active();
    assert!(world.settle(ENOUGH));
    let (_, reason, message) = condition(&world, DEGRADED);
    assert_eq!(reason, "UnknownAnnotationValue", "{message}");
    assert!(message.contains("\"yes\"") && message.contains("write \"true\""), "{message}");
    assert_eq!(world.state().status().gateways_ready.as_deref(), Some("2/2"));
}

#[test]
fn at_the_controllers_limit_no_droplet_is_made_and_the_way_out_is_said() {
    // One Droplet of another EgressGateway of this cluster, and a node that somebody tagged, count as well: the tag is ours.
    let mut world = World::new(Vec::new());
    world.limits.most_droplets = 3;
    assert!(world.settle(ENOUGH));
    assert_eq!(world.state().ours().len(), 1);
    let (status, reason, message) = condition(&world, DEGRADED);
    assert_eq!((status.as_str(), reason.as_str()), ("True", "DropletLimit"));
    assert!(message.contains("--max-droplets"), "{message}");
    assert!(is_true(&world.state().status().conditions, READY), "what there is works");
    world.limits.most_droplets = 4;
    world.state().tick(60);
    assert!(world.settle(ENOUGH));
    assert_eq!(condition(&world, DEGRADED).1, "AsAskedFor", "a whole pair at the limit lacks nothing");
    world.state().kill_active();
    world.steps(300);
    assert_eq!(condition(&world, DEGRADED).1, "DropletLimit");
    assert_eq!(world.state().ours().len(), 2);
    world.limits.most_droplets = 5;
    assert!(world.settle(ENOUGH));
    assert_eq!(world.state().status().gateways_ready.as_deref(), Some("2/2"));
    no_violation(&world, &"limit");
}
