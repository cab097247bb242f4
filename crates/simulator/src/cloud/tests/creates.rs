//! What a create takes, what it refuses, and how it can be made to go wrong.

use super::*;

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
