//! Droplets as real machines: systemd-nspawn over an overlay, with cloud-init run on the user data.
//!
//! A Droplet's network stack lives and dies with it. Its network namespace is that of its process 1, never pinned by
//! anything else, so a power-off or reboot takes links, rules, sysctls and connections with it and a boot begins with
//! none. Its disk (the upper layer of the overlay) is kept until it is destroyed.
//!
//! Each running Droplet has a supervisor, `egress-lab machine run`: it mounts the disk in a mount namespace of its
//! own (so that even after `kill -9` no mount is left), starts the machine, plugs it into the lab's bridges, and
//! starts it again when it reboots. Processes are known by id and start time, and ended by nothing else.
//!
//! There is no way out of a Droplet but its two ports on the lab's bridges.

mod cgroup;
mod command;
mod disk;
mod process;
mod rootfs;
mod spec;
mod supervisor;
mod suspend;
mod verbs;
mod wiring;

use std::path::{Path, PathBuf};

pub use command::MachineCommand;
pub use command::revive;
pub use disk::Disk;
pub use process::{Record, Recorded};
pub use rootfs::{cache_folder, prepare as prepare_rootfs};
pub use spec::{Anchor, DropletSpec, Port};
pub use suspend::{resume, suspend};
pub use verbs::{boot, destroy, power_off, shutdown};
pub use wiring::{Bridges, Wiring};

use crate::state::Lab;

/// The lab a Droplet belongs to.
#[derive(Debug, Clone)]
pub struct Place {
    /// Name of the lab; part of the names of machines and cgroups.
    pub lab: String,
    /// Folder of the lab's state; must be able to hold the upper layer of an overlay (not itself an overlay).
    pub state: PathBuf,
}

impl Place {
    /// The place of a lab's Droplets.
    pub fn of(lab: &Lab) -> Self {
        Self { lab: lab.name().to_string(), state: lab.dir.path().to_owned() }
    }

    /// Folder of one Droplet.
    fn droplet(&self, id: u64) -> PathBuf {
        self.state.join("machines").join(id.to_string())
    }

    /// Ids of all Droplets that have a disk, running or not.
    pub fn droplets(&self) -> Vec<u64> {
        let Ok(entries) = std::fs::read_dir(self.state.join("machines")) else { return Vec::new() };
        let mut ids: Vec<u64> =
            entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        ids.sort_unstable();
        ids
    }

    /// What was recorded when the Droplet was last started; `None` when it is not running.
    pub fn running(&self, id: u64) -> Option<Recorded> {
        Recorded::read(&self.droplet(id)).filter(Recorded::is_running)
    }

    /// The description that the Droplet was last booted with.
    pub fn spec(&self, id: u64) -> Result<DropletSpec, MachineError> {
        supervisor::read_spec(&self.droplet(id), id)
    }

    fn machine_name(&self, id: u64) -> String {
        format!("{}-{id}", self.lab)
    }
}

/// Why a Droplet can't be made to do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// A file, folder or mount.
    #[error("{what} {path}: {source}")]
    File {
        /// What was tried, in words.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A program that the lab needs.
    #[error("{0}")]
    Program(String),
    /// The Droplet's description does not hold.
    #[error("the Droplet's description: {0}")]
    Spec(#[source] serde_json::Error),
    /// No such Droplet.
    #[error("there is no Droplet {0} in this lab")]
    Unknown(u64),
    /// The lab's network.
    #[error(transparent)]
    Lab(#[from] crate::error::LabError),
    /// Something did not come true in time.
    #[error("{what} did not happen within {seconds} s; see {log}")]
    TooLate {
        /// What was waited for.
        what: &'static str,
        /// How long.
        seconds: u64,
        /// Where it may be told why.
        log: PathBuf,
    },
}

impl MachineError {
    /// For `map_err`: an I/O error with what was tried on which path.
    fn file(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { what, path, source }
    }
}
