//! Values of the wrong type: the real API refuses them, so a client that sends one must not get away with it here.

use serde_json::{Value, json};

use crate::simulator::{Simulator, wish};

#[tokio::test]
async fn a_value_of_the_wrong_type_is_refused_by_its_field_and_changes_nothing() {
    let simulator = Simulator::driven().await;
    let id = simulator.droplet("gw-0").await;
    let address = simulator.call("POST", "/v2/reserved_ips", &json!({"region": "nyc1"})).await.1;
    let address = address["reserved_ip"]["ip"].as_str().unwrap().to_owned();
    let droplet = |field: &str, value: Value| {
        let mut body = wish("gw-1");
        body[field] = value;
        ("/v2/droplets".to_owned(), body)
    };
    let action = |body: Value| (format!("/v2/droplets/{id}/actions"), body);
    let reserve = |body: Value| ("/v2/reserved_ips".to_owned(), body);
    let assign = |body: Value| (format!("/v2/reserved_ips/{address}/actions"), body);
    let before = simulator.get("/simulator/state").await;
    for ((path, body), expected) in [
        (droplet("user_data", json!(5)), "user_data must be a string."),
        (droplet("user_data", Value::Null), "user_data must be a string."),
        (droplet("size", json!({"slug": "a"})), "You specified an invalid size for Droplet creation."),
        (droplet("region", json!(1)), "region must be a string."),
        (droplet("vpc_uuid", json!(true)), "vpc_uuid must be a string."),
        (droplet("monitoring", json!("yes")), "monitoring must be true or false."),
        (droplet("backups", json!(1)), "backups must be true or false."),
        (droplet("ipv6", json!("true")), "ipv6 must be true or false."),
        (droplet("with_droplet_agent", json!(0)), "with_droplet_agent must be true or false."),
        (droplet("public_networking", json!("no")), "public_networking must be true or false."),
        (droplet("private_networking", json!("no")), "private_networking must be true or false."),
        (droplet("backup_policy", json!("daily")), "backup_policy must be an object."),
        (droplet("tags", json!("egress-gateway")), "tags must be a list of strings."),
        (droplet("tags", json!([5])), "tags must be a list of strings."),
        (droplet("ssh_keys", json!("ops")), "ssh_keys must be a list."),
        (droplet("volumes", json!("v")), "volumes must be a list of ids."),
        (droplet("volumes", json!([5])), "volumes must be a list of ids."),
        (droplet("image", json!(true)), "You specified an invalid image for Droplet creation."),
        (action(json!({"type": 5})), "type must be a string."),
        (action(json!({"type": "rename", "name": 5})), "name must be a string."),
        (action(json!({"type": "resize", "size": 5})), "size must be a string."),
        (action(json!({"type": "snapshot", "name": 5})), "name must be a string."),
        (reserve(json!({"droplet_id": id.to_string()})), "droplet_id must be an integer."),
        (reserve(json!({"region": 1})), "region must be a string."),
        (reserve(json!({"region": "nyc1", "project_id": 5})), "project_id must be a string."),
        (assign(json!({"type": "assign", "droplet_id": "1"})), "droplet_id must be an integer."),
        (assign(json!({"type": ["unassign"]})), "type must be a string."),
        (
            (
                "/v2/tags/egress-gateway/resources".into(),
                json!({"resources": [{"resource_type": "droplet", "resource_id": id}]}),
            ),
            "resource_id must be a string.",
        ),
    ] {
        let (status, said) = simulator.call("POST", &path, &body).await;
        assert_eq!((status, &said["message"]), (422, &json!(expected)), "{path} {body}");
    }
    assert_eq!(simulator.get("/simulator/state").await, before);
}

#[tokio::test]
async fn what_other_clients_send_and_the_real_api_takes_is_taken() {
    let simulator = Simulator::driven().await;
    for (n, (field, value)) in [
        ("ssh_keys", Value::Null),
        ("tags", Value::Null),
        ("volumes", json!([{"id": "506f78a4-e098-11e5-ad9f-000f53306ae1"}])),
        ("private_networking", json!(true)),
    ]
    .into_iter()
    .enumerate()
    {
        let mut body = wish(&format!("gw-{n}"));
        body[field] = value;
        let (status, said) = simulator.call("POST", "/v2/droplets", &body).await;
        assert_eq!(status, 202, "{body}: {said}");
    }
}
