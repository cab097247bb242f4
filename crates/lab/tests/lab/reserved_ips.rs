//! Reserved addresses as packets meet them, and a gateway that leaves with one or not at all.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use egress_controller::user_data::{LeavesWith, UserDataInput, render};
use egress_lab::network::addresses::{HAND_MADE_GATEWAYS, NODES};
use serde_json::{Value, json};

use crate::world::{World, eventually};

const WHOAMI: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 80), 80);
const PROBE_PORT: u16 = 9181;

pub fn cloud(world: &World, method: &str, path: &str, body: &Value) -> Value {
    let said = match body {
        Value::Null => world.run(&["cloud", method, path]),
        body => world.run(&["cloud", method, path, &body.to_string()]),
    };
    serde_json::from_str(&said).unwrap_or_default()
}

pub struct Gateway {
    pub id: u64,
    pub private: Ipv4Addr,
    pub own: Ipv4Addr,
}

fn user_data(leaves_with: LeavesWith) -> String {
    let range = |text: &str| text.parse().expect("range");
    let input = UserDataInput {
        vpc_range: range("10.116.0.0/20"),
        pod_ranges: vec![range("10.244.0.0/16")],
        ssh: false,
        leaves_with,
    };
    render(&input).expect("user data").text
}

/// A gateway that is to leave with a reserved address, booted.
fn gateway(world: &World, name: &str) -> Gateway {
    gateway_with(world, name, LeavesWith::Reserved)
}

/// The same, with a reserved address or with one that moves.
pub fn gateway_with(world: &World, name: &str, leaves_with: LeavesWith) -> Gateway {
    let vpc = cloud(world, "GET", "/v2/vpcs", &Value::Null)["vpcs"][0]["id"].clone();
    let wanted = json!({"name": name, "region": "nyc1", "size": "s-1vcpu-1gb", "image": "debian-12-x64",
                        "vpc_uuid": vpc, "user_data": user_data(leaves_with)});
    let id = cloud(world, "POST", "/v2/droplets", &wanted)["droplet"]["id"].as_u64().unwrap();
    let [private, own] = eventually("the Droplet's addresses are known", || {
        let networks = cloud(world, "GET", &format!("/v2/droplets/{id}"), &Value::Null)["droplet"].clone();
        let of = |kind: &str| -> Option<Ipv4Addr> {
            let all = networks["networks"]["v4"].as_array()?;
            all.iter().find(|one| one["type"] == kind)?["ip_address"].as_str()?.parse().ok()
        };
        Some([of("private")?, of("public")?])
    });
    let gateway = Gateway { id, private, own };
    let started = Instant::now();
    // A first boot on a busy machine takes long.
    while gateway.says(world)["forwarding"] != true {
        assert!(started.elapsed() < Duration::from_secs(90), "{}", gateway.says(world));
    }
    gateway
}

impl Gateway {
    /// What its health endpoint says.
    pub fn says(&self, world: &World) -> Value {
        let url = format!("http://{}:9180/healthz", self.private);
        let said = world.output(&["exec", "node-1", "--", "curl", "-sS", "--max-time", "4", &url]);
        serde_json::from_slice(&said.stdout).unwrap_or_default()
    }

    /// The address that it says it leaves with.
    pub fn leaves_with(&self, world: &World) -> Option<Ipv4Addr> {
        let said = self.says(world);
        assert_eq!(said["ready"], !said["publicAddress"].is_null(), "{said}");
        said["publicAddress"].as_str()?.parse().ok()
    }
}

fn use_gateway(world: &World, gateway: &Gateway) {
    let host = WHOAMI.ip();
    world.shell(
        "node-1",
        &format!(
            "ip route replace {host}/32 via {}; ip route replace 192.0.2.9/32 via {}",
            gateway.private, gateway.private
        ),
    );
}

pub fn act(world: &World, ip: Ipv4Addr, action: &Value) {
    let path = format!("/v2/reserved_ips/{ip}");
    cloud(world, "POST", &format!("{path}/actions"), action);
    eventually("the action is done", || {
        (cloud(world, "GET", &path, &Value::Null)["reserved_ip"]["locked"] == false).then_some(())
    });
}

#[test]
fn a_gateway_leaves_with_its_reserved_address_or_not_at_all_and_the_address_moves_with_what_uses_it() {
    let world = World::start(&["--size", "network"]);
    let [a, b] = ["gw-a", "gw-b"].map(|name| gateway(&world, name));
    let reserved = cloud(&world, "POST", "/v2/reserved_ips", &json!({"region": "nyc1"}));
    let ip: Ipv4Addr = reserved["reserved_ip"]["ip"].as_str().unwrap().parse().unwrap();

    // Without the address neither carries anything, nor calls itself ready.
    for gateway in [&a, &b] {
        use_gateway(&world, gateway);
        assert_eq!(gateway.leaves_with(&world), None);
        assert!(world.hears_nothing("node-1", WHOAMI), "it leaves with another address");
        eventually("it lacks nothing else", || (gateway.says(&world)["awaitsAddress"] == true).then_some(()));
    }
    let assign = |to: &Gateway| json!({"type": "assign", "droplet_id": to.id});
    for (holder, other) in [(&a, &b), (&b, &a), (&a, &b)] {
        act(&world, ip, &assign(holder));
        eventually("the holder has noticed", || (holder.leaves_with(&world) == Some(ip)).then_some(()));
        use_gateway(&world, holder);
        assert_eq!(world.whoami("node-1", WHOAMI), Some(ip));
        let numbers: Vec<u64> = (0..20).collect();
        world.send(
            "node-1",
            NODES[0].vpc,
            Ipv4Addr::new(192, 0, 2, 9),
            &format!("to-{}", holder.id),
            &numbers,
        );
        // What it held before is silent, whether it has noticed or not.
        use_gateway(&world, other);
        assert!(world.hears_nothing("node-1", WHOAMI), "two have one address");
        eventually("the other has noticed", || other.leaves_with(&world).is_none().then_some(()));
        assert_eq!(world.sources(&format!("to-{}", holder.id)), [ip.to_string()]);
    }
    // Its own things it asks for with its own address, and whoever reboots comes back to the reserved one.
    assert_eq!(world.whoami("gw-a", WHOAMI), Some(a.own));
    world.run(&["reboot", "gw-a"]);
    use_gateway(&world, &a);
    let started = Instant::now();
    while world.whoami("node-1", WHOAMI) != Some(ip) {
        assert!(started.elapsed() < Duration::from_secs(90), "{}", a.says(&world));
    }
    act(&world, ip, &json!({"type": "unassign"}));
    assert!(world.hears_nothing("node-1", WHOAMI), "it leaves with another address");

    let oracle = world.json(&["oracle"]);
    let sources: Vec<&Value> = oracle["packets"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|one| one["destination"] == "192.0.2.9")
        .map(|one| &one["source"])
        .collect();
    assert_eq!(sources, [&json!(ip)], "of what nodes sent");
}

#[test]
fn who_is_sent_to_a_reserved_address_meets_its_holder_and_nobody_at_its_anchor() {
    let world = World::start(&["--size", "network"]);
    let gateway = gateway(&world, "gw-a");
    let reserved = cloud(&world, "POST", "/v2/reserved_ips", &json!({"region": "nyc1"}));
    let ip: Ipv4Addr = reserved["reserved_ip"]["ip"].as_str().unwrap().parse().unwrap();
    let peer = HAND_MADE_GATEWAYS[0];
    // A rule of its own for this test: whoever comes is refused, as peers are.
    let admit = format!(
        "iptables -I EGRESS-PEERS -s {}/32 -p tcp -j REJECT --reject-with tcp-reset; \
        iptables -t raw -I EGRESS-PEERS -s {}/32 -j CT --notrack",
        peer.public, peer.public
    );
    let at = SocketAddrV4::new(ip, PROBE_PORT);
    assert!(!world.is_refused(peer.name, at), "nobody holds it");
    act(&world, ip, &json!({"type": "assign", "droplet_id": gateway.id}));
    eventually("the holder has noticed", || (gateway.leaves_with(&world) == Some(ip)).then_some(()));
    eventually("a peer is refused at the reserved address", || {
        world.shell("gw-a", &admit);
        world.is_refused(peer.name, at).then_some(())
    });
    assert!(!world.is_refused("node-2", at), "somebody else is answered");
    let anchor: Value =
        serde_json::from_str(&world.shell("gw-a", "curl -sS http://169.254.169.254/metadata/v1.json"))
            .unwrap();
    let anchor: Ipv4Addr =
        anchor["interfaces"]["public"][0]["anchor_ipv4"]["ip_address"].as_str().unwrap().parse().unwrap();
    world.shell("node-2", "ip route replace 10.17.0.0/16 via 203.0.113.1");
    assert!(!world.is_refused("node-2", SocketAddrV4::new(anchor, PROBE_PORT)));

    // Through the wrong gateway nothing with the anchor address leaves, and through the anchor gateway nothing else.
    let sent = |way: &str, source: Ipv4Addr| {
        world.shell("gw-a", &format!("ip route replace 192.0.2.80/32 via {way} dev eth0 src {source}"));
        world.whoami("gw-a", WHOAMI)
    };
    assert_eq!(sent("203.0.113.1", gateway.own), Some(gateway.own));
    assert_eq!(sent("10.17.0.1", gateway.own), None);
}
