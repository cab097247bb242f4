//! What is let go of, and what keeps it.

use egress_api::Definition;

use super::*;
use crate::no_violation;

#[test]
fn what_is_not_provably_ours_is_not_deleted_and_the_condition_says_so() {
    let (world, mut seen, now) = calm();
    seen.gateway.metadata.deletion_timestamp = Some(Time(timestamp(now)));
    seen.route = None;
    reports(&mut seen).for_each(|report| report.routes.clear());
    if let Ok(cloud) = &mut seen.cloud {
        cloud.taken = timestamp(now);
        for droplet in cloud.droplets.values_mut() {
            droplet.tags.as_mut().unwrap().retain(|tag| !tag.starts_with("egress-owner:"));
        }
    }
    let (effect, decision) = effect_at(&world, &mut seen, now);
    assert_eq!(effect, None);
    assert_eq!(reason(&decision, DEGRADED), yes("NotProvablyOurs"));
}

#[test]
fn without_a_token_deletion_waits_if_something_was_made_and_not_otherwise() {
    let (world, mut seen, now) = calm();
    seen.gateway.metadata.deletion_timestamp = Some(Time(timestamp(now)));
    seen.route = None;
    reports(&mut seen).for_each(|report| report.routes.clear());
    seen.cloud = Err(trouble());
    let (effect, decision) = effect_at(&world, &mut seen, now);
    assert_eq!(effect, None);
    assert_eq!(reason(&decision, DEGRADED), yes("TokenMissing"));
    seen.gateway.status.as_mut().unwrap().gateways.clear();
    let (effect, decision) = effect_at(&world, &mut seen, now);
    assert_eq!((effect, reason(&decision, DEGRADED)), (None, yes("TokenMissing")), "there is a firewall");
    seen.gateway.status.as_mut().unwrap().firewall = None;
    let (effect, _) = effect_at(&world, &mut seen, now);
    assert_eq!(effect, Some(Effect::RemoveFinalizer));
}

#[test]
fn a_delete_that_was_accepted_is_given_time() {
    let (world, mut seen, now) = calm();
    seen.gateway.metadata.deletion_timestamp = Some(Time(timestamp(now)));
    seen.route = None;
    reports(&mut seen).for_each(|report| report.routes.clear());
    let ids = |effect: Option<Effect>| match effect {
        Some(Effect::DeleteDroplet(droplet)) => Some(droplet.id()),
        _ => None,
    };
    assert_eq!(ids(effect_at(&world, &mut seen, now).0), Some(FIRST));
    seen.delete_accepted.insert(FIRST, timestamp(now));
    assert_eq!(ids(effect_at(&world, &mut seen, now + 1).0), Some(SECOND));
    assert_eq!(ids(effect_at(&world, &mut seen, now + 30).0), Some(FIRST));
}

#[test]
fn a_droplet_goes_only_when_every_live_node_has_let_go_of_it_or_it_is_dead_long_enough() {
    let leaving = |ready: bool| {
        let (world, mut seen, now) = calm();
        seen.gateway.spec.replicas = 1;
        let gateway = &mut seen.gateway.status.as_mut().unwrap().gateways[1];
        gateway.role = GatewayRole::Leaving;
        gateway.ready = ready;
        gateway.since = Some(Time(timestamp(now)));
        let route = seen.route.as_mut().unwrap();
        route.spec.gateways.as_mut().unwrap().pop();
        route.metadata.generation = route.metadata.generation.map(|generation| generation + 1);
        (world, seen, now)
    };
    let deletes = |world: &World, seen: &mut Observation, now: i64| {
        matches!(effect_at(world, seen, now).0, Some(Effect::DeleteDroplet(_)))
    };
    for (ready, patience) in [(false, 30), (true, 300)] {
        let (world, mut seen, now) = leaving(ready);
        assert!(!deletes(&world, &mut seen, now + patience - 1), "a node still has the old list");
        assert!(deletes(&world, &mut seen, now + patience));
        let (world, mut seen, now) = leaving(ready);
        seen.nodes[0].live = false;
        assert!(!deletes(&world, &mut seen, now + 1));
        let generation = seen.route.as_ref().and_then(|route| route.metadata.generation).unwrap();
        seen.nodes[1].report.as_mut().unwrap().routes[0].observed_generation = generation;
        assert!(deletes(&world, &mut seen, now + 1), "the dead node blocks nothing");

        let (world, mut seen, now) = leaving(ready);
        let first = serde_json::json!({"matchLabels": {"pool": "pool-1"}});
        let route = &mut seen.route.as_mut().unwrap().spec;
        for selector in [&mut seen.gateway.spec.node_selector, &mut route.node_selector] {
            *selector = Some(serde_json::from_value(first.clone()).unwrap());
        }
        seen.nodes[0].report.as_mut().unwrap().routes[0].observed_generation = generation;
        assert!(!deletes(&world, &mut seen, now + 1), "a node that is no longer selected still has routes");
        seen.nodes[1].report.as_mut().unwrap().routes.clear();
        assert!(deletes(&world, &mut seen, now + 1));
    }
}

/// One of a pair is too many and leaves; the nodes have not heard of that yet.
fn one_too_many() -> (World, Observation, i64) {
    let (world, mut seen, now) = calm();
    seen.gateway.spec.replicas = 1;
    let (effect, decision) = effect_at(&world, &mut seen, now);
    assert_eq!(decision.status.gateways[1].role, GatewayRole::Leaving);
    let Some(Effect::ApplyStaticRoute(spec)) = effect else { panic!("{effect:?}") };
    let route = seen.route.as_mut().unwrap();
    route.spec = spec;
    route.metadata.generation = route.metadata.generation.map(|generation| generation + 1);
    (world, seen, now)
}

type Fails = fn(&mut egress_api::GatewayObservation);

#[test]
fn one_too_many_comes_back_when_the_other_one_fails_before_it_is_asked_to_go() {
    let failures: [(&str, Fails, &[DropletId]); 2] = [
        // Now it is this one that is too many.
        ("dead", |view| (view.reachable, view.forwards, view.condemned) = (false, None, true), &[SECOND]),
        // Nodes that do not ask the one that leaves any more have nothing to compare it with.
        ("gray", |view| view.forwards = Some(false), &[FIRST, SECOND]),
    ];
    for (what, fails, stay) in failures {
        let (world, mut seen, now) = one_too_many();
        for report in reports(&mut seen) {
            report.gateways.iter_mut().filter(|view| view.address == private(FIRST.0)).for_each(fails);
        }
        seen.nodes.iter_mut().for_each(|node| node.heard = Some(timestamp(now + 1)));
        let mut asked_to_go = seen.clone();
        asked_to_go.delete_accepted = [(SECOND, timestamp(now))].into();
        let cloud_is_away = |seen: &Observation| Observation { cloud: Err(trouble()), ..seen.clone() };
        for mut asked_to_go in [cloud_is_away(&asked_to_go), asked_to_go] {
            let (_, decision) = effect_at(&world, &mut asked_to_go, now + 1);
            assert_eq!(decision.status.gateways[1].role, GatewayRole::Leaving, "{what}: too late");
        }
        let (effect, _) = effect_at(&world, &mut cloud_is_away(&seen), now + 1);
        let Some(Effect::ApplyStaticRoute(spec)) = effect else { panic!("{what}, no cloud: {effect:?}") };
        let listed = |spec: &egress_api::StaticRouteSpec| -> Vec<String> {
            spec.ordered_gateways().into_iter().map(|one| one.address.0).collect()
        };
        let stay: Vec<String> = stay.iter().map(|id| private(id.0)).collect();
        assert_eq!(listed(&spec), stay, "{what}, no cloud");
        let (effect, decision) = effect_at(&world, &mut seen, now + 1);
        assert_ne!(decision.status.gateways[1].role, GatewayRole::Leaving, "{what}");
        let Some(Effect::ApplyStaticRoute(spec)) = effect else { panic!("{what}: {effect:?}") };
        assert_eq!(listed(&spec), stay, "{what}");
        assert!(at(&world, &seen, now + 900).status.gateways[1].ready, "{what}: for good");
    }
}

#[test]
fn one_that_was_given_up_and_works_again_comes_back_while_nobody_else_works_and_a_newcomer_does_not() {
    for (failed, comes_back) in [(true, true), (false, false)] {
        let (world, mut seen, now) = one_too_many();
        let leaving = &mut seen.gateway.status.as_mut().unwrap().gateways[1];
        leaving.ready = false;
        leaving.suspect_since = failed.then(|| Time(timestamp(now - 60)));
        let after = |seen: &Observation| effect_at(&world, &mut seen.clone(), now + 900);
        assert!(matches!(after(&seen).0, Some(Effect::DeleteDroplet(_))), "while the other one works");
        for report in reports(&mut seen) {
            report.gateways.iter_mut().filter(|view| view.address == private(FIRST.0)).for_each(|view| {
                (view.reachable, view.condemned) = (false, true);
            });
        }
        seen.nodes.iter_mut().for_each(|node| node.heard = Some(timestamp(now + 900)));
        let (effect, decision) = after(&seen);
        let role = decision.status.gateways[1].role;
        assert_eq!(role != GatewayRole::Leaving, comes_back, "{role:?}");
        assert_eq!(matches!(effect, Some(Effect::DeleteDroplet(_))), !comes_back, "{effect:?}");
        if comes_back {
            assert!(decision.status.gateways[1].ready, "proven anew");
        }
    }
}

#[test]
fn of_gateways_that_forward_and_are_never_proven_none_is_held_and_a_change_of_the_spec_starts_anew() {
    for replicas in [1, 2] {
        let world = World::new(Vec::new());
        world.state().gateway.as_mut().unwrap().spec.replicas = replicas;
        for _ in 0..2_000 {
            let _ = world.carry_out(&world.next().unwrap(), None);
            let mut state = world.state();
            state.tick(1);
            let made = state.machines.iter_mut().filter(|(id, _)| crate::world::is_made(**id));
            made.for_each(|(_, machine)| machine.complains = true);
        }
        no_violation(&world, &replicas);
        let mut state = world.state();
        let status = state.status();
        let degraded = status.conditions.iter().find(|condition| condition.type_ == DEGRADED).unwrap();
        assert_eq!(degraded.reason, "BringUpFailed", "{replicas}: {}", degraded.message);
        assert!(state.ours().is_empty(), "{replicas}: {:?}", state.journal);
        state.gateway.as_mut().unwrap().metadata.generation = Some(2);
        drop(state);
        assert!(world.settle(crate::ENOUGH));
        assert!(is_true(&world.state().status().conditions, READY), "{replicas}");
    }
}

/// The first of a pair fails and is replaced; before it is asked to go it works again, and the others die.
#[test]
fn one_that_was_replaced_and_works_again_carries_the_traffic_when_the_others_die() {
    let world = prepared();
    {
        let mut state = world.state();
        state.first().dead = true;
        state.nodes_follow = false;
    }
    let leaves = || world.state().status().gateways.iter().any(|one| one.role == GatewayRole::Leaving);
    while !leaves() {
        let _ = world.carry_out(&world.next().unwrap(), None);
        world.state().tick(1);
    }
    {
        let mut state = world.state();
        let made: Vec<u64> = state.ours().into_iter().map(|(id, _)| *id).collect();
        for id in made {
            state.machines.get_mut(&id).unwrap().dead = id != FIRST.0;
        }
    }
    for _ in 0..60 {
        let _ = world.carry_out(&world.next().unwrap(), None);
        world.state().tick(1);
    }
    let listed = world.state().route.as_ref().map(|route| route.spec.ordered_gateways());
    let is_listed = listed.unwrap().iter().any(|one| one.address.0 == private(FIRST.0));
    assert!(is_listed, "{:#?}", world.state().status());
    world.state().nodes_follow = true;
    world.settle(3 * crate::ENOUGH);
    no_violation(&world, &"the others die");
    let state = world.state();
    let status = state.status();
    assert_eq!(status.gateways_ready.as_deref(), Some("2/2"), "{status:#?}\n{:#?}", state.journal);
}

#[test]
fn with_nothing_that_comes_up_in_its_place_the_last_one_that_works_stays() {
    let world = prepared();
    {
        let mut state = world.state();
        let gateway = state.gateway.as_mut().unwrap();
        gateway.spec.replicas = 1;
        gateway.metadata.generation = gateway.metadata.generation.map(|generation| generation + 1);
        (state.nodes_follow, state.stillborn) = (false, true);
    }
    let leaves = || world.state().status().gateways.iter().any(|one| one.role == GatewayRole::Leaving);
    while !leaves() {
        let _ = world.carry_out(&world.next().unwrap(), None);
        world.state().tick(1);
    }
    world.state().first().dead = true;
    for _ in 0..1_500 {
        let _ = world.carry_out(&world.next().unwrap(), None);
        world.state().tick(1);
    }
    no_violation(&world, &"the other one dies");
    let state = world.state();
    assert!(state.ours().iter().any(|(id, _)| **id == SECOND.0), "{:#?}", state.journal);
}

#[test]
fn while_our_vpc_is_not_known_nothing_that_may_be_ours_is_let_go_of() {
    let (world, mut seen, now) = calm();
    seen.gateway.metadata.deletion_timestamp = Some(Time(timestamp(now - 1)));
    seen.gateway.status = None;
    seen.route = None;
    reports(&mut seen).for_each(|report| report.routes.clear());
    seen.site = Err(Trouble { reason: "NodesNotFound", message: "no node".into() });
    let (effect, decision) = effect_at(&world, &mut seen, now);
    assert_eq!(effect, None);
    assert_eq!(reason(&decision, DEGRADED), yes("NodesNotFound"));
    let degraded = decision.status.conditions.iter().find(|condition| condition.type_ == DEGRADED).unwrap();
    for words in ["demo-0-1a2b3c4d", "spec.droplet.vpcUUID", "remove the finalizer"] {
        assert!(degraded.message.contains(words), "{words}: {}", degraded.message);
    }
    // Naming the VPC is a way out.
    seen.gateway.spec.droplet.vpc_uuid = Some(crate::world::VPC.into());
    assert!(matches!(effect_at(&world, &mut seen, now).0, Some(Effect::DeleteDroplet(_))));
}

#[test]
fn a_dead_node_that_holds_routes_blocks_no_deletion() {
    let (world, mut seen, now) = calm();
    seen.gateway.metadata.deletion_timestamp = Some(Time(timestamp(now)));
    seen.route = None;
    let (effect, decision) = effect_at(&world, &mut seen, now);
    assert_eq!((effect, reason(&decision, DEGRADED)), (None, yes("NodesHoldRoutes")));
    seen.nodes[0].live = false;
    seen.nodes[1].report.as_mut().unwrap().routes.clear();
    assert!(matches!(effect_at(&world, &mut seen, now).0, Some(Effect::DeleteDroplet(_))));
}

#[test]
fn without_the_definitions_of_reports_or_routes_deletion_waits_and_says_how_to_go_on() {
    let message = |decision: &Decision| {
        let degraded = decision.status.conditions.iter().find(|condition| condition.type_ == DEGRADED);
        degraded.unwrap().message.clone()
    };
    let (world, mut seen, now) = calm();
    seen.gateway.metadata.deletion_timestamp = Some(Time(timestamp(now)));
    seen.route = None;
    seen.undefined = vec![STATIC_ROUTE];
    let (effect, decision) = effect_at(&world, &mut seen, now);
    assert_eq!((effect, reason(&decision, DEGRADED)), (None, yes("DefinitionGone")));
    assert!(message(&decision).contains("pool-1") && message(&decision).contains("deploy/crds"));
    // Nobody can say any more who holds routes.
    seen.undefined = vec![NODE_EGRESS];
    seen.nodes.iter_mut().for_each(|node| node.report = None);
    let (effect, decision) = effect_at(&world, &mut seen, now);
    assert_eq!((effect, reason(&decision, DEGRADED)), (None, yes("DefinitionGone")));
    assert!(message(&decision).contains("NodeEgress"), "{}", message(&decision));
    // It is back, and the reports are not yet: their agents live.
    seen.undefined.clear();
    let (effect, decision) = effect_at(&world, &mut seen, now);
    assert_eq!((effect, reason(&decision, DEGRADED)), (None, yes("NodesHoldRoutes")));
    // They are all dead: nobody routes.
    seen.nodes.iter_mut().for_each(|node| node.live = false);
    assert!(matches!(effect_at(&world, &mut seen, now).0, Some(Effect::DeleteDroplet(_))));
}

#[test]
fn who_is_deleted_with_the_definition_keeps_droplets_and_routes_and_says_how_to_go_on() {
    let (world, mut seen, now) = calm();
    seen.gateway.metadata.deletion_timestamp = Some(Time(timestamp(now)));
    for definition in [Definition::Going { since: now }, Definition::Gone] {
        let mut seen = seen.clone();
        seen.definition = Some(definition);
        let (effect, decision) = effect_at(&world, &mut seen, now + 1);
        assert_eq!(effect, None);
        assert_eq!(reason(&decision, DEGRADED), yes("DefinitionGone"));
        assert_eq!(reason(&decision, READY), yes("EgressWorks"));
        let degraded =
            decision.status.conditions.iter().find(|condition| condition.type_ == DEGRADED).unwrap();
        for words in ["deploy/crds", egress_api::EGRESS_GATEWAY_FINALIZER, "egress-owner:1a2b3c4d-5e6f"] {
            assert!(degraded.message.contains(words), "{words}: {}", degraded.message);
        }
        // It is looked after like any other.
        seen.gateway.spec.drain_seconds += 1;
        let (effect, _) = effect_at(&world, &mut seen, now + 2);
        assert!(matches!(effect, Some(Effect::ApplyStaticRoute(_))), "{effect:?}");
        // Nobody holds it any more, and nothing can be put back.
        seen.gateway.metadata.finalizers = None;
        assert_eq!(at(&world, &seen, now + 3).effect, None);
    }
    let there = Definition::There { uid: "d".into(), created: 1 };
    for definition in [there, Definition::Going { since: now + 60 }] {
        let mut seen = seen.clone();
        seen.definition = Some(definition);
        let (effect, _) = effect_at(&world, &mut seen, now + 1);
        assert!(matches!(effect, Some(Effect::DeleteStaticRoute { .. })), "somebody wanted it: {effect:?}");
    }
}

#[test]
fn the_addresses_stay_told_until_their_droplets_are_gone() {
    let (world, mut seen, now) = calm();
    seen.gateway.metadata.deletion_timestamp = Some(Time(timestamp(now)));
    let told = |seen: &Observation| at(&world, seen, now).status.public_ips;
    assert_eq!(told(&seen).len(), 2, "nodes still route");
    let cloud = seen.cloud.as_mut().unwrap();
    cloud.droplets.remove(&FIRST);
    cloud.gone.insert(FIRST);
    assert_eq!(told(&seen), ["203.0.113.104"]);
}
