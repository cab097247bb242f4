//! Droplets of the user's own that serve as gateways.

use egress_api::GatewayRole;
use egress_api::condition::{DEGRADED, READY, is_true};

use crate::world::{CLUSTER, OWNER, VPC, World, private};
use crate::{ENOUGH, no_violation};

const THEIRS: u64 = 50;

fn with_one_of_theirs() -> World {
    let world = World::new(Vec::new());
    world.state().foreign(THEIRS, "my-nat");
    world.state().gateway.as_mut().unwrap().spec.existing_droplets = vec![50];
    assert!(world.settle(ENOUGH), "{:#?}", world.state().status());
    world
}

fn lines(world: &World, part: &str) -> usize {
    world.state().journal.iter().filter(|line| line.contains(part)).count()
}

fn degraded(world: &World) -> (String, String) {
    let status = world.state().status();
    let found = status.conditions.iter().find(|condition| condition.type_ == DEGRADED).unwrap();
    (found.reason.clone(), found.message.clone())
}

#[test]
fn it_counts_is_listed_and_is_left_when_the_object_goes() {
    let world = with_one_of_theirs();
    let status = world.state().status();
    let names: Vec<(&str, bool)> =
        status.gateways.iter().map(|gateway| (gateway.name.as_str(), gateway.existing)).collect();
    assert_eq!(names, [("my-nat", true), ("demo-0-1a2b3c4d", false)]);
    assert!(is_true(&status.conditions, READY), "{status:#?}");
    assert_eq!((status.gateways_ready.as_deref(), status.active.as_deref()), (Some("2/2"), Some("my-nat")));
    assert_eq!(status.egress_ip.as_deref(), Some("203.0.113.50"), "it keeps its address");
    let walls =
        world.state().our_walls().into_iter().map(|(_, wall)| wall.droplets.clone()).collect::<Vec<_>>();
    assert!(walls.iter().all(|droplets| !droplets.contains(&THEIRS)), "{walls:?}");

    world.state().delete();
    assert!(world.settle(ENOUGH));
    let state = world.state();
    assert!(state.gateway.is_none() && state.ours().is_empty());
    assert!(state.is_there(&state.machines[&THEIRS]));
    drop(state);
    assert_eq!(lines(&world, "my-nat"), 0, "{:?}", world.state().journal);
    no_violation(&world, &"existing");
}

#[test]
fn a_dead_one_is_left_by_the_nodes_told_of_and_neither_mended_nor_replaced() {
    let world = with_one_of_theirs();
    world.state().machines.get_mut(&THEIRS).unwrap().dead = true;
    let journal = world.state().journal.len();
    world.steps(900);
    let state = world.state();
    let done: Vec<&String> = state.journal[journal..].iter().collect();
    assert!(
        done.iter()
            .all(|line| line.starts_with("route") || line.starts_with("wall") || line.contains("admit")),
        "{done:?}"
    );
    let status = state.status();
    assert_eq!(status.gateways.iter().find(|gateway| gateway.existing).unwrap().role, GatewayRole::Failed);
    assert_eq!(
        (status.active.as_deref(), status.gateways_ready.as_deref()),
        (Some("demo-0-1a2b3c4d"), Some("1/2"))
    );
    assert_eq!(status.last_replacement, None);
    drop(state);
    assert_ne!(degraded(&world).0, "AsAskedFor");
    world.state().machines.get_mut(&THEIRS).unwrap().dead = false;
    assert!(world.settle(ENOUGH));
    assert_eq!(world.state().status().gateways_ready.as_deref(), Some("2/2"));
    no_violation(&world, &"dead");
}

#[test]
fn named_no_more_it_leaves_the_list_another_takes_its_place_and_it_lives_on() {
    let world = with_one_of_theirs();
    let mut state = world.state();
    let gateway = state.gateway.as_mut().unwrap();
    gateway.spec.existing_droplets.clear();
    gateway.metadata.generation = Some(2);
    drop(state);
    assert!(world.settle(ENOUGH), "{:#?}", world.state().status());
    let state = world.state();
    assert!(state.status().gateways.iter().all(|gateway| !gateway.existing));
    assert_eq!((state.ours().len(), state.status().gateways_ready.as_deref()), (2, Some("2/2")));
    assert!(state.is_there(&state.machines[&THEIRS]));
    drop(state);
    assert_eq!(lines(&world, "my-nat"), 0);
    no_violation(&world, &"named no more");
}

#[test]
fn when_fewer_are_asked_for_one_of_ours_goes_though_theirs_came_last() {
    let world = World::new(Vec::new());
    assert!(world.settle(ENOUGH));
    world.state().foreign(THEIRS, "my-nat");
    let ask = |replicas: i32, generation: i64| {
        let mut state = world.state();
        let gateway = state.gateway.as_mut().unwrap();
        gateway.spec.existing_droplets = vec![50];
        gateway.spec.replicas = replicas;
        gateway.metadata.generation = Some(generation);
    };
    ask(3, 2);
    assert!(world.settle(ENOUGH));
    let listed = || -> Vec<String> {
        let spec = world.state().route.as_ref().unwrap().spec.clone();
        spec.ordered_gateways().into_iter().map(|gateway| gateway.address.0).collect()
    };
    assert_eq!(listed(), [private(103), private(104), private(THEIRS)]);
    ask(2, 3);
    assert!(world.settle(ENOUGH));
    assert_eq!(listed(), [private(103), private(THEIRS)]);
    assert_eq!(world.state().ours().len(), 1);
    no_violation(&world, &"fewer");
}

#[test]
fn one_of_our_own_that_is_named_is_not_ours_to_delete_any_more() {
    let world = World::new(Vec::new());
    assert!(world.settle(ENOUGH));
    let mut state = world.state();
    let gateway = state.gateway.as_mut().unwrap();
    gateway.spec.existing_droplets = vec![103];
    gateway.metadata.generation = Some(2);
    drop(state);
    assert!(world.settle(ENOUGH));
    world.state().delete();
    assert!(world.settle(ENOUGH));
    let state = world.state();
    assert!(state.gateway.is_none() || state.is_there(&state.machines[&103]));
    assert!(state.is_there(&state.machines[&103]) && !state.is_there(&state.machines[&104]));
}

#[test]
fn a_node_or_a_droplet_of_another_vpc_does_not_serve_and_nothing_is_made_in_its_place() {
    let elsewhere = "99999999-9653-4bd1-bef5-d6bff52042e4";
    for (id, vpc, words) in [(1_u64, VPC, "is a node of this cluster"), (THEIRS, elsewhere, "is not in VPC")]
    {
        let world = World::new(Vec::new());
        if id == THEIRS {
            let tags = [format!("egress-cluster:{CLUSTER}"), format!("egress-owner:{OWNER}")];
            world.state().foreign_tagged(id, "my-nat", &tags, vpc);
        }
        world.state().gateway.as_mut().unwrap().spec.existing_droplets = vec![i64::try_from(id).unwrap()];
        assert!(world.settle(ENOUGH));
        let (reason, message) = degraded(&world);
        assert_eq!(reason, "ExistingDropletUnfit", "{message}");
        assert!(message.contains(words), "{message}");
        assert_eq!(world.state().ours().len(), 1, "a typing mistake costs nothing");
        no_violation(&world, &words);
    }
}
