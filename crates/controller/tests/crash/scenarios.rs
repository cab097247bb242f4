//! What is done to the world while the controller runs. One entry adds a scenario to every harness of this test.

use egress_api::GatewayRole;
use serde_json::{Value, json};

use crate::world::{MERGE, OTHER_VPC, VPC, World};

const OWN: &str = "Ephemeral";
const RESERVED: &str = "ReservedPerGateway";
const FLOATING: &str = "Floating";

const OBJECTS: &str = "/apis/networking.digitalocean.com/v1alpha1/egressgateways";
const OBJECT: &str = "/apis/networking.digitalocean.com/v1alpha1/egressgateways/demo";

/// A stretch of a gateway's life.
#[derive(Clone, Copy)]
pub struct Scenario {
    pub name: &'static str,
    /// How many gateways there are before; none for no object.
    pub before: usize,
    /// Where their addresses come from.
    pub public_ip: &'static str,
    /// What somebody, or the world, does.
    pub act: fn(&World),
    /// Whether it has come to its end.
    pub is_over: fn(&World) -> bool,
    /// Whether two crashes are tried as well.
    pub pairs: bool,
    /// Whether a life takes so long that only `CRASH_POINTS=all` tries more of it than single crashes.
    pub long: bool,
}

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "create one",
        before: 0,
        public_ip: OWN,
        act: |world| ask_for(world, 1, OWN),
        is_over: |world| is_whole(world, 1),
        pairs: false,
        long: false,
    },
    Scenario {
        name: "create a pair",
        before: 0,
        public_ip: OWN,
        act: |world| ask_for(world, 2, OWN),
        is_over: |world| is_whole(world, 2),
        pairs: true,
        long: false,
    },
    Scenario {
        name: "replace one that is gone",
        before: 2,
        public_ip: OWN,
        act: lose_active,
        is_over: |world| is_renewed(world),
        pairs: true,
        long: false,
    },
    Scenario {
        name: "replace one that is dead",
        before: 2,
        public_ip: OWN,
        act: kill_active,
        is_over: |world| is_renewed(world),
        pairs: true,
        long: true,
    },
    Scenario {
        name: "power on one that is off",
        before: 2,
        public_ip: OWN,
        act: switch_active_off,
        is_over: |world| is_whole(world, 2),
        pairs: false,
        long: false,
    },
    Scenario {
        name: "power-cycle one that is frozen",
        before: 2,
        public_ip: OWN,
        act: freeze_active,
        is_over: |world| is_whole(world, 2),
        pairs: false,
        long: true,
    },
    Scenario {
        name: "one more",
        before: 1,
        public_ip: OWN,
        act: |world| scale(world, 2),
        is_over: |world| is_whole(world, 2),
        pairs: false,
        long: false,
    },
    Scenario {
        name: "one less",
        before: 2,
        public_ip: OWN,
        act: |world| scale(world, 1),
        is_over: |world| is_whole(world, 1),
        pairs: false,
        long: false,
    },
    Scenario {
        name: "roll on a spec change",
        before: 2,
        public_ip: OWN,
        act: grow,
        is_over: has_grown,
        pairs: false,
        long: true,
    },
    Scenario {
        name: "delete",
        before: 2,
        public_ip: OWN,
        act: delete,
        is_over: is_gone,
        pairs: true,
        long: false,
    },
    Scenario {
        name: "adopt after the status was lost",
        before: 2,
        public_ip: OWN,
        act: lose_status,
        is_over: |world| is_whole(world, 2),
        pairs: false,
        long: false,
    },
    Scenario {
        name: "create a pair with reserved addresses",
        before: 0,
        public_ip: RESERVED,
        act: |world| ask_for(world, 2, RESERVED),
        is_over: |world| is_whole(world, 2),
        pairs: false,
        long: false,
    },
    Scenario {
        name: "move the address of one that is gone",
        before: 2,
        public_ip: RESERVED,
        act: lose_active,
        is_over: |world| is_renewed(world),
        pairs: false,
        long: false,
    },
    Scenario {
        name: "move an address in a roll",
        before: 2,
        public_ip: RESERVED,
        act: grow,
        is_over: has_grown,
        pairs: false,
        long: true,
    },
    Scenario {
        name: "create a pair with one address that moves",
        before: 0,
        public_ip: FLOATING,
        act: |world| ask_for(world, 2, FLOATING),
        is_over: |world| is_whole(world, 2),
        pairs: false,
        long: false,
    },
    Scenario {
        name: "move the one address from a gateway that is dead",
        before: 2,
        public_ip: FLOATING,
        act: kill_active,
        is_over: |world| is_renewed(world),
        pairs: false,
        long: true,
    },
    Scenario {
        name: "move the one address in a roll",
        before: 2,
        public_ip: FLOATING,
        act: grow,
        is_over: has_grown,
        pairs: false,
        long: true,
    },
    Scenario {
        name: "give reserved addresses back",
        before: 2,
        public_ip: RESERVED,
        act: delete,
        is_over: is_gone,
        pairs: false,
        long: false,
    },
    Scenario {
        name: "leave all in the cloud",
        before: 2,
        public_ip: RESERVED,
        act: retain,
        is_over: is_gone,
        pairs: false,
        long: false,
    },
    Scenario {
        name: "adopt with reserved addresses",
        before: 2,
        public_ip: RESERVED,
        act: lose_status,
        is_over: |world| is_whole(world, 2),
        pairs: false,
        long: false,
    },
];

pub fn ask_for(world: &World, replicas: usize, public_ip: &str) {
    let object = json!({"apiVersion": "networking.digitalocean.com/v1alpha1", "kind": "EgressGateway", "metadata": {"name": "demo"},
        "spec": {"destinations": ["198.51.100.7", "198.51.100.64/26"], "publicIP": public_ip, "replicas": replicas}});
    world.write(http::Method::POST, OBJECTS, "application/json", &object);
    foreign_things(world);
}

// Our tags on a worker; our name and tags in another VPC; the name of another EgressGateway that begins like ours; a firewall.
fn foreign_things(world: &World) {
    let uid = world.gateway().unwrap().metadata.uid.unwrap();
    let short: String = uid.chars().take(8).collect();
    let cluster = world.cluster();
    let ours = [format!("egress-cluster:{cluster}"), format!("egress-owner:{uid}")];
    for tag in &ours {
        world.by_hand("POST", "/v2/tags", &json!({"name": tag}));
        let body = json!({"resources": [{"resource_id": "502", "resource_type": "droplet"}]});
        world.by_hand("POST", &format!("/v2/tags/{tag}/resources"), &body);
    }
    let droplet = |name: String, vpc: &str, tags: &[String]| json!({"name": name, "region": "nyc1", "size": "s-1vcpu-1gb", "image": "debian-12-x64", "vpc_uuid": vpc, "tags": tags});
    world.by_hand("POST", "/v2/droplets", &droplet(format!("demo-0-{short}"), OTHER_VPC, &ours));
    world.by_hand("POST", "/v2/droplets", &droplet(format!("demo-0-0-{short}"), VPC, &[]));
    world.by_hand("POST", "/v2/reserved_ips", &json!({"region": "nyc1"}));
    let rule = json!({"protocol": "tcp", "ports": "22", "sources": {"addresses": ["192.0.2.0/24"]}});
    world.by_hand(
        "POST",
        "/v2/firewalls",
        &json!({"name": "web", "droplet_ids": [501], "inbound_rules": [rule]}),
    );
}

fn active(world: &World) -> u64 {
    let status = world.status();
    let active = status.gateways.iter().find(|gateway| gateway.role == GatewayRole::Active).unwrap();
    u64::try_from(active.droplet_id).unwrap()
}

fn lose_active(world: &World) {
    world.by_hand("DELETE", &format!("/v2/droplets/{}", active(world)), &Value::Null);
}

fn kill_active(world: &World) {
    let active = active(world);
    world.state().machines.get_mut(&active).unwrap().dead = true;
}

fn freeze_active(world: &World) {
    let active = active(world);
    world.state().machines.get_mut(&active).unwrap().frozen = true;
}

fn switch_active_off(world: &World) {
    world.by_hand("POST", &format!("/v2/droplets/{}/actions", active(world)), &json!({"type": "power_off"}));
}

fn scale(world: &World, replicas: usize) {
    world.patch(OBJECT, MERGE, &json!({"spec": {"replicas": replicas}}));
}

const LARGER: &str = "s-2vcpu-2gb";

fn grow(world: &World) {
    world.patch(OBJECT, MERGE, &json!({"spec": {"droplet": {"size": LARGER}}}));
}

fn has_grown(world: &World) -> bool {
    is_whole(world, 2) && world.state().billed().all(|droplet| droplet.size == LARGER)
}

fn delete(world: &World) {
    world.write(http::Method::DELETE, OBJECT, "application/json", &json!({}));
}

fn retain(world: &World) {
    world.patch(OBJECT, MERGE, &json!({"spec": {"deletionPolicy": "Retain"}}));
    delete(world);
}

fn lose_status(world: &World) {
    world.patch(&format!("{OBJECT}/status"), MERGE, &json!({"status": null}));
}

/// Whether so many are proven, listed, walled, and nothing is under way.
pub fn is_whole(world: &World, replicas: usize) -> bool {
    let status = world.status();
    let calm = status.creating.is_empty()
        && status.gateways.len() == replicas
        && status.gateways.iter().all(|gateway| gateway.ready && gateway.role != GatewayRole::Leaving);
    let said = ["Ready=True", "Progressing=False", "Degraded=False"].iter().all(|wanted| {
        let words = |condition: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition| {
            format!("{}={}", condition.type_, condition.status)
        };
        status.conditions.iter().any(|condition| words(condition) == *wanted)
    });
    let walled = status.firewall.as_ref().is_some_and(|firewall| firewall.id.is_some());
    // Where they have one address nobody is asked for it but targets outside.
    let moves = world.gateway().is_some_and(|gateway| gateway.spec.public_ip.moves());
    let told = moves || status.gateways.iter().all(|gateway| gateway.admits.len() == replicas - 1);
    // All that were reserved are held, and nothing is under way.
    let settled = status.reserving_ip.is_none()
        && status.reserved_ips.iter().all(|one| one.droplet_id.is_some() && one.assigning.is_none());
    let observed =
        status.observed_generation == world.gateway().and_then(|gateway| gateway.metadata.generation);
    calm && said && walled && told && settled && observed && world.state().billed().count() == replicas
}

// Whole again, with a Droplet that was not there before.
fn is_renewed(world: &World) -> bool {
    is_whole(world, 2) && world.state().ours.len() == 3
}

fn is_gone(world: &World) -> bool {
    world.gateway().is_none()
}
