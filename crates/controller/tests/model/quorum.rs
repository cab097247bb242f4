//! Whose word counts against a gateway, how much of it is needed, and what is told of it.

use egress_api::condition::DEGRADED;
use egress_api::{GatewayObservation, GatewayRole, fresh_for};
use egress_controller::decision::Effect;
use egress_controller::observation::{HealthSeen, NodeSeen, Observation};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::situations::{FIRST, SECOND, at, calm, effect_at, no, reason, reports, yes};
use crate::world::{World, private, timestamp};

/// What a node sees of the first gateway.
fn view(node: &mut NodeSeen) -> &mut GatewayObservation {
    let report = node.report.as_mut().unwrap();
    report.gateways.iter_mut().find(|view| view.address == private(FIRST.0)).unwrap()
}

/// The first `against` of `nodes` nodes say that the first gateway does not forward, at `now`, while the second works.
fn condemned_by(seen: &mut Observation, nodes: usize, against: usize, now: i64) {
    let one = seen.nodes[0].clone();
    seen.nodes = (0..nodes).map(|index| NodeSeen { name: format!("pool-{index}"), ..one.clone() }).collect();
    for node in seen.nodes.iter_mut().take(against) {
        let view = view(node);
        view.condemned = true;
        view.forwards = Some(false);
    }
    for node in &mut seen.nodes {
        node.heard = Some(timestamp(now));
    }
}

/// Looks again a while later, with reports renewed.
fn role_after(world: &World, seen: &mut Observation, now: i64) -> GatewayRole {
    effect_at(world, seen, now);
    let waited = now + 4;
    for node in &mut seen.nodes {
        node.heard = node.heard.map(|_| timestamp(waited));
    }
    effect_at(world, seen, waited).1.status.gateways[0].role
}

#[test]
fn half_of_the_voters_and_two_at_least_are_a_quorum() {
    for (nodes, against, enough) in [
        (1, 1, true),
        (2, 1, false),
        (2, 2, true),
        (3, 1, false),
        (3, 2, true),
        (4, 1, false),
        (4, 2, true),
        (100, 49, false),
        (100, 50, true),
    ] {
        let (world, mut seen, now) = calm();
        condemned_by(&mut seen, nodes, against, now);
        let expected = if enough { GatewayRole::Failed } else { GatewayRole::Active };
        assert_eq!(role_after(&world, &mut seen, now), expected, "{against} of {nodes}");
    }
}

#[test]
fn nodes_without_a_ready_agent_make_no_quorum_larger_and_where_another_lives_one_word_is_not_enough() {
    for (nodes, against, without, enough, enough_if_they_are_dead) in [
        (2, 1, 1, false, true),
        (2, 0, 1, false, false),
        (3, 1, 2, false, true),
        (3, 1, 1, false, false),
        (3, 2, 1, true, true),
        (6, 2, 2, true, true),
        (6, 1, 2, false, false),
        (2, 0, 2, false, false),
        (100, 1, 99, false, true),
        (100, 2, 98, true, true),
    ] {
        for live in [true, false] {
            let (world, mut seen, now) = calm();
            condemned_by(&mut seen, nodes, against, now);
            for node in seen.nodes.iter_mut().rev().take(without) {
                (node.agent_ready, node.live) = (Some(false), live);
            }
            let falls = if live { enough } else { enough_if_they_are_dead };
            let expected = if falls { GatewayRole::Failed } else { GatewayRole::Active };
            let role = role_after(&world, &mut seen, now);
            assert_eq!(
                role, expected,
                "{against} of {nodes}, {without} without an agent, which live: {live}"
            );
        }
    }
    // Whoever has one and says nothing is no vote against it.
    let (world, mut seen, now) = calm();
    condemned_by(&mut seen, 3, 1, now);
    seen.nodes[2].agent_ready = Some(false);
    seen.nodes[1].report = None;
    assert_eq!(role_after(&world, &mut seen, now), GatewayRole::Active);
}

#[test]
fn a_gateway_that_calls_itself_ready_and_forwards_nothing_is_condemned_by_what_nodes_see() {
    let (world, mut seen, now) = calm();
    condemned_by(&mut seen, 2, 2, now);
    assert!(matches!(seen.health[&FIRST], HealthSeen::Ready { .. }));
    assert_eq!(role_after(&world, &mut seen, now), GatewayRole::Failed);
}

/// Whether the first gateway falls when one of three nodes that condemn it is changed like this.
fn falls_when(change: impl Fn(&mut NodeSeen)) -> bool {
    let (world, mut seen, now) = calm();
    condemned_by(&mut seen, 4, 2, now);
    change(&mut seen.nodes[0]);
    role_after(&world, &mut seen, now) == GatewayRole::Failed
}

#[test]
fn only_what_was_heard_lately_from_a_node_that_is_not_cut_off_itself_counts() {
    assert!(falls_when(|_| {}));
    assert!(!falls_when(|node| node.heard = None), "nobody knows how old it is");
    assert!(!falls_when(|node| node.report.as_mut().unwrap().cut_off = true));
    assert!(!falls_when(|node| node.report = None), "silence is no vote");
    assert!(!falls_when(|node| node.agent_ready = Some(false)), "one of three is left");
    assert!(!falls_when(|node| node.agent_ready = None), "nobody may say whose agent is Ready");
    // Those that do not vote make a quorum smaller: two of three.
    let (world, mut seen, now) = calm();
    condemned_by(&mut seen, 4, 2, now);
    seen.nodes[3].agent_ready = Some(false);
    assert_eq!(role_after(&world, &mut seen, now), GatewayRole::Failed);
}

#[test]
fn a_verdict_that_is_not_renewed_counts_no_more() {
    let (world, mut seen, now) = calm();
    condemned_by(&mut seen, 2, 2, now);
    let life = i64::try_from(fresh_for(2).as_secs()).unwrap();
    let suspected = |later: i64| at(&world, &seen, now + later).status.gateways[0].suspect_since.is_some();
    assert!(suspected(life - 1));
    assert!(!suspected(life));
}

#[test]
fn nodes_that_do_not_leave_through_the_gateways_have_no_say_unless_nobody_does() {
    let select =
        |pool: &str| serde_json::from_value(serde_json::json!({"matchLabels": {"pool": pool}})).unwrap();
    for (pool, role) in
        [("inside", GatewayRole::Active), ("outside", GatewayRole::Failed), ("none", GatewayRole::Failed)]
    {
        let (world, mut seen, now) = calm();
        condemned_by(&mut seen, 4, 2, now);
        for (index, node) in seen.nodes.iter_mut().enumerate() {
            node.labels.insert("pool".into(), if index < 2 { "outside" } else { "inside" }.into());
        }
        seen.gateway.spec.node_selector = select(pool);
        seen.route.as_mut().unwrap().spec.node_selector = select(pool);
        assert_eq!(role_after(&world, &mut seen, now), role, "{pool}");
    }
}

#[test]
fn when_a_quorum_condemns_every_gateway_there_is_no_difference_and_none_falls() {
    let (world, mut seen, now) = calm();
    condemned_by(&mut seen, 4, 2, now);
    for node in seen.nodes.iter_mut().skip(2) {
        let report = node.report.as_mut().unwrap();
        let other = report.gateways.iter_mut().find(|view| view.address == private(SECOND.0)).unwrap();
        other.condemned = true;
    }
    let (effect, decision) = effect_at(&world, &mut seen, now + 4);
    assert_eq!(effect, None);
    let roles: Vec<_> = decision.status.gateways.iter().map(|gateway| gateway.role).collect();
    assert_eq!(roles, [GatewayRole::Active, GatewayRole::Standby]);
}

#[test]
fn where_no_gateway_works_a_dead_one_falls_when_neither_nodes_nor_we_get_an_answer() {
    let silent = HealthSeen::Silent("no connection".into());
    let ready = HealthSeen::Ready { version: None, public_address: None, peers: None };
    let complains = HealthSeen::NotReady("no rule translates".into());
    for (endpoint, is_heard, role) in [
        (silent.clone(), true, GatewayRole::Failed),
        (ready, true, GatewayRole::Active),
        // That is an answer, and a kernel that lives.
        (complains, true, GatewayRole::Active),
        // An agent that stands still saw that once.
        (silent, false, GatewayRole::Active),
    ] {
        let (world, mut seen, now) = calm();
        for report in reports(&mut seen) {
            for view in &mut report.gateways {
                view.reachable = false;
                view.forwards = None;
            }
        }
        seen.nodes.iter_mut().filter(|_| !is_heard).for_each(|node| node.heard = None);
        seen.health.insert(FIRST, endpoint.clone());
        assert_eq!(role_after(&world, &mut seen, now), role, "{endpoint:?}, heard of lately: {is_heard}");
    }
}

#[test]
fn agents_from_before_verdicts_are_counted_by_what_they_see() {
    let (world, mut seen, now) = calm();
    condemned_by(&mut seen, 2, 2, now);
    for node in &mut seen.nodes {
        view(node).condemned = false;
        node.report.as_mut().unwrap().boot_id = None;
        node.heard = None;
    }
    assert_eq!(role_after(&world, &mut seen, now), GatewayRole::Failed);
}

#[test]
fn the_good_word_of_an_agent_that_is_no_more_proves_no_gateway() {
    for (agents, proven) in [
        ([Some(true), Some(true)], true),
        ([Some(true), Some(false)], true),
        ([Some(false), Some(false)], false),
        // Nobody can say whose agent is Ready: that keeps nobody out.
        ([None, None], true),
    ] {
        let (world, mut seen, now) = calm();
        let second = &mut seen.gateway.status.as_mut().unwrap().gateways[1];
        (second.ready, second.role) = (false, GatewayRole::Starting);
        for (node, ready) in seen.nodes.iter_mut().zip(agents) {
            node.agent_ready = ready;
        }
        assert_eq!(at(&world, &seen, now).status.gateways[1].ready, proven, "{agents:?}");
    }
}

type Change = fn(&mut GatewayObservation);

#[test]
fn the_condition_says_which_gateway_at_which_level_and_for_how_many_nodes() {
    let levels: [(&str, &str, Change); 5] = [
        ("GatewayDoesNotAnswer", "does not answer in the VPC", |view| view.reachable = false),
        ("GatewayDoesNotForward", "does not forward", |view| view.forwards = Some(false)),
        ("GatewayWrongSource", "wrong source address", |view| view.expected_source = Some(false)),
        ("GatewayBlackHole", "black hole for full-size packets", |view| view.full_size = Some(false)),
        ("GatewayLosesPackets", "loses packets", |_| {}),
    ];
    for (expected, words, change) in levels {
        let (world, mut seen, now) = calm();
        // One of three is no quorum: nothing is done, and it is told all the same.
        condemned_by(&mut seen, 3, 1, now);
        let view = view(&mut seen.nodes[0]);
        view.forwards = Some(true);
        view.message = Some("10 of 10 probes lost".into());
        change(view);
        let (effect, decision) = effect_at(&world, &mut seen, now);
        assert_eq!(effect, None);
        assert_eq!(reason(&decision, DEGRADED), yes(expected));
        let degraded = decision.status.conditions.iter().find(|one| one.type_ == DEGRADED).unwrap();
        for part in ["demo-0-1a2b3c4d", words, "1 of 3 nodes", "pool-0: 10 of 10 probes lost"] {
            assert!(degraded.message.contains(part), "{part}: {}", degraded.message);
        }
    }
}

#[test]
fn what_nodes_leave_and_do_not_condemn_is_told_of_and_stays() {
    let (world, mut seen, now) = calm();
    condemned_by(&mut seen, 2, 2, now);
    seen.nodes.iter_mut().for_each(|node| {
        let view = view(node);
        (view.condemned, view.since) = (false, Some(Time(timestamp(now))));
    });
    let (effect, decision) = effect_at(&world, &mut seen, now + 5);
    assert_eq!((effect, reason(&decision, DEGRADED)), (None, no("AsAskedFor")), "it may become a verdict");
    for later in [10, 3_600] {
        // Of another gateway nodes say something new all the time.
        seen.nodes.iter_mut().for_each(|node| node.heard = Some(timestamp(now + later)));
        let (effect, decision) = effect_at(&world, &mut seen, now + later);
        assert_eq!((effect, reason(&decision, DEGRADED)), (None, yes("GatewayDoubtful")));
        let gateway = &decision.status.gateways[0];
        assert_eq!((gateway.role, gateway.ready), (GatewayRole::Active, true));
        let degraded = decision.status.conditions.iter().find(|one| one.type_ == DEGRADED).unwrap();
        for part in ["demo-0-1a2b3c4d", "2 of 2 nodes", "spec.healthCheck.targets"] {
            assert!(degraded.message.contains(part), "{part}: {}", degraded.message);
        }
    }
    // With nobody that gets through there is no difference.
    for report in reports(&mut seen) {
        report.gateways.iter_mut().for_each(|view| view.forwards = Some(false));
    }
    assert_eq!(reason(&effect_at(&world, &mut seen, now + 3_600).1, DEGRADED), yes("OutsideUnreachable"));
}

#[test]
fn without_a_word_on_whose_agent_is_ready_nothing_falls_and_the_condition_says_what_is_missing() {
    let (world, mut seen, now) = calm();
    seen.nodes.iter_mut().for_each(|node| node.agent_ready = None);
    let (_, decision) = effect_at(&world, &mut seen, now);
    assert_eq!(reason(&decision, DEGRADED), no("AsAskedFor"), "nobody complains");
    condemned_by(&mut seen, 2, 2, now);
    let (effect, decision) = effect_at(&world, &mut seen, now + 60);
    assert_eq!(effect, None);
    assert_eq!(reason(&decision, DEGRADED), yes("AgentsUnknown"));
}

#[test]
fn each_transition_is_told_once_with_what_a_node_saw() {
    let (world, mut seen, now) = calm();
    condemned_by(&mut seen, 2, 2, now);
    view(&mut seen.nodes[0]).message = Some("no answer of 1.1.1.1:443".into());
    let told = |seen: &mut Observation, now: i64| {
        for node in &mut seen.nodes {
            node.heard = Some(timestamp(now));
        }
        let decision = at(&world, seen, now);
        seen.gateway.status = Some(decision.status.clone());
        if let Some(Effect::ApplyStaticRoute(spec)) = &decision.effect {
            seen.route.as_mut().unwrap().spec = spec.clone();
        }
        decision.events
    };
    let events = told(&mut seen, now);
    let condemned: Vec<_> = events.iter().filter(|one| one.reason == "GatewayCondemned").collect();
    assert_eq!(condemned.len(), 1, "{events:?}");
    for part in ["demo-0-1a2b3c4d", "2 of 2 nodes", "no answer of 1.1.1.1:443"] {
        assert!(condemned[0].note.contains(part), "{}", condemned[0].note);
    }
    assert!(told(&mut seen, now + 1).is_empty());
    let reasons = |events: Vec<egress_controller::decision::Happening>| -> Vec<&str> {
        events.iter().map(|one| one.reason).collect()
    };
    let fallen = reasons(told(&mut seen, now + 4));
    assert!(fallen.contains(&"GatewayFailed") && fallen.contains(&"FailedOver"), "{fallen:?}");
    assert!(told(&mut seen, now + 4).is_empty());
    for node in &mut seen.nodes {
        let view = view(node);
        view.condemned = false;
        view.forwards = Some(true);
    }
    let back = reasons(told(&mut seen, now + 5));
    assert!(back.contains(&"GatewayRecovered") && !back.contains(&"GatewayProven"), "{back:?}");
}
