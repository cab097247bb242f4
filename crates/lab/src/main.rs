//! A whole cloud and cluster on one machine.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use egress_lab::machine::{MachineCommand, Place};

/// A whole cloud and cluster on one machine.
#[derive(Debug, Parser)]
#[command(name = "egress-lab", version)]
struct Arguments {
    /// Name of the lab
    #[arg(long, default_value = "lab", global = true)]
    name: String,

    /// Folder of its state; the default is /var/lib/egress-lab/NAME
    #[arg(long, global = true)]
    state_dir: Option<PathBuf>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Droplets as real machines: the hook of do-simulator
    #[command(subcommand)]
    Machine(MachineCommand),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let state =
        arguments.state_dir.unwrap_or_else(|| PathBuf::from("/var/lib/egress-lab").join(&arguments.name));
    let place = Place { lab: arguments.name, state };
    let outcome = match arguments.command {
        Command::Machine(command) => command.execute(&place),
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("egress-lab: {error}");
            ExitCode::FAILURE
        }
    }
}
