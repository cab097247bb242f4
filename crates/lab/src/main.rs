//! A whole cloud and cluster on one machine.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand, ValueEnum};
use egress_lab::demo::DemoArgs;
use egress_lab::faults::{self, Inside, Part, PowerAction};
use egress_lab::internet::{oracle, resolver};
use egress_lab::machine::{MachineCommand, Place};
use egress_lab::network::ports::{Direction, Side};
use egress_lab::processes::LaunchArgs;
use egress_lab::progress::Progress;
use egress_lab::relay::RelayArgs;
use egress_lab::start::{Lock, StartArgs};
use egress_lab::state::{Lab, LabName, StateDir};
use egress_lab::traffic::TrafficArgs;
use egress_lab::{
    cloud, cluster, demo, exec, internet, network, processes, relay, start, status, stop, traffic,
};

/// A whole cloud and cluster on one machine.
#[derive(Debug, Parser)]
#[command(name = "egress-lab", version)]
struct Arguments {
    /// Name of the lab: 1 to 12 lower-case letters and digits
    #[arg(long, default_value = "demo", global = true)]
    name: LabName,

    /// Folder of its state [default: $XDG_STATE_HOME/egress-lab/NAME, or below /var/lib]
    #[arg(long, env = "EGRESS_LAB_STATE", global = true)]
    state_dir: Option<PathBuf>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Output {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a lab, or a stopped part of one
    Start {
        /// Only this part of a lab that runs
        part: Option<Part>,
        #[command(flatten)]
        arguments: StartArgs,
    },
    /// Stop a lab and leave nothing of it, or stop a part of one
    Stop {
        /// Only this part
        part: Option<Part>,
    },
    /// What of a lab is there
    Status {
        /// How it is printed
        #[arg(short, long, value_enum, default_value = "text")]
        output: Output,
    },
    /// Run a command inside: internet, provider, cloud, node-1, gateway-a, pod:NAMESPACE/NAME, a Droplet's name or id
    Exec {
        /// Where
        place: String,
        /// What
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// What arrived at the internet, by source
    Oracle {
        #[command(subcommand)]
        reset: Option<OracleCommand>,
        /// Streams and connections from that time on, milliseconds since 1970
        #[arg(long, default_value_t = 0)]
        since: u64,
        /// How it is printed
        #[arg(short, long, value_enum, default_value = "json")]
        output: Output,
    },
    /// Import an image archive into every node
    LoadImage {
        /// The archive, of `docker save` or OCI
        archive: PathBuf,
    },
    /// Print the controller's token of the cloud API; it may do what deploy/token-scopes.txt says
    Token,
    /// Ask the cloud API with a token that may do everything; prints the body
    Cloud {
        /// GET, POST, ...
        method: String,
        /// Path and query
        path: String,
        /// JSON
        body: Option<String>,
    },
    /// Take a Droplet's power through the cloud API
    PowerOff {
        /// Name or id
        droplet: String,
    },
    /// Give it back
    PowerOn {
        /// Name or id
        droplet: String,
    },
    /// Reboot a Droplet through the cloud API
    Reboot {
        /// Name or id
        droplet: String,
    },
    /// End a Droplet's machine, the cloud none the wiser
    Kill {
        /// Name or id
        droplet: String,
    },
    /// Start the machine of a killed Droplet, the cloud none the wiser
    Revive {
        /// Name or id
        droplet: String,
    },
    /// Stop all programs of a Droplet; its kernel goes on, forwarding included
    Suspend {
        /// Name or id
        droplet: String,
    },
    /// Kill a program in the pods of a node; its kubelet starts it again
    Crash {
        /// Node
        node: String,
        /// Name of its file: egress-agent, egress-controller
        program: String,
    },
    /// Cut one link of a machine; it stays up and carries nothing
    Cut {
        /// Node, gateway or Droplet
        machine: String,
        /// Which link
        side: Side,
    },
    /// Drop one direction of one link
    Drop {
        /// Node, gateway or Droplet
        machine: String,
        /// Which link
        side: Side,
        /// As the machine sees it
        direction: Direction,
    },
    /// Nothing in, nothing out on both links, as of a kernel that hangs
    Freeze {
        /// Node, gateway or Droplet
        machine: String,
    },
    /// Lose a share of the packets of one link
    Lose {
        /// Node, gateway or Droplet
        machine: String,
        /// Which link
        side: Side,
        /// How many of a hundred, each by a throw of its own
        #[arg(value_parser = clap::value_parser!(u8).range(1..=99))]
        percent: u8,
        /// Only this direction, as the machine sees it
        direction: Option<Direction>,
    },
    /// Drop large packets on the public side, and tell nobody
    BlackHole {
        /// Gateway or Droplet
        machine: String,
        /// The largest that pass, IPv4 header included
        bytes: u16,
    },
    /// Cut two machines off from each other on one segment, and from nobody else
    Part {
        /// Node, gateway or Droplet
        machine: String,
        /// Another one, or provider-gateway
        other: String,
        /// The segment
        #[arg(value_enum, default_value_t = Side::Vpc)]
        side: Side,
    },
    /// A hand-made gateway takes over the VPC address of a Droplet, whose own VPC side is cut
    TakeOver {
        /// Name or id
        droplet: String,
        /// gateway-a or gateway-b
        by: String,
    },
    /// Addresses of the internet swallow what is sent to them
    Silence {
        /// Which
        #[arg(required = true)]
        addresses: Vec<Ipv4Addr>,
    },
    /// End whatever was done to a machine but taking its power; of `internet`, its silence
    Heal {
        /// Node, gateway, Droplet or internet
        machine: String,
    },
    /// Break something inside a gateway
    Break {
        /// What
        what: Inside,
        /// Gateway or Droplet
        machine: String,
    },
    /// Give the name by which nodes know the API server other addresses; it answers no longer at the old ones
    ApiAddresses {
        /// Public addresses that nobody in the lab has
        #[arg(required = true)]
        addresses: Vec<Ipv4Addr>,
    },
    /// Make new connections all the time and write down what became of each
    Traffic(TrafficArgs),
    /// Show the main job, step by step
    Demo(DemoArgs),
    /// Droplets as real machines: the hook of do-simulator
    #[command(subcommand)]
    Machine(MachineCommand),
    #[command(hide = true)]
    Launch(LaunchArgs),
    #[command(hide = true)]
    Relay(RelayArgs),
    #[command(hide = true)]
    Internet,
    #[command(hide = true)]
    Resolver,
    /// Holds a node's namespaces.
    #[command(hide = true)]
    Hold,
}

#[derive(Debug, Subcommand)]
enum OracleCommand {
    /// Forget what arrived
    Reset,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("egress-lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let Arguments { name, state_dir, command } = arguments;
    let dir = match state_dir {
        Some(path) => StateDir::at(&path)?,
        None => StateDir::default_for(&name),
    };
    let lab = || -> anyhow::Result<Lab> {
        Lab::load(dir.clone())?.with_context(|| format!("there is no lab {name}: egress-lab start"))
    };
    match command {
        Command::Start { part: None, arguments } => {
            let _lock = Lock::take(&name)?;
            let lab = start::start(&name, dir.clone(), &arguments)?;
            start::print_access(&lab);
        }
        Command::Start { part: Some(part), .. } => faults::start_part(&lab()?, part)?,
        Command::Stop { part: None } => {
            let lock = Lock::take(&name)?;
            let stopped = stop::stop(&name, &dir, &Progress::begin());
            lock.remove()?;
            println!("lab {name}: {}", stopped?);
        }
        Command::Stop { part: Some(part) } => faults::stop_part(&lab()?, part)?,
        Command::Status { output } => {
            let status = status::status(&name, &dir)?;
            match output {
                Output::Text => status::print(&status),
                Output::Json => println!("{}", serde_json::to_string_pretty(&status)?),
            }
        }
        Command::Exec { place, command } => exec::exec(&lab()?, &place, &command)?,
        Command::Oracle { reset: Some(OracleCommand::Reset), .. } => oracle::reset(&lab()?)?,
        Command::Oracle { reset: None, since, output } => {
            let answer = oracle::ask(&lab()?, since)?;
            match output {
                Output::Json => println!("{}", serde_json::to_string_pretty(&answer)?),
                Output::Text => oracle::print(&answer),
            }
        }
        Command::LoadImage { archive } => cluster::load(&lab()?, &archive)?,
        Command::Token => println!("{}", lab()?.settings.token),
        Command::Cloud { method, path, body } => {
            println!("{}", cloud::request(&lab()?, &method, &path, body.as_deref())?);
        }
        Command::PowerOff { droplet } => faults::power(&lab()?, &droplet, PowerAction::Off)?,
        Command::PowerOn { droplet } => faults::power(&lab()?, &droplet, PowerAction::On)?,
        Command::Reboot { droplet } => faults::power(&lab()?, &droplet, PowerAction::Reboot)?,
        Command::Kill { droplet } => faults::kill(&lab()?, &droplet)?,
        Command::Revive { droplet } => faults::revive(&lab()?, &droplet)?,
        Command::Suspend { droplet } => faults::suspend(&lab()?, &droplet)?,
        Command::Crash { node, program } => {
            println!("{} killed", faults::crash(&lab()?, &node, &program)?);
        }
        Command::Lose { machine, side, percent, direction } => {
            let directions = direction.map_or(vec![Direction::In, Direction::Out], |one| vec![one]);
            faults::lose(&lab()?, &machine, side, &directions, percent)?;
        }
        Command::BlackHole { machine, bytes } => faults::black_hole(&lab()?, &machine, bytes)?,
        Command::Part { machine, other, side } => faults::part(&lab()?, &machine, &other, side)?,
        Command::TakeOver { droplet, by } => faults::take_over(&lab()?, &droplet, &by)?,
        Command::Silence { addresses } => network::silence(lab()?.name(), &addresses)?,
        Command::Cut { machine, side } => {
            faults::cut(&lab()?, &machine, &[side], &[Direction::In, Direction::Out])?;
        }
        Command::Drop { machine, side, direction } => faults::cut(&lab()?, &machine, &[side], &[direction])?,
        Command::Freeze { machine } => {
            faults::cut(&lab()?, &machine, &Side::ALL, &[Direction::In, Direction::Out])?;
        }
        Command::Heal { machine } => faults::heal(&lab()?, &machine)?,
        Command::Break { what, machine } => faults::break_inside(&lab()?, &machine, what)?,
        Command::ApiAddresses { addresses } => cluster::move_api_name(&lab()?, &addresses)?,
        Command::Traffic(arguments) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(traffic::run(arguments))?;
        }
        Command::Demo(arguments) => demo::run(&arguments, &name.to_string(), dir.path())?,
        Command::Machine(command) => {
            let place = Place { lab: name.to_string(), state: dir.path().to_owned() };
            return Ok(ExitCode::from(command.execute(&place)?));
        }
        Command::Launch(arguments) => processes::launch(&name, &dir, &arguments)?,
        Command::Relay(arguments) => relay::run(&arguments)?,
        Command::Internet => internet::run(&dir)?,
        Command::Resolver => resolver::run(&dir)?,
        Command::Hold => loop {
            nix::unistd::pause();
        },
    }
    Ok(ExitCode::SUCCESS)
}
