//! Completion in the shell: what kubectl asks a program called `kubectl_complete-egress` for.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::{Arg, Args, Command};
use egress_runtime::kubernetes;

use crate::output::say;
use crate::view::{View, name};

/// The program that kubectl looks for on the PATH.
const SCRIPT: &str = "#!/bin/sh\nexec kubectl egress __complete \"$@\"\n";
/// Whoever presses a key does not wait longer.
const PATIENCE: Duration = Duration::from_secs(3);
/// What kubectl is told: no names of files.
const NO_FILES: &str = ":4";
/// And here they are what is wanted.
const FILES: &str = ":0";

/// How completion is set up.
#[derive(Debug, Args)]
#[command(
    after_help = "kubectl completes for plugins itself, where its own completion is set up (kubectl completion --help), with the help of a program
on the PATH.

Examples:
  kubectl egress completion > ~/.local/bin/kubectl_complete-egress
  chmod +x ~/.local/bin/kubectl_complete-egress"
)]
pub struct Arguments {}

/// The words so far; the last one, which may be empty, is to be completed.
#[derive(Debug, Args)]
pub struct Words {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

/// Names of objects that can be meant.
#[derive(Debug, Default)]
struct Names {
    /// EgressGateways with the names of their gateways.
    gateways: BTreeMap<String, Vec<String>>,
    routes: Vec<String>,
    nodes: Vec<String>,
}

/// Prints the program.
pub fn script() -> anyhow::Result<()> {
    say(SCRIPT)
}

/// Prints what the last word can become.
pub async fn complete(words: &Words, command: &Command) -> anyhow::Result<()> {
    let names = tokio::time::timeout(PATIENCE, names()).await.unwrap_or_default();
    let (candidates, directive) = candidates(command, &words.words, &names);
    let lines: Vec<&str> = candidates.iter().map(String::as_str).chain([directive]).collect();
    say(&(lines.join("\n") + "\n"))
}

// Without a cluster there are no names, and nothing to complain of.
async fn names() -> Names {
    let Ok(client) = kubernetes::client().await else { return Names::default() };
    let view = View::read(&client).await;
    let machines = |gateway: &egress_api::EgressGateway| {
        let listed = gateway.status.iter().flat_map(|status| &status.gateways);
        listed.map(|one| one.name.clone()).collect()
    };
    Names {
        gateways: view.gateways().map(|gateway| (name(gateway).to_owned(), machines(gateway))).collect(),
        routes: view.routes().map(|route| name(route).to_owned()).collect(),
        nodes: view.nodes.iter().map(|node| name(node).to_owned()).collect(),
    }
}

fn candidates(root: &Command, words: &[String], names: &Names) -> (Vec<String>, &'static str) {
    let Some((last, before)) = words.split_last() else { return (Vec::new(), NO_FILES) };
    let mut command = root;
    let mut path = Vec::new();
    let mut given = Vec::new();
    let mut awaited: Option<&Arg> = None;
    for word in before {
        if awaited.take().is_some() {
            continue;
        }
        if let Some(flag) = flag(command, word) {
            awaited = Some(flag).filter(|flag| flag.get_action().takes_values());
        } else if let Some(below) = command.find_subcommand(word) {
            command = below;
            path.push(below.get_name());
            given.clear();
        } else if !word.starts_with('-') {
            given.push(word.as_str());
        }
    }
    let (all, directive) = match awaited {
        Some(flag) => values(flag, &path, &given, names),
        None if last.starts_with('-') => (flags(command), NO_FILES),
        None if command.has_subcommands() => {
            let below = command.get_subcommands().filter(|below| !below.is_hide_set());
            (below.map(|below| below.get_name().to_owned()).collect(), NO_FILES)
        }
        None => (objects(&path, &given, names), NO_FILES),
    };
    (all.into_iter().filter(|one| one.starts_with(last.as_str())).collect(), directive)
}

fn flag<'a>(command: &'a Command, word: &str) -> Option<&'a Arg> {
    command.get_arguments().find(|one| {
        let long = one.get_long().is_some_and(|long| word == format!("--{long}"));
        long || one.get_short().is_some_and(|short| word == format!("-{short}"))
    })
}

fn flags(command: &Command) -> Vec<String> {
    let shown = command.get_arguments().filter(|one| !one.is_hide_set());
    shown.filter_map(|one| one.get_long()).map(|long| format!("--{long}")).collect()
}

fn values(flag: &Arg, path: &[&str], given: &[&str], names: &Names) -> (Vec<String>, &'static str) {
    match flag.get_id().as_str() {
        "node" => (names.nodes.clone(), NO_FILES),
        "to" if path == ["failover"] => (machines(given.first(), names), NO_FILES),
        "files" | "token_file" => (Vec::new(), FILES),
        _ => (flag.get_possible_values().iter().map(|one| one.get_name().to_owned()).collect(), NO_FILES),
    }
}

fn objects(path: &[&str], given: &[&str], names: &Names) -> Vec<String> {
    let gateways = || names.gateways.keys().cloned();
    match (path, given.len()) {
        (["status"], 0) => gateways()
            .chain(names.routes.iter().filter(|one| !names.gateways.contains_key(*one)).cloned())
            .collect(),
        (["failover" | "drain" | "uncordon"], 0) => gateways().collect(),
        (["drain" | "uncordon"], 1) => machines(given.first(), names),
        _ => Vec::new(),
    }
}

fn machines(gateway: Option<&&str>, names: &Names) -> Vec<String> {
    gateway.and_then(|gateway| names.gateways.get(*gateway)).cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn told(words: &[&str]) -> (Vec<String>, &'static str) {
        let names = Names {
            gateways: [
                ("demo".to_owned(), vec!["demo-0-uid".to_owned(), "demo-1-uid".to_owned()]),
                ("other".to_owned(), vec![]),
            ]
            .into(),
            routes: vec!["demo".to_owned(), "mine".to_owned()],
            nodes: vec!["node-1".to_owned(), "pool".to_owned()],
        };
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        candidates(&crate::Arguments::command(), &words, &names)
    }

    #[test]
    fn commands_flags_values_and_names_are_completed() {
        let table: [(&[&str], &[&str]); 11] = [
            (&["st"], &["status"]),
            (&["migrate", ""], &["older-operator", "blueprint"]),
            (&["status", ""], &["demo", "other", "mine"]),
            (&["status", "--al"], &["--all"]),
            (&["status", "-o", ""], &["table", "json", "yaml"]),
            (&["trace", "192.0.2.1", "--node", "n"], &["node-1"]),
            (&["failover", "d"], &["demo"]),
            (&["failover", "demo", "--to", ""], &["demo-0-uid", "demo-1-uid"]),
            (&["drain", "-y", "demo", "demo-1"], &["demo-1-uid"]),
            (&["drain", "nobody", ""], &[]),
            (&["__"], &[]),
        ];
        for (words, expected) in table {
            assert_eq!(told(words).0, expected, "{words:?}");
        }
        assert_eq!(told(&["plan", "-f", ""]).1, FILES);
        assert_eq!(told(&["status", ""]).1, NO_FILES);
    }

    #[test]
    fn every_command_has_help_with_examples() {
        let all = crate::Arguments::command();
        let mut left: Vec<&Command> = all.get_subcommands().collect();
        let mut seen = 0;
        while let Some(command) = left.pop() {
            let below: Vec<&Command> = command.get_subcommands().collect();
            if command.is_hide_set() {
                continue;
            }
            if below.is_empty() {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains("Examples:\n  kubectl egress "), "{}: {help}", command.get_name());
                assert!(command.get_about().is_some(), "{}", command.get_name());
                seen += 1;
            }
            left.extend(below);
        }
        assert!(seen >= 11, "{seen}");
        crate::Arguments::command().debug_assert();
    }
}
