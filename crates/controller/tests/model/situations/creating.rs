//! What is created, when, and what becomes of a create that goes wrong.

use super::*;

#[test]
fn a_droplet_that_was_accepted_and_then_is_not_there_is_lost_after_a_while() {
    let (world, mut seen, now) = calm();
    let status = seen.gateway.status.as_mut().unwrap();
    status.gateways[1].role = GatewayRole::Starting;
    status.gateways[1].ready = false;
    status.gateways[1].since = Some(Time(timestamp(now)));
    let cloud = seen.cloud.as_mut().unwrap();
    cloud.droplets.remove(&SECOND);
    cloud.gone.insert(SECOND);
    let (_, decision) = effect_at(&world, &mut seen, now + 20);
    assert_eq!(decision.status.gateways.len(), 2);
    let decision = at(&world, &seen, now + 31);
    assert_eq!(decision.status.gateways.len(), 1);
    assert_eq!(decision.status.failed_bring_ups, Some(1));
    // One that was proven before is simply gone.
    let (world, mut seen, now) = calm();
    let cloud = seen.cloud.as_mut().unwrap();
    cloud.droplets.remove(&SECOND);
    cloud.gone.insert(SECOND);
    let decision = at(&world, &seen, now);
    assert_eq!(decision.status.gateways.len(), 1);
    assert_eq!(decision.status.failed_bring_ups, None);
    assert_eq!(decision.status.creating.len(), 1);
}

#[test]
fn before_the_settle_time_is_over_nothing_is_created_in_its_place() {
    let (world, mut seen, now) = calm();
    without_second(&mut seen);
    let (effect, _) = effect_at(&world, &mut seen, now);
    assert_eq!(effect, None, "it was not looked for by name yet");
    let look_at = |seen: &mut Observation, taken: i64| {
        let cloud = seen.cloud.as_mut().unwrap();
        cloud.taken = timestamp(taken);
        cloud.looked_up.insert("demo-1-1a2b3c4d".into());
    };
    look_at(&mut seen, now - 1);
    assert_eq!(effect_at(&world, &mut seen, now).0, None, "the list is older than the intent");
    look_at(&mut seen, now);
    assert!(matches!(effect_at(&world, &mut seen, now).0, Some(Effect::CreateDroplet(_))));
    seen.gateway.status.as_mut().unwrap().creating[0].sent = Some(Time(timestamp(now)));
    look_at(&mut seen, now + 39);
    assert_eq!(effect_at(&world, &mut seen, now + 39).0, None);
    // What was read before the settle time was over proves nothing.
    assert_eq!(effect_at(&world, &mut seen, now + 50).0, None);
    look_at(&mut seen, now + 41);
    assert!(matches!(effect_at(&world, &mut seen, now + 41).0, Some(Effect::CreateDroplet(_))));
}

#[test]
fn a_refused_create_says_so_in_the_clouds_words_and_waits() {
    let (world, mut seen, now) = calm();
    without_second(&mut seen);
    let cloud = seen.cloud.as_mut().unwrap();
    cloud.looked_up.insert("demo-1-1a2b3c4d".into());
    cloud.taken = timestamp(now);
    let (effect, decision) = effect_at(&world, &mut seen, now);
    assert!(matches!(effect, Some(Effect::CreateDroplet(_))));
    let cloud = Refusing(std::sync::Mutex::default());
    futures::executor::block_on(perform(&decision, &cloud, timestamp(now))).unwrap();
    let written = cloud.0.into_inner().unwrap();
    assert!(written[0].creating[0].sent.is_some(), "marked before it was sent");
    seen.gateway.status = written.last().cloned();
    let (effect, decision) = effect_at(&world, &mut seen, now + 30);
    assert_eq!(effect, None);
    assert_eq!(reason(&decision, DEGRADED), yes("CreateRefused"));
    let degraded = decision.status.conditions.iter().find(|condition| condition.type_ == DEGRADED).unwrap();
    assert!(degraded.message.contains("exceed your droplet limit"), "{}", degraded.message);
    assert!(matches!(effect_at(&world, &mut seen, now + 61).0, Some(Effect::CreateDroplet(_))));
}

#[test]
fn somebody_elses_droplet_under_our_name_costs_a_slot_and_nothing_else() {
    let world = World::new(Vec::new());
    world.state().foreign(50, "demo-0-1a2b3c4d");
    assert!(world.settle(600), "{:#?}", world.state().status());
    let state = world.state();
    assert!(state.violations.is_empty(), "{:?}", state.violations);
    assert_eq!(state.names().into_iter().collect::<Vec<_>>(), ["demo-1-1a2b3c4d", "demo-2-1a2b3c4d"]);
    assert!(state.machines.contains_key(&50));
    assert_eq!(state.status().gateways_ready.as_deref(), Some("2/2"));
}

#[test]
fn a_slot_that_cannot_be_had_is_said_and_asked_for_at_leisure() {
    let world = World::new(Vec::new());
    for slot in 0..3_u64 {
        world.state().foreign(50 + slot, &format!("demo-{slot}-1a2b3c4d"));
    }
    for _ in 0..400 {
        let decision = world.next().unwrap();
        let _ = world.carry_out(&decision, None);
        world.state().tick(1);
    }
    assert!(
        world.state().journal.iter().all(|line| !line.starts_with("create")),
        "{:?}",
        world.state().journal
    );
    let looks: Vec<Duration> = (0..200)
        .map(|_| {
            let decision = world.next().unwrap();
            let _ = world.carry_out(&decision, None);
            world.state().tick(1);
            decision.requeue_after
        })
        .collect();
    let hasty = looks.iter().filter(|pause| **pause < Duration::from_secs(5)).count();
    assert!(hasty <= 20, "{hasty} of {} looks in haste", looks.len());
    let status = world.state().status();
    let degraded = status.conditions.iter().find(|condition| condition.type_ == DEGRADED).unwrap();
    assert_eq!(degraded.reason, "UnknownDroplet", "{}", degraded.message);
}

#[test]
fn in_the_wrong_vpc_no_droplet_is_made() {
    let world = World::new(Vec::new());
    let mut seen = world.state().observe().unwrap();
    seen.gateway.metadata.finalizers = Some(vec![egress_api::EGRESS_GATEWAY_FINALIZER.into()]);
    seen.site = Err(Trouble { reason: "WrongVpc", message: "elsewhere".into() });
    let (effect, decision) = effect_at(&world, &mut seen, 1_800_000_000);
    assert_eq!((effect, decision.status.creating.len()), (None, 0));
    assert_eq!(reason(&decision, READY), no("WrongVpc"));
    assert_eq!(reason(&decision, PROGRESSING), no("WrongVpc"));
}
