//! `kubectl egress doctor`: whether the installation is as it must be; each finding with the fix. Changes nothing.

mod cloud;
mod definitions;
mod installed;
mod neighbours;
mod nodes;
mod rights;

use std::fmt;
use std::process::ExitCode;

use clap::Args;
use egress_runtime::kubernetes;
pub use neighbours::{OLDER_OPERATOR, blueprint_kind};
use serde::Serialize;

use crate::access::Access;
use crate::output::{Format, print};
use crate::view::View;

/// What is looked at, and how it is shown.
#[derive(Debug, Args)]
#[command(
    after_help = "Looks at the definitions (CRDs), the controller and the agents, their versions and rights, the token, region and VPC, the nodes'
network, and other programs that route: DigitalOcean's routing agent, the older StaticRoute operator, Crossplane's Droplets.

Exit codes: 0, nothing is wrong; 1, something is; 2, something can't be told.

Examples:
  kubectl egress doctor
  kubectl egress doctor --skip-cloud
  kubectl egress doctor -o json | jq '.findings[] | select(.level == \"wrong\") | .fix'"
)]
pub struct Arguments {
    /// Does not ask DigitalOcean: no token is needed.
    #[arg(long)]
    skip_cloud: bool,

    /// Shows what is in order, too.
    #[arg(long)]
    all: bool,

    /// How it is shown.
    #[arg(short = 'o', long, value_enum, default_value_t)]
    output: Format,

    #[command(flatten)]
    access: Access,
}

/// How it is with one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Level {
    /// It must be mended.
    Wrong,
    /// It can't be told.
    Unknown,
    /// Good to know.
    Note,
    /// In order.
    Fine,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    level: Level,
    /// What was looked at.
    about: String,
    /// How it is.
    message: String,
    /// What mends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

impl Finding {
    fn fine(about: &str, message: impl Into<String>) -> Self {
        Self { level: Level::Fine, about: about.to_owned(), message: message.into(), fix: None }
    }

    fn new(level: Level, about: &str, message: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { level, about: about.to_owned(), message: message.into(), fix: Some(fix.into()) }
    }

    fn wrong(about: &str, message: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(Level::Wrong, about, message, fix)
    }

    fn unknown(about: &str, message: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(Level::Unknown, about, message, fix)
    }

    fn note(about: &str, message: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(Level::Note, about, message, fix)
    }
}

/// Everything that was found.
#[derive(Clone, Debug, Serialize)]
struct Report {
    findings: Vec<Finding>,
    #[serde(skip)]
    all: bool,
}

impl Report {
    fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self.findings.iter().map(|one| one.level).min() {
            Some(Level::Wrong) => 1,
            Some(Level::Unknown) => 2,
            _ => 0,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Finding { level, about, message, fix } in &self.findings {
            let mark = match level {
                Level::Wrong => "WRONG  ",
                Level::Unknown => "UNKNOWN",
                Level::Note => "note   ",
                Level::Fine if self.all => "ok     ",
                Level::Fine => continue,
            };
            writeln!(f, "{mark} {about}: {message}")?;
            if let Some(fix) = fix {
                writeln!(f, "        fix: {fix}")?;
            }
        }
        let many = |level| self.findings.iter().filter(|one| one.level == level).count();
        writeln!(
            f,
            "{} looked at: {} wrong, {} can't be told, {} to know.",
            self.findings.len(),
            many(Level::Wrong),
            many(Level::Unknown),
            many(Level::Note)
        )
    }
}

/// Looks at everything.
pub async fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let client = kubernetes::client().await?;
    let namespace = &arguments.access.namespace;
    let view = View::read(&client).await;
    let settings = arguments.access.settings(&client).await;
    let mut findings: Vec<Finding> = view
        .unread
        .iter()
        .map(|unread| {
            Finding::unknown(
                "objects",
                format!("{} can't be read: {}", unread.kind, unread.why),
                "ask for the right to list them",
            )
        })
        .collect();
    findings.extend(definitions::look(&client).await);
    findings.extend(installed::look(&client, namespace, &view).await);
    findings.extend(rights::look(&client, namespace, &settings.token_secret).await);
    findings.extend(nodes::findings(&view));
    findings.extend(neighbours::look(&client, &view).await);
    if !arguments.skip_cloud {
        findings.extend(Box::pin(cloud::look(&client, &arguments.access, &settings, &view)).await);
    }
    findings.sort();
    let report = Report { findings, all: arguments.all };
    print(&report, arguments.output)?;
    Ok(report.exit_code())
}
