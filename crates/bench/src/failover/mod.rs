//! How long users are without a gateway when one dies: the distribution over many kills, and what that quickness costs.
//!
//! ```text
//!  pair (several at a time, each a cluster of its own)
//!    control plane: etcd and kube-apiserver, real; stopped for the whole measured part with `--control-plane down`
//!    nodes: the agent, real; a new connection every 10 ms on each
//!    two gateways with the packet rules of real ones
//!    outside: answers, and counts what no gateway's address is on
//! ```
//!
//! Everything is seen from outside; no agent is asked anything. No controller runs: a switch needs none.

mod chapter;
mod fault;
mod gateway;
mod histogram;
mod kill;
mod ledger;
pub(crate) mod namespace;
mod pair;
mod planned;
mod record;
mod soak;
mod summary;
mod traffic;
mod work;
pub(crate) mod world;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Parser, ValueEnum};
use serde_json::json;

use self::fault::{Class, Fault};
pub use self::namespace::Namespace;
use self::pair::Profile;
pub use self::pair::kubeconfig;
use self::record::{Key, Record};
pub use self::world::{CONTROL_PLANE, GATEWAYS, HEALTH_TARGETS, ProbesSeen, World, node_addresses};
use crate::{document, numbers};

/// From so many kills on a distribution has a p99 that means something, and goes into the documentation.
const FULL: usize = 1_000;

/// Measures how long nodes are without a gateway when one dies.
#[derive(Debug, Parser)]
pub struct Settings {
    /// The agent, in release form.
    #[arg(long, default_value = "target/release/egress-agent")]
    agent: PathBuf,

    /// Kills that the record is to have in the end; those of earlier runs with the same code count.
    #[arg(long, default_value_t = 1_000)]
    kills: usize,

    /// Whether API server and etcd run while it is measured.
    #[arg(long, value_enum, default_value = "up")]
    control_plane: ControlPlane,

    /// How gateways are probed.
    #[arg(long, value_enum, default_value = "default")]
    profile: ProfileName,

    /// `all`, `dead`, `gray`, or names of faults.
    #[arg(long, value_delimiter = ',', default_value = "all")]
    faults: Vec<String>,

    /// Pairs at a time, each a cluster of its own.
    #[arg(long, default_value_t = 6)]
    pairs: usize,

    /// Nodes of each.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=50))]
    nodes: u8,

    /// Seed of the moments and kinds. Left out, it is taken from the clock, and printed.
    #[arg(long)]
    seed: Option<u64>,

    /// Instead of kills, so many planned switches.
    #[arg(long)]
    planned: Option<u32>,

    /// Instead of kills, a soak of so many minutes under loss and load, after the price of probing was taken.
    #[arg(long)]
    soak: Option<u64>,

    /// Commit of the code, `-dirty` at its end where it was changed since. Only kills of the same commit add up.
    #[arg(long, default_value = "")]
    commit: String,

    /// Where the numbers go; records of all runs are in the folder `failover` beside it.
    #[arg(long, default_value = "target/bench/failover.json")]
    out: PathBuf,

    /// Document whose section is written anew when a run is full.
    #[arg(long)]
    document: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ControlPlane {
    Up,
    Down,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ProfileName {
    Default,
    Fast,
}

impl Settings {
    fn faults(&self) -> anyhow::Result<Vec<Fault>> {
        let mut faults = Vec::new();
        for name in &self.faults {
            match name.as_str() {
                "all" => faults.extend(Fault::ALL),
                "dead" => faults.extend(Fault::of(Class::Dead)),
                "gray" => faults.extend(Fault::of(Class::Gray)),
                name => {
                    faults.push(Fault::named(name).with_context(|| format!("there is no fault '{name}'"))?);
                }
            }
        }
        Ok(faults)
    }

    fn key(&self) -> Key {
        Key {
            commit: self.commit.clone(),
            control_plane: if self.control_plane == ControlPlane::Up { "up" } else { "down" },
            profile: self.profile().name(),
        }
    }

    fn profile(&self) -> Profile {
        match self.profile {
            ProfileName::Default => Profile::Default,
            ProfileName::Fast => Profile::Fast,
        }
    }

    /// Folder of the records.
    fn folder(&self) -> PathBuf {
        self.out.with_extension("")
    }

    fn plan(&self) -> anyhow::Result<work::Plan> {
        let clock = || std::time::UNIX_EPOCH.elapsed().map_or(1, |since| since.as_secs());
        Ok(work::Plan {
            agent: self.agent.canonicalize().with_context(|| self.agent.display().to_string())?,
            profile: self.profile(),
            control_plane_stops: self.control_plane == ControlPlane::Down,
            faults: self.faults()?,
            pairs: self.pairs.max(1),
            nodes: self.nodes,
            seed: self.seed.unwrap_or_else(clock),
        })
    }
}

/// Measures what was asked for, and writes it down.
pub fn run(settings: &Settings) -> anyhow::Result<()> {
    let plan = settings.plan()?;
    eprintln!("seed {}: --seed {} draws the same faults and moments again", plan.seed, plan.seed);
    if let Some(switches) = settings.planned {
        let planned = work::planned(&plan, switches)?;
        let summary = planned::summary(&planned, &settings.commit);
        write(&settings.folder().join("planned.json"), &serde_json::to_string_pretty(&summary)?)?;
        println!("{}", chapter::price(Some(&summary), None));
    } else if let Some(minutes) = settings.soak {
        let soaks = work::soak(&plan, std::time::Duration::from_secs(minutes * 60))?;
        let summary = soak::summary(&soaks, &settings.commit, minutes);
        write(&settings.folder().join("soak.json"), &serde_json::to_string_pretty(&summary)?)?;
        println!("{}", chapter::price(None, Some(&summary)));
    } else {
        kills(settings, &plan)?;
    }
    match &settings.document {
        Some(path) => publish(settings, path),
        None => Ok(()),
    }
}

fn kills(settings: &Settings, plan: &work::Plan) -> anyhow::Result<()> {
    let key = settings.key();
    let mut record = Record::open(&settings.folder(), &key)?;
    if !record.kills.is_empty() {
        eprintln!("{} kills of earlier runs with this code count", record.kills.len());
    }
    // What was measured before something went wrong is written too.
    let outcome = work::kills(plan, settings.kills, &mut record);
    let mut summary = summary::summary(&record.kills, &key);
    summary["machine"] = numbers::machine();
    for other in ["soak", "planned"] {
        let found = chapter::earlier(&settings.folder().join(format!("{other}.json")), &key.commit);
        summary[other] = found.unwrap_or(json!(null));
    }
    let text = summary::text(&summary, &record.kills)?;
    write(&settings.out, &text)?;
    write(&settings.folder().join(key.stem() + ".json"), &text)?;
    write(&settings.out.with_extension("svg"), &chapter::picture(&record.kills, &summary))?;
    println!("{}", chapter::table(&numbers::machine_in_words(&summary["machine"]), &[summary.clone()]));
    println!("{}\n{}", chapter::faults(&summary), chapter::pairs(&summary));
    outcome
}

/// Writes the section of the documentation from all full runs with this code.
fn publish(settings: &Settings, document: &Path) -> anyhow::Result<()> {
    let folder = settings.folder();
    let mut runs = Vec::new();
    for (control_plane, profile) in [("up", "default"), ("down", "default"), ("up", "fast"), ("down", "fast")]
    {
        let key = Key { commit: settings.commit.clone(), control_plane, profile };
        let run = chapter::earlier(&folder.join(key.stem() + ".json"), &key.commit);
        runs.extend(run.filter(|run| run["kills"].as_u64().is_some_and(|kills| kills >= FULL as u64)));
    }
    let Some(first) = runs.first() else {
        eprintln!("no full run of {FULL} kills with this code yet: {} stays as it is", document.display());
        return Ok(());
    };
    let other = |name: &str| chapter::earlier(&folder.join(format!("{name}.json")), &settings.commit);
    let (planned, soak) = (other("planned"), other("soak"));
    let machine = numbers::machine_in_words(&first["machine"]);
    let section = [
        chapter::table(&machine, &runs),
        "![Histograms of the first column's run](failover.svg)\n".to_owned(),
        chapter::faults(first),
        chapter::pairs(first),
        chapter::price(planned.as_ref(), soak.as_ref()),
    ];
    document::write(document, chapter::BEGIN, chapter::END, section.join("\n").trim_end())?;
    let kills: Vec<kill::Kill> = serde_json::from_value(first["raw"].clone())?;
    write(&document.with_file_name("failover.svg"), &chapter::picture(&kills, first))
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, text).with_context(|| path.display().to_string())
}
