//! A Droplet's disk: the upper layer over the shared root file system, with what the cloud puts on it before first boot.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};

use super::{DropletSpec, MachineError, Place, Port};

/// Ranges that the cloud routes to the VPC's gateway on every Droplet (peering), metric 101.
const PEERING: [&str; 3] = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"];

/// DigitalOcean's resolvers.
const RESOLVERS: &str = "nameserver 67.207.67.2\nnameserver 67.207.67.3\n";

/// cloud-init as on a Droplet, but with the seed folder in place of the config drive, which a container has not.
/// Without `locale: false` it spends most of its time on locale-gen.
const CLOUD_CONFIG: &str = "datasource_list: [NoCloud]\nnetwork: {config: disabled}\nlocale: false\n";

/// The folders of one Droplet's disk.
#[derive(Debug, Clone)]
pub struct Disk {
    folder: PathBuf,
}

impl Disk {
    /// The disk of a Droplet, which may not be there yet.
    pub fn of(place: &Place, id: u64) -> Self {
        Self { folder: place.droplet(id) }
    }

    /// What differs from the shared root file system. Changing it is changing the disk of a machine that is off.
    pub fn upper(&self) -> PathBuf {
        self.folder.join("upper")
    }

    /// Where it is mounted, in the mount namespace of the Droplet's supervisor only.
    pub(super) fn merged(&self) -> PathBuf {
        self.folder.join("merged")
    }

    /// Makes the disk if there is none. What an earlier boot wrote is kept.
    pub fn prepare(&self, spec: &DropletSpec) -> Result<(), MachineError> {
        let upper = self.upper();
        let marker = self.folder.join("prepared");
        if marker.exists() {
            return Ok(());
        }
        for folder in [&upper, &self.folder.join("work"), &self.merged()] {
            fs::create_dir_all(folder).map_err(MachineError::file("can't make", folder))?;
        }
        let files = [
            ("etc/hostname", format!("{}\n", spec.name)),
            ("etc/hosts", format!("127.0.0.1 localhost\n127.0.1.1 {}\n", spec.name)),
            ("etc/resolv.conf", RESOLVERS.to_owned()),
            ("etc/cloud/cloud.cfg.d/90-droplet.cfg", CLOUD_CONFIG.to_owned()),
            ("var/lib/cloud/seed/nocloud/user-data", spec.user_data.clone()),
            ("var/lib/cloud/seed/nocloud/meta-data", meta_data(spec)),
            ("etc/systemd/network/10-eth0.network", public_network(spec)),
            ("etc/systemd/network/10-eth1.network", private_network(&spec.private)),
        ];
        for (path, content) in files {
            write(&upper.join(path), &content)?;
        }
        write(&marker, "")
    }

    /// Mounts it over `root`, in the mount namespace of the caller.
    pub(super) fn mount(&self, root: &Path) -> Result<(), MachineError> {
        let merged = self.merged();
        let layers = format!(
            "lowerdir={},upperdir={},workdir={}",
            root.display(),
            self.upper().display(),
            self.folder.join("work").display()
        );
        mount(Some("overlay"), &merged, Some("overlay"), MsFlags::empty(), Some(layers.as_str()))
            .map_err(|errno| MachineError::file("can't mount the overlay", &merged)(errno.into()))
    }

    /// Removes it, with all that is known of the Droplet.
    pub(super) fn remove(&self) -> Result<(), MachineError> {
        if self.folder.exists() {
            fs::remove_dir_all(&self.folder).map_err(MachineError::file("can't remove", &self.folder))?;
        }
        Ok(())
    }
}

/// JSON is YAML.
fn meta_data(spec: &DropletSpec) -> String {
    serde_json::json!({
        "instance-id": spec.id.to_string(), "local-hostname": spec.name, "public-keys": spec.ssh_keys,
    })
    .to_string()
}

fn write(path: &Path, content: &str) -> Result<(), MachineError> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(MachineError::file("can't make", parent))?;
    }
    fs::write(path, content).map_err(MachineError::file("can't write", path))
}

fn public_network(spec: &DropletSpec) -> String {
    let port = &spec.public;
    let mut text = network_head(port);
    if let Some(anchor) = &spec.anchor {
        // Writing to a String can't fail.
        let _ = writeln!(text, "Address={}/{}", anchor.address, anchor.prefix);
    }
    let _ = writeln!(text, "Gateway={}", port.gateway);
    text
}

fn private_network(port: &Port) -> String {
    let mut text = network_head(port);
    for range in PEERING {
        let _ = write!(text, "\n[Route]\nDestination={range}\nGateway={}\nMetric=101\n", port.gateway);
    }
    text
}

fn network_head(port: &Port) -> String {
    format!(
        "[Match]\nMACAddress={}\n\n[Network]\nLinkLocalAddressing=no\nIPv6AcceptRA=no\nAddress={}/{}\n",
        port.mac, port.address, port.prefix
    )
}
