//! Lists: their filters and pages, tags and the index that lags behind them.

use super::*;

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
