//! Generated files, checks and images of this repository.
//!
//! `cargo xtask help` lists the commands. Everything runs from any folder of the tree and writes only into it.

mod arrows;
mod chart;
mod crdgen;
mod decisions;
mod documents;
mod generated;
mod guarantees;
mod images;
mod manifests;
mod push;
mod rbac;
mod reference;
mod schema;
mod tree;

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "xtask", about = "Generated files, checks and images of this repository")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Writes crds/ from the types of crates/api.
    Crdgen {
        /// Changes nothing; fails when a file would change.
        #[arg(long)]
        check: bool,
    },
    /// Writes deploy/rbac.txt, the list of everything a ServiceAccount may do, from the rendered manifests.
    Rbac {
        /// Changes nothing; fails when the file would change.
        #[arg(long)]
        check: bool,
    },
    /// Writes the list of decision records, docs/decisions/README.md, from their titles.
    Decisions {
        /// Changes nothing; fails when a record is missing in it.
        #[arg(long)]
        check: bool,
    },
    /// Writes what is generated in deploy/chart and docs/install.md: templates from deploy/base and crds/, values from their schema.
    Chart {
        /// Changes nothing; fails when a file would change.
        #[arg(long)]
        check: bool,
    },
    /// Writes docs/reference.md, every field of every kind, from the types of crates/api.
    Reference {
        /// Changes nothing; fails when the file would change.
        #[arg(long)]
        check: bool,
    },
    /// Prints every object of ours that documents and examples show, as one list for `kubectl create --dry-run=server`.
    Objects,
    /// Everything a commit must hold: crate arrows, generated files, named guarantees, links and objects of the documents, security
    /// of the manifests.
    Check,
    /// Builds target/images/*.tar without a container engine.
    Images(images::Arguments),
    /// Pushes the images to a registry and renders target/deploy/install.yaml with their digests.
    Push(push::Arguments),
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let root = tree::root()?;
    match Arguments::parse().command {
        Command::Crdgen { check } => crdgen::run(&root, check),
        Command::Rbac { check } => rbac::run(&root, check),
        Command::Decisions { check } => decisions::run(&root, check),
        Command::Chart { check } => chart::run(&root, check),
        Command::Reference { check } => reference::run(&root, check),
        Command::Objects => documents::print(&root),
        Command::Check => check(&root),
        Command::Images(arguments) => images::run(&root, &arguments),
        Command::Push(arguments) => push::run(&root, &arguments),
    }
}

type Check = fn(&std::path::Path) -> Result<()>;

// All of them, so that one run shows all there is to mend.
fn check(root: &std::path::Path) -> Result<()> {
    let checks: [(&str, Check); 10] = [
        ("crate arrows", arrows::check),
        ("generated CRDs", |root| crdgen::run(root, true)),
        ("rights of ServiceAccounts", |root| rbac::run(root, true)),
        ("chart", |root| chart::run(root, true)),
        ("list of decision records", |root| decisions::run(root, true)),
        ("reference of the objects", |root| reference::run(root, true)),
        ("links of the documents", documents::check_links),
        ("objects that documents show", documents::check_objects),
        ("security of the manifests", manifests::check),
        ("guarantees name tests that exist", guarantees::check),
    ];
    let mut failed = 0;
    for (name, check) in checks {
        match check(root) {
            Ok(()) => println!("ok   {name}"),
            Err(error) => {
                failed += 1;
                println!("FAIL {name}: {error:#}");
            }
        }
    }
    if failed > 0 {
        bail!("{failed} of {} checks failed", checks.len());
    }
    Ok(())
}
