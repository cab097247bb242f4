//! The state machines, step by step on a clock of the test's own.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::*;

const D: Delays = Delays::quick();

/// A cloud, its time, and shorthand for calls.
struct World {
    cloud: Cloud,
    now: Timestamp,
}

impl World {
    fn new(machines: bool) -> Self {
        let mut cloud = Cloud::new(D, machines);
        cloud.vpcs.push(Vpc {
            id: "vpc-1".into(),
            name: "lab".into(),
            description: String::new(),
            region: "nyc1".into(),
            default: true,
            created_at: Timestamp::UNIX_EPOCH,
            pool: address::Pool::of("10.116.0.0/20".parse().unwrap()),
        });
        cloud.account.floating_ip_limit = 3;
        Self { cloud, now: Timestamp::from_second(1_770_000_000).unwrap() }
    }

    fn call_with(
        &mut self,
        method: &str,
        address: &str,
        body: &Value,
        variant: Option<&Variant>,
    ) -> (u16, Value) {
        let (path, query) = address.split_once('?').unwrap_or((address, ""));
        let query = query.split('&').filter_map(|pair| pair.split_once('='));
        let request = Request {
            method: method.into(),
            path: path.into(),
            query: query.map(|(key, value)| (key.into(), value.into())).collect(),
            body: if body.is_null() { Vec::new() } else { body.to_string().into_bytes() },
        };
        let answer = self.cloud.apply(&request, variant, self.now);
        (answer.status, answer.body.unwrap_or(Value::Null))
    }

    fn call(&mut self, method: &str, address: &str, body: &Value) -> (u16, Value) {
        self.call_with(method, address, body, None)
    }

    fn get(&mut self, address: &str) -> (u16, Value) {
        self.call("GET", address, &Value::Null)
    }

    fn wait(&mut self, milliseconds: u64) {
        self.now = later(self.now, milliseconds);
    }

    fn create(&mut self, variant: Option<&Variant>) -> u64 {
        let (status, body) = self.call_with("POST", "/v2/droplets", &wish("gw-0"), variant);
        assert_eq!(status, 202, "{body}");
        body["droplet"]["id"].as_u64().unwrap()
    }

    /// A Droplet whose create is through and that the tag index knows.
    fn live(&mut self) -> u64 {
        let id = self.create(None);
        for effect in self.cloud.take_effects() {
            self.cloud.machine_finished(effect.action, true, self.now);
        }
        self.wait(D.networks.max(D.tag_index));
        assert_eq!(self.state(id), ("active".into(), 2, false));
        id
    }

    /// Status, number of v4 networks, locked.
    fn state(&mut self, id: u64) -> (String, usize, bool) {
        let (status, body) = self.get(&format!("/v2/droplets/{id}"));
        assert_eq!(status, 200, "{body}");
        let droplet = &body["droplet"];
        (
            droplet["status"].as_str().unwrap().into(),
            droplet["networks"]["v4"].as_array().unwrap().len(),
            droplet["locked"].as_bool().unwrap(),
        )
    }

    fn tagged(&mut self) -> u64 {
        self.get("/v2/droplets?tag_name=egress-gateway").1["meta"]["total"].as_u64().unwrap()
    }

    fn action_status(&mut self, id: &Value) -> String {
        self.get(&format!("/v2/actions/{id}")).1["action"]["status"].as_str().unwrap().into()
    }
}

fn wish(name: &str) -> Value {
    json!({
        "name": name, "region": "nyc1", "size": "s-1vcpu-1gb", "image": "debian-12-x64", "vpc_uuid": "vpc-1",
        "tags": ["egress-gateway", "egress-slot:0"], "user_data": "#cloud-config",
    })
}

fn message(body: &Value) -> &str {
    body["message"].as_str().unwrap_or_default()
}

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
fn the_tag_index_lags_behind_create_and_delete() {
    let mut world = World::new(false);
    let id = world.create(None);
    world.wait(D.tag_index - 1);
    assert_eq!(world.tagged(), 0);
    world.wait(1);
    assert_eq!(world.tagged(), 1);
    assert_eq!(world.call("DELETE", &format!("/v2/droplets/{id}"), &Value::Null).0, 204);
    world.wait(D.delete);
    assert_eq!(world.get(&format!("/v2/droplets/{id}")).0, 404);
    assert_eq!(world.get("/v2/droplets").1["meta"]["total"], 0);
    assert_eq!(world.tagged(), 1, "the index has not noticed yet");
    world.wait(D.tag_ghost);
    assert_eq!(world.tagged(), 0);
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
fn creates_can_be_made_to_go_wrong() {
    let mut world = World::new(true);
    let id = world.create(Some(&Variant::Vanish(200)));
    assert!(world.cloud.take_effects().is_empty(), "nothing boots");
    assert_eq!(world.state(id).0, "new");
    world.wait(200);
    assert_eq!(world.get(&format!("/v2/droplets/{id}")).0, 404);

    let id = world.create(Some(&Variant::StuckNew));
    world.wait(1_000_000);
    assert_eq!(world.state(id), ("new".into(), 0, true));

    let mut world = World::new(false);
    let id = world.create(Some(&Variant::HiddenGets(2)));
    let seen: Vec<u16> = (0..3).map(|_| world.get(&format!("/v2/droplets/{id}")).0).collect();
    assert_eq!(seen, [404, 404, 200]);

    let id = world.create(Some(&Variant::NetworksLate(5_000)));
    world.wait(D.networks + 4_999);
    assert_eq!(world.state(id), ("active".into(), 0, true));
    world.wait(1);
    assert_eq!(world.state(id), ("active".into(), 2, false));

    let id = world.create(Some(&Variant::ActionErrored));
    world.wait(D.networks);
    let actions = world.get(&format!("/v2/droplets/{id}/actions")).1;
    assert_eq!(actions["actions"][0]["status"], "errored");
    assert_eq!(world.state(id), ("active".into(), 0, false));
}

#[test]
fn bad_creates_are_refused_by_name_and_nothing_is_made() {
    let mut world = World::new(false);
    world.cloud.vpcs.push(Vpc { id: "vpc-fra".into(), region: "fra1".into(), ..world.cloud.vpcs[0].clone() });
    let long = "x".repeat(64 * 1024 + 1);
    let eleven: Vec<String> = (0..11).map(|n| format!("gw-{n}")).collect();
    let cases = [
        ("name", Value::Null, "Name can't be blank."),
        (
            "name",
            json!("under_score"),
            "Only valid hostname characters are allowed. (a-z, A-Z, 0-9, . and -)",
        ),
        ("name", json!("ends-"), "Only valid hostname characters are allowed. (a-z, A-Z, 0-9, . and -)"),
        ("names", json!(["a"]), "Specify either name or names, not both."),
        ("size", Value::Null, "You specified an invalid size for Droplet creation."),
        ("size", json!("s-99vcpu"), "You specified an invalid size for Droplet creation."),
        ("image", Value::Null, "You specified an invalid image for Droplet creation."),
        ("image", json!("debian-3-x64"), "You specified an invalid image for Droplet creation."),
        ("region", json!("moon1"), "You specified an invalid region for Droplet creation."),
        ("region", json!("nyc2"), "Region is not available."),
        ("vpc_uuid", json!("nowhere"), "The VPC you specified could not be found."),
        ("vpc_uuid", json!("vpc-fra"), "The VPC is not in the same region as the Droplet."),
        ("user_data", json!(long), "User data is too long (maximum is 64 KiB)."),
        ("ssh_keys", json!([1, "ab:cd"]), "1, ab:cd are invalid key identifiers for Droplet creation."),
        (
            "tags",
            json!(["a.b"]),
            "Tag names may only contain letters, numbers, colons, dashes, and underscores.",
        ),
    ];
    for (field, value, expected) in cases {
        let mut body = wish("gw-0");
        body[field] = value;
        let (status, answer) = world.call("POST", "/v2/droplets", &body);
        assert_eq!((status, message(&answer)), (422, expected), "{field}");
    }
    let mut many = wish("x");
    many.as_object_mut().unwrap().remove("name");
    many["names"] = json!(eleven);
    let (status, answer) = world.call("POST", "/v2/droplets", &many);
    assert_eq!((status, message(&answer)), (422, "You can only create up to 10 Droplets at a time."));
    world.cloud.sizes[1].regions = vec!["fra1".into()];
    let (status, answer) = world.call("POST", "/v2/droplets", &wish("gw-0"));
    assert_eq!((status, message(&answer)), (422, "Size is not available in this region."));
    assert!(world.cloud.droplets.is_empty());
}

#[test]
fn the_droplet_limit_counts_what_exists() {
    let mut world = World::new(false);
    world.cloud.account.droplet_limit = 1;
    let id = world.live();
    let (status, body) = world.call("POST", "/v2/droplets", &wish("gw-1"));
    assert_eq!(
        (status, message(&body)),
        (422, "creating this/these droplet(s) will exceed your droplet limit")
    );
    world.call("DELETE", &format!("/v2/droplets/{id}"), &Value::Null);
    world.wait(D.delete);
    assert_eq!(world.call("POST", "/v2/droplets", &wish("gw-1")).0, 202);
}

#[test]
fn what_other_clients_send_is_taken() {
    let mut world = World::new(false);
    let mut body = wish("gw-0");
    body["ssh_keys"] = Value::Null;
    body["volumes"] = json!([{"id": "v-1"}]);
    body["private_networking"] = json!(false);
    body["anti_affinity_key"] = json!("gw");
    let (status, answer) = world.call("POST", "/v2/droplets", &body);
    assert_eq!((status, &answer["droplet"]["volume_ids"]), (202, &json!(["v-1"])));
    let image = world.cloud.images[0].id;
    body = json!({"names": ["a", "b"], "size": "s-1vcpu-1gb", "image": image, "region": "fra"});
    let (status, answer) = world.call("POST", "/v2/droplets", &body);
    assert_eq!((status, answer["droplets"].as_array().map(Vec::len)), (202, Some(2)));
    assert_eq!(answer["links"]["actions"].as_array().map(Vec::len), Some(2));
    assert_eq!(world.cloud.vpcs.last().map(|vpc| (vpc.region.as_str(), vpc.default)), Some(("fra1", true)));
}

#[test]
fn a_private_droplet_has_no_public_side() {
    let mut world = World::new(false);
    let mut body = wish("gw-0");
    body["public_networking"] = json!(false);
    let id = world.call("POST", "/v2/droplets", &body).1["droplet"]["id"].as_u64().unwrap();
    world.wait(D.networks);
    assert_eq!(world.state(id).1, 1);
    let (status, _) = world.call("POST", "/v2/reserved_ips", &json!({"droplet_id": id}));
    assert_eq!(status, 422);
}

#[test]
fn lists_filter_by_name_tag_and_type() {
    let mut world = World::new(false);
    world.live();
    for (query, total) in
        [("name=GW-0", 1), ("name=gw", 0), ("type=gpus", 0), ("type=droplets", 1), ("tag_name=none", 0)]
    {
        assert_eq!(world.get(&format!("/v2/droplets?{query}")).1["meta"]["total"], total, "{query}");
    }
    assert_eq!(world.get("/v2/droplets?tag_name=a&name=b").0, 422);
}

#[test]
fn deleting_by_tag_takes_what_the_index_lists() {
    let mut world = World::new(false);
    world.live();
    assert_eq!(world.call("DELETE", "/v2/droplets?tag_name=nothing", &Value::Null).0, 404);
    assert_eq!(world.call("DELETE", "/v2/droplets?tag_name=egress-gateway", &Value::Null).0, 204);
    world.wait(D.delete);
    assert_eq!(world.get("/v2/droplets").1["meta"]["total"], 0);
}

#[test]
fn tags_keep_their_first_spelling() {
    let mut world = World::new(false);
    let id = world.live();
    assert_eq!(
        world.call("POST", "/v2/tags", &json!({"name": "Egress-Gateway"})).1["tag"]["name"],
        "egress-gateway"
    );
    let resources = json!({"resources": [{"resource_id": id.to_string(), "resource_type": "droplet"}]});
    assert_eq!(world.call("POST", "/v2/tags", &json!({"name": "blue"})).0, 201);
    assert_eq!(world.call("POST", "/v2/tags/blue/resources", &resources).0, 204);
    assert_eq!(world.get("/v2/tags/blue").1["tag"]["resources"]["droplets"]["count"], 1);
    assert_eq!(world.get("/v2/droplets?tag_name=blue").1["meta"]["total"], 0, "the index lags");
    world.wait(D.tag_index);
    assert_eq!(world.get("/v2/droplets?tag_name=blue").1["meta"]["total"], 1);
    assert_eq!(world.call("DELETE", "/v2/tags/blue/resources", &resources).0, 204);
    assert_eq!(world.get("/v2/droplets?tag_name=blue").1["meta"]["total"], 0);
    assert_eq!(world.call("DELETE", "/v2/tags/egress-slot%3A0", &Value::Null).0, 204);
    assert_eq!(world.get(&format!("/v2/droplets/{id}")).1["droplet"]["tags"], json!(["egress-gateway"]));
    assert_eq!(world.call("POST", "/v2/tags", &json!({"name": "a.b"})).0, 400);
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
fn pages_of_450_droplets_are_whole_and_link_to_each_other() {
    let mut world = World::new(false);
    world.cloud.account.droplet_limit = 1000;
    world.cloud.pools.public = address::Pool::of("198.18.0.0/16".parse().unwrap());
    for round in 0..45 {
        let names: Vec<String> = (0..10).map(|n| format!("d-{round}-{n}")).collect();
        let mut body = wish("x");
        body.as_object_mut().unwrap().remove("name");
        body["names"] = json!(names);
        assert_eq!(world.call("POST", "/v2/droplets", &body).0, 202);
    }
    world.wait(D.tag_index);
    let mut seen = BTreeSet::new();
    for number in 1..=3 {
        let (status, body) =
            world.get(&format!("/v2/droplets?tag_name=egress-slot:0&per_page=200&page={number}"));
        assert_eq!((status, &body["meta"]["total"]), (200, &json!(450)));
        seen.extend(
            body["droplets"].as_array().unwrap().iter().map(|droplet| droplet["id"].as_u64().unwrap()),
        );
        let pages = body["links"]["pages"].as_object().unwrap();
        let keys: BTreeSet<&str> = pages.keys().map(String::as_str).collect();
        let expected: &[&str] = match number {
            1 => &["last", "next"],
            2 => &["first", "last", "next", "prev"],
            _ => &["first", "prev"],
        };
        assert_eq!(keys, expected.iter().copied().collect());
        if number == 1 {
            assert_eq!(
                pages["next"],
                "https://api.digitalocean.com/v2/droplets?page=2&tag_name=egress-slot%3A0&per_page=200"
            );
        }
    }
    assert_eq!(seen.len(), 450);
    assert_eq!(world.get("/v2/droplets?page=4&per_page=200").1["droplets"], json!([]));
    assert_eq!(world.get("/v2/droplets?per_page=201").0, 422);
    assert_eq!(world.get("/v2/vpcs").1["links"], json!({}));
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
