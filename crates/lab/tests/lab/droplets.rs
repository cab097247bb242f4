//! Droplets made through the cloud's API, and what can befall them.

use std::net::{Ipv4Addr, SocketAddrV4};

use serde_json::{Value, json};

use crate::world::{World, eventually, traces};

const NAME: &str = "gw-test";

fn cloud(world: &World, arguments: &[&str]) -> Value {
    serde_json::from_str(&world.run(&[&["cloud"], arguments].concat())).unwrap_or_default()
}

#[test]
fn a_droplet_lives_dies_and_comes_back_as_the_commands_say() {
    let simulator = std::path::Path::new(env!("CARGO_BIN_EXE_egress-lab")).with_file_name("do-simulator");
    assert!(simulator.exists(), "{} is missing: cargo build -p do-simulator", simulator.display());
    let world = World::start(&["--size", "network"]);
    let vpc = cloud(&world, &["GET", "/v2/vpcs"])["vpcs"][0]["id"].clone();
    let wanted = json!({"name": NAME, "region": "nyc1", "size": "s-1vcpu-1gb", "image": "debian-12-x64", "vpc_uuid": vpc});
    let id = cloud(&world, &["POST", "/v2/droplets", &wanted.to_string()])["droplet"]["id"].as_u64().unwrap();
    let path = format!("/v2/droplets/{id}");
    let status = || cloud(&world, &["GET", &path])["droplet"]["status"].as_str().unwrap().to_owned();
    eventually("the Droplet is active", || (status() == "active").then_some(()));
    // The addresses may be told later than the status, as in life.
    let private: Ipv4Addr = eventually("the Droplet's private address is known", || {
        let networks = cloud(&world, &["GET", &path])["droplet"]["networks"]["v4"].clone();
        let private = networks.as_array()?.iter().find(|one| one["type"] == "private")?.clone();
        private["ip_address"].as_str()?.parse().ok()
    });
    // A closed port answers when, and only when, the machine's network lives.
    let closed = SocketAddrV4::new(private, 9);
    let answers = || world.is_refused("node-1", closed);
    eventually("the machine answers in the VPC", || answers().then_some(()));
    assert_eq!(world.run(&["exec", NAME, "--", "hostname"]).trim(), NAME);
    world.run(&["exec", NAME, "--", "ip", "route", "add", "blackhole", "192.0.2.1"]);

    world.run(&["freeze", NAME]);
    assert!(!answers(), "frozen");
    world.run(&["heal", NAME]);
    eventually("the machine answers after heal", || answers().then_some(()));

    world.run(&["kill", NAME]);
    assert!(!answers(), "killed");
    assert_eq!(status(), "active", "the cloud knows of the kill");
    world.run(&["revive", NAME]);
    eventually("the machine answers after its revival", || answers().then_some(()));

    // Its programs stand still, its kernel does not.
    let stands_still = || world.run(&["exec", NAME, "--", "cat", "/proc/1/status"]).contains("State:\tT");
    assert!(!stands_still());
    world.run(&["suspend", NAME]);
    assert!(stands_still() && answers(), "suspended");
    world.run(&["heal", NAME]);
    assert!(!stands_still(), "healed");

    let hardware = || {
        world.shell("node-1", "ip neigh flush dev eth1");
        // Whoever has the address refuses.
        assert!(answers());
        let shown = world.shell("node-1", &format!("ip neigh show {private} dev eth1"));
        shown.split(' ').nth(2).unwrap_or_default().to_owned()
    };
    let own = hardware();
    world.run(&["take-over", NAME, "gateway-b"]);
    assert_ne!(hardware(), own, "another machine has the address");
    world.run(&["heal", NAME]);
    assert_eq!(hardware(), own, "the machine has its address again");

    world.run(&["kill", NAME]);
    world.run(&["power-off", NAME]);
    assert_eq!(status(), "off");
    world.run(&["power-on", NAME]);
    eventually("the machine answers after power-on", || answers().then_some(()));
    let routes = world.run(&["exec", NAME, "--", "ip", "route", "show", "table", "all"]);
    assert!(!routes.contains("blackhole"), "a route outlived the machine: {routes}");

    let forwarding = || world.shell(NAME, "cat /proc/sys/net/ipv4/ip_forward").trim() == "1";
    world.shell(NAME, "echo 1 > /proc/sys/net/ipv4/ip_forward");
    world.run(&["break", "forwarding", NAME]);
    assert!(!forwarding(), "break forwarding");
    assert!(answers(), "a machine that forwards nothing answers for itself");

    world.run(&["stop", "cloud-api"]);
    let metadata = || {
        let ask = [
            "exec",
            "node-1",
            "--",
            "curl",
            "-sS",
            "--max-time",
            "2",
            "http://169.254.169.254/metadata/v1/id",
        ];
        world.output(&ask).status.success()
    };
    assert!(!world.output(&["cloud", "GET", &path]).status.success(), "the cloud API answers after its stop");
    assert!(!metadata(), "the metadata service answers after its stop");
    assert!(answers(), "machines need no cloud API to run");
    world.run(&["start", "cloud-api"]);
    assert!(metadata(), "the metadata service is silent after its start");
    assert_eq!(status(), "active", "the cloud forgot its Droplet");

    world.run(&["reboot", NAME]);
    eventually("the machine answers after the reboot", || answers().then_some(()));
    world.run(&["cloud", "DELETE", &path]);
    let disk = world.state_dir().join("droplets").join(id.to_string());
    eventually("machine and disk are gone", || (!disk.exists() && !answers()).then_some(()));
    assert_eq!(world.json(&["status"])["droplets"], json!([]));
}

#[test]
fn stop_leaves_nothing_of_a_droplet() {
    let world = World::start(&["--size", "network"]);
    let vpc = cloud(&world, &["GET", "/v2/vpcs"])["vpcs"][0]["id"].clone();
    let wanted = json!({"name": NAME, "region": "nyc1", "size": "s-1vcpu-1gb", "image": "debian-12-x64", "vpc_uuid": vpc});
    cloud(&world, &["POST", "/v2/droplets", &wanted.to_string()]);
    eventually("the machine runs", || (world.json(&["status"])["droplets"] != json!([])).then_some(()));
    world.run(&["stop"]);
    eventually("no trace is left", || traces(&world.name).is_empty().then_some(()));
    assert!(!world.state_dir().exists());
}
