use super::super::{Cloud, Delays, later};
use super::*;
use crate::cloud::{Effect, Request};

struct World(Cloud, Timestamp);

impl World {
    fn with(machines: bool) -> Self {
        let mut world =
            Self(Cloud::new(Delays::quick(), machines), Timestamp::from_second(1_770_000_000).unwrap());
        world.droplet("gw-0", &["owner:a"]);
        world
    }

    /// A world whose one Droplet runs, with its tag landed.
    fn settled() -> Self {
        let mut world = Self::with(false);
        world.wait(2_000);
        world
    }

    fn call(&mut self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let request = Request { method: method.into(), path: path.into(), query: Vec::new(), body };
        let answer = self.0.apply(&request, None, self.1);
        (answer.status, answer.body.unwrap_or(Value::Null))
    }

    fn get(&mut self, path: &str) -> Value {
        self.call("GET", path, &Value::Null).1
    }

    fn droplet(&mut self, name: &str, tags: &[&str]) -> u64 {
        let body = json!({"name": name, "size": "s-1vcpu-1gb", "image": "debian-12-x64", "region": "nyc1", "tags": tags});
        let (status, body) = self.call("POST", "/v2/droplets", &body);
        assert_eq!(status, 202, "{body}");
        body["droplet"]["id"].as_u64().unwrap()
    }

    /// A firewall's address.
    fn firewall(&mut self, body: &Value) -> String {
        let (status, body) = self.call("POST", "/v2/firewalls", body);
        assert_eq!(status, 202, "{body}");
        format!("/v2/firewalls/{}", body["firewall"]["id"].as_str().unwrap())
    }

    fn wait(&mut self, milliseconds: u64) {
        self.1 = later(self.1, milliseconds);
        self.0.advance(self.1);
    }

    fn first(&self) -> u64 {
        *self.0.droplets.keys().next().unwrap()
    }

    fn inbound(&self, droplet: u64) -> Value {
        self.0.policy_json(droplet)["rules"]["inbound"].clone()
    }

    fn is_open(&self, droplet: u64) -> bool {
        self.0.policy_json(droplet)["rules"].is_null()
    }
}

const DELAY: u64 = Delays::quick().firewall;

fn from(addresses: &[&str], port: &str) -> Value {
    json!({"protocol": "tcp", "ports": port, "sources": {"addresses": addresses}})
}

fn wanted() -> Value {
    json!({"name": "gw-1a2b", "tags": ["owner:a"], "inbound_rules": [
        from(&["203.0.113.21", "2001:db8::/32"], "9181"),
        {"protocol": "icmp", "sources": {"addresses": ["10.116.0.0/20"]}},
        {"protocol": "udp", "ports": "all", "sources": {"tags": ["owner:a"]}}]})
}

#[test]
fn a_change_waits_for_the_droplets_it_concerns_and_an_update_resets_what_it_omits() {
    let mut world = World::settled();
    let id = world.first();
    let address = world.firewall(&wanted());
    let body = world.get(&address);
    let waiting = json!([{"droplet_id": id, "removing": false, "status": "waiting"}]);
    assert_eq!(
        (&body["firewall"]["status"], &body["firewall"]["pending_changes"]),
        (&json!("waiting"), &waiting)
    );
    assert!(world.is_open(id), "it acts before it is due");
    world.wait(DELAY - 1);
    assert!(world.is_open(id), "it acts before it is due");
    world.wait(1);
    let body = world.get(&address);
    assert_eq!(
        (&body["firewall"]["status"], &body["firewall"]["pending_changes"]),
        (&json!("succeeded"), &json!([]))
    );
    assert_eq!(
        world.inbound(id)[0],
        json!({"protocol": "tcp", "ports": "9181", "addresses": ["203.0.113.21/32"]})
    );

    let fewer = json!({"name": "gw-1a2b", "outbound_rules": [
        {"protocol": "tcp", "ports": "1-65535", "destinations": {"addresses": ["0.0.0.0/0"]}}]});
    let (status, body) = world.call("PUT", &address, &fewer);
    assert_eq!(
        (status, &body["firewall"]["tags"], &body["firewall"]["inbound_rules"]),
        (200, &json!([]), &json!([]))
    );
    assert_eq!(body["firewall"]["pending_changes"][0]["removing"], true, "{body}");
    assert!(!world.is_open(id), "it is gone before it is due");
    world.wait(DELAY);
    assert!(world.is_open(id));
}

#[test]
fn a_deleted_firewall_is_unknown_at_once_and_acts_a_while_longer() {
    let mut world = World::settled();
    let id = world.first();
    let address = world.firewall(&wanted());
    world.wait(DELAY);
    assert_eq!(world.call("DELETE", &address, &Value::Null).0, 204);
    assert_eq!(world.call("DELETE", &address, &Value::Null).0, 404);
    assert_eq!(world.call("PUT", &address, &wanted()).0, 404);
    assert_eq!(world.get("/v2/firewalls")["meta"]["total"], 0);
    assert_eq!(world.get(&format!("/v2/droplets/{id}/firewalls"))["meta"]["total"], 0);
    assert!(!world.is_open(id));
    world.wait(DELAY);
    assert!(world.is_open(id));
    assert_eq!(world.0.firewalls.len(), 0, "nothing of it is left");
}

#[test]
fn a_new_droplet_is_open_until_its_tag_has_landed_and_the_change_is_through() {
    let mut world = World::settled();
    let address = world.firewall(&wanted());
    world.wait(DELAY);
    let second = world.droplet("gw-1", &["owner:a"]);
    assert_eq!(world.get(&address)["firewall"]["status"], "succeeded");
    world.wait(Delays::quick().tag_index + DELAY - 1);
    assert!(world.is_open(second));
    // Both: the first one, too, is to admit the second.
    let pending = world.get(&address)["firewall"]["pending_changes"].clone();
    let pending: Vec<_> =
        pending.as_array().unwrap().iter().map(|change| change["droplet_id"].clone()).collect();
    assert_eq!(pending, [world.first(), second]);
    world.wait(1);
    assert!(!world.is_open(second));
    let udp = world.inbound(world.first())[1].clone();
    let addresses: Vec<_> = world.0.droplets[&second].addresses().map(|one| format!("{one}/32")).collect();
    for address in addresses {
        assert!(udp["addresses"].as_array().unwrap().contains(&json!(address)), "{udp}");
    }
}

#[test]
fn what_the_firewalls_of_a_droplet_let_through_adds_up() {
    let mut world = World::settled();
    let id = world.first();
    world.firewall(&wanted());
    world.firewall(
        &json!({"name": "by-id", "droplet_ids": [id], "inbound_rules": [from(&["0.0.0.0/0"], "22")]}),
    );
    assert_eq!(world.get(&format!("/v2/droplets/{id}/firewalls"))["meta"]["total"], 2);
    world.wait(DELAY);
    let ports: Vec<_> =
        world.inbound(id).as_array().unwrap().iter().map(|rule| rule["ports"].clone()).collect();
    assert_eq!(ports, ["22", "9181", "0", "0"]);
}

#[test]
fn a_droplet_that_is_gone_leaves_its_firewalls_at_once_and_a_tag_that_is_gone_too() {
    let mut world = World::settled();
    let id = world.first();
    let address = world
        .firewall(&json!({"name": "both", "droplet_ids": [id], "tags": ["owner:a"], "inbound_rules": [
        from(&["192.0.2.1"], "22")]}));
    world.wait(DELAY);
    assert_eq!(world.call("DELETE", "/v2/tags/owner:a", &Value::Null).0, 204);
    assert_eq!(world.get(&address)["firewall"]["tags"], json!([]));
    assert_eq!(world.call("DELETE", &format!("/v2/droplets/{id}"), &Value::Null).0, 204);
    assert_eq!(world.get(&address)["firewall"]["droplet_ids"], json!([id]), "it still answers");
    world.wait(Delays::quick().delete);
    let body = world.get(&address);
    assert_eq!(
        (&body["firewall"]["droplet_ids"], &body["firewall"]["status"]),
        (&json!([]), &json!("succeeded"))
    );
}

#[test]
fn parts_join_and_leave() {
    let mut world = World::settled();
    let id = world.first();
    let address = world.firewall(&json!({"name": "parts", "inbound_rules": [from(&["192.0.2.1"], "22")]}));
    let more = json!({"inbound_rules": [from(&["192.0.2.2"], "80")], "outbound_rules": [
        {"protocol": "icmp", "destinations": {"addresses": ["0.0.0.0/0"]}}]});
    for (part, body) in [
        ("droplets", json!({"droplet_ids": [id]})),
        ("tags", json!({"tags": ["OWNER:A"]})),
        ("rules", more.clone()),
    ] {
        assert_eq!(world.call("POST", &format!("{address}/{part}"), &body), (204, Value::Null), "{part}");
    }
    let body = world.get(&address)["firewall"].clone();
    assert_eq!((&body["droplet_ids"], &body["tags"]), (&json!([id]), &json!(["owner:a"])));
    assert_eq!(body["inbound_rules"].as_array().unwrap().len(), 2);
    assert_eq!(body["outbound_rules"][0]["ports"], "0");
    assert_eq!(world.call("POST", &format!("{address}/rules"), &more).0, 422, "a rule twice");
    for (part, body) in
        [("droplets", json!({"droplet_ids": [id]})), ("tags", json!({"tags": ["owner:a"]})), ("rules", more)]
    {
        assert_eq!(world.call("DELETE", &format!("{address}/{part}"), &body).0, 204, "{part}");
        assert_eq!(world.call("DELETE", &format!("{address}/{part}"), &body).0, 422, "{part} again");
    }
    let last = json!({"inbound_rules": [from(&["192.0.2.1"], "22")]});
    assert_eq!(world.call("DELETE", &format!("{address}/rules"), &last).0, 422, "the last rule");
}

#[test]
fn what_no_firewall_can_be_is_refused_in_the_clouds_words() {
    let addresses: Vec<_> = (0..1_001).map(|n| format!("10.{}.{}.1", n / 250, n % 250)).collect();
    let rules: Vec<_> = (1..=51).map(|port| from(&["192.0.2.1"], &port.to_string())).collect();
    for (pointer, bad, words) in [
        ("/name", json!("a_b"), "name"),
        ("/name", Value::Null, "name"),
        ("/tags", json!(["nobody-has-this"]), "tag nobody-has-this does not exist"),
        ("/tags", json!(["a", "b", "c", "d", "e", "f"]), "at most 5 tags"),
        ("/droplet_ids", json!([1]), "droplet 1 does not exist"),
        ("/inbound_rules/0/protocol", json!("gre"), "protocol"),
        ("/inbound_rules/0/ports", json!("ssh"), "invalid port range"),
        ("/inbound_rules/0/ports", json!("9-8"), "invalid port range"),
        ("/inbound_rules/0/ports", json!("65536"), "invalid port range"),
        ("/inbound_rules/0/ports", Value::Null, "invalid port range"),
        ("/inbound_rules/0/sources", json!({}), "sources"),
        ("/inbound_rules/0/sources", json!({"addresses": ["here"]}), "invalid address"),
        ("/inbound_rules/0/sources", json!({"adresses": ["0.0.0.0/0"]}), "adresses"),
        ("/inbound_rules/0/sources", json!({"addresses": addresses}), "at most 1000"),
        (
            "/inbound_rules/2/sources",
            json!({"tags": ["nobody-has-this"]}),
            "tag nobody-has-this does not exist",
        ),
        ("/inbound_rules/0", wanted()["inbound_rules"][1].clone(), "duplicate rule"),
        ("/inbound_rules", json!([]), "at least one"),
        ("/inbound_rules", json!(rules), "at most 50 rules"),
    ] {
        let mut world = World::settled();
        for tag in ["a", "b", "c", "d", "e", "f"] {
            world.call("POST", "/v2/tags", &json!({"name": tag}));
        }
        let address =
            world.firewall(&json!({"name": "other", "inbound_rules": [from(&["192.0.2.1"], "22")]}));
        let mut body = wanted();
        body["droplet_ids"] = json!([]);
        *body.pointer_mut(pointer).unwrap() = bad;
        for (method, path) in [("POST", "/v2/firewalls"), ("PUT", address.as_str())] {
            let (status, answer) = world.call(method, path, &body);
            assert_eq!(status, 422, "{method} {pointer}: {answer}");
            let said = answer["message"].as_str().unwrap();
            assert!(said.contains(words), "{method} {pointer}: {said}");
        }
        assert_eq!(world.get("/v2/firewalls")["meta"]["total"], 1, "{pointer}");
    }
}

#[test]
fn a_name_is_taken_once() {
    let mut world = World::settled();
    let address = world.firewall(&wanted());
    let (status, body) = world.call("POST", "/v2/firewalls", &wanted());
    assert_eq!((status, body), (409, json!({"id": "conflict", "message": "duplicate name"})));
    assert_eq!(world.call("PUT", &address, &wanted()).0, 200, "its own");
    world.call("DELETE", &address, &Value::Null);
    world.firewall(&wanted());
}

#[test]
fn a_firewall_waits_until_the_machine_room_has_confirmed_what_is_asked_for_now() {
    let mut world = World::with(true);
    let boot: Vec<Effect> = world.0.take_effects();
    world.0.machine_finished(boot[0].action, true, world.1);
    world.wait(2_000);
    let id = world.first();
    let address = world.firewall(&wanted());
    assert_eq!(world.0.enforcements(), []);
    world.wait(DELAY);
    let told = world.0.enforcements();
    assert_eq!((told.len(), told[0].droplet, &told[0].policy), (1, id, &world.0.policy_json(id)));
    assert_eq!(world.get(&address)["firewall"]["status"], "waiting");

    // Another change meanwhile: what was told is old.
    let other = json!({"name": "other", "droplet_ids": [id], "inbound_rules": [from(&["192.0.2.1"], "22")]});
    let other = world.firewall(&other);
    world.wait(DELAY);
    world.0.enforced(&told[0]);
    assert_eq!(world.get(&address)["firewall"]["status"], "waiting");
    let told = world.0.enforcements();
    world.0.enforced(&told[0]);
    for firewall in [&address, &other] {
        assert_eq!(world.get(firewall)["firewall"]["status"], "succeeded");
    }
    assert_eq!(world.0.enforcements(), []);

    // A restart forgets nothing that was not confirmed.
    world.call("DELETE", &address, &Value::Null);
    world.wait(DELAY);
    let text = serde_json::to_string(&world.0).unwrap();
    world.0 = serde_json::from_str(&text).unwrap();
    let told = world.0.enforcements();
    assert_eq!(told.len(), 1);
    world.0.enforced(&told[0]);
    assert_eq!(world.0.firewalls.len(), 1, "a deleted firewall stays until Droplets forgot it");

    // The machine room hears of a Droplet's end as well.
    world.call("DELETE", &format!("/v2/droplets/{id}"), &Value::Null);
    let end = world.0.take_effects();
    world.0.machine_finished(end[0].action, true, world.1);
    world.wait(Delays::quick().delete);
    let told = world.0.enforcements();
    assert_eq!((told.len(), &told[0].policy["rules"]), (1, &Value::Null));
}
