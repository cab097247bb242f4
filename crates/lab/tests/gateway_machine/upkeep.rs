//! What a gateway lives through in its time: reboots, updates, a disk that fills up.

use std::io::{Read, Write};
use std::net::SocketAddrV4;
use std::time::Instant;

use serde_json::json;

use crate::assert_translates;
use crate::topology::{INTERNET, NODE, Topology, connect_from};

/// The images whose machines must live through what the distribution has a part in.
const IMAGES: [&str; 2] = ["debian-12-x64", "debian-13-x64"];

/// What makes it a gateway: in the kernel, where every boot begins anew, and on the disk.
const STATE: &str = "iptables-save | sed -e 's/\\[.*\\]//' -e '/^#/d'; nft list table ip egress-last-line; ip route; \
    sysctl net.ipv4.ip_forward net.ipv4.ip_local_port_range net.ipv4.ip_local_reserved_ports; \
    cd /proc/sys/net/netfilter && grep . nf_conntrack_tcp_timeout_* nf_conntrack_udp_timeout*; \
    systemctl --failed --no-legend; ls /etc/systemd/system /etc/systemd/system/*.wants /usr/local/sbin; \
    sha256sum /etc/egress-gateway/* /usr/local/sbin/* /etc/systemd/system/egress-gateway* /etc/systemd/system/*.d/egress-gateway.conf \
    /etc/systemd/networkd.conf.d/* /etc/ssh/sshd_config.d/10-egress-gateway.conf /etc/apt/apt.conf.d/90egress-gateway; \
    passwd -S root | cut -d ' ' -f 1,2";

#[test]
fn twenty_reboots_later_it_is_what_it_was() {
    let cloud = Topology::new();
    cloud.boot_until_ready();
    cloud.exec("cloud-init status --wait");
    let before = cloud.exec(STATE);
    for part in ["MASQUERADE", "ip_forward = 1", "tcp_timeout_established:7440", "root L"] {
        assert!(before.contains(part), "{part} is missing in\n{before}");
    }
    let mut slowest: f64 = 0.0;
    for boot in 2..=21 {
        cloud.exec("systemctl reboot");
        let body = cloud.wait_for_health("ready after a reboot", |status, _| {
            status == 200 && cloud.processes().is_some_and(|now| now["boots"] == boot)
        });
        assert_eq!(body["errors"], json!([]), "boot {boot}");
        slowest = slowest.max(body["secondsToReady"].as_f64().unwrap());
        assert_translates(&cloud);
    }
    assert_eq!(cloud.exec(STATE), before);
    println!("slowest of twenty boots: ready after {slowest} s");
}

/// As when a Droplet is made from a snapshot of it: cloud-init takes everything for new.
#[test]
fn cloud_init_that_runs_a_second_time_changes_nothing() {
    for image in IMAGES {
        let cloud = Topology::new();
        cloud.boot_until_ready_as(image);
        cloud.exec("cloud-init status --wait");
        let before = cloud.exec(STATE);
        assert!(before.contains("MASQUERADE") && before.contains("tcp_timeout_established:7440"), "{before}");
        let forgotten = cloud
            .exec("cloud-init clean >/dev/null; ls /var/lib/cloud/instance/sem 2>/dev/null; echo forgotten");
        assert_eq!(forgotten, "forgotten\n", "{image}");
        cloud.exec("systemctl reboot");
        cloud.wait_for_health("ready after a second run", |status, _| {
            status == 200 && cloud.processes().is_some_and(|now| now["boots"] == 2)
        });
        cloud.exec("cloud-init status --wait");
        let ran = cloud.exec("ls /var/lib/cloud/instance/sem");
        assert!(ran.contains("config_scripts_user"), "{image}: cloud-init did not run again: {ran}");
        // It starts the units once more, and waits for none of them.
        let body = cloud.wait_for_health("settled", |status, _| {
            status == 200 && cloud.exec("systemctl list-jobs --no-legend").trim().is_empty()
        });
        assert_eq!(body["errors"], json!([]), "{image}");
        assert_eq!(cloud.exec(STATE), before, "{image}");
        assert_translates(&cloud);
    }
}

#[test]
fn a_full_disk_keeps_it_from_nothing() {
    for image in IMAGES {
        lives_with_a_full_disk(image);
    }
}

fn lives_with_a_full_disk(image: &str) {
    let cloud = Topology::new();
    cloud.limit_disk(256);
    let peer = "10.116.0.101".parse().unwrap();
    let public = "203.0.113.101".parse().unwrap();
    cloud.add_peer(peer, public, &json!({"privateAddress": peer, "publicAddress": public}));
    cloud.boot_until_ready_as(image);
    cloud.exec("cloud-init status --wait");
    let left = cloud.exec("dd if=/dev/zero of=/var/fill bs=1M 2>/dev/null; cp /etc/passwd /var/more; df --output=avail / | tail -n 1");
    assert_eq!(left.trim(), "0", "there is room left");
    let is_told =
        |body: &serde_json::Value| body["warnings"].to_string().contains("the disk is full: 0 MiB are left");

    let works = |what: &str| {
        let body = cloud.wait_for_health(what, |status, body| status == 200 && is_told(body));
        assert_eq!(body["errors"], json!([]), "{what}");
        assert_translates(&cloud);
    };
    works("full while it runs");
    let (status, answer) = cloud.put_peers(&json!([peer]));
    assert_eq!((status, answer.contains("203.0.113.101")), (200, true), "{answer}");
    let told = |body: &serde_json::Value| {
        body["warnings"].to_string().contains("the peers will be forgotten at a boot")
    };
    cloud.wait_for_health("what can't be remembered is told", |status, body| status == 200 && told(body));
    cloud.exec("systemctl restart egress-gateway.service egress-gateway-health.service");
    works("everything started anew");
    cloud.machine("power-off");
    cloud.boot_as(image, &[]);
    works("full since before the boot");
    cloud.exec("rm /var/fill");
    cloud.wait_for_health("room again", |status, body| status == 200 && !is_told(body));
}

/// A repository of security updates with one package in it, which does what others' packages have done to machines: it
/// starts services anew that flush packet rules or routes, and flushes and resets by itself what it can.
const UPDATE: &str = r#"
set -e
mkdir -p /srv/security/package/DEBIAN && cd /srv/security
cat > package/DEBIAN/control <<END
Package: wayward
Version: 1
Architecture: all
Maintainer: nobody <nobody@example.org>
Description: breaks what is not its own
END
dpkg-deb --build package old.deb && dpkg --install old.deb
sed -i 's/^Version: 1/Version: 2/' package/DEBIAN/control
cat > package/DEBIAN/postinst <<'END'
#!/bin/sh
systemctl restart nftables.service
systemctl restart systemd-networkd.service
iptables -t nat -F; iptables -F; iptables -P FORWARD ACCEPT; nft flush ruleset
sysctl -w net.ipv4.ip_forward=0
touch /run/reboot-required
END
chmod 755 package/DEBIAN/postinst
dpkg-deb --build package wayward_2_all.deb
{
  cat package/DEBIAN/control
  echo "Filename: ./wayward_2_all.deb"
  echo "Size: $(stat -c %s wayward_2_all.deb)"
  echo "SHA256: $(sha256sum wayward_2_all.deb | cut -d' ' -f1)"
} > Packages
release=$(. /etc/os-release && echo "$VERSION_CODENAME")
cat > Release <<END
Origin: Debian
Label: Debian-Security
Suite: $release-security
Codename: $release-security
Date: $(date -Ru)
SHA256:
 $(sha256sum Packages | cut -d' ' -f1) $(stat -c %s Packages) Packages
END
rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/*
echo "deb [trusted=yes] file:/srv/security ./" > /etc/apt/sources.list
apt-get update
echo prepared
"#;

#[test]
fn security_updates_are_installed_and_no_rule_is_lost_to_them() {
    for image in IMAGES {
        lives_through_an_update(image);
    }
}

fn lives_through_an_update(image: &str) {
    let cloud = Topology::new();
    cloud.boot_until_ready_as(image);
    cloud.exec("cloud-init status --wait");
    assert_eq!(
        cloud.exec("systemctl is-enabled apt-daily.timer apt-daily-upgrade.timer"),
        "enabled\nenabled\n"
    );
    let prepared = cloud.exec(&format!("exec 2>&1; {UPDATE}"));
    assert!(prepared.trim_end().ends_with("prepared"), "{prepared}");
    let rules = "iptables-save | sed -e 's/\\[.*\\]//' -e '/^#/d'; nft list table ip egress-last-line";
    let before = cloud.exec(rules);
    let routes = cloud.exec("ip route");
    let mut stream =
        cloud.inside("node", || connect_from(NODE, SocketAddrV4::new(INTERNET, 80))).expect("connection");

    let started = Instant::now();
    cloud.exec("systemctl start apt-daily-upgrade.service");
    let version = cloud.exec("dpkg-query -W -f '${Version}' wayward");
    assert_eq!(
        version,
        "2",
        "{}",
        cloud.exec("journalctl -u apt-daily-upgrade; cat /var/log/unattended-upgrades/*")
    );
    println!("the update took {} ms", started.elapsed().as_millis());
    let body = cloud.wait_for_health("whole again", |status, body| {
        status == 200
            && body["rebootRequired"] == true
            && cloud.exec("systemctl is-active egress-gateway").trim() == "active"
    });
    assert_eq!(body["errors"], json!([]));
    assert_eq!(cloud.exec(rules), before);
    assert_eq!(cloud.exec("ip route"), routes);
    assert_translates(&cloud);
    // It was there before the update, and still is the same one.
    write!(stream, "GET / HTTP/1.1\r\n\r\n").expect("the connection is still there");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("the connection is still there");
    assert!(text.ends_with("203.0.113.100"), "{text}");
    // An update that waits for a boot never boots by itself.
    assert_eq!(cloud.processes().unwrap()["boots"], 1);
    let settings = cloud.exec("apt-config dump Unattended-Upgrade::Automatic-Reboot");
    assert_eq!(settings.trim(), "Unattended-Upgrade::Automatic-Reboot \"false\";");
}
