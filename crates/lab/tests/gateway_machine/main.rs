//! The gateway's user data, proven on real machines: cloud-init and systemd run it, packets go through it.
//!
//! Needs root. Each test has a cloud and a machine of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]

mod access;
mod load;
mod packets;
mod peers;
mod topology;
mod upkeep;

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use packets::{ACK, Answer, FIN, RST, ping, scan, stray_segment};
use topology::{
    GATEWAY, GATEWAY_PUBLIC, INTERNET, METADATA, NODE, PEERED, POD, PRIVATE_OUTSIDE, Topology, connect_from,
    user_data,
};

/// From power-on to ready on 2 busy cores; measured 2 to 4 s on idle ones.
const READY_LIMIT: Duration = Duration::from_secs(45);

/// Leaves something in the machine's network stack that only a new stack has not.
fn mark(cloud: &Topology) {
    cloud.exec("ip link add marker type bridge; sysctl -w net.ipv4.ip_default_ttl=77");
    assert!(is_marked(cloud));
}

fn is_marked(cloud: &Topology) -> bool {
    let state = cloud.exec("ip link show marker 2>/dev/null; cat /proc/sys/net/ipv4/ip_default_ttl");
    state.contains("marker") || state.contains("77")
}

fn assert_translates(cloud: &Topology) {
    for source in [NODE, POD] {
        let seen = cloud.who_am_i(source, INTERNET);
        assert_eq!(seen.as_deref(), Some("203.0.113.100"), "source {source}");
    }
    assert_eq!(cloud.leaked(), 0, "packets with a private source on the public side");
}

#[test]
fn translates_for_vpc_and_pods_and_a_reboot_changes_nothing() {
    let cloud = Topology::new();
    let took = cloud.boot_until_ready();
    println!("first boot: ready after {} ms", took.as_millis());
    assert!(took < READY_LIMIT, "{took:?}");
    assert_translates(&cloud);

    let body = cloud.health().expect("health").1;
    assert_eq!(body["userDataVersion"], user_data(false).version);
    assert_eq!(
        (&body["publicAddress"], &body["privateAddress"]),
        (&"203.0.113.100".into(), &"10.116.0.100".into())
    );
    for key in ["forwarding", "rules", "uplink"] {
        assert_eq!(body[key], true, "{key}");
    }
    assert_eq!(body["errors"], serde_json::json!([]));
    // A network namespace can't set the size of the table: the lab's kernel says no to exactly this one.
    let warnings: Vec<&str> =
        body["warnings"].as_array().unwrap().iter().filter_map(|w| w.as_str()).collect();
    let effective = format!("effective {}", body["conntrack"]["max"]);
    assert!(
        warnings
            .iter()
            .any(|w| w.starts_with("net.netfilter.nf_conntrack_max: wanted ") && w.contains(&effective)),
        "{warnings:?}"
    );

    mark(&cloud);
    let processes = cloud.processes().unwrap();
    let started = Instant::now();
    cloud.exec("systemctl reboot");
    cloud.wait_for_health("ready after a reboot", |status, _| {
        status == 200 && cloud.processes().is_some_and(|now| now["boots"] == 2)
    });
    println!("reboot: ready again after {} ms", started.elapsed().as_millis());
    assert_eq!(
        cloud.processes().unwrap()["supervisor"],
        processes["supervisor"],
        "one supervisor for both boots"
    );
    assert!(!is_marked(&cloud), "a reboot must begin with a new network stack");
    assert_translates(&cloud);
}

/// systemd 257, cloud-init 25.1, Python 3.13, iptables 1.8.11 in place of 252, 22.4, 3.11, 1.8.9.
#[test]
fn works_unchanged_on_debian_13() {
    let cloud = Topology::new();
    for _ in 0..2 {
        cloud.boot_as("debian-13-x64", &[]);
        cloud.wait_for_health("ready", |status, _| status == 200);
        assert!(cloud.exec("cat /etc/debian_version").starts_with("13"));
        assert_translates(&cloud);
        assert_eq!(cloud.inside("outside", || scan(GATEWAY_PUBLIC, (1..=1024).chain(9170..=9190))), []);
        cloud.machine("power-off");
    }
}

#[test]
fn power_off_takes_the_network_stack_with_it() {
    let cloud = Topology::new();
    cloud.boot_until_ready();
    assert_translates(&cloud);
    mark(&cloud);

    let started = Instant::now();
    cloud.machine("power-off");
    println!("power-off: {} ms", started.elapsed().as_millis());
    assert_eq!(cloud.processes(), None);
    assert_eq!(cloud.who_am_i(NODE, INTERNET), None, "a powered-off gateway forwards");
    assert_eq!(cloud.health(), None);
    assert!(
        !cloud.shell("node", "ping -c1 -W1 10.116.0.100").status.success(),
        "a powered-off gateway answers"
    );
    assert_eq!(cloud.cgroups(), Vec::<std::path::PathBuf>::new());
    let left = String::from_utf8(cloud.shell("switch", "ip -br link").stdout).unwrap();
    assert!(!left.contains("3164494"), "ports are left: {left}");

    cloud.boot();
    // Power is on, the system has just begun to start: as in life there is nothing yet.
    assert!(!is_marked(&cloud), "a boot must begin with a new network stack");
    assert_eq!(cloud.exec("iptables-save -t nat | grep ^-A; iptables-save -t filter | grep ^-A.FORWARD"), "");
    assert_eq!(cloud.exec("cat /proc/sys/net/ipv4/ip_forward").trim(), "0");
    cloud.wait_for_health("ready after power-on", |status, _| status == 200);
    assert_translates(&cloud);

    cloud.machine("shutdown");
    assert_eq!(cloud.who_am_i(NODE, INTERNET), None);
    cloud.machine("power-off");
    cloud.machine("destroy");
    assert!(!cloud.disk().exists());
}

#[test]
fn leads_to_no_private_place() {
    let cloud = Topology::new();
    cloud.boot_until_ready();
    // The machine itself reaches them, so they are there.
    assert!(
        cloud
            .exec(&format!("curl -sm2 http://{METADATA}/metadata/v1/interfaces/public/0/mac"))
            .starts_with("02:")
    );
    assert_eq!(cloud.exec(&format!("curl -sm2 http://{PEERED}/")), "10.116.0.100");
    assert_eq!(cloud.exec(&format!("curl -sm2 http://{}/", PRIVATE_OUTSIDE[0])), "203.0.113.100");
    for source in [NODE, POD] {
        for target in [METADATA, PEERED].into_iter().chain(PRIVATE_OUTSIDE) {
            assert_eq!(cloud.who_am_i(source, target), None, "{source} reached {target} through the gateway");
        }
    }
    assert_translates(&cloud);
}

#[test]
fn shows_nothing_on_its_public_side() {
    let cloud = Topology::new();
    cloud.boot_until_ready();
    // The same look at the private side finds what is there, so it can find something.
    let private = cloud.inside("node", || scan(GATEWAY, (1..=1024).chain(9170..=9190)));
    assert_eq!(private, [(9180, Answer::Open), (9181, Answer::Refused)]);
    assert!(cloud.inside("node", || ping(GATEWAY)), "ping on the private side");

    let started = Instant::now();
    let public = cloud.inside("outside", || scan(GATEWAY_PUBLIC, 1..=u16::MAX));
    println!("scan of 65,535 TCP ports: {} ms", started.elapsed().as_millis());
    assert_eq!(public, []);
    assert!(
        !cloud.shell("outside", "ping -c1 -W1 203.0.113.100").status.success(),
        "ping on the public side"
    );
    // Nor does it let anybody on the public side through to the VPC or to its private address.
    cloud.ip("outside", "route add 10.116.0.0/20 via 203.0.113.100");
    assert_eq!(cloud.inside("outside", || scan(GATEWAY, [80, 9180, 9181].into_iter())), []);
    assert_eq!(cloud.inside("outside", || scan("10.116.0.1".parse().unwrap(), [80].into_iter())), []);
    let six = cloud.exec("ip6tables-save");
    assert!(six.contains(":INPUT DROP") && six.contains(":FORWARD DROP"), "{six}");
    // From the private side, the public address is closed as well.
    assert_eq!(cloud.inside("node", || scan(GATEWAY_PUBLIC, [22, 80, 9180, 9181].into_iter())), []);
}

#[test]
fn applying_twice_changes_nothing() {
    const STATE: &str = "iptables-save | sed -e 's/\\[.*\\]//' -e '/^#/d'; ip6tables-save | sed -e 's/\\[.*\\]//' -e '/^#/d'; \
        ip rule; ip route show table all; sysctl -a --pattern 'net.(ipv4|netfilter)' 2>/dev/null | grep -v nf_conntrack_count";
    let cloud = Topology::new();
    cloud.boot_until_ready();
    let before = cloud.exec(STATE);
    assert!(before.contains("MASQUERADE"));
    let mut stream =
        cloud.inside("node", || connect_from(NODE, SocketAddrV4::new(INTERNET, 80))).expect("connection");
    for _ in 0..2 {
        cloud.exec("systemctl restart egress-gateway.service");
        assert_eq!(cloud.exec("systemctl is-active egress-gateway.service").trim(), "active");
        assert_eq!(cloud.exec(STATE), before);
    }
    assert_eq!(cloud.health().map(|(status, _)| status), Some(200));
    write!(stream, "GET / HTTP/1.1\r\n\r\n").expect("the connection is still there");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("the connection is still there");
    assert!(text.ends_with("203.0.113.100"), "{text}");
    // The guard of the early boot, started again by hand, must not take the rules away.
    cloud.exec("systemctl restart egress-gateway-guard.service");
    assert_eq!(cloud.exec(STATE), before);
    // Where the cloud routes no private ranges to the VPC (no peering), pods get their way back all the same.
    cloud.exec("ip route delete 10.0.0.0/8; systemctl restart egress-gateway.service");
    assert_translates(&cloud);
}

#[test]
fn waits_for_the_metadata_service_and_remembers_what_it_said() {
    let cloud = Topology::new();
    cloud.ip("outside", &format!("address delete {METADATA}/32 dev lo"));
    cloud.boot();
    cloud.wait_for_health("error", |status, body| {
        assert_eq!(status, 503);
        body["errors"].to_string().contains("the metadata service does not answer")
    });
    cloud.ip("outside", &format!("address add {METADATA}/32 dev lo"));
    cloud.wait_for_health("ready by itself", |status, _| status == 200);

    cloud.ip("outside", &format!("address delete {METADATA}/32 dev lo"));
    cloud.machine("power-off");
    cloud.boot_until_ready();
    assert_translates(&cloud);
}

#[test]
fn a_lab_that_was_killed_leaves_a_machine_that_can_be_ended() {
    let cloud = Topology::new();
    cloud.boot_until_ready();
    let schema = cloud.exec("cloud-init schema --config-file /var/lib/cloud/seed/nocloud/user-data 2>&1");
    assert!(schema.contains("Valid"), "{schema}");
    assert!(cloud.exec("passwd -S root").starts_with("root L"), "root is not locked");
    let processes = cloud.processes().unwrap();
    let supervisor = i32::try_from(processes["supervisor"]["pid"].as_i64().unwrap()).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(supervisor), nix::sys::signal::Signal::SIGKILL)
        .unwrap();
    assert_translates(&cloud);
    cloud.machine("power-off");
    let leader = processes["leader"]["pid"].as_i64().unwrap();
    // A zombie has ended: who reaps the child of a killed supervisor, and when, is the host's own affair.
    let state = std::fs::read_to_string(format!("/proc/{leader}/stat")).unwrap_or_default();
    let has_ended = state.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with(['Z', 'X']));
    assert!(has_ended, "the machine still runs: {state}");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(cloud.state.to_str().unwrap()), "{mounts}");
    assert_eq!(cloud.cgroups(), Vec::<std::path::PathBuf>::new());
    cloud.boot_until_ready();
    assert_translates(&cloud);
}

#[test]
fn answers_strays_so_that_clients_fail_fast() {
    let cloud = Topology::new();
    cloud.boot_until_ready();
    // Nobody has this address: a reset can only be the gateway's.
    let target = SocketAddrV4::new("198.51.100.99".parse().unwrap(), 443);
    assert!(
        cloud.inside("node", move || stray_segment(NODE, target, ACK)),
        "no reset for another gateway's connection"
    );
    assert!(!cloud.inside("node", move || stray_segment(NODE, target, RST)));
    assert!(!cloud.inside("node", move || stray_segment(POD, target, FIN)));
    assert_eq!(cloud.leaked(), 0, "packets that are of no connection left with a private source");
    assert_translates(&cloud);
}

#[test]
fn probes_leave_no_trace_and_slow_clients_hold_nobody_up() {
    let cloud = Topology::new();
    cloud.boot_until_ready();
    let count =
        || cloud.exec("cat /proc/sys/net/netfilter/nf_conntrack_count").trim().parse::<u64>().unwrap();
    let before = count();
    let refused = cloud.inside("node", || {
        let refused = |_: &u32| {
            connect_from(NODE, SocketAddrV4::new(GATEWAY, 9181))
                .is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
        };
        (0..300).filter(refused).count()
    });
    assert_eq!(refused, 300);
    // A refused connection is never entered into the table; that it is not even looked up there shows in the counts.
    let raw = cloud.exec("iptables-save -c -t raw");
    for port in ["--dport 9181", "--sport 9181"] {
        let rule = raw.lines().find(|line| line.contains(port) && line.contains("--notrack")).expect(port);
        let packets: u32 = rule[1..].split(':').next().unwrap().parse().unwrap();
        assert!(packets >= 300, "{rule}");
    }

    let idle: Vec<_> = cloud.inside("node", || {
        (0..40).filter_map(|_| connect_from(NODE, SocketAddrV4::new(GATEWAY, 9180)).ok()).collect()
    });
    assert_eq!(idle.len(), 40);
    assert!(count() < before + 20, "clients are tracked: {before} before, {} after", count());
    let started = Instant::now();
    assert_eq!(cloud.health().map(|(status, _)| status), Some(200));
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    drop(idle);
    // The deadline is for the whole request: one that trickles in is cut off.
    let mut slow =
        cloud.inside("node", || connect_from(NODE, SocketAddrV4::new(GATEWAY, 9180))).expect("connection");
    slow.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let started = Instant::now();
    while slow.write_all(b"G").is_ok()
        && slow.read(&mut [0; 8]).is_err_and(|e| e.kind() == ErrorKind::WouldBlock)
    {
        assert!(started.elapsed() < Duration::from_secs(5), "a client that trickles holds its slot for ever");
    }

    let (status, text) = cloud.get("/metrics").expect("metrics");
    assert_eq!(status, 200);
    for line in [
        "egress_gateway_machine_ready 1",
        "egress_gateway_machine_forwarding 1",
        "egress_gateway_machine_rules 1",
        "egress_gateway_machine_uplink 1",
        &format!("egress_gateway_machine_info{{version=\"{}\"}} 1", user_data(false).version),
        "egress_gateway_machine_conntrack_entries_limit ",
        "egress_gateway_machine_interface_bytes_total{side=\"public\",direction=\"transmit\"} ",
        "egress_gateway_machine_interface_packets_total{side=\"private\",direction=\"receive\"} ",
    ] {
        assert!(text.contains(&format!("\n{line}")), "{line} is missing in\n{text}");
    }
    assert_eq!(cloud.get("/other").map(|(status, _)| status), Some(404));
}

#[test]
fn says_what_broke_while_it_ran() {
    let cloud = Topology::new();
    cloud.boot_until_ready();
    let broken = [
        ("forwarding", "sysctl -w net.ipv4.ip_forward=0", "sysctl -w net.ipv4.ip_forward=1"),
        (
            "rules",
            "iptables -t nat -D POSTROUTING -s 10.244.0.0/16 -o eth0 -j MASQUERADE --random-fully",
            "systemctl restart egress-gateway",
        ),
        ("uplink", "ip route delete default", "ip route add default via 203.0.113.1"),
    ];
    for (part, break_it, mend_it) in broken {
        cloud.exec(break_it);
        if part != "uplink" {
            assert_eq!(cloud.who_am_i(POD, INTERNET), None, "{part}");
            assert_eq!(cloud.leaked(), 0, "a private source left on the public side after: {break_it}");
        }
        let started = Instant::now();
        let body = cloud.wait_for_health(part, |status, _| status == 503);
        assert!(started.elapsed() < Duration::from_secs(5), "{part}: {:?}", started.elapsed());
        assert_eq!(body["ready"], false);
        for key in ["forwarding", "rules", "uplink"] {
            assert_eq!(body[key], key != part, "{key} after: {break_it}");
        }
        assert_eq!(body["errors"].as_array().map(Vec::len), Some(1), "{body}");
        cloud.exec(mend_it);
        cloud.wait_for_health("mended", |status, _| status == 200);
    }
    cloud.exec("nft delete table ip egress-last-line");
    cloud.wait_for_health("no last line", |status, body| status == 503 && body["rules"] == false);
    cloud.exec("systemctl restart egress-gateway");
    cloud.wait_for_health("mended", |status, _| status == 200);
    // A rule of somebody else is no reason to be replaced, but is told.
    cloud.exec("iptables -I INPUT -s 192.0.2.1 -j ACCEPT");
    let body = cloud.wait_for_health("warning", |_, body| body["warnings"].to_string().contains("192.0.2.1"));
    assert_eq!(body["ready"], true);
}

/// Boots a machine whose disk was tampered with, and returns its first answer with an error that `tells` it.
fn never_ready(cloud: &Topology, tells: &str) -> serde_json::Value {
    cloud.boot();
    let body = cloud.wait_for_health(tells, |status, body| {
        assert_ne!(status, 200, "ready in spite of it: {body}");
        body["errors"].as_array().unwrap().iter().any(|e| e.as_str().unwrap().contains(tells))
    });
    assert_eq!(body["ready"], false);
    assert_eq!(cloud.who_am_i(NODE, INTERNET), None, "it forwards in spite of it");
    // The unit tries again every 5 s; the second try ends no better.
    cloud.wait_for_health("second try", |status, body| {
        assert_ne!(status, 200, "ready in spite of it: {body}");
        cloud
            .exec("systemctl show -P NRestarts egress-gateway.service")
            .trim()
            .parse::<u32>()
            .is_ok_and(|n| n >= 1)
            || body["errors"].to_string().contains("can't be installed")
    });
    body
}

/// Boots once to have a disk, then pulls the plug.
fn with_disk(cloud: &Topology) {
    cloud.boot_until_ready();
    cloud.machine("power-off");
}

#[test]
fn says_so_when_there_is_no_iptables() {
    let cloud = Topology::new();
    with_disk(&cloud);
    for name in ["iptables", "iptables-restore", "iptables-save", "ip6tables-restore", "xtables-nft-multi"] {
        // A character device 0/0 in the upper layer hides the file below.
        let path = cloud.disk().join("usr/sbin").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let made = std::process::Command::new("mknod").arg(&path).args(["c", "0", "0"]).status().unwrap();
        assert!(made.success());
    }
    // Nobody answers there, so that apt gives up at once.
    std::fs::write(cloud.disk().join("etc/resolv.conf"), "nameserver 127.0.0.1\n").unwrap();
    let body = never_ready(&cloud, "iptables is not in the image");
    assert_eq!(body["rules"], false);
    assert_eq!(body["forwarding"], false);
}

#[test]
fn says_so_when_forwarding_cannot_be_switched_on() {
    let cloud = Topology::new();
    with_disk(&cloud);
    let folder = cloud.disk().join("etc/systemd/system/egress-gateway.service.d");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("read-only.conf"), "[Service]\nProtectKernelTunables=yes\n").unwrap();
    let body =
        never_ready(&cloud, "forwarding can't be switched on: net.ipv4.ip_forward: wanted 1, effective 0");
    assert_eq!(body["forwarding"], false);
}
