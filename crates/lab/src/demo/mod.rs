//! `egress-lab demo`: the main job, step by step, in front of a newcomer.
//!
//! Every step says what it does and why it matters, shows it with commands a person could type, and checks what it shows: a
//! step that did not show what it must makes the demo fail. What was measured goes to `target/demo/report.json`.

mod program;
mod report;
mod stage;
mod steps;
mod timeline;
mod voice;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, bail};

use report::{Report, StepReport};
use stage::Stage;
use voice::Voice;

/// What to show, and where.
#[derive(Debug, Clone, clap::Args)]
pub struct DemoArgs {
    /// The checkout.
    #[arg(long, default_value = ".")]
    pub repository: PathBuf,

    /// Folder with kubectl and the control plane's programs.
    #[arg(long, env = "KUBEBUILDER_ASSETS")]
    pub assets: PathBuf,

    /// Network variant: `overlay` or `vpc-native`.
    #[arg(long, default_value = "overlay")]
    pub variant: String,

    /// How the nodes reach the API server: `address` or `name`.
    #[arg(long, default_value = "address")]
    pub api_server: String,

    /// Folder with the image archives.
    #[arg(long, default_value = "target/images")]
    pub images: PathBuf,

    /// Where the report goes.
    #[arg(long, default_value = "target/demo/report.json")]
    pub report: PathBuf,

    /// Stop the lab at the end. Set by `CI=true`.
    #[arg(long, env = "CI", default_value_t = false, value_parser = clap::builder::FalseyValueParser::new())]
    pub stop: bool,
}

type StepBody = fn(&Stage, &DemoArgs, &mut Report) -> anyhow::Result<()>;

struct Step {
    name: &'static str,
    title: &'static str,
    why: &'static str,
    body: StepBody,
}

const STEPS: [Step; 9] = [
    Step {
        name: "cluster",
        title: "A real cluster",
        why: "Kubernetes as on DOKS: control plane at a public address, two nodes with a public and a VPC side.",
        body: steps::cluster,
    },
    Step {
        name: "install",
        title: "Install",
        why: "kubectl apply of what deploy/ ships, with images built from this tree: nothing is set up by hand.",
        body: steps::install,
    },
    Step {
        name: "problem",
        title: "The problem",
        why: "A pod reaches the outside with the address of whatever node it is on. No partner can allow-list that.",
        body: steps::problem,
    },
    Step {
        name: "egressgateway",
        title: "One EgressGateway",
        why: "Two Droplets are made, boot, configure themselves, and are proven through the data path before any route.",
        body: steps::egress_gateway,
    },
    Step {
        name: "fixed-address",
        title: "One fixed address",
        why: "The same pod, the same command. What is not listed still leaves as before.",
        body: steps::fixed_address,
    },
    Step {
        name: "failover",
        title: "The active gateway loses power",
        why: "Every node notices by itself and switches with one kernel message; no control plane is asked.",
        body: steps::failover,
    },
    Step {
        name: "repair",
        title: "The pair is whole again",
        why: "The controller cycles the power of the dead Droplet, which keeps its address; only if that does not help it replaces it.",
        body: steps::repair,
    },
    Step {
        name: "older-operator",
        title: "The older operator's manifests",
        why: "Same group, kind and fields: its users' files apply unchanged.",
        body: steps::older_operator,
    },
    Step {
        name: "delete",
        title: "Delete leaves nothing",
        why: "Routes go first, then the cloud's resources, then the object.",
        body: steps::delete,
    },
];

/// Shows everything. Fails if any step did not show what it must; the report is written in any case.
pub fn run(args: &DemoArgs, name: &str, state_dir: &std::path::Path) -> anyhow::Result<()> {
    let stage = Stage {
        lab: std::env::current_exe().context("cannot find this program")?,
        name: name.to_owned(),
        state_dir: std::path::absolute(state_dir)?,
        kubectl: args.assets.join("kubectl"),
        kubeconfig: state_dir.join("kubeconfig"),
        repository: args.repository.clone(),
        voice: Voice::begin(),
    };
    let begun = Instant::now();
    let mut report = Report::default();
    let failed = show_steps(&stage, args, &mut report);
    report.write(&args.report)?;
    println!();
    stage.say(&format!(
        "{:.0} s in all; what was measured: {}",
        begun.elapsed().as_secs_f64(),
        args.report.display()
    ));
    if args.stop {
        stage.lab_aloud(&["stop"])?;
    } else {
        look_around(&stage);
    }
    match failed {
        Some(name) => bail!("step {name} did not show what it must"),
        None => Ok(()),
    }
}

fn show_steps(stage: &Stage, args: &DemoArgs, report: &mut Report) -> Option<&'static str> {
    for (number, step) in STEPS.iter().enumerate() {
        println!("\n[{}/{}] {}", number + 1, STEPS.len(), step.title);
        stage.voice.step(step.title);
        stage.voice.explain(step.why);
        let begun = Instant::now();
        let outcome = (step.body)(stage, args, report);
        let seconds = begun.elapsed().as_secs_f64();
        let error = outcome.as_ref().err().map(|error| format!("{error:#}"));
        match &error {
            None => stage.say(&format!("ok, {seconds:.1} s")),
            Some(error) => stage.say(&format!("FAILED after {seconds:.1} s: {error}")),
        }
        report.steps.push(StepReport { name: step.name, ok: error.is_none(), seconds, error });
        if outcome.is_err() {
            return Some(step.name);
        }
    }
    None
}

fn look_around(stage: &Stage) {
    stage.say("The lab stays up. To look around:");
    stage.say(&format!("  export KUBECONFIG={}", stage.kubeconfig.display()));
    let folder = |program: &PathBuf| program.with_file_name("").display().to_string();
    stage.say(&format!("  export PATH={}:{}:$PATH", folder(&stage.kubectl), folder(&stage.lab)));
    stage.say("  kubectl get nodes,pods -A");
    stage.say("  kubectl apply -f examples/egressgateway.yaml && kubectl get egw --watch");
    stage.say(&format!("  egress-lab --name {} exec node-1 -- ip route show table 1157", stage.name));
    stage.say("To stop it: make demo-down");
}
