//! Cloud firewalls, as packets meet them.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use egress_lab::netns;
use egress_lab::network::addresses::{HAND_MADE_GATEWAYS, NODES, PUBLIC_GATEWAY, RESOLVERS, VPC};
use serde_json::{Value, json};
use socket2::{Domain, Protocol, Socket, Type};

use crate::world::{World, eventually};

const WHOAMI: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 80), 80);
const PROBE_PORT: u16 = 9181;

fn cloud(world: &World, method: &str, path: &str, body: &Value) -> Value {
    let said = match body {
        Value::Null => world.run(&["cloud", method, path]),
        body => world.run(&["cloud", method, path, &body.to_string()]),
    };
    serde_json::from_str(&said).unwrap_or_default()
}

fn rule(protocol: &str, ports: &str, side: &str, addresses: &[&str]) -> Value {
    json!({"protocol": protocol, "ports": ports, side: {"addresses": addresses}})
}

/// What a gateway's firewall lets in and out: everything of the VPC, the probe port to one peer, everything outwards.
fn of_a_gateway(peer: Ipv4Addr) -> Value {
    let all = |side: &'static str, range: &'static str| {
        ["tcp", "udp", "icmp"].map(|protocol| rule(protocol, "0", side, &[range]))
    };
    let probe = rule("tcp", &PROBE_PORT.to_string(), "sources", &[&peer.to_string()]);
    let inbound: Vec<_> = all("sources", VPC).into_iter().chain([probe]).collect();
    json!({"name": "gateways", "inbound_rules": inbound, "outbound_rules": all("destinations", "0.0.0.0/0")})
}

/// Makes a firewall and waits until it acts; its address.
fn walled(world: &World, body: &Value) -> String {
    let made = cloud(world, "POST", "/v2/firewalls", body);
    assert_eq!(made["firewall"]["status"], "waiting", "{made}");
    let path = format!("/v2/firewalls/{}", made["firewall"]["id"].as_str().unwrap());
    acts(world, &path);
    path
}

fn acts(world: &World, path: &str) {
    eventually("the firewall acts", || {
        (cloud(world, "GET", path, &Value::Null)["firewall"]["status"] == "succeeded").then_some(())
    });
}

/// Whether an echo request of a part is answered within a second.
fn is_echoed(world: &World, part: &str, to: Ipv4Addr) -> bool {
    netns::inside(&world.namespace(part), || {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        // Type 8, and its checksum; the rest is zero.
        socket.send_to(&[8, 0, 0xf7, 0xff, 0, 0, 0, 0], &SocketAddrV4::new(to, 0).into()).unwrap();
        let started = Instant::now();
        let mut packet = [0; 256];
        while started.elapsed() < Duration::from_secs(1) {
            // Behind a header without options is the type of the message; 0 is an answer.
            if (&socket).read(&mut packet).is_ok_and(|length| length > 20)
                && packet[12..16] == to.octets()
                && packet[20] == 0
            {
                return Ok(true);
            }
        }
        Ok(false)
    })
    .unwrap()
}

/// Whether a resolver answers a part within five seconds.
fn resolves(world: &World, part: &str) -> bool {
    // Number 1, recursion wanted, one question: the address of ifconfig.me.
    const QUERY: &[u8] = b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\x08ifconfig\x02me\0\0\x01\0\x01";
    netns::inside(&world.namespace(part), || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket.send_to(QUERY, (RESOLVERS[0], 53)).unwrap();
        Ok(socket.recv(&mut [0; 512]).is_ok_and(|length| length > QUERY.len()))
    })
    .unwrap()
}

#[test]
fn a_firewall_shows_strangers_nothing_and_peers_the_probe_port() {
    let world = World::start(&["--size", "network"]);
    let [gateway, peer] = HAND_MADE_GATEWAYS;
    let at = |port| SocketAddrV4::new(gateway.public, port);
    let strangers = ["internet", "node-1"];
    for stranger in strangers {
        assert!(world.is_refused(stranger, at(PROBE_PORT)), "a Droplet without a firewall is open");
        assert!(is_echoed(&world, stranger, gateway.public));
    }

    let mut body = of_a_gateway(peer.public);
    body["droplet_ids"] = json!([gateway.droplet]);
    let path = walled(&world, &body);
    for stranger in strangers {
        for port in [22, 53, 80, 443, 9180, PROBE_PORT, 9182, 65535] {
            assert!(!world.is_refused(stranger, at(port)), "{stranger} learns of port {port}");
        }
        assert!(!is_echoed(&world, stranger, gateway.public), "{stranger} is answered an echo request");
    }
    assert!(world.is_refused(peer.name, at(PROBE_PORT)), "the peer's probe");
    assert!(!world.is_refused(peer.name, at(9180)), "the peer learns of another port");

    // The VPC as ever, and what goes through.
    assert!(world.is_refused("node-1", SocketAddrV4::new(gateway.vpc, 9)));
    assert!(is_echoed(&world, "node-1", gateway.vpc));
    world.shell("node-1", &format!("ip route add {}/32 via {}", WHOAMI.ip(), gateway.vpc));
    assert_eq!(world.whoami("node-1", WHOAMI), Some(gateway.public));

    // Answers to what the machine asks itself: TCP, names by UDP, echoes; and its metadata.
    assert_eq!(world.whoami(gateway.name, WHOAMI), Some(gateway.public));
    assert!(resolves(&world, gateway.name));
    assert!(is_echoed(&world, gateway.name, PUBLIC_GATEWAY));
    let metadata = "curl -sS --max-time 5 http://169.254.169.254/metadata/v1/id";
    assert_eq!(world.shell(gateway.name, metadata), gateway.droplet.to_string());

    cloud(&world, "DELETE", &path, &Value::Null);
    eventually("the Droplet is open again", || world.is_refused("internet", at(9180)).then_some(()));
    eventually("nothing is left of the firewall", || {
        let rules = world.shell("cloud", "nft list table bridge ports");
        (!rules.contains("gateway-a-pub-in") && !rules.contains("gateway-a-pub-open")).then_some(())
    });
}

#[test]
fn a_firewall_acts_on_the_vpc_side_too_and_without_rules_outwards_nothing_leaves() {
    let world = World::start(&["--size", "network"]);
    let gateway = HAND_MADE_GATEWAYS[0];
    let path = walled(
        &world,
        &json!({"name": "one-node", "droplet_ids": [gateway.droplet], "inbound_rules": [
            rule("tcp", "9-10", "sources", &[&NODES[0].vpc.to_string()])]}),
    );
    let at = |port| SocketAddrV4::new(gateway.vpc, port);
    for (node, port, passes) in
        [("node-1", 9, true), ("node-1", 10, true), ("node-1", 11, false), ("node-2", 9, false)]
    {
        assert_eq!(world.is_refused(node, at(port)), passes, "{node} at {port}");
    }
    assert!(world.hears_nothing(gateway.name, WHOAMI), "it reaches the internet");
    let metadata = "curl -sS --max-time 5 http://169.254.169.254/metadata/v1/id";
    assert_eq!(world.shell(gateway.name, metadata), gateway.droplet.to_string(), "the metadata service");

    // What two firewalls let through adds up.
    let other = json!({"name": "other", "droplet_ids": [gateway.droplet], "outbound_rules": [
        rule("tcp", "80", "destinations", &["0.0.0.0/0"]), rule("udp", "53", "destinations", &["0.0.0.0/0"])]});
    walled(&world, &other);
    assert_eq!(world.whoami(gateway.name, WHOAMI), Some(gateway.public));
    assert!(world.is_refused("node-1", at(9)));
    cloud(&world, "DELETE", &path, &Value::Null);
    eventually("only the other one acts", || (!world.is_refused("node-1", at(9))).then_some(()));
}

#[test]
fn a_connection_that_was_let_through_outlives_the_rule_and_new_ones_do_not() {
    let world = World::start(&["--size", "network"]);
    let [gateway, peer] = HAND_MADE_GATEWAYS;
    let mut body = of_a_gateway(peer.public);
    body["droplet_ids"] = json!([gateway.droplet]);
    let path = walled(&world, &body);
    let listener = netns::inside(&world.namespace(gateway.name), || {
        Ok(TcpListener::bind((gateway.public, PROBE_PORT)).unwrap())
    });
    let listener = listener.unwrap();
    let connect = || {
        netns::inside(&world.namespace(peer.name), || {
            let to = SocketAddrV4::new(gateway.public, PROBE_PORT).into();
            Ok(TcpStream::connect_timeout(&to, Duration::from_secs(1)))
        })
        .unwrap()
    };
    let mut client = connect().unwrap();
    let mut server = listener.accept().unwrap().0;

    let mut closed = of_a_gateway(Ipv4Addr::new(203, 0, 113, 99));
    closed["droplet_ids"] = json!([gateway.droplet]);
    cloud(&world, "PUT", &path, &closed);
    acts(&world, &path);
    assert!(connect().is_err(), "a peer that is none any more");
    server.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    client.write_all(b"still here").unwrap();
    let mut heard = [0; 10];
    server.read_exact(&mut heard).unwrap();
    cloud(&world, "PUT", &path, &body);
    acts(&world, &path);
    assert!(connect().is_ok(), "the rule is back");
}

#[test]
fn a_droplet_comes_back_to_its_firewall_and_takes_it_along_when_it_goes() {
    let world = World::start(&["--size", "network"]);
    cloud(&world, "POST", "/v2/tags", &json!({"name": "walled"}));
    let mut body = of_a_gateway(HAND_MADE_GATEWAYS[1].public);
    body["tags"] = json!(["walled"]);
    // No Droplet has the tag: there is nothing to wait for.
    assert_eq!(cloud(&world, "POST", "/v2/firewalls", &body)["firewall"]["status"], "succeeded");
    let vpc = cloud(&world, "GET", "/v2/vpcs", &Value::Null)["vpcs"][0]["id"].clone();
    let wanted = json!({"name": "gw-walled", "region": "nyc1", "size": "s-1vcpu-1gb", "image": "debian-12-x64",
                        "vpc_uuid": vpc, "tags": ["walled"]});
    let id = cloud(&world, "POST", "/v2/droplets", &wanted)["droplet"]["id"].as_u64().unwrap();
    let path = format!("/v2/droplets/{id}");
    let [public, private]: [Ipv4Addr; 2] = eventually("the Droplet's addresses are known", || {
        let networks = cloud(&world, "GET", &path, &Value::Null)["droplet"]["networks"]["v4"].clone();
        let of = |kind: &str| {
            let found = networks.as_array()?.iter().find(|one| one["type"] == kind)?.clone();
            found["ip_address"].as_str()?.parse().ok()
        };
        Some([of("public")?, of("private")?])
    });
    let answers = || world.is_refused("node-1", SocketAddrV4::new(private, 9));
    let is_walled = || !world.is_refused("internet", SocketAddrV4::new(public, 9));
    eventually("the machine answers in the VPC", || answers().then_some(()));
    eventually("strangers see nothing", || is_walled().then_some(()));
    assert!(world.is_refused("gateway-b", SocketAddrV4::new(public, PROBE_PORT)));

    world.run(&["reboot", "gw-walled"]);
    eventually("the machine answers after its reboot", || answers().then_some(()));
    assert!(is_walled(), "after a reboot");
    assert!(world.is_refused("gateway-b", SocketAddrV4::new(public, PROBE_PORT)), "after a reboot");

    cloud(&world, "DELETE", &path, &Value::Null);
    eventually("the fabric forgets the Droplet", || {
        (!world.shell("cloud", "nft list table bridge ports").contains(&format!("d{id}-"))).then_some(())
    });
}
