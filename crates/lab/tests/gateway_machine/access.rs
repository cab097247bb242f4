//! Who gets into a gateway, and what of the image runs on it.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::packets::{Answer, scan};
use crate::topology::{GATEWAY, GATEWAY_PUBLIC, NODE, Topology};

/// What somebody's image might start: it must not run on a gateway.
const UNWANTED: [&str; 3] = ["droplet-agent.service", "nftables.service", "ssh.socket"];

/// Puts what a cloud's image may have on the disk of a Droplet that was never switched on.
fn with_unwanted_services(cloud: &Topology) {
    let units = cloud.disk().join("etc/systemd/system");
    let wants = units.join("multi-user.target.wants");
    fs::create_dir_all(&wants).unwrap();
    let agent = cloud.disk().join("usr/lib/systemd/system/droplet-agent.service");
    fs::create_dir_all(agent.parent().unwrap()).unwrap();
    fs::write(agent, "[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n")
        .unwrap();
    for unit in UNWANTED {
        std::os::unix::fs::symlink(Path::new("/usr/lib/systemd/system").join(unit), wants.join(unit))
            .unwrap();
    }
}

/// What waits for connections or datagrams of others: address and port.
fn listening(cloud: &Topology) -> Vec<String> {
    let told = cloud.exec("ss --no-header --listening --numeric --tcp --udp");
    let local = told.lines().filter_map(|line| line.split_whitespace().nth(4));
    local.filter(|local| !local.starts_with("127.")).map(ToOwned::to_owned).collect()
}

fn assert_closed(cloud: &Topology) {
    assert_eq!(listening(cloud), [format!("{GATEWAY}:9180")]);
    assert_eq!(cloud.exec("pgrep -l 'sshd|agent'"), "");
    let units = "ssh.service ssh.socket sshd-unix-local.socket sshd-vsock.socket droplet-agent.service nftables.service";
    let active = cloud.exec(&format!("systemctl is-active {units}"));
    assert!(active.lines().all(|state| state == "inactive"), "{units}:\n{active}");
    let passwords = cloud.exec("cut -d: -f1,2 /etc/shadow");
    let locked = |line: &str| line.split(':').nth(1).is_some_and(|password| password.starts_with(['!', '*']));
    assert!(passwords.lines().all(locked), "somebody has a password: {passwords}");
    assert!(cloud.exec("passwd -S root").starts_with("root L"), "root is not locked");
    assert_eq!(cloud.exec("find /root /home /etc/ssh -name 'authorized_keys*' -size +0"), "");
}

#[test]
fn without_ssh_keys_there_is_no_ssh_server_no_agent_no_password_and_no_account() {
    for image in ["debian-12-x64", "debian-13-x64"] {
        let cloud = Topology::new();
        with_unwanted_services(&cloud);
        for _ in 0..2 {
            cloud.boot_as(image, &[]);
            cloud.wait_for_health("ready", |status, _| status == 200);
            cloud.exec("cloud-init status --wait");
            assert_closed(&cloud);
            cloud.machine("power-off");
        }
    }
}

fn ssh(cloud: &Topology, key: &Path, account: &str, target: &str, command: &str) -> Output {
    let options = "-F none -o BatchMode=yes -o ConnectTimeout=3 -o StrictHostKeyChecking=no \
                   -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o IdentitiesOnly=yes";
    cloud.shell("node", &format!("ssh {options} -i {} {account}@{target} '{command}'", key.display()))
}

#[test]
fn with_ssh_keys_their_owner_gets_in_from_the_private_side_and_nobody_else() {
    for image in ["debian-12-x64", "debian-13-x64"] {
        let cloud = Topology::new();
        let folder = tempfile::tempdir().unwrap();
        let [key, other] = ["key", "other"].map(|name| {
            let path = folder.path().join(name);
            let made =
                Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&path).status();
            assert!(made.expect("ssh-keygen (Debian package openssh-client)").success());
            path
        });
        cloud.boot_as(image, &[fs::read_to_string(key.with_extension("pub")).unwrap().trim()]);
        cloud.wait_for_health("ready", |status, _| status == 200);
        cloud.exec("cloud-init status --wait");

        let private = GATEWAY.to_string();
        let done = ssh(&cloud, &key, "gateway", &private, "sudo -n id -un");
        assert_eq!(String::from_utf8_lossy(&done.stdout).trim(), "root", "{image}: {done:?}");
        for (key, account) in [(&key, "root"), (&other, "gateway")] {
            let done = ssh(&cloud, key, account, &private, "true");
            assert!(
                String::from_utf8_lossy(&done.stderr).contains("Permission denied"),
                "{account}: {done:?}"
            );
        }
        let offered = ssh(&cloud, &other, "gateway", &private, "true");
        assert!(String::from_utf8_lossy(&offered.stderr).contains("(publickey)"), "{offered:?}");
        assert!(cloud.exec("passwd -S root; passwd -S gateway").lines().all(|line| line.contains(" L ")));
        assert_eq!(cloud.inside("outside", || scan(GATEWAY_PUBLIC, 1..=1024)), [], "from outside");
        assert_eq!(cloud.inside("node", || scan(GATEWAY_PUBLIC, [22].into_iter())), [], "the public address");
        assert_eq!(cloud.inside("node", || scan(GATEWAY, [22].into_iter())), [(22, Answer::Open)]);
        assert!(cloud.who_am_i(NODE, crate::topology::INTERNET).is_some());
    }
}
