//! Droplets of others that look like ours.

use egress_api::condition::{DEGRADED, READY, is_true};

use crate::world::{CLUSTER, OWNER, VPC, World};
use crate::{ENOUGH, no_violation};

/// Untouched from the first create to the last delete.
fn lives_beside(strangers: &[(u64, &str, Vec<String>, &str)]) -> World {
    let world = World::new(Vec::new());
    for (id, name, tags, vpc) in strangers {
        world.state().foreign_tagged(*id, name, tags, vpc);
    }
    assert!(world.settle(ENOUGH), "{:#?}", world.state().status());
    {
        let state = world.state();
        assert_eq!(state.ours().len(), 2, "{:?}", state.journal);
        assert!(is_true(&state.status().conditions, READY), "{:#?}", state.status());
    }
    world.state().kill_active();
    assert!(world.settle(ENOUGH), "{:#?}", world.state().status());
    world.state().delete();
    assert!(world.settle(ENOUGH), "{:#?}", world.state().status());
    let state = world.state();
    assert!(state.gateway.is_none() && state.ours().is_empty(), "{:?}", state.journal);
    for (id, name, ..) in strangers {
        assert!(state.machines.get(id).is_some_and(|machine| state.is_there(machine)), "{name}");
    }
    drop(state);
    no_violation(&world, &strangers);
    world
}

fn ours() -> Vec<String> {
    ["egress-gateway".to_owned(), format!("egress-cluster:{CLUSTER}"), format!("egress-owner:{OWNER}")].into()
}

#[test]
fn our_name_our_tags_or_both_elsewhere_make_nothing_ours() {
    let elsewhere = "99999999-9653-4bd1-bef5-d6bff52042e4";
    lives_beside(&[(50, "demo-0-1a2b3c4d", Vec::new(), VPC)]);
    lives_beside(&[(50, "DEMO-0-1A2B3C4D", Vec::new(), VPC)]);
    lives_beside(&[(50, "demo-0-1a2b3c4d", ours(), elsewhere)]);
    lives_beside(&[(50, "web-1", ours(), VPC)]);
    let half = vec![format!("egress-owner:{OWNER}")];
    lives_beside(&[(50, "demo-0-1a2b3c4d", half, VPC), (51, "demo-0-1a2b3c4d-2", ours(), elsewhere)]);
    // Of an EgressGateway of the same name that was deleted before, and of the same name in another cluster.
    let before = vec![format!("egress-cluster:{CLUSTER}"), "egress-owner:99999999-5e6f".to_owned()];
    let beside = vec!["egress-cluster:other".to_owned(), format!("egress-owner:{OWNER}")];
    lives_beside(&[(50, "demo-0-99999999", before, VPC), (51, "demo-1-1a2b3c4d", beside, VPC)]);
}

#[test]
fn a_worker_node_with_our_name_and_our_tags_is_a_worker_node() {
    let world = World::new(Vec::new());
    // The Droplet of node pool-1.
    world.state().rename(1, "demo-0-1a2b3c4d");
    world.state().tag(1, ours());
    assert!(world.settle(ENOUGH), "{:#?}", world.state().status());
    assert_eq!(world.state().ours().len(), 2);
    world.state().delete();
    assert!(world.settle(ENOUGH));
    assert!(world.state().gateway.is_none());
    assert!(world.state().machines.contains_key(&1));
    no_violation(&world, &"a node");
}

#[test]
fn what_may_be_ours_and_cannot_be_proven_is_told() {
    let world = World::new(Vec::new());
    world.state().foreign_tagged(50, "web-1", &ours(), VPC);
    assert!(world.settle(ENOUGH));
    let status = world.state().status();
    let degraded = status.conditions.iter().find(|condition| condition.type_ == DEGRADED).unwrap();
    assert_eq!(degraded.reason, "UnknownDroplet");
    assert!(degraded.message.contains("web-1 (50)"), "{}", degraded.message);
}
