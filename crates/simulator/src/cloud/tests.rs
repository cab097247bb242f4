//! The state machines, step by step on a clock of the test's own.

use jiff::SignedDuration;
use serde_json::{Value, json};

use super::*;

mod creates;
mod lists;
mod world;

use world::{D, World, message, wish};

#[test]
fn a_create_is_new_then_active_without_networks_then_whole() {
    let mut world = World::new(false);
    let (_, body) = world.call("POST", "/v2/droplets", &wish("gw-0"));
    assert_eq!(body["droplet"]["status"], "new");
    assert_eq!(body["droplet"]["networks"], json!({"v4": [], "v6": []}));
    let (id, action) = (body["droplet"]["id"].as_u64().unwrap(), body["links"]["actions"][0]["id"].clone());
    world.wait(D.active - 1);
    assert_eq!(world.state(id), ("new".into(), 0, true));
    world.wait(1);
    assert_eq!(world.state(id), ("active".into(), 0, true));
    assert_eq!(world.action_status(&action), "in-progress");
    world.wait(D.networks - D.active);
    assert_eq!(world.state(id), ("active".into(), 2, false));
    assert_eq!(world.action_status(&action), "completed");
    let networks = world.get(&format!("/v2/droplets/{id}")).1["droplet"]["networks"]["v4"].clone();
    assert_eq!(networks[0]["ip_address"], "203.0.113.100");
    assert_eq!(
        networks[1],
        json!({"ip_address": "10.116.0.100", "netmask": "255.255.240.0", "gateway": "10.116.0.1", "type": "private"})
    );
}

#[test]
fn a_deleted_droplet_answers_for_a_while_and_a_second_delete_does_not() {
    let mut world = World::new(false);
    let id = world.live();
    let address = format!("/v2/droplets/{id}");
    assert_eq!(world.call("DELETE", &address, &Value::Null).0, 204);
    assert_eq!(world.call("DELETE", &address, &Value::Null).0, 404);
    world.wait(D.delete - 1);
    assert_eq!(world.get(&address).0, 200);
    world.wait(1);
    assert_eq!(world.get(&address).0, 404);
}

#[test]
fn one_event_at_a_time() {
    let mut world = World::new(false);
    let id = world.create(None);
    let address = format!("/v2/droplets/{id}");
    let refused = world.call("DELETE", &address, &Value::Null);
    assert_eq!((refused.0, message(&refused.1)), (422, "Droplet already has a pending event."));
    world.wait(D.networks);
    let actions = format!("{address}/actions");
    let (status, body) = world.call("POST", &actions, &json!({"type": "reboot"}));
    assert_eq!(status, 201);
    for kind in ["power_off", "reboot", "snapshot"] {
        let refused = world.call("POST", &actions, &json!({"type": kind}));
        assert_eq!((refused.0, message(&refused.1)), (422, "Droplet already has a pending event."), "{kind}");
    }
    world.wait(D.action);
    assert_eq!(world.action_status(&body["action"]["id"]), "completed");
    assert_eq!(world.call("DELETE", &address, &Value::Null).0, 204);
}

#[test]
fn power_actions_change_the_status_when_they_complete() {
    let mut world = World::new(false);
    let id = world.live();
    let actions = format!("/v2/droplets/{id}/actions");
    for (kind, after) in
        [("power_off", "off"), ("power_on", "active"), ("shutdown", "off"), ("power_cycle", "active")]
    {
        let before = world.state(id).0;
        assert_eq!(world.call("POST", &actions, &json!({"type": kind})).0, 201, "{kind}");
        assert_eq!(world.state(id).0, before, "{kind} takes its time");
        world.wait(D.action);
        assert_eq!(world.state(id).0, after, "{kind}");
    }
    assert_eq!(world.call("POST", &actions, &json!({"type": "power_on"})).0, 422);
    assert_eq!(world.call("POST", &actions, &json!({"type": "rename", "name": "gw-9"})).0, 201);
    world.wait(D.action);
    assert_eq!(world.get(&format!("/v2/droplets/{id}")).1["droplet"]["name"], "gw-9");
    assert_eq!(world.get(&actions).1["meta"]["total"], 6, "create and five more");
}

#[test]
fn an_event_waits_for_its_machine_as_well_as_for_its_delay() {
    let mut world = World::new(true);
    let id = world.create(None);
    let boot = world.cloud.take_effects().remove(0);
    assert_eq!((boot.droplet, boot.verbs.as_slice()), (id, &[MachineVerb::Boot][..]));
    assert_eq!(boot.machine["user_data"], "#cloud-config");
    assert_eq!(boot.machine["private"]["address"], "10.116.0.100");
    world.wait(D.networks * 10);
    assert_eq!(world.state(id), ("new".into(), 0, true), "the machine has not booted");
    world.cloud.machine_finished(boot.action, true, world.now);
    assert_eq!(world.state(id), ("active".into(), 2, false));
    let completed = world.get(&format!("/v2/actions/{}", boot.action)).1["action"]["completed_at"].clone();
    assert_eq!(completed, written(world.now));

    world.call("POST", &format!("/v2/droplets/{id}/actions"), &json!({"type": "power_cycle"}));
    let cycle = world.cloud.take_effects().remove(0);
    assert_eq!(cycle.verbs, [MachineVerb::PowerOff, MachineVerb::Boot]);
    world.cloud.machine_finished(cycle.action, false, world.now);
    world.wait(D.action);
    assert_eq!(world.action_status(&json!(cycle.action)), "errored");
    assert_eq!(
        world.state(id),
        ("active".into(), 2, false),
        "a failed action frees the slot, changes nothing"
    );
}

#[test]
fn a_machine_that_does_not_boot_is_a_droplet_that_vanishes() {
    let mut world = World::new(true);
    let id = world.create(None);
    let boot = world.cloud.take_effects().remove(0);
    world.cloud.machine_finished(boot.action, false, world.now);
    world.wait(D.networks);
    assert_eq!(world.get(&format!("/v2/droplets/{id}")).0, 404);
    assert_eq!(world.action_status(&json!(boot.action)), "errored");
    let destroy = world.cloud.take_effects().remove(0);
    assert_eq!(destroy.verbs, [MachineVerb::Destroy]);
    assert!(
        world.cloud.addresses_in_use().contains(&"10.116.0.100".parse().unwrap()),
        "not before it is gone"
    );
    world.cloud.machine_finished(destroy.action, true, world.now);
    world.wait(D.delete + D.tag_ghost);
    world.cloud.advance(world.now);
    assert!(world.cloud.addresses_in_use().is_empty());
    assert!(world.cloud.droplets.is_empty());
}

#[test]
fn a_machine_that_cannot_be_destroyed_keeps_its_addresses_for_ever() {
    let mut world = World::new(true);
    let id = world.live();
    world.call("DELETE", &format!("/v2/droplets/{id}"), &Value::Null);
    let destroy = world.cloud.take_effects().remove(0);
    world.cloud.machine_finished(destroy.action, false, world.now);
    world.wait(D.delete + D.tag_ghost);
    assert_eq!(world.get(&format!("/v2/droplets/{id}")).0, 404);
    assert!(world.cloud.addresses_in_use().contains(&"10.116.0.100".parse().unwrap()));
}

#[test]
fn addresses_go_round_before_they_come_again() {
    let mut world = World::new(false);
    let id = world.live();
    world.call("DELETE", &format!("/v2/droplets/{id}"), &Value::Null);
    world.wait(D.delete + D.tag_ghost);
    let second = world.live();
    let body = world.get(&format!("/v2/droplets/{second}")).1;
    assert_eq!(body["droplet"]["networks"]["v4"][0]["ip_address"], "203.0.113.101");
}

#[test]
fn a_pool_of_one_is_used_again_only_when_free() {
    let mut pool = address::Pool::of("192.0.2.0/30".parse().unwrap());
    let address: std::net::Ipv4Addr = "192.0.2.2".parse().unwrap();
    assert_eq!(pool.take(&BTreeSet::new()), Some(address));
    assert_eq!(pool.take(&BTreeSet::from([address])), None);
    assert_eq!(pool.take(&BTreeSet::new()), Some(address));
}

#[test]
fn a_reserved_ip_is_locked_while_it_moves_and_freed_with_its_droplet() {
    let mut world = World::new(false);
    let (a, b) = (world.live(), world.live());
    let (status, body) = world.call("POST", "/v2/reserved_ips", &json!({"region": "nyc1"}));
    assert_eq!((status, &body["reserved_ip"]["locked"]), (202, &json!(false)));
    let address = format!("/v2/reserved_ips/{}", body["reserved_ip"]["ip"].as_str().unwrap());
    let actions = format!("{address}/actions");
    assert_eq!(world.call("POST", &actions, &json!({"type": "unassign"})).0, 422, "it is free");
    assert_eq!(world.call("POST", &actions, &json!({"type": "assign"})).0, 422, "to whom?");
    let (status, action) = world.call("POST", &actions, &json!({"type": "assign", "droplet_id": a}));
    assert_eq!((status, &action["action"]["type"]), (201, &json!("assign_ip")));
    assert_eq!(world.call("POST", &actions, &json!({"type": "assign", "droplet_id": b})).0, 422, "locked");
    let refused = world.call("DELETE", &format!("/v2/droplets/{a}"), &Value::Null);
    assert_eq!((refused.0, message(&refused.1)), (422, "Droplet already has a pending event."));
    world.wait(D.reserved_ip);
    assert_eq!(world.get(&address).1["reserved_ip"]["droplet"]["id"], a);
    assert_eq!(world.get(&format!("/v2/droplets/{a}")).1["droplet"]["networks"]["v4"][2]["type"], "public");
    let second = world.call("POST", "/v2/reserved_ips", &json!({"droplet_id": a}));
    assert_eq!(second.0, 422, "one a Droplet");
    assert_eq!(
        world.call("POST", &actions, &json!({"type": "assign", "droplet_id": b})).0,
        201,
        "moves in one step"
    );
    world.wait(D.reserved_ip);
    assert_eq!(world.get(&address).1["reserved_ip"]["droplet"]["id"], b);
    world.call("DELETE", &format!("/v2/droplets/{b}"), &Value::Null);
    world.wait(D.delete);
    assert_eq!(world.get(&address).1["reserved_ip"]["droplet"], Value::Null);
    assert_eq!(world.call("DELETE", &address, &Value::Null).0, 204);
    assert_eq!(world.get("/v2/reserved_ips").1["meta"]["total"], 0);
    for expected in [202, 202, 202, 422] {
        assert_eq!(world.call("POST", "/v2/reserved_ips", &json!({"region": "nyc1"})).0, expected, "quota");
    }
}

#[test]
fn the_machine_room_is_told_of_a_reserved_ip_when_its_action_is_through_and_when_its_holder_is_gone() {
    let mut world = World::new(true);
    let untold = |world: &mut World| {
        world.cloud.advance(world.now);
        world.cloud.untold_translations()
    };
    let (a, b) = (world.live(), world.live());
    assert_eq!(untold(&mut world), None);
    let (_, body) = world.call("POST", "/v2/reserved_ips", &json!({"droplet_id": a}));
    let ip = body["reserved_ip"]["ip"].as_str().unwrap().to_owned();
    assert_eq!(untold(&mut world), None, "the action is under way");
    world.wait(D.reserved_ip);
    let told = untold(&mut world).unwrap();
    assert_eq!((told.len(), told[0].droplet, told[0].ip.to_string()), (1, a, ip.clone()));
    assert!(told[0].anchor.to_string().starts_with("10.17."));
    world.cloud.translates(told);
    assert_eq!(untold(&mut world), None);
    let actions = format!("/v2/reserved_ips/{ip}/actions");
    world.call("POST", &actions, &json!({"type": "assign", "droplet_id": b}));
    world.wait(D.reserved_ip - 1);
    assert_eq!(untold(&mut world), None);
    world.wait(1);
    let told = untold(&mut world).unwrap();
    assert_eq!((told.len(), told[0].droplet), (1, b), "in one step");
    world.cloud.translates(told);
    world.call("DELETE", &format!("/v2/droplets/{b}"), &Value::Null);
    for effect in world.cloud.take_effects() {
        world.cloud.machine_finished(effect.action, true, world.now);
    }
    world.wait(D.delete);
    assert_eq!(untold(&mut world), Some(Vec::new()));
}

#[test]
fn a_snapshot_continues_where_it_was_and_repeats_unanswered_commands() {
    let mut world = World::new(true);
    let id = world.create(None);
    let lost = world.cloud.take_effects();
    let text = serde_json::to_string(&world.cloud).unwrap();
    world.cloud = serde_json::from_str(&text).unwrap();
    world.cloud.resume();
    let again = world.cloud.take_effects();
    assert_eq!(again, lost);
    world.cloud.machine_finished(again[0].action, true, world.now);
    world.wait(D.networks);
    assert_eq!(world.state(id), ("active".into(), 2, false));
    let next = world.create(None);
    assert_eq!(next, id + 1);
}

#[test]
fn deadlines_are_in_the_future_once_time_has_passed() {
    let mut world = World::new(false);
    world.create(None);
    let first = world.cloud.next_deadline().unwrap();
    assert_eq!(first.duration_since(world.now), SignedDuration::from_millis(300));
    for _ in 0..2 {
        let next = world.cloud.next_deadline().unwrap();
        world.cloud.advance(next);
        assert!(world.cloud.next_deadline().is_none_or(|later| later > next));
    }
    assert_eq!(world.cloud.next_deadline(), None);
}
