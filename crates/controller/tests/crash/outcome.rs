//! What must be the same at the end, whatever happened on the way.
//!
//! Ids, addresses and times differ from run to run, and which of two equals carries the traffic first may: a pair is compared as a
//! pair. A change that is safe to repeat may be repeated when its reply was lost: deletes, powering on, the wanted state of a firewall.
//! Creates may not.

use std::collections::{BTreeMap, BTreeSet};

use egress_api::{ADDRESS_TAG_PREFIX, EgressGatewayStatus};
use serde_json::{Value, json};

use crate::world::World;

/// Everything that is compared.
pub fn outcome(world: &World) -> Value {
    let status = world.status();
    let route = world.route();
    let listed: Vec<String> =
        route.iter().flat_map(|route| route.spec.ordered_gateways()).map(|entry| entry.address.0).collect();
    let state = world.state();
    let gateways: Vec<Value> = status
        .gateways
        .iter()
        .map(|gateway| {
            let droplet = state.billed().find(|droplet| i64::try_from(droplet.id) == Ok(gateway.droplet_id));
            let private = droplet.map(|droplet| droplet.private.address.to_string());
            let public = droplet.and_then(|droplet| Some(state.leaves_with(droplet)?.to_string()));
            json!({
                "name": gateway.name, "ready": gateway.ready, "admits": gateway.admits.len(),
                "its addresses": gateway.private_address == private && gateway.public_address == public,
                "listed": private.is_some_and(|private| listed.contains(&private)),
                "tried": [gateway.powered_on.is_some(), gateway.power_cycled.is_some()],
            })
        })
        .collect();
    let mut roles: Vec<String> =
        status.gateways.iter().map(|gateway| format!("{:?}", gateway.role)).collect();
    roles.sort_unstable();
    let conditions: Vec<Value> = status
        .conditions
        .iter()
        .map(|condition| json!([condition.type_, condition.status, condition.reason]))
        .collect();
    let told = addresses_are_told(&state, &status);
    json!({
        "object": world.gateway().is_some(),
        "gateways": gateways, "roles": roles, "listed": listed.len(), "conditions": conditions,
        "head is active": listed.first() == status.gateways.iter().find(|gateway| Some(&gateway.name) == status.active.as_ref()).and_then(|gateway| gateway.private_address.as_ref()),
        "intents": status.creating.len(), "failed bring-ups": status.failed_bring_ups,
        "replaced": status.last_replacement.map(|last| json!([last.from, last.to])),
        "rolled": status.roll.map(|roll| json!([roll.from, roll.to, roll.ended.is_some(), roll.failure])),
        "ready": status.gateways_ready, "nodes": status.nodes,
        "route status": route.and_then(|route| route.status).map(|status| json!([status.nodes_applied, status.nodes_total])),
        "addresses are told": told, "addresses": addresses(&state),
        "droplets": droplets(&state), "firewalls": firewalls(&state),
        "journal": journal(&state),
        "of others": others(&state),
    })
}

// The status records what there is, and promises it.
fn addresses_are_told(state: &crate::world::State, status: &EgressGatewayStatus) -> bool {
    let there = reserved(state);
    let recorded: BTreeMap<String, Option<u64>> = status
        .reserved_ips
        .iter()
        .map(|one| (one.ip.clone(), one.droplet_id.and_then(|id| u64::try_from(id).ok())))
        .collect();
    let promised: BTreeSet<&String> = status.public_ips.iter().collect();
    recorded == there && (there.is_empty() || promised == there.keys().collect())
}

// By the names of those who hold them.
fn addresses(state: &crate::world::State) -> Vec<Option<String>> {
    let mut holders: Vec<Option<String>> =
        reserved(state).into_values().map(|holder| holder.map(|id| state.name_of(id))).collect();
    holders.sort_unstable();
    holders
}

fn reserved(state: &crate::world::State) -> BTreeMap<String, Option<u64>> {
    let ours = state.cloud.reserved_ips.values().filter(|one| state.addresses.contains(&one.ip));
    ours.map(|one| (one.ip.to_string(), one.droplet)).collect()
}

// The address in a tag is another one in each run.
fn tag(name: &str) -> &str {
    if name.starts_with(ADDRESS_TAG_PREFIX) { ADDRESS_TAG_PREFIX } else { name }
}

fn droplets(state: &crate::world::State) -> Vec<Value> {
    let mut droplets: Vec<Value> = state
        .billed()
        .map(|droplet| {
            let tags: BTreeSet<&str> = droplet.tags.iter().map(|one| tag(&one.name)).collect();
            json!({"name": droplet.name, "size": droplet.size, "image": droplet.image, "region": droplet.region, "vpc": droplet.vpc,
                   "tags": tags, "status": droplet.status})
        })
        .collect();
    droplets.sort_by_key(Value::to_string);
    droplets
}

// With addresses and ids as the names of the Droplets that have them.
fn firewalls(state: &crate::world::State) -> Vec<Value> {
    let mut walls = Vec::new();
    for wall in state.cloud.firewalls.values().filter(|wall| state.walls.contains(&wall.id) && !wall.deleted)
    {
        let mut text = json!({"droplets": wall.droplet_ids, "tags": wall.tags, "inbound": wall.inbound, "outbound": wall.outbound}).to_string();
        for droplet in state.billed() {
            text = text.replace(&droplet.id.to_string(), &format!("\"{}\"", droplet.name));
            if let Some(public) = state.leaves_with(droplet) {
                text = text.replace(&format!("{public}/32"), &droplet.name);
            }
        }
        let mut value: Value = serde_json::from_str(&text).unwrap();
        sort(&mut value);
        walls.push(value);
    }
    walls
}

fn sort(value: &mut Value) {
    match value {
        Value::Array(items) => {
            items.iter_mut().for_each(sort);
            items.sort_by_key(Value::to_string);
        }
        Value::Object(fields) => fields.values_mut().for_each(sort),
        _ => {}
    }
}

// How often each thing was done; what is safe to repeat counts once.
fn journal(state: &crate::world::State) -> BTreeMap<String, usize> {
    let mut done = BTreeMap::new();
    // How a firewall came to be as it is wanted takes more steps or fewer; what it is at the end is compared as a whole.
    for line in state.journal.iter().filter(|line| *line != "update firewall") {
        let count = done.entry(line.clone()).or_insert(0);
        *count = if line.starts_with("create") { *count + 1 } else { 1 };
    }
    done
}

fn others(state: &crate::world::State) -> Value {
    let droplets: Vec<Value> = state
        .cloud
        .droplets
        .values()
        .filter(|droplet| !state.ours.contains(&droplet.id))
        .map(|droplet| {
            json!([droplet.id, droplet.name, droplet.status, droplet.tags.len(), droplet.exists()])
        })
        .collect();
    let walls: Vec<&String> = state
        .cloud
        .firewalls
        .values()
        .filter(|wall| !state.walls.contains(&wall.id))
        .map(|wall| &wall.name)
        .collect();
    let addresses: Vec<Value> = state
        .cloud
        .reserved_ips
        .values()
        .filter(|one| !state.addresses.contains(&one.ip))
        .map(|one| json!([one.ip, one.droplet]))
        .collect();
    json!([droplets, walls, addresses])
}
