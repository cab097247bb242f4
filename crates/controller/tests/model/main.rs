//! The controller against a model of cloud and Kubernetes: killed at every call, its answers lost, its successes late.
//!
//! The end must be that of an undisturbed run, and at no moment may an invariant be broken.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on says so by ending")]

mod addresses;
mod admits;
mod adoption;
mod existing;
mod exploration;
mod firewall;
mod floating;
mod forecast;
mod handing_over;
mod no_delete;
mod order;
mod pause;
mod pool;
mod quorum;
mod references;
mod repair;
mod roll;
mod situations;
mod strangers;
mod walls;
mod world;
mod wrong_source;

use std::collections::BTreeMap;

use egress_api::GatewayRole;
use egress_api::condition::{DEGRADED, READY, is_true};
use proptest::prelude::*;
use world::{Crash, World};

const ENOUGH: usize = 600;
const CRASHES: [Crash; 3] = [Crash::BeforeSent, Crash::ReplyLost, Crash::AfterReply];

#[derive(Clone, Copy, Debug)]
enum Scenario {
    Create,
    Replace,
    PowerOff,
    Freeze,
    Gray,
    Roll,
    Delete,
    Retain,
}

/// Prepares undisturbed, then runs with the crashes; returns the world at the end and how many calls the run took.
fn run(scenario: Scenario, crashes: &[(usize, Crash)]) -> (World, usize) {
    let start = match scenario {
        Scenario::Create => 0,
        _ => prepared().state().calls,
    };
    let crashes = crashes.iter().map(|(at, crash)| (start + at, *crash)).collect();
    let world = World::new(crashes);
    if start > 0 {
        assert!(world.settle(ENOUGH));
    }
    match scenario {
        Scenario::Create => {}
        Scenario::Replace => world.state().kill_active(),
        Scenario::PowerOff => world.state().first().off = true,
        Scenario::Freeze => world.state().first().frozen = true,
        Scenario::Gray => world.state().first().gray = true,
        Scenario::Roll => world.state().ask_for_size("s-2vcpu-2gb"),
        Scenario::Delete => world.state().delete(),
        Scenario::Retain => {
            world.state().retain();
            world.state().delete();
        }
    }
    assert!(world.settle(ENOUGH), "{scenario:?} does not come to rest: {:#?}", world.state().status());
    let calls = world.state().calls - start;
    (world, calls)
}

fn prepared() -> World {
    let world = World::new(Vec::new());
    assert!(world.settle(ENOUGH));
    world
}

/// What must be equal at the end: how many Droplets, roles, list, conditions; and, for Droplets, how often something was done.
fn end_state(world: &World) -> String {
    let state = world.state();
    let status = state.status();
    let mut roles = BTreeMap::new();
    for gateway in &status.gateways {
        *roles.entry(gateway.role).or_insert(0) += 1;
    }
    let listed = state.route.as_ref().map(|route| route.spec.ordered_gateways().len());
    let conditions: Vec<_> = status
        .conditions
        .iter()
        .map(|condition| (condition.type_.clone(), condition.status.clone()))
        .collect();
    let done = |verb: &str| state.journal.iter().filter(|line| line.starts_with(verb)).count();
    let walls: Vec<(usize, usize)> =
        state.our_walls().iter().map(|(_, wall)| (wall.droplets.len(), wall.inbound.len())).collect();
    let mut admitted: Vec<usize> = status.gateways.iter().map(|gateway| gateway.admits.len()).collect();
    admitted.sort_unstable();
    format!(
        "admitted {admitted:?} firewalls {walls:?} object {} droplets {} roles {roles:?} listed {listed:?} intents {} {conditions:?} creates {} deletes {}",
        state.gateway.is_some(),
        state.ours().len(),
        status.creating.len(),
        done("create"),
        done("delete"),
    )
}

fn no_violation(world: &World, told: &dyn std::fmt::Debug) {
    let state = world.state();
    assert!(state.violations.is_empty(), "{told:?}: {:?}\n{:#?}", state.violations, state.journal);
}

#[test]
fn a_pair_comes_up_is_listed_and_ready() {
    let (world, _) = run(Scenario::Create, &[]);
    no_violation(&world, &"undisturbed");
    let state = world.state();
    let status = state.status();
    let roles: Vec<_> = status.gateways.iter().map(|gateway| gateway.role).collect();
    assert_eq!(roles, [GatewayRole::Active, GatewayRole::Standby]);
    assert_eq!(status.gateways_ready.as_deref(), Some("2/2"));
    assert_eq!(status.nodes.as_deref(), Some("2/2"));
    assert!(is_true(&status.conditions, READY) && !is_true(&status.conditions, DEGRADED), "{status:#?}");
    assert_eq!(state.names().into_iter().collect::<Vec<_>>(), ["demo-0-1a2b3c4d", "demo-1-1a2b3c4d"]);
}

#[test]
fn a_dead_gateway_is_replaced_in_the_free_slot_and_the_survivor_stays_first() {
    let (world, _) = run(Scenario::Replace, &[]);
    no_violation(&world, &"undisturbed");
    let state = world.state();
    assert_eq!(state.names().into_iter().collect::<Vec<_>>(), ["demo-1-1a2b3c4d", "demo-2-1a2b3c4d"]);
    assert_eq!(state.status().active.as_deref(), Some("demo-1-1a2b3c4d"));
    // The new one is there before the dead one goes.
    let create = state.journal.iter().position(|line| line == "create demo-2-1a2b3c4d").unwrap();
    let delete = state.journal.iter().position(|line| line == "delete demo-0-1a2b3c4d").unwrap();
    let listed = state.journal.iter().rposition(|line| line == "route 2").unwrap();
    assert!(create < listed && listed < delete, "{:?}", state.journal);
}

#[test]
fn a_gateway_that_is_off_is_powered_on_and_not_replaced() {
    let (world, _) = run(Scenario::PowerOff, &[]);
    no_violation(&world, &"undisturbed");
    let state = world.state();
    assert_eq!(state.journal.iter().filter(|line| line.starts_with("power on")).count(), 1);
    assert_eq!(state.journal.iter().filter(|line| line.starts_with("create")).count(), 2);
}

#[test]
fn deletion_takes_routes_first_and_leaves_nothing() {
    let (world, _) = run(Scenario::Delete, &[]);
    no_violation(&world, &"undisturbed");
    let state = world.state();
    assert!(state.gateway.is_none() && state.ours().is_empty() && state.route.is_none());
    let tail: Vec<_> = state.journal.iter().rev().take(5).rev().map(String::as_str).collect();
    assert_eq!(
        tail,
        ["route gone", "delete demo-0-1a2b3c4d", "delete demo-1-1a2b3c4d", "wall gone", "object gone"]
    );
    assert_eq!(state.machines.len(), 5, "the decoys are untouched");
}

#[test]
fn what_is_to_be_retained_stays_without_our_tags_when_its_object_goes() {
    let (world, _) = run(Scenario::Retain, &[]);
    no_violation(&world, &"undisturbed");
    let state = world.state();
    assert!(state.gateway.is_none() && state.route.is_none());
    let of_the_end: Vec<String> =
        state.journal.iter().skip_while(|line| *line != "route gone").cloned().collect();
    let untagged = |slot| {
        let tags = ["egress-gateway", "egress-cluster:c0ffee", slot, "egress-owner:1a2b3c4d-5e6f"];
        tags.map(|tag| format!("untag {tag}"))
    };
    let mut expected = vec!["route gone".to_owned()];
    expected.extend(untagged("egress-slot:0"));
    expected.extend(untagged("egress-slot:1"));
    expected.push("object gone".to_owned());
    assert_eq!(of_the_end, expected);
    assert_eq!(state.machines.len(), 5, "nothing was deleted");
    assert!(state.machines.values().all(|machine| state.is_there(machine)));
}

#[test]
fn deletion_waits_for_live_nodes() {
    let world = prepared();
    world.state().nodes_follow = false;
    world.state().delete();
    assert!(!world.settle(100));
    assert_eq!(world.state().ours().len(), 2);
    let status = world.state().status();
    let degraded = status.conditions.iter().find(|condition| condition.type_ == DEGRADED).unwrap().clone();
    assert_eq!((degraded.status.as_str(), degraded.reason.as_str()), ("True", "NodesHoldRoutes"));
    world.state().nodes_follow = true;
    assert!(world.settle(ENOUGH));
    assert!(world.state().gateway.is_none());
    no_violation(&world, &"late nodes");
}

#[test]
fn killed_at_any_call_the_end_is_the_same() {
    let mut runs = 0;
    let all = [
        Scenario::Create,
        Scenario::Replace,
        Scenario::PowerOff,
        Scenario::Freeze,
        Scenario::Gray,
        Scenario::Roll,
        Scenario::Delete,
        Scenario::Retain,
    ];
    for scenario in all {
        let (undisturbed, calls) = run(scenario, &[]);
        let expected = end_state(&undisturbed);
        for at in 0..calls {
            for crash in CRASHES {
                let (world, _) = run(scenario, &[(at, crash)]);
                no_violation(&world, &(scenario, at, crash));
                assert_eq!(
                    end_state(&world),
                    expected,
                    "{scenario:?} {at} {crash:?}\n{:#?}",
                    world.state().journal
                );
                runs += 1;
            }
        }
    }
    assert!(runs > 100, "{runs}");
}

#[test]
fn a_create_that_succeeds_late_is_adopted_and_not_repeated() {
    for scenario in [Scenario::Create, Scenario::Replace] {
        let (undisturbed, calls) = run(scenario, &[]);
        let expected = end_state(&undisturbed);
        for at in 0..calls {
            let (world, _) = run(scenario, &[(at, Crash::LateSuccess)]);
            no_violation(&world, &(scenario, at));
            assert_eq!(end_state(&world), expected, "{scenario:?} {at}\n{:#?}", world.state().journal);
        }
    }
}

#[test]
fn both_dead_are_rebuilt_one_at_a_time() {
    let world = prepared();
    for (_, machine) in world.state().machines.iter_mut().filter(|(id, _)| **id >= 100) {
        machine.dead = true;
    }
    // The second one's replacement waits for ten minutes after the first one's.
    assert!(world.settle(1500));
    no_violation(&world, &"both dead");
    let state = world.state();
    assert!(is_true(&state.status().conditions, READY), "{:#?}", state.status());
    assert_eq!(state.status().gateways_ready.as_deref(), Some("2/2"));
    assert_eq!(state.ours().len(), 2);
}

#[test]
fn a_lost_status_is_rebuilt_from_the_cloud() {
    let world = prepared();
    let names = world.state().names();
    world.state().gateway.as_mut().unwrap().status = None;
    assert!(world.settle(ENOUGH));
    no_violation(&world, &"status lost");
    assert_eq!(world.state().names(), names);
    assert!(is_true(&world.state().status().conditions, READY));
    assert_eq!(world.state().journal.iter().filter(|line| line.starts_with("create")).count(), 2);
}

#[test]
fn bring_ups_that_fail_stop_after_three_and_say_what_to_do() {
    let world = World::new(Vec::new());
    for _ in 0..2000 {
        let Some(decision) = world.next() else { break };
        let _ = world.carry_out(&decision, None);
        let mut state = world.state();
        state.tick(1);
        for (_, machine) in state.machines.iter_mut().filter(|(id, _)| **id >= 100) {
            machine.dead = true;
        }
    }
    no_violation(&world, &"never up");
    let mut state = world.state();
    let creates = state.journal.iter().filter(|line| line.starts_with("create")).count();
    assert!((3..=4).contains(&creates), "{:?}", state.journal);
    assert!(state.ours().is_empty());
    let status = state.status();
    let degraded = status.conditions.iter().find(|condition| condition.type_ == DEGRADED).unwrap();
    assert_eq!(degraded.reason, "BringUpFailed");
    assert!(degraded.message.contains("any change of the spec starts a new try"), "{}", degraded.message);
    // Which it does.
    let gateway = state.gateway.as_mut().unwrap();
    gateway.metadata.generation = Some(2);
    drop(state);
    assert!(world.settle(ENOUGH));
    assert!(is_true(&world.state().status().conditions, READY));
}

#[derive(Clone, Debug)]
enum Move {
    Step,
    /// Carries out what was decided some moves ago, as a leader that slept does.
    Stale,
    Hold,
    Wait(i64),
    Harm(usize, Harm),
}

#[derive(Clone, Copy, Debug)]
enum Harm {
    Kill,
    PowerOff,
    Freeze,
    Gray,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        12 => Just(Move::Step),
        2 => Just(Move::Hold),
        2 => Just(Move::Stale),
        3 => (1_i64..20).prop_map(Move::Wait),
        2 => (0_usize..3, harm()).prop_map(|(which, harm)| Move::Harm(which, harm)),
    ];
    proptest::collection::vec(one, 1..120)
}

fn harm() -> impl Strategy<Value = Harm> {
    proptest::sample::select(vec![Harm::Kill, Harm::PowerOff, Harm::Freeze, Harm::Gray])
}

fn crashes() -> impl Strategy<Value = Vec<(usize, Crash)>> {
    let crash = prop_oneof![
        Just(Crash::BeforeSent),
        Just(Crash::ReplyLost),
        Just(Crash::AfterReply),
        Just(Crash::LateSuccess)
    ];
    proptest::collection::vec((0_usize..60, crash), 0..6)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(300), ..ProptestConfig::default() })]
    #[test]
    fn whatever_happens_no_invariant_breaks_and_the_pair_comes_back(moves in moves(), crashes in crashes(), delete: bool) {
        let world = World::new(crashes);
        let mut held = None;
        let mut harm = 0;
        for next in &moves {
            match next {
                Move::Step => if let Some(decision) = world.next() {
                    let _ = world.carry_out(&decision, None);
                    world.state().tick(1);
                },
                Move::Hold => held = world.next().map(|decision| (decision, world.state().version())),
                Move::Stale => if let Some((decision, version)) = held.take() {
                    let _ = world.carry_out(&decision, version);
                },
                Move::Wait(seconds) => world.state().tick(*seconds),
                Move::Harm(which, how) => {
                    let ids: Vec<u64> = world.state().ours().into_iter().map(|(id, _)| *id).collect();
                    // Three that never come up are another story.
                    if let Some(id) = ids.get(*which).filter(|_| harm < 2) {
                        harm += 1;
                        let mut state = world.state();
                        let machine = state.machines.get_mut(id).unwrap();
                        match how {
                            Harm::Kill => machine.dead = true,
                            Harm::PowerOff => machine.off = true,
                            Harm::Freeze => machine.frozen = true,
                            Harm::Gray => machine.gray = true,
                        }
                    }
                }
            }
        }
        if delete {
            world.state().delete();
        }
        let rested = world.settle(1500);
        let state = world.state();
        prop_assert!(rested, "no rest: {:#?}\n{:#?}", state.status(), state.journal);
        prop_assert!(state.violations.is_empty(), "{:?}\n{:#?}", state.violations, state.journal);
        if delete {
            prop_assert!(state.ours().is_empty());
        } else {
            prop_assert_eq!(state.ours().len(), 2, "{:#?}\n{:#?}", state.status(), state.journal);
            prop_assert!(is_true(&state.status().conditions, READY), "{:#?}", state.status());
        }
    }
}
