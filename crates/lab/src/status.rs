//! What of a lab is there.

use std::path::PathBuf;

use serde::Serialize;

use crate::error::Result;
use crate::network::addresses::{HAND_MADE_GATEWAYS, NODES};
use crate::processes;
use crate::state::{Lab, LabName, Size, StateDir, Variant};
use crate::stop::{Remains, remains};

/// One process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProcessStatus {
    /// What the lab calls it.
    pub name: String,
    /// Its id.
    pub pid: u32,
    /// Whether it runs.
    pub running: bool,
}

/// What `egress-lab status -o json` prints. Fields are added, not changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Its name.
    pub name: LabName,
    /// Whether a lab of that name was started.
    pub started: bool,
    /// Its folder.
    pub state_dir: PathBuf,
    /// How much of the world it has.
    pub size: Option<Size>,
    /// Its kind of cluster network.
    pub variant: Option<Variant>,
    /// Administrator's configuration for kubectl.
    pub kubeconfig: Option<PathBuf>,
    /// The API server, from the machine.
    pub api_server: Option<String>,
    /// The cloud's API, from the machine.
    pub cloud_api: Option<String>,
    /// Parts for `exec`.
    pub parts: Vec<&'static str>,
    /// Ids of Droplets with a machine that runs.
    pub droplets: Vec<u64>,
    /// Its processes.
    pub processes: Vec<ProcessStatus>,
    /// Everything that `stop` would remove.
    pub remains: Remains,
}

/// Looks.
pub fn status(name: &LabName, dir: &StateDir) -> Result<Status> {
    let lab = Lab::load(dir.clone())?;
    let settings = lab.as_ref().map(|lab| &lab.settings);
    let size = settings.map(|settings| settings.size);
    let has_api = matches!(size, Some(Size::Api | Size::All));
    let has_network = matches!(size, Some(Size::Network | Size::All));
    let url = |scheme: &str, port: u16| format!("{scheme}://127.0.0.1:{port}");
    let machines = lab.as_ref().map(Lab::machines);
    let droplets = machines.iter().flat_map(|place| {
        let ids = place.droplets().into_iter();
        ids.filter(|id| place.running(*id).is_some())
    });
    let mut parts = Vec::new();
    if has_network {
        parts.extend(["internet", "provider", "cloud"]);
        parts.extend(NODES.iter().map(|node| node.name));
        parts.extend(HAND_MADE_GATEWAYS.iter().map(|gateway| gateway.name));
    }
    let processes = processes::recorded(dir).into_iter().map(|process| {
        let running = process.is_alive();
        ProcessStatus { name: process.name, pid: process.pid, running }
    });
    Ok(Status {
        name: name.clone(),
        started: lab.is_some(),
        state_dir: dir.path().to_owned(),
        size,
        variant: settings.map(|settings| settings.variant),
        kubeconfig: has_api.then(|| dir.kubeconfig()),
        api_server: settings.filter(|_| has_api).map(|settings| url("https", settings.api_port)),
        cloud_api: settings
            .filter(|settings| has_network && settings.simulator.is_some())
            .map(|settings| url("http", settings.cloud_port)),
        parts,
        droplets: droplets.collect(),
        processes: processes.collect(),
        remains: remains(name, dir),
    })
}

/// The same for a person.
pub fn print(status: &Status) {
    if !status.started {
        println!("lab {}: not started", status.name);
    } else if let Some(size) = status.size {
        println!("lab {}: {size:?} in {}", status.name, status.state_dir.display());
    }
    if let Some(kubeconfig) = &status.kubeconfig {
        println!("export KUBECONFIG={}", kubeconfig.display());
    }
    for (what, url) in [("API server", &status.api_server), ("cloud API", &status.cloud_api)] {
        if let Some(url) = url {
            println!("{what}: {url}");
        }
    }
    if !status.parts.is_empty() {
        println!("exec: {}", status.parts.join(" "));
    }
    for id in &status.droplets {
        println!("Droplet {id}: running");
    }
    for process in &status.processes {
        let state = if process.running { "running" } else { "ENDED" };
        println!("{:24} {:>8} {state}", process.name, process.pid);
    }
    let remains = &status.remains;
    println!(
        "on the machine: {} processes, {} namespaces, {} cgroups, {} mounts",
        remains.processes.len(),
        remains.namespaces.len(),
        remains.cgroups.len(),
        remains.mounts.len()
    );
}
