//! `egress-lab machine ...`: the hook that the simulator calls, and the supervisor it starts.

use std::io::Read;
use std::process::Command;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{Bridges, DropletSpec, MachineError, Place, Wiring, rootfs, supervisor, verbs};
use crate::network::addresses::port_owner;
use crate::network::reserved::{self, Translation};
use crate::network::walls::{self, Passes};
use crate::state::{Lab, StateDir};

/// Droplets as real machines. The simulator calls these with the Droplet's description on standard input.
#[derive(Debug, Clone, PartialEq, Eq, clap::Subcommand)]
pub enum MachineCommand {
    /// Make the root file system that Droplets of an image share, if it is not in the cache; prints its folder
    Prepare {
        /// Image of the cloud
        #[arg(long, default_value = "debian-12-x64")]
        image: String,
    },
    /// Switch a Droplet on; its disk is kept from one boot to the next
    Boot {
        /// Id of the Droplet
        id: u64,
    },
    /// Take a Droplet's power away
    PowerOff {
        /// Id of the Droplet
        id: u64,
    },
    /// Shut a Droplet down in good order
    Shutdown {
        /// Id of the Droplet
        id: u64,
    },
    /// Power off and remove the disk
    Destroy {
        /// Id of the Droplet
        id: u64,
    },
    /// Make the cloud's firewalls act on a Droplet's packets
    Firewall {
        /// Id of the Droplet
        id: u64,
    },
    /// Translate reserved addresses to the anchor addresses of those who hold them
    ReservedIps,
    /// Run a command in a Droplet
    Exec {
        /// Id of the Droplet
        id: u64,
        /// The command and its arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<String>,
    },
    /// Run a Droplet's machine until it is off (started by boot)
    #[command(hide = true)]
    Run {
        /// Id of the Droplet
        id: u64,
    },
}

impl MachineCommand {
    /// Does it. Returns the exit code of this program.
    pub fn execute(&self, place: &Place) -> Result<u8, MachineError> {
        match self {
            Self::Prepare { image } => {
                let folder = rootfs::prepare(image, &mut |line| eprintln!("{line}"))?;
                println!("{}", folder.display());
            }
            Self::Boot { id } => boot(place, *id)?,
            Self::PowerOff { id } => verbs::power_off(place, *id, wiring_of(place)?.as_ref())?,
            Self::Shutdown { id } => verbs::shutdown(place, *id, wiring_of(place)?.as_ref())?,
            Self::Destroy { id } => verbs::destroy(place, *id, wiring_of(place)?.as_ref())?,
            Self::Firewall { id } => firewall(place, *id)?,
            Self::ReservedIps => reserved_ips(place)?,
            Self::Exec { id, command } => return exec(place, *id, command),
            Self::Run { id } => supervisor::run(place, *id, wiring_of(place)?.as_ref())?,
        }
        Ok(0)
    }
}

/// The lab's network with its packet rules; or, where there is no lab, two bridges.
fn wiring_of(place: &Place) -> Result<Box<dyn Wiring>, MachineError> {
    match Lab::load(StateDir::at(&place.state)?)? {
        Some(lab) => Ok(Box::new(lab)),
        None => Ok(Box::new(Bridges::read(&place.state)?)),
    }
}

fn boot(place: &Place, id: u64) -> Result<(), MachineError> {
    let spec: DropletSpec = told()?;
    if spec.id != id {
        return Err(MachineError::Unknown(id));
    }
    boot_as(place, &spec)
}

/// What the simulator says on standard input.
fn told<T: DeserializeOwned>() -> Result<T, MachineError> {
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .map_err(|error| MachineError::Program(format!("standard input: {error}")))?;
    serde_json::from_str(&text).map_err(MachineError::Spec)
}

#[derive(Deserialize)]
struct Policy {
    rules: Option<Passes>,
}

fn firewall(place: &Place, id: u64) -> Result<(), MachineError> {
    let Policy { rules } = told()?;
    let Some(lab) = Lab::load(StateDir::at(&place.state)?)? else {
        return Err(MachineError::Program("two bridges without a lab have no firewalls".into()));
    };
    Ok(walls::put_up(lab.name(), &port_owner(id), rules.as_ref())?)
}

#[derive(Deserialize)]
struct Holdings {
    addresses: Vec<Translation>,
}

fn reserved_ips(place: &Place) -> Result<(), MachineError> {
    let Holdings { addresses } = told()?;
    let Some(lab) = Lab::load(StateDir::at(&place.state)?)? else {
        return Err(MachineError::Program("two bridges without a lab have no reserved addresses".into()));
    };
    Ok(reserved::translate(lab.name(), &addresses)?)
}

/// Switches a machine on as it was last switched on, without a word to the cloud.
pub fn revive(place: &Place, id: u64) -> Result<(), MachineError> {
    boot_as(place, &place.spec(id)?)
}

fn boot_as(place: &Place, spec: &DropletSpec) -> Result<(), MachineError> {
    let program = std::env::current_exe()
        .map_err(|error| MachineError::Program(format!("the path of this program: {error}")))?;
    let mut supervise = Command::new(program);
    supervise.arg("--name").arg(&place.lab).arg("--state-dir").arg(&place.state);
    supervise.args(["machine", "run", &spec.id.to_string()]);
    verbs::boot(place, spec, supervise)
}

fn exec(place: &Place, id: u64, command: &[String]) -> Result<u8, MachineError> {
    let recorded = place.running(id).ok_or(MachineError::Unknown(id))?;
    let status = Command::new("nsenter")
        .args(["--all", "--target", &recorded.leader.pid.to_string(), "--"])
        .args(command)
        .status()
        .map_err(|error| MachineError::Program(format!("nsenter: {error}")))?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}
