//! Who may probe a gateway's public side: exactly the other gateways, whatever happens.

use egress_controller::decision::Effect;

use crate::world::World;
use crate::{ENOUGH, no_violation, prepared};

/// Every gateway that is there admits exactly the others, and the status says so.
pub fn assert_admitted(world: &World) {
    let state = world.state();
    let ids: Vec<u64> = state.ours().into_iter().map(|(id, _)| *id).collect();
    for (id, machine) in state.ours() {
        let others: Vec<u64> = ids.iter().filter(|other| *other != id).copied().collect();
        let admits: Vec<u64> = machine.admits.iter().copied().collect();
        assert_eq!(admits, others, "gateway {id}: {:#?}", state.journal);
        let status = state.status();
        let entry =
            status.gateways.iter().find(|entry| entry.droplet_id == i64::try_from(*id).unwrap()).unwrap();
        let told: Vec<String> = others.iter().map(|other| format!("203.0.113.{other}")).collect();
        assert_eq!(entry.admits, told, "the status of gateway {id}");
    }
}

#[test]
fn each_gateway_admits_the_others_and_a_replacement_takes_the_place_of_the_dead_one() {
    let world = prepared();
    assert_admitted(&world);
    world.state().kill_active();
    assert!(world.settle(ENOUGH));
    no_violation(&world, &"replaced");
    assert_admitted(&world);
}

#[test]
fn a_list_that_somebody_changed_is_sent_again() {
    let world = prepared();
    let ids: Vec<u64> = world.state().ours().into_iter().map(|(id, _)| *id).collect();
    for foreign in [Vec::new(), vec![77], vec![ids[1], 77]] {
        world.state().machines.get_mut(&ids[0]).unwrap().admits = foreign.iter().copied().collect();
        assert!(world.settle(ENOUGH), "{foreign:?}");
        assert_admitted(&world);
    }
    let admissions = world.state().journal.iter().filter(|line| line.starts_with("admit")).count();
    assert_eq!(admissions, 5, "two for the pair, one for each change: {:?}", world.state().journal);
}

#[test]
fn a_silent_peer_is_neither_given_up_nor_asked_for_again_and_again() {
    let world = prepared();
    let mut seen = world.state().observe().unwrap();
    let ids: Vec<_> = seen.health.keys().copied().filter(|id| id.0 >= 100).collect();
    seen.health.insert(ids[1], egress_controller::observation::HealthSeen::Silent("no connection".into()));
    let now = crate::world::timestamp(world.state().now);
    let effect = egress_controller::decide::decide(&seen, &world.limits, now).effect;
    assert!(!matches!(effect, Some(Effect::AdmitPeers(_))), "{effect:?}");
}
