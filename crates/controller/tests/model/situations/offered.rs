//! What is asked for and cannot be had, what it costs, and where it goes.

use egress_controller::observation::Trouble;

use super::*;

const PROJECT: &str = "4e1bfbc3-dc3e-41f2-a18f-1b4d7ba71679";

fn not_to_be_had() -> Trouble {
    Trouble { reason: "InvalidSize", message: "spec.droplet.size x is no size; the nearest is y".into() }
}

#[test]
fn what_cannot_be_had_is_not_asked_for_and_takes_nothing_away() {
    let world = World::new(Vec::new());
    world.state().offer.trouble = Some(not_to_be_had());
    assert!(world.settle(100));
    assert!(world.state().ours().is_empty());
    assert!(world.state().route.is_none());
    let mut seen = world.state().observe().unwrap();
    let now = world.state().now;
    let (_, decision) = effect_at(&world, &mut seen, now);
    assert_eq!(reason(&decision, READY), no("InvalidSize"));
    // An intent from before is not carried out either.
    world.state().offer.trouble = None;
    for _ in 0..100 {
        let intends = world.state().status().creating.iter().any(|intent| intent.sent.is_none());
        if intends {
            break;
        }
        let decision = world.next().unwrap();
        let _ = world.carry_out(&decision, None);
    }
    world.state().offer.trouble = Some(not_to_be_had());
    assert!(world.settle(100));
    assert!(world.state().ours().is_empty());
    world.state().offer.trouble = None;
    assert!(world.settle(crate::ENOUGH));
    assert_eq!(world.state().ours().len(), 2);

    // A pair that works goes on, is told of, and can be deleted.
    world.state().offer.trouble = Some(not_to_be_had());
    assert!(world.settle(100));
    let status = world.state().status();
    let found = |type_: &str| {
        let found = status.conditions.iter().find(|condition| condition.type_ == type_).unwrap();
        (found.status.clone(), found.reason.clone())
    };
    assert_eq!((found(READY), found(DEGRADED)), (yes("EgressWorks"), yes("InvalidSize")));
    world.state().delete();
    assert!(world.settle(crate::ENOUGH));
    assert!(world.state().gateway.is_none());
    assert!(world.state().ours().is_empty());
}

#[test]
fn the_price_is_that_of_all_replicas_and_outlives_a_silent_cloud_but_not_another_spec() {
    let (world, mut seen, now) = calm();
    assert_eq!(at(&world, &seen, now).status.monthly_price_usd.as_deref(), Some("12.00"));
    seen.offer.price = None;
    assert_eq!(at(&world, &seen, now).status.monthly_price_usd.as_deref(), Some("12.00"));
    seen.gateway.metadata.generation = Some(2);
    assert_eq!(at(&world, &seen, now).status.monthly_price_usd, None);
    seen.gateway.spec.replicas = 5;
    seen.offer.price = Some(4.0);
    assert_eq!(at(&world, &seen, now).status.monthly_price_usd.as_deref(), Some("20.00"));
    seen.gateway.spec.existing_droplets = vec![50, 51];
    assert_eq!(at(&world, &seen, now).status.monthly_price_usd.as_deref(), Some("12.00"));
}

#[test]
fn droplets_are_put_into_the_project_once_and_left_where_somebody_moves_them() {
    let world = World::new(Vec::new());
    let project = Some(PROJECT.to_owned());
    world.state().gateway.as_mut().unwrap().spec.droplet.project_id = project.clone();
    assert!(world.settle(crate::ENOUGH));
    let state = world.state();
    let puts: Vec<_> = state.journal.iter().filter(|line| line.starts_with("put ")).cloned().collect();
    let expected = ["demo-0-1a2b3c4d", "demo-1-1a2b3c4d"].map(|name| format!("put {name} into {PROJECT}"));
    assert_eq!(puts, expected);
    assert!(state.status().gateways.iter().all(|gateway| gateway.project_id == project));
    let status = state.status();
    assert!(egress_api::condition::is_true(&status.conditions, READY), "{status:#?}");
}
